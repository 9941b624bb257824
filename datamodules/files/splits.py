"""Which files are for training, validation and test: by chance, or by a published list."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = [
    "ALIASES",
    "SPLITS",
    "check_apart",
    "check_shares",
    "held_back",
    "read_lists",
    "read_splits",
    "shares",
    "write_splits",
]

SPLITS = ("train", "val", "test")

ALIASES = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}
"""The split that a file means by a word."""


def check_shares(shares: Sequence[float]) -> None:
    """Refuses shares of validation and test that leave nothing for training.

    Raises:
        ValueError: naming the option.
    """
    if len(shares) != 2 or min(shares) <= 0 or sum(shares) >= 1:
        raise ValueError(
            f"data.shares={list(shares)} must be the shares of validation and test, such as "
            "[0.05, 0.05]"
        )


def shares(names: Sequence[str], val: float, test: float, seed: int) -> dict[str, list[str]]:
    """Splits names at random, the same way for the same names and seed; at least one each.

    Args:
        names: of files, or whatever else is split.
        val, test: shares of validation and test.
        seed: of the choice.

    Raises:
        ValueError: if nothing would be left for training.
    """
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    held = max(1, round(val * len(names)))
    kept = max(1, round(test * len(names)))
    if held + kept >= len(names):
        raise ValueError(
            f"{len(names)} cannot be split into training, validation and test: there must be "
            f"more than {held + kept}"
        )
    val_names, test_names = order[:held], order[held : held + kept]
    return {
        "train": sorted(order[held + kept :]),
        "val": sorted(val_names),
        "test": sorted(test_names),
    }


def held_back(
    names: Sequence[str], share: float, seed: int, groups: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Holds a share of different names back at random, at least one, the same ones for the same
    names in any order.

    Args:
        names: of files, or whatever else is split.
        share: of the names.
        seed: of the choice.
        groups: the group of every name, such as its writer. Whole groups are held back then, as
            many as come next to the share. None if every name is on its own.

    Returns:
        The rest and those held back, in the order given.

    Raises:
        ValueError: if there are fewer than two names, or groups.
    """
    members: dict[str, list[str]] = {}
    for name in sorted(names):
        members.setdefault(name if groups is None else groups[name], []).append(name)
    if len(members) < 2:
        raise ValueError(f"{len(names)} names of {len(members)} groups: none can be held back")
    order = [*members]
    wanted = max(1, round(share * len(names)))
    held: set[str] = set()
    for i in np.random.default_rng(seed).permutation(len(order))[:-1]:
        more = members[order[i]]
        if held and abs(len(held) + len(more) - wanted) >= abs(len(held) - wanted):
            break
        held.update(more)
    return [name for name in names if name not in held], [name for name in names if name in held]


def read_lists(path: Path, corpus: str) -> dict[str, list[str]]:
    """Reads lists of names, a folder of text files or one file of `read_splits`, by split.

    Raises:
        FileNotFoundError: if the folder has no list of a split, or several.
        ValueError: of `read_splits`.
    """
    if path.is_dir():
        return {split: read_list(path, corpus, split) for split in SPLITS}
    splits = read_splits(path)
    return {split: [name for name in splits if splits[name] == split] for split in SPLITS}


def check_apart(parts: Mapping[str, Iterable[str]], lists: Path) -> None:
    """Refuses lists by which a file is in two splits, perhaps under two names."""
    splits: dict[str, str] = {}
    for split, files in parts.items():
        for file in files:
            if (other := splits.setdefault(file, split)) != split:
                raise ValueError(
                    f"{lists}: {file} is in {other} and in {split}; it can be in one of them only"
                )


def read_list(folder: Path, corpus: str, split: str) -> list[str]:
    found = [
        file
        for file in sorted(folder.glob("*.txt"))
        if corpus in file.name.lower() and split in file.name.lower()
    ]
    if len(found) != 1:
        raise FileNotFoundError(
            f"data.lists={folder}: {len(found)} text files have {corpus} and {split} in their "
            f"names ({', '.join(file.name for file in found) or 'none'}), it should be one"
        )
    lines = found[0].read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_splits(path: Path) -> dict[str, str]:
    """Reads the split of every name from lines `name,split` or, in a .json file, {name: split}.

    Raises:
        ValueError: naming the line that is no name and split, or has a name of another split.
    """
    rows: Iterable[tuple[str, Sequence[object]]]
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".json":
                content = json.load(file)
                if not isinstance(content, dict):
                    raise ValueError("it should be {name: split}")
                rows = [(str(path), row) for row in content.items()]
            else:
                lines = csv.reader(file)
                rows = [(f"{path}, line {lines.line_num}", row) for row in lines]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    splits: dict[str, str] = {}
    for where, row in rows:
        cells = [str(cell).strip() for cell in row]
        if not any(cells) or cells == ["name", "split"]:
            continue
        split = ALIASES.get(cells[-1].lower())
        if len(cells) != 2 or not cells[0] or split is None:
            raise ValueError(
                f"{where}: {','.join(cells)} is not `name,split` with one of {', '.join(SPLITS)}"
            )
        if splits.setdefault(cells[0], split) != split:
            raise ValueError(
                f"{where}: {cells[0]} cannot be in {split}, it is in {splits[cells[0]]} already"
            )
    return splits


def write_splits(path: Path, names: Mapping[str, Iterable[str]]) -> None:
    """Writes what `read_splits` reads."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("name", "split"))
        for split, its in names.items():
            lines.writerows((name, split) for name in dict.fromkeys(its))
