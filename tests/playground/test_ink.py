import numpy as np
import pytest

from datamodules.handwriting.pen import points
from datamodules.handwriting.synthetic import SyntheticHandwriting
from playground.ink import MAX_STEPS, PIXELS, STEP, Hand, ink_frames, typical_hand, vertical_spread

# A flat drawing is taken to be a third as tall as the page's writing: 3 units a pixel.
HAND = Hand(spread=PIXELS, step=3.0)


def stroke(x: list[float], ms: list[float], y: float = 50.0) -> np.ndarray:
    return np.column_stack([x, np.full(len(x), y), ms])


def test_an_even_stroke_becomes_even_steps() -> None:
    frames = ink_frames([stroke([0, 4, 10], [0, 20, 50])], HAND)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(frames, [[0, 3, 0]] * 9 + [[1, 3, 0]], atol=1e-5)


@pytest.mark.parametrize("slower", [0.5, 1, 1.6])
def test_the_tempo_is_the_corpus_and_the_rhythm_the_visitors(slower: float) -> None:
    """Twice as fast in the second half, whatever the clock says."""
    ms = slower * np.array([100.0, 120, 140, 150, 160])
    frames = ink_frames([stroke([0, 2, 4, 6, 8], list(ms))], HAND)
    np.testing.assert_allclose(frames[:, 1].sum(), 24, rtol=1e-6)
    np.testing.assert_allclose(frames[:5, 1], [2.25] * 5, rtol=1e-5)
    np.testing.assert_allclose(frames[6:, 1], [4.5] * 2, rtol=1e-5)


def test_a_mouse_that_stands_still_takes_no_time() -> None:
    moving = stroke([0, 2, 4, 6, 8], [0, 50, 100, 150, 200])
    still = stroke([0, 2, 4, 6, 8], [0, 50, 9000, 9050, 9100])
    np.testing.assert_array_equal(ink_frames([moving], HAND), ink_frames([still], HAND))


def test_without_a_clock_the_pen_moves_evenly() -> None:
    frames = ink_frames([stroke([0, 1, 10], [7, 7, 7])], HAND)
    np.testing.assert_allclose(frames[:, 1], 3, rtol=1e-5)
    assert np.isfinite(ink_frames([stroke([0, 1, 10], [9, 5, 1])], HAND)).all()


def test_the_way_between_strokes_is_one_step() -> None:
    drawn = [stroke([0, 5], [0, 40]), stroke([9], [300]), stroke([20, 15], [900, 940])]
    frames = ink_frames(drawn, HAND)
    np.testing.assert_array_equal(frames[:, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(frames[:, 1], [3] * 5 + [12, 33] + [-3] * 5, rtol=1e-5)


def test_up_on_the_page_is_up() -> None:
    """Ink spread evenly over a height has the standard deviation height / sqrt(12)."""
    height = PIXELS * 12**0.5
    y = np.linspace(100, 100 - height, 400)
    frames = ink_frames([np.column_stack([0 * y, y, np.linspace(0, 4000, 400)])], HAND)
    assert (frames[:, 2] > 0).all() and (frames[:, 1] == 0).all()
    np.testing.assert_allclose(frames[:, 2].sum(), height, rtol=1e-3)
    assert len(frames) == round(height / 3)


def test_the_same_drawing_larger_is_the_same() -> None:
    t = np.linspace(0, 6 * np.pi, 300)
    drawn = np.column_stack([4 * t - 10 * np.sin(t), 20 * np.cos(t), 10 * t])
    small, large = (
        ink_frames([drawn * [scale, scale, 1] + [30, 80, 5]], HAND) for scale in (0.7, 1.9)
    )
    np.testing.assert_allclose(small, large, atol=1e-4)


def test_nothing_and_a_dot_are_no_frames() -> None:
    for strokes in ([], [np.zeros((0, 3))], [stroke([3], [1])]):
        assert ink_frames(strokes, HAND).shape == (0, 3)


def test_too_long_a_drawing_is_refused_before_it_is_built() -> None:
    far = [stroke([0, 1e6], [0, 50])]
    with pytest.raises(ValueError, match=f"too long: 1,000,001 .* at most {MAX_STEPS:,}"):
        ink_frames(far, HAND)


@pytest.fixture(scope="module")
def corpora() -> dict[str, SyntheticHandwriting]:
    made = {}
    for normaliser in ("paper", "coordinate"):
        data = SyntheticHandwriting(lines=40, val_lines=1, test_lines=1, normaliser=normaliser)
        data.setup()
        made[normaliser] = data
    return made


def test_a_line_of_the_corpus_written_with_a_mouse_comes_back(
    corpora: dict[str, SyntheticHandwriting],
) -> None:
    raw = corpora["paper"].splits["train"].piece(0, 0, 300)
    raw[-1, 0] = 1
    line = points(raw)
    ends = np.flatnonzero(line[:, 0]) + 1
    strokes = [s for s in np.split(line, ends) if len(s)]
    paths = [s[:, 1:] for s in strokes]
    inked = sum(np.hypot(*np.diff(path, axis=0).T).sum() for path in paths)
    steps = sum(len(path) - 1 for path in paths)
    hand = Hand(spread=vertical_spread(paths), step=inked / steps)

    pixels = PIXELS / hand.spread
    drawn, clock = [], 0.0
    for path in paths:
        ms = clock + np.arange(len(path)) * 1000 / 65.6
        drawn.append(np.column_stack([path[:, 0] * pixels, 40 - path[:, 1] * pixels, ms]))
        clock = ms[-1] + 250
    np.testing.assert_allclose(ink_frames(drawn, hand), raw, atol=1e-3)


@pytest.mark.parametrize(("normaliser", "tolerance"), [("coordinate", 1e-5), ("paper", 0.05)])
def test_the_normaliser_knows_how_far_a_step_is(
    corpora: dict[str, SyntheticHandwriting], normaliser: str, tolerance: float
) -> None:
    data = corpora[normaliser]
    steps = np.concatenate([x[:, 1:] for x in data.splits["train"]]).astype(np.float64)
    typical = typical_hand(data.description())
    assert typical.step / STEP == pytest.approx(np.sqrt((steps**2).sum(1).mean()), rel=tolerance)


def test_the_constants_fit_the_synthetic_corpus(
    corpora: dict[str, SyntheticHandwriting],
) -> None:
    """Which they were not taken from: within 10 % and 40 %."""
    data = corpora["paper"]
    typical = typical_hand(data.description())
    spreads, distances = [], []
    for raw in data.splits["train"]:
        line = points(raw)
        strokes = np.split(line[:, 1:], np.flatnonzero(line[:, 0]) + 1)
        spreads.append(vertical_spread([s for s in strokes if len(s)]))
        distances += [np.hypot(*np.diff(s, axis=0).T) for s in strokes if len(s)]
    assert np.mean(spreads) == pytest.approx(typical.spread, rel=0.1)
    assert np.concatenate(distances).mean() == pytest.approx(typical.step, rel=0.4)
