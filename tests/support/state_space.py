"""A linear-Gaussian state space with all the VRNN's arrows, its Kalman filter, and as a VRNN."""

import numpy as np
import torch
from support.linear_gaussian import set_gaussian, set_pairs, signed

from vrnn import VRNN
from vrnn.layers.recurrent import Gated
from vrnn.likelihoods import GaussianMixture


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


class Linear(Gated):
    """h_t = W x_t + U h_{t-1} + b."""

    gates = tensors = 1

    @staticmethod
    def update(wx, uh, state):
        return (wx + uh,)


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
