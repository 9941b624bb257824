"""The paper's table takes no difference of figures that do not compare, and says why."""

import json
from pathlib import Path

import pytest
from support.scored_runs import job, on_data, scored, unpadded

from reports.page_scores import published
from reports.table import parts, runs_below
from reports.table_text import cells, missing_of, write_table
from runs.run import read_run


def spoken(folder: Path, **options: object) -> Path:
    """A run on Blizzard, as `on_data`, in standardised units."""
    figures = {"test/elbo": 900.0, "test/elbo_raw": -100.0, "val/elbo": 890.0, "parameters": 9}
    return on_data(job(folder, "VRNN-Gauss", figures, "blizzard"), folder.name, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window": 40, "normaliser": "global", "frame": 200, "rate": 16000}, ""),
        ({"window": 10}, "has data.window=10, not 40"),
        ({"window": None}, "has data.window=null, not 40"),
        ({"window": 40, "normaliser": "none"}, "has data.normaliser=none, not global"),
        (
            {"frame": 100, "rate": 8000},
            "has data.frame=100, not 200 and data.rate=8000, not 16000",
        ),
    ],
)
def test_no_difference_is_taken_of_what_does_not_compare(
    tmp_path: Path, options: dict[str, object], reason: str
) -> None:
    spoken(tmp_path / "a", **options)
    (part,) = table = parts(runs_below([tmp_path]))
    rows = {row[1]: row for row in cells(part, missing_of(table)) if row[2] == "900.0"}
    shown = ["9,223.0", "-8,323.0"] if not reason else ["", reason]
    assert rows["ELBO"][3:5] == shown
    assert any(reason in note for note in part.notes)
    write_table(table, tmp_path)
    line = f"| ELBO | 900.0 | {' | '.join(shown)} |".replace("  ", " ")
    assert line in unpadded(tmp_path / "table.md")
    beside = published(read_run(tmp_path / "a"))
    assert beside is not None and bool(beside[0].marked) == (not reason)


def test_lines_cut_to_windows_are_not_beside_the_published_lines(tmp_path: Path) -> None:
    on_data(job(tmp_path / "a", "VRNN-Gauss", scored(20.0)), "aaaa", window=10)
    (part,) = parts(runs_below([tmp_path]))
    line = next(line for line in part.lines if (line.model, line.value) == ("VRNN-Gauss", 20.0))
    assert (line.published, line.reason) == (None, "has data.window=10, not null")


def test_runs_of_other_windows_are_apart_though_no_fingerprint_tells(tmp_path: Path) -> None:
    for window in (None, 10):
        folder = on_data(job(tmp_path / f"{window}", "VRNN-Gauss", scored(1.0), "mine"), "")
        config = json.loads((folder / "run.json").read_text())["config"]
        config["data"] = {"window": window}
        (folder / "run.json").write_text(json.dumps({"config": config}))
    assert [part.data for part in parts(runs_below([tmp_path]))] == ["mine data.window=10", "mine"]


def test_a_choice_between_validation_splits_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = on_data(job(tmp_path / name, "VRNN-Gauss", scored(1.0)), "aaaa")
        record = json.loads((folder / "run.json").read_text())
        record["data"]["val"] = name
        (folder / "run.json").write_text(json.dumps(record))
    (part,) = parts(runs_below([tmp_path]))
    assert any("on the validation split, which is not the same for all" in n for n in part.notes)
