"""Likelihoods of levels: their mass, SciPy's logistics, their samples, and bits per sample."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import vrnn
from vrnn.likelihoods.discrete import DiscretisedLogisticMixture, MuLawCategorical
from vrnn.likelihoods.levels import Grid, LogisticMixtureDistribution
from vrnn.metrics import Scores

SHIFT, SCALE = [0.7, -1.3], [2.5, 0.4]


@pytest.fixture
def small():
    """Sixteen levels, -8 to 7, of two samples that are standardised differently."""
    return [
        DiscretisedLogisticMixture(2, 1, 16, -8, SHIFT, SCALE),
        DiscretisedLogisticMixture(2, 3, 16, -8, SHIFT, SCALE),
        MuLawCategorical(2, 5, 16, SHIFT, SCALE),
    ]


def levels(likelihood):
    """All levels of every sample, (levels, D), as the model sees them."""
    raw = torch.arange(likelihood.grid.lowest, likelihood.grid.highest + 1)[:, None]
    return (raw - likelihood.grid.shift) / likelihood.grid.scale


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
def test_frames_of_levels_sum_to_one(small, temperature):
    for likelihood in small:
        first, second = levels(likelihood).unbind(1)
        every = torch.cartesian_prod(first, second)
        for spread in (1.0, 30.0):
            params = spread * torch.randn(5, likelihood.size)
            log_p = likelihood(params, temperature).log_prob(every[:, None])
            assert log_p.shape == (256, 5)
            torch.testing.assert_close(log_p.exp().sum(0), torch.ones(5), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", [DiscretisedLogisticMixture, MuLawCategorical])
def test_all_levels_of_16_bits_sum_to_one(head):
    likelihood = head(1, shift=[-3.7], scale=[548.136169])
    params = torch.cat([torch.randn(2, likelihood.size), 20 * torch.randn(2, likelihood.size)])
    log_p = likelihood(params).log_prob(levels(likelihood)[:, None])
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(4), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_masses_are_differences_of_scipys_logistic(temperature):
    K = 3
    likelihood = DiscretisedLogisticMixture(2, K, 16, -8, SHIFT, SCALE)
    params = torch.randn(likelihood.size)
    logits, mean, a = params.numpy().reshape(3, 2, K)
    weights = np.exp(logits / temperature)
    weights /= weights.sum(-1, keepdims=True)
    raw = np.arange(-8, 8)[:, None, None]
    scale, shift = np.array(SCALE)[:, None], np.array(SHIFT)[:, None]
    logistic = stats.logistic(
        mean * scale + shift, (np.logaddexp(0, a) + 1e-4) * temperature * scale
    )
    upper = np.where(raw == 7, np.inf, raw + 0.5)
    lower = np.where(raw == -8, -np.inf, raw - 0.5)
    left, right = (
        logistic.cdf(upper) - logistic.cdf(lower),
        logistic.sf(lower) - logistic.sf(upper),
    )
    expected = (weights * np.where(raw < logistic.mean(), left, right)).sum(-1)
    ours = likelihood(params, temperature).log_prob(levels(likelihood)).exp()
    np.testing.assert_allclose(ours, expected.prod(-1), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_a_mass_does_not_depend_on_the_units_of_x():
    """The same logistics, standardised in two ways."""
    logits, mean, s = torch.randn(3, 2, 4), 5 * torch.randn(3, 2, 4), torch.rand(3, 2, 4) + 0.3
    raw = torch.tensor([[-8.0, 7.0], [0.0, 3.0], [-2.0, 1.0]])
    scores = []
    for shift, scale in (([0.0] * 2, [1.0] * 2), (SHIFT, SCALE)):
        t, u = torch.tensor(shift), torch.tensor(scale)
        grid = Grid(2, 16, -8, shift, scale)
        mine = LogisticMixtureDistribution(
            grid, logits, (mean - t[:, None]) / u[:, None], s / u[:, None]
        )
        scores.append(mine.log_prob((raw - t) / u))
    torch.testing.assert_close(*scores, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_classes_are_those_of_the_mu_law():
    likelihood = MuLawCategorical(1)
    c, n = likelihood.of_level, likelihood.counts
    assert (c.diff() >= 0).all() and c[0] == 0 and c[-1] == 255 and n.sum() == 2**16
    assert torch.equal(n, n.flip(0)), "the classes of both signs are alike"
    assert c[2**15 - 1] == 127 and c[2**15] == 128
    # At half of full scale ln(1 + 255 / 2) / ln 256 = 0.8757 of the positive classes lie below.
    assert c[2**15 + 2**14] == 128 + math.floor(128 * math.log(128.5) / math.log(256))
    assert n.min() >= 5 and n.max() == n[0] > 600


@pytest.mark.usefixtures("float64")
def test_levels_of_a_class_share_its_probability_and_its_temper():
    likelihood = MuLawCategorical(1, 5, 16)
    params = torch.randn(5)
    p = torch.softmax(params, -1) / likelihood.counts
    for temperature in (1.0, 0.5, 3.0):
        expected = p[likelihood.of_level] ** (1 / temperature)
        ours = likelihood(params, temperature).log_prob(levels(likelihood)).exp()
        torch.testing.assert_close(ours, expected / expected.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_keep_mass_and_gradient_finite(extreme, dtype):
    for head in (DiscretisedLogisticMixture, MuLawCategorical):
        likelihood = head(3, shift=[0.0] * 3, scale=[548.0] * 3)
        x = torch.tensor([-(2.0**15), 0.0, 2.0**15 - 1], dtype=dtype) / 548
        one_sided = torch.zeros(likelihood.size, dtype=dtype)
        one_sided[::2] = extreme
        for params in (torch.full((likelihood.size,), extreme, dtype=dtype), one_sided):
            params.requires_grad_()
            log_p = likelihood(params).log_prob(x)
            (gradient,) = torch.autograd.grad(log_p, params)
            assert log_p.dtype == dtype and log_p.isfinite() and log_p <= 0
            assert gradient.isfinite().all()
            assert likelihood.draw(params.detach()).isfinite().all()


@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_finite_differences(small):
    for likelihood in small:
        x = levels(likelihood)[[0, 4, 15]]
        params = torch.randn(3, likelihood.size, requires_grad=True)
        assert torch.autograd.gradcheck(lambda p, h=likelihood, x=x: h(p).log_prob(x), params)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_samples_lie_on_levels_as_often_as_their_mass(small, temperature):
    n = 20_000
    for likelihood in small:
        params = torch.randn(3, likelihood.size)
        draws = likelihood(params, temperature).sample((n,))
        assert draws.shape == (n, 3, 2)
        raw = draws * likelihood.grid.scale + likelihood.grid.shift
        torch.testing.assert_close(raw, raw.round(), rtol=0, atol=1e-9)
        first, second = levels(likelihood).unbind(1)
        every = torch.cartesian_prod(first, second)
        p = likelihood(params, temperature).log_prob(every[:, None]).exp()
        cell = ((raw[..., 0].round() + 8) * 16 + raw[..., 1].round() + 8).long()
        for row in range(3):
            counts = torch.bincount(cell[:, row], minlength=256).reshape(16, 16)
            for axis in (0, 1):
                seen, mass = counts.sum(axis).numpy(), p[:, row].reshape(16, 16).sum(axis).numpy()
                often = mass * n > 5
                statistic = ((seen - n * mass) ** 2 / (n * mass))[often].sum()
                assert stats.chi2(often.sum()).sf(statistic) > 1e-4
                assert seen[~often].sum() <= n * mass[~often].sum() + 5 * 5


@pytest.mark.usefixtures("float64")
def test_means_and_modes_are_those_of_the_masses():
    mulaw = MuLawCategorical(2, 5, 16, SHIFT, SCALE)
    params = 3 * torch.randn(20, mulaw.size)
    single = MuLawCategorical(1, 5, 16)
    logits = params.unflatten(-1, (2, 5))
    masses = single(logits).log_prob(levels(single)[:, None, None]).exp()
    raw = torch.arange(-8.0, 8.0)
    mean = ((masses * raw[:, None, None]).sum(0) - torch.tensor(SHIFT)) / torch.tensor(SCALE)
    torch.testing.assert_close(mulaw(params).mean, mean)
    mode = mulaw(params).mode * torch.tensor(SCALE) + torch.tensor(SHIFT) + 8
    taken = masses.gather(0, mode.round().long()[None])[0]
    torch.testing.assert_close(taken, masses.max(0).values)
    torch.testing.assert_close(mulaw.draw(params, 0.0), mulaw(params).mode, rtol=0, atol=0)

    grid = Grid(1, 2**16, -(2**15), [0.0], [1000.0])
    mean, s = torch.tensor([[0.2, -0.4]]), torch.tensor([[0.05, 0.2]])
    mixture = LogisticMixtureDistribution(grid, torch.tensor([[0.0, 1.0]]), mean, s)
    every = torch.arange(-(2.0**15), 2.0**15)[:, None] / 1000
    exact = (mixture.log_prob(every).exp() * every[:, 0]).sum()
    assert mixture.mean.item() == pytest.approx(exact.item(), abs=1e-6)
    # The narrow component has the higher peak, though less weight.
    assert mixture.mode.item() == pytest.approx(0.2)
    far = LogisticMixtureDistribution(grid, torch.zeros(1, 1), torch.tensor([[50.0]]), s[:, :1])
    assert far.mean.item() == far.mode.item() == 32.767


def test_under_autocast_masses_stay_in_float32(small):
    for likelihood in small:
        model = vrnn.VRNN(2, 2, 8, likelihood)
        x = levels(likelihood)[torch.randint(16, (5, 3))].float()
        with torch.autocast("cpu", torch.bfloat16):
            given = model.trace(x).likelihood
            inside, drawn = given.log_prob(x), given.sample()
        assert inside.dtype == drawn.dtype == torch.float32
        torch.testing.assert_close(inside, given.log_prob(x), rtol=1e-6, atol=1e-6)


def test_bits_are_nats_by_samples_and_know_no_units():
    data = {"log_scales": {"standardised": 20.0, "raw": 0.0}, "columns": list("abcd")}
    data["kind"] = "audio"
    scores, density = Scores.of(data, discrete=True), Scores.of(data, discrete=False)
    ids, steps = torch.tensor([0, 1]), torch.tensor([10, 5])
    nats = torch.tensor([-60 * math.log(2), -42 * math.log(2)], dtype=torch.float64)
    for metric in (scores, density):
        metric.update(ids, steps, {"elbo": nats, "kl": -nats})
    figures, plain = scores.compute(), density.compute()
    assert figures["elbo_bits_per_sample"] == pytest.approx(102 / (4 * 15))
    assert figures["elbo_raw_bits_per_sample"] == figures["elbo_bits_per_sample"]
    ratio = figures["elbo_bits_per_sample_se"] / figures["elbo_per_step_se"]
    assert ratio == pytest.approx(1 / (4 * math.log(2)))
    assert figures["elbo_raw"] == figures["elbo"] == plain["elbo"]
    assert plain["elbo_raw"] != plain["elbo"] and "kl_bits_per_sample" not in figures
    assert not any("bits" in key for key in plain)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"likelihood\.levels must be at least 2, not 1"):
        DiscretisedLogisticMixture(4, levels=1)
    with pytest.raises(ValueError, match="components must be at least 1, not 0"):
        DiscretisedLogisticMixture(4, 0)
    with pytest.raises(ValueError, match="have 2 and 1 numbers for x_dim=1"):
        DiscretisedLogisticMixture(1, shift=[0.0, 1.0])
    with pytest.raises(ValueError, match=r"likelihood\.classes must be at least 2, not 1"):
        MuLawCategorical(4, classes=1)
    with pytest.raises(ValueError, match=r"likelihood\.classes=256 is too many for 32 levels"):
        MuLawCategorical(4, levels=32)


def test_an_untrained_mixture_starts_at_zero():
    head = DiscretisedLogisticMixture(2, 3)
    start = head(head.bias())
    assert (start.means == 0).all()
    sigma = math.log1p(math.exp(0.6)) + 1e-4
    torch.testing.assert_close(start.s, torch.full((2, 3), sigma))
    torch.testing.assert_close(start.logits.exp(), torch.full((2, 3), 1 / 3))
