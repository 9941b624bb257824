"""The scores that evaluate.py leaves in a run, and which weights they are of."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from runs.metrics import read_figures
from vrnn.checkpoint import CheckpointError, find_checkpoint

__all__ = ["CHECKPOINT", "digest_of", "file_of", "read_evaluated"]

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
