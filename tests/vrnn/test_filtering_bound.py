"""The filtering bound and its gradient, against the Kalman filter and enumeration."""

import itertools

import numpy as np
import pytest
import torch
from support.filters import run
from support.linear_gaussian import all_of
from support.state_space import StateSpace, best_step_by_step, draw, filtering

from vrnn import VRNN, bounds
from vrnn.likelihoods import Bernoulli
from vrnn.objectives import FIVO, IWAE
from vrnn.particle_filter import particle_filter
from vrnn.trace import Resampling

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def kalman():
    exact = StateSpace(x_dim=2, z_dim=1, h_dim=2)
    gain, slope, offset, covariance = best_step_by_step(exact)
    return exact, (0.6 * gain, slope + 0.2, offset - 0.2, 1.4 * np.diag(covariance) ** 0.5)


@torch.no_grad()
@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_its_mean_weight_is_the_kalman_likelihood(kalman, resampling):
    """The estimate of p(x) is unbiased, whatever is resampled, so its log is a lower bound."""
    exact, posterior = kalman
    model = filtering(exact, *posterior)
    x = draw(exact, 5)
    log_p = exact.kalman(x[:, 0].numpy())
    n = 3000
    rows = x.expand(-1, n, -1)
    particles = run(model, rows, all_of(rows), how=resampling, threshold=0.8)
    estimates = bounds.filtering_bound(particles) - log_p
    assert particles.collected[:-1].double().mean() > 0.2, "or no resampling would be tested"
    ratio = estimates.exp()
    error = ratio.std() / n**0.5
    assert abs(ratio.mean() - 1) < 4 * error < 0.2
    assert estimates.mean() < -4 * estimates.std() / n**0.5


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 4, 12])
@pytest.mark.parametrize(
    "objective",
    [IWAE(64), FIVO(64), FIVO(64, resampling="never")],
    ids=["iwae", "fivo", "fivo-never"],
)
def test_windows_that_carry_the_state_add_up_to_a_bound(objective, window):
    exact = StateSpace(x_dim=2, z_dim=1, h_dim=2)
    gain, slope, offset, covariance = best_step_by_step(exact)
    model = filtering(exact, gain, slope, offset, np.diag(covariance) ** 0.5)
    x, n = draw(exact, 12), 100
    log_p = exact.kalman(x[:, 0].numpy())
    gaps = []
    for seed in range(10):
        generator, state, total = torch.Generator().manual_seed(seed), None, 0.0
        for part in x.expand(-1, n, -1).split(window):
            result = objective(model, part, all_of(part), generator, 0, state)
            total, state = total + result.bound / n, result.state
        gaps.append(total - log_p)
    gap, error = torch.stack(gaps).mean(), torch.stack(gaps).std() / 10**0.5
    assert -0.1 < gap < 3 * error < 0.05


@torch.no_grad()
def test_bounds_rise_to_the_kalman_likelihood_with_the_particles(kalman):
    exact, posterior = kalman
    model = filtering(exact, *posterior)
    x = draw(exact, 12)
    log_p = exact.kalman(x[:, 0].numpy())
    n = 200
    rows = x.expand(-1, n, -1)
    gaps = {}
    for resampling, count in itertools.product(("multinomial", "never"), (1, 8, 64)):
        particles = run(model, rows, all_of(rows), count, how=resampling)
        estimates = bounds.filtering_bound(particles)
        gaps[resampling, count] = (log_p - estimates.mean()).item()
        assert gaps[resampling, count] > -4 * estimates.std() / n**0.5
    for resampling in ("multinomial", "never"):
        assert gaps[resampling, 1] > 2 * gaps[resampling, 8] > 4 * gaps[resampling, 64]
    assert gaps["never", 64] > 2 * gaps["multinomial", 64]


def test_with_the_score_the_gradient_is_that_of_the_expected_bound(make_model):
    """Over all choices of ancestors, enumerated, with the noise of z fixed."""
    steps, particles = 3, 2
    model = make_model(VRNN, Bernoulli(3))
    x = torch.randint(2, (steps, 1, 3)).double()
    mask, noise = all_of(x), torch.randn(steps, particles, 2)
    weights = [*model.cell.parameters(), *model.decoder.parameters()]

    def filtered(choice):
        """With cells of the cumulative weights hit such that `choice` are the ancestors."""
        uniform = torch.zeros(steps, particles, 1)
        for t in range(steps - 1):
            result = particle_filter(model, x, mask, noise, uniform, Resampling(threshold=1.0))
            first = result.log_w[t].softmax(0)[0, 0].item()
            for k in range(particles):
                uniform[t, k] = first * 0.5 if choice[t][k] == 0 else (1 + first) / 2
        result = particle_filter(model, x, mask, noise, uniform, Resampling(threshold=1.0))
        assert result.ancestors[:-1, :, 0].tolist() == [list(c) for c in choice]
        log_p = result.log_w[:-1].log_softmax(1).gather(1, result.ancestors[:-1]).sum()
        return result, log_p

    pairs = list(itertools.product(range(particles), repeat=particles))
    expected, total, surrogate = 0.0, 0.0, 0.0
    for choice in itertools.product(pairs, repeat=steps - 1):
        result, log_p = filtered(choice)
        bound = bounds.filtering_bound(result).sum()
        expected = expected + log_p.exp() * bound
        total += log_p.exp().item()
        score = bounds.resampling_score(result).sum()
        surrogate = surrogate + log_p.exp().detach() * (bound + score)
    assert total == pytest.approx(1)
    ours, exact = (
        torch.autograd.grad(value, weights, retain_graph=True) for value in (surrogate, expected)
    )
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
