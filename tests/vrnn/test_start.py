"""A start from the data: the fitted biases alone describe all frames, as other means find."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from vrnn import VRNN
from vrnn.layers.feedforward import inverse_positive, positive
from vrnn.likelihoods import (
    AutoregressiveBernoulli,
    AutoregressiveGaussianMixture,
    Bernoulli,
    DiscretisedLogisticMixture,
    GaussianMixture,
    Likelihood,
    MuLawCategorical,
    PenMixture,
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """Pen frames of two strokes unlike each other, and their mean log density."""
    rng = np.random.default_rng(seed)
    parts = [
        (0.7, [0.5, -0.2], [[0.3, 0.1], [0.1, 0.2]]),
        (0.3, [-2.0, 1.0], [[0.05, -0.03], [-0.03, 0.04]]),
    ]
    which = rng.choice(2, n, p=[w for w, _, _ in parts])
    xy = np.stack([rng.multivariate_normal(parts[k][1], parts[k][2]) for k in which])
    density = sum(w * multivariate_normal(m, c).pdf(xy) for w, m, c in parts)
    pen = rng.random(n) < 0.1
    log_p = np.log(density) + np.where(pen, math.log(0.1), math.log(0.9))
    return np.column_stack([pen, xy]), float(log_p.mean())


def mean_log_p(likelihood: Likelihood, frames: Tensor) -> float:
    with torch.no_grad():
        params = likelihood.fit(frames).expand(len(frames), -1)
        return float(likelihood(params).log_prob(frames).double().mean())


@pytest.mark.parametrize("components", [2, 5])
def test_the_pen_starts_at_the_density_of_its_frames(components: int) -> None:
    x, expected = drawn(20_000)
    # As many parameters as that of the frames, or some more, fit a sample a little better.
    found = mean_log_p(PenMixture(3, components), torch.from_numpy(x).float())
    assert expected - 0.005 < found < expected + 0.01


def test_a_single_gaussian_starts_at_mean_and_covariance() -> None:
    x, _ = drawn(5_000)
    xy, pen = x[:, 1:], x[:, 0].mean()
    of_pen = pen * math.log(pen) + (1 - pen) * math.log(1 - pen)
    floored = np.cov(xy.T, bias=True) + 1e-4 * np.eye(2)
    expected = multivariate_normal(xy.mean(0), floored).logpdf(xy).mean() + of_pen
    frames = torch.from_numpy(x).float()
    assert mean_log_p(PenMixture(3, 1), frames) == pytest.approx(expected, abs=1e-4)
    by_dimension = multivariate_normal(xy.mean(0), np.diag(floored.diagonal()))
    found = mean_log_p(GaussianMixture(2), frames[:, 1:])
    assert found == pytest.approx(by_dimension.logpdf(xy).mean(), abs=1e-4)


def test_a_diagonal_mixture_finds_the_parts_of_many_dimensions() -> None:
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((4, 30))
    frames = centres[rng.integers(4, size=4_000)] + 0.5 * rng.standard_normal((4_000, 30))
    entropy = 30 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.5)) + math.log(4)
    found = mean_log_p(GaussianMixture(30, 4), torch.from_numpy(frames).float())
    assert found == pytest.approx(-entropy, abs=0.2)


def test_bits_start_at_their_log_odds() -> None:
    frames = (torch.rand(500, 6) < torch.linspace(0.1, 0.8, 6)).float()
    expected = frames.mean(0).logit()
    assert torch.allclose(Bernoulli(6).fit(frames), expected)
    nade = AutoregressiveBernoulli(6, hidden=3).fit(frames)
    assert torch.allclose(nade, torch.cat([expected, torch.zeros(3)]))


@pytest.mark.parametrize(
    ("likelihood", "loss"),
    [(DiscretisedLogisticMixture(4, 3, 256, -128), 0.2), (MuLawCategorical(4, 16, 256), 0.5)],
)
def test_levels_start_at_their_frequencies(likelihood: Likelihood, loss: float) -> None:
    """Beside the frequencies of all levels, the best that one distribution can do."""
    rng = np.random.default_rng(0)
    loud = rng.random((5_000, 4)) < 0.3
    levels = np.where(loud, rng.logistic(40, 15, (5_000, 4)), rng.logistic(-5, 3, (5_000, 4)))
    levels = levels.round().clip(-128, 127)
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    best = 4 * float((shares * np.log(shares)).sum())
    found = mean_log_p(likelihood, torch.from_numpy(levels).float())
    assert best - loss < found < best


def test_numbers_one_after_the_other_start_at_one_mixture() -> None:
    torch.manual_seed(0)
    x, _ = drawn(2_000)
    frames = torch.from_numpy(x[:, 1:]).float()
    likelihood = AutoregressiveGaussianMixture(2, 5, hidden=8)
    with torch.no_grad():
        before = float(likelihood(likelihood.bias().expand(2_000, -1)).log_prob(frames).mean())
    fitted = mean_log_p(GaussianMixture(1, 5), frames.reshape(-1, 1))
    found = mean_log_p(likelihood, frames)
    # The weights see the numbers before, at random.
    assert found == pytest.approx(2 * fitted, abs=0.15) and found > before + 0.3


def test_a_model_takes_the_fit_over() -> None:
    torch.manual_seed(0)
    frames = torch.from_numpy(drawn(1_000)[0]).float()
    model = VRNN(3, 2, 8, PenMixture(3, 3))
    weight = model.out.weight.clone()
    model.start_from(frames)
    assert torch.equal(model.out.bias, model.likelihood.fit(frames))
    assert torch.equal(model.out.weight, weight)


@pytest.mark.parametrize(
    "likelihood", [PenMixture(3, 20), GaussianMixture(3, 20), DiscretisedLogisticMixture(3, 20)]
)
def test_too_few_frames_are_told(likelihood: Likelihood) -> None:
    frames = torch.arange(6.0).expand(3, 6).T.repeat(100, 1)
    with pytest.raises(ValueError, match="only 6 differ; choose model.likelihood.components=6"):
        likelihood.fit(frames)


def test_a_dimension_without_spread_leaves_a_density() -> None:
    frames = torch.stack([torch.zeros(50), torch.zeros(50), torch.randn(50)], dim=-1)
    for likelihood in (PenMixture(3, 2), GaussianMixture(3, 2)):
        bias = likelihood.fit(frames)
        assert bias.isfinite().all()
        assert likelihood(bias).log_prob(frames).isfinite().all()


def test_the_preactivation_of_sigma_is_the_inverse() -> None:
    std = torch.logspace(-3, 3, 100, dtype=torch.float64)
    assert torch.allclose(positive(inverse_positive(std)), std, rtol=1e-9)
    assert positive(inverse_positive(torch.zeros(()))).item() == pytest.approx(2e-4, rel=1e-3)
