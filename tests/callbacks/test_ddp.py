"""Several processes: none waits for one that is gone, and together they go on exactly."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.helpers import CONF, LINES, QUIET, SGD, SMALL
from support.resuming import SCHEDULE, compared, content, differences

from vrnn.checkpoint import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc"),
]

OPTIONS = [*QUIET, *LINES, *SCHEDULE, "callbacks.pictures=null", "callbacks.latents=null"]
OPTIONS += [f"model.{name}={size}" for name, size in SMALL.items()]
OPTIONS += ["callbacks.early_stopping=null", "ckpt=last", "data.max_steps=20"]
OPTIONS += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]

Start = Callable[..., subprocess.Popen[bytes]]


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all processes end in time."""
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(alive(pid) for pid in pids)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program as typed, in its own session; nothing of it outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: object, **environment: object) -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=CONF.parent,
                env=os.environ | {name: str(value) for name, value in environment.items()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def trained(folder: Path, process: subprocess.Popen[bytes], updates: int) -> None:
    """Waits until metrics.csv holds so many more updates."""
    file = folder / "metrics.csv"
    before = file.stat().st_ino if file.exists() else None
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, (folder.parent / "log").read_text()
        if file.exists() and file.stat().st_ino != before:
            if file.read_text().count("\n") > updates:
                return
        time.sleep(0.05)
    raise TimeoutError((folder.parent / "log").read_text())


def ended(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(timeout=240) == 0, (folder.parent / "log").read_text()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_dead_process_ends_the_others(killed: int, tmp_path: Path, start: Start) -> None:
    run = tmp_path / "run"
    main = start("train.py", *OPTIONS, "trainer.max_epochs=5000", f"hydra.run.dir={run}")
    # Some epochs, with their validation.
    trained(run, main, 30)
    pids = [main.pid, *children(main.pid)]
    os.kill(pids[killed], signal.SIGKILL)
    assert main.wait(timeout=60) != 0 and gone(pids[1:2], 60)


ENDS = {"sequences": [("SIGTERM", 0), ("SIGKILL", 0)], "streams": [("SIGUSR1", 1)]}
SHAPES = {
    "sequences": ["trainer.max_epochs=25"],
    "streams": [
        "trainer.max_epochs=3",
        "data.window=40",
        "data.reset_every=3",
        "data.max_steps=null",
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ended_and_killed_processes_go_on_exactly(
    shape: str, tmp_path: Path, start: Start
) -> None:
    """Whichever of them is told to end, both save at the same update and end at once."""
    options = [*OPTIONS, *SHAPES[shape], "callbacks.last.minutes=60"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    ended(start("train.py", *options, f"hydra.run.dir={whole}"), whole)
    for name, told in ENDS[shape]:
        main = start("train.py", *options, f"hydra.run.dir={run}")
        trained(run, main, 20)
        pids = [main.pid, *children(main.pid)][:2]
        os.kill(pids[told], getattr(signal, name))
        sent = time.monotonic()
        assert main.wait(timeout=60) == (-9 if name == "SIGKILL" else 143)
        assert gone(pids, 60)
        if name != "SIGKILL":
            assert time.monotonic() - sent < 20
            assert read(run / "checkpoints" / "last.ckpt")["global_step"] > 0
    ended(start("train.py", *options, f"hydra.run.dir={run}"), run)
    assert differences(compared(content(whole)), compared(content(run))) == []


def test_torchrun_starts_one_run(tmp_path: Path, start: Start) -> None:
    run = tmp_path / "run"
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [*OPTIONS, "logger=default", "trainer.max_epochs=2"]
    (tmp_path / "home").mkdir()
    alone = {"HOME": tmp_path / "home", "WANDB_MODE": "offline"}
    ended(start(*line, "train.py", *options, f"hydra.run.dir={run}", **alone), run)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "log", "home"}
    (recorded,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert recorded.stem == f"run-{(run / 'wandb_id.txt').read_text()}"
    assert content(run)["global_step"] == 12 and not list(run.glob("metrics.*.csv"))


def test_slurm_starts_one_run_and_queues_it_again(tmp_path: Path, start: Start) -> None:
    """As srun would, each process by itself and told to end by a signal of its own."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/queued\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": 4711, "SLURM_JOB_NAME": "train", "SLURM_NTASKS": 2}
    slurm |= {"SLURM_NTASKS_PER_NODE": 2, "SLURM_NODEID": 0, "SLURM_NODELIST": "localhost"}
    slurm |= {"PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    root = tmp_path / "runs"
    options = [*OPTIONS, "hydra=slurm", "trainer.max_epochs=25", "callbacks.last.minutes=60"]
    options += ["hydra.run.dir=" + str(root) + "/${oc.env:SLURM_JOB_ID}"]
    run = root / "4711"

    def tasks() -> list[subprocess.Popen[bytes]]:
        own = [slurm | {"SLURM_PROCID": n, "SLURM_LOCALID": n} for n in (0, 1)]
        return [start("train.py", *options, **environment) for environment in own]

    both = tasks()
    trained(run, both[0], 20)
    for process in both:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
    assert [process.wait(timeout=60) for process in both] == [143, 0]
    assert (tmp_path / "queued").read_text() == "requeue 4711\n"
    saved = read(run / "checkpoints" / "last.ckpt")["global_step"]
    for process in tasks():
        ended(process, run)
    assert saved < 150 == content(run)["global_step"]
    assert [path.name for path in root.iterdir()] == ["4711"]


def test_two_processes_train_as_one_with_batches_twice_as_large(
    tmp_path: Path, start: Start
) -> None:
    """All eight lines are in every update, in four batches of two lines or in two of four."""
    options = [*QUIET, *LINES, *SGD, "model=rnn_gauss", "data.lines=8", "data.max_steps=null"]
    options += ["callbacks.pictures=null", "untrained=false", "test=false", "optim.lr=0.1"]
    options += [f"model.{name}=8" for name in ("hidden", "phi_x_dim", "decoder_dim")]
    options += ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=3"]
    options += ["trainer.precision=64-true", "trainer.gradient_clip_val=null"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    weights = {}
    for size, more in ((4, []), (2, ddp)):
        run = tmp_path / f"of_{size}"
        words = [*more, f"data.batch_size={size}", f"hydra.run.dir={run}"]
        ended(start("train.py", *options, *words), run)
        assert content(run)["global_step"] == 3
        weights[size] = content(run)["state_dict"]
    for name, tensor in weights[4].items():
        torch.testing.assert_close(weights[2][name], tensor, rtol=1e-7, atol=1e-9)
