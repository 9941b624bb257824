"""The scores of a run as tables, and what was published for its data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reports.groups import by_scores, unit_of
from reports.published import incomparable, read_published
from reports.score_tables import labels, score_rows, spelled, with_error
from runs.run import Run
from vrnn.bounds import BOUNDS

__all__ = ["Table", "Tile", "best_score", "compared", "published", "tables", "tiles"]

SPLITS = {"test": "test", "val": "validation", "untrained": "test, before training"}


class Table(NamedTuple):
    """Rows of text under a caption; the first cell of each is its header."""

    caption: str
    columns: Sequence[str]
    rows: list[list[str]]
    words: Sequence[str] = ()
    """Columns of words, not of numbers."""
    marked: Sequence[int] = ()
    """Rows to point out."""


class Tile(NamedTuple):
    """A figure to see first."""

    label: str
    value: str
    unit: str


def exact(run: Run) -> bool:
    """Whether all its bounds are its log likelihood, for want of latents."""
    kl = [value for key, value in run.figures.items() if key.endswith("/kl")]
    curves = [curve.y for key, curve in run.curves.items() if key == "val/kl"]
    return not any(kl) and not any(y.any() for y in curves)


def estimates() -> list[str]:
    """The figures that are log p(x), or estimate it."""
    return [name for name, bound in BOUNDS.items() if bound.of_log_likelihood]


def lower_bounds() -> dict[str, str]:
    """Labels of the figures that are at most log p(x), in expectation."""
    return {name: bound.label for name, bound in BOUNDS.items() if bound.is_lower_bound}


def labels_of(run: Run) -> dict[str, str]:
    return labels(int(run.figures.get("particles", 1)), exact(run))


def spaces(run: Run) -> list[str]:
    known = ("standardised", "raw", "paper")
    return [
        s for s in known if any(f"elbo{spelled(s)}" == k.partition("/")[2] for k in run.figures)
    ]


def tables(run: Run) -> list[Table]:
    """The scores in every unit and space, each with its standard error over sequences."""
    return [
        Table(
            unit,
            ["", *spaces(run)],
            [
                [f"{label}, {scored(run, split)}", *map(minus, cells)]
                for split, label, *cells in rows
            ],
        )
        for unit, rows in score_rows(run.figures, list(SPLITS), spaces(run), labels_of(run))
    ]


def scored(run: Run, split: str) -> str:
    """What scores are of; where that is a part of a split, with how much of it."""
    part = run.part(split)
    return f"{SPLITS[split]}, {part}" if part else SPLITS[split]


def tiles(run: Run) -> list[Tile]:
    """What there is to see first: scores of the test split, or how far training has come."""
    unit, suffix, digits = unit_of([run])
    found = []
    split = next((s for s in ("test", "val") if f"{s}/elbo" in run.figures), None)
    for name, label in labels_of(run).items():
        key = f"{split}/{name}{suffix}"
        if split and name in lower_bounds() and key in run.figures:
            value = minus(with_error(run.figures, key, digits))
            found.append(Tile(f"{label}, {scored(run, split)}", value, unit))
    kl = f"{split}/kl_per_step"
    if kl in run.figures and not exact(run):
        of = scored(run, str(split))
        found.append(Tile(f"KL, {of}", f"{run.figures[kl]:.3g}", "nats per step"))
    if not found:
        found += progress(run)
    counts = [
        ("parameters", "Parameters", ""),
        ("updates", "Updates", ""),
        ("minutes", "Minutes", ""),
    ]
    for key, label, unit in counts:
        if key in run.figures:
            found.append(Tile(label, f"{run.figures[key]:,.0f}", unit))
    if "updates" not in run.figures and run.curves:
        last = max(float(curve.x[-1]) for curve in run.curves.values())
        found.append(Tile("Last update logged", f"{last + 1:,.0f}", ""))
    return found


def progress(run: Run) -> list[Tile]:
    found = []
    for name, label in ({"elbo": "log p(x)"} if exact(run) else lower_bounds()).items():
        curve = run.curves.get(f"val/{name}_per_step")
        if curve is not None and np.isfinite(curve.y).any():
            best = minus(f"{np.nanmax(np.where(np.isfinite(curve.y), curve.y, np.nan)):,.3f}")
            found.append(Tile(f"Best {label}, validation", best, "nats per step, standardised"))
    return found


def published(run: Run) -> tuple[Table, dict[str, Any]] | None:
    """This run, where it compares, among the published figures for its data, the best first; None
    where there are none. The second value has their "source" and "note"."""
    known = read_published().get(str(run.data.get("name")))
    if known is None:
        return None
    rows = [
        (row["value"], [row["model"], row["bound"], number(row["value"]), mark(row)], False)
        for row in known["rows"]
    ]
    digits = 1 if "per sequence" in known["unit"] else 3
    for name, label in {} if incomparable(run) else labels_of(run).items():
        key = f"test/{name}{known['suffix']}"
        if name in estimates() and key in run.figures:
            shown = minus(with_error(run.figures, key, digits))
            cells = [f"{run.model or 'this run'} (this run)", label, shown, ""]
            rows.append((run.figures[key], cells, True))
    rows.sort(key=lambda row: -row[0] if np.isfinite(row[0]) else float("inf"))
    table = Table(
        known["unit"],
        ["model", "figure", "value", "source checked"],
        [cells for _, cells, _ in rows],
        ["figure", "source checked"],
        [i for i, (_, _, ours) in enumerate(rows) if ours],
    )
    return table, known


def mark(row: Mapping[str, Any]) -> str:
    return "yes" if row["verified"] else "unverified"


def compared(runs: Sequence[Run], names: Mapping[Path, str]) -> list[Table]:
    """One table for each test split that several runs share, or that a single one has: the scores
    of it, the best bound first.

    Args:
        names: of the runs, by their folders.
    """
    made = []
    for data, group in by_scores(runs).items():
        counts = [count(run, "test/sequences") for run in group]
        size = next((f" of {n}" for n in counts if n), "")
        split = "" if group[0].part("test") else f", test split{size}"
        unit, suffix, digits = unit_of(group)
        group.sort(key=lambda run: -best_score(run, suffix))
        columns = [n for n in (*estimates(), "kl") if any_has(group, n)]
        ks = {run.figures.get("particles") for run in group if run.figures}
        k = ks.pop() if len(ks) == 1 else None
        heads = labels(k, exact=False) | {"elbo": "ELBO or log p(x)", "kl": "KL per step"}
        ended = all(run.status == "finished" for run in group)
        rows = []
        for run in group:
            name = names[run.folder]
            units = {n: ("_per_step", 4) if n == "kl" else (suffix, digits) for n in columns}
            cells = [cell(run, n, *unit, k is None) for n, unit in units.items()]
            rest = [count(run, "parameters"), count(run, "updates"), count(run, "minutes")]
            rest.append("" if ended else run.status)
            rows.append([f"{name} ({run.model})" if run.model else name, *cells, *rest])
        head = [heads[n] for n in columns]
        tail = ["parameters", "updates", "minutes", "status"]
        told = [i for i, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
        made.append(
            Table(
                f"{data}{split}, {unit}",
                [["run", *head, *tail][i] for i in told],
                [[row[i] for i in told] for row in rows],
                ["status"],
            )
        )
    return made


def cell(run: Run, name: str, suffix: str, digits: int, with_k: bool) -> str:
    text = minus(with_error(run.figures, f"test/{name}{suffix}", digits))
    k = run.figures.get("particles")
    named = text and k and with_k and name in BOUNDS and BOUNDS[name].weighs_particles
    return f"{text}, K = {k:.0f}" if named else text


def any_has(group: Sequence[Run], name: str) -> bool:
    return any(f"test/{name}" in run.figures for run in group)


def count(run: Run, name: str) -> str:
    return f"{run.figures[name]:,.0f}" if name in run.figures else ""


def best_score(run: Run, suffix: str) -> float:
    """Its bound on the test split; that of no finite one is the least."""
    value = run.figures.get(f"test/elbo{suffix}", float("-inf"))
    return value if np.isfinite(value) else float("-inf")


def number(value: float) -> str:
    return minus(f"{value:,.2f}" if value % 1 else f"{value:,.0f}")


def minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
