"""Sound as frames of consecutive samples."""

from typing import Any

import numpy as np

from datamodules.base import SequenceData
from datamodules.ragged import Ragged
from vrnn.arguments import check_counts

__all__ = ["AudioFrames", "sound_moments"]

CHUNK = 2**20


class AudioFrames(SequenceData):
    """Base of all sound: frames of consecutive 16-bit samples.

    Args:
        frame: D, samples a frame.
        rate: samples a second.
        normaliser: "global", one mean and one standard deviation of all training samples, as in
            the paper, or "none".
        **kwargs: of `SequenceData`.
    """

    kind = "audio"

    def __init__(
        self, frame: int = 200, rate: int = 16000, normaliser: str = "global", **kwargs: Any
    ) -> None:
        super().__init__(normaliser=normaliser, **kwargs)
        check_counts("data.", frame=frame, rate=rate)

        self.rate = float(rate)
        self.columns = tuple(map(str, range(frame)))

    def statistics(self, train: Ragged) -> tuple[np.ndarray, np.ndarray]:
        if self.normaliser not in ("global", "none"):
            raise ValueError(f"data.normaliser={self.normaliser} is not one of global, none")
        if self.normaliser == "none":
            return np.zeros(self.x_dim), np.ones(self.x_dim)
        mean, std = sound_moments(train)
        if std == 0:
            raise ValueError(
                f"data={self.name}: the training split is silent, all its samples are {mean:g}"
            )
        return np.full(self.x_dim, mean), np.full(self.x_dim, std)


def sound_moments(sequences: Ragged) -> tuple[float, float]:
    """Mean and standard deviation of all samples, exact up to the last rounding.

    Sums of a chunk are whole numbers below 2^53, hence exact in float64, and the sum of chunks is
    one of Python's integers.
    """
    n = total = square = 0
    rows = max(1, CHUNK // sequences.values.shape[1])
    for i, length in enumerate(sequences.lengths):
        for start in range(0, int(length), rows):
            x = sequences.piece(i, start, start + rows).astype(np.float64).reshape(-1)
            n += len(x)
            total += int(x.sum())
            square += int(x @ x)
    return total / n, float(np.sqrt((n * square - total**2) / n**2))
