"""Traces of padded, carried and repeated sequences, of every model."""

import pytest
import torch
from support.densities import generative
from torch.distributions import Independent, Normal

from vrnn import RNN, VRNN, bounds

pytestmark = pytest.mark.usefixtures("float64")

CARRIED = [
    "filtering-lstm",
    "filtering-gru-deep",
    "srnn-filtering",
    "srnn-filtering-lstm",
    "rnn-lstm-deep",
    "rnn-gru",
]


def scores(model, x, mask, noise):
    trace = model.trace(x, mask, noise=noise)
    return torch.stack(
        [bounds.elbo(trace, x, mask), bounds.log_weights(trace, x, mask).sum(0)], dim=1
    )


def test_padding_and_the_company_in_a_batch_change_nothing(any_model):
    lengths, T = [4, 7, 1, 7, 3], 9
    sequences = [torch.randn(n, 3) for n in lengths]
    noises = [torch.randn(n, any_model.z_dim) for n in lengths]
    parameters = list(any_model.parameters())

    alone = torch.cat(
        [
            scores(any_model, x[:, None], torch.ones(len(x), 1, dtype=torch.bool), e[:, None])
            for x, e in zip(sequences, noises, strict=True)
        ]
    )
    gradients = torch.autograd.grad(alone[:, 0].sum(), parameters)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        # What stands in the padding must not matter.
        x, noise = 50 * torch.randn(T, 5, 3), 50 * torch.randn(T, 5, any_model.z_dim)
        mask = torch.zeros(T, 5, dtype=torch.bool)
        for column, i in enumerate(order):
            n = lengths[i]
            x[:n, column], noise[:n, column], mask[:n, column] = sequences[i], noises[i], True
        padded = scores(any_model, x, mask, noise)
        torch.testing.assert_close(padded, alone[order], rtol=1e-13, atol=1e-10)
        for gradient, expected in zip(
            torch.autograd.grad(padded[:, 0].sum(), parameters), gradients, strict=True
        ):
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cut", [1, 4, 6])
@pytest.mark.parametrize("any_model", CARRIED, indirect=True)
def test_carried_chunks_equal_the_whole(any_model, cut):
    x, noise = torch.randn(7, 2, 3), torch.randn(7, 2, any_model.z_dim)
    whole = any_model.trace(x, noise=noise)
    first = any_model.trace(x[:cut], noise=noise[:cut])
    rest = any_model.trace(x[cut:], state=first.state, noise=noise[cut:])
    parts = torch.cat([generative(first), generative(rest)])
    torch.testing.assert_close(parts, generative(whole), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([first.z, rest.z]), whole.z, rtol=0, atol=1e-12)
    for part, expected in zip(rest.state, whole.state, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


def test_several_draws_of_a_sequence_are_those_of_as_many_copies(any_model):
    """Of a beginning, and of what goes on from it with the state of every draw."""
    K, cut = 3, 4
    x, noise = torch.randn(7, 2, 3), torch.randn(7, K * 2, any_model.z_dim)
    mask = torch.arange(7)[:, None] < torch.tensor([7, 5])
    states = {"shared": None, "copied": None}
    for part in (slice(0, cut), slice(cut, 7)):
        now, own, e = x[part], mask[part], noise[part]
        shared = any_model.trace(now, own, states["shared"], e)
        copied = any_model.trace(now.repeat(1, K, 1), own.repeat(1, K), states["copied"], e)
        for one, other in zip((shared.z, *shared.state), (copied.z, *copied.state), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        rows, kept = now.repeat(1, K, 1), own.repeat(1, K)
        both = (torch.stack(bounds.elbo_terms(t, rows, kept)) for t in (shared, copied))
        torch.testing.assert_close(*both, rtol=1e-13, atol=1e-11)
        states = {"shared": shared.state, "copied": copied.state}


def test_every_draw_forecasts_the_future_of_its_sequence(make_model):
    model = make_model(VRNN, posterior="smoothing", forecast=True)
    x, noise, mask = torch.randn(7, 2, 3), torch.randn(7, 6, model.z_dim), torch.ones(7, 6) > 0
    shared, copied = model.trace(x, noise=noise), model.trace(x.repeat(1, 3, 1), noise=noise)
    ours, theirs = (bounds.forecast(trace, mask) for trace in (shared, copied))
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-11)


def test_a_trace_describes_what_it_says(any_model):
    trace = any_model.trace(torch.randn(4, 2, 3))
    assert trace.z.shape == (4, 2, any_model.z_dim)
    assert trace.likelihood.batch_shape == (4, 2) and trace.likelihood.event_shape == (3,)
    if isinstance(any_model, RNN):
        assert trace.posterior is None and trace.prior is None
        return
    for distribution in (trace.posterior, trace.prior):
        assert isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)
        assert distribution.batch_shape == (4, 2) and distribution.event_shape == (2,)
    # Unless noise is given, z is drawn anew, by default with unit variance.
    x = torch.randn(3, 1, 3).repeat(1, 20_000, 1)
    trace = any_model.trace(x)
    noise = (trace.z - trace.posterior.mean) / trace.posterior.stddev
    correlation = torch.cov(noise.transpose(0, 1).flatten(1).T)
    torch.testing.assert_close(correlation, torch.eye(6), rtol=0, atol=0.06)
