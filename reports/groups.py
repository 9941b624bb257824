"""Which runs are compared with each other, and in which unit."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.kinds import kind_of
from reports.published import Unit, read_published
from runs.metrics import alike, log_scale
from runs.run import Run

__all__ = ["by_data", "by_scores", "split_print", "unit_of"]

OF_TRAINING = (
    "batch_size",
    "eval_batch_size",
    "num_workers",
    "cache",
    "max_steps",
    "crop",
    "drop_incomplete",
    "seed",
)
"""Options of data by which nobody tells test splits apart."""


def by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs on the same data, by its name; where data sets of one name have other test splits, with
    the options that tell them apart."""
    splits: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        name = str(run.data.get("name", "unknown data"))
        splits.setdefault(name, {}).setdefault(told_apart(run), []).append(run)
    return {
        title: members
        for name, groups in splits.items()
        for title, members in zip(titles(name, groups), groups.values(), strict=True)
    }


def by_scores(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """As `by_data`, but those scored on a part of the test split are apart."""
    groups: dict[str, list[Run]] = {}
    for title, members in by_data(runs).items():
        for run in members:
            part = run.part("test")
            name = f"{title}, {part} of the test split" if part else title
            groups.setdefault(name, []).append(run)
    return groups


def told_apart(run: Run) -> str:
    """What runs on one test split share: its fingerprint; where that is not known, the window that
    its sequences are cut to; else nothing."""
    given = run.settings.get("data")
    window = given.get("window") if isinstance(given, dict) else None
    return split_print(run, "test") or (f"of windows of {window}" if window else "")


def split_print(run: Run, split: str) -> str:
    """The fingerprint of a split; empty where it is not known."""
    prints = run.record.get("data")
    return str(prints.get(split, "")) if isinstance(prints, dict) else ""


def titles(name: str, groups: Mapping[str, Sequence[Run]]) -> list[str]:
    if len(groups) == 1:
        return [name]
    shared = [shared_options(members) for members in groups.values()]
    everywhere = set.intersection(*shared)
    own = [" ".join(sorted(options - everywhere)) for options in shared]
    return [
        f"{name} {options}".rstrip()
        if own.count(options) == 1
        else f"{name}, {f'test split {split}' if split else 'test split unknown'}"
        for options, split in zip(own, groups, strict=True)
    ]


def shared_options(runs: Sequence[Run]) -> set[str]:
    """What all of them were given as options of the data, as words."""
    return set.intersection(*(set(options(run.settings.get("data"))) for run in runs))


def options(data: Any) -> list[str]:
    given = data.items() if isinstance(data, dict) else ()
    told = [(k, v) for k, v in given if k not in OF_TRAINING and not k.startswith("_")]
    return [f"data.{key}={value}" for key, value in told if value is not None]


def unit_of(runs: Sequence[Run]) -> Unit:
    """The unit in which scores on the same data are given first; raw where their standardised ones
    do not compare, for want of the same normaliser or the same kind of likelihood."""
    unit = first_unit(next((run for run in runs if run.figures), runs[0]))
    space = unit.suffix.removesuffix("_per_step")
    if alike(log_scale(run.figures, space) for run in runs):
        return unit
    length = unit.suffix.removeprefix(space)
    return Unit(f"{unit.name.partition(',')[0]}, raw", f"_raw{length}", unit.digits)


def first_unit(run: Run) -> Unit:
    known = read_published().get(str(run.data.get("name")))
    if known is not None:
        return Unit(known["unit"], known["suffix"], 1 if "per sequence" in known["unit"] else 3)
    if any(key.endswith("/elbo_paper") for key in run.figures):
        return Unit("nats per sequence, paper units", "_paper", 1)
    return kind_of(run.kind).unit
