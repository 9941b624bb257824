"""The parts of pictures, and what becomes of them. Frames are raw, in the corpus's own units."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from scipy.signal import stft  # type: ignore[import-untyped]

from datamodules.handwriting.pen import points

__all__ = [
    "ACCENT",
    "INK",
    "PALE",
    "as_image",
    "draw_latents",
    "draw_signal",
    "draw_strokes",
    "lanes",
    "slug",
    "spectrogram",
    "strokes",
]

INK, ACCENT, PALE = "#1b2a41", "#c8553d", "#b8c0cc"


def strokes(x: np.ndarray) -> list[np.ndarray]:
    """Cuts ink where the pen is lifted. Shapes: x (T, 3), [pen, dx, dy] -> (n, 3) each, [step, x,
    y], the steps from -1, where the pen starts, to T - 1, all once."""
    line = points(x)
    ends = np.flatnonzero(line[:, 0] > 0.5) + 1
    line[:, 0] = np.arange(len(line)) - 1
    return [stroke for stroke in np.split(line, ends) if len(stroke)]


def draw_strokes(ax: Axes, lines: Sequence[np.ndarray]) -> None:
    """Draws lines (n, 2), those of a single point as dots."""
    dots = np.array([line[0] for line in lines if len(line) == 1])
    ax.add_collection(
        LineCollection([line for line in lines if len(line) > 1], colors=INK, linewidths=0.9)
    )
    if len(dots):
        ax.scatter(dots[:, 0], dots[:, 1], s=1.5, color=INK)


def draw_signal(ax: Axes, x: np.ndarray, rate: float) -> None:
    """Draws a waveform, frames end to end. Shapes: x (T, D)."""
    samples = x.reshape(-1)
    ax.plot(np.arange(len(samples)) / rate, samples, color=INK, linewidth=0.4)
    ax.margins(x=0)
    ax.tick_params(labelsize=6)


def lanes(columns: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Sequence[np.ndarray]]:
    """Gives each coordinate a band of its own, from its lowest to its highest value anywhere: they
    may be of different units. Shapes: (T_i, D) each."""
    every = np.concatenate([x for column in columns.values() for x in column])
    low, high = every.min(0, initial=np.inf), every.max(0, initial=-np.inf)
    height = 1.1 * np.where(high > low, high - low, 1.0)
    place = np.arange(every.shape[1])
    return {title: [(x - low) / height - place for x in c] for title, c in columns.items()}


def spectrogram(samples: np.ndarray, rate: float) -> np.ndarray:
    """Decibels of frequencies, the lowest first, over time; 0 of the loudest, at least -70."""
    window = min(max(round(0.02 * rate), 16), len(samples))
    z = np.abs(stft(samples, rate, nperseg=window, noverlap=window - -(-window // 4))[2])
    decibels: np.ndarray = 20 * np.log10(np.maximum(z / max(z.max(), 1e-12), 10 ** (-70 / 20)))
    return decibels


def draw_latents(
    kl: np.ndarray,
    kl_by_step: np.ndarray,
    active: np.ndarray,
    overlap: np.ndarray,
    effective: np.ndarray,
) -> Figure:
    """Draws the use of the latents (`vrnn.diagnostics.LatentUse`), by dimension and by step."""
    order = np.argsort(-kl)
    figure = Figure(figsize=(10, 4.4), dpi=110, layout="constrained")
    (by_kl, by_overlap), (steps, shares) = figure.subplots(2, 2)
    colours = np.where(active[order] > 0, INK, PALE)
    by_kl.bar(np.arange(len(kl)), kl[order], color=colours)
    by_kl.set(ylabel="KL, nats per step")
    by_kl.set_title(f"{int(active.sum())} of {len(kl)} dimensions active", fontsize=9)
    by_overlap.bar(np.arange(len(kl)), overlap[order], color=colours)
    by_overlap.set(ylim=(0, 1))
    by_overlap.set_title("overlap of posterior and prior", fontsize=9)
    steps.plot(kl_by_step, color=INK, linewidth=0.7)
    steps.set(ylabel="KL, nats")
    shares.plot(effective, color=INK, linewidth=0.7)
    shares.set(ylim=(0, 1.02))
    shares.set_title("share of particles that carry weight", fontsize=9)
    for ax in (by_kl, by_overlap):
        ax.set_xlabel("latent dimension, by KL", fontsize=8)
    for ax in (steps, shares):
        ax.set_xlabel("time step", fontsize=8)
        ax.margins(x=0)
    return figure


def as_image(figure: Figure) -> tuple[Image.Image, bytes]:
    """A figure as a picture, and the same as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer), buffer.getvalue()


def slug(title: str) -> str:
    """A title as the name of a file."""
    return title.lower().replace(" ", "_")
