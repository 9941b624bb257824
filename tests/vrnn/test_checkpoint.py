import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import configure, run_unseen

import train
import vrnn
from callbacks.checkpoints import DurableFiles
from vrnn.checkpoint import CheckpointError, find_checkpoint, load_module

ROOT = Path(train.__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_unseen(configure(folder, "trainer.max_epochs=1", "untrained=false", "test=false"))
    return folder


def test_a_model_comes_back_from_its_file_and_from_its_run(run: Path) -> None:
    by_run, by_file = vrnn.load(run), vrnn.load(run / "checkpoints" / "last.ckpt")
    assert isinstance(by_run, vrnn.VRNN) and not by_run.training
    for name, tensor in by_run.state_dict().items():
        assert torch.equal(tensor, by_file.state_dict()[name])
    assert by_run.normaliser.scale.tolist() == pytest.approx([1, 56.04462, 56.04462])
    assert find_checkpoint(run).name == "best.ckpt"
    (run / "checkpoints" / "best.ckpt").rename(run / "kept.ckpt")
    assert find_checkpoint(run).name == "last.ckpt"
    (run / "kept.ckpt").rename(run / "checkpoints" / "best.ckpt")


@pytest.mark.slow
def test_a_checkpoint_is_enough(run: Path, tmp_path: Path) -> None:
    """Neither the configuration nor the data is there, nor is the working directory ours."""
    copy = tmp_path / "alone.ckpt"
    copy.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vrnn;"
        "model = vrnn.load('alone.ckpt'); print(tuple(model.generate(5, 2, seed=0).shape))"
    )
    for package in ("vrnn", "datamodules"):
        (tmp_path / package).symlink_to(ROOT / package)
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.stdout == "(5, 2, 3)\n", shown.stderr


def test_generation_depends_on_its_seed_alone(run: Path) -> None:
    model = vrnn.load(run)
    before = torch.random.get_rng_state()
    a, b = model.generate(20, 3, seed=5), model.generate(20, 3, seed=5)
    assert torch.equal(a, b) and not torch.equal(a, model.generate(20, 3, seed=6))
    assert torch.equal(before, torch.random.get_rng_state())
    model.generate(2, 1)
    assert not torch.equal(before, torch.random.get_rng_state())


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(CheckpointError) as error:
        vrnn.load(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message and error.value.__cause__ is None
    return message


def altered(run: Path, change: Callable[[dict[str, Any]], object], folder: Path) -> Path:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    path = folder / "altered.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("place", ["", "callbacks", "hyper_parameters", "state_dict"])
def test_code_in_a_pickle_is_not_run(run: Path, tmp_path: Path, place: str) -> None:
    touched = tmp_path / "touched"
    bomb = Bomb(touched)
    path = altered(
        run, lambda content: (content[place] if place else content).update(x=bomb), tmp_path
    )
    assert "something else than tensors" in refusal(path)
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "or the test would show nothing"


def test_files_that_are_no_checkpoints_are_refused(run: Path, tmp_path: Path) -> None:
    whole = (run / "checkpoints" / "best.ckpt").read_bytes()
    for name, content in {
        "half": whole[: len(whole) // 2],
        "start": whole[:100],
        "text": b"loss: 3\n",
        "empty": b"",
        "noise": bytes(range(256)) * 9,
    }.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        message = refusal(path)
        assert "damaged or no checkpoint" in message or "something else" in message, name
    for name, foreign in {"weights": {"w": torch.ones(2)}, "list": [1, 2]}.items():
        torch.save(foreign, tmp_path / f"{name}.ckpt")
        assert "this project did not write it" in refusal(tmp_path / f"{name}.ckpt")
    assert "no checkpoint at" in refusal(tmp_path / "missing.ckpt")
    assert "checkpoints/best.ckpt" in refusal(tmp_path)


TARGETS = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "torch.load",
    "vrnn.checkpoint.torch.load",
    "vrnn.checkpoint.load",
    "vrnn.checkpoint.pkgutil.resolve_name",
    "vrnn.VRNN.generate",
    "torch.nn.modules.module.torch.load",
    "torch.optim.optimizer.torch.load",
    "torch.nn.init.normal_",
    "vrnn.nothing.like.this",
    "vrnn.module.LightningModule",
    "vrnn.metrics.Metric",
    "vrnn_evil.Model",
    "..os.system",
    "vrnn.models.vrnn:VRNN.generate",
    "",
    17,
]

PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "model": lambda hparams: hparams["model"],
    "likelihood": lambda hparams: hparams["model"]["likelihood"],
    "objective": lambda hparams: hparams["objective"],
    "optimizer": lambda hparams: hparams["optim"]["optimizer"],
    "list": lambda hparams: hparams["model"].setdefault("extra", [[{}]])[0][0],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_description_cannot_name_other_code(run: Path, tmp_path: Path, place: str) -> None:
    touched = tmp_path / "touched"
    for target in TARGETS:

        def change(content: dict[str, Any], target: object = target) -> None:
            node = PLACES[place](content["hyper_parameters"])
            node |= {"_target_": target, "_args_": [f"touch {touched}"]}

        message = refusal(altered(run, change, tmp_path))
        assert repr(target) in message and "it names" in message
    assert not touched.exists()


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${x}", "${hydra:runtime.cwd}"])
def test_a_description_cannot_ask_the_environment(run: Path, tmp_path: Path, value: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["model"]["posterior"] = value

    assert "interpolation" in refusal(altered(run, change, tmp_path))


def test_descriptions_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "fit together": lambda c: c["hyper_parameters"]["model"].update(hidden=9),
        "not one of": lambda c: c["hyper_parameters"]["model"].update(posterior="foo"),
        "lack data": lambda c: c["hyper_parameters"].pop("data"),
        "lack data, model, objective, optim": lambda c: c.update(hyper_parameters=[1]),
        "Error(s) in loading": lambda c: c["state_dict"].pop("model.out.bias"),
        "'shift'": lambda c: c["hyper_parameters"]["data"].pop("shift"),
    }
    for words, change in changes.items():
        assert words in refusal(altered(run, change, tmp_path)), words


def test_code_of_ones_own_is_allowed_by_name(run: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["model"]["likelihood"]["_target_"] = (
            "support.helpers.MyPenMixture"
        )

    path = altered(run, change, tmp_path)
    assert "see `allow`" in refusal(path)
    assert (
        type(load_module(path, allow=("support.helpers",)).model.likelihood).__name__
        == "MyPenMixture"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("n", [1, 100_000])
def test_a_full_disk_is_named_and_costs_nothing_before(n: int, tmp_path: Path) -> None:
    """Torch itself complains of positions in its archive."""
    file = tmp_path / "last.ckpt"
    DurableFiles().save_checkpoint({"x": torch.zeros(3)}, file)
    partial = file.with_name("last.ckpt.partial")
    partial.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device.*last.ckpt"):
        DurableFiles().save_checkpoint({"x": torch.ones(n)}, file)
    assert not partial.is_symlink() and torch.equal(torch.load(file)["x"], torch.zeros(3))
