"""Tables of text in Markdown and LaTeX."""

from collections.abc import Sequence

__all__ = ["latex_table", "markdown_table"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(c)} |" for c in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Needs no package; the first column is of words, the others of numbers."""
    head, *body = (" & ".join(map(latex, c)) + r" \\" for c in (header, *rows))
    begin = rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"
    lines = [begin, r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("#", r"\#"), ("&", r"\&")):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$")
