"""Generated sequences beside real ones, while training."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.base import SequenceData
from runs.kinds import KINDS, draw_columns
from runs.loggers import log_sounds, save_picture
from runs.samples import generate_raw
from vrnn.module import VRNNModule

__all__ = ["Pictures"]


class Pictures(Callback):
    """After validation, draws sequences of the validation split beside as many that the model
    made; of sound, the latter can also be heard, one after the other.

    Args:
        folder: where the pictures go, as epoch_NNN.png (and .wav).
        every_n_epochs: draw after every n-th epoch.
        n: how many.
        seed: of the draws, the same at every epoch, so that pictures can be compared.
    """

    def __init__(self, folder: str, every_n_epochs: int = 1, n: int = 8, seed: int = 0) -> None:
        self.folder, self.every_n_epochs, self.n, self.seed = Path(folder), every_n_epochs, n, seed

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = (
            trainer.state.fn == TrainerFn.FITTING
            and trainer.current_epoch % self.every_n_epochs == 0
        )
        if trainer.sanity_checking or not due or not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SequenceData) and isinstance(pl_module, VRNNModule)
        real = data.splits["val"]
        generated = generate_raw(pl_module, self.n, self.seed).x
        columns = {
            "real": [np.asarray(real[i]) for i in range(min(self.n, len(real)))],
            f"generated after {trainer.current_epoch + 1} epochs": generated,
        }
        kind = KINDS[data.kind]
        figure = draw_columns(kind, columns, data.rate)
        name = f"epoch_{trainer.current_epoch:03d}"
        save_picture(trainer, figure, self.folder, "samples/lines", name)
        files = kind.write_all(generated, data.rate, self.folder / name)
        log_sounds(trainer, files, "samples/sound")
