"""Trains a model: python train.py model=vrnn_gmm data=iam data.root=/path/to/iam-ondb

Every option of every group: python train.py --help. Sweeps: python train.py -m
    model=rnn_gmm,vrnn_gmm seed=0,1,2.
"""

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

START_NUMBERS = 2**21
"""Numbers of the training split that a start is fitted to."""

log = logging.getLogger(__name__)


def run(cfg: "DictConfig") -> dict[str, float]:
    """Trains and scores what a configuration describes; all files go below `cfg.output_dir`.

    Returns:
        The figures of metrics.json, keys `split/name`.
    """
    from hydra.utils import instantiate

    from callbacks.progress import Progress
    from reports.conclusion import conclude
    from runs.checks import check_data, check_resumed
    from runs.loggers import NoLogger, close_loggers, describe_metrics, quieten_lightning
    from runs.naming import model_name
    from runs.record import is_first_process, record
    from runs.resume import resume_from, shown
    from runs.samples import write_real
    from vrnn.memory import keep_freed_memory

    quieten_lightning()
    keep_freed_memory()
    plain, data, module = build(cfg)
    started = time.monotonic()
    start = resume_from(cfg)
    if start is not None:
        check_resumed(start, plain)
        check_data(start, plain, data)
    elif cfg.get("start", "published") == "data":  # Configurations of older runs have none.
        module.model.start_from(data.training_frames(START_NUMBERS // data.x_dim))
    if is_first_process():
        record(Path(cfg.output_dir), plain, data, *started_with())
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
    from vrnn.arguments import choose
    from vrnn.module import VRNNModule
    from vrnn.moved import current

    plain: dict[str, Any] = current(
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    )
    check_likelihood(plain["model"]["likelihood"])
    # The module takes particles, seed and loss_mean as they stand at the top.
    check_types({**plain, "_target_": "vrnn.module.VRNNModule"})
    check_trainer(plain["trainer"])
    if not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed must be between 0 and {2**32 - 1}, not {cfg.seed}")
    choose("start", cfg.get("start", "published"), ("data", "published"))
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: SequenceData = instantiate(plain["data"])
    data.prepare_data()
    data.setup()
    if cfg.x.dim is None:
        cfg.x.dim = data.x_dim
        plain = current(OmegaConf.to_container(cfg, resolve=True))
    check_options(plain["model"], data)
    module = VRNNModule(
        model=plain["model"],
        objective=plain["objective"],
        optim=plain["optim"],
        data={**data.description(), "module": plain["data"]},
        particles=cfg.particles,
        seed=cfg.seed,
        loss_mean=cfg.get("loss_mean", "steps"),  # Likewise.
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


def started_with() -> tuple[list[str], list[str]]:
    """The words that start this very run, of a sweep the job's own, and the options among them."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized():
        return sys.argv, []
    words = list(HydraConfig.get().overrides.task)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    return [sys.argv[0], *words] if sweep else sys.argv, words


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
    from runs.resume import finished_before, tell_how_to_go_on

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
