"""Folders of runs that did not end well, and logs that are not whole."""

import json
import shutil

import numpy as np
import pytest
import yaml
from support.helpers import configure
from support.pages import check

import train
from reports.page import write_comparison, write_report
from runs.curves import Curve, panels, read_curves, thin
from runs.run import read_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    options = ["trainer.max_epochs=2", "untrained=false", "report=false"]
    train.run(configure(folder, *options))
    assert not (folder / "report.html").exists()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def log(folder, name, lines, end="\n"):
    (folder / name).write_text("\n".join(lines) + end)


def test_thinning_keeps_the_extremes_and_the_gaps():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(50_000).cumsum()
    y[12_345], y[40_000], y[41_000] = 1e6, -1e6, np.nan
    y[30_000:30_200] = np.inf
    curve = Curve(np.arange(50_000.0), y)
    few = thin(curve)
    assert len(few.x) <= 1_010 and (np.diff(few.x) > 0).all()
    assert {1e6, -1e6} <= set(few.y) and few.x[0] == 0 and few.x[-1] == 49_999
    np.testing.assert_array_equal(few.y, y[few.x.astype(int)])
    assert np.isnan(few.y).sum() == 1 and np.isinf(few.y).any()
    # No piece of the curve is drawn lower or higher than it is.
    for piece in np.array_split(np.arange(50_000), 50):
        inside = (few.x >= piece[0]) & (few.x <= piece[-1]) & np.isfinite(few.y)
        whole = y[piece][np.isfinite(y[piece])]
        assert few.y[inside].min() == whole.min() and few.y[inside].max() == whole.max()
    short = Curve(np.arange(3.0), np.ones(3))
    assert thin(short) is short


def test_curves_of_densities_and_probabilities_are_drawn_raw():
    def curves(scale):
        raw = {"train/elbo": -9.0, "val/elbo": -8.0, "val/log_likelihood": -7.0}
        figures = {f"{name}_per_step": value + scale for name, value in raw.items()}
        figures |= {"val/elbo_raw_per_step": -8.0, "val/kl_per_step": 1.0}
        return {name: Curve(np.arange(2.0), np.full(2, y)) for name, y in figures.items()}

    def shown(runs):
        return {p["title"]: (p["unit"], [s["y"][0] for s in p["series"]]) for p in panels(runs)}

    same = shown({"a": curves(5.0), "b": curves(5.0)})
    assert same["Bound"] == ("nats per step", [-4, -3, -4, -3])
    mixed = shown({"density": curves(5.0), "probability": curves(0.0)})
    assert mixed["Bound"] == ("nats per step, raw", [-9, -8, -9, -8])
    assert mixed["Log likelihood given the latents"] == ("nats per step, raw", [-7, -7])
    assert mixed["KL from prior to posterior"] == ("nats per step", [1, 1])
    begun = {"train/elbo_per_step": Curve(np.zeros(1), np.zeros(1))}
    runs = {"density": curves(5.0), "probability": curves(0.0), "begun": begun}
    assert shown(runs)["Bound"] == mixed["Bound"]


def test_parts_of_an_interrupted_run_are_joined(tmp_path):
    head = "epoch,step,train/grad_norm,val/elbo"
    log(tmp_path, "metrics.1.csv", [head, "0,0,1,", "0,9,2,", "0,9,,-5", "1,19,3,", "1,29,4,"])
    log(tmp_path, "metrics.2.csv", [head, "1,19,30,", "1,29,40,"])
    # It went on from update 19, in other columns.
    log(tmp_path, "metrics.csv", ["step,val/elbo,train/grad_norm", "19,,31", "19,-4,"])
    curves, notes = read_curves(tmp_path)
    assert curves["train/grad_norm"].x.tolist() == [0, 9, 19]
    assert curves["train/grad_norm"].y.tolist() == [1, 2, 31]
    assert curves["val/elbo"].y.tolist() == [-5, -4] and notes == []


def test_final_scores_are_no_part_of_the_curves(tmp_path):
    head = "step,val/elbo,test/elbo,train/grad_norm"
    log(tmp_path, "metrics.csv", [head, "9,-5,,", "19,-3,,", "29,-4,,", "30,-3,,", "30,,-2,"])
    curves, _ = read_curves(tmp_path)
    assert curves["val/elbo"].y.tolist() == [-5, -3, -4] and "test/elbo" not in curves


def test_a_log_that_is_not_whole_is_read_as_far_as_it_goes(tmp_path):
    lines = ["step,train/grad_norm", "0,nan", "1,2", "x,3", "2,inf", "3", "inf,1", "4,-12.3"]
    log(tmp_path, "metrics.csv", lines, end="")
    curves, notes = read_curves(tmp_path)
    assert curves["train/grad_norm"].x.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(curves["train/grad_norm"].y, [np.nan, 2, np.inf])
    assert notes == [
        "The last line of metrics.csv is not whole and was left out.",
        "3 lines of metrics.csv are damaged and were left out.",
    ]
    for empty in ("", "step,train/loss\n", "\x00\x00"):
        (tmp_path / "metrics.csv").write_text(empty)
        assert read_curves(tmp_path)[0] == {}


def test_a_folder_that_is_no_run_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="is no run: it is no folder"):
        write_report(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is no run: it holds no run.json or metrics.json$"):
        write_report(tmp_path)
    sweep = finished.parent
    with pytest.raises(ValueError, match=f"name the runs in it, such as {finished}"):
        write_report(sweep)


def test_the_command_refuses_it_in_a_sentence(tmp_path, command):
    told = command.fails("reports/__main__.py", tmp_path)
    assert told.splitlines() == [
        f"reports: {tmp_path} is no run: it holds no run.json or metrics.json"
    ]


def test_the_command_writes_pages(run, tmp_path, command):
    assert command("reports/__main__.py", run).strip() == str(run / "report.html")
    assert "Finished" in check(run / "report.html").text()
    other, out = shutil.copytree(run, tmp_path / "other"), tmp_path / "both.html"
    assert command("reports/__main__.py", run, other, "--out", out).strip() == str(out)
    assert "2 runs compared" in check(out).text()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_that_crashed_shows_what_there_is(run):
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "samples")
    (run / "checkpoints" / "best.ckpt").unlink()
    (run / "error.txt").write_text("FloatingPointError: the loss is nan\n\nTraceback ...\n")
    text = check(write_report(run)).text()
    assert "Stopped by an error" in text and "the loss is nan" in text and "Traceback" not in text
    assert "drawn for this page from checkpoints/last.ckpt with seed 0" in text
    assert "read from the corpus" in text and "No scores" in text and "Best ELBO" in text


def test_samples_that_are_compared_name_their_checkpoints(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    (other / "checkpoints" / "best.ckpt").unlink()
    page = check(write_comparison([run, other], tmp_path / "c.html"))
    notes = [text for _, text in page.all("p", class_="note")]
    for name, file in (("run", "best.ckpt"), ("other", "last.ckpt")):
        assert f"{name}: drawn for this page from checkpoints/{file} with seed 0." in notes
    assert "best weights" not in page.text()
    assert "drawn from the best weights at the end" in check(write_report(run)).text()
    figures = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps(figures | {"best_epoch": 0}))
    assert "drawn from the last weights at the end" in check(write_report(other)).text()


def test_a_run_that_has_only_begun(run):
    for part in ("samples", "checkpoints"):
        shutil.rmtree(run / part)
    for file in ("metrics.json", "metrics.csv", "hparams.yaml"):
        (run / file).unlink()
    page = check(write_report(run))
    text = page.text()
    assert "Not finished" in text and "no samples yet" in text and "No curves" in text
    assert "no real examples: the run keeps none" in text and "No pictures of latents" in text
    assert read_run(run).kind == "pen" and page.all("h1")[0][1].startswith("VRNN-GMM")


@pytest.mark.parametrize("kind", ["pen", "audio", "binary", "real"])
def test_a_run_that_failed_before_its_first_update_shows_why(kind, tmp_path):
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    model = {
        "_target_": "vrnn.RNN",
        "likelihood": {"_target_": "${x.likelihood}", "components": 1},
    }
    x = {"kind": kind, "likelihood": "vrnn.likelihoods.GaussianMixture"}
    data = {"_target_": "datamodules.folders.CSVFolder"}
    config = folder / ".hydra" / "config.yaml"
    config.write_text(yaml.safe_dump({"x": x, "model": model, "data": data}))
    (folder / "error.txt").write_text("trainer.max_steps=ten must be a number\n")
    page = check(write_report(folder))
    text = page.text()
    assert "max_steps=ten must be a number" in text and "no samples yet" in text
    assert "No curves" in text and "logger=default" in text and "No scores" in text
    assert page.all("h1")[0][1] == "RNN-Gauss on CSVFolder"
    # Some are killed a moment later.
    (folder / "samples").mkdir()
    one = {
        "x": np.ones((5, 3)),
        "lengths": [5],
        "keys": ["a"],
        "rate": 1.0,
        "columns": list("uvw"),
    }
    np.savez(folder / "samples" / "real.npz", **one)
    text = check(write_report(folder)).text()
    assert "kept by the run" in text and (kind != "real" or "bottom: u, v, w." in text)
    twin = shutil.copytree(folder, tmp_path / "twin")
    assert "no samples yet" in check(write_comparison([folder, twin], tmp_path / "c.html")).text()


def test_a_corpus_that_is_gone_is_said(run, tmp_path):
    (run / "samples" / "real.npz").unlink()
    hparams = run / "hparams.yaml"
    described = "      _target_: datamodules.handwriting.synthetic.SyntheticHandwriting\n"
    text = hparams.read_text()
    assert described.strip() in text
    hparams.write_text(
        text.replace(described.strip(), "_target_: datamodules.handwriting.iam.Gone")
    )
    assert "its corpus cannot be read here" in check(write_report(run)).text()


def test_damaged_files_are_named_and_the_rest_is_shown(run):
    (run / "samples" / "generated.npz").write_bytes(b"PK\x03\x04 torn")
    (run / "samples" / "real.npz").write_bytes(b"")
    (run / "samples" / "latents.png").write_bytes(b"torn")
    for file in ("metrics.json", "run.json"):
        (run / file).write_text((run / file).read_text()[:100])
    (run / "hparams.yaml").write_text("seed: [")
    text = check(write_report(run)).text()
    for file in ("metrics.json", "run.json", "hparams.yaml", "latents.png"):
        assert f"{file} cannot be read" in text
    assert "generated.npz is damaged" in text and "real.npz is damaged" in text
    assert "VRNN" not in text or "Sample 1" in text


def test_scores_that_are_not_numbers_are_shown_so(run):
    figures = json.loads((run / "metrics.json").read_text())
    figures |= {"test/elbo": float("nan"), "test/elbo_paper": float("nan"), "note": "text"}
    (run / "metrics.json").write_text(json.dumps(figures))
    assert "nan" in check(write_report(run)).text()


def test_a_run_of_older_code_is_read_from_what_it_has(run):
    (run / "run.json").unlink()
    page = check(write_report(run))
    assert page.all("h1")[0][1].startswith("VRNN-GMM on synthetic_handwriting")
    assert "The run has no run.json" in page.text()
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text("- data=iam\n- seed=3\n")
    assert "python train.py data=iam seed=3" in check(write_report(run)).text()
