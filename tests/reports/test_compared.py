"""What tables of runs put beside what."""

from pathlib import Path

from support.scored_runs import job, scored

from reports.page_scores import compared, published
from reports.table import parts, runs_below
from runs.run import read_run


def test_published_figures_come_the_best_first(tmp_path: Path) -> None:
    table, _ = published(read_run(job(tmp_path / "a", "VRNN-Gauss", scored(1300.0))))
    shown = [row[2].partition(" ")[0].replace(",", "") for row in table.rows]
    assert "1300.0" in shown and shown == sorted(shown, key=float, reverse=True)


def test_a_kl_is_per_step_whatever_the_unit_of_the_bounds(tmp_path: Path) -> None:
    figures = scored(1300.0, **{"test/kl": 50.0, "test/kl_per_step": 0.5})
    run = read_run(job(tmp_path / "a", "VRNN-Gauss", figures))
    (table,) = compared([run], {run.folder: "a"})
    assert table.rows[0][list(table.columns).index("KL per step")] == "0.5000"


def test_runs_are_chosen_by_validation_though_the_test_says_otherwise(tmp_path: Path) -> None:
    job(tmp_path / "a", "VRNN-Gauss", scored(1400.0, **{"val/elbo_paper": 1000.0}))
    job(tmp_path / "b", "VRNN-Gauss", scored(1300.0, **{"val/elbo_paper": 1100.0}))
    (part,) = parts(runs_below([tmp_path]))
    assert [line.value for line in part.lines if line.figure == "ELBO" and line.value] == [1300.0]


def test_runs_under_other_normalisers_are_compared_in_the_papers_units(tmp_path: Path) -> None:
    for name, gain in (("a", 5.0), ("b", 7.0)):
        spaces = {"": gain, "_raw": 0.0, "_paper": 3.0}
        figures = {
            f"{split}/elbo{space}{per}": value
            for split in ("val", "test")
            for space, value in spaces.items()
            for per in ("", "_per_step")
        }
        job(tmp_path / name, "VRNN-Gauss", figures)
    (part,) = parts(runs_below([tmp_path]))
    assert part.unit == "nats per sequence, paper units"
