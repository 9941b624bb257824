"""The data module that a checkpoint describes."""

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from datamodules.base import SequenceData
from datamodules.files.problems import some

__all__ = ["class_named", "load_data"]


def load_data(description: Mapping[str, Any], overrides: Sequence[str] = ()) -> SequenceData:
    """Builds and opens the data that a model was trained on.

    Args:
        description: as stored in a checkpoint (`SequenceData.description`, with the module's own
            options).
        overrides: options to change, such as "data.root=/elsewhere".

    Raises:
        ValueError: if the description names no data module of this package, or an override
            names an option that the module has not.
    """
    missing = {"module", "columns", "shift", "scale"} - description.keys()
    if missing:
        raise ValueError(
            f"the checkpoint's description of its data lacks {', '.join(sorted(missing))}"
        )
    options = dict(description["module"])
    target = options.pop("_target_", None)
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override} has no value; write {override}=...")
    changed = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(changed, dict)
    changes = changed.pop("data", {})
    unknown = [str(key) for key in changed] + [
        f"data.{key}" for key in changes if key not in options
    ]
    if unknown:
        raise ValueError(
            f"unknown option {unknown[0]}; choose from data.{', data.'.join(options)}"
        )
    own = isinstance(target, str) and target.startswith("datamodules.")
    found = class_named(target, SequenceData) if own else None
    if found is None:
        raise ValueError(
            f"the checkpoint names {target!r}, which is no data module of this package"
        )
    data = found(**{**options, **changes})
    data.prepare_data()
    data.setup()
    if list(data.columns) != list(description["columns"]):
        raise ValueError(
            f"the model was trained on frames of {len(description['columns'])} numbers "
            f"({some(description['columns'])}), but data={data.name} gives {len(data.columns)} "
            f"({some(data.columns)})"
        )
    data.standardise_with(description["shift"], description["scale"])
    return data


def class_named(name: str, kind: type) -> type[Any] | None:
    """The class of this name, with its module's, if it is of a kind."""
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) and issubclass(found, kind) else None
