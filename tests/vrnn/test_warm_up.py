"""Warm-up of the KL's weight under the bounds of several particles."""

from functools import partial

import numpy as np
import pytest
import torch
from support.linear_gaussian import all_of
from support.state_space import StateSpace, best_step_by_step, draw, filtering

from vrnn import RNN, VRNN, bounds
from vrnn.objectives import ELBO, FIVO, IWAE
from vrnn.particle_filter import particle_filter
from vrnn.trace import Resampling

pytestmark = pytest.mark.usefixtures("float64")

T, B, K = 6, 3, 4
WARM_UP = {"kl_start": 0.2, "kl_steps": 10}


@pytest.fixture
def model(make_model):
    return make_model(VRNN, residual=True)


@pytest.fixture
def batch():
    return torch.randn(T, B, 3), torch.arange(T)[:, None] < torch.tensor([6, 1, 4])


def computed(objective, model, batch, step):
    """Loss, bound and gradients of an objective whose noise is always the same."""
    model.zero_grad()
    result = objective(model, *batch, torch.Generator().manual_seed(3), step)
    result.loss.backward()
    return result.loss.item(), result.bound.item(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("step", [0, 5, 10])
def test_the_weights_of_trajectories_are_tempered_and_the_bound_is_not(model, batch, step):
    x, mask = batch
    beta = 0.2 + 0.08 * step
    noise = torch.randn(T, K * B, 2, generator=torch.Generator().manual_seed(3))
    losses = {1.0: 0.0, beta: 0.0}
    for b in range(B):
        n = int(mask[:, b].sum())
        log_w = {1.0: [], beta: []}
        for k in range(K):
            own = x[:n, b : b + 1]
            trace = model.trace(own, noise=noise[:n, k * B + b, None])
            log_p = trace.likelihood.log_prob(own).sum().item()
            q_p = trace.posterior.log_prob(trace.z) - trace.prior.log_prob(trace.z)
            for weight, values in log_w.items():
                values.append(log_p - weight * q_p.sum().item())
        for weight, values in log_w.items():
            losses[weight] -= np.logaddexp.reduce(values) - np.log(K)
    loss, bound, _ = computed(IWAE(K, **WARM_UP), model, batch, step)
    assert loss == pytest.approx(losses[beta], abs=1e-9)
    assert bound == pytest.approx(-losses[1.0], abs=1e-9)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_a_filter_that_never_resamples_is_the_same(model, batch, step):
    whole = computed(IWAE(K, **WARM_UP), model, batch, step)
    filtered = computed(FIVO(K, resampling="never", **WARM_UP), model, batch, step)
    torch.testing.assert_close(filtered, whole)


@pytest.mark.parametrize("objective", [IWAE, FIVO])
def test_it_ends(model, batch, objective):
    warmed = computed(objective(K, **WARM_UP), model, batch, 10)
    assert warmed[1] == -warmed[0]
    torch.testing.assert_close(warmed, computed(objective(K), model, batch, 0), rtol=0, atol=0)
    early = computed(objective(K, **WARM_UP), model, batch, 9)
    assert abs(early[0] - warmed[0]) > 1e-3


@pytest.mark.parametrize("objective", [ELBO, IWAE])
def test_without_latents_it_changes_nothing(make_model, batch, objective):
    loss, bound, _ = computed(objective(**WARM_UP), make_model(RNN), batch, 0)
    assert loss == pytest.approx(-bound, abs=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kl_weight", [1.0, 0.5, 0.1])
def test_the_bound_of_a_tempered_filter_is_one_of_the_kalman_likelihood(kl_weight):
    """exp of it is an unbiased estimate of p(x); that of the tempered evidence is not."""
    exact = StateSpace(x_dim=2, z_dim=1, h_dim=2)
    gain, slope, offset, covariance = best_step_by_step(exact)
    model = filtering(
        exact, 0.6 * gain, slope + 0.2, offset - 0.2, 1.4 * np.diag(covariance) ** 0.5
    )
    x, n, count = draw(exact, 5), 4000, 8
    log_p = exact.kalman(x[:, 0].numpy())
    rows = x.expand(-1, n, -1)
    noise, uniform = torch.randn(5, count * n, 1), torch.rand(5, count, n)
    particles = particle_filter(
        model, rows, all_of(rows), noise, uniform, Resampling(threshold=0.9), kl_weight=kl_weight
    )
    assert particles.collected[:-1].double().mean() > 0.1, "or no resampling would be tested"

    def off(estimates):
        ratio = (estimates - log_p).exp()
        return ratio.mean() - 1, ratio.std() / n**0.5

    difference, error = off(bounds.untempered_bound(particles))
    assert abs(difference) < 4 * error < 0.2
    difference, error = off(bounds.filtering_bound(particles))
    assert (abs(difference) > 10 * error) == (kl_weight < 1)


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize(
    "objective",
    [IWAE, FIVO, partial(FIVO, resampling="never"), partial(FIVO, resampling="systematic")],
    ids=["iwae", "fivo", "fivo-never", "fivo-systematic"],
)
def test_carried_windows_of_a_warm_up_add_up_to_a_bound_of_the_kalman_likelihood(
    objective, window
):
    """With particles that the windows go on from drawn by tempered weights, the sum is a nat above
    the likelihood, since this posterior knows more of what follows than the model does."""
    exact = StateSpace(x_dim=2, z_dim=1, h_dim=2)
    gain, slope, offset, covariance = best_step_by_step(exact)
    model = filtering(exact, gain, slope, offset + 0.3, np.diag(covariance) ** 0.5)
    x, n = draw(exact, 6, seed=3), 200
    log_p = exact.kalman(x[:, 0].numpy())
    warmed = objective(64, kl_start=0.05, kl_steps=1000)
    gaps = []
    for seed in range(10):
        generator, state, total = torch.Generator().manual_seed(seed), None, 0.0
        for part in x.expand(-1, n, -1).split(window):
            result = warmed(model, part, all_of(part), generator, 0, state)
            total, state = total + result.bound / n, result.state
        gaps.append(total - log_p)
    gap, error = torch.stack(gaps).mean(), torch.stack(gaps).std() / 10**0.5
    assert -0.2 < gap < -3 * error


@torch.no_grad()
@pytest.mark.parametrize("how", ["multinomial", "systematic", "never"])
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_the_bounds_of_a_tempered_filter_do_not_see_padding(model, how, kl_weight):
    n, rows, padding = 5, 40, 3
    x, mask = torch.randn(n + padding, rows, 3), torch.ones(n + padding, rows, dtype=torch.bool)
    mask[n:] = False
    noise, uniform = torch.randn(n + padding, K * rows, 2), torch.rand(n + padding, K, rows)

    def filtered(steps):
        given = x[:steps], mask[:steps], noise[:steps], uniform[:steps]
        return particle_filter(model, *given, Resampling(how, 1.0), kl_weight=kl_weight)

    whole, padded = filtered(n), filtered(n + padding)
    for bound in (bounds.untempered_bound, bounds.filtering_bound):
        torch.testing.assert_close(bound(padded), bound(whole), rtol=0, atol=1e-10)
