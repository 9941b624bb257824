"""The fast loop of generation draws what the plain one draws."""

from copy import deepcopy

import pytest
import torch

from vrnn import RNN, VRNN
from vrnn.likelihoods import Bernoulli, GaussianMixture, PenMixture
from vrnn.likelihoods.autoregressive import AutoregressiveBernoulli, AutoregressiveGaussianMixture
from vrnn.likelihoods.discrete import DiscretisedLogisticMixture, MuLawCategorical
from vrnn.models.base import SequenceModel

HEADS = [
    PenMixture(components=3),
    PenMixture(components=1),
    GaussianMixture(3),
    GaussianMixture(3, 2),
    Bernoulli(3),
    AutoregressiveBernoulli(3, 4),
    AutoregressiveGaussianMixture(3, 2, 4),
    DiscretisedLogisticMixture(3, 2),
    MuLawCategorical(3, 8),
]
NETWORKS = [
    (VRNN, {}),
    (VRNN, {"rnn": "gru", "rnn_layers": 3, "mlp_layers": 3}),
    (VRNN, {"rnn_layers": 2, "prior": "standard"}),
    (VRNN, {"posterior": "smoothing", "residual": True, "mlp_layers": 2}),
    (RNN, {"rnn_layers": 2}),
    (RNN, {"rnn": "gru", "mlp_layers": 2}),
]


def both_ways(model, monkeypatch, batch=3, steps=12, **options):
    """Frames of the model's own loop, and of the plain one."""
    runs = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(type(model), "frames", SequenceModel.frames)
        runs.append(model.draw_frames(lambda frame: frame, steps, batch, seed=3, **options))
    return zip(*runs, strict=True)


def assert_same(frames):
    for fast, plain in frames:
        for name in ("x", "z", "params"):
            torch.testing.assert_close(
                getattr(fast, name), getattr(plain, name), rtol=1e-9, atol=1e-9
            )
        assert (fast.density is None) == (plain.density is None)
        for one, other in zip(fast.density or (), plain.density or (), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", HEADS, ids=repr)
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_draws_are_those_of_the_plain_loop(head, temperature, make_model, monkeypatch):
    model = make_model(VRNN, deepcopy(head).double(), spread=0.2)
    assert_same(
        both_ways(model, monkeypatch, temperature_x=temperature, temperature_z=temperature)
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kind", "options"), NETWORKS)
@pytest.mark.parametrize("prime", [0, 4])
def test_so_are_those_of_every_network(kind, options, prime, make_model, monkeypatch):
    model = make_model(kind, PenMixture(components=3), **options)
    assert_same(both_ways(model, monkeypatch, prime=torch.randn(prime, 3, 3)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kind", "options"), NETWORKS)
def test_and_those_of_a_machine_without_a_compiler(kind, options, make_model, monkeypatch):
    monkeypatch.setattr("vrnn.engine.native.library", lambda: None)
    model = make_model(kind, PenMixture(components=3), **options)
    assert_same(both_ways(model, monkeypatch))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batch", [1, 5])
def test_two_threads_share_the_columns_of_wide_layers(batch, make_model, monkeypatch):
    model = make_model(VRNN, hidden=400, spread=0.02)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert_same(both_ways(model, monkeypatch, batch, steps=4))


@pytest.mark.usefixtures("float64")
def test_streams_side_by_side_and_their_first_state_are_left_alone(make_model):
    model = make_model(VRNN)
    state = tuple(torch.randn_like(s) for s in model.initial(2))
    before = [s.clone() for s in state]
    noise = torch.randn(2, 6, 2, model.z_dim)
    alone = [[f.params for f in model.frames(state, iter(n), 0.0)] for n in noise]
    together = zip(*(model.frames(state, iter(n), 0.0) for n in noise), strict=True)
    for t, frames in enumerate(together):
        for frame, own in zip(frames, alone, strict=True):
            torch.testing.assert_close(frame.params, own[t], rtol=0, atol=0)
    torch.testing.assert_close(state, tuple(before), rtol=0, atol=0)


def test_a_stream_may_be_begun_in_inference_mode(make_model):
    stream = make_model(VRNN).stream(2)
    with torch.inference_mode():
        next(stream)
    assert next(stream).x.isfinite().all()


def test_there_is_no_sequence_of_no_frames(make_model):
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        make_model(VRNN).generate(0)


def test_in_single_precision_too(make_model, monkeypatch):
    model = make_model(VRNN, GaussianMixture(3), spread=0.1)
    for fast, plain in both_ways(model, monkeypatch, batch=1):
        torch.testing.assert_close(fast.x, plain.x, rtol=1e-5, atol=1e-5)


def test_it_is_plain_where_it_is_told_to_be(make_model, monkeypatch):
    monkeypatch.setattr("vrnn.models.vrnn.fast_frames", None)
    make_model(VRNN, engine="plain").generate(2)
    with torch.autocast("cpu", torch.bfloat16):
        for kind in (VRNN, RNN):
            assert make_model(kind).generate(2).isfinite().all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", HEADS[:5], ids=repr)
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_a_head_draws_what_its_distribution_draws(head, temperature):
    params = torch.randn(4, 5, head.size)
    torch.manual_seed(1)
    ours = head.draw(params, temperature)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, head(params, temperature).sample())
    assert ours.shape == (4, 5, 3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", HEADS[:5], ids=repr)
def test_draws_have_the_moments_of_the_density(head):
    """Moments by importance: E[f(x)] over draws against E over another density's draws."""
    n = 200_000
    params = torch.randn(head.size)
    p = head(params.expand(n, -1))
    x = head.draw(params.expand(n, -1))
    mean = head(params).mean
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.03)
    # The mean weight of another density's draws is one, of every second moment that of p.
    q = head(0.8 * params.expand(n, -1), 1.5)
    y = q.sample()
    w = (p.log_prob(y) - q.log_prob(y)).exp()
    second = (w[:, None, None] * y[:, :, None] * y[:, None, :]).mean(0)
    torch.testing.assert_close(w.mean(), torch.tensor(1.0), rtol=0, atol=0.05)
    torch.testing.assert_close(x.T @ x / n, second, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_a_stream_needs_no_graph_and_yields_ordinary_tensors(engine, make_model):
    stream = make_model(VRNN, engine=engine).stream(2)
    for _ in range(3):
        frame = next(stream)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        weight = torch.ones(3, requires_grad=True)
        for tensor in (frame.x, frame.z, frame.params, *frame.density):
            assert not tensor.requires_grad and not tensor.is_inference()
        (weight * frame.x * frame.likelihood.log_prob(frame.x)[:, None]).sum().backward()
        assert weight.grad is not None
