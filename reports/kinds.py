"""What pages, figures and tables show of each kind of sequence. Frames are raw, (T, D)."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from datamodules.handwriting.pen import points
from reports.page_drawings import Drawer, Drawing, drawings, ink, roll, scales, sound, tracks
from reports.published import Unit
from reports.sample_figures import draw_handwriting, draw_waveforms
from runs import kinds
from runs.drawing import INK, draw_strokes, lanes, strokes

__all__ = ["KINDS", "Kind", "finish", "kind_of"]


class Kind:
    """A kind of sequence; where a subclass says nothing else, real numbers over time."""

    look: kinds.Kind = kinds.Plain()
    """How it is drawn."""
    title = "sequences"
    """What it is, for people."""
    on_page = 4
    """Sequences that a page shows."""
    beside = 4
    """Sequences that a figure shows beside as many generated ones."""
    steps = 100
    """Frames of generated sequences in figures of many of them."""
    means = False
    """The means that frames are drawn from are shown, too."""
    unit = Unit("nats per step, standardised", "_per_step", 3)
    """Of scores, where the literature has none of its own."""
    in_paper = True
    """The paper's Table 1 has corpora of it."""
    axes = True
    """Pictures of it have axes, and all of them one height."""
    below: tuple[float, ...] = ()
    """Heights of the panels that `draw_kl` draws into, a panel of curves being 1."""

    def page_drawings(
        self,
        sequences: Sequence[np.ndarray],
        titles: Sequence[str],
        rate: float,
        columns: Sequence[str] = (),
        share: int = 1,
    ) -> list[Drawing]:
        """Draws sequences (T_i, D) for a page. What follows a frame that is not finite is left
        out.

        Args:
            columns: names of the coordinates; their numbers stand for those that have none.
            share: how many sounds the page has in all, between which its size is divided.
        """
        if not sequences:
            return []
        return drawings(self.drawer(sequences, rate, columns, share), sequences, titles)

    def drawer(
        self, sequences: Sequence[np.ndarray], rate: float, columns: Sequence[str], share: int
    ) -> Drawer:
        """What draws one of these sequences for a page."""
        return partial(tracks, rate=rate, columns=columns, ranges=scales(sequences))

    def draw_beside(self, columns: Mapping[str, Sequence[np.ndarray]], rate: float) -> Figure:
        """Draws lists of sequences side by side, each under its title."""
        figure = kinds.draw_columns(self.look, columns, rate)
        figure.suptitle("Real and generated sequences", fontsize=10)
        return figure

    def frame_length(self, rate: float, x_dim: int) -> float:
        """Length of a frame on the axis of time: seconds, or steps where these mean more."""
        return 1 / rate

    def time_label(self, rate: float) -> str:
        return "time step" if rate == 1 else "seconds"

    def draw_over_time(self, ax: Axes, x: np.ndarray, edges: np.ndarray) -> None:
        """Draws a sequence (T, D) along the edges (T + 1,) of its frames."""
        (apart,) = lanes({"": [x]})[""]
        ax.plot((edges[1:] + edges[:-1]) / 2, apart, lw=0.8)
        finish(ax, "frames")
        ax.tick_params(left=False, labelleft=False)

    def draw_kl(self, figure: Figure, ax: Axes, x: np.ndarray, kl: np.ndarray) -> None:
        """Draws a sequence (T, D) in the colours of the KL of its steps (T,)."""

    def draw_cell(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws a sequence as one of many in a grid."""
        self.look.draw(ax, x, rate)

    def row_heights(self, rows: Sequence[Sequence[np.ndarray]], width: float) -> np.ndarray:
        """Inches of the rows of a grid whose columns are `width` inches wide."""
        return np.full(len(rows), 1.15)


class Pen(Kind):
    look = kinds.Pen()
    title = "handwriting"
    on_page, beside, steps = 6, 8, 160
    axes = False
    below = (1.4,)

    def drawer(
        self, sequences: Sequence[np.ndarray], rate: float, columns: Sequence[str], share: int
    ) -> Drawer:
        return partial(ink, rate=rate)

    def draw_beside(self, columns: Mapping[str, Sequence[np.ndarray]], rate: float) -> Figure:
        """The paper's figure 4."""
        return draw_handwriting(columns)

    def draw_over_time(self, ax: Axes, x: np.ndarray, edges: np.ndarray) -> None:
        """Draws the height of the pen."""
        lines = [
            np.column_stack([(step + 1) * edges[1], y])
            for step, _, y in (stroke.T for stroke in strokes(x))
        ]
        draw_strokes(ax, lines)
        ax.autoscale_view()
        finish(ax, "height of the pen")

    def draw_kl(self, figure: Figure, ax: Axes, x: np.ndarray, kl: np.ndarray) -> None:
        """Draws ink, each piece of it in the colour of the KL of the step that it is."""
        pieces, values = [], []
        for stroke in strokes(x):
            pieces += [stroke[i : i + 2, 1:] for i in range(len(stroke) - 1)]
            values += [kl[int(step)] for step in stroke[1:, 0]]
        highest = max(float(np.quantile(kl, 0.98)), 1e-6)
        coloured = LineCollection(pieces, array=np.array(values), cmap="viridis_r", linewidths=1.3)
        coloured.set_clim(0, highest)
        ax.add_collection(coloured)
        ax.set_aspect("equal")
        ax.autoscale_view()
        ax.axis("off")
        bar = figure.colorbar(coloured, ax=ax, shrink=0.8, extend="max")
        bar.set_label("KL, nats", fontsize=8)
        bar.ax.tick_params(labelsize=6)

    def row_heights(self, rows: Sequence[Sequence[np.ndarray]], width: float) -> np.ndarray:
        """As high as the ink, if the widest fills a column."""
        extents = np.array([[np.ptp(points(x)[:, 1:], axis=0) for x in row] for row in rows])
        across, up = extents[..., 0].max().clip(1), extents[..., 1].max(1)
        heights: np.ndarray = (width * 1.15 * up / across).clip(0.35, 2.0)
        return heights


class Sound(Kind):
    look = kinds.Sound()
    title = "sound"
    beside, steps = 3, 60
    means = True
    unit = Unit("nats per frame, standardised", "_per_step", 2)

    def drawer(
        self, sequences: Sequence[np.ndarray], rate: float, columns: Sequence[str], share: int
    ) -> Drawer:
        return partial(sound, rate=rate, share=share)

    def draw_beside(self, columns: Mapping[str, Sequence[np.ndarray]], rate: float) -> Figure:
        """The paper's figure 3."""
        return draw_waveforms(columns, rate)

    def frame_length(self, rate: float, x_dim: int) -> float:
        return x_dim / rate

    def draw_over_time(self, ax: Axes, x: np.ndarray, edges: np.ndarray) -> None:
        samples = x.reshape(-1)
        ax.plot(np.linspace(edges[0], edges[-1], len(samples)), samples, color=INK, lw=0.4)
        ax.set_rasterized(True)
        finish(ax, "waveform")

    def draw_cell(self, ax: Axes, x: np.ndarray, rate: float) -> None:
        """Draws the waveform alone."""
        kinds.Plain().draw(ax, x.reshape(-1, 1), rate)
        ax.lines[0].set(linewidth=0.4, color=INK)
        ax.set_rasterized(True)


class Roll(Kind):
    look = kinds.Roll()
    title = "piano rolls"
    steps = 64
    in_paper = False

    def drawer(
        self, sequences: Sequence[np.ndarray], rate: float, columns: Sequence[str], share: int
    ) -> Drawer:
        return partial(roll, rate=rate)

    def frame_length(self, rate: float, x_dim: int) -> float:
        return 1.0

    def time_label(self, rate: float) -> str:
        return "time step"

    def draw_over_time(self, ax: Axes, x: np.ndarray, edges: np.ndarray) -> None:
        extent = (edges[0], edges[-1], -0.5, x.shape[1] - 0.5)
        ax.imshow(
            x.T,
            extent=extent,
            origin="lower",
            aspect="auto",
            cmap="Greys",
            interpolation="nearest",
        )
        finish(ax, "pitch")


class Plain(Kind):
    title = "sequences of real numbers"


KINDS: dict[str, Kind] = {"pen": Pen(), "audio": Sound(), "binary": Roll(), "real": Plain()}


def kind_of(name: str) -> Kind:
    """The kind of that name; of a run that does not tell its kind, one of plain numbers."""
    return KINDS.get(name, Kind())


def finish(ax: Axes, label: str) -> None:
    """Labels an axis of a figure in small print."""
    ax.set_ylabel(label, fontsize=8)
    ax.tick_params(labelsize=6)
    ax.spines[["top", "right"]].set_visible(False)
