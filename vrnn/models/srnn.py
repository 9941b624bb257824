"""SRNN: a state space of latent variables on top of a deterministic recurrent network."""

from typing import Unpack

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.cell import Cell, Unrolled
from vrnn.layers.feedforward import MLP, GaussianNet
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.recurrent import Recurrence
from vrnn.layers.state import Gaussian, State, copies, particles, top
from vrnn.likelihoods import Likelihood
from vrnn.models.base import Common
from vrnn.models.latent import LatentModel, summarise_future

__all__ = ["SRNN", "SRNNCell"]


class SRNNCell(Cell):
    """One step of `SRNN`: h_{t-1} = [d_t, z_{t-1}], u_t = [a_t, d_t].

    Its state is that of f, with z_{t-1} behind every layer of the first tensor.
    """

    def __init__(
        self, prior: GaussianNet, encoder: GaussianNet, rnn: Recurrence, z_dim: int, residual: bool
    ) -> None:
        super().__init__()

        self.prior = prior
        self.encoder = encoder
        self.rnn = rnn
        self.hidden, self.width = rnn.hidden, rnn.hidden + z_dim
        self.residual = residual

    def initial(self, batch: int) -> State:
        d = self.rnn.initial(batch)
        return self.with_latents(d, d[0].new_zeros(batch, self.width - self.hidden))

    def recurrent(self, state: State) -> State:
        """The state of f alone."""
        return state[0][..., : self.hidden], *state[1:]

    def with_latents(self, d: State, z: Tensor) -> State:
        """The state of f, and z (*, Z)."""
        return torch.cat([d[0], z.expand(len(d[0]), *z.shape)], dim=-1), *d[1:]

    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        a, z = u[..., : -self.hidden], h[..., self.hidden :]
        mean, std = self.encoder(torch.cat([a, z], dim=-1))
        if self.residual:
            mean = mean + self.prior(h)[0]
        return mean, std

    def features(self, z: Tensor, h: Tensor) -> Tensor:
        return z

    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        return self.with_latents(self.rnn.step(phi_x, self.recurrent(state)), phi_z)


class SRNN(LatentModel):
    r"""The stochastic recurrent neural network.

    .. code-block:: text

        x_{t-1} -> d_t -> d_{t+1}      generation: d_t reads x only; z_t and x_t read d_t
                   | \
        z_{t-1} -> z_t |               inference: a_t reads d_t..d_T and x_t..x_T backwards,
                   | /                            z_t reads z_{t-1} and a_t
                   x_t

    .. math::
        d_t &= f(\phi_x(x_{t-1}), d_{t-1}) \\
        p(z_t | z_{t-1}, d_t) &= N(\mu_{0,t}, \sigma_{0,t}^2), & (\mu_{0,t}, \sigma_{0,t}) &=
        prior(d_t, z_{t-1}) \\
        p(x_t | z_t, d_t): & & & decoder(z_t, d_t) \\
        q(z_t | z_{t-1}, a_t) &= N(\mu_{0,t} + \mu_t, \sigma_t^2), & (\mu_t, \sigma_t) &=
        encoder(a_t, z_{t-1}) \\
        a_t &= g(\phi_x(x_t), d_t, a_{t+1})

    As published: the graph, gated recurrent units, and the feature map of x shared by f and g.
    Ours: sigma = softplus + 1e-4 and one hidden layer for mean and sigma, as in the VRNN; d_1 = 0,
    so that the first frame is scored too.

    Args:
        z_dim: Z, latent dimensions.
        hidden: units of d_t, and of a_t.
        posterior: "smoothing", as above, or "filtering", where a_t = MLP(phi_x(x_t), d_t).
        residual: the encoder's mean is added to that of the prior (Res_q).
        rnn: which recurrence f and g are (`vrnn.layers.recurrences`); published are GRUs.
        encoder_dim, prior_dim: widths of the feed-forward networks.
        latents: "inferred"; "noise" or "fixed" for a twin (`LatentModel.use_latents`).
        x_dim, likelihood: as of `vrnn.models.base.SequenceModel`.
        **common: the arguments of that class from `mlp_layers` on.

    References:
        Sequential Neural Models with Stochastic Layers (Fraccaro et al., 2016),
        https://arxiv.org/abs/1605.07571
    """

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden: int,
        likelihood: Likelihood,
        posterior: str = "smoothing",
        residual: bool = True,
        rnn: str = "gru",
        encoder_dim: int = 64,
        prior_dim: int = 64,
        latents: str = "inferred",
        **common: Unpack[Common],
    ) -> None:
        choose("model.posterior", posterior, ("filtering", "smoothing"))
        choose("model.rnn", rnn, RECURRENCES)
        check_counts(
            "model.", z_dim=z_dim, hidden=hidden, encoder_dim=encoder_dim, prior_dim=prior_dim
        )
        super().__init__(x_dim, likelihood, (z_dim, hidden), **common)

        self.z_dim, self.hidden = z_dim, hidden
        self.filters = posterior == "filtering"
        recurrence, layers, phi_x_dim = RECURRENCES[rnn], self.mlp_layers, self.phi_x_dim
        self.summary: Recurrence | MLP = (
            recurrence((phi_x_dim, hidden), hidden)
            if posterior == "smoothing"
            else MLP((phi_x_dim, hidden), hidden, layers)
        )
        self.cell: SRNNCell = SRNNCell(
            prior=GaussianNet((hidden, z_dim), prior_dim, layers, z_dim),
            encoder=GaussianNet((hidden, z_dim), encoder_dim, layers, z_dim),
            rnn=recurrence(phi_x_dim, hidden),
            z_dim=z_dim,
            residual=residual,
        )
        self.use_latents(latents)

    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        phi_x = self.features(x)
        state = self.initial(x.shape[1]) if state is None else state
        # d is a function of x, the same for all particles.
        one = self.cell.recurrent(tuple(part[:, : x.shape[1]] for part in state))
        d, _ = self.cell.rnn.sequence(phi_x, one)
        d = torch.cat([top(one)[None], d[:-1]])
        seen = torch.cat([phi_x, d], dim=-1)
        if isinstance(self.summary, Recurrence):
            a = summarise_future(self.summary, seen, mask)
        else:
            a = self.summary(seen)
        return phi_x, torch.cat([a, d], dim=-1)

    def unroll(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
        """Only z is a chain here: d has been computed for all t at once."""
        if self.cell.rnn.layout != [(1, self.hidden)]:
            # There is more to its state than d, so that the last one is not known from d alone.
            return super().unroll(phi_x, u, state, noise)
        K = particles(u, noise)
        phi_x, u = copies(phi_x, K), copies(u, K)
        cell, d = self.cell, u[..., -self.hidden :]
        z = top(state)[..., self.hidden :]
        h, rows = [], []
        for u_t, d_t, noise_t in zip(u, d, noise, strict=True):
            h.append(torch.cat([d_t, z], dim=-1))
            mean, std = cell.infer(u_t, h[-1])
            z = mean + std * noise_t
            rows.append((z, mean, std))
        zs, means, stds = (torch.stack(parts) for parts in zip(*rows, strict=True))
        last = cell.advance(phi_x[-1], z, (h[-1][None],))
        return Unrolled(zs, means, stds, zs, torch.stack(h), last)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        d = h[..., : self.hidden]
        return self.params(torch.cat([phi_z, d], dim=-1))
