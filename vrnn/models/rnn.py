"""The VRNN's counterpart without latent variables."""

from collections.abc import Iterator
from typing import Unpack

import torch
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.engine.fast_frames import Networks, fast_frames
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.state import Gaussian, State, copies, particles, top
from vrnn.likelihoods import Likelihood
from vrnn.models.base import Common, SequenceModel
from vrnn.trace import Frame, Trace

__all__ = ["RNN"]


class RNN(SequenceModel):
    r"""The same network without latent variables, whose likelihood is exact.

    .. math:: p(x_{\le T}) = \prod_t p(x_t | decoder(h_{t-1})), \quad h_t = f(\phi_x(x_t), h_{t-1})

    Args:
        hidden: units of each recurrent layer.
        rnn: which recurrence f is (`vrnn.layers.recurrences`).
        rnn_layers: number of recurrent layers.
        x_dim, likelihood: as of `vrnn.models.base.SequenceModel`.
        **common: the arguments of that class from `mlp_layers` on.
    """

    z_dim = 0

    def __init__(
        self,
        x_dim: int,
        hidden: int,
        likelihood: Likelihood,
        rnn: str = "lstm",
        rnn_layers: int = 1,
        **common: Unpack[Common],
    ) -> None:
        choose("model.rnn", rnn, RECURRENCES)
        check_counts("model.", hidden=hidden, rnn_layers=rnn_layers)
        super().__init__(x_dim, likelihood, hidden, **common)

        self.hidden = hidden
        self.rnn = RECURRENCES[rnn](self.phi_x_dim, hidden, rnn_layers)

    def trace(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        noise: Tensor | None = None,
        u: Tensor | None = None,
    ) -> Trace:
        self.check(x, mask)
        if noise is not None:
            x = copies(x, particles(x, noise))
        if state is None:
            state = self.rnn.initial(x.shape[1])
        h, last = self.rnn.sequence(self.features(x), state)
        seen = torch.cat([top(state)[None], h[:-1]])
        z = x.new_zeros(*x.shape[:2], 0)
        return Trace(None, None, self.likelihood(self.decode(z, seen)), z, last)

    def initial(self, batch: int) -> State:
        return self.rnn.initial(batch)

    def draw_z(self, state: State, noise: Tensor) -> tuple[Tensor, Gaussian | None]:
        return noise, None

    def frames(
        self, state: State, noise: Iterator[Tensor], temperature: float = 1.0
    ) -> Iterator[Frame]:
        networks = Networks(self, self.rnn)
        if type(self) is not RNN or not networks.serve(state):
            return super().frames(state, noise, temperature)
        return fast_frames(networks, state, noise, temperature)

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        return self.params(h)

    def advance(self, x: Tensor, z: Tensor, state: State) -> State:
        return self.rnn.step(self.features(x), state)
