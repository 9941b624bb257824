"""Checkpoints that are never half written, and that training goes on from exactly."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from vrnn.checkpoint import previous

__all__ = ["BestCheckpoint", "DurableFiles", "LastCheckpoint"]

log = logging.getLogger(__name__)


class DurableFiles(TorchCheckpointIO):
    """Writes checkpoints under a temporary name, synchronises and renames them, and keeps the one
    that a last.ckpt replaces."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with open(partial, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if path.stem == "last" and path.exists():
            path.replace(previous(path))
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, but no score that is infinite or not a number is ever the best."""

    best_epoch = 0
    """The epoch after which the best score was reached, from 1."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        finite = current is not None and bool(torch.isfinite(current))
        better = finite and super().check_monitor_top_k(trainer, current)
        if better:
            self.best_epoch = trainer.current_epoch + 1
        return better

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_epoch = state_dict.get("best_epoch", 0)


class LastCheckpoint(Checkpoint):
    """Keeps <folder>/last.ckpt: at the end of every epoch, every few minutes in between, and when
    the process is told to end by SIGTERM or SIGUSR1.

    Under SLURM, SIGUSR1 (sbatch --signal=USR1@60) also puts the job back into the queue.

    Args:
        folder: where last.ckpt and last-prev.ckpt lie.
        minutes: between two checkpoints inside an epoch.
    """

    def __init__(self, folder: str, minutes: float = 10.0) -> None:
        if minutes < 0:
            raise ValueError(f"callbacks.last.minutes must not be negative, not {minutes}")

        self.file = Path(folder) / "last.ckpt"
        self.minutes = minutes
        self.written = time.monotonic()
        self.validated = -1
        self.stopped = self.requeue = False
        self.handler: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        main = threading.current_thread() is threading.main_thread()
        if stage == "fit" and main and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            self.handler = signal.signal(signal.SIGUSR1, self.on_sigusr1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGUSR1, self.handler)
            self.handler = None

    def on_sigusr1(self, number: int, frame: FrameType | None) -> None:
        self.requeue = True
        # Lightning ends training after the present batch, in all its processes.
        os.kill(os.getpid(), signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.written = time.monotonic()
        loop = trainer.fit_loop
        if loop.epoch_loop.batch_progress.current.ready == 0:
            # With max_steps, Lightning takes every checkpoint for one from within an epoch.
            loop._restarting = loop.epoch_loop.restarting = False
        if self.stopped and trainer.early_stopping_callbacks:
            trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        # Between two updates, the one before with its validation and logs complete.
        due = time.monotonic() - self.written >= 60 * self.minutes
        if trainer.world_size > 1:
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        if due and batch_idx > 0 and self.validated != trainer.global_step:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not isinstance(exception, SIGTERMException):
            return
        # Of several processes, each is told at another moment, and none may wait for the others.
        if trainer.world_size == 1:
            self.save(trainer)
        exception.code = 128 + signal.SIGTERM
        log.warning(
            "told to end after %s updates; the same command with ckpt=last and hydra.run.dir=%s "
            "goes on from %s",
            trainer.global_step,
            self.file.parent.parent,
            self.file,
        )
        job = os.environ.get("SLURM_JOB_ID")
        if self.requeue and job is not None and trainer.is_global_zero:
            subprocess.run(["scontrol", "requeue", job], check=False)

    def save(self, trainer: Trainer) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        accumulating = done % trainer.accumulate_grad_batches > 0 and not last_is_done(trainer)
        if trainer.fast_dev_run or trainer.overfit_batches > 0 or accumulating:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.file, weights_only=False)
        self.written = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["stopped"] = trainer.should_stop
        loop = trainer.fit_loop.epoch_loop
        pending = trainer.validating and not loop.val_loop.batch_progress.is_last_batch
        validated = trainer.validating or self.validated == trainer.global_step
        checkpoint["loops"]["fit_loop"] |= counters(
            checkpoint["loops"]["fit_loop"],
            updates=trainer.global_step,
            last=last_is_done(trainer),
            over=last_is_done(trainer) and not trainer.validating,
            validation="pending" if pending else "done" if validated else None,
        )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.stopped = checkpoint.get("stopped", False)


def last_is_done(trainer: Trainer) -> bool:
    """Whether the epoch's last batch is, not only fetched."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch and progress.current.processed == progress.current.ready


def counters(
    loop: Mapping[str, Any], updates: int, last: bool, over: bool, validation: str | None
) -> dict[str, Any]:
    """Lightning's counters of a training loop, in one of the few forms it goes on from exactly.

    Args:
        loop: the counters at the time of saving.
        updates: made so far.
        last: the epoch's last batch is done.
        over: and so is its validation, if any.
        validation: after the last batch: "pending", it is done again; "done", it is not; or None,
            there is none.
    """
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    # An epoch that max_steps cuts short counts as processed, but not as completed.
    epoch = epochs["processed"] if over else epochs["completed"]
    done = 0 if over else batches["current"]["processed"]
    begun, pending = epoch + int(not over), int(validation == "pending" and not over)
    # Lightning counts the last update when its validation is over, or skipped.
    counted = updates - int(validation is not None and not over)
    return {
        "epoch_progress": twice(begun, begun, epoch, epoch),
        "epoch_loop.batch_progress": {
            "total": same(batches["total"]["processed"]),
            "current": same(done),
            "is_last_batch": last and not over,
        },
        "epoch_loop.val_loop.batch_progress": {
            **twice(pending, pending, 0, 0),
            "is_last_batch": False,
        },
        "epoch_loop.state_dict": {"_batches_that_stepped": counted},
    }


def twice(*counts: int) -> dict[str, dict[str, int]]:
    names = ("ready", "started", "processed", "completed")
    return {key: dict(zip(names, counts, strict=True)) for key in ("total", "current")}


def same(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)
