"""Every command of the README is run, each with a model and data small enough for a test."""

import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from support.audio_tree import write_everything
from support.helpers import CONF, LINES, Command, configure
from support.iam_tree import write_corpus
from support.small_corpora import write

import train
import vrnn

README = CONF.with_name("README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("  #")[0] for block in BLOCKS for line in block.splitlines()]
PROGRAMS = [line for line in COMMANDS if line.startswith("python ")]
PROGRAMS = [line for line in PROGRAMS if "-m playground" not in line]  # It does not end.
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


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for /path/to in the README."""
    root = tmp_path_factory.mktemp("corpora")
    write_corpus(root / "iam-ondb")
    write_everything(root)
    for name in ("jsb", "csv_folder"):
        write(name, root / name)
    return root


def small(words: list[str], corpora: Path, folder: Path) -> list[str]:
    """What makes a training small and keeps it below a folder."""
    if "data=iam" in words or any(word.startswith("experiment=paper/iam") for word in words):
        few = [f"data.cache={folder}/cache", "data.split=holdout", "data.batch_size=2"]
    elif {"data=audio_folder", "data=fsdd"} & set(words):
        few = [f"data.cache={folder}/cache"]
    elif "experiment=first_speech" in words:
        few = [f"data.{name}=3" for name in ("utterances", "val_utterances", "test_utterances")]
    elif any(word.startswith("data.root=") for word in words):
        few = []
    else:
        few = LINES
    words = [word for word in words if not word.startswith("hydra.run.dir=")]
    one_seed = ["seed=0"] if "sweep=paper" in words else []
    folders = [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
    return [*words, *SMALL, *few, *one_seed, *folders]


def jobs(words: list[str]) -> int:
    if "sweep=paper" in words:
        return 5
    sizes = [len(word.partition("=")[2].split(",")) for word in words if "=" in word]
    return math.prod(sizes) if "-m" in words else 1


@pytest.mark.slow
@pytest.mark.parametrize("line", PROGRAMS)
def test_command(line: str, run: Path, corpora: Path, tmp_path: Path, command: Command) -> None:
    line = line.replace(RUN, str(run)).replace("/path/to", str(corpora))
    _, program, *words = shlex.split(line)
    if program == "train.py":
        command(program, *small(words, corpora, tmp_path))
        results = [*tmp_path.glob("run/metrics.json"), *tmp_path.glob("sweep/*/metrics.json")]
        assert len(results) == jobs(words)
        return
    if "--json" in words:
        words[words.index("--json") + 1] = str(tmp_path / "scores.json")
    if program == "-m":
        module, *words = words
        place = module.replace(".", "/")
        program = f"{place}/__main__.py" if (CONF.parent / place).is_dir() else f"{place}.py"
        words = [str(run) if word == "outputs" else word for word in words]
    command(program, *words)


def test_the_python_example(run: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    x = torch.randn(5, 2, 3)
    names = {"x": x.abs().floor().clamp(max=1), "mask": torch.ones(5, 2, dtype=torch.bool)}
    exec(example.replace(RUN, str(run)), names)
    assert names["nats"].shape == (2,) and names["line"].shape == (600, 4, 3)
    assert vrnn.load(run).parameter_count == names["model"].parameter_count
