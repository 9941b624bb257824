"""Scores a trained model: python evaluate.py outputs/<date>/<run> --k 40

The run folder, or a checkpoint alone, is enough; the corpus is read from where it was when the
model was trained unless an override such as data.root=/elsewhere says otherwise.

    python evaluate.py RUN --bounds elbo,iwae,fivo --k 128 --runs 3
    python evaluate.py RUN data.root=/elsewhere --split val --limit 100
    python evaluate.py RUN/checkpoints/last.ckpt --device cuda
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrnn.metrics import Scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "overrides", nargs="*", help="options of the data, such as data.root=/elsewhere"
    )
    parser.add_argument(
        "--bounds",
        default="elbo,iwae,paper",
        help="names of the table in docs/bounds.md, such as elbo,fivo (default: %(default)s)",
    )
    parser.add_argument(
        "--k", type=int, default=40, help="particles, K of iwae and others (default: 40)"
    )
    parser.add_argument(
        "--resampling",
        choices=["multinomial", "systematic", "never"],
        help="of fivo (default: as in training by objective=fivo, else multinomial)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="share of effective particles below which fivo resamples (default: likewise, 0.5)",
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        help="repeat with so many seeds, for standard errors over them too (default: 1)",
    )
    parser.add_argument("--split", default="test", choices=["val", "test"], help="(default: test)")
    parser.add_argument(
        "--limit", type=int, help="score only so many sequences, spread evenly over the split"
    )
    parser.add_argument("--device", default="cpu", help="such as cuda (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, help="of the particles (default: 0)")
    parser.add_argument(
        "--json",
        type=Path,
        help="write the figures to this file (default: scores_<split>_k<k>.json of the run, "
        "where all of its own split is scored)",
    )
    args = parser.parse_intermixed_args()

    from runs.errors import readable_errors
    from runs.threads import wait_briefly

    wait_briefly()  # before torch is imported
    with readable_errors():
        evaluate(args)


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Scores a split, prints the figures as tables and writes them as JSON, keys `split/name`."""
    from rich.console import Console

    from datamodules.loading import load_data
    from reports.score_tables import scores_tables
    from runs.checks import has_split_of
    from runs.evaluated import CHECKPOINT, digest_of, write_sequences
    from vrnn.arguments import check_counts
    from vrnn.bounds import check_bounds
    from vrnn.checkpoint import find_checkpoint, load_module
    from vrnn.memory import keep_freed_memory

    keep_freed_memory()
    bounds = set(args.bounds.split(","))
    check_bounds(bounds, "--bounds")
    check_counts("--", k=args.k, runs=args.runs, limit=args.limit)
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, and is {args.seed}")
    if args.json is not None and (args.json.is_dir() or not args.json.parent.is_dir()):
        why = "is a folder" if args.json.is_dir() else f"there is no folder {args.json.parent}"
        raise ValueError(f"--json {args.json}: {why}")
    checkpoint = find_checkpoint(args.run)
    scored = {CHECKPOINT: digest_of(checkpoint)}
    module = load_module(checkpoint)
    try:
        module.to(args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device}: {error}") from error
    data = load_data(module.hparams["data"], args.overrides)
    own = has_split_of(checkpoint.parent.parent, args.split, data, args.overrides)
    exact = module.model.exact
    particles = 1 if exact or bounds == {"elbo"} else args.k

    runs = score_split(module, data, args, bounds, particles)
    scores = over_runs([run.compute() for run in runs])
    figures = {f"{args.split}/{key}": value for key, value in scores.items()}
    figures |= {"parameters": module.model.parameter_count, "particles": particles}

    spaces = list(module.hparams["data"]["log_scales"])
    console = Console()
    console.print(scores_tables(figures, [args.split], spaces, particles, exact))
    console.print(
        f"{int(scores['sequences']):,} sequences, {module.model.parameter_count:,} parameters"
    )
    file = args.json or (scores_file(args, particles) if own else None)
    if file is not None:
        file.write_text(json.dumps(figures | scored, indent=2) + "\n")
        if args.json is None:
            write_sequences(file, runs)
    return figures


def score_split(
    module: Any, data: Any, args: argparse.Namespace, bounds: set[str], particles: int
) -> "list[Scores]":
    """Scores every sequence of a split once a run, with a progress bar."""
    import numpy as np
    import torch
    from rich.progress import track

    from vrnn.evaluation import score
    from vrnn.metrics import Scores

    sequences = data.splits[args.split]
    if args.limit is not None and args.limit < len(sequences):
        chosen = np.linspace(0, len(sequences) - 1, args.limit).round().astype(int)
        data.splits[args.split] = sequences.select(chosen)
    options = {"how": args.resampling, "threshold": args.threshold}
    given = {name: value for name, value in options.items() if value is not None}
    resampling = module.objective.resampling._replace(**given)
    loader = data.loader(args.split, data.eval_batch_size)
    discrete = module.model.likelihood.discrete
    runs = [Scores.of(module.hparams["data"], discrete) for _ in range(args.runs)]
    with torch.inference_mode():
        for batch in track(loader, f"scoring {args.split}", total=len(loader)):
            x, mask, ids = (part.to(args.device) for part in (batch.x, batch.mask, batch.ids))
            for run, scores in enumerate(runs):
                seed = args.seed + run
                figures = score(
                    module.model, x, mask, ids, particles, seed, bounds, resampling, args.split
                )
                scores.update(ids, mask.sum(0), figures)
    return runs


def scores_file(args: argparse.Namespace, particles: int) -> Path | None:
    """Where the scores of a run are found again (`reports.table`); None of a lone checkpoint, or
    where not all sequences are scored."""
    from runs.evaluated import file_of

    folder = Path(args.run)
    if args.limit is not None or not folder.is_dir():
        return None
    return file_of(folder, args.split, particles)


def over_runs(runs: list[dict[str, float]]) -> dict[str, float]:
    """Means over runs with different particles; `..._run_se` are their standard errors."""
    from statistics import mean, stdev

    figures = {key: mean(run[key] for run in runs) for key in runs[0]}
    if len(runs) > 1:
        for key in runs[0]:
            if not key.endswith("_se") and key not in ("sequences", "steps"):
                figures[f"{key}_run_se"] = stdev(run[key] for run in runs) / len(runs) ** 0.5
    return figures


if __name__ == "__main__":
    main()
