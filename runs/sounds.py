"""Generated sequences as files one can listen to. All functions take raw frames."""

import logging
from pathlib import Path

import mido  # type: ignore[import-untyped]
import numpy as np
import soundfile

from datamodules.music import LOWEST

__all__ = ["notes", "sixteen_bits", "write_midi", "write_wav"]

log = logging.getLogger(__name__)

TICKS = 480
"""MIDI ticks a step."""


def write_wav(file: Path, x: np.ndarray, rate: float) -> None:
    """Writes frames (T, D) end to end as 16-bit WAV; what is louder is clipped, with a warning.

    Args:
        x: in 16-bit units.
        rate: samples a second.
    """
    samples, clipped = sixteen_bits(x)
    if clipped:
        log.warning("%s: clipped %d of %d samples to 16 bits", file, clipped, len(samples))
    soundfile.write(file, samples, round(rate), subtype="PCM_16")


def sixteen_bits(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Frames (T, D) end to end as 16-bit samples, and how many of them are clipped."""
    samples = np.rint(x.reshape(-1))
    clipped = np.clip(samples, -32768, 32767)
    return clipped.astype(np.int16), int((samples != clipped).sum())


def write_midi(file: Path, roll: np.ndarray, rate: float) -> None:
    """Writes a piano roll as MIDI, a key that stays down being one long note.

    Args:
        roll: (T, 88), 1 where a key is down.
        rate: steps a second.
    """
    events = [
        event
        for start, length, key in notes(roll)
        for event in ((start, "note_on", key), (start + length, "note_off", key))
    ]
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(1e6 / rate))])
    now = 0
    for step, message, key in sorted(events):  # Within a step, keys go up before others go down.
        time, now = TICKS * (step - now), step
        track.append(mido.Message(message, note=LOWEST + key, velocity=64, time=time))
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(file)


def notes(roll: np.ndarray) -> list[tuple[int, int, int]]:
    """First step, length and key of every note of a roll (T, D), a key that stays down being one
    long note."""
    changes = np.diff(np.pad(roll > 0.5, ((1, 1), (0, 0))).astype(int), axis=0)
    return [
        (int(start), int(stop - start), key)
        for key, column in enumerate(changes.T)
        for start, stop in zip(np.flatnonzero(column > 0), np.flatnonzero(column < 0), strict=True)
    ]
