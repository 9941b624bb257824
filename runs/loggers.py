"""Where figures go: W&B online or offline, and pictures to disk and to W&B."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from matplotlib.figure import Figure

from runs.drawing import as_image, slug
from runs.record import is_first_process

__all__ = [
    "NoLogger",
    "close_loggers",
    "csv_logger",
    "describe_metrics",
    "log_end",
    "log_sounds",
    "quieten_lightning",
    "save_picture",
    "unsent",
    "wandb_logger",
]

log = logging.getLogger(__name__)

PATIENCE = 30
"""Seconds that the W&B server may take to answer at the start."""

END_PATIENCE = 120
"""Seconds that it may take at the end to receive what is left."""

UNHELPFUL = (
    ".*LeafSpec.*",
    "Experiment logs directory .* exists and is not empty",
    "Checkpoint directory .* exists and is not empty",
    ".*does not have many workers.*",
    # Inside Lightning, of several processes.
    ".*nn.functional.all_gather is deprecated.*",
    # The scores are the same in all processes already.
    ".*when logging on epoch level in distributed.*",
    # Updates are counted over all epochs, so that small corpora are logged as often.
    ".*is smaller than the logging interval.*",
    # A run that goes on from another's checkpoint has best weights of its own.
    "The dirpath has changed from .*",
    # It is: see datamodules.order.
    ".*your dataloader is not resumable.*",
)
"""Warnings of Lightning at every run."""


class NoLogger(Logger):
    """Keeps nothing; callbacks that log need not know."""

    name = version = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def csv_logger(save_dir: str) -> CSVLogger:
    """Creates the logger of <save_dir>/metrics.csv.

    That of an interrupted run, which Lightning would delete, is kept as metrics.1.csv and so on.
    """
    folder = Path(save_dir)
    earlier = folder / "metrics.csv"
    if earlier.exists() and is_first_process():
        number = 1 + len(list(folder.glob("metrics.*.csv")))
        earlier.rename(folder / f"metrics.{number}.csv")
    return CSVLogger(save_dir, name="", version="")


def wandb_logger(
    save_dir: str,
    project: str,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
) -> Logger:
    """Creates the W&B logger: online when a key is configured, else offline; it never asks. With
    WANDB_MODE=disabled it is a `NoLogger`.

    Where the server does not answer or does not take the key, the run is recorded offline and a
    warning says so. The run's id is kept in the run folder, so a resumed run goes on in the same
    W&B run.

    Args:
        group: of the runs that belong together. In a sweep, where none is given, train.py puts the
            name of its folder and the options of the run but for the seed, 128 characters of it.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return NoLogger()
    folder = Path(save_dir)
    id_file = folder / "wandb_id.txt"
    if id_file.is_file():
        run_id = id_file.read_text().strip()
    else:
        run_id = uuid4().hex[:8]
        if is_first_process():
            folder.mkdir(parents=True, exist_ok=True)
            id_file.write_text(run_id)

    def logger(offline: bool) -> WandbLogger:
        made = WandbLogger(
            project=project,
            name=name or folder.name,
            group=group,
            tags=list(tags),
            save_dir=save_dir,
            id=run_id,
            offline=offline,
            # What Lightning sets for `offline` comes too late once W&B was asked for a key.
            mode="offline" if offline else None,
            settings=wandb.Settings(
                silent=True,
                init_timeout=PATIENCE,
                finish_timeout=END_PATIENCE,
                finish_timeout_raises=True,
            ),
        )
        # Lightning passes it at every run, and W&B warns that it has no effect.
        made._wandb_init.pop("anonymous", None)
        return made

    if not key_configured():
        return logger(offline=True)
    online = logger(offline=False)
    try:
        _ = online.experiment  # Connects, on the first process.
    except (wandb.errors.CommError, wandb.errors.AuthenticationError) as error:
        log.warning(
            "W&B: %s. The run is recorded offline; `wandb sync %s` sends it later",
            " ".join(str(error).split()),
            folder / "wandb" / "offline-run-*",
        )
        wandb.teardown()  # Else the run's id stays in use.
        return logger(offline=True)
    return online


def key_configured() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise ValueError(f"W&B: {error}") from error


def wandb_loggers(loggers: Sequence[Any]) -> list[WandbLogger]:
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def save_picture(trainer: Trainer, figure: Figure, folder: Path, key: str, name: str) -> None:
    """Writes a figure as <folder>/<name>.png and sends it to W&B under `key`."""
    image, content = as_image(figure)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(content)
    for logger in wandb_loggers(trainer.loggers):
        logger.log_image(key, [image])


def log_sounds(trainer: Trainer, files: Sequence[Path], key: str) -> None:
    """Sends WAV files to W&B under `key`."""
    if files:
        for logger in wandb_loggers(trainer.loggers):
            logger.log_audio(key, [str(file) for file in files], caption=[f.stem for f in files])


def describe_metrics(loggers: Sequence[Any], bound: str) -> None:
    """Has W&B keep the best of the bound that chooses the weights, val/<bound>_per_step.max."""
    for logger in wandb_loggers(loggers):
        # Not of val/<bound>: with two values it would be nested, which no sweep can optimise.
        key, step = f"val/{bound}_per_step", "trainer/global_step"
        logger.experiment.define_metric(key, step_metric=step, summary="max,last")


def log_end(
    loggers: Sequence[Any], scores: Mapping[str, float], figures: Mapping[str, Figure]
) -> None:
    """Sends W&B what there is to see at the end: the scores as a table, and figures by title.

    Args:
        scores: keys `split/name`, those of standard errors with `_se` at the end.
    """
    values = {k: v for k, v in scores.items() if "/" in k and not k.endswith("_se")}
    rows = [[*key.split("/", 1), v, scores.get(f"{key}_se")] for key, v in values.items()]
    for logger in wandb_loggers(loggers):
        logger.log_table("scores/final", ["split", "figure", "value", "standard error"], rows)
        for title, figure in figures.items():
            logger.log_image(f"figures/{slug(title)}", [as_image(figure)[0]], caption=[title])


def unsent(loggers: Sequence[Any]) -> Path | None:
    """Where a W&B run is that was recorded offline; None where there is none."""
    offline = wandb_loggers(loggers) and wandb.run is not None and wandb.run.offline
    return Path(wandb.run.dir).parent if offline and wandb.run is not None else None


def close_loggers(loggers: Sequence[Any]) -> None:
    """Ends the W&B run, which otherwise the next job of a sweep would go on with."""
    if not wandb_loggers(loggers) or wandb.run is None:
        return
    folder = Path(wandb.run.dir).parent
    try:
        wandb.finish()
    except TimeoutError:
        log.warning(
            "W&B: the server did not take everything within %s seconds. Nothing is lost: "
            "`wandb sync %s` sends it later",
            END_PATIENCE,
            folder,
        )


def quieten_lightning() -> None:
    """Silences what Lightning prints at every run and nobody can act on."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(f"{package}.utilities.rank_zero").setLevel(logging.WARNING)
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=message)
