"""Which latent dimensions matter, and what a listener or reader would say that they do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from playground.kinds import Kind, Measure
from playground.stream import Controls, Stream
from runs.samples import typical_steps
from vrnn.layers.state import top
from vrnn.models.base import SequenceModel

__all__ = ["Style", "find_styles"]

OFFSET = 2.0
"""Standard deviations of the prior, upwards and downwards, between which effects are measured."""

ROWS = 16
"""Sequences behind a measurement."""

SLIDERS = 6
"""Of the page, at most."""

WEAKEST = 0.002
"""Nats a frame below which a dimension is left out."""


class Style(NamedTuple):
    """A latent dimension worth a slider."""

    dimension: int
    nats: float
    """Mean drop of log p(x_t | z_t, h_{t-1}) when this dimension of z_t alone moves by one
    standard deviation of its prior, up or down."""
    effect: str
    """What is measured to change when the offset rises, in words."""


def find_styles(model: SequenceModel, kind: Kind, data: Mapping[str, Any]) -> list[Style]:
    """Finds the strongest latent dimensions and measures what they do, on generated sequences.

    Args:
        data: the description of the corpus (`SequenceData.description`).
    """
    if model.z_dim == 0:
        return []
    steps = min(max(typical_steps(data), 40), 200)
    nats = strengths(model, steps, seed=0)
    strongest = [int(d) for d in nats.argsort(descending=True)[:SLIDERS] if nats[d] > WEAKEST]
    told = effects(model, kind, strongest, steps) if strongest else []
    return [Style(d, float(nats[d]), what) for d, what in zip(strongest, told, strict=True)]


@torch.inference_mode()
def strengths(model: SequenceModel, steps: int, seed: int) -> Tensor:
    """`Style.nats` of every dimension, (Z,)."""
    stream, z_dim = Stream(model, seed, batch=ROWS), model.z_dim
    drops = []
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for _ in range(20):
            stream.frames(max(steps // 20, 1), Controls())
            z, prior = model.draw_z(stream.state, torch.randn(ROWS, z_dim).to(stream.state[0]))
            assert prior is not None
            h = top(stream.state)
            likelihood = model.likelihood(model.decode(z, h))
            x = likelihood.sample()
            # Both ways, so that the noise of the first order cancels.
            sigma = torch.eye(z_dim).to(z)[:, None] * prior[1]
            moved = torch.stack([z + sigma, z - sigma])
            elsewhere = model.likelihood(model.decode(moved, h.expand(2, z_dim, *h.shape)))
            drops.append((likelihood.log_prob(x) - elsewhere.log_prob(x)).mean((0, 2)))
    return torch.stack(drops).mean(0)


def effects(model: SequenceModel, kind: Kind, dimensions: list[int], steps: int) -> list[str]:
    """`Style.effect` of some dimensions."""
    offsets = torch.zeros(len(dimensions), 2, ROWS, model.z_dim)
    for i, d in enumerate(dimensions):
        offsets[i, :, :, d] = torch.tensor([OFFSET, -OFFSET])[:, None]
    controls = Controls(offsets=offsets.flatten(0, 2))
    stream = Stream(model, seed=0, batch=offsets[..., 0].numel())
    console = Console(stderr=True)
    x = torch.cat(
        [
            stream.frames(1, controls)
            for _ in track(range(steps), "measuring styles", transient=True, console=console)
        ]
    )
    raw = model.normaliser.raw(x).unflatten(1, offsets.shape[:3])
    values = [(measure, measure.of(raw)) for measure in kind.measures]
    return [describe([(measure, v[i]) for measure, v in values]) for i in range(len(dimensions))]


def describe(values: list[tuple[Measure, Tensor]]) -> str:
    """Says what changes by more than three standard errors when the offset rises.

    Args:
        values: of each measure, upwards and downwards, (2, ROWS).
    """
    found = []
    for measure, (up, down) in values:
        change = float(up.mean() - down.mean())
        error = float((up.var() + down.var()) / ROWS) ** 0.5
        if abs(change) > 3 * error:
            amount = f"{change:+.0f}°" if measure.degrees else f"{change / down.mean():+.0%}"
            amount = amount.replace("-", "\N{MINUS SIGN}")
            word = measure.more if change > 0 else measure.less
            found.append((abs(change) / error, f"{word} ({amount})"))
    return ", ".join(text for _, text in sorted(found, reverse=True)[:3])
