"""A deep Markov model: a state space whose transition and emission are networks."""

from typing import Unpack

import torch
from torch import Tensor, nn

from vrnn.arguments import check_counts, choose
from vrnn.cell import Cell
from vrnn.layers.feedforward import MLP, SIGMA_BIAS, Linear, positive
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.state import Gaussian, State, at_least_float32
from vrnn.likelihoods import Likelihood
from vrnn.models.base import Common
from vrnn.models.latent import LatentModel, summarise_future

__all__ = ["Combiner", "DMM", "DMMCell", "GatedTransition"]


class GatedTransition(nn.Module):
    r"""p(z_t | z_{t-1}): each dimension chooses between a linear and a nonlinear mean.

    .. math::
        g &= sigmoid(MLP_g(z_{t-1})), \quad m = MLP_m(z_{t-1}) \\
        \mu &= (1 - g) (W_\mu z_{t-1} + b_\mu) + g m, \quad \sigma = softplus(W_\sigma relu(m) +
        b_\sigma) + 10^{-4}

    The linear map starts as the identity (as published). Shapes: z (*, Z) -> mean (*, Z), std
    (*, Z).

    Args:
        z_dim: Z.
        width, layers: of the two `MLP`.
    """

    def __init__(self, z_dim: int, width: int, layers: int) -> None:
        super().__init__()

        self.gate = nn.Sequential(MLP(z_dim, width, layers), Linear(width, z_dim), nn.Sigmoid())
        self.proposal = nn.Sequential(MLP(z_dim, width, layers), Linear(width, z_dim))
        self.mean, self.std = Linear(z_dim, z_dim), Linear(z_dim, z_dim)
        with torch.no_grad():
            nn.init.eye_(self.mean.weight)
            self.std.bias.fill_(SIGMA_BIAS)

    def forward(self, z: Tensor) -> Gaussian:
        gate, proposal = self.gate(z), self.proposal(z)
        mean = (1 - gate) * self.mean(z) + gate * proposal
        return at_least_float32(mean), positive(self.std(proposal.relu()))


class Combiner(nn.Module):
    r"""q(z_t | z_{t-1}, x_{t..T}) of the deep Kalman smoother.

    .. math:: c = (\tanh(W z_{t-1} + w) + b_t) / 2, \quad \mu = W_\mu c + b_\mu, \quad \sigma =
        softplus(W_\sigma c + b_\sigma) + 10^{-4}

    Shapes: b (*, hidden), z (*, Z) -> mean (*, Z), std (*, Z).
    """

    def __init__(self, z_dim: int, hidden: int) -> None:
        super().__init__()

        self.past = Linear(z_dim, hidden)
        self.out = Linear(hidden, 2 * z_dim)
        with torch.no_grad():
            self.out.bias[z_dim:] = SIGMA_BIAS

    def forward(self, b: Tensor, z: Tensor) -> Gaussian:
        mean, a = self.out((self.past(z).tanh() + b) / 2).chunk(2, dim=-1)
        return at_least_float32(mean), positive(a)


class DMMCell(Cell):
    """One step of `DMM`: h_{t-1} = z_{t-1}."""

    def __init__(self, z_dim: int, prior: GatedTransition, encoder: Combiner) -> None:
        super().__init__()

        self.prior = prior
        self.encoder = encoder
        self.width = z_dim

    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        mean, std = self.encoder(u, h)
        return mean, std

    def features(self, z: Tensor, h: Tensor) -> Tensor:
        return z

    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        return (phi_z[None],)


class DMM(LatentModel):
    r"""The deep Markov model, with the posterior of the deep Kalman smoother (DKS).

    .. code-block:: text

        generation                   inference

        z_{t-1} -> z_t -> z_{t+1}    z_{t-1} -> z_t
                    |                            |
                   x_t                          b_t <- b_{t+1}
                                                 |
                                                x_t

    .. math::
        p(z_t | z_{t-1}): & \quad transition(z_{t-1}) \\
        p(x_t | z_t): & \quad decoder(z_t) \\
        q(z_t | z_{t-1}, x_{t..T}): & \quad combiner(b_t, z_{t-1}), \quad b_t = g(\phi_x(x_t),
        b_{t+1})

    `GatedTransition` and `Combiner` have the equations. z_t is all that is known of the past, so
    that the exact posterior has this very form. As published: the graph, the gated transition, and
    how z_{t-1} and b_t are combined. Ours: a gated recurrent unit for g, the feature map of x,
    sigma rather than its square as softplus, and z_0 = 0.

    Args:
        z_dim: Z, latent dimensions.
        hidden: units of b_t.
        rnn: which recurrence g is (`vrnn.layers.recurrences`).
        prior_dim: width of the transition.
        latents: "inferred"; "noise" or "fixed" for a twin (`LatentModel.use_latents`).
        x_dim, likelihood: as of `vrnn.models.base.SequenceModel`.
        **common: the arguments of that class from `mlp_layers` on.

    References:
        Structured Inference Networks for Nonlinear State Space Models (Krishnan et al., 2017),
        https://arxiv.org/abs/1609.09869
    """

    def __init__(
        self,
        x_dim: int,
        z_dim: int,
        hidden: int,
        likelihood: Likelihood,
        rnn: str = "gru",
        prior_dim: int = 64,
        latents: str = "inferred",
        **common: Unpack[Common],
    ) -> None:
        choose("model.rnn", rnn, RECURRENCES)
        check_counts("model.", z_dim=z_dim, hidden=hidden, prior_dim=prior_dim)
        super().__init__(x_dim, likelihood, z_dim, **common)

        self.z_dim, self.hidden = z_dim, hidden
        self.backward_rnn = RECURRENCES[rnn](self.phi_x_dim, hidden)
        self.cell = DMMCell(
            z_dim, GatedTransition(z_dim, prior_dim, self.mlp_layers), Combiner(z_dim, hidden)
        )
        self.use_latents(latents)

    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        phi_x = self.features(x)
        return phi_x, summarise_future(self.backward_rnn, phi_x, mask)

    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        return self.params(phi_z)
