"""The corpus of invented speakers: the same again, of known words, and what a model gets of it."""

import numpy as np
import pytest

from datamodules.audio.phones import PAUSE, WORDS, phones
from datamodules.audio.synthetic import SyntheticSpeech, utterance

VOWELS = {"IY", "IH", "EH", "AE", "AA", "AO", "UH", "UW", "AH", "ER", "EY", "AY", "OW", "AW"}


def test_an_utterance_depends_on_its_seed_and_index_alone() -> None:
    said = utterance(seed=3, index=14, speakers=10)
    utterance(seed=3, index=2, speakers=10)
    again = utterance(seed=3, index=14, speakers=10)
    assert np.array_equal(said.samples, again.samples) and said.text == again.text
    assert said.speaker == 4 and said.voice == utterance(3, 4, 10).voice
    assert said.voice == utterance(3, 4, 5).voice, "a voice depends on how many there are"
    for other in (utterance(4, 14, 10), utterance(3, 24, 10)):
        assert other.text != said.text and not np.array_equal(
            other.samples[:2000], said.samples[:2000]
        )
    with pytest.raises(ValueError, match="speakers must be at least 1, not 0"):
        utterance(0, 0, 0)


def test_an_utterance_is_made_of_its_words() -> None:
    for index in range(20):
        said = utterance(0, index, 10)
        words = said.text.split()
        assert 3 <= len(words) - words.count(",") <= 7
        spoken = [p for word in words for p in WORDS.get(word, (PAUSE,))]
        assert said.phones == [PAUSE, *spoken, PAUSE]
        assert said.samples.dtype == np.int16 and said.samples.ndim == 1
        assert len(said.ends) == len(said.phones) and (np.diff(said.ends) > 0).all()
        assert said.ends[-1] == len(said.samples)


def test_words_are_of_known_sounds_with_stress_on_vowels() -> None:
    table = phones()
    assert len(WORDS) >= 150 and PAUSE in table
    for word, sounds in WORDS.items():
        assert {sound.rstrip("1") for sound in sounds} <= set(table), word
        assert {sound[:-1] for sound in sounds if sound.endswith("1")} <= VOWELS, word
        assert sum(sound.endswith("1") for sound in sounds) <= 1, word
    used = {sound.rstrip("1") for sounds in WORDS.values() for sound in sounds}
    assert used == set(table) - {PAUSE}


SMALL = {"utterances": 5, "val_utterances": 3, "test_utterances": 4, "speakers": 2}


def test_a_corpus_is_frames_with_labels_and_speakers_of_its_own() -> None:
    data = SyntheticSpeech(frame=160, **SMALL)
    data.setup()
    assert data.x_dim == 160 and data.kind == "audio" and data.rate == 16_000
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [5, 3, 4]
    voices = {split: set(sequences.labels["pitch"]) for split, sequences in data.splits.items()}
    assert all(len(found) == 2 for found in voices.values())
    assert len(set.union(*voices.values())) == 6, "speakers of their own"
    for sequences in data.splits.values():
        assert sequences.values.dtype == np.int16
        for i, x in enumerate(sequences):
            names = sequences.labels["phones"][i].split()
            ends = [int(end) for end in sequences.labels["ends"][i].split()]
            assert len(names) == len(ends) and 0 <= ends[-1] - x.size < 160
            assert sequences.labels["speaker"][i] == i % 2
    said = utterance(0, 3, 2)
    whole = said.samples[: data.splits["train"][3].size]
    np.testing.assert_array_equal(data.splits["train"][3].ravel(), whole)
    assert data.splits["train"].labels["text"][3] == said.text


def test_the_normaliser_is_one_mean_and_one_deviation_of_all_training_samples() -> None:
    data = SyntheticSpeech(**SMALL)
    data.setup()
    samples = data.splits["train"].values.astype(np.float64)
    np.testing.assert_allclose(data.shift, np.full(200, samples.mean()), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(data.scale, np.full(200, samples.std()), rtol=1e-9)
    raw = SyntheticSpeech(**SMALL, normaliser="none")
    raw.setup()
    assert (raw.shift == 0).all() and (raw.scale == 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"utterances": 0}, "data.utterances must be at least 1, not 0"),
        ({"frame": 0}, "data.frame must be at least 1, not 0"),
        ({"normaliser": "coordinate"}, "data.normaliser=coordinate is not one of global, none"),
        ({"frame": 10**6}, "data.frame=1000000 is longer than .* of the train split"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticSpeech(**(SMALL | options)).setup()
