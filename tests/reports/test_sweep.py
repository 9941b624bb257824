"""Many runs, one table."""

import csv
import importlib.util
import json
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.helpers import CONF, Command
from support.scored_runs import unpadded
from support.small_corpora import write as write_corpus

from reports.sweep import Row, rows, show_sweep, write_sweep
from runs.metrics import overrides

FAST = ["logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
FAST += ["model=rnn_gauss", "debug=fast", "untrained=false", "test=false"]
SMALL = [*FAST, "data.lines=2", "data.val_lines=1", "data.test_lines=1"]


def job(folder: Path, words: list[str], figures: dict[str, float] | str) -> None:
    """A folder as a job of a sweep leaves it, with its figures or the error it ended with."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    (folder / "run.json").write_text("{}")
    if isinstance(figures, str):
        (folder / "error.txt").write_text(f"{figures}\n\nTraceback ...\n")
    else:
        (folder / "metrics.json").write_text(json.dumps(figures))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Ten runs by hand: two models, up to three seeds, failures of both kinds."""
    scores = {"rnn_gmm": (-3.0, -1.0, -2.0), "vrnn_gmm": (5.0, 7.0), "vrnn_gauss": (1.0,)}
    n = 0
    for model, values in scores.items():
        for seed, score in enumerate(values):
            figures = {"val/elbo": score, "test/elbo": 10 * score, "best_epoch": 4 + seed}
            words = ["data=iam", f"model={model}", f"seed={seed}"]
            job(tmp_path / f"{n}_{model}_iam", words, {**figures, "parameters": 1234})
            n += 1
    job(tmp_path / f"{n}_vrnn_gmm_iam", ["data=iam", "model=vrnn_gmm", "seed=2"], "no memory")
    words = ["data=iam", "model=rnn_foo", "seed=0"]
    job(tmp_path / f"{n + 1}_rnn_foo_iam", words, "model=rnn_foo is not one of")
    job(tmp_path / f"{n + 2}_dead_iam", ["data=iam", "model=dead", "seed=0"], {})
    (tmp_path / f"{n + 2}_dead_iam" / "metrics.json").unlink()
    return tmp_path


def test_means_and_errors_are_over_seeds_and_failures_show(sweep: Path) -> None:
    table = {row.options: row for row in rows([sweep])}
    assert list(table)[:3] == ["model=vrnn_gmm", "model=vrnn_gauss", "model=rnn_gmm"]
    assert len(table) == 5
    gmm = table["model=rnn_gmm"]
    assert gmm.seeds == 3 and gmm.failures == []
    # The standard deviation of -3, -1, -2 is 1.
    assert gmm.figures["val/elbo"] == (-2.0, pytest.approx(3**-0.5))
    assert gmm.figures["best_epoch"][0] == 5
    vrnn = table["model=vrnn_gmm"]
    assert vrnn.figures["test/elbo"] == (60.0, pytest.approx(10.0)) and vrnn.seeds == 2
    assert vrnn.failures == ["6_vrnn_gmm_iam: no memory"]
    assert vrnn.best == sweep / "4_vrnn_gmm_iam" and table["model=dead"].best is None
    assert table["model=vrnn_gauss"].figures["val/elbo"] == (1.0, None)
    assert table["model=dead"].failures == ["8_dead_iam: did not come to its end"]


def test_densities_and_probabilities_are_ranked_by_raw_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probability is the better one, though it looks worse beside a standardised density."""
    for model, shown, raw in (("vrnn_gauss", -100.0, -400.0), ("vrnn_mulaw", -300.0, -300.0)):
        per_step = {"val/elbo_per_step": shown / 10, "val/elbo_raw_per_step": raw / 10}
        figures = {"val/elbo": shown, "val/elbo_raw": raw, "val/sequences": 2, "val/steps": 20}
        job(tmp_path / f"0_{model}", ["data=fsdd", f"model={model}"], figures | per_step)
    table = rows([tmp_path])
    assert [row.options for row in table] == ["model=vrnn_mulaw", "model=vrnn_gauss"]
    show_sweep(table)
    assert f"best run: {tmp_path / '0_vrnn_mulaw'}" in (shown := capsys.readouterr().out)
    assert "-300.0" in shown and "-400.0" in shown and "per sequence, raw" in shown
    write_sweep(table, tmp_path)
    assert "| val/elbo_raw |" in unpadded(tmp_path / "sweep.md")
    other = json.loads((tmp_path / "0_vrnn_mulaw" / "metrics.json").read_text())
    (tmp_path / "0_vrnn_mulaw" / "metrics.json").write_text(json.dumps(other | {"val/steps": 30}))
    assert rows([tmp_path])[0].options == "model=vrnn_gauss", "other data: no space compares"


def test_windows_of_other_lengths_have_no_best_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, (window, model, bound) in enumerate(
        [(10, "a", 30.0), (40, "a", 100.0), (10, "b", 20.0), (40, "b", 110.0)]
    ):
        figures = {"val/elbo": bound, "val/sequences": 400 // window, "val/steps": 400}
        job(tmp_path / f"{n}_x", [f"data.window={window}", f"model={model}"], figures)
    table = rows([tmp_path])
    windows = [row.options.split()[0] for row in table]
    assert windows == ["data.window=40"] * 2 + ["data.window=10"] * 2
    assert [row.figures["val/elbo"][0] for row in table] == [110, 100, 30, 20]
    show_sweep(table)
    shown = capsys.readouterr().out
    assert "best run" not in shown and "their bounds do not compare" in shown


def test_the_table_is_written_in_three_ways(sweep: Path) -> None:
    table = rows([sweep])
    write_sweep(table, sweep)
    with open(sweep / "sweep.csv") as file:
        read = list(csv.DictReader(file))
    assert [row["options"] for row in read] == [row.options for row in table]
    assert float(read[0]["val/elbo"]) == 6 and float(read[0]["val/elbo_se_over_seeds"]) == 1
    assert read[1]["val/elbo_se_over_seeds"] == "" and read[0]["failed"] == "1"
    markdown = (sweep / "sweep.md").read_text().splitlines()
    assert len(markdown) == 2 + len(table) and len({line.count("|") for line in markdown}) == 1
    assert "6.0 ± 1.0" in markdown[2] and "1,234" in markdown[2]
    tex = unpadded(sweep / "sweep.tex")
    assert r"model=vrnn\_gmm & 2 & 6.0 $\pm$ 1.0 & 60.0 $\pm$ 10.0" in tex
    assert tex.count(r"\\") == 1 + len(table)


def test_any_runs_make_a_table_later(
    sweep: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reports import sweep as module

    chosen = [sweep / "0_rnn_gmm_iam", sweep / "3_vrnn_gmm_iam"]
    out = tmp_path / "tables"
    monkeypatch.setattr("sys.argv", ["sweep", *map(str, chosen), "--out", str(out)])
    module.main()
    shown = capsys.readouterr().out
    assert "model=vrnn_gmm" in shown and (out / "sweep.csv").is_file()
    monkeypatch.setattr("sys.argv", ["sweep", str(tmp_path / ".hydra")])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 1 and "neither a run nor a sweep" in capsys.readouterr().err
    (chosen[0] / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="metrics.json is damaged"):
        rows(chosen)


def test_the_words_of_a_run_are_those_that_hydra_kept(tmp_path: Path) -> None:
    """Quotes, and words that YAML breaks into several lines, included."""
    words = ["seed=0", "+x='a b'", "~callbacks.pictures", 'name="it\'s: # one"', "a=[1, 'b']"]
    words += [f"data.root='/{'a folder with a long name/' * 8}'", "model={a: 1}", "x="]
    (tmp_path / ".hydra").mkdir()
    file = tmp_path / ".hydra" / "overrides.yaml"
    for kept in (words, []):
        OmegaConf.save(OmegaConf.create(kept), file)
        assert overrides(tmp_path) == kept
    for damaged in ("- 'a", "", "a"):
        file.write_text(damaged)
        assert overrides(tmp_path) == []
    file.unlink()
    assert overrides(tmp_path) == []


def test_rows_without_figures_can_be_written(tmp_path: Path) -> None:
    write_sweep([Row("a", 0, {}, ["x: y"])], tmp_path)
    assert "a,0,1" in (tmp_path / "sweep.csv").read_text()


def test_a_failed_job_shows_and_only_it_is_run_again(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cause mended from outside, as that of a full disk or a missing corpus would be."""
    options = [*SMALL, f"hydra.sweep.dir={tmp_path}", "seed=0,1", "data.num_workers=0"]
    with monkeypatch.context() as patch:
        patch.setattr("runs.record.hardware", broken)
        shown = command.fails("train.py", "-m", *options)
    assert "no such machine" in shown and "Traceback" not in shown
    assert not list(tmp_path.glob("*/metrics.json"))
    assert len(list(tmp_path.glob("*/error.txt"))) == 2
    command("train.py", "-m", *options)
    files = sorted(tmp_path.glob("*/metrics.json"))
    assert len(files) == 2 and not list(tmp_path.glob("*/error.txt"))
    written = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    shown = command("train.py", "-m", *options, "ckpt=last")
    assert files[0].stat().st_mtime_ns == written[0] and files[1].is_file()
    assert "parameters" in shown
    # The same folder for another sweep would mix them up.
    shown = command.fails("train.py", "-m", *options, "optim.lr=0.1")
    assert "holds the results of other options (optim.lr was 0.001, not 0.1)" in shown
    assert not list(tmp_path.glob("*/error.txt")), "the results that are there are still good"


def test_a_sweep_over_files_of_any_width_is_not_run_twice(
    tmp_path: Path, command: Command
) -> None:
    root = tmp_path / "csv_folder"
    write_corpus("csv_folder", root)
    options = [*FAST, "data=csv_folder", f"data.root={root}", "data.num_workers=0"]
    options += [f"hydra.sweep.dir={tmp_path / 'sweep'}", "seed=0,1"]
    command("train.py", "-m", *options)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("sweep/*/metrics.json")}
    assert len(written) == 2
    command("train.py", "-m", *options)
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert summary(tmp_path / "sweep") == {"rnn_gauss_csv_folder": (2, 0)}


def broken() -> dict[str, str]:
    raise ValueError("no such machine")


LAUNCHERS = {
    "basic": ([], 6),
    "cores": (["hydra/launcher=cores"], 4),
    "local": (["hydra/launcher=local", "hydra.launcher.timeout_min=10"], 3),
    "cluster": (["hydra/launcher=cluster", "+hydra.launcher.ray.init.num_cpus=2"], 4),
}
JOBS = os.environ.get("VRNN_JOBS")
"""As many jobs under every launcher, also under the one that starts a Python for each."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_only_the_jobs_that_failed_are_run_again(
    name: str, tmp_path: Path, command: Command
) -> None:
    """Under every launcher the other jobs end, the table has all, and the exit code tells."""
    if name == "cluster" and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install -e '.[ray]'")
    launcher, jobs = LAUNCHERS[name]
    jobs = int(JOBS or jobs)
    folders = [tmp_path / f"{n}_rnn_gauss_synthetic_handwriting" for n in range(jobs)]
    broken = {1, jobs - 1}
    for n in broken:
        folders[n].mkdir()
        (folders[n] / "samples").write_text("where the folder of samples should be")
    sizes = [str(4 + n) for n in range(jobs)]
    options = [*SMALL, *launcher, f"hydra.sweep.dir={tmp_path}", f"model.hidden={','.join(sizes)}"]
    command.fails("train.py", "-m", *options)
    assert summary(tmp_path) == {
        f"model.hidden={size}": (0, 1) if n in broken else (1, 0) for n, size in enumerate(sizes)
    }
    named = [failure for row in rows([tmp_path]) for failure in row.failures]
    assert len(named) == 2
    for n in broken:
        assert any(f.startswith(f"{folders[n].name}: ") and "samples" in f for f in named)
        (folders[n] / "samples").unlink()

    written = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*/metrics.json")}
    command("train.py", "-m", *options)
    assert summary(tmp_path) == {f"model.hidden={size}": (1, 0) for size in sizes}
    assert {f: f.stat().st_mtime_ns for f in written} == written
    assert len(list(tmp_path.glob("*/metrics.json"))) == jobs == len(written) + 2


def summary(folder: Path) -> dict[str, tuple[int, int]]:
    """Of sweep.csv: how many runs of each row came to their end, and how many failed."""
    with open(folder / "sweep.csv") as file:
        table = csv.DictReader(file)
        return {row["options"]: (int(row["seeds"]), int(row["failed"])) for row in table}


SWEEPS = sorted(p.stem for p in (CONF / "sweep").glob("*.yaml") if not p.stem.startswith("wandb"))


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_sweep_builds(name: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train", [f"sweep={name}", f"output_dir={tmp_path}"], return_hydra_config=True
        )
        params = OmegaConf.to_container(cfg.hydra.sweeper.params)
        assert isinstance(params, dict) and params
        for key, values in params.items():
            for value in values.split(","):
                builds(f"{key}={value}", tmp_path)


def builds(override: str, folder: Path) -> None:
    instantiate(compose("train", [override, f"output_dir={folder}"]).objective)


@pytest.mark.parametrize("name", ["grid", "bayes"])
def test_wandb_sweeps_give_overrides(name: str, tmp_path: Path) -> None:
    sweep = OmegaConf.to_container(OmegaConf.load(CONF / "sweep" / f"wandb_{name}.yaml"))
    assert isinstance(sweep, dict)
    assert sweep["command"][-1] == "${args_no_hyphens}" and sweep["method"] == name
    assert sweep["metric"]["name"] == "val/elbo" and (CONF.parent / sweep["program"]).is_file()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for key, choice in sweep["parameters"].items():
            values = choice.get("values") or [choice["min"], choice["max"]]
            for value in values:
                builds(f"{key}={value}", tmp_path)


def test_under_slurm_the_folder_is_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["hydra=slurm"], return_hydra_config=True)
    assert cfg.ckpt == "last"
    folder = OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"]
    assert folder.startswith("outputs/slurm-${oc.env:SLURM_JOB_ID") and "now" not in folder
    assert os.environ["SLURM_JOB_ID"] == "4711"
