"""Sequences of different length in one array, and its cache on disk."""

import hashlib
import json
import logging
import os
import shutil
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from datamodules.shards import Shards

__all__ = ["Ragged", "cache_folder", "cached"]

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
            values = load(folder / "values.npy", mapped=True).view(np.ndarray)
            return cls(
                values=values,
                starts=load(folder / "starts.npy"),
                lengths=load(folder / "lengths.npy"),
                keys=meta["keys"],
                labels={name: load(folder / f"label-{name}.npy") for name in meta["labels"]},
            )
        except DAMAGED as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{folder} is damaged: {why}") from error


def cache_folder(folder: Path, fingerprint: Mapping[str, object]) -> Path:
    """Returns where `cached` keeps what the fingerprint describes."""
    text = json.dumps(fingerprint, sort_keys=True)
    return folder / hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(folder: Path, fingerprint: Mapping[str, object], build: Callable[[], Ragged]) -> Ragged:
    """Opens the cache of what the fingerprint describes, or builds and saves it.

    Of several processes that ask at once, one builds and the others wait. A cache that is there
    is opened without a lock, hence also from a read-only folder; a damaged one is rebuilt.

    Args:
        folder: holds one sub-folder per fingerprint.
        fingerprint: all that the result depends on, as JSON-compatible values.
        build: makes the sequences; what it raises is passed on.

    Raises:
        OSError: if the cache cannot be written. Nothing is left behind.
    """
    target = cache_folder(folder, fingerprint)
    name = target.name
    found = open_if_whole(target)
    if found is not None:
        return found
    lock = FileLock(folder / f".{name}.lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        acquire(lock)
    try:
        found = open_if_whole(target, warn=True)
        if found is not None:
            return found
        for leftover in folder.glob(f".{name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        built = build()
        with writing(folder):
            built.save(target)
        return Ragged.open(target)
    finally:
        lock.release()


def acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that builds the cache (%s)", lock.lock_file)
        lock.acquire()


def open_if_whole(folder: Path, warn: bool = False) -> Ragged | None:
    if not folder.exists():
        return None
    try:
        return Ragged.open(folder)
    except (ValueError, FileNotFoundError) as error:
        if warn:
            log.warning("rebuilding a cache: %s", error)
        return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"the cache folder {folder.absolute()} cannot be written "
            f"({error.strerror or error}): choose another one by data.cache=<folder>"
        ) from error


def load(path: Path, mapped: bool = False) -> np.ndarray:
    with warnings.catch_warnings():
        # Of a header that numpy can make sense of nevertheless; ours are whole.
        warnings.simplefilter("error", UserWarning)
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array


def sibling(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
