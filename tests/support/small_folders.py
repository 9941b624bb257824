"""Small folders of sequences, and what is read from them."""

import numpy as np

from datamodules.base import SequenceData


def opened(data: SequenceData) -> SequenceData:
    data.setup()
    return data


def contents(data: SequenceData) -> dict[str, np.ndarray]:
    return {
        key: x for part in data.splits.values() for key, x in zip(part.keys, part, strict=True)
    }


def keys(data: SequenceData) -> dict[str, list[str]]:
    return {split: part.keys for split, part in data.splits.items()}
