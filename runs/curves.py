"""The curves of a run: metrics.csv as arrays, and few enough points to draw."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runs.metrics import alike

__all__ = ["Curve", "Curves", "panels", "read_curves", "thin"]


class Curve(NamedTuple):
    """A figure over updates."""

    x: np.ndarray
    """Updates (N,), not decreasing."""
    y: np.ndarray
    """Values (N,); what is not finite was logged so."""


Curves = dict[str, Curve]
"""By the name a figure is logged under, such as train/grad_norm."""

PIECES = 500
"""Of a curve, of which two points each are drawn."""

KL = ("train/kl_per_step", "val/kl_per_step")


def read_curves(folder: Path) -> tuple[Curves, list[str]]:
    """Reads metrics.csv, and metrics.1.csv and so on, of interrupted parts, before it.

    Where training went back to an earlier update, what came after that in the earlier parts was
    lost with it and is left out. A last line that is not whole is left out, too.

    Returns:
        The curves, and what could not be read.
    """
    earlier = [(int(n), file) for file in folder.glob("metrics.*.csv") if (n := part(file))]
    files = [file for _, file in sorted(earlier)] + [folder / "metrics.csv"]
    curves: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    for file in files:
        rows = read_rows(file, notes)
        if not rows:
            continue
        start = min(row["step"] for row in rows)
        for name, points in curves.items():
            curves[name] = [point for point in points if point[0] < start]
        for row in rows:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    curves.setdefault(name, []).append((row["step"], value))
    arrays = {name: np.array(points).T for name, points in curves.items() if points}
    return {name: Curve(*values) for name, values in arrays.items()}, notes


def part(file: Path) -> str:
    number = file.name.split(".")[1]
    return number if number.isdigit() else ""


def read_rows(file: Path, notes: list[str]) -> list[dict[str, float]]:
    """The lines of a file as numbers, without empty cells and without the final scores."""
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return []
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        notes.append(f"The last line of {file.name} is not whole and was left out.")
    lines = list(csv.reader(text.splitlines()))
    rows = []
    damaged = 0
    for line in lines[1:]:
        try:
            cells = zip(lines[0], line, strict=True)
            row = {name: float(cell) for name, cell in cells if cell}
            int(row["step"])
            rows.append(row)
        except (ValueError, KeyError, OverflowError):
            damaged += 1
    if damaged:
        notes.append(f"{damaged} lines of {file.name} are damaged and were left out.")
    return without_final_scores(rows)


def without_final_scores(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Drops the scores of the best weights, which are logged, at the end, as if they were those of
    the last update."""
    tested = [i for i, row in enumerate(rows) if any(k.startswith("test/") for k in row)]
    if not tested:
        return rows
    validated = [i for i, row in enumerate(rows[: tested[0]]) if "val/elbo" in row]
    drop = set(tested) | set(validated[-1:] if len(validated) > 1 else [])
    return [row for i, row in enumerate(rows) if i not in drop]


def thin(curve: Curve) -> Curve:
    """Keeps a curve's shape: of each of 500 pieces its least and its greatest value, and the first
    that is not finite."""
    n = len(curve.x)
    if n <= 2 * PIECES:
        return curve
    kept: set[int] = {0, n - 1}
    for piece in np.array_split(np.arange(n), PIECES):
        y = curve.y[piece]
        finite = np.isfinite(y)
        if finite.any():
            kept |= {int(piece[np.where(finite, y, np.inf).argmin()])}
            kept |= {int(piece[np.where(finite, y, -np.inf).argmax()])}
        if not finite.all():
            kept.add(int(piece[(~finite).argmax()]))
    index = np.array(sorted(kept))
    return Curve(curve.x[index], curve.y[index])


def log_scale_of(curves: Curves) -> float | None:
    """What a step gains in standardised space over the raw one; None where no validation tells."""
    shown, raw = (curves.get(f"val/elbo{space}_per_step") for space in ("", "_raw"))
    if shown is None or raw is None or not np.array_equal(shown.x, raw.x):
        return None
    gain = shown.y - raw.y
    return float(np.median(gain[np.isfinite(gain)])) if np.isfinite(gain).any() else None


def in_raw_units(curves: Curves) -> Curves:
    """Curves with the standardised densities among them raw, or left out where nobody knows by how
    much these differ."""
    scale = log_scale_of(curves)
    densities = {name: curve for name, curve in curves.items() if depends_on_units(name)}
    rest = {name: curve for name, curve in curves.items() if name not in densities}
    if scale is None:
        return rest
    return rest | {name: Curve(c.x, c.y - scale) for name, c in densities.items()}


def depends_on_units(name: str) -> bool:
    """Whether the values of a curve are log densities of standardised x."""
    # Loads torch, which a sweep's table does without.
    from vrnn.bounds import is_density

    split, _, figure = name.partition("/")
    per_step = figure.endswith("_per_step") and is_density(figure.removesuffix("_per_step"))
    return split in ("train", "val") and per_step


def panels(runs: dict[str, Curves]) -> list[dict[str, Any]]:
    """The curves of one or several runs as the page draws them, in plain containers; raw where
    standardised ones do not compare.

    Args:
        runs: curves by the name of their run, which is shown if there are several.

    Returns:
        Of each panel "title", "unit", "log", and "series" with "name", "legend" (what is shown and
        hidden together), "colour" (a number), "dashed", "x", "y" (None where a value is not
        finite), "count" of logged points, and "lost", those of them that are not finite.
    """
    kl = [c.y for curves in runs.values() for name, c in curves.items() if name in KL]
    exact = not any(y.any() for y in kl)
    bound = "Log likelihood" if exact else "Bound"
    unit = "nats per step"
    if not alike(map(log_scale_of, runs.values())):
        runs = {name: in_raw_units(curves) for name, curves in runs.items()}
        unit = "nats per step, raw"
    drawn = [panel(runs, bound, unit, bound_series)]
    if not exact:
        drawn += [
            panel(runs, "Log likelihood given the latents", unit, likelihood_series),
            panel(runs, "KL from prior to posterior", "nats per step", kl_series),
        ]
    drawn += [
        panel(runs, "Gradient norm", "before clipping", single("train/grad_norm"), log=True),
        panel(runs, "Throughput", "time steps per second", single("throughput/steps_per_second")),
    ]
    return [p for p in drawn if p["series"]]


def panel(
    runs: dict[str, Curves], title: str, unit: str, series: Any, log: bool = False
) -> dict[str, Any]:
    several = len(runs) > 1
    found = {run: series(curves) for run, curves in runs.items()}
    # Of several runs the colour tells which, so that training and validation differ in dashes.
    both = len({label.partition(",")[0] for curves in found.values() for label in curves}) > 1
    lines = []
    for number, (run, curves) in enumerate(found.items()):
        for i, (label, curve) in enumerate(curves.items()):
            kept = thin(curve)
            lines.append(
                {
                    "name": f"{run}, {label}" if several else label,
                    "legend": run if several else label,
                    "colour": number if several else i,
                    "dashed": several and both and label.startswith("training"),
                    "x": [float(x) for x in kept.x],
                    "y": [float(f"{y:.6g}") if np.isfinite(y) else None for y in kept.y],
                    "count": len(curve.x),
                    "lost": int((~np.isfinite(curve.y)).sum()),
                }
            )
    return {"title": title, "unit": unit, "log": log, "series": lines}


def bound_series(curves: Curves) -> Curves:
    # Loads torch, which a sweep's table does without.
    from vrnn.bounds import BOUNDS

    splits = {"train": "training", "val": "validation"}
    logged = [
        (f"{split}/{name}_per_step", label, name)
        for split, label in splits.items()
        for name in BOUNDS
        if f"{split}/{name}_per_step" in curves and BOUNDS[name].is_lower_bound
    ]
    several = len({name for _, _, name in logged}) > 1
    return {
        f"{label}, {BOUNDS[name].label}" if several else label: curves[key]
        for key, label, name in logged
    }


def likelihood_series(curves: Curves) -> Curves:
    found = {}
    bound, kl = curves.get("train/elbo_per_step"), curves.get("train/kl_per_step")
    if bound is not None and kl is not None and np.array_equal(bound.x, kl.x):
        found["training"] = Curve(bound.x, bound.y + kl.y)
    if "val/log_likelihood_per_step" in curves:
        found["validation"] = curves["val/log_likelihood_per_step"]
    return found


def kl_series(curves: Curves) -> Curves:
    names = {"training": "train/kl_per_step", "validation": "val/kl_per_step"}
    return {label: curves[name] for label, name in names.items() if name in curves}


def single(name: str) -> Any:
    def series(curves: Curves) -> Curves:
        return {"training": curves[name]} if name in curves else {}

    return series
