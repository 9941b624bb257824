import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.helpers import CONF, Command, configure
from support.iam_tree import write_corpus

import train

SMALL = ["logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
SMALL += ["data.lines=4", "data.val_lines=2", "data.test_lines=2", "model.hidden=8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train.run(configure(folder, "trainer.max_epochs=1", "untrained=false"))
    return folder


def test_scores_are_those_of_training_and_go_to_a_file(
    run: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "scores.json"
    shown = command("evaluate.py", run, "--k", 2, "--json", file)
    figures, trained = json.loads(file.read_text()), json.loads((run / "metrics.json").read_text())
    assert figures["particles"] == 2 and figures["test/sequences"] == 6
    tested = {key for key in trained if key.startswith("test/")}
    assert tested == {key for key in figures if key.startswith("test/")}
    for key in tested:
        assert figures[key] == pytest.approx(trained[key], rel=1e-5, abs=1e-6), key
    for label in ("ELBO", "IWAE-2", "KL", "standardised", "raw", "paper"):
        assert label in shown
    for unit in ("sequence", "step"):
        assert command.matches(rf" nats per +\n split +{unit} +standardised ", shown)
    assert max(map(len, shown.splitlines())) <= 80 and "±\n" not in re.sub(" +\n", "\n", shown)


def test_fewer_bounds_sequences_and_another_split(
    run: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "scores.json"
    options = ["--bounds", "elbo", "--limit", 2, "--split", "val", "--json", file]
    command("evaluate.py", run / "checkpoints" / "last.ckpt", *options)
    figures = json.loads(file.read_text())
    assert figures["val/sequences"] == 2 and figures["particles"] == 1
    assert "val/kl_per_step" in figures and not any("iwae" in key for key in figures)


def test_data_can_be_elsewhere(run: Path, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "scores.json"
    more = ["--json", file, "--bounds", "elbo"]
    command("evaluate.py", run, "data.test_lines=3", *more, "data.corpus_seed=1")
    assert json.loads(file.read_text())["test/sequences"] == 3


def test_samples_are_a_picture_a_drawing_and_arrays(
    run: Path, tmp_path: Path, command: Command
) -> None:
    options = ["--n", 3, "--steps", 20, "--out", tmp_path / "a"]
    shown = command("generate.py", run, *options)
    files = [tmp_path / "a" / f"generated.{suffix}" for suffix in ("png", "svg", "npz")]
    assert shown.split() == [str(file) for file in files]
    assert files[0].read_bytes().startswith(b"\x89PNG") and b"<svg" in files[1].read_bytes()
    arrays = np.load(files[2])
    assert arrays["x"].shape == (3, 20, 3) and arrays["columns"].tolist() == ["pen", "dx", "dy"]
    assert set(np.unique(arrays["x"][..., 0])) <= {0.0, 1.0}

    command("generate.py", run, *options[:-1], tmp_path / "again")
    assert (np.load(tmp_path / "again" / "generated.npz")["x"] == arrays["x"]).all()
    command("generate.py", run, *options[:-1], tmp_path / "other", "--seed", 1)
    assert (np.load(tmp_path / "other" / "generated.npz")["x"] != arrays["x"]).any()


def test_samples_go_on_from_real_beginnings(run: Path, tmp_path: Path, command: Command) -> None:
    options = ["--n", 2, "--steps", 10, "--prime", 15, "--temperature-z", 0, "--out", tmp_path]
    command("generate.py", run, *options)
    x = np.load(tmp_path / "generated.npz")["x"]
    assert x.shape == (2, 25, 3)
    data = configure(tmp_path).data
    assert data.test_lines == 6
    raw = x[:, :15, 1:]
    np.testing.assert_allclose(raw, raw.round(), atol=1e-3), "offsets of the corpus are whole"


def test_samples_of_a_run_lie_in_it(run: Path, command: Command) -> None:
    shown = command("generate.py", run, "--n", 1, "--steps", 5)
    assert str(run / "generated" / "generated.png") in shown


def test_training_from_the_command_line(tmp_path: Path, command: Command) -> None:
    here = Path.cwd()
    fast = ["debug=limit", "model=rnn_gauss", "trainer.max_epochs=1", "callbacks.pictures=null"]
    command.run("train.py", *SMALL, *fast, f"hydra.run.dir={tmp_path}", "ckpt=last")
    shown, told = command.capfd.readouterr()
    assert "nothing to resume" in told and "nothing to resume" not in shown
    assert (tmp_path / ".hydra" / "config.yaml").is_file() and Path.cwd() == here
    overrides = (tmp_path / ".hydra" / "overrides.yaml").read_text()
    assert "model=rnn_gauss" in overrides
    assert "log p(x)" in shown and f"evaluate.py {tmp_path}" in shown
    assert "results: metrics.json, metrics.csv, samples/, checkpoints/ in" in shown
    assert json.loads((tmp_path / "metrics.json").read_text())["updates"] == 1


@pytest.mark.parametrize("debug", ["fast", "overfit"])
def test_only_files_that_are_there_are_named_at_the_end(
    debug: str, tmp_path: Path, command: Command
) -> None:
    few = [f"debug={debug}", "trainer.max_epochs=1", "test=false", "report=false"]
    shown = command("train.py", *SMALL, *few, "model=rnn_gauss", f"hydra.run.dir={tmp_path}")
    assert "results: metrics.json, samples/ in" in shown and "evaluate.py" not in shown
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("without", ["~logger", "logger=default"])
def test_logs_can_be_done_without(
    without: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    few = ["trainer.max_epochs=1", "untrained=false", "test=false", "report=false"]
    options = [*SMALL[1:], *few, "model=rnn_gauss", f"hydra.run.dir={tmp_path}", without]
    shown = command("train.py", *options)
    assert not list(tmp_path.glob("wandb*")) and "wandb sync" not in shown
    assert (tmp_path / "metrics.csv").exists() == (without != "~logger")


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_job_that_fails(tmp_path: Path, command: Command) -> None:
    fast = ["debug=fast", "untrained=false", "test=false", f"hydra.sweep.dir={tmp_path}"]
    fails = command.fails(
        "train.py", "-m", "model=rnn_gauss", "model.rnn=gru,foo,lstm", *SMALL, *fast
    )
    done = sorted(path.parent.name for path in tmp_path.glob("*/metrics.json"))
    assert done == ["0_rnn_gauss_synthetic_handwriting", "2_rnn_gauss_synthetic_handwriting"]
    assert "model.rnn=foo is not one of gru, lstm" in fails


def test_a_sweep_over_several_devices_is_refused(tmp_path: Path, command: Command) -> None:
    sweep = ["seed=0,1", "trainer.devices=2", f"hydra.sweep.dir={tmp_path}", *SMALL]
    assert "use one device a job" in command.fails("train.py", "-m", *sweep)


@pytest.mark.slow
def test_programs_run_as_typed(tmp_path: Path) -> None:
    """Each as its own process, one after the other."""

    def typed(*words: object) -> str:
        line = [sys.executable, *map(str, words)]
        done = subprocess.run(line, cwd=CONF.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr
        return done.stdout

    typed("train.py", "debug=fast", *SMALL, f"hydra.run.dir={tmp_path / 'fast'}")
    corpus = write_corpus(tmp_path / "iam")
    iam = ["data=iam", f"data.root={corpus}", f"hydra.run.dir={tmp_path / 'iam_run'}", SMALL[0]]
    typed("train.py", *iam, "model=rnn_gmm", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    shown = typed("evaluate.py", tmp_path / "iam_run", "--json", tmp_path / "scores.json")
    assert "log p(x)" in shown and "test/elbo_per_step" in (tmp_path / "scores.json").read_text()
    typed("generate.py", tmp_path / "iam_run", "--n", 3, "--out", tmp_path / "pictures")
    assert np.load(tmp_path / "pictures" / "generated.npz")["x"].shape[0] == 3
    sweep = ["-m", "model=rnn_gauss,vrnn_gauss", "debug=fast", f"hydra.sweep.dir={tmp_path / 's'}"]
    typed("train.py", *sweep, *SMALL)
    assert len(list((tmp_path / "s").glob("*/metrics.json"))) == 2


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    """Every figure before and after training, the weights being the same. In double precision,
    so that another order of the same sums is all that may differ."""
    same = [
        "model=vrnn_gauss",
        "trainer.precision=64-true",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=0",
        *SMALL,
    ]
    same += ["data.eval_batch_size=1", "data.test_lines=5", "data.val_lines=3"]

    def figures(name: str, *more: str) -> dict[str, float]:
        options = [*same, *more, f"hydra.run.dir={tmp_path / name}"]
        line = [sys.executable, "train.py", *options]
        done = subprocess.run(line, cwd=CONF.parent, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / name / "metrics.json").read_text())
        return {key: value for key, value in found.items() if key != "minutes"}

    alone = figures("one")
    both = figures("two", "trainer.strategy=ddp", "trainer.devices=2")
    assert alone["test/sequences"] == 5
    assert both == pytest.approx(alone, rel=1e-9, abs=1e-9)
