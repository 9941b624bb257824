"""Tables of text in Markdown and LaTeX, by tabulate."""

from collections.abc import Sequence

from tabulate import tabulate

__all__ = ["latex_table", "markdown_table"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Every cell as it is; a bar in one is no border."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    text = tabulate(escaped[1:], escaped[0], "github", disable_numparse=True)
    return f"{text}\n"


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Needs no package; the first column is of words, the others of numbers."""
    align = ["left"] + ["right"] * (len(header) - 1)
    text = tabulate(rows, header, "latex", disable_numparse=True, colalign=align)
    return text.replace("±", r"$\pm$") + "\n"
