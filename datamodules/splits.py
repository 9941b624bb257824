"""Which files are for training, validation and test: by chance, or by a published list."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.audio_file import SUFFIXES

__all__ = ["SPLITS", "check_shares", "read_lists", "shares", "stem"]

SPLITS = ("train", "val", "test")


def stem(path: str) -> str:
    """A file's name without folders and suffixes of sound files, as lists write it or not."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    for suffix in (".t7", *SUFFIXES):
        name = name.removesuffix(suffix)
    return name


def check_shares(shares: Sequence[float]) -> tuple[float, float]:
    """Refuses shares of validation and test that leave nothing for training, by a ValueError."""
    if len(shares) != 2 or min(shares) <= 0 or sum(shares) >= 1:
        raise ValueError(
            f"data.shares={list(shares)} must be the shares of validation and test, such as "
            "[0.05, 0.05]"
        )
    return shares[0], shares[1]


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


def read_lists(path: Path, corpus: str) -> dict[str, list[str]]:
    """Reads lists of names, a folder of text files or one csv file, by split.

    Raises:
        FileNotFoundError: if the folder has no list of a split, or several.
        ValueError: naming the line that is no name and split.
    """
    if path.is_dir():
        return {split: read_list(path, corpus, split) for split in SPLITS}
    entries: dict[str, list[str]] = {split: [] for split in SPLITS}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not any(row) or row == ["name", "split"]:
                continue
            split = row[-1].strip().lower().replace("valid", "val")
            if len(row) != 2 or split not in SPLITS:
                raise ValueError(
                    f"{path}, line {number}: {','.join(row)} is not `name,split` with one of "
                    f"{', '.join(SPLITS)}"
                )
            entries[split].append(row[0].strip())
    return entries


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
