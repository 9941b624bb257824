"""An array in several files, of which no more is in memory than is in use."""

from collections.abc import Sequence

import numpy as np

__all__ = ["Shards"]


class Shards:
    """Memory-mapped arrays (N_i, D) end to end as one, read-only, (sum of N_i, D).

    A slice is copied out of a mapping of its own rows only, which ends at once. What a process
    holds then depends on what it uses, not on how much of the files it has ever read, and neither
    does the number of open files.

    Args:
        arrays: as `numpy.load(..., mmap_mode="r")` gives them, of one D and dtype.
    """

    ndim = 2

    def __init__(self, arrays: Sequence[np.memmap]) -> None:
        self.files = [(str(array.filename), array.offset) for array in arrays]
        self.bounds = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        self.dtype = arrays[0].dtype
        self.shape = (int(self.bounds[-1]), arrays[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Returns a copy of rows, which must lie in one file."""
        start, stop, step = rows.indices(len(self))
        shape = (max(0, stop - start), self.shape[1])
        if shape[0] == 0:
            return np.zeros(shape, self.dtype)
        i = int(np.searchsorted(self.bounds, start, side="right")) - 1
        assert step == 1 and stop <= self.bounds[i + 1], "rows of two shards"
        file, offset = self.files[i]
        offset += int(start - self.bounds[i]) * self.shape[1] * self.dtype.itemsize
        return np.array(np.memmap(file, self.dtype, "r", offset, shape))
