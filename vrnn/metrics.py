"""Means over sequences and their standard errors, exact in any batching, over any processes."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vrnn.bounds import is_density
from vrnn.normaliser import convert

__all__ = ["Scores"]


class Scores(Metric):
    """Collects one figure a sequence and reports their means in all units.

    For every figure f, all in nats: `f` is the mean over sequences, `f_per_step` the sum over all
    sequences by the sum of their steps; `..._se` the standard errors of these over sequences. They
    are in standardised space; for densities, `f_raw`, `f_raw_per_step` and so on are the same in
    the corpus's own units, and `f_paper` in those of the paper's tables where there are such. Log
    probabilities of a discrete likelihood are the same in all spaces.

    Of audio, `f_per_sample` is `f_per_step` by the samples of a frame; of a discrete likelihood
    there are also `f_bits_per_sample`, lower is better.

    Args:
        log_scales: log scale of every space (`vrnn.normaliser.convert`).
        samples: numbers in a frame, where figures for each of them are of use.
        discrete: the likelihood is one of probabilities.
    """

    full_state_update = False

    @classmethod
    def of(cls, data: Mapping[str, Any], discrete: bool = False) -> "Scores":
        """Creates the scores of data so described (`SequenceData.description`), under a discrete
        likelihood or a density."""
        scales = data["log_scales"]
        samples = len(data["columns"]) if discrete or data["kind"] == "audio" else None
        return cls(dict.fromkeys(scales, 0.0) if discrete else scales, samples, discrete)

    def __init__(
        self,
        log_scales: Mapping[str, float],
        samples: int | None = None,
        discrete: bool = False,
    ) -> None:
        super().__init__()

        self.log_scales, self.samples, self.discrete = dict(log_scales), samples, discrete
        self.names: list[str] = []
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, ids: Tensor, steps: Tensor, figures: Mapping[str, Tensor]) -> None:
        """Adds a batch. Shapes: ids, steps and every figure (B,)."""
        self.names = list(figures)
        rows: list[Tensor] = self.rows  # type: ignore[assignment]
        rows.append(torch.stack([ids, steps, *figures.values()], dim=1).double())

    def by_sequence(self) -> dict[str, Tensor]:
        """The figures of every sequence, each (N,), in nats, those of densities in raw units, by
        name; and "sequence", its number in the split, rising, and "steps"."""
        rows = self.sorted_rows()
        columns = {"sequence": rows[:, 0], "steps": rows[:, 1]}
        for name, nats in zip(self.names, rows[:, 2:].T, strict=True):
            space = "raw" if is_density(name) else "standardised"
            columns[name] = convert(nats, rows[:, 1], self.log_scales, "standardised", space)
        return columns

    def sorted_rows(self) -> Tensor:
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        assert isinstance(rows, Tensor)
        return rows[rows[:, 0].argsort()]

    def compute(self) -> dict[str, float]:
        """All figures, and "sequences" and "steps", their numbers."""
        rows = self.sorted_rows()
        steps = rows[:, 1]
        result = {"sequences": float(len(rows)), "steps": float(steps.sum())}
        for name, nats in zip(self.names, rows[:, 2:].T, strict=True):
            density = is_density(name)
            for space in self.log_scales if density else ("standardised",):
                converted = convert(nats, steps, self.log_scales, "standardised", space)
                key = name if space == "standardised" else f"{name}_{space}"
                result |= summary(key, converted, steps)
                if self.samples is not None:
                    result |= by_sample(key, result, self.samples, self.discrete and density)
        return result


def summary(name: str, nats: Tensor, steps: Tensor) -> dict[str, float]:
    """Means and standard errors of `nats` (N,) over sequences of `steps` (N,) frames."""
    n = len(nats)
    per_step = nats.sum() / steps.sum()
    result = {name: nats.mean().item(), f"{name}_per_step": per_step.item()}
    if n > 1:
        residual = nats - per_step * steps
        result[f"{name}_se"] = (nats.std() / n**0.5).item()
        result[f"{name}_per_step_se"] = (residual.std() / n**0.5 / steps.mean()).item()
    return result


def by_sample(
    name: str, figures: Mapping[str, float], samples: int, in_bits: bool
) -> dict[str, float]:
    """`{name}_per_step` for each of the numbers of a frame; if wanted, in bits of code length
    too."""
    result = {}
    for suffix, sign in (("", -1), ("_se", 1)):
        if f"{name}_per_step{suffix}" in figures:
            value = figures[f"{name}_per_step{suffix}"] / samples
            result[f"{name}_per_sample{suffix}"] = value
            if in_bits:
                result[f"{name}_bits_per_sample{suffix}"] = sign * value / math.log(2)
    return result
