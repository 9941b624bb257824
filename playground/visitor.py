"""One visitor of the page: what the page may ask for, and what it is answered.

The page sends JSON, and gets raw frames back, float32 little-endian, n times D numbers:

    {"type": "start", "seed": 7, "strokes": [[[x, y, ms], ...], ...]}   the frames of the drawing
    {"type": "more", "frames": 16, "temperature_z": 1, "temperature_x": 1, "offsets": [0, ...]}

It asks for more when it has shown what it had, so that nothing is generated for a page that is
paused, hidden or gone. All but "type" and "frames" may be left out.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from playground.kinds import KINDS, Kind
from playground.stream import Controls, Stream
from playground.styles import Style, find_styles
from vrnn.checkpoint import load_module
from vrnn.models.base import SequenceModel

__all__ = ["Player", "Visitor", "load_player"]

MAX_FRAMES = 64
"""Frames of an answer: other visitors wait for so long."""

MAX_POINTS = 20_000


class Player(NamedTuple):
    """A trained model, shared by all visitors."""

    model: SequenceModel
    data: Mapping[str, Any]
    """The description of its corpus (`SequenceData.description`)."""
    kind: Kind
    styles: list[Style]

    def about(self) -> dict[str, Any]:
        """What the page has to know."""
        return {
            "type": "about",
            "model": type(self.model).__name__,
            "parameters": self.model.parameter_count,
            "latents": self.model.z_dim,
            "corpus": self.data["name"],
            "kind": self.data["kind"],
            "width": self.model.x_dim,
            "rate": self.data["rate"],
            "unit": self.kind.unit,
            "styles": [style._asdict() for style in self.styles],
        }


def load_player(run: str | Path) -> Player:
    """Loads a trained model and measures its styles.

    Args:
        run: folder of a run, or a checkpoint.

    Raises:
        ValueError: if there is no usable checkpoint, or its model is of another kind.
    """
    module = load_module(run)
    model, data = module.model, module.hparams["data"]
    if data["kind"] not in KINDS:
        known = " and ".join(f"{kind.title} ({name})" for name, kind in KINDS.items())
        raise ValueError(
            f"{run} is a model of {data['name']}, whose frames are of the kind {data['kind']}; "
            f"the playground is for {known}, generate.py for all"
        )
    kind = KINDS[data["kind"]](data)
    return Player(model, data, kind, find_styles(model, kind, data))


class Visitor:
    """One stream, and the answers to one page."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.stream: Stream | None = None

    def answer(self, text: str) -> bytes:
        """Answers a message.

        Raises:
            ValueError: if it makes no sense; says why.
        """
        message = parse(text)
        if message.get("type") == "start":
            raw = self.start(message)
        elif message.get("type") == "more":
            raw = self.more(message)
        else:
            raise ValueError('"type" must be "start" or "more"')
        return raw.astype("<f4").tobytes()

    def start(self, message: dict[str, Any]) -> np.ndarray:
        """Starts anew after what was drawn, which is returned in raw frames, (T, D)."""
        player, model = self.player, self.player.model
        seed = int(number(message, "seed", 0, 0, 2**32 - 1, whole=True))
        raw = player.kind.frames(read_strokes(message.get("strokes", [])))
        prime = model.normaliser.standardise(torch.from_numpy(raw))[:, None]
        self.stream = Stream(model, seed, prime, length=player.kind.length)
        return raw

    def more(self, message: dict[str, Any]) -> np.ndarray:
        """The next frames, raw, (n, D)."""
        if self.stream is None:
            raise ValueError('nothing was started: send "start" first')
        n = int(number(message, "frames", None, 1, MAX_FRAMES, whole=True))
        controls = Controls(
            number(message, "temperature_z", 1.0, 0.0, 10.0),
            number(message, "temperature_x", 1.0, 0.0, 10.0),
            self.offsets(message),
        )
        try:
            x = self.stream.frames(n, controls)[:, 0]
        except FloatingPointError as error:
            self.stream = None
            raise ValueError(f"{error}: start anew, with gentler settings") from error
        return self.player.model.normaliser.raw(x).numpy()

    def offsets(self, message: dict[str, Any]) -> torch.Tensor:
        """Of all latent dimensions, (Z,), from those of the sliders."""
        styles = self.player.styles
        given = message.get("offsets", [0.0] * len(styles))
        if not isinstance(given, list) or len(given) != len(styles):
            raise ValueError(f'"offsets" must be a list of {len(styles)} numbers')
        offsets = torch.zeros(self.player.model.z_dim)
        for style, value in zip(styles, given, strict=True):
            offsets[style.dimension] = number({"offsets": value}, "offsets", None, -10.0, 10.0)
        return offsets


def parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the message is not JSON ({type(error).__name__})") from error
    if not isinstance(message, dict):
        raise ValueError("the message must be an object")
    return message


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def number(
    message: Mapping[str, Any],
    key: str,
    default: float | None,
    low: float,
    high: float,
    whole: bool = False,
) -> float:
    value = message.get(key, default)
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise ValueError(f'"{key}" must be a {kind} from {low:,} to {high:,}')
    return value


def read_strokes(strokes: object) -> list[np.ndarray]:
    """Strokes (n_i, 3) of x, y and time, all finite."""
    wrong = ValueError('"strokes" must be a list of lists of points [x, y, milliseconds]')
    if not isinstance(strokes, list) or not all(isinstance(stroke, list) for stroke in strokes):
        raise wrong
    points = sum(len(stroke) for stroke in strokes)
    if points > MAX_POINTS:
        raise ValueError(f"a drawing may have {MAX_POINTS:,} points, and this one has {points:,}")
    read = []
    for stroke in filter(None, strokes):
        try:
            array = np.array(stroke)
        except ValueError:
            raise wrong from None
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "if":
            raise wrong
        if not (np.abs(array) < 1e7).all() or not math.isfinite(array.sum()):
            raise ValueError('"strokes" must be finite, and in pixels and milliseconds')
        read.append(array.astype(np.float64))
    return read
