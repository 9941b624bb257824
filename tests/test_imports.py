"""Imports go one way, from the scripts towards the models."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import train

ROOT = Path(train.__file__).parent
ROOMS = ("vrnn", "datamodules", "runs", "reports", "callbacks")
"""Each may import itself and those before it."""

SCRIPTS = ("train", "evaluate", "generate", "playground", "benchmarks")


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(file): file
    for room in (*ROOMS, *SCRIPTS)
    for file in (*(ROOT / room).rglob("*.py"), *ROOT.glob(f"{room}.py"))
}


@cache
def imports(module: str) -> set[str]:
    """All that a module imports, also inside of functions, by the names of modules where these
    are ours."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else str(node.module) for name in names}
    return found


def closure(module: str) -> set[str]:
    """All of our modules that a module needs."""
    found, left = set(), {module}
    while left:
        one = left.pop()
        found.add(one)
        left |= {name for name in imports(one) if name in FILES} - found
    return found


def test_rooms_import_only_rooms_before_them():
    for module in FILES:
        room = module.partition(".")[0]
        if room in ROOMS:
            later = {*ROOMS[ROOMS.index(room) + 1 :], *SCRIPTS}
            wrong = {name for name in imports(module) if name.partition(".")[0] in later}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_there_is_no_circle():
    for module in FILES:
        for name in imports(module) & FILES.keys():
            assert module not in closure(name), f"{module} and {name} need each other"


def test_bounds_know_no_networks_and_no_models():
    assert closure("vrnn.bounds") == {"vrnn.bounds", "vrnn.trace", "vrnn.layers.state"}


def test_models_know_no_bounds_and_no_losses():
    for module in FILES:
        if module.startswith(("vrnn.models", "vrnn.layers", "vrnn.likelihoods", "vrnn.engine")):
            above = {"vrnn.bounds", "vrnn.objectives", "vrnn.module", "vrnn.evaluation"}
            assert not closure(module) & above, module


def test_datamodules_know_no_models():
    for module in FILES:
        if module.startswith("datamodules"):
            needed = {name for name in closure(module) if name.startswith("vrnn")}
            assert needed <= {"vrnn", "vrnn.arguments", "vrnn.batch"}, module


def test_only_scripts_touch_hydras_runtime():
    runtime = ("hydra.main", "hydra.core", "hydra.types", "hydra._internal")
    # A Hydra callback, which Hydra calls before it makes the run's folder; and what composes
    # the configuration again to tell a misspelt option from others.
    hydras = {"runs.fresh", "runs.typos"}
    for module in FILES:
        if module not in hydras and module != "train":
            wrong = {name for name in imports(module) if name.startswith(runtime)}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("room", ["datamodules", "runs", "reports", "callbacks"])
def test_vrnn_works_beside_a_room_of_the_same_name(room, tmp_path):
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text("raise ImportError('somebody else's')")
    program = "import vrnn; print(vrnn.VRNN(3, 2, 4, vrnn.likelihoods.PenMixture()).z_dim)"
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2\n", done.stderr
