"""Runs of untrained models, for the playground."""

from pathlib import Path
from typing import Any

import torch
from support.helpers import build, configure

from playground.visitor import Player
from vrnn.models.base import SequenceModel
from vrnn.module import VRNNModule
from vrnn.normaliser import Normaliser


def write_run(folder: Path, *overrides: str, lines: bool = True) -> Path:
    """A run folder with a checkpoint, as a training of no updates would leave it."""
    _, module = build(configure(folder, *overrides, lines=lines))
    return save(module, folder)


def save(module: VRNNModule, folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    content = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return folder


def describe(kind: str, width: int, **more: Any) -> dict[str, Any]:
    """What a checkpoint says of a corpus, as far as the playground asks."""
    pen = kind == "pen"
    about = {
        "name": "mine",
        "kind": kind,
        "rate": 65.6 if pen else 8000.0,
        "shift": [0.0, 8.0, 8.0] if pen else [1.0] * width,
        "scale": [1.0, 56.0, 56.0] if pen else [7.0] * width,
        "sequences": {"train": 4},
        "steps": {"train": 40},
    }
    return about | more


def player(model: SequenceModel, kind: str, styles: list[Any], **more: Any) -> Player:
    """A model as the playground would have loaded it."""
    from playground.kinds import KINDS

    about = describe(kind, model.x_dim, **more)
    model.normaliser = Normaliser(about["shift"], about["scale"])
    return Player(model.eval(), about, KINDS[kind](about), styles)


DRAWING = [[[10 + 3 * i, 40 + 9 * (i % 3), 12 * i] for i in range(30)], [[120, 20, 900]]]
