"""Some columns of the files of a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.helpers import Command, configure
from support.small_corpora import write_arrays, write_csvs
from support.small_folders import contents, opened

import train
from datamodules.folders import CSVFolder, NPZFolder, Stroke3

FEW = ["model=rnn_gauss", "trainer.fast_dev_run=true", "untrained=false", "test=false"]
FEW += ["logger=csv", "report=false", "trainer.accelerator=cpu"]


def write_readings(root: Path, header: str = "time,a,b,speed (m/s)\n") -> Path:
    """A clock that is text, two numbers, and one that never changes."""
    root.mkdir(parents=True)
    for i in range(8):
        lines = [f"12:00:0{t},{i + t},{i - 2 * t},9.81\n" for t in range(5)]
        (root / f"{i}.csv").write_text(header + "".join(lines))
    return root


def test_the_others_are_not_looked_at(tmp_path: Path) -> None:
    root = write_readings(tmp_path / "readings")
    with pytest.raises(ValueError, match="0.csv, line 2: '12:00:00' is no finite number"):
        CSVFolder(root).setup()
    data = opened(CSVFolder(root, columns=["b", "a"]))
    assert data.columns == ("b", "a")
    assert contents(data)["3.csv"].tolist() == [[3 - 2 * t, 3 + t] for t in range(5)]
    assert opened(CSVFolder(root, columns=["a"])).columns == ("a",), "from another cache"


def test_a_constant_column_is_left_out_as_the_message_says(
    tmp_path: Path, command: Command
) -> None:
    root = write_readings(tmp_path / "readings", "t,a,b,speed (m/s)\n")
    options = ["data=csv_folder", f"data.root={root}", f"hydra.run.dir={tmp_path / 'run'}"]
    fails = command.fails("train.py", *options, "data.columns=[a,'speed (m/s)',b]")
    told = "constant in the training split: speed (m/s); leave it out by data.columns=[a,b], or"
    assert told in fails
    spaced = CSVFolder(root).leaving(["a", "speed (m/s)"])
    assert spaced == """leave it out by 'data.columns=[a,"speed (m/s)"]'"""
    command("train.py", *options, """data.columns=[a,"b"]""", *FEW)


@pytest.mark.parametrize("kind", [CSVFolder, NPZFolder])
def test_columns_without_names_are_numbered(kind: type[CSVFolder], tmp_path: Path) -> None:
    write_arrays(tmp_path, width=3)
    for i in range(8):
        x = np.load(tmp_path / f"{i}.npy")
        x[:, 1] = np.arange(len(x))
        np.savetxt(tmp_path / f"{i}.csv", x, delimiter=",")
        x[0, 0] = np.nan
        np.save(tmp_path / f"{i}.npy", x)
    data = opened(kind(tmp_path, columns=["x1", "x2"]))
    assert data.columns == ("x1", "x2")
    assert all(x[:, 0].tolist() == [*range(len(x))] for x in contents(data).values())


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    csvs, arrays = write_csvs(tmp_path / "csvs"), write_arrays(tmp_path / "arrays")
    message = r"data.columns=\[a,c\]: .*/0.csv has no column c, only a, b$"
    with pytest.raises(ValueError, match=message):
        CSVFolder(csvs, columns=["a", "c"]).setup()
    with pytest.raises(
        ValueError, match=r"data.columns=\[2\]: .*0.npy has no column 2, only x0, x1"
    ):
        NPZFolder(arrays, columns=[2]).setup()  # type: ignore[list-item]
    (csvs / "sub" / "0.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match="1 of 8 files cannot be used: .*0.csv has no column b"):
        CSVFolder(csvs, columns=["b"]).setup()
    for wrong in ("a", []):
        with pytest.raises(ValueError, match="must be a list of names, such as"):
            CSVFolder(csvs, columns=wrong)
    with pytest.raises(TypeError, match="columns"):
        Stroke3(arrays, columns=["x0"])


def test_a_model_of_some_columns_knows_their_names(tmp_path: Path, command: Command) -> None:
    root = write_readings(tmp_path / "readings")
    options = ["data=csv_folder", f"data.root={root}", "data.columns=[a,b]", "model=rnn_gauss"]
    run = tmp_path / "run"
    few = ["trainer.max_epochs=1", "untrained=false", "test=false"]
    train.run(configure(run, *options, *few, lines=False))
    command("evaluate.py", run)
    command("generate.py", run, "--n", 1, "--prime", 2)
    assert np.load(run / "generated" / "generated.npz")["columns"].tolist() == ["a", "b"]
    assert json.loads((run / "run.json").read_text())["config"]["data"]["columns"] == ["a", "b"]
    fails = command.fails("evaluate.py", run, "data.columns=[a]")
    assert "trained on frames of 2 numbers (a, b), but data=csv_folder gives 1 (a)" in fails
