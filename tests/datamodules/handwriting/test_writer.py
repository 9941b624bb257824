"""The invented writers: the same again, the statistics of IAM-OnDB, and a human hand."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.handwriting.letters import CURSIVE, PRINT, WORDS, alphabet
from datamodules.handwriting.pen import offsets, points
from datamodules.handwriting.writer import Style, draw_style, draw_text, line, write_line

STYLE = Style(
    slant=0.1,
    size=160.0,
    speed=8.0,
    spacing=0.2,
    word_gap=0.8,
    width=1.0,
    tall=1.0,
    joining=0.5,
    patience=0.5,
    rounding=10.0,
    tremor=0.5,
    unevenness=0.03,
    slope=0.0,
    form=0.3,
)

TEXT = "The quick fox will jump, but it fell by half a mile."


def write(text: str = TEXT, seed: int = 0, **style: float) -> np.ndarray:
    """Writes ``text`` in :data:`STYLE`, some of whose fields are changed."""

    return write_line(text, STYLE._replace(**style), np.random.default_rng(seed))


def steps(ink: np.ndarray) -> np.ndarray:
    """Returns the steps drawn with the pen down, those of :math:`(n, 3)` points, as (m, 2)."""

    drawn: np.ndarray = np.diff(ink[:, 1:], axis=0)[ink[:-1, 0] == 0]

    return drawn


def strokes(ink: np.ndarray) -> list[np.ndarray]:
    """Cuts :math:`(n, 3)` points where the pen is lifted."""

    return np.split(ink[:, 1:], np.flatnonzero(ink[:-1, 0]) + 1)


@pytest.fixture(scope="module")
def corpus() -> list[np.ndarray]:
    return [line(seed=0, index=i, writers=75)[0] for i in range(300)]


def test_a_line_depends_on_its_seed_and_index_alone() -> None:
    x, text, writer, style = line(seed=3, index=14, writers=10)
    line(seed=3, index=2, writers=10)
    again = line(seed=3, index=14, writers=10)

    assert np.array_equal(x, again[0])
    assert (text, writer, style) == again[1:]
    assert writer == 4 and style == line(seed=3, index=4, writers=10)[3]
    assert style == line(seed=3, index=4, writers=5)[3], "a writer depends on how many there are"
    assert x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == 3

    for other in (line(seed=4, index=14, writers=10), line(seed=3, index=24, writers=10)):
        assert other[1] != text
        assert not np.array_equal(other[0][:50], x[:50])


def test_statistics_are_those_of_iam(corpus: list[np.ndarray]) -> None:
    """IAM-OnDB within 15 %, and the mean rise within 0.3 units a step."""

    x = np.concatenate(corpus)
    n = np.array([len(sequence) + 1 for sequence in corpus])

    assert x[:, 1].mean() == pytest.approx(8.4, rel=0.15)
    assert x[:, 2].mean() == pytest.approx(-0.1, abs=0.3)
    assert x[:, 1].std() == pytest.approx(42.7, rel=0.15)
    assert x[:, 2].std() == pytest.approx(36.5, rel=0.15)
    assert x[:, 0].mean() == pytest.approx(0.042, rel=0.15)
    assert np.percentile(n, [5, 50, 95]) == pytest.approx([310, 620, 955], rel=0.15)
    assert 0.001 < np.mean((x[:, 1] == 0) & (x[:, 2] == 0)) < 0.02, "share of repeated points"


def test_lines_are_whole_numbers_and_end_with_the_pen_up(corpus: list[np.ndarray]) -> None:
    for x in corpus:
        assert np.array_equal(x, np.rint(x))
        assert set(np.unique(x[:, 0])) == {0.0, 1.0}
        assert x[-1, 0] == 1

    ink = write()
    assert ink.dtype.kind == "i" and ink[-1, 0] == 1


def test_offsets_and_points_are_inverse() -> None:
    ink = write()
    x = offsets(ink)

    assert x.shape == (len(ink) - 1, 3)
    assert np.array_equal(x[:, 0], ink[1:, 0])
    assert np.array_equal(points(x)[1:, 0], ink[1:, 0])
    assert np.array_equal(points(x)[:, 1:], ink[:, 1:] - ink[0, 1:])
    assert np.array_equal(offsets(points(x)), x)
    assert offsets(ink[:1]).shape == (0, 3)

    with pytest.raises(ValueError, match="points must be"):
        offsets(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="offsets must be"):
        points(np.zeros(3))


def test_slant_is_the_regression_of_x_on_y() -> None:
    def estimate(slant: float) -> float:
        dx, dy = steps(write(slant=slant)).T
        return float((dx * dy).sum() / (dy * dy).sum())

    upright = estimate(0.0)

    for slant in (-0.3, 0.2, 0.6):
        assert estimate(slant) - upright == pytest.approx(slant, abs=0.02)


def test_size_speed_and_spacing_are_what_they_say() -> None:
    def height(size: float) -> float:
        return float(np.ptp(write(size=size)[:, 2]))

    assert height(200.0) / height(100.0) == pytest.approx(2.0, rel=0.05)
    assert len(write(speed=5.0)) > 1.4 * len(write(speed=10.0))
    assert len(write(size=100.0)) == len(write(size=200.0)), "size changed the time taken"
    assert np.ptp(write(spacing=0.4)[:, 1]) > np.ptp(write(spacing=0.1)[:, 1])
    assert np.ptp(write("nnn", size=150.0, slant=0.0)[:, 2]) == pytest.approx(150.0, rel=0.2)


@pytest.mark.parametrize("field", Style._fields)
def test_every_field_of_the_style_changes_the_ink(field: str) -> None:
    changed = STYLE._replace(**{field: getattr(STYLE, field) * 1.7 + 0.02})
    ink, other = write(), write_line(TEXT, changed, np.random.default_rng(0))

    assert ink.shape != other.shape or not np.array_equal(ink, other)


def test_writers_differ_and_keep_to_the_stated_ranges() -> None:
    styles = np.array([draw_style(np.random.default_rng(i)) for i in range(300)])
    ranges = dict(
        slant=(-0.3, 0.6),
        size=(104.0, 184.0),
        speed=(5.6, 10.8),
        spacing=(0.12, 0.42),
        word_gap=(0.6, 1.0),
        width=(0.8, 1.3),
        tall=(0.7, 1.15),
        joining=(0.0, 1.0),
        patience=(0.0, 1.0),
        rounding=(6.0, 16.0),
        tremor=(0.2, 2.0),
        unevenness=(0.015, 0.045),
        slope=(-0.03, 0.03),
        form=(0.0, 1.0),
    )

    assert tuple(ranges) == Style._fields
    for (low, high), values in zip(ranges.values(), styles.T, strict=True):
        assert values.min() >= low and values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)


def test_a_joined_word_is_one_stroke_and_a_printed_one_is_not() -> None:
    assert len(strokes(write("number", joining=1.0, patience=1.0))) == 1
    assert len(strokes(write("number", joining=0.0))) == 6


def test_dots_and_bars_wait_for_the_end_of_the_word() -> None:
    late = [s[:, 0].mean() for s in strokes(write("tin", joining=0.0, patience=1.0))]
    soon = [s[:, 0].mean() for s in strokes(write("tin", joining=0.0, patience=0.0))]

    assert len(late) == len(soon) == 5
    assert late[3] < late[1] < late[4] < late[2], "t i n, then the bar of t and the dot of i"
    assert soon[1] < soon[2] < soon[3] < soon[4], "t and its bar, i and its dot, n"


@pytest.mark.parametrize("joining", [0.0, 1.0])
@pytest.mark.parametrize("speed", [3.0, 20.0])
def test_every_stroke_of_every_letter_is_reported(joining: float, speed: float) -> None:
    letters = alphabet()[1]

    for char in PRINT:
        letter = letters[char, joining == 1.0 and char in CURSIVE]
        for seed in range(3):
            ink = write(char, seed, joining=joining, speed=speed)
            assert len(strokes(ink)) == len(letter.strokes) + len(letter.later), char


def test_the_hand_is_slower_where_it_turns() -> None:
    """The speed falls with the curvature, by about the exponent of the two-thirds power law."""

    speed, curvature = [], []

    for seed in range(5):
        for p in strokes(write(seed=seed, tremor=0.0)):
            a, b = p[1:-1] - p[:-2], p[2:] - p[1:-1]
            la, lb, lc = (np.hypot(*v.T) for v in (a, b, a + b))
            area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
            keep = (np.minimum(np.minimum(la, lb), lc) > 3.0) & (area > 0)
            speed.append(np.log(0.5 * (la + lb)[keep]))
            curvature.append(np.log(2 * area[keep] / (la * lb * lc)[keep]))

    v, k = np.concatenate(speed), np.concatenate(curvature)
    slope = float(np.polyfit(k, v, 1)[0])

    assert np.corrcoef(k, v)[0, 1] < -0.5
    assert -0.5 < slope < -0.15


def test_text_is_of_known_letters() -> None:
    assert len(set(WORDS)) >= 150
    assert set("".join(WORDS)) <= set(PRINT)

    text = draw_text(np.random.default_rng(0))
    assert set(text) <= set(PRINT) | {" "} and len(text.split()) > 1


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no letter shape for the character '€'"):
        write("ten €")
    with pytest.raises(ValueError, match="no text"):
        write("  ")
    with pytest.raises(ValueError, match="at least one writer"):
        line(seed=0, index=0, writers=0)
