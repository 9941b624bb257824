"""The corpora of speech, each split as it is in the literature."""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.audio.corpus import AudioCorpus, AudioFolder, ByShares, BySpeaker
from datamodules.audio.file import stem
from datamodules.files.archives import ARCHIVES, Archive
from datamodules.files.splits import held_back
from datamodules.ragged import Ragged

__all__ = [
    "Accent",
    "Blizzard",
    "FSDD",
    "LJSpeech",
    "LibriSpeech",
    "Onomatopoeia",
    "VCTK",
    "contiguous",
    "natural",
]


class Blizzard(ByShares):
    """Blizzard Challenge 2013, one reader of audio books: the chapters in order, of which the
    first 90 % of all frames are for training, then 5 % each for validation and test.

    A chapter that a boundary falls into is divided. With `lists`, chapters are split instead.

    Args:
        shares: of validation and test frames.
        **kwargs: of `AudioCorpus`.
    """

    name = "blizzard"
    example = "unsegmented/<book>/treasure_island_chp_03.mp3 or wav1/<book>/CB-EM-54-136.wav"
    source = (
        "It is licensed for research after registration, "
        "https://www.cstr.ed.ac.uk/projects/blizzard/"
    )

    def identifier(self, path: str) -> str | None:
        """A chapter's folder and name; it may be there both as MP3 and as WAV."""
        return f"{path.rpartition('/')[0]}/{stem(path)}"

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        """All chapters in order, which `load` divides by frames."""
        order = sorted(files, key=lambda identifier: natural(files[identifier]))
        return {"train": order, "val": [], "test": []}

    def load(self) -> dict[str, Ragged]:
        splits = super().load()
        return splits if self.lists is not None else contiguous(splits["train"], *self.shares)


class Accent(AudioFolder):
    """The Speech Accent Archive: one paragraph, read by native and other speakers of English, one
    file each. Split at random by file, hence by speaker. Rows of speakers_all.csv, where it is
    there, are checked."""

    name = "accent"
    example = "recordings/recordings/english1.mp3"
    source = (
        "It is at https://accent.gmu.edu, and on Kaggle as rtatman/speech-accent-archive "
        "(CC BY-NC-SA)"
    )

    def identifier(self, path: str) -> str | None:
        return stem(path)

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        for table in sorted(self.root.glob("**/speakers_all.csv"))[:1]:
            wanted = accent_files(table)
            absent = sorted(wanted - {name.lower() for name in files})
            self.report_absent(absent, len(wanted))
        return super().parts(files)


class LJSpeech(AudioFolder):
    """LJSpeech 1.1, one reader. Nobody published a split; this one is random by clip."""

    name = "ljspeech"
    example = "LJSpeech-1.1/wavs/LJ001-0001.wav"
    source = "It is in the public domain, https://keithito.com/LJ-Speech-Dataset/"
    archives = {"ljspeech": ARCHIVES["ljspeech"]}

    def identifier(self, path: str) -> str | None:
        name = stem(path)
        return name if re.fullmatch(r"lj\d{3}-\d{4}", name) else None


class VCTK(BySpeaker):
    """VCTK 0.92 (its first microphone) or 0.80, 110 speakers, split at random by speaker.

    Args:
        shares: of validation and test speakers.
        **kwargs: of `AudioCorpus`.
    """

    name = "vctk"
    example = "wav48_silence_trimmed/p225/p225_001_mic1.flac or wav48/p225/p225_001.wav"
    source = "It is CC BY 4.0, https://datashare.ed.ac.uk/handle/10283/3443"
    archives = {"vctk": ARCHIVES["vctk"]}

    def identifier(self, path: str) -> str | None:
        match = re.fullmatch(r"((?:p|s)\d+_\d+)(?:_mic1)?", stem(path))
        return match[1] if match else None

    def speaker(self, identifier: str) -> str:
        return identifier.partition("_")[0]


class LibriSpeech(AudioCorpus):
    """LibriSpeech, by its published subsets, which share no speaker.

    Args:
        train, val, test: subsets, several joined by a plus.
        **kwargs: of `AudioCorpus`.
    """

    name = "librispeech"
    example = "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac"
    source = "It is CC BY 4.0, https://www.openslr.org/12"
    archives = {
        name: archive for name, archive in ARCHIVES.items() if re.match("(train|dev|test)-", name)
    }

    def __init__(
        self,
        root: str | Path,
        train: str = "train-clean-100",
        val: str = "dev-clean",
        test: str = "test-clean",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        self.subsets = {k: v.split("+") for k, v in dict(train=train, val=val, test=test).items()}
        for split, names in self.subsets.items():
            unknown = [name for name in names if name not in self.archives]
            if unknown:
                raise ValueError(
                    f"data.{split}={'+'.join(names)}: {unknown[0]} is not one of "
                    f"{', '.join(self.archives)}"
                )

    def wanted_archives(self) -> list[Archive]:
        return [self.archives[name] for names in self.subsets.values() for name in names]

    def identifier(self, path: str) -> str | None:
        name = stem(path)
        return name if re.fullmatch(r"\d+-\d+-\d{4}", name) else None

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        of: dict[str, list[str]] = {name: [] for name in self.archives}
        for identifier, path in files.items():
            for folder in Path(path).parts:
                if folder in of:
                    of[folder].append(identifier)
        absent = [n for names in self.subsets.values() for n in names if not of[n]]
        if absent:
            raise FileNotFoundError(
                f"there is no {', '.join(absent)} in {self.root.absolute()}: choose other subsets "
                "by data.train=, data.val= and data.test=, or get them by data.download=true"
            )
        return {
            split: [i for name in names for i in of[name]] for split, names in self.subsets.items()
        }


class FSDD(AudioCorpus):
    """The Free Spoken Digit Dataset, <digit>_<speaker>_<index>.wav: as published, recordings 0 to
    4 of every digit and speaker are for the test; of the others a share, at random, for
    validation. As the published test has the speakers of the training, so has the validation.

    Args:
        val: share of the recordings that are not for the test.
        **kwargs: of `AudioCorpus`.
    """

    name = "fsdd"
    example = "recordings/7_jackson_32.wav"
    source = "It is CC BY-SA 4.0, https://github.com/Jakobovski/free-spoken-digit-dataset"
    archives = {"fsdd": ARCHIVES["fsdd"]}

    def __init__(self, root: str | Path, val: float = 0.1, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if not 0 < val < 1:
            raise ValueError(f"data.val={val} must be a share between 0 and 1")

        self.val = val

    def load(self) -> dict[str, Ragged]:
        """The label "speaker" is that of the file's name."""
        return {split: with_speakers(part) for split, part in super().load().items()}

    def identifier(self, path: str) -> str | None:
        name = stem(path)
        return name if re.fullmatch(r"\d_[a-z]+_\d+", name) else None

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        test = [i for i in files if int(i.rpartition("_")[2]) < 5]
        train, val = held_back(sorted(set(files) - set(test)), self.val, self.split_seed)
        return {"train": train, "val": val, "test": test}


class Onomatopoeia(AudioFolder):
    """The settings of the paper for its collection of human sounds, on a folder of your own: the
    collection itself was never published. Whose voice a file is, is not known."""

    name = "onomatopoeia"
    source = (
        "The recordings of the paper (6,738 sounds of 51 actors) were never published: use a "
        "folder of your own"
    )


def with_speakers(recordings: Ragged) -> Ragged:
    """Labels recordings <digit>_<speaker>_<index> by their speakers."""
    speakers = np.array([stem(key).split("_")[1] for key in recordings.keys])
    return replace(recordings, labels={**recordings.labels, "speaker": speakers})


def contiguous(sounds: Ragged, val: float, test: float) -> dict[str, Ragged]:
    """Splits recordings laid end to end at two frames, validation and test last."""
    stops = sounds.lengths.cumsum()
    total = int(stops[-1])
    first, second = int(total * (1 - val - test) + 0.5), int(total * (1 - test) + 0.5)
    bounds = {"train": (0, first), "val": (first, second), "test": (second, total)}
    parts = {}
    for split, (low, high) in bounds.items():
        begin = np.clip(low - (stops - sounds.lengths), 0, sounds.lengths)
        length = np.clip(high - (stops - sounds.lengths), 0, sounds.lengths) - begin
        kept = np.flatnonzero(length > 0)
        part = sounds.select(kept)
        parts[split] = replace(part, starts=part.starts + begin[kept], lengths=length[kept])
    return parts


def accent_files(table: Path) -> set[str]:
    """The recordings that speakers_all.csv says are there, lower case."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = {"filename", "file_missing?"} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{table} has no column {', '.join(sorted(missing))}")
        return {
            row["filename"].strip().lower()
            for row in rows
            if row["file_missing?"].strip().upper() != "TRUE"
        }


def natural(path: str) -> list[tuple[int, str]]:
    """Sorts chapter 2 before chapter 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
