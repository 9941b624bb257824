"""The paper's Table 1 with the scores of one's own runs: python -m reports.table outputs

Every run below the folders counts; of several of one model on one data set, the one with the best
bound on the validation split. Written to the first folder as table.csv, .md and .tex, too. Scores
are those of metrics.json and of what `evaluate.py RUN --k 40` leaves in the run; for music, of
`evaluate.py RUN --bounds elbo,fivo --k 8`, as published there.
"""

import argparse
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reports.groups import by_scores, split_print, unit_of
from reports.kinds import kind_of
from reports.published import incomparable, read_published
from reports.table_text import Line, Part, show_table, write_table
from runs.errors import readable_errors
from runs.evaluated import read_evaluated
from runs.metrics import overrides
from runs.run import Run, checkpoints, read_run
from vrnn.bounds import BOUNDS, DEFAULT_BOUNDS
from vrnn.checkpoint import find_checkpoint, read

__all__ = ["Line", "Part", "parts", "runs_below"]

log = logging.getLogger(__name__)

MODELS = ("RNN-Gauss", "RNN-GMM", "VRNN-I-Gauss", "VRNN-Gauss", "VRNN-GMM")
"""The rows of the paper's table."""

RNN_FIGURES = ("elbo",)
VRNN_FIGURES = ("elbo", "iwae", "paper")
MUSIC_FIGURES = ("elbo", "fivo")
K = 40
FILTERED = 8
PARTICLES = {"iwae": K, "paper": K, "fivo": FILTERED}
"""Those of the table; figures of others are left out."""

CONF = Path(__file__).parent.parent / "conf"

NAMED = {"posterior", "prior", "residual", "likelihood"}
"""Options of models that make other ones of them, as `runs.naming` tells."""


def runs_below(folders: Iterable[Path]) -> list[Run]:
    """Reads all runs in and below folders.

    Raises:
        ValueError: if there is none below one of them.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        here = {file.parent for file in folder.glob("**/metrics.json")}
        here |= {file.parent.parent for file in folder.glob("**/checkpoints/*.ckpt")}
        if not here:
            raise ValueError(
                f"there is no run in {folder}: neither a metrics.json nor a checkpoint"
            )
        found |= dict.fromkeys(sorted(here))
    runs = [with_model(read_run(folder)) for folder in found]
    for run in runs:
        if not named(run):
            log.warning(
                "%s is left out: neither run.json, hparams.yaml nor a checkpoint tells its model "
                "and data",
                run.folder,
            )
    return [with_scores(run) for run in runs if named(run)]


def named(run: Run) -> bool:
    return bool(run.model and run.data.get("name"))


def with_model(run: Run) -> Run:
    """Takes the model's description from a checkpoint where the configuration is not kept."""
    if run.model or not checkpoints(run.folder):
        return run
    stored = read(find_checkpoint(run.folder))["hyper_parameters"]
    return run._replace(settings={**run.settings, "model": stored["model"]})


def with_scores(run: Run) -> Run:
    """Adds what evaluate.py wrote; figures of other particles than the table's are left out."""
    figures = of_particles(run.figures, run.figures.get("particles"))
    evaluated: dict[str, float] = {}
    for k in (1, FILTERED, K):
        evaluated |= of_particles(read_evaluated(run.folder, "test", k), k)
    if evaluated and run.part("test"):  # All of the split is scored by now.
        figures = {key: v for key, v in figures.items() if not key.startswith("test/")}
    return run._replace(figures=figures | evaluated)


def of_particles(figures: Mapping[str, float], k: float | None) -> dict[str, float]:
    return {key: v for key, v in figures.items() if PARTICLES.get(bound_of(key), k) == k}


def bound_of(key: str) -> str:
    """The name of the bound in the key of a figure, `split/name_unit`; empty where it has none."""
    figure = key.partition("/")[2]
    return max((n for n in BOUNDS if f"{figure}_".startswith(f"{n}_")), key=len, default="")


def parts(runs: Sequence[Run]) -> list[Part]:
    """The table of each data set that there are runs for."""
    return [one_part(data, members) for data, members in by_scores(runs).items()]


def one_part(data: str, runs: Sequence[Run]) -> Part:
    unit, name = unit_of(runs), str(runs[0].data["name"])
    known = read_published().get(name, {})
    rows = known.get("rows", ()) if unit.suffix == known.get("suffix") else ()
    chosen: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: score_of(run, "val/elbo", unit.suffix)):
        chosen[run.model] = run
    lines: list[Line] = []
    for model in dict.fromkeys(
        (*(MODELS if kind_of(runs[0].kind).in_paper else ()), *sorted(chosen))
    ):
        lines += lines_of(model, chosen.get(model), name, unit.suffix, rows, runs)
    given = {(line.model, line.figure) for line in lines}
    for row in rows:
        if (row["model"], row["bound"]) not in given:
            cells = (row["model"], row["bound"], None, None, row["value"], row["verified"])
            lines.append(Line(*cells, None, None))
    notes = notes_of(runs, chosen, known if rows else {})
    if unit.suffix.startswith("_raw"):
        notes.append("Under several normalisers or kinds of likelihood only raw figures compare")
    return Part(data, unit.name, unit.digits, lines, notes)


def lines_of(
    model: str,
    run: Run | None,
    data: str,
    suffix: str,
    published: Sequence[Mapping[str, Any]],
    siblings: Sequence[Run],
) -> list[Line]:
    figures = {} if run is None else run.figures
    size = figures.get("parameters")
    in_paper = kind_of(siblings[0].kind).in_paper
    plain = model if in_paper else model.partition(" ")[0]
    latent = VRNN_FIGURES if in_paper else MUSIC_FIGURES
    why = "" if run is None else incomparable(run)
    lines = []
    exact = model.startswith("RNN-")
    for name in RNN_FIGURES if exact else latent:
        figure = "log p(x)" if exact else BOUNDS[name].title(PARTICLES.get(name))
        key = f"test/{name}{suffix}"
        row = next((r for r in published if (named_here(r), r["bound"]) == (plain, figure)), None)
        fill = None
        if key not in figures:
            fill = (
                train_command(model, data, siblings)
                if run is None
                else evaluate_command(run, name)
            )
        lines.append(
            Line(
                model,
                figure,
                figures.get(key),
                figures.get(f"{key}_se"),
                row["value"] if row is not None and not why else None,
                row is not None and not why and row["verified"],
                None if size is None else int(size),
                fill,
                why if row is not None and key in figures else "",
            )
        )
    return lines


def score_of(run: Run, name: str, suffix: str) -> float:
    value = run.figures.get(f"{name}{suffix}", float("-inf"))
    return value if value == value else float("-inf")


def named_here(row: Mapping[str, Any]) -> str:
    """The model of the table that a published figure is compared with."""
    return str(row.get("ours", row["model"]))


def evaluate_command(run: Run, name: str) -> str:
    k = "" if run.model.startswith("RNN-") else f" --k {K}"
    if name not in DEFAULT_BOUNDS:
        k = f" --bounds elbo,{name} --k {PARTICLES[name]}"
    return f"python evaluate.py {shlex.quote(str(run.folder))}{k}"


def train_command(model: str, data: str, siblings: Sequence[Run]) -> str:
    """As a run on the same data was started, with the other model, and the sizes that all runs
    beside it have; as published where nothing is known of such a run."""
    name = model.lower().replace("-", "_")
    free = ("seed=", "ckpt=", "hydra.", "model=", "model.")
    given = [overrides(run.folder) for run in siblings]
    given = [words for words in given if any(word.startswith("model=") for word in words)]
    if given:
        kept = [word for word in given[0] if not word.startswith(free)]
        shared = set.intersection(*map(set, given))
        own = tuple(f"model.{option}=" for option in options_of(name) - NAMED)
        sizes = [word for word in given[0] if word in shared and word.startswith(own)]
        return shlex.join(["python", "train.py", *kept, f"model={name}", *sizes])
    published = (CONF / "experiment" / "paper" / f"{data}_{name}.yaml").is_file()
    chosen = f"experiment=paper/{data}_{name}" if published else f"model={name} data={data}"
    return f"python train.py {chosen}"


def options_of(model: str) -> set[str]:
    """The options that a model of conf/model has."""
    content = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text())
    bases = [base for base in content.pop("defaults", []) if base != "_self_"]
    return set(content).union(*map(options_of, bases))


def notes_of(
    runs: Sequence[Run], chosen: Mapping[str, Run], known: Mapping[str, Any]
) -> list[str]:
    """What one has to know of the comparison."""
    notes = []
    for model, run in chosen.items():
        others = sum(other.model == model for other in runs) - 1
        options = run.settings.get("data")
        options = options if isinstance(options, dict) else {}
        cut = [f"data.{k}={options[k]}" for k in ("split", "window") if options.get(k)]
        best = f", the best of {others + 1} on the validation split" if others else ""
        if len({split_print(other, "val") for other in runs if other.model == model}) > 1:
            best += ", which is not the same for all"
        notes.append(f"{model}: {run.folder}{', ' if cut else ''}{' '.join(cut)}{best}")
        if known and (why := incomparable(run)):
            notes.append(f"{model} {why}, and is not compared with what was published")
    if known:
        notes.append(f"Published: {known['source']}. {known['note']}")
        pairs = {(row["ours"], row["model"]) for row in known["rows"] if "ours" in row}
        notes += [f"{ours} is compared with the {other}" for ours, other in sorted(pairs)]
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reports.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "--out", type=Path, help="folder of table.csv, .md and .tex (default: the first one)"
    )
    args = parser.parse_args()

    with readable_errors():
        table = parts(runs_below(args.folders))
        show_table(table)
        folder = args.out or args.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        write_table(table, folder)


if __name__ == "__main__":
    main()
