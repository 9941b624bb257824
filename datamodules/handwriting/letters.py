"""Letter shapes, each a few points that the pen passes through, and words to write.

A shape is a string of points `x,y`, in the order of writing, on a grid where

====================  ======
height                y
====================  ======
ascenders (b, d, l)   20
capitals              19
x-height (a, n, o)    10
baseline              0
descenders (g, p, y)  -9.5
====================  ======

and x runs from 0 at the left edge of the letter. A smooth `curve` goes through the points,
so that a round letter takes some eight of them and a straight stem three. Two marks lift the pen:
`/` begins the next stroke of the same letter, `|` begins a stroke that is kept for the end
of the word, such as a dot or a bar. A single point is a dot.

The last segment of a letter that ends on its right-hand side is its tail: it leads into the
next letter where both are joined, and is cut short where the pen is lifted.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

__all__ = ["CURSIVE", "DENSITY", "Letter", "PRINT", "WORDS", "alphabet", "curve"]

DENSITY = 8
"""Points of a curve for each control point."""

PRINT = {
    "a": "7.5,8.6 5,10 1.6,8.4 0,4.6 1.4,.8 3.5,0 6,2.6 7.5,9.6 7.4,3 8.3,.3 10.3,1.6",
    "b": "0,20 0,10 .1,.3 .3,5 2.7,9.3 5.2,9.5 7,5.8 5.9,1.4 3.3,0 .4,1.2",
    "c": "6.8,8 4.5,10 1.4,8.4 0,5 1.1,1.4 3.8,0 6.3,.8 8.2,2.4",
    "d": "7.3,8.3 4.8,10 1.5,8.3 0,4.5 1.3,.8 3.6,0 6,2.3 7.5,10 7.8,20 "
    "7.5,10 7.6,2.6 8.6,.2 10.4,1.7",
    "e": ".6,4.6 3.8,5 6.6,7 5.6,9.4 3.3,10 .9,7.8 .1,4.2 1.5,.9 4,0 6.4,.9 8.4,2.8",
    "f": "6.6,17.8 5.2,20 3.3,18 2.7,10 2.6,0 | 0,9.8 3,10 6.2,10.3",
    "g": "7.3,8.5 5,10 1.5,8.4 0,5 1.3,1.3 3.6,.3 6,2.8 7.4,9.5 7.4,2 "
    "7,-6 5,-9.3 2.2,-9.3 .2,-7.3",
    "h": "0,20 0,10 .1,0 .3,5 2.9,9.4 5.2,9.5 6.4,7 6.5,2.2 7.4,.2 9.2,1.5",
    "i": "1,10 .9,6 1,2.4 1.9,.2 3.8,1.5 | 1.3,15",
    "j": "3,10 3,2 2.7,-6 1,-9.3 -1.5,-7.8 | 3.3,15",
    "k": "0,20 0,10 0,0 / 6,9.6 3.4,6.6 .6,4.4 3.2,3.4 6,.3 7.8,1.2",
    "l": "1,20 .9,10 1,2.6 2,.2 4,1.5",
    "m": "0,10 0,5 .1,0 .3,5 2.4,9.3 4.2,9.5 5,7 5.1,.1 5.3,5 7.4,9.3 9.2,9.5 "
    "10,7 10.1,2.2 11,.2 12.8,1.5",
    "n": "0,10 0,5 .1,0 .3,5 2.7,9.3 5,9.5 6.2,7 6.3,2.2 7.2,.2 9,1.5",
    "o": "4.6,9.8 1.6,8.6 0,5 1,1.3 3.6,0 6.3,1.6 7.2,5 6.3,8.6 4,9.9",
    "p": "0,10 0,0 -.1,-9.5 .1,0 .6,6 3,9.7 5.6,9.3 7,5.6 5.8,1.3 3.3,.1 .6,1.4",
    "q": "7.2,8.5 5,10 1.5,8.4 0,5 1.3,1.3 3.6,.3 6,2.8 7.4,9.5 7.4,0 7.3,-9.5 9.3,-7",
    "r": "0,10 0,5 .1,0 .3,4.6 1.9,8.4 4,9.8 5.6,9.3 7,8.3",
    "s": "6,8.5 3.7,10 1,8.7 1.2,6.6 3.5,5.2 5.8,3.4 5.7,1.2 3.2,0 .2,1.3",
    "t": "2.6,17 2.4,10 2.4,2.8 3.3,.3 5.6,1.5 | 0,10.6 2.7,10.8 5.7,11",
    "u": "0,10 0,4 .9,.8 3,0 5.1,2 6.3,6 6.6,10 6.5,3 7.4,.2 9.2,1.5",
    "v": "0,10 1.6,5 3.3,.2 5,5 6.5,9.8 8.3,9.2",
    "w": "0,10 1,5 2.7,.2 4.2,4 5.3,8.6 6.2,4 7.6,.2 9.4,4.6 10.3,9.8 12,9.2",
    "x": "0,9.8 1.7,8.4 4.6,1.6 6.1,.2 7.8,1.4 | 6.4,9.8 3.2,5.2 .2,.1",
    "y": "0,10 .4,4.6 2,2 4,2.2 5.8,4.6 6.8,10 6.7,3 6.2,-5 4.5,-9 2.2,-9.2 .3,-7.4",
    "z": "0,9.6 3,9.9 6.2,9.8 3.2,5 .2,.3 3.4,.4 6.2,0 8,.9",
    "A": "0,0 3.6,10 6.8,19 9,10 11.6,0 / 2.2,6.8 6,7 10.6,6.9",
    "B": "0,18.6 .2,9 0,0 / 0,18 4.6,19 7.8,16.4 6.6,11.8 1.4,10 6.8,8.8 9,5 6.6,.8 0,0",
    "C": "10.6,15.4 7.4,19 3,17 0,9.5 2.4,2.2 6.8,0 11,3",
    "D": "1,18.6 1,9 1,0 / -.6,18.2 5.6,18.6 10.4,14.2 11,7.4 6.6,1.2 0,0",
    "E": "8.6,18.4 4,18.6 .6,18.2 .4,9 .6,.4 4.6,0 9,.4 / .6,9.8 4,9.8 7.4,10.2",
    "F": ".6,18.6 .4,9 0,0 / 0,18.4 5,18.6 9.2,19 / .4,10 3.6,10 7,10.4",
    "G": "10.4,15.4 7,19 2.6,16.6 0,9 2.4,1.6 6.8,0 10.4,2.6 10.8,8 6.6,8.2",
    "H": "0,19 .2,9 0,0 / 9.6,19 9.6,9 9.8,0 / 0,9.6 5,9.8 9.8,10",
    "I": "2,19 2,9 1.8,0",
    "J": "7,19 7,9 6.2,2.6 3.4,0 .8,1.6 0,4.6",
    "K": "0,19 0,9 0,0 / 9,19 4.6,12.6 .6,8.8 3.6,7.4 6.6,3 9.6,0",
    "L": ".6,19 .4,9 .6,.6 4,0 8.6,.4",
    "M": "0,0 1,10 2.2,18.8 4.4,12 7,4 9.8,12 12.2,18.8 13,10 14,0",
    "N": "0,0 .2,10 .4,18.8 5,9.6 9.8,.4 10.2,10 10.4,19",
    "O": "7,18.8 2.6,17 0,10 2,2.2 6.4,0 11,3 12.4,10 10.6,16.4 6,18.9",
    "P": "1,18.8 .8,9 .6,0 / -.6,17.8 4.6,19.2 9,17 9.2,12.8 6,9.8 1,9.4",
    "Q": "7,18.8 2.6,17 0,10 2,2.2 6.4,0 11,3 12.4,10 10.6,16.4 6,18.9 / 8,5 10.6,1.6 13.4,-1.6",
    "R": "1,18.8 .8,9 .6,0 / -.6,17.8 4.6,19.2 8.8,17 8.8,12.8 5.6,9.8 1.4,9.6 5,6 10,0",
    "S": "9.2,16 6,19 2,17.2 2,12.6 5.4,10 9,7 8.6,2 5,0 .4,2.6",
    "T": "6,18.4 6,9 5.8,0 / 0,18.4 6,18.6 11.8,19",
    "U": "0,19 .2,8 1.6,1.6 5,0 8.6,2 9.8,8 10.2,19",
    "V": "0,19 2.8,9 5.6,.4 8.6,10 11.2,19",
    "W": "0,19 2,9 4,.4 6.2,8 8,15 9.8,8 11.8,.4 14,9 15.8,19",
    "X": "0,19 5,9.6 10.2,0 / 10.2,19 5,9.4 0,0",
    "Y": "0,19 2.4,13.6 5,9.8 / 10,19 5.2,9.8 4.6,5 4.4,0",
    "Z": "0,18.4 5,18.8 9.8,18.6 5,9.6 .4,.4 5,.4 10.2,0",
    "0": "4.8,17 1.6,14.4 0,8 1.4,1.6 4.4,0 7.4,3 8.2,9 7,15 4.2,17",
    "1": "0,13 2,15.2 3.4,17 3.4,8 3.2,0",
    "2": ".4,13 2.6,16.6 5.8,16.4 7.2,13 4.4,6 .2,.4 3.6,.6 8,.2",
    "3": ".6,15 3.8,17 6.8,14.6 5.8,10.6 3,9.2 6.8,7.4 7.4,3.4 4.8,.2 .2,1.8",
    "4": "5.2,17 3,11 .2,6 4,5.8 8.6,6.2 / 6.4,10.4 6.2,4 6.2,-1",
    "5": "1.6,16.6 1,9.6 4,10.4 7.2,8 7.2,3 4.2,0 .2,1.4 / 1.6,16.6 4.8,16.6 7.8,17",
    "6": "6.8,16 3.4,13 .6,7 .8,2.4 3.4,0 6.6,1.8 6.8,5.4 4.4,7.8 1,5.6",
    "7": "0,16.4 3.8,16.6 7.6,16.6 5,9 2.6,0",
    "8": "6.4,14.4 4,17 1.4,14.4 2.2,11 5.4,8 7,4 5,.2 1.8,.6 .6,4 3.4,8.4 6.2,12 6.6,15",
    "9": "6.8,13.6 4.8,17 1.6,16 .6,12 2.6,9 5.4,10.6 7,14.8 6.8,8 6.2,0",
    ".": ".8,.2",
    ",": "1,1 1.2,-.8 0,-3.4",
    "'": "1,20.4 .8,18.4 .2,16.4",
    "-": "0,6 2.6,6 5.4,6.3",
}

CURSIVE = {
    "a": "-1,4 2.6,9 7.4,9 4.6,9.9 1.4,8 0,4.4 1.4,.8 3.5,0 6,2.6 7.5,9.6 7.4,3 8.3,.3 10.3,1.8",
    "b": "0,3 2.6,10 4.2,17 3,20 1.6,17 1.2,8 1.6,2 3.6,0 6.4,1.4 7,5.2 5.4,8.4 "
    "3.4,8.2 3.6,6.6 6.2,7.2 9,8.8",
    "c": "-1,4 2.6,9 6.8,8.4 4.5,9.9 1.4,8 0,4.6 1.2,1.2 3.8,0 6.3,.8 8.2,2.6",
    "d": "-1,4 2.6,9 7.4,9 4.6,9.9 1.4,8 0,4.4 1.4,.8 3.5,0 6,2.6 7.6,10 8.2,19.6 "
    "7.5,10 7.6,2.6 8.6,.2 10.4,1.8",
    "f": "-.4,2 2.8,10 5.2,17.4 4.2,20.4 2.7,17 2.3,5 2.1,-6 3.2,-9 4.6,-5.6 2.8,.2 5,1 7.2,2",
    "g": "-1,4 2.6,9 7.4,9 4.6,9.9 1.4,8 0,4.6 1.3,1.1 3.6,.3 6,2.8 7.4,9.5 7.2,2 6.4,-7 "
    "4.4,-9.6 2.8,-7 6,-2.6 9.8,1.6",
    "h": "0,3 2.4,10 3.8,17 2.6,20 1.2,17 .6,8 .6,0 1,5 3.4,9.3 5.6,9.4 "
    "6.7,7 6.8,2.2 7.7,.2 9.6,1.6",
    "j": "3,10 3,2 2.4,-6.6 .6,-9.6 -1,-7.2 2,-2.8 5.4,1.4 | 3.3,15",
    "k": "0,3 2.4,10 3.8,17 2.6,20 1.2,17 .6,8 .6,0 1,5 3.6,9 5.6,8.2 4.6,5.6 "
    "1.8,4.8 4,3 6.3,.3 8.4,1.6",
    "l": "0,3 2.4,10 3.8,17 2.7,20 1.3,17 .9,8 1.2,2.4 2.4,.1 4.6,1.7",
    "m": "-.8,6.6 .5,9.6 1.1,7.6 1.1,0 1.4,5 3.2,9.2 5,9.5 5.8,7 5.9,.1 6.2,5 8,9.2 9.8,9.5 "
    "10.7,7 10.8,2.2 11.7,.2 13.6,1.6",
    "n": "-.8,6.6 .5,9.6 1.1,7.6 1.1,0 1.4,5 3.4,9.2 5.6,9.5 6.7,7 6.8,2.2 7.7,.2 9.6,1.6",
    "o": "-1,4 2.4,9 5.2,9.6 1.6,8.4 0,4.8 1,1.2 3.6,0 6.2,1.6 7,5 6,8.6 "
    "4.4,9.8 4.6,8.8 7,8.8 9.6,9.6",
    "p": "-.2,7 .8,10 .6,0 .3,-9.5 .7,0 1,6 3.2,9.6 5.7,9.2 7,5.6 5.8,1.2 "
    "3.6,.2 2,1.6 5.6,.4 8.8,1.6",
    "q": "-1,4 2.6,9 7.4,9 4.6,9.9 1.4,8 0,4.6 1.3,1.1 3.6,.3 6,2.8 7.4,9.5 7.4,0 7.4,-8.4 "
    "9,-9 9.2,-4 8,-.2 10.4,1.8",
    "r": "-.8,6.8 .4,9.8 .9,7.6 .9,0 1.2,4.6 2.6,8.4 4.6,9.8 5.8,9 7.4,8.4 9,9",
    "s": "-.4,1.4 2.4,5 4.6,10.2 5,7 6.3,3.6 5.8,1 3.6,0 1.8,1.2 4.6,.3 8.6,1.9",
    "u": "-.8,7 .3,9.8 .4,4 1.3,.8 3.2,0 5.2,2 6.4,6 6.7,10 6.6,3 7.5,.2 9.4,1.6",
    "v": "-.8,7.4 .5,9.8 1.9,5 3.6,.2 5.6,5 6.3,9.6 7,8.4 9,8.9",
    "w": "-.8,7.4 .4,9.8 1.1,4 2.9,.1 4.6,3 5.5,9 5.9,4 7.6,.1 9.6,4.4 10,9.6 10.8,8.4 12.8,8.9",
    "y": "-.8,7 .3,9.8 .6,4.6 2.2,2 4.2,2.2 5.9,4.6 6.8,10 6.6,2 5.6,-7 "
    "3.6,-9.6 2.2,-7 5.4,-2.6 9.2,1.6",
    "z": "-.6,7.6 2,9.8 5,8.6 3.6,4.6 .6,.8 3.4,2 4.8,-2 4,-7.6 2,-9 1.4,-6.4 4.6,-2.4 8.4,1.5",
}
"""Joined hands enter round letters over the top, and tie loops into ascenders and descenders."""

WORDS = """
a about above after again air all along also always an and animal another any are around as ask
at away back be because been before began being below best better between big book both boy bring
but by call came can car carry change children city close cold come could country cut day did
different do does done door down dream each early earth eat end enough even evening every eye face
family far father feel feet few field find fire first five follow food for form found four free
from garden gave get girl give go good great green group grow had half hand hard has have he head
hear heard help her here high him his home horse hour house how idea if in into is it its just
keep kind king knew know land large last late laugh learn leave left let letter life light like
line list listen little live long look made make many may mean might mile mind money moon more
morning most mother mountain move much music must my name near need never new next night no north
not nothing now number of off often old on once one only open or other our out over own page
paper part people picture place plain plan plant play point put question quick quiet quite rain
ran read ready really red rest right river road rock room run said same saw say school sea second
see seem sentence set several she short should show side simple since sing sky sleep slow small
snow so some song soon sound south spell spring stand star start state still stop story street
strong study such summer sun table take talk tell than that the their them then there these they
thing think this those thought three through time to together told too took top town travel tree
true try turn two under until up upon us use usual very voice walk wall want war warm was watch
water way we week well went were west what wheel when where which while white who whole why will
wind window winter with without woman wood word work world would write year yellow yes yet you
young your zero don't it's can't
""".split()


class Letter(NamedTuple):
    """One shape, its strokes given by the rows of their points in the table of all points."""

    strokes: list[np.ndarray]
    """Rows of each stroke of the letter itself, (k,), in the order of writing."""
    later: list[np.ndarray]
    """Rows of each stroke that may wait for the end of the word, (k,)."""
    width: float
    """Right-hand end of the letter above its descender, grid units."""
    tail: float
    """Width of the tail, grid units, zero without one."""
    enters: bool
    """Whether the pen can come in from the letter before without being lifted."""
    leaves: bool
    """Whether the pen can go on to the next letter, and so whether the letter has a tail."""


def read_strokes(strokes: str) -> list[np.ndarray]:
    """Reads strokes separated by `/`; a dot becomes a dash too short to be seen as one."""
    out = [
        np.array([[float(v) for v in point.split(",")] for point in stroke.split()])
        for stroke in strokes.split("/")
        if stroke
    ]
    return [p + np.array([[0.0, 0.0], [0.5, -0.6]]) if len(p) == 1 else p for p in out]


@cache
def alphabet() -> tuple[np.ndarray, dict[tuple[str, bool], Letter]]:
    """Reads all shapes.

    Returns:
        The table of all control points (P, 2), grid units, and the letters by character
        and hand (True for `CURSIVE`). Only small letters are ever joined.
    """
    table: list[np.ndarray] = []
    letters: dict[tuple[str, bool], Letter] = {}
    rows = 0
    for hand, shapes in ((False, PRINT), (True, CURSIVE)):
        for char, shape in shapes.items():
            body, _, later = shape.partition("|")
            strokes, kept = read_strokes(body), read_strokes(later)
            p = np.concatenate(strokes + kept)
            ends = rows + np.cumsum([len(stroke) for stroke in strokes + kept])
            spans = np.split(np.arange(rows, ends[-1]), ends[:-1] - rows)
            rows = int(ends[-1])
            table.append(p)
            width = float(p[p[:, 1] > -2.0, 0].max())
            last = strokes[-1][-2:, 0]
            leaves = char.islower() and bool(last[1] > 0.8 * width)
            letters[char, hand] = Letter(
                strokes=spans[: len(strokes)],
                later=spans[len(strokes) :],
                width=width,
                tail=float(last[1] - last[0]) if leaves else 0.0,
                enters=char.islower() and bool(strokes[0][0, 0] < 0.4 * width),
                leaves=leaves,
            )
    return np.concatenate(table), letters


def curve(p: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws a centripetal Catmull-Rom spline through the points.

    Where the pen is lifted, the tangent is that of the ink alone.

    Args:
        p: points (N, 2).
        ink: whether the pen is down between a point and the next (N - 1,).

    Returns:
        The path (M, 2) and its curvature (M,), M = `DENSITY` (N - 1) + 1.
    """
    step = np.diff(p, axis=0)
    d = np.sqrt(np.hypot(*step.T) + 1e-3)[:, None]
    slope = step / d

    m = np.empty_like(p)
    m[0], m[-1] = slope[0], slope[-1]
    m[1:-1] = slope[:-1] + slope[1:] - (step[:-1] + step[1:]) / (d[:-1] + d[1:])
    before = np.flatnonzero(ink[:-1] & ~ink[1:]) + 1
    after = np.flatnonzero(~ink[:-1] & ink[1:]) + 1
    m[before] = 1.5 * slope[before - 1] - 0.5 * m[before - 1]
    m[after] = 1.5 * slope[after] - 0.5 * m[after + 1]

    u = np.arange(DENSITY)[:, None] / DENSITY
    a, b = (d * m[:-1])[:, None], (d * m[1:])[:, None]
    c2, c3 = 3 * step[:, None] - 2 * a - b, a + b - 2 * step[:, None]
    path = p[:-1, None] + u * (a + u * (c2 + u * c3))
    path = np.concatenate([path.reshape(-1, 2), p[-1:]])
    v = (a + u * (2 * c2 + 3 * u * c3)).reshape(-1, 2)
    w = (2 * c2 + 6 * u * c3).reshape(-1, 2)
    cross = np.abs(v[:, 0] * w[:, 1] - v[:, 1] * w[:, 0])
    curvature = cross / (np.hypot(*v.T) + 1e-2) ** 3
    return path, np.append(curvature, curvature[-1])
