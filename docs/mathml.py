"""A Sphinx extension: equations as MathML, which browsers draw without fetching anything."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def mathml(latex: str, display: str) -> str:
    """Converts LaTeX, display "inline" or "block"."""
    latex = " ".join(latex.split())
    # In display, Sphinx's own reading of its directive: lines end in \\ and align at &.
    if display == "block" and re.search(r"\\\\|(?<!\\)&", latex) and r"\begin" not in latex:
        latex = rf"\begin{{split}} {latex} \end{{split}}"
    text = convert(latex, display=display).replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    # The thin space that TeX puts behind the name of a function.
    return re.sub(r"(<mi>(?:log|ln|tanh|exp)</mi>)(?!<mo[^>]*>&#x00028;)", r"\1" + THIN, text)


THIN = '<mspace width="0.17em" />'


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="equation">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
