"""Do the latent variables carry anything?"""

import logging
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from runs.drawing import draw_latents
from runs.loggers import save_picture
from vrnn.batch import SequenceBatch
from vrnn.diagnostics import LatentUse, latent_use
from vrnn.layers.feedforward import StandardNormal
from vrnn.models.latent import LatentModel
from vrnn.objectives import Objective

__all__ = ["Latents"]

log = logging.getLogger(__name__)

UNUSED = 0.01
"""Nats per time step below which the latents say next to nothing."""

MIXTURE = (
    "With a mixture as output this is usual: on handwriting, latents that are noise give the same "
    "bound (docs/experiments.md, The first run). "
)
"""Said where the output has several components."""


class Latents(Callback):
    """Logs what the latents do, on the first sequences of the validation split, and says when
    they do nothing.

    Args:
        folder: where the picture goes.
        sequences: how many are looked at.
    """

    def __init__(self, folder: str, sequences: int = 16) -> None:
        self.folder, self.sequences = Path(folder), sequences
        self.use: LatentUse | None = None
        self.alarmed = False

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
            few = slice(self.sequences)
            x, mask, ids = batch.x[:, few], batch.mask[:, few], batch.ids[few]
            self.use = latent_use(cast(LatentModel, pl_module.model), x, mask, ids, split="val")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        use = self.use
        if use is None or trainer.sanity_checking:
            return
        figures = {
            "latent/active_units": use.active.sum().float(),
            "latent/kl_of_strongest": use.kl.max(),
            "latent/overlap": use.overlap.mean(),
            "latent/effective_particles": use.effective.mean(),
        }
        pl_module.log_dict(figures, rank_zero_only=True)
        if trainer.is_global_zero:
            figure = draw_latents(*(torch.nan_to_num(part).cpu().numpy() for part in use))
            save_picture(trainer, figure, self.folder, "latent/use", "latents")
            self.alarm(trainer.current_epoch, use, pl_module)

    def alarm(self, epoch: int, use: LatentUse, module: LightningModule) -> None:
        """Warns once of a posterior that has fallen together with the prior; not in a twin, where
        they are the same."""
        kl, model = float(use.kl.sum()), cast(LatentModel, module.model)
        if self.alarmed or epoch == 0 or kl >= UNUSED or model.latents != "inferred":
            return
        self.alarmed = True
        options = starts(module)
        log.warning(
            "the latents are hardly used: KL is %.4f nats a step, and %d of %d dimensions are "
            "active. %sTo see what they are worth, compare fivo with silenced in evaluate.py RUN "
            "--bounds fivo,silenced%s",
            kl,
            int(use.active.sum()),
            len(use.active),
            MIXTURE if getattr(model.likelihood, "components", 1) > 1 else "",
            f"; to give them a start, try {', or '.join(options)}" if options else "",
        )


def starts(module: LightningModule) -> list[str]:
    """Options that may bring latents into use, of those that this run's model and objective take
    and were not given."""
    model, objective = cast(LatentModel, module.model), cast(Objective, module.objective)
    learned = not isinstance(getattr(model.cell, "prior", None), StandardNormal)
    taken = {
        "objective.kl_start=0.1 with objective.kl_steps=...": objective.kl_steps == 0,
        "objective.free_bits=...": getattr(objective, "free_bits", None) == 0,
        "model.residual=true": learned and getattr(model.cell, "residual", None) is False,
        "objective=fivo": objective.name != "fivo" and model.checkpoint_steps is None,
    }
    return [option for option, fits in taken.items() if fits]
