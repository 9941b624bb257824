"""Trains a model: python train.py model=vrnn_gmm data=iam data.root=/path/to/iam-ondb

Every option of every group: python train.py --help. Sweeps: python train.py -m
    model=rnn_gmm,vrnn_gmm seed=0,1,2.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.errors import ConfigCompositionException

from runs.threads import wait_briefly

# Only light imports here: --cfg, --help and tab completion start this file, too.
if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from omegaconf import DictConfig

    from datamodules.base import SequenceData
    from vrnn.module import VRNNModule

log = logging.getLogger(__name__)


def run(cfg: "DictConfig") -> dict[str, float]:
    """Trains and scores what a configuration describes; all files go below `cfg.output_dir`.

    Returns:
        The figures of metrics.json, keys `split/name`.
    """
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_only

    from callbacks.progress import Progress
    from runs.checks import check_data, check_resumed
    from runs.loggers import NoLogger, close_loggers, describe_metrics, quieten_lightning
    from runs.naming import model_name
    from runs.record import record
    from runs.samples import write_real
    from vrnn.memory import keep_freed_memory

    quieten_lightning()
    keep_freed_memory()
    plain, data, module = build(cfg)
    start = resume_from(cfg)
    if start is not None:
        check_resumed(start, plain)
        check_data(start, plain, data)
    started = time.monotonic()
    if rank_zero_only.rank == 0:
        record(Path(cfg.output_dir), plain, data)
        write_real(data, Path(cfg.output_dir) / "samples")
        if cfg.trainer.enable_progress_bar:
            name, count = model_name(plain["model"]), len(data.splits["train"])
            print(f"{name} on {count:,} sequences of {data.name}, {data.batch_size} a batch")
            print(f"into {shown(Path(cfg.output_dir))}")

    loggers = [instantiate(node) for node in plain.get("logger", {}).values()] or [NoLogger()]
    try:
        for logger in loggers:
            logger.log_hyperparams({**plain, "parameters": module.model.parameter_count})
        describe_metrics(loggers, cfg.bound)
        callbacks = [instantiate(node) for node in plain["callbacks"].values() if node]
        if cfg.trainer.enable_progress_bar:
            callbacks.append(Progress())
        trainer: Trainer = instantiate(
            plain["trainer"], logger=loggers, callbacks=callbacks, default_root_dir=cfg.output_dir
        )
        figures = untrained_scores(plain, module, data) if cfg.untrained else {}
        trainer.fit(module, data, ckpt_path=start)
        if cfg.test:
            best = best_checkpoint(trainer)
            trainer.validate(module, data, ckpt_path=best, verbose=False)
            trainer.test(module, data, ckpt_path=best, verbose=False)
        figures |= module.figures | {"minutes": (time.monotonic() - started) / 60}
        if trainer.is_global_zero:
            conclude(cfg, trainer, module, figures)
        return figures
    finally:
        close_loggers(loggers)


def build(cfg: "DictConfig") -> tuple[dict[str, Any], "SequenceData", "VRNNModule"]:
    """The options, in plain containers, with the data and the module that they describe."""
    from hydra.utils import instantiate
    from lightning.pytorch import seed_everything
    from omegaconf import OmegaConf

    from runs.checks import check_kind, check_likelihood, check_options, check_trainer, check_types
    from vrnn.module import VRNNModule

    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_likelihood(plain["model"]["likelihood"])
    # The module takes particles, seed and loss_mean as they stand at the top.
    check_types({**plain, "_target_": "vrnn.module.VRNNModule"})
    check_trainer(plain["trainer"])
    if not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed must be between 0 and {2**32 - 1}, not {cfg.seed}")
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: SequenceData = instantiate(plain["data"])
    data.prepare_data()
    data.setup()
    if cfg.x.dim is None:
        cfg.x.dim = data.x_dim
        plain = OmegaConf.to_container(cfg, resolve=True)
    check_options(plain["model"], data)
    module = VRNNModule(
        model=plain["model"],
        objective=plain["objective"],
        optim=plain["optim"],
        data={**data.description(), "module": plain["data"]},
        particles=cfg.particles,
        seed=cfg.seed,
        loss_mean=cfg.loss_mean,
    )
    check_kind(module.model, data, cfg.x.likelihood)
    return plain, data, module


def untrained_scores(
    plain: dict[str, Any], module: "VRNNModule", data: "SequenceData"
) -> dict[str, float]:
    """The test scores of the weights as they were drawn, with a single particle."""
    from hydra.utils import instantiate

    from vrnn.module import VRNNModule

    untrained = VRNNModule(**{**module.hparams, "particles": 1})
    untrained.load_state_dict(module.state_dict())
    # The one that ends all processes when one is told to.
    last = plain["callbacks"].get("last")
    callbacks = [instantiate(last)] if last else []
    options = {"logger": False, "callbacks": callbacks, "enable_checkpointing": bool(last)}
    options["profiler"] = None
    trainer = instantiate({**plain["trainer"], **options}, default_root_dir=plain["output_dir"])
    trainer.test(untrained, data, verbose=False)
    return {key.replace("test/", "untrained/"): value for key, value in untrained.figures.items()}


def conclude(
    cfg: "DictConfig", trainer: "Trainer", module: "VRNNModule", figures: dict[str, float]
) -> None:
    """Writes metrics.json and samples, and prints the scores and where to look next."""
    from rich.console import Console

    from reports.score_tables import scores_tables
    from runs.loggers import log_sounds, unsent
    from runs.samples import generate_raw, write_samples

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
    if not trainer.fast_dev_run:
        generated = generate_raw(module, n=8, seed=cfg.seed)
        files = write_samples(generated, module.hparams["data"], folder / "samples")
        log_sounds(trainer, [f for f in files if f.suffix == ".wav"], "samples/generated")

    spaces = list(module.hparams["data"]["log_scales"])
    splits = [split for split in ("untrained", "val", "test") if f"{split}/elbo" in figures]
    exact = module.model.z_dim == 0
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
    page = show(cfg, trainer, module, figures) if cfg.report and not trainer.fast_dev_run else None
    if page is not None:
        console.print(f"to look at: {shown(page)}", soft_wrap=True)
    bounds = "" if exact else " --k 40"
    if "checkpoints/" in left:
        console.print(f"next: python evaluate.py {shown(folder)}{bounds}", soft_wrap=True)
        console.print(f"      python generate.py {shown(folder)} --n 16", soft_wrap=True)
    if (recorded := unsent(trainer.loggers)) is not None:
        console.print(f"      wandb sync {shown(recorded)}", soft_wrap=True)


def show(
    cfg: "DictConfig", trainer: "Trainer", module: "VRNNModule", figures: dict[str, float]
) -> Path | None:
    """Draws the run, for its page and for W&B. The results are safe by now, so a failure is told
    and loses nothing else. Returns the page."""
    from reports.figures import figures as draw
    from reports.page import write_report
    from runs.loggers import log_end

    folder, data = Path(cfg.output_dir), trainer.datamodule  # type: ignore[attr-defined]
    try:
        drawn = draw(module, data)
        log_end(trainer.loggers, figures, drawn)
        return write_report(folder, drawn)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        log.warning("no report.html: %s; python -m reports %s tries again", told, shown(folder))
        return None


def shown(folder: Path) -> Path:
    """A path as the user would type it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def finished_before(cfg: "DictConfig") -> dict[str, float] | None:
    """The figures of this job of a sweep if it came to its end before; it is not run again."""
    from omegaconf import OmegaConf

    from runs.record import finished, options_of

    before = options_of(Path(cfg.output_dir))
    if before is None:
        return None
    if cfg.x.dim is None:  # The run before has taken it from the data.
        cfg = OmegaConf.merge(cfg, {"x": {"dim": before["x"]["dim"]}})
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    figures = finished(Path(cfg.output_dir), plain)
    if figures is not None:
        log.info("%s came to its end before, so it is not run again", cfg.output_dir)
    return figures


def resume_from(cfg: "DictConfig") -> Path | None:
    """The checkpoint to go on from, a run's last one if its folder is given; `ckpt=last` starts
    afresh where there is none yet."""
    from vrnn.checkpoint import find_last

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


def tell_how_to_go_on(folder: Path, sweep: bool) -> None:
    """Says by which command a run or sweep goes on that was interrupted."""
    import shlex

    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank == 0 and (sweep or (folder / "checkpoints" / "last.ckpt").exists()):
        program, *words = sys.argv
        # Hydra wants all options in a row, which -m may not part.
        start, where = ["python", program], "hydra.run.dir="
        if sweep:
            start, where = [*start, "-m"], "hydra.sweep.dir="
        own = ("-m", "--multirun", where, "ckpt=")
        words = [word for word in words if not word.startswith(own)]
        words = [*start, *words, f"{where}{shown(folder)}", "ckpt=last"]
        print(f"\ninterrupted; to go on: {shlex.join(words)}", file=sys.stderr)


def best_checkpoint(trainer: "Trainer") -> str | None:
    callback = trainer.checkpoint_callback
    return getattr(callback, "best_model_path", None) or None


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: "DictConfig") -> float:
    wait_briefly()  # before torch is imported
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from runs.checks import check_folder, check_given
    from runs.errors import readable_errors
    from runs.fresh import check_fresh

    hydra_cfg = HydraConfig.get()
    cfg.output_dir = hydra_cfg.runtime.output_dir
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    if sweep and OmegaConf.select(cfg, "logger.wandb.group", default="") is None:
        # Grouped by it, W&B shows what the sweep's table does: means over seeds.
        words = [word for word in hydra_cfg.overrides.task if not word.startswith("seed=")]
        name = f"{Path(hydra_cfg.sweep.dir).name} {' '.join(words)}"
        cfg.logger.wandb.group = name[:128]
    figures: dict[str, float] = {}
    # Refused, a sweep ends, too, and the results that are there stay as they are.
    with readable_errors():
        if sweep:
            figures = finished_before(cfg) or {}
        else:  # With --config-path there is no callback that has done it.
            check_fresh(Path(cfg.output_dir), cfg.ckpt)
    with readable_errors(Path(cfg.output_dir), end=not sweep):
        if sweep and cfg.trainer.devices != 1:
            raise ValueError(
                f"trainer.devices={cfg.trainer.devices} with -m would start every job on "
                "every process: use one device a job, or single runs"
            )
        check_given(cfg)
        if not sweep and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1):
            check_folder(str(OmegaConf.to_container(hydra_cfg.run, resolve=False)))
        try:
            figures = figures or run(cfg)
        except (KeyboardInterrupt, SystemExit) as end:
            if getattr(end, "code", 1) == 1:  # Ctrl-C, or Lightning's answer to it.
                tell_how_to_go_on(Path(hydra_cfg.sweep.dir if sweep else cfg.output_dir), sweep)
            raise
    return figures.get(f"val/{cfg.bound}", float("nan"))


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        # Hydra leaves while it handles an error that it has told at length.
        untold = isinstance(end.__context__, ConfigCompositionException)
        if untold or "Config group override" in str(end.__context__):
            from runs.typos import meant

            told = meant(str(end.__context__), sys.argv[1:])
            print(f"\n\n{Path(sys.argv[0]).name}: {told}", file=sys.stderr)
        raise
