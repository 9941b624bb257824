"""The files of UNIPEN train_r01_v07: segments in data/, pen movements in include/."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.handwriting.pen import offsets

__all__ = ["Component", "Segment", "parse_components", "parse_segments", "read_file"]


class Component(NamedTuple):
    """What lies between two lifts of the pen or, as the tablet saw it, above the paper."""

    points: np.ndarray
    """(n, 2), x and y, y up."""
    down: bool
    writer: str
    rate: float
    """Points a second; NaN where the files do not say."""


class Segment(NamedTuple):
    """A line of text."""

    x: np.ndarray
    """(T, 3), [pen, dx, dy] in the tablet's units; empty if there are fewer than two points."""
    text: str
    writer: str
    rate: float


def read_file(path: Path, include: Path) -> list[Segment]:
    """Reads all segments of a file below data/.

    Component numbers run through all included files and count every .PEN_DOWN, and every .PEN_UP
    that has coordinates. Movements above the paper are left out. Segments marked BAD are, too.

    Args:
        include: folder that .INCLUDE is relative to.

    Raises:
        ValueError: if a file is malformed, or a segment names components that do not exist.
        FileNotFoundError: if an included file is missing.
    """
    text = path.read_text(encoding="latin-1")
    included = [include / name for name in re.findall(r"(?m)^\.INCLUDE\s+(\S+)", text)]
    for file in included:
        if not file.is_file():
            raise FileNotFoundError(f"{path} includes {file}, which is not there")
    components = parse_components(included)
    segments = []
    for number, first, last, label in parse_segments(path, text):
        if last >= len(components):
            raise ValueError(
                f"{path}, line {number}: the segment ends with component {last}, but the included "
                f"files have only {len(components)}"
            )
        strokes = [c for c in components[first : last + 1] if c.down and len(c.points)]
        x = frames([c.points for c in strokes])
        segments.append(Segment(x, label, components[first].writer, components[first].rate))
    return segments


def frames(strokes: list[np.ndarray]) -> np.ndarray:
    """Offsets (T, 3) of strokes (n_i, 2), the pen flag 1 on each stroke's last point."""
    if sum(map(len, strokes)) < 2:
        return np.zeros((0, 3), np.float32)
    ends = np.concatenate([np.arange(len(stroke)) == len(stroke) - 1 for stroke in strokes])
    return offsets(np.column_stack([ends, np.concatenate(strokes)]))


def parse_segments(path: Path, text: str) -> Iterator[tuple[int, int, int, str]]:
    r"""Yields line number, first and last component, and label of each segment not marked BAD,
    such as `.SEGMENT TEXT 0-46 OK "a \"label\""`."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(".SEGMENT"):
            continue
        match = re.fullmatch(
            r'\.SEGMENT\s+\S+\s+(\d+)(?:-(\d+))?\s+(\S+)\s+"((?:\\.|[^"\\])*)"\s*', line
        )
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(
                f"{path}, line {number}: {line.strip()!r} is no segment such as "
                '.SEGMENT TEXT 0-46 OK "label"'
            )
        if match[3] != "BAD":
            label = re.sub(r"\\(.)", r"\1", match[4])
            yield number, int(match[1]), int(match[2] or match[1]), label


def parse_components(paths: Sequence[Path]) -> list[Component]:
    """Reads the pen movements of the files that a segment file includes, in order.

    Raises:
        ValueError: if a line between .PEN_DOWN or .PEN_UP and the next keyword holds no point.
    """
    components: list[Component] = []
    coordinates = ["X", "Y"]
    writer, rate = "", math.nan
    for path, number, keyword, words in blocks(paths):
        if keyword == ".WRITER_ID":
            writer = " ".join(word for row in words for word in row)
        elif keyword == ".POINTS_PER_SECOND":
            rate = parse_point(path, number, words[0], 1)[0]
        elif keyword == ".COORD":
            coordinates = words[0]
            if not {"X", "Y"} <= set(coordinates):
                raise ValueError(f"{path}, line {number}: .COORD names no X and Y")
        elif keyword == ".PEN_DOWN" or (keyword == ".PEN_UP" and any(words)):
            points = [
                parse_point(path, number + i, row, len(coordinates))
                for i, row in enumerate(words)
                if row
            ]
            rows = np.array(points, np.float64).reshape(-1, len(coordinates))
            xy = rows[:, [coordinates.index("X"), coordinates.index("Y")]]
            components.append(Component(xy, keyword == ".PEN_DOWN", writer, rate))
    return components


def blocks(paths: Sequence[Path]) -> Iterator[tuple[Path, int, str, list[list[str]]]]:
    """Yields each keyword with its file, its line, and the words on this line and those below."""
    for path in paths:
        start, keyword, words = 0, "", list[list[str]]()
        for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
            if line.startswith("."):
                yield path, start, keyword, words
                first, *rest = line.split()
                start, keyword, words = number, first, [rest]
            else:
                words.append(line.split())
        yield path, start, keyword, words


def parse_point(path: Path, number: int, words: list[str], count: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ValueError(
            f"{path}, line {number}: {' '.join(words)!r} is not {count} finite "
            f"{'number' if count == 1 else 'numbers'}"
        )
    return values
