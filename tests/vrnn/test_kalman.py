"""The VRNN as a linear-Gaussian state space with feedback of x, against a Kalman filter."""

import numpy as np
import pytest
import torch
from scipy import stats
from support.linear_gaussian import all_of, expected_elbo, signed
from support.state_space import Linear, StateSpace, best_step_by_step, draw, filtering
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from vrnn import bounds
from vrnn.evaluation import score

pytestmark = pytest.mark.usefixtures("float64")


class Future(Linear):
    """Backwards over x: of what remains after t, all that p(z_t | x_{t..T}, h_{t-1}) needs.

    With one latent dimension it is N(offset + slope h_{t-1}, variance): b_t = [offset, slope,
    standard deviation].
    """

    def __init__(self, exact):
        super().__init__(2 * exact.D, 2 + exact.H)
        self.exact = exact

    def sequence(self, x, state):
        exact = self.exact
        frames = (x @ signed(exact.D).T).detach().numpy()
        b = np.empty((*frames.shape[:2], 2 + exact.H))
        for n in range(len(frames)):
            for column in range(frames.shape[1]):
                remaining = frames[n::-1, column]
                mean, covariance = exact.posterior(remaining)
                slope = [exact.posterior(remaining, h)[0][0] - mean[0] for h in np.eye(exact.H)]
                b[n, column] = [mean[0], *slope, covariance[0, 0] ** 0.5]
        return torch.from_numpy(b), state


class ExactEncoder(nn.Module):
    """q(z_t | ...) from what `Future` says and h_{t-1}."""

    def __init__(self, h_dim):
        super().__init__()
        self.h_dim = h_dim

    def forward(self, features):
        offset, slope, std, h = features.split([1, self.h_dim, 1, self.h_dim], -1)
        return offset + (slope * h).sum(-1, keepdim=True), std


@pytest.fixture
def one_latent():
    return StateSpace(x_dim=2, z_dim=1, h_dim=2)


def joint_posterior_gap(exact, x, mean, slope, offset, sigma):
    """KL from the filtering posterior over whole trajectories to the exact one, in closed form."""

    def trajectory(noise):
        h, z = np.zeros(exact.H), []
        for frame, e in zip(x, noise.reshape(len(x), exact.Z), strict=True):
            z.append(mean @ frame + slope @ h + offset + sigma * e)
            h = exact.U @ h + exact.V @ frame + exact.B @ z[-1]
        return np.concatenate(z)

    n = len(x) * exact.Z
    centre = trajectory(np.zeros(n))
    factor = np.stack([trajectory(e) - centre for e in np.eye(n)], 1)
    q = MultivariateNormal(torch.from_numpy(centre), torch.from_numpy(factor @ factor.T))
    return kl_divergence(q, MultivariateNormal(*map(torch.from_numpy, exact.posterior(x))))


def test_the_kalman_filter_is_right():
    exact = StateSpace(x_dim=3, z_dim=2, h_dim=2)
    x = draw(exact, 5)[:, 0].numpy()
    mean, covariance = exact.joint(5)
    dense = stats.multivariate_normal(mean[10:], covariance[10:, 10:]).logpdf(x.ravel())
    assert exact.kalman(x) == pytest.approx(dense, abs=1e-9)


@pytest.mark.parametrize(("x_dim", "z_dim", "h_dim"), [(2, 1, 2), (3, 2, 2), (1, 3, 1)])
def test_a_filtering_posterior_misses_the_kalman_likelihood_by_its_divergence(x_dim, z_dim, h_dim):
    exact = StateSpace(x_dim, z_dim, h_dim)
    x = draw(exact, 5)
    log_p = exact.kalman(x[:, 0].numpy())
    gain, slope, offset, covariance = best_step_by_step(exact)
    sigma = np.diag(covariance) ** 0.5
    gaps = []
    for q in ((gain, slope, offset, sigma), (0.7 * gain, slope + 0.2, offset - 0.3, 1.3 * sigma)):
        gaps.append(joint_posterior_gap(exact, x[:, 0].numpy(), *q).item())
        elbo = expected_elbo(filtering(exact, *q), x).item()
        assert elbo == pytest.approx(log_p - gaps[-1], abs=1e-8)
    assert 1e-3 < gaps[0] < gaps[1]


def test_the_smoothing_posterior_attains_the_kalman_likelihood(one_latent):
    """With q(z_t | x_{1..T}, z_{<t}) exact, the weight of every draw is the likelihood."""
    lengths = [5, 2, 4]
    sequences = [draw(one_latent, n, seed) for seed, n in enumerate(lengths)]
    log_p = torch.tensor([one_latent.kalman(x[:, 0].numpy()) for x in sequences])
    mask = torch.arange(6)[:, None] < torch.tensor(lengths)
    x = torch.randn(6, 3, 2)
    for column, sequence in enumerate(sequences):
        x[: len(sequence), column] = sequence[:, 0]

    model = one_latent.vrnn("smoothing")
    model.backward_rnn, model.cell.encoder = Future(one_latent), ExactEncoder(one_latent.H)
    for _ in range(10):
        log_w = bounds.log_weights(model.trace(x, mask), x, mask)
        torch.testing.assert_close(log_w.sum(0), log_p, rtol=0, atol=1e-9)
    for sequence, value in zip(sequences, log_p, strict=True):
        torch.testing.assert_close(expected_elbo(model, sequence), value, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_silenced_score_is_an_unbiased_estimate_of_the_kalman_likelihood(one_latent):
    x = draw(one_latent, 4)
    log_p = one_latent.kalman(x[:, 0].numpy())
    model, n = one_latent.vrnn("filtering"), 4_000
    many = x.expand(-1, n, -1)
    scored = score(model, many, all_of(many), torch.arange(n), 16, bounds=["silenced"])
    ratio = (scored["silenced"] - log_p).exp()
    error = (ratio.std() / n**0.5).item()
    assert error < 0.02
    assert ratio.mean().item() == pytest.approx(1, abs=5 * error)
    assert scored["silenced"].mean() < log_p - 1e-3


@torch.no_grad()
def test_particles_of_a_filtering_posterior_close_the_gap(one_latent):
    x = draw(one_latent, 3)
    log_p = one_latent.kalman(x[:, 0].numpy())
    gain, slope, offset, covariance = best_step_by_step(one_latent)
    model = filtering(one_latent, gain, slope, offset, np.diag(covariance) ** 0.5)
    many = x.expand(-1, 50_000, -1)
    log_w = bounds.log_weights(model.trace(many), many, all_of(many)).sum(0)
    ratio = (log_w - log_p).exp()
    error = (ratio.std() / len(ratio) ** 0.5).item()
    assert error < 0.05
    assert ratio.mean().item() == pytest.approx(1, abs=5 * error)
    iwae = [
        bounds.importance_weighted(log_w.reshape(1, k, -1)).mean().item()
        for k in (1, 5, 50, 50_000)
    ]
    assert iwae == sorted(iwae) and iwae[0] < log_p - 0.02
    assert iwae[-1] == pytest.approx(log_p, abs=5 * error)
