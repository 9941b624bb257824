"""The paper's figures for any run: python -m reports.figures outputs/<date>/<run>

Writes them as PNG and SVG to figures/ of the run. The corpus is read from where it was when the
model was trained unless an override such as data.root=/elsewhere says otherwise. Of several runs,
what they generate is drawn side by side, beside real sequences.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datamodules.base import SequenceData
from datamodules.ragged import Ragged
from reports.inference import infer
from reports.kinds import kind_of
from reports.latent_figures import (
    draw_interpolation,
    draw_over_time,
    draw_prior_posterior,
    draw_traversal,
)
from reports.probes import draw_probes, probe_styles
from runs.drawing import slug
from runs.naming import model_name
from runs.samples import generate_raw, spread, typical_steps
from vrnn.models.latent import LatentModel
from vrnn.module import VRNNModule

__all__ = ["beside", "figures", "write_figures"]


def figures(module: VRNNModule, data: SequenceData) -> dict[str, Figure]:
    """Draws what there is to see of a trained model, on the test split.

    Returns:
        Figures by title; those of latents only for a model that has them, the style probes only
        for a corpus that knows its writers' styles.
    """
    split, kind, rate = data.splits["test"], data.kind, data.rate
    model, seed = module.model, module.seed
    drawn = {"Real and generated": beside({"generated": module}, data)}
    if not isinstance(model, LatentModel):
        return drawn

    typical = int(np.argsort(split.lengths, kind="stable")[len(split) // 2])
    first, second = pair(split)
    chosen = [typical, first, second]
    # One by one: a padded batch of the longest recordings would take much memory.
    seen, *ends = (infer(model, [split[i]], [i], seed)[0] for i in chosen)
    strongest = np.argsort(-seen.kl.mean(0), kind="stable")[:3]
    steps = min(kind_of(kind).steps, typical_steps(module.hparams["data"]))
    drawn["KL and change of the posterior over time"] = draw_over_time(kind, rate, seen)
    drawn["Prior against posterior"] = draw_prior_posterior(kind, rate, seen)
    drawn["Latent traversals"] = draw_traversal(model, kind, rate, strongest, steps, seed)
    if first != second:
        names = (split.keys[first], split.keys[second])
        drawn["Interpolation between two sequences"] = draw_interpolation(
            model, kind, rate, (ends[0], ends[1]), names, 2 * steps, seed
        )
    scores = probe_styles(model, split, seed)
    if scores is not None:
        drawn["Style probes"] = draw_probes(scores, len(split))
    return drawn


def beside(modules: Mapping[str, VRNNModule], data: SequenceData) -> Figure:
    """Draws real sequences of the test split beside those that each model generates."""
    split = data.splits["test"]
    kind = kind_of(data.kind)
    n = min(kind.beside, len(split))
    columns = {"real": [np.asarray(split[i]) for i in spread(len(split), n)]}
    for name, module in modules.items():
        generated = generate_raw(module, n, module.seed)
        columns[name] = generated.x
        if kind.means and generated.mean is not None:
            columns[f"{name}: means"] = generated.mean
    return kind.draw_beside(columns, data.rate)


def pair(split: Ragged) -> tuple[int, int]:
    """The first sequence and one by somebody else; where nobody knows who it was, one from the
    middle of the split."""
    for name in ("writer", "speaker"):
        if name in split.labels:
            other = np.flatnonzero(split.labels[name] != split.labels[name][0])
            return (0, int(other[0])) if len(other) else (0, len(split) // 2)
    return 0, len(split) // 2


def write_figures(drawn: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes every figure as <folder>/<its title>.png and .svg; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for title, figure in drawn.items():
        for suffix in ("png", "svg"):
            files.append(folder / f"{slug(title)}.{suffix}")
            figure.savefig(files[-1])
    return files


def names_of(runs: Sequence[str], modules: Sequence[VRNNModule]) -> list[str]:
    """The name of each run's model, with the run's own where several have the same."""
    names = [model_name(module.hparams["model"]) for module in modules]
    return [
        name if names.count(name) == 1 else f"{name}, {Path(run).name}"
        for name, run in zip(names, runs, strict=True)
    ]


def draw_runs(words: Sequence[str], out: Path | None) -> list[Path]:
    """Draws the runs among the words, the others being options of the data."""
    from datamodules.loading import load_data
    from vrnn.checkpoint import find_checkpoint, load_module

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    runs = [word for word in words if word not in overrides]
    if not runs:
        raise ValueError("name at least one run, such as outputs/<date>/<run>")
    modules = [load_module(run) for run in runs]
    data = load_data(modules[0].hparams["data"], overrides)
    for run, module in zip(runs, modules, strict=True):
        if list(module.hparams["data"]["columns"]) != list(data.columns):
            raise ValueError(
                f"{run} was trained on data={module.hparams['data']['name']}, {runs[0]} on "
                f"data={data.name}, whose frames differ: they cannot be drawn side by side"
            )
    folder = out or find_checkpoint(runs[0]).parent.parent / "figures"
    if len(runs) == 1:
        return write_figures(figures(modules[0], data), folder)
    columns = dict(zip(names_of(runs, modules), modules, strict=True))
    return write_figures({"Models side by side": beside(columns, data)}, folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reports.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN [OVERRIDE]",
        help="folders of runs, or checkpoints; options of the data, such as data.root=/elsewhere",
    )
    parser.add_argument("--out", type=Path, help="folder of the files (default: figures/ of RUN)")
    args = parser.parse_args()

    from runs.errors import readable_errors

    with readable_errors():
        for file in draw_runs(args.runs, args.out):
            print(file)


if __name__ == "__main__":
    main()
