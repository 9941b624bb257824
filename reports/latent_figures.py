"""What the latents of a run do, as pictures. Sequences are raw, (T, D)."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.inference import Inferred, continued, decoded, drawn, state_after
from reports.kinds import finish, kind_of
from runs.drawing import ACCENT
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
    shown = kind_of(kind)
    heights = [1, 1, 1.2, *shown.below]
    panels = len(heights)
    figure = Figure(figsize=(10, 1.5 * panels + 0.6), dpi=110, layout="constrained")
    axes = figure.subplots(panels, 1, height_ratios=heights, squeeze=False)[:, 0]
    edges = np.arange(len(seen.x) + 1) * shown.frame_length(rate, seen.x.shape[1])
    kl = seen.kl.sum(1)
    for ax, values, label in (
        (axes[0], change_of_mean(seen.mean), r"$\delta_t=\|\mu_t-\mu_{t-1}\|^2$"),
        (axes[1], kl, "KL, nats"),
    ):
        ax.stairs(np.nan_to_num(values), edges, fill=True, color=ACCENT, alpha=0.85)
        ax.set_ylim(bottom=0)
        finish(ax, label)
    shown.draw_over_time(axes[2], seen.x, edges)
    for ax in axes[:3]:
        ax.set_xlim(edges[0], edges[-1])
    for ax in axes[:2]:
        ax.tick_params(labelbottom=False)
    axes[2].set_xlabel(shown.time_label(rate), fontsize=8)
    for ax in axes[3:]:
        shown.draw_kl(figure, ax, seen.x, kl)
    figure.suptitle(
        f"What the latents react to: {kl.sum():,.1f} nats of KL over {len(kl):,} steps",
        fontsize=10,
    )
    return figure


def draw_prior_posterior(kind: str, rate: float, seen: Inferred) -> Figure:
    """Prior against posterior by step: means and two standard deviations of the four dimensions of
    the highest KL, over the 160 steps in which there is most of it."""
    shown = kind_of(kind)
    strongest = np.argsort(-seen.kl.mean(0), kind="stable")[:4]
    n = min(160, len(seen.x))
    total = np.convolve(seen.kl.sum(1), np.ones(n), mode="valid")
    part = slice(start := int(total.argmax()), start + n)
    edges = np.arange(part.start, part.stop + 1) * shown.frame_length(rate, seen.x.shape[1])
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
    shown.draw_over_time(axes[-1], seen.x[part], edges)
    axes[-1].set_xlim(edges[0], edges[-1])
    axes[-1].set_xlabel(shown.time_label(rate), fontsize=8)
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
    shown, columns = kind_of(kind), len(rows[0])
    apart = shown.look.on_one_scale(
        {title: [row[j] for row in rows] for j, title in enumerate(titles)}
    )
    rows = list(zip(*apart.values(), strict=True))
    width = max(10.0, 2.6 * columns)
    heights = shown.row_heights(rows, width / columns)
    size = (width, float(heights.sum()) + 0.7)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=[*heights])
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        for j, x in enumerate(row):
            ax = axes[i, j]
            shown.draw_cell(ax, x, rate)
            if i == 0:
                ax.set_title(titles[j], fontsize=8)
            if j == 0:
                # The axes of ink are off, and their labels with them.
                ax.text(
                    -0.02, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8
                )
            if shown.axes:
                ax.tick_params(labelleft=False, labelbottom=i == len(rows) - 1)
    same_scale(list(axes.flat), shown.axes)
    return figure


def same_scale(axes: Sequence[Axes], heights: bool) -> None:
    """Gives axes the limits of the widest and, if `heights`, those of the highest."""
    width = max(ax.get_xlim()[1] for ax in axes)
    left = min(ax.get_xlim()[0] for ax in axes)
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set(xlim=(left, width), anchor="W")
        if heights:
            ax.set_ylim(low, high)


def held(values: np.ndarray) -> np.ndarray:
    """Repeats the last value up to its frame's end. Shapes: (T,) -> (T + 1,)."""
    return np.append(values, values[-1:])
