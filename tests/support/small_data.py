"""Small corpora of kinds that are otherwise read from disk."""

from typing import Any

import numpy as np

from datamodules.base import SequenceData
from datamodules.ragged import Ragged

SPLITS = {"train": 12, "val": 3, "test": 4}


class Tones(SequenceData):
    """Noisy tones of 16 bits, frames of four samples; `step` other than 1 leaves the levels."""

    name = "tones"
    kind = "audio"
    columns = ("0", "1", "2", "3")
    rate = 16000.0

    def __init__(self, step: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step

    def load(self) -> dict[str, Ragged]:
        return {split: self.tones(split, n) for split, n in SPLITS.items()}

    def tones(self, split: str, n: int) -> Ragged:
        rng = np.random.default_rng(n)
        phase = 0.1 * np.arange(40) * rng.uniform(1, 3, (n, 1)) + rng.uniform(0, 6, (n, 1))
        samples = 3000 * np.sin(phase) + 100 * rng.standard_normal((n, 40))
        frames = samples.round().reshape(n, 10, 4) * self.step
        frames = frames.astype(np.int16 if self.step == 1 else np.float32)
        return Ragged.from_sequences(list(frames), [f"{split}-{i}" for i in range(n)])


class Rolls(SequenceData):
    """Rolls of four keys that are only ever pressed together."""

    name = "rolls"
    kind = "binary"
    columns = ("0", "1", "2", "3")
    binary = (0, 1, 2, 3)
    rate = 4.0

    def load(self) -> dict[str, Ragged]:
        rng = np.random.default_rng(0)
        return {
            split: Ragged.from_sequences(
                [
                    np.repeat(rng.integers(0, 2, (12, 1)), 4, axis=1).astype(np.uint8)
                    for _ in range(n)
                ],
                [f"{split}-{i}" for i in range(n)],
            )
            for split, n in SPLITS.items()
        }
