"""The scores that evaluate.py leaves in a run, and which weights they are of."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runs.metrics import read_figures
from vrnn.checkpoint import CheckpointError, find_checkpoint
from vrnn.metrics import Scores

__all__ = [
    "CHECKPOINT",
    "digest_of",
    "file_of",
    "read_evaluated",
    "read_sequences",
    "write_sequences",
]

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
"""The name in the file of the digest of the checkpoint that was scored."""


def file_of(run: Path, split: str, particles: int) -> Path:
    return run / f"scores_{split}_k{particles}.json"


def digest_of(checkpoint: Path) -> str:
    with open(checkpoint, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_evaluated(run: Path, split: str, particles: int) -> dict[str, float]:
    """Scores of the weights that the run has now; none where there are none of these, which is
    told where there are others.

    Raises:
        ValueError: if the file is damaged.
    """
    file = file_of(run, split, particles)
    if not file.is_file():
        return {}
    figures: dict[str, Any] = read_figures(file, "evaluate the run again")
    if stale(file, figures.pop(CHECKPOINT, None)):
        log.warning(
            "%s is left out: it scores weights that the run has no longer; evaluate it again", file
        )
        return {}
    return figures


def write_sequences(file: Path, runs: Sequence[Scores]) -> None:
    """Writes the figures of every sequence beside those of the split, means over the runs."""
    tables = [run.by_sequence() for run in runs]
    names = list(tables[0])
    means = [torch.stack([table[name] for table in tables]).mean(0).tolist() for name in names]
    with open(file.with_suffix(".csv"), "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(zip(*means, strict=True))


def read_sequences(file: Path) -> dict[str, np.ndarray]:
    """The figures of every sequence of a split, each (N,), by name; see `Scores.by_sequence`.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with open(file, newline="") as stream:
            names, *rows = csv.reader(stream)
        columns = np.array(rows, dtype=np.float64).T
        return dict(zip(names, columns, strict=True))
    except (ValueError, StopIteration) as error:
        raise ValueError(f"{file} is damaged ({error}); evaluate the run again") from None


def stale(file: Path, scored: str | None) -> bool:
    """Whether scores are of another checkpoint than the run's; where they do not tell of which, or
    the run keeps none, whether they are older than it or its metrics.json."""
    run = file.parent
    try:
        now = find_checkpoint(run)
    except CheckpointError:
        now = run / "metrics.json"
    else:
        if scored is not None:
            return scored != digest_of(now)
    return now.is_file() and now.stat().st_mtime > file.stat().st_mtime
