"""A run that reads a corpus slowly; without torch, so that a new process starts quickly."""

import time
from pathlib import Path

from datamodules.audio import shards as audio_corpus
from datamodules.audio.file import Sound, read_sound
from datamodules.audio.shards import Reading, read_sounds


def read_slowly(
    root: Path, names: list[str], cache: Path, log: Path, last: str | None = None
) -> None:
    """Takes a twentieth of a second a file, five files of a thousand samples a shard, and writes
    each file's name to a log; does not come back from the last one, if that is named."""

    def slow(path: Path, rate: int) -> Sound:
        while path.name == last:
            time.sleep(1)
        time.sleep(0.05)
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        return read_sound(path, rate)

    audio_corpus.SHARD = 5 * (2 * 1000 + 44)
    audio_corpus.read_sound = slow
    read_sounds(root, names, cache, Reading(16000, 200, "drop"), processes=1)
