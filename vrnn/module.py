"""The LightningModule: when to compute which loss and scores. No density is computed here."""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning import LightningModule, Trainer
from torch import Tensor

from vrnn.arguments import check_counts, choose
from vrnn.batch import SequenceBatch
from vrnn.bounds import BOUNDS, DEFAULT_BOUNDS
from vrnn.evaluation import score
from vrnn.layers.state import State
from vrnn.memory import memory_told
from vrnn.metrics import Scores
from vrnn.normaliser import Normaliser

__all__ = ["VRNNModule"]


class VRNNModule(LightningModule):
    """Trains and scores a sequence model.

    All arguments are plain containers, so that a checkpoint holds nothing else and rebuilds the
    model alone.

    Args:
        model: `_target_` and arguments of a `SequenceModel`. A discrete likelihood is given the
            `shift` and `scale` of `data`, by which it knows its levels.
        objective: `_target_` and arguments of an objective (`vrnn.objectives`).
        optim: "optimizer", and optionally "scheduler" (stepped at every update), each a
            `_target_` and arguments.
        data: what the data module says of the corpus (`SequenceData.description`).
        particles: K of the test scores.
        seed: of all noise, which is a function of the seed, the rank and the number of the update.
        loss_mean: what the loss is a mean over, time "steps" or "sequences". A batch's sum is
            divided by those of a full batch of the training split, `data["batch"]`, hence by the
            same number in every update.

    Raises:
        ValueError: if there are fewer particles than one, or `loss_mean` is neither; in training,
            if `data` has no "batch", as that of older checkpoints.
        InstantiationException: Hydra's, if a part of the model or of the objective refuses its
            arguments; its `__cause__` says why.

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
        loss_mean: str = "steps",
    ) -> None:
        super().__init__()
        check_counts(particles=particles)
        choose("loss_mean", loss_mean, ("steps", "sequences"))
        self.save_hyperparameters()

        normaliser = Normaliser(
            data["shift"], data["scale"], data.get("means"), data.get("centre", False)
        )
        self.model = instantiate(with_levels(model, data), normaliser=normaliser, _convert_="all")
        self.objective = instantiate(objective)
        self.optim, self.particles, self.seed = optim, particles, seed
        self.figures: dict[str, float] = {}
        self.carried: State | None = None
        discrete = self.model.likelihood.discrete
        self.val_scores, self.test_scores = Scores.of(data, discrete), Scores.of(data, discrete)

    def configure_optimizers(self) -> Any:
        try:
            optimizer = instantiate(
                self.optim["optimizer"], self.model.parameters(), _convert_="all"
            )
        except InstantiationException as error:
            raise ValueError(f"optim.optimizer: {error.__cause__ or error}") from error
        if not self.optim.get("scheduler"):
            return optimizer
        scheduler = instantiate(self.optim["scheduler"], optimizer, _convert_="all")
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_fit_start(self) -> None:
        if "batch" not in self.hparams["data"]:
            raise ValueError(
                "the module's description of its data is that of an older checkpoint, without the "
                "size of a training batch, by which the loss is divided: train by train.py "
                "ckpt=<checkpoint>, or give VRNNModule the `description()` of the data"
            )

    def on_train_start(self) -> None:
        # torch raises in the update after a schedule's last one: tell before the first.
        planned = planned_updates(self.trainer)
        for config in self.trainer.lr_scheduler_configs:
            last = getattr(config.scheduler, "total_steps", float("inf"))
            if planned > last:
                raise ValueError(
                    f"the schedule of the step size ends after {last} updates, and the training "
                    f"after {planned}: give optim.steps={planned} or trainer.max_steps={last}"
                )

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        self.shape = batch.x.shape
        with self.memory_told(), self.dropout_seeded(batch_idx):
            result = self.objective(
                self.model,
                batch.x,
                batch.mask,
                self.training_rng(batch_idx),
                self.global_step,
                self.initial_state(batch),
            )
        if batch.continues is not None:
            self.carried = tuple(s.detach() for s in result.state)
        steps = batch.mask.sum()
        per_step = {
            f"train/{self.objective.name}_per_step": result.bound / steps,
            "train/kl_per_step": result.kl / steps,
        }
        self.log_dict(per_step, prog_bar=True, batch_size=len(batch.ids))
        self.log("train/kl_weight", self.objective.kl_weight(self.global_step))
        # A constant, so that Lightning's mean over accumulated batches and DDP's over ranks keep
        # the weights of all frames equal.
        loss: Tensor = result.loss / self.hparams["data"]["batch"][self.hparams["loss_mean"]]
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with self.memory_told():
            super().backward(loss, *args, **kwargs)

    def memory_told(self) -> AbstractContextManager[None]:
        objective, steps = self.objective, self.model.checkpoint_steps
        return memory_told(self.shape, objective.particles, steps, objective.segments)

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        # The objective's own bound chooses the best weights, beside the ELBO.
        self.score(batch, "val", self.val_scores, self.objective.particles)

    def on_validation_epoch_end(self) -> None:
        self.report("val", self.val_scores)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        more = DEFAULT_BOUNDS if self.particles > 1 else ()
        self.score(batch, "test", self.test_scores, self.particles, more)

    def on_test_epoch_end(self) -> None:
        self.report("test", self.test_scores)

    def score(
        self,
        batch: SequenceBatch,
        split: str,
        scores: Scores,
        particles: int,
        more: Iterable[str] = (),
    ) -> None:
        # An objective of one's own may have a bound that nothing but training computes.
        bounds = {"elbo", self.objective.name, *more} & BOUNDS.keys()
        x, mask, ids, resampling = batch.x, batch.mask, batch.ids, self.objective.resampling
        figures = score(self.model, x, mask, ids, particles, self.seed, bounds, resampling, split)
        scores.update(batch.ids, batch.mask.sum(0), figures)

    def report(self, split: str, scores: Scores) -> None:
        # The metric has gathered all ranks' sequences, so every rank logs the same figures.
        figures = {f"{split}/{name}": value for name, value in scores.compute().items()}
        scores.reset()
        self.figures |= figures
        self.log_dict(figures)

    def training_rng(self, batch_idx: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.training_seed(batch_idx, 0))

    @contextmanager
    def dropout_seeded(self, batch_idx: int) -> Iterator[None]:
        """Dropout draws from torch's global random state: makes that a function of the update, as
        all other noise is, so that a resumed run goes on as it would have."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.model.drops_out):
            if self.model.drops_out:
                torch.manual_seed(self.training_seed(batch_idx, 1))
            yield

    def training_seed(self, batch_idx: int, use: int) -> int:
        """A number for each update, rank, batch and use of random numbers."""
        key = [self.seed, self.global_rank, self.global_step, batch_idx]
        return int(np.random.SeedSequence(key).generate_state(use + 1)[use])

    def initial_state(self, batch: SequenceBatch) -> State | None:
        """Where the batch's rows start: where they ended in the batch before, or at h_0."""
        if batch.continues is None or self.carried is None:
            return None
        goes_on = batch.continues.repeat(self.objective.particles)[:, None]
        # After a batch that was skipped its rows begin anew.
        for s in self.carried:
            goes_on = goes_on & s.isfinite().all(0).all(-1, keepdim=True)
        begun = self.model.initial(len(goes_on))
        return tuple(
            torch.where(goes_on, s, first.to(s))
            for s, first in zip(self.carried, begun, strict=True)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.carried is not None:
            gathered = self.all_gather(self.carried) if self.trainer.world_size > 1 else None
            every_rank = gathered or tuple(s[None] for s in self.carried)
            checkpoint["carried"] = [s.cpu() for s in every_rank]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "carried" in checkpoint:
            rank = self.global_rank
            self.carried = tuple(s[rank].to(self.device) for s in checkpoint["carried"])


def planned_updates(trainer: Trainer) -> float:
    """Updates at which a training ends. Lightning's own estimate makes the batches' order anew,
    which a resumed run must not do."""
    an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    epochs, steps = trainer.max_epochs, trainer.max_steps
    by_epochs = math.inf if epochs in (None, -1) else epochs * an_epoch
    return by_epochs if steps == -1 else min(by_epochs, steps)


def with_levels(model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The model's description, where its likelihood is discrete with the data's normaliser."""
    likelihood = model["likelihood"]
    if not getattr(get_class(likelihood["_target_"]), "discrete", False):
        return model
    return {**model, "likelihood": {**likelihood, "shift": data["shift"], "scale": data["scale"]}}
