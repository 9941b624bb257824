import errno
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from support.audio_tree import noise, write, write_all
from support.slow_reader import read_slowly

from datamodules.audio import shards as audio_corpus
from datamodules.audio.corpus import AudioFolder
from datamodules.audio.frames import sound_moments
from datamodules.audio.shards import Reading, divide, find_sounds, frames_of, read_sounds
from datamodules.ragged import Ragged, Shards

READING = Reading(16000, 200, "drop")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five files of noise a shard."""
    monkeypatch.setattr(audio_corpus, "SHARD", 5 * (2 * 1000 + 44))


def corpus(root: Path, files: int = 23) -> list[str]:
    return write_all(root, [f"{i:02d}.wav" for i in range(files)])


def shards_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_shards_are_one_array(tmp_path: Path) -> None:
    arrays = [np.arange(n * 3, dtype=np.int16).reshape(n, 3) + 100 * n for n in (4, 1, 6)]
    mapped = []
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    shards, whole = Shards(mapped), np.concatenate(arrays)
    assert shards.shape == whole.shape and len(shards) == 11 and shards.dtype == np.int16
    for start, stop in [(0, 4), (1, 3), (4, 5), (5, 11), (7, 9)]:
        np.testing.assert_array_equal(shards[start:stop], whole[start:stop])
    assert shards[5:5].shape == (0, 3) and shards[:0].shape == (0, 3)
    with pytest.raises(AssertionError, match="two shards"):
        shards[3:6]


@pytest.mark.parametrize("processes", [1, 2])
def test_frames_are_those_of_the_files(tmp_path: Path, small_shards: None, processes: int) -> None:
    names = corpus(tmp_path / "in")
    sounds = read_sounds(tmp_path / "in", names, tmp_path / "cache", READING, processes=processes)
    assert len(shards_of(tmp_path / "cache")) == 5 and sounds.keys == names
    assert isinstance(sounds.values, Shards)
    for seed, frames in enumerate(sounds):
        np.testing.assert_array_equal(frames, noise(seed).reshape(5, 200))
        np.testing.assert_array_equal(sounds.piece(seed, 1, 3), frames[1:3])
    assert sounds.piece(3, 4, 9).shape == (1, 200) and sounds.piece(3, 9, 12).shape == (0, 200)
    chosen = sounds.select([22, 3]).windows(2)
    np.testing.assert_array_equal(chosen[1], noise(22).reshape(5, 200)[2:4])
    np.testing.assert_array_equal(chosen.joined()[5:], noise(3).reshape(5, 200))


def test_tails_are_dropped_or_filled() -> None:
    samples = noise(0, 450)
    np.testing.assert_array_equal(frames_of(samples, 200), samples[:400].reshape(2, 200))
    filled = frames_of(samples, 200, "fill")
    assert filled.shape == (3, 200)
    np.testing.assert_array_equal(filled.reshape(-1), np.pad(samples, (0, 150)))
    np.testing.assert_array_equal(frames_of(samples[:400], 200, "fill"), frames_of(samples, 200))


def test_a_changed_file_renews_its_own_shard_only(tmp_path: Path, small_shards: None) -> None:
    names = corpus(tmp_path / "in")
    cache = tmp_path / "cache"
    read_sounds(tmp_path / "in", names, cache, READING)
    before = {path: path.stat().st_mtime_ns for path in shards_of(cache)}
    write(tmp_path / "in" / "07.wav", noise(99))
    sounds = read_sounds(tmp_path / "in", names, cache, READING)
    np.testing.assert_array_equal(sounds[7].reshape(-1), noise(99))
    after = {path: path.stat().st_mtime_ns for path in shards_of(cache)}
    assert before.items() < after.items() and len(after) == len(before) + 1


def test_a_damaged_shard_is_read_again(tmp_path: Path, small_shards: None) -> None:
    names = corpus(tmp_path / "in")
    read_sounds(tmp_path / "in", names, tmp_path / "cache", READING)
    values = shards_of(tmp_path / "cache")[2] / "values.npy"
    values.write_bytes(values.read_bytes()[:-5])
    sounds = read_sounds(tmp_path / "in", names, tmp_path / "cache", READING)
    for seed, frames in enumerate(sounds):
        np.testing.assert_array_equal(frames.reshape(-1), noise(seed))


def test_after_a_kill_finished_shards_are_kept(tmp_path: Path, small_shards: None) -> None:
    names, cache, log = corpus(tmp_path / "in"), tmp_path / "cache", tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "in", names, cache, log, names[13])
    process = context.Process(target=read_slowly, args=arguments)
    process.start()
    while len(log.read_text().split() if log.exists() else []) < 13:
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = {path: path.stat().st_mtime_ns for path in shards_of(cache) if path.name[0] != "."}
    assert len(kept) == 2
    sounds = read_sounds(tmp_path / "in", names, cache, READING)
    assert [int(frames[0, 0]) for frames in sounds] == [noise(i)[0] for i in range(23)]
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in shards_of(cache)}.items()
    assert not list(cache.glob(".*.partial")), "what the kill left is removed"


def test_two_runs_that_read_at_once_share_the_work(tmp_path: Path) -> None:
    names, cache = corpus(tmp_path / "in"), tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=read_slowly, args=(tmp_path / "in", names, cache, tmp_path / f"log{i}")
        )
        for i in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    logs = [tmp_path / f"log{i}" for i in range(2)]
    read = [name for log in logs if log.exists() for name in log.read_text().split()]
    assert sorted(read) == names, "each file was read once"


def test_a_full_disk_is_reported_and_leaves_nothing_half_done(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, cache = corpus(tmp_path / "in"), tmp_path / "cache"
    save, written = np.save, []

    def full(file: BinaryIO, array: np.ndarray, allow_pickle: bool) -> None:
        written.append(1)
        if len(written) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, array, allow_pickle=allow_pickle)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"No space left.*data\.cache=<folder>"):
        read_sounds(tmp_path / "in", names, cache, READING, processes=1)
    monkeypatch.setattr(np, "save", save)
    assert len(shards_of(cache)) == 1, "the one that was finished"
    assert len(read_sounds(tmp_path / "in", names, cache, READING)) == 23


def test_bad_files_are_counted_and_nothing_else_is_lost(
    tmp_path: Path, small_shards: None, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache = tmp_path / "in", tmp_path / "cache"
    names = corpus(root)
    (root / "03.wav").write_bytes((root / "03.wav").read_bytes()[:-7])
    (root / "11.wav").write_bytes(b"")
    write(root / "12.wav", noise(0, 150))
    with pytest.raises(ValueError) as error:
        read_sounds(root, names, cache, READING)
    for part in ("3 of 23 files", "03.wav: truncated", "11.wav: damaged", "150 samples do not"):
        assert part in str(error.value)
    with caplog.at_level(logging.WARNING):
        sounds = read_sounds(root, names, cache, READING, missing="skip")
    assert "skipped: 3 of 23 files" in caplog.text
    assert sounds.keys == [n for n in names if n not in ("03.wav", "11.wav", "12.wav")]
    np.testing.assert_array_equal(sounds[-1].reshape(-1), noise(22))


def test_a_shard_without_a_single_usable_file(tmp_path: Path, small_shards: None) -> None:
    names = corpus(tmp_path)
    for name in names[5:10]:
        (tmp_path / name).write_bytes(b"?" * 2044)
    sounds = read_sounds(tmp_path, names, tmp_path / "cache", READING, missing="skip")
    assert sounds.keys == names[:5] + names[10:]
    np.testing.assert_array_equal(sounds[5].reshape(-1), noise(10))


def test_mixed_rates_and_channels_are_converted_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = corpus(tmp_path, 4)
    write(tmp_path / "00.wav", noise(0, 1000), 8000)
    write(tmp_path / "01.wav", noise(0, 6000, channels=2), 48000)
    with caplog.at_level(logging.INFO):
        sounds = read_sounds(tmp_path, names, tmp_path / "cache", READING)
    assert "resampled to 16,000 Hz: 2 of 4 files, from 8,000 Hz, 48,000 Hz" in caplog.text
    assert "mixed down to one channel: 1 of 4 files" in caplog.text
    assert sounds.lengths.tolist() == [10, 10, 5, 5]


def test_hidden_files_and_folders_are_no_corpus(tmp_path: Path) -> None:
    write_all(tmp_path, ["b/2.WAV", "a/1.flac", ".hidden/3.wav", "a/._1.flac"], format="WAV")
    (tmp_path / "a" / "notes.txt").touch()
    assert find_sounds(tmp_path) == ["a/1.flac", "b/2.WAV"]


def test_a_file_larger_than_a_shard_has_one_of_its_own(tmp_path: Path, small_shards: None) -> None:
    names = corpus(tmp_path, 4)
    write(tmp_path / "01.wav", noise(0, 9000))
    assert [[e[0] for e in s] for s in divide(tmp_path, names)] == [
        ["00.wav"], ["01.wav"], ["02.wav", "03.wav"]
    ]  # fmt: skip


def test_moments_are_those_of_all_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(-32768, 32768, (n, 10)).astype(np.int16) + 0 for n in (3, 700, 41)]
    sounds = Ragged.from_sequences(frames, ["a", "b", "c"])
    every = np.concatenate(frames).astype(np.float64)
    expected = every.mean(), every.std()
    np.testing.assert_allclose(sound_moments(sounds), expected, rtol=1e-12)
    monkeypatch.setattr("datamodules.audio.frames.CHUNK", 30)
    np.testing.assert_allclose(sound_moments(sounds), expected, rtol=1e-12)


def test_loud_samples_far_from_zero_keep_their_deviation() -> None:
    """A mean square minus a squared mean in floats would lose it."""
    frames = np.full((5000, 200), 32766, np.int16)
    frames[::2] = 32767
    mean, std = sound_moments(Ragged.from_sequences([frames], ["a"]))
    assert mean == 32766.5 and std == pytest.approx(0.5, rel=1e-12)


def test_one_scalar_standardises_every_sample(tmp_path: Path) -> None:
    write_all(tmp_path, [f"{i}.wav" for i in range(20)])
    data = AudioFolder(tmp_path, shares=(0.1, 0.1))
    data.setup()
    assert len(set(data.shift)) == len(set(data.scale)) == 1
    train = np.concatenate([frames.reshape(-1) for frames in data.splits["train"]])
    x = np.concatenate([b.x[b.mask].reshape(-1).numpy() for b in data.train_dataloader()])
    assert len(x) == len(train) == 16 * 1000
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)
    about = data.description()
    assert about["kind"] == "audio" and about["rate"] == 16000
    assert about["log_scales"]["standardised"] == pytest.approx(200 * np.log(train.std()))


def test_a_silent_corpus_is_named(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.wav", np.zeros(1000, np.int16))
    with pytest.raises(ValueError, match="data=audio_folder: the training split is silent"):
        AudioFolder(tmp_path).setup()


def test_a_file_that_a_list_names_twice_is_there_once(tmp_path: Path) -> None:
    write_all(tmp_path, ["a/1.wav", "a/2.wav", "a/3.wav"])
    (tmp_path / "splits.csv").write_text("1,train\na/1.wav,train\n2,val\n3,test\na/3,test\n")
    assert [len(part) for part in AudioFolder(tmp_path).load().values()] == [1, 1, 1]


def test_no_file_is_in_two_splits(tmp_path: Path) -> None:
    write_all(tmp_path, ["a/1.wav", "a/2.wav", "a/3.wav"])
    (tmp_path / "splits.csv").write_text("1,train\n2,train\na/2.wav,val\n3,test\n")
    with pytest.raises(ValueError, match="a/2.wav is in train and in val; it can be in one"):
        AudioFolder(tmp_path).load()

    lists = tmp_path / "lists"
    lists.mkdir()
    for split, names in (("train", "1"), ("val", "2"), ("test", "3\n1")):
        (lists / f"audio_folder_{split}.txt").write_text(names)
    with pytest.raises(ValueError, match="a/1.wav is in train and in test"):
        AudioFolder(tmp_path, lists=lists).load()
