"""SRNN: a state space of latent variables on top of a deterministic recurrent network."""

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.cell import Cell, Unrolled
from vrnn.layers.feedforward import MLP, GaussianNet
from vrnn.layers.recurrent import GRU
from vrnn.layers.state import Gaussian, State, copies, particles, top
from vrnn.likelihoods import Likelihood
from vrnn.models.latent import LatentModel, summarise_future
from vrnn.normaliser import Normaliser

__all__ = ["SRNN", "SRNNCell"]


class SRNNCell(Cell):
    """One step of `SRNN`: h_{t-1} = [d_t, z_{t-1}], u_t = [a_t, d_t]."""

    def __init__(
        self, prior: GaussianNet, encoder: GaussianNet, rnn: GRU, z_dim: int, residual: bool
    ) -> None:
        super().__init__()

        self.prior = prior
        self.encoder = encoder
        self.rnn = rnn
        self.hidden, self.width = rnn.hidden, rnn.hidden + z_dim
        self.residual = residual

    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        a, z = u[..., : -self.hidden], h[..., self.hidden :]
        mean, std = self.encoder(torch.cat([a, z], dim=-1))
        if self.residual:
            mean = mean + self.prior(h)[0]
        return mean, std

    def features(self, z: Tensor, h: Tensor) -> Tensor:
        return z

    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        (d,) = self.rnn.step(phi_x, (state[0][..., : self.hidden],))
        return (torch.cat([d, phi_z[None]], dim=-1),)


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
        x_dim: D, numbers in a frame.
        z_dim: Z, latent dimensions.
        hidden: units of d_t, and of a_t.
        likelihood: output distribution over a frame.
        posterior: "smoothing", as above, or "filtering", where a_t = MLP(phi_x(x_t), d_t).
        residual: the encoder's mean is added to that of the prior (Res_q).
        mlp_layers: hidden layers of every feed-forward network.
        phi_x_dim, encoder_dim, prior_dim, decoder_dim: their widths.
        dropout: as of `VRNN`.
        checkpoint_steps: train on segments of so many steps (`vrnn.segments`).
        normaliser: standardises raw frames; None leaves them as they are.

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
        mlp_layers: int = 1,
        phi_x_dim: int = 64,
        encoder_dim: int = 64,
        prior_dim: int = 64,
        decoder_dim: int = 64,
        dropout: float = 0.0,
        checkpoint_steps: int | None = None,
        normaliser: Normaliser | None = None,
    ) -> None:
        choose("model.posterior", posterior, ("filtering", "smoothing"))
        check_counts(
            "model.",
            z_dim=z_dim,
            hidden=hidden,
            mlp_layers=mlp_layers,
            phi_x_dim=phi_x_dim,
            encoder_dim=encoder_dim,
            prior_dim=prior_dim,
            decoder_dim=decoder_dim,
        )
        super().__init__(
            x_dim,
            likelihood,
            normaliser,
            phi_x=MLP(x_dim, phi_x_dim, mlp_layers),
            decoder=MLP((z_dim, hidden), decoder_dim, mlp_layers),
            decoder_dim=decoder_dim,
            checkpoint_steps=checkpoint_steps,
            dropout=dropout,
        )

        self.z_dim, self.hidden = z_dim, hidden
        self.filters = posterior == "filtering"
        self.summary: GRU | MLP = (
            GRU((phi_x_dim, hidden), hidden)
            if posterior == "smoothing"
            else MLP((phi_x_dim, hidden), hidden, mlp_layers)
        )
        self.cell: SRNNCell = SRNNCell(
            prior=GaussianNet((hidden, z_dim), prior_dim, mlp_layers, z_dim),
            encoder=GaussianNet((hidden, z_dim), encoder_dim, mlp_layers, z_dim),
            rnn=GRU(phi_x_dim, hidden),
            z_dim=z_dim,
            residual=residual,
        )

    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        phi_x = self.features(x)
        state = self.initial(x.shape[1]) if state is None else state
        # d is a function of x, the same for all particles.
        d_1 = state[0][:, : x.shape[1], : self.hidden]
        d, _ = self.cell.rnn.sequence(phi_x, (d_1,))
        d = torch.cat([d_1, d[:-1]])
        seen = torch.cat([phi_x, d], dim=-1)
        if isinstance(self.summary, GRU):
            a = summarise_future(self.summary, seen, mask)
        else:
            a = self.summary(seen)
        return phi_x, torch.cat([a, d], dim=-1)

    def unroll(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
        """Only z is a chain here: d has been computed for all t at once."""
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
