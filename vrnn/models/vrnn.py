"""The variational recurrent neural network."""

from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.cell import Unrolled, VRNNCell
from vrnn.engine.fast_frames import Networks, fast_frames
from vrnn.engine.unroll import ENGINES
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.recurrent import Recurrence
from vrnn.layers.state import State, copies, particles
from vrnn.likelihoods import Likelihood
from vrnn.models.base import Common
from vrnn.models.latent import LatentModel, summarise_future
from vrnn.trace import Frame, Trace, gaussian

__all__ = ["VRNN"]


class VRNN(LatentModel):
    """The variational recurrent neural network; `VRNNCell` has the equations.

    Args:
        z_dim: Z, latent dimensions.
        hidden: units of each recurrent layer.
        posterior: "filtering", q(z_t | x_{<=t}, z_{<t}), as published, or "smoothing", q(z_t |
            x_{<=T}, z_{<t}), which factorises as the exact posterior does.
        residual: the encoder's mean is added to that of the prior.
        prior: "learned", from h_{t-1}, or "standard", N(0, I) at every step (VRNN-I).
        rnn: which recurrence f is, and the one that runs backwards (`vrnn.layers.recurrences`).
        rnn_layers: number of recurrent layers.
        forecast: have z_t and h_{t-1} predict b_t, for the auxiliary cost of Z-Forcing
            (`vrnn.objectives.ELBO`); with the smoothing posterior only.
        phi_z_dim, encoder_dim, prior_dim: widths of the feed-forward networks.
        engine: which implementation of the loop over time (`vrnn.engine.unroll`): "fast", which
            chooses; "native" (compiled), "graph" or "persistent" (both on a GPU), or an error; or
            "plain".
        latents: "inferred"; "noise" or "fixed" for a twin (`LatentModel.use_latents`).
        x_dim, likelihood: as of `vrnn.models.base.SequenceModel`.
        **common: the arguments of that class from `mlp_layers` on.

    Raises:
        ValueError: as of `SequenceModel`, or if a name is none of those above or `forecast` is
            asked of the filtering posterior.
    """

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden: int,
        likelihood: Likelihood,
        posterior: str = "filtering",
        residual: bool = False,
        prior: str = "learned",
        rnn: str = "lstm",
        rnn_layers: int = 1,
        phi_z_dim: int = 64,
        encoder_dim: int = 64,
        prior_dim: int = 64,
        forecast: bool = False,
        engine: str = "fast",
        latents: str = "inferred",
        **common: Unpack[Common],
    ) -> None:
        choose("model.posterior", posterior, ("filtering", "smoothing"))
        choose("model.prior", prior, ("learned", "standard"))
        choose("model.rnn", rnn, RECURRENCES)
        choose("model.engine", engine, ENGINES)
        if forecast and posterior != "smoothing":
            raise ValueError(
                f"model.forecast=true needs model.posterior=smoothing, not {posterior}"
            )
        check_counts(
            "model.",
            z_dim=z_dim,
            hidden=hidden,
            rnn_layers=rnn_layers,
            phi_z_dim=phi_z_dim,
            encoder_dim=encoder_dim,
            prior_dim=prior_dim,
        )
        super().__init__(x_dim, likelihood, (phi_z_dim, hidden), **common)

        self.z_dim, self.hidden = z_dim, hidden
        self.engine = engine
        self.filters = posterior == "filtering"
        recurrence, layers, phi_x_dim = RECURRENCES[rnn], self.mlp_layers, self.phi_x_dim
        # b_t, what the smoothing posterior sees of the present and the future.
        self.backward_rnn = recurrence(phi_x_dim, hidden) if posterior == "smoothing" else None
        u_dim = phi_x_dim if posterior == "filtering" else hidden
        self.cell: VRNNCell = VRNNCell(
            prior=(
                GaussianNet(hidden, prior_dim, layers, z_dim)
                if prior == "learned"
                else StandardNormal(z_dim)
            ),
            encoder=GaussianNet((u_dim, hidden), encoder_dim, layers, z_dim),
            phi_z=MLP(z_dim, phi_z_dim, layers),
            rnn=recurrence((phi_x_dim, phi_z_dim), hidden, rnn_layers),
            residual=residual,
        )
        self.forecaster = (
            GaussianNet((phi_z_dim, hidden), self.decoder_dim, layers, hidden)
            if forecast
            else None
        )
        self.use_latents(latents)

    @property
    def rnn(self) -> Recurrence:
        return self.cell.rnn

    def unroll(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
        return ENGINES[self.engine](self.cell, phi_x, u, state, noise)

    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        phi_x = self.features(x)
        if self.backward_rnn is None:
            return phi_x, phi_x
        return phi_x, summarise_future(self.backward_rnn, phi_x, mask)

    def densities(self, steps: Unrolled, u: Tensor) -> Trace:
        trace = super().densities(steps, u)
        if self.forecaster is None:
            return trace
        b = gaussian(*self.forecaster(torch.cat([steps.phi_z, steps.h], dim=-1)))
        return trace._replace(forecast=b, future=copies(u.detach(), particles(u, steps.z)))

    def frames(
        self, state: State, noise: Iterator[Tensor], temperature: float = 1.0
    ) -> Iterator[Frame]:
        own = type(self) is VRNN and type(self.cell) is VRNNCell and self.fixed is None
        networks = Networks(self, self.rnn, self.cell.prior, self.cell.phi_z)
        if not own or self.engine == "plain" or not networks.serve(state):
            return super().frames(state, noise, temperature)
        return fast_frames(networks, state, noise, temperature)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        return self.params(torch.cat([phi_z, h], dim=-1))
