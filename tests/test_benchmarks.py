"""The benchmarks run, and write what they print."""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.common import busy_processes


def figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict:
    """Without JAX, whose threads would be left in this process."""
    file = tmp_path / "figures.json"
    monkeypatch.setitem(sys.modules, "jax", None)
    for module in ("benchmarks.step", f"benchmarks.{name}"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("sys.argv", [name, "--quick", "--json", str(file), *flags])
    importlib.import_module(f"benchmarks.{name}").main()
    return json.loads(file.read_text())


def test_a_step_is_timed_beside_busy_processes_too(tmp_path, monkeypatch, capsys):
    (row,) = figures("step", tmp_path, monkeypatch, "--busy")["rows"]
    idle, busy = row["seconds"], row["busy"]
    assert idle.keys() == busy.keys() >= {"ours", "plain", "jax", "lstm", "limit", "mm"}
    assert all(value > 0 for name, value in (idle | busy).items() if name != "jax")
    assert "beside two busy processes" in capsys.readouterr().out
    (row,) = figures("step", tmp_path, monkeypatch)["rows"]
    assert "busy" not in row


def test_busy_processes_work_when_they_are_told_and_end():
    with busy_processes(1) as run:
        before = time_of_children()
        run(True)
        while time_of_children() < before + 5:
            time.sleep(0.01)
        run(False)
        while "T" not in states_of_children():
            time.sleep(0.01)
    assert not states_of_children()


def children() -> list[list[str]]:
    """Of the busy processes that this one started what /proc says of them, from their state on.
    Other tests may have left it other children, such as a tracker of shared memory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            busy = "os.getppid()" in (folder / "cmdline").read_text()
        except OSError:  # It has ended meanwhile.
            continue
        if busy and state[1] == str(os.getpid()):
            found.append(state)
    return found


def time_of_children() -> int:
    """In ticks."""
    return sum(int(line[11]) for line in children())


def states_of_children() -> list[str]:
    return [line[0] for line in children()]


def test_generation(tmp_path, monkeypatch, capsys):
    found = figures("generate", tmp_path, monkeypatch)
    assert found["dtype"] == "float32" and found["device"]
    assert [row["size"]["x"] for row in found["rows"]] == [3, 200]
    for row in found["rows"]:
        seconds = row["seconds"]
        assert set(seconds) == {"ours", "plain", "jax", "limit"}
        assert seconds.pop("jax") is None and min(seconds.values()) > 0
    assert "x real time" in capsys.readouterr().out


@pytest.mark.slow
def test_scaling(tmp_path, monkeypatch, capsys):
    rows = figures("scaling", tmp_path, monkeypatch)["rows"]
    assert all(row["seconds"]["ours"] > 0 for row in rows)
    memory = [row for row in rows if "peak_mb" in row]
    assert [row["size"]["checkpoint_steps"] for row in memory] == [None, 6]
    assert {row["size"]["processes"] for row in rows} == {1, 2}
    assert "sequences/s" in capsys.readouterr().out
