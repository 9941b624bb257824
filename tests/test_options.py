"""What evaluate.py and generate.py are told, they do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.helpers import Command, configure, run_unseen

from datamodules.loading import load_data
from runs.samples import generate_raw
from vrnn import evaluation
from vrnn.checkpoint import load_module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_unseen(configure(folder, "trainer.max_epochs=1", "untrained=false"))
    return folder


def scores(command: Command, run: Path, file: Path, *words: object) -> dict[str, float]:
    command("evaluate.py", run, "--json", file, *words)
    return json.loads(file.read_text())


def test_runs_have_particles_of_their_own_and_an_error_over_them(
    run: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "scores.json"
    a, b = (scores(command, run, file, "--k", 2, "--seed", s)["test/iwae"] for s in (3, 4))
    both = scores(command, run, file, "--k", 2, "--seed", 3, "--runs", 2)
    assert a != b and both["test/iwae"] == pytest.approx((a + b) / 2)
    assert both["test/iwae_run_se"] == pytest.approx(abs(a - b) / 2, rel=1e-4)


def test_fivo_resamples_as_it_is_told(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    score = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *args: given.append(args[7]) or score(*args))
    words = ["--resampling", "systematic", "--threshold", 0, "--limit", 1]
    command("evaluate.py", run, "--bounds", "fivo", "--k", 2, *words)
    assert (given[0].how, given[0].threshold) == ("systematic", 0.0)


def test_a_limit_spreads_over_the_split(run: Path, tmp_path: Path, command: Command) -> None:
    options = ["--bounds", "elbo", "--limit", 2, "--split", "val"]
    figures = scores(command, run, tmp_path / "scores.json", *options)
    lengths = load_data(load_module(run).hparams["data"]).splits["val"].lengths
    assert len(set(lengths.tolist())) == 3 and figures["val/steps"] == lengths[[0, -1]].sum()


def test_samples_go_on_from_the_test_split_at_the_temperatures_given(
    run: Path, tmp_path: Path, command: Command
) -> None:
    module, options = load_module(run), {"steps": 10, "temperature_z": 0.0, "temperature_x": 0.5}
    prime = load_data(module.hparams["data"]).beginnings("test", 2, 15)
    words = ["--n", 2, "--steps", 10, "--prime", 15, "--temperature-z", 0, "--temperature-x", 0.5]
    command("generate.py", run, *words, "--out", tmp_path)
    x = np.load(tmp_path / "generated.npz")["x"]
    np.testing.assert_array_equal(x, generate_raw(module, 2, 0, prime=prime, **options).x)
