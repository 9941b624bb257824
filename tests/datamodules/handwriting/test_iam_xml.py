import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.iam_tree import (
    BOMB,
    keys_of,
    line_path,
    write_corpus,
    write_line,
    write_list,
    write_text,
    xml,
)

from datamodules.handwriting.iam_lines import parse_lines
from datamodules.handwriting.iam_xml import parse_line, read_list, read_text

REPOSITORY = Path(__file__).resolve().parents[3]

EXTERNAL = """<?xml version="1.0"?>
<!DOCTYPE x SYSTEM "file:///etc/passwd">
<WhiteboardCaptureSession/>
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "iam")


def test_points_have_pen_flags_and_y_upwards(tmp_path: Path) -> None:
    path = line_path(tmp_path, "a01-000u-01")
    path.write_text(xml([[(1073, 1058), (1072, 1085)], [(1, 2)], [(-5, 0), (6, 7)]]))
    assert parse_line(path).dtype == np.int32
    assert parse_line(path).tolist() == [
        [0, 1073, -1058],
        [1, 1072, -1085],
        [1, 1, -2],
        [0, -5, 0],
        [1, 6, -7],
    ]


def test_a_line_without_strokes_has_no_points(tmp_path: Path) -> None:
    path = line_path(tmp_path, "a01-000u-01")
    path.write_text(xml([]))
    assert parse_line(path).shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "DTDForbidden"),
        (EXTERNAL, "DTDForbidden"),
        ("", "no element found"),
        (xml([[(1, 2), (3, 4)]])[:-40], "no element found|unclosed token"),
        ("not XML", "syntax error"),
        (xml([[(1, 2)]]).replace('x="1"', 'x="1.5e"'), "invalid literal"),
        (xml([[(1, 2)]]).replace('x="1"', ""), "a point without 'x'"),
        (xml([[(10**30, 2)]]), "too large"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, reason: str) -> None:
    path = line_path(tmp_path, "a01-000u-01")
    path.write_text(content)
    with pytest.raises(ValueError, match=reason) as info:
        parse_line(path)
    assert str(info.value).startswith(f"{path}: ")


def test_forms_in_one_directory_do_not_mix(root: Path) -> None:
    assert keys_of(root, "a02-000") == ["a02-000-01", "a02-000-02", "a02-000-03"]
    assert keys_of(root, "a02-000x") == ["a02-000x-01", "a02-000x-02", "a02-000x-03"]
    assert keys_of(root, "a02-001") == []


def test_lines_are_sorted_by_number(tmp_path: Path) -> None:
    for name in ("a01-000u-10", "a01-000u-9", "a01-000u-100", "a01-000u-01 (copy)"):
        write_line(tmp_path, name)
    assert keys_of(tmp_path, "a01-000u") == ["a01-000u-9", "a01-000u-10", "a01-000u-100"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists(tmp_path: Path, end: str) -> None:
    path = write_list(tmp_path, "trainset", ["a01-000u", "", "a02-000"], end)
    assert read_list(path) == ["a01-000u", "a02-000"]


@pytest.mark.parametrize("bad", ["a01-000U", "a1-000", "a01-000u-01", "../a01-000"])
def test_malformed_ids_are_named(tmp_path: Path, bad: str) -> None:
    path = write_list(tmp_path, "trainset", ["a01-000u", bad])
    with pytest.raises(ValueError, match="is no form id") as info:
        read_list(path)
    assert str(path) in str(info.value)
    assert repr(bad) in str(info.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts_are_those_of_the_csr_block(tmp_path: Path, end: str) -> None:
    path = write_text(tmp_path, "a08-551z", ["50 % of", "bone %%%%%%%%%%% pinned."], end)
    assert read_text(path) == ["50 % of", "bone", "pinned."]
    path.write_text("OCR:\n\nnothing else\n")
    assert read_text(path) == []


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_parse_in_order(tmp_path: Path, method: str) -> None:
    paths = [write_line(tmp_path, f"a01-{i:03d}-01", seed=i, points=2 + i % 5) for i in range(260)]
    paths[7].write_text("broken")
    several = parse_lines(paths, processes=2, context=multiprocessing.get_context(method))
    alone = parse_lines(paths, processes=1)
    assert [len(points) for points in several[:5]] == [2, 3, 4, 5, 6]
    assert isinstance(several[7], str)
    assert all(np.array_equal(a, b) for a, b in zip(several, alone, strict=True))


def test_parsing_processes_do_not_load_torch() -> None:
    code = "import sys, datamodules.handwriting.iam_xml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
