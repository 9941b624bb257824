"""What the latents of a run do, as pictures. Sequences are raw, (T, D)."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from datamodules.handwriting.pen import points
from reports.inference import Inferred, continued, decoded, drawn, state_after
from runs.drawing import ACCENT, DRAWERS, INK, draw_strokes, lanes, strokes
from vrnn.models.base import SequenceModel

__all__ = [
    "change_of_mean",
    "draw_interpolation",
    "draw_over_time",
    "draw_prior_posterior",
    "draw_traversal",
]

GREY = "#98a2b3"
OFFSETS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def change_of_mean(mean: np.ndarray) -> np.ndarray:
    r"""The squared change of the posterior mean from step to step, the paper's

    .. math:: \delta_t = \sum_j (\mu_{t,j} - \mu_{t-1,j})^2

    Shapes: (T, Z) -> (T,), of the first step not a number.
    """
    change = np.square(np.diff(mean, axis=0)).sum(1)
    return np.concatenate([[np.nan], change])


def draw_over_time(kind: str, rate: float, seen: Inferred) -> Figure:
    """The paper's figure 2: the change of the posterior mean and the KL, above the signal, on one
    axis of time."""
    panels = 4 if kind == "pen" else 3
    heights = [1, 1, 1.2, 1.4][:panels]
    figure = Figure(figsize=(10, 1.5 * panels + 0.6), dpi=110, layout="constrained")
    axes = figure.subplots(panels, 1, height_ratios=heights, squeeze=False)[:, 0]
    edges = np.arange(len(seen.x) + 1) * frame_length(kind, rate, seen.x.shape[1])
    kl = seen.kl.sum(1)
    for ax, values, label in (
        (axes[0], change_of_mean(seen.mean), r"$\delta_t=\|\mu_t-\mu_{t-1}\|^2$"),
        (axes[1], kl, "KL, nats"),
    ):
        ax.stairs(np.nan_to_num(values), edges, fill=True, color=ACCENT, alpha=0.85)
        ax.set_ylim(bottom=0)
        finish(ax, label)
    draw_signal(axes[2], kind, seen.x, edges)
    for ax in axes[:3]:
        ax.set_xlim(edges[0], edges[-1])
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    axes[2].set_xlabel(time_label(kind, rate), fontsize=8)
    if kind == "pen":
        draw_coloured_ink(figure, axes[3], seen.x, kl)
    figure.suptitle(
        f"What the latents react to: {kl.sum():,.1f} nats of KL over {len(kl):,} steps",
        fontsize=10,
    )
    return figure


def draw_prior_posterior(kind: str, rate: float, seen: Inferred) -> Figure:
    """Prior against posterior by step: means and two standard deviations of the four dimensions of
    the highest KL, over the 160 steps in which there is most of it."""
    strongest = np.argsort(-seen.kl.mean(0), kind="stable")[:4]
    n = min(160, len(seen.x))
    total = np.convolve(seen.kl.sum(1), np.ones(n), mode="valid")
    part = slice(start := int(total.argmax()), start + n)
    edges = np.arange(part.start, part.stop + 1) * frame_length(kind, rate, seen.x.shape[1])
    rows = len(strongest) + 1
    figure = Figure(figsize=(10, 1.25 * rows + 0.7), dpi=110, layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    for ax, j in zip(axes, strongest, strict=False):
        mean, std = seen.prior_mean[part, j], seen.prior_std[part, j]
        band = {"step": "post", "color": GREY, "linewidth": 0, "alpha": 0.45}
        ax.fill_between(edges, held(mean - 2 * std), held(mean + 2 * std), label="prior", **band)
        ax.step(edges, held(mean), where="post", color=GREY, lw=1.2)
        mean, std = seen.mean[part, j], seen.std[part, j]
        for shift, width, name in ((0, 1.2, "posterior"), (-2, 0.6, ""), (2, 0.6, "")):
            values = held(mean + shift * std)
            ax.step(edges, values, where="post", color=ACCENT, lw=width, label=name or None)
        finish(ax, f"$z_{{{j}}}$, {seen.kl[:, j].sum():.1f} nats")
    axes[0].legend(loc="lower right", ncols=2, fontsize=7)
    draw_signal(axes[-1], kind, seen.x[part], edges)
    axes[-1].set_xlim(edges[0], edges[-1])
    axes[-1].set_xlabel(time_label(kind, rate), fontsize=8)
    figure.suptitle(
        "Prior and posterior by step: means and two standard deviations either side", fontsize=10
    )
    return figure


def draw_traversal(
    model: SequenceModel,
    kind: str,
    rate: float,
    strongest: Sequence[int] | np.ndarray,
    steps: int,
    seed: int = 0,
) -> Figure:
    """One sequence generated again and again with the same noise, one dimension at a time pushed
    off the prior by -2 to 2 of its standard deviations at every step."""
    rows = []
    for j in strongest:
        shifts = [offset * torch.eye(model.z_dim)[j] for offset in OFFSETS]
        rows.append([drawn(model, steps, seed, shift) for shift in shifts])
    titles = [f"{offset:+g} σ" if offset else "as drawn" for offset in OFFSETS]
    names = [f"$z_{{{j}}}$" for j in strongest]
    figure = draw_grid(kind, rate, rows, titles, names)
    figure.suptitle(
        "The same noise, one latent pushed by so many standard deviations of its prior at every "
        "step",
        fontsize=10,
    )
    return figure


def draw_interpolation(
    model: SequenceModel,
    kind: str,
    rate: float,
    pair: tuple[Inferred, Inferred],
    names: tuple[str, str],
    steps: int,
    seed: int = 0,
) -> Figure:
    r"""What the model makes of what lies between two sequences A and B, in two ways.

    On the left the latents are interpolated, step by step, from the start: frames are drawn given

    .. math:: z_t = (1 - \alpha) \, \mu^A_t + \alpha \, \mu^B_t

    with the means of the posteriors of A and B, as long as both last. On the right it is the
    recurrent state after all of A and of B (of an LSTM both h and c), every z_t up to there the
    mean of its posterior,

    .. math:: s = (1 - \alpha) \, s^A + \alpha \, s^B

    and generation goes on from there for `steps`. The noise is the same in all rows.
    """
    a, b = pair
    common = min(len(a.x), len(b.x))
    ends = [state_after(model, part.x) for part in pair]
    rows = [[a.x, a.x]]
    for alpha in SHARES:
        z = (1 - alpha) * a.mean[:common] + alpha * b.mean[:common]
        state = tuple(torch.lerp(p, q, alpha) for p, q in zip(*ends, strict=True))
        rows.append([decoded(model, z, seed), continued(model, state, steps, seed)])
    rows.append([b.x, b.x])
    titles = ["between the latents of every step", "from between the states at the end"]
    labels = [f"A: {names[0]}", *(f"α = {alpha:g}" for alpha in SHARES), f"B: {names[1]}"]
    figure = draw_grid(kind, rate, rows, titles, labels)
    figure.suptitle("From one sequence to another, with the same noise", fontsize=10)
    return figure


def draw_grid(
    kind: str,
    rate: float,
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    names: Sequence[str],
) -> Figure:
    """Draws sequences in rows and columns, all on the same scale."""
    columns = len(rows[0])
    if kind == "real":
        apart = lanes({title: [row[j] for row in rows] for j, title in enumerate(titles)})
        rows = list(zip(*apart.values(), strict=True))
    width, heights = max(10.0, 2.6 * columns), np.full(len(rows), 1.15)
    if kind == "pen":
        extents = np.array([[np.ptp(points(x)[:, 1:], axis=0) for x in row] for row in rows])
        across, up = extents[..., 0].max().clip(1), extents[..., 1].max(1)
        heights = (width / columns * 1.15 * up / across).clip(0.35, 2.0)
    size = (width, float(heights.sum()) + 0.7)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    drawer = DRAWERS["real" if kind == "audio" else kind]
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        for j, x in enumerate(row):
            ax = axes[i, j]
            drawer(ax, x.reshape(-1, 1) if kind == "audio" else x, rate)
            if i == 0:
                ax.set_title(titles[j], fontsize=8)
            if j == 0:
                # The axes of ink are off, and their labels with them.
                ax.text(
                    -0.02, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8
                )
            if kind == "audio":
                ax.lines[0].set(linewidth=0.4, color=INK)
                ax.set_rasterized(True)
            if kind != "pen":
                ax.tick_params(labelleft=False, labelbottom=i == len(rows) - 1)
    same_scale(kind, list(axes.flat))
    return figure


def same_scale(kind: str, axes: Sequence[Axes]) -> None:
    """Gives axes the limits of the widest; those of ink keep their own heights."""
    width = max(ax.get_xlim()[1] for ax in axes)
    left = min(ax.get_xlim()[0] for ax in axes)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set(xlim=(left, width), anchor="W")
        if kind != "pen":
            ax.set_ylim(low, high)


def frame_length(kind: str, rate: float, x_dim: int) -> float:
    """Length of a frame on the axis of time: seconds, or steps where these mean more."""
    if kind == "binary":
        return 1.0
    return x_dim / rate if kind == "audio" else 1 / rate


def time_label(kind: str, rate: float) -> str:
    return "time step" if kind == "binary" or rate == 1 else "seconds"


def draw_signal(ax: Axes, kind: str, x: np.ndarray, edges: np.ndarray) -> None:
    """Draws a sequence (T, D) along the edges (T + 1,) of its frames; of ink, its height."""
    if kind == "audio":
        samples = x.reshape(-1)
        ax.plot(np.linspace(edges[0], edges[-1], len(samples)), samples, color=INK, lw=0.4)
        ax.set_rasterized(True)
        finish(ax, "waveform")
    elif kind == "pen":
        scale = edges[1]
        lines = [
            np.column_stack([(step + 1) * scale, y]) for step, _, y in (s.T for s in strokes(x))
        ]
        draw_strokes(ax, lines)
        ax.autoscale_view()
        finish(ax, "height of the pen")
    elif kind == "binary":
        extent = (edges[0], edges[-1], -0.5, x.shape[1] - 0.5)
        look = {"origin": "lower", "aspect": "auto", "cmap": "Greys", "interpolation": "nearest"}
        ax.imshow(x.T, extent=extent, **look)
        finish(ax, "pitch")
    else:
        (apart,) = lanes({"": [x]})[""]
        ax.plot((edges[1:] + edges[:-1]) / 2, apart, lw=0.8)
        finish(ax, "frames")
        ax.tick_params(left=False, labelleft=False)


def draw_coloured_ink(figure: Figure, ax: Axes, x: np.ndarray, kl: np.ndarray) -> None:
    """Draws ink, each piece of it in the colour of the KL of the step that it is."""
    pieces, values = [], []
    for stroke in strokes(x):
        pieces += [stroke[i : i + 2, 1:] for i in range(len(stroke) - 1)]
        values += [kl[int(step)] for step in stroke[1:, 0]]
    highest = max(float(np.quantile(kl, 0.98)), 1e-6)
    ink = LineCollection(pieces, array=np.array(values), cmap="viridis_r", linewidths=1.3)
    ink.set_clim(0, highest)
    ax.add_collection(ink)
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.axis("off")
    bar = figure.colorbar(ink, ax=ax, shrink=0.8, extend="max")
    bar.set_label("KL, nats", fontsize=8)
    bar.ax.tick_params(labelsize=6)


def held(values: np.ndarray) -> np.ndarray:
    """Repeats the last value up to its frame's end. Shapes: (T,) -> (T + 1,)."""
    return np.append(values, values[-1:])


def finish(ax: Axes, label: str) -> None:
    ax.set_ylabel(label, fontsize=8)
    ax.tick_params(labelsize=6)
    ax.spines[["top", "right"]].set_visible(False)
