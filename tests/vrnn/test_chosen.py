"""By what a run's weights are chosen, and whose scores it reports."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from support.helpers import CONF, build, configure, plain, trainer

import train
from callbacks.checkpoints import BestCheckpoint


def test_untrained_scores_are_those_of_the_weights_that_training_starts_from(
    tmp_path: Path,
) -> None:
    cfg = configure(tmp_path, "particles=1")
    data, module = build(cfg)
    figures = train.untrained_scores(plain(cfg), module, data)
    trainer(tmp_path).test(module, data, verbose=False)
    assert figures["untrained/elbo"] == pytest.approx(module.figures["test/elbo"])


def test_early_stopping_waits_for_what_the_checkpoint_keeps(tmp_path: Path) -> None:
    callbacks = configure(tmp_path).callbacks
    assert callbacks.early_stopping.mode == callbacks.checkpoint.mode == "max"


def test_the_best_epoch_survives_a_restart(tmp_path: Path) -> None:
    before, after = (BestCheckpoint(tmp_path, monitor="val/elbo") for _ in range(2))
    before.best_epoch = 7
    after.load_state_dict(before.state_dict())
    assert after.best_epoch == 7


def test_a_sweep_is_told_the_bound_that_chooses_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["objective=fivo"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg.copy())
    with open_dict(cfg):
        del cfg["hydra"]
    monkeypatch.setattr(train, "run", lambda cfg: {"val/elbo": 1.0, "val/fivo": 2.0})
    assert train.main.__wrapped__(cfg) == 2.0
