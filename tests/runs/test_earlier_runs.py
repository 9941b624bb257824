"""Runs that earlier versions left behind are of use to this one.

`support/earlier_runs` was made by commit 2a8a3a5, with classes under names that they no longer
have. `elbo.npz` has frames, noise and the bounds that its code computed of them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.helpers import Command

import vrnn
from runs.record import first_change, options_of
from vrnn.checkpoint import load_module
from vrnn.moved import current

EARLIER = Path(__file__).parents[1] / "support" / "earlier_runs"


@pytest.fixture
def pen(tmp_path: Path) -> Path:
    return shutil.copytree(EARLIER / "pen", tmp_path / "pen")


@pytest.mark.parametrize("name", ["pen", "sound"])
def test_its_bounds_are_the_same(name):
    kept = {key: torch.from_numpy(x) for key, x in np.load(EARLIER / name / "elbo.npz").items()}
    model = vrnn.load(EARLIER / name).double()
    with torch.no_grad():
        trace = model.trace(kept["x"], noise=kept["noise"])
    mask = torch.ones(kept["x"].shape[:2], dtype=torch.bool)
    nats = vrnn.bounds.elbo(trace, kept["x"], mask)
    torch.testing.assert_close(nats, kept["elbo"], rtol=1e-12, atol=0)


def test_it_is_evaluated(pen: Path, command: Command):
    command("evaluate.py", pen, "--k", 4, "--json", pen / "scores.json")
    before = json.loads((pen / "metrics.json").read_text())
    now = json.loads((pen / "scores.json").read_text())
    # Other noise, a latent that is hardly used: the bound is the same to a fraction of a nat.
    assert now["test/elbo"] == pytest.approx(before["test/elbo"], abs=0.5)
    assert now["test/steps"] == before["test/steps"]


def test_it_generates(pen: Path, command: Command):
    command("generate.py", pen, "--n", 2, "--out", pen / "drawn")
    drawn = np.load(pen / "drawn" / "generated.npz")["x"]
    assert len(drawn) == 2 and np.isfinite(drawn).all()


def test_it_goes_on(pen: Path, command: Command):
    before = torch.load(pen / "checkpoints" / "last.ckpt", weights_only=True)
    words = [w for w in overrides(pen) if not w.startswith(("trainer.max_epochs=", "hydra."))]
    more = ["trainer.max_epochs=3", f"hydra.run.dir={pen}", "ckpt=last", "test=false"]
    command("train.py", *words, *more)
    after = torch.load(pen / "checkpoints" / "last.ckpt", weights_only=True)
    assert after["global_step"] == before["global_step"] * 3 // 2
    assert after["hyper_parameters"]["model"] == current(before["hyper_parameters"]["model"])


def test_its_page_is_drawn(pen: Path, command: Command):
    from reports.page import write_report

    page = write_report(pen).read_text()
    assert "VRNN-GMM" in page and "synthetic_handwriting" in page


def test_it_is_repeated_from_its_configuration(pen: Path, command: Command, tmp_path: Path):
    folder = tmp_path / "again"
    command(
        "train.py",
        f"--config-path={pen / '.hydra'}",
        "--config-name=config",
        f"hydra.run.dir={folder}",
        "trainer.max_epochs=1",
        "test=false",
    )
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_names_that_have_moved_are_no_change_of_options():
    options = options_of(EARLIER / "sound")
    assert options is not None
    assert options["model"]["likelihood"]["_target_"] == "vrnn.discrete.MuLawCategorical"
    assert first_change(options, current(options), ()) is None
    module = load_module(EARLIER / "sound")
    now = module.hparams["model"]["likelihood"]["_target_"]
    assert now == "vrnn.likelihoods.MuLawCategorical"


def test_options_of_data_have_the_names_of_today():
    before = {"data": {"_target_": "datamodules.iam.X", "window": 5, "carry": 3}}
    assert current(before)["data"]["reset_every"] == 3 and "carry" not in current(before)["data"]
    assert current({"carry": 3}) == {"carry": 3}, "somebody else's"


def overrides(run: Path) -> list[str]:
    return json.loads((run / "run.json").read_text())["overrides"]
