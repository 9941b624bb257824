"""python -m sphinx -W -n docs build/docs      then open build/docs/index.html

Nothing is fetched: equations become MathML (docs/mathml.py), and pages need no server.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]
# For the notebook, which is executed in a process of its own.
os.environ["PYTHONPATH"] = str(DOCS.parent)
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "VRNN"
copyright = "the VRNN authors, Apache licence 2.0"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "mathml"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "VRNN"
html_static_path = ["_static"]
html_css_files = ["mathml.css"]
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True
# `Name` in a docstring is a link where it names something of ours, and code otherwise.
default_role = "py:obj"
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    # Annotations of other packages, whose documentation is elsewhere.
    ("py:.*", r"(?!vrnn|datamodules|runs|callbacks).*"),
    # What is no public name of its module.
    ("py:class", r"datamodules\.folders\.Item|vrnn\.models\.base\.Kept|runs\.curves\.Curve"),
    ("py:class", r"vrnn\.likelihoods\.\w+\.(Autoregressive|Discrete)Likelihood"),
]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True


def escape_shapes(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """The star of a shape (*, D) is no emphasis."""
    lines[:] = [re.sub(r"(?<=[(\[ ])\*(?=[,)])", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_shapes)
