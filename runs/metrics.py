"""The figures that a run has left, and the words that it was started with."""

# Only light imports: Hydra imports this file whenever train.py is started.
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

__all__ = ["alike", "log_scale", "overrides", "own_options", "read_figures"]


def log_scale(figures: Mapping[str, float], space: str = "") -> float | None:
    """What a step gains in a space over the raw one (docs/bounds.md): of probabilities nothing.
    None where no figure tells."""
    for split in ("val", "test"):
        keys = [f"{split}/elbo{name}_per_step" for name in (space, "_raw")]
        if all(math.isfinite(figures.get(key, math.nan)) for key in keys):
            return figures[keys[0]] - figures[keys[1]]
    return None


def alike(scales: Iterable[float | None]) -> bool:
    """Whether they are the same up to rounding, those that nobody knows left out."""
    known = [scale for scale in scales if scale is not None]
    return all(math.isclose(scale, known[0], rel_tol=1e-6, abs_tol=1e-4) for scale in known)


def overrides(run: Path) -> list[str]:
    """The words that the run was started with, as Hydra keeps them; none where it keeps none."""
    try:
        words = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
    except (FileNotFoundError, yaml.YAMLError):
        return []
    return words if isinstance(words, list) else []


def own_options(runs: Sequence[Path]) -> list[str]:
    """In which options each run differs from the others; its seed, its folder and the checkpoint
    that it went on from are left out."""
    named = [overrides(run) for run in runs]
    common = set.intersection(*map(set, named)) if named else set()
    aside = ("seed=", "ckpt=", "hydra.")
    return [
        " ".join(w for w in words if w not in common and not w.startswith(aside))
        for words in named
    ]


def read_figures(file: Path, remedy: str) -> dict[str, float]:
    """Figures by name, as in metrics.json.

    Raises:
        ValueError: if the file is damaged; names the remedy.
    """
    try:
        figures = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); {remedy}") from None
    if not isinstance(figures, dict):
        raise ValueError(f"{file} is damaged (no figures by name); {remedy}")
    return figures
