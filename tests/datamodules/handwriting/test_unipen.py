import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.small_corpora import WRITERS, write_unipen

from datamodules.handwriting.pen import points
from datamodules.handwriting.unipen import Unipen
from datamodules.handwriting.unipen_files import parse_components, read_file
from datamodules.ragged import Ragged

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_unipen(tmp_path / "unipen")


def load(root: Path, **options: object) -> dict[str, Ragged]:
    data = Unipen(root, **options)
    data.setup()
    return data.splits


def test_components_count_every_pen_down_and_pen_ups_with_points(root: Path) -> None:
    files = [root / "include" / "sta" / name for name in ("sta.doc", "data/ann.dat")]
    components = parse_components(files)
    assert [(c.down, len(c.points)) for c in components] == [
        (True, 1),
        (True, 2),
        (True, 1),
        (False, 2),
        (True, 2),
        (True, 1),
        (True, 2),
    ]
    assert {(c.writer, c.rate) for c in components} == {("sta-ann", 200.0)}


def test_segments_are_offsets_of_what_is_on_paper(root: Path) -> None:
    include = root / "include"
    dirty, no_one = read_file(root / "data" / "8" / "sta" / "inner" / "ann.dat", include)
    assert dirty.text == 'What a "dirty" trick !' and no_one.text == "No one"
    # Points (10, 10), (13, 11), (20, 30), (21, 28), (24, 27), the last three strokes' ends 1.
    expected = [[1, 3, 1], [1, 7, 19], [0, 1, -2], [1, 3, -1]]
    np.testing.assert_array_equal(dirty.x, expected)
    np.testing.assert_array_equal(points(no_one.x)[1:, 1:], [[2, 3], [3, 7]])
    assert no_one.x[:, 0].tolist() == [0, 1]


def test_no_writer_is_in_two_splits_and_every_part_in_all(root: Path) -> None:
    splits = load(root)
    writers = {split: set(part.labels["writer"].tolist()) for split, part in splits.items()}
    everyone = {f"{part}-{i:02d}" for part, names in WRITERS.items() for i in range(len(names))}
    assert set.union(*writers.values()) == everyone
    assert sum(map(len, writers.values())) == len(everyone)
    for found in writers.values():
        assert {name[:3] for name in found} == set(WRITERS)
    keys = [key for part in splits.values() for key in part.keys]
    assert len(set(keys)) == len(keys) == 2 * len(everyone)
    assert not any(name in key for key in keys for names in WRITERS.values() for name in names)


def test_the_split_is_a_function_of_its_seed(root: Path) -> None:
    orders = [tuple(load(root, split_seed=seed)["test"].keys) for seed in (0, 0, 1, 2, 3)]
    assert orders[0] == orders[1] and len(set(orders)) > 1


def test_parts_can_be_chosen_and_bring_their_rate(root: Path) -> None:
    data = Unipen(root, parts=["sta"])
    data.setup()
    assert data.rate == 200.0 and len(data.splits["train"]) == 4
    assert {key[:3] for part in data.splits.values() for key in part.keys} == {"sta"}


def test_the_cache_is_elsewhere_if_wanted_and_follows_the_files(root: Path) -> None:
    cache = root.parent / "cache"
    before = load(root, cache=cache, parts=["sta"])
    assert not (root / ".vrnn-cache").exists() and cache.is_dir()
    path = root / "include" / "sta" / "data" / "ann.dat"
    path.write_text(path.read_text().replace("24 27", "24 99"))
    after = load(root, cache=cache, parts=["sta"])
    assert [k for p in before.values() for k in p.keys] == [
        k for p in after.values() for k in p.keys
    ]
    highest = max(float(x[:, 2].max()) for part in after.values() for x in part)
    assert highest == 99 - 28


def edit(root: Path, folder: str, old: str, new: str) -> None:
    path = next((root / folder).rglob("ann.dat"))
    text = path.read_text(encoding="latin-1")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="latin-1")


@pytest.mark.parametrize(
    ("folder", "old", "new", "message"),
    [
        ("include", "13 11", "13 x", r"ann.dat, line 8: '13 x' is not 2 finite numbers"),
        ("include", "13 11", "13", r"ann.dat, line 8: '13' is not 2 finite numbers"),
        ("include", "13 11", "13 nan", r"ann.dat, line 8: '13 nan' is not 2 finite"),
        ("include", ".DT 100", ".COORD T", r"ann.dat, line 20: .COORD names no X and Y"),
        ("data", "5-6", "5-7", r"ann.dat, line 5: .*component 7, .*have only 7"),
        ("data", "5-6", "6-5", r"ann.dat, line 5: .*is no segment such as"),
        ("data", '"No one"', "No one", r"ann.dat, line 5: .*is no segment such as"),
        ("data", "sta.doc", "std.doc", r"ann.dat includes .*std.doc, which is not there"),
    ],
)
def test_broken_files_are_named_or_skipped_and_counted(
    root: Path,
    folder: str,
    old: str,
    new: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    edit(root, folder, old, new)
    with pytest.raises(ValueError, match=f"1 of 4 files cannot be used: .*{message}"):
        load(root)
    splits = load(root, missing="skip")
    assert "skipped: 1 of 4 files" in caplog.text
    assert sum(len(part) for part in splits.values()) == 2 * 3 + 2 * 3


def test_segments_too_short_for_an_offset_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(root, "data", "5-6", "5-5")
    splits = load(root, parts=["sta"])
    assert sum(len(part) for part in splits.values()) == 7
    assert "skipped: 1 segments of sta with fewer than two points" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["bbd"]}, "no UNIPEN part bbd in .*data.root="),
        ({"parts": "sta"}, r"data.parts=sta must be a list"),
        ({"missing": "ignore"}, "data.missing=ignore is not one of error, skip"),
    ],
)
def test_impossible_options_are_named(root: Path, options: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(root, **options)


def test_two_writers_are_too_few(root: Path) -> None:
    for name in ("bob", "cid"):
        next((root / "data").rglob(f"{name}.dat")).unlink()
    with pytest.raises(ValueError, match="sta has 2 writers, too few for three splits"):
        load(root, parts=["sta"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(os.environ.get("VRNN_DATA", ""), "unipen")
    archives = sorted((REPOSITORY / ".." / "shared" / "data").glob("unipen*.tar.xz"))
    if "VRNN_DATA" in os.environ and (root / "include").is_dir():
        return root
    if not archives:
        pytest.skip("no UNIPEN in $VRNN_DATA/unipen")
    root = tmp_path_factory.mktemp("unipen")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(root, filter="data")
    return next(path.parent for path in root.rglob("include"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "segments", "writers", "n_points", "median", "std", "pen_up"),
    [
        ("sta", 156, 29, 101_884, 628, (12.4, 16.3), 0.024),
        ("aga", 605, 14, 755_408, 1_230, (6.7, 7.6), 0.029),
    ],
)
def test_constants_of_the_real_corpus(
    corpus: Path,
    tmp_path: Path,
    part: str,
    segments: int,
    writers: int,
    n_points: int,
    median: int,
    std: tuple[float, float],
    pen_up: float,
) -> None:
    splits = load(corpus, parts=[part], cache=tmp_path)
    lines = [x for split in splits.values() for x in split]
    names = {name for split in splits.values() for name in split.labels["writer"].tolist()}
    assert (len(lines), len(names)) == (segments, writers)
    assert sum(len(x) + 1 for x in lines) == n_points
    assert round(float(np.median([len(x) + 1 for x in lines])) + 1e-9) == median
    inside = np.concatenate([x[1:][x[:-1, 0] == 0] for x in lines])
    assert inside[:, 1:].std(0).round(1).tolist() == pytest.approx(std, abs=0.06)
    assert float(np.concatenate(lines)[:, 0].mean()) == pytest.approx(pen_up, abs=5e-4)
