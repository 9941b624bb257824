"""The paper's table as text: for the terminal, as Markdown, LaTeX and CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from reports.markup import latex_table, markdown_table

__all__ = ["Line", "Part", "cells", "matrix", "missing_of", "show_table", "write_table"]

COLUMNS = ("model", "figure", "ours", "published", "distance", "parameters")
NOTES = (
    "± one standard error over sequences; distance is ours less published; paper-40 is the "
    "original script's estimate, not a bound",
    "* recalled, not verified",
)


class Line(NamedTuple):
    """One figure of one model."""

    model: str
    figure: str
    value: float | None
    error: float | None
    """Standard error over sequences."""
    published: float | None
    verified: bool
    parameters: int | None
    fill: str | None
    """The command that gives the value where it is missing."""
    reason: str = ""
    """Why the value does not compare with what was published, a clause without its subject."""


class Part(NamedTuple):
    """What there is for one data set."""

    data: str
    unit: str
    digits: int
    lines: list[Line]
    notes: list[str]


def cells(part: Part, missing: Sequence[str]) -> list[list[str]]:
    """The lines as text, in the order of COLUMNS; a missing value as the number of its command."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:,.{part.digits}f}"

    rows, before = [], ""
    for line in part.lines:
        ours = shown(line.value)
        if line.value is not None and line.error is not None:
            ours += f" ± {shown(line.error)}"
        if line.fill is not None:
            ours = f"({missing.index(line.fill) + 1})"
        public = shown(line.published)
        if line.published is not None and not line.verified:
            public += "*"
        far = None
        if line.value is not None and line.published is not None:
            far = line.value - line.published
        distance = line.reason if far is None else f"{far:+,.{part.digits}f}"
        size = f"{line.parameters:,}" if line.parameters and line.model != before else ""
        model = line.model if line.model != before else ""
        rows.append([model, line.figure, ours, public, distance, size])
        before = line.model
    return rows


def missing_of(table: Sequence[Part]) -> list[str]:
    """The commands that fill what is missing, each once."""
    return list(dict.fromkeys(line.fill for part in table for line in part.lines if line.fill))


def matrix(table: Sequence[Part], missing: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of all data sets side by side, as in the paper: our figures only."""
    ours = {
        (line.model, line.figure): dict.fromkeys(part.data for part in table)
        for part in table
        for line in part.lines
        if line.value is not None or line.fill is not None
    }
    for part in table:
        for line, row in zip(part.lines, cells(part, missing), strict=True):
            if (line.model, line.figure) in ours:
                ours[line.model, line.figure][part.data] = row[2]
    header = ["model", "figure", *(part.data for part in table)]
    return header, [[*key, *(cell or "" for cell in row.values())] for key, row in ours.items()]


def show_table(table: Sequence[Part]) -> None:
    """Prints the table of every data set, and the commands that fill what is missing."""
    console, missing = Console(), missing_of(table)
    for part in table:
        shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"{part.data}, {part.unit}")
        for i, name in enumerate(COLUMNS):
            words = i < 2 or (name == "distance" and any(line.reason for line in part.lines))
            shown.add_column(
                name,
                justify="left" if words else "right",
                no_wrap=not words,
                min_width=14 if words else None,
                overflow="fold",
            )
        for row in cells(part, missing):
            shown.add_row(*row)
        console.print(shown)
        for note in part.notes:
            console.print(note, style="dim", markup=False, soft_wrap=True)
    for note in NOTES:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    for i, command in enumerate(missing):
        console.print(f"({i + 1}) {command}", markup=False, highlight=False, soft_wrap=True)


def write_table(table: Sequence[Part], folder: Path) -> None:
    """Writes table.csv, every number as it is, and table.md and table.tex, as shown, where there
    are several data sets with a table of all of them first."""
    missing = missing_of(table)
    with open(folder / "table.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["data", "unit", *Line._fields])
        for part in table:
            out.writerows([part.data, part.unit, *line] for line in part.lines)
    text, tex = [], []
    if len(table) > 1:
        header, rows = matrix(table, missing)
        text.append(f"## All data sets\n\n{markdown_table(header, rows)}")
        tex.append(f"% all data sets\n{latex_table(header, rows)}")
    for part in table:
        rows = cells(part, missing)
        notes = "\n\n".join([*part.notes, *NOTES]).replace("*", r"\*").replace("_", r"\_")
        heading = f"## {part.data}, {part.unit}\n\n"
        text.append(f"{heading}{markdown_table(COLUMNS, rows)}\n{notes}\n")
        tex.append(f"% {part.data}, {part.unit}\n{latex_table(COLUMNS, rows)}")
    if missing:
        listed = "\n".join(f"{i + 1}. `{command}`" for i, command in enumerate(missing))
        text.append(f"## What fills the numbered cells\n\n{listed}\n")
    (folder / "table.md").write_text("\n".join(text))
    (folder / "table.tex").write_text("\n".join(tex))
