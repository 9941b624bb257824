"""What each kind of sequence looks like as a picture, and which files one listens to. All methods
take raw frames, in the corpus's own units.

A new kind is a class here, one in `reports.kinds`, and one in `playground.kinds` if visitors are
to play with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runs.drawing import draw_signal, draw_strokes, lanes, spectrogram, strokes
from runs.sounds import write_midi, write_wav

__all__ = ["KINDS", "Kind", "Pen", "Plain", "Roll", "Sound", "draw", "draw_columns"]

Columns = Mapping[str, Sequence[np.ndarray]]
"""Lists of sequences (T_i, D) by their titles."""


class Kind(ABC):
    """A kind of sequence. A subclass draws one; what else it can do is up to it."""

    height = 1.1
    """Inches of the picture of one sequence."""

    @abstractmethod
    def draw(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws one sequence. Shapes: x (T, D)."""

    def on_one_scale(self, columns: Columns) -> Columns:
        """What to draw in place of these sequences if they are to be compared."""
        return columns

    def write(
        self,
        x: Sequence[np.ndarray],
        means: Sequence[np.ndarray] | None,
        rate: float,
        folder: Path,
    ) -> list[Path]:
        """Writes generated sequences as files of this kind, besides pictures and arrays.

        Args:
            x: the drawn frames, n times (T, D).
            means: of the distributions that they were drawn from; None where there are none.
        """
        return []

    def write_all(self, x: Sequence[np.ndarray], rate: float, name: Path) -> list[Path]:
        """Writes all sequences as one file, `name` with a suffix, if it can be listened to."""
        return []


class Pen(Kind):
    """Handwriting, frames [pen, dx, dy]."""

    def draw(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        draw_strokes(ax, [stroke[:, 1:] for stroke in strokes(x)])
        ax.set_aspect("equal")
        ax.autoscale_view()
        ax.axis("off")


class Sound(Kind):
    """Sound, frames of D consecutive samples."""

    height = 2.0

    def draw(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws a waveform above its spectrogram, 70 dB of it."""
        samples = x.reshape(-1).astype(float)
        ax.axis("off")
        wave = ax.inset_axes((0, 0.7, 1, 0.3))
        draw_signal(wave, x, rate)
        wave.tick_params(bottom=False, labelbottom=False)
        wave.set_rasterized(True)  # In an SVG every sample would be a point.

        spectrum = ax.inset_axes((0, 0, 1, 0.68), sharex=wave)
        spectrum.imshow(
            spectrogram(samples, rate),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, len(samples) / rate, 0, rate / 2000),
        )
        spectrum.tick_params(labelsize=6)
        spectrum.set_ylabel("kHz", fontsize=6)

    def write(
        self,
        x: Sequence[np.ndarray],
        means: Sequence[np.ndarray] | None,
        rate: float,
        folder: Path,
    ) -> list[Path]:
        """Writes the drawn frames, and separately the means, which the original sampler wrote."""
        files = []
        if means is not None:
            files.append(folder / "generated_mean.png")
            draw_columns(self, {"": means}, rate).savefig(files[0])
        for label, sequences in (("sampled", x), ("mean", means or [])):
            for i, frames in enumerate(sequences):
                files.append(folder / f"generated_{i:02d}_{label}.wav")
                write_wav(files[-1], frames, rate)
        return files

    def write_all(self, x: Sequence[np.ndarray], rate: float, name: Path) -> list[Path]:
        """One after the other."""
        file = name.with_name(f"{name.name}.wav")
        write_wav(file, np.concatenate(x), rate)
        return [file]


class Roll(Kind):
    """Music as a piano roll, frames of D bits, 1 where a key is down."""

    def draw(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws time to the right, pitch upwards."""
        ax.imshow(x.T, origin="lower", aspect="auto", cmap="Greys", interpolation="nearest")
        ax.tick_params(labelsize=6)

    def write(
        self,
        x: Sequence[np.ndarray],
        means: Sequence[np.ndarray] | None,
        rate: float,
        folder: Path,
    ) -> list[Path]:
        files = [folder / f"generated_{i:02d}.mid" for i in range(len(x))]
        for file, roll in zip(files, x, strict=True):
            write_midi(file, roll, rate)
        return files


class Plain(Kind):
    """Real numbers of any meaning."""

    def draw(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws each coordinate over time, the first one on top, of what `on_one_scale` gives."""
        ax.plot(np.arange(len(x)) / rate, x, linewidth=0.7)
        ax.margins(x=0)
        ax.tick_params(labelsize=6, left=False, labelleft=False)

    def on_one_scale(self, columns: Columns) -> Columns:
        return lanes(columns)


KINDS: dict[str, Kind] = {"pen": Pen(), "audio": Sound(), "binary": Roll(), "real": Plain()}
"""By the `kind` of their corpus (`SequenceData`)."""


def draw(kind: str, sequences: Sequence[np.ndarray], rate: float) -> Figure:
    """Draws sequences (T_i, D) of a kind one below the other."""
    return draw_columns(KINDS[kind], {"": sequences}, rate)


def draw_columns(look: Kind, columns: Columns, rate: float) -> Figure:
    """Draws several lists of sequences side by side, each under its title."""
    rows = max(len(column) for column in columns.values())
    size = (7 * len(columns), look.height * rows + 0.4)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for j, (title, sequences) in enumerate(look.on_one_scale(columns).items()):
        axes[0, j].set_title(title, fontsize=9)
        for ax, x in zip(axes[:, j], sequences, strict=False):
            ax.axis("on")
            look.draw(ax, x, rate)
    return figure
