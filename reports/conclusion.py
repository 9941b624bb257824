"""What a run writes, prints and shows when it has come to its end."""

import json
import logging
from pathlib import Path

from lightning.pytorch import Trainer
from omegaconf import DictConfig
from rich.console import Console

from reports.figures import figures as draw
from reports.page import write_report
from reports.score_tables import scores_tables
from runs.loggers import log_end, log_sounds, unsent
from runs.resume import shown
from runs.samples import generate_raw, write_generated
from vrnn.module import VRNNModule

__all__ = ["conclude"]

log = logging.getLogger(__name__)


def conclude(
    cfg: DictConfig, trainer: Trainer, module: VRNNModule, figures: dict[str, float]
) -> None:
    """Writes metrics.json and samples, and prints the scores and where to look next."""
    folder = Path(cfg.output_dir)
    module.eval()  # Lightning has put training mode back, and dropout with it.
    figures |= {
        "parameters": module.model.parameter_count,
        "particles": cfg.particles,
        "epochs": trainer.current_epoch,
        "updates": trainer.global_step,
        "best_epoch": getattr(trainer.checkpoint_callback, "best_epoch", 0),
    }
    (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n")
    dry = bool(getattr(trainer, "fast_dev_run", False))
    if not dry:
        generated = generate_raw(module, n=8, seed=cfg.seed)
        files = write_generated(generated, module.hparams["data"], folder / "samples")
        log_sounds(trainer, [f for f in files if f.suffix == ".wav"], "samples/generated")

    spaces = list(module.hparams["data"]["log_scales"])
    splits = [split for split in ("untrained", "val", "test") if f"{split}/elbo" in figures]
    exact = module.model.exact
    console = Console()
    if splits:
        console.print(scores_tables(figures, splits, spaces, cfg.particles, exact))
    epoch = figures["best_epoch"]
    console.print(
        f"{module.model.parameter_count:,} parameters, {trainer.global_step:,} updates"
        + (f"; scores of the best weights, after epoch {epoch:g}" if epoch else "")
    )
    names = ("metrics.json", "metrics.csv", "samples/", "checkpoints/")
    left = [name for name in names if (folder / name).exists()]
    console.print(f"results: {', '.join(left)} in", soft_wrap=True)
    console.print(f"  {shown(folder)}", soft_wrap=True)
    page = show(cfg, trainer, module, figures) if cfg.report and not dry else None
    if page is not None:
        console.print(f"to look at: {shown(page)}", soft_wrap=True)
    bounds = "" if exact else " --k 40"
    if "checkpoints/" in left:
        console.print(f"next: python evaluate.py {shown(folder)}{bounds}", soft_wrap=True)
        console.print(f"      python generate.py {shown(folder)} --n 16", soft_wrap=True)
    if (recorded := unsent(trainer.loggers)) is not None:
        console.print(f"      wandb sync {shown(recorded)}", soft_wrap=True)


def show(
    cfg: DictConfig, trainer: Trainer, module: VRNNModule, figures: dict[str, float]
) -> Path | None:
    """Draws the run, for its page and for W&B. The results are safe by now, so a failure is told
    and loses nothing else. Returns the page."""
    folder, data = Path(cfg.output_dir), trainer.datamodule  # type: ignore[attr-defined]
    try:
        drawn = draw(module, data)
        log_end(trainer.loggers, figures, drawn)
        return write_report(folder, drawn)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        log.warning("no report.html: %s; python -m reports %s tries again", told, shown(folder))
        return None
