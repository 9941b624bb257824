"""Folders whose files are others than when a run was trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.audio_tree import write_all
from support.helpers import Command, configure, run_unseen
from support.small_corpora import sequences, write_arrays

from datamodules.files.splits import read_splits

OPTIONS = ["data=npz_folder", "model=rnn_gauss", "untrained=false", "test=false"]


def resume(root: Path, run: Path, *options: str) -> None:
    last = [f"data.root={root}", "trainer.max_epochs=2", "ckpt=last"]
    run_unseen(configure(run, *OPTIONS, *last, *options, lines=False))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "data", n=40)


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    """Trained before the folder grew."""
    folder = tmp_path / "run"
    options = [f"data.root={root}", "trainer.max_epochs=1"]
    run_unseen(configure(folder, *OPTIONS, *options, lines=False))
    for i, x in enumerate(sequences(10, 2, seed=1)):
        np.save(root / f"new{i}.npy", x)
    return folder


def test_a_run_keeps_its_splits(run: Path) -> None:
    splits = read_splits(run / "splits.csv")
    assert len(splits) == 40 and sorted(set(splits.values())) == ["test", "train", "val"]


def test_a_grown_folder_is_told_until_it_has_the_splits_of_the_run(
    root: Path, run: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    told = f"data=npz_folder has other test sequences than when {run} was trained"
    remedy = f"copy {run}/splits.csv to splits.csv in data.root"
    for words in (["evaluate.py", run], ["generate.py", run, "--n", 1, "--prime", 2]):
        command(*words)
        assert told in caplog.text and remedy in caplog.text
        caplog.clear()
    assert not list(run.glob("scores_*.json")), "these are no scores of the run"
    with pytest.raises(ValueError, match=f"train, val, test sequences.* {remedy}; ckpt="):
        resume(root, run)

    shutil.copy(run / "splits.csv", root)
    for words in (["evaluate.py", run], ["generate.py", run, "--n", 1, "--prime", 2]):
        command(*words)
    assert "has other" not in caplog.text
    assert (run / "scores_test_k1.json").is_file()
    resume(root, run)
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2


def test_a_checkpoint_that_is_named_goes_on_with_what_there_is(
    root: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume(root, run, f"ckpt={run}/checkpoints/last.ckpt")
    assert "has other train, " in caplog.text and len(read_splits(run / "splits.csv")) == 50


def test_options_that_ask_for_other_sequences_are_no_surprise(
    run: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    command("evaluate.py", run, "data.split_seed=1")
    assert not list(run.glob("scores_*.json"))
    (run / "run.json").unlink()
    command("evaluate.py", run)
    assert "has other" not in caplog.text, "nobody knows"


def test_sounds_are_given_the_splits_of_the_run(
    tmp_path: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    sounds, run = tmp_path / "sounds", tmp_path / "run"
    write_all(sounds, [f"{i}.wav" for i in range(12)])
    options = ["data=audio_folder", f"data.root={sounds}", "data.processes=1", "x.dim=50"]
    options += ["model=rnn_gauss", "trainer.max_epochs=1", "untrained=false", "test=false"]
    run_unseen(configure(run, *options, lines=False))
    write_all(sounds, [f"{i}-new.wav" for i in range(8)])
    command("evaluate.py", run)
    assert f"for the run's own, give data.lists={run}/splits.csv" in caplog.text
    caplog.clear()
    command("evaluate.py", run, f"data.lists={run}/splits.csv")
    assert "has other" not in caplog.text
    assert (run / "scores_test_k1.json").is_file()
