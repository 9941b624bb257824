"""The VRNN, and its counterpart without latent variables."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vrnn.cell import VRNNCell
from vrnn.distributions import gaussian
from vrnn.likelihoods import Likelihood
from vrnn.networks import (
    GRU,
    LSTM,
    MLP,
    GaussianNet,
    Recurrence,
    StandardNormal,
    State,
    top,
)
from vrnn.normaliser import Normaliser
from vrnn.sequence_model import SequenceModel, Trace, check_sizes, choose
from vrnn.unroll import ENGINES, Unrolled

__all__ = ["RNN", "VRNN"]

RECURRENCES: dict[str, type[Recurrence]] = {"lstm": LSTM, "gru": GRU}


class VRNN(SequenceModel):
    """The variational recurrent neural network; `VRNNCell` has the equations.

    Args:
        x_dim: D, numbers in a frame.
        z_dim: Z, latent dimensions.
        hidden: units of each recurrent layer.
        likelihood: output distribution over a frame.
        posterior: "filtering", q(z_t | x_{<=t}, z_{<t}), as published, or "smoothing", q(z_t |
            x_{<=T}, z_{<t}), which has the form of the exact posterior.
        residual: the encoder's mean is added to that of the prior.
        prior: "learned", from h_{t-1}, or "standard", N(0, I) at every step (VRNN-I).
        rnn: "lstm" or "gru".
        rnn_layers: number of recurrent layers.
        forecast: have z_t and h_{t-1} predict b_t, for the auxiliary cost of Z-Forcing
            (`vrnn.objectives.ELBO`); with the smoothing posterior only.
        mlp_layers: hidden layers of every feed-forward network.
        phi_x_dim, phi_z_dim, encoder_dim, prior_dim, decoder_dim: their widths.
        engine: which implementation of the loop over time, "fast" or "plain" (`vrnn.unroll`).
        centre, normaliser, means: of `SequenceModel`.
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
        centre: bool = False,
        normaliser: Normaliser | None = None,
        means: Sequence[float] | None = None,
    ) -> None:
        choose("model.posterior", posterior, ("filtering", "smoothing"))
        choose("model.prior", prior, ("learned", "standard"))
        choose("model.rnn", rnn, RECURRENCES)
        choose("model.engine", engine, ENGINES)
        if forecast and posterior != "smoothing":
            raise ValueError(
                f"model.forecast=true needs model.posterior=smoothing, not {posterior}"
            )
        check_sizes(z_dim=z_dim, hidden=hidden, rnn_layers=rnn_layers, mlp_layers=mlp_layers)
        super().__init__(
            x_dim,
            likelihood,
            normaliser,
            means,
            centre,
            phi_x=MLP(x_dim, phi_x_dim, mlp_layers),
            decoder=MLP(phi_z_dim + hidden, decoder_dim, mlp_layers),
            decoder_dim=decoder_dim,
        )

        self.z_dim, self.hidden = z_dim, hidden
        self.posterior, self.engine = posterior, engine
        recurrence = RECURRENCES[rnn]
        # b_t, what the smoothing posterior sees of the present and the future.
        self.backward_rnn = recurrence(phi_x_dim, hidden) if posterior == "smoothing" else None
        u_dim = phi_x_dim if posterior == "filtering" else hidden
        self.cell = VRNNCell(
            prior=(
                GaussianNet(hidden, prior_dim, mlp_layers, z_dim)
                if prior == "learned"
                else StandardNormal(z_dim)
            ),
            encoder=GaussianNet(u_dim + hidden, encoder_dim, mlp_layers, z_dim),
            phi_z=MLP(z_dim, phi_z_dim, mlp_layers),
            rnn=recurrence(phi_x_dim + phi_z_dim, hidden, rnn_layers),
            residual=residual,
        )
        self.forecaster = (
            GaussianNet(phi_z_dim + hidden, decoder_dim, mlp_layers, hidden) if forecast else None
        )

    @property
    def rnn(self) -> Recurrence:  # type: ignore[override]
        return self.cell.rnn

    def trace(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        noise: Tensor | None = None,
    ) -> Trace:
        mask = self.check(x, mask)
        phi_x, u = self.observe(x, mask)
        if state is None:
            state = self.rnn.initial(x.shape[1])
        if noise is None:
            noise = torch.randn(*x.shape[:2], self.z_dim, device=x.device, dtype=x.dtype)

        return self.densities(ENGINES[self.engine](self.cell, phi_x, u, state, noise), u)

    def open_loop(self, x: Tensor, mask: Tensor, noise: Tensor) -> Trace:
        r"""As `trace`, of the model left to itself: the recurrence reads the mean of the output
        distribution in place of x_t.

        .. math:: h_t = f(\phi_x(\hat x_t), \phi_z(z_t), h_{t-1}), \quad \hat x_t = E[x_t | z_t,
            h_{t-1}]

        So h is a function of z alone, which has to carry all there is to know of the past, and
        the ELBO of this trace bounds the likelihood of that other model. Inference sees x.
        """
        _, u = self.observe(x, self.check(x, mask))
        state = self.rnn.initial(x.shape[1])
        rows = []
        for u_t, noise_t in zip(u, noise, strict=True):
            h = top(state)
            mean, std = self.cell.infer(u_t, h)
            z = mean + std * noise_t
            phi_z = self.cell.phi_z(z)
            rows.append((z, mean, std, phi_z, h))
            mean_x = self.likelihood(self.decode_features(phi_z, h)).mean
            state = self.cell.advance(self.features(mean_x), phi_z, state)
        z, mean, std, phi_z, h = map(torch.stack, zip(*rows, strict=True))
        return self.densities(Unrolled(z, mean, std, phi_z, h, state), u)

    def densities(self, steps: Unrolled, u: Tensor) -> Trace:
        """What does not feed the recurrence, for all t at once."""
        return Trace(
            posterior=gaussian(steps.mean, steps.std),
            prior=gaussian(*self.cell.prior(steps.h)),
            likelihood=self.likelihood(self.decode_features(steps.phi_z, steps.h)),
            z=steps.z,
            state=steps.state,
            forecast=(
                gaussian(*self.forecaster(torch.cat([steps.phi_z, steps.h], dim=-1)))
                if self.forecaster is not None
                else None
            ),
            future=u.detach() if self.forecaster is not None else None,
        )

    def observe(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the cell sees of whole sequences, phi_x (T, B, X) and u (T, B, U)."""
        phi_x = self.features(x)
        if self.backward_rnn is None:
            return phi_x, phi_x
        return phi_x, summarise_future(self.backward_rnn, phi_x, mask)

    def draw_z(self, state: State, noise: Tensor) -> tuple[Tensor, Distribution | None]:
        mean, std = self.cell.prior(top(state))
        return mean + std * noise, gaussian(mean, std)

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        return self.decode_features(self.cell.phi_z(z), h)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        """As `decode`, from phi_z(z_t)."""
        params: Tensor = self.out(self.decoder(torch.cat([phi_z, h], dim=-1)))
        return params

    def advance(self, x: Tensor, z: Tensor, state: State) -> State:
        return self.cell.advance(self.features(x), self.cell.phi_z(z), state)


class RNN(SequenceModel):
    r"""The same network without latent variables, whose likelihood is exact.

    .. math:: p(x_{\le T}) = \prod_t p(x_t | decoder(h_{t-1})), \quad h_t = f(\phi_x(x_t), h_{t-1})

    Args: as of `VRNN`.
    """

    z_dim = 0

    def __init__(
        self,
        x_dim: int,
        hidden: int,
        likelihood: Likelihood,
        rnn: str = "lstm",
        rnn_layers: int = 1,
        mlp_layers: int = 1,
        phi_x_dim: int = 64,
        decoder_dim: int = 64,
        centre: bool = False,
        normaliser: Normaliser | None = None,
        means: Sequence[float] | None = None,
    ) -> None:
        choose("model.rnn", rnn, RECURRENCES)
        check_sizes(hidden=hidden, rnn_layers=rnn_layers, mlp_layers=mlp_layers)
        super().__init__(
            x_dim,
            likelihood,
            normaliser,
            means,
            centre,
            phi_x=MLP(x_dim, phi_x_dim, mlp_layers),
            decoder=MLP(hidden, decoder_dim, mlp_layers),
            decoder_dim=decoder_dim,
        )

        self.hidden = hidden
        self.rnn = RECURRENCES[rnn](phi_x_dim, hidden, rnn_layers)

    def trace(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        noise: Tensor | None = None,
    ) -> Trace:
        self.check(x, mask)
        if state is None:
            state = self.rnn.initial(x.shape[1])
        h, last = self.rnn.sequence(self.features(x), state)
        seen = torch.cat([top(state)[None], h[:-1]])
        z = x.new_zeros(*x.shape[:2], 0)
        return Trace(None, None, self.likelihood(self.decode(z, seen)), z, last)

    def draw_z(self, state: State, noise: Tensor) -> tuple[Tensor, Distribution | None]:
        return noise, None

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        params: Tensor = self.out(self.decoder(h))
        return params

    def advance(self, x: Tensor, z: Tensor, state: State) -> State:
        return self.rnn.step(self.features(x), state)


def summarise_future(rnn: Recurrence, phi_x: Tensor, mask: Tensor) -> Tensor:
    """Runs a recurrence backwards over each sequence's own steps.

    Shapes: phi_x (T, B, X), mask (T, B) -> b (T, B, hidden), b_t a function of phi_x_t..phi_x_T
        only.
    """
    steps = torch.arange(len(phi_x), device=phi_x.device)[:, None]
    mirrored = torch.where(mask, mask.sum(0) - 1 - steps, steps)
    flipped = phi_x.gather(0, mirrored[..., None].expand_as(phi_x))
    b, _ = rnn.sequence(flipped, rnn.initial(phi_x.shape[1]))
    return b.gather(0, mirrored[..., None].expand_as(b))
