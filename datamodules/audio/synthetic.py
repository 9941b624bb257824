"""Speech that nobody said: an embedded synthesiser, nothing to download."""

from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from datamodules.audio.frames import AudioFrames
from datamodules.audio.phones import PAUSE, WORDS
from datamodules.audio.shards import frames_of
from datamodules.audio.vocal_tract import RATE, sound
from datamodules.audio.voice import CONTROL, Voice, articulate, draw_voice
from datamodules.ragged import Ragged
from vrnn.arguments import check_counts

__all__ = ["SyntheticSpeech", "Utterance", "draw_words", "utterance"]


class Utterance(NamedTuple):
    """Something said."""

    samples: np.ndarray
    """(N,), int16, 16,000 a second."""
    text: str
    """Words, and a comma for a pause."""
    phones: list[str]
    """The sounds, pauses included."""
    ends: np.ndarray
    """The sample at which each of them ends, (len(phones),)."""
    speaker: int
    voice: Voice
    """The speaker's voice."""


def draw_words(rng: np.random.Generator) -> list[str]:
    """Draws what to say: three to seven words, in a longer utterance with a pause among them."""
    words = [str(word) for word in rng.choice(sorted(WORDS), rng.integers(3, 8))]
    if len(words) > 4:
        words.insert(rng.integers(2, len(words) - 1), ",")
    return words


def utterance(seed: int, index: int, speakers: int) -> Utterance:
    """Makes utterance `index` of the corpus `seed`, whatever other ones are made.

    Speakers take turns: utterance i is by speaker i mod `speakers`, whose voice depends on
    `seed` and the speaker alone.
    """
    check_counts(speakers=speakers)

    speaker = index % speakers
    voice = draw_voice(np.random.default_rng([seed, 0, speaker]))
    rng = np.random.default_rng([seed, 1, index])
    words = draw_words(rng)
    said = [phone for word in words for phone in WORDS.get(word, (PAUSE,))]
    sounds = [PAUSE, *said, PAUSE]
    tracks = articulate(sounds, voice, rng)
    ends = tracks.ends * (RATE // CONTROL)
    return Utterance(sound(tracks, voice, rng), " ".join(words), sounds, ends, speaker, voice)


class SyntheticSpeech(AudioFrames):
    """Utterances of an embedded synthesiser, 16 kHz, cut into frames.

    Args:
        utterances, val_utterances, test_utterances: how many each split has.
        speakers: speakers of the training split; validation and test have as many of their own.
        corpus_seed: of the utterances; another one is another corpus.
        **kwargs: of `AudioFrames`; samples after an utterance's last whole frame are dropped.
    """

    name = "synthetic_speech"

    def __init__(
        self,
        utterances: int = 1000,
        val_utterances: int = 50,
        test_utterances: int = 100,
        speakers: int = 50,
        corpus_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate=RATE, **kwargs)
        check_counts(
            "data.",
            utterances=utterances,
            val_utterances=val_utterances,
            test_utterances=test_utterances,
            speakers=speakers,
        )

        self.counts = {"train": utterances, "val": val_utterances, "test": test_utterances}
        self.speakers, self.corpus_seed = speakers, corpus_seed

    def load(self) -> dict[str, Ragged]:
        return {split: self.say(split, count) for split, count in self.counts.items()}

    def say(self, split: str, count: int) -> Ragged:
        """Says a split; its labels are words, phones, their ends, the speaker and the voice."""
        seed = 3 * self.corpus_seed + list(self.counts).index(split)
        numbers = track(range(count), f"saying {count:,} {split} utterances", transient=True)
        made = [utterance(seed, i, self.speakers) for i in numbers]
        labels: dict[str, list[Any]] = {
            "text": [u.text for u in made],
            "phones": [" ".join(u.phones) for u in made],
            "ends": [" ".join(map(str, u.ends)) for u in made],
            "speaker": [u.speaker for u in made],
            **{field: [getattr(u.voice, field) for u in made] for field in Voice._fields},
        }
        frames = [frames_of(u.samples, self.x_dim) for u in made]
        if min(map(len, frames)) == 0:
            raise ValueError(
                f"data.frame={self.x_dim} is longer than an utterance of the {split} split"
            )
        return Ragged.from_sequences(frames, [f"{split}-{i:05d}" for i in range(count)], labels)
