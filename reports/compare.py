"""Compares trained models, sequence by sequence: python -m reports.compare RUN RUN [more runs]

Runs that differ in their seed only are one model; every other model is compared with that of the
first run. The runs were scored by evaluate.py before, all with the same bounds and --k.

    python evaluate.py RUN --bounds elbo,fivo --k 40        for every RUN
    python -m reports.compare RUN RUN --bound fivo --k 40
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vrnn.bounds import BOUNDS

__all__ = ["Difference", "Model", "compare", "difference", "read_models"]

SHARE = 1.96
"""Standard errors to each side of an interval that covers 95 %."""


class Model(NamedTuple):
    """Runs that differ in their seed only, S of them, on N sequences."""

    name: str
    """In which options it differs from the others, or its name."""
    seeds: tuple[int, ...]
    nats: np.ndarray
    """(S, N), the bound of every sequence; in raw units if it is a density's."""
    steps: np.ndarray
    """(N,)."""


class Difference(NamedTuple):
    """Nats a step of one model less those of another, and the half width of its 95 % interval."""

    mean: float
    half: float


def difference(model: Model, other: Model) -> Difference:
    """Compares two models, sequence by sequence, and if they have the same seeds seed by seed.

    The variance is that over sequences, of means over seeds, plus that over seeds, of means over
    sequences; that over seeds is left out where a model has only one. Their sum counts a part of
    the noise twice, so the interval is a little too wide.
    """
    steps = model.steps
    paired = model.seeds == other.seeds
    gained = model.nats.mean(0) - other.nats.mean(0)
    mean = gained.sum() / steps.sum()
    residual = gained - mean * steps
    variance = residual.var(ddof=1) / len(steps) / steps.mean() ** 2 if len(steps) > 1 else 0.0
    by_seed = [m.nats.sum(1) / steps.sum() for m in (model, other)]
    parts = [by_seed[0] - by_seed[1]] if paired else by_seed
    variance += sum(part.var(ddof=1) / len(part) for part in parts if len(part) > 1)
    return Difference(float(mean), float(SHARE * variance**0.5))


def read_models(runs: Sequence[Path], bound: str, particles: int, split: str) -> list[Model]:
    """Reads what evaluate.py left in runs, and puts those together that differ in their seed only.

    Raises:
        ValueError: if a run was not scored so, or not on the sequences of the first one; if only
            some have densities, or a seed is there twice.
    """
    from reports.groups import split_print
    from runs.metrics import own_options
    from runs.run import read_run

    models: dict[str, dict[int, np.ndarray]] = {}
    steps, first, discrete = np.zeros(0), runs[0], None
    shared = split_print(read_run(first), split)
    for folder, options in zip(runs, own_options(runs), strict=True):
        run = read_run(folder)
        own, values = sequences_of(folder, bound, particles, split)
        if folder == first:
            steps = own
        if split_print(run, split) != shared or not np.array_equal(own, steps):
            raise ValueError(f"{folder} was not scored on the {split} sequences of {first}")
        probabilities = is_discrete(run.settings)
        if discrete not in (None, probabilities):
            raise ValueError(
                f"{folder} and {first} do not compare: one has densities, the other probabilities"
            )
        discrete = probabilities
        name = options or run.model or folder.name
        seed = int(run.settings.get("seed", 0))
        if seed in models.setdefault(name, {}):
            raise ValueError(f"{folder} is a second run of {name} with seed={seed}; name one")
        models[name][seed] = values
    return [
        Model(name, tuple(sorted(found)), np.stack([found[s] for s in sorted(found)]), steps)
        for name, found in models.items()
    ]


def sequences_of(
    folder: Path, bound: str, particles: int, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and nats of every sequence, (N,) each."""
    from runs.evaluated import file_of, read_evaluated, read_sequences

    ways = f"python evaluate.py {folder} --bounds {bound} --k {particles} --split {split}"
    # A model whose likelihood is exact has one particle whatever --k is.
    for k in (particles, 1):
        file = file_of(folder, split, k).with_suffix(".csv")
        if file.is_file() and read_evaluated(folder, split, k):
            columns = read_sequences(file)
            if bound in columns:
                return columns["steps"], columns[bound]
    raise ValueError(f"{folder} has no {bound} of its {split} split with K = {particles}: {ways}")


def is_discrete(settings: dict[str, object]) -> bool:
    """Whether a configuration's likelihood is one of probabilities."""
    from hydra.utils import get_class

    from vrnn.moved import current

    model = current(settings.get("model", {}))
    likelihood = model.get("likelihood", {}).get("_target_", "")
    return bool(likelihood) and bool(getattr(get_class(likelihood), "discrete", False))


def compare(models: Sequence[Model], bound: str) -> str:
    """The comparison as a table for the terminal."""
    from tabulate import tabulate

    first, *others = models
    rows = []
    for model in models:
        nats = model.nats.sum(1) / model.steps.sum()
        spread = f" (seeds: ± {nats.std(ddof=1):.4f})" if len(nats) > 1 else ""
        row = [model.name, len(model.seeds), f"{nats.mean():.4f}{spread}", ""]
        if model is not first:
            gained = difference(model, first)
            row[-1] = f"{gained.mean:+.4f} ± {gained.half:.4f}"
        rows.append(row)
    label = BOUNDS[bound].label
    heads = ["model", "seeds", f"{label}, nats a step, raw", "less the first, 95 %"]
    return tabulate(rows, heads, disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reports.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, two or more")
    parser.add_argument("--bound", default="elbo", help="by which bound (default: elbo)")
    parser.add_argument("--k", type=int, default=40, help="its particles (default: 40)")
    parser.add_argument("--split", default="test", choices=["val", "test"], help="(default: test)")
    args = parser.parse_args()

    from runs.errors import readable_errors
    from vrnn.bounds import check_bounds

    with readable_errors():
        check_bounds([args.bound], "--bound")
        models = read_models(args.runs, args.bound, args.k, args.split)
        if len(models) < 2:
            raise ValueError("all runs are of one model, and there is no other to compare it with")
        print(compare(models, args.bound))


if __name__ == "__main__":
    main()
