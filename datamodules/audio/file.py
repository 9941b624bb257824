"""One sound file as 16-bit samples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]

__all__ = ["SUFFIXES", "Sound", "read_sound", "stem"]

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".sph", ".aif", ".aiff", ".au")

BLOCK = 2**20
FULL_SCALE = 2**15
UNKNOWN_SIZE = (0, 0xFFFFFFFF)
"""What a program that writes WAV into a pipe puts in place of the size."""


class Sound(NamedTuple):
    """What a file holds."""

    samples: np.ndarray
    """(N,) int16, one channel at the rate asked for."""
    rate: int
    """Samples a second in the file."""
    channels: int
    """In the file."""


def read_sound(path: Path, rate: int) -> Sound:
    """Reads any format that libsndfile knows: the mean of its channels, resampled to `rate`.

    Sixteen-bit samples of one channel at that rate come back as they are; whatever leaves the
    16-bit range is clipped.

    Raises:
        ValueError: if the file is in no such format, compressed by shorten, truncated, empty, or
            holds NaN or infinite samples.
    """
    try:
        with soundfile.SoundFile(path) as file:
            parts, done = [], 0
            resample = file.samplerate != rate
            stream = soxr.ResampleStream(file.samplerate, rate, 1) if resample else None
            for block in blocks(file):
                if not np.isfinite(block).all():
                    raise ValueError(f"{path}: NaN or infinite samples")
                done += len(block)
                parts.append(to_int16(stream.resample_chunk(block) if stream else block))
            if stream:
                parts.append(to_int16(stream.resample_chunk(np.zeros(0, np.float32), last=True)))
            expected = max(file.frames, declared_samples(path))
            facts = file.samplerate, file.channels
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: {cause(path, error)}") from error
    if done < expected:
        raise ValueError(f"{path}: truncated, {done:,} of {expected:,} samples are there")
    if done == 0:
        raise ValueError(f"{path}: no samples; it is empty, or truncated")
    return Sound(np.concatenate(parts), *facts)


def stem(path: str) -> str:
    """A file's name without folders and suffixes of sound files, as lists write it or not."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    for suffix in (".t7", *SUFFIXES):
        name = name.removesuffix(suffix)
    return name


def blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """The mean of all channels, in blocks (n,) of float32 within -1 and 1."""
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block[:, 0] if file.channels == 1 else block.mean(axis=1)


def to_int16(samples: np.ndarray) -> np.ndarray:
    scaled = np.rint(samples * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def cause(path: Path, error: soundfile.LibsndfileError) -> str:
    with open(path, "rb") as file:
        start = file.read(1024)
    if start.startswith(b"NIST_1A") and b"shorten" in start:
        return (
            "SPHERE compressed by shorten, which nothing here reads; convert it first, for "
            "instance by sph2pipe -f wav, or by desphere"
        )
    return f"damaged, or no sound file ({error.error_string.removeprefix('Error : ').rstrip('.')})"


def declared_samples(path: Path) -> int:
    """How many samples a channel the header of a SPHERE or WAV file promises; 0 if it does not.

    libsndfile takes what is there for the whole.
    """
    with open(path, "rb") as file:
        start = file.read(1024)
        if start.startswith(b"NIST_1A"):
            match = re.search(rb"^sample_count -i (\d+)", start, re.MULTILINE)
            return int(match[1]) if match else 0
        if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
            return wav_samples(file)
    return 0


def wav_samples(file: BinaryIO) -> int:
    """The size of a WAV file's data in samples a channel, by its own header."""
    file.seek(12)
    align = 0
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"fmt ":
            align = int.from_bytes(file.read(size)[12:14], "little")
        elif head[:4] == b"data":
            return 0 if size in UNKNOWN_SIZE or not align else size // align
        else:
            file.seek(size, 1)
        if size % 2:
            file.seek(1, 1)
    return 0
