"""What a visitor draws, as frames of the corpus that the model knows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from datamodules.handwriting.pen import offsets

__all__ = ["PIXELS", "Hand", "ink_frames", "typical_hand"]

PIXELS = 16.0
"""Vertical spread of a line of writing on the page."""

SPREAD, STEP = 1.35, 0.32
"""Vertical spread of a line, and mean step while the pen is down, in root mean square steps; of
IAM-OnDB. In the synthetic corpus they are 1.24 and 0.43, in UNIPEN 1.6 to 1.7 and 0.23 to 0.40."""

LARGER = 3.0
"""How much larger or smaller than the page's own writing a drawing is taken to be, at most."""

LONGEST_GAP = 50.0
"""Milliseconds without an event, after which a mouse has been standing still."""

MAX_STEPS = 1000


class Hand(NamedTuple):
    """How large and how fast a corpus writes, in its own units."""

    spread: float
    """Standard deviation of a line's ink across the line."""
    step: float
    """Mean distance between two points of a stroke."""


def typical_hand(data: Mapping[str, Any]) -> Hand:
    """Infers it from the normaliser, which knows the root mean square of all steps.

    Args:
        data: the description of a corpus of frames [pen, dx, dy] (`SequenceData.description`).
    """
    shift, scale = np.array(data["shift"][1:]), np.array(data["scale"][1:])
    squares = shift**2 + scale**2
    # The paper's normaliser, one for both offsets, adds up the squares of both.
    pooled = shift[0] == shift[1] and scale[0] == scale[1]
    step = float(np.sqrt(squares[0] if pooled else squares.sum()))
    return Hand(SPREAD * step, STEP * step)


def ink_frames(strokes: Sequence[np.ndarray], hand: Hand) -> np.ndarray:
    """Turns drawn strokes into frames [pen, dx, dy] in the corpus's units, y up.

    The drawing is scaled to the corpus's vertical spread. A mouse is slower than a pen, so the
    visitor's time is stretched as a whole until the mean step has the corpus's length; what is
    slow or fast inside the drawing stays so, but where the mouse stood still no time passes.

    Args:
        strokes: (n_i, 3) each, x and y in pixels, y down, and the time in milliseconds.

    Returns:
        (T, 3) float32; T = 0 for a single dot, since frames are differences of points.

    Raises:
        ValueError: if it is too long to be read.
    """
    paths = [stroke[:, :2] * [1.0, -1.0] for stroke in strokes if len(stroke)]
    if not paths:
        return np.zeros((0, 3), np.float32)
    gaps = [np.clip(np.diff(s[:, 2]), 0, LONGEST_GAP) for s in strokes if len(s)]
    lengths = [np.hypot(*np.diff(path, axis=0).T) for path in paths]
    if any(gap.sum() == 0 and length.sum() > 0 for gap, length in zip(gaps, lengths, strict=True)):
        gaps = lengths  # Without a clock, the pen moves evenly.

    scale = hand.spread / np.clip(vertical_spread(paths), PIXELS / LARGER, PIXELS * LARGER)
    steps = scale * sum(length.sum() for length in lengths) / hand.step
    if steps + len(paths) > MAX_STEPS:
        raise ValueError(
            f"the drawing is too long: {steps + len(paths):,.0f} steps of the pen, and the model "
            f"reads at most {MAX_STEPS:,}"
        )
    pace = steps / max(sum(gap.sum() for gap in gaps), 1e-9)
    points = [
        resample(scale * path, gap, round(pace * gap.sum()))
        for path, gap in zip(paths, gaps, strict=True)
    ]
    return offsets(np.concatenate(points))


def vertical_spread(paths: Sequence[np.ndarray]) -> float:
    """Standard deviation of y along the ink."""
    middles = np.concatenate([(path[1:, 1] + path[:-1, 1]) / 2 for path in paths])
    weights = np.concatenate([np.hypot(*np.diff(path, axis=0).T) for path in paths])
    if weights.sum() == 0:
        return 0.0
    mean = np.average(middles, weights=weights)
    return float(np.sqrt(np.average((middles - mean) ** 2, weights=weights)))


def resample(path: np.ndarray, gaps: np.ndarray, steps: int) -> np.ndarray:
    """Points [pen, x, y] at equal times of one stroke; a dot stays one.

    Shapes: path (n, 2), gaps (n - 1,) -> (steps + 1, 3), with at least one step if it moves.
    """
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    moves = times[-1] > 0
    at = np.linspace(0, times[-1], max(steps, 1) + 1) if moves else times[:1]
    pen = np.zeros(len(at))
    pen[-1] = 1
    return np.column_stack([pen, *(np.interp(at, times, column) for column in path.T)])
