"""A corpus whose samples count upwards, and the batches of an epoch."""

import numpy as np

from datamodules.base import SequenceData
from datamodules.order import LengthBatches
from datamodules.ragged import Ragged


class Signals(SequenceData):
    """Frames of a bit and two numbers, from memory."""

    name = "signals"
    kind = "real"
    columns = ("bit", "a", "b")
    binary = (0,)
    rate = 1.0

    def __init__(self, splits: dict[str, list[np.ndarray]], **options: object) -> None:
        super().__init__(**options)
        self.given = splits

    def load(self) -> dict[str, Ragged]:
        return {
            split: Ragged.from_sequences(sequences, map(str, range(len(sequences))))
            for split, sequences in self.given.items()
        }


def signals(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = (rng.normal(3, 2, (length, 3)) for length in rng.integers(1, 9, n))
    return [np.float32(np.concatenate([x[:, :1] > 3, x[:, 1:]], axis=1)) for x in frames]


def epoch(batches: LengthBatches, number: int) -> list[list[int]]:
    batches.set_epoch(number)
    return [batch.sequence.tolist() for batch in batches]
