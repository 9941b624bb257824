"""Handwritten lines of the IAM On-Line Handwriting Database (IAM-OnDB)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.iam_corpus import no_corpus, read_corpus
from datamodules.iam_xml import find_lines, parse_line, read_list
from datamodules.splits import SPLITS, held_back

__all__ = [
    "CONVENTIONS",
    "PAPER_SCALE",
    "PAPER_SHIFT",
    "find_lines",
    "paper_statistics",
    "parse_line",
    "read_corpus",
    "read_list",
    "split_forms",
]

log = logging.getLogger(__name__)

PAPER_SHIFT = 8.0
PAPER_SCALE = 56.04462

#: Ready-made splits by the corpus' four lists, which share no writer. "paper" is the one of the
#: VRNN (and of Graves, 2013), it has no test set of its own; "task1" is the corpus' benchmark
#: IAM-OnDB-t1, whose second validation set testset_t stays unused; "holdout" needs two lists.
CONVENTIONS: dict[str, dict[str, str]] = {
    "paper": {
        "train": "trainset+testset_t+testset_f",
        "val": "testset_v",
        "test": "testset_v",
    },
    "task1": {"train": "trainset", "val": "testset_v", "test": "testset_f"},
    "holdout": {"train": "trainset", "val": "5%", "test": "testset_t"},
}

LIST_FOLDERS = ("task1", "", "vrnn_nips2015_split")

Lists = str | float | Sequence[str]


def paper_statistics(offsets: np.ndarray) -> tuple[float, float]:
    r"""Computes the normaliser of the VRNN paper, (d - shift) / scale for both dx and dy.

    .. math::
        \mathrm{shift} = \left\lfloor \frac{1}{N} \sum_t dx_t + dy_t \right\rfloor \qquad
        \mathrm{scale} = \sqrt{\left\lfloor \frac{1}{N} \sum_t dx_t^2 + dy_t^2 \right\rfloor
        - \mathrm{shift}^2}

    The sums run over both coordinates but are divided by the number of steps N, and the
    division is that of integers in Python 2. On the paper's training set this gives 8 and
    :math:`\sqrt{3205 - 8^2}`, which are ``PAPER_SHIFT`` and ``PAPER_SCALE``.

    Arguments:
        offsets: Pen-up flag, dx, dy in the corpus' integer units :math:`(N, 3)`.

    Raises:
        ValueError: If there is no step, an offset is no integer, or the scale is not positive.
    """

    steps = np.asarray(offsets)[:, 1:].astype(np.int64)

    if len(steps) == 0 or not np.array_equal(steps, offsets[:, 1:]):
        raise ValueError("the paper's statistics are those of one or more integer offsets")

    shift = int(steps.sum()) // len(steps)
    variance = int((steps**2).sum()) // len(steps) - shift**2

    if variance <= 0:
        raise ValueError(f"the paper's procedure gives a variance of {variance} here")

    return float(shift), variance**0.5


def split_forms(
    root: Path, *, train: Lists, val: Lists, test: Lists, seed: int = 0
) -> dict[str, list[str]]:
    """Reads which forms make up the three parts of a split.

    Each part is named lists, as ``trainset+testset_t`` or as a sequence. A list is looked for
    as ``task1/<name>.txt``, ``<name>.txt`` and ``vrnn_nips2015_split/<name>.txt``, or is a path
    that ends in .txt. In place of lists, ``val`` may be a fraction, ``5%`` or 0.05: so many of
    the forms (not lines) of ``train`` are held back from it, the same ones for the same seed.
    The writers of forms are not known here, so that one may occur on both sides.

    Returns:
        The form ids under "train", "val" and "test", without repetition.

    Raises:
        FileNotFoundError: If a list does not exist.
        ValueError: If a list is malformed, or a fraction is not within (0, 1).
    """

    parts = {"train": train, "test": test}
    fraction = _fraction(val)

    if fraction is None:
        parts["val"] = val

    forms = {part: _read_lists(root, part, lists) for part, lists in parts.items()}

    if fraction is not None:
        forms["train"], forms["val"] = held_back(forms["train"], fraction, seed)

    for part in ("val", "test"):
        shared = set(forms["train"]).intersection(forms[part])

        if shared:
            log.warning("%d forms are in train as well as in %s", len(shared), part)

    return {part: forms[part] for part in SPLITS}


def _fraction(lists: Lists) -> float | None:
    if isinstance(lists, str):
        match = re.fullmatch(r"(\d*\.?\d+)(%?)", lists.strip())

        if match is None:
            return None

        fraction = float(match[1]) / (100 if match[2] else 1)
    elif isinstance(lists, (int, float)):
        fraction = lists
    else:
        return None

    if not 0 < fraction < 1:
        raise ValueError(f"data.val={lists} must be lists of forms, or a fraction in (0, 1)")

    return fraction


def _read_lists(root: Path, part: str, lists: Lists) -> list[str]:
    if isinstance(lists, (int, float)):
        raise ValueError(f"data.{part}={lists} must be lists of forms, only val may be a fraction")

    names = "+".join([lists] if isinstance(lists, str) else lists).split("+")
    forms = [form for name in names for form in read_list(_find_list(root, name.strip()))]

    return list(dict.fromkeys(forms))


def _find_list(root: Path, name: str) -> Path:
    if name.endswith(".txt"):
        places = [root / name, Path(name)]
    else:
        places = [root / folder / f"{name}.txt" for folder in LIST_FOLDERS]

    for place in places:
        if place.is_file():
            return place

    if not (root / "lineStrokes").is_dir():
        raise no_corpus(root)

    here = sorted({path.stem for folder in LIST_FOLDERS for path in (root / folder).glob("*.txt")})

    raise FileNotFoundError(
        f"there is no list of forms {name!r}: looked for {', '.join(map(str, places))}. "
        f"The lists that are there: {', '.join(here) or 'none'} (the corpus' own come as task1)"
    )
