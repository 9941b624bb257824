"""Do the latent variables carry anything?"""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.drawing import draw_latents
from callbacks.tracking import save_picture
from datamodules.base import SequenceBatch
from vrnn.diagnostics import LatentUse, latent_use

__all__ = ["Latents"]


class Latents(Callback):
    """Logs the KL of each latent dimension and how many are active, on the first validation batch.

    Args:
        folder: where the picture goes.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.use: LatentUse | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: SequenceBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self.use = latent_use(pl_module.model, batch.x, batch.mask, batch.ids)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.use is None or trainer.sanity_checking:
            return
        pl_module.log("latent/active_units", self.use.active.sum().float(), rank_zero_only=True)
        pl_module.log("latent/kl_of_strongest", self.use.kl.max(), rank_zero_only=True)
        if trainer.is_global_zero:
            figure = draw_latents(
                torch.nan_to_num(self.use.kl).cpu().numpy(), self.use.active.cpu().numpy()
            )
            save_picture(trainer, figure, self.folder, "latent/kl_per_dimension", "latents")
