"""Bounds against sums written out with `math`, Monte Carlo, and their known inequalities."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vrnn import RNN, VRNN, bounds
from vrnn.layers.state import top
from vrnn.likelihoods import GaussianMixture, PenMixture
from vrnn.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")


def log_normal(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def kl_normal(mean, std, mean_0, std_0):
    ratio = (std / std_0) ** 2
    return 0.5 * (ratio + ((mean - mean_0) / std_0) ** 2 - 1 - math.log(ratio))


@pytest.fixture
def ragged():
    """Frames and mask of three sequences of 4, 2 and 3 steps."""
    mask = torch.arange(4)[:, None] < torch.tensor([4, 2, 3])
    return torch.randn(4, 3, 3), mask


def test_elbo_and_weights_are_the_sums_written_out(make_model, ragged):
    x, mask = ragged
    trace = make_model(VRNN, GaussianMixture(3)).trace(x, mask)
    q, p, f = (d.base_dist for d in (trace.posterior, trace.prior, trace.likelihood))
    terms = bounds.elbo_terms(trace, x, mask)
    log_w = bounds.log_weights(trace, x, mask)
    elbo, weight = [0.0] * 3, [0.0] * 3
    for t, b in itertools.product(range(4), range(3)):
        log_likelihood = kl = ratio = 0.0
        if mask[t, b]:
            for d in range(3):
                at = (t, b, d)
                log_likelihood += log_normal(x[at].item(), f.mean[at].item(), f.stddev[at].item())
            for j in range(2):
                at = (t, b, j)
                z = trace.z[at].item()
                inferred = q.mean[at].item(), q.stddev[at].item()
                expected = p.mean[at].item(), p.stddev[at].item()
                kl += kl_normal(*inferred, *expected)
                ratio += log_normal(z, *expected) - log_normal(z, *inferred)
        assert terms.log_likelihood[t, b].item() == pytest.approx(log_likelihood, abs=1e-12)
        assert terms.kl[t, b].item() == pytest.approx(kl, abs=1e-12)
        assert log_w[t, b].item() == pytest.approx(log_likelihood + ratio, abs=1e-12)
        elbo[b] += log_likelihood - kl
        weight[b] += log_likelihood + ratio
    assert bounds.elbo(trace, x, mask).tolist() == pytest.approx(elbo, abs=1e-12)
    assert bounds.importance_weighted(log_w[:, None]).tolist() == pytest.approx(weight, abs=1e-12)


@pytest.mark.parametrize("per", ["step", "dimension"])
def test_free_bits_are_the_sum_written_out(make_model, ragged, per):
    x, mask = ragged
    model = make_model(VRNN)
    noise = ELBO().noise(model, x, torch.Generator().manual_seed(0))
    trace = model.trace(x, mask, noise=noise)
    q, p = trace.posterior.base_dist, trace.prior.base_dist
    terms = []
    for t, b in mask.nonzero().tolist():
        pairs = zip(q.mean[t, b], q.stddev[t, b], p.mean[t, b], p.stddev[t, b], strict=True)
        each = [kl_normal(*(value.item() for value in pair)) for pair in pairs]
        terms += each if per == "dimension" else [sum(each)]
    free = statistics.median(terms)
    loss = sum(max(term, free) for term in terms) - trace.likelihood.log_prob(x)[mask].sum()
    objective = ELBO(free_bits=free, free_bits_per=per)
    result = objective(model, x, mask, torch.Generator().manual_seed(0), 0)
    torch.testing.assert_close(result.loss, loss)


def test_the_kl_is_torchs_and_that_of_monte_carlo(make_model):
    x = torch.randn(1, 1, 3)
    trace = make_model(VRNN, spread=0.8).trace(x)
    q, p = trace.posterior, trace.prior
    kl = bounds.elbo_terms(trace, x, torch.ones(1, 1, dtype=torch.bool)).kl
    torch.testing.assert_close(kl, kl_divergence(q.base_dist, p.base_dist).sum(-1))
    assert (kl - kl_divergence(p, q)).abs() > 0.05, "or the test could not tell the direction"
    z = q.sample((200_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    assert (ratio.mean() - kl).abs() < 5 * ratio.std() / len(z) ** 0.5


def test_equal_posterior_and_prior_cost_nothing(make_model, ragged):
    x, mask = ragged
    model = make_model(VRNN, prior="standard")
    with torch.no_grad():
        model.cell.encoder.out.weight.zero_()
        model.cell.encoder.out.bias[:2] = 0
        model.cell.encoder.out.bias[2:] = math.log(math.expm1(1 - 1e-4))
    trace = model.trace(x, mask)
    terms = bounds.elbo_terms(trace, x, mask)
    assert terms.kl.abs().max() < 1e-14
    same = trace._replace(posterior=trace.prior)
    assert (bounds.elbo_terms(same, x, mask).kl == 0).all()
    torch.testing.assert_close(
        bounds.log_weights(same, x, mask), terms.log_likelihood, rtol=0, atol=1e-13
    )


def test_a_draw_of_the_weight_has_the_elbo_as_its_mean(make_model):
    model = make_model(VRNN, PenMixture(components=2))
    n = 100_000
    x, mask = torch.randn(3, 1, 3).repeat(1, n, 1), torch.ones(3, n, dtype=torch.bool)
    with torch.no_grad():
        trace = model.trace(x, mask)
        drawn = bounds.log_weights(trace, x, mask).sum(0) - bounds.elbo(trace, x, mask)
    assert drawn.mean().abs() < 5 * drawn.std() / n**0.5
    assert drawn.std() > 0.1, "or the test would be empty"


def test_importance_weighted_and_paper_figures_are_their_formulas():
    log_w = 3 * torch.randn(5, 4, 2)
    w = log_w.numpy()
    iwae = np.log(np.mean(np.exp(w.sum(0)), axis=0))
    paper = np.log(np.mean(np.exp(w), axis=1)).sum(0)
    np.testing.assert_allclose(bounds.importance_weighted(log_w), iwae, rtol=1e-12)
    np.testing.assert_allclose(bounds.paper_estimate(log_w), paper, rtol=1e-12)
    # Weights far outside the range of exp.
    far = bounds.importance_weighted(log_w - 1e5)
    np.testing.assert_allclose(far, iwae - 5e5, rtol=1e-12)


def test_one_particle_is_a_draw_of_the_elbo_for_both():
    log_w = torch.randn(5, 1, 3)
    torch.testing.assert_close(bounds.importance_weighted(log_w), log_w.sum((0, 1)))
    torch.testing.assert_close(bounds.paper_estimate(log_w), log_w.sum((0, 1)))


def test_more_particles_never_lower_the_mean_bound(make_model):
    """Burda et al.'s theorem 1 in its exact form: means over all subsets of eight draws."""
    model = make_model(VRNN)
    x, mask = torch.randn(4, 1, 3).repeat(1, 8, 1), torch.ones(4, 8, dtype=torch.bool)
    log_w = bounds.split_particles(bounds.log_weights(model.trace(x), x, mask), 8)
    means = []
    for k in range(1, 9):
        subsets = [list(s) for s in itertools.combinations(range(8), k)]
        values = [bounds.importance_weighted(log_w[:, s]).item() for s in subsets]
        means.append(sum(values) / len(values))
    assert all(a < b for a, b in itertools.pairwise(means)), means


def test_the_papers_figure_is_no_bound():
    """It ignores how the weights of a trajectory go together, so it errs to either side."""
    together = torch.log(torch.tensor([[3.0, 1.0], [3.0, 1.0]]))[..., None]
    against = torch.log(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))[..., None]
    assert bounds.importance_weighted(together).item() == pytest.approx(math.log(5))
    assert bounds.importance_weighted(against).item() == pytest.approx(math.log(3))
    for log_w in (together, against):
        assert bounds.paper_estimate(log_w).item() == pytest.approx(math.log(4))


def test_particles_are_folded_into_the_batch_particle_first():
    log_w = torch.arange(12.0).reshape(2, 6)
    split = bounds.split_particles(log_w, 3)
    assert split.shape == (2, 3, 2)
    assert split[1, 2].tolist() == [10.0, 11.0]
    sequences = torch.tensor([[[1.0], [2.0]]]).repeat(1, 3, 1)
    assert (bounds.split_particles(sequences[..., 0], 3) == torch.tensor([1.0, 2.0])).all()


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_without_latents_every_bound_is_the_exact_likelihood(make_model, ragged, rnn):
    x, mask = ragged
    model = make_model(RNN, GaussianMixture(3), rnn=rnn, rnn_layers=2)
    trace = model.trace(x, mask)
    log_w = bounds.log_weights(trace, x, mask)[:, None]

    exact = torch.zeros(3)
    for b in range(3):
        state = model.rnn.initial(1)
        for frame in x[mask[:, b], b]:
            out = model.out(model.decoder(top(state)))[0]
            std = torch.log1p(out[3:].exp()) + 1e-4
            exact[b] += Independent(Normal(out[:3], std), 1).log_prob(frame)
            state = model.rnn.step(model.phi_x(frame[None]), state)
    terms = bounds.elbo_terms(trace, x, mask)
    assert (terms.kl == 0).all() and terms.kl.shape == (4, 3)
    for value in (
        bounds.elbo(trace, x, mask),
        bounds.importance_weighted(log_w),
        bounds.paper_estimate(log_w),
    ):
        torch.testing.assert_close(value, exact, rtol=0, atol=1e-12)


def test_a_term_of_the_wrong_shape_is_refused(make_model, ragged):
    x, mask = ragged
    trace = make_model(VRNN).trace(x, mask)
    for bound in (bounds.elbo_terms, bounds.log_weights):
        with pytest.raises(AssertionError, match=r"must be \(T, B\)"):
            bound(trace, x, mask[:, :1])
    summed = trace._replace(likelihood=trace.likelihood.base_dist)
    with pytest.raises(AssertionError, match=r"must be \(T, B\)"):
        bounds.elbo(summed, x, mask)
