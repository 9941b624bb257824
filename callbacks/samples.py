"""Generated sequences, in raw units and as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from callbacks.drawing import draw

__all__ = ["generate_raw", "typical_steps", "write_samples"]


def typical_steps(description: dict[str, dict[str, int]]) -> int:
    """The mean length of a training sequence, in frames."""
    return round(description["steps"]["train"] / description["sequences"]["train"])


def generate_raw(
    module: LightningModule,
    n: int,
    seed: int,
    steps: int | None = None,
    prime: Tensor | None = None,
    temperature_z: float = 1.0,
    temperature_x: float = 1.0,
) -> list[np.ndarray]:
    """Generates n sequences (T, D) in raw units, of typical length unless `steps` says otherwise.

    Args:
        prime: standardised beginnings (T0, n, D), which the sequences then start with.
    """
    model = module.model
    steps = steps or typical_steps(module.hparams["data"])
    x = model.generate(steps, n, prime, temperature_z, temperature_x, seed=seed)
    if prime is not None:
        x = torch.cat([prime.to(x), x])
    return list(model.normaliser.raw(x).transpose(0, 1).cpu().numpy())


def write_samples(
    sequences: Sequence[np.ndarray], data: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Writes generated sequences as pictures and arrays.

    Args:
        sequences: raw frames, n times (T, D).
        data: the description of the data (`SequenceData.description`).

    Returns:
        generated.png, .svg and .npz; the last holds "x", raw frames (n, T, D), and "columns".
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(data["kind"], sequences, data["rate"])
    files = [folder / f"generated.{suffix}" for suffix in ("png", "svg", "npz")]
    for file in files[:2]:
        figure.savefig(file)
    np.savez_compressed(files[2], x=np.stack(sequences), columns=np.array(data["columns"]))
    return files
