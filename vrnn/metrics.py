"""Means over sequences and their standard errors, exact in any batching, over any processes."""

from collections.abc import Mapping

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
    corpus's own units, and `f_paper` in those of the paper's tables where there are such.

    Args:
        log_scales: log scale of every space (`vrnn.normaliser.convert`).
    """

    full_state_update = False

    def __init__(self, log_scales: Mapping[str, float]) -> None:
        super().__init__()

        self.log_scales = dict(log_scales)
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
            result |= summary(name, nats, steps)
            for space in self.log_scales if name in DENSITIES else ():
                if space != "standardised":
                    converted = convert(nats, steps, self.log_scales, "standardised", space)
                    result |= summary(f"{name}_{space}", converted, steps)
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
