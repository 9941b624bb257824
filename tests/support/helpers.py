"""Small runs, as a user would configure them."""

import copy
import logging
import re
import runpy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

import train
from datamodules.base import SequenceData
from vrnn.likelihoods import PenMixture
from vrnn.module import VRNNModule

CONF = Path(train.__file__).with_name("conf")

SMALL = {
    "hidden": 8,
    "z_dim": 4,
    "phi_x_dim": 8,
    "phi_z_dim": 8,
    "encoder_dim": 8,
    "prior_dim": 8,
    "decoder_dim": 8,
}

LINES = ["data.lines=24", "data.val_lines=3", "data.test_lines=6", "data.writers=6"]

QUIET = [
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "particles=2",
    "data.batch_size=8",
    "report=false",
]


def configure(
    folder: Path, *overrides: str, lines: bool = True, pictures: bool = False
) -> DictConfig:
    """Composes a configuration and makes its model small; `lines` few, where the data has them."""
    few = LINES + ["data.max_steps=40"] if lines else []
    none = [] if pictures else ["callbacks.pictures=null", "callbacks.latents=null"]
    cfg = copy.deepcopy(composed(*QUIET, *few, *none, *overrides))
    cfg.output_dir = str(folder)
    return shrink(cfg)


@lru_cache(maxsize=32)
def composed(*overrides: str) -> DictConfig:
    """Many tests ask for the same run in a folder of their own, and composing takes as long as
    training it for an update."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def shrink(cfg: DictConfig) -> DictConfig:
    with open_dict(cfg):
        cfg.model.update({key: size for key, size in SMALL.items() if key in cfg.model})
        if cfg.model.likelihood.get("components", 1) > 1:
            cfg.model.likelihood.components = 2
        if "hidden" in cfg.model.likelihood:
            cfg.model.likelihood.hidden = 6
    return cfg


def plain(cfg: DictConfig) -> dict[str, Any]:
    container: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return container


def build(cfg: DictConfig) -> tuple[SequenceData, VRNNModule]:
    """The data and the module of a run, before its first update."""
    _, data, module = train.build(cfg)
    return data, module


def run_unseen(cfg: DictConfig) -> dict[str, float]:
    """Trains, and does not draw at the end what no one looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.conclusion.write_generated", lambda *_, **__: [])
        return train.run(cfg)


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=folder,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


class Spoil(Callback):
    """Ruins the weights at the start of an epoch, so that the last ones are not the best."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.add_(0.3)


class MyPenMixture(PenMixture):
    """A user's own likelihood."""


class Command:
    """Runs one of the programs in this process, as if it had been typed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, program: str, *words: object) -> str:
        """Returns what it prints."""
        self.run(program, *words)
        return self.capfd.readouterr().out

    def fails(self, program: str, *words: object) -> str:
        """Returns what it says on stderr before it exits with code 1."""
        with pytest.raises(SystemExit) as end:
            self.run(program, *words)
        assert end.value.code == 1
        return self.capfd.readouterr().err

    def run(self, program: str, *words: object) -> None:
        self.capfd.readouterr()
        self.monkeypatch.setattr("sys.argv", [program, *map(str, words)])
        root, level = logging.getLogger(), logging.getLogger().level
        handlers = root.handlers[:]
        try:
            runpy.run_path(str(CONF.parent / program), run_name="__main__")
        finally:
            GlobalHydra.instance().clear()
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
            logging.getLogger("unusable_files").handlers.clear()
            root.setLevel(level)

    @staticmethod
    def matches(pattern: str, text: str) -> bool:
        return re.search(pattern, text) is not None


SGD = [
    "optim.optimizer._target_=torch.optim.SGD",
    "~optim.optimizer.betas",
    "~optim.optimizer.eps",
    "optim.lr=1",
]
