"""Lightning's progress bar, without what says nothing here."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

__all__ = ["Progress"]


class Progress(RichProgressBar):
    """Shows neither the loggers' version, nor how many epochs where updates end the training."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        figures: dict[str, Any] = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        return figures

    def _get_train_description(self, current_epoch: int) -> str:
        text: str = super()._get_train_description(current_epoch)
        return text.replace("/-2", "  ")  # of max_epochs=-1
