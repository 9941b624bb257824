"""Scores a trained model: python evaluate.py outputs/<date>/<run> --k 40 --json scores.json

The run folder, or a checkpoint alone, is enough; the corpus is read from where it was when the
model was trained unless an override such as data.root=/elsewhere says otherwise.
"""

import argparse
import json
from pathlib import Path
from typing import Any

FIGURES = {"elbo": ("elbo", "log_likelihood", "kl"), "iwae": ("iwae",), "paper": ("paper",)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "overrides", nargs="*", help="options of the data, such as data.root=/elsewhere"
    )
    parser.add_argument(
        "--bounds", default="elbo,iwae,paper", help="which of elbo, iwae, paper (default: all)"
    )
    parser.add_argument(
        "--k", type=int, default=40, help="particles of iwae and paper (default: 40)"
    )
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument(
        "--limit", type=int, help="score only so many sequences, spread evenly over the split"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the particles")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()

    from callbacks.errors import readable_errors

    with readable_errors():
        evaluate(args)


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Scores a split, prints the figures as tables and writes them as JSON, keys `split/name`."""
    from rich.console import Console

    from callbacks.tables import scores_tables
    from datamodules.loading import load_data
    from vrnn.checkpoint import load_module

    bounds = parse_bounds(args.bounds)
    if args.k < 1:
        raise ValueError(f"--k must be at least 1, not {args.k}")
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {args.limit}")
    module = load_module(args.run)
    try:
        module.to(args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device}: {error}") from error
    data = load_data(module.hparams["data"], args.overrides)
    exact = module.model.z_dim == 0
    particles = 1 if exact or bounds == {"elbo"} else args.k

    scores = score_split(module, data, args, particles)
    wanted = {figure for bound in bounds for figure in FIGURES[bound]}
    figures = {
        f"{args.split}/{key}": value
        for key, value in scores.items()
        if key in ("sequences", "steps")
        or any(key == f or key.startswith(f"{f}_") for f in wanted)
    }
    figures |= {"parameters": module.model.parameter_count, "particles": particles}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")

    spaces = list(module.hparams["data"]["log_scales"])
    console = Console()
    console.print(scores_tables(figures, [args.split], spaces, particles, exact))
    console.print(
        f"{int(scores['sequences']):,} sequences, {module.model.parameter_count:,} parameters"
    )
    return figures


def score_split(
    module: Any, data: Any, args: argparse.Namespace, particles: int
) -> dict[str, float]:
    """Scores every sequence of a split once, with a progress bar."""
    import numpy as np
    import torch
    from rich.progress import track

    from vrnn.evaluation import score
    from vrnn.metrics import Scores

    sequences = data.splits[args.split]
    if args.limit is not None and args.limit < len(sequences):
        chosen = np.linspace(0, len(sequences) - 1, args.limit).round().astype(int)
        data.splits[args.split] = sequences.select(chosen)
    loader = data.loader(args.split, data.eval_batch_size, shuffle=False)
    scores = Scores.of(module.hparams["data"])
    with torch.inference_mode():
        for batch in track(loader, f"scoring {args.split}", total=len(loader)):
            x, mask, ids = (part.to(args.device) for part in batch)
            scores.update(
                ids, mask.sum(0), score(module.model, x, mask, ids, particles, args.seed)
            )
    return scores.compute()


def parse_bounds(text: str) -> set[str]:
    bounds = set(text.split(","))
    unknown = bounds - FIGURES.keys()
    if unknown:
        raise ValueError(f"--bounds {','.join(sorted(unknown))}: choose from {', '.join(FIGURES)}")
    return bounds


if __name__ == "__main__":
    main()
