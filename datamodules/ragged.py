"""Sequences of different length in one array, and its cache on disk."""

import json
import logging
import os
import shutil
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

__all__ = ["Ragged", "Shards"]


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


log = logging.getLogger(__name__)

FORMAT = 1

DAMAGED = (
    UserWarning,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    SyntaxError,
    OverflowError,
    MemoryError,
    AttributeError,
    tokenize.TokenError,
)
"""What NumPy and json raise on a file that is not whole, whatever its header has become."""


@dataclass(frozen=True, eq=False)
class Ragged:
    r"""Sequences s_i of shape (T_i, D), laid end to end in one array.

    .. math:: s_i = \mathrm{values}[\mathrm{starts}_i : \mathrm{starts}_i + \mathrm{lengths}_i]

    Args:
        values: all time steps (N, D); may be memory-mapped, then read-only, and lie in
            several files.
        starts: the first row of each sequence (n,).
        lengths: the number of steps of each sequence (n,).
        keys: an identifier for each sequence.
        labels: annotations by name, each (n,).

    Example:
        >>> r = Ragged.from_sequences([np.zeros((2, 3)), np.ones((5, 3))], keys=["a", "b"])
        >>> r
        Ragged(2 sequences of 2 to 5 steps, D=3, float64, labels: none)
        >>> r.select([1])[0].shape
        (5, 3)
    """

    values: np.ndarray | Shards
    starts: np.ndarray
    lengths: np.ndarray
    keys: list[str]
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"values must be an array (N, D), not of shape {self.values.shape}")
        columns = {"starts": self.starts, "lengths": self.lengths, **self.labels}
        for name, column in columns.items():
            if column.shape != (len(self.keys),):
                raise ValueError(f"{name} has shape {column.shape} for {len(self.keys)} keys")
        stops = self.starts + self.lengths
        if len(self) and not (
            self.starts.min() >= 0 and self.lengths.min() >= 0 and stops.max() <= len(self.values)
        ):
            raise ValueError(f"a sequence lies outside of the {len(self.values)} rows of values")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> np.ndarray:
        """Returns sequence i, a view (T_i, D) of the values, or a copy from shards."""
        start = self.starts[i]
        return self.values[start : start + self.lengths[i]]

    def piece(self, i: int, start: int, stop: int) -> np.ndarray:
        """Returns steps start to stop of sequence i, reading no others."""
        start, stop, _ = slice(start, stop).indices(int(self.lengths[i]))
        first = self.starts[i]
        return self.values[first + start : first + max(start, stop)]

    def __repr__(self) -> str:
        span = f" of {self.lengths.min()} to {self.lengths.max()} steps" if len(self) else ""
        labels = ", ".join(self.labels) or "none"
        return (
            f"Ragged({len(self)} sequences{span}, D={self.values.shape[1]}, "
            f"{self.values.dtype}, labels: {labels})"
        )

    def select(self, indices: Sequence[int] | np.ndarray) -> "Ragged":
        """Returns the sequences at these indices, in this order, sharing the values."""
        index = np.asarray(indices, dtype=np.int64)
        return Ragged(
            values=self.values,
            starts=self.starts[index],
            lengths=self.lengths[index],
            keys=[self.keys[i] for i in index],
            labels={name: column[index] for name, column in self.labels.items()},
        )

    def windows(self, steps: int) -> "Ragged":
        """Cuts each sequence into consecutive windows of so many steps, the last one shorter.

        Windows keep the key of their sequence: a corpus may have millions of them.
        """
        counts = -(-self.lengths // steps)
        index = np.repeat(np.arange(len(self)), counts)
        offset = steps * (np.arange(len(index)) - np.repeat(counts.cumsum() - counts, counts))
        whole = self.select(index)
        return replace(
            whole,
            starts=whole.starts + offset,
            lengths=np.minimum(whole.lengths - offset, steps),
        )

    def joined(self) -> np.ndarray:
        """Returns a copy of the steps of these sequences only (sum of T_i, D)."""
        return np.concatenate([self.values[:0], *self])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[np.ndarray],
        keys: Iterable[str],
        labels: Mapping[str, Sequence[object] | np.ndarray] | None = None,
    ) -> "Ragged":
        """Lays sequences (T_i, D) of one D and dtype end to end."""
        parts = list(sequences)
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        return cls(
            values=np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            keys=list(keys),
            labels={name: np.asarray(column) for name, column in (labels or {}).items()},
        )

    def save(self, folder: Path) -> None:
        """Writes to a folder, replacing it as a whole: no reader ever sees half of it.

        Raises:
            OSError: if the disk is full or the parent folder cannot be written.
            ValueError: if a label holds Python objects.
        """
        assert isinstance(self.values, np.ndarray), "shards are saved one by one"
        partial = sibling(folder)
        try:
            partial.mkdir(parents=True)
            arrays = {"values": self.values, "starts": self.starts, "lengths": self.lengths}
            arrays |= {f"label-{name}": column for name, column in self.labels.items()}
            for name, array in arrays.items():
                with open(partial / f"{name}.npy", "xb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            with open(partial / "meta.json", "x", encoding="utf-8") as file:
                json.dump({"format": FORMAT, "keys": self.keys, "labels": [*self.labels]}, file)
                file.flush()
                os.fsync(file.fileno())
            if folder.exists():
                outdated = sibling(folder)
                folder.rename(outdated)
                partial.rename(folder)
                shutil.rmtree(outdated)
            else:
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> "Ragged":
        """Opens what `save` wrote, the values memory-mapped and read-only.

        Raises:
            FileNotFoundError: if the folder or a file in it is missing.
            ValueError: if a file is truncated, or not what `save` writes.
        """
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']} instead of {FORMAT}")
            # A bare ndarray on the mapping: slices of np.memmap cost several times as much.
            values = read_array(folder / "values.npy", mapped=True).view(np.ndarray)
            return cls(
                values=values,
                starts=read_array(folder / "starts.npy"),
                lengths=read_array(folder / "lengths.npy"),
                keys=meta["keys"],
                labels={name: read_array(folder / f"label-{name}.npy") for name in meta["labels"]},
            )
        except DAMAGED as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{folder} is damaged: {why}") from error


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    with warnings.catch_warnings():
        # Of a header that numpy can make sense of nevertheless; ours are whole.
        warnings.simplefilter("error", UserWarning)
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array


def sibling(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
