"""What is in the folder of a run, whether it came to its end or not."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runs.curves import Curves, read_curves
from runs.metrics import overrides
from runs.naming import model_name

__all__ = ["Run", "checkpoints", "read_run"]

MARKS = ("run.json", "metrics.json", "error.txt", "hparams.yaml", ".hydra/config.yaml")
"""Files that tell a run's folder from others."""

CORPUS = {"untrained": "test"}
"""The splits that scores before training are of."""


class Run(NamedTuple):
    """The folder of a run; what it does not hold is empty."""

    folder: Path
    status: str
    """"finished", "failed" or "unfinished": still training, or killed."""
    error: str
    """What a failed run says of the reason, in a sentence."""
    record: dict[str, Any]
    """run.json: command, commit, versions, hardware, seed."""
    settings: dict[str, Any]
    """The configuration."""
    data: dict[str, Any]
    """What is known of its data, as `SequenceData.description` has it: name, kind, rate ..."""
    figures: dict[str, float]
    """metrics.json, keys `split/name`."""
    curves: Curves
    notes: list[str]
    """What could not be read, for people."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def command(self) -> str:
        """As typed; of a run without run.json, what Hydra kept of it."""
        words = overrides(self.folder)
        kept = shlex.join(["python", "train.py", *words]) if words else ""
        return str(self.record.get("command", kept))

    @property
    def kind(self) -> str:
        return str(self.data.get("kind", ""))

    @property
    def model(self) -> str:
        """As the paper's tables name it."""
        described = self.settings.get("model")
        if not isinstance(described, dict) or not {"_target_", "likelihood"} <= described.keys():
            return ""
        return model_name(described)

    @property
    def sizes(self) -> str:
        """How many sequences there are, in words."""
        sequences = self.data.get("sequences")
        if not isinstance(sequences, dict) or not {"train", "val", "test"} <= sequences.keys():
            return ""
        train, val, test = (f"{sequences[split]:,}" for split in ("train", "val", "test"))
        return f"{train} sequences of training, {val} of validation and {test} of test"

    def part(self, split: str) -> str:
        """How much of a split was scored, in words, such as "50 of 1,518 sequences"; empty where
        all of it was, or nobody knows."""
        sequences = self.data.get("sequences")
        whole = sequences.get(CORPUS.get(split, split), 0) if isinstance(sequences, dict) else 0
        scored = self.figures.get(f"{split}/sequences", whole)
        return f"{scored:,.0f} of {whole:,} sequences" if scored < whole else ""

    @property
    def title(self) -> str:
        return f"{self.model or self.name} on {self.data.get('name', 'unknown data')}"


def read_run(folder: Path) -> Run:
    """Reads a run's folder.

    Raises:
        ValueError: if it is none.
    """
    if not any((folder / mark).is_file() for mark in MARKS) and not checkpoints(folder):
        inside = sorted({p.parent for mark in MARKS[:3] for p in folder.glob(f"*/{mark}")})
        hint = f"; name the runs in it, such as {inside[0]}" if inside else ""
        missing = "is no folder" if not folder.is_dir() else "holds no run.json or metrics.json"
        raise ValueError(f"{folder} is no run: it {missing}{hint}")
    notes: list[str] = []
    record = read_json(folder / "run.json", notes)
    figures = read_json(folder / "metrics.json", notes)
    error = read_text(folder / "error.txt").partition("\n")[0]
    logged = read_yaml(folder / "hparams.yaml", notes)
    # What the CSV logger wrote is resolved, Hydra's own file is not.
    described = logged["data"] if isinstance(logged.get("data"), dict) else {}
    recorded = record.get("config")
    settings = (
        recorded
        if isinstance(recorded, dict)
        else (
            {**logged, "data": described.get("module", {})}
            if logged
            else resolved(read_yaml(folder / ".hydra" / "config.yaml", notes))
        )
    )
    curves, more = read_curves(folder)
    return Run(
        folder,
        status="failed" if error else "finished" if figures else "unfinished",
        error=error,
        record=record,
        settings=settings,
        data=data_of(folder, settings, described, notes),
        figures={k: v for k, v in figures.items() if isinstance(v, int | float)},
        curves=curves,
        notes=notes + more,
    )


def data_of(
    folder: Path, settings: Mapping[str, Any], described: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The description of the data, of what the folder says first; at least its kind and name."""
    if {"name", "kind", "rate"} <= described.keys():
        return described
    if checkpoints(folder):
        from vrnn.checkpoint import CheckpointError, find_checkpoint, read

        try:
            stored = read(find_checkpoint(folder))["hyper_parameters"]["data"]
        except CheckpointError as error:
            notes.append(str(error))
        else:
            if isinstance(stored, dict):
                return stored
    config = settings.get("data") or {}
    target = str(config.get("_target_", "")).rpartition(".")[2]
    known = {"name": config.get("name") or target, "kind": (settings.get("x") or {}).get("kind")}
    return {key: value for key, value in known.items() if value}


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*.ckpt"))


def read_json(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        notes.append(f"{file.name} cannot be read ({error}), so what it says is missing here.")
        return {}
    return content if isinstance(content, dict) else {}


def read_yaml(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError, OSError) as error:
        why = str(error).partition("\n")[0]
        notes.append(f"{file.name} cannot be read ({why}), so what it says is missing here.")
        return {}
    return content if isinstance(content, dict) else {}


def resolved(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what its interpolations stand for, where that can be told."""
    try:
        plain: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    except OmegaConfBaseException:
        return settings
    return plain


def read_text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
