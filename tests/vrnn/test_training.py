import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from support.helpers import SGD, build, configure, trainer

import train
from callbacks.gradients import Gradients, NonFiniteError
from vrnn.checkpoint import load_module, read
from vrnn.evaluation import score
from vrnn.module import VRNNModule
from vrnn.objectives import ELBO


def rows(folder: Path, key: str) -> list[float]:
    """A column of metrics.csv."""
    with open(folder / "metrics.csv") as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is ruined on the way, so that its best weights are not its last."""
    folder = tmp_path_factory.mktemp("spoiled")
    spoil = "+callbacks.spoil={_target_: support.helpers.Spoil, epoch: 2}"
    train.run(configure(folder, "trainer.max_epochs=3", "optim.lr=0.01", "report=true", spoil))
    return folder


def test_a_run_leaves_figures_checkpoints_and_samples(spoiled: Path) -> None:
    files = {str(path.relative_to(spoiled)) for path in spoiled.rglob("*") if path.is_file()}
    samples = {f"samples/generated.{suffix}" for suffix in ("png", "svg", "npz")}
    samples |= {"samples/real.npz", "report.html"}
    names = ("best", "last", "last-prev")
    kept = {f"checkpoints/{name}.ckpt" for name in names} | {
        "metrics.json",
        "metrics.csv",
        "run.json",
    }
    files -= {"changes.patch"}  # of a repository with changes
    assert files == samples | kept | {"hparams.yaml"}


def test_figures_are_flat_and_agree_with_each_other(spoiled: Path) -> None:
    figures = json.loads((spoiled / "metrics.json").read_text())
    per_step = {f"test/{name}_per_step" for name in ("elbo", "kl", "iwae", "log_likelihood")}
    assert per_step | {"test/elbo", "test/elbo_se", "val/elbo", "untrained/elbo"} <= set(figures)
    assert all(isinstance(value, int | float) for value in figures.values())
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["updates"] == 9 and figures["epochs"] == 3 and figures["particles"] == 2

    sequences, steps = figures["test/sequences"], figures["test/steps"]
    assert sequences == 6
    log_scales = load_module(spoiled).hparams["data"]["log_scales"]
    assert log_scales["raw"] == 0 and log_scales["paper"] == pytest.approx(2 * math.log(56.04462))
    for name in ("elbo", "log_likelihood", "iwae", "paper"):
        value = figures[f"test/{name}"]
        assert figures[f"test/{name}_per_step"] == pytest.approx(value * sequences / steps)
        for space in ("raw", "paper"):
            moved = (log_scales[space] - log_scales["standardised"]) * steps / sequences
            assert figures[f"test/{name}_{space}"] == pytest.approx(value + moved, rel=1e-9)
    assert figures["test/elbo"] == pytest.approx(
        figures["test/log_likelihood"] - figures["test/kl"]
    )
    assert figures["test/elbo"] <= figures["test/iwae"] <= figures["test/paper"] + 1e-9


def test_the_best_checkpoint_is_not_the_last_and_scores_best(spoiled: Path) -> None:
    *curve, final = rows(spoiled, "val/elbo")
    assert len(curve) == 3 and max(curve) == curve[1] and curve[2] < curve[1] - 10
    figures = json.loads((spoiled / "metrics.json").read_text())
    assert figures["val/elbo"] == pytest.approx(final) == pytest.approx(curve[1])

    best, last = (load_module(spoiled / "checkpoints" / f"{n}.ckpt") for n in ("best", "last"))
    data, _ = build(configure(spoiled, "trainer.max_epochs=3", "optim.lr=0.01"))
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        inputs = batch.x, batch.mask, batch.ids
        scores = [score(m.model, *inputs, split="val")["elbo"] for m in (best, last)]
    assert scores[0].mean().item() == pytest.approx(curve[1], rel=1e-6)
    assert scores[1].mean().item() == pytest.approx(curve[2], rel=1e-6)


@pytest.fixture
def no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time of drawing, at the end of a run, what no one looks at."""
    monkeypatch.setattr("reports.conclusion.write_generated", lambda *_, **__: [])


def test_training_raises_the_bound(tmp_path: Path, no_samples: None) -> None:
    longer = ["trainer.max_epochs=12", "optim.lr=0.02", "untrained=false", "test=false"]
    train.run(configure(tmp_path, *longer, "trainer.check_val_every_n_epoch=12"))
    scores = rows(tmp_path, "train/elbo_per_step")
    assert len(scores) == 36
    assert sum(scores[-9:]) / 9 > sum(scores[:9]) / 9 + 0.1


def test_it_starts_from_the_frames_or_as_published(tmp_path: Path, no_samples: None) -> None:
    still = ["trainer.max_steps=1", "optim.lr=1e-30", "untrained=false", "test=false"]
    biases = {}
    for start in ("data", "published"):
        cfg = configure(tmp_path / start, f"start={start}", *still)
        train.run(cfg)
        trained = load_module(tmp_path / start / "checkpoints" / "last.ckpt").model
        biases[start] = trained.out.bias.detach()
    _, data, module = train.build(cfg)
    likelihood, frames = module.model.likelihood, data.training_frames(10**6)
    assert len(frames) == data.splits["train"].lengths.sum()
    torch.testing.assert_close(biases["data"], likelihood.fit(frames))
    torch.testing.assert_close(biases["published"], likelihood.bias())


def test_a_schedule_that_ends_before_the_training_is_told_of(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "optim=adam_one_cycle", "optim.steps=2", "untrained=false")
    with pytest.raises(
        ValueError, match="ends after 2 updates, .* after [0-9]+: give optim.steps"
    ):
        train.run(cfg)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, no_samples: None) -> None:
    schedules = ["optim=adam_cosine", "optim.steps=12", "objective.kl_start=0.1"]
    others = ["objective.kl_steps=9", "callbacks.gradients.nonfinite=skip", "untrained=false"]
    spoil = "+callbacks.spoil={_target_: support.helpers.Spoil, epoch: 1}"

    def run(name: str, epochs: int, *more: str) -> dict[str, Any]:
        folder = tmp_path / name
        epochs_option = f"trainer.max_epochs={epochs}"
        cfg = configure(folder, epochs_option, "test=false", *schedules, *others, spoil, *more)
        train.run(cfg)
        content = read(folder / "checkpoints" / "last.ckpt")
        content["weights"] = rows(folder, "train/kl_weight")
        content["curve"] = rows(folder, "train/elbo_per_step")
        content["val"] = rows(folder, "val/elbo")
        return content

    whole = run("whole", 4)
    first = run("halves", 2, "ckpt=last")
    second = run("halves", 4, "ckpt=last")

    assert first["global_step"] == 6 and second["global_step"] == whole["global_step"] == 12
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    a, b = whole["optimizer_states"][0], second["optimizer_states"][0]
    assert a["param_groups"] == b["param_groups"]
    for i, state in a["state"].items():
        assert all(torch.equal(value, b["state"][i][name]) for name, value in state.items())
    assert whole["lr_schedulers"] == second["lr_schedulers"]

    monitor, patience = (
        next(key for key in whole["callbacks"] if key.startswith(name))
        for name in ("BestCheckpoint", "EarlyStopping")
    )
    scores = [content["callbacks"][monitor]["best_model_score"] for content in (whole, second)]
    assert scores[0] == scores[1]
    assert whole["callbacks"][patience] == second["callbacks"][patience]
    assert whole["val"][1] < whole["val"][0], "or the best epoch would be the one resumed"
    # The curves go on where they stopped: the same batches, noise and weight of the KL.
    for name in ("weights", "curve", "val"):
        assert first[name] + second[name][-len(first[name]) :] == whole[name]


def test_resuming_where_there_is_nothing_starts_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = ["debug=fast", "untrained=false", "test=false", "model=rnn_gauss"]
    with caplog.at_level("INFO"):
        figures = train.run(configure(tmp_path, *fast, "ckpt=last"))
    assert figures["updates"] == 1 and "nothing to resume" in caplog.text


def gradients(module: VRNNModule, batch: Any) -> dict[str, torch.Tensor]:
    """Of the loss, a mean over the time steps of 24 lines cut to 40 frames, 8 a batch, by hand."""
    module = copy.deepcopy(module)
    terms = module.objective(module.model, batch.x, batch.mask, module.training_rng(0), 0)
    (terms.loss / (8 * 40)).backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("threshold", [None, 0.01, 1000.0])
def test_clipping_is_of_the_norm_before_the_update(
    tmp_path: Path, threshold: float | None
) -> None:
    data, module = build(configure(tmp_path, *SGD))
    before = copy.deepcopy(module)
    batch = next(iter(data.train_dataloader()))
    expected = gradients(before, batch)
    norm = sum(float(grad.square().sum()) for grad in expected.values()) ** 0.5
    assert 0.01 < norm < 1000
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0, gradient_clip_val=threshold)
    fit.fit(module, data)
    factor = 1.0 if threshold is None else min(1.0, threshold / norm)
    for name, parameter in before.named_parameters():
        moved = module.get_parameter(name) - parameter
        torch.testing.assert_close(moved, -factor * expected[name], rtol=1e-3, atol=1e-6)


class Modes(Callback):
    """Notes which mode everything is in."""

    def __init__(self) -> None:
        self.validating: set[tuple[bool, bool]] = set()
        self.training: set[tuple[bool, bool]] = set()

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.training.add((module.model.training, torch.is_anomaly_enabled()))

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, *_: Any
    ) -> None:
        self.validating.add((module.model.training, torch.is_grad_enabled()))


def test_validation_is_in_evaluation_mode_and_anomalies_are_not_traced(tmp_path: Path) -> None:
    cfg = configure(tmp_path, "model=rnn_gauss")
    data, module = build(cfg)
    modes = Modes()
    trainer(tmp_path, modes, max_epochs=2).fit(module, data)
    assert modes.training == {(True, False)} and modes.validating == {(False, False)}
    assert cfg.callbacks.early_stopping._target_.endswith(EarlyStopping.__name__)
    assert cfg.callbacks.early_stopping.monitor == cfg.callbacks.checkpoint.monitor == "val/elbo"


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    with torch.no_grad():
        module.model.out.bias[0] = float("nan")
    before = copy.deepcopy(module.state_dict())
    first = next(iter(data.train_dataloader())).ids.tolist()
    with pytest.raises(NonFiniteError) as error:
        trainer(tmp_path, Gradients(), max_epochs=1, limit_val_batches=0).fit(module, data)
    message = str(error.value)
    assert "at update 0" in message and str(first) in message and "model.phi_x" in message
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_bad_sequence_stops_at_its_update(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    order = [batch.ids.tolist() for batch in data.train_dataloader()]
    data.splits["train"][order[2][5]][0, 1] = float("inf")
    with pytest.raises(NonFiniteError, match="at update 2") as error:
        trainer(tmp_path, Gradients(), max_epochs=1, limit_val_batches=0).fit(module, data)
    assert str(order[2]) in str(error.value)


def test_a_bad_sequence_is_skipped_and_counted(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, "data.lines=8"))
    before = copy.deepcopy(module.state_dict())
    data.splits["train"][3][0, 1] = float("nan")
    guard = Gradients("skip")
    fit = trainer(tmp_path, guard, max_epochs=3, limit_val_batches=0, gradient_clip_val=1.0)
    fit.fit(module, data)
    assert guard.skipped == 3 == guard.state_dict()["skipped"]
    assert all(torch.equal(tensor, before[n]) for n, tensor in module.state_dict().items())
    assert fit.callback_metrics["train/skipped_updates"] == 3


def test_only_the_bad_batch_is_skipped(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    before = copy.deepcopy(module.state_dict())
    data.splits["train"][3][0, 1] = float("nan")
    guard = Gradients("skip")
    trainer(tmp_path, guard, max_epochs=2, limit_val_batches=0).fit(module, data)
    assert guard.skipped == 2
    after = module.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert not torch.equal(after["model.out.bias"], before["model.out.bias"])


def test_reported_figures_ignore_warm_up_and_free_bits(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path))
    batch = next(iter(data.train_dataloader()))
    objectives = (
        ELBO(),
        ELBO(kl_start=0.1, kl_steps=100),
        ELBO(kl_start=0.1, kl_steps=100, kl_schedule="cosine"),
        ELBO(free_bits=3.0),
        ELBO(free_bits=0.75, free_bits_per="dimension"),
    )
    plain, warm, cosine, free, each = (
        objective(module.model, batch.x, batch.mask, module.training_rng(0), 10)
        for objective in objectives
    )
    steps = batch.mask.sum()
    for other in (warm, cosine, free, each):
        assert torch.equal(other.bound, plain.bound)
        assert torch.equal(other.kl, plain.kl)
    torch.testing.assert_close(plain.loss, -plain.bound)
    torch.testing.assert_close(warm.loss, -plain.bound - 0.81 * plain.kl)
    beta = 0.1 + 0.9 * (1 - math.cos(0.1 * math.pi)) / 2
    torch.testing.assert_close(cosine.loss, -plain.bound - (1 - beta) * plain.kl)
    assert plain.kl / steps < 3.0, "or the free bits would not matter"
    assert free.loss > plain.loss and free.loss <= 3.0 * steps + plain.loss
    # The model has four latent dimensions, none of which reaches 0.75 nats.
    torch.testing.assert_close(each.loss, -plain.bound - plain.kl + 3.0 * steps)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("objective", ["elbo", "iwae", "fivo"])
def test_every_objective_trains_and_chooses_by_its_own_bound(
    objective: str, precision: str, tmp_path: Path, no_samples: None
) -> None:
    options = [f"objective={objective}", f"trainer.precision={precision}", "untrained=false"]
    options += ["objective.particles=3"] if objective != "elbo" else []
    options += ["model=vrnn_gauss", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    cfg = configure(tmp_path, *options)
    assert cfg.callbacks.checkpoint.monitor == f"val/{objective}"
    figures = train.run(cfg)
    assert {"val/elbo", f"val/{objective}", f"test/{objective}_per_step"} <= figures.keys()
    assert all(math.isfinite(value) for value in figures.values())
    assert len(rows(tmp_path, f"train/{objective}_per_step")) == 2
    weights = read(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(w.dtype != torch.bfloat16 for w in weights.values())


def test_validation_resamples_as_training_does(tmp_path: Path) -> None:
    options = ["model=vrnn_gauss", "objective=fivo", "objective.particles=3"]
    data, module = build(configure(tmp_path, *options, "objective.resampling=never"))
    module.log_dict = lambda figures: None
    with torch.no_grad():
        for p in module.model.parameters():  # The weights as drawn are too small to matter.
            p.mul_(3)
        for batch in data.val_dataloader():
            module.validation_step(batch, 0)
            module.score(batch, "val", module.test_scores, 3, {"iwae"})
    module.on_validation_epoch_end()
    module.on_test_epoch_end()
    assert module.figures["val/fivo"] == pytest.approx(module.figures["test/iwae"], rel=1e-6)


def test_the_filtering_bound_is_for_models_with_latents(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs latent variables, which RNN has not"):
        train.run(configure(tmp_path, "model=rnn_gauss", "objective=fivo", "untrained=false"))


def test_a_forecast_of_the_future_is_part_of_the_loss_only(tmp_path: Path) -> None:
    more = ["model=vrnn_gauss", "model.posterior=smoothing"]
    data, module = build(configure(tmp_path, *more, "model.forecast=true"))
    batch = next(iter(data.train_dataloader()))
    plain, cost = (
        objective(module.model, batch.x, batch.mask, module.training_rng(0), 0)
        for objective in (ELBO(), ELBO(forecast=0.5))
    )
    assert torch.equal(plain.bound, cost.bound) and torch.equal(plain.kl, cost.kl)
    noise = module.objective.noise(module.model, batch.x, module.training_rng(0))
    trace = module.model.trace(batch.x, batch.mask, noise=noise)
    expected = trace.forecast.log_prob(trace.future)[batch.mask].sum()
    torch.testing.assert_close(cost.loss, plain.loss - 0.5 * expected)
    assert trace.future.shape == (*batch.mask.shape, 8) and not trace.future.requires_grad
    forecaster = list(module.model.forecaster.parameters())
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(cost.loss, forecaster))

    _, without = build(configure(tmp_path, *more))
    with pytest.raises(ValueError, match=r"needs model\.forecast=true"):
        ELBO(forecast=0.5)(without.model, batch.x, batch.mask, module.training_rng(0), 0)
    with pytest.raises(InstantiationException, match=r"needs model\.posterior=smoothing"):
        build(configure(tmp_path, "model=vrnn_gauss", "model.forecast=true"))
