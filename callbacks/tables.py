"""Scores as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.table import Table

__all__ = ["scores_tables"]

LATENT = {
    "elbo": "ELBO",
    "iwae": "IWAE-{k}",
    "fivo": "FIVO-{k}",
    "paper": "paper-{k}*",
    "open_loop": "open loop",
    "kl": "KL",
}
EXACT = {"elbo": "log p(x)"}


def scores_tables(
    figures: Mapping[str, float],
    splits: Sequence[str],
    spaces: Sequence[str],
    particles: int,
    exact: bool,
) -> Group:
    """Lays out scores in nats, per sequence, per step and, of audio, per sample, in every space,
    each with its standard error; those of a discrete likelihood also in bits per sample.

    Args:
        figures: as in metrics.json, keys `split/name`.
        splits: which splits to show, such as "untrained" and "test".
        spaces: "standardised", "raw", and "paper" where there is one.
        particles: K of the importance-weighted figures.
        exact: the model has no latent variables, so that all its bounds are its log likelihood.
    """
    labels = EXACT if exact else LATENT
    note = "log p(x) is exact" if exact else "* the original script's estimate, not a bound"
    units = [("nats per sequence", "", 1), ("nats per step", "_per_step", 4)]
    if any(key.endswith("_per_sample") for key in figures):
        units.append(("nats per sample", "_per_sample", 4))
    if any(key.endswith("_bits_per_sample") for key in figures):
        units.append(("bits per sample", "_bits_per_sample", 4))
    tables = [one_table(figures, splits, spaces, labels, particles, *unit) for unit in units]
    runs = ", (that over runs)" if any(key.endswith("_run_se") for key in figures) else ""
    return Group(*tables, f"[dim]{note}; ± one standard error over sequences{runs}[/dim]")


def one_table(
    figures: Mapping[str, float],
    splits: Sequence[str],
    spaces: Sequence[str],
    labels: Mapping[str, str],
    particles: int,
    unit: str,
    suffix: str,
    digits: int,
) -> Table:
    # Narrow enough for 80 columns.
    table = Table("split", unit, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for space in spaces:
        table.add_column(space, justify="right", no_wrap=True)
    for split in splits:
        for name, label in labels.items():
            if f"{split}/{name}" not in figures:
                continue
            keys = [f"{split}/{name}" + ("" if s == "standardised" else f"_{s}") for s in spaces]
            cells = [with_error(figures, key + suffix, digits) for key in keys]
            table.add_row(split, label.format(k=particles), *cells)
        table.add_section()
    return table


def with_error(figures: Mapping[str, float], key: str, digits: int) -> str:
    """A figure ± its standard error; empty where the space does not matter, as for a KL."""
    if key not in figures:
        return ""
    error, run_error = figures.get(f"{key}_se"), figures.get(f"{key}_run_se")
    value = f"{figures[key]:,.{digits}f}"
    if error is not None:
        value += f" ± {error:,.{digits}f}"
    return value if run_error is None else f"{value} ({run_error:,.{digits}f})"
