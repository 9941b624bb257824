"""What the latent variables do."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vrnn.distributions import per_dimension
from vrnn.evaluation import sequence_noise
from vrnn.sequence_model import SequenceModel

__all__ = ["LatentUse", "latent_use"]

ACTIVE_VARIANCE = 0.01


class LatentUse(NamedTuple):
    """How much each latent dimension is used."""

    kl: Tensor
    """(Z,), mean KL(q_t || prior_t) of the dimension, nats per time step."""
    active: Tensor
    """(Z,) bool: the posterior mean's variance over all steps is above 0.01."""


@torch.no_grad()
def latent_use(
    model: SequenceModel, x: Tensor, mask: Tensor, ids: Tensor, seed: int = 0
) -> LatentUse | None:
    """Measures the use of the latents on a batch; None for a model without any.

    Shapes: x (T, B, D), mask (T, B), ids (B,).

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5.2 for active units,
        https://arxiv.org/abs/1509.00519
    """
    noise = sequence_noise(ids, mask, model.z_dim, range(1), seed, x.dtype)
    trace = model.trace(x, mask, noise=noise)
    if trace.posterior is None or trace.prior is None:
        return None
    kl = kl_divergence(per_dimension(trace.posterior), per_dimension(trace.prior))[mask]
    return LatentUse(kl.mean(0), trace.posterior.mean[mask].var(0) > ACTIVE_VARIANCE)


@torch.no_grad()
def sigma_range(model: SequenceModel, x: Tensor, mask: Tensor) -> str:
    """Says between what the standard deviations of the likelihood lie on a batch's own steps.

    Shapes: x (T, B, D), mask (T, B).
    """
    likelihood = model.trace(x, mask).likelihood
    std = getattr(likelihood, "std", None)
    std = (likelihood.stddev if std is None else std)[mask]
    finite = std[std.isfinite()]
    rest = std.numel() - finite.numel()
    between = f"in {finite.min():.3g} to {finite.max():.3g}" if len(finite) else "nowhere finite"
    return between + (f", {rest:,} of {std.numel():,} not finite" if rest else "")
