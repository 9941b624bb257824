"""Checkpoints that are never half written, and that training goes on from exactly."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loops.progress import _BatchProgress
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from callbacks.counters import counters
from vrnn.checkpoint import previous

__all__ = ["BestCheckpoint", "DurableFiles", "LastCheckpoint", "Told"]

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
        try:
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            # Where the disk is full, torch complains of something else.
            disk = error if isinstance(error, OSError) else error.__context__
            if isinstance(disk, OSError):
                raise OSError(disk.errno, disk.strerror, str(path)) from error
            raise
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


class Told(IntEnum):
    """What a process is told to do; of several processes, the highest holds for all."""

    NOTHING, SAVE, END, REQUEUE = range(4)


class LastCheckpoint(Checkpoint):
    """Keeps <folder>/last.ckpt: at the end of every epoch, every few minutes in between, and when
    the process is told to end by SIGTERM, SIGUSR1 or Ctrl-C, which once more ends at once.

    Under SLURM, SIGUSR1 (sbatch --signal=USR1@60) also puts the job back into the queue. Of
    several processes it is enough to tell one.

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
        self.stopped = False
        self.told = Told.NOTHING
        self.interrupted = False
        self.shared_batches = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.listen(trainer)
        self.written = time.monotonic()
        loop = trainer.fit_loop
        if loop.epoch_loop.batch_progress.current.ready == 0:
            # With max_steps, Lightning takes every checkpoint for one from within an epoch.
            loop._restarting = loop.epoch_loop.restarting = False
        if self.stopped and trainer.early_stopping_callbacks:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before_scoring(trainer, [0] if trainer.sanity_checking else trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before_scoring(trainer, trainer.num_test_batches)

    def before_scoring(self, trainer: Trainer, batches: Sequence[float]) -> None:
        self.listen(trainer)
        # Processes may have one batch more than others, where they cannot agree on anything.
        count = torch.tensor(float(min(batches)), device=trainer.strategy.root_device)
        self.shared_batches = float(trainer.strategy.reduce(count, reduce_op="min"))

    def listen(self, trainer: Trainer) -> None:
        """Takes the place of Lightning's handlers, in which processes that are told at different
        moments would wait for each other. Lightning restores what there was before in the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_signal)
            signal.signal(signal.SIGUSR1, self.on_signal)
            # Lightning's way with Ctrl-C ends several processes at once.
            handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if handled and trainer.world_size == 1:
                signal.signal(signal.SIGINT, self.on_interrupt)

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted, self.told = True, max(self.told, Told.END)
        os.write(2, b"\nsaving after this batch; Ctrl-C once more ends at once\n")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if signal.getsignal(signal.SIGINT) == self.on_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.told = max(self.told, Told.REQUEUE if number == signal.SIGUSR1 else Told.END)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        # Between two updates, the one before with its validation and logs complete.
        due = time.monotonic() - self.written >= 60 * self.minutes
        told = self.agree(trainer, Told.SAVE if due else Told.NOTHING)
        # At the start of an epoch, last.ckpt is that of its end before.
        if told > Told.NOTHING and batch_idx > 0:
            self.save(trainer)
        if told >= Told.END and not accumulating(trainer):
            self.end()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx < self.shared_batches and self.agree(trainer) >= Told.END:
            if trainer.state.fn == TrainerFn.FITTING:
                self.save(trainer)
            self.end()

    on_test_batch_start = on_validation_batch_start

    def end(self) -> NoReturn:
        raise KeyboardInterrupt if self.interrupted else SIGTERMException

    def agree(self, trainer: Trainer, told: Told = Told.NOTHING) -> Told:
        """What any process was told; all are at the same batch and do the same."""
        mine = max(self.told, told)
        if trainer.world_size == 1:
            return mine
        value = torch.tensor(float(mine), device=trainer.strategy.root_device)
        every = Told(int(trainer.strategy.reduce(value, reduce_op="max")))
        if every >= Told.END:
            self.told = every
        return every

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")
        if not isinstance(exception, SIGTERMException):
            return
        # Told once more, it goes on ending: Lightning, and Python in its last moments, restore
        # what would kill it then.
        trainer._signal_connector._original_handlers = {}
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # A failure of another process would have Lightning kill the main one before it has ended.
        exception.code = 128 + signal.SIGTERM if trainer.is_global_zero else 0
        if not trainer.is_global_zero:
            return
        log.warning(
            "told to end after %s updates; the same command with ckpt=last and hydra.run.dir=%s "
            "goes on from %s",
            trainer.global_step,
            self.file.parent.parent,
            self.file,
        )
        job = os.environ.get("SLURM_JOB_ID")
        if self.told == Told.REQUEUE and job is not None:
            subprocess.run(["scontrol", "requeue", job], check=False)

    def save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or trainer.overfit_batches > 0 or accumulating(trainer):  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.file, weights_only=False)
        self.written = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["stopped"] = trainer.should_stop
        loop = trainer.fit_loop.epoch_loop
        pending = trainer.validating and not last_is_done(loop.val_loop.batch_progress)
        validated = not pending and (trainer.validating or self.validated == trainer.global_step)
        checkpoint["validated"] = trainer.global_step if validated else -1
        checkpoint["loops"]["fit_loop"] |= counters(
            checkpoint["loops"]["fit_loop"],
            updates=trainer.global_step,
            last=last_is_done(loop.batch_progress),
            over=last_is_done(loop.batch_progress) and not trainer.validating,
            validation="pending" if pending else "done" if validated else None,
        )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.stopped = checkpoint.get("stopped", False)
        self.validated = checkpoint.get("validated", -1)


def accumulating(trainer: Trainer) -> bool:
    """Whether there are gradients that await more batches."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    waiting = processed(progress) % trainer.accumulate_grad_batches > 0
    return waiting and not last_is_done(progress)


def last_is_done(progress: _BatchProgress) -> bool:
    """Whether the epoch's last batch is, not only fetched."""
    return progress.is_last_batch and processed(progress) == progress.current.ready


def processed(progress: _BatchProgress) -> int:
    done: int = progress.current.processed  # type: ignore[attr-defined]
    return done
