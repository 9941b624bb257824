"""The benchmarks run, and write what they print."""

import importlib
import json
import sys
from pathlib import Path

import pytest


def figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Without JAX, whose threads would be left in this process."""
    file = tmp_path / "figures.json"
    monkeypatch.setitem(sys.modules, "jax", None)
    for module in ("benchmarks.step", f"benchmarks.{name}"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("sys.argv", [name, "--quick", "--json", str(file)])
    importlib.import_module(f"benchmarks.{name}").main()
    return json.loads(file.read_text())


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
