"""Loads a model from a file, with nothing else at hand, and runs nothing that the file brings."""

import logging
import pickle
import pkgutil
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.errors import InstantiationException
from torch import nn

from vrnn.models.base import SequenceModel
from vrnn.module import VRNNModule
from vrnn.moved import current

__all__ = [
    "CheckpointError",
    "find_checkpoint",
    "find_last",
    "load",
    "load_module",
    "previous",
    "read",
]

log = logging.getLogger(__name__)

ALLOWED = ("vrnn", "torch.optim", "torch.nn")

# What torch and zipfile raise on a file that is not whole.
DAMAGED = (
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    AttributeError,
    zipfile.BadZipFile,
)


class CheckpointError(ValueError):
    """The file is no usable checkpoint; the message says why."""


def load(path: str | Path, allow: tuple[str, ...] = ()) -> SequenceModel:
    """Loads a trained model, in evaluation mode, on the CPU.

    Args:
        path: a checkpoint, or the folder of a run, whose best checkpoint is taken.
        allow: packages besides this one and torch whose classes the checkpoint may name.

    Raises:
        CheckpointError: if the file is damaged, is no checkpoint of this project, or names other
            code.
    """
    model: SequenceModel = load_module(path, allow).model
    return model


def load_module(path: str | Path, allow: tuple[str, ...] = ()) -> VRNNModule:
    """As `load`, but returns the LightningModule, whose `hparams` describe data and training."""
    file = find_checkpoint(path)
    content = read(file)
    hparams = content["hyper_parameters"]
    for part in ("model", "objective", "optim"):
        check_targets(file, hparams[part], ALLOWED + allow)
    try:
        module = VRNNModule(**hparams)
        module.load_state_dict(content["state_dict"])
    except (InstantiationException, TypeError, ValueError, RuntimeError, KeyError) as error:
        why = first_line(error.__cause__ or error)
        refuse(file, f"its weights and its description do not fit together: {why}")
    return module.eval()


def find_checkpoint(path: str | Path) -> Path:
    """Returns the checkpoint of a run folder, the best one if there is one, or the file itself.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    candidates = [path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if runs := sorted(path.glob("*/checkpoints")):
        raise CheckpointError(f"{path} holds several runs; name one, such as {runs[0].parent}")
    raise CheckpointError(
        f"no checkpoint at {path}: neither a file nor a run folder with checkpoints/best.ckpt "
        "or checkpoints/last.ckpt"
    )


def find_last(run: Path) -> Path | None:
    """Returns the last checkpoint of a run folder that is whole; None if there is none at all."""
    last = run / "checkpoints" / "last.ckpt"
    files = [file for file in (last, previous(last)) if file.exists()]
    for file in files:
        try:
            read(file)
        except CheckpointError as error:
            if file == files[-1]:
                raise
            log.warning("%s; going on from the one before it, %s", error, files[-1])
        else:
            return file
    return None


def previous(file: Path) -> Path:
    """Where the checkpoint is kept that a last.ckpt has replaced."""
    return file.with_name(f"{file.stem}-prev{file.suffix}")


def read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        refuse(file, "there is no such file")
    try:
        check_sums(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refuse(
            file,
            f"it holds something else than tensors and plain containers ({first_line(error)})",
        )
    except DAMAGED as error:
        refuse(file, f"it is damaged or no checkpoint at all ({first_line(error)})")
    if not isinstance(content, dict) or not {"hyper_parameters", "state_dict"} <= content.keys():
        refuse(file, "it has no hyper_parameters and state_dict, so this project did not write it")
    hparams = content["hyper_parameters"]
    missing = {"model", "objective", "optim", "data"} - (
        hparams.keys() if isinstance(hparams, dict) else set()
    )
    if missing:
        refuse(file, f"its hyper_parameters lack {', '.join(sorted(missing))}")
    return {**content, "hyper_parameters": current(hparams)}


def check_sums(file: Path) -> None:
    """Refuses a file that is compressed, or whose bytes have changed, which torch does not see."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")
        changed = archive.testzip()
    if changed is not None:
        raise ValueError(f"the checksum of {changed} is wrong")


def check_targets(file: Path, node: object, allowed: tuple[str, ...]) -> None:
    """Refuses a description that would build anything but networks, optimizers and schedulers."""
    if isinstance(node, dict):
        if "_target_" in node:
            check_target(file, node["_target_"], allowed)
        for value in node.values():
            check_targets(file, value, allowed)
    elif isinstance(node, list | tuple):
        for value in node:
            check_targets(file, value, allowed)
    elif isinstance(node, str) and "${" in node:
        refuse(file, f"it holds an interpolation, {node!r}")


def check_target(file: Path, target: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(target, str) or not inside(target, allowed):
        refuse(
            file,
            f"it names {target!r}, outside of {', '.join(allowed)} (see `allow` of vrnn.load)",
        )
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        refuse(file, f"it names {target!r}, which does not exist here")
    # A path inside this package may lead to something imported from elsewhere, so ask where it
    # was defined.
    kinds = (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    if not (
        isinstance(found, type) and issubclass(found, kinds) and inside(found.__module__, allowed)
    ):
        refuse(file, f"it names {target!r}, which is no network, optimizer or scheduler")


def inside(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def refuse(file: Path, why: str) -> NoReturn:
    raise CheckpointError(f"cannot load {file}: {why}") from None
