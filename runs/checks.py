"""What does not go together, refused in a sentence before training starts."""

import inspect
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from datamodules.base import SequenceData
from datamodules.loading import class_named
from runs.record import changed_splits, first_change, flat, options_of
from vrnn import likelihoods
from vrnn.checkpoint import read
from vrnn.likelihoods import Likelihood
from vrnn.likelihoods.discrete import DiscreteLikelihood
from vrnn.models.base import SequenceModel

__all__ = [
    "check_data",
    "check_folder",
    "check_given",
    "check_kind",
    "check_likelihood",
    "check_options",
    "check_resumed",
    "check_trainer",
    "check_types",
    "has_split_of",
]

log = logging.getLogger(__name__)

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true", "32", "bf16", "16", "64")

PLACES = ("data.root=", "data.cache=", "data.lists=")
"""Options that say where the data are, not which."""

FREE = ("model.engine", "model.checkpoint_steps", "model.dropout")
"""Options of a model that its weights do not depend on."""


def check_options(model: dict[str, Any], data: SequenceData) -> None:
    """Refuses options that the likelihood does not take, before it is built.

    Raises:
        ValueError: naming models that would fit, or the options to add and to take away.
    """
    likelihood = model["likelihood"]
    if data.all_binary and "components" in likelihood:
        raise ValueError(
            f"data={data.name} gives binary frames, of which there are no mixtures of Gaussians; "
            "choose model=vrnn_bernoulli, rnn_bernoulli, vrnn_nade, rnn_nade, or another one that "
            "ends in _bernoulli"
        )
    given = {key for key in likelihood if not key.startswith("_")}
    parameters = inspect.signature(get_object(likelihood["_target_"])).parameters.values()
    taken = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.name in taken and p.default is p.empty}
    unknown = given - taken if len(taken) == len(parameters) else set()  # Else **kwargs.
    words = [f"~model.likelihood.{key}" for key in sorted(unknown)]
    words += [f"+model.likelihood.{key}=<value>" for key in sorted(needed - given)]
    if words:
        raise ValueError(
            f"{likelihood['_target_']} takes other options than this model gives its likelihood: "
            f"add {' '.join(words)}, or choose a model= that is made for it"
        )


def check_likelihood(likelihood: object) -> None:
    """Refuses what is no output distribution.

    Raises:
        ValueError: naming those that there are.
    """
    if not isinstance(likelihood, dict):
        raise ValueError(
            f"model.likelihood={likelihood} would replace the options of the likelihood, too; its "
            f"class alone is x.likelihood=, one of {', '.join(heads())}"
        )
    target = str(likelihood["_target_"])
    if class_named(target, Likelihood) is None:
        raise ValueError(
            f"model.likelihood._target_={target} is no likelihood that can be found; "
            f"x.likelihood= takes one of {', '.join(heads())}"
        )


def heads() -> list[str]:
    """The output distributions of this package."""
    classes = ((name, getattr(likelihoods, name)) for name in likelihoods.__all__)
    return [f"vrnn.likelihoods.{name}" for name, c in classes if not inspect.isabstract(c)]


def check_given(cfg: DictConfig) -> None:
    """Refuses a configuration with options that have to be given and are not.

    Raises:
        ValueError: naming them.
    """
    written = flat(OmegaConf.to_container(cfg, resolve=False))
    if missing := sorted(key for key, value in written.items() if value == "???"):
        words = " ".join(f"{key}=<value>" for key in missing)
        raise ValueError(f"{', '.join(missing)} must be given: {words}")


def check_types(node: object, path: str = "") -> None:
    """Refuses text where a constructor wants a number, and fractions where it wants a whole one.

    Args:
        node: a resolved configuration in plain containers, with their `_target_`.
        path: of the node, which the message names.

    Raises:
        ValueError: naming the option.
    """
    if not isinstance(node, dict):
        return
    wanted = annotations(node["_target_"]) if "_target_" in node else {}
    for key, value in node.items():
        kinds = set(get_args(wanted.get(key)) or [wanted.get(key)])
        if isinstance(value, str) and kinds <= {int, float, bool, Tensor, type(None)}:
            raise ValueError(f"{path}{key}={value} must be a number")
        if isinstance(value, float) and int in kinds and kinds <= {int, type(None)}:
            raise ValueError(f"{path}{key}={value} must be a whole number")
        check_types(value, f"{path}{key}.")


def annotations(target: str) -> dict[str, Any]:
    """The types of a constructor's or function's arguments, those of the base classes included."""
    try:
        found = get_object(target)
        owners = reversed(found.__mro__) if isinstance(found, type) else [found]
        calls = [vars(owner).get("__init__", owner) for owner in owners]
        return {name: kind for call in calls for name, kind in get_type_hints(call).items()}
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return {}


def check_trainer(trainer: dict[str, Any]) -> None:
    """Refuses what Lightning would take silently, or tell in words of its own.

    Weights in half precision are among it: the normaliser and the densities would be, too.

    Raises:
        ValueError: naming the option.
    """
    accelerator, precision = trainer["accelerator"], str(trainer["precision"])
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda", "mps") and not has_gpu:
        raise ValueError(
            f"trainer.accelerator={accelerator}: there is no GPU here that torch can use; "
            "trainer.accelerator=auto takes what there is"
        )
    mixed = {"bf16-true": "bf16-mixed", "16-true": "16-mixed"}
    if precision in mixed:
        raise ValueError(
            f"trainer.precision={precision} would keep normaliser and densities in half "
            f"precision; choose {mixed[precision]}"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"trainer.precision={precision} is not one of {', '.join(PRECISIONS)}")
    if precision in ("16", "16-mixed") and (accelerator == "cpu" or not has_gpu):
        raise ValueError(f"trainer.precision={precision} is for GPUs; choose bf16-mixed")
    if (trainer["gradient_clip_val"] or 0) < 0:
        raise ValueError(
            f"trainer.gradient_clip_val must not be negative, not {trainer['gradient_clip_val']}"
        )


def check_resumed(checkpoint: Path, config: dict[str, Any]) -> None:
    """Refuses to go on with another model, with options that the checkpoint brings itself, or to
    an end that it is behind already.

    Raises:
        CheckpointError: if the file is no usable checkpoint.
        ValueError: naming an option that differs.
    """
    content = read(checkpoint)
    both = (content["hyper_parameters"], config)
    before, after = ({part: c[part] for part in ("model", "optim")} for c in both)
    if changed := first_change(before, after, FREE):
        key, was, now = changed
        raise ValueError(
            f"{checkpoint} was trained with {key}={was}, and goes on with it; {key}={now} is for "
            "a run of its own, without ckpt="
        )
    epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    done = {"max_epochs": ("epoch", epochs), "max_steps": ("update", content["global_step"])}
    for name, (what, number) in done.items():
        limit = config["trainer"][name]
        if limit not in (None, -1) and limit < number:
            raise ValueError(
                f"{checkpoint} is that of {what} {number}, beyond trainer.{name}={limit}; it goes "
                "on to a larger number, and a shorter run is one of its own, without ckpt="
            )


def check_data(checkpoint: Path, config: dict[str, Any], data: SequenceData) -> None:
    """Refuses to go on by ckpt=last with other sequences than those of the run; of a checkpoint
    that is named, which may start a run of its own, warns of them.

    Raises:
        ValueError: saying how the run gets its own, and how to go on with the new ones.
    """
    run = checkpoint.parent.parent
    changed = changed_splits(run, data)
    if not changed:
        return
    told = other_data(run, changed, data)
    if config["ckpt"] == "last":
        raise ValueError(f"{told}; ckpt={checkpoint} goes on with those that there are now")
    before = options_of(run) or {}
    if before.get("data", {}).get("_target_") == config["data"]["_target_"]:
        log.warning(told)


def has_split_of(run: Path, split: str, data: SequenceData, overrides: Sequence[str]) -> bool:
    """Whether a split is that of the run in this folder; warns if it is not, and no override of
    the data's options has asked for another."""
    if not all(word.startswith(PLACES) for word in overrides):
        return False
    if split not in changed_splits(run, data):
        return True
    log.warning(other_data(run, [split], data))
    return False


def other_data(run: Path, splits: Sequence[str], data: SequenceData) -> str:
    """Says that splits hold other sequences than those of a run, and how it gets its own."""
    listed = run / "splits.csv"
    remedy = "give it the corpus as it was by data.root="
    if data.splits_by is not None and listed.is_file():
        remedy = f"for the run's own, {data.splits_by.format(listed)}"
    return (
        f"data={data.name} has other {', '.join(splits)} sequences than when {run} was "
        f"trained, which may have learnt from some of them: {remedy}"
    )


def check_kind(model: SequenceModel, data: SequenceData, fitting: str) -> None:
    """Refuses a model that does not describe this kind of sequence, frames of this size, or these
    levels.

    Args:
        fitting: a likelihood that would.

    Raises:
        ValueError: naming it.
    """
    likelihood = model.likelihood
    if data.kind not in likelihood.kinds:
        raise ValueError(
            f"model.likelihood={type(likelihood).__name__} describes "
            f"{' or '.join(likelihood.kinds)} frames, but data={data.name} gives {data.kind} "
            f"ones; {fitting} would fit"
        )
    if model.x_dim != data.x_dim:
        raise ValueError(
            f"x.dim={model.x_dim}, but data={data.name} gives frames of {data.x_dim} numbers; "
            "leave x.dim at its default"
        )
    if isinstance(likelihood, DiscreteLikelihood):
        check_levels(likelihood, data, fitting)


def check_folder(pattern: str) -> None:
    """Refuses a run folder that is named after the time where several processes each read it.

    Args:
        pattern: hydra.run.dir with its interpolations.

    Raises:
        ValueError: if torchrun or srun has started more than this one.
    """
    processes = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    if processes > 1 and "${now:" in pattern:
        raise ValueError(
            f"each of the {processes} processes that torchrun or srun has started would name a "
            "run folder after its own time; give them one by hydra.run.dir=outputs/mine, or "
            "under SLURM by hydra=slurm"
        )


def check_levels(likelihood: DiscreteLikelihood, data: SequenceData, fitting: str) -> None:
    """Refuses raw frames that a discrete likelihood has no levels for, by a look at a hundred."""
    lowest, highest = likelihood.grid.lowest, likelihood.grid.highest
    train = data.splits["train"]
    for i in range(min(100, len(train))):
        raw = np.asarray(train[i], np.float64)
        off = (raw != raw.round()) | (raw < lowest) | (raw > highest)
        if off.any():
            raise ValueError(
                f"model.likelihood={type(likelihood).__name__} describes whole numbers from "
                f"{lowest} to {highest}, but data={data.name} has {raw[off][0]:g}; {fitting} "
                "would fit"
            )
