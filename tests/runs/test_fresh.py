"""A folder that has checkpoints is gone on from or left alone."""

import shutil
from pathlib import Path

import pytest
from support.helpers import Command, configure, run_unseen

from runs.fresh import check_fresh
from runs.loggers import csv_logger

SMALL = ["logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
SMALL += ["data.lines=4", "data.val_lines=2", "data.test_lines=2", "model=rnn_gauss"]
SMALL += ["model.hidden=8", "untrained=false", "report=false", "data.max_steps=30"]
SMALL += ["callbacks.pictures=null", "particles=1", "trainer.max_epochs=1"]


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_is_not_trained_over(tmp_path: Path, command: Command) -> None:
    where = f"hydra.run.dir={tmp_path / 'run'}"
    shown = command("train.py", *SMALL, where, "debug=fast")
    assert "results" in shown, "and leaves no checkpoint"
    command("train.py", *SMALL, where)
    before = files(tmp_path / "run")
    for options in (["seed=1"], ["debug=fast"], ["ckpt=elsewhere/checkpoints/last.ckpt"]):
        told = command.fails("train.py", *SMALL, where, *options)
        assert told.startswith(f"train.py: {tmp_path / 'run'} holds a run, which would be over")
        assert "ckpt=last goes on" in told and "hydra.run.dir=" in told and "delete" in told
        assert len(told.splitlines()) == 1 and files(tmp_path / "run") == before
    told = command.fails("train.py", *SMALL, where, "ckpt=last", "model.hidden=9")
    assert "goes on with it" in told and not (tmp_path / "run" / "error.txt").exists()
    command("train.py", *SMALL, where, "ckpt=last", "trainer.max_epochs=2")
    # The options that Hydra keeps are without Hydra's own.
    kept = [f"--config-path={tmp_path / 'run' / '.hydra'}", "--config-name=config", where]
    told = command.fails("train.py", *kept, "ckpt=null")
    assert "holds a run, which would be overwritten" in told


def test_a_folder_stands_for_its_last_checkpoint(tmp_path: Path) -> None:
    few = ["model=rnn_gauss", "untrained=false", "test=false"]
    run_unseen(configure(tmp_path / "run", *few, "trainer.max_epochs=1"))
    more = [*few, "trainer.max_epochs=2", f"ckpt={tmp_path / 'run'}"]
    assert run_unseen(configure(tmp_path / "more", *more))["epochs"] == 2


def test_a_checkpoint_of_the_folder_goes_on_in_it(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "checkpoints").mkdir(parents=True)
    check_fresh(run, None)
    (run / "checkpoints" / "last.ckpt").write_text("")
    shutil.copytree(run, other)
    for ckpt in ("last", str(run), str(run / "checkpoints" / "last.ckpt")):
        check_fresh(run, ckpt)
    for ckpt in (None, str(other), str(other / "checkpoints" / "last.ckpt")):
        with pytest.raises(ValueError, match="holds a run"):
            check_fresh(run, ckpt)


def test_the_log_of_every_part_is_kept(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / "metrics.csv").write_text(f"part {n}")
        csv_logger(str(tmp_path))
    assert [(tmp_path / f"metrics.{n}.csv").read_text()[-1] for n in (1, 2, 3)] == ["1", "2", "3"]
