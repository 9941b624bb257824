"""Losses and gradients that are not numbers."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from support.helpers import build, configure, trainer

import train
from callbacks.checkpoints import BestCheckpoint, DurableFiles, LastCheckpoint
from callbacks.gradients import Gradients, NonFiniteError
from vrnn.checkpoint import read


class Infinite(Callback):
    """Makes the loss infinite, but not its gradient, at one update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Any) -> None:
        if trainer.global_step == self.update:
            loss.data += float("inf")


def test_what_is_told_names_everything_and_the_batch_is_kept(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    order = [batch.ids.tolist() for batch in data.train_dataloader()]
    data.splits["train"][order[2][5]][0, 1] = float("nan")
    guard = Gradients("stop", str(tmp_path))
    with pytest.raises(NonFiniteError) as error:
        trainer(tmp_path, guard, max_epochs=1, limit_val_batches=0).fit(module, data)
    told = str(error.value)
    for word in ("update 2", "batch 2", str(order[2]), "the loss is nan", "PenMixture's sigma in"):
        assert word in told
    (kept,) = torch.load(tmp_path / "bad_batch_2.pt", weights_only=True)
    assert kept["ids"].tolist() == order[2] and kept["batch"] == 2
    assert kept["x"].isnan().sum() == 1 and kept["mask"].dtype == torch.bool
    assert "bad_batch_2.pt" in told


def test_an_infinite_loss_is_told_of_though_its_gradient_is_finite(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    before = copy.deepcopy(module.state_dict())
    guard = Gradients("skip", str(tmp_path))
    fit = trainer(tmp_path, Infinite(0), guard, max_steps=1, limit_val_batches=0)
    fit.fit(module, data)
    assert guard.skipped == 1 and (tmp_path / "bad_batch_0.pt").is_file()
    assert all(torch.equal(before[n], tensor) for n, tensor in module.state_dict().items())


def test_a_rewind_takes_the_last_checkpoint_and_steps_less(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = configure(tmp_path, "optim=adam_cosine", "optim.steps=9", "optim.lr=0.02")
    data, module = build(cfg)
    order = [batch.ids.tolist() for batch in data.train_dataloader()]
    data.splits["train"][order[2][5]][0, 1] = float("nan")
    guard = Gradients("rewind", str(tmp_path), smaller=0.25)
    last = LastCheckpoint(str(tmp_path / "checkpoints"), minutes=0)
    options: dict[str, Any] = {"max_steps": 3, "limit_val_batches": 0}
    fit = trainer(tmp_path, guard, plugins=[DurableFiles()], **options)
    fit.callbacks.append(last)
    with caplog.at_level("WARNING"):
        fit.fit(module, data)
    assert "going on from" in caplog.text and "with a step size of" in caplog.text
    # Written between the first and the second update.
    kept = read(tmp_path / "checkpoints" / "last-prev.ckpt")
    assert kept["global_step"] == 2
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, kept["state_dict"][name]), name
    (group,) = fit.optimizers[0].param_groups
    (config,) = fit.lr_scheduler_configs
    assert config.scheduler.base_lrs == [pytest.approx(0.02 * 0.25)]
    assert group["lr"] == pytest.approx(config.scheduler._get_closed_form_lr()[0])


def test_it_does_not_go_on_like_that_for_ever(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    data.splits["train"].values[:] = float("nan")
    guard = Gradients("rewind", str(tmp_path), most=2)
    with pytest.raises(NonFiniteError, match="3 in a row"):
        trainer(tmp_path, guard, max_epochs=2, limit_val_batches=0).fit(module, data)
    assert guard.skipped == 3


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_divergence_is_never_the_best(score: float, tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, "model=rnn_gauss"))
    best = BestCheckpoint(tmp_path, "best", "val/score", mode="max", save_on_train_epoch_end=False)

    class Score(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
            module.log("val/score", [1.0, score, 0.5][trainer.current_epoch])

    fit = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        callbacks=[Score(), best],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    fit.fit(module, data)
    assert best.best_model_score == 1.0 and best.best_epoch == 1
    assert read(tmp_path / "best.ckpt")["epoch"] == 0


def test_options_of_the_guard_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not one of stop, skip, rewind"):
        Gradients("ignore")
    with pytest.raises(ValueError, match="needs callbacks.gradients.folder"):
        Gradients("rewind")
    with pytest.raises(ValueError, match="must be between 0 and 1, not 2"):
        Gradients("skip", smaller=2)
    figures = train.run(
        configure(tmp_path, "callbacks.gradients.nonfinite=rewind", "debug=fast", "test=false")
    )
    assert figures["updates"] == 1
