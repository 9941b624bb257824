"""One table of many runs: python -m reports.sweep outputs/<date>/<sweep> [more runs or sweeps]

Mean and standard error over seeds; written beside the jobs as sweep.csv, sweep.md and sweep.tex.
"""

# Only light imports: Hydra imports this file whenever train.py is started.
import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback

from reports.markup import latex_table, markdown_table
from runs.metrics import alike, log_scale, own_options, read_figures

__all__ = ["Row", "SweepTable", "rows", "show_sweep", "write_sweep"]


class Row(NamedTuple):
    """The runs that differ in their seed only."""

    options: str
    """In what they differ from the other runs."""
    seeds: int
    """How many of them came to their end."""
    figures: dict[str, tuple[float, float | None]]
    """Mean and standard error over seeds of each figure that all of them have; the error is None
    for a single one."""
    failures: list[str]
    """What went wrong with the others."""
    best: Path | None = None
    """That of the best bound on the validation split."""


class SweepTable(Callback):
    """At the end of a sweep, prints and writes its table; the exit code is 1 if a job failed."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if not folder.is_dir():
            return
        table = rows([folder])
        if table:
            show_sweep(table)
            write_sweep(table, folder)
        if any(row.failures for row in table):
            sys.exit(1)


def rows(folders: Iterable[Path]) -> list[Row]:
    """Reads run folders, and folders of run folders, the best bound on the validation split first;
    rows of other validation splits, such as other windows of one, come one split after the other.

    Raises:
        ValueError: if there is no run in one of them, or a file of it is damaged.
    """
    runs = [run for folder in folders for run in runs_in(folder)]
    groups: dict[str, list[Path]] = {}
    for run, own in zip(runs, own_options(runs), strict=True):
        groups.setdefault(own or run.name.partition("_")[2] or run.name, []).append(run)
    table = [row(options, members) for options, members in groups.items()]
    bound = f"val/elbo{space_of(table)}"
    table.sort(key=lambda r: -r.figures.get(bound, (float("-inf"),))[0])
    first = [validation(r) for r in table]
    return sorted(table, key=lambda r: first.index(validation(r)))  # which keeps the order of each


def space_of(table: Sequence[Row]) -> str:
    """The space in which all rows compare, as the names of figures have it: raw where normalisers
    differ on the same data, or some likelihoods are of probabilities."""
    scales: dict[tuple[float, ...] | None, list[float | None]] = {}
    for line in table:
        figures = {name: value for name, (value, _) in line.figures.items()}
        scales.setdefault(validation(line), []).append(log_scale(figures))
    return "" if all(map(alike, scales.values())) else "_raw"


def validation(row: Row) -> tuple[float, ...] | None:
    """Sequences and frames of the validation split that the row is of; None where nobody knows."""
    counts = [row.figures.get(f"val/{name}") for name in ("sequences", "steps")]
    return tuple(count[0] for count in counts if count is not None) or None


def one_validation(table: Sequence[Row]) -> bool:
    """Whether the bounds of all rows compare: those of windows of 10 frames and of 40 do not."""
    return len({split for row in table if (split := validation(row)) is not None}) < 2


def runs_in(folder: Path) -> list[Path]:
    found = [p for p in (folder, *sorted(folder.glob("*"), key=number)) if is_run(p)]
    if not found:
        raise ValueError(
            f"{folder} is neither a run nor a sweep: it holds no run.json or error.txt"
        )
    return found


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("run.json", "metrics.json", "error.txt"))


def number(folder: Path) -> tuple[float, str]:
    first = folder.name.partition("_")[0]
    return (int(first) if first.isdigit() else float("inf"), folder.name)


def row(options: str, runs: Sequence[Path]) -> Row:
    done, failures = {}, []
    for run in runs:
        metrics, error = run / "metrics.json", run / "error.txt"
        if error.is_file():
            failures.append(f"{run.name}: {error.read_text().partition(chr(10))[0]}")
        elif metrics.is_file():
            done[run] = read_figures(metrics, "run the job again")
        else:
            failures.append(f"{run.name}: did not come to its end")
    shared = set.intersection(*map(set, done.values())) if done else set()
    values = {name: [float(its[name]) for its in done.values()] for name in shared}
    figures = {name: (mean(v), error_of(v)) for name, v in values.items()}
    best = max(done, key=lambda run: done[run]["val/elbo"]) if "val/elbo" in shared else None
    return Row(options, len(done), figures, failures, best)


def error_of(values: Sequence[float]) -> float | None:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def header(space: str) -> list[str]:
    bounds = [f"{split}/elbo{space}" for split in ("val", "test")]
    return ["options", "seeds", *bounds, "epoch", "parameters", "min", "failed"]


def cells(row: Row, space: str) -> list[str]:
    """A row as text, in the order of the header."""

    def cell(name: str, digits: int, with_error: bool = False) -> str:
        if name not in row.figures:
            return ""
        value, error = row.figures[name]
        shown = f"{value:,.{digits}f}"
        return shown if error is None or not with_error else f"{shown} ± {error:,.{digits}f}"

    bounds = [cell(f"{split}/elbo{space}", 1, True) for split in ("val", "test")]
    rest = [cell("best_epoch", 1), cell("parameters", 0), cell("minutes", 1)]
    return [row.options, str(row.seeds), *bounds, *rest, str(len(row.failures) or "")]


def show_sweep(table: Sequence[Row]) -> None:
    """Prints a table, and below it what went wrong."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console, space = Console(), space_of(table)
    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for i, name in enumerate(header(space)):
        width = None if i else 20
        name = name.replace("_raw", "\n_raw")  # Narrow enough for 80 columns.
        shown.add_column(name, justify="right" if i else "left", min_width=width, overflow="fold")
    for line in table:
        shown.add_row(*cells(line, space))
    console.print(shown)
    unit = "raw: the standardised ones do not compare" if space else "standardised"
    console.print(f"[dim]bounds in nats per sequence, {unit}; ± one standard error over seeds")
    if not one_validation(table):
        console.print("[dim]rows are of different validation splits; their bounds do not compare")
    elif table[0].best is not None:
        console.print(f"best run: {table[0].best}", markup=False, soft_wrap=True)
    for line in table:
        for failure in line.failures:
            console.print(f"failed: {failure}", markup=False, soft_wrap=True)


def write_sweep(table: Sequence[Row], folder: Path) -> None:
    """Writes sweep.csv, with every figure, and sweep.md and sweep.tex, with those shown."""
    names = sorted({name for line in table for name in line.figures})
    with open(folder / "sweep.csv", "w", newline="") as file:
        out = csv.writer(file)
        errors = [f"{name}_se_over_seeds" for name in names]
        out.writerow(["options", "seeds", "failed", *names, *errors])
        for line in table:
            pairs = [line.figures.get(name, (None, None)) for name in names]
            head = [line.options, line.seeds, len(line.failures)]
            out.writerow([*head, *(p[0] for p in pairs), *(p[1] for p in pairs)])
    space = space_of(table)
    columns, body = header(space), [cells(line, space) for line in table]
    (folder / "sweep.md").write_text(markdown_table(columns, body))
    (folder / "sweep.tex").write_text(latex_table(columns, body))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reports.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs or of sweeps")
    parser.add_argument("--out", type=Path, help="folder of sweep.csv, .md and .tex")
    args = parser.parse_args()

    from runs.errors import readable_errors

    with readable_errors():
        table = rows(args.runs)
        show_sweep(table)
        if args.out is not None or len(args.runs) == 1:
            folder = args.out or args.runs[0]
            folder.mkdir(parents=True, exist_ok=True)
            write_sweep(table, folder)


if __name__ == "__main__":
    main()
