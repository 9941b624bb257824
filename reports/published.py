"""What was published for some data, and the runs that it can be compared with."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from runs.metrics import log_scale
from runs.run import Run

__all__ = ["Unit", "incomparable", "read_published"]

PUBLISHED = Path(__file__).with_name("published.json")


class Unit(NamedTuple):
    """A unit of scores."""

    name: str
    suffix: str
    """Of the figures' names."""
    digits: int


def read_published() -> dict[str, Any]:
    """By the name of the data, "unit" and "suffix" of the figures, the "options" of data that they
    are for, "source", "note" and "rows"."""
    content: dict[str, Any] = json.loads(PUBLISHED.read_text())
    return content


def incomparable(run: Run) -> str:
    """Why scores of a run do not compare with published ones, in words; empty where they do."""
    if part := run.part("test"):
        return f"was scored on {part} of the test split"
    scales = run.data.get("log_scales") or {}
    scale = log_scale(run.figures)
    # 0 where the data has another one: no unit of x is in the run's figures.
    if scale == 0 and scales.get("standardised"):
        return "gives probabilities, not densities"
    given = run.settings.get("data")
    wanted = read_published().get(str(run.data.get("name")), {}).get("options", {})
    others = [
        f"data.{key}={typed(given[key])}, not {typed(value)}"
        for key, value in wanted.items()
        if isinstance(given, dict) and key in given and given[key] != value
    ]
    return f"has {' and '.join(others)}" if others else ""


def typed(value: Any) -> str:
    return "null" if value is None else str(value)
