"""On-line handwriting: frames [pen, dx, dy], the pen flag 1 on a stroke's last point, y up."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from datamodules.base import SequenceData
from datamodules.disk import cache_root
from datamodules.iam import CONVENTIONS, PAPER_SCALE, PAPER_SHIFT, split_forms
from datamodules.iam_corpus import read_corpus
from datamodules.problems import Missing, check_missing
from datamodules.ragged import Ragged
from datamodules.splits import SPLITS
from datamodules.synthetic_handwriting import Style, line

__all__ = ["IAM", "PenData", "SyntheticHandwriting"]


class PenData(SequenceData):
    """Base of the handwriting corpora in IAM-OnDB's units.

    Args:
        normaliser: "paper", (d - 8) / 56.04462 for dx and dy, as the original code has it, or
            those of `SequenceData`.
        **kwargs: of `SequenceData`.
    """

    kind = "pen"
    columns = ("pen", "dx", "dy")
    binary = (0,)
    rate = 65.6
    paper_scale = (1.0, PAPER_SCALE, PAPER_SCALE)

    def __init__(self, normaliser: str = "paper", **kwargs: Any) -> None:
        super().__init__(normaliser=normaliser, **kwargs)

    def statistics(self, train: Ragged) -> tuple[np.ndarray, np.ndarray]:
        if self.normaliser == "paper":
            return np.array([0.0, PAPER_SHIFT, PAPER_SHIFT]), np.array(self.paper_scale)
        if self.normaliser not in ("coordinate", "none"):
            raise ValueError(
                f"data.normaliser={self.normaliser} is not one of coordinate, none, paper"
            )
        return super().statistics(train)


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


class SyntheticHandwriting(PenData):
    """Lines written by an embedded model of the hand; nothing to download.

    Args:
        lines, val_lines, test_lines: how many lines each split has.
        writers: writers of the training lines; validation and test lines are by writers of their
            own.
        corpus_seed: of the lines; another one is another corpus.
        **kwargs: of `PenData`.
    """

    name = "synthetic_handwriting"

    def __init__(
        self,
        lines: int = 2000,
        val_lines: int = 100,
        test_lines: int = 200,
        writers: int = 100,
        corpus_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(lines, val_lines, test_lines, writers) < 1:
            raise ValueError(
                "data.lines, val_lines, test_lines and writers must all be at least 1"
            )

        self.counts = {"train": lines, "val": val_lines, "test": test_lines}
        self.writers, self.corpus_seed = writers, corpus_seed

    def load(self) -> dict[str, Ragged]:
        return {split: self.write(split, count) for split, count in self.counts.items()}

    def write(self, split: str, count: int) -> Ragged:
        """Writes a split; its labels are the text, the writer and the writer's style."""
        seed = 3 * self.corpus_seed + list(self.counts).index(split)
        numbers = track(range(count), f"writing {count:,} {split} lines", transient=True)
        rows = [line(seed, i, self.writers) for i in numbers]
        sequences, texts, writers, styles = zip(*rows, strict=True)
        labels = {
            "text": texts,
            "writer": writers,
            **dict(zip(Style._fields, zip(*styles, strict=True), strict=True)),
        }
        return Ragged.from_sequences(sequences, [f"{split}-{i:05d}" for i in range(count)], labels)
