"""What training maximises. Reported figures never depend on these weights."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vrnn import bounds
from vrnn.sequence_model import SequenceModel

__all__ = ["ELBO", "Loss"]


class Loss(NamedTuple):
    """One training step's loss and what to log of it: nats, summed over the batch's own steps."""

    loss: Tensor
    """(), minus the weighted objective."""
    log_likelihood: Tensor
    """()."""
    kl: Tensor
    """(), as it is: neither weighted nor clamped."""


class ELBO(nn.Module):
    r"""The evidence lower bound, with an optional warm-up of the KL's weight and optional free
    bits.

    .. math:: -\sum_{t,b} [\log p(x_t | z_{\le t}, x_{<t}) - \beta \max(\lambda, KL(q_t \|
    prior_t))]

    Both are off by default, as in the paper.

    Args:
        kl_start: beta at the first update.
        kl_steps: updates over which beta rises linearly to 1.
        free_bits: lambda, nats per time step that cost nothing.
    """

    def __init__(self, kl_start: float = 1.0, kl_steps: int = 0, free_bits: float = 0.0) -> None:
        super().__init__()
        if not 0 <= kl_start <= 1:
            raise ValueError(f"objective.kl_start must be between 0 and 1, not {kl_start}")
        if kl_steps < 0 or free_bits < 0:
            raise ValueError("objective.kl_steps and objective.free_bits must not be negative")

        self.kl_start, self.kl_steps, self.free_bits = kl_start, kl_steps, free_bits

    def kl_weight(self, step: int) -> float:
        """beta at an update, a function of its number alone, so that resumed runs go on."""
        if step >= self.kl_steps:
            return 1.0
        return self.kl_start + (1.0 - self.kl_start) * step / self.kl_steps

    def forward(
        self, model: SequenceModel, x: Tensor, mask: Tensor, noise: Tensor, step: int
    ) -> Loss:
        terms = bounds.elbo_terms(model.trace(x, mask, noise=noise), x, mask)
        kl = terms.kl if self.free_bits == 0 else free(terms.kl, mask, self.free_bits)
        loss = self.kl_weight(step) * kl.sum() - terms.log_likelihood.sum()
        return Loss(loss, terms.log_likelihood.detach().sum(), terms.kl.detach().sum())

    def extra_repr(self) -> str:
        return f"kl_start={self.kl_start}, kl_steps={self.kl_steps}, free_bits={self.free_bits}"


def free(kl: Tensor, mask: Tensor, bits: float) -> Tensor:
    return torch.where(mask, kl.clamp_min(bits), 0.0)
