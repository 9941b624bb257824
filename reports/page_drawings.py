"""Sequences as drawings inside a page: strokes, sound, notes and tracks, all in raw units."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from datamodules.music import LOWEST
from runs.drawing import spectrogram, strokes
from runs.sounds import notes, sixteen_bits

__all__ = ["Drawer", "Drawing", "drawings", "ink", "png", "roll", "scales", "sound", "tracks"]

WIDTH = 2000
"""Of a line of handwriting, in the units of its drawing."""

SOUND_BYTES = 2_400_000
"""Of all the sound in a page, as 16-bit samples."""

COLUMNS = 500
"""Of a waveform or a spectrogram, about."""

TRACKS = 8
"""Coordinates of other data that are drawn, at most."""


class Drawing(NamedTuple):
    """One sequence, drawn; the template drawing_`kind`.html shows it."""

    kind: str
    title: str
    text: str
    """What it shows, in words."""
    parts: dict[str, Any]
    """What the template of its kind needs."""


Drawer = Callable[[np.ndarray, str, str], Drawing]
"""Draws one sequence (T, D) under its title, and says what of it is lost."""


def drawings(
    draw: Drawer, sequences: Sequence[np.ndarray], titles: Sequence[str]
) -> list[Drawing]:
    """Draws sequences (T_i, D), each up to its first frame that is not finite."""
    drawn = []
    for x, title in zip(sequences, titles, strict=True):
        finite = np.isfinite(x).all(axis=1)
        steps = len(x) if finite.all() else int(finite.argmin())
        lost = "" if finite.all() else f"; not finite from step {steps + 1} on"
        if steps == 0:
            drawn.append(Drawing("empty", title, "No finite frame to draw.", {}))
        else:
            drawn.append(draw(x[:steps], title, lost))
    return drawn


def ink(x: np.ndarray, title: str, lost: str, rate: float) -> Drawing:
    """Strokes of a pen as paths. Shapes: x (T, 3), [pen, dx, dy]."""
    pieces = [stroke[:, 1:] * (1, -1) for stroke in strokes(x)]  # Pictures count downwards.
    line = np.concatenate(pieces)
    low, size = line.min(axis=0), np.ptp(line, axis=0)
    scale = WIDTH / max(size[0], 2 * size[1], 1e-9)
    width, height = np.rint(size * scale).astype(int)
    parts = {
        "strokes": [path(np.rint((piece - low) * scale).astype(int)) for piece in pieces],
        "width": int(width),
        "height": int(height),
        "rate": rate,
    }
    text = f"{len(x):,} pen positions in {len(pieces)} strokes{lost}"
    return Drawing("pen", title, text, parts)


def path(stroke: np.ndarray) -> str:
    """SVG path data; a single point becomes a dot. Shapes: stroke (n, 2), whole numbers."""
    steps = np.diff(stroke, axis=0) if len(stroke) > 1 else np.zeros((1, 2), int)
    return f"M{stroke[0, 0]} {stroke[0, 1]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps)


def sound(x: np.ndarray, title: str, lost: str, rate: float, share: int) -> Drawing:
    """A player with a waveform and a spectrogram, 70 dB of it. Shapes: x (T, D), D samples."""
    whole = x.reshape(-1).astype(float)
    samples = whole[: max(SOUND_BYTES // 2 // share, 1)]
    clipped, beyond = sixteen_bits(samples)
    file = io.BytesIO()
    soundfile.write(file, clipped, round(rate), subtype="PCM_16", format="WAV")
    wave = clipped / 32768
    pieces = np.array_split(wave, min(COLUMNS, len(wave)))
    loudest = max(float(np.abs(wave).max()), 1e-9)
    tops = [
        (round(100 - 98 * p.max() / loudest), round(100 - 98 * p.min() / loudest)) for p in pieces
    ]
    outline = [f"{i} {top}" for i, (top, _) in enumerate(tops)]
    outline += [f"{i} {bottom}" for i, (_, bottom) in reversed(list(enumerate(tops)))]
    seconds = len(samples) / rate
    cut = f" of {len(whole) / rate:.1f} s" if len(samples) < len(whole) else ""
    louder = f"; {beyond:,} samples clipped to 16 bits" if beyond else ""
    parts = {
        "wav": uri("audio/wav", file.getvalue()),
        "outline": "M" + "L".join(outline) + "Z",
        "columns": max(len(pieces) - 1, 1),
        "spectrogram": magma(spectrogram(samples, rate)),
        "seconds": seconds,
        "top": rate / 2000,
    }
    peak = f"peak {loudest:.1%} of full scale"
    text = f"{seconds:.2f} s{cut} at {rate / 1000:g} kHz, {peak}{louder}{lost}"
    return Drawing("audio", title, text, parts)


def magma(decibels: np.ndarray) -> str:
    """A picture of decibels between -70 and 0, the first row at the bottom."""
    levels = np.rint((decibels[::-1] + 70) / 70 * 255).astype(np.uint8)
    image = Image.fromarray(levels)
    image = image.resize((min(levels.shape[1], COLUMNS), min(levels.shape[0], 128)))
    palette = (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(palette.tobytes())
    return png(image)


def roll(x: np.ndarray, title: str, lost: str, rate: float) -> Drawing:
    """Keys that are down, one long note each. Shapes: x (T, D), 1 where a key is down."""
    found = notes(x)
    piano = x.shape[1] == 88
    used = sorted({key for _, _, key in found}) or [0, x.shape[1] - 1]
    low, high = (max(used[0] - 2, 0), min(used[-1] + 2, x.shape[1] - 1))
    parts = {
        "notes": found,
        "steps": len(x),
        "low": low,
        "high": high,
        "rate": rate,
        "lowest": LOWEST if piano else None,
        "octaves": [key for key in range(low, high + 1) if piano and (key + LOWEST) % 12 == 0],
    }
    unit = "notes" if piano else "stretches of ones"
    text = f"{len(found):,} {unit} in {len(x):,} steps, {len(x) / rate:.0f} s{lost}"
    return Drawing("binary", title, text, parts)


def scales(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Least and greatest value of each coordinate, (2, D), that all drawings share."""
    frames = np.concatenate([np.asarray(x, float) for x in sequences])
    frames = np.where(np.isfinite(frames), frames, np.nan)
    kept = frames[np.isfinite(frames).all(axis=1)]
    if len(kept) == 0:
        return np.zeros((2, frames.shape[1])) + [[0.0], [1.0]]
    return np.stack([kept.min(axis=0), kept.max(axis=0)])


def tracks(
    x: np.ndarray, title: str, lost: str, rate: float, columns: Sequence[str], ranges: np.ndarray
) -> Drawing:
    """Each coordinate over time, one below the other. Shapes: x (T, D), ranges (2, D)."""
    shown = min(x.shape[1], TRACKS)
    names = [columns[d] if d < len(columns) else str(d) for d in range(shown)]
    span = np.maximum(ranges[1] - ranges[0], 1e-9)
    height = np.rint(56 - 52 * (x - ranges[0]) / span).astype(int)
    across = np.rint(np.linspace(0, 1000, max(len(x), 2))[: len(x)]).astype(int)
    lanes = [
        (
            name,
            "M" + "L".join(f"{a} {60 * d + y}" for a, y in zip(across, height[:, d], strict=True)),
        )
        for d, name in enumerate(names)
    ]
    more = f"; the first {shown} of {x.shape[1]} coordinates" if shown < x.shape[1] else ""
    seconds = "" if rate == 1 else f", {len(x) / rate:.3g} s"  # 1 where nobody knows
    text = f"{len(x):,} steps{seconds}{more}{lost}"
    return Drawing("real", title, text, {"lanes": lanes, "height": 60 * shown})


def png(image: Image.Image) -> str:
    """A picture as the source of an <img>."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return uri("image/png", file.getvalue())


def uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
