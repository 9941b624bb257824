import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, open_dict
from support.audio_tree import FILES, write_everything
from support.helpers import CONF, configure, plain
from support.iam_tree import write_corpus
from support.small_corpora import ROLLS, write

import train
from vrnn import RNN, VRNN
from vrnn.models.base import SequenceModel


def choices(group: str) -> list[str]:
    """All of a group but what several of them share."""
    files = [path for path in (CONF / group).rglob("*.yaml") if not path.stem.startswith("_")]
    return sorted(str(path.relative_to(CONF / group).with_suffix("")) for path in files)


MODELS, DATA, DEBUG, EXPERIMENTS = map(choices, ("model", "data", "debug", "experiment"))
PAPER = [name for name in EXPERIMENTS if name.startswith("paper/")]
YAMLS = sorted(CONF.rglob("*.yaml"))

SOUNDS = {name: ["data.missing=skip"] if name == "timit" else [] for name in FILES}

SMALL_CORPORA = [*ROLLS, "unipen", "stroke3", "csv_folder", "npz_folder"]

ONE_BATCH = ["debug=fast", "untrained=false", "test=false"]


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus of every sort."""
    root = tmp_path_factory.mktemp("corpora")
    write_everything(root)
    for name in SMALL_CORPORA:
        write(name, root / name)
    return write_corpus(root)


def tiny(data: str, iam: Path) -> list[str]:
    """What makes a data set small; every data set must be in here."""
    sounds = {name: [f"data.root={iam / name}", *more] for name, more in SOUNDS.items()}
    others = {
        "iam": [f"data.root={iam}"],
        "synthetic_handwriting": ["data.lines=2", "data.val_lines=1", "data.test_lines=1"],
        "synthetic_speech": [
            f"data.{name}=1" for name in ("utterances", "val_utterances", "test_utterances")
        ],
    }
    small = {name: [f"data.root={iam / name}"] for name in SMALL_CORPORA}
    return (sounds | others | small)[data]


def fits(cfg: DictConfig) -> bool:
    """The model takes frames of the kind that the data give."""
    mixture_of_bits = cfg.x.kind == "binary" and "components" in cfg.model.likelihood
    return cfg.x.kind in get_class(cfg.model.likelihood._target_).kinds and not mixture_of_bits


# These differ from others in their files only.
ONE_MODEL = dict.fromkeys(SOUNDS.keys() - {"fsdd"}, "vrnn_gauss") | {
    "nottingham": "rnn_bernoulli",
    "muse": "rnn_bernoulli",
    "piano": "vrnn_bernoulli",
    "npz_folder": "vrnn_gauss",
    "stroke3": "vrnn_gmm",
    "unipen": "rnn_gmm",
}
PAIRS = [(model, data) for model in MODELS for data in DATA if ONE_MODEL.get(data, model) == model]


@pytest.mark.parametrize(("model", "data"), PAIRS)
def test_every_model_trains_on_every_data_set_or_says_why_not(
    model: str, data: str, iam: Path, tmp_path: Path
) -> None:
    choice = [f"model={model}", f"data={data}", *tiny(data, iam)]
    cfg = configure(tmp_path, *choice, *ONE_BATCH, lines=False)
    if fits(cfg):
        train.run(cfg)
        return
    with pytest.raises(ValueError) as error:
        train.run(cfg)
    kinds, wanted = get_class(cfg.model.likelihood._target_).kinds, cfg.x.kind
    if wanted == "binary" and "components" in cfg.model.likelihood:
        assert f"data={data}" in str(error.value) and "model=vrnn_bernoulli" in str(error.value)
        return
    for name in (cfg.model.likelihood._target_.rpartition(".")[2], data, *kinds, wanted):
        assert name in str(error.value)
    assert cfg.x.likelihood in str(error.value)


def data_of(experiment: str) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}"], return_hydra_config=True)
    return cfg.hydra.runtime.choices.data


# That every model trains on every data set is tested above.
@pytest.mark.parametrize(
    "experiment", [name for name in EXPERIMENTS if name not in PAPER or "_vrnn_gmm" in name]
)
def test_an_experiment_trains_a_batch(experiment: str, iam: Path, tmp_path: Path) -> None:
    choices = [f"experiment={experiment}", *tiny(data_of(experiment), iam), *ONE_BATCH]
    figures = train.run(configure(tmp_path, *choices, lines=False))
    assert figures["updates"] == 1


def model_of(experiment: str) -> SequenceModel:
    """The model in its full size, without memory behind it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment={experiment}", "output_dir=."])
    with torch.device("meta"):
        return instantiate(plain(cfg)["model"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_its_model(experiment: str) -> None:
    model = model_of(experiment)
    assert isinstance(model, RNN if "_rnn_" in experiment else VRNN)
    assert experiment not in COUNTS or model.parameter_count == COUNTS[experiment]


COUNTS = {
    "paper/blizzard_rnn_gauss": 84_342_800,
    "paper/blizzard_rnn_gmm": 86_723_620,
    "paper/blizzard_vrnn_gauss": 93_898_000,
    "paper/blizzard_vrnn_gmm": 94_894_820,
    "paper/iam_rnn_gauss": 7_808_546,
    "paper/iam_rnn_gmm": 7_602_721,
    "paper/iam_vrnn_gauss": 8_460_706,
    "paper/iam_vrnn_gmm": 8_489_571,
}
"""Parameters of the original code's models, counted by hand."""


def test_the_paper_has_five_models_on_five_corpora() -> None:
    models = ["rnn_gauss", "rnn_gmm", "vrnn_gauss", "vrnn_gmm", "vrnn_i_gauss"]
    corpora = ["accent", "blizzard", "iam", "onomatopoeia", "timit"]
    assert PAPER == [f"paper/{corpus}_{model}" for corpus in corpora for model in models]
    assert set(PAPER) > COUNTS.keys()
    for name in PAPER:
        head = (CONF / "experiment" / f"{name}.yaml").read_text().partition("defaults:")[0]
        assert re.search(r"Published: (at least )?-?\d+", head), name
        known = name.startswith(("paper/blizzard", "paper/timit"))
        assert "unverified" in head or (known and "_rnn_" in name), name


@pytest.mark.parametrize("corpus", ["timit", "accent", "onomatopoeia"])
def test_widths_that_were_not_published_follow_the_papers_rule(corpus: str) -> None:
    """As many parameters outside of the recurrence as RNN-Gauss with 600 units a layer."""

    def outside(model: str) -> int:
        built = model_of(f"paper/{corpus}_{model}")
        assert built.rnn.hidden == 2000
        return built.parameter_count - sum(p.numel() for p in built.rnn.parameters())

    # Four layers of phi_x, four of the decoder, and its outputs.
    wanted = (200 + 1) * 600 + (2000 + 1) * 600 + 6 * (600 + 1) * 600 + (600 + 1) * 400
    assert outside("rnn_gauss") == wanted
    for model in ("rnn_gmm", "vrnn_i_gauss", "vrnn_gauss", "vrnn_gmm"):
        assert outside(model) == pytest.approx(wanted, rel=0.01), model


def test_there_are_configurations_of_every_sort() -> None:
    assert len(DATA) >= 20 and len(DEBUG) >= 5 and len(EXPERIMENTS) >= 30
    assert {"rnn_gauss", "rnn_gmm", "vrnn_gauss", "vrnn_gmm", "vrnn_i_gauss"} <= set(MODELS)


@pytest.mark.parametrize("debug", DEBUG)
def test_every_debug_option_runs(
    debug: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reports.conclusion.write_generated", lambda *_, **__: [])
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
    root, *rest = path.relative_to(CONF).with_suffix("").parts
    if root in ("model", "data", "experiment", "debug"):
        named = re.search(rf"{root}=(\S+)", first)
        assert named is not None
        if path.stem.startswith("_"):  # The command of what several share is that of one of them.
            assert f"- {'/'.join(rest)}\n" in (CONF / root / f"{named[1]}.yaml").read_text()
        else:
            assert named[1] == "/".join(rest)


@pytest.mark.parametrize("path", sorted((CONF / "model").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_command_of_a_model_names_data_that_it_takes(path: Path) -> None:
    _, _, program, *words = path.read_text().partition("\n")[0].split()
    assert program == "train.py"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert fits(compose("train", words))


def test_a_pen_head_on_other_frames_names_both(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "x.dim=4")
    with pytest.raises(Exception) as error:
        train.run(cfg)
    assert "PenMixture" in str(error.value) and "x.dim=4" in str(error.value)
    assert "leave x.dim at its default" in str(error.value)


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
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *option],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "lightning", "wandb", "matplotlib", "numpy", "datamodules"}
    if option == ["--cfg", "job"]:
        assert "vrnn.VRNN" in shown.stdout
    assert len(imported) < 500, "modules, two thirds of which are expected"
