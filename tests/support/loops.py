"""Small cells and their inputs, and how two loops over time are compared."""

import statistics

import torch

from vrnn.cell import VRNNCell
from vrnn.engine.unroll import unroll_plain
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal

T, B, X, Z, H, E, F = 5, 3, 4, 2, 6, 5, 7


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


def values_and_gradients(unroll, cell, inputs, wanted=None):
    """The gradients are those of the inputs, or of what they were made from, and of the cell."""
    values = flat(unroll(cell, *inputs))
    generator = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=generator).to(v)).sum() for v in values)
    phi_x, u, state, noise = wanted or inputs
    return values, torch.autograd.grad(loss, [phi_x, u, noise, *state, *cell.parameters()])


def assert_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def assert_as_plain(unroll, cell, inputs, plain=unroll_plain):
    """Values and gradients, and values without gradient, are those of the plain loop."""
    values, gradients = values_and_gradients(unroll, cell, inputs)
    plain_values, plain_gradients = values_and_gradients(plain, cell, inputs)
    assert_close(values, plain_values)
    assert_close(gradients, plain_gradients)
    with torch.no_grad():
        assert_close(flat(unroll(cell, *inputs)), plain_values)


def particle_inputs(cell, steps, batch, K):
    """phi_x and u, which all particles share, and a state and noise for each of them."""
    phi_x, u = (torch.randn(steps, batch, n, requires_grad=True) for n in (X, 9))
    noise = torch.randn(steps, K * batch, Z, requires_grad=True)
    sizes = cell.rnn.layers, K * batch, H
    state = tuple(torch.randn(sizes, requires_grad=True) for _ in range(cell.rnn.tensors))
    return phi_x, u, state, noise


def unroll_copies(cell, phi_x, u, state, noise):
    K = noise.shape[1] // phi_x.shape[1]
    return unroll_plain(cell, phi_x.repeat(1, K, 1), u.repeat(1, K, 1), state, noise)


def median_error(unroll, cell, inputs, exact):
    """Of values and gradients in mixed precision; medians, as a ReLU may switch."""
    phi_x, _, state, noise = inputs
    less = phi_x.bfloat16(), phi_x.bfloat16(), tuple(s.float() for s in state), noise.float()
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients = values_and_gradients(unroll, cell.float(), less, wanted=inputs)
    assert {v.dtype for v in (*values[:3], *values[4:])} == {torch.float32}, "all but phi_z"
    pairs = zip((*values, *gradients), (*exact[0], *exact[1]), strict=True)
    return statistics.median(((one - other).norm() / other.norm()).item() for one, other in pairs)
