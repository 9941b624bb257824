"""Means over sequences and their standard errors, exact in any batching, over any processes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vrnn.evaluation import DENSITIES
from vrnn.normaliser import convert

__all__ = ["Scores"]


class Scores(Metric):
    """Collects one figure a sequence and reports their means in all units.

    For every figure f, all in nats: `f` is the mean over sequences, `f_per_step` the sum over all
        sequences by
    the sum of their steps; `..._se` the standard errors of these over sequences. They are in
    standardised space; for densities, `f_raw`, `f_raw_per_step` and so on are the same in the
    corpus's own units, and `f_paper` in those of the paper's tables where there are such. Of
    audio, `f_per_sample` is `f_per_step` by the samples of a frame.

    Args:
        log_scales: log scale of every space (`vrnn.normaliser.convert`).
        samples: samples of an audio frame; None for other sequences.
    """

    full_state_update = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Scores":
        """Creates the scores of data so described (`SequenceData.description`)."""
        return cls(data["log_scales"], len(data["columns"]) if data["kind"] == "audio" else None)

    def __init__(self, log_scales: Mapping[str, float], samples: int | None = None) -> None:
        super().__init__()

        self.log_scales, self.samples = dict(log_scales), samples
        self.names: list[str] = []
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, ids: Tensor, steps: Tensor, figures: Mapping[str, Tensor]) -> None:
        """Adds a batch. Shapes: ids, steps and every figure (B,)."""
        self.names = list(figures)
        rows: list[Tensor] = self.rows  # type: ignore[assignment]
        rows.append(torch.stack([ids, steps, *figures.values()], dim=1).double())

    def compute(self) -> dict[str, float]:
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        assert isinstance(rows, Tensor)
        rows = rows[rows[:, 0].argsort()]
        steps = rows[:, 1]
        result = {"sequences": float(len(rows)), "steps": float(steps.sum())}
        for name, nats in zip(self.names, rows[:, 2:].T, strict=True):
            result |= summary(name, nats, steps, self.samples)
            for space in self.log_scales if name in DENSITIES else ():
                if space != "standardised":
                    converted = convert(nats, steps, self.log_scales, "standardised", space)
                    result |= summary(f"{name}_{space}", converted, steps, self.samples)
        return result


def summary(
    name: str, nats: Tensor, steps: Tensor, samples: int | None = None
) -> dict[str, float]:
    """Means and standard errors of `nats` (N,) over sequences of `steps` (N,) frames."""
    n = len(nats)
    per_step = nats.sum() / steps.sum()
    result = {name: nats.mean().item(), f"{name}_per_step": per_step.item()}
    if n > 1:
        residual = nats - per_step * steps
        result[f"{name}_se"] = (nats.std() / n**0.5).item()
        result[f"{name}_per_step_se"] = (residual.std() / n**0.5 / steps.mean()).item()
    if samples is not None:
        frame = {key: value for key, value in result.items() if "_per_step" in key}
        result |= {k.replace("_per_step", "_per_sample"): v / samples for k, v in frame.items()}
    return result
