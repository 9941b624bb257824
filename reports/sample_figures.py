"""Real sequences beside those of one or several models. All functions take raw frames (T, D)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from runs.drawing import ACCENT, INK, draw_strokes, strokes

__all__ = ["draw_handwriting", "draw_waveforms"]

ZOOM = 0.04
"""Seconds of the narrower view of a waveform."""


def draw_waveforms(columns: Mapping[str, Sequence[np.ndarray]], rate: float) -> Figure:
    """Each waveform whole, and below it where it is loudest, 40 milliseconds of it.

    Each has a scale of its own: quiet ones would be flat lines beside loud ones.
    """
    rows = max(map(len, columns.values()))
    size = (3.6 * len(columns) + 0.6, 1.9 * rows + 0.6)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(2 * rows, len(columns), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for j, (title, sequences) in enumerate(columns.items()):
        axes[0, j].set_title(title, fontsize=9)
        for i, x in enumerate(sequences):
            samples = x.reshape(-1).astype(float)
            seconds = np.arange(len(samples)) / rate
            middle = float(seconds[np.abs(samples).argmax()])
            start = float(np.clip(middle - ZOOM / 2, 0, max(seconds[-1] - ZOOM, 0)))
            whole, zoomed = axes[2 * i, j], axes[2 * i + 1, j]
            whole.axvspan(start, start + ZOOM, color=ACCENT, alpha=0.25, linewidth=0)
            peak = 1.05 * max(float(np.abs(samples).max()), 1e-9)
            for ax, width in ((whole, 0.3), (zoomed, 0.8)):
                ax.axis("on")
                ax.plot(seconds, samples, color=INK, linewidth=width)
                ax.set_rasterized(True)  # In an SVG every sample would be a point.
                ax.margins(x=0)
                ax.tick_params(labelsize=6)
                ax.set_ylim(-peak, peak)
                ax.spines[["top", "right"]].set_visible(False)
            zoomed.set(xlim=(start, start + ZOOM))
    figure.supxlabel("seconds", fontsize=8)
    figure.suptitle("Waveforms, whole and where they are loudest", fontsize=10)
    return figure


def draw_handwriting(columns: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Lines one below the other, as on a sheet of paper."""
    sheets = {title: [strokes(x) for x in lines] for title, lines in columns.items()}
    ink = [np.concatenate(line)[:, 1:] for lines in sheets.values() for line in lines]
    # Generated lines may drift: the pitch of the sheet is that of most lines.
    pitch = 1.25 * float(np.quantile([np.ptp(p[:, 1]) for p in ink], 0.8))
    right = max(float(p[:, 0].max()) for p in ink)
    left = min(float(p[:, 0].min()) for p in ink)
    rows = max(map(len, columns.values()))
    width = 15 / max(len(columns), 2)
    height = width * rows * pitch / max(right - left, 1.0) + 0.5
    size = (width * len(columns), float(np.clip(height, 1.5, 14)))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for ax, (title, lines) in zip(axes, sheets.items(), strict=True):
        for i, line in enumerate(lines):
            y = np.concatenate(line)[:, 2]
            down = (y.min() + y.max()) / 2 + i * pitch
            draw_strokes(ax, [stroke[:, 1:] - [0, down] for stroke in line])
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(left, right), ylim=(-(rows - 0.5) * pitch, 0.5 * pitch))
        ax.set_aspect("equal")
        ax.axis("off")
    figure.suptitle("Handwriting, all on the same scale", fontsize=10)
    return figure
