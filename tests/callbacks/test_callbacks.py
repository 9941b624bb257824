import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from PIL import Image
from support.helpers import CONF, build, configure, trainer

import train
from callbacks.gradients import Gradients
from callbacks.latents import Latents, starts
from callbacks.max_norm import MaxNorm, incoming
from callbacks.progress import Progress
from callbacks.throughput import Throughput
from reports.score_tables import scores_tables
from runs.drawing import draw_latents, lanes
from runs.kinds import draw
from runs.loggers import describe_metrics, key_configured, log_end, wandb_logger
from vrnn.diagnostics import LatentUse, latent_use


def ink(file: Path) -> float:
    """The share of a picture that is not white; 0 where nothing is drawn."""
    with Image.open(file) as picture:
        picture.verify()
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        return float((np.asarray(picture.convert("L")) < 200).mean())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pictures = ["callbacks.pictures.every_n_epochs=2", "callbacks.pictures.n=2"]
    few = ["trainer.max_epochs=3", "untrained=false", "test=false", "data.val_lines=3"]
    train.run(configure(folder, *few, *pictures, pictures=True))
    return folder


def column(folder: Path, key: str) -> list[float]:
    with open(folder / "metrics.csv") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def test_pictures_are_drawn_when_they_are_due(run: Path) -> None:
    drawn = {path.name for path in (run / "samples").glob("*.png")}
    assert drawn == {"epoch_000.png", "epoch_002.png", "latents.png", "generated.png"}
    for name in drawn:
        assert 0.001 < ink(run / "samples" / name) < 0.5, name


@pytest.mark.parametrize("kind", ["pen", "real", "audio", "binary"])
def test_every_kind_of_sequence_can_be_drawn(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [rng.normal(size=(n, 3)) for n in (1, 2, 30)]
    for x in lines:
        x[:, 0] = rng.random(len(x)) < 0.2
    draw(kind, lines, rate=65.6).savefig(tmp_path / "full.png")
    draw(kind, [np.zeros((1, 3))], rate=65.6).savefig(tmp_path / "empty.png")
    assert ink(tmp_path / "full.png") > 0.001


def test_the_progress_bar_shows_no_end_that_there_is_not(tmp_path: Path) -> None:
    for epochs, shown in ((-1, "Epoch 4"), (10, "Epoch 4/9")):
        bar = Progress()
        logger = CSVLogger(str(tmp_path), version="abc")
        trainer = Trainer(max_epochs=epochs, callbacks=[bar], logger=logger, accelerator="cpu")
        bar.setup(trainer, LightningModule(), "fit")
        assert bar._get_train_description(4).strip() == shown
        assert "v_num" not in bar.get_metrics(trainer, LightningModule())


def test_coordinates_of_any_unit_have_bands_of_their_own() -> None:
    """From the first downwards, and the same ones for all sequences."""
    rng = np.random.default_rng(0)
    units, zero = np.array([1.0, 50.0, 1e3, 0.0]), np.array([0.0, 100.0, -5e3, 7.0])
    columns = {name: [zero + units * rng.normal(size=(9, 4))] for name in ("real", "generated")}
    (real,), (generated,) = lanes(columns).values()
    both = np.concatenate([real, generated])
    low, high = both.min(0), both.max(0)
    assert (low[:-1] > high[1:]).all()
    np.testing.assert_allclose((high - low)[:3], 1 / 1.1)
    for d in range(3):
        line = np.concatenate([columns["real"][0], columns["generated"][0]])[:, d]
        assert np.corrcoef(line, both[:, d])[0, 1] == pytest.approx(1)


def test_throughput_is_positive(run: Path) -> None:
    speed, pads, waits = (
        column(run, f"throughput/{name}")
        for name in ("steps_per_second", "padding_share", "waiting_share")
    )
    assert len(speed) == len(pads) == len(waits) == 9
    assert min(speed) > 0 and 0 <= min(pads) <= max(pads) < 1 and 0 <= min(waits) <= max(waits) < 1


def test_throughput_counts_frames_without_padding() -> None:
    class Module:
        def log_dict(self, figures: dict[str, float]) -> None:
            self.figures = figures

    class Fit:
        global_step = log_every_n_steps = 1

    mask = torch.arange(10)[:, None] < torch.tensor([10, 5])
    batch: Any = type("Batch", (), {"mask": mask})
    module: Any = Module()
    throughput = Throughput()
    throughput.on_train_epoch_start(Fit(), module)
    throughput.on_train_batch_start(Fit(), module, batch, 0)
    throughput.on_train_batch_end(Fit(), module, None, batch, 0)
    assert module.figures["throughput/padding_share"] == 0.25
    assert throughput.steps == 0, "counted anew"


def test_norms_of_gradients_and_uses_of_latents_are_logged(run: Path) -> None:
    assert len(column(run, "train/grad_norm")) == 9 and min(column(run, "train/grad_norm")) > 0
    assert len(column(run, "latent/active_units")) == 3
    assert min(column(run, "latent/kl_of_strongest")) >= 0
    assert column(run, "lr-Adam")[:2] == [1e-3, 1e-3]


def test_a_dimension_made_active_by_hand_is_counted(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    batch = next(iter(data.val_dataloader()))
    model = module.model
    with torch.no_grad():
        model.cell.encoder.out.weight[:4] *= 1e-3
        model.cell.encoder.out.weight[2] = 20.0
    use = latent_use(model, batch.x, batch.mask, batch.ids)
    assert use is not None
    assert use.active.tolist() == [False, False, True, False]
    assert use.kl.argmax() == 2 and use.kl.shape == (4,)
    draw_latents(*(part.numpy() for part in use)).savefig(tmp_path / "latents.png")
    assert ink(tmp_path / "latents.png") > 0.01


def test_latents_that_do_nothing_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, module = build(configure(tmp_path))
    latents = Latents(str(tmp_path / "samples"))
    with torch.no_grad():
        for layer in (module.model.cell.encoder.out, module.model.cell.prior.out):
            layer.weight.zero_()
    options = {"max_epochs": 3, "limit_train_batches": 1}
    with caplog.at_level("WARNING"):
        trainer(tmp_path, latents, **options).fit(module, data)
    (said,) = [r.getMessage() for r in caplog.records if "hardly used" in r.getMessage()]
    assert "0 of 4 dimensions" in said and "objective.kl_start" in said
    assert "With a mixture as output this is usual" in said and "--bounds fivo,silenced" in said


@pytest.mark.parametrize(
    ("option", "told"), [("model.likelihood.components=1", True), ("model.latents=noise", False)]
)
def test_what_is_told_of_latents_fits_the_model(
    option: str, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, module = build(configure(tmp_path, option))
    nothing = torch.zeros(4)
    use = LatentUse(nothing, nothing, nothing > 0, nothing, nothing)
    with caplog.at_level("WARNING"):
        Latents(str(tmp_path)).alarm(1, use, module)
    assert ("hardly used" in caplog.text) == told and "mixture" not in caplog.text


def test_only_options_that_the_run_takes_are_recommended(tmp_path: Path) -> None:
    def recommended(*options: str) -> set[str]:
        _, module = build(configure(tmp_path, *options))
        return {option.partition("=")[0] for option in starts(module)}

    warm_up = "objective.kl_start"
    every = {warm_up, "objective.free_bits", "model.residual", "objective"}
    assert recommended() == every
    for choice in ("model=storn", "model=vrnn_i_gauss", "model.residual=true"):
        assert recommended(choice) == every - {"model.residual"}
    assert recommended("objective=iwae", "model=dmm") == {warm_up, "objective"}
    assert recommended("objective=fivo") == {warm_up, "model.residual"}
    assert recommended("model.checkpoint_steps=9", "objective=warm_up") == {
        "objective.free_bits",
        "model.residual",
    }


def test_models_without_latents_have_no_picture_of_them(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, "model=rnn_gauss"))
    latents = Latents(str(tmp_path / "samples"))
    trainer(tmp_path, latents, max_epochs=1, limit_train_batches=1).fit(module, data)
    assert latents.use is None and not (tmp_path / "samples").exists()


def test_unknown_guards_are_refused() -> None:
    with pytest.raises(ValueError, match="nonfinite=ignore is not one of stop, skip"):
        Gradients("ignore")


@pytest.mark.parametrize("runs", [False, True])
def test_tables_fit_into_a_terminal(runs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    names = ["elbo", "iwae", "paper"]
    keys = [f"test/{name}{space}" for name in names for space in ("", "_raw", "_paper")]
    values = {"": -12345.6, "_per_step": -12.3456, "_se": 123.4, "_per_step_se": 0.1234}
    if runs:
        values |= {"_run_se": 1.2, "_per_step_run_se": 0.0012}
    figures = {key + suffix: value for key in keys for suffix, value in values.items()}
    spaces = ["standardised", "raw", "paper"]
    Console(width=80).print(scores_tables(figures, ["test"], spaces, 40, False))
    shown = capsys.readouterr().out
    assert shown.count("-12,345.6 ± 123.4") == shown.count("-12.3456 ± 0.1234") == 9
    assert shown.count("(1.2)") == shown.count("(0.0012)") == 9 * runs
    for label in ("ELBO", "IWAE-40", "paper-40*", "nats per"):
        assert shown.count(label) == 2
    assert "…" not in shown


def test_scores_too_wide_for_a_terminal_break(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    spaces = ["standardised", "raw", "paper"]
    keys = [f"test/elbo{space}" for space in ("", "_raw", "_paper")]
    figures = dict.fromkeys(keys, -12345678.9) | {f"{key}_se": 1234567.8 for key in keys}
    Console(width=80).print(scores_tables(figures, ["test"], spaces, 40, False))
    shown = capsys.readouterr().out
    assert shown.count("-12,345,678.9") == shown.count("1,234,567.8") == 3
    assert "ELBO" in shown and "…" not in shown


def test_wandb_never_asks_and_remembers_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not key_configured()
    first = wandb_logger(str(tmp_path / "run"), "vrnn")
    again = wandb_logger(str(tmp_path / "run"), "vrnn")
    other = wandb_logger(str(tmp_path / "other"), "vrnn")
    assert first.version == again.version != other.version
    assert first._offline and first.name == "vrnn"


def test_wandb_gets_the_end_of_a_run_and_keeps_its_best_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = wandb_logger(str(tmp_path), "vrnn")
    describe_metrics([logger], "elbo")
    for step, bound in enumerate((-2.0, -0.5, -1.0)):
        logger.log_metrics({"val/elbo_per_step": bound, "val/elbo": 10 * bound}, step)
    scores = {"test/elbo": -12.5, "test/elbo_se": 0.25, "test/kl": 3.0, "parameters": 7}
    log_end([logger], scores, {"Latent traversals": Figure(figsize=(1, 1))})
    summary = logger.experiment.summary
    best, last = summary["val/elbo_per_step"], summary["val/elbo"]
    wandb.finish()
    assert (best["max"], best["last"], last) == (-0.5, -1.0, -10.0)
    (file,) = tmp_path.glob("wandb/offline-run-*/files/media/table/scores/final*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["split", "figure", "value", "standard error"]
    assert table["data"] == [["test", "elbo", -12.5, 0.25], ["test", "kl", 3.0, None]]
    media = tmp_path.glob("wandb/offline-run-*/files/media/images/figures/latent_traversals*.png")
    assert len(list(media)) == 1


@pytest.mark.slow
def test_wandb_holds_the_configuration_and_the_figures_of_a_run(tmp_path: Path) -> None:
    """In a process without a key, without a terminal to answer at, and without a network."""
    small = ["logger=wandb", "debug=limit", "trainer.accelerator=cpu", "model.hidden=8"]
    small += ["data.lines=8", "data.val_lines=2", "data.test_lines=2", "seed=3"]
    environment = {name: text for name, text in os.environ.items() if "WANDB" not in name}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "train.py", *small, f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=CONF.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    folder = next((tmp_path / "run" / "wandb").glob("offline-run-*"))
    program = shutil.which("wandb", path=str(Path(sys.executable).parent))
    assert program is not None, wandb.__version__
    line = [program, "leet", "inspect", "--summary", "--json", str(folder)]
    shown = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    text = json.dumps(shown)
    words = ["val/elbo", "test/elbo_per_step", "train/grad_norm", "vrnn.VRNN", "parameters"]
    for word in [*words, "scores/final", "figures/latent_traversals"]:
        assert word in text, word
    assert list(folder.rglob("*.png")), "the pictures are in the run, too"


def test_max_norm_bounds_the_weights_from_each_input_but_not_the_recurrent_ones(
    tmp_path: Path,
) -> None:
    data, module = build(configure(tmp_path))
    model = module.model
    rnn, encoder = model.rnn, model.cell.encoder.hidden[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    MaxNorm(1.9365).on_train_batch_end(None, module, None, None, 0)
    phi_x, phi_z = rnn.parents
    for weight, old in (
        (rnn.input_weights[0], before["cell.rnn.input_weights.0"]),
        (encoder.weight, before["cell.encoder.hidden.0.weight"]),
    ):
        width = phi_x if weight is rnn.input_weights[0] else encoder.parents[0]
        for new, was in ((weight[:, :width], old[:, :width]), (weight[:, width:], old[:, width:])):
            assert was.norm(dim=1).min() > 1.9365
            torch.testing.assert_close(new.norm(dim=1), torch.full((len(new),), 1.9365))
            torch.testing.assert_close(
                new / new.norm(dim=1, keepdim=True), was / was.norm(dim=1, keepdim=True)
            )
    assert torch.equal(rnn.hidden_weights[0], before["cell.rnn.hidden_weights.0"])
    assert torch.equal(model.out.bias, before["out.bias"])
    # All matrices of the model but the recurrent one, each number once.
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert sum(w.numel() for w in incoming(model)) == matrices - rnn.hidden_weights[0].numel()


def test_max_norm_leaves_smaller_weights_bit_for_bit(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    MaxNorm(100.0).on_train_batch_end(None, module, None, None, 0)
    assert all(torch.equal(p, before[name]) for name, p in module.model.named_parameters())
    with pytest.raises(ValueError, match="callbacks.max_norm.norm must be above 0"):
        MaxNorm(0.0)
