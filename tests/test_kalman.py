"""The VRNN as a linear-Gaussian state space with feedback of x, against a Kalman filter."""

import numpy as np
import pytest
import torch
from linear_gaussian import all_of, expected_elbo, set_gaussian, set_pairs, signed
from scipy import stats
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from vrnn import VRNN, bounds
from vrnn.likelihoods import GaussianMixture
from vrnn.networks import Recurrence

pytestmark = pytest.mark.usefixtures("float64")


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
        states = [state := self.step(x_t, state) for x_t in x]
        return torch.stack([h[-1] for (h,) in states]), state


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
