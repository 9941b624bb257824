"""How well the latents of a line tell its writer's style, where the corpus knows the style."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.progress import track

from datamodules.ragged import Ragged
from reports.inference import infer
from runs.drawing import ACCENT, INK, PALE
from vrnn.models.latent import LatentModel

__all__ = ["STYLES", "draw_probes", "probe", "probe_styles"]

STYLES = ("slant", "size", "speed", "spacing", "width", "joining")
"""Labels of a corpus that are probed, where there are all of them."""

PENALTIES = tuple(10.0**n for n in range(-3, 5))
FOLDS = 5
AT_ONCE = 32


def probe(features: np.ndarray, target: np.ndarray, groups: np.ndarray) -> float:
    r"""How well a ridge regression predicts what it has not seen.

    .. math:: R^2 = 1 - \sum_i (y_i - \hat y_i)^2 / \sum_i (y_i - \bar y_{(i)})^2

    over all i, :math:`\hat y_i` and the mean :math:`\bar y_{(i)}` from the four fifths of the
    groups that i is not in; so it is 0 for what predicts no better than the mean, and may be
    negative. Features are standardised, and the penalty chosen by leave-one-out, on those four
    fifths alone.

    Shapes: features (n, F), target (n,), groups (n,): members of a group share their fold.
    """
    folds = np.unique(groups, return_inverse=True)[1] % FOLDS
    error = total = 0.0
    for fold in range(FOLDS):
        here, rest = folds == fold, folds != fold
        error += np.square(
            target[here] - ridge(features[rest], target[rest], features[here])
        ).sum()
        total += np.square(target[here] - target[rest].mean()).sum()
    return float(1 - error / total)


def ridge(features: np.ndarray, target: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Predictions at `wanted` (m, F), with the penalty whose leave-one-out error is least."""
    shift, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    u, s, vt = np.linalg.svd((features - shift) / scale, full_matrices=False)
    mean = target.mean()
    projected = u.T @ (target - mean)
    best, chosen = np.inf, np.zeros(len(s))
    for penalty in PENALTIES:
        shrink = s**2 / (s**2 + penalty * len(target))
        residual = target - mean - u @ (shrink * projected)
        # The hat matrix's diagonal, the share of the mean included.
        left_out = residual / (1 - np.square(u) @ shrink - 1 / len(target)).clip(1e-9)
        if (loss := float(np.square(left_out).mean())) < best:
            best = loss
            chosen = s / (s**2 + penalty * len(target)) * projected
    predicted: np.ndarray = mean + ((wanted - shift) / scale) @ (vt.T @ chosen)
    return predicted


def statistics(x: np.ndarray) -> np.ndarray:
    """What one knows of ink without a model: means and standard deviations of the offsets, their
    correlation, the mean length of a step, how often the pen is lifted. Shapes: (T, 3) -> (7,)."""
    offsets = x[:, 1:].astype(float)
    spread = offsets.std(0)
    product = ((offsets - offsets.mean(0)) / spread.clip(1e-9)).prod(1).mean()
    length = np.hypot(*offsets.T).mean()
    return np.array([*offsets.mean(0), *spread, product, length, x[:, 0].mean()])


def probe_styles(
    model: LatentModel, lines: Ragged, seed: int = 0
) -> dict[str, dict[str, float]] | None:
    """R^2 of every style in `STYLES`, by what it is predicted from: the mean over a line of the
    posterior means, of h, and simple statistics of the ink. Lines by one writer share their fold.

    Returns:
        None where the corpus does not label the style, or has too few writers.
    """
    known = {"writer", *STYLES} <= lines.labels.keys()
    if not known or len(np.unique(lines.labels["writer"])) < 2 * FOLDS:
        return None
    inputs: dict[str, list[np.ndarray]] = {
        "latents: mean of the posterior means": [],
        "recurrent state: mean of h": [],
        "no model: statistics of the ink": [],
    }
    chunks = range(0, len(lines), AT_ONCE)
    for start in track(chunks, "reading lines for the probes", transient=True):
        ids = range(start, min(start + AT_ONCE, len(lines)))
        for seen in infer(model, [lines[i] for i in ids], list(ids), seed):
            features = (seen.mean.mean(0), seen.h.mean(0), statistics(seen.x))
            for column, values in zip(inputs.values(), features, strict=True):
                column.append(values.astype(float))
    writers = lines.labels["writer"]
    return {
        style: {
            name: probe(np.stack(rows), lines.labels[style].astype(float), writers)
            for name, rows in inputs.items()
        }
        for style in STYLES
    }


def draw_probes(scores: dict[str, dict[str, float]], lines: int) -> Figure:
    """Draws what `probe_styles` returns, as bars; those below 0 have no length."""
    names: Sequence[str] = list(next(iter(scores.values())))
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    ax = figure.subplots()
    place, width = np.arange(len(scores)), 0.8 / len(names)
    for k, (name, colour) in enumerate(zip(names, (ACCENT, INK, PALE), strict=True)):
        values = np.array([row[name] for row in scores.values()])
        x = place + (k - (len(names) - 1) / 2) * width
        ax.bar(x, values.clip(0), width * 0.92, color=colour, label=name)
        for at, value in zip(x, values, strict=True):
            ax.text(at, max(value, 0) + 0.01, f"{value:.2f}", ha="center", fontsize=7)
    ax.set_xticks(place, list(scores))
    ax.set(ylim=(0, 1.08), ylabel="R² on writers not seen")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)
    figure.suptitle(
        f"The writer's style, predicted by ridge regression from {lines:,} lines", fontsize=10
    )
    return figure
