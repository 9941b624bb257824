"""How fast training goes, in time steps, and what it waits for."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer

from vrnn.batch import SequenceBatch

__all__ = ["Throughput"]


class Throughput(Callback):
    """Logs time steps a second, the share of a batch that is padding, and the share of time spent
    waiting for data.

    A time step is one frame of one sequence, padding not counted. Figures are means since they
    were last logged.
    """

    def __init__(self) -> None:
        self.reset(time.perf_counter())

    def reset(self, now: float) -> None:
        self.start, self.ended = now, now
        self.steps = self.cells = 0
        self.waited = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset(time.perf_counter())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: SequenceBatch, batch_idx: int
    ) -> None:
        self.waited += time.perf_counter() - self.ended

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: SequenceBatch,
        batch_idx: int,
    ) -> None:
        self.steps += int(batch.mask.sum())
        self.cells += batch.mask.numel()
        self.ended = time.perf_counter()
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            elapsed = self.ended - self.start
            pl_module.log_dict(
                {
                    "throughput/steps_per_second": self.steps / elapsed,
                    "throughput/padding_share": 1 - self.steps / self.cells,
                    "throughput/waiting_share": self.waited / elapsed,
                }
            )
            self.reset(self.ended)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pause = time.perf_counter() - self.paused
        self.start += pause
        self.ended += pause
