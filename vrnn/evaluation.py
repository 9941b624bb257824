"""Scores of sequences under a model, the same whatever their batch, padding or process."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vrnn.bounds import (
    BOUNDS,
    DEFAULT_BOUNDS,
    Bound,
    Source,
    Terms,
    check_bounds,
    elbo_terms,
    log_weights,
    split_particles,
)
from vrnn.memory import check_memory
from vrnn.models.base import SequenceModel
from vrnn.models.latent import LatentModel
from vrnn.noise import sequence_noise, sequence_uniform
from vrnn.particle_filter import particle_filter
from vrnn.segments import by_segments
from vrnn.trace import USUAL, Particles, Resampling, Trace

__all__ = ["score"]

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
    bounds: Collection[str] = DEFAULT_BOUNDS,
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
        bounds: keys of `vrnn.bounds.BOUNDS`; for a model without latents they are all log p(x),
            and "elbo" is always among them, but it has no "open_loop".
        resampling: of the particle filters behind "fivo" and "silenced".
        split: "train", "val" or "test"; the same number has other noise in another split.

    Returns:
        Nats per sequence, each (B,), float64, by name: the bounds, and with "elbo" its two parts,
        "log_likelihood" and "kl". The ELBO and its parts are means over the K draws; "open_loop"
        is one draw.

    Raises:
        ValueError: as of `sequence_noise`, if a bound is unknown, or if the particles of a single
            sequence need more memory than there is.
        FloatingPointError: if all weights of a sequence underflow or are undefined.
    """
    check_bounds(bounds)
    wanted = {name: BOUNDS[name] for name in BOUNDS if name in bounds}
    if model.exact or not isinstance(model, LatentModel):
        none = x.new_zeros(*x.shape[:2], 0)
        (steps, _), _ = by_segments(elbo_terms, model, x, mask, none, SEGMENT)
        exact = steps.double().sum(0)
        terms = Terms(exact, torch.zeros_like(exact))
        figures = computed({"elbo": BOUNDS["elbo"]}, Source.TERMS, terms)
        return figures | {name: exact for name in wanted if wanted[name].of_log_likelihood}
    needed = {bound.source for bound in wanted.values()}
    figures = {}
    if needed & {Source.TERMS, Source.WEIGHTS}:
        weighted = Source.WEIGHTS in needed
        means, log_w = trajectories(model, x, mask, ids, particles, seed, weighted, split)
        figures = computed(wanted, Source.TERMS, means) | computed(wanted, Source.WEIGHTS, log_w)
    for source in needed & {Source.FILTER, Source.SILENCED}:
        silenced = source is Source.SILENCED
        filters = filtered(model, x, mask, ids, particles, seed, resampling, split, silenced)
        parts = [computed(wanted, source, part) for part in filters]
        figures |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if Source.OPEN_LOOP in needed:
        noise = sequence_noise(ids, mask, model.z_dim, range(1), seed, x.dtype, split)
        own = elbo_terms(model.open_loop(x, mask, noise), x, mask)
        figures |= computed(wanted, Source.OPEN_LOOP, own)
    return figures


def computed(bounds: Mapping[str, Bound], source: Source, value: Any) -> dict[str, Tensor]:
    """Those of the bounds that have this source, and their parts."""
    figures = {}
    for name, bound in bounds.items():
        if bound.source is source:
            figures[name] = bound.compute(value)
            figures |= {part: getattr(value, part) for part in bound.parts}
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
    silenced: bool,
) -> Iterator[Particles]:
    """Particles of a filter, weights in float64; of so many sequences at a time as fit."""
    check_memory(len(x), particles, model.z_dim)
    for part in chunks(len(ids), FILTER_ROWS // particles):
        columns = slice(part.start, part.stop)
        own = mask[:, columns]
        uniform = sequence_uniform(ids[columns], len(x), particles, seed, split)
        draws = range(particles)
        noise = sequence_noise(ids[columns], own, model.z_dim, draws, seed, x.dtype, split)
        filtered = particle_filter(
            model, x[:, columns], own, noise, uniform, resampling, silenced=silenced
        )
        check_weights(filtered.log_w, ids[columns])
        yield filtered._replace(log_w=filtered.log_w.double())


def trajectories(
    model: LatentModel,
    x: Tensor,
    mask: Tensor,
    ids: Tensor,
    particles: int,
    seed: int,
    weighted: bool,
    split: str,
) -> tuple[Terms, Tensor | None]:
    """Terms of K independent trajectories, their means (B,), and if wanted log weights (T, K, B);
    float64."""

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

    means = Terms(*torch.cat(terms, dim=1).mean(1))
    if not weighted:
        return means, None
    weights = torch.cat(log_w, dim=1).double()
    check_weights(weights.cumsum(0), ids)
    return means, weights


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
