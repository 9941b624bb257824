"""The norm of the gradient, and what to do when it is not a number."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Gradients", "NonFiniteError"]


class NonFiniteError(FloatingPointError):
    """A loss or gradient is infinite or not a number."""


class Gradients(Callback):
    """Logs the gradient's norm before clipping, and guards the weights against infinite or
    undefined updates.

    Args:
        nonfinite: "stop", with an error that names update, sequences and parameters, before the
            weights are touched; or "skip" the update and count it.
    """

    def __init__(self, nonfinite: str = "stop") -> None:
        if nonfinite not in ("stop", "skip"):
            raise ValueError(f"callbacks.gradients.nonfinite={nonfinite} is not one of stop, skip")

        self.nonfinite = nonfinite
        self.skipped = 0
        self.sequences: list[int] = []

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped = state_dict["skipped"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        ids: Tensor = batch.ids  # type: ignore[attr-defined]
        self.sequences = ids.tolist()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if torch.isfinite(norm):
            pl_module.log("train/grad_norm", norm)
            return
        if self.nonfinite == "skip":
            self.skipped += 1
            optimizer.zero_grad(set_to_none=True)
            pl_module.log("train/skipped_updates", float(self.skipped))
            return
        bad = [name for name, grad in gradients.items() if not torch.isfinite(grad).all()]
        raise NonFiniteError(
            f"the gradient is not finite at update {trainer.global_step}, in {len(bad)} of "
            f"{len(gradients)} parameters ({', '.join(bad[:3])}, ...), with training sequences "
            f"{self.sequences}. The weights are as before this update. Try a smaller optim.lr or "
            "trainer.gradient_clip_val, or callbacks.gradients.nonfinite=skip"
        )
