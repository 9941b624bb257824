"""Invented speakers, and what their tongues and throats do when they say something."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d  # type: ignore[import-untyped]

from datamodules.audio.phones import PAUSE, phones

__all__ = ["CONTROL", "Tracks", "Voice", "articulate", "draw_voice"]

CONTROL = 1000
"""Values a second of all that glides."""


class Voice(NamedTuple):
    """A speaker. Ranges are those of `draw_voice`."""

    pitch: float
    """Mean fundamental frequency, Hz: 85 to 250."""
    liveliness: float
    """How far the pitch rises on a stressed vowel, semitones: 1 to 5."""
    tract: float
    """Factor of all formants, which a shorter vocal tract raises: 0.9 to 1.25."""
    rate: float
    """Factor of the speed of speaking: 0.8 to 1.25."""
    breath: float
    """Root mean square of the breath in voiced sounds, relative to a vowel: 0.005 to 0.06."""
    openness: float
    """Share of a period in which the glottis is open: 0.45 to 0.75."""
    dullness: float
    """Time constant of a low-pass of the voice, milliseconds: 0.02 to 0.12."""
    jitter: float
    """Standard deviation of the time of a pulse, in periods: 0.002 to 0.012."""
    shimmer: float
    """Standard deviation of the strength of a pulse, relative to its mean: 0.02 to 0.1."""
    loudness: float
    """Root mean square of the speech without its pauses, 16-bit units: 700 to 2500."""
    room: float
    """Root mean square of the noise of room and microphone, 16-bit units: 3 to 15."""
    accent: float
    """Number that fixes how the speaker's sounds differ from the table's: 0 to 1."""


def draw_voice(rng: np.random.Generator) -> Voice:
    """Draws a speaker, low- or high-pitched with equal chances."""
    high = rng.random() < 0.5
    return Voice(
        pitch=rng.uniform(160.0, 250.0) if high else rng.uniform(85.0, 150.0),
        liveliness=rng.uniform(1.0, 5.0),
        tract=rng.uniform(1.08, 1.25) if high else rng.uniform(0.9, 1.08),
        rate=rng.uniform(0.8, 1.25),
        breath=0.005 * 12 ** rng.uniform(),
        openness=rng.uniform(0.55, 0.75) if high else rng.uniform(0.45, 0.65),
        dullness=rng.uniform(0.02, 0.12),
        jitter=rng.uniform(0.002, 0.012),
        shimmer=rng.uniform(0.02, 0.1),
        loudness=rng.uniform(700.0, 2500.0),
        room=3.0 * 5 ** rng.uniform(),
        accent=rng.uniform(),
    )


class Tracks(NamedTuple):
    """What the speaker does over time, `CONTROL` values a second, (n,) unless stated."""

    pitch: np.ndarray
    """Hz."""
    formants: np.ndarray
    """Hz, (n, 3)."""
    voice: np.ndarray
    """Amplitude of the voice, relative to a vowel's; likewise of breath and hiss."""
    breath: np.ndarray
    hiss: np.ndarray
    centre: np.ndarray
    """Hz, of the hiss."""
    width: np.ndarray
    """Hz, likewise."""
    ends: np.ndarray
    """Index at which each sound ends, (number of sounds,)."""


def articulate(sounds: Sequence[str], voice: Voice, rng: np.random.Generator) -> Tracks:
    """Lays the sounds out in time, and glides from one to the next.

    Args:
        sounds: phones of `datamodules.audio.phones.phones`, with a 1 after a vowel with stress.
    """
    if len(sounds) == 0:
        raise ValueError("there are no sounds to say")
    table = phones()
    names = [sound.rstrip("1") for sound in sounds]
    for name in names:
        if name not in table:
            raise ValueError(f"there is no sound {name!r}; choose from {', '.join(table)}")

    stressed = np.array([sound.endswith("1") for sound in sounds])
    pause = np.array([name == PAUSE for name in names])
    final = np.append(pause[1:], True) & ~pause
    length = np.where(stressed, 1.25, 1.0) * np.where(final, 1.3, 1.0) / voice.rate
    length = length * rng.lognormal(0.0, np.where(pause, 0.5, 0.12))

    sizes = [len(table[name]) for name in names]
    rows = np.concatenate([table[name] for name in names])
    ms = np.maximum(np.rint(rows[:, 0] * np.repeat(length, sizes)), 4).astype(int)
    ends = np.cumsum(ms)[np.cumsum(sizes) - 1]

    habit = np.random.default_rng(int(voice.accent * 2**32))
    bent = {name: habit.lognormal(0.0, 0.04, 3) for name in sorted(table)}
    formants = rows[:, 1:4] * np.repeat([bent[name] for name in names], sizes, axis=0)
    formants = filled(formants * voice.tract, rows[:, 1] > 0)
    hiss = filled(rows[:, 7:], rows[:, 7] > 0)

    def glide(values: np.ndarray, sigma: float) -> np.ndarray:
        steps = np.repeat(values, ms, axis=0)
        smooth: np.ndarray = gaussian_filter1d(steps, sigma, axis=0, mode="nearest")
        return smooth

    loud = glide(rows[:, 4], 8.0)
    return Tracks(
        pitch=intonation(stressed, pause, ends, voice, rng),
        formants=glide(formants, 16 / voice.rate),
        voice=loud,
        breath=glide(rows[:, 5], 4.0) + voice.breath * loud,
        hiss=glide(rows[:, 6], 4.0),
        centre=glide(hiss[:, 0], 4.0),
        width=glide(hiss[:, 1], 4.0),
        ends=ends,
    )


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fills rows that are not `known` (n,) from those around them. Shapes: (n, D) -> (n, D)."""
    index = np.arange(len(values))
    if not known.any():
        return np.broadcast_to(500.0 * np.arange(1, 2 * values.shape[1], 2), values.shape)
    columns = [np.interp(index, index[known], column[known]) for column in values.T]
    return np.stack(columns, axis=1)


def intonation(
    stressed: np.ndarray,
    pause: np.ndarray,
    ends: np.ndarray,
    voice: Voice,
    rng: np.random.Generator,
) -> np.ndarray:
    """The pitch in Hz, (n,): falling over a phrase, raised where there is stress."""
    n = int(ends[-1])
    starts = np.append(0, ends[:-1])
    phrase = np.cumsum(pause)
    fall = np.zeros(n)
    for number in np.unique(phrase[~pause]):
        inside = (phrase == number) & ~pause
        first, last = starts[inside][0], ends[inside][-1]
        fall[first:last] = np.linspace(1.5, -1.5, last - first)
    bumps = np.zeros(n)
    middle = (starts + ends)[stressed] // 2
    bumps[middle] = rng.lognormal(0.0, 0.3, len(middle))
    bumps = gaussian_filter1d(bumps, 70.0, mode="constant") * 70 * np.sqrt(2 * np.pi)
    wander = 4 * gaussian_filter1d(rng.standard_normal(n), 80.0, mode="nearest")
    fall = gaussian_filter1d(fall, 30.0, mode="nearest")
    pitch: np.ndarray = voice.pitch * 2 ** (
        (fall + voice.liveliness * (bumps - 0.3) + wander) / 12
    )
    return pitch
