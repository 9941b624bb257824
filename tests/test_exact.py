"""Linear-Gaussian special cases of the VRNN, whose likelihood is known exactly.

The first has independent frames, x_t ~ N(b, W W' + S). The second is a state space model with
feedback of the frames, whose likelihood a Kalman filter gives. Weights are set by hand; pairs of
ReLUs carry linear maps, relu(a) - relu(-a) = a.

Expectations over the noise are exact too: all terms of the ELBO are quadratic in it here, and the
2n points +-sqrt(n) e_i, e_i a unit vector, have the moments of n standard normal numbers.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from vrnn import VRNN, bounds
from vrnn.evaluation import score
from vrnn.likelihoods import GaussianMixture
from vrnn.networks import Recurrence

pytestmark = pytest.mark.usefixtures("float64")


def signed(n):
    """Reads n numbers from their ReLU pairs."""
    return torch.cat([torch.eye(n), -torch.eye(n)], 1)


def pre_sigma(sigma):
    return torch.log(torch.expm1(sigma - 1e-4))


@torch.no_grad()
def set_pairs(layer, *weights, bias=None):
    """Sets a layer to the ReLU pairs of a linear map of its inputs' parts."""
    weight = torch.cat(weights, 1)
    layer.weight.copy_(torch.cat([weight, -weight]))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    layer.bias.copy_(torch.cat([bias, -bias]))


@torch.no_grad()
def set_gaussian(layer, mean_bias, sigma):
    """Sets an output layer to the mean its ReLU pairs hold and a constant sigma."""
    layer.weight.zero_()
    layer.weight[: len(sigma)] = signed(len(sigma))
    layer.bias.copy_(torch.cat([mean_bias, pre_sigma(sigma)]))


def cubature(steps, z_dim):
    """Noise (T, 2TZ, Z) whose mean over columns is exact for quadratic functions."""
    n = steps * z_dim
    points = n**0.5 * torch.cat([torch.eye(n), -torch.eye(n)])
    return points.reshape(2 * n, steps, z_dim).transpose(0, 1).contiguous()


def all_of(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def expected_elbo(model, x):
    """E_q of the ELBO of one sequence (T, 1, D), exactly."""
    noise = cubature(len(x), model.z_dim)
    x = x.expand(-1, noise.shape[1], -1)
    return bounds.elbo(model.trace(x, noise=noise), x, all_of(x)).mean()


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
    assert (ratio.std(0) / 20_000**0.5 < 0.02).all(), "or nothing would be tested"

    figures = score(model, x, mask, torch.arange(3), particles=4000)
    error = ratio.std(0) / 4000**0.5
    assert ((figures["iwae"] - log_p).abs() < 5 * error).all()
    assert (figures["elbo"] < log_p - 5 * error).all()


class StateSpace:
    """A linear-Gaussian model with all the VRNN's arrows, h_0 = 0:

    z_t = A h_{t-1} + q e,  x_t = C z_t + F h_{t-1} + b + r e',  h_t = U h_{t-1} + V x_t + B z_t.
    """

    def __init__(self, x_dim, z_dim, h_dim):
        rng = np.random.default_rng(0)
        self.D, self.Z, self.H = x_dim, z_dim, h_dim
        self.A, self.C = rng.normal(size=(z_dim, h_dim)), rng.normal(size=(x_dim, z_dim))
        self.F, self.U = rng.normal(size=(x_dim, h_dim)), rng.normal(size=(h_dim, h_dim))
        self.V, self.B = rng.normal(size=(h_dim, x_dim)), rng.normal(size=(h_dim, z_dim))
        self.U, self.V = 0.4 * self.U, 0.3 * self.V
        self.b, self.q, self.r = (
            rng.normal(size=x_dim),
            rng.uniform(0.5, 1.5, z_dim),
            rng.uniform(0.3, 0.9, x_dim),
        )

    def simulate(self, noise, T, h=None):
        """Runs T steps. Shapes: noise (T * (Z + D),) -> z (T, Z), x (T, D)."""
        noise = noise.reshape(T, self.Z + self.D)
        h, z, x = np.zeros(self.H) if h is None else h, [], []
        for e in noise:
            z.append(self.A @ h + self.q * e[: self.Z])
            x.append(self.C @ z[-1] + self.F @ h + self.b + self.r * e[self.Z :])
            h = self.U @ h + self.V @ x[-1] + self.B @ z[-1]
        return np.array(z), np.array(x)

    def joint(self, T, h=None):
        """Mean and covariance of (z_1..z_T, x_1..x_T) given h_0."""

        def run(e):
            return np.concatenate([part.ravel() for part in self.simulate(e, T, h)])

        n = T * (self.Z + self.D)
        mean = run(np.zeros(n))
        columns = np.stack([run(e) - mean for e in np.eye(n)], 1)
        return mean, columns @ columns.T

    def posterior(self, x, h=None):
        """Mean and covariance of (z_1..z_T) given x (T, D) and h_0."""
        T, n = len(x), len(x) * self.Z
        mean, covariance = self.joint(T, h)
        gain = np.linalg.solve(covariance[n:, n:], covariance[n:, :n]).T
        conditional = covariance[:n, :n] - gain @ covariance[n:, :n]
        return mean[:n] + gain @ (x.ravel() - mean[n:]), conditional

    def kalman(self, x):
        """log p(x) by a Kalman filter over the state (z_t, h_{t-1}), x (T, D)."""
        Z, H = self.Z, self.H
        transition = np.block([[self.A @ self.B, self.A @ self.U], [self.B, self.U]])
        control = np.concatenate([self.A @ self.V, self.V])
        drift = np.diag(np.concatenate([self.q**2, np.zeros(H)]))
        emission = np.concatenate([self.C, self.F], 1)
        mean, covariance, log_p = np.zeros(Z + H), drift, 0.0
        for frame in x:
            innovation = frame - emission @ mean - self.b
            spread = emission @ covariance @ emission.T + np.diag(self.r**2)
            log_p -= 0.5 * innovation @ np.linalg.solve(spread, innovation)
            log_p -= 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1]
            gain = np.linalg.solve(spread, emission @ covariance).T
            mean = mean + gain @ innovation
            covariance = covariance - gain @ spread @ gain.T
            mean = transition @ mean + control @ frame
            covariance = transition @ covariance @ transition.T + drift
        return log_p

    def vrnn(self, posterior):
        """The same model as a VRNN; its posterior is still to be set."""
        D, Z, H = self.D, self.Z, self.H
        names = "A C F U V B b q r".split()
        A, C, F, U, V, B, b, q, r = (torch.from_numpy(getattr(self, name)) for name in names)
        model = VRNN(
            D,
            Z,
            H,
            GaussianMixture(D),
            posterior=posterior,
            phi_x_dim=2 * D,
            phi_z_dim=2 * Z,
            encoder_dim=2 * Z,
            prior_dim=2 * Z,
            decoder_dim=2 * D,
            engine="plain",
        )
        set_pairs(model.phi_x[0], torch.eye(D))
        set_pairs(model.cell.phi_z[0], torch.eye(Z))
        set_pairs(model.cell.prior.hidden[0], A)
        set_gaussian(model.cell.prior.out, torch.zeros(Z), q)
        set_pairs(model.decoder[0], C @ signed(Z), F)
        set_gaussian(model.out, b, r)
        model.cell.rnn = Linear(2 * D + 2 * Z, H)
        with torch.no_grad():
            model.cell.rnn.input_weights[0].copy_(torch.cat([V @ signed(D), B @ signed(Z)], 1))
            model.cell.rnn.hidden_weights[0].copy_(U)
        return model


class Linear(Recurrence):
    """h_t = W x_t + U h_{t-1} + b."""

    gates = tensors = 1

    @staticmethod
    def update(wx, uh, state):
        return (wx + uh,)

    def sequence(self, x, state):
        raise NotImplementedError


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


def draw(exact, T, seed=1):
    noise = np.random.default_rng(seed).normal(size=T * (exact.Z + exact.D))
    return torch.from_numpy(exact.simulate(noise, T)[1])[:, None]


def filtering(exact, mean, slope, offset, sigma):
    """The VRNN with q(z_t | x_t, h_{t-1}) = N(mean x_t + slope h_{t-1} + offset, diag sigma^2)."""
    model = exact.vrnn("filtering")
    mean, slope, offset, sigma = map(torch.from_numpy, (mean, slope, offset, sigma))
    set_pairs(model.cell.encoder.hidden[0], mean @ signed(exact.D), slope, bias=offset)
    set_gaussian(model.cell.encoder.out, torch.zeros(exact.Z), sigma)
    return model


def best_step_by_step(exact):
    """p(z_t | x_t, h_{t-1}), the best a filtering posterior can know of one step."""
    weighted = exact.C.T / exact.r**2
    covariance = np.linalg.inv(np.diag(exact.q**-2) + weighted @ exact.C)
    slope = covariance @ (np.diag(exact.q**-2) @ exact.A - weighted @ exact.F)
    return covariance @ weighted, slope, -covariance @ weighted @ exact.b, covariance


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
