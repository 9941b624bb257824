r"""Sound from the movements of a speaker, 16 kHz, by a source and a filter.

The glottis opens once a period and lets a puff of air through; its flow, the polynomial

.. math:: g(t) = t^2 (T_e - t), \qquad 0 \le t \le T_e,

ends at once when it closes. The vocal tract is a cascade of resonators, the formants, whose
frequencies glide from sound to sound. As all of it is linear within a period, the voice is a sum
of one short response for each pulse, computed for all pulses at once in the frequency domain,
where a pulse can also start between two samples. Noise is made in short overlapping pieces:
breath passes the whole tract, hiss is shaped where tongue or lips make it.

References:
    | Analysis, synthesis, and perception of voice quality variations among female and male talkers
    | (Klatt and Klatt, 1990) https://doi.org/10.1121/1.398894 (the glottal flow)
    | Software for a cascade/parallel formant synthesizer (Klatt, 1980)
    | https://doi.org/10.1121/1.383940 (the resonators)
"""

import numpy as np
from scipy.signal import lfilter  # type: ignore[import-untyped]

from datamodules.audio.voice import CONTROL, Tracks, Voice

__all__ = ["RATE", "glottal_pulse", "noise", "resonator", "sound", "tract"]

RATE = 16000
"""Samples a second."""

RESPONSE = 512
"""Samples of the response to one pulse, 32 ms, at whose end the slowest formant is at -57 dB."""

PIECE = 128
"""Samples of a piece of noise; the next one starts half-way through it."""

UPPER_FORMANTS = np.array([3500.0, 4500.0, 5500.0, 6500.0])
"""Hz; the same for all sounds."""

VOWEL = 0.7
"""Root mean square of an average vowel before scaling, which makes amplitudes relative to it."""


def sound(tracks: Tracks, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """The sound of a speaker who does this, (N,), int16, `RATE` samples a second."""
    speech, phase = voiced(tracks, voice, rng)
    # Air that is let through in puffs is noisy in puffs.
    puffs = 1 + 0.7 * np.minimum(at_samples(tracks.voice), 1) * np.cos(2 * np.pi * phase)
    speech = speech / VOWEL + puffs * noise(tracks, voice, rng)
    active = tracks.voice + tracks.breath + tracks.hiss > 0.1
    level = np.sqrt(np.square(speech).mean() / max(active.mean(), 0.01))
    speech *= voice.loudness / max(level, 0.01)
    speech *= min(1.0, 32000 / max(np.abs(speech).max(), 1.0))
    room = lfilter([np.sqrt(1 - 0.7**2)], [1, -0.7], rng.standard_normal(len(speech)))
    samples: np.ndarray = np.rint(speech + voice.room * room).astype(np.int16)
    return samples


def at_samples(track: np.ndarray) -> np.ndarray:
    """Interpolates a track (n,) at every sample (N,)."""
    t = np.arange(len(track) * RATE // CONTROL) * CONTROL / RATE
    values: np.ndarray = np.interp(t, np.arange(len(track)), track)
    return values


def voiced(
    tracks: Tracks, voice: Voice, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The voice, and the phase of the glottis at every sample, in periods; (N,) each."""
    t = np.arange(len(tracks.pitch))
    phase = np.cumsum(tracks.pitch) / CONTROL
    beats = np.arange(1, int(phase[-1]) + 1)
    at = np.interp(beats + voice.jitter * rng.standard_normal(len(beats)), phase, t)
    strength = np.interp(at, t, tracks.voice)
    strength *= np.maximum(1 + voice.shimmer * rng.standard_normal(len(beats)), 0.1)
    at, strength = at[strength > 1e-3], strength[strength > 1e-3]

    w = 2 * np.pi * np.fft.rfftfreq(RESPONSE, 1 / RATE)[1:]
    formants = np.stack([np.interp(at, t, column) for column in tracks.formants.T], axis=1)
    opening = voice.openness / np.interp(at, t, tracks.pitch)
    # The microphone's low-pass ends at half the sampling rate.
    common = np.clip((RATE / 2 - w / (2 * np.pi)) / 1000, 0, 1) * RATE
    common = common / (1 + 1j * w * voice.dullness * 1e-3)
    start, fraction = np.divmod(at * RATE / CONTROL, 1.0)
    spectra = glottal_pulse(w, opening) * tract(w, formants, voice.tract) * common
    spectra *= strength[:, None] * np.exp(-1j * w * fraction[:, None] / RATE)
    responses = np.fft.irfft(np.pad(spectra, ((0, 0), (1, 0))), RESPONSE)
    return overlap(responses, start.astype(int), len(t) * RATE // CONTROL), at_samples(phase)


def glottal_pulse(w: np.ndarray, end: np.ndarray) -> np.ndarray:
    r"""The Fourier transform of the derivative of the flow, which is what reaches the ear.

    .. math:: F(\omega) = T_e^{-2} \int_0^{T_e} (2 T_e t - 3 t^2) e^{-i \omega t} dt

    The derivative is scaled to end at -1. Shapes: w (F,) > 0, radians a second; end :math:`T_e`
    (K,), seconds -> (K, F).
    """
    end = end[:, None]
    u, closing = 1 / (1j * w), np.exp(-1j * w * end)
    a, b = u * (2 / end), np.square(u) * (6 / np.square(end))
    pulse: np.ndarray = u * (closing * (1 + 2 * a + b) + (a - b))
    return pulse


def tract(w: np.ndarray, formants: np.ndarray, scale: float) -> np.ndarray:
    """The response of the vocal tract, a cascade of resonators with gain 1 at 0 Hz.

    Shapes: w (F,), radians a second; formants (K, 3), Hz -> (K, F).

    Args:
        scale: of the upper formants.
    """
    z = np.exp(-1j * w / RATE)
    z2 = z * z
    columns = [*formants.T, *(scale * UPPER_FORMANTS)]
    out: np.ndarray = np.ones(1)
    for column in columns:
        b, c = resonator(np.atleast_1d(column)[:, None])
        out = out * (1 - b * z - c * z2) / (1 - b - c)
    return 1 / out


def resonator(frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of y_n = (1 - b - c) x_n + b y_{n-1} + c y_{n-2} for a formant in Hz."""
    frequency = np.minimum(frequency, 0.47 * RATE)
    r = np.exp(-np.pi * (50 + 0.05 * frequency) / RATE)
    return 2 * r * np.cos(2 * np.pi * frequency / RATE), -r * r


def noise(tracks: Tracks, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Breath and hiss, (N,)."""
    n = len(tracks.pitch) * RATE // CONTROL
    start = np.arange(-PIECE // 2, n, PIECE // 2)
    at = np.clip((start + PIECE // 2) * CONTROL // RATE, 0, len(tracks.pitch) - 1)
    f = np.fft.rfftfreq(PIECE, 1 / RATE)
    breath = np.abs(tract(2 * np.pi * f, tracks.formants[at], voice.tract)) * f / (f + 500)
    hiss = 1 / (1 + np.square((f - tracks.centre[at, None]) / tracks.width[at, None]))
    power = np.zeros((len(at), len(f)))
    for shape, amplitude in ((breath, tracks.breath), (hiss, tracks.hiss)):
        power += np.square(shape / rms(shape) * amplitude[at, None])
    spectra = np.sqrt(power * PIECE / 2) * (rng.standard_normal((*power.shape, 2)) @ [1, 1j])
    # The squares of two sines a quarter of a period apart add up to 1, as do powers of noise.
    window = np.sin(np.pi * (np.arange(PIECE) + 0.5) / PIECE)
    pieces = np.fft.irfft(spectra, PIECE) * window
    return overlap(pieces, start + PIECE // 2, n + PIECE // 2)[PIECE // 2 :]


def rms(shape: np.ndarray) -> np.ndarray:
    """The root mean square of noise with this spectrum. Shapes: (K, F) -> (K, 1)."""
    # The first and the last frequency count half.
    power = np.square(shape)
    power[:, [0, -1]] /= 2
    mean: np.ndarray = power.sum(1, keepdims=True) / (shape.shape[1] - 1)
    return np.sqrt(mean)


def overlap(pieces: np.ndarray, start: np.ndarray, n: int) -> np.ndarray:
    """Adds pieces (K, L) at their starts (K,) to n samples."""
    index = start[:, None] + np.arange(pieces.shape[1])
    total: np.ndarray = np.bincount(index.ravel(), pieces.ravel(), n + pieces.shape[1])[:n]
    return total
