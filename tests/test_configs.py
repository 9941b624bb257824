import csv
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import CONF, configure, plain
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class
from iam_tree import write_corpus
from omegaconf import open_dict

import train

MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
DATA = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
DEBUG = sorted(path.stem for path in (CONF / "debug").glob("*.yaml"))
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").rglob("*.yaml")
)
YAMLS = sorted(CONF.rglob("*.yaml"))

ONE_BATCH = ["debug=fast", "untrained=false", "test=false"]


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("iam"))


def tiny(data: str, iam: Path) -> list[str]:
    """What makes a data set small; every data set must be in here."""
    return {
        "iam": [f"data.root={iam}"],
        "synthetic_handwriting": ["data.lines=2", "data.val_lines=1", "data.test_lines=1"],
    }[data]


def kind_of(model: str, data: str, folder: Path) -> tuple[str, str]:
    cfg = configure(folder, f"model={model}", f"data={data}", "data.seed=0", lines=False)
    return get_class(cfg.model.likelihood._target_).kind, cfg.x.kind


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_on_every_data_set_or_says_why_not(
    model: str, data: str, iam: Path, tmp_path: Path
) -> None:
    choice = [f"model={model}", f"data={data}", *tiny(data, iam)]
    cfg = configure(tmp_path, *choice, *ONE_BATCH, lines=False)
    kind, wanted = kind_of(model, data, tmp_path)
    if kind == wanted:
        train.run(cfg)
        return
    with pytest.raises(ValueError) as error:
        train.run(cfg)
    for name in (cfg.model.likelihood._target_.rpartition(".")[2], data, kind, wanted):
        assert name in str(error.value)
    assert cfg.x.likelihood in str(error.value)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_a_batch(experiment: str, iam: Path, tmp_path: Path) -> None:
    choices = [f"experiment={experiment}", *ONE_BATCH]
    data = configure(tmp_path, *choices, lines=False).data
    name = {"IAM": "iam", "SyntheticHandwriting": "synthetic_handwriting"}[
        data._target_.rpartition(".")[2]
    ]
    figures = train.run(configure(tmp_path, *choices, *tiny(name, iam), lines=False))
    assert figures["updates"] == 1


def test_there_are_configurations_of_every_sort() -> None:
    assert len(MODELS) >= 7 and len(DATA) >= 2 and len(DEBUG) >= 5
    assert EXPERIMENTS, "no experiment was found"
    assert {"rnn_gauss", "rnn_gmm", "vrnn_gauss", "vrnn_gmm", "vrnn_i_gauss"} <= set(MODELS)


@pytest.mark.parametrize("debug", DEBUG)
def test_every_debug_option_runs(
    debug: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("callbacks.samples.write_samples", lambda *_, **__: [])
    small = ["data.lines=8", "data.batch_size=4", "data.val_lines=2", "data.test_lines=2"]
    cfg = configure(tmp_path, f"debug={debug}", *small, "model=rnn_gauss")
    with open_dict(cfg):
        cfg.trainer.max_epochs = min(cfg.trainer.max_epochs, 2)
    with caplog.at_level("INFO"):
        figures = train.run(cfg)
    assert ("test/elbo" in figures) == cfg.test
    assert ("Profiler Report" in caplog.text) == (debug == "profile")


def test_overfitting_is_to_the_same_batch_of_several_sequences(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "debug=overfit", "model=rnn_gauss", "optim.lr=0.01")
    cfg.trainer.max_epochs = 6
    train.run(cfg)
    with open(tmp_path / "metrics.csv") as file:
        scores = [float(row["train/elbo_per_step"] or "nan") for row in csv.DictReader(file)]
    scores = [score for score in scores if score == score]
    assert len(scores) == 6 and scores == sorted(scores) and scores[-1] > scores[0]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONF)))
def test_every_configuration_begins_with_its_command(path: Path) -> None:
    lines = path.read_text().splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert first.startswith(("# python train.py", f"# wandb sweep conf/sweep/{path.name}"))
    group = path.parent.relative_to(CONF)
    if str(group).split("/")[0] in ("model", "data", "experiment", "debug"):
        root, *rest = (group / path.stem).parts
        assert re.search(rf"{root}={'/'.join(rest)}(\s|$)", first)


def test_a_pen_head_on_other_frames_names_both(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "x.dim=4")
    with pytest.raises(Exception) as error:
        train.run(cfg)
    assert "PenMixture" in str(error.value) and "x.dim=4" in str(error.value)


def test_a_head_for_other_data_names_what_fits(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "x.likelihood=vrnn.likelihoods.GaussianMixture")
    with pytest.raises(ValueError, match="GaussianMixture .*real.*synthetic_handwriting .*pen"):
        train.run(cfg)


def test_options_that_do_not_exist_are_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigCompositionException, match="lrr"):
        configure(tmp_path, "optim.lrr=1")
    with pytest.raises(ConfigCompositionException) as error:
        configure(tmp_path, "model=vrnn_gms")
    assert "vrnn_gmm" in str(error.value)


def test_every_choice_reaches_the_model(tmp_path: Path) -> None:
    """What is written in the configuration is what is built."""
    cfg = configure(tmp_path, "model=vrnn_i_gauss", "optim.lr=3e-4", "seed=7")
    nodes = plain(cfg)
    assert nodes["model"]["prior"] == "standard"
    assert nodes["optim"]["optimizer"]["lr"] == 3e-4 and isinstance(nodes["optim"]["lr"], float)
    assert nodes["data"]["seed"] == 7


@pytest.mark.parametrize("option", [["--cfg", "job"], ["--help"], ["model=foo"]])
def test_the_configuration_is_shown_without_loading_torch(option: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *option],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "wandb", "matplotlib", "numpy", "datamodules"}
    if option == ["--cfg", "job"]:
        assert "vrnn.VRNN" in shown.stdout
        assert after.ru_utime - before.ru_utime < 2, "CPU seconds, a third of which is expected"
