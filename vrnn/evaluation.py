"""Scores of sequences under a model, the same whatever their batch, padding or process."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vrnn import bounds
from vrnn.sequence_model import SequenceModel

__all__ = ["DENSITIES", "score", "sequence_noise"]

DENSITIES = ("elbo", "log_likelihood", "iwae", "paper")
"""Figures that are log densities of x, and so depend on the units of x; a KL does not."""

ROWS = 256
"""Sequences times particles that are run at once, which bounds the memory of many particles."""


def sequence_noise(
    ids: Tensor, mask: Tensor, z_dim: int, draws: range, seed: int, dtype: torch.dtype
) -> Tensor:
    """Draws the noise behind z for each sequence from (seed, number of the sequence, number of
    the draw).

    Shapes: ids (B,), mask (T, B) -> (T, K * B, Z), particle-major, zero on padding.
    """
    steps = mask.sum(0).tolist()
    noise = torch.zeros(mask.shape[0], len(draws) * len(steps), z_dim, dtype=dtype)
    keys = [(draw, int(i), n) for draw in draws for i, n in zip(ids.tolist(), steps, strict=True)]
    for column, (draw, i, n) in enumerate(keys):
        rng = np.random.default_rng([seed, i, draw])
        noise[:n, column] = torch.from_numpy(rng.standard_normal((n, z_dim), dtype=np.float32))
    return noise.to(mask.device)


def score(
    model: SequenceModel, x: Tensor, mask: Tensor, ids: Tensor, particles: int = 1, seed: int = 0
) -> dict[str, Tensor]:
    """Computes every bound of each sequence.

    Args:
        x: standardised frames, (T, B, D).
        mask: (T, B).
        ids: (B,), the sequences' numbers in their split, which fix their noise.
        particles: K, draws of the whole latent trajectory; one is enough for a model without
            latents.

    Returns:
        Nats per sequence, each (B,), float64: "elbo", "log_likelihood" and "kl" as means over the
        K draws; and for K > 1 "iwae" and "paper", the importance-weighted bound and the original
        script's estimate.
    """
    if model.z_dim == 0:
        particles = 1
    terms, log_w = [], []
    for draws in chunks(particles, ROWS // len(ids)):
        k = len(draws)
        rows, rows_mask = x.repeat(1, k, 1), mask.repeat(1, k)
        noise = sequence_noise(ids, mask, model.z_dim, draws, seed, x.dtype)
        trace = model.trace(rows, rows_mask, noise=noise)
        parts = bounds.elbo_terms(trace, rows, rows_mask)
        terms.append(torch.stack([sums(part, k) for part in parts]))
        if particles > 1:
            log_w.append(bounds.split_particles(bounds.log_weights(trace, rows, rows_mask), k))

    log_likelihood, kl = torch.cat(terms, dim=1).mean(1)
    figures = {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}
    if particles > 1:
        weights = torch.cat(log_w, dim=1).double()
        figures["iwae"] = bounds.importance_weighted(weights)
        figures["paper"] = bounds.paper_estimate(weights)
    elif model.z_dim == 0:
        figures["iwae"] = figures["paper"] = figures["elbo"]
    return figures


def sums(term: Tensor, particles: int) -> Tensor:
    """Sums over time. Shapes: (T, K * B) -> (K, B), float64."""
    return term.double().sum(0).unflatten(0, (particles, -1))


def chunks(total: int, size: int) -> Iterator[range]:
    size = max(1, size)
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
