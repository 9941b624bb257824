"""Several processes: none waits for one that is gone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import CONF, LINES, QUIET

pytestmark = pytest.mark.slow

OPTIONS = [*QUIET, *LINES, "model=rnn_gauss", "model.hidden=8", "callbacks.pictures=null"]
OPTIONS += ["untrained=false", "test=false", "trainer.max_epochs=5000", "data.max_steps=20"]
OPTIONS += ["trainer.strategy=ddp", "trainer.devices=2", "callbacks.early_stopping=null"]


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_dead_process_ends_the_others(killed: int, tmp_path: Path) -> None:
    line = [sys.executable, "train.py", *OPTIONS, f"hydra.run.dir={tmp_path}"]
    with open(tmp_path / "log", "w") as log:
        main = subprocess.Popen(line, cwd=CONF.parent, stdout=log, stderr=log)
    pids: list[int] = [main.pid]
    try:
        end = time.monotonic() + 240
        while not (tmp_path / "metrics.csv").exists() and time.monotonic() < end:
            assert main.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        pids += children(main.pid)
        subprocess.run(["kill", "-KILL", str(pids[killed])], check=True)
        start = time.monotonic()
        while any(alive(pid) for pid in pids[:2]) and time.monotonic() - start < 60:
            main.poll()
            time.sleep(0.2)
        assert not any(alive(pid) for pid in pids[:2])
        assert main.wait() != 0
    finally:
        for pid in pids:
            if alive(pid):
                subprocess.run(["kill", "-KILL", str(pid)], check=False)
