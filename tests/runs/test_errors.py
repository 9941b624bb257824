import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import Command, configure, plain, run_unseen

import train
from datamodules.loading import load_data
from runs.checks import check_folder, check_types
from runs.errors import readable_errors

SMALL = ["logger=csv", "trainer.accelerator=cpu", "debug=fast", "data.lines=2"]
SMALL += ["data.val_lines=1", "data.test_lines=1", "model=rnn_gauss", "model.hidden=8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    few = ["untrained=false", "test=false", "model=rnn_gauss", "data.lines=4"]
    run_unseen(configure(folder, "trainer.max_epochs=1", *few))
    return folder


def sentence(shown: str) -> str:
    """What is said apart from where the traceback went, and that it is short."""
    assert "Traceback" not in shown
    told = [line for line in shown.splitlines() if not line.startswith("(traceback: ")]
    assert 1 <= len(told) <= 3, shown
    return " ".join(told)


TRAIN = {
    "optim.lr=abc": r"train.py: optim.optimizer.lr=abc must be a number",
    "optim.lr=-1": r"optim.optimizer: Invalid learning rate: -1",
    "optim=adam_cosine": r"train.py: optim.steps must be given: optim.steps=<value>",
    "start=foo": r"start=foo is not one of data, published",
    "seed=-1": r"seed must be between 0 and 4294967295, not -1",
    "seed=abc": r"train.py: seed=abc must be a number",
    "particles=1.5": r"particles=1.5 must be a whole number",
    "particles=0": r"particles must be at least 1, not 0",
    "data.batch_size=abc": r"data.batch_size=abc must be a number",
    "data.batch_size=0": r"data.batch_size must be at least 1, not 0",
    "data.eval_batch_size=0": r"data.eval_batch_size must be at least 1, not 0",
    "data.max_steps=0": r"data.max_steps must be at least 1, not 0",
    "+callbacks.gradients.most=0": r"callbacks.gradients.most must be at least 1, not 0",
    "data.lines=0": r"data.lines must be at least 1, not 0",
    "data.normaliser=foo": r"data.normaliser=foo is not one of coordinate, none, paper",
    "model.rnn=foo": r"model.rnn=foo is not one of gru, lstm",
    "model.hidden=wide": r"model.hidden=wide must be a number",
    "model.hidden=0": r"model.hidden must be at least 1, not 0",
    "model.phi_x_dim=0": r"model.phi_x_dim must be at least 1, not 0",
    "model.dropout=1": r"model.dropout must be in \[0, 1\), not 1",
    "trainer.precision=bf16-true": r"bf16-true would keep .* in half precision; choose bf16-mixed",
    "model.rnn_layers=0": r"model.rnn_layers must be at least 1, not 0",
    "model.likelihood.components=0": r"model.likelihood.components must be at least 1, not 0",
    "trainer.max_epochs=ten": r"trainer.max_epochs=ten must be a number",
    "trainer.precision=foo": r"trainer.precision=foo is not one of 32-true, bf16-mixed, 16-mixed",
    "trainer.precision=16-mixed": r"trainer.precision=16-mixed is for GPUs; choose bf16-mixed",
    "trainer.gradient_clip_val=-1": r"trainer.gradient_clip_val must not be negative, not -1",
    "callbacks.gradients.nonfinite=foo": r"nonfinite=foo is not one of stop, skip",
    "objective.kl_start=0.5": r"kl_start=0.5 with objective.kl_steps=0 is no warm-up",
    "objective.kl_steps=9": r"kl_start=1.0 with objective.kl_steps=9 is no warm-up",
    "objective.free_bits=-1": r"objective.free_bits must not be negative, and is -1",
    "objective.kl_start=2": r"objective.kl_start must be between 0 and 1, not 2",
    "ckpt=nowhere.ckpt": r"cannot load nowhere.ckpt: there is no such file",
    "ckpt=conf": r"ckpt=conf: there is no checkpoints/last.ckpt in this folder",
    "ckpt=pyproject.toml": r"cannot load pyproject.toml: it ",
    "x.likelihood=vrnn.likelihoods.Bernoulli": r"Bernoulli takes other options .* add "
    r"~model.likelihood.components, or choose a model=",
    "x.likelihood=vrnn.likelihoods.Gaussian": r"Gaussian is no likelihood that can be found; "
    r"x.likelihood= takes one of .*likelihoods.GaussianMixture, .*, vrnn.likelihoods.Pen\w+$",
    "x.likelihood=vrnn.bounds.elbo": r"vrnn.bounds.elbo is no likelihood that can be found",
    "model.likelihood=gaussian": r"model.likelihood=gaussian would replace the options of .* its "
    r"class alone is x.likelihood=, one of .*likelihoods.GaussianMixture",
}


@pytest.mark.parametrize("option", TRAIN)
def test_a_wrong_option_is_answered_by_a_sentence(
    option: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(train.__file__).parent)
    shown = command.fails("train.py", *SMALL, f"hydra.run.dir={tmp_path}", option)
    assert command.matches(TRAIN[option], sentence(shown))
    assert "Traceback" in (tmp_path / "error.txt").read_text()


def test_a_twin_of_a_model_without_latents(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(train.__file__).parent)
    shown = command.fails("train.py", "model=rnn_gmm", "model.latents=noise")
    assert "model.latents belongs to model=" in shown and "vrnn_gmm" in shown


@pytest.mark.parametrize("posterior", ["foo", "none"])
def test_a_posterior_that_does_not_exist(posterior: str, tmp_path: Path, command: Command) -> None:
    options = [*SMALL, "model=vrnn_gauss", f"hydra.run.dir={tmp_path}"]
    shown = command.fails("train.py", *options, f"model.posterior={posterior}")
    assert f"model.posterior={posterior} is not one of filtering, smoothing" in sentence(shown)


def test_a_missing_corpus_names_its_remedies(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VRNN_DATA", str(tmp_path / "corpora"))
    shown = command.fails("train.py", "data=iam", "logger=csv", f"hydra.run.dir={tmp_path / 'a'}")
    for word in ("VRNN_DATA", "data.root", "synthetic_handwriting", str(tmp_path / "corpora/iam")):
        assert word in sentence(shown)
    foo = ["data=iam", "data.split=foo", f"hydra.run.dir={tmp_path / 'b'}"]
    shown = command.fails("train.py", *foo)
    assert "data.split=foo is not one of paper, task1, holdout" in sentence(shown)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path, command: Command) -> None:
    options = ["logger=csv", "trainer.accelerator=gpu", f"hydra.run.dir={tmp_path}"]
    shown = command.fails("train.py", *options)
    assert "trainer.accelerator=gpu: there is no GPU here" in sentence(shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["model.rnn=gru"],
            r"was trained with model.rnn=lstm, .* model.rnn=gru is for a run",
        ),
        (["optim.lr=0.5"], r"was trained with optim.lr=.*, .* optim.lr=0.5 is for a run of its"),
        (["ckpt=nowhere.ckpt"], r"cannot load nowhere.ckpt: there is no such file"),
        (["trainer.max_epochs=0"], r"is that of epoch 1, beyond trainer.max_epochs=0; it goes"),
        (
            ["trainer.max_steps=0"],
            r"is that of update 1, beyond trainer.max_steps=0; it goes",
        ),
    ],
)
def test_a_run_goes_on_as_it_was_or_is_left_alone(
    options: list[str], message: str, run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    resumed = ["trainer.max_epochs=2", "untrained=false", "test=false", "model=rnn_gauss"]
    with pytest.raises(ValueError, match=message):
        train.run(configure(folder, *resumed, "data.lines=4", "ckpt=last", *options))
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("optim.lrr=1", "there is no option optim.lrr, perhaps optim.lr; "),
        ("modle=vrnn_gmm", "there is no option modle, perhaps model; "),
        ("model=vrnn_gms", "there is no model=vrnn_gms, perhaps model=vrnn_gmm"),
        ("objective.particles=8", "objective.particles belongs to objective=fivo, iwae, which"),
        ("data.carry=4", "data.carry is called data.reset_every now"),
        ("data.nothing_like_it=1", "there is no option data.nothing_like_it; "),
    ],
)
def test_unknown_options_are_answered_by_hydra_and_a_guess(
    option: str, meant: str, tmp_path: Path, command: Command
) -> None:
    shown = command.fails("train.py", option, f"hydra.run.dir={tmp_path}")
    assert shown.startswith(("Could not override", "In 'train': Could not find"))
    assert shown.splitlines()[-1].startswith(f"train.py: {meant}") and "Traceback" not in shown


def test_a_group_that_is_null_is_answered_by_how_to_do_without(command: Command) -> None:
    told = command.fails("train.py", "model=rnn_gauss", "logger=null").splitlines()[-1]
    assert told == "train.py: logger=null is no file of conf/; ~logger takes it away"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", 0], "--k must be at least 1, not 0"),
        (["--seed", -1], "--seed must not be negative, and is -1"),
        (
            ["--bounds", "elbo,foo"],
            "--bounds foo: choose from elbo, iwae, fivo, silenced, paper, open_loop",
        ),
        (["data.lines"], "data.lines has no value; write data.lines=..."),
        (
            ["data.foo=1"],
            "unknown option data.foo; choose from .* data.lines, data.val_lines",
        ),
        (["model.hidden=3"], "unknown option model"),
        (["data.test_lines=0"], "data.test_lines must be at least 1, not 0"),
        (["--limit", 0], "--limit must be at least 1, not 0"),
        (["--device", "foo"], "--device foo: Expected one of cpu"),
        (
            ["--json", "/nowhere/scores.json"],
            "^evaluate.py: --json /nowhere/scores.json: there is",
        ),
        (["--json", "/"], "--json /: is a folder"),
    ],
)
def test_evaluate_answers_by_a_sentence(
    run: Path, command: Command, options: list[Any], message: str
) -> None:
    assert command.matches(message, sentence(command.fails("evaluate.py", run, *options)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n", 0], "--n must be at least 1, not 0"),
        (["--steps", 0], "--steps must be at least 1, not 0"),
        (["--prime", -1], "--prime must not be negative"),
        (["--prime", 100000, "--n", 1], "only 0 of 6 sequences of the test split"),
        (["--temperature-z", -1], "a temperature must be 0 .* or above, not -1"),
        (["data.lines=3"], "data.lines=3 is of use with --prime only"),
    ],
)
def test_generate_answers_by_a_sentence(
    run: Path, command: Command, options: list[Any], message: str
) -> None:
    assert command.matches(message, sentence(command.fails("generate.py", run, *options)))


def test_no_checkpoint_no_scores(tmp_path: Path, command: Command) -> None:
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    for program in ("evaluate.py", "generate.py"):
        assert "no checkpoint at" in sentence(command.fails(program, tmp_path))
        assert "did not write it" in sentence(command.fails(program, foreign))


def test_a_folder_that_cannot_be_written(
    run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    shown = command.fails("generate.py", run, "--n", 1, "--steps", 3, "--out", blocked / "below")
    assert str(blocked) in sentence(shown)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "generated.npz"))

    monkeypatch.setattr("numpy.savez_compressed", full)
    shown = command.fails("generate.py", run, "--n", 1, "--steps", 3, "--out", tmp_path / "full")
    assert "No space left on device" in sentence(shown)
    monkeypatch.setattr("lightning.pytorch.Trainer.save_checkpoint", full)
    cfg = [option for option in SMALL if option != "debug=fast"]
    shown = command.fails("train.py", *cfg, "untrained=false", f"hydra.run.dir={tmp_path / 'r'}")
    assert "No space left on device" in sentence(shown)


def test_processes_that_would_name_their_own_folders(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    shown = command.fails("train.py", *SMALL, "trainer=ddp", "trainer.devices=2")
    assert "each of the 2 processes" in shown and "hydra.run.dir=outputs/mine" in shown
    check_folder(str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    check_folder("outputs/${now:%H}")


def test_types_are_checked_where_they_are_declared(tmp_path: Path) -> None:
    check_types(plain(configure(tmp_path, "trainer.limit_val_batches=0.5", "trainer.devices=2")))
    wrong = {
        "data.writers=1.5": "data.writers=1.5 must be a whole number",
        "data.max_steps=all": "data.max_steps=all must be a number",
        "optim.optimizer.eps=x": "optim.optimizer.eps=x must be a number",
        "callbacks.early_stopping.patience=x": "callbacks.early_stopping.patience=x must be",
    }
    for option, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            check_types(plain(configure(tmp_path, option)))


def test_a_checkpoint_names_only_data_modules_of_this_package() -> None:
    for target in ("os.system", "datamodules.base.np.load", "datamodules.base.Ragged", None, 3):
        with pytest.raises(ValueError, match="no data module of this package"):
            load_data({"module": {"_target_": target}, "columns": [], "shift": [], "scale": []})


def test_ctrl_c_is_a_word_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, readable_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130 and capsys.readouterr().err.endswith(": interrupted\n")


def test_a_finished_run_is_failed_by_its_own_errors_only(tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    for begun, finished in ((False, False), (True, False), (False, True), (True, True)):
        run.write_text("{}")
        (tmp_path / "metrics.json").unlink(missing_ok=True)
        if finished:
            (tmp_path / "metrics.json").write_text("{}")
        with pytest.raises(SystemExit), readable_errors(tmp_path):
            if begun:
                run.unlink()
                run.write_text("{} ")
            raise ValueError("no")
        assert (tmp_path / "error.txt").exists() == (begun or not finished)
