"""What is generated can be heard: WAV and MIDI files, and where they go."""

import json
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import WandbLogger
from scipy.io import wavfile
from support.helpers import Command, build, configure

import train
from runs.kinds import draw
from runs.loggers import log_sounds, wandb_logger
from runs.samples import Generated, generate_raw, write_generated
from runs.sounds import write_midi, write_wav
from vrnn.checkpoint import load_module

SPEECH = ["data=synthetic_speech", "data.utterances=6", "data.speakers=2"]
SPEECH += ["data.val_utterances=2", "data.test_utterances=2", "data.max_steps=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    few = ["model=rnn_gmm", "trainer.max_epochs=1", "callbacks.pictures.n=2", "untrained=false"]
    train.run(configure(folder, *SPEECH, *few, lines=False, pictures=True))
    return folder


def test_wav_files_hold_the_frames_end_to_end(tmp_path: Path) -> None:
    x = np.arange(-6, 6).reshape(3, 4) * 1000 + 0.4
    write_wav(tmp_path / "a.wav", x, 16000.0)
    rate, samples = wavfile.read(tmp_path / "a.wav")
    assert rate == 16000 and samples.dtype == np.int16
    assert samples.tolist() == [1000 * i for i in range(-6, 6)]


def test_what_is_too_loud_is_clipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_wav(tmp_path / "a.wav", np.array([[32767.4, -32768.4, 0.0]]), 8000.0)
    assert not caplog.records
    write_wav(tmp_path / "b.wav", np.array([[40000.0, -1e9, 5.0]]), 8000.0)
    assert "b.wav: clipped 2 of 3 samples" in caplog.text
    assert wavfile.read(tmp_path / "b.wav")[1].tolist() == [32767, -32768, 5]


def notes(file: Path) -> tuple[list[tuple[int, float, float]], mido.MidiFile]:
    """(pitch, start, end) of every note in seconds, as a player would hear them."""
    midi, now, down, found = mido.MidiFile(file), 0.0, {}, []
    for message in midi:
        now += message.time
        if message.type == "note_on":
            assert message.note not in down, "pressed twice"
            down[message.note] = now
        elif message.type == "note_off":
            found.append((message.note, down.pop(message.note), now))
    assert not down, "keys left down"
    return found, midi


def test_midi_files_play_the_roll(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    roll = (rng.random((40, 88)) < 0.3).astype(np.float32)
    roll[10:13] = 0
    rate = 3.0
    write_midi(tmp_path / "a.mid", roll, rate)
    played = np.zeros_like(roll)
    found, midi = notes(tmp_path / "a.mid")
    for pitch, start, end in found:
        first, last = start * rate, end * rate
        assert first == pytest.approx(round(first), abs=1e-3) and last > first
        played[round(first) : round(last), pitch - 21] += 1
    np.testing.assert_array_equal(played, roll)
    last = np.flatnonzero(roll.any(1))[-1]
    assert midi.length == pytest.approx((last + 1) / rate, rel=1e-4)


def test_a_held_chord_is_one_note_a_key_and_silence_is_a_file(tmp_path: Path) -> None:
    roll = np.zeros((8, 88))
    roll[2:6, [39, 43, 46]] = 1
    write_midi(tmp_path / "a.mid", roll, 2.0)
    found, _ = notes(tmp_path / "a.mid")
    assert sorted(found) == [(60, 1.0, 3.0), (64, 1.0, 3.0), (67, 1.0, 3.0)]
    write_midi(tmp_path / "b.mid", np.zeros((8, 88)), 2.0)
    assert notes(tmp_path / "b.mid")[0] == []


def test_rolls_are_written_as_midi_beside_their_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rolls = [(rng.random((9, 88)) < 0.1).astype(np.float32) for _ in range(2)]
    data = {"kind": "binary", "rate": 2.0, "columns": [str(21 + i) for i in range(88)]}
    files = write_generated(Generated(rolls, [roll * 0.5 for roll in rolls]), data, tmp_path)
    assert [file.name for file in files[3:]] == ["generated_00.mid", "generated_01.mid"]
    assert len(notes(files[4])[0]) == (np.diff(rolls[1], axis=0, prepend=0) > 0).sum()


def test_a_tone_is_where_it_belongs_in_the_spectrogram() -> None:
    t = np.arange(16000) / 16000
    figure = draw("audio", [1000 * np.sin(2 * np.pi * 3000 * t).reshape(-1, 200)], 16000.0)
    (ax,) = figure.axes
    wave, spectrum = ax.child_axes
    (line,) = wave.lines
    assert line.get_xdata()[-1] == pytest.approx(1, abs=1e-3)
    (image,) = spectrum.images
    power = np.asarray(image.get_array())
    left, right, low, high = image.get_extent()
    assert (left, right, low, high) == pytest.approx((0, 1, 0, 8))
    row = power.mean(1).argmax()
    assert row / (len(power) - 1) * high == pytest.approx(3, abs=0.05)
    assert power.max() == pytest.approx(0) and power.min() >= -70


def test_generated_speech_is_heard_seen_and_kept(
    run: Path, tmp_path: Path, command: Command
) -> None:
    options = ["--n", 2, "--steps", 30, "--out", tmp_path]
    shown = command("generate.py", run, *options)
    names = ["generated.png", "generated.svg", "generated.npz", "generated_mean.png"]
    names += [f"generated_0{i}_{label}.wav" for label in ("sampled", "mean") for i in range(2)]
    assert shown.split() == [str(tmp_path / name) for name in names]
    arrays = np.load(tmp_path / "generated.npz")
    assert arrays["x"].shape == arrays["mean"].shape == (2, 30, 200)
    for label, key in (("sampled", "x"), ("mean", "mean")):
        for i in range(2):
            file = tmp_path / f"generated_0{i}_{label}.wav"
            about = soundfile.info(file)
            assert (about.samplerate, about.channels, about.frames) == (16000, 1, 6000)
            assert about.subtype == "PCM_16"
            expected = np.rint(arrays[key][i].ravel()).clip(-32768, 32767)
            np.testing.assert_array_equal(wavfile.read(file)[1], expected)


def test_means_are_those_of_the_output_given_what_was_sampled(run: Path) -> None:
    module = load_module(run)
    drawn = generate_raw(module, n=3, seed=1, steps=12)
    x = module.model.normaliser.standardise(torch.tensor(np.stack(drawn.x, axis=1)))
    with torch.no_grad():
        mean = module.model.trace(x).likelihood.mean
    expected = module.model.normaliser.raw(mean).numpy()
    np.testing.assert_allclose(np.stack(drawn.mean, axis=1), expected, rtol=1e-3, atol=0.1)
    assert np.std(np.stack(drawn.x)) > 2 * np.std(expected), "noise is not in the means"


def test_means_begin_with_the_given_beginning(run: Path) -> None:
    module = load_module(run)
    prime = torch.randn(4, 2, 200)
    drawn = generate_raw(module, n=2, seed=1, steps=3, prime=prime)
    beginning = module.model.normaliser.raw(prime).numpy()
    for part in drawn:
        assert np.stack(part).shape == (2, 7, 200)
        np.testing.assert_allclose(np.stack(part, axis=1)[:4], beginning, rtol=1e-5)


def test_outputs_without_a_mean_are_sampled_only(tmp_path: Path) -> None:
    cfg = configure(tmp_path, *SPEECH, "model=rnn_hier", lines=False)
    drawn = generate_raw(build(cfg)[1], n=2, seed=0, steps=3)
    assert drawn.mean is None and drawn.x[0].shape == (3, 200)
    data = {"kind": "audio", "rate": 16000.0, "columns": ["0"]}
    names = [file.name for file in write_generated(drawn, data, tmp_path)]
    assert names[3:] == ["generated_00_sampled.wav", "generated_01_sampled.wav"]
    assert set(np.load(tmp_path / "generated.npz")) == {"x", "columns"}


def test_training_leaves_sounds_and_figures_per_sample(run: Path) -> None:
    samples = {path.name for path in (run / "samples").iterdir()}
    assert {"epoch_000.png", "epoch_000.wav", "generated_mean.png"} <= samples
    assert sum(name.endswith("_sampled.wav") for name in samples) == 8
    figures = json.loads((run / "metrics.json").read_text())
    for key in ("test/elbo", "test/elbo_raw", "val/log_likelihood", "val/elbo_raw"):
        per_step = figures[f"{key}_per_step"]
        assert figures[f"{key}_per_sample"] == pytest.approx(per_step / 200, rel=1e-12)
    assert figures["test/elbo_per_sample_se"] == pytest.approx(
        figures["test/elbo_per_step_se"] / 200, rel=1e-12
    )


def test_tables_of_audio_are_per_sample_too(run: Path, tmp_path: Path, command: Command) -> None:
    shown = command("evaluate.py", run, "--k", 2, "--json", tmp_path / "scores.json")
    assert "nats per sample" in shown and max(map(len, shown.splitlines())) <= 80
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert f"{scores['test/elbo_raw_per_sample']:,.4f}" in shown


def test_wandb_gets_the_sounds_and_other_loggers_do_not(tmp_path: Path) -> None:
    class Recorder(WandbLogger):
        def __init__(self) -> None:
            self.logged: list[tuple] = []

        def log_audio(self, key: str, audios: list[Any], **options: Any) -> None:
            self.logged.append((key, audios, options))

    recorder = Recorder()
    trainer: Any = type("Fit", (), {"loggers": [object(), recorder]})
    log_sounds(trainer, [tmp_path / "a.wav", tmp_path / "b.wav"], "samples/generated")
    log_sounds(trainer, [], "samples/generated")
    paths = [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert recorder.logged == [("samples/generated", paths, {"caption": ["a", "b"]})]


@pytest.mark.slow
def test_wandb_keeps_the_sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = wandb_logger(str(tmp_path), "vrnn")
    write_wav(tmp_path / "a.wav", np.zeros((4, 200)), 16000.0)
    trainer: Any = type("Fit", (), {"loggers": [logger]})
    log_sounds(trainer, [tmp_path / "a.wav"], "samples/generated")
    logger.experiment.finish()
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/audio/samples/*.wav")
    assert kept.read_bytes() == (tmp_path / "a.wav").read_bytes()
