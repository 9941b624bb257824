"""The original code's bound on the weights."""

from collections.abc import Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from vrnn.layers.feedforward import Linear
from vrnn.layers.recurrent import Gated, Recurrence

__all__ = ["MaxNorm", "incoming"]


class MaxNorm(Callback):
    """After every update, scales the incoming weights of each unit down to a norm of at most
    `norm`, separately for each of the inputs that meet in it.

    Recurrent matrices and biases are left alone, as in the original code, whose bound is 1.9365.
    Of a recurrence that is neither LSTM nor GRU, the bound is on every
    `vrnn.layers.feedforward.Linear` in it, and on nothing else.
    """

    def __init__(self, norm: float) -> None:
        if not norm > 0:
            raise ValueError(f"callbacks.max_norm.norm must be above 0, not {norm}")
        self.norm = norm

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a recurrence whose matrices it cannot tell apart.

        Raises:
            ValueError: naming it.
        """
        for module in pl_module.modules():
            if isinstance(module, Recurrence) and next(incoming(module), None) is None:
                raise ValueError(
                    f"callbacks.max_norm cannot tell which matrices of {type(module).__name__} "
                    "read its inputs; make them vrnn.layers.feedforward.Linear, or leave the "
                    "bound out by ~callbacks.max_norm"
                )

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        for weight in incoming(pl_module):
            norms = weight.norm(dim=1, keepdim=True)
            weight.mul_(self.norm / norms.clamp(min=self.norm))


def incoming(model: nn.Module) -> Iterator[Tensor]:
    """The matrices that the original code bounds, views of the model's, (units, inputs) each."""
    for module in model.modules():
        if isinstance(module, Linear):
            yield from module.weight.split(module.parents, dim=1)
        if isinstance(module, Gated):
            first, *above = module.input_weights
            yield from first.split(module.parents, dim=1)
            yield from above
