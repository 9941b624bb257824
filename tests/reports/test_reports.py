"""Pages of runs: what stands in them, and that they stand alone."""

import csv
import io
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from matplotlib.figure import Figure
from omegaconf import open_dict
from support.helpers import configure
from support.pages import check, sound_of
from support.small_corpora import write

import reports.page
import train
from datamodules.handwriting.pen import points
from reports.kinds import KINDS, kind_of
from reports.page import write_comparison, write_report
from reports.published import read_published
from runs import kinds
from runs.samples import generate_raw
from vrnn.checkpoint import load_module
from vrnn.likelihoods import Likelihood

FAMILIES = ["pen", "audio", "binary", "piano", "real"]


def configured(folder, kind, *overrides):
    overrides = ("report=true", *overrides)
    if kind == "pen":
        return configure(folder, "trainer.max_epochs=2", *overrides)
    if kind == "real":
        root = folder.with_name("csv")
        write("csv_folder", root)
        data = ["data=csv_folder", f"data.root={root}", "model=rnn_gmm"]
        return configure(folder, "trainer.max_epochs=1", *data, *overrides, lines=False)
    if kind == "piano":
        root = folder.with_name("jsb")
        write("jsb", root)
        data = ["data=jsb", f"data.root={root}", "model=rnn_bernoulli"]
        return configure(folder, "trainer.max_epochs=1", *data, *overrides, lines=False)
    name, model, head = {
        "audio": ("Tones", "vrnn_gauss", "GaussianMixture"),
        "binary": ("Rolls", "vrnn_bernoulli", "Bernoulli"),
    }[kind]
    given = [f"x.kind={kind}", "x.dim=4", f"x.likelihood=vrnn.likelihoods.{head}"]
    options = [f"model={model}", "trainer.max_epochs=1", *given, *overrides]
    cfg = configure(folder, *options, lines=False)
    with open_dict(cfg):
        cfg.data = {"_target_": f"support.small_data.{name}", "batch_size": 4}
    return cfg


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each family of data, with its page, from when a test first asks for it."""

    class Runs(dict):
        def __missing__(self, kind):
            folder = tmp_path_factory.mktemp(kind) / "run"
            train.run(configured(folder, kind))
            return self.setdefault(kind, folder)

    return Runs()


@pytest.fixture
def copied(runs, tmp_path):
    """A run on handwriting that may be spoilt."""
    return shutil.copytree(runs["pen"], tmp_path / "run")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_ends_with_a_page_that_stands_alone(kind, runs):
    page = check(runs[kind] / "report.html")
    figures = json.loads((runs[kind] / "metrics.json").read_text())
    text = page.text()
    for split in ("test", "val", "untrained"):
        shown = f"{figures[f'{split}/elbo_per_step']:,.4f}".replace("-", "\N{MINUS SIGN}")
        assert shown in text
    assert f"{figures['parameters']:,}" in text and "Finished" in text
    assert "kept by the run" in text and "Sample 1" in text
    command = json.loads((runs[kind] / "run.json").read_text())["command"]
    assert command in page.source.replace("&#39;", "'")


def test_curves_are_those_of_the_log(runs):
    with open(runs["pen"] / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    page = check(runs["pen"] / "report.html")
    drawn = {
        ("Bound", "training"): "train/elbo_per_step",
        ("KL from prior to posterior", "training"): "train/kl_per_step",
        ("Gradient norm", "training"): "train/grad_norm",
        ("Throughput", "training"): "throughput/steps_per_second",
    }
    for (title, name), key in drawn.items():
        logged = [(float(r["step"]), float(r[key])) for r in rows if r[key]]
        (series,) = [s for s in page.panels()[title]["series"] if s["name"] == name]
        assert len(logged) > 1 and series["x"] == [x for x, _ in logged]
        np.testing.assert_allclose(series["y"], [y for _, y in logged], rtol=1e-5)
    validated = page.panels()["Bound"]["series"][1]
    # Once an epoch: the scores of the best weights, logged at the end, are no part of the curve.
    assert validated["name"] == "validation" and len(validated["x"]) == 2
    inside = page.panels()["Log likelihood given the latents"]["series"][0]["y"]
    parts = [page.panels()[t]["series"][0]["y"] for t in ("Bound", "KL from prior to posterior")]
    np.testing.assert_allclose(inside, np.sum(parts, axis=0), rtol=1e-4)


def test_a_model_without_latents_has_an_exact_likelihood_and_no_kl(runs):
    page = check(runs["real"] / "report.html")
    assert set(page.panels()) == {"Log likelihood", "Gradient norm", "Throughput"}
    rows = [text for _, text in page.all("th", scope="row")]
    assert "log p(x), test" in rows and not any("ELBO" in row or "KL" in row for row in rows)


def kept(run):
    with np.load(run / "samples" / "real.npz") as arrays:
        return np.split(arrays["x"], arrays["lengths"].cumsum()[:-1]), list(arrays["keys"])


def test_strokes_are_the_points_of_the_line(runs):
    page = check(runs["pen"] / "report.html")
    real, keys = kept(runs["pen"])
    generated = np.load(runs["pen"] / "samples" / "generated.npz")["x"]
    drawn = re.findall(r'<svg class="ink".*?</svg>', page.source, re.DOTALL)
    lines = [x for pair in zip(real, generated, strict=False) for x in pair]
    assert len(drawn) == min(len(real), 6) + 6 and keys[0] in page.text()
    for svg, x in zip(drawn, lines, strict=False):
        paths = re.findall(r'<path d="M(-?\d+) (-?\d+)l([^"]*)"', svg)
        xy = []
        for left, top, steps in paths:
            moves = np.array(steps.split(), int).reshape(-1, 2)
            stroke = np.vstack([[int(left), int(top)], moves]).cumsum(axis=0)
            xy.append(stroke if moves.any() else stroke[:1])
        wanted = points(x)
        assert len(paths) == (wanted[:-1, 0] > 0.5).sum() + 1
        found = np.vstack(xy)
        if len(found) != len(wanted):  # A stroke that stands still is drawn as one dot.
            continue
        scale = 2000 / max(np.ptp(wanted[:, 1]), 2 * np.ptp(wanted[:, 2]))
        expected = (wanted[:, 1:] - [wanted[:, 1].min(), wanted[:, 2].max()]) * [scale, -scale]
        assert np.abs(found - expected).max() <= 0.5001


def test_sounds_are_the_samples(runs):
    page = check(runs["audio"] / "report.html")
    real, _ = kept(runs["audio"])
    with np.load(runs["audio"] / "samples" / "generated.npz") as arrays:
        lists = [real, arrays["x"], arrays["mean"]]
    sounds = [
        soundfile.read(io.BytesIO(sound_of(a["src"])), dtype="int16") for a, _ in page.all("audio")
    ]
    wanted = [x for row in zip(*lists, strict=False) for x in row]
    assert len(sounds) == 3 + 4 + 4
    for (samples, rate), x in zip(sounds[:9], wanted, strict=False):
        assert rate == 16000
        np.testing.assert_array_equal(samples, np.clip(np.rint(x), -32768, 32767).reshape(-1))
    assert len([a for a, _ in page.all("img") if "Spectrogram" in a["alt"]]) == len(sounds)


@pytest.mark.parametrize("kind", ["binary", "piano"])
def test_notes_are_the_keys_that_are_down(kind, runs):
    page = check(runs[kind] / "report.html")
    real, _ = kept(runs[kind])
    drawn = re.findall(r'<svg class="roll".*?</svg>', page.source, re.DOTALL)
    for svg, x in zip(drawn[::2], real, strict=False):
        top = int((re.search(r'data-top="(\d+)"', svg) or [0, 0])[1])
        height = int(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1]) // 10
        roll = np.zeros((len(x), 200), bool)
        for values in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)"', svg):
            start, down, width = map(int, values)
            pitch = top - down // 10 if top else height - 1 - down // 10
            roll[start // 10 : (start + width + 1) // 10, pitch] = True
        first = 21 if top else 0
        np.testing.assert_array_equal(roll[:, first : first + x.shape[1]], x > 0.5)
    assert len(page.all("button", **{"data-player": "roll"})) == (
        len(drawn) if kind == "piano" else 0
    )


def test_published_figures_stand_beside_the_score(copied):
    hparams = copied / "hparams.yaml"
    hparams.write_text(hparams.read_text().replace("name: synthetic_handwriting", "name: iam"))
    page = check(write_report(copied))
    rows = {text for _, text in page.all("tr")}
    for row in read_published()["iam"]["rows"]:
        assert any(
            row["model"] in t and f"{row['value']:,}" in t and "unverified" in t for t in rows
        )
    (ours, *_) = [text for a, text in page.all("tr") if a.get("class") == "ours"]
    score = json.loads((copied / "metrics.json").read_text())["test/elbo_paper"]
    assert f"{score:,.1f}".replace("-", "\N{MINUS SIGN}") in " ".join(rows) and "this run" in ours


def test_published_figures_name_their_unit_and_source():
    for name, known in read_published().items():
        assert known["source"] and known["unit"].startswith("nats per"), name
        assert known["suffix"] in ("", "_paper", "_per_step")
        kinds = {frozenset(row.keys() - {"ours"}) for row in known["rows"]}
        assert kinds == {frozenset({"model", "bound", "value", "verified"})}
    table = {(r["model"], r["bound"]): r for r in read_published()["blizzard"]["rows"]}
    assert table["VRNN-Gauss", "ELBO"] == {
        "model": "VRNN-Gauss",
        "bound": "ELBO",
        "value": 9223,
        "verified": True,
    }
    assert not table["VRNN-Gauss", "paper-40"]["verified"]


def test_figures_are_shown_as_pictures(copied):
    figure = Figure(figsize=(12, 3))
    figure.subplots().plot([1, 2])
    page = check(write_report(copied, {"Traversal <of> z": figure}))
    assert [a["alt"] for a, _ in page.all("img")][-1] == "Traversal <of> z"
    (copied / "figures").mkdir()
    figure.savefig(copied / "figures" / "kl_over_time.png")
    assert check(write_report(copied)).all("img", alt="Kl over time")


def test_markup_is_shown_and_never_executed(copied, tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
    record = json.loads((copied / "run.json").read_text())
    record["command"] = record["config"]["data"]["root"] = record["versions"][evil] = evil
    (copied / "run.json").write_text(json.dumps(record))
    (copied / "error.txt").write_text(f"ValueError: {evil}\n")
    with np.load(copied / "samples" / "real.npz") as arrays:
        content = dict(arrays)
    content["keys"] = np.array([evil] * len(content["keys"]))
    np.savez(copied / "samples" / "real.npz", **content)
    folder = copied.rename(tmp_path / "<script>alert(3)<")
    before = len(check(write_report(folder)).all("script"))
    twin = shutil.copytree(folder, tmp_path / "<b onclick=alert(4)>")
    for file in (folder / "report.html", write_comparison([folder, twin], tmp_path / "c.html")):
        page = check(file)
        assert evil in page.text() or evil.split('"')[0] in page.text()
        scripts = page.all("script")
        assert all(
            "alert(" not in text or "application/json" in a.get("type", "") for a, text in scripts
        )
        assert not page.all("img", src="x") and not page.all("b", onclick="alert(4)")
    assert before == len(page.all("script"))


def test_a_page_that_fails_does_not_lose_the_run(tmp_path, monkeypatch, caplog, capsys):
    def fail(folder, figures):
        raise RuntimeError("no room")

    monkeypatch.setattr("reports.conclusion.draw", lambda module, data: {})
    monkeypatch.setattr("reports.conclusion.write_report", fail)
    with caplog.at_level(logging.WARNING):
        figures = train.run(configured(tmp_path, "pen", "trainer.max_epochs=1"))
    assert json.loads((tmp_path / "metrics.json").read_text())["test/elbo"] == figures["test/elbo"]
    assert "no report.html: RuntimeError: no room; python -m reports" in caplog.text
    assert "evaluate.py" in capsys.readouterr().out


def test_several_runs_are_compared(runs, tmp_path):
    worse = shutil.copytree(runs["pen"], tmp_path / "worse")
    figures = json.loads((worse / "metrics.json").read_text())
    figures["test/elbo_paper"] -= 1000
    (worse / "metrics.json").write_text(json.dumps(figures))
    going_on = shutil.copytree(runs["pen"], tmp_path / "going_on")
    (going_on / "metrics.json").unlink()
    page = check(
        write_comparison([going_on, worse, runs["pen"], runs["piano"]], tmp_path / "c.html")
    )
    rows = [text for _, text in page.all("th", scope="row")]
    pen, piano = (f"{runs[kind].parent.name}/run" for kind in ("pen", "piano"))
    assert [row.split(" (")[0] for row in rows] == [pen, "worse", "going_on", piano]
    drawn = json.loads(page.all("script", type="application/json")[0][1])["series"]
    assert {s["legend"]: s["colour"] for s in drawn} == {"going_on": 0, "worse": 1, pen: 2}
    assert {s["name"]: s["dashed"] for s in drawn}["worse, training"]

    made = generate_raw(load_module(runs["pen"]), 6, seed=0).x
    ink = re.findall(r'<svg class="ink".*?</svg>', page.source, re.DOTALL)
    assert len(ink) == 3 * 6 + min(len(kept(runs["pen"])[0]), 6)
    same = [svg.partition("viewBox")[2] for svg in ink[1:4]]
    assert same[0] == same[1] == same[2]
    assert ink[1].count("<path") == (points(made[0])[:-1, 0] > 0.5).sum() + 1
    with pytest.raises(ValueError, match="the same run is named twice"):
        write_comparison([worse, worse], tmp_path / "c.html")


def test_runs_scored_on_other_sequences_have_a_table_of_their_own(runs, tmp_path):
    other = shutil.copytree(runs["pen"], tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    record["data"]["test"] = "0123456789abcdef"
    (other / "run.json").write_text(json.dumps(record))
    page = check(write_comparison([runs["pen"], other], tmp_path / "c.html"))
    captions = [text for _, text in page.all("caption")]
    assert sum("test split of" in text for text in captions) == 2


def test_runs_on_other_data_of_the_same_name_are_drawn_apart(runs, tmp_path):
    other = shutil.copytree(runs["real"], tmp_path / "other")
    hparams = yaml.safe_load((other / "hparams.yaml").read_text())
    hparams["data"]["columns"] = [f"their {name}" for name in hparams["data"]["columns"]]
    (other / "hparams.yaml").write_text(yaml.safe_dump(hparams))
    record = json.loads((other / "run.json").read_text())
    record["data"]["test"] = "0123456789abcdef"
    record["config"]["data"]["root"] = "/theirs"
    (other / "run.json").write_text(json.dumps(record))
    page = check(write_comparison([runs["real"], other], tmp_path / "c.html"))
    names = [text.partition(":")[2] for _, text in page.all("small")]
    assert sum(name.startswith(" their ") for name in names) == len(names) / 2
    assert [text for _, text in page.all("h4")].count("Log likelihood") == 2
    assert any(text == "csv_folder data.root=/theirs" for _, text in page.all("h3"))


def test_scores_of_a_part_of_the_test_split_are_marked(copied):
    hparams = yaml.safe_load((copied / "hparams.yaml").read_text())
    hparams["data"] |= {"name": "iam", "sequences": {"train": 24, "val": 3, "test": 1518}}
    (copied / "hparams.yaml").write_text(yaml.safe_dump(hparams))
    page = check(write_report(copied))
    tiles = [text for _, text in page.all("dt")]
    assert "ELBO, test, 6 of 1,518 sequences" in tiles
    rows = [text for _, text in page.all("th", scope="row")]
    assert "ELBO, test, 6 of 1,518 sequences" in rows and "ELBO, validation" in rows
    assert not page.all("tr", class_="ours") and "this run)" not in page.text()
    assert "was scored on 6 of 1,518 sequences of the test split" in page.text()


def test_long_sounds_leave_the_page_small():
    rng = np.random.default_rng(0)
    long = [3000 * rng.standard_normal((2000, 200)) for _ in range(2)]
    drawn = kind_of("audio").page_drawings(long, ["a", "b"], 16000.0, share=12)
    assert 12 * max(len(d.parts["wav"]) + len(d.parts["spectrogram"]) for d in drawn) < 4_500_000
    assert "6.25 s of 25.0 s" in drawn[0].text


def test_every_kind_is_known_in_every_room():
    assert KINDS.keys() == kinds.KINDS.keys() == set(Likelihood.kinds)
    templates = Path(reports.page.__file__).with_name("templates")
    for name, kind in KINDS.items():
        assert type(kind.look) is type(kinds.KINDS[name])
        assert (templates / f"drawing_{name}.html").is_file()


def test_a_run_that_does_not_tell_its_kind_is_shown_as_numbers(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "run.json").write_text("{}")
    np.savez(tmp_path / "samples" / "generated.npz", x=np.arange(24.0).reshape(2, 4, 3))
    text = write_report(tmp_path).read_text()
    assert text.count('<figure class="drawing real">') == 2


def test_what_is_not_finite_is_said(copied):
    file = copied / "samples" / "generated.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    content["x"][0, 5:, 1] = np.nan
    content["x"][1] = np.inf
    np.savez(file, **content)
    text = check(write_report(copied)).text()
    assert "5 pen positions in" in text and "not finite from step 6 on" in text
    assert "No finite frame to draw" in text
