"""The fast loops give the values and the gradients of the plain one."""

import gc
import weakref

import pytest
import torch

from vrnn.cell import VRNNCell
from vrnn.networks import GRU, LSTM, MLP, GaussianNet, StandardNormal
from vrnn.unroll import unroll_fast, unroll_fused, unroll_plain, unroll_split

T, B, X, Z, H, E, F = 5, 3, 4, 2, 6, 5, 7

pytestmark = pytest.mark.usefixtures("float64")


def make_cell(recurrence, layers=1, depth=1, u=X, prior=None):
    """A cell; with a prior, its posterior mean is that of the prior plus a correction."""
    cell = VRNNCell(
        prior or StandardNormal(Z),
        GaussianNet(u + H, E, depth, Z),
        MLP(Z, F, depth),
        recurrence(X + F, H, layers),
        residual=prior is not None,
    )
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return cell


def make_inputs(cell, u=X):
    """phi_x, u, state and noise, all of which want gradients; u is phi_x where it may be."""
    phi_x, other, noise = (torch.randn(T, B, width, requires_grad=True) for width in (X, u, Z))
    state = tuple(
        torch.randn(cell.rnn.layers, B, H, requires_grad=True) for _ in range(cell.rnn.tensors)
    )
    return phi_x, phi_x if u == X else other, state, noise


def flat(unrolled):
    return [*unrolled[:-1], *unrolled.state]


def values_and_gradients(unroll, cell, inputs):
    values = flat(unroll(cell, *inputs))
    generator = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=generator)).sum() for v in values)
    phi_x, u, state, noise = inputs
    wanted = [phi_x, u, noise, *state, *cell.parameters()]
    return values, torch.autograd.grad(loss, wanted)


def assert_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("unroll", [unroll_fused, unroll_split])
@pytest.mark.parametrize("u", [X, 9], ids=["filtering", "smoothing"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_values_and_gradients_are_those_of_the_plain_loop(recurrence, layers, depth, u, unroll):
    cell = make_cell(recurrence, layers, depth, u)
    inputs = make_inputs(cell, u)
    values, gradients = values_and_gradients(unroll, cell, inputs)
    plain_values, plain_gradients = values_and_gradients(unroll_plain, cell, inputs)
    assert_close(values, plain_values)
    assert_close(gradients, plain_gradients)
    with torch.no_grad():
        assert_close(flat(unroll(cell, *inputs)), plain_values)


@pytest.mark.parametrize("unroll", [unroll_fused, unroll_split])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
@pytest.mark.parametrize("prior_depth", [0, 1, 2])
def test_a_residual_mean_is_that_of_the_plain_loop(prior_depth, recurrence, unroll):
    prior = GaussianNet(H, 4, prior_depth, Z) if prior_depth else StandardNormal(Z)
    cell = make_cell(recurrence, layers=2, u=9, prior=prior)
    inputs = make_inputs(cell, 9)
    values, gradients = values_and_gradients(unroll, cell, inputs)
    plain_values, plain_gradients = values_and_gradients(unroll_plain, cell, inputs)
    assert_close(values, plain_values)
    assert_close(gradients, plain_gradients)


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_gradients_are_those_of_finite_differences(recurrence):
    cell = make_cell(recurrence, layers=2, depth=2, u=9)
    phi_x, u, state, noise = make_inputs(cell, 9)

    def function(phi_x, u, *state):
        return flat(unroll_fused(cell, phi_x[:2], u[:2], state, noise[:2]))

    assert torch.autograd.gradcheck(function, (phi_x, u, *state))


def test_two_losses_may_share_one_loop():
    cell = make_cell(LSTM)
    inputs = make_inputs(cell)
    ours, plain = unroll_fused(cell, *inputs), unroll_plain(cell, *inputs)
    for name in ("z", "h"):
        one, other = (
            torch.autograd.grad(
                getattr(unrolled, name).sum(), list(cell.rnn.parameters()), retain_graph=True
            )
            for unrolled in (ours, plain)
        )
        assert_close(one, other)


def test_a_weight_changed_before_the_backward_pass_is_noticed():
    cell = make_cell(GRU)
    loss = unroll_fused(cell, *make_inputs(cell)).z.sum()
    with torch.no_grad():
        cell.encoder.out.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_is_freed_with_the_graph(batch):
    cell = make_cell(LSTM)
    phi_x, u, state, noise = make_inputs(cell)
    state = tuple(s[:, :batch] for s in state)
    gc.disable()
    try:
        z = unroll_fused(cell, phi_x[:, :batch], u[:, :batch], state, noise[:, :batch]).z
        z.sum().backward()
        node = weakref.ref(z.grad_fn)
        del z
        assert node() is None
    finally:
        gc.enable()


def test_frozen_weights_need_no_gradient():
    cell = make_cell(LSTM).requires_grad_(False)
    cell.rnn.biases[0].requires_grad_()
    phi_x, u, state, noise = (
        [s.detach() for s in x] if isinstance(x, tuple) else x.detach() for x in make_inputs(cell)
    )
    unroll_fused(cell, phi_x, u, tuple(state), noise).h.sum().backward()
    assert cell.rnn.biases[0].grad.abs().sum() > 0
    assert cell.encoder.out.weight.grad is None


def test_under_autocast_it_follows_the_plain_loop():
    cell = make_cell(LSTM, depth=2).float()
    phi_x, u, state, noise = make_inputs(cell)
    inputs = (phi_x.float(), u.float(), tuple(s.float() for s in state), noise.float())
    exact = unroll_plain(cell, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        fast = unroll_fast(cell, *inputs)
    fast.z.sum().backward()
    assert fast.mean.dtype == fast.z.dtype == torch.float32
    torch.testing.assert_close(fast.z, exact.z, rtol=0.05, atol=0.1)
    assert not torch.equal(fast.z, exact.z)
