import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.audio_tree import noise, sphere, write

from datamodules.audio import file as audio_file
from datamodules.audio.file import read_sound

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "sphere-samples.tar.xz"


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.wav", {}), ("a.flac", {}), ("a.sph", {"format": "NIST"}), ("a.aiff", {})],
)
def test_sixteen_bits_at_the_same_rate_come_back_exactly(
    tmp_path: Path, name: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = noise(0, 5000)
    samples[:2] = -(2**15), 2**15 - 1
    sound = read_sound(write(tmp_path / name, samples, **options), 16000)
    assert sound.samples.dtype == np.int16 and sound[1:] == (16000, 1)
    np.testing.assert_array_equal(sound.samples, samples)
    monkeypatch.setattr(audio_file, "BLOCK", 700)
    np.testing.assert_array_equal(read_sound(tmp_path / name, 16000).samples, samples)


@pytest.mark.parametrize("order", ["01", "10"])
def test_sphere_is_read_in_either_byte_order(tmp_path: Path, order: str) -> None:
    samples = noise(1, 400)
    stored = samples if order == "01" else samples.byteswap()
    path = tmp_path / "SA1.WAV"
    path.write_bytes(sphere(stored, sample_byte_format=f"-s2 {order}"))
    np.testing.assert_array_equal(read_sound(path, 16000).samples, samples)


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_lossy_formats_are_read_whole(tmp_path: Path, suffix: str) -> None:
    t = np.arange(16000) / 16000
    tone = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    found = read_sound(write(tmp_path / f"a.{suffix}", tone), 16000).samples
    assert len(found) == len(tone)
    assert np.abs(found[2000:-2000] - tone[2000:-2000].astype(float)).mean() < 400


def test_channels_are_averaged_and_floats_clipped(tmp_path: Path) -> None:
    left, right = noise(0), noise(1)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1))
    found = read_sound(path, 16000)
    assert found.channels == 2
    np.testing.assert_array_equal(found.samples, np.rint((left.astype(float) + right) / 2))

    path = write(tmp_path / "b.wav", np.array([2.0, -2.0, 0.5]), subtype="FLOAT")
    assert read_sound(path, 16000).samples.tolist() == [32767, -32768, 16384]


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_a_tone_keeps_its_pitch_length_and_loudness(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 10000 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    path = write(tmp_path / "a.wav", tone.astype(np.int16), rate)
    sound = read_sound(path, 16000)
    assert sound.rate == rate and abs(len(sound.samples) - 32000) <= 1
    expected = 10000 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    inner = slice(1000, -1000)
    assert np.abs(sound.samples[:32000][inner] - expected[inner]).max() < 10
    monkeypatch.setattr(audio_file, "BLOCK", 3000)
    np.testing.assert_allclose(read_sound(path, 16000).samples, sound.samples, atol=1)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.wav", {}, "truncated, .* of 20,000 samples are there"),
        ("a.sph", {"format": "NIST"}, "truncated, .* of 20,000 samples are there"),
        ("a.mp3", {}, "truncated, .* of 20,000 samples are there"),
        ("a.flac", {}, "damaged, or no sound file"),
        ("a.ogg", {}, "no samples"),
    ],
)
def test_truncated_files_are_named(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    path = write(tmp_path / name, noise(0, 20000), **options)
    assert len(read_sound(path, 16000).samples) == 20000
    half(path)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_sound(path, 16000)


def test_a_wav_written_into_a_pipe_has_no_size_to_check(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(0))
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    np.testing.assert_array_equal(read_sound(path, 16000).samples, noise(0))


def test_unusable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.1, np.nan, 0.2]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="a.wav: NaN or infinite"):
        read_sound(path, 16000)
    soundfile.write(path, np.zeros(0, np.int16), 16000)
    with pytest.raises(ValueError, match="a.wav: no samples"):
        read_sound(path, 16000)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="a.wav: damaged, or no sound file"):
        read_sound(path, 16000)
    path.write_text("not a sound")
    with pytest.raises(ValueError, match="a.wav: damaged, or no sound file"):
        read_sound(path, 16000)
    path.write_bytes(sphere(noise(0), sample_coding="-s26 pcm,embedded-shorten-v2.00"))
    with pytest.raises(ValueError, match="a.wav: SPHERE compressed by shorten.*sph2pipe"):
        read_sound(path, 16000)


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the recordings are not here")
def test_real_sphere_files(tmp_path: Path) -> None:
    with tarfile.open(SAMPLES) as archive:
        archive.extractall(tmp_path, filter="data")
    found = {path.name: path for path in tmp_path.rglob("*.*")}
    twins = [read_sound(found[f"chan3.{suffix}"], 11025).samples for suffix in ("sph", "wav")]
    assert len(twins[0]) == 230108
    np.testing.assert_array_equal(*twins)
    little, big = (read_sound(found[f"timit_{order}.WAV"], 16000) for order in ("le", "be"))
    np.testing.assert_array_equal(little.samples, big.samples)
    with pytest.raises(ValueError, match="shorten.WAV: SPHERE compressed by shorten"):
        read_sound(found["shorten.WAV"], 16000)
