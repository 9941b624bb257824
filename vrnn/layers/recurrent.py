"""Recurrent networks: what each of them gives a model, and the two with gates, LSTM and GRU."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn.layers.state import State, top

__all__ = ["GRU", "Gated", "LSTM", "Recurrence"]


class Recurrence(nn.Module, ABC):
    """A stack of recurrent layers, h_t = f(x_t, h_{t-1}). A subclass says what a `step` is.

    Nothing is asked of its parameters. Its state is a tuple of tensors (n, B, N) with an n and an
    N of their own each; the first of them ends with h of the top layer, (B, hidden).

    Args:
        inputs: width of the bottom layer's input, or of each of several side by side.
        hidden: units of each layer.
        layers: number of layers; layer l reads h of layer l - 1 at the same step.
    """

    def __init__(self, inputs: int | tuple[int, ...], hidden: int, layers: int = 1) -> None:
        super().__init__()

        self.parents = (inputs,) if isinstance(inputs, int) else inputs
        self.inputs, self.hidden, self.layers = sum(self.parents), hidden, layers

    def initial(self, batch: int) -> State:
        """The state of `batch` sequences before the first step: zero, (layers, batch, hidden)."""
        return (next(self.parameters()).new_zeros(self.layers, batch, self.hidden),)

    @abstractmethod
    def step(self, x: Tensor, state: State) -> State:
        """Advances one time step. Shapes: x (*, inputs), state (n, *, N) -> state."""

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Runs over whole sequences; `step` after `step`, unless a subclass knows a faster way.

        Shapes: x (T, B, inputs), state (n, B, N) -> h of the top layer after each step (T, B,
        hidden), and the state after the last one.
        """
        h = []
        for x_t in x:
            state = self.step(x_t, state)
            h.append(top(state))
        return torch.stack(h), state

    @property
    def layout(self) -> list[tuple[int, int]]:
        """n and N of every tensor of the state."""
        return [(len(part), part.shape[-1]) for part in self.initial(1)]

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.hidden}, layers={self.layers}"


class Gated(Recurrence):
    """The base of `LSTM` and `GRU`: a layer's new state is a function of W x + b, of U h and of
    its old state, one tensor or more of (layers, B, hidden).

    Input matrices are uniform in (-0.08, 0.08), recurrent ones a row of orthogonal blocks, biases
    zero, the forget gate's included (original code). Each layer has one bias vector.

    Attributes:
        gates: blocks of `hidden` rows in W, U and b.
        tensors: of the state.
    """

    gates: int
    tensors: int

    def __init__(self, inputs: int | tuple[int, ...], hidden: int, layers: int = 1) -> None:
        super().__init__(inputs, hidden, layers)

        sizes = [self.inputs] + [hidden] * (layers - 1)
        self.input_weights = nn.ParameterList(
            nn.Parameter(torch.empty(self.gates * hidden, n).uniform_(-0.08, 0.08)) for n in sizes
        )
        self.hidden_weights = nn.ParameterList(
            nn.Parameter(
                torch.cat(
                    [nn.init.orthogonal_(torch.empty(hidden, hidden)) for _ in range(self.gates)]
                )
            )
            for _ in sizes
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(self.gates * hidden)) for _ in sizes
        )

    def initial(self, batch: int) -> State:
        like = self.biases[0]
        return tuple(like.new_zeros(self.layers, batch, self.hidden) for _ in range(self.tensors))

    def step(self, x: Tensor, state: State) -> State:
        wx = F.linear(x, self.input_weights[0], self.biases[0])
        return self.step_from_gates(wx, state)

    def step_from_gates(self, wx: Tensor, state: State) -> State:
        """Advances one step given W x + b of the bottom layer, wx (*, gates * hidden)."""
        layers: list[State] = []
        for layer in range(self.layers):
            if layer > 0:
                wx = F.linear(layers[-1][0], self.input_weights[layer], self.biases[layer])
            uh = F.linear(state[0][layer], self.hidden_weights[layer])
            layers.append(self.update(wx, uh, tuple(s[layer] for s in state)))
        return tuple(torch.stack(parts) for parts in zip(*layers, strict=True))

    @staticmethod
    @abstractmethod
    def update(wx: Tensor, uh: Tensor, state: State) -> State:
        """One layer's new state from W x + b and U h, each (*, gates * hidden)."""

    def flat_weights(self) -> list[Tensor]:
        """Weights in the order of torch's kernels, whose second bias vector is zero here."""
        rows = zip(self.input_weights, self.hidden_weights, self.biases, strict=True)
        return [w for wi, wh, b in rows for w in (wi, wh, b, torch.zeros_like(b))]


class LSTM(Gated):
    r"""Long short-term memory without peepholes; gates in the order i, f, g, o.

    .. math:: c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \quad h_t = \sigma(o) \tanh(c_t)

    References:
        Long Short-Term Memory (Hochreiter and Schmidhuber, 1997), with the forget gate of Gers et
        al. (2000).
    """

    gates, tensors = 4, 2

    @staticmethod
    def update(wx: Tensor, uh: Tensor, state: State) -> State:
        i, f, g, o = (wx + uh).chunk(4, dim=-1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As of `Recurrence`, in torch's fused kernel."""
        out, h, c = torch.lstm(
            x, state, self.flat_weights(), True, self.layers, 0.0, self.training, False, False
        )
        return out, (h, c)


class GRU(Gated):
    r"""Gated recurrent unit, reset after the product; gates in the order r, u, n.

    .. math::
        n = \tanh(W_n x + b_n + \sigma(r) U_n h_{t-1}), \quad
        h_t = (1 - \sigma(u)) n + \sigma(u) h_{t-1}

    References:
        Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014), https://arxiv.org/abs/1406.1078
    """

    gates, tensors = 3, 1

    @staticmethod
    def update(wx: Tensor, uh: Tensor, state: State) -> State:
        wr, wu, wn = wx.chunk(3, dim=-1)
        ur, uu, un = uh.chunk(3, dim=-1)
        n = (wn + (wr + ur).sigmoid() * un).tanh()
        u = (wu + uu).sigmoid()
        return ((1 - u) * n + u * state[0],)

    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As of `Recurrence`, in torch's fused kernel."""
        out, h = torch.gru(
            x, state[0], self.flat_weights(), True, self.layers, 0.0, self.training, False, False
        )
        return out, (h,)
