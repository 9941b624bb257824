"""Your own data: a folder of sequences in csv, npy or npz files."""

import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from datamodules.base import SequenceData
from datamodules.files.arrays import Found, read_arrays, read_csv, unnamed
from datamodules.files.cache import cache_root, cached, stamps
from datamodules.files.problems import Missing, check_missing, report, some
from datamodules.files.splits import SPLITS, read_splits, shares
from datamodules.ragged import Ragged

__all__ = ["CSVFolder", "ColumnsFolder", "NPZFolder", "SequenceFolder", "Stroke3"]

log = logging.getLogger(__name__)

LISTS = ("splits.csv", "splits.json")

HELD_BACK = 0.05

VERSION = 1
"""Counts in the caches' recipes: raise it whenever the same files give other frames."""


class Item(NamedTuple):
    file: str
    """Relative to the root, with slashes."""
    found: Found

    @property
    def key(self) -> str:
        return f"{self.file}:{self.found.key}" if self.found.key else self.file


class SequenceFolder(SequenceData):
    """Base of folders of sequences: files below `root`, in sub-folders too.

    The splits are those of splits.csv (lines `name,split`) or splits.json ({name: split}) in
    `root`, where there is one; a name is a file's path below `root`, with or without its suffix,
    and a split train, val or test. Else they are those that the files themselves name. Else 5 % of
    the files, at least one, are held back for validation and as many for the test; of a single
    file, its sequences. Whose they are is not known: one person's may be in several splits.

    Args:
        root: the folder.
        split_seed: of the choice of files.
        missing: what to do about files that cannot be used, and names of files that are not there:
            "error" or "skip".
        rate: frames a second, for pictures.
        cache: folder of the sequences as read; None for <root>/.vrnn-cache.
        **kwargs: of `SequenceData`.
    """

    kind = "real"
    splits_by = f"copy {{}} to {LISTS[0]} in data.root"
    suffixes: tuple[str, ...]
    read: Callable[..., list[Found]]
    chosen: tuple[str, ...] = ()

    def __init__(
        self,
        root: str | Path,
        split_seed: int = 0,
        missing: Missing = "error",
        rate: float = 1.0,
        cache: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_missing(missing)
        self.root = Path(root).expanduser()
        self.split_seed, self.missing, self.rate = split_seed, missing, rate
        self.cache = cache_root(self.root, cache)

    def load(self) -> dict[str, Ragged]:
        files = self.files()
        recipe = {
            "corpus": self.name,
            "version": VERSION,
            "files": stamps(self.root, [p.relative_to(self.root).as_posix() for p in files]),
            **self.form(),
        }
        corpus = cached(self.cache / self.name, recipe, partial(self.parse, files))
        report(
            [str(problem) for problem in corpus.labels["problem"] if problem],
            len(files),
            self.missing,
        )
        usable = corpus.labels["problem"] == ""
        if usable.any():
            self.columns = tuple(json.loads(str(corpus.labels["columns"][usable][0])))
        broken = set(corpus.labels["file"][~usable].tolist())
        return self.choose(corpus.select(np.flatnonzero(usable)), broken)

    def form(self) -> dict[str, object]:
        """The options that a file's frames depend on."""
        return {}

    def files(self) -> list[Path]:
        files = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in self.suffixes
            and path.is_file()
            and path != self.root / LISTS[0]
            and not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        )
        if not files:
            if not self.root.is_dir():
                raise FileNotFoundError(f"data.root={self.root}: there is no such folder")
            raise FileNotFoundError(
                f"there are no {' or '.join(self.suffixes)} files in {self.root.absolute()}; name "
                "the folder by data.root=<folder>"
            )
        return files

    def parse(self, files: Sequence[Path]) -> Ragged:
        """Reads all sequences; a file that cannot be used leaves an empty one that says why by its
        label "problem".

        Raises:
            OSError: if a file cannot be opened; what may be otherwise tomorrow is not cached.
        """
        items: list[Item] = []
        problems: dict[str, str] = {}
        for path in track(files, f"reading {self.root.name}", transient=True):
            name = path.relative_to(self.root).as_posix()
            try:
                items += [Item(name, found) for found in type(self).read(path, *self.chosen)]
            except ValueError as error:
                problems[name] = str(error)
        if self.chosen and not items:
            raise ValueError(f"{columns_option(self.chosen)}: {next(iter(problems.values()))}")
        columns, others = self.settle_columns(items)
        problems |= others
        items = [item for item in items if item.file not in problems]
        empty = [np.zeros((0, len(columns)))] * len(problems)
        labels = {
            "file": [item.file for item in items] + list(problems),
            "split": [item.found.split or "" for item in items] + [""] * len(problems),
            "columns": [json.dumps(columns)] * (len(items) + len(problems)),
            "problem": [""] * len(items) + list(problems.values()),
        }
        keys = [item.key for item in items] + list(problems)
        return Ragged.from_sequences([self.frames(i.found.x) for i in items] + empty, keys, labels)

    def frames(self, x: np.ndarray) -> np.ndarray:
        """What the model sees of a file's sequence (T, D)."""
        return x

    def settle_columns(self, items: list[Item]) -> tuple[tuple[str, ...], dict[str, str]]:
        """Takes the columns that most sequences have, and says which files have others."""
        layouts = Counter((i.found.x.shape[1], i.found.columns) for i in items)
        if not layouts:
            return (), {}
        (width, names), _ = layouts.most_common(1)[0]
        wanted = described(width, names)
        others = {
            i.file: f"{self.root / i.file} has "
            f"{described(i.found.x.shape[1], i.found.columns)} where others have {wanted}"
            for i in items
            if (i.found.x.shape[1], i.found.columns) != (width, names)
        }
        return names or unnamed(width), others

    def choose(self, corpus: Ragged, broken: set[str]) -> dict[str, Ragged]:
        """The three splits; `broken` are the files that cannot be used."""
        lists = [self.root / name for name in LISTS if (self.root / name).is_file()]
        if len(lists) > 1:
            raise ValueError(f"{self.root} has both {' and '.join(LISTS)}; keep one")
        if lists:
            return by_split(corpus, self.listed(lists[0], corpus, broken))
        named = corpus.labels["split"] != ""
        if named.any() and not named.all():
            others = some([corpus.keys[i] for i in np.flatnonzero(~named)])
            raise ValueError(
                f"some arrays in {self.root} are named train, val or test, others not: {others}; "
                "name all or none, or list the splits in splits.csv"
            )
        if named.any():
            return by_split(corpus, corpus.labels["split"].tolist())
        return by_split(corpus, self.drawn(corpus))

    def listed(self, path: Path, corpus: Ragged, broken: set[str]) -> list[str | None]:
        """The splits of a list."""
        splits = read_splits(path)
        files = map(str, corpus.labels["file"])
        names = [(key, file, stem(file)) for key, file in zip(corpus.keys, files, strict=True)]
        chosen = [next((splits[n] for n in its if n in splits), None) for its in names]
        known = {name for its in names for name in its} | broken | set(map(stem, broken))
        absent = [
            f"{path} names {name}, which is not there" for name in splits if name not in known
        ]
        report(absent, len(splits), self.missing)
        unlisted = [key for key, split in zip(corpus.keys, chosen, strict=True) if split is None]
        if unlisted:
            log.warning("%d sequences are not in %s: %s", len(unlisted), path, some(unlisted))
        return chosen

    def drawn(self, corpus: Ragged) -> list[str | None]:
        """A seeded split by file, or by sequence of a single file."""
        owners = corpus.labels["file"].tolist()
        if len(set(owners)) == 1:
            owners = corpus.keys
        units = sorted(set(owners))
        if len(units) < 3:
            raise ValueError(
                f"{self.root} has {len(units)} usable sequences, too few for three splits"
            )
        chosen = shares(units, HELD_BACK, HELD_BACK, self.split_seed)
        split_of = {unit: split for split, its in chosen.items() for unit in its}
        return [split_of[owner] for owner in owners]


class ColumnsFolder(SequenceFolder):
    """Base of folders of files that may have more columns than are wanted.

    Args:
        root: the folder.
        columns: those to read, by name; None for all. Where files name none they are x0, x1, ...
        **kwargs: of `SequenceFolder`.
    """

    def __init__(
        self, root: str | Path, columns: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        if columns is not None and (isinstance(columns, str) or not columns):
            raise ValueError(f"data.columns={columns} must be a list of names, such as [x0,x1]")
        self.chosen = tuple(map(str, columns or ()))

    def form(self) -> dict[str, object]:
        return {"columns": self.chosen} if self.chosen else {}

    def leaving(self, columns: Sequence[str]) -> str:
        return f"leave it out by {columns_option(columns)}"


class CSVFolder(ColumnsFolder):
    """A .csv file a sequence, a frame a line (`read_csv`)."""

    name = "csv_folder"
    suffixes = (".csv",)
    read = staticmethod(read_csv)


class NPZFolder(ColumnsFolder):
    """.npy and .npz files without pickled objects (`read_arrays`)."""

    name = "npz_folder"
    suffixes = (".npy", ".npz")
    read = staticmethod(read_arrays)


class Stroke3(SequenceFolder):
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
    suffixes = NPZFolder.suffixes
    read = staticmethod(read_arrays)
    binary = (0,)

    def __init__(self, root: str | Path, y_down: bool = True, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.y_down = y_down

    def form(self) -> dict[str, object]:
        return {"y_down": self.y_down}

    def settle_columns(self, items: list[Item]) -> tuple[tuple[str, ...], dict[str, str]]:
        others = {i.file: f"{self.root / i.file}: {why}" for i in items if (why := no_stroke3(i))}
        return ("pen", "dx", "dy"), others

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


def by_split(corpus: Ragged, splits: Sequence[str | None]) -> dict[str, Ragged]:
    return {
        split: corpus.select([i for i, its in enumerate(splits) if its == split])
        for split in SPLITS
    }


def columns_option(names: Sequence[str]) -> str:
    """The option that reads these columns, as it is typed."""
    words = [name if re.fullmatch(r"[\w.-]+", name) else f'"{name}"' for name in names]
    option = f"data.columns=[{','.join(words)}]"
    return option if words == [*names] else shlex.quote(option)


def described(width: int, names: Sequence[str]) -> str:
    """The columns of a sequence, in words."""
    return f"the columns {', '.join(names)}" if names else f"{width} unnamed columns"


def stem(file: str) -> str:
    return file.rpartition(".")[0]
