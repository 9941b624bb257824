"""The paper's table of runs made by hand."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from support.helpers import CONF, Command, build, configure, trainer
from support.scored_runs import job, on_data, scored, unpadded

from reports.markup import latex_table, markdown_table
from reports.published import read_published
from reports.table import MODELS, Line, parts, runs_below
from reports.table_text import cells, matrix, missing_of, show_table, write_table


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    job(tmp_path / "a", "VRNN-Gauss", scored(1206.7))
    job(tmp_path / "b", "VRNN-Gauss", scored(1300.0))
    job(tmp_path / "deep" / "c", "RNN-GMM", scored(1243.8))
    k40 = {"test/elbo_paper": 1300.5, "test/elbo_paper_se": 2.5, "test/iwae_paper": 1310.0}
    k40 |= {"test/paper_paper": 1360.0, "parameters": 123456, "particles": 40}
    (tmp_path / "b" / "scores_test_k40.json").write_text(json.dumps(k40))
    return tmp_path


def test_the_best_run_on_validation_stands_beside_what_is_published(runs: Path) -> None:
    (part,) = parts(runs_below([runs]))
    lines = {(line.model, line.figure): line for line in part.lines}
    assert part.unit == "nats per sequence, paper units"
    assert list(dict.fromkeys(model for model, _ in lines)) == list(MODELS)
    vrnn = lines["VRNN-Gauss", "ELBO"]
    assert (vrnn.value, vrnn.error, vrnn.published, vrnn.verified) == (1300.5, 2.5, 1337, False)
    assert lines["VRNN-Gauss", "paper-40"].value == 1360 and vrnn.parameters == 123456
    rows = {(row[1], row[2]): row for row in cells(part, missing_of([part]))}
    assert rows["ELBO", "1,300.5 ± 2.5"][3:] == ["1,337.0*", "-36.5", "123,456"]
    assert rows["paper-40", "1,360.0"][4] == "+6.0"
    assert lines["RNN-GMM", "log p(x)"].fill is None
    assert any("the best of 2" in note and "data.split=holdout" in note for note in part.notes)


def test_data_of_one_name_with_other_test_splits_are_not_compared(tmp_path: Path) -> None:
    a, b, c = (
        job(tmp_path / f"{elbo}", "VRNN-Gauss", scored(elbo), "mine") for elbo in (1.0, 2.0, 3.0)
    )
    on_data(a, "aaaa", root="/a", window=None, batch_size=1)
    on_data(b, "bbbb", root="/b", window=None)
    on_data(c, "cccc", root="/b", window=20)
    table = parts(runs_below([tmp_path]))
    assert [part.data for part in table] == [
        "mine data.root=/a",
        "mine data.root=/b",
        "mine data.root=/b data.window=20",
    ]
    for part, elbo in zip(table, (1.0, 2.0, 3.0), strict=True):
        assert [line.value for line in part.lines if line.figure == "ELBO"][1] == elbo
        assert not any("the best of" in note for note in part.notes)
    header, _ = matrix(table, missing_of(table))
    assert len(set(header)) == 5
    on_data(b, "bbbb", root="/a")
    assert "mine, test split bbbb" in {part.data for part in parts(runs_below([tmp_path]))}


def test_scores_of_a_part_of_the_test_split_are_apart_and_not_beside_what_is_published(
    tmp_path: Path,
) -> None:
    for name, elbo, sequences in (("a", 1300.0, 100), ("b", 1400.0, 50)):
        figures = scored(elbo, **{"test/sequences": float(sequences)})
        on_data(job(tmp_path / name, "VRNN-Gauss", figures), "aaaa")
    whole, part = parts(runs_below([tmp_path]))
    assert part.data == "iam, 50 of 100 sequences of the test split"
    lines = [line for p in (whole, part) for line in p.lines if line.figure == "ELBO"]
    shown = [(line.value, line.published) for line in lines if line.model == "VRNN-Gauss"]
    assert shown == [(1300, 1337), (1400, None)]
    assert any("was scored on 50 of 100 sequences" in note for note in part.notes)
    scores = {"test/elbo_paper": 1390.0, "test/sequences": 100.0}
    (tmp_path / "b" / "scores_test_k1.json").write_text(json.dumps(scores))
    (table,) = parts(runs_below([tmp_path]))
    assert any("the best of 2" in note for note in table.notes), "evaluate.py has scored all of it"


def in_spaces(standardised: float, raw: float, steps: float = 10) -> dict[str, float]:
    spaces = {"": standardised, "_raw": raw}
    figures = {f"{split}/elbo{s}": v for split in ("val", "test") for s, v in spaces.items()}
    return figures | {f"{key}_per_step": v / steps for key, v in figures.items()}


def test_densities_and_probabilities_are_compared_in_raw_units_only(tmp_path: Path) -> None:
    job(tmp_path / "a", "VRNN-Gauss", in_spaces(-100.0, -400.0), "blizzard")
    (alone,) = parts(runs_below([tmp_path]))
    assert alone.unit == "nats per sequence, standardised"
    assert {line.published for line in alone.lines} > {9223}
    folder = job(tmp_path / "b", "VRNN-Gauss", in_spaces(-300.0, -300.0), "blizzard")
    hparams = yaml.safe_load((folder / "hparams.yaml").read_text())
    hparams["model"]["likelihood"] = {"_target_": "vrnn.MuLawCategorical"}
    hparams["data"]["log_scales"] = {"standardised": 30.0, "raw": 0.0}
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams))
    (both,) = parts(runs_below([tmp_path]))
    assert both.unit == "nats per sequence, raw"
    found = {line.model: line.value for line in both.lines if line.figure == "ELBO"}
    assert (found["VRNN-Gauss"], found["VRNN-MuLaw"]) == (-400, -300)
    assert {line.published for line in both.lines} == {None}
    (alone,) = parts(runs_below([folder]))
    assert alone.unit == "nats per sequence, standardised"
    assert any("gives probabilities" in note for note in alone.notes)
    job(tmp_path / "c", "VRNN-Gauss", in_spaces(-50.0, -410.0), "blizzard")
    (table,) = parts(runs_below([tmp_path / "a", tmp_path / "c"]))
    assert [line.value for line in table.lines if line.figure == "ELBO"][1] == -400, "the best"


def test_figures_of_another_k_are_not_taken_for_those_of_40(runs: Path) -> None:
    (runs / "b" / "scores_test_k40.json").unlink()
    (part,) = parts(runs_below([runs]))
    lines = {(line.model, line.figure): line for line in part.lines}
    for figure in ("IWAE-40", "paper-40"):
        line = lines["VRNN-Gauss", figure]
        assert line.value is None and line.fill == f"python evaluate.py {runs / 'b'} --k 40"


def test_music_is_compared_with_a_published_vrnn_of_as_many_particles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"test/elbo_per_step": -6.9, "test/fivo_per_step": -6.6, "particles": 16}
    folder = job(tmp_path / "a", "VRNN-GMM", figures | {"val/elbo_per_step": -6.8}, data="jsb")
    hparams = yaml.safe_load((folder / "hparams.yaml").read_text())
    hparams["data"]["kind"] = "binary"
    hparams["model"]["likelihood"] = {"_target_": "vrnn.likelihoods.Bernoulli"}
    hparams["model"]["residual"] = True
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams))

    def line_of(figure: str) -> Line:
        (part,) = parts(runs_below([tmp_path]))
        assert "VRNN-Bernoulli is compared with the VRNN (VSMC-PRC paper)" in part.notes
        ours = [line for line in part.lines if line.model == "VRNN-Bernoulli residual"]
        assert [line.figure for line in ours] == ["ELBO", "FIVO-8"]
        return next(line for line in ours if line.figure == figure)

    assert (line_of("ELBO").value, line_of("ELBO").published) == (-6.9, -8.69)
    assert line_of("FIVO-8").value is None and line_of("FIVO-8").published == -7.4
    assert line_of("FIVO-8").fill == f"python evaluate.py {folder} --bounds elbo,fivo --k 8"
    scores = {"test/elbo_per_step": -6.91, "test/fivo_per_step": -6.7, "test/iwae_per_step": -6.8}
    (folder / "scores_test_k8.json").write_text(json.dumps(scores))
    assert (line_of("ELBO").value, line_of("FIVO-8").value) == (-6.91, -6.7)
    show_table(parts(runs_below([tmp_path])))
    assert " VRNN-Bernoulli" in capsys.readouterr().out, "80 columns part no word"


def test_missing_models_name_the_command_that_trains_them(runs: Path) -> None:
    (part,) = parts(runs_below([runs]))
    lines = {(line.model, line.figure): line for line in part.lines}
    wanted = "python train.py data=iam 'data.root=/a b' model=vrnn_i_gauss"
    assert lines["VRNN-I-Gauss", "ELBO"].fill == wanted
    for file in runs.glob("**/overrides.yaml"):
        file.unlink()
    (part,) = parts(runs_below([runs]))
    fills = {line.fill for line in part.lines if line.model == "VRNN-I-Gauss"}
    assert fills == {"python train.py experiment=paper/iam_vrnn_i_gauss"}
    for fill in missing_of([part]):
        name = fill.partition("experiment=")[2]
        assert not name or (CONF / "experiment" / f"{name}.yaml").is_file()


def test_missing_models_are_trained_in_the_sizes_that_the_others_share(runs: Path) -> None:
    for folder in (runs / "a", runs / "b", runs / "deep" / "c"):
        file = folder / ".hydra" / "overrides.yaml"
        own = "- model.z_dim=3\n" if folder.name == "a" else ""
        more = "- model.hidden=32\n- model.likelihood.components=7\n- model.prior_dim=5\n"
        file.write_text(f"{file.read_text()}{own}{more}")
    (part,) = parts(runs_below([runs]))
    fills = {line.model: line.fill for line in part.lines if line.figure in ("ELBO", "log p(x)")}
    start = "python train.py data=iam 'data.root=/a b' model="
    assert fills["RNN-Gauss"] == f"{start}rnn_gauss model.hidden=32"
    assert fills["VRNN-GMM"] == f"{start}vrnn_gmm model.hidden=32 model.prior_dim=5"


def test_the_table_is_written_in_three_ways(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reports import table as module

    job(runs / "d", "VRNN-GMM", scored(700.0), data="synthetic_handwriting")
    monkeypatch.setattr("sys.argv", ["table", str(runs)])
    module.main()
    shown = capsys.readouterr().out
    assert "1,300.5 ± 2.5" in shown and "1,337.0*" in shown and "(1) python train.py" in shown
    with open(runs / "table.csv") as file:
        read = [row for row in csv.DictReader(file) if row["data"] == "iam"]
    assert {row["model"] for row in read} == set(MODELS)
    assert sum(row["value"] == "1360.0" for row in read) == 1
    text = unpadded(runs / "table.md")
    assert "| VRNN-Gauss | ELBO | 1,300.5 ± 2.5 | 1,337.0* | -36.5 | 123,456 |" in text
    assert "| model | figure | iam | synthetic_handwriting |" in text
    tex = unpadded(runs / "table.tex")
    assert r"VRNN-Gauss & ELBO & 1,300.5 $\pm$ 2.5 & 1,337.0* & -36.5 & 123,456 \\" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3


def test_data_sets_stand_side_by_side(runs: Path) -> None:
    job(runs / "d", "VRNN-GMM", scored(700.0), data="synthetic_handwriting")
    table = parts(runs_below([runs]))
    header, rows = matrix(table, missing_of(table))
    assert header == ["model", "figure", "iam", "synthetic_handwriting"]
    found = {tuple(row[:2]): row[2:] for row in rows}
    assert found["VRNN-GMM", "ELBO"][1] == "700.0 ± 2.5"
    assert found["VRNN-Gauss", "ELBO"][0] == "1,300.5 ± 2.5"
    assert all(len(row) == 4 for row in rows)


def test_folders_without_runs_and_damaged_scores_are_told(
    runs: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "none").mkdir()
    shown = command.fails("reports/table.py", tmp_path / "none")
    assert "there is no run in" in shown
    (runs / "b" / "scores_test_k40.json").write_text("{")
    assert "is damaged" in command.fails("reports/table.py", runs)
    (runs / "b" / "scores_test_k40.json").write_text("[]")
    assert "is damaged" in command.fails("reports/table.py", runs)


def test_runs_that_nobody_can_name_are_left_out_with_a_word(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (runs / "a" / "hparams.yaml").unlink()
    with caplog.at_level("WARNING"):
        assert len(runs_below([runs])) == 2
    assert f"{runs / 'a'} is left out" in caplog.text


def test_what_is_published_names_models_of_the_table() -> None:
    for data in ("iam", "blizzard", "timit", "accent", "onomatopoeia"):
        known = read_published()[data]
        assert {row["model"] for row in known["rows"]} == set(MODELS)
        assert known["source"] and known["unit"].startswith("nats per sequence")
        for model in MODELS:
            name = f"{data}_{model.lower().replace('-', '_')}.yaml"
            assert (CONF / "experiment" / "paper" / name).is_file()


def test_evaluate_leaves_its_scores_where_the_table_finds_them(
    tmp_path: Path, command: Command
) -> None:
    data, module = build(configure(tmp_path, "model=vrnn_gauss"))
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(module, data)
    fit.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    for option in (["--limit", 2], ["data.corpus_seed=1"]):
        command("evaluate.py", tmp_path, *option, "--bounds", "elbo")
    command("evaluate.py", tmp_path / "checkpoints" / "best.ckpt", "--bounds", "elbo")
    assert not list(tmp_path.glob("**/scores*"))
    command("evaluate.py", tmp_path)
    figures = json.loads((tmp_path / "scores_test_k40.json").read_text())
    (part,) = parts(runs_below([tmp_path]))
    lines = {(line.model, line.figure): line for line in part.lines}
    assert lines["VRNN-Gauss", "IWAE-40"].value == figures["test/iwae_paper"]
    assert lines["VRNN-Gauss", "paper-40"].value == figures["test/paper_paper"]
    command("evaluate.py", tmp_path, "--split", "val", "--bounds", "elbo")
    assert (tmp_path / "scores_val_k1.json").is_file()
    write_table([part], tmp_path)


def iwae_of(folder: Path) -> float | None:
    (part,) = parts(runs_below([folder]))
    lines = {(line.model, line.figure): line for line in part.lines}
    return lines["VRNN-Gauss", "IWAE-40"].value


def test_scores_of_weights_that_are_gone_are_left_out(
    tmp_path: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    data, module = build(configure(tmp_path, "model=vrnn_gauss"))
    fit, best = trainer(tmp_path, max_steps=1), tmp_path / "checkpoints" / "best.ckpt"
    fit.fit(module, data)
    fit.save_checkpoint(best)
    command("evaluate.py", tmp_path)
    file = tmp_path / "scores_test_k40.json"
    scores = json.loads(file.read_text())
    best.touch()
    assert iwae_of(tmp_path) == scores["test/iwae_paper"], "copied, not trained further"
    with torch.no_grad():
        module.model.cell.encoder.out.weight.add_(0.1)
    fit.save_checkpoint(best)
    assert iwae_of(tmp_path) is None
    assert f"{file} is left out" in caplog.text


@pytest.mark.parametrize("newer", ["metrics.json", "checkpoints/best.ckpt"])
def test_scores_that_do_not_tell_their_weights_must_not_be_older_than_these(
    runs: Path, newer: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert iwae_of(runs) == 1310.0
    (runs / "b" / "checkpoints").mkdir()
    file = runs / "b" / newer
    file.touch()
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime + 60))
    assert iwae_of(runs) is None and "scores_test_k40.json is left out" in caplog.text


def test_no_cell_is_read_as_markup() -> None:
    cell = "a|b_c%d#e&f$g{h}\\i"
    assert r"a\|b_c%d#e&f$g{h}\i" in markdown_table(["x"], [[cell]])
    expected = r"a|b\_c\%d\#e\&f\$g\{h\}\textbackslash{}i"
    assert expected in latex_table(["x"], [[cell]])
