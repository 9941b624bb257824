"""What a run says of itself, and that this is enough to repeat it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.helpers import CONF, configure, plain, run_unseen

from datamodules.ragged import Ragged
from runs.record import fingerprint, finished, flat, record

SMALL = ["logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
SMALL += ["data.lines=6", "data.val_lines=2", "data.test_lines=2", "model.hidden=8"]
SMALL += ["trainer.max_epochs=1", "data.max_steps=30", "callbacks.pictures=null", "particles=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    few = ["trainer.max_epochs=1", "untrained=false", "test=false", "model=rnn_gauss", "seed=5"]
    run_unseen(configure(folder, *few))
    return folder


def test_a_run_says_what_it_was(run: Path) -> None:
    said = json.loads((run / "run.json").read_text())
    assert said["seed"] == 5 and said["config"]["model"]["_target_"] == "vrnn.RNN"
    assert said["versions"].keys() >= {"python", "torch", "lightning", "hydra-core"}
    assert set(said["data"]) == {"train", "val", "test"}
    assert said["hardware"]["cores"] == os.cpu_count()
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=CONF.parent, capture_output=True, text=True
    )
    if head.returncode == 0:
        assert said["commit"] == head.stdout.strip()
        assert said["changed"] == (run / "changes.patch").is_file()


def test_what_was_not_committed_is_kept_with_files_that_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, copy, folder = (tmp_path / name for name in ("code", "copy", "run"))

    def git(*words: str, at: Path = repository) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *who, *words], cwd=at, check=True, capture_output=True)

    repository.mkdir()
    git("init")
    (repository / "old.py").write_text("a = 1\n")
    git("add", "old.py")
    git("commit", "-m", "first")
    git("clone", str(repository), str(copy), at=tmp_path)
    new = {"old.py": "a = 2\n", "conf/new.yaml": "b: 1\nc: 2\n", "empty.py": "", "data.bin": "x"}
    for name, text in new.items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(text)

    monkeypatch.setattr("runs.record.CODE_AT", repository)
    record(folder, {"seed": 0}, SimpleNamespace(splits={}, splits_by=None), ["train.py"], [])
    assert json.loads((folder / "run.json").read_text())["changed"]
    git("apply", str(folder / "changes.patch"), at=copy)
    found = {name: (copy / name).read_text() for name in new if (copy / name).is_file()}
    assert found == {name: text for name, text in new.items() if name != "data.bin"}


def test_finished_runs_are_known_by_their_options(run: Path, tmp_path: Path) -> None:
    few = ["trainer.max_epochs=1", "untrained=false", "test=false", "model=rnn_gauss"]
    same = plain(configure(run, *few, "seed=5", "ckpt=last"))
    assert finished(run, same) == json.loads((run / "metrics.json").read_text())
    assert finished(tmp_path, same) is None
    with pytest.raises(ValueError, match="other options .*seed was 5, not 6"):
        finished(run, plain(configure(run, *few, "seed=6")))
    (tmp_path / "metrics.json").write_text("{")
    assert finished(tmp_path, same) is None, "interrupted while it was written"
    assert flat({"a": {"b": [1]}, "c": {}}) == {"a.b": [1], "c": {}}


def test_another_corpus_has_another_fingerprint() -> None:
    def corpus(value: float, keys: str = "abc", steps: int = 4) -> Ragged:
        parts = [np.full((n, 2), value) for n in (2, 3, steps)]
        return Ragged.from_sequences(parts, keys)

    prints = {fingerprint(c) for c in (corpus(1), corpus(2), corpus(1, "abd"), corpus(1, steps=5))}
    assert len(prints) == 4 and fingerprint(corpus(1)) in prints


@pytest.mark.slow
def test_a_run_is_repeated_from_its_folder_and_holds_no_secret(tmp_path: Path) -> None:
    secret = "0123456789abcdef" * 3 + "87654321"
    environment = {n: t for n, t in os.environ.items() if "WANDB" not in n}
    environment |= {"WANDB_API_KEY": secret, "WANDB_MODE": "offline", "HOME": str(tmp_path)}

    def typed(*words: str) -> None:
        line = [sys.executable, "train.py", *words]
        done = subprocess.run(
            line, cwd=CONF.parent, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    first, again = tmp_path / "first", tmp_path / "again"
    typed(*SMALL, "logger=default", "seed=3", f"hydra.run.dir={first}")
    typed(f"--config-path={first}/.hydra", "--config-name=config", f"hydra.run.dir={again}")
    a, b = (json.loads((folder / "metrics.json").read_text()) for folder in (first, again))
    assert a.keys() == b.keys() and len(a) > 30
    assert {k: v for k, v in a.items() if k != "minutes"} == {
        k: v for k, v in b.items() if k != "minutes"
    }
    files = [file for file in first.rglob("*") if file.is_file()]
    assert len(files) > 10 and any(file.suffix == ".wandb" for file in files)
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
