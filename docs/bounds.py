"""Draws docs/bounds.png, how far each bound is from an exact likelihood.

    PYTHONPATH=.:tests python docs/bounds.py

The model is a linear-Gaussian state space written as a VRNN (tests/state_space.py), so that a
Kalman filter knows log p(x); its posterior is deliberately a poor one.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track
from support.linear_gaussian import all_of
from support.state_space import StateSpace, best_step_by_step, draw, filtering

from vrnn import VRNN, bounds
from vrnn.particle_filter import particle_filter
from vrnn.trace import Resampling

DRAWS = 100
PARTICLES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
LENGTHS = [10, 20, 40, 80, 160, 320]
T, K = 40, 16


def gaps(model: VRNN, x: torch.Tensor, log_p: float, particles: int) -> dict[str, torch.Tensor]:
    """Estimates minus log p(x) (T, 1, D), each (DRAWS,)."""
    rows = x.expand(-1, DRAWS, -1)
    noise = torch.randn(len(x), particles * DRAWS, model.z_dim)
    uniform = torch.rand(len(x), particles, DRAWS)
    filters = {
        name: particle_filter(model, rows, all_of(rows), noise, uniform, Resampling(name))
        for name in ("multinomial", "never")
    }
    gathered = filters["never"].log_w
    log_w = gathered.diff(dim=0, prepend=torch.zeros_like(gathered[:1]))
    values = {
        "ELBO": log_w.sum(0).mean(0),
        "IWAE": bounds.filtering_bound(filters["never"]),
        "FIVO": bounds.filtering_bound(filters["multinomial"]),
        "paper's estimate (no bound)": bounds.paper_estimate(log_w),
    }
    return {name: value - log_p for name, value in values.items()}


@torch.no_grad()
def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    exact = StateSpace(x_dim=2, z_dim=1, h_dim=2)
    gain, slope, offset, covariance = best_step_by_step(exact)
    model = filtering(
        exact, 0.6 * gain, slope + 0.2, offset - 0.2, 1.4 * covariance.diagonal() ** 0.5
    )

    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    by_particles, by_length = figure.subplots(1, 2)
    settings = [(T, k) for k in PARTICLES], [(n, K) for n in LENGTHS]
    for ax, pairs in zip((by_particles, by_length), settings, strict=True):
        curves: dict[str, list[torch.Tensor]] = {}
        for steps, particles in track(pairs):
            x = draw(exact, steps)
            for name, gap in gaps(model, x, exact.kalman(x[:, 0].numpy()), particles).items():
                curves.setdefault(name, []).append(gap)
        where = [b if ax is by_particles else a for a, b in pairs]
        for name, curve in curves.items():
            means = np.array([gap.mean().item() for gap in curve])
            errors = np.array([gap.std().item() for gap in curve]) / DRAWS**0.5
            ax.errorbar(where, means, 2 * errors, marker="o", markersize=3, label=name)
            print(
                ax is by_length,
                name,
                *(f"{m:.2f} ± {e:.2f}," for m, e in zip(means, errors, strict=True)),
            )
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_ylabel("distance to log p(x), nats")
    by_particles.set(xlabel="particles K", title=f"T = {T}")
    by_length.set(xlabel="steps T", title=f"K = {K}")
    by_particles.set_yscale("symlog", linthresh=1)
    by_length.set_yscale("symlog", linthresh=1)
    by_particles.legend(fontsize=8)
    figure.savefig(Path(__file__).with_name("bounds.png"))


if __name__ == "__main__":
    main()
