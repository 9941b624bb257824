"""Every command of the README is run, each with a model and data small enough for a test."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from helpers import CONF, LINES, Command, configure
from iam_tree import write_corpus

import train
import vrnn

README = CONF.with_name("README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("  #")[0] for block in BLOCKS for line in block.splitlines()]
PROGRAMS = [line for line in COMMANDS if line.startswith("python ")]
MAKE = [line.split()[1] for line in COMMANDS if line.startswith("make ")]

RUN = "outputs/<date>/<run>"
SMALL = ["logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
SMALL += ["trainer.max_epochs=1", "model.hidden=8", "particles=2", "data.max_steps=20"]
SMALL += ["untrained=false", "callbacks.pictures=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train.run(configure(folder, "trainer.max_epochs=1", "untrained=false", "data.test_lines=20"))
    return folder


def test_there_are_commands() -> None:
    assert len(PROGRAMS) >= 8 and MAKE == ["train", "test"]


@pytest.mark.slow
@pytest.mark.parametrize("line", PROGRAMS)
def test_command(line: str, run: Path, tmp_path: Path, command: Command) -> None:
    _, program, *words = shlex.split(line.replace(RUN, str(run)))
    words = [word.replace("/path/to/iam-ondb", str(tmp_path / "iam")) for word in words]
    if program == "train.py":
        words = [word for word in words if not word.startswith("hydra.run.dir=")]
        words += [*SMALL, f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
        real = "data=iam" in words or any(w.startswith("experiment=paper/iam") for w in words)
        words += [f"data.cache={tmp_path}/cache", "data.split=holdout"] if real else LINES
        if real:
            write_corpus(tmp_path / "iam")
    elif "--json" in words:
        words[words.index("--json") + 1] = str(tmp_path / "scores.json")
    command(program, *words)
    if program == "train.py":
        results = [*tmp_path.glob("run/metrics.json"), *tmp_path.glob("sweep/*/metrics.json")]
        jobs = 1
        for word in words if "-m" in words else ():
            jobs *= len(word.partition("=")[2].split(",")) if "=" in word else 1
        assert len(results) == jobs


def test_the_python_example(run: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    x = torch.randn(5, 2, 3)
    names = {"x": x.abs().floor().clamp(max=1), "mask": torch.ones(5, 2, dtype=torch.bool)}
    exec(example.replace(RUN, str(run)), names)
    assert names["nats"].shape == (2,) and names["line"].shape == (600, 4, 3)
    assert vrnn.load(run).parameter_count == names["model"].parameter_count
