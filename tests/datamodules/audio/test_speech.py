import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.audio_tree import noise, timit_names, write, write_all, write_timit

from datamodules.audio.corpus import AudioCorpus, AudioFolder
from datamodules.audio.speech import (
    FSDD,
    VCTK,
    Accent,
    Blizzard,
    LibriSpeech,
    LJSpeech,
    Onomatopoeia,
    contiguous,
    natural,
)
from datamodules.audio.timit import CORE_TEST, DEV, TIMIT
from datamodules.files.splits import shares
from datamodules.ragged import Ragged


def keys(data: AudioCorpus) -> dict[str, list[str]]:
    return {split: sequences.keys for split, sequences in data.load().items()}


def sizes(data: AudioCorpus) -> list[int]:
    return [len(names) for names in keys(data).values()]


def disjoint(parts: Iterable[Iterable[str]]) -> bool:
    sets = [set(part) for part in parts]
    return len(set.union(*sets)) == sum(map(len, sets))


@pytest.fixture(scope="module")
def timit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 6,300 utterances, in a folder and a case that the original does not have."""
    root = tmp_path_factory.mktemp("timit")
    write_timit(root / "data", [name.lower() for name in timit_names()])
    return root


def test_timit_has_the_counts_of_both_conventions(timit: Path) -> None:
    vrnn = keys(TIMIT(timit))
    assert [len(part) for part in vrnn.values()] == [4389, 231, 1680]
    assert disjoint(vrnn.values())
    assert all("/test/" in name for name in vrnn["test"])
    assert sum("/sa" in name for part in vrnn.values() for name in part) == 1260
    assert keys(TIMIT(timit)) == vrnn != keys(TIMIT(timit, split_seed=1))

    asr = keys(TIMIT(timit, split="asr"))
    assert [len(part) for part in asr.values()] == [3696, 400, 192]
    assert not any("/sa" in name for part in asr.values() for name in part)
    speakers = [{name.split("/")[3].upper() for name in part} for part in asr.values()]
    assert speakers[1:] == [DEV, CORE_TEST] and disjoint(speakers)


def test_an_incomplete_timit_is_refused_or_counted(tmp_path: Path) -> None:
    write_timit(tmp_path, [n for n in timit_names() if "/DR1/" in n])
    with pytest.raises(FileNotFoundError, match="TRAIN folder has .* of 4,620 utterances.*skip"):
        TIMIT(tmp_path).load()
    assert sum(sizes(TIMIT(tmp_path, missing="skip"))) == 580 + 210


def test_one_copy_of_an_utterance_is_enough(tmp_path: Path) -> None:
    names = ["TRAIN/DR1/FAAA0/SX1.WAV", "TRAIN/DR1/FAAA0/SX1.WAV.wav", "TRAIN/DR1/FAAA0/SX2.wav"]
    write_timit(tmp_path, names)
    assert set(TIMIT(tmp_path, missing="skip").files()) == {
        "TRAIN/DR1/FAAA0/SX1",
        "TRAIN/DR1/FAAA0/SX2",
    }


LISTS = Path(__file__).parents[4] / "shared" / "data" / "corpus-file-lists.tar.xz"


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not LISTS.is_file():
        pytest.skip("the published lists are not here")
    folder = tmp_path_factory.mktemp("lists")
    with tarfile.open(LISTS) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.rglob("stcn_timit_train_files.txt")).parent


def lines(path: Path) -> list[str]:
    return path.read_text().split()


@pytest.mark.slow
def test_the_real_file_names_of_timit_and_the_lists_of_a_paper(
    lists: Path, tmp_path: Path
) -> None:
    parts = {p: lines(lists / f"stcn_timit_{p}_files.txt") for p in ("train", "valid", "test")}
    assert [len(part) for part in parts.values()] == [4389, 231, 1680]
    write_timit(tmp_path, [name for part in parts.values() for name in part])
    found = keys(TIMIT(tmp_path, lists=lists))
    assert [set(part) for part in found.values()] == [set(part) for part in parts.values()]
    assert sizes(TIMIT(tmp_path)) == [4389, 231, 1680]
    assert sizes(TIMIT(tmp_path, split="asr")) == [3696, 400, 192]


def test_lists_of_other_corpora(lists: Path) -> None:
    """Names only: tens of thousands of files would take a while to write."""
    counts = {"vctk": [35393, 4424, 4425], "blizzard": [1023, 65, 59]}
    for kind in (VCTK, Blizzard):
        data = kind("/nowhere", lists=lists)
        names = [n for path in lists.glob(f"*{data.name}*.txt") for n in lines(path)]
        files = {}
        for name in dict.fromkeys(names):
            path = f"wav48/{name[:4]}/{name}" if kind is VCTK else f"book/{name[:-7]}.mp3"
            files[data.identifier(path)] = path
        found = data.listed(files)
        assert [len(part) for part in found.values()] == counts[data.name]
        assert disjoint(found.values())


def test_lists_name_files_with_or_without_folders(tmp_path: Path) -> None:
    write_all(tmp_path, ["a/1.wav", "a/2.wav", "b/1.wav", "b/3.flac", "b/4.wav"])
    (tmp_path / "splits.csv").write_text(
        "name,split\na/1.wav,train\nb/1.wav,train\n2,valid\n3.wav,test\n"
    )
    assert keys(AudioFolder(tmp_path)) == {
        "train": ["a/1.wav", "b/1.wav"],
        "val": ["a/2.wav"],
        "test": ["b/3.flac"],
    }
    lists = tmp_path / "mine.csv"
    lists.write_text("1,train\n")
    with pytest.raises(ValueError, match="mine.csv: 1 may be a/1.wav or b/1.wav"):
        AudioFolder(tmp_path, lists=lists).load()
    lists.write_text("2,train\n3,val\n4,test\n9,test\n")
    with pytest.raises(ValueError, match="1 of 4 files cannot be used: 9 is not in"):
        AudioFolder(tmp_path, lists=lists).load()
    assert sizes(AudioFolder(tmp_path, lists=lists, missing="skip")) == [1, 1, 1]
    lists.write_text("2,train\n3,exam\n")
    with pytest.raises(ValueError, match="mine.csv, line 2: 3,exam is not"):
        AudioFolder(tmp_path, lists=lists).load()
    with pytest.raises(FileNotFoundError, match="0 text files have audio_folder and train"):
        AudioFolder(tmp_path, lists=tmp_path).load()


def test_a_folder_is_split_by_chance_and_the_same_way_again(tmp_path: Path) -> None:
    write_all(tmp_path, [f"{i:03d}.wav" for i in range(40)])
    parts = keys(AudioFolder(tmp_path))
    assert [len(part) for part in parts.values()] == [36, 2, 2] and disjoint(parts.values())
    assert keys(AudioFolder(tmp_path)) == parts != keys(AudioFolder(tmp_path, split_seed=1))
    assert sizes(Onomatopoeia(tmp_path, shares=(0.2, 0.1))) == [28, 8, 4]
    with pytest.raises(ValueError, match="2 cannot be split"):
        shares(["a", "b"], 0.05, 0.05, 0)
    with pytest.raises(ValueError, match="data.shares"):
        AudioFolder(tmp_path, shares=(0.5, 0.5))


def test_fsdd_tests_on_the_first_five_recordings(tmp_path: Path) -> None:
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    names = [f"recordings/{d}_{s}_{i}.wav" for d in range(10) for s in speakers for i in range(50)]
    data = FSDD(tmp_path)
    parts = data.parts({str(data.identifier(name)): name for name in names})
    assert [len(part) for part in parts.values()] == [2430, 270, 300]
    assert disjoint(parts.values())
    assert all(int(name.rpartition("_")[2]) < 5 for name in parts["test"])


REAL = Path(__file__).parents[4] / "shared" / "data" / "fsdd_4speakers_2000_CC-BY-SA-4.0.tar.xz"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="the recordings are not here")
def test_the_real_digits(tmp_path: Path) -> None:
    with tarfile.open(REAL) as archive:
        archive.extractall(tmp_path, filter="data")
    data = FSDD(tmp_path, rate=8000)
    data.setup()
    assert list(data.description()["sequences"].values()) == [1620, 180, 200]
    path = next(tmp_path.rglob("7_jackson_2.wav"))
    test = data.splits["test"]
    frames = next(f for key, f in zip(test.keys, test, strict=True) if "7_jackson_2." in key)
    samples, _ = soundfile.read(path, dtype="int16")
    np.testing.assert_array_equal(frames.reshape(-1), samples[: frames.size])


def test_speakers_are_in_one_part_only(tmp_path: Path) -> None:
    speakers = range(225, 245)
    write_all(
        tmp_path,
        [f"wav48_silence_trimmed/p{s}/p{s}_{i:03d}_mic{m}.flac" for s in speakers
         for i in (1, 2) for m in (1, 2)],
    )  # fmt: skip
    parts = keys(VCTK(tmp_path, shares=(0.1, 0.1)))
    assert [len(part) for part in parts.values()] == [32, 4, 4], "the first microphone's"
    assert all("mic1" in name for part in parts.values() for name in part)
    assert disjoint({name.split("/")[1] for name in part} for part in parts.values())


def test_librispeech_has_subsets(tmp_path: Path) -> None:
    subsets = ("train-clean-100", "train-other-500", "dev-clean", "test-clean", "test-other")
    names = [
        f"LibriSpeech/{subset}/{s}/1/{s}-1-000{i}.flac"
        for s, subset in enumerate(subsets)
        for i in range(s + 1)
    ]
    write_all(tmp_path, names)
    assert sizes(LibriSpeech(tmp_path)) == [1, 3, 4]
    both = LibriSpeech(tmp_path, train="train-clean-100+train-other-500", test="test-other")
    assert sizes(both) == [3, 3, 5]
    with pytest.raises(FileNotFoundError, match="there is no dev-other in .*download=true"):
        LibriSpeech(tmp_path, val="dev-other").load()
    with pytest.raises(ValueError, match="data.test=exam: exam is not one of .*test-clean"):
        LibriSpeech(tmp_path, test="exam")


def test_ljspeech_is_its_clips(tmp_path: Path) -> None:
    names = write_all(tmp_path, [f"LJSpeech-1.1/wavs/LJ001-00{i:02d}.wav" for i in range(20)])
    write_all(tmp_path, ["LJSpeech-1.1/sample.wav"])
    parts = keys(LJSpeech(tmp_path))
    assert [len(part) for part in parts.values()] == [18, 1, 1]
    assert sorted(name for part in parts.values() for name in part) == names


def test_accent_checks_its_table(tmp_path: Path) -> None:
    write_all(tmp_path, [f"recordings/recordings/english{i}.mp3" for i in range(10)])
    rows = [f"english{i},FALSE" for i in range(12)] + ["dutch1,TRUE"]
    (tmp_path / "speakers_all.csv").write_text("\n".join(["filename,file_missing?", *rows]))
    with pytest.raises(ValueError, match="2 of 12 files cannot be used: english10 is not in"):
        Accent(tmp_path).load()
    assert sizes(Accent(tmp_path, missing="skip")) == [8, 1, 1]
    (tmp_path / "speakers_all.csv").write_text("filename\nenglish1\n")
    with pytest.raises(ValueError, match="speakers_all.csv has no column file_missing"):
        Accent(tmp_path).load()


def test_recordings_end_to_end_are_split_at_two_frames() -> None:
    sequences = [np.full((n, 1), i, np.int16) for i, n in enumerate([70, 25, 5, 100])]
    for i, frames in enumerate(sequences):
        frames += 1000 * np.arange(len(frames), dtype=np.int16)[:, None] % 7 + i
    sounds = Ragged.from_sequences(sequences, list("abcd"))
    parts = contiguous(sounds, 0.05, 0.05)
    assert [int(part.lengths.sum()) for part in parts.values()] == [180, 10, 10]
    everything = np.concatenate([part.joined() for part in parts.values()])
    np.testing.assert_array_equal(everything, np.concatenate(sequences))
    assert parts["train"].keys == list("abcd") and parts["test"].keys == ["d"]
    assert contiguous(sounds.select([0, 1]), 0.3, 0.25)["val"].keys == ["a", "b"]


def test_blizzard_goes_through_its_chapters_in_order(tmp_path: Path) -> None:
    names = write_all(tmp_path, [f"unsegmented/book/ch{i}.wav" for i in range(1, 13)])
    write_all(tmp_path, ["unsegmented/book/ch3.flac"])
    data = Blizzard(tmp_path, window=2)
    data.setup()
    train, val, test = data.splits.values()
    assert [int(part.lengths.sum()) for part in (train, val, test)] == [54, 3, 3]
    assert len(val) == 2 and len(train) == 10 * 3 + 2, "windows do not cross chapters"
    whole = Blizzard(tmp_path).load()
    assert whole["train"].keys[1:3] == ["unsegmented/book/ch2.wav", "unsegmented/book/ch3.flac"]
    np.testing.assert_array_equal(whole["test"][0], noise(11).reshape(5, 200)[2:])
    assert sorted(names, key=natural) == names


def test_a_tail_that_is_kept_is_followed_by_zeros(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.wav", noise(i, 450))
    lengths = {
        tail: AudioFolder(tmp_path, tail=tail).load()["train"].lengths.tolist()
        for tail in ("drop", "fill")
    }
    assert lengths == {"drop": [2], "fill": [3]}
    assert AudioFolder(tmp_path, frame=64).load()["train"].lengths.tolist() == [7]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TIMIT, "there is no timit in .*DR1.*LDC93S1"),
        (Blizzard, "there is no blizzard in .*cstr.ed.ac.uk"),
        (Accent, "there is no accent in .*accent.gmu.edu"),
        (Onomatopoeia, "there is no onomatopoeia in .*never published"),
        (LJSpeech, "there is no ljspeech in .*public domain.*data.download=true"),
        (VCTK, "there is no vctk in .*CC BY 4.0.*data.download=true"),
        (FSDD, "there is no fsdd in .*data.download=true"),
        (
            AudioFolder,
            "there is no audio_folder in .*no such folder.*hello.wav.*data.root=",
        ),
    ],
)
def test_without_a_corpus_it_is_said_where_to_get_it(
    kind: type[AudioCorpus], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        kind(tmp_path / "nothing").load()


def test_what_may_not_be_downloaded_says_where_to_ask(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timit cannot be downloaded.*catalog.ldc.upenn.edu"):
        TIMIT(tmp_path, download=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail": "keep"}, "data.tail=keep is not one of"),
        ({"missing": "ignore"}, "data.missing=ignore is not one of"),
        ({"frame": 0}, "data.frame must be at least 1, not 0"),
        ({"processes": 0}, "data.processes must be at least 1"),
        ({"crop": "end"}, "data.crop=end is not one of"),
    ],
)
def test_options_that_cannot_be_are_named(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AudioFolder(tmp_path, **options)
