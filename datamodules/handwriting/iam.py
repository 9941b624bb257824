"""Which forms of the IAM On-Line Handwriting Database (IAM-OnDB) are in which split."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.files.cache import cache_root
from datamodules.files.problems import Missing, check_missing
from datamodules.files.splits import SPLITS, held_back
from datamodules.handwriting.base import PenData
from datamodules.handwriting.iam_lines import no_corpus, read_corpus
from datamodules.handwriting.iam_xml import read_list, read_writers
from datamodules.ragged import Ragged

__all__ = ["CONVENTIONS", "IAM", "split_forms", "writers_of"]

log = logging.getLogger(__name__)

CONVENTIONS: dict[str, dict[str, str]] = {
    "paper": {
        "train": "trainset+testset_t+testset_f",
        "val": "testset_v",
        "test": "testset_v",
    },
    "task1": {"train": "trainset", "val": "testset_v", "test": "testset_f"},
    "holdout": {"train": "trainset", "val": "5%", "test": "testset_t"},
}
"""Ready-made splits by the corpus's four lists, which share no writer. "paper" is the one of the
VRNN (and of Graves, 2013), it has no test set of its own; "task1" is the corpus's benchmark
IAM-OnDB-t1, whose second validation set testset_t stays unused; "holdout" needs two lists, and
validates on writers of trainset that it does not train on."""

LIST_FOLDERS = ("task1", "", "vrnn_nips2015_split")

CORPUS_LISTS = ("trainset", "testset_v", "testset_t", "testset_f", "train", "valid")
"""Those in which the forms of a writer follow each other."""

Lists = str | float | Sequence[str]


def split_forms(
    root: Path, *, train: Lists, val: Lists, test: Lists, seed: int = 0
) -> dict[str, list[str]]:
    """Reads which forms make up the three parts of a split.

    Each part is named lists, as `trainset+testset_t` or as a sequence. A list is looked for
    as `task1/<name>.txt`, `<name>.txt` and `vrnn_nips2015_split/<name>.txt`, or is a path
    that ends in .txt. In place of lists, `val` may be a fraction, `5%` or 0.05: about so many of
    the forms (not lines) of `train` are held back from it, all forms of some writers
    (`writers_of`), the same ones for the same seed.

    Returns:
        The form ids under "train", "val" and "test", without repetition.

    Raises:
        FileNotFoundError: if a list does not exist.
        ValueError: if a list is malformed, a fraction is not within (0, 1), or forms are to be
            held back whose writers are not known.
    """
    parts = {"train": train, "test": test}
    fraction = share_of(val)
    if fraction is None:
        parts["val"] = val
    forms = {part: read_forms(root, part, lists) for part, lists in parts.items()}
    writers = writers_of(root)
    if fraction is not None:
        check_writers(root, forms["train"], writers)
        forms["train"], forms["val"] = held_back(forms["train"], fraction, seed, writers)
    trained = {writers[form] for form in forms["train"] if form in writers}
    for part in ("val", "test"):
        shared = set(forms["train"]).intersection(forms[part])
        if shared:
            log.warning("%d forms are in train as well as in %s", len(shared), part)
        known = trained.intersection(writers[form] for form in forms[part] if form in writers)
        if known:
            log.warning("%d writers are in train as well as in %s", len(known), part)
    return {part: forms[part] for part in SPLITS}


def writers_of(root: Path) -> dict[str, str]:
    """Tells the forms of one writer from those of others.

    `forms.txt` of the corpus says it, where it is in the folder: a form and the number of its
    writer a line. Else the corpus's lists do: the forms of a writer follow each other there, in
    ascending order, so that a form that is not above the one before it is another writer's. Two
    writers may count as one then, but never one as two.

    Returns:
        Names of writers by form id; forms in none of these files are left out.

    Raises:
        ValueError: if a file is malformed.
    """
    table = root / "forms.txt"
    if table.is_file():
        return read_writers(table)
    writers: dict[str, str] = {}
    for name in CORPUS_LISTS:
        path = next((p for p in list_places(root, name) if p.is_file()), None)
        before, run = "", 0
        for form in read_list(path) if path is not None else ():
            run += form <= before
            writers.setdefault(form, f"{name}, writer {run}")
            before = form
    return writers


def check_writers(root: Path, forms: Sequence[str], writers: Mapping[str, str]) -> None:
    """Refuses to hold back some of the forms where this would divide a writer."""
    unknown = [form for form in forms if form not in writers]
    if unknown or len({writers[form] for form in forms}) < 2:
        why = (
            f"the writers of {len(unknown)} of the {len(forms)} forms are not known, such as of "
            f"{unknown[0]}"
            if unknown
            else f"as far as is known, one writer wrote all {len(forms)} forms"
        )
        raise ValueError(
            f"data.val as a share holds back whole writers, but {why}; name lists of forms by "
            f"data.val=, or give {root} the corpus's own lists or its forms.txt"
        )


def share_of(lists: Lists) -> float | None:
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


def read_forms(root: Path, part: str, lists: Lists) -> list[str]:
    if isinstance(lists, (int, float)):
        raise ValueError(f"data.{part}={lists} must be lists of forms, only val may be a fraction")
    names = "+".join([lists] if isinstance(lists, str) else lists).split("+")
    forms = [form for name in names for form in read_list(find_list(root, name.strip()))]
    return list(dict.fromkeys(forms))


def find_list(root: Path, name: str) -> Path:
    places = [root / name, Path(name)] if name.endswith(".txt") else list_places(root, name)
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


def list_places(root: Path, name: str) -> list[Path]:
    return [root / folder / f"{name}.txt" for folder in LIST_FOLDERS]


class IAM(PenData):
    """The IAM On-Line Handwriting Database, in its original files.

    Args:
        root: folder that holds lineStrokes/, ascii/ and the lists of the task.
        split: "paper", "task1" or "holdout", ready-made splits, or None to give the lists.
        train, val, test: lists such as "trainset+testset_t", in place of the split's; `val` may
            be a share of the training forms to hold back, such as 0.05, all those of some writers.
        cache: folder of the parsed corpus; None for <root>/.vrnn-cache.
        split_seed: of the choice of the writers to hold back.
        missing: what to do about forms that a list names and the folder lacks, and about broken
            files: "error" or "skip".
        **kwargs: of `PenData`.
    """

    name = "iam"

    def __init__(
        self,
        root: str | Path,
        split: str | None = "paper",
        train: str | list[str] | None = None,
        val: str | float | list[str] | None = None,
        test: str | list[str] | None = None,
        cache: str | Path | None = None,
        split_seed: int = 0,
        missing: Missing = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if split is not None and split not in CONVENTIONS:
            raise ValueError(f"data.split={split} is not one of {', '.join(CONVENTIONS)}")
        check_missing(missing)

        self.root = Path(root).expanduser()
        self.lists: dict[str, Any] = dict(CONVENTIONS[split]) if split is not None else {}
        self.lists |= {
            k: v for k, v in {"train": train, "val": val, "test": test}.items() if v is not None
        }
        if missed := [f"data.{part}=" for part in SPLITS if part not in self.lists]:
            raise ValueError(
                "data.split=null is for lists of forms of one's own; give them by "
                f"{', '.join(missed)}"
            )
        self.cache = cache_root(self.root, cache)
        self.split_seed, self.missing = split_seed, missing

    def load(self) -> dict[str, Ragged]:
        forms = split_forms(self.root, **self.lists, seed=self.split_seed)
        return read_corpus(self.root, forms, self.cache, missing=self.missing)
