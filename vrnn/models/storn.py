"""STORN: a recurrent network driven by independent noise, and another one that infers it."""

from typing import Unpack

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.cell import Cell, Unrolled
from vrnn.layers.feedforward import GaussianNet, StandardNormal
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.recurrent import Recurrence
from vrnn.layers.state import Gaussian, State, copies, joined, parted, particles, top
from vrnn.likelihoods import Likelihood
from vrnn.models.base import Common
from vrnn.models.latent import LatentModel, summarise_future

__all__ = ["STORN", "STORNCell"]


class STORNCell(Cell):
    """One step of `STORN`. What it knows of the past is [h_{t-1}, phi_x(x_{t-1})], and what the
    decoder sees of z_t is h_t. Of a recurrence whose state is more than h, all stands in its
    place."""

    def __init__(self, z_dim: int, encoder: GaussianNet, rnn: Recurrence) -> None:
        super().__init__()

        self.prior = StandardNormal(z_dim)
        self.encoder = encoder
        self.rnn = rnn
        self.layout = rnn.layout
        self.numbers = sum(n * width for n, width in self.layout)
        self.width = self.numbers + rnn.inputs - z_dim

    def initial(self, batch: int) -> State:
        h = joined(self.rnn.initial(batch))
        return self.advance(h.new_zeros(batch, self.width - self.numbers), h, ())

    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        mean, std = self.encoder(u)
        return mean, std

    def features(self, z: Tensor, h: Tensor) -> Tensor:
        h, phi_x = h.split([self.numbers, self.width - self.numbers], dim=-1)
        state = parted(h, self.layout)
        return joined(self.rnn.step(torch.cat([phi_x, z], dim=-1), state))

    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        return (torch.cat([phi_z, phi_x], dim=-1)[None],)


class STORN(LatentModel):
    r"""The stochastic recurrent network.

    .. code-block:: text

        generation                         inference

             z_t ~ N(0, I)                 g_{t-1} -> g_t -> z_t
              |                                        |
        h_{t-1} -> h_t -> x_t                         x_t
              |
           x_{t-1}

    .. math::
        p(z_t) &= N(0, I) \\
        h_t &= f(\phi_x(x_{t-1}), z_t, h_{t-1}) \\
        p(x_t | z_{\le t}, x_{<t}): & \quad decoder(h_t) \\
        q(z_t | x) &= N(\mu_t, \sigma_t^2), \quad (\mu_t, \sigma_t) = encoder(g_t), \quad g_t =
        g(\phi_x(x_t), g_{t-1})

    As published: the graph; the two recurrent networks share no state, so that the posterior of
    z_t is independent of z_{<t}. Ours: gated recurrent units in place of plain ones, the feature
    map of x, hidden layers in decoder and encoder, and sigma = softplus + 1e-4, as in the VRNN.
    phi_x(x_0) and h_0 are 0.

    Args:
        z_dim: Z, latent dimensions.
        hidden: units of h_t, and of g_t.
        posterior: "filtering", q(z_t | x_{<=t}), as above, or "smoothing", q(z_t | x_{<=T}), where
            the encoder also reads a recurrent network that runs backwards over x. Carried state
            is that of generation: inference starts afresh.
        rnn: which recurrence f and g are (`vrnn.layers.recurrences`).
        encoder_dim: width of the encoder.
        latents: "inferred"; "noise" or "fixed" for a twin (`LatentModel.use_latents`).
        x_dim, likelihood: as of `vrnn.models.base.SequenceModel`.
        **common: the arguments of that class from `mlp_layers` on.

    References:
        Learning Stochastic Recurrent Networks (Bayer and Osendorfer, 2014),
        https://arxiv.org/abs/1411.7610
    """

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden: int,
        likelihood: Likelihood,
        posterior: str = "filtering",
        rnn: str = "gru",
        encoder_dim: int = 64,
        latents: str = "inferred",
        **common: Unpack[Common],
    ) -> None:
        choose("model.posterior", posterior, ("filtering", "smoothing"))
        choose("model.rnn", rnn, RECURRENCES)
        check_counts("model.", z_dim=z_dim, hidden=hidden, encoder_dim=encoder_dim)
        super().__init__(x_dim, likelihood, hidden, **common)

        self.z_dim, self.hidden = z_dim, hidden
        recurrence, phi_x_dim = RECURRENCES[rnn], self.phi_x_dim
        self.recognition = recurrence(phi_x_dim, hidden)
        self.backward_rnn = recurrence(phi_x_dim, hidden) if posterior == "smoothing" else None
        u_dim = hidden if posterior == "filtering" else 2 * hidden
        self.cell: STORNCell = STORNCell(
            z_dim,
            encoder=GaussianNet(u_dim, encoder_dim, self.mlp_layers, z_dim),
            rnn=recurrence(phi_x_dim + z_dim, hidden),
        )
        self.use_latents(latents)

    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        phi_x = self.features(x)
        g, _ = self.recognition.sequence(phi_x, self.recognition.initial(x.shape[1]))
        if self.backward_rnn is None:
            return phi_x, g
        b = summarise_future(self.backward_rnn, phi_x, mask)
        return phi_x, torch.cat([g, b], dim=-1)

    def unroll(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
        """Inference knows no past z, so nothing is left to loop over."""
        if self.cell.layout != [(1, self.hidden)]:
            # There is more to its state than h, which is all that `sequence` returns of each step.
            return super().unroll(phi_x, u, state, noise)
        K = particles(u, noise)
        h_0, x_0 = state[0].split([self.hidden, phi_x.shape[-1]], dim=-1)
        mean, std = (copies(part, K) for part in self.cell.encoder(u))
        phi_x = copies(phi_x, K)
        z = mean + std * noise
        before = torch.cat([x_0, phi_x[:-1]])
        h, _ = self.cell.rnn.sequence(torch.cat([before, z], dim=-1), (h_0,))
        past = torch.cat([torch.cat([h_0, h[:-1]]), before], dim=-1)
        last = self.cell.advance(phi_x[-1], h[-1], state)
        return Unrolled(z, mean, std, h, past, last)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        return self.params(top(parted(phi_z, self.cell.layout)))
