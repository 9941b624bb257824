"""Runs that are interrupted, and how their ends are compared."""

import contextlib
import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from support.helpers import CONF, LINES, QUIET, configure

import train
from vrnn.checkpoint import read

SCHEDULE = [
    *("optim=adam_cosine", "optim.steps=12", "objective.kl_start=0.1", "objective.kl_steps=9"),
    *("test=false", "untrained=false", "callbacks.last.minutes=0", "model.dropout=0.2"),
]

SHAPES = {
    "epochs": ["trainer.max_epochs=3", "trainer.limit_train_batches=null"],
    "steps": ["trainer.max_epochs=-1", "trainer.max_steps=10"],
    "limited": ["trainer.max_epochs=4", "trainer.limit_train_batches=3"],
    "two validations an epoch": ["trainer.max_epochs=3", "trainer.val_check_interval=2"],
    "few validations": ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2"],
    "accumulated": ["trainer.max_epochs=4", "trainer.accumulate_grad_batches=2"],
    "stopped early": [
        "trainer.max_epochs=9",
        "callbacks.early_stopping.patience=1",
        "optim.lr=0.5",
    ],
    "incomplete batches dropped": [
        "trainer.max_epochs=3",
        "data.batch_size=7",
        "data.drop_incomplete=true",
    ],
    "carried": [
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=6",
        "data.window=20",
        "data.reset_every=3",
        "data.max_steps=null",
    ],
}
PLACES = ["on_train_batch_start", "on_train_batch_end", "on_validation_batch_end"]
PLACES += ["on_validation_end", "on_train_epoch_end"]


class Dead(Exception):
    """Nobody can do anything about it any more."""


class Die(Callback):
    """Ends the process, as it were, when a hook is called for the n-th time."""

    def __init__(self, hook: str, n: int, error: Callable[[], BaseException] = Dead) -> None:
        self.left, self.error = n, error
        setattr(self, hook, self.count)

    def count(self, trainer: Trainer, module: LightningModule, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error()


def run(folder: Path, *options: str, die: Die | None = None) -> dict[str, Any]:
    """Trains on, and returns the last checkpoint with the logged curves."""
    cfg = configure(folder, *SCHEDULE, "data.batch_size=6", "ckpt=last", *options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.conclusion.write_generated", lambda *_, **__: [])
        if die is not None:
            patch.setattr("callbacks.throughput.Throughput", lambda: die)
        train.run(cfg)
    return content(folder)


def content(folder: Path) -> dict[str, Any]:
    found = read(folder / "checkpoints" / "last.ckpt")
    found["best"] = read(folder / "checkpoints" / "best.ckpt")["state_dict"]
    for name in ("train/elbo_per_step", "train/kl_weight", "val/elbo"):
        found[name] = curve(folder, name)
    return found


def curve(folder: Path, key: str) -> dict[int, str]:
    """What metrics.csv and those of the interrupted runs hold, by update."""
    points: dict[int, str] = {}
    for file in folder.glob("metrics*.csv"):
        with open(file) as rows:
            for row in csv.DictReader(rows):
                if row.get(key):
                    assert points.setdefault(int(row["step"]), row[key]) == row[key], row
    return points


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two checkpoints differ, but for the names of folders."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{path}/{i}")
        ]
    named = isinstance(a, str) and "/" in a
    return [] if named or a == b else [f"{path}: {a} {b}"]


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Without the counters of what was saved and validated how often, and without folders; nor the
    score of the last best epoch, which Lightning writes and does not read."""
    kept = {k: v for k, v in found.items() if k not in ("hyper_parameters", "loops", "callbacks")}
    kept["callbacks"] = {
        name: {k: v for k, v in state.items() if k not in ("best_k_models", "current_score")}
        for name, state in found["callbacks"].items()
    }
    kept["loops"] = {
        key: value
        for key, value in found["loops"]["fit_loop"].items()
        if key in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict")
    }
    return kept


PROGRAM = ["train.py", *QUIET, *LINES, *SCHEDULE, "ckpt=last", "callbacks.pictures=null"]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, *PROGRAM, f"hydra.run.dir={folder}", *options]
    pipe = subprocess.PIPE
    # Where tests run in the background, Ctrl-C would be ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        line, cwd=CONF.parent, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard
    )


def wait_for(folder: Path, process: subprocess.Popen[str], writes: int) -> None:
    """Until last.ckpt was written so many times, or the process has ended by itself."""
    last = folder / "checkpoints" / "last.ckpt"
    seen = {last.stat().st_ino} if last.exists() else set()
    while process.poll() is None and writes > 0:
        with contextlib.suppress(FileNotFoundError):
            if (inode := last.stat().st_ino) not in seen:
                seen, writes = {inode}, writes - 1
        time.sleep(0.001)
