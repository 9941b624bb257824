r"""Pen trajectories of invented writers, in the units and with the statistics of IAM-OnDB.

A line of writing is one continuous movement of the hand. The letters give it points to pass
through, also while the pen is lifted; a centripetal Catmull-Rom spline makes a path of them;
the two-thirds power law of human drawing, v being the speed and :math:`\kappa` the curvature,

.. math:: v = c \, (\kappa + \varepsilon)^{-1/3}

gives the time at which the hand is where; a Gaussian low-pass over time stands for the inertia
of the hand and rounds what is written fast; a whiteboard pen then reports the rounded position
65.6 times a second while it touches the board.

References:
    | The law relating the kinematic and figural aspects of drawing movements
    | (Lacquaniti, Terzuolo and Viviani, 1983) https://doi.org/10.1016/0001-6918(83)90027-6
    | Parameterization and applications of Catmull-Rom curves
    | (Yuksel, Schaefer and Keyser, 2011) https://doi.org/10.1016/j.cad.2010.08.008
    | IAM-OnDB, an on-line English sentence database acquired from handwritten text on a
    | whiteboard (Liwicki and Bunke, 2005) https://doi.org/10.1109/ICDAR.2005.132
"""

from typing import NamedTuple

import numpy as np

from datamodules.handwriting.letters import CURSIVE, DENSITY, PRINT, WORDS, Letter, alphabet, curve
from datamodules.handwriting.pen import offsets

__all__ = ["RATE", "Style", "draw_style", "draw_text", "line", "write_line"]

RATE = 65.6
"""Points a second."""

GRID = 10.0
"""x-height on the grid of the letters."""

OVERSAMPLING = 4


class Style(NamedTuple):
    """The habits of one writer. Ranges are those of `draw_style`."""

    slant: float
    """Tangent of the angle between stems and the vertical, positive to the right: -0.3 to 0.6."""
    size: float
    """x-height, whiteboard units: 104 to 184."""
    speed: float
    """x-heights a second on a circle of a tenth of the x-height in radius: 5.6 to 10.8."""
    spacing: float
    """Gap between letters, x-heights: 0.12 to 0.42."""
    word_gap: float
    """Gap between words, beside that between letters, x-heights: 0.6 to 1.0."""
    width: float
    """Horizontal stretch of the letters, without unit: 0.8 to 1.3."""
    tall: float
    """Stretch of ascenders and descenders, without unit: 0.7 to 1.15."""
    joining: float
    """Probability that two letters that can be joined are: 0 (print) to 1 (cursive)."""
    patience: float
    """Probability that dots and bars wait for the end of the word: 0 (print) to 1 (cursive)."""
    rounding: float
    """Standard deviation of the low-pass of the hand, milliseconds: 6 to 16."""
    tremor: float
    """Standard deviation of the shaking of the hand at 6 to 12 Hz, whiteboard units: 0.2 to 2."""
    unevenness: float
    """Standard deviation of what differs between two letters, x-heights: 0.015 to 0.045."""
    slope: float
    """Mean rise of the base line, tangent of the angle: -0.03 to 0.03."""
    form: float
    """Number that fixes which letter shapes the writer learned, and how they were bent: 0 to 1."""


def draw_style(rng: np.random.Generator) -> Style:
    """Draws a writer. A third of them print, a third join nearly all they can, others mix."""
    low, high = ((0.0, 0.2), (0.2, 0.7), (0.8, 1.0))[rng.integers(3)]
    joining = rng.uniform(low, high)
    return Style(
        slant=rng.uniform(-0.3, 0.6),
        size=rng.uniform(104.0, 184.0),
        speed=rng.uniform(5.6, 10.8),
        spacing=rng.uniform(0.12, 0.42),
        word_gap=rng.uniform(0.6, 1.0),
        width=rng.uniform(0.8, 1.3),
        tall=rng.uniform(0.7, 1.15),
        joining=joining,
        patience=joining + (1.0 - joining) * rng.uniform(0.0, 0.4),
        rounding=rng.uniform(6.0, 16.0),
        tremor=rng.uniform(0.2, 2.0),
        unevenness=rng.uniform(0.015, 0.045),
        slope=rng.uniform(-0.03, 0.03),
        form=rng.uniform(),
    )


def draw_text(rng: np.random.Generator) -> str:
    """Draws the words of one line, some twenty to fifty characters of them."""
    length = rng.integers(17, 49)
    words: list[str] = []
    start = rng.random() < 0.4
    while sum(map(len, words)) + len(words) < length:
        word = WORDS[rng.integers(len(WORDS))]
        word = word.capitalize() if start or rng.random() < 0.04 else word
        mark = ("", ".", ",", "-")[np.searchsorted((0.87, 0.93, 0.995), rng.random())]
        start = mark == "."
        words.append(word + mark)
    return " ".join(words)


def plan(text: str, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lays the letters out.

    Returns:
        The points to pass through (N, 2) in grid units, upright, and the number of the
        stroke that each belongs to (N,).
    """
    table, shapes = alphabet()
    habit = np.random.default_rng(int(style.form * 2**32))
    bent = table + 0.28 * habit.standard_normal(table.shape)
    taste = dict(zip(PRINT, habit.random(len(PRINT)), strict=True))

    letters: list[Letter] = []
    hands: list[bool] = []
    free: list[bool] = []  # whether the pen may go on to the next letter
    strokes: list[np.ndarray] = []
    owner: list[int] = []
    first: list[int] = []
    final: list[int] = []
    for word in text.split():
        waiting: list[tuple[np.ndarray, int]] = []
        for char in word:
            if char not in PRINT:
                raise ValueError(f"there is no letter shape for the character {char!r}")
            hand = char in CURSIVE and bool(taste[char] < style.joining)
            letter = shapes[char, hand]
            wait = rng.random() < style.patience
            first.append(len(strokes))
            strokes += letter.strokes if wait else letter.strokes + letter.later
            owner += [len(letters)] * (len(strokes) - len(owner))
            waiting += [(rows, len(letters)) for rows in letter.later if wait]
            letters.append(letter)
            hands.append(hand)
            free.append(letter.leaves and (wait or not letter.later))
            if hand and table[letter.strokes[0][1], 1] < 6.0 and len(letters) > 1:
                # Such a letter, s, is made on the way up from the base line.
                free[-2] &= bool(table[letters[-2].strokes[-1][-1], 1] < 6.0)
        strokes += [rows for rows, _ in waiting]
        owner += [n for _, n in waiting]
        free[-1] = False
        final.append(len(letters) - 1)
    if not letters:
        raise ValueError("there is no text to write")

    n = len(letters)
    enters = np.array([letter.enters for letter in letters[1:]] + [False])
    leaves = np.array([letter.leaves for letter in letters])
    joined = np.array(free) & enters & (rng.random(n) < style.joining)
    cut = np.where(leaves & ~joined, rng.uniform(0.2, 0.8, n), 0.0)

    stretch = style.width * (1.0 + style.unevenness * rng.standard_normal(n))
    width = np.array([letter.width for letter in letters])
    width -= cut * np.array([letter.tail for letter in letters])
    gap = style.spacing + style.unevenness * rng.standard_normal(n)
    gap[final] += style.word_gap * rng.lognormal(0.0, 0.15, len(final))
    left = np.append(0.0, np.cumsum(width * stretch + GRID * gap)[:-1])

    sizes = [len(rows) for rows in strokes]
    begin = np.append(0, np.cumsum(sizes))
    of = np.repeat(owner, sizes)
    p = bent[np.concatenate(strokes)]
    p += GRID * style.unevenness * rng.standard_normal(p.shape)

    # A letter that is not joined keeps but a part of its tail, and one that is joined to a
    # letter ending high is entered from there, not from the base line.
    entry = begin[first]
    leave = begin[np.array(first) + [len(letter.strokes) for letter in letters]] - 1
    p[leave] -= cut[:, None] * (p[leave] - p[leave - 1])
    high = np.flatnonzero(joined[:-1] & np.array(hands[1:], dtype=bool))
    p[entry[high + 1], 1] = np.maximum(p[entry[high + 1], 1], p[leave[high], 1] - 0.5)

    x, y = p.T
    beyond = np.minimum(y, 0.0) + np.maximum(y - GRID, 0.0)
    y = y + (style.tall - 1.0) * beyond
    y = y * (1.0 + style.unevenness * rng.standard_normal(n))[of]
    y = y + GRID * style.unevenness * rng.standard_normal(n)[of]
    x = x * stretch[of] + left[of]

    lift = np.ones(len(strokes), dtype=bool)
    lift[np.array(first[1:], dtype=int)[joined[:-1]]] = False
    return np.column_stack([x, y]), np.repeat(np.cumsum(lift), sizes)


def write_line(text: str, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Writes one line of text.

    Args:
        text: characters of `datamodules.handwriting.letters.PRINT`, in words separated by blanks.
        style: the writer.
        rng: source of all that differs when the same writer writes the same text again.

    Returns:
        The points (n, 3), integers: pen-up flag (1 on the last point of each stroke),
        then x and y in whiteboard units, y upwards, the base line starting at (0, 0).
    """
    p, stroke = plan(text, style, rng)
    ink = stroke[1:] == stroke[:-1]
    path, curvature = curve(p, ink)

    # The hand brakes ahead of a corner. It rests where it sets or lifts the pen, long enough for
    # the shortest stroke, a dot, to be reported.
    box = np.ones(5) / 5
    bend = np.convolve(np.minimum(curvature, 4.0), box, mode="same")
    pace = GRID * style.speed / np.cbrt(bend + 0.02)
    dt = np.hypot(*np.diff(path, axis=0).T) / (0.5 * (pace[1:] + pace[:-1]))
    lifts = np.flatnonzero(ink[1:] != ink[:-1]) + 1
    rest = np.where(ink[lifts], lifts * DENSITY, lifts * DENSITY - 1)
    rest = np.concatenate([[0], rest, [len(dt) - 1]])
    dt[rest] += 0.01 + rng.lognormal(-4.1, 0.9, len(rest))
    t = np.concatenate([[0.0], np.cumsum(dt)])

    fine = np.arange(0.0, t[-1], 1.0 / (OVERSAMPLING * RATE))
    where = np.interp(fine, t, np.arange(len(t)))
    sigma = style.rounding * 1e-3 * OVERSAMPLING * RATE
    reach = int(3 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    x, y = (
        np.convolve(np.pad(np.interp(fine, t, path[:, i]), reach, mode="edge"), kernel, "valid")
        for i in range(2)
    )

    first = rng.integers(OVERSAMPLING)
    fine, where, x, y = (v[first::OVERSAMPLING] for v in (fine, where, x, y))
    down = np.append(ink, True)[np.minimum(where.astype(int) // DENSITY, len(ink))]
    fine, where, x, y = (v[down] for v in (fine, where, x, y))
    number = stroke[where.astype(int) // DENSITY]

    scale = style.size / GRID * rng.lognormal(0.0, 0.03)
    frequency, phase = rng.uniform(6.0, 12.0, (2, 3, 1)), rng.uniform(0.0, 2 * np.pi, (2, 3, 1))
    shake = np.sin(2 * np.pi * frequency * fine + phase).sum(axis=1) * np.sqrt(2 / 3)
    slope = style.slope + 0.01 * rng.standard_normal()
    wave = 0.08 * GRID * np.sin(x / rng.uniform(60.0, 150.0) + rng.uniform(0.0, 2 * np.pi))

    x, y = x + style.slant * y, y + wave + slope * x
    xy = scale * np.stack([x, y]) + style.tremor * shake
    up = np.append(number[1:] != number[:-1], True)
    return np.column_stack([up, np.rint(xy.T)]).astype(np.int64)


def line(seed: int, index: int, writers: int) -> tuple[np.ndarray, str, int, Style]:
    """Makes line `index` of the corpus `seed`, whatever other lines are made.

    Writers take turns: line i is by writer i mod `writers`, whose style depends on `seed`
    and the writer alone.

    Returns:
        The offsets (T, 3) in float32 (see `datamodules.handwriting.pen.offsets`), whiteboard
        units; the text; the number of the writer; the style.
    """
    if writers < 1:
        raise ValueError(f"there must be at least one writer, not {writers}")
    writer = index % writers
    style = draw_style(np.random.default_rng([seed, 0, writer]))
    rng = np.random.default_rng([seed, 1, index])
    text = draw_text(rng)
    return offsets(write_line(text, style, rng)), text, writer, style
