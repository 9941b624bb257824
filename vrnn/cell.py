"""One time step: the only place where the latent variable meets the recurrence."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn.engine.network_tape import unknown
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal, dense_layers, positive
from vrnn.layers.onednn import linear
from vrnn.layers.recurrent import Gated, Recurrence
from vrnn.layers.state import Gaussian, State, at_least_float32, top

__all__ = ["Cell", "Step", "Unrolled", "VRNNCell"]


class Step(NamedTuple):
    """What one inference step yields. z, mean, std: (B, Z); phi_z: (B, F)."""

    z: Tensor
    mean: Tensor
    std: Tensor
    phi_z: Tensor
    state: State


class Cell(nn.Module, ABC):
    """What a latent variable model does at one time step.

    Its state's uppermost layer, h = top(state), is all that prior, encoder and decoder see of the
    past: h_{t-1} at step t.

    Attributes:
        prior: h (*, H) -> mean (*, Z), std (*, Z) of p(z_t | x_{<t}, z_{<t}).
        width: H.
    """

    prior: nn.Module
    width: int

    def initial(self, batch: int) -> State:
        """The state before the first step, zero."""
        return (next(self.parameters()).new_zeros(1, batch, self.width),)

    @abstractmethod
    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        """The posterior of z_t. Shapes: u (*, U), h (*, H) -> mean (*, Z), std (*, Z)."""

    @abstractmethod
    def features(self, z: Tensor, h: Tensor) -> Tensor:
        """What decoder and recurrence see of z_t. Shapes: z (*, Z), h (*, H) -> phi_z (*, F)."""

    @abstractmethod
    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        """The state after x_t and z_t, the same in training and in generation."""

    def step(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Step:
        """Infers z_t and advances. Shapes: phi_x (B, X), u (B, U), noise ~ N(0, I) (B, Z)."""
        h = top(state)
        mean, std = self.infer(u, h)
        z = mean + std * noise
        phi_z = self.features(z, h)
        return Step(z, mean, std, phi_z, self.advance(phi_x, phi_z, state))

    def step_unseen(self, phi_x: Tensor, state: State, noise: Tensor) -> Step:
        """As `step`, with z_t drawn from the prior: what is inferred does not look at x_t."""
        h = top(state)
        mean, std = self.prior(h)
        z = mean + std * noise
        phi_z = self.features(z, h)
        return Step(z, mean, std, phi_z, self.advance(phi_x, phi_z, state))

    def prepare(self, phi_x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """What `step` makes of phi_x (T, B, X) and u (T, B, U) alone, for all t at once; the same
        for all particles."""
        return phi_x, u

    def step_prepared(self, from_x: Tensor, from_u: Tensor, state: State, noise: Tensor) -> Step:
        """As `step`, from a step of what `prepare` returned."""
        return self.step(from_x, from_u, state, noise)


class Unrolled(NamedTuple):
    """What the loop leaves; all else of the model is computed from it for all t at once."""

    z: Tensor
    """(T, B, Z), drawn from the posterior."""
    mean: Tensor
    """(T, B, Z), of the posterior."""
    std: Tensor
    """(T, B, Z), of the posterior."""
    phi_z: Tensor
    """(T, B, F), features of z."""
    h: Tensor
    """(T, B, H), h_{t-1}: what prior and decoder of step t see."""
    state: State
    """State after step T."""


class VRNNCell(Cell):
    r"""The VRNN's prior, encoder, feature map of z, and recurrence.

    .. math::
        p(z_t | x_{<t}, z_{<t}) &= N(\mu_{0,t}, \sigma_{0,t}^2), & (\mu_{0,t}, \sigma_{0,t}) &=
        prior(h_{t-1}) \\ q(z_t | \cdot) &= N(\mu_t, \sigma_t^2), & (\mu_t, \sigma_t) &=
        encoder(u_t, h_{t-1}) \\ h_t &= f(\phi_x(x_t), \phi_z(z_t), h_{t-1})

    where :math:`u_t` is what inference sees of the sequence: :math:`\phi_x(x_t)` for the
    filtering posterior, the backward summary :math:`b_t` of the present and the future for the
    smoothing one.

    Args:
        residual: the encoder gives the distance from the prior's mean, :math:`\mu_t = \mu_{0,t} +
            encoder_\mu(u_t, h_{t-1})`.

    References:
        A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015), equations 5 to
        9, https://arxiv.org/abs/1506.02216

        Sequential Neural Models with Stochastic Layers (Fraccaro et al., 2016), for the
        residual mean, https://arxiv.org/abs/1605.07571
    """

    def __init__(
        self,
        prior: GaussianNet | StandardNormal,
        encoder: GaussianNet,
        phi_z: MLP,
        rnn: Recurrence,
        residual: bool = False,
    ) -> None:
        super().__init__()

        self.prior = prior
        self.encoder = encoder
        self.phi_z = phi_z
        self.rnn = rnn
        self.width = rnn.hidden
        self.residual = residual

    def initial(self, batch: int) -> State:
        return self.rnn.initial(batch)

    def infer(self, u: Tensor, h: Tensor) -> Gaussian:
        mean, std = self.encoder(torch.cat([u, h], dim=-1))
        if self.residual:
            mean = mean + self.prior(h)[0]
        return mean, std

    def features(self, z: Tensor, h: Tensor) -> Tensor:
        phi_z: Tensor = self.phi_z(z)
        return phi_z

    def advance(self, phi_x: Tensor, phi_z: Tensor, state: State) -> State:
        """h_t = f(phi_x(x_t), phi_z(z_t), h_{t-1})."""
        return self.rnn.step(torch.cat([phi_x, phi_z], dim=-1), state)

    @property
    def gated(self) -> Gated | None:
        """The recurrence, where phi_x and u come in by products alone: it is one with gates, and
        nobody has put a network or a method of his own in the place of those here."""
        known = type(self) is VRNNCell and unknown(self.encoder, self.rnn) is None
        return self.rnn if known and isinstance(self.rnn, Gated) else None

    def prepare(self, phi_x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of phi_x in the gates and of u in the encoder's first layer, both linear."""
        rnn = self.gated
        if rnn is None:
            return super().prepare(phi_x, u)
        first = dense_layers(self.encoder.hidden)[0]
        gates_x = rnn.input_weights[0][:, : phi_x.shape[-1]]
        from_x = linear(phi_x, gates_x, rnn.biases[0])
        return from_x, linear(u, first.weight[:, : u.shape[-1]], first.bias)

    def step_prepared(self, from_x: Tensor, from_u: Tensor, state: State, noise: Tensor) -> Step:
        rnn = self.gated
        if rnn is None:
            return super().step_prepared(from_x, from_u, state, noise)
        h = top(state)
        first, *rest = dense_layers(self.encoder.hidden)
        hidden = from_u + F.linear(h, first.weight[:, -self.width :])
        for layer in rest:
            hidden = layer(hidden.relu())
        mean, a = self.encoder.out(hidden.relu()).chunk(2, dim=-1)
        mean = at_least_float32(mean)
        if self.residual:
            mean = mean + self.prior(h)[0]
        std = positive(a)
        z = mean + std * noise
        phi_z = self.features(z, h)
        gates_z = rnn.input_weights[0][:, -phi_z.shape[-1] :]
        state = rnn.step_from_gates(from_x + F.linear(phi_z, gates_z), state)
        return Step(z, mean, std, phi_z, state)
