"""Likelihoods that are autoregressive inside the frame, against enumeration and quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.func import functional_call

from vrnn import RNN, VRNN, bounds
from vrnn.likelihoods import Bernoulli, autoregressive
from vrnn.likelihoods.autoregressive import AutoregressiveBernoulli, AutoregressiveGaussianMixture

pytestmark = pytest.mark.usefixtures("float64")


def wide_awake(likelihood):
    """Weights large enough for every number to matter."""
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(torch.randn_like(parameter))
    return likelihood


@pytest.fixture
def bits():
    return wide_awake(AutoregressiveBernoulli(6, hidden=5))


@pytest.fixture
def pair():
    return wide_awake(AutoregressiveGaussianMixture(2, components=2, hidden=4, context=3))


HEADS = {
    "bits": lambda: AutoregressiveBernoulli(4, hidden=3),
    "each": lambda: AutoregressiveGaussianMixture(4, components=2, hidden=3, context=2),
    "blocks": lambda: AutoregressiveGaussianMixture(4, components=1, hidden=3, block=2, context=2),
}


@pytest.fixture(params=HEADS)
def head(request):
    return wide_awake(HEADS[request.param]())


def frames(head, *shape):
    x = torch.randn(*shape, head.x_dim)
    return (x > 0).to(x) if "binary" in head.kinds else x


def every(dims):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=dims)))


def plane(half_width, n):
    """Points (n^2, 2) and the area of a cell."""
    axis = torch.linspace(-half_width, half_width, n)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_all_frames_of_bits_sum_to_one(bits, temperature):
    params = 2 * torch.randn(3, bits.size)
    log_p = bits(params, temperature).log_prob(every(6)[:, None])
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_mixture_along_the_frame_has_mass_one(pair, temperature):
    points, cell = plane(16.0, 420)
    log_p = pair(torch.randn(pair.size), temperature).log_prob(points)
    assert (log_p.exp().sum() * cell).item() == pytest.approx(1, abs=1e-7)


def test_bits_follow_the_formula_one_by_one(bits):
    params, x = torch.randn(bits.size).numpy(), every(6).numpy()
    V, W = bits.weight.detach().numpy(), bits.seen.detach().numpy()
    log_p = np.zeros(len(x))
    for d in range(6):
        before = params[6:] + sum((x[:, j, None] * W[j] for j in range(d)), 0.0)
        theta = special.expit(params[d] + special.expit(before) @ V[d])
        log_p += stats.bernoulli(theta).logpmf(x[:, d])
    ours = bits(torch.tensor(params)).log_prob(torch.tensor(x)).detach()
    np.testing.assert_allclose(ours, log_p, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 2])
def test_a_mixture_follows_the_formula_block_by_block(block):
    K, D = 3, 6
    head = wide_awake(AutoregressiveGaussianMixture(D, K, hidden=4, block=block, context=2))
    params, x = torch.randn(5, head.size), torch.randn(5, D)
    g, contexts = params[:, :4].tanh(), params[:, 4:].unflatten(-1, (D // block, 2))
    seen, log_p = torch.zeros(5, block), np.zeros(5)
    for j in range(D // block):
        (state,) = head.rnn.step(torch.cat([seen, contexts[:, j]], -1), (g[None],))
        g, seen = state[0], x[:, j * block : (j + 1) * block]
        out = head.out(torch.cat([g, contexts[:, j]], -1)).unflatten(-1, (block, -1)).detach()
        mean, a, logits = out.numpy().reshape(5, block, 3, K).transpose(2, 0, 1, 3)
        std = np.logaddexp(0, a) + 1e-4
        each = stats.norm(mean, std).logpdf(seen[..., None])
        log_p += special.logsumexp(each + special.log_softmax(logits, -1), axis=-1).sum(-1)
    np.testing.assert_allclose(head(params).log_prob(x).detach(), log_p, rtol=1e-10)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_no_number_sees_itself_or_those_after(block):
    D = 6
    head = wide_awake(AutoregressiveGaussianMixture(D, 2, hidden=4, block=block))
    caught = []
    head.each.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    params = torch.randn(1, head.size)

    def factors(x):
        head(params).log_prob(x)
        return caught.pop()[:, 0].flatten(0, 1).sum(-1)

    jacobian = torch.autograd.functional.jacobian(factors, torch.randn(1, D))[:, 0]
    earlier = torch.arange(D)[:, None] // block > torch.arange(D) // block
    assert (jacobian[~earlier] == 0).all() and (jacobian[earlier].abs() > 1e-8).all()


def test_no_bit_sees_itself_or_those_after(bits):
    """The odds of a bit, from the frames' probabilities, given all those before."""
    params = torch.randn(bits.size)
    p = bits(params).log_prob(every(6)).exp().detach()
    for d in range(6):
        marginal = p.reshape(2**d, 2, -1).sum(-1)
        logits = (marginal[:, 1] / marginal[:, 0]).log()
        before = params[6:] + every(d).reshape(2**d, d) @ bits.seen[:d]
        expected = params[d] + before.sigmoid() @ bits.weight[d]
        torch.testing.assert_close(logits, expected.detach(), rtol=1e-9, atol=1e-9)
    assert logits.std() > 0.1, "the last bit depends on those before"


def chi_square(counts, p):
    """The probability of counts at least as far from p, rare cells put together."""
    order = np.argsort(p)
    group = np.maximum.accumulate((np.cumsum(p[order]) * counts.sum() / 10).astype(int))
    _, group = np.unique(group, return_inverse=True)
    counts, p = np.bincount(group, counts[order]), np.bincount(group, p[order])
    return stats.chisquare(counts, counts.sum() * p / p.sum()).pvalue


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_drawn_bits_are_as_frequent_as_their_probability(temperature):
    head = wide_awake(AutoregressiveBernoulli(4, hidden=5))
    params = torch.randn(2, head.size)
    draws = head(params, temperature).sample((20_000,))
    p = head(params, temperature).log_prob(every(4)[:, None]).exp().detach()
    assert draws.shape == (20_000, 2, 4)
    for row in range(2):
        cell = (draws[:, row] @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
        assert chi_square(torch.bincount(cell, minlength=16).numpy(), p[:, row].numpy()) > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_drawn_frames_are_as_frequent_as_their_density(pair, temperature):
    params = torch.randn(pair.size)
    # 420 points an axis, the middles of cells; 28 cells a bin.
    points, cell = plane(16.0, 420)
    p = (pair(params, temperature).log_prob(points).exp() * cell).detach()
    p = p.reshape(15, 28, 15, 28).sum((1, 3)).flatten().numpy()
    draws = pair.draw(params.expand(50_000, -1), temperature)
    width = 28 * cell.sqrt()
    low = points[0, 0] - cell.sqrt() / 2
    bin_of = ((draws - low) / width).floor().clamp(0, 14).long()
    counts = torch.bincount(bin_of[:, 0] * 15 + bin_of[:, 1], minlength=225).numpy()
    assert chi_square(counts, p) > 1e-3


def test_temperature_0_takes_the_mode_of_each_factor_in_turn(bits):
    params = torch.randn(20, bits.size)
    x = torch.zeros(20, 0)
    for d in range(6):
        logit = params[:, d] + (params[:, 6:] + x @ bits.seen[:d]).sigmoid() @ bits.weight[d]
        x = torch.cat([x, (logit > 0).to(x)[:, None]], -1)
    torch.testing.assert_close(bits.draw(params, 0.0), x.detach(), rtol=0, atol=0)

    head = wide_awake(AutoregressiveGaussianMixture(4, components=1, hidden=4, block=2))
    params = torch.randn(20, head.size)
    x = head.draw(params, 0.0)
    torch.testing.assert_close(x, head(params).mode, rtol=0, atol=0)
    torch.testing.assert_close(x, head(params, 1e-12).sample(), rtol=0, atol=1e-4)


def test_gradients_are_those_of_finite_differences(head):
    names, weights = zip(*head.named_parameters(), strict=True)
    x = frames(head, 3)

    def log_prob(params, *weights):
        return functional_call(
            Wrapped(head),
            dict(zip(map("head.".__add__, names), weights, strict=True)),
            (params, x),
        )

    params = torch.randn(3, head.size, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (params, *weights))


class Wrapped(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, params, x):
        return self.head(params).log_prob(x)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_outputs_keep_density_and_gradient_finite(head, extreme):
    head.float()
    params = torch.full((2, head.size), extreme, dtype=torch.float32, requires_grad=True)
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    x = x.float() if "binary" in head.kinds else 4 * x.float()
    log_p = head(params).log_prob(x)
    gradients = torch.autograd.grad(log_p.sum(), [params, *head.parameters()])
    assert log_p.dtype == torch.float32 and log_p.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert head.draw(params.detach()).isfinite().all()


@pytest.mark.parametrize("kind", [RNN, VRNN])
def test_under_autocast_densities_stay_in_float32(kind, head, make_model):
    model = make_model(kind, head).float()
    x = frames(head, 5, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        likelihood = model.trace(x).likelihood
        inside = likelihood.log_prob(x)
        drawn = likelihood.sample()
        inside.sum().backward()
    assert inside.dtype == drawn.dtype == torch.float32
    torch.testing.assert_close(inside, likelihood.log_prob(x), rtol=0, atol=0)
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_parts_that_fit_in_memory_are_the_whole(head, monkeypatch):
    params, x = torch.randn(7, 2, head.size, requires_grad=True), frames(head, 7, 2)
    inputs = [params, *head.parameters()]
    whole = head(params).log_prob(x)
    gradients = torch.autograd.grad(whole.square().sum(), inputs)
    monkeypatch.setattr(autoregressive, "KEPT", 3 * head.kept)
    parts = head(params).log_prob(x)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(parts.square().sum(), inputs)
    torch.testing.assert_close(ours, gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [RNN, VRNN])
def test_models_generate_what_they_score(kind, head, make_model):
    """Frames generated at little temperature are likelier than others."""
    model = make_model(kind, head)
    cold = model.generate(6, 20, temperature_x=0.05, temperature_z=0.05, seed=1)
    hot = model.generate(6, 20, temperature_x=5.0, temperature_z=0.05, seed=1)
    assert cold.shape == (6, 20, 4) and cold.isfinite().all()
    noise = torch.zeros(6, 20, model.z_dim)

    def score(x):
        return bounds.elbo(model.trace(x, noise=noise), x, torch.ones(6, 20) > 0).mean()

    assert score(cold) > score(hot)


def test_without_weights_the_bits_are_independent():
    frequencies = torch.tensor([0.1, 0.5, 0.25])
    head = AutoregressiveBernoulli(3, 4)
    with torch.no_grad():
        head.weight.zero_()
    alone = Bernoulli(3)
    ours, theirs = head(head.bias(frequencies)), alone(alone.bias(frequencies))
    torch.testing.assert_close(ours.log_prob(every(3)), theirs.log_prob(every(3)))
    torch.testing.assert_close(theirs.mean, frequencies)


def test_an_untrained_mixture_starts_wide_and_centred():
    head = AutoregressiveGaussianMixture(50, components=1)
    with torch.no_grad():
        head.out.weight.zero_()
    log_p = head(head.bias()).log_prob(torch.zeros(50)).item()
    sigma = math.log1p(math.exp(0.6)) + 1e-4
    assert log_p == pytest.approx(-50 * math.log(sigma * math.sqrt(2 * math.pi)))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="block=3 does not divide x_dim=4"):
        AutoregressiveGaussianMixture(4, block=3)
    for name in ("hidden", "block", "context", "components"):
        with pytest.raises(ValueError, match=rf"likelihood\.{name} must be at least 1, not 0"):
            AutoregressiveGaussianMixture(4, **{name: 0})
    with pytest.raises(ValueError, match=r"likelihood\.hidden must be at least 1, not -2"):
        AutoregressiveBernoulli(4, hidden=-2)
