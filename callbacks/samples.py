"""Generated sequences as files."""

from pathlib import Path

import numpy as np
from torch import Tensor

from callbacks.drawing import draw
from callbacks.pictures import generate_raw
from vrnn.module import VRNNModule

__all__ = ["write_samples"]


def write_samples(
    module: VRNNModule,
    folder: Path,
    n: int,
    seed: int,
    steps: int | None = None,
    prime: Tensor | None = None,
    temperature_z: float = 1.0,
    temperature_x: float = 1.0,
) -> list[Path]:
    """Generates n sequences and writes them as pictures and arrays; arguments as of
    `generate_raw`.

    Returns:
        generated.png, .svg and .npz; the last holds "x", raw frames (n, T, D), and "columns".
    """
    data = module.hparams["data"]
    sequences = generate_raw(module, n, seed, steps, prime, temperature_z, temperature_x)
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(data["kind"], sequences, data["rate"])
    files = [folder / f"generated.{suffix}" for suffix in ("png", "svg", "npz")]
    for file in files[:2]:
        figure.savefig(file)
    np.savez_compressed(files[2], x=np.stack(sequences), columns=np.array(data["columns"]))
    return files
