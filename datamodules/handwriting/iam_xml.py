"""The files of the IAM On-Line Handwriting Database: pen strokes in XML, texts, lists of forms."""

# Nothing heavy is imported here: this is all that the parsing processes load.
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml.ElementTree import ParseError, XMLParser  # type: ignore[import-untyped,unused-ignore]

__all__ = [
    "LINE",
    "find_lines",
    "form_of",
    "parse_line",
    "read_list",
    "read_text",
    "read_writers",
    "try_lines",
]

FORM = re.compile(r"[a-z]\d\d-\d\d\d[a-z]?")
LINE = re.compile(rf"({FORM.pattern})-(\d+)\.xml")


class Strokes:
    """Receives XML elements and keeps the pen points."""

    def __init__(self) -> None:
        self.points: list[list[int]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Point":
            self.points.append([0, int(attributes["x"]), -int(attributes["y"])])

    def end(self, tag: str) -> None:
        if tag == "Stroke" and self.points:
            self.points[-1][0] = 1

    def close(self) -> np.ndarray:
        return np.array(self.points, dtype=np.int32).reshape(-1, 3)


def parse_line(path: Path) -> np.ndarray:
    """Reads the pen points of one line.

    Args:
        path: a file such as `lineStrokes/a01/a01-000/a01-000u-01.xml`.

    Returns:
        The points (n, 3) in int32, in the order of the file: the pen-up flag (1 on the
        last point of each stroke), x to the right, y upwards (in the file it points downwards).

    Raises:
        ValueError: if the file is truncated, is no XML, has a coordinate that is no integer, or
            declares a document type (hence entities). The message starts with the path.
    """
    parser: Any = XMLParser(target=Strokes(), forbid_dtd=True)
    try:
        parser.feed(path.read_bytes())
        points: np.ndarray = parser.close()
    except KeyError as error:
        raise ValueError(f"{path}: a point without {error}") from error
    except (ParseError, ValueError, OverflowError, LookupError) as error:
        raise ValueError(f"{path}: {error}") from error
    return points


def try_lines(paths: list[Path]) -> list[np.ndarray | str]:
    """Parses several lines; a file that cannot be parsed gives its error message instead.

    Raises:
        OSError: if a file cannot be opened; what may be otherwise tomorrow is not cached.
    """
    parsed: list[np.ndarray | str] = []
    for path in paths:
        try:
            parsed.append(parse_line(path))
        except ValueError as error:
            parsed.append(str(error))
    return parsed


def form_of(key: str) -> str:
    """Returns the form of a line, `a01-000u` for `a01-000u-01`."""
    return key.rpartition("-")[0]


def find_lines(root: Path, forms: Iterable[str]) -> list[tuple[str, Path]]:
    """Lists the lines of some forms, in the order of the forms and from top to bottom.

    Several forms may share a directory, as a02-000 and a02-000x do.

    Returns:
        The key, such as `a02-000x-01`, and the file of each line. A form without any file
        contributes nothing.
    """
    lines: list[tuple[str, Path]] = []
    for form in forms:
        found = (root / "lineStrokes" / form[:3] / form[:7]).glob(f"{form}-*.xml")
        numbered = [(int(m[2]), path) for path in found if (m := LINE.fullmatch(path.name))]
        lines += [(path.stem, path) for _, path in sorted(numbered)]
    return lines


def read_list(path: Path) -> list[str]:
    """Reads a list of form ids, one a line; blanks around them do not matter.

    Raises:
        ValueError: if one is no form id; names the file and what it is.
    """
    forms = path.read_text(encoding="latin-1").split()
    for form in forms:
        if not FORM.fullmatch(form):
            raise ValueError(f"{path}: {form!r} is no form id (such as a01-000u)")
    return forms


def read_writers(path: Path) -> dict[str, str]:
    """Reads the writer of every form: lines of a form id and the writer's number; what follows
    them does not matter, nor do lines that start with #.

    Raises:
        ValueError: if a line is none of these; names the file and the line.
    """
    writers: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        cells = re.split(r"[\s,;]+", line.strip())
        if cells == [""] or cells[0].startswith("#"):
            continue
        if len(cells) < 2 or not FORM.fullmatch(cells[0]):
            raise ValueError(
                f"{path}, line {number}: {line.strip()!r} is no form and its writer, such as "
                "`a01-000u 10123`"
            )
        writers[cells[0]] = cells[1]
    return writers


def read_text(path: Path) -> list[str]:
    """Reads the transcription of a form, one string a line, in the order of its stroke files.

    This is the CSR block, the one that has the true line breaks. A run of `%` stands for a
    line break, too.
    """
    _, _, block = path.read_text(encoding="latin-1").partition("CSR:")
    lines = (part.strip() for line in block.splitlines() for part in re.split("%%+", line))
    return [line for line in lines if line]
