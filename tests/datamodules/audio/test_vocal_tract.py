"""The physics of a source and a filter, and the sounds that they make."""

import time

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import solve_toeplitz
from scipy.signal import find_peaks, lfilter, welch

from datamodules.audio.phones import PAUSE, phones
from datamodules.audio.synthetic import utterance
from datamodules.audio.vocal_tract import RATE, glottal_pulse, noise, resonator, sound, tract
from datamodules.audio.voice import Tracks, Voice, articulate, draw_voice

VOICE = Voice(
    pitch=120.0,
    liveliness=0.0,
    tract=1.0,
    rate=1.0,
    breath=0.01,
    openness=0.55,
    dullness=0.05,
    jitter=0.0,
    shimmer=0.0,
    loudness=1500.0,
    room=5.0,
    accent=0.3,
)

RANGES = {
    "pitch": (85, 250),
    "liveliness": (1, 5),
    "tract": (0.9, 1.25),
    "rate": (0.8, 1.25),
    "breath": (0.005, 0.06),
    "openness": (0.45, 0.75),
    "dullness": (0.02, 0.12),
    "jitter": (0.002, 0.012),
    "shimmer": (0.02, 0.1),
    "loudness": (700, 2500),
    "room": (3, 15),
    "accent": (0, 1),
}


def say(text: str = "SIL W AO1 T ER SIL", seed: int = 0, **style: float) -> np.ndarray:
    """Says sounds in VOICE, some of whose fields are changed; (N,)."""
    voice, rng = VOICE._replace(**style), np.random.default_rng(seed)
    return sound(articulate(text.split(), voice, rng), voice, rng).astype(float)


def held(name: str, seconds: float = 1.0) -> Tracks:
    """A sound that does not change."""
    row = phones()[name][-1].copy()
    n = int(1000 * seconds)
    pitch, formants = np.full(n, VOICE.pitch), np.tile(row[1:4], (n, 1))
    row[7:] = np.where(row[7:] > 0, row[7:], 1000)
    sources = [np.full(n, value) for value in row[4:]]
    return Tracks(pitch, formants, *sources, np.array([n]))


def hold(name: str, seed: int = 0, **style: float) -> np.ndarray:
    samples = sound(held(name), VOICE._replace(**style), np.random.default_rng(seed))
    return samples[2000:-2000].astype(float)


def formants(x: np.ndarray) -> np.ndarray:
    """The frequencies of the resonances in Hz, by linear prediction."""
    x = lfilter([1, -0.95], [1], x) * np.hanning(len(x))
    r = np.correlate(x, x, "full")[len(x) - 1 :][:19]
    roots = np.roots([1, *-solve_toeplitz(r[:-1], r[1:])])
    roots = roots[(roots.imag > 0) & (np.abs(roots) > 0.9)]
    return np.sort(np.angle(roots)) * RATE / (2 * np.pi)


def test_the_pulse_is_the_transform_of_the_derivative_of_the_flow() -> None:
    w, ends = 2 * np.pi * np.array([31.25, 440.0, 3000.0]), np.array([0.002, 0.006])
    pulse = glottal_pulse(w, ends)
    for k, end in enumerate(ends):
        for i, frequency in enumerate(w):
            weights = [(np.cos, 1), (np.sin, -1j)]
            expected = sum(
                factor
                * quad(
                    lambda t, e=end, f=frequency, g=wave: (
                        (2 * e * t - 3 * t * t) / e**2 * g(f * t)
                    ),
                    0,
                    end,
                    limit=400,
                )[0]
                for wave, factor in weights
            )
            assert pulse[k, i] == pytest.approx(expected, abs=1e-10)


def test_the_tract_is_a_cascade_of_resonators() -> None:
    targets = np.array([[500.0, 1500.0, 2500.0], [300.0, 2300.0, 3000.0]])
    n = 8192
    w = 2 * np.pi * np.fft.rfftfreq(n, 1 / RATE)
    responses = np.fft.irfft(tract(w, targets, 1.1), n)
    for response, target in zip(responses, targets, strict=True):
        expected = np.eye(1, n)[0]
        for frequency in [*target, *(1.1 * np.array([3500.0, 4500.0, 5500.0, 6500.0]))]:
            b, c = resonator(np.array(frequency))
            expected = lfilter([1 - b - c], [1, -b, -c], expected)
        np.testing.assert_allclose(response, expected, atol=1e-9)
        assert response.sum() == pytest.approx(1), "gain at 0 Hz"
    spectrum = np.abs(tract(w, targets[:1], 1.0))[0]
    peaks = w[find_peaks(spectrum)[0]][:3] / (2 * np.pi)
    np.testing.assert_allclose(peaks, targets[0], rtol=0.02)


def test_noise_has_the_power_and_the_colour_that_are_asked_for() -> None:
    for name in ("S", "SH", "HH"):
        tracks = held(name, seconds=4)._replace(breath=np.zeros(4000), hiss=np.zeros(4000))
        if name == "HH":
            tracks = tracks._replace(formants=np.tile([500.0, 1500.0, 2500.0], (4000, 1)))
        source = "breath" if name == "HH" else "hiss"
        x = noise(tracks._replace(**{source: np.full(4000, 0.3)}), VOICE, np.random.default_rng(0))
        assert x.std() == pytest.approx(0.3, rel=0.03), name
        quarters = x.reshape(-1, 64).std(0)
        assert quarters.max() / quarters.min() < 1.2, "the seams of the pieces are heard"
        f, power = welch(x, RATE, nperseg=256)
        loudest = {"S": 6000, "SH": 3000, "HH": 500}[name]
        assert abs(f[power.argmax()] - loudest) < 500, name


def test_a_vowel_has_the_pitch_and_the_formants_of_the_table() -> None:
    for name in ("AA", "IH", "ER"):
        for pitch in (90.0, 120.0):
            tracks = held(name)._replace(pitch=np.full(1000, pitch))
            x = sound(tracks, VOICE, np.random.default_rng(0))[2000:-2000].astype(float)
            r = np.correlate(x, x, "full")[len(x) - 1 :]
            period = 60 + int(r[60:400].argmax())
            assert RATE / period == pytest.approx(pitch, rel=0.02), name
        found = formants(hold(name))
        for target in phones()[name][0, 1:4]:
            assert np.abs(found / target - 1).min() < 0.06, (name, target, found)


def test_a_shorter_tract_raises_all_formants() -> None:
    voices = [VOICE._replace(tract=scale) for scale in (1.0, 1.2)]
    aims = [articulate(["AA1", "N", "IY"], v, np.random.default_rng(0)).formants for v in voices]
    np.testing.assert_allclose(aims[1], 1.2 * aims[0])


def test_formants_glide_and_the_voice_stops_in_a_closure() -> None:
    tracks = articulate(["AA1", "IY1", "T", "AA1"], VOICE, np.random.default_rng(0))
    assert np.abs(np.diff(tracks.formants, axis=0)).max() < 60, "Hz a millisecond"
    assert np.ptp(tracks.formants[:, 1]) > 900
    first, second, stop, _ = tracks.ends
    assert tracks.voice[first - 40 : first + 40].min() > 0.95, "no break between vowels"
    assert tracks.voice[second + 25 : stop - 30].max() < 0.05


def test_the_pitch_rises_with_stress_and_falls_over_a_phrase() -> None:
    flat = "SIL " + "AH M " * 12 + "SIL"
    for seed in range(3):
        rng = np.random.default_rng(seed)
        tracks = articulate(flat.split(), VOICE._replace(liveliness=3.0), rng)
        starts, ends = tracks.ends[0], tracks.ends[-2]
        third = (ends - starts) // 3
        assert tracks.pitch[starts : starts + third].mean() > 1.05 * (
            tracks.pitch[ends - third : ends].mean()
        )
    one = articulate("AH M AH1 M AH".split(), VOICE._replace(liveliness=4.0), rng)
    inside = slice(one.ends[1], one.ends[2])
    assert one.pitch[inside].max() == one.pitch.max()


def test_speech_and_pauses_are_as_loud_as_stated() -> None:
    for index in range(4):
        said = utterance(1, index, 10)
        x = said.samples.astype(float)
        quiet = x[200 : said.ends[0] - 1200]
        assert quiet.std() == pytest.approx(said.voice.room, rel=0.15)
        loud = np.sqrt(np.square(x).mean() / (1 - quiet_share(said.phones, said.ends)))
        assert loud == pytest.approx(said.voice.loudness, rel=0.25)
    assert np.abs(say(loudness=50_000.0)).max() == pytest.approx(32_000, abs=50)


def quiet_share(names: list[str], ends: np.ndarray) -> float:
    lengths = np.diff(ends, prepend=0)
    return float(lengths[[name == PAUSE for name in names]].sum() / ends[-1])


def test_fricatives_are_high_and_vowels_low() -> None:
    def centroid(x: np.ndarray) -> float:
        f, power = welch(x, RATE, nperseg=512)
        return float((f * power).sum() / power.sum())

    assert centroid(hold("S")) > 4500 > 3500 > centroid(hold("SH")) > 2500
    assert max(centroid(hold(name)) for name in ("AA", "UW", "M")) < 1500


@pytest.mark.parametrize("field", Voice._fields)
def test_every_field_of_the_voice_is_heard(field: str) -> None:
    other = say(**{field: getattr(VOICE, field) * 1.7 + 0.02})
    assert other.shape != say().shape or not np.array_equal(other, say())


def test_voices_differ_and_keep_to_the_stated_ranges() -> None:
    voices = np.array([draw_voice(np.random.default_rng(i)) for i in range(300)])
    assert tuple(RANGES) == Voice._fields
    for (low, high), values in zip(RANGES.values(), voices.T, strict=True):
        assert values.min() >= low and values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)


def test_it_is_faster_than_speech() -> None:
    start = time.process_time()
    spoken = sum(len(utterance(0, index, 10).samples) for index in range(10)) / RATE
    assert spoken / (time.process_time() - start) > 10, "a hundredfold is expected"


def test_sounds_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no sound 'XX'; choose from SIL, IY"):
        say("SIL XX")
    with pytest.raises(ValueError, match="no sounds to say"):
        say("")
    assert len(say("HH")) > 0, "a sound that leaves all to neighbours it has not"
