"""Damaged and malicious inputs, by the hundred: each ends in one of our clear errors."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.damage import DAMAGE, MANY, damaged, one_sentence
from support.helpers import configure, plain
from support.iam_tree import xml

import train
from datamodules.handwriting.iam_xml import parse_line
from datamodules.loading import load_data
from datamodules.ragged import Ragged
from runs.checks import check_types
from vrnn.checkpoint import CheckpointError, load_module
from vrnn.module import VRNNModule

pytestmark = pytest.mark.slow

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**6),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["os.system", "torch.hub.load", "${oc.env:HOME}", "vrnn.VRNN", "../x"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    few = ["trainer.max_epochs=1", "untrained=false", "test=false", "model=rnn_gauss"]
    train.run(configure(folder, *few, "data.lines=4"))
    return folder


@pytest.fixture(scope="module")
def data_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    few = ["data.lines=2", "data.val_lines=1", "data.test_lines=1"]
    options: dict[str, Any] = plain(configure(tmp_path_factory.mktemp("data"), *few))["data"]
    return options


def mutate(node: Any, where: list[float], junk: Any) -> Any:
    """Puts junk somewhere into nested containers."""
    node = copy.deepcopy(node)
    place = node
    for fraction in where:
        if isinstance(place, dict) and place:
            key: Any = sorted(place, key=str)[int(fraction * len(place))]
        elif isinstance(place, list) and place:
            key = int(fraction * len(place))
        else:
            break
        if not isinstance(place[key], dict | list) or fraction == where[-1]:
            place[key] = junk
            break
        place = place[key]
    return node


WHERE = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)


@given(damage=DAMAGE)
@MANY
def test_damaged_checkpoints_load_unchanged_or_not_at_all(
    run: Path, damage: list[tuple[str, float, int]]
) -> None:
    whole = run / "checkpoints" / "best.ckpt"
    path = run / "damaged.ckpt"
    path.write_bytes(damaged(whole.read_bytes(), damage))
    try:
        module = load_module(path)
    except CheckpointError as error:
        one_sentence(error, path)
        return
    for name, tensor in load_module(whole).state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]), "a change that nobody noticed"


@given(where=WHERE, junk=JUNK)
@MANY
def test_checkpoints_that_describe_something_else(
    run: Path, where: list[float], junk: object
) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"] = mutate(content["hyper_parameters"], where, junk)
    path = run / "altered.ckpt"
    torch.save(content, path)
    try:
        assert isinstance(load_module(path), VRNNModule)
    except CheckpointError as error:
        one_sentence(error, path)


@given(where=WHERE, junk=JUNK)
@MANY
def test_configurations_with_junk_in_them(
    where: list[float], junk: object, data_options: dict[str, Any]
) -> None:
    """A value of the data's description, as a checkpoint or a configuration file brings it."""
    options = mutate(data_options, where[:1], junk)
    for key in ("lines", "val_lines", "test_lines"):
        options[key] = min(options[key], 3) if isinstance(options[key], int) else options[key]
    description: dict[str, Any] = {"module": options, "shift": [0.0] * 3, "scale": [1.0] * 3}
    description["columns"] = ["pen", "dx", "dy"]
    try:
        check_types(options)
        load_data(description)
    except (ValueError, TypeError) as error:
        assert str(error)


LINE = xml([[(1073, 1058), (1072, 1085)], [(1, 2)], [(-5, 0), (6, 7)]]).encode()


@given(damage=DAMAGE)
@MANY
def test_damaged_line_files(damage: list[tuple[str, float, int]], run: Path) -> None:
    path = run / "line.xml"
    path.write_bytes(damaged(LINE, damage))
    try:
        points = parse_line(path)
    except ValueError as error:
        one_sentence(error, path)
    else:
        assert points.ndim == 2 and points.shape[1] == 3


@given(
    damage=DAMAGE, name=st.sampled_from(["values.npy", "starts.npy", "lengths.npy", "meta.json"])
)
@MANY
def test_damaged_caches(damage: list[tuple[str, float, int]], name: str, run: Path) -> None:
    folder = run / "cache"
    parts = [np.full((n, 3), n, np.float32) for n in (2, 5, 3)]
    Ragged.from_sequences(parts, "abc").save(folder)
    file = folder / name
    file.write_bytes(damaged(file.read_bytes(), damage))
    try:
        opened = Ragged.open(folder)
    except ValueError as error:
        one_sentence(error, folder)
    else:
        assert all(part.shape[1] == opened.values.shape[1] for part in opened)


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run_when_training_goes_on(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["loops"]["x"] = Touch(tmp_path / "touched")
    path = tmp_path / "evil.ckpt"
    torch.save(content, path)
    few = ["trainer.max_epochs=2", "untrained=false", "test=false", "model=rnn_gauss"]
    with pytest.raises(CheckpointError, match="something else than tensors"):
        train.run(configure(tmp_path / "run", *few, "data.lines=4", f"ckpt={path}"))
    assert not (tmp_path / "touched").exists()
