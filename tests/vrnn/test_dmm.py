"""The deep Markov model: its parts by their formulas, and a linear one against a Kalman filter."""

import numpy as np
import pytest
import torch
from support.linear_gaussian import all_of, pre_sigma, set_gaussian, set_pairs
from support.state_space import StateSpace, draw
from torch import nn

from vrnn import DMM, bounds
from vrnn.likelihoods import GaussianMixture
from vrnn.models.dmm import Combiner, GatedTransition
from vrnn.particle_filter import particle_filter
from vrnn.trace import Resampling

pytestmark = pytest.mark.usefixtures("float64")


@torch.no_grad()
def test_gates_choose_between_a_linear_and_a_nonlinear_mean():
    transition, z = GatedTransition(2, 8, 1), torch.randn(5, 2)
    proposal = transition.proposal(z)
    for bias, expected in ((-1e4, z), (1e4, proposal), (0.0, (z + proposal) / 2)):
        transition.gate[1].weight.zero_()
        transition.gate[1].bias.fill_(bias)
        mean, std = transition(z)
        torch.testing.assert_close(mean, expected)  # The linear mean starts as the identity.
    a = proposal.clamp_min(0) @ transition.std.weight.T + 0.6
    torch.testing.assert_close(std, a.exp().log1p() + 1e-4)


@torch.no_grad()
def test_the_smoother_averages_past_and_future():
    combiner, b, z = Combiner(2, 9), torch.randn(5, 9), torch.randn(5, 2)
    c = 0.5 * ((z @ combiner.past.weight.T).tanh() + b)
    mean, std = combiner(b, z)
    torch.testing.assert_close(mean, c @ combiner.out.weight[:2].T)
    torch.testing.assert_close(std, (c @ combiner.out.weight[2:].T + 0.6).exp().log1p() + 1e-4)


class ExactCombiner(nn.Module):
    """q(z_t | z_{t-1}, x_{t..T}) from its offset, slope and standard deviation."""

    def forward(self, u, z):
        offset, slope, std = u.split(1, dim=-1)
        return offset + slope * z, std


@torch.no_grad()
def markov(exact):
    """A state space without feedback of x as a DMM whose gates are shut."""
    D, Z = exact.D, exact.Z
    A, C, b, q, r = (torch.from_numpy(getattr(exact, name)) for name in "A C b q r".split())
    model = DMM(D, Z, 5, GaussianMixture(D), phi_x_dim=2 * D, prior_dim=4, decoder_dim=2 * D)
    prior = model.cell.prior
    prior.gate[1].bias.fill_(-1e4)
    prior.mean.weight.copy_(A)
    prior.std.weight.zero_()
    prior.std.bias.copy_(pre_sigma(q))
    set_pairs(model.phi_x[0], torch.eye(D))
    set_pairs(model.decoder[0], C)
    set_gaussian(model.out, b, r)
    return model


def without_feedback(x_dim, z_dim):
    exact = StateSpace(x_dim, z_dim, z_dim)
    exact.F, exact.U, exact.V = 0 * exact.F, 0 * exact.U, 0 * exact.V
    exact.B = np.eye(z_dim)
    return exact


def test_with_the_exact_posterior_every_weight_of_a_linear_dmm_is_the_kalman_likelihood():
    exact = without_feedback(2, 1)
    x = draw(exact, 6)
    log_p = exact.kalman(x[:, 0].numpy())
    u = torch.zeros(6, 1, 3)
    for t in range(6):
        remaining = x[t:, 0].numpy()
        mean, covariance = exact.posterior(remaining)
        slope = exact.posterior(remaining, np.ones(1))[0][0] - mean[0]
        u[t, 0] = torch.tensor([mean[0], slope, covariance[0, 0] ** 0.5])
    model = markov(exact)
    model.observe = lambda x, mask, state=None: (model.phi_x(x), u.expand(-1, x.shape[1], -1))
    model.cell.encoder = ExactCombiner()
    many = x.expand(-1, 20, -1)
    trace = model.trace(many)
    log_w = bounds.log_weights(trace, many, all_of(many)).sum(0)
    torch.testing.assert_close(log_w, torch.full((20,), log_p), rtol=0, atol=1e-8)
    noise, uniform = torch.randn(6, 4, 1), torch.rand(6, 4, 1)
    filtered = particle_filter(model, x, all_of(x), noise, uniform, Resampling("never"))
    assert bounds.filtering_bound(filtered).item() == pytest.approx(log_p, abs=1e-8)


@torch.no_grad()
def test_the_bounds_of_a_linear_dmm_are_below_the_kalman_likelihood():
    exact = without_feedback(3, 2)
    x = draw(exact, 3)
    log_p = exact.kalman(x[:, 0].numpy())
    model = markov(exact)
    many = x.expand(-1, 50_000, -1)
    log_w = bounds.log_weights(model.trace(many), many, all_of(many)).sum(0)
    ratio = (log_w - log_p).exp()
    error = (ratio.std() / len(ratio) ** 0.5).item()
    assert error < 0.05 and ratio.mean().item() == pytest.approx(1, abs=5 * error)
    assert bounds.elbo(model.trace(many), many, all_of(many)).mean() < log_p - 0.1
