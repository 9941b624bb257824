"""Streams, styles, and the answers to what a page may send."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.playground_run import DRAWING, describe, player, write_run
from torch.distributions import kl_divergence

from playground.ink import ink_frames, typical_hand
from playground.kinds import Pen, Sound
from playground.stream import Controls, Stream
from playground.styles import ROWS, Style, find_styles, strengths
from playground.visitor import MAX_POINTS, Player, Visitor, load_player
from vrnn import RNN, VRNN
from vrnn.layers.state import top
from vrnn.likelihoods import GaussianMixture, PenMixture


@pytest.fixture
def writer(make_model: Callable[..., VRNN]) -> Player:
    styles = [Style(1, 0.5, "wider"), Style(0, 0.25, "")]
    return player(make_model(VRNN, PenMixture(components=3)), "pen", styles)


@pytest.fixture
def speaker(make_model: Callable[..., RNN]) -> Player:
    return player(make_model(RNN, GaussianMixture(4)), "audio", [])


def ask(visitor: Visitor, **message: object) -> np.ndarray:
    answer = visitor.answer(json.dumps(message))
    return np.frombuffer(answer, "<f4").reshape(-1, visitor.player.model.x_dim)


@pytest.mark.parametrize("primed", [False, True])
def test_a_stream_is_that_of_the_model(any_model: VRNN, primed: bool) -> None:
    prime = torch.rand(6, 2, 3).round() if primed else None
    expected = any_model.generate(12, 2, prime, 0.7, 0.4, seed=5)
    stream = Stream(any_model, 5, prime, batch=2)
    parts = [stream.frames(n, Controls(0.7, 0.4)) for n in (1, 4, 7)]
    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-5, atol=1e-6)


def test_streams_do_not_touch_each_others_random_numbers(writer: Player) -> None:
    alone = Stream(writer.model, 1).frames(8, Controls())
    before = torch.get_rng_state()
    a, b = Stream(writer.model, 1), Stream(writer.model, 2)
    mixed = []
    for _ in range(4):
        mixed.append(a.frames(2, Controls()))
        b.frames(3, Controls())
    assert torch.equal(torch.cat(mixed), alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_offsets_are_standard_deviations_of_the_prior(writer: Player) -> None:
    model, offsets = writer.model, torch.tensor([1.5, -2.0])
    x = Stream(model, 0).frames(1, Controls(0.0, 0.0, offsets))
    state = model.initial(1)
    mean, std = model.cell.prior(top(state))
    z = mean + offsets * std
    assert torch.equal(x[0], model.likelihood.draw(model.decode(z, top(state)), 0.0))


def test_an_utterance_follows_the_other(speaker: Player) -> None:
    x = Stream(speaker.model, 0, length=5).frames(12, Controls(0.0, 0.0))
    assert torch.equal(x[:5], x[5:10]) and torch.equal(x[:2], x[10:])
    assert not torch.equal(x[0], x[1])


def test_strength_is_how_far_a_frame_moves(make_model: Callable[..., VRNN]) -> None:
    """Mean KL between the densities with z and with z moved, which a Gaussian has exactly."""
    model = make_model(VRNN, GaussianMixture(3))
    with torch.no_grad():
        stream, expected = Stream(model, 3, batch=300), []
        for _ in range(20):
            stream.frames(3, Controls())
            h = top(stream.state)
            z, prior = model.draw_z(stream.state, torch.randn(300, 2))
            here = model.likelihood(model.decode(z, h))
            for sign in (1, -1):
                for d in range(2):
                    moved = z.clone()
                    moved[:, d] += sign * prior[1][:, d]
                    there = model.likelihood(model.decode(moved, h))
                    expected.append(kl_divergence(here, there).mean())
    exact = torch.stack(expected).view(-1, 2).mean(0)
    # One estimate is off by half, as standard errors go; twenty together by a tenth.
    found = torch.stack([strengths(model, 60, seed) for seed in range(20)]).mean(0)
    torch.testing.assert_close(found, exact, rtol=0.35, atol=0.0)


def test_styles_are_the_dimensions_that_matter_and_say_what_they_do(
    make_model: Callable[..., VRNN],
) -> None:
    """A model whose second latent is the size of a step to the right, and whose first is none."""
    model = make_model(VRNN, PenMixture(components=1), prior="standard", spread=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("cell.phi_z", "decoder", "out")):
                parameter.zero_()
        (first,) = [
            p for n, p in model.named_parameters() if n.startswith("cell.phi_z") and p.ndim > 1
        ]
        (inner,) = [
            p for n, p in model.named_parameters() if n.startswith("decoder") and p.ndim > 1
        ]
        first[0, 1], inner[0, 0], model.out.weight[1, 0] = 1.0, 1.0, 1.0
        model.out.bias[1] = 1.0
    about = describe("pen", 3)
    styles = find_styles(player(model, "pen", []).model, Pen(about), about)
    assert [style.dimension for style in styles] == [1] and styles[0].nats > 0.1
    words = [word.partition(" (")[0] for word in styles[0].effect.split(", ")]
    assert "wider" in words and "faster" in words and "more pen lifts" not in words
    assert find_styles(make_model(RNN, PenMixture(components=1)), Pen(about), about) == []


def test_measures_by_hand() -> None:
    pen = {measure.more: measure.of for measure in Pen.measures}
    slanted = torch.zeros(60, ROWS, 3)
    slanted[::2, :, 1:] = torch.tensor([3.0, 4.0])
    slanted[1::2, :, 1:] = torch.tensor([-3.0, -4.0])
    slanted[::6, :, 0] = 1.0
    assert pen["faster"](slanted)[0] == 5 and pen["more pen lifts"](slanted)[0] == pytest.approx(
        1 / 6
    )
    assert pen["wider"](slanted).abs().max() == 0
    assert pen["leaning to the right"](slanted)[0] == pytest.approx(36.8699, abs=1e-3)
    assert torch.equal(2 * pen["taller"](slanted), pen["taller"](2 * slanted))
    sound = {measure.more: measure.of for measure in Sound.measures}
    wave = torch.tensor([3.0, -3.0, -3.0, 3.0, 3.0]).expand(7, ROWS, 5)
    assert sound["louder"](wave)[0] == 3 and sound["brighter"](wave)[0] == 0.5


def test_a_page_gets_frames_in_the_units_of_the_corpus(writer: Player) -> None:
    visitor = Visitor(writer)
    assert ask(visitor, type="start", seed=4).shape == (0, 3)
    frames = np.concatenate([ask(visitor, type="more", frames=n) for n in (5, 9)])
    standardised = writer.model.generate(14, seed=4)
    np.testing.assert_allclose(
        frames, writer.model.normaliser.raw(standardised)[:, 0], rtol=1e-4, atol=1e-3
    )


def test_the_drawing_is_answered_as_the_model_reads_it_and_continued(writer: Player) -> None:
    visitor = Visitor(writer)
    drawn = ask(visitor, type="start", seed=1, strokes=DRAWING)
    strokes = [np.array(stroke, float) for stroke in DRAWING]
    np.testing.assert_array_equal(drawn, ink_frames(strokes, typical_hand(writer.data)))
    assert len(drawn) > 20 and drawn[-1, 0] == 1
    prime = writer.model.normaliser.standardise(torch.tensor(drawn))[:, None]
    expected = writer.model.normaliser.raw(writer.model.generate(6, prime=prime, seed=1))[:, 0]
    more = ask(visitor, type="more", frames=6)
    np.testing.assert_allclose(more, expected, rtol=1e-4, atol=1e-3)


def test_temperature_0_is_the_same_for_every_seed(writer: Player) -> None:
    cold = {"type": "more", "frames": 20, "temperature_z": 0, "temperature_x": 0.0}
    lines = []
    for seed, settings in ((1, cold), (2, cold), (1, {"type": "more", "frames": 20})):
        visitor = Visitor(writer)
        ask(visitor, type="start", seed=seed)
        lines.append(ask(visitor, **settings))
    assert np.array_equal(lines[0], lines[1]) and not np.array_equal(lines[0], lines[2])


def test_sliders_move_the_dimensions_they_are_labelled_with(writer: Player) -> None:
    visitor = Visitor(writer)
    offsets = visitor.offsets({"offsets": [2.5, -1]})
    assert offsets.tolist() == [-1.0, 2.5] and visitor.offsets({}).tolist() == [0.0, 0.0]
    assert writer.about()["styles"][0] == {"dimension": 1, "nats": 0.5, "effect": "wider"}


def test_units_of_the_page(writer: Player, speaker: Player) -> None:
    """A line of IAM-OnDB is 16 pixels of spread, sound as loud as its corpus a tenth of full."""
    step = (8**2 + 56**2) ** 0.5
    assert writer.kind.unit == pytest.approx(16 / (1.35 * step)) and writer.kind.length is None
    assert speaker.kind.unit == pytest.approx(0.1 / 50**0.5) and speaker.kind.length == 20
    assert Sound({**speaker.data, "module": {"reset_every": 4}}).length is None


BAD = {
    "": "not JSON",
    "{": "not JSON",
    "[" * 100_000: "not JSON",
    '{"type": "start", "seed": NaN}': "not JSON",
    "9" * 9999: "not JSON",
    "[]": "must be an object",
    "null": "must be an object",
    "{}": '"type" must be',
    '{"type": ["start"]}': '"type" must be',
    '{"type": "start", "seed": -1}': '"seed" must be a whole number from 0',
    '{"type": "start", "seed": 1.5}': '"seed" must be a whole number',
    '{"type": "start", "seed": true}': '"seed" must be a whole number',
    '{"type": "start", "strokes": 3}': "list of lists of points",
    '{"type": "start", "strokes": [3]}': "list of lists of points",
    '{"type": "start", "strokes": [[[1, 2]]]}': "list of lists of points",
    '{"type": "start", "strokes": [[[1, 2, 3], [1, 2]]]}': "list of lists of points",
    '{"type": "start", "strokes": [[["1", "2", "3"]]]}': "list of lists of points",
    '{"type": "start", "strokes": [[[1, 2, {}]]]}': "list of lists of points",
    '{"type": "start", "strokes": [[[1, 2, 1e999]]]}': "finite",
    '{"type": "start", "strokes": [[[1, 1e300, 1]]]}': "finite",
    '{"type": "start", "strokes": [[[1, 2, %s]]]}' % ("9" * 400): "list of lists of points",
    '{"type": "start", "strokes": [[[0, 0, 0], [9e6, 0, 1]]]}': "too long",
    json.dumps({"type": "start", "strokes": [[[0, 0, 0]] * (MAX_POINTS + 1)]}): "may have 20,000",
    '{"type": "more"}': '"frames" must be',
    '{"type": "more", "frames": 0}': '"frames" must be a whole number from 1 to 64',
    '{"type": "more", "frames": 1e9}': '"frames" must be',
    '{"type": "more", "frames": 1, "temperature_z": -1}': '"temperature_z" must be a number',
    '{"type": "more", "frames": 1, "temperature_x": 1e999}': '"temperature_x" must be',
    '{"type": "more", "frames": 1, "temperature_x": "1"}': '"temperature_x" must be',
    '{"type": "more", "frames": 1, "offsets": [1]}': "a list of 2 numbers",
    '{"type": "more", "frames": 1, "offsets": {"a": 1}}': "a list of 2 numbers",
    '{"type": "more", "frames": 1, "offsets": [1, 99]}': '"offsets" must be a number from -10',
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:60])
def test_garbage_gets_a_sentence_and_changes_nothing(writer: Player, text: str) -> None:
    visitor, undisturbed = Visitor(writer), Visitor(writer)
    for each in (visitor, undisturbed):
        ask(each, type="start", seed=3)
    with pytest.raises(ValueError) as refused:
        visitor.answer(text)
    assert BAD[text] in str(refused.value) and "\n" not in str(refused.value)
    assert np.array_equal(
        ask(visitor, type="more", frames=4), ask(undisturbed, type="more", frames=4)
    )


def test_more_of_nothing_is_refused(writer: Player, speaker: Player) -> None:
    with pytest.raises(ValueError, match='send "start" first'):
        ask(Visitor(writer), type="more", frames=1)
    with pytest.raises(ValueError, match="takes no strokes"):
        ask(Visitor(speaker), type="start", strokes=DRAWING)


def test_a_model_that_leaves_all_bounds_is_stopped(writer: Player) -> None:
    with torch.no_grad():
        writer.model.out.bias.fill_(float("nan"))
    visitor = Visitor(writer)
    ask(visitor, type="start")
    with pytest.raises(ValueError, match="no longer finite numbers: start anew"):
        ask(visitor, type="more", frames=2)
    with pytest.raises(ValueError, match='send "start" first'):
        ask(visitor, type="more", frames=2)


def test_a_run_is_loaded(tmp_path) -> None:
    loaded = load_player(write_run(tmp_path))
    assert isinstance(loaded.kind, Pen) and loaded.about()["corpus"] == "synthetic_handwriting"
    visitor = Visitor(loaded)
    ask(visitor, type="start", strokes=DRAWING)
    assert np.isfinite(ask(visitor, type="more", frames=8)).all()
