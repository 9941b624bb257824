"""Handwriting of invented writers, nothing to download."""

from typing import Any

from rich.progress import track

from datamodules.handwriting.base import PenData
from datamodules.handwriting.writer import Style, line
from datamodules.ragged import Ragged
from vrnn.arguments import check_counts

__all__ = ["SyntheticHandwriting"]


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
        check_counts(
            "data.", lines=lines, val_lines=val_lines, test_lines=test_lines, writers=writers
        )

        self.counts = {"train": lines, "val": val_lines, "test": test_lines}
        self.writers, self.corpus_seed = writers, corpus_seed

    def load(self) -> dict[str, Ragged]:
        return {split: self.write_split(split, count) for split, count in self.counts.items()}

    def write_split(self, split: str, count: int) -> Ragged:
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
