"""Where a run goes on, whether it has come to its end before, and how to go on after Ctrl-C."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runs.record import finished, is_first_process, options_of
from vrnn.checkpoint import find_last
from vrnn.moved import current

__all__ = ["finished_before", "resume_from", "shown", "tell_how_to_go_on"]

log = logging.getLogger(__name__)


def resume_from(cfg: DictConfig) -> Path | None:
    """The checkpoint to go on from, a run's last one if its folder is given; `ckpt=last` starts
    afresh where there is none yet."""
    if cfg.ckpt is None:
        return None
    last = cfg.ckpt == "last"
    named = Path(cfg.output_dir if last else cfg.ckpt)
    if not last and not named.is_dir():
        return named
    found = find_last(named)
    if found is None and not last:
        raise ValueError(f"ckpt={named}: there is no checkpoints/last.ckpt in this folder")
    if found is None:
        log.warning(
            "ckpt=last: nothing to resume in %s, so training starts afresh; hydra.run.dir= names "
            "the folder of an earlier run",
            cfg.output_dir,
        )
    return found


def finished_before(cfg: DictConfig) -> dict[str, float] | None:
    """The figures of this job of a sweep if it came to its end before; it is not run again."""
    before = options_of(Path(cfg.output_dir))
    if before is None:
        return None
    if cfg.x.dim is None:  # The run before has taken it from the data.
        cfg = OmegaConf.create({**cfg, "x": {**cfg.x, "dim": before["x"]["dim"]}})
    plain: Any = current(OmegaConf.to_container(cfg, resolve=True))
    figures = finished(Path(cfg.output_dir), plain)
    if figures is not None:
        log.info("%s came to its end before, so it is not run again", cfg.output_dir)
    return figures


def tell_how_to_go_on(folder: Path, sweep: bool) -> None:
    """Says by which command a run or sweep goes on that was interrupted."""
    if is_first_process() and (sweep or (folder / "checkpoints" / "last.ckpt").exists()):
        program, *words = sys.argv
        # Hydra wants all options in a row, which -m may not part.
        start, where = ["python", program], "hydra.run.dir="
        if sweep:
            start, where = [*start, "-m"], "hydra.sweep.dir="
        own = ("-m", "--multirun", where, "ckpt=")
        words = [word for word in words if not word.startswith(own)]
        words = [*start, *words, f"{where}{shown(folder)}", "ckpt=last"]
        print(f"\ninterrupted; to go on: {shlex.join(words)}", file=sys.stderr)


def shown(folder: Path) -> Path:
    """A path as the user would type it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
