"""Writes small corpora of sound files, in the folders and formats of the real ones."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from datamodules.audio.timit import CORE_TEST, DEV

SAMPLES = 1000


def noise(seed: int, samples: int = SAMPLES, channels: int = 1) -> np.ndarray:
    """16-bit noise, (samples,) or (samples, channels)."""
    shape = samples if channels == 1 else (samples, channels)
    return np.random.default_rng(seed).normal(0, 3000, shape).astype(np.int16)


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def write_all(root: Path, names: Iterable[str], rate: int = 16000, **options: str) -> list[str]:
    """Writes a file of noise for each name, each of another seed."""
    written = list(names)
    for seed, name in enumerate(written):
        write(root / name, noise(seed), rate, **options)
    return written


def timit_names() -> list[str]:
    """As many speakers and sentences as TIMIT has, its test speakers that the conventions name."""
    test = sorted(CORE_TEST | DEV)
    test += [f"M{letters(i)}9" for i in range(168 - len(test))]
    train = [f"F{letters(i)}8" for i in range(462)]
    sentences = ["SA1", "SA2", *(f"SI{i}" for i in range(3)), *(f"SX{i}" for i in range(5))]
    return [
        f"{part}/DR{1 + i % 8}/{speaker}/{sentence}.WAV"
        for part, speakers in (("TRAIN", train), ("TEST", test))
        for i, speaker in enumerate(speakers)
        for sentence in sentences
    ]


def letters(i: int) -> str:
    return chr(65 + i // 26 % 26) + chr(65 + i % 26) + "Q"


def write_timit(root: Path, names: Iterable[str]) -> None:
    """SPHERE files of 250 samples each."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sphere(noise(seed % 7, 250)))


def sphere(samples: np.ndarray, **fields: str) -> bytes:
    """A SPHERE file, as TIMIT's are."""
    header = {
        "sample_count": f"-i {len(samples)}",
        "sample_n_bytes": "-i 2",
        "channel_count": "-i 1",
        "sample_byte_format": "-s2 01",
        "sample_rate": "-i 16000",
    } | fields
    lines = "".join(f"{name} {value}\n" for name, value in header.items())
    text = f"NIST_1A\n   1024\n{lines}end_head\n".encode()
    return text.ljust(1024, b" ") + samples.astype("<i2").tobytes()


FILES = {
    "timit": [n for n in timit_names() if "/DR1/" in n and "SX" in n],
    "fsdd": [
        f"recordings/{d}_{s}_{i}.wav" for d in (3, 7) for s in ("theo", "lucas") for i in range(9)
    ],
    "librispeech": [
        f"LibriSpeech/{subset}/{s}/1/{s}-1-000{i}.flac"
        for s, subset in enumerate(["train-clean-100", "dev-clean", "test-clean"])
        for i in range(4)
    ],
    "vctk": [
        f"wav48_silence_trimmed/p{s}/p{s}_00{i}_mic{m}.flac"
        for s in range(225, 230)
        for i in (1, 2)
        for m in (1, 2)
    ],
    "ljspeech": [f"LJSpeech-1.1/wavs/LJ001-000{i}.wav" for i in range(8)],
    "blizzard": [f"unsegmented/book/ch{i}.wav" for i in range(12)],
    "accent": [f"recordings/recordings/english{i}.mp3" for i in range(6)],
    "onomatopoeia": [f"{i}.ogg" for i in range(6)],
    "audio_folder": [f"{i}.flac" for i in range(6)],
}
"""A few files of each corpus of sound that data= knows."""

RATES = {"fsdd": 8000, "vctk": 48000, "ljspeech": 22050, "accent": 44100}
"""Samples a second of those that have not 16,000."""


def write_everything(root: Path) -> None:
    """Writes every corpus of `FILES` into a folder of its name."""
    for name, files in FILES.items():
        if name == "timit":
            write_timit(root / name, files)
        else:
            write_all(root / name, files, RATES.get(name, 16000))
