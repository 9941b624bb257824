"""Interrupted runs end where the uninterrupted ones do, bit for bit."""

import contextlib
import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import configure
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

import train
from vrnn.checkpoint import read

SCHEDULE = ["optim=adam_cosine", "optim.steps=12", "objective.kl_start=0.1", "test=false"]
SCHEDULE += ["objective.kl_steps=9", "untrained=false", "callbacks.last.minutes=0"]

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
    "carried": [
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=6",
        "+data.window=20",
        "+data.carry=3",
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
        patch.setattr("callbacks.samples.write_samples", lambda *_, **__: [])
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
    """Without the counters of what was saved and validated how often, and without folders."""
    kept = {k: v for k, v in found.items() if k not in ("hyper_parameters", "loops", "callbacks")}
    kept["callbacks"] = {
        name: {k: v for k, v in state.items() if k != "best_k_models"}
        for name, state in found["callbacks"].items()
    }
    kept["loops"] = {
        key: value
        for key, value in found["loops"]["fit_loop"].items()
        if key in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict")
    }
    return kept


def killed(folder: Path, options: list[str], deaths: list[Die]) -> dict[str, Any]:
    for die in deaths:
        with contextlib.suppress(Dead):
            run(folder, *options, die=die)
    return run(folder, *options)


def shapes() -> list[Any]:
    fast = ("steps", "two validations an epoch")
    marks = {name: () if name in fast else (pytest.mark.slow,) for name in SHAPES}
    return [pytest.param(name, marks=marks[name]) for name in SHAPES]


@pytest.mark.parametrize("shape", shapes())
def test_killed_anywhere_and_restarted(shape: str, tmp_path: Path) -> None:
    """Again and again, in every hook, each time a little further on."""
    whole = run(tmp_path / "whole", *SHAPES[shape])
    rng = random.Random(shape)
    deaths = [Die(place, rng.randint(1, 3)) for place in PLACES]
    again = killed(tmp_path / "killed", SHAPES[shape], deaths)
    assert differences(compared(whole), compared(again)) == []
