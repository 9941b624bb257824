"""Scores of sequences under a model, the same whatever their batch, padding or process."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from vrnn.bounds import (
    elbo_terms,
    filtering_bound,
    importance_weighted,
    log_weights,
    paper_estimate,
    split_particles,
)
from vrnn.memory import check_memory
from vrnn.models.base import SequenceModel
from vrnn.models.latent import LatentModel
from vrnn.noise import sequence_noise, sequence_uniform
from vrnn.particle_filter import particle_filter
from vrnn.segments import by_segments
from vrnn.trace import USUAL, Resampling, Trace

__all__ = ["BOUNDS", "DENSITIES", "score"]

BOUNDS = {
    "elbo": ("elbo", "log_likelihood", "kl"),
    "iwae": ("iwae",),
    "fivo": ("fivo",),
    "open_loop": ("open_loop",),
    "paper": ("paper",),
}
"""The figures that belong to each bound."""

DENSITIES = ("elbo", "log_likelihood", "iwae", "fivo", "open_loop", "paper")
"""Figures that are log densities of x, and so depend on the units of x; a KL does not."""

ROWS = 256
"""Sequences times particles that are run at once, which bounds the memory of many particles."""

SEGMENT = 256
"""Steps whose densities are in memory at once."""

FILTER_ROWS = 2048
"""Likewise in the particle filter, which keeps one step at a time."""


def score(
    model: SequenceModel,
    x: Tensor,
    mask: Tensor,
    ids: Tensor,
    particles: int = 1,
    seed: int = 0,
    bounds: Collection[str] = ("elbo", "iwae", "paper"),
    resampling: Resampling = USUAL,
    split: str = "test",
) -> dict[str, Tensor]:
    """Computes bounds of each sequence.

    Args:
        x: standardised frames, (T, B, D).
        mask: (T, B).
        ids: (B,), the sequences' numbers in their split, which fix their noise (`vrnn.noise`).
        particles: K, draws of the whole latent trajectory; one is enough for a model without
            latents.
        bounds: keys of `BOUNDS`; for a model without latents they are all the same, and "elbo"
            always among them, but it has no "open_loop".
        resampling: of the particle filter behind "fivo".
        split: "train", "val" or "test"; the same number has other noise in another split.

    Returns:
        Nats per sequence, each (B,), float64: "elbo", "log_likelihood" and "kl" as means over the
        K draws; "iwae", "paper" and "fivo", the importance-weighted bound, the original script's
        estimate and the filtering bound of K particles; "open_loop", one draw of the ELBO of the
        model left to itself.

    Raises:
        ValueError: as of `sequence_noise`, or if the particles of a single sequence need more
            memory than there is.
        FloatingPointError: if all weights of a sequence underflow or are undefined.
    """
    if not isinstance(model, LatentModel):
        none = x.new_zeros(*x.shape[:2], 0)
        (steps, _), _ = by_segments(elbo_terms, model, x, mask, none, SEGMENT)
        exact = steps.double().sum(0)
        known = {"elbo", *bounds} - {"open_loop"}
        figures = {name: exact for bound in known for name in BOUNDS[bound]}
        return figures | {"kl": torch.zeros_like(exact)}
    figures = {}
    if {"elbo", "iwae", "paper"} & set(bounds):
        figures |= trajectories(model, x, mask, ids, particles, seed, bounds, split)
    if "fivo" in bounds:
        figures["fivo"] = filtered(model, x, mask, ids, particles, seed, resampling, split)
    if "open_loop" in bounds:
        noise = sequence_noise(ids, mask, model.z_dim, range(1), seed, x.dtype, split)
        log_likelihood, kl = elbo_terms(model.open_loop(x, mask, noise), x, mask)
        figures["open_loop"] = (log_likelihood - kl).double().sum(0)
    return figures


def filtered(
    model: LatentModel,
    x: Tensor,
    mask: Tensor,
    ids: Tensor,
    particles: int,
    seed: int,
    resampling: Resampling,
    split: str,
) -> Tensor:
    """The filtering bound of each sequence, (B,), float64."""
    check_memory(len(x), particles, model.z_dim)
    scores = []
    for part in chunks(len(ids), FILTER_ROWS // particles):
        columns = slice(part.start, part.stop)
        own = mask[:, columns]
        uniform = sequence_uniform(ids[columns], len(x), particles, seed, split)
        draws = range(particles)
        noise = sequence_noise(ids[columns], own, model.z_dim, draws, seed, x.dtype, split)
        filtered = particle_filter(model, x[:, columns], own, noise, uniform, resampling)
        check_weights(filtered.log_w, ids[columns])
        scores.append(filtering_bound(filtered._replace(log_w=filtered.log_w.double())))
    return torch.cat(scores)


def trajectories(
    model: LatentModel,
    x: Tensor,
    mask: Tensor,
    ids: Tensor,
    particles: int,
    seed: int,
    bounds: Collection[str],
    split: str,
) -> dict[str, Tensor]:
    """The bounds that need K independent trajectories, each (B,), float64."""

    weighted = not {"iwae", "paper"}.isdisjoint(bounds)

    def terms_of(trace: Trace, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        weights = (log_weights(trace, x, mask),) if weighted else ()
        return *elbo_terms(trace, x, mask), *weights

    terms, log_w = [], []
    for draws in chunks(particles, ROWS // len(ids)):
        k = len(draws)
        noise = sequence_noise(ids, mask, model.z_dim, draws, seed, x.dtype, split)
        parts, _ = by_segments(terms_of, model, x, mask, noise, SEGMENT)
        terms.append(torch.stack([sums(part, k) for part in parts[:2]]))
        if weighted:
            log_w.append(split_particles(parts[2], k))

    log_likelihood, kl = torch.cat(terms, dim=1).mean(1)
    figures = {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}
    if weighted:
        weights = torch.cat(log_w, dim=1).double()
        check_weights(weights.cumsum(0), ids)
        figures["iwae"] = importance_weighted(weights)
        figures["paper"] = paper_estimate(weights)
    wanted = {name for bound in bounds for name in BOUNDS[bound]}
    return {name: value for name, value in figures.items() if name in wanted}


def check_weights(log_w: Tensor, ids: Tensor) -> None:
    """Refuses sequences none of whose particles has a weight. Shapes: (T, K, B), (B,)."""
    bad = ~torch.isfinite(log_w.logsumexp(1))
    if bad.any():
        t, b = bad.nonzero()[0].tolist()
        raise FloatingPointError(
            f"the weights of all {log_w.shape[1]} particles of sequence {ids[b]} vanish or are "
            f"undefined from step {t} on: the model gives this sequence no probability, or its "
            "weights have diverged"
        )


def sums(term: Tensor, particles: int) -> Tensor:
    """Sums over time. Shapes: (T, K * B) -> (K, B), float64."""
    return term.double().sum(0).unflatten(0, (particles, -1))


def chunks(total: int, size: int) -> Iterator[range]:
    size = max(1, size)
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
