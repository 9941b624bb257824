"""Scores and their units: batching, particles, noise, conversions, standard errors, objectives."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch.distributions import AffineTransform, Normal, TransformedDistribution

from vrnn import RNN, VRNN, bounds, evaluation
from vrnn.diagnostics import latent_use, overlap, sigma_range
from vrnn.evaluation import score
from vrnn.likelihoods import GaussianMixture, PenMixture
from vrnn.metrics import Scores
from vrnn.noise import sequence_noise
from vrnn.normaliser import Normaliser, convert
from vrnn.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")

LENGTHS = [5, 2, 7, 1, 4]
IDS = torch.tensor([11, 3, 0, 8, 2])


@pytest.fixture
def batch():
    """Frames, mask and numbers of five sequences."""
    mask = torch.arange(7)[:, None] < torch.tensor(LENGTHS)
    return torch.randn(7, 5, 3), mask, IDS


@pytest.fixture(params=["filtering", "smoothing"])
def latent_model(request, make_model):
    return make_model(VRNN, PenMixture(components=2), posterior=request.param)


def column(i, x, mask, ids):
    """One sequence alone, without padding."""
    n = LENGTHS[i]
    return x[:n, i : i + 1], mask[:n, i : i + 1], ids[i : i + 1]


def test_scores_are_their_definitions_draw_by_draw(latent_model, batch):
    K, seed = 5, 4
    figures = score(latent_model, *batch, particles=K, seed=seed, split="val")
    for i in range(5):
        x, mask, ids = column(i, *batch)
        log_p, kl, log_w = [], [], []
        for draw in range(K):
            draws = range(draw, draw + 1)
            noise = sequence_noise(ids, mask, 2, draws, seed, torch.float64, "val")
            trace = latent_model.trace(x, noise=noise)
            q, p, z = trace.posterior, trace.prior, trace.z
            log_p.append(trace.likelihood.log_prob(x)[:, 0].detach().numpy())
            kl.append(torch.distributions.kl_divergence(q, p).sum().item())
            log_w.append(log_p[-1] + (p.log_prob(z) - q.log_prob(z))[:, 0].detach().numpy())
        log_w = np.array(log_w)
        expected = {
            "log_likelihood": np.sum(log_p) / K,
            "kl": np.mean(kl),
            "elbo": np.sum(log_p) / K - np.mean(kl),
            "iwae": special.logsumexp(log_w.sum(1)) - math.log(K),
            "paper": (special.logsumexp(log_w, axis=0) - math.log(K)).sum(),
        }
        assert figures.keys() == expected.keys()
        for name, value in expected.items():
            assert figures[name][i].item() == pytest.approx(value, rel=1e-12, abs=1e-9), name
            assert figures[name].dtype == torch.float64 and figures[name].shape == (5,)
    alone = score(latent_model, *batch, bounds={"elbo"})
    assert alone.keys() == {"elbo", "log_likelihood", "kl"}


def test_one_particle_has_an_importance_weight_too(latent_model, batch):
    """So that a sweep over the particles of `objective=iwae` may begin with one."""
    x, mask, ids = batch
    noise = sequence_noise(ids, mask, 2, range(1), 0, torch.float64)
    log_w = bounds.log_weights(latent_model.trace(x, mask, noise=noise), x, mask).sum(0)
    figures = score(latent_model, *batch, particles=1, bounds={"elbo", "iwae"})
    torch.testing.assert_close(figures["iwae"], log_w)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, 12, 10_000])
def test_scores_depend_on_no_chunk_and_no_company(latent_model, batch, rows, monkeypatch):
    x, mask, ids = batch
    expected = score(latent_model, *batch, particles=7)
    monkeypatch.setattr(evaluation, "ROWS", rows)
    order = [3, 1, 4, 0, 2]
    padded = torch.cat([x, torch.full((2, 5, 3), 40.0)])[:, order]
    padded_mask = torch.cat([mask, torch.zeros(2, 5, dtype=torch.bool)])[:, order]
    together = score(latent_model, padded, padded_mask, ids[order], particles=7)
    alone = [score(latent_model, *column(i, *batch), particles=7) for i in range(5)]
    for name, value in expected.items():
        torch.testing.assert_close(together[name], value[order], rtol=1e-13, atol=1e-10)
        torch.testing.assert_close(
            torch.cat([a[name] for a in alone]), value, rtol=1e-13, atol=1e-10
        )


def test_without_latents_all_scores_are_the_likelihood(make_model, batch):
    x, mask, _ = batch
    model = make_model(RNN)
    figures = score(model, *batch, particles=40)
    exact = bounds.elbo(model.trace(x, mask), x, mask)
    assert figures.keys() == {"elbo", "log_likelihood", "kl", "iwae", "paper"}
    for name in ("elbo", "log_likelihood", "iwae", "paper"):
        torch.testing.assert_close(figures[name], exact, rtol=0, atol=1e-12)
    assert (figures["kl"] == 0).all()


def test_iwae_lies_above_the_elbo_of_the_same_draws(latent_model, batch):
    """Not the ELBO with its analytic KL, but the mean log weight, by Jensen for every draw."""
    x, mask, ids = batch
    figures = score(latent_model, *batch, particles=30)
    noise = sequence_noise(ids, mask, 2, range(30), 0, torch.float64)
    rows, rows_mask = x.repeat(1, 30, 1), mask.repeat(1, 30)
    log_w = bounds.log_weights(latent_model.trace(rows, rows_mask, noise=noise), rows, rows_mask)
    mean = log_w.sum(0).unflatten(0, (30, 5)).mean(0)
    assert (figures["iwae"] > mean).all()


def test_training_weights_leave_the_reported_figures_alone(latent_model, batch):
    x, mask, _ = batch
    noise = torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    trace = latent_model.trace(x, mask, noise=noise)
    log_p, kl = (part.tolist() for part in bounds.elbo_terms(trace, x, mask))
    free_bits = float(np.median(np.array(kl)[mask.numpy()]))
    total = sum(map(sum, log_p)), sum(map(sum, kl))
    clamped = sum(max(kl[t][b], free_bits) for b, n in enumerate(LENGTHS) for t in range(n))
    assert clamped > total[1] * 1.01, "or free bits would not be tested"
    for options, step, kl_cost in (
        ({}, 0, total[1]),
        ({"kl_start": 0.2, "kl_steps": 10}, 0, 0.2 * total[1]),
        ({"kl_start": 0.2, "kl_steps": 10}, 5, 0.6 * total[1]),
        ({"kl_start": 0.2, "kl_steps": 10}, 10, total[1]),
        ({"free_bits": free_bits}, 0, clamped),
        ({"kl_start": 0.0, "kl_steps": 4, "free_bits": free_bits}, 1, 0.25 * clamped),
    ):
        generator = torch.Generator().manual_seed(0)
        result = ELBO(**options)(latent_model, x, mask, generator, step)
        assert result.loss.item() == pytest.approx(kl_cost - total[0], abs=1e-9)
        assert result.bound.item() == pytest.approx(total[0] - total[1], abs=1e-9)
        assert result.kl.item() == pytest.approx(total[1], abs=1e-9)
        assert result.loss.requires_grad and not result.kl.requires_grad


def test_the_kl_weight_rises_linearly_and_stays_at_one():
    weight = ELBO(kl_start=0.2, kl_steps=4).kl_weight
    assert [weight(step) for step in (0, 1, 2, 3, 4, 5, 10**6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    )
    assert ELBO().kl_weight(0) == 1.0
    for options in ({"kl_start": -0.1}, {"kl_start": 1.1}):
        with pytest.raises(ValueError, match="objective.kl_start must be between 0 and 1"):
            ELBO(**options)
    for options in ({"kl_steps": -1}, {"free_bits": -0.5}):
        with pytest.raises(ValueError, match="must not be negative"):
            ELBO(**options)


def test_units_are_those_of_the_transformed_density(make_model):
    """Per-coordinate transforms by torch.distributions against the log-determinant."""
    shift, scale = [0.0, 3.0, -5.0], [1.0, 20.0, 0.4]
    paper = AffineTransform(
        torch.tensor([0.0, -8 / 56.04462, -8 / 56.04462]),
        torch.tensor([1.0, 1 / 56.04462, 1 / 56.04462]),
    )
    log_scales = {
        "standardised": math.log(20.0 * 0.4),
        "raw": 0.0,
        "paper": 2 * math.log(56.04462),
    }
    model = make_model(RNN, normaliser=Normaliser(shift, scale))
    raw = torch.tensor(shift) + torch.tensor(scale) * torch.randn(6, 4, 3)
    x = model.normaliser.standardise(raw)
    torch.testing.assert_close(model.normaliser.raw(x), raw)
    trace, mask = model.trace(x), torch.ones(6, 4, dtype=torch.bool)
    nats = bounds.elbo(trace, x, mask)

    frames = trace.likelihood.base_dist
    back = AffineTransform(torch.tensor(shift), torch.tensor(scale))
    expected = {
        "standardised": nats,
        "raw": TransformedDistribution(frames, [back]).log_prob(raw).sum((0, 2)),
        "paper": TransformedDistribution(frames, [back, paper]).log_prob(paper(raw)).sum((0, 2)),
    }
    steps = torch.full((4,), 6)
    for source, value in expected.items():
        for target in expected:
            converted = convert(value, steps, log_scales, source, target)
            torch.testing.assert_close(converted, expected[target], rtol=0, atol=1e-9)

    scores = Scores(log_scales)
    scores.update(torch.arange(4), steps, {"elbo": nats, "kl": nats})
    result = scores.compute()
    for suffix, space in {"": "standardised", "_raw": "raw", "_paper": "paper"}.items():
        total = expected[space].sum().item()
        assert result[f"elbo{suffix}"] == pytest.approx(total / 4, abs=1e-9)
        assert result[f"elbo{suffix}_per_step"] == pytest.approx(total / 24, abs=1e-9)
    assert "kl_raw" not in result, "a divergence has no units of x"


def test_a_density_in_raw_units_has_mass_one(make_model):
    model = make_model(RNN, GaussianMixture(1, 3), normaliser=Normaliser([120.0], [35.0]))
    raw = torch.linspace(-2000.0, 2000.0, 20_001)
    x = model.normaliser.standardise(raw)[None, :, None]
    nats = bounds.elbo(model.trace(x), x, torch.ones(1, len(raw), dtype=torch.bool))
    log_scales = {"standardised": math.log(35.0), "raw": 0.0}
    p = convert(nats, 1, log_scales, "standardised", "raw").exp()
    assert (p.sum() * (raw[1] - raw[0])).item() == pytest.approx(1, abs=1e-6)


def test_the_normaliser_keeps_its_constants_in_double_and_frames_in_their_dtype():
    normaliser = Normaliser([8.0], [56.04462])
    for dtype in (torch.float32, torch.float64):
        raw = torch.tensor([[64.04462]], dtype=dtype)
        x = normaliser.standardise(raw)
        assert x.dtype == normaliser.raw(x).dtype == dtype
        torch.testing.assert_close(x, torch.ones(1, 1, dtype=dtype))
        torch.testing.assert_close(normaliser.raw(x), raw)
    identity = Normaliser.identity(2)
    assert torch.equal(identity.standardise(torch.ones(3, 2)), torch.ones(3, 2))


def test_use_of_the_latents_is_counted_on_own_steps_only(latent_model, make_model, batch):
    x, mask, ids = batch
    x[~mask] *= 1e6
    with torch.no_grad():  # One dimension that infers next to nothing of ordinary frames.
        latent_model.cell.encoder.out.weight[0] *= 1e-3
        latent_model.cell.encoder.out.weight[1] *= 10
    use = latent_use(latent_model, x, mask, ids)
    kl, means = [], []
    for i in range(5):
        alone, _, number = column(i, *batch)
        noise = sequence_noise(number, mask[: len(alone), i : i + 1], 2, range(1), 0, x.dtype)
        trace = latent_model.trace(alone, noise=noise)
        q, p = trace.posterior, trace.prior
        m, s, m0, s0 = (v[:, 0].detach().numpy() for v in (q.mean, q.stddev, p.mean, p.stddev))
        kl.append(0.5 * ((s / s0) ** 2 + ((m - m0) / s0) ** 2 - 1) - np.log(s / s0))
        means.append(m)
    kl, means = np.concatenate(kl), np.concatenate(means)
    np.testing.assert_allclose(use.kl, kl.mean(0), rtol=1e-9)
    assert use.active.tolist() == (means.var(0, ddof=1) > 0.01).tolist() == [False, True]
    assert latent_use(make_model(RNN), *batch) is None


def test_use_of_the_latents_by_step_and_particle(latent_model, batch):
    x, mask, ids = batch
    use = latent_use(latent_model, x, mask, ids, particles=4)
    first = sequence_noise(ids, mask, 2, range(1), 0, x.dtype)
    trace = latent_model.trace(x, mask, noise=first)
    kl = torch.distributions.kl_divergence(trace.posterior, trace.prior)
    expected = [kl[t, [b for b in range(5) if LENGTHS[b] > t]].mean().item() for t in range(7)]
    np.testing.assert_allclose(use.kl_by_step, expected, rtol=1e-9)
    assert (use.effective >= 1 / 4 - 1e-9).all() and (use.effective <= 1 + 1e-9).all()
    assert use.effective.min() < 0.99 and (use.overlap > 0).all() and (use.overlap < 0.999).all()


def test_overlap_is_the_integral_of_the_geometric_mean():
    q, p = Normal(torch.tensor([0.3, 1.0]), torch.tensor([0.5, 2.0])), Normal(-0.4, 1.1)
    for i in range(2):

        def density(z, i=i):
            log_q = Normal(q.mean[i], q.stddev[i]).log_prob(torch.tensor(z))
            return math.exp(0.5 * float(log_q + p.log_prob(torch.tensor(z))))

        value, _ = integrate.quad(density, -30, 30)
        assert overlap(q, p)[i].item() == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(overlap(q, q), torch.ones(2))


def test_in_open_loop_the_recurrence_sees_means_in_place_of_data(latent_model, batch):
    x, mask, ids = batch
    noise = torch.randn(7, 5, 2)

    def gap():
        teacher = bounds.elbo_terms(latent_model.trace(x, mask, noise=noise), x, mask)
        free = bounds.elbo_terms(latent_model.open_loop(x, mask, noise), x, mask)
        return (teacher.log_likelihood - teacher.kl) - (free.log_likelihood - free.kl)

    first, *later = gap()
    torch.testing.assert_close(first, torch.zeros(5))
    assert torch.stack(later)[mask[1:]].abs().min() > 1e-6
    # Another x_t does not change what the decoder makes of the same later latents.
    changed = x.clone()
    changed[0] += 1
    if latent_model.filters:
        with torch.no_grad():
            latent_model.cell.encoder.hidden[0].weight[:, :5] = 0  # Inference blind to x, too.
        free, other = (latent_model.open_loop(values, mask, noise) for values in (x, changed))
        torch.testing.assert_close(free.likelihood.mean, other.likelihood.mean)
        torch.testing.assert_close(free.z, other.z)
    with torch.no_grad():  # A recurrence that does not look at x is in open loop already.
        latent_model.cell.rnn.input_weights[0][:, :5] = 0
    torch.testing.assert_close(gap(), torch.zeros(7, 5))
    expected = bounds.elbo(latent_model.open_loop(x, mask, noise), x, mask)
    assert expected.shape == (5,)
    figures = score(latent_model, x, mask, ids, bounds=["open_loop"])
    own = sequence_noise(ids, mask, 2, range(1), 0, x.dtype)
    one = bounds.elbo(latent_model.open_loop(x, mask, own), x, mask)
    torch.testing.assert_close(figures["open_loop"], one)


@torch.no_grad()
def test_particles_that_vanish_one_after_the_other_are_told(make_model, monkeypatch):
    model, x, mask = make_model(VRNN), torch.randn(3, 1, 3), torch.ones(3, 1, dtype=torch.bool)
    log_w = torch.zeros(3, 2)
    log_w[0, 0] = log_w[2, 1] = -math.inf
    monkeypatch.setattr("vrnn.evaluation.log_weights", lambda *_: log_w)
    with pytest.raises(FloatingPointError, match=r"sequence 4 .* from step 2 on"):
        score(model, x, mask, torch.tensor([4]), 2, bounds=["iwae"])


@torch.no_grad()
def test_padding_is_in_no_figure_of_latents_and_sigmas(make_model):
    x, mask = torch.randn(7, 2, 3), torch.arange(7)[:, None] < torch.tensor([7, 2])
    x[~mask] *= 1e3
    calm = torch.where(mask[..., None], x, 0.0)
    latent, rnn = make_model(VRNN), make_model(RNN)
    ours, other = (latent_use(latent, v, mask, torch.arange(2)) for v in (x, calm))
    torch.testing.assert_close(ours.overlap, other.overlap)
    assert sigma_range(rnn, x, mask) == sigma_range(rnn, calm, mask)
