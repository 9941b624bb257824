"""Generated sequences, in raw units and as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import SequenceData
from runs.kinds import KINDS, draw
from vrnn.module import VRNNModule
from vrnn.trace import Frame

__all__ = [
    "Generated",
    "generate_raw",
    "real_examples",
    "spread",
    "typical_steps",
    "write_real",
    "write_generated",
]

EXAMPLES = 8
"""Real sequences that are kept beside generated ones."""

LONGEST = 2000
"""Frames of a real sequence that are kept, at most."""


class Generated(NamedTuple):
    """Generated sequences in raw units, n times (T, D)."""

    x: list[np.ndarray]
    """The drawn frames, which were fed back."""
    mean: list[np.ndarray] | None
    """The mean of the output distribution that each frame was drawn from; None where it has none
    in closed form."""


def typical_steps(data: Mapping[str, Any]) -> int:
    """The mean length of a training sequence, in frames, of data so described
    (`SequenceData.description`)."""
    return round(data["steps"]["train"] / data["sequences"]["train"])


def generate_raw(
    module: VRNNModule,
    n: int,
    seed: int,
    steps: int | None = None,
    prime: Tensor | None = None,
    temperature_z: float = 1.0,
    temperature_x: float = 1.0,
) -> Generated:
    """Generates n sequences (T, D) in raw units, of typical length unless `steps` says otherwise.

    Args:
        prime: standardised beginnings (T0, n, D), which sequences and means then start
            with.
    """
    model = module.model
    steps = steps or typical_steps(module.hparams["data"])

    def x_and_mean(frame: Frame) -> tuple[Tensor, Tensor | None]:
        try:
            return frame.x, frame.likelihood.mean
        except NotImplementedError:
            return frame.x, None

    def raw(parts: Sequence[Tensor]) -> list[np.ndarray]:
        x = torch.stack([part.to(parts[-1]) for part in [*beginning, *parts]])
        return list(model.normaliser.raw(x).transpose(0, 1).cpu().numpy())

    beginning = [] if prime is None else [*prime]
    x, means = zip(
        *model.draw_frames(x_and_mean, steps, n, prime, temperature_z, temperature_x, seed=seed),
        strict=True,
    )
    return Generated(raw(x), None if means[0] is None else raw(means))


def real_examples(data: SequenceData) -> tuple[list[np.ndarray], list[str]]:
    """Sequences (T_i, D) of the validation split in raw units, spread evenly over it and cut to
    2,000 frames, and their names."""
    split = data.splits["val"]
    chosen = spread(len(split), EXAMPLES)
    sequences = [np.array(split.piece(i, 0, LONGEST)) for i in chosen]
    return sequences, [split.keys[i] for i in chosen]


def spread(count: int, n: int) -> list[int]:
    """Numbers from 0 to count - 1, evenly spread: n of them, or all where there are fewer."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, n)).round().astype(int).tolist()
    return chosen


def write_real(data: SequenceData, folder: Path) -> None:
    """Writes <folder>/real.npz, by which a run folder can show what it was trained on.

    It holds `x`, the frames (N, D) of `real_examples` end to end, their `lengths` (n,) and `keys`
    (n,), the `rate`, and the names of the `columns` (D,).
    """
    sequences, keys = real_examples(data)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "real.npz",
        x=np.concatenate(sequences),
        lengths=np.array([len(x) for x in sequences]),
        keys=np.array(keys),
        rate=np.array(data.rate),
        columns=np.array(data.columns),
    )


def write_generated(generated: Generated, data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes generated sequences as pictures, as arrays, and as what else shows their kind, in
    place of those that were written there before.

    Args:
        data: the description of the data (`SequenceData.description`).

    Returns:
        generated.png, .svg and .npz, the last holding "x" and "mean", raw frames (n, T, D), and
        "columns"; for audio also generated_mean.png, generated_NN_sampled.wav and
        generated_NN_mean.wav, for piano rolls generated_NN.mid. Files of means only where there
        are means.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("generated_[0-9]*"):
        file.unlink()
    figure = draw(data["kind"], generated.x, data["rate"])
    files = [folder / f"generated.{suffix}" for suffix in ("png", "svg", "npz")]
    for file in files[:2]:
        figure.savefig(file)
    arrays = {name: x for name, x in generated._asdict().items() if x is not None}
    np.savez_compressed(files[2], **arrays, columns=np.array(data["columns"]))
    kind = KINDS[data["kind"]]
    return files + kind.write(generated.x, generated.mean, data["rate"], folder)
