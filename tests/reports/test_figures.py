"""The figures of a run, each against something independent of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support.helpers import Command, build, configure, trainer
from support.small_data import Rolls, Tones

from datamodules.base import SequenceData
from datamodules.ragged import Ragged
from reports.figures import figures, pair, write_figures
from reports.inference import continued, decoded, drawn, infer, state_after
from reports.latent_figures import (
    change_of_mean,
    draw_interpolation,
    draw_over_time,
    draw_prior_posterior,
    draw_traversal,
)
from reports.probes import probe, probe_styles, statistics
from runs.naming import model_name
from vrnn import RNN, VRNN
from vrnn.evaluation import score
from vrnn.layers.state import top
from vrnn.likelihoods import Bernoulli, GaussianMixture
from vrnn.models.base import SequenceModel
from vrnn.normaliser import Normaliser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as training writes it, of a model that thinks lines have 20 steps."""
    folder = tmp_path_factory.mktemp("run")
    data, module = build(configure(folder, "model=vrnn_gauss", "seed=3"))
    fit = trainer(folder, max_steps=1)
    fit.fit(module, data)
    fit.save_checkpoint(folder / "checkpoints" / "best.ckpt")
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    about = content["hyper_parameters"]["data"]
    about["steps"]["train"] = 20 * about["sequences"]["train"]
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


def heights(figure: Figure, axes: int) -> np.ndarray:
    """What the bars of a picture are as high as."""
    (patch,) = figure.axes[axes].patches
    return np.asarray(patch.get_data().values)


def test_the_curve_of_the_kl_sums_to_the_reported_one(tmp_path: Path) -> None:
    """Whatever lies beside the sequences in the batch that is scored."""
    data, module = build(configure(tmp_path, "model=vrnn_gauss"))
    (batch,) = data.loader("test", 6)
    with torch.no_grad():
        module.model.cell.encoder.out.weight.mul_(200)
        figures = score(module.model, batch.x, batch.mask, batch.ids, seed=7, bounds={"elbo"})
    for i in (0, 3):
        (seen,) = infer(module.model, [data.splits["test"][i]], [i], seed=7)
        reported = float(figures["kl"][batch.ids == i])
        drawn = draw_over_time("pen", 65.6, seen)
        assert reported > 0.1
        assert heights(drawn, 1).sum() == pytest.approx(reported, rel=1e-4)
        assert np.array_equal(heights(drawn, 0)[1:], change_of_mean(seen.mean)[1:])


def test_inference_is_that_of_the_trace(any_model: SequenceModel) -> None:
    if isinstance(any_model, RNN):
        pytest.skip("has no latents")
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 2, (n, 3)).astype(float) for n in (5, 9)]
    together = infer(any_model, lines, [4, 2])
    alone = infer(any_model, lines[1:], [2])[0]
    for name, a, b in zip(alone._fields, together[1], alone, strict=True):
        assert np.allclose(a, b, atol=1e-5), name
    x = torch.tensor(lines[0], dtype=torch.float32)[:, None]
    seen = together[0]
    assert seen.kl.shape == (5, 2) and seen.h.shape == (5, any_model.cell.width)
    prior = any_model.cell.prior(torch.from_numpy(seen.h))[0]
    assert np.allclose(prior.expand(5, -1).detach().numpy(), seen.prior_mean, atol=1e-5)
    assert any_model.trace(x).posterior is not None


def test_the_change_is_squared_and_summed_over_dimensions() -> None:
    mean = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    change = change_of_mean(mean)
    assert np.isnan(change[0]) and change[1:].tolist() == [25.0, 1.0]


def test_bands_are_two_standard_deviations_wide(make_model: Callable[..., VRNN]) -> None:
    model = make_model()
    (seen,) = infer(model, [np.ones((7, 3))], [0])
    figure = draw_prior_posterior("real", 1.0, seen)
    strongest = int(seen.kl.mean(0).argmax())
    (band,) = figure.axes[0].collections
    y = band.get_paths()[0].vertices[:, 1]
    mean, std = seen.prior_mean[:, strongest], seen.prior_std[:, strongest]
    assert y.min() == pytest.approx((mean - 2 * std).min(), rel=1e-5)
    assert y.max() == pytest.approx((mean + 2 * std).max(), rel=1e-5)


def test_without_a_shift_a_traversal_is_the_sample(any_model: SequenceModel) -> None:
    wanted = any_model.generate(12, 1, seed=5)[:, 0].numpy()
    zero = torch.zeros(any_model.z_dim)
    # `generate` forms the same sums in another order.
    np.testing.assert_allclose(drawn(any_model, 12, 5, zero), wanted, rtol=1e-5, atol=1e-6)
    if any_model.z_dim:
        shifted = drawn(any_model, 12, 5, zero + torch.tensor([1.0, 0.0]))
        assert not np.allclose(shifted, wanted)


def test_a_traversal_moves_one_latent_by_its_own_deviation(
    make_model: Callable[..., VRNN], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = make_model(engine="plain"), []
    monkeypatch.setattr(
        model, "decode", lambda z, h, decode=model.decode: seen.append((z, h)) or decode(z, h)
    )
    drawn(model, 1, 5, torch.tensor([0.0, 0.0]))
    drawn(model, 1, 5, torch.tensor([0.0, 1.5]))
    (z, h), (shifted, _) = seen
    std = model.cell.prior(h)[1]
    assert torch.allclose(shifted - z, 1.5 * std * torch.tensor([0.0, 1.0]))


def test_interpolation_starts_and_ends_at_the_two_sequences(
    make_model: Callable[..., VRNN],
) -> None:
    """With no share of the second, generation is that after the first, step by step by hand."""
    model = make_model(posterior="smoothing")
    x = torch.randn(6, 1, 3)
    state = model.trace(x, noise=torch.zeros(6, 1, 2)).state
    after = state_after(model, x[:, 0].numpy())
    assert all(torch.allclose(a, b) for a, b in zip(after, state, strict=True))
    frames = continued(model, after, 4, seed=2)
    torch.manual_seed(2)
    for frame in frames:
        with torch.no_grad():
            mean, std = model.cell.prior(top(state))
            z = mean + std * torch.randn(1, 2)
            wanted = model.likelihood.draw(model.decode(z, top(state)))
            state = model.advance(wanted, z, state)
        assert np.allclose(frame, wanted[0].numpy(), atol=1e-5)


def test_frames_are_drawn_given_the_latents(make_model: Callable[..., VRNN]) -> None:
    """With hardly any noise they are the means of the likelihood given these latents."""
    model = make_model(spread=0.2)
    with torch.no_grad():
        model.out.bias[3:] = -20.0  # sigma: 1e-4
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    frames = decoded(model, z, seed=1)
    state = model.initial(1)
    for row, frame in zip(torch.from_numpy(z), frames, strict=True):
        with torch.no_grad():
            mean = model.likelihood(model.decode(row[None], top(state))).mean
            state = model.advance(mean, row[None], state)
        assert np.allclose(frame, mean[0].numpy(), atol=0.01)


@pytest.mark.parametrize("width", [3, 60, 400])
def test_probes_find_what_is_there_and_nothing_else(width: int) -> None:
    rng = np.random.default_rng(0)
    slant, writers = rng.uniform(-0.3, 0.6, 100), np.arange(200) % 100
    target = slant[writers]
    noise = rng.normal(size=(200, width))
    assert -0.2 < probe(noise, target, writers) < 0.05
    mixed = noise + np.outer(target, rng.normal(size=width)) * 30
    assert probe(mixed, target, writers) > 0.95
    assert probe(np.ones((200, width)), target, writers) == pytest.approx(0.0, abs=1e-9)


def test_probes_do_not_know_writers_from_elsewhere() -> None:
    """Features that name the writer say nothing of the style of another one."""
    writers = np.arange(200) % 50
    style = np.random.default_rng(0).normal(size=50)[writers]
    assert probe(np.eye(50)[writers], style, writers) < 0.05
    assert probe(np.eye(50)[writers], style, np.arange(200) // 50) > 0.9, "if it leaked"


def test_the_probe_is_a_ridge_regression_by_its_normal_equations() -> None:
    """And its penalty is the best by refitting without each line."""
    from reports.probes import PENALTIES, ridge

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    x = (x - x.mean(0)) / x.std(0)

    def fit(a: np.ndarray, b: np.ndarray, penalty: float, at: np.ndarray) -> np.ndarray:
        ones = np.column_stack([np.ones(len(a)), a])
        weight = np.diag([0.0, *[penalty] * 4])
        return np.column_stack([np.ones(len(at)), at]) @ np.linalg.solve(
            ones.T @ ones + weight, ones.T @ b
        )

    losses = []
    for penalty in PENALTIES:
        rest = [np.delete(np.arange(12), i) for i in range(12)]
        out = [fit(x[r], y[r], 12 * penalty, x[[i]])[0] - y[i] for i, r in enumerate(rest)]
        losses.append(np.mean(np.square(out)))
    best = PENALTIES[int(np.argmin(losses))]
    assert np.allclose(ridge(x, y, x), fit(x, y, 12 * best, x))


def test_statistics_of_ink_are_those_of_its_offsets() -> None:
    x = np.array([[0, 3, 4], [1, -3, -4]])
    assert np.allclose(statistics(x), [0, 0, 3, 4, 1, 5, 0.5])


def test_styles_are_probed_where_they_are_known(tmp_path: Path) -> None:
    data, module = build(
        configure(tmp_path, "model=vrnn_gauss", "data.test_lines=24", "data.writers=12")
    )
    lines = data.splits["test"]
    scores = probe_styles(module.model, lines)
    assert scores is not None and {len(row) for row in scores.values()} == {3}
    assert scores["size"]["no model: statistics of the ink"] > 0.6
    unlabelled = Ragged(lines.values, lines.starts, lines.lengths, lines.keys)
    assert probe_styles(module.model, unlabelled) is None
    assert probe_styles(module.model, lines.select(range(8))) is None, "too few writers"
    assert (
        pair(lines) == (0, 1)
        and pair(unlabelled) == (0, 12)
        and pair(lines.select([0]))
        == (
            0,
            0,
        )
    )


LATENT = {
    "KL and change of the posterior over time",
    "Prior against posterior",
    "Latent traversals",
    "Interpolation between two sequences",
}


@pytest.mark.parametrize("latent", [True, False])
@pytest.mark.parametrize("source", [Tones, Rolls])
def test_sound_and_music_have_their_figures(
    source: type[SequenceData], latent: bool, make_model: Callable[..., SequenceModel]
) -> None:
    data = source()
    data.setup()
    likelihood = Bernoulli(4) if source is Rolls else GaussianMixture(4)
    model = make_model(VRNN if latent else RNN, likelihood, spread=0.1)
    about = {"hparams": {"data": data.description()}, "model": model, "seed": 0}
    drawn = figures(type("Module", (), about)(), data)
    assert drawn.keys() == {"Real and generated"} | (LATENT if latent else set())


def test_coordinates_of_any_units_are_all_seen(make_model: Callable[..., VRNN]) -> None:
    """Of sizes 1, 5 and 1,000, each takes a fair share of every axis, from top to bottom."""
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 5.0, 1000.0])
    model = make_model(spread=0.1)
    model.normaliser = Normaliser([0.0, 0.0, 1000.0], list(sizes))
    a, b = infer(model, [sizes * rng.normal(size=(30, 3)) + [0, 0, 1000] for _ in "ab"], [0, 1])
    axes = [draw("real", 1.0, a).axes[-1] for draw in (draw_over_time, draw_prior_posterior)]
    axes += draw_traversal(model, "real", 1.0, [0, 1], 30).axes
    axes += draw_interpolation(model, "real", 1.0, (a, b), ("a", "b"), 30).axes
    assert len(axes) == 2 + 10 + 14
    for ax in axes:
        lines = np.stack([line.get_ydata() for line in ax.lines])
        assert (np.ptp(lines, axis=1) > 0.05 * np.ptp(ax.get_ylim())).all()
        assert (np.diff(lines.mean(1)) < 0).all()


def test_figures_are_written_by_a_command(run: Path, tmp_path: Path, command: Command) -> None:
    shown = command("reports/figures.py", run)
    files = {Path(line) for line in shown.split()}
    assert {file.parent for file in files} == {run / "figures"} and len(files) == 10
    assert all(file.stat().st_size > 5000 for file in files)
    shown = command("reports/figures.py", run, run, "data.test_lines=1", "--out", tmp_path)
    assert [Path(line).name for line in shown.split()] == [
        "models_side_by_side.png",
        "models_side_by_side.svg",
    ]
    shown = command.fails("reports/figures.py", run, "data.root=/nowhere")
    assert "unknown option data.root" in shown
    assert "name at least one run" in command.fails("reports/figures.py", "data.test_lines=1")


def test_runs_on_other_data_are_not_drawn_side_by_side(
    run: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "other.ckpt"
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["data"]["columns"] = ["0", "1"]
    torch.save(content, file)
    assert "cannot be drawn side by side" in command.fails("reports/figures.py", run, file)


def test_files_are_named_after_their_titles(tmp_path: Path) -> None:
    files = write_figures({"Latent traversals": Figure()}, tmp_path / "figures")
    assert [file.name for file in files] == ["latent_traversals.png", "latent_traversals.svg"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rnn_gmm", "RNN-GMM"),
        ("vrnn_i_gauss", "VRNN-I-Gauss"),
        ("vrnn_hier", "VRNN-Hier"),
        ("vrnn_gauss", "VRNN-Gauss"),
        ("rnn_gauss", "RNN-Gauss"),
    ],
)
def test_models_are_named_as_in_the_paper(name: str, wanted: str, tmp_path: Path) -> None:
    cfg = configure(tmp_path, f"model={name}")
    assert model_name(cfg.model) == wanted
    assert wanted.lower().replace("-", "_") == name
    if name == "vrnn_gauss":
        cfg.model.posterior, cfg.model.residual = "smoothing", True
        assert model_name(cfg.model) == "VRNN-Gauss smoothing residual"
