"""Sound files as frames of 16-bit samples, read once into shards on disk."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from datamodules.audio.file import SUFFIXES, read_sound
from datamodules.files.cache import Stamp, cache_folder, cached, stamps
from datamodules.files.parallel import in_processes
from datamodules.files.problems import Missing, report, some
from datamodules.ragged import Ragged, Shards

__all__ = ["Reading", "Tail", "divide", "find_sounds", "frames_of", "read_sounds"]

log = logging.getLogger(__name__)

VERSION = 1
"""Counts in the recipe of every shard: raise it whenever the same files give other frames."""

SHARD = 2**25
"""Bytes of sound files behind a shard: what a kill loses at most, for each process."""

Tail = Literal["drop", "fill"]


class Reading(NamedTuple):
    """What becomes of a file's samples."""

    rate: int
    """Samples a second after resampling."""
    frame: int
    """Samples a frame."""
    tail: Tail
    """Samples that do not fill a frame are dropped, or followed by zeros."""


def find_sounds(root: Path) -> list[str]:
    """The sound files below a folder, hidden folders left out, in order, relative to it."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def frames_of(samples: np.ndarray, frame: int, tail: Tail = "drop") -> np.ndarray:
    """Cuts samples (N,) into frames (T, frame)."""
    if tail == "fill":
        samples = np.pad(samples, (0, -len(samples) % frame))
    whole = len(samples) // frame
    return samples[: whole * frame].reshape(whole, frame)


def read_sounds(
    root: Path,
    names: Sequence[str],
    cache: Path,
    reading: Reading,
    missing: Missing = "error",
    processes: int | None = None,
) -> Ragged:
    """Reads sound files as frames, by way of shards in a cache.

    A shard holds the frames of consecutive files and is written whole or not at all, so that a
    killed run goes on where it was, and several runs that read the same corpus share the work. A
    file that changes renews its own shard only.

    Args:
        root: the folder that `names` are relative to.
        cache: the folder of the shards.
        reading: rate and frames.
        missing: what to do about files that cannot be used, "error" or "skip".
        processes: how many read, by default one for each CPU core; 1 for this one alone.

    Returns:
        Frames (T, D) in int16, with the labels "rate" and "channels" of the file.

    Raises:
        ValueError: if files cannot be used. The others are in the cache nevertheless.
        OSError: if the cache cannot be written, or a file cannot be opened.
    """
    shards = divide(root, names)
    one_shard = partial(shard, root, cache, reading)
    todo = [s for s in shards if not cache_folder(cache, recipe(reading, s)).exists()]
    if todo:
        description = f"reading {sum(map(len, todo)):,} sound files"
        in_processes(partial(forget, one_shard), todo, description, processes)
    sounds = joined([one_shard(part) for part in shards])
    return usable(sounds, reading, missing)


def divide(root: Path, names: Sequence[str]) -> list[list[Stamp]]:
    """Shares files out to shards, in order, by their size on disk."""
    shards: list[list[Stamp]] = []
    room = 0
    for file in stamps(root, names):
        if not shards or file.size > room:
            shards.append([])
            room = SHARD
        shards[-1].append(file)
        room -= file.size
    return shards


def recipe(reading: Reading, files: Sequence[Stamp]) -> dict[str, object]:
    return {"sounds": files, "version": VERSION, **reading._asdict()}


def shard(root: Path, cache: Path, reading: Reading, files: Sequence[Stamp]) -> Ragged:
    """Opens a shard, or writes it first."""
    build = partial(read_shard, root, reading, [file.name for file in files])
    return cached(cache, recipe(reading, files), build)


def forget(one_shard: partial[Ragged], files: Sequence[Stamp]) -> None:
    one_shard(files)


def read_shard(root: Path, reading: Reading, names: Sequence[str]) -> Ragged:
    """Reads files; one that cannot be used has no frames, and its label "problem" says why."""
    frames, labels = [], []
    for name in names:
        sound, problem = None, ""
        try:
            sound = read_sound(root / name, reading.rate)
        except ValueError as error:
            problem = str(error)
        samples = sound.samples if sound else np.zeros(0, np.int16)
        frames.append(frames_of(samples, reading.frame, reading.tail))
        if sound and not len(frames[-1]):
            problem = (
                f"{root / name}: {len(samples)} samples do not fill a frame of {reading.frame}; "
                "data.tail=fill would keep them"
            )
        labels.append((problem, sound.rate if sound else 0, sound.channels if sound else 0))
    problems, rates, channels = zip(*labels, strict=True)
    columns = {"problem": problems, "rate": rates, "channels": channels}
    return Ragged.from_sequences(frames, names, columns)


def joined(shards: Sequence[Ragged]) -> Ragged:
    """Lays shards end to end without reading them."""
    arrays = [part.values.base for part in shards]  # type: ignore[union-attr]
    values = Shards([array for array in arrays if isinstance(array, np.memmap)])
    starts = [part.starts + first for part, first in zip(shards, values.bounds, strict=False)]
    return Ragged(
        values=values,
        starts=np.concatenate(starts),
        lengths=np.concatenate([part.lengths for part in shards]),
        keys=[key for part in shards for key in part.keys],
        labels={
            name: np.concatenate([part.labels[name] for part in shards])
            for name in shards[0].labels
        },
    )


def usable(sounds: Ragged, reading: Reading, missing: Missing) -> Ragged:
    """Leaves out what cannot be used, or refuses it, and says what was converted."""
    problems = sounds.labels.pop("problem")
    report([str(problem) for problem in problems if problem], len(sounds), missing)
    rest = sounds.select(np.flatnonzero(problems == ""))
    rates = Counter(rest.labels["rate"][rest.labels["rate"] != reading.rate].tolist())
    if rates:
        kinds = some([f"{rate:,} Hz" for rate, _ in rates.most_common()])
        only = len(rates) == 1 and rates.total() == len(rest)
        log.info(
            "resampled to %s Hz: %d of %d files, from %s%s",
            f"{reading.rate:,}", rates.total(), len(rest), kinds,
            f" (data.rate={next(iter(rates))} keeps it)" if only else "",
        )  # fmt: skip
    mixed = int((rest.labels["channels"] > 1).sum())
    if mixed:
        log.info("mixed down to one channel: %d of %d files", mixed, len(rest))
    return rest
