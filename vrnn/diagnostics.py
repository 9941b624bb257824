"""What the latent variables do."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vrnn.bounds import masked
from vrnn.models.base import SequenceModel
from vrnn.models.latent import LatentModel
from vrnn.noise import sequence_noise, sequence_uniform
from vrnn.particle_filter import effective_sample_size, particle_filter
from vrnn.trace import per_dimension

__all__ = ["LatentUse", "latent_use", "sigma_range"]

ACTIVE_VARIANCE = 0.01


class LatentUse(NamedTuple):
    """How much the latents are used."""

    kl: Tensor
    """(Z,), mean KL(q_t || prior_t) of each dimension, nats per time step."""
    kl_by_step: Tensor
    """(T,), mean KL over the sequences that last so long, nats."""
    active: Tensor
    """(Z,) bool: the posterior mean's variance over all steps is above 0.01."""
    overlap: Tensor
    """(Z,), mean Bhattacharyya coefficient of q_t and prior_t: 1 where they are the same, 0 where
    they have nothing in common."""
    effective: Tensor
    """(T,), mean share of the particles of a filter that carry weight, between 1 / K and 1."""


@torch.no_grad()
def latent_use(
    model: SequenceModel,
    x: Tensor,
    mask: Tensor,
    ids: Tensor,
    seed: int = 0,
    particles: int = 8,
    split: str = "test",
) -> LatentUse | None:
    """Measures the use of the latents on a batch; None for a model without any.

    Args:
        x: standardised frames, (T, B, D).
        mask: (T, B).
        ids: (B,), the sequences' numbers in their split, which fix their noise.
        particles: K of the particle filter.
        split: "train", "val" or "test", likewise.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), for active units,
        https://arxiv.org/abs/1509.00519
    """
    noise = sequence_noise(ids, mask, model.z_dim, range(particles), seed, x.dtype, split)
    trace = model.trace(x, mask, noise=noise[:, : len(ids)])
    if trace.posterior is None or trace.prior is None or not isinstance(model, LatentModel):
        return None
    q, p = per_dimension(trace.posterior), per_dimension(trace.prior)
    kl = kl_divergence(q, p)
    uniform = sequence_uniform(ids, len(x), particles, seed, split)
    share = effective_sample_size(particle_filter(model, x, mask, noise, uniform).log_w)
    return LatentUse(
        kl=kl[mask].mean(0),
        kl_by_step=over_sequences(kl.sum(-1), mask),
        active=trace.posterior.mean[mask].var(0) > ACTIVE_VARIANCE,
        overlap=overlap(q, p)[mask].mean(0),
        effective=over_sequences(share / particles, mask),
    )


def over_sequences(values: Tensor, mask: Tensor) -> Tensor:
    """Means over the sequences that last so long. Shapes: (T, B), (T, B) -> (T,)."""
    return masked(values, mask).sum(1) / mask.sum(1)


def overlap(q: Normal, p: Normal) -> Tensor:
    r"""Bhattacharyya coefficient :math:`\int \sqrt{q(z) p(z)} dz` of single dimensions."""
    variance = q.variance + p.variance
    ratio = (2 * q.stddev * p.stddev / variance).sqrt()
    return ratio * (-0.25 * (q.mean - p.mean).square() / variance).exp()


@torch.no_grad()
def sigma_range(model: SequenceModel, x: Tensor, mask: Tensor) -> str:
    """Says between what the standard deviations of the likelihood lie on a batch's own steps.

    Shapes: x (T, B, D), mask (T, B).
    """
    likelihood = model.trace(x, mask).likelihood
    try:
        std = getattr(likelihood, "std", None)
        std = (likelihood.stddev if std is None else std)[mask]
    except NotImplementedError:
        return "without a closed form"
    finite = std[std.isfinite()]
    rest = std.numel() - finite.numel()
    between = f"in {finite.min():.3g} to {finite.max():.3g}" if len(finite) else "nowhere finite"
    return between + (f", {rest:,} of {std.numel():,} not finite" if rest else "")
