"""The feed-forward networks that every part of the model is made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn.layers.onednn import linear
from vrnn.layers.state import Gaussian, at_least_float32

__all__ = [
    "GaussianNet",
    "Linear",
    "MLP",
    "SIGMA_BIAS",
    "StandardNormal",
    "dense_layers",
    "inverse_positive",
    "positive",
]

SIGMA_FLOOR = 1e-4
SIGMA_BIAS = 0.6


def positive(a: Tensor) -> Tensor:
    """Returns a standard deviation, softplus(a) + 1e-4, in float32 or better.

    The floor is added to sigma, not to the variance, so the density of a constant is bounded.
    With the initial bias of 0.6 sigma starts at 1.0376. Shapes: (*) -> (*).
    """
    return F.softplus(at_least_float32(a)) + SIGMA_FLOOR


def inverse_positive(std: Tensor) -> Tensor:
    """Returns the pre-activation a of a standard deviation, which `positive` takes back to it.

    Shapes: (*) -> (*).
    """
    above = (std - SIGMA_FLOOR).clamp_min(SIGMA_FLOOR)
    return above + torch.log(-torch.expm1(-above))


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
