"""Runs that are told to end save first, whatever they are doing, and lose nothing."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from support.resuming import (
    PLACES,
    SHAPES,
    Die,
    compared,
    content,
    differences,
    run,
    start,
    wait_for,
)

from vrnn.checkpoint import read


class Tell(Die):
    """Tells its own process to end when a hook is called for the n-th time."""

    number = signal.SIGTERM

    def count(self, trainer: Trainer, module: LightningModule, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.updates = trainer.global_step
            os.kill(os.getpid(), self.number)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores what a process that is about to end leaves alone."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    kept = {number: signal.getsignal(number) for number in numbers}
    # Where tests run in the background, Ctrl-C would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("shape", ["two validations an epoch", "accumulated"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_told_to_end_anywhere(number: int, code: int, shape: str, tmp_path: Path) -> None:
    """In every hook, with no other checkpoint inside an epoch."""
    options = [*SHAPES[shape], "trainer.max_epochs=8", "callbacks.last.minutes=60"]
    options += ["data.eval_batch_size=2"]
    whole = run(tmp_path / "whole", *options)
    for n, place in enumerate([*PLACES, "on_validation_batch_start"]):
        tell = Tell(place, 2)
        tell.number = number
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "told", *options, die=tell)
        assert end.value.code == code
        saved = read(tmp_path / "told" / "checkpoints" / "last.ckpt")["global_step"]
        assert saved >= tell.updates, (n, place)
    assert differences(compared(whole), compared(run(tmp_path / "told", *options))) == []


@pytest.mark.usefixtures("handlers")
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    class Twice(Tell):
        number = signal.SIGINT

        def count(self, trainer: Trainer, module: LightningModule, *_: Any, **__: Any) -> None:
            for _ in range(2):
                super().count(trainer, module)
                self.left = 1

    with pytest.raises(SystemExit) as end:
        run(tmp_path, "trainer.max_epochs=2", "callbacks.last.minutes=60", die=Twice(PLACES[0], 1))
    assert end.value.code == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signals_save_and_end_within_seconds(name: str, tmp_path: Path) -> None:
    """Under SLURM, SIGUSR1 queues the job again, too."""
    options = ["trainer.max_epochs=12", "optim.steps=60", "callbacks.last.minutes=60"]
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/queued\n')
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        patch.setenv("SLURM_JOB_ID", "123")
        process = start(tmp_path / "run", *options)
    wait_for(tmp_path / "run", process, writes=2)
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert process.returncode == 143, errors
    assert "ckpt=last" in errors + (tmp_path / "run" / "train.log").read_text()
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    assert saved > 0
    queued = tmp_path / "queued"
    if name == "SIGUSR1":
        assert queued.read_text() == "requeue 123\n"
    else:
        assert not queued.exists()
    again, whole = (start(tmp_path / n, *options) for n in ("run", "whole"))
    for process in (again, whole):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    a, b = (compared(content(tmp_path / n)) for n in ("whole", "run"))
    assert differences(a, b) == []
