"""Interrupted runs end where the uninterrupted ones do, bit for bit."""

import contextlib
import os
import random
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import SMALL
from support.resuming import (
    PLACES,
    PROGRAM,
    SHAPES,
    Dead,
    Die,
    compared,
    content,
    differences,
    run,
    start,
    wait_for,
)

from callbacks.checkpoints import DurableFiles, LastCheckpoint
from vrnn.checkpoint import CheckpointError, find_last, previous, read


def killed(folder: Path, options: list[str], deaths: list[Die]) -> dict[str, Any]:
    for die in deaths:
        with contextlib.suppress(Dead):
            run(folder, *options, die=die)
    return run(folder, *options)


def shapes() -> list[Any]:
    fast = ("steps", "two validations an epoch")
    marks = {name: () if name in fast else (pytest.mark.slow,) for name in SHAPES}
    return [pytest.param(name, marks=marks[name]) for name in SHAPES]


@pytest.mark.parametrize("shape", shapes())
def test_killed_anywhere_and_restarted(shape: str, tmp_path: Path) -> None:
    """Again and again, in every hook, each time a little further on."""
    whole = run(tmp_path / "whole", *SHAPES[shape])
    rng = random.Random(shape)
    deaths = [Die(place, rng.randint(1, 3)) for place in PLACES]
    again = killed(tmp_path / "killed", SHAPES[shape], deaths)
    assert differences(compared(whole), compared(again)) == []


def test_a_killed_write_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before every step of writing: there always is a last checkpoint, old or new."""
    files, last = DurableFiles(), tmp_path / "checkpoints" / "last.ckpt"

    def content(n: int) -> dict[str, Any]:
        parts = ("model", "objective", "optim", "data")
        return {"hyper_parameters": dict.fromkeys(parts), "state_dict": {"n": torch.tensor(n)}}

    def found() -> int:
        file = find_last(tmp_path)
        return -1 if file is None else int(read(file)["state_dict"]["n"])

    for n in range(3):
        files.save_checkpoint(content(n), last)
        assert found() == n
    assert int(read(previous(last))["state_dict"]["n"]) == 1
    replaced = Path.replace

    def die(*_: object) -> None:
        raise Dead

    def die_renaming(self: Path, target: Path) -> None:
        if self.suffix == ".partial":
            raise Dead
        replaced(self, target)

    for where, what, expected in (
        ("torch.save", die, 2),
        ("os.fsync", die, 2),
        ("pathlib.Path.replace", die_renaming, 2),
    ):
        with monkeypatch.context() as patch, pytest.raises(Dead):
            patch.setattr(where, what)
            files.save_checkpoint(content(9), last)
        assert found() == expected, where
    files.save_checkpoint(content(3), last)
    assert found() == 3 and not list(last.parent.glob("*.partial"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["trainer.max_epochs=2", "model=rnn_gauss"]
    whole = run(tmp_path, *options)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert find_last(tmp_path) == last and find_last(tmp_path / "elsewhere") is None
    image = bytearray(last.read_bytes())
    # A bit of the weights, which torch reads without a word.
    place = image.index(whole["state_dict"]["model.phi_x.0.weight"].numpy().tobytes())
    image[place + 2] ^= 1
    last.write_bytes(image)
    with caplog.at_level("WARNING"):
        again = run(tmp_path, *options)
    assert "checksum" in caplog.text and "last-prev.ckpt" in caplog.text
    assert differences(compared(whole), compared(again)) == []
    for file in (last, previous(last)):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="last-prev.ckpt: it is damaged"):
        find_last(tmp_path)


def test_a_long_epoch_is_saved_as_often_as_asked(tmp_path: Path) -> None:
    with contextlib.suppress(Dead):
        run(tmp_path, "callbacks.last.minutes=60", die=Die("on_train_batch_end", 4))
    assert find_last(tmp_path) is None
    with pytest.raises(ValueError, match="callbacks.last.minutes must not be negative, not -1"):
        LastCheckpoint(str(tmp_path), minutes=-1)


PROGRAM += [f"model.{name}={size}" for name, size in SMALL.items()]
PROGRAM += ["data.max_steps=40", "callbacks.latents=null", "data.batch_size=6"]


def kill_at_random(folder: Path, times: int, seed: int, *options: str) -> list[int]:
    """Kills a training after a few updates, half of the times while it writes a checkpoint, and
    starts it again; returns after how many updates in all, the last number that of the end."""
    rng = random.Random(seed)
    updates = []
    for n in range(times):
        process = start(folder, *options)
        wait_for(folder, process, rng.randint(0, 6))
        time.sleep(rng.uniform(0, 0.02))
        while n % 2 and process.poll() is None:
            if list(folder.glob("checkpoints/*.partial")):
                break
        process.kill()
        process.communicate()
        found = find_last(folder)
        updates.append(0 if found is None else int(read(found)["global_step"]))
    process = start(folder, *options)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [*updates, content(folder)["global_step"]]


KILLS = int(os.environ.get("VRNN_KILLS", "5"))


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    options = [f"trainer.max_epochs={2 * KILLS}", "optim.steps=200"]
    process = start(tmp_path / "whole", *options)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    updates = kill_at_random(tmp_path / "killed", KILLS, 0, *options)
    assert updates == sorted(updates) and len(set(updates)) > KILLS / 2, "kills all over"
    whole, again = (compared(content(tmp_path / name)) for name in ("whole", "killed"))
    assert differences(whole, again) == []


@pytest.mark.slow
def test_ctrl_c_names_the_command_that_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, "trainer.max_epochs=200")
    wait_for(tmp_path, process, writes=1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    command = errors.strip().splitlines()[-1].removeprefix("interrupted; to go on: ")
    words = shlex.split(command)
    assert words[:2] == ["python", "train.py"]
    assert words[-2:] == [f"hydra.run.dir={tmp_path}", "ckpt=last"]
    assert sorted(words) == sorted(["python", *process.args[1:]])  # type: ignore[index,misc]


@pytest.mark.slow
def test_ctrl_c_in_a_sweep_names_the_command_that_goes_on_with_it(tmp_path: Path) -> None:
    where = f"hydra.sweep.dir={tmp_path}"
    process = start(tmp_path, where, "hydra.sweep.subdir=a", "trainer.max_epochs=200", "-m")
    wait_for(tmp_path / "a", process, writes=1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    (told,) = [line for line in errors.splitlines() if line.startswith("interrupted")]
    assert told.startswith("interrupted; to go on: python train.py -m ")
    assert told.endswith(f" {where} ckpt=last") and told.count(" -m ") == 1
