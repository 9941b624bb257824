"""Folders of sequences, read once into a cache."""

from pathlib import Path

import numpy as np
import pytest
from support.helpers import Command
from support.small_corpora import write_csvs
from support.small_folders import contents, keys, opened

from datamodules.files.arrays import Found, read_csv
from datamodules.folders import CSVFolder


def test_files_are_read_once_and_again_when_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path)
    first = opened(CSVFolder(tmp_path))
    read: list[str] = []

    def reads(path: Path) -> list[Found]:
        read.append(path.name)
        return read_csv(path)

    monkeypatch.setattr(CSVFolder, "read", staticmethod(reads))
    again = opened(CSVFolder(tmp_path))
    assert read == [] and again.columns == first.columns == ("a", "b")
    assert keys(again) == keys(first)
    for key, x in contents(first).items():
        np.testing.assert_array_equal(contents(again)[key], x)

    (tmp_path / "sub" / "0.csv").write_text("a,b\n1,2\n3,5\n")
    changed = opened(CSVFolder(tmp_path))
    assert len(read) == 8 and contents(changed)["sub/0.csv"].tolist() == [[1, 2], [3, 5]]


def test_what_could_not_be_opened_is_opened_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path)

    def denied(path: Path) -> list[Found]:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, pytest.raises(PermissionError, match=r"0\.csv"):
        patch.setattr(CSVFolder, "read", staticmethod(denied))
        opened(CSVFolder(tmp_path, missing="skip"))
    assert len(contents(opened(CSVFolder(tmp_path)))) == 8


def test_files_that_cannot_be_used_are_named_every_time(tmp_path: Path) -> None:
    write_csvs(tmp_path)
    (tmp_path / "sub" / "0.csv").write_text("a,b\n1,two\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"0.csv, line 2: 'two' is no finite number"):
            opened(CSVFolder(tmp_path))
        data = opened(CSVFolder(tmp_path, missing="skip"))
        assert sum(map(len, data.splits.values())) == 7


def test_all_files_that_cannot_be_used_are_in_the_log_file(
    tmp_path: Path, command: Command
) -> None:
    root, run = write_csvs(tmp_path / "data", n=12), tmp_path / "run"
    for i in range(5):
        (root / "sub" / f"{i}.csv").write_text("a,b\n1,two\n")
    options = ["data=csv_folder", f"data.root={root}", f"hydra.run.dir={run}", "logger=csv"]
    told = command.fails("train.py", *options)
    assert f"2.csv, line 2: 'two' is no finite number and 2 more, all of them in {run}" in told
    assert "4.csv" not in told and "4.csv, line 2: 'two'" in (run / "train.log").read_text()
    (root / "sub" / "3.csv").unlink()
    (root / "sub" / "4.csv").unlink()
    assert "all of them" not in command.fails("train.py", *options), "there are three"
