"""Generated sequences as files one can listen to. All functions take raw frames."""

import logging
from pathlib import Path

import mido
import numpy as np
import soundfile

__all__ = ["LOWEST_KEY", "write_midi", "write_wav"]

log = logging.getLogger(__name__)

LOWEST_KEY = 21
"""MIDI pitch of the first column of a piano roll."""

TICKS = 480
"""MIDI ticks a step."""


def write_wav(file: Path, x: np.ndarray, rate: float) -> None:
    """Writes frames (T, D) end to end as 16-bit WAV; what is louder is clipped, with a warning.

    Args:
        x: in 16-bit units.
        rate: samples a second.
    """
    samples = np.rint(x.reshape(-1))
    clipped = np.clip(samples, -32768, 32767)
    count = int((samples != clipped).sum())
    if count:
        log.warning("%s: clipped %d of %d samples to 16 bits", file, count, len(samples))
    soundfile.write(file, clipped.astype(np.int16), round(rate), subtype="PCM_16")


def write_midi(file: Path, roll: np.ndarray, rate: float) -> None:
    """Writes a piano roll as MIDI, a key that stays down being one long note.

    Args:
        roll: (T, 88), 1 where a key is down.
        rate: steps a second.
    """
    down = np.pad(roll > 0.5, ((1, 1), (0, 0))).astype(int)
    changes = np.diff(down, axis=0)
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(1e6 / rate))])
    now = 0
    for step, change in enumerate(changes):
        for sign, message in ((-1, "note_off"), (1, "note_on")):
            for column in np.flatnonzero(change == sign):
                pitch, time = LOWEST_KEY + int(column), TICKS * (step - now)
                track.append(mido.Message(message, note=pitch, velocity=64, time=time))
                now = step
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(file)
