"""The LightningModule: when to compute which loss and scores. No density is computed here."""

from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning import LightningModule
from torch import Tensor

from datamodules.base import SequenceBatch
from vrnn.evaluation import score
from vrnn.metrics import Scores
from vrnn.normaliser import Normaliser

__all__ = ["VRNNModule"]


class VRNNModule(LightningModule):
    """Trains and scores a sequence model.

    All arguments are plain containers, so that a checkpoint holds nothing else and rebuilds the
    model alone.

    Args:
        model: `_target_` and arguments of a `SequenceModel`.
        objective: `_target_` and arguments of an objective (`vrnn.objectives`).
        optim: "optimizer", and optionally "scheduler" (stepped at every update), each a
            `_target_` and arguments.
        data: what the data module says of the corpus (`SequenceData.description`).
        particles: K of the test scores.
        seed: of all noise, which is a function of the seed, the rank and the number of the update.

    Attributes:
        figures: the last validation and test scores, keys `split/name`, in double precision.
    """

    def __init__(
        self,
        model: dict[str, Any],
        objective: dict[str, Any],
        optim: dict[str, Any],
        data: dict[str, Any],
        particles: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if particles < 1:
            raise ValueError(f"particles must be at least 1, not {particles}")
        self.save_hyperparameters()

        normaliser = Normaliser(data["shift"], data["scale"])
        self.model = instantiate(model, normaliser=normaliser)
        self.objective = instantiate(objective)
        self.optim, self.particles, self.seed = optim, particles, seed
        self.figures: dict[str, float] = {}
        self.val_scores = Scores.of(data)
        self.test_scores = Scores.of(data)

    def configure_optimizers(self) -> Any:
        optimizer = instantiate(self.optim["optimizer"], self.model.parameters(), _convert_="all")
        if not self.optim.get("scheduler"):
            return optimizer
        scheduler = instantiate(self.optim["scheduler"], optimizer, _convert_="all")
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        noise = self.training_noise(batch, batch_idx)
        result = self.objective(self.model, batch.x, batch.mask, noise, self.global_step)
        steps = batch.mask.sum()
        per_step = {
            "train/elbo_per_step": (result.log_likelihood - result.kl) / steps,
            "train/kl_per_step": result.kl / steps,
        }
        self.log_dict(per_step, prog_bar=True, batch_size=len(batch.ids))
        self.log("train/kl_weight", self.objective.kl_weight(self.global_step))
        loss: Tensor = result.loss / self.mean_over_ranks(steps)
        return loss

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self.score(batch, self.val_scores, particles=1)

    def on_validation_epoch_end(self) -> None:
        self.report("val", self.val_scores)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self.score(batch, self.test_scores, self.particles)

    def on_test_epoch_end(self) -> None:
        self.report("test", self.test_scores)

    def score(self, batch: SequenceBatch, scores: Scores, particles: int) -> None:
        figures = score(self.model, batch.x, batch.mask, batch.ids, particles, self.seed)
        scores.update(batch.ids, batch.mask.sum(0), figures)

    def report(self, split: str, scores: Scores) -> None:
        # The metric has gathered all ranks' sequences, so every rank logs the same figures.
        figures = {f"{split}/{name}": value for name, value in scores.compute().items()}
        scores.reset()
        self.figures |= figures
        self.log_dict(figures)

    def training_noise(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        key = np.random.SeedSequence([self.seed, self.global_rank, self.global_step, batch_idx])
        generator = torch.Generator(self.device).manual_seed(int(key.generate_state(1)[0]))
        shape = (*batch.mask.shape, self.model.z_dim)
        return torch.randn(shape, generator=generator, device=self.device, dtype=batch.x.dtype)

    def mean_over_ranks(self, steps: Tensor) -> Tensor:
        """With this divisor, time steps of all ranks weigh the same in DDP's mean of gradients."""
        if self.trainer.world_size == 1:
            return steps
        gathered = self.all_gather(steps)
        assert isinstance(gathered, Tensor)
        return gathered.float().mean()
