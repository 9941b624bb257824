import errno
import json
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from datamodules.files.cache import cached
from datamodules.ragged import Ragged

LENGTHS = [3, 1, 0, 7]


def example(shift: int = 0) -> Ragged:
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 3)).astype(np.float32) + shift for n in LENGTHS]
    labels = {"text": ["three", "one", "", "säben"], "slant": np.arange(4.0)}
    return Ragged.from_sequences(sequences, ["a", "b", "c", "d"], labels)


def assert_equal(a: Ragged, b: Ragged) -> None:
    assert a.keys == b.keys
    assert a.values.dtype == b.values.dtype
    assert [s.tolist() for s in a] == [s.tolist() for s in b]
    assert a.labels.keys() == b.labels.keys()
    for name, column in a.labels.items():
        assert column.tolist() == b.labels[name].tolist()


def tree(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_items_are_views_of_the_values() -> None:
    r = example()
    assert len(r) == 4
    assert [len(s) for s in r] == r.lengths.tolist() == LENGTHS
    assert all(np.shares_memory(s, r.values) for s in r if len(s))
    assert r[-1].tolist() == r.values[4:].tolist()
    with pytest.raises(IndexError):
        r[4]
    assert repr(r) == "Ragged(4 sequences of 0 to 7 steps, D=3, float32, labels: text, slant)"


def test_select_shares_values_and_keeps_everything_aligned() -> None:
    r = example()
    s = r.select([3, 0])
    assert s.values is r.values
    assert s.keys == ["d", "a"]
    assert s.labels["text"].tolist() == ["säben", "three"]
    assert s[0].tolist() == r[3].tolist()
    assert s.joined().tolist() == [*r[3].tolist(), *r[0].tolist()]
    assert s.select(np.array([1])).keys == ["a"]
    assert len(r.select([])) == 0
    assert r.select([]).joined().shape == (0, 3)
    assert "0 sequences" in repr(r.select([]))


def test_inconsistent_parts_are_refused() -> None:
    r = example()
    with pytest.raises(ValueError, match=r"text has shape \(1,\) for 4 keys"):
        Ragged(r.values, r.starts, r.lengths, r.keys, {"text": np.array(["x"])})
    with pytest.raises(ValueError, match="outside of the 5 rows"):
        Ragged(r.values[:5], r.starts, r.lengths, r.keys)
    with pytest.raises(ValueError, match="not of shape"):
        Ragged(r.values[:, 0], r.starts, r.lengths, r.keys)


@pytest.mark.parametrize("empty", [False, True])
def test_save_and_open(tmp_path: Path, empty: bool) -> None:
    r = Ragged.from_sequences([], []) if empty else example()
    r.save(tmp_path / "new" / "cache")
    opened = Ragged.open(tmp_path / "new" / "cache")
    assert_equal(opened, r)
    assert not opened.values.flags.writeable
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]


def test_open_maps_the_values(tmp_path: Path) -> None:
    example().save(tmp_path / "cache")
    base = Ragged.open(tmp_path / "cache").values.base
    assert isinstance(base, np.memmap)


def test_save_replaces_what_was_there(tmp_path: Path) -> None:
    example().save(tmp_path / "cache")
    example(shift=1).save(tmp_path / "cache")
    assert_equal(Ragged.open(tmp_path / "cache"), example(shift=1))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_python_objects_are_refused_both_ways(tmp_path: Path) -> None:
    r = example()
    r.labels["object"] = np.array([None] * 4, dtype=object)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        r.save(tmp_path / "cache")
    assert not tree(tmp_path)

    example().save(tmp_path / "cache")
    np.save(tmp_path / "cache" / "label-text.npy", r.labels["object"], allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        Ragged.open(tmp_path / "cache")


def test_ten_thousand_lines_open_with_the_calls_of_ten(tmp_path: Path) -> None:
    """Nothing is done line by line, hence the training set of IAM-OnDB opens at once."""
    calls: Counter[int] = Counter()
    for count in (10, 12_195):
        keys = [f"a01-000u-{i:05d}" for i in range(count)]
        lines = np.zeros((count, 60, 3), dtype=np.float32)
        labels = {"text": [key * 3 for key in keys]}
        Ragged.from_sequences(lines, keys, labels).save(tmp_path / f"{count}")

        def called(frame: Any, event: str, argument: Any, count: int = count) -> None:
            calls[count] += "call" in event

        sys.setprofile(called)
        r = Ragged.open(tmp_path / f"{count}")
        sys.setprofile(None)
        assert len(r) == count and r[count - 1].shape == (60, 3)
    assert 100 < calls[10] and calls[12_195] < 2 * calls[10]


def test_cached_builds_once_for_each_recipe(tmp_path: Path) -> None:
    calls = []

    def build() -> Ragged:
        calls.append(1)
        return example()

    for _ in range(3):
        assert_equal(cached(tmp_path / "c", {"a": 1, "b": [2, "x"]}, build), example())
    assert len(calls) == 1

    cached(tmp_path / "c", {"b": [2, "x"], "a": 1}, build)
    assert len(calls) == 1

    cached(tmp_path / "c", {"a": 2, "b": [2, "x"]}, build)
    assert len(calls) == 2


def empty_file(folder: Path) -> None:
    (folder / "values.npy").write_bytes(b"")


def truncated_values(folder: Path) -> None:
    file = folder / "values.npy"
    file.write_bytes(file.read_bytes()[:-1])


def truncated_lengths(folder: Path) -> None:
    file = folder / "lengths.npy"
    file.write_bytes(file.read_bytes()[:-1])


def bad_json(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 1, "keys": ["a", ')


def other_json(folder: Path) -> None:
    (folder / "meta.json").write_text("[1, 2]")


def other_format(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 0}))


def missing_file(folder: Path) -> None:
    (folder / "label-text.npy").unlink()


def wrong_count(folder: Path) -> None:
    np.save(folder / "lengths.npy", np.arange(3))


def beyond_the_end(folder: Path) -> None:
    np.save(folder / "starts.npy", np.arange(4) + 100)


@pytest.mark.parametrize(
    "damage",
    [
        empty_file,
        truncated_values,
        truncated_lengths,
        bad_json,
        other_json,
        other_format,
        missing_file,
        wrong_count,
        beyond_the_end,
    ],
)
def test_a_damaged_cache_is_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cached(tmp_path, {"a": 1}, example)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError)):
        Ragged.open(folder)

    with caplog.at_level(logging.WARNING):
        assert_equal(cached(tmp_path, {"a": 1}, example), example())
    assert len(caplog.records) == 1
    assert "rebuilding a cache" in caplog.text
    assert_equal(Ragged.open(folder), example())


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cached(tmp_path, {"a": 1}, example)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    leftover = folder.rename(tmp_path / f".{folder.name}.0123.partial")
    cached(tmp_path, {"a": 1}, example)
    assert not leftover.exists()


def test_a_full_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.save

    def full(file: BinaryIO, array: np.ndarray, allow_pickle: bool) -> None:
        if len(array) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, array, allow_pickle=allow_pickle)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"No space left.*data\.cache=<folder>") as info:
        cached(tmp_path / "c", {"a": 1}, example)
    assert str(tmp_path / "c") in str(info.value)
    assert not any(name.endswith((".npy", ".json")) for name in tree(tmp_path))
    assert not [path for path in (tmp_path / "c").iterdir() if path.is_dir()]

    monkeypatch.undo()
    assert_equal(cached(tmp_path / "c", {"a": 1}, example), example())


def test_a_folder_that_cannot_be_written_is_reported_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never() -> Ragged:
        raise AssertionError("built in vain")

    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/c cannot be written.*data\.cache=<folder>"):
        cached(tmp_path / "file" / "c", {"a": 1}, never)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    with pytest.raises(OSError, match=r"Read-only file system.*data\.cache=<folder>"):
        cached(tmp_path / "c", {"a": 1}, never)


def test_a_finished_cache_opens_from_a_read_only_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(tmp_path, {"a": 1}, example)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert_equal(cached(tmp_path, {"a": 1}, example), example())


def test_errors_of_the_builder_pass_and_free_the_lock(tmp_path: Path) -> None:
    def fail() -> Ragged:
        raise FileNotFoundError("no corpus")

    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="^no corpus$"):
            cached(tmp_path, {"a": 1}, fail)
    assert_equal(cached(tmp_path, {"a": 1}, example), example())


def build_slowly(folder: Path) -> Ragged:
    with open(folder / "builds", "a") as file:
        file.write("x")
    time.sleep(0.5)
    return example()


def ask(folder: Path) -> None:
    assert_equal(cached(folder / "c", {"a": 1}, lambda: build_slowly(folder)), example())


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ask, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builds").read_text() == "x"
