"""Sequences in files of no particular corpus: csv, npy and npz without pickled objects."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from datamodules.files.splits import ALIASES

__all__ = ["Found", "read_arrays", "read_csv", "unnamed"]

PICKLED = (
    "holds pickled Python objects, which can run code when they are read. If you trust the file, "
    "convert it once: d = np.load(f, allow_pickle=True, encoding='latin1'); np.savez('plain.npz', "
    "**{k: np.concatenate(list(d[k])) for k in d}, **{k + '_lengths': [len(s) for s in d[k]] for "
    "k in d})"
)


class Found(NamedTuple):
    """A sequence in a file."""

    x: np.ndarray
    """(T, D)."""
    key: str = ""
    """Which one of the file's, "" if it is the only one."""
    columns: tuple[str, ...] = ()
    """Names of the coordinates, if the file has them."""
    split: str | None = None
    """"train", "val" or "test", if the file says so."""


def read_csv(path: Path, *columns: str) -> list[Found]:
    """Reads one sequence, a frame a line, numbers separated by commas; a first line of names is
    recognised by its first cell, which is no number.

    Args:
        columns: those to read, by name; none for all. Without a first line of names they are x0,
            x1, ...

    Raises:
        ValueError: naming the line that has another number of cells, a cell that is no finite
            number, or a column that is not there.
    """
    rows: list[list[float]] = []
    names: tuple[str, ...] = ()
    width = 0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            for cells in lines:
                if not any(cell.strip() for cell in cells):
                    continue
                if not width:
                    width = len(cells)
                    if not is_number(cells[0]):
                        names = tuple(cell.strip() for cell in cells)
                    places = choose(path, names or unnamed(width), columns)
                    if names:
                        continue
                try:
                    rows.append(numbers(cells, width, places))
                except ValueError as error:
                    where = f"{path}, line {lines.line_num}"
                    raise ValueError(f"{where}: {error}{separated_otherwise(cells)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no text of comma-separated numbers ({error})") from error
    if not rows:
        raise ValueError(f"{path} has no frames")
    return [Found(np.array(rows), columns=columns or names)]


def unnamed(width: int) -> tuple[str, ...]:
    """What columns without names are called."""
    return tuple(f"x{d}" for d in range(width))


def choose(where: object, names: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where the columns are that are to be read."""
    for column in columns:
        if column not in names:
            raise ValueError(f"{where} has no column {column}, only {', '.join(names)}")
    return [names.index(column) for column in columns or names]


def separated_otherwise(cells: Sequence[str]) -> str:
    """Says so of a line whose cells are, as spreadsheets of many languages write them."""
    found = next((s for s in (";", "\t") if any(s in cell for cell in cells)), None)
    return f"; numbers are separated by commas, not by {found!r}" if found else ""


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def numbers(line: list[str], width: int, places: Sequence[int]) -> list[float]:
    if len(line) != width:
        raise ValueError(f"{len(line)} cells where the lines before have {width}")
    cells = [line[d] for d in places]
    try:
        values = [*map(float, cells)]
        if all(map(math.isfinite, values)):
            return values
    except ValueError:
        pass
    bad = next(cell for cell in cells if not is_number(cell) or not math.isfinite(float(cell)))
    raise ValueError(f"{bad!r} is no finite number")


def read_arrays(path: Path, *columns: str) -> list[Found]:
    """Reads the sequences of a .npy or .npz file.

    A .npy file holds one sequence, (T, D), or (T,) for D = 1. In a .npz file every array is such a
    sequence, except that `a` with `a_lengths` are many: (sum of lengths, D) end to end. Arrays
    named train, val (or valid) and test are the splits.

    Args:
        columns: those to read, of x0, x1, ...; none for all.

    Raises:
        ValueError: if the file is damaged, pickled, or an array is not finite numbers of that
            shape.
    """
    found = []
    with open(path, "rb") as file:
        try:
            arrays = dict(members(file))
        except Exception as error:  # whatever a damaged file leads numpy to
            if str(error).startswith("Object arrays"):
                raise ValueError(f"{path} {PICKLED}") from error
            raise ValueError(f"{path} is no .npy or .npz file, or damaged") from error
    for name, array in arrays.items():
        owner = name.removesuffix("_lengths")
        if owner != name and owner in arrays:
            continue
        where = f"{path}, {name}" if name else str(path)
        x = checked(where, array, columns)
        split = ALIASES.get(name)
        lengths = arrays.get(f"{name}_lengths")
        if lengths is None:
            found.append(Found(x, name, columns, split))
            continue
        for i, part in enumerate(sequences_of(where, x, lengths)):
            found.append(Found(part, f"{name}-{i:05d}", columns, split))
    if not found:
        raise ValueError(f"{path} has no arrays")
    return found


def members(file: IO[bytes]) -> Iterator[tuple[str, np.ndarray]]:
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        yield "", content
    else:
        yield from content.items()


def checked(where: str, array: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    """The array as (T, D) in float32 or float64, of the columns that are to be read."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where} holds {array.dtype}, not numbers")
    x = array[:, None] if array.ndim == 1 else array
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{where} must be an array (T, D), not {array.shape}")
    if len(x) == 0:
        raise ValueError(f"{where} has no frames")
    places = choose(where, unnamed(x.shape[1]), columns)
    x = x[:, places]
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        t, d = bad[0]
        raise ValueError(f"{where}: frame {t}, coordinate {places[d]} is {x[t, d]}, not finite")
    return x.astype(np.result_type(x.dtype, np.float32))


def sequences_of(where: str, x: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    whole = lengths.ndim == 1 and lengths.dtype.kind in "iu" and lengths.sum() == len(x)
    if not whole or (lengths < 1).any():
        raise ValueError(
            f"{where}_lengths must be whole numbers above 0 whose sum is {len(x)}, the frames of "
            f"{where.rpartition(', ')[2]}"
        )
    return np.split(x, np.cumsum(lengths)[:-1])
