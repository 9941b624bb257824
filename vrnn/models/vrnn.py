"""The variational recurrent neural network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.cell import Unrolled, VRNNCell
from vrnn.engine.fast_frames import Networks, fast_frames
from vrnn.engine.unroll import ENGINES
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import RECURRENCES, Recurrence
from vrnn.layers.state import State, copies, particles
from vrnn.likelihoods import Likelihood
from vrnn.models.latent import LatentModel, summarise_future
from vrnn.normaliser import Normaliser
from vrnn.trace import Frame, Trace, gaussian

__all__ = ["VRNN"]


class VRNN(LatentModel):
    """The variational recurrent neural network; `VRNNCell` has the equations.

    Args:
        x_dim: D, numbers in a frame.
        z_dim: Z, latent dimensions.
        hidden: units of each recurrent layer.
        likelihood: output distribution over a frame.
        posterior: "filtering", q(z_t | x_{<=t}, z_{<t}), as published, or "smoothing", q(z_t |
            x_{<=T}, z_{<t}), which factorises as the exact posterior does.
        residual: the encoder's mean is added to that of the prior.
        prior: "learned", from h_{t-1}, or "standard", N(0, I) at every step (VRNN-I).
        rnn: "lstm" or "gru".
        rnn_layers: number of recurrent layers.
        forecast: have z_t and h_{t-1} predict b_t, for the auxiliary cost of Z-Forcing
            (`vrnn.objectives.ELBO`); with the smoothing posterior only.
        mlp_layers: hidden layers of every feed-forward network.
        phi_x_dim, phi_z_dim, encoder_dim, prior_dim, decoder_dim: their widths.
        engine: which implementation of the loop over time (`vrnn.engine.unroll`): "fast", which
            chooses; "native" (compiled), "graph" or "persistent" (both on a GPU), or an error; or
            "plain".
        dropout: share of the features of x, of what the decoder reads and of its last layer's
            units that training leaves out.
        checkpoint_steps: train on segments of so many steps, one after the other, to save memory
            (`vrnn.segments`); about sqrt(T) saves the most.
        normaliser: standardises raw frames; None leaves them as they are.

    Raises:
        ValueError: if a size is below 1, a name is none of those above, `forecast` is asked of the
            filtering posterior, or the likelihood describes frames of another size.
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
        mlp_layers: int = 1,
        phi_x_dim: int = 64,
        phi_z_dim: int = 64,
        encoder_dim: int = 64,
        prior_dim: int = 64,
        decoder_dim: int = 64,
        forecast: bool = False,
        engine: str = "fast",
        dropout: float = 0.0,
        checkpoint_steps: int | None = None,
        normaliser: Normaliser | None = None,
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
            mlp_layers=mlp_layers,
            phi_x_dim=phi_x_dim,
            phi_z_dim=phi_z_dim,
            encoder_dim=encoder_dim,
            prior_dim=prior_dim,
            decoder_dim=decoder_dim,
        )
        super().__init__(
            x_dim,
            likelihood,
            normaliser,
            phi_x=MLP(x_dim, phi_x_dim, mlp_layers),
            decoder=MLP((phi_z_dim, hidden), decoder_dim, mlp_layers),
            decoder_dim=decoder_dim,
            checkpoint_steps=checkpoint_steps,
            dropout=dropout,
        )

        self.z_dim, self.hidden = z_dim, hidden
        self.engine = engine
        self.filters = posterior == "filtering"
        recurrence = RECURRENCES[rnn]
        # b_t, what the smoothing posterior sees of the present and the future.
        self.backward_rnn = recurrence(phi_x_dim, hidden) if posterior == "smoothing" else None
        u_dim = phi_x_dim if posterior == "filtering" else hidden
        self.cell: VRNNCell = VRNNCell(
            prior=(
                GaussianNet(hidden, prior_dim, mlp_layers, z_dim)
                if prior == "learned"
                else StandardNormal(z_dim)
            ),
            encoder=GaussianNet((u_dim, hidden), encoder_dim, mlp_layers, z_dim),
            phi_z=MLP(z_dim, phi_z_dim, mlp_layers),
            rnn=recurrence((phi_x_dim, phi_z_dim), hidden, rnn_layers),
            residual=residual,
        )
        self.forecaster = (
            GaussianNet((phi_z_dim, hidden), decoder_dim, mlp_layers, hidden) if forecast else None
        )

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
        own = type(self) is VRNN and type(self.cell) is VRNNCell and self.engine != "plain"
        networks = Networks(self, self.rnn, self.cell.prior, self.cell.phi_z)
        if not own or not networks.serve(state):
            return super().frames(state, noise, temperature)
        return fast_frames(networks, state, noise, temperature)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        return self.params(torch.cat([phi_z, h], dim=-1))
