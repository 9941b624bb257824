"""What a visitor of the page can do with each kind of sequence, and hears or sees of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from playground.ink import PIXELS, ink_frames, typical_hand
from runs.samples import typical_steps

__all__ = ["KINDS", "Kind", "Measure", "Pen", "Sound"]

LOUDNESS = 0.1
"""Root mean square on the page of sound as loud as the corpus; full scale is 1."""


class Measure(NamedTuple):
    """What a reader or listener notices of raw sequences."""

    more: str
    less: str
    of: Callable[[Tensor], Tensor]
    """Shapes: x (T, ..., D) -> (...)."""
    degrees: bool = False


def step_length(x: Tensor) -> Tensor:
    return x[..., 1:].norm(dim=-1).mean(0)


def lifts(x: Tensor) -> Tensor:
    return x[..., 0].mean(0)


def progress(x: Tensor) -> Tensor:
    return x[..., 1].mean(0)


def height(x: Tensor) -> Tensor:
    """Mean vertical spread of half a second or so, (...)."""
    windows = x[..., 2].cumsum(0).unfold(0, 30, 30)
    return windows.std(-1).mean(0)


def slant(x: Tensor) -> Tensor:
    """Angle to the right between the vertical and what goes up and down, degrees."""
    dx, dy = (d - d.mean(0) for d in x[..., 1:].unbind(-1))
    return torch.atan((dx * dy).sum(0) / dy.square().sum(0)).rad2deg()


def level(x: Tensor) -> Tensor:
    return x.square().mean((0, -1)).sqrt()


def crossings(x: Tensor) -> Tensor:
    return (x[..., 1:] * x[..., :-1] < 0).to(x.dtype).mean((0, -1))


class Kind(ABC):
    """A kind of sequence as a corpus has it.

    Args:
        data: the description of the corpus (`SequenceData.description`).
    """

    title: str
    """What it is, for people."""
    measures: Sequence[Measure]

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data

    @property
    @abstractmethod
    def unit(self) -> float:
        """What a raw unit is on the page."""

    @property
    def length(self) -> int | None:
        """Frames after which the model begins another sequence; None if it goes on for ever."""
        return None

    def frames(self, strokes: Sequence[np.ndarray]) -> np.ndarray:
        """What a visitor drew as raw frames (T, D), none if nothing.

        Args:
            strokes: as of `playground.ink.ink_frames`.

        Raises:
            ValueError: if the model does not go on from a drawing.
        """
        if strokes:
            raise ValueError(f"a model of {self.title} takes no strokes")
        return np.zeros((0, len(self.data["shift"])), np.float32)


class Pen(Kind):
    title = "handwriting"
    measures = (
        Measure("faster", "slower", step_length),
        Measure("more pen lifts", "fewer pen lifts", lifts),
        Measure("wider", "narrower", progress),
        Measure("taller", "lower", height),
        Measure("leaning to the right", "leaning to the left", slant, degrees=True),
    )

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.hand = typical_hand(data)

    @property
    def unit(self) -> float:
        """In pixels."""
        return PIXELS / self.hand.spread

    def frames(self, strokes: Sequence[np.ndarray]) -> np.ndarray:
        return ink_frames(strokes, self.hand)


class Sound(Kind):
    title = "sound"
    measures = (
        Measure("louder", "quieter", level),
        Measure("brighter", "darker", crossings),
    )

    @property
    def unit(self) -> float:
        """As a share of what loudspeakers can."""
        squares = np.square([self.data["shift"], self.data["scale"]]).sum(0)
        return LOUDNESS / float(np.sqrt(squares.mean()))

    @property
    def length(self) -> int | None:
        """The model of an utterance knows what follows a word, which is silence; one that was
        trained in carried windows knows no end."""
        carried = self.data.get("module", {}).get("reset_every") is not None
        return None if carried else 2 * typical_steps(self.data)


KINDS: Mapping[str, type[Kind]] = {"pen": Pen, "audio": Sound}
"""By the `kind` of their corpus (`SequenceData`)."""
