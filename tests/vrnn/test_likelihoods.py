"""Output distributions against numerical integrals, SciPy, torch and their own samples."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.distributions import Bernoulli as Bits
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal

from vrnn.likelihoods import Bernoulli, GaussianMixture, PenMixture
from vrnn.likelihoods.factorised import RHO_MAX

pytestmark = pytest.mark.usefixtures("float64")

RHO = [0.99, -0.9, 0.3]
HEADS = [
    GaussianMixture(1),
    GaussianMixture(4),
    GaussianMixture(2, 3),
    PenMixture(components=1),
    PenMixture(components=20),
    Bernoulli(5),
]


def inverse_positive(sigma):
    return torch.log(torch.expm1(sigma - 1e-4))


def pen_params(pen, mean, std, rho, logits=()):
    """The decoder's outputs for given parameters, in the documented order."""
    parts = [
        torch.tensor([pen]),
        torch.tensor(mean).flatten(),
        inverse_positive(torch.tensor(std)).flatten(),
        torch.atanh(torch.tensor(rho) / RHO_MAX),
        torch.tensor(logits),
    ]
    return torch.cat(parts)


def three_pens(rho):
    """Three components whose means, widths and weights all differ."""
    mean = [[1.0, -2.0], [-1.5, 0.5], [0.0, 1.0]]
    std = [[0.5, 1.5], [1.0, 0.6], [0.8, 0.7]]
    return pen_params(-0.8, mean, std, rho, [0.5, -0.3, 1.1])


def grid(low, high, n, dims):
    """Points (n^dims, dims) and the volume of a cell."""
    axis = torch.linspace(low, high, n)
    return torch.cartesian_prod(*[axis] * dims).reshape(-1, dims), (axis[1] - axis[0]) ** dims


def reference_mixture(logits, mean, covariance):
    return MixtureSameFamily(Categorical(logits=logits), MultivariateNormal(mean, covariance))


def pen_reference(params, k, temperature):
    """The tempered offset mixture, with full covariance matrices, and probability of a lift."""
    pen, mean, a, r, logits = params.split([1, 2 * k, 2 * k, k, k if k > 1 else 0], -1)
    std = (1e-4 + torch.log1p(a.exp())).unflatten(-1, (k, 2))
    rho = RHO_MAX * r.tanh()
    covariance = torch.diag_embed(std**2)
    covariance[..., 0, 1] = covariance[..., 1, 0] = rho * std[..., 0] * std[..., 1]
    weights = logits.softmax(-1) if k > 1 else torch.ones_like(rho)
    lifted = pen[..., 0].sigmoid() ** (1 / temperature)
    down = (1 - pen[..., 0].sigmoid()) ** (1 / temperature)
    return (
        reference_mixture(
            (weights ** (1 / temperature)).log(),
            mean.unflatten(-1, (k, 2)),
            temperature * covariance,
        ),
        lifted / (lifted + down),
    )


@pytest.mark.parametrize("rho", [0.99, -0.99, 0.6, 0.0])
def test_a_bivariate_gaussian_with_its_pen_has_mass_one(rho):
    distribution = PenMixture(components=1)(pen_params(0.7, [[0.3, -0.2]], [[0.9, 0.6]], [rho]))
    assert_pen_mass(distribution, lifted=1 / (1 + math.exp(-0.7)))


def test_a_pen_mixture_has_mass_one():
    assert_pen_mass(
        PenMixture(components=3)(three_pens(RHO)), lifted=1 / (1 + math.exp(0.8)), half_width=12.0
    )


def assert_pen_mass(distribution, lifted, half_width=7.0):
    points, cell = grid(-half_width, half_width, 600, 2)
    for bit, share in ((0.0, 1 - lifted), (1.0, lifted)):
        x = torch.cat([torch.full((len(points), 1), bit), points], 1)
        mass = distribution.log_prob(x).exp().sum() * cell
        assert mass.item() == pytest.approx(share, abs=1e-8)


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dims", [1, 2])
def test_a_gaussian_mixture_has_mass_one(dims, components):
    likelihood = GaussianMixture(dims, components)
    points, cell = grid(-25.0, 25.0, 1000, dims)
    distribution = likelihood(torch.randn(likelihood.size))
    assert (distribution.log_prob(points).exp().sum() * cell).item() == pytest.approx(1, abs=1e-8)


def test_bits_sum_to_one():
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    log_p = Bernoulli(6)(3 * torch.randn(6)).log_prob(every)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
@pytest.mark.parametrize("components", [1, 4])
def test_pen_density_is_that_of_full_covariance_matrices(components, temperature):
    likelihood = PenMixture(components=components)
    params = torch.randn(5, 2, likelihood.size)
    x = torch.cat([(torch.rand(5, 2, 1) < 0.5).double(), 2 * torch.randn(5, 2, 2)], -1)
    offset, lift = pen_reference(params, components, temperature)
    expected = offset.log_prob(x[..., 1:]) + Bits(lift).log_prob(x[..., 0])
    distribution = likelihood(params, temperature)
    assert distribution.batch_shape == (5, 2) and distribution.event_shape == (3,)
    torch.testing.assert_close(distribution.log_prob(x), expected, rtol=1e-10, atol=1e-10)

    mean = torch.cat([lift[..., None], offset.mean], -1)
    torch.testing.assert_close(distribution.mean, mean, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
@pytest.mark.parametrize("components", [1, 3])
def test_gaussian_mixture_density_is_scipys(components, temperature):
    likelihood = GaussianMixture(2, components)
    params, x = torch.randn(likelihood.size), 2 * torch.randn(6, 2)
    mean, a = params[: 4 * components].numpy().reshape(2, components, 2)
    logits = params[4 * components :].numpy() if components > 1 else np.zeros(1)
    weights = np.exp(logits) ** (1 / temperature)
    weights /= weights.sum()
    std = temperature**0.5 * (np.logaddexp(0, a) + 1e-4)
    parts = stats.norm(mean, std).logpdf(x[:, None].numpy()).sum(-1)
    distribution = likelihood(params, temperature)
    expected = special.logsumexp(parts, axis=1, b=weights)
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-10)
    np.testing.assert_allclose(distribution.mean, weights @ mean, rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_bits_are_tempered_one_by_one(temperature):
    logits = torch.randn(4, 3)
    p = logits.sigmoid()
    tempered = p ** (1 / temperature)
    tempered = tempered / (tempered + (1 - p) ** (1 / temperature))
    x = (torch.rand(4, 3) < 0.5).double()
    expected = stats.bernoulli(tempered.numpy()).logpmf(x.numpy()).sum(-1)
    distribution = Bernoulli(3)(logits, temperature)
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-10)
    torch.testing.assert_close(distribution.mean, tempered)


def assert_moments(draws, mean, covariance):
    """Means and covariances of n draws (n, D) within five standard errors."""
    n = len(draws)
    centred = draws - mean
    assert (centred.mean(0).abs() < 5 * draws.std(0) / n**0.5).all()
    products = centred[:, :, None] * centred[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / n**0.5 + 1e-12).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("components", [1, 3])
def test_drawn_pens_have_the_moments_of_the_density(components, temperature):
    likelihood = PenMixture(components=components)
    # A batch of two: the sampler must gather each row's own components.
    both = [three_pens(RHO), three_pens([-r for r in RHO])]
    if components == 1:
        both = [pen_params(1.0, [[1.0, 2.0]], [[0.5, 2.0]], [rho]) for rho in (0.95, -0.95)]
    params = torch.stack(both)
    offset, lift = pen_reference(params, components, temperature)
    draws = likelihood(params, temperature).sample((100_000,))
    assert draws.shape == (100_000, 2, 3)
    weights = offset.mixture_distribution.probs
    means = offset.component_distribution.mean
    second = (
        offset.component_distribution.covariance_matrix + means[..., None] * means[..., None, :]
    )
    for row in range(2):
        mean = weights[row] @ means[row]
        covariance = (weights[row, :, None, None] * second[row]).sum(0) - torch.outer(mean, mean)
        assert_moments(draws[:, row, 1:], mean, covariance)
        assert_moments(
            draws[:, row, :1], lift[row, None], (lift[row] * (1 - lift[row])).reshape(1, 1)
        )
    assert set(draws[..., 0].unique().tolist()) == {0.0, 1.0}
    if components == 1:
        correlations = [torch.corrcoef(draws[:, row, 1:].T)[0, 1].item() for row in range(2)]
        assert correlations == pytest.approx([0.95, -0.95], abs=0.005)


@pytest.mark.parametrize("components", [1, 3])
def test_drawn_frames_have_the_moments_of_the_density(components):
    likelihood = GaussianMixture(2, components)
    params = torch.randn(likelihood.size)
    torch.manual_seed(1)
    draws = likelihood.draw(params.expand(100_000, -1))
    points, cell = grid(-15.0, 15.0, 600, 2)
    p = likelihood(params).log_prob(points).exp() * cell
    mean = p @ points
    covariance = (p * (points - mean).T) @ (points - mean)
    assert_moments(draws, mean, covariance)

    logits = torch.tensor([-2.0, 0.0, 1.0])
    draws = Bernoulli(3).draw(logits.expand(100_000, -1))
    p = logits.sigmoid()
    assert_moments(draws, p, torch.diag(p * (1 - p)))


def test_temperature_0_takes_the_highest_peak():
    pen = PenMixture(components=3)
    params = torch.randn(200, pen.size)
    offset, lift = pen_reference(params, 3, 1.0)
    components = offset.component_distribution
    peaks = components.log_prob(components.mean) + offset.mixture_distribution.logits
    best = components.mean[torch.arange(200), peaks.argmax(-1)]
    expected = torch.cat([(lift > 0.5).double()[:, None], best], -1)
    torch.testing.assert_close(pen.draw(params, 0.0), expected, rtol=0, atol=0)
    # The peak is not simply the heaviest component's.
    assert (peaks.argmax(-1) != offset.mixture_distribution.logits.argmax(-1)).any()

    gaussians = GaussianMixture(3, 4)
    distribution = gaussians(torch.randn(200, gaussians.size))
    components = distribution.component_distribution
    peaks = components.log_prob(components.mean) + distribution.mixture_distribution.logits
    best = components.mean[torch.arange(200), peaks.argmax(-1)]
    torch.testing.assert_close(distribution.mode, best, rtol=0, atol=0)

    one = GaussianMixture(3)
    params = torch.randn(6)
    torch.testing.assert_close(one.draw(params, 0.0), params[:3], rtol=0, atol=0)
    logits = torch.tensor([-3.0, 0.0, 0.1])
    assert Bernoulli(3).draw(logits, 0.0).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_outputs_keep_density_and_gradient_finite(dtype):
    logits = torch.tensor([1e4, 1e4, -1e4, -1e4], dtype=dtype, requires_grad=True)
    log_p = Bernoulli(4)(logits).log_prob(torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=dtype))
    (gradient,) = torch.autograd.grad(log_p, logits)
    assert log_p.item() == -2e4
    assert gradient.tolist() == [0.0, -1.0, 1.0, 0.0]

    for likelihood in (PenMixture(components=2), GaussianMixture(3, 2), GaussianMixture(3)):
        for extreme in (1e4, -1e4):
            params = torch.full((likelihood.size,), extreme, dtype=dtype, requires_grad=True)
            x = torch.tensor([1.0, 3.0, -4.0], dtype=dtype)
            log_p = likelihood(params).log_prob(x)
            (gradient,) = torch.autograd.grad(log_p, params)
            assert log_p.isfinite() and gradient.isfinite().all()


def test_silence_can_reach_a_likelihood_of_one():
    silent = torch.zeros(50, 88)
    assert Bernoulli(88)(torch.full((50, 88), -1e4)).log_prob(silent).sum().item() == 0
    never = Bernoulli(88)
    at_start = never(never.bias(torch.zeros(88))).log_prob(silent[0]).item()
    assert at_start == pytest.approx(88 * math.log1p(-1e-4), rel=1e-6)
    seldom, means = Bernoulli(2), torch.tensor([0.25, 0.5])
    torch.testing.assert_close(seldom(seldom.bias(means)).mean, means)


@pytest.mark.parametrize("likelihood", HEADS, ids=repr)
def test_untrained_heads_start_alike_and_in_float32_or_better(likelihood):
    bias = likelihood.bias()
    assert bias.shape == (likelihood.size,)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        distribution = likelihood(bias.to(dtype).expand(4, 2, -1))
        assert distribution.batch_shape == (4, 2)
        assert distribution.event_shape == (likelihood.x_dim,)
        x = likelihood.draw(bias.to(dtype).expand(4, 2, -1))
        assert x.shape == (4, 2, likelihood.x_dim)
        expected = dtype if dtype != torch.bfloat16 else torch.float32
        assert distribution.log_prob(x).dtype == x.dtype == expected
    distribution = likelihood(bias)
    if isinstance(likelihood, Bernoulli):
        torch.testing.assert_close(distribution.mean, torch.full((5,), 0.5))
        return
    std = distribution.std if hasattr(distribution, "std") else distribution.stddev
    torch.testing.assert_close(std, torch.full_like(std, math.log1p(math.exp(0.6)) + 1e-4))
    if isinstance(distribution, Independent):
        assert distribution.reinterpreted_batch_ndims == 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"PenMixture.*x\.dim=4"):
        PenMixture(4)
    for kind in (PenMixture, GaussianMixture):
        with pytest.raises(ValueError, match="components must be at least 1, not 0"):
            kind(3, 0)
