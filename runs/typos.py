"""What a misspelt option was meant to be."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

__all__ = ["meant"]

CONF = Path(__file__).resolve().parent.parent / "conf"


def meant(message: str, words: Sequence[str]) -> str:
    """Says in a sentence what Hydra's message is about, and what was meant if there is a guess.

    Args:
        message: of Hydra's error about a configuration.
        words: the options of the command.
    """
    if "Config group override" in message and (null := [w for w in words if w.endswith("=null")]):
        return f"{null[0]} is no file of conf/; ~{null[0].removesuffix('=null')} takes it away"
    if found := re.search(r"Could not find '(.+)/(.+)'", message):
        group, name = found.groups()
        return f"there is no {group}={name}{guess(name, choices(group), f'{group}=')}"
    if found := re.search(r"Could not override '(.+?)'", message):
        name = found[1]
        room, _, option = name.partition(".")
        from vrnn.moved import OPTIONS  # Loads torch, which other messages do not wait for.

        if room == "data" and option in OPTIONS:
            return f"{name} is called data.{OPTIONS[option]} now"
        group = name.partition(".")[0]
        if holds := [one for one in choices(group) if name in options([f"{group}={one}"])]:
            return f"{name} belongs to {group}={', '.join(holds)}, which was not chosen"
        known = options([word for word in words if not word.startswith(name)])
        return (
            f"there is no option {name}{guess(name, known)}; python train.py --cfg job shows all"
        )
    return "the options make no configuration, for the reason above"


def guess(name: str, known: Sequence[str], before: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1, 0.75)
    return f", perhaps {before}{near[0]}" if near else ""


def choices(group: str) -> list[str]:
    files = sorted((CONF / group).glob("*.yaml"))
    return [file.stem for file in files if not file.stem.startswith("_")]


def options(words: Sequence[str]) -> list[str]:
    """All groups and options, those of the configuration that the words make if they can."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = compose("train", [word for word in words if "=" in word])
        except HydraException:
            cfg = compose("train")
    return [group.name for group in CONF.iterdir()] + names(OmegaConf.to_container(cfg))


def names(node: object, path: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    here = [f"{path}{key}" for key in node]
    return here + [name for key in node for name in names(node[key], f"{path}{key}.")]
