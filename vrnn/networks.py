"""The feed-forward and recurrent networks every part of the model is made of."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn.dense import linear

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "SIGMA_BIAS",
    "Gaussian",
    "GaussianNet",
    "Linear",
    "Recurrence",
    "StandardNormal",
    "State",
    "at_least_float32",
    "copies",
    "dense_layers",
    "particles",
    "positive",
    "top",
    "unknown",
]

State = tuple[Tensor, ...]
"""State of a recurrence: tensors of shape (layers, B, hidden), the first of them h."""

Gaussian = tuple[Tensor, Tensor]
"""Mean and standard deviation of a diagonal Gaussian, each (*, Z)."""

SIGMA_FLOOR = 1e-4
SIGMA_BIAS = 0.6


def top(state: State) -> Tensor:
    """Returns h of the uppermost layer, (B, hidden): all that prior, encoder and decoder see."""
    return state[0][-1]


def particles(x: Tensor, noise: Tensor) -> int:
    """K of noise (T, K * B, Z) for sequences (T, B, D)."""
    return noise.shape[1] // x.shape[1]


def copies(x: Tensor, count: int) -> Tensor:
    """One set of rows for each particle; x itself where there is but one.

    Shapes: (*, B, N) -> (*, count * B, N), particle-major.
    """
    return x if count == 1 else torch.cat([x] * count, dim=-2)


def at_least_float32(x: Tensor) -> Tensor:
    """Returns `x` (*) in float32 when it came out of a half-precision product, else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def positive(a: Tensor) -> Tensor:
    """Returns a standard deviation, softplus(a) + 1e-4, in float32 or better.

    The floor is added to sigma, not to the variance, so the density of a constant is bounded.
    With the initial bias of 0.6 sigma starts at 1.0376. Shapes: (*) -> (*).
    """
    return F.softplus(at_least_float32(a)) + SIGMA_FLOOR


class Linear(nn.Linear):
    """A dense layer with the initialisation of the original code.

    Weights are uniform in (-0.08, 0.08) whatever the fan-in, biases zero.

    Args:
        inputs: width of the input, or of each of several that lie side by side; the original has
            a matrix for each, which `callbacks.max_norm` asks for.
    """

    def __init__(self, inputs: int | tuple[int, ...], outputs: int) -> None:
        parents = (inputs,) if isinstance(inputs, int) else inputs
        super().__init__(sum(parents), outputs)

        self.parents = parents
        nn.init.uniform_(self.weight, -0.08, 0.08)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class MLP(nn.Sequential):
    """Dense layers of ReLU units. Shapes: (*, inputs) -> (*, width).

    Args:
        inputs: width of what it reads.
        width: units of every layer.
        layers: how many there are.
    """

    def __init__(self, inputs: int | tuple[int, ...], width: int, layers: int = 1) -> None:
        sizes = [inputs] + [width] * layers
        super().__init__(*(module for n in sizes[:-1] for module in (Linear(n, width), nn.ReLU())))


def dense_layers(mlp: MLP) -> list[nn.Linear]:
    return [layer for layer in mlp if isinstance(layer, nn.Linear)]


class GaussianNet(nn.Module):
    r"""A diagonal Gaussian whose parameters are computed by an MLP.

    .. math::
        \mu = W_\mu a + b_\mu, \quad \sigma = \mathrm{softplus}(W_\sigma a + b_\sigma) + 10^{-4}

    with a the MLP's last hidden layer. Shapes: (*, inputs) -> mean (*, outputs), std (*, outputs).

    Args:
        inputs: width of what it reads.
        width, layers: of the `MLP`.
        outputs: Z.
    """

    def __init__(
        self, inputs: int | tuple[int, ...], width: int, layers: int, outputs: int
    ) -> None:
        super().__init__()

        self.hidden = MLP(inputs, width, layers)
        self.out = Linear(width, 2 * outputs)
        with torch.no_grad():
            self.out.bias[outputs:] = SIGMA_BIAS

    def forward(self, features: Tensor) -> Gaussian:
        mean, a = self.out(self.hidden(features)).chunk(2, dim=-1)
        return at_least_float32(mean), positive(a)


class StandardNormal(nn.Module):
    """The prior of VRNN-I: N(0, I) at every step, whatever h is.

    Shapes: h (*, H) -> mean (*, outputs), std (*, outputs).
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()

        self.outputs = outputs

    def forward(self, h: Tensor) -> Gaussian:
        mean = at_least_float32(h).new_zeros(*h.shape[:-1], self.outputs)
        return mean, torch.ones_like(mean)

    def extra_repr(self) -> str:
        return f"{self.outputs}"


class Recurrence(nn.Module, ABC):
    """A stack of recurrent layers, each with one bias vector; the base of `LSTM` and `GRU`.

    Input matrices are uniform in (-0.08, 0.08), recurrent ones a row of orthogonal blocks, biases
    zero, the forget gate's included (original code).

    Args:
        inputs: width of the bottom layer's input, or of each of several side by side.
        hidden: units of each layer.
        layers: number of layers; layer l reads h of layer l - 1 at the same step.
    """

    gates: int
    tensors: int

    def __init__(self, inputs: int | tuple[int, ...], hidden: int, layers: int = 1) -> None:
        super().__init__()

        self.parents = (inputs,) if isinstance(inputs, int) else inputs
        self.inputs, self.hidden, self.layers = sum(self.parents), hidden, layers
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
        """Returns the zero state for `batch` sequences."""
        like = self.biases[0]
        return tuple(like.new_zeros(self.layers, batch, self.hidden) for _ in range(self.tensors))

    def step(self, x: Tensor, state: State) -> State:
        """Advances one time step. Shapes: x (B, inputs), state (layers, B, hidden) -> state."""
        wx = F.linear(x, self.input_weights[0], self.biases[0])
        return self.step_from_gates(wx, state)

    def step_from_gates(self, wx: Tensor, state: State) -> State:
        """Advances one step given W x + b of the bottom layer, wx (B, gates * hidden)."""
        layers: list[State] = []
        for layer in range(self.layers):
            if layer > 0:
                wx = F.linear(layers[-1][0], self.input_weights[layer], self.biases[layer])
            uh = F.linear(state[0][layer], self.hidden_weights[layer])
            layers.append(self.update(wx, uh, tuple(s[layer] for s in state)))
        return tuple(torch.stack(parts) for parts in zip(*layers, strict=True))

    @abstractmethod
    def sequence(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Runs over whole sequences in torch's fused kernels.

        Shapes: x (T, B, inputs), state (layers, B, hidden) -> h of the top layer after each step
        (T, B, hidden), and the state after the last one.
        """

    @staticmethod
    @abstractmethod
    def update(wx: Tensor, uh: Tensor, state: State) -> State:
        """One layer's new state from W x + b and U h, each (B, gates * hidden)."""

    def flat_weights(self) -> list[Tensor]:
        """Weights in the order of torch's kernels, whose second bias vector is zero here."""
        rows = zip(self.input_weights, self.hidden_weights, self.biases, strict=True)
        return [w for wi, wh, b in rows for w in (wi, wh, b, torch.zeros_like(b))]

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.hidden}, layers={self.layers}"


class LSTM(Recurrence):
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
        out, h, c = torch.lstm(
            x, state, self.flat_weights(), True, self.layers, 0.0, self.training, False, False
        )
        return out, (h, c)


class GRU(Recurrence):
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
        out, h = torch.gru(
            x, state[0], self.flat_weights(), True, self.layers, 0.0, self.training, False, False
        )
        return out, (h,)


KNOWN = (MLP, GaussianNet, StandardNormal, Linear, LSTM, GRU, nn.ReLU, nn.ParameterList)


def unknown(*networks: nn.Module | None) -> str | None:
    """The class of the first network, or part of one, that is none of this file's, if any: what a
    user has put in its place, and what only calling it can tell the meaning of."""
    parts = (part for network in networks if network is not None for part in network.modules())
    return next((type(part).__name__ for part in parts if type(part) not in KNOWN), None)
