"""What a run has to show: sequences that its model made, and real ones."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reports.kinds import kind_of
from runs.run import Run, checkpoints
from runs.samples import generate_raw, real_examples

__all__ = ["Sequences", "drawn_from_checkpoint", "generated", "real"]

DAMAGED = (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile)


class Sequences(NamedTuple):
    """Sequences in raw units, n times (T_i, D); none where there are none to be had."""

    x: list[np.ndarray]
    titles: list[str]
    note: str
    """Where they come from, or why there are none; for people."""
    mean: list[np.ndarray] = []
    """Of generated ones, the means that each frame was drawn from, if they are kept."""
    rate: float | None = None
    columns: Sequence[str] = ()
    """Names of the coordinates, if they are kept."""

    def first(self, n: int) -> "Sequences":
        return self._replace(x=self.x[:n], titles=self.titles[:n], mean=self.mean[:n])


def generated(run: Run) -> Sequences:
    """What the run generated at its end; of one that is not there yet, what its newest checkpoint
    generates."""
    file = run.folder / "samples" / "generated.npz"
    problem = ""
    if file.is_file():
        try:
            with open(file, "rb") as opened, np.load(opened) as arrays:
                if arrays["x"].ndim != 3:
                    raise ValueError(f"x is of shape {arrays['x'].shape}")
                x = list(arrays["x"])
                mean = list(arrays["mean"]) if "mean" in arrays else []
            # Training that ends before a validation has no best weights.
            weights = "best" if run.figures.get("best_epoch", True) else "last"
            note = f"Drawn from the {weights} weights at the end of the run."
            return Sequences(x, numbered(x), note, mean).first(kind_of(run.kind).on_page)
        except DAMAGED as error:
            problem = f"samples/generated.npz is damaged ({error}). "
    made = drawn_from_checkpoint(run, int(run.settings.get("seed") or 0))
    return made._replace(note=problem + made.note)


def drawn_from_checkpoint(run: Run, seed: int) -> Sequences:
    """Generates with the best weights, or the last where there are no best ones yet."""
    from vrnn.checkpoint import CheckpointError, find_checkpoint, load_module

    if not checkpoints(run.folder):
        return Sequences(
            [], [], "No samples yet: the run has written neither any nor a checkpoint."
        )
    try:
        file = find_checkpoint(run.folder)
        made = generate_raw(load_module(file), kind_of(run.kind).on_page, seed)
    except (CheckpointError, ValueError) as error:
        return Sequences([], [], f"No samples: {error}.")
    note = f"Drawn for this page from checkpoints/{file.name} with seed {seed}."
    return Sequences(made.x, numbered(made.x), note, made.mean or [])


def real(run: Run) -> Sequences:
    """Sequences of the validation split: those kept in samples/real.npz, or else of the corpus,
    if it still lies where it was."""
    file = run.folder / "samples" / "real.npz"
    shown = kind_of(run.kind).on_page
    problem = ""
    if file.is_file():
        try:
            return kept(file).first(shown)
        except DAMAGED as error:
            problem = f"samples/real.npz is damaged ({error}). "
    if "module" not in run.data:
        why = "the run keeps none, and no checkpoint describes its data"
        return Sequences([], [], f"{problem}No real examples: {why}.")
    from datamodules.loading import load_data

    options = run.data["module"]
    stay_here = ["data.download=false"] if "download" in options else []
    try:
        data = load_data(run.data, stay_here)
        x, titles = real_examples(data)
    except (ValueError, TypeError, OSError) as error:
        why = f"the run keeps none, and its corpus cannot be read here ({error})"
        return Sequences([], [], f"{problem}No real examples: {why}.")
    note = f"{problem}Of the validation split, read from the corpus."
    return Sequences(x, titles, note, rate=data.rate).first(shown)


def kept(file: Path) -> Sequences:
    with open(file, "rb") as opened, np.load(opened) as arrays:
        ends = arrays["lengths"].cumsum()[:-1]
        x = np.split(arrays["x"], ends)
        return Sequences(
            x,
            [str(key) for key in arrays["keys"]],
            "Of the validation split, kept by the run.",
            rate=float(arrays["rate"]),
            columns=[str(column) for column in arrays.get("columns", ())],
        )


def numbered(x: list[np.ndarray]) -> list[str]:
    return [f"Sample {i + 1}" for i in range(len(x))]
