"""The documentation is held to the code: commands, options, examples, notebook, build."""

import ast
import doctest
import importlib
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from support.audio_tree import write_all, write_everything
from support.helpers import CONF, Command, configure
from support.iam_tree import write_corpus
from support.small_corpora import write

import callbacks
import datamodules
import datamodules.audio
import train
import vrnn
import vrnn.layers
from reports import page_scores
from runs import curves
from runs.run import read_run
from vrnn import bounds
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.recurrent import Recurrence

DOCS = CONF.with_name("docs")
PAGES = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md"))}


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    whole = [re.sub(r"\\\n +", "", block) for block in blocks("bash", text)]
    lines = [line for block in whole for line in block.splitlines()]
    return [re.split(r"  +[#>]| > ", line)[0] for line in lines]


PROGRAMS = sorted({c for text in PAGES.values() for c in commands(text) if c.startswith("python")})
OURS = ("model=vrnn_laplace", "data=arctic", "model=state_space", "renyi", "part_norms")
"""What the page on extending adds."""
BOUND, BOUND_TEST = "# vrnn/bounds.py, at the end", "# tests/vrnn/test_renyi.py"
TRAININGS = [
    c for c in PROGRAMS if c.startswith("python train.py") and not any(o in c for o in OURS)
]
ENDLESS = "python -m playground"
OTHERS = [
    c
    for c in PROGRAMS
    if "train.py" not in c and not c.startswith(ENDLESS) and not any(o in c for o in OURS)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "run"
    train.run(configure(folder, "trainer.max_epochs=1", "untrained=false", "data.test_lines=20"))
    return folder


def test_there_are_pages_and_commands() -> None:
    assert len(PAGES) >= 8 and len(TRAININGS) >= 20 and len(OTHERS) >= 5
    assert not [line for line in OTHERS if " RUN " in line], "write outputs/<date>/<run>"


@pytest.mark.parametrize("line", TRAININGS)
def test_a_training_composes(line: str) -> None:
    words = [word for word in shlex.split(line)[2:] if word not in ("-m", "--cfg", "job")]
    if any(word.startswith("--config-path") for word in words):
        assert words[:2] == [
            "--config-path=$PWD/outputs/<date>/<run>/.hydra",
            "--config-name=config",
        ]
        return
    # The first job of a sweep.
    words = [word if "[" in word else word.partition(",")[0] for word in words]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("train", words, return_hydra_config=True)


@pytest.mark.slow
@pytest.mark.parametrize("line", OTHERS)
def test_another_command_runs(line: str, run: Path, tmp_path: Path, command: Command) -> None:
    line = line.replace("outputs/<date>/<run>", str(run))
    if "<other>" in line:
        other = shutil.copytree(run, tmp_path / "other")
        line = line.replace("outputs/<date>/<other>", str(other))
    _, *words = shlex.split(line)
    if words[0] == "-m":
        place = words[1].replace(".", "/")
        package = (CONF.parent / place).is_dir()
        words[:2] = [f"{place}/__main__.py" if package else f"{place}.py"]
    if "benchmarks" in words[0]:
        quick = ["--hours", "0.02"] if "data" in words[0] else ["--quick"]
        words = [words[0], *quick, "--json", str(tmp_path / "figures.json")]
    if "comparison.html" in words:
        words[words.index("comparison.html")] = str(tmp_path / "comparison.html")
    if words == ["reports/table.py", "outputs"]:
        words[1] = str(run)
    assert command(*words).strip(), "it says nothing"
    for file in map(Path, words):
        if file.suffix in (".json", ".html"):
            assert file.stat().st_size > 100


def flat(cfg: DictConfig, path: str = "") -> set[str]:
    keys = set()
    for key in cfg:
        name, node = f"{path}{key}", cfg._get_node(key)
        keys |= {name} | (flat(node, f"{name}.") if isinstance(node, DictConfig) else set())
    return keys


def test_options_exist() -> None:
    """Every `key=value` of the text is one of some configuration."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()} | {"hydra/launcher"}
    choices = [
        [f"{group}={path.stem}" for path in sorted((CONF / group).glob("[!_]*.yaml"))]
        for group in ("data", "model", "objective", "optim")
    ]
    known = set(groups)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for words in itertools.zip_longest(*choices):
            cfg = compose("train", [word for word in words if word], return_hydra_config=True)
            known |= flat(cfg)
    for page, text in PAGES.items():
        for words in re.findall(r"`((?:[a-z_./]+=[^` ]* ?)+)`", text):
            for word in words.split():
                key = word.partition("=")[0]
                spoken = page == "extending" or key in ("allow", "temperature_z", "temperature_x")
                assert spoken or key in known, f"docs/{page}.md: {word}"


def test_what_other_modules_import_is_public() -> None:
    """`__all__` says which names may not change in silence; scripts have none."""
    found = set()
    root = CONF.parent
    for file in [*root.glob("*.py"), *root.glob("[cdprv]*/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {(node.module, alias.name) for alias in node.names}
    packages = ("vrnn", "datamodules", "runs", "callbacks", "reports", "playground")
    ours = {(m, name) for m, name in found if m.split(".")[0] in packages}
    assert len(ours) > 200
    modules = {name: importlib.import_module(name) for name, _ in ours}
    hidden = [
        f"{module}.{name}"
        for module, name in sorted(ours)
        if not hasattr(modules[module], "__path__") and name not in modules[module].__all__
    ]
    assert hidden == []


def test_files_exist() -> None:
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:conf|tests|docs|vrnn|callbacks)/[\w/]+\.\w+)`", text):
            ours = name == "conf/local/default.yaml" or f"# {name}\n" in text
            assert ours or (DOCS.parent / name).is_file(), f"docs/{page}.md: {name}"


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if ">>>" in text])
def test_examples_give_what_the_page_says(page: str, run: Path) -> None:
    names = {"vrnn": vrnn, "run": run}
    examples = "\n\n".join(block for block in blocks("python", PAGES[page]) if ">>>" in block)
    test = doctest.DocTestParser().get_doctest(examples, names, page, None, None)
    assert test.examples
    told: list[str] = []
    doctest.DocTestRunner().run(test, out=told.append)
    assert not told, "".join(told)


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page on extending, as if it lay over this project."""
    for kind in ("python", "yaml"):
        for block in blocks(kind, PAGES["extending"]):
            first, _, code = block.partition("\n")
            assert len(block.splitlines()) < 50
            if first == BOUND:
                continue
            file = tmp_path / first.removeprefix("# ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)
    for package in (vrnn, vrnn.layers, datamodules, datamodules.audio, callbacks):
        folder = str(tmp_path.joinpath(*package.__name__.split(".")))
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    # The page's version of a file that is here already: its table has one line more.
    registry = runpy.run_path(str(tmp_path / "vrnn/layers/recurrences.py"))["RECURRENCES"]
    assert registry.items() > RECURRENCES.items()
    monkeypatch.setitem(RECURRENCES, "mingru", registry["mingru"])
    write_everything(tmp_path)
    write_corpus(tmp_path)
    write("csv_folder", tmp_path / "csv_folder")
    speakers = ("awb", "bdl", "clb", "jmk", "slt")
    sentences = ("arctic_a0001", "arctic_b0002")
    write_all(
        tmp_path / "arctic",
        [f"cmu_us_{s}_arctic/wav/{n}.wav" for s in speakers for n in sentences],
    )
    yield tmp_path
    added = ("vrnn.laplace", "datamodules.audio.arctic", "vrnn.state_space", "vrnn.layers.min_gru")
    added += ("callbacks.part_norms",)
    for name in added:
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("line", [c for c in commands(PAGES["extending"]) if "train.py" in c])
def test_an_extension_trains_scores_and_draws(
    line: str, extended: Path, command: Command, tmp_path: Path
) -> None:
    _, program, *words = shlex.split(line.replace("/path/to", str(extended)))
    small = ["debug=limit", "logger=csv", "trainer.accelerator=cpu", "untrained=false"]
    small += ["trainer.enable_progress_bar=false", "callbacks.pictures=null", "model.hidden=8"]
    if "data=synthetic_speech" in words:
        counts = ("utterances", "val_utterances", "test_utterances")
        small += [*(f"data.{name}=3" for name in counts), "data.max_steps=10"]
    run = tmp_path / "out"
    where = [f"hydra.searchpath=[file://{extended / 'conf'}]", f"hydra.run.dir={run}"]
    command(program, *words, *small, *where)
    assert "FIVO-2" in command("evaluate.py", run, "--bounds", "elbo,iwae,fivo", "--k", 2)
    command("generate.py", run, "--n", 2, "--steps", 5)
    assert (run / "samples" / "generated.png").is_file()


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The new bound of the page on extending, as if `vrnn.bounds` ended with it."""
    (code,) = (b for b in blocks("python", PAGES["extending"]) if b.startswith(BOUND))
    before = dict(bounds.BOUNDS)
    names = dict(vars(bounds))
    exec(code, names)
    for name in names.keys() - vars(bounds).keys():
        monkeypatch.setattr(bounds, name, names[name], raising=False)
    yield
    bounds.BOUNDS.clear()
    bounds.BOUNDS.update(before)


@pytest.mark.usefixtures("bound")
def test_a_new_bound_is_one() -> None:
    (code,) = (b for b in blocks("python", PAGES["extending"]) if b.startswith(BOUND_TEST))
    names: dict[str, Any] = {}
    exec(code, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.usefixtures("bound")
def test_a_new_bound_is_scored_and_shown_everywhere(
    run: Path, tmp_path: Path, command: Command
) -> None:
    (line,) = (c for c in commands(PAGES["extending"]) if "renyi" in c)
    _, *words = shlex.split(line.replace("outputs/<date>/<run>", str(run)))
    file = tmp_path / "scores.json"
    assert "Rényi-40" in command(*words, "--json", file)
    figures = json.loads(file.read_text())
    assert figures["test/elbo"] < figures["test/renyi"] < figures["test/iwae"]
    scale = figures["test/iwae"] - figures["test/iwae_raw"]
    assert figures["test/renyi"] - figures["test/renyi_raw"] == pytest.approx(scale)

    few = curves.Curve(np.arange(2), np.zeros(2))
    logged = {
        f"{split}/{name}_per_step": few for split in ("train", "val") for name in ("renyi", "kl")
    }
    read = read_run(run)._replace(figures=figures, curves=logged)
    assert "Rényi-40, test" in [tile.label for tile in page_scores.tiles(read)]
    (table,) = page_scores.compared([read], {run: "mine"})
    assert "Rényi-40" in table.columns
    cells = [row[0] for table in page_scores.tables(read) for row in table.rows]
    assert "Rényi-40, test" in cells
    assert curves.depends_on_units("val/renyi_per_step")
    first, *_ = curves.panels({"a": logged})
    assert [series["name"] for series in first["series"]] == ["training", "validation"]


def test_every_bound_is_in_the_table_of_the_page() -> None:
    section = PAGES["bounds"].partition("## The bounds")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(bounds.BOUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rnn_gmm", "srnn", "storn", "dmm"])
def test_a_new_recurrence_works_in_every_model(
    model: str, extended: Path, command: Command, tmp_path: Path
) -> None:
    """The page's own command is for the VRNN."""
    words = [f"model={model}", "model.rnn=mingru", "data=csv_folder", "model.hidden=8"]
    small = ["debug=limit", "logger=csv", "trainer.accelerator=cpu", "untrained=false"]
    small += ["trainer.enable_progress_bar=false", "callbacks.pictures=null"]
    root, run = f"data.root={extended / 'csv_folder'}", tmp_path / "out"
    command("train.py", *words, *small, root, f"hydra.run.dir={run}")
    bounds = "elbo" if model == "rnn_gmm" else "elbo,iwae,fivo"
    shown = command("evaluate.py", run, "--bounds", bounds, "--k", 2)
    assert ("FIVO-2" in shown) == ("fivo" in bounds)
    command("generate.py", run, "--n", 2, "--steps", 5)
    assert (run / "samples" / "generated.png").is_file()
    parts = vrnn.load(run).modules()
    used = {type(part).__name__ for part in parts if isinstance(part, Recurrence)}
    assert used == {"MinGRU"}


def test_a_new_callback_logs_the_norm_of_every_part(extended: Path) -> None:
    from callbacks.part_norms import PartNorms

    parts = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1), "b": torch.nn.ReLU()})
    parts["a"].weight.grad, parts["a"].bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    logged: dict[str, float] = {}
    module = SimpleNamespace(
        model=parts, log=lambda name, norm: logged.update({name: norm.item()})
    )
    PartNorms(every=2).on_before_optimizer_step(SimpleNamespace(global_step=2), module, None)
    assert logged == {}
    PartNorms(every=2).on_before_optimizer_step(SimpleNamespace(global_step=3), module, None)
    assert logged == {"grad_norm/a": 5.0}


def test_a_new_corpus_has_every_speaker_in_one_split(extended: Path, tmp_path: Path) -> None:
    from datamodules.audio.arctic import Arctic

    write_all(extended / "arctic", ["cmu_us_bdl_arctic/raw/arctic_a0003.wav", "noise.wav"])
    data = Arctic(extended / "arctic", shares=(0.2, 0.4))
    data.setup()
    speakers = {split: [key.split("_")[2] for key in s.keys] for split, s in data.splits.items()}
    assert {split: len(names) for split, names in speakers.items()} == {
        "train": 4,
        "val": 2,
        "test": 4,
    }
    assert sum(len(set(names)) for names in speakers.values()) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no arctic in .*cmu_us_bdl_arctic.*It is free"):
        Arctic(tmp_path / "empty").setup()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
def test_the_notebook_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    (named,) = (cell for cell in notebook.cells if cell.source.startswith("RUN = None"))
    named.source = f"RUN = {str(run)!r}"
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(DOCS)}}
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 7


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    pytest.importorskip("myst_nb")
    line = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-D", "nb_execution_mode=off"]
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(
        [*line, str(DOCS), str(tmp_path)],
        cwd=DOCS.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "model.html").read_text()
    assert "<math" in page
    for html in tmp_path.rglob("*.html"):
        fetched = r'<(?:script|img|link)[^>]*(?:src|href)="(https?://[^"]+)'
        loaded = re.findall(fetched, html.read_text())
        assert not loaded, f"{html.name} loads {loaded}"


@pytest.mark.parametrize("program", ["train.py", "evaluate.py", "generate.py"])
def test_help_has_examples(program: str, command: Command) -> None:
    with pytest.raises(SystemExit):
        command.run(program, "--help")
    shown = command.capfd.readouterr().out
    assert shown.count(f"  python {program} ") >= 2
