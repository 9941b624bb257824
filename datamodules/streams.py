"""Long recordings as rows of consecutive windows, for truncated back-propagation."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

__all__ = ["StreamBatches", "Windows"]


class Windows(NamedTuple):
    """The windows of one batch, one a row, each (B,)."""

    sequence: np.ndarray
    """Which sequence it is cut from; -1 where the row has come to its end before the others."""
    start: np.ndarray
    """Its first frame in that sequence."""
    continues: np.ndarray
    """True where it goes on from the window that the row had in the batch before."""


class StreamBatches(Sampler[Windows]):
    """Every sequence cut into windows, laid end to end on as many rows as a batch has, over all
    ranks.

    Batch j holds the j-th window of every row. A row goes on from its last window unless a new
    sequence begins, or `reset` batches have passed since it was last started anew. The order is
    that of the sequences, the same in every epoch, as in the original code.

    Args:
        lengths: (N,), frames of each sequence.
        window: frames of a window; a sequence's last one is shorter where it does not divide.
        batch_size: rows of this rank.
        reset: batches after which all rows start anew.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        window: int,
        batch_size: int,
        reset: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if window < 1 or reset < 1:
            raise ValueError(f"window={window} and reset={reset} must be at least 1")

        self.reset = reset
        counts = -(-lengths // window)
        sequence = np.repeat(np.arange(len(lengths)), counts)
        start = window * (np.arange(len(sequence)) - np.repeat(counts.cumsum() - counts, counts))
        rows = batch_size * world
        # Rows differ by one window at most, the longer ones first.
        whole, rest = divmod(len(sequence), rows)
        bounds = whole * np.arange(rows + 1) + np.minimum(np.arange(rows + 1), rest)
        own = slice(rank * batch_size, (rank + 1) * batch_size)
        self.sequence, self.start = sequence, start
        self.first, self.last = bounds[:-1][own], bounds[1:][own]
        self.batches = -(-len(sequence) // rows)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Windows]:
        return (self.batch(j) for j in range(self.batches))

    def batch(self, j: int) -> Windows:
        """The j-th window of every row of this rank."""
        place = self.first + j
        there = place < self.last
        place = np.where(there, place, 0)
        continues = there & (self.start[place] > 0) & (j % self.reset > 0)
        return Windows(np.where(there, self.sequence[place], -1), self.start[place], continues)
