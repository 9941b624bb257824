"""Corpora of sound files."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.audio.file import SUFFIXES, stem
from datamodules.audio.frames import AudioFrames
from datamodules.audio.shards import Reading, Tail, find_sounds, read_sounds
from datamodules.files.archives import Archive
from datamodules.files.cache import cache_root
from datamodules.files.download import fetch
from datamodules.files.problems import Missing, check_missing, report
from datamodules.files.splits import SPLITS, check_apart, check_shares, read_lists, shares
from datamodules.ragged import Ragged
from vrnn.arguments import check_counts

__all__ = ["AudioCorpus", "AudioFolder", "ByShares", "BySpeaker"]

log = logging.getLogger(__name__)


class AudioCorpus(AudioFrames):
    """Base of the corpora of sound files; a subclass says which files they are and splits them.

    Args:
        root: folder of the corpus, or one above it.
        lists: published lists, in place of the corpus's own split: a folder with one text file
            each whose name has the corpus's name and "train", "valid" and "test" in it, or a csv
            file with a line `name,split` each. None for the corpus's own.
        tail: "drop" samples that do not fill a frame, or "fill" it with zeros.
        cache: folder of the samples as read; None for <root>/.vrnn-cache.
        split_seed: of the choice of validation and test files, where that is left to chance.
        missing: what to do about files that cannot be used, and about those that a list or the
            published counts name and the folder lacks: "error" or "skip".
        processes: how many read the files; None for one each core.
        download: get the corpus first, where it is not in `root` and its licence allows.
        **kwargs: of `AudioFrames`.
    """

    splits_by = "give data.lists={}"
    source: str
    """Where the corpus is from, a clause of an error message."""
    example: str
    """The path of one of its files."""
    archives: Mapping[str, Archive] = {}
    """What `download` gets, by the part of the corpus that is in it."""

    def __init__(
        self,
        root: str | Path,
        lists: str | Path | None = None,
        tail: Tail = "drop",
        cache: str | Path | None = None,
        split_seed: int = 0,
        missing: Missing = "error",
        processes: int | None = None,
        download: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if tail not in ("drop", "fill"):
            raise ValueError(f"data.tail={tail} is not one of drop, fill")
        check_missing(missing)
        check_counts("data.", processes=processes)
        if download and not self.archives:
            raise ValueError(f"data={self.name} cannot be downloaded: {self.source}")

        self.root = Path(root).expanduser()
        self.lists = Path(lists).expanduser() if lists is not None else None
        self.cache = cache_root(self.root, cache)
        self.reading = Reading(int(self.rate), self.x_dim, tail)
        self.split_seed, self.missing, self.processes = split_seed, missing, processes
        self.download = download

    @abstractmethod
    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        """Splits the corpus's files, given as paths by identifier: identifiers by split."""

    def identifier(self, path: str) -> str | None:
        """What lists call this file; None if it is not of the corpus. The path may be a list's."""
        return stem(path)

    def wanted_archives(self) -> list[Archive]:
        return list(self.archives.values())

    def prepare_data(self) -> None:
        if self.download:
            for archive in self.wanted_archives():
                fetch(archive, self.root)

    def files(self) -> dict[str, str]:
        """The corpus's files in `root`: paths by identifier, in order of the paths."""
        found: dict[str, str] = {}
        for path in find_sounds(self.root):
            identifier = self.identifier(path)
            if identifier is not None:
                other = found.setdefault(identifier, path)
                if other != path:
                    log.debug("%s: taken for another copy of %s", path, other)
        if not found:
            offer = " get it by data.download=true, or" if self.archives else ""
            missing = "" if self.root.is_dir() else " (no such folder)"
            raise FileNotFoundError(
                f"there is no {self.name} in {self.root.absolute()}{missing}: looked for sound "
                f"files such as {self.example}. {self.source};{offer} name its folder by "
                "data.root=<folder>"
            )
        return found

    def load(self) -> dict[str, Ragged]:
        files = self.files()
        parts = self.listed(files) if self.lists is not None else self.parts(files)
        sounds = self.read([files[i] for part in parts.values() for i in part])
        place = {key: n for n, key in enumerate(sounds.keys)}
        paths = {split: [files[i] for i in part] for split, part in parts.items()}
        return {
            split: sounds.select(
                [place[path] for path in dict.fromkeys(paths[split]) if path in place]
            )
            for split in SPLITS
        }

    def read(self, names: Sequence[str]) -> Ragged:
        unique = sorted(set(names))
        if not unique:
            raise ValueError(f"data={self.name}: no file in {self.root.absolute()} is in a split")
        return read_sounds(
            self.root, unique, self.cache, self.reading, self.missing, self.processes
        )

    def listed(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        """The split by lists, whose entries are identifiers, or names of files without folders."""
        assert self.lists is not None
        entries = read_lists(self.lists, self.name)
        by_stem: dict[str, list[str]] = {}
        for identifier, path in files.items():
            by_stem.setdefault(stem(path), []).append(identifier)
        parts: dict[str, list[str]] = {}
        absent = []
        for split, names in entries.items():
            parts[split] = []
            for name in names:
                found = self.identifier(name)
                matches = (
                    [found]
                    if found is not None and found in files
                    else by_stem.get(stem(name), [])
                )
                if len(matches) > 1:
                    raise ValueError(
                        f"{self.lists}: {name} may be {files[matches[0]]} or {files[matches[1]]}; "
                        "lists must name files with their folders where names recur"
                    )
                parts[split] += [str(match) for match in matches]
                absent += [] if matches else [name]
        self.report_absent(absent, sum(map(len, entries.values())))
        check_apart({split: [files[i] for i in part] for split, part in parts.items()}, self.lists)
        return parts

    def report_absent(self, absent: Sequence[str], total: int) -> None:
        report([f"{name} is not in {self.root}" for name in absent], total, self.missing)


class ByShares(AudioCorpus):
    """Base of the corpora of which shares are held back.

    Args:
        shares: of validation and test.
        **kwargs: of `AudioCorpus`.
    """

    def __init__(
        self, root: str | Path, shares: tuple[float, float] = (0.05, 0.05), **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        check_shares(shares)
        self.shares = (shares[0], shares[1])


class BySpeaker(ByShares):
    """Base of the corpora that are split at random by speaker: each speaker is in one split only.

    Args:
        shares: of validation and test speakers.
        **kwargs: of `AudioCorpus`.
    """

    @abstractmethod
    def speaker(self, identifier: str) -> str:
        """Who speaks in the file of this identifier."""

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        speakers = {identifier: self.speaker(identifier) for identifier in files}
        chosen = shares(sorted(set(speakers.values())), *self.shares, self.split_seed)
        return {
            split: [identifier for identifier in files if speakers[identifier] in members]
            for split, members in chosen.items()
        }


class AudioFolder(ByShares):
    """Any folder of sound files, split at random by file; `splits.csv` in it decides otherwise.
    Who speaks is not known, so a speaker may be in several splits unless `splits.csv` says so.

    Args:
        shares: of validation and test files.
        **kwargs: of `AudioCorpus`.
    """

    name = "audio_folder"
    example = f"hello.wav, in it or below it ({', '.join(SUFFIXES)})"
    source = "It is any folder of your own"

    def __init__(self, root: str | Path, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        if self.lists is None and (self.root / "splits.csv").is_file():
            self.lists = self.root / "splits.csv"

    def identifier(self, path: str) -> str | None:
        return path

    def parts(self, files: Mapping[str, str]) -> dict[str, list[str]]:
        return shares(list(files), *self.shares, self.split_seed)
