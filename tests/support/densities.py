"""The densities of a trace, as numbers."""

import torch
from torch.distributions import MixtureSameFamily

from vrnn.likelihoods.distributions import PenDistribution


def flat(distribution):
    """All parameters of a distribution, batch shape (*) -> (*, P)."""
    if isinstance(distribution, PenDistribution):
        names = ("pen", "logits", "means", "std", "rho")
        parts = [getattr(distribution, name) for name in names]
    elif isinstance(distribution, MixtureSameFamily):
        components = distribution.component_distribution
        weights = distribution.mixture_distribution.logits
        parts = [weights, components.mean, components.stddev]
    else:
        parts = [distribution.mean, distribution.stddev]
    n = len(distribution.batch_shape)
    return torch.cat([p.flatten(n) if p.ndim > n else p[..., None] for p in parts], -1)


def generative(trace):
    """Parameters of prior and likelihood, (T, B, P)."""
    latent = [] if trace.prior is None else [flat(trace.prior)]
    return torch.cat([*latent, flat(trace.likelihood)], -1)


def noise_that_draws(model, x, z):
    """The noise with which inference on x draws exactly z, a differentiable function of x."""
    noise = torch.zeros_like(z)
    for t in range(len(z) if model.z_dim else 0):
        q = model.trace(x, noise=noise).posterior
        noise = torch.cat([noise[:t], ((z - q.mean) / q.stddev)[t : t + 1], noise[t + 1 :]])
    return noise
