import os
from pathlib import Path

import numpy as np
import pytest
from support.iam_tree import (
    BOMB,
    FORMS,
    keys_of,
    line_path,
    write_corpus,
    write_line,
    write_text,
    xml,
)

from datamodules.handwriting import iam_lines as iam_corpus
from datamodules.handwriting.iam import CONVENTIONS, IAM, split_forms
from datamodules.handwriting.iam_lines import read_corpus
from datamodules.handwriting.iam_xml import parse_line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "iam")


def test_parts_hold_offsets_and_texts_in_the_order_of_their_lists(root: Path) -> None:
    forms = split_forms(root, **CONVENTIONS["paper"])
    parts = read_corpus(root, forms, root / "cache")
    assert list(parts) == ["train", "val", "test"]
    assert parts["val"].keys == ["a02-000x-01", "a02-000x-02", "a02-000x-03"]
    assert parts["val"].labels["text"].tolist() == [
        f"a02-000x {n}" for n in ("one", "two", "three")
    ]
    assert list(parts["val"].labels) == ["text"]
    assert parts["train"].keys == [k for form in forms["train"] for k in keys_of(root, form)]

    points = parse_line(line_path(root, "a02-000x-02")).astype(np.float32)
    expected = np.column_stack([points[1:, 0], np.diff(points[:, 1:], axis=0)])
    assert parts["val"][1].dtype == np.float32
    assert parts["val"][1].tolist() == expected.tolist()


def test_any_split_is_a_selection_from_one_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = read_corpus(root, split_forms(root, **CONVENTIONS["paper"]), root / "cache")

    def never(*_: object) -> None:
        raise AssertionError("parsed again")

    monkeypatch.setattr(iam_corpus, "parse_lines", never)
    task1 = read_corpus(root, split_forms(root, **CONVENTIONS["task1"]), root / "cache")
    assert set(task1["test"].keys) < set(paper["train"].keys)

    monkeypatch.undo()
    changed = write_line(root, "a01-000u-01", points=12)
    os.utime(changed, ns=(0, 0))
    forms = {"all": ["a01-000u"]}
    assert len(read_corpus(root, forms, root / "cache")["all"][0]) == 11


def test_missing_forms_are_counted_and_three_shown(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absent = [f"z02-{i:03d}" for i in range(5)]
    forms = {"train": [*FORMS["trainset"], *absent], "val": ["a02-000x"]}
    message = "5 of the 10 forms in the lists have no lines in .*z02-000, z02-001, .* and 2 more"

    with pytest.raises(ValueError, match=message + r".*data\.missing=skip") as info:
        read_corpus(root, forms, root / "cache")
    assert "z02-003" not in str(info.value)

    parts = read_corpus(root, forms, root / "cache", missing="skip")
    assert len(parts["train"]) == 12
    assert "skipped: 5 of the 10 forms" in caplog.text

    with pytest.raises(FileNotFoundError, match="none of the 5 forms of 'val'"):
        read_corpus(root, {**forms, "val": absent}, root / "cache", missing="skip")
    with pytest.raises(ValueError, match=r"data\.missing=no"):
        IAM(root, missing="no")


def test_broken_files_are_listed_and_the_rest_is_kept(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truncated, bomb = line_path(root, "a01-000u-02"), line_path(root, "b01-010-01")
    truncated.write_text(truncated.read_text()[:700])
    bomb.write_text(BOMB)
    forms = {"train": FORMS["trainset"], "val": ["a02-000x"]}

    with pytest.raises(ValueError, match="2 of 15 files cannot be used") as info:
        read_corpus(root, forms, root / "cache")
    assert str(truncated) in str(info.value)
    assert str(bomb) in str(info.value)
    assert "DTDForbidden" in str(info.value)

    parts = read_corpus(root, forms, root / "cache", missing="skip")
    assert "skipped: 2 of 15 files" in caplog.text
    assert len(parts["train"]) == 10
    assert parts["train"].keys[:2] == ["a01-000u-01", "a01-000u-03"]
    assert parts["train"].labels["text"][1] == "a01-000u three"
    assert len(read_corpus(root, {"val": ["a02-000x"]}, root / "cache")["val"]) == 3

    write_line(root, "a01-000u-02")
    write_line(root, "b01-010-01")
    assert len(read_corpus(root, forms, root / "cache")["train"]) == 12


def test_lines_of_fewer_than_two_points_are_dropped(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line_path(root, "a01-000u-01").write_text(xml([]))
    line_path(root, "a01-000u-02").write_text(xml([[(1, 1)]]))
    line_path(root, "a01-000u-03").write_text(xml([[(1, 1)], [(2, 3)]]))
    parts = read_corpus(root, {"train": ["a01-000u"]}, root / "cache")
    assert [s.tolist() for s in parts["train"]] == [[[1, 1, -2]]]
    assert "skipped: 2 lines of fewer than two points" in caplog.text


def test_forms_without_a_usable_text(root: Path) -> None:
    for i in (1, 2):
        write_line(root, f"z01-000z-{i:02d}")
        write_line(root, f"e01-001-{i:02d}")
    write_text(root, "z01-000z", ["Please Enter Transcription here"])
    write_text(root, "d01-016z", ["only one"])

    parts = read_corpus(root, {"a": ["e01-001"], "b": ["d01-016z"]}, root / "cache")
    assert parts["a"].labels["text"].tolist() == ["", ""]
    assert parts["b"].labels["text"].tolist() == ["only one", "", ""]
    with pytest.raises(ValueError, match="1 of the 1 forms in the lists .*: z01-000z"):
        read_corpus(root, {"a": ["z01-000z"]}, root / "cache")


@pytest.mark.parametrize("state", ["absent", "empty", "no files"])
def test_a_missing_corpus_is_explained(tmp_path: Path, state: str) -> None:
    root = tmp_path / "iam"
    if state != "absent":
        root.mkdir()
    if state == "no files":
        (root / "lineStrokes").mkdir()
    for read in (
        lambda: read_corpus(root, {"train": ["a01-000u"]}, tmp_path / "cache"),
        lambda: split_forms(root, **CONVENTIONS["paper"]),
    ):
        with pytest.raises(FileNotFoundError) as info:
            read()
        if state == "no files" and "list of forms" in str(info.value):
            continue
        for part in (
            str(root),
            "lineStrokes/a01/a01-000/a01-000u-01.xml",
            "IAM On-Line Handwriting Database",
            "University of Bern",
            "data.root=",
            "$VRNN_DATA/iam",
            "data=synthetic_handwriting",
        ):
            assert part in str(info.value)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_reported(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written.*data\.cache=<folder>"):
        read_corpus(root, {"train": ["a01-000u"]}, root / "file")


def test_a_changed_text_is_read_again(root: Path) -> None:
    forms = split_forms(root, **CONVENTIONS["paper"])
    read_corpus(root, forms, root / "cache")
    path = next((root / "ascii").rglob("a02-000x.txt"))
    path.write_text(path.read_text().replace("a02-000x one", "corrected"))
    assert read_corpus(root, forms, root / "cache")["val"].labels["text"][0] == "corrected"
