"""The VRNN as factor analysis: frames x_t ~ N(b, W W' + S), independent, weights set by hand."""

import pytest
import torch
from support.linear_gaussian import all_of, expected_elbo, set_gaussian, set_pairs, signed
from torch.distributions import MultivariateNormal, kl_divergence

from vrnn import VRNN, bounds
from vrnn.evaluation import score
from vrnn.likelihoods import GaussianMixture

pytestmark = pytest.mark.usefixtures("float64")


class FactorAnalysis:
    """x = W z + b + S^(1/2) e, z and e standard normal, and its exact posterior of z."""

    def __init__(self, x_dim, z_dim, diagonal_posterior):
        self.x_dim, self.z_dim = x_dim, z_dim
        self.b, self.s = torch.randn(x_dim), 0.4 + torch.rand(x_dim)
        self.w = torch.randn(x_dim, z_dim)
        if diagonal_posterior:
            rank = min(x_dim, z_dim)
            basis = torch.linalg.qr(torch.randn(x_dim, x_dim))[0][:, :rank]
            self.w = torch.zeros(x_dim, z_dim)
            self.w[:, :rank] = self.s[:, None] * basis * (0.5 + torch.rand(rank))
        weighted = self.w.T / self.s**2
        self.covariance = torch.linalg.inv(torch.eye(z_dim) + weighted @ self.w)
        self.gain = self.covariance @ weighted

    def log_p(self, x):
        marginal = self.w @ self.w.T + torch.diag(self.s**2)
        return MultivariateNormal(self.b, marginal).log_prob(x).sum(0)

    def posterior(self, x):
        return MultivariateNormal((x - self.b) @ self.gain.T, self.covariance)

    def vrnn(self, gain, sigma, engine="fast"):
        """The same model as a VRNN whose posterior is N(gain (x - b), diag sigma^2)."""
        D, Z, H = self.x_dim, self.z_dim, 3
        model = VRNN(
            D,
            Z,
            H,
            GaussianMixture(D),
            prior="standard",
            phi_x_dim=2 * D,
            phi_z_dim=2 * Z,
            encoder_dim=2 * Z,
            decoder_dim=2 * D,
            engine=engine,
        )
        set_pairs(model.phi_x[0], torch.eye(D))
        set_pairs(model.cell.phi_z[0], torch.eye(Z))
        set_pairs(
            model.cell.encoder.hidden[0],
            gain @ signed(D),
            torch.zeros(Z, H),
            bias=-gain @ self.b,
        )
        set_gaussian(model.cell.encoder.out, torch.zeros(Z), sigma)
        set_pairs(model.decoder[0], self.w @ signed(Z), torch.zeros(D, H))
        set_gaussian(model.out, self.b, self.s)
        return model


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize(("x_dim", "z_dim"), [(1, 1), (3, 2), (4, 4), (2, 4)])
def test_with_the_exact_posterior_every_bound_is_the_likelihood(x_dim, z_dim, engine):
    exact = FactorAnalysis(x_dim, z_dim, diagonal_posterior=True)
    model = exact.vrnn(exact.gain, exact.covariance.diagonal().sqrt(), engine)
    x = 2 * torch.randn(3, 1, x_dim)
    log_p = exact.log_p(x)
    torch.testing.assert_close(expected_elbo(model, x), log_p[0], rtol=0, atol=1e-10)

    draws = x.expand(-1, 50, -1)
    log_w = bounds.log_weights(model.trace(draws), draws, all_of(draws))
    torch.testing.assert_close(log_w.sum(0), log_p.expand(50), rtol=0, atol=1e-10)
    weights = bounds.split_particles(log_w, 50)
    for bound in (bounds.importance_weighted, bounds.paper_estimate):
        torch.testing.assert_close(bound(weights), log_p, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("x_dim", "z_dim"), [(1, 1), (3, 2), (4, 4), (2, 4)])
def test_the_elbo_misses_the_likelihood_by_the_divergence_of_the_posteriors(x_dim, z_dim):
    exact = FactorAnalysis(x_dim, z_dim, diagonal_posterior=False)
    x = 2 * torch.randn(2, 1, x_dim)
    for gain in (exact.gain, 0.5 * exact.gain + 0.1):
        sigma = 0.9 * exact.covariance.diagonal().sqrt()
        q = MultivariateNormal((x - exact.b) @ gain.T, torch.diag(sigma**2))
        gap = kl_divergence(q, exact.posterior(x)).sum()
        elbo = expected_elbo(exact.vrnn(gain, sigma), x)
        assert gap > 1e-3
        torch.testing.assert_close(elbo, exact.log_p(x)[0] - gap, rtol=0, atol=1e-10)


@torch.no_grad()
def test_many_particles_find_the_likelihood():
    """The mean weight is the likelihood itself: importance weights are unbiased."""
    exact = FactorAnalysis(3, 2, diagonal_posterior=False)
    sigma = 1.2 * exact.covariance.diagonal().sqrt()
    model = exact.vrnn(0.8 * exact.gain, sigma)
    x = 1.5 * torch.randn(2, 3, 3)
    x[1, 2] = 0
    mask = all_of(x)
    mask[1, 2] = False
    log_p = torch.stack([exact.log_p(x[:n, i]) for i, n in enumerate((2, 2, 1))])

    draws = x.repeat(1, 20_000, 1), mask.repeat(1, 20_000)
    log_w = bounds.log_weights(model.trace(*draws), *draws).sum(0).unflatten(0, (-1, 3))
    ratio = (log_w - log_p).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 20_000**0.5).all()
    assert (ratio.std(0) / 20_000**0.5 < 0.04).all(), "or nothing would be tested"

    figures = score(model, x, mask, torch.arange(3), particles=4000)
    error = ratio.std(0) / 4000**0.5
    assert ((figures["iwae"] - log_p).abs() < 5 * error).all()
    assert (figures["elbo"] < log_p - 5 * error).all()
