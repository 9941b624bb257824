"""A run's folder is its own: none that has checkpoints is trained into anew."""

# Only light imports: Hydra imports this file whenever train.py is started.
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from runs.errors import readable_errors

__all__ = ["FreshFolder", "check_fresh"]


class FreshFolder(Callback):
    """Calls `check_fresh` before Hydra replaces .hydra/ in the folder of a single run."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # The folder's name may refer to it.
        with readable_errors():
            check_fresh(Path(config.hydra.run.dir), config.ckpt)


def check_fresh(folder: Path, ckpt: str | None) -> None:
    """Refuses a folder whose checkpoints a run would replace that does not go on from them.

    Args:
        ckpt: what the run goes on from: "last", a file, or None.

    Raises:
        ValueError: saying both ways out.
    """
    own = ckpt is not None and Path(ckpt).resolve().is_relative_to(folder.resolve())
    if any(folder.glob("checkpoints/*.ckpt")) and ckpt != "last" and not own:
        raise ValueError(
            f"{folder} holds a run, which would be overwritten: ckpt=last goes on with it; for a "
            "new one name another folder by hydra.run.dir=, or delete this one"
        )
