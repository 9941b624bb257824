"""Scores as tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Group
from rich.table import Table

from vrnn.bounds import BOUNDS

__all__ = ["labels", "score_rows", "scores_tables", "spelled", "with_error"]

UNITS = (
    ("nats per sequence", "", 1),
    ("nats per step", "_per_step", 4),
    ("nats per sample", "_per_sample", 4),
    ("bits per sample", "_bits_per_sample", 4),
)
"""With the ends of the figures' names, and digits."""


def scores_tables(
    figures: Mapping[str, float],
    splits: Sequence[str],
    spaces: Sequence[str],
    particles: int,
    exact: bool,
) -> Group:
    """Lays out scores for the terminal: in nats, per sequence, per step and, of audio, per sample,
    in every space, each with its standard error; those of a discrete likelihood also in bits per
    sample.

    Args:
        figures: as in metrics.json, keys `split/name`.
        splits: which splits to show, such as "untrained" and "test".
        spaces: "standardised", "raw", and "paper" where there is one.
        particles: K, of the figures that depend on it.
        exact: the model has no latent variables, so that all its bounds are its log likelihood.
    """
    tables = []
    for unit, rows in score_rows(figures, splits, spaces, labels(particles, exact)):
        # Narrow enough for 80 columns; what is wider breaks, labels stay whole.
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        header = unit.replace(" per ", " per\n") if len(spaces) > 2 else unit
        for name in ("split", header):
            table.add_column(name, no_wrap=True)
        for space in spaces:
            table.add_column(space, justify="right", overflow="fold")
        for _, section in groupby(rows, key=lambda row: row[0]):
            for split, label, *cells in section:
                table.add_row(split, label, *(cell.replace(" (", "\n(") for cell in cells))
            table.add_section()
        tables.append(table)
    notes = ["± one standard error over sequences"]
    if any(key.endswith("_run_se") for key in figures):
        notes[0] += ", (that over runs)"
    if exact:
        notes.insert(0, "log p(x) is exact")
    else:
        shown = {key.partition("/")[2] for key in figures if key.partition("/")[0] in splits}
        estimates = [BOUNDS[name].no_bound for name in BOUNDS if name in shown]
        notes[:0] = [f"* {note}" for note in estimates if note]
    return Group(*tables, f"[dim]{'; '.join(notes)}[/dim]")


def score_rows(
    figures: Mapping[str, float],
    splits: Sequence[str],
    spaces: Sequence[str],
    names: Mapping[str, str],
) -> Iterator[tuple[str, list[list[str]]]]:
    """Yields every unit that there are scores in, and rows of a split, a label, and the score in
    each space.

    Args:
        names: of the scores, with their labels.
    """
    for unit, suffix, digits in UNITS:
        rows = []
        for split in splits:
            for name, label in names.items():
                keys = [f"{split}/{name}{spelled(space)}{suffix}" for space in spaces]
                cells = [with_error(figures, key, digits) for key in keys]
                if any(cells):
                    rows.append([split, label, *cells])
        if rows:
            yield unit, rows


def labels(particles: float | None, exact: bool) -> dict[str, str]:
    """What the scores are called, by their names in metrics.json; those that are no bounds have a
    star. K is left out where it is None."""
    if exact:
        return {"elbo": "log p(x)"}
    stars = {name: "*" if bound.no_bound else "" for name, bound in BOUNDS.items()}
    return {n: f"{BOUNDS[n].title(particles)}{stars[n]}" for n in BOUNDS} | {"kl": "KL"}


def spelled(space: str) -> str:
    """A space in the name of a figure."""
    return "" if space == "standardised" else f"_{space}"


def with_error(figures: Mapping[str, float], key: str, digits: int) -> str:
    """A figure ± its standard error; empty where the space does not matter, as for a KL."""
    if key not in figures:
        return ""
    error, run_error = figures.get(f"{key}_se"), figures.get(f"{key}_run_se")
    value = f"{figures[key]:,.{digits}f}"
    if error is not None:
        value += f" ± {error:,.{digits}f}"
    return value if run_error is None else f"{value} ({run_error:,.{digits}f})"
