"""The norm of the gradient, and what to do when it is not a number."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from vrnn.arguments import check_counts
from vrnn.checkpoint import find_last, read
from vrnn.diagnostics import sigma_range
from vrnn.models.base import SequenceModel

__all__ = ["Gradients", "NonFiniteError"]

log = logging.getLogger(__name__)

ACTIONS = ("stop", "skip", "rewind")
KEPT = 10
"""Bad batches that are written to files."""


class NonFiniteError(FloatingPointError):
    """A loss or gradient is infinite or not a number."""


class Gradients(Callback):
    """Logs the gradient's norm before clipping, and guards the weights against updates by a loss
    or gradient that is infinite or not a number.

    What is told of such an update, and its batch in bad_batch_<update>.pt, is the same whatever is
    done: "stop", with an error, the weights as before; "skip" the update and count it; "rewind" to
    the weights and moments of last.ckpt, go on with the next batch, and step less far from then
    on.

    Args:
        nonfinite: "stop", "skip" or "rewind".
        folder: of the run.
        smaller: factor of the step size at every rewind.
        most: updates, one after the other, that may be rewound or skipped before training stops.
    """

    def __init__(
        self,
        nonfinite: str = "stop",
        folder: str | None = None,
        smaller: float = 0.5,
        most: int = 20,
    ) -> None:
        if nonfinite not in ACTIONS:
            raise ValueError(
                f"callbacks.gradients.nonfinite={nonfinite} is not one of {', '.join(ACTIONS)}"
            )
        check_counts("callbacks.gradients.", most=most)
        if not 0 < smaller < 1:
            raise ValueError(f"callbacks.gradients.smaller must be between 0 and 1, not {smaller}")
        if nonfinite == "rewind" and folder is None:
            raise ValueError(
                "callbacks.gradients.nonfinite=rewind needs callbacks.gradients.folder"
            )

        self.nonfinite, self.smaller, self.most = nonfinite, smaller, most
        self.folder = None if folder is None else Path(folder)
        self.skipped = self.in_a_row = 0
        self.batches: list[Any] = []
        self.loss: Tensor | float = 0.0

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped = state_dict["skipped"]
        self.in_a_row = state_dict.get("in_a_row", 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append((batch_idx, batch))

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        self.loss = self.loss + loss.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        # The processes must all come to the same decision.
        loss = trainer.strategy.reduce(torch.as_tensor(self.loss), reduce_op="mean")
        if torch.isfinite(norm) and torch.isfinite(loss):
            pl_module.log("train/grad_norm", norm)
            self.in_a_row = 0
        else:
            self.guard(trainer, pl_module, optimizer, float(loss), gradients)
        self.batches, self.loss = [], 0.0

    def guard(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: Optimizer,
        loss: float,
        gradients: dict[str, Tensor],
    ) -> None:
        told = self.tell(trainer, module, loss, gradients)
        self.skipped += 1
        self.in_a_row += 1
        if self.nonfinite == "stop" or self.in_a_row > self.most:
            again = "" if self.nonfinite == "stop" else f" That was {self.in_a_row} in a row."
            raise NonFiniteError(
                f"{told}. The weights are as before this update.{again} Try a smaller optim.lr or "
                "trainer.gradient_clip_val, or callbacks.gradients.nonfinite=skip or rewind"
            )
        optimizer.zero_grad(set_to_none=True)
        module.log("train/skipped_updates", float(self.skipped))
        if self.nonfinite == "skip":
            log.warning("%s; skipped", told)
            return
        assert self.folder is not None
        source = find_last(self.folder)
        if source is not None:
            restore(module, optimizer, source)
        rate = step_less(trainer, optimizer, self.smaller)
        origin = source or "the weights as they are, for want of a checkpoint"
        log.warning("%s; going on from %s with a step size of %.3g", told, origin, rate)

    def tell(
        self,
        trainer: Trainer,
        module: LightningModule,
        loss: float,
        gradients: dict[str, Tensor],
    ) -> str:
        """Says what went wrong, and writes the batches behind it to a file."""
        bad = [name for name, grad in gradients.items() if not torch.isfinite(grad).all()]
        where = [f"batch {i} (training sequences {b.ids.tolist()})" for i, b in self.batches]
        model = cast(SequenceModel, module.model)
        sigmas = [sigma_range(model, b.x, b.mask) for _, b in self.batches]
        what = f"the loss is {loss:.4g}, and the gradient is not finite in {len(bad)} of "
        what += f"{len(gradients)} parameters ({', '.join(bad[:3])}{', ...' if bad[3:] else ''})"
        if not bad:
            what = f"the loss is {loss:.4g}"
        head = type(model.likelihood).__name__
        told = f"at update {trainer.global_step}, {what}; {' and '.join(where)}; {head}'s sigma "
        told += " and ".join(sigmas)
        if self.folder is not None and self.skipped < KEPT:
            rank = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
            file = self.folder / f"bad_batch_{trainer.global_step}{rank}.pt"
            content = [
                {"batch": i, "x": b.x.cpu(), "mask": b.mask.cpu(), "ids": b.ids.cpu()}
                for i, b in self.batches
            ]
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(content, file)
            told += f"; see {file}"
        return told


def restore(module: LightningModule, optimizer: Optimizer, file: Path) -> None:
    """Takes the weights and the optimizer's moments, but not its step size, of a checkpoint."""
    content = read(file)
    module.load_state_dict(content["state_dict"])
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(content["optimizer_states"][0])
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def step_less(trainer: Trainer, optimizer: Optimizer, factor: float) -> float:
    """Makes the step size smaller, also that to which schedules refer; returns it."""
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] *= factor
    for config in trainer.lr_scheduler_configs:
        scheduler = config.scheduler
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
        if hasattr(scheduler, "eta_min"):
            scheduler.eta_min *= factor
    return float(optimizer.param_groups[0]["lr"])
