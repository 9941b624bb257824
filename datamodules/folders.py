"""Your own data: a folder of sequences in csv, npy or npz files."""

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.progress import track

from datamodules.base import SequenceData
from datamodules.problems import check_missing, report, some
from datamodules.ragged import Ragged
from datamodules.sequence_files import SPLITS, Found, read_arrays, read_csv

__all__ = ["CSVFolder", "NPZFolder", "SequenceFolder", "Stroke3"]

log = logging.getLogger(__name__)

LISTS = ("splits.csv", "splits.json")

HELD_BACK = 0.05


class Item(NamedTuple):
    file: str
    """Relative to the root, with slashes."""
    found: Found

    @property
    def key(self) -> str:
        return f"{self.file}:{self.found.key}" if self.found.key else self.file

    @property
    def names(self) -> tuple[str, ...]:
        """By which a list of splits may name it."""
        return self.key, self.file, self.file.rpartition(".")[0]


class SequenceFolder(SequenceData):
    """Base of folders of sequences: files below `root`, in sub-folders too.

    The splits are those of splits.csv (lines `name,split`) or splits.json ({name: split}) in
    `root`, where there is one; a name is a file's path below `root`, with or without its suffix,
    and a split train, val or test. Else they are those that the files themselves name. Else 5 % of
    the files, at least one, are held back for validation and as many for the test; of a single
    file, its sequences.

    Args:
        root: the folder.
        split_seed: of the choice of files.
        missing: what to do about files that cannot be used, and names of files that are not there:
            "error" or "skip".
        rate: frames a second, for pictures.
        **kwargs: of `SequenceData`.
    """

    kind = "real"
    suffixes: tuple[str, ...]
    read: Callable[[Path], list[Found]]

    def __init__(
        self,
        root: str | Path,
        split_seed: int = 0,
        missing: Literal["error", "skip"] = "error",
        rate: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_missing(missing)
        self.root = Path(root).expanduser()
        self.split_seed, self.missing, self.rate = split_seed, missing, rate

    def load(self) -> dict[str, Ragged]:
        items, broken = self.read_items()
        chosen = self.choose(items, broken)
        return {
            split: Ragged.from_sequences(
                [self.frames(item.found.x) for item in part], [item.key for item in part]
            )
            for split, part in chosen.items()
        }

    def frames(self, x: np.ndarray) -> np.ndarray:
        """What the model sees of a file's sequence (T, D)."""
        return x

    def read_items(self) -> tuple[list[Item], set[str]]:
        """All sequences, those of files that cannot be used left out, and the names of these."""
        files = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in self.suffixes
            and path.is_file()
            and path != self.root / LISTS[0]
            and not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        )
        if not files:
            raise FileNotFoundError(
                f"there are no {' or '.join(self.suffixes)} files in {self.root.absolute()}; name "
                "the folder by data.root=<folder>"
            )
        items: list[Item] = []
        problems: dict[str, str] = {}
        for path in track(files, f"reading {self.root.name}", transient=True):
            name = path.relative_to(self.root).as_posix()
            try:
                items += [Item(name, found) for found in type(self).read(path)]
            except (ValueError, OSError) as error:
                problems[name] = str(error)
        problems |= self.settle_columns(items)
        report(list(problems.values()), len(files), self.missing)
        return [item for item in items if item.file not in problems], set(problems)

    def settle_columns(self, items: list[Item]) -> dict[str, str]:
        """Takes the columns that most sequences have, and says which files have others."""
        layouts = Counter((i.found.x.shape[1], i.found.columns) for i in items)
        if not layouts:
            return {}
        (width, names), _ = layouts.most_common(1)[0]
        self.columns = names or tuple(f"x{d}" for d in range(width))
        wanted = ", ".join(names) if names else str(width)
        return {
            i.file: f"{self.root / i.file} has the columns "
            f"{', '.join(i.found.columns) or i.found.x.shape[1]} where most files have {wanted}"
            for i in items
            if (i.found.x.shape[1], i.found.columns) != (width, names)
        }

    def choose(self, items: list[Item], broken: set[str]) -> dict[str, list[Item]]:
        lists = [self.root / name for name in LISTS if (self.root / name).is_file()]
        if len(lists) > 1:
            raise ValueError(f"{self.root} has both {' and '.join(LISTS)}; keep one")
        if lists:
            return self.listed(lists[0], items, broken)
        named = [item for item in items if item.found.split is not None]
        if named and len(named) < len(items):
            others = some([item.key for item in items if item.found.split is None])
            raise ValueError(
                f"some arrays in {self.root} are named train, val or test, others not: {others}; "
                "name all or none, or list the splits in splits.csv"
            )
        if named:
            return by_split([(item, item.found.split) for item in items])
        return self.drawn(items)

    def listed(self, path: Path, items: list[Item], broken: set[str]) -> dict[str, list[Item]]:
        """The splits of a list."""
        splits = read_splits(path)
        pairs = [(i, next((splits[n] for n in i.names if n in splits), None)) for i in items]
        known = {name for item in items for name in item.names}
        known |= broken | {name.rpartition(".")[0] for name in broken}
        absent = [
            f"{path} names {name}, which is not there" for name in splits if name not in known
        ]
        report(absent, len(splits), self.missing)
        unlisted = [item.key for item, split in pairs if split is None]
        if unlisted:
            log.warning("%d sequences are not in %s: %s", len(unlisted), path, some(unlisted))
        return by_split(pairs)

    def drawn(self, items: list[Item]) -> dict[str, list[Item]]:
        """A seeded split by file, or by sequence of a single file."""
        units = sorted({item.file for item in items})
        if len(units) == 1:
            units = sorted({item.key for item in items})
        n = max(1, round(HELD_BACK * len(units)))
        if len(units) < 3:
            raise ValueError(
                f"{self.root} has {len(units)} sequences to be used, too few for three splits"
            )
        order = np.random.default_rng(self.split_seed).permutation(len(units))
        split_of = {units[j]: split_at(place, n) for place, j in enumerate(order)}
        return by_split([(i, split_of.get(i.file) or split_of[i.key]) for i in items])


class CSVFolder(SequenceFolder):
    """A .csv file a sequence, a frame a line (`read_csv`)."""

    name = "csv_folder"
    suffixes = (".csv",)
    read = staticmethod(read_csv)


class NPZFolder(SequenceFolder):
    """.npy and .npz files without pickled objects (`read_arrays`)."""

    name = "npz_folder"
    suffixes = (".npy", ".npz")
    read = staticmethod(read_arrays)


class Stroke3(NPZFolder):
    """Drawings in the form of sketch-rnn, frames [dx, dy, pen], in files as of `NPZFolder`; pen is
    1 on a stroke's last point.

    Args:
        y_down: the files' y grows downwards, as in Quick, Draw!; ours grows upwards.
        **kwargs: of `SequenceFolder`.

    References:
        A Neural Representation of Sketch Drawings (Ha and Eck, 2017),
        https://arxiv.org/abs/1704.03477
    """

    name = "stroke3"
    kind = "pen"
    binary = (0,)

    def __init__(self, root: str | Path, y_down: bool = True, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.y_down = y_down

    def settle_columns(self, items: list[Item]) -> dict[str, str]:
        self.columns = ("pen", "dx", "dy")
        return {i.file: f"{self.root / i.file}: {why}" for i in items if (why := no_stroke3(i))}

    def frames(self, x: np.ndarray) -> np.ndarray:
        return np.stack([x[:, 2], x[:, 0], -x[:, 1] if self.y_down else x[:, 1]], axis=1)


def no_stroke3(item: Item) -> str | None:
    """What is wrong with a sequence that should be [dx, dy, pen]."""
    x, key = item.found.x, item.found.key
    name = f"{key} " if key else ""
    if x.shape[1] != 3:
        return f"{name}has frames of {x.shape[1]} numbers, not [dx, dy, pen]"
    if not np.isin(x[:, 2], (0, 1)).all():
        return f"{name}has a third column, the pen, of other values than 0 and 1"
    return None


def split_at(place: int, n: int) -> str:
    """The split of a place in a shuffled order: n for validation, n for the test, the rest."""
    return "val" if place < n else "test" if place < 2 * n else "train"


def by_split(pairs: Sequence[tuple[Item, str | None]]) -> dict[str, list[Item]]:
    return {
        split: [item for item, its in pairs if its == split] for split in ("train", "val", "test")
    }


def read_splits(path: Path) -> dict[str, str]:
    """Reads names and their splits from a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            content = json.loads(text)
            rows = list(content.items()) if isinstance(content, dict) else [content]
        else:
            rows = [tuple(row) for row in csv.reader(text.splitlines()) if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if rows[:1] == [("name", "split")]:
        rows = rows[1:]
    splits: dict[str, str] = {}
    for row in rows:
        name, split = map(str, row) if isinstance(row, tuple) and len(row) == 2 else ("", "")
        name, split = name.strip(), split.strip()
        if split not in SPLITS or name in splits:
            raise ValueError(
                f"{path}: {row!r} is not a name, once, and its split, one of train, val, test"
            )
        splits[name] = SPLITS[split]
    return splits
