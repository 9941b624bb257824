"""What checkpoints and runs of earlier versions call otherwise, or do not say."""

from collections.abc import Mapping
from typing import Any

__all__ = ["OPTIONS", "current"]

MOVED = {
    "vrnn.autoregressive": "vrnn.likelihoods",
    "vrnn.discrete": "vrnn.likelihoods",
    "vrnn.model.RNN": "vrnn.models.rnn",
    "vrnn.model.VRNN": "vrnn.models.vrnn",
    "vrnn.srnn": "vrnn.models.srnn",
    "vrnn.storn": "vrnn.models.storn",
    "vrnn.dmm": "vrnn.models.dmm",
    "datamodules.audio": "datamodules.audio.corpus",
    "datamodules.handwriting.IAM": "datamodules.handwriting.iam",
    "datamodules.handwriting.SyntheticHandwriting": "datamodules.handwriting.synthetic",
    "datamodules.speech": "datamodules.audio.speech",
    "datamodules.synthetic_speech": "datamodules.audio.synthetic",
    "datamodules.timit": "datamodules.audio.timit",
    "datamodules.unipen": "datamodules.handwriting.unipen",
    "callbacks.tracking": "runs.loggers",
}
"""The module that a class, or each class of a module, is in now."""

OPTIONS = {"carry": "reset_every"}
"""What options of data modules are called now."""

ADDED = {
    f"vrnn.{place}": {"latents": "inferred", **({} if model == "VRNN" else {"rnn": "gru"})}
    for model in ("VRNN", "SRNN", "STORN", "DMM")
    for place in (model, f"models.{model.lower()}.{model}")
}
"""Options that a class had no name for, with what it did."""


def current(node: Any) -> Any:
    """A description in plain containers whose every `_target_` has the name of today, and the
    options of today under the names of today."""
    if isinstance(node, Mapping):
        now = {
            key: renamed(value) if key == "_target_" else current(value)
            for key, value in node.items()
        }
        target = str(now.get("_target_", ""))
        if target.startswith("datamodules."):
            now = {OPTIONS.get(key, key): value for key, value in now.items()}
        return {**ADDED.get(target, {}), **now}
    if isinstance(node, list | tuple):
        return [current(value) for value in node]
    return node


def renamed(target: Any) -> Any:
    module, _, name = str(target).rpartition(".")
    place = MOVED.get(str(target)) or MOVED.get(module)
    return f"{place}.{name}" if place else target
