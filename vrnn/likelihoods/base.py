"""Output distributions: each maps the decoder's outputs to a torch `Distribution` over x_t.

A likelihood says how many numbers it wants from the decoder (`size`), with which initial bias
they come (`bias`, or `fit` to the frames of a corpus), and what they mean (`forward`). To add one,
write a class with these four.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vrnn.layers.state import at_least_float32

__all__ = ["Likelihood", "mixture_logits"]


class Likelihood(nn.Module, ABC):
    """A family of distributions over one frame x_t.

    Attributes:
        kinds: the kinds of sequence it describes; all that there are unless it names them.
        discrete: `log_prob` is the log of a probability, which has no unit of x, not of a density.
        x_dim: D, numbers in a frame.
        size: P, numbers wanted from the decoder.
    """

    kinds: tuple[str, ...] = ("pen", "real", "audio", "binary")
    discrete: bool = False
    x_dim: int
    size: int

    @abstractmethod
    def forward(self, params: Tensor, temperature: float = 1.0) -> Distribution:
        """Maps the decoder's outputs to a distribution.

        Args:
            params: (*, P).
            temperature: tau > 0; logits are divided by it, variances multiplied. Weights, single
                Gaussians and bits are raised to 1 / tau and normalised again so, each on its own;
                a mixture of several components as a whole is not.

        Returns:
            A distribution with batch shape (*) and event shape (D,), in float32 or better.
        """

    def bias(self, means: Tensor | None = None) -> Tensor:
        """Initial bias of the decoder's outputs, (P,), given the mean frame (D,), if known."""
        return torch.zeros(self.size)

    def fit(self, frames: Tensor) -> Tensor:
        """Initial bias of the decoder's outputs, (P,), fitted to the frames of a corpus: with it
        the distribution is close to that of all frames. Sets the likelihood's own parameters, too.

        Args:
            frames: standardised, of the training split, (N, D).

        Raises:
            ValueError: if there are too few different ones.
        """
        return self.bias()

    def draw(self, params: Tensor, temperature: float = 1.0) -> Tensor:
        """Draws x_t, (*, P) -> (*, D); temperature 0 takes the distribution's `mode`, of a mixture
        the mean of the component with the highest peak."""
        if temperature > 0:
            return self.sample(at_least_float32(params), temperature)
        return self(params).mode

    def sample(self, params: Tensor, temperature: float) -> Tensor:
        """What the distribution of `forward` draws, perhaps without building it."""
        return self(params, temperature).sample()


def mixture_logits(components: int) -> int:
    """A single component needs no weight."""
    return components if components > 1 else 0
