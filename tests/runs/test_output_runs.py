"""Whole runs with discrete outputs, and with outputs that are autoregressive inside the frame."""

import json
import math
import re

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import open_dict
from support.helpers import CONF, configure
from support.small_data import Tones

import train
import vrnn
from vrnn.evaluation import score
from vrnn.likelihoods.autoregressive import AutoregressiveBernoulli


def configured(folder, model, data, kind, *overrides, **options):
    cfg = configure(
        folder,
        f"model={model}",
        "x.dim=4",
        f"x.kind={kind}",
        "trainer.max_epochs=2",
        "x.likelihood=vrnn.likelihoods.GaussianMixture",
        *overrides,
        lines=False,
    )
    with open_dict(cfg):
        cfg.data = {"_target_": f"support.small_data.{data}", "batch_size": 4, **options}
    return cfg


@pytest.mark.parametrize("model", ["vrnn_dmol", "rnn_mulaw"])
def test_a_run_reports_bits_per_sample_and_draws_levels(model, tmp_path, command, monkeypatch):
    figures = train.run(configured(tmp_path, model, "Tones", "audio"))
    for split in ("untrained", "val", "test"):
        for name in ("elbo", "log_likelihood"):
            per_step = figures[f"{split}/{name}_per_step"]
            bits = figures[f"{split}/{name}_bits_per_sample"]
            assert bits == pytest.approx(-per_step / (4 * math.log(2)))
            assert figures[f"{split}/{name}_raw"] == figures[f"{split}/{name}"]
    assert 0 < figures["test/elbo_bits_per_sample"] < figures["untrained/elbo_bits_per_sample"]
    assert "test/iwae_bits_per_sample" in figures
    assert (tmp_path / "samples" / "generated_07_mean.wav").exists()

    loaded = vrnn.load(tmp_path)
    torch.testing.assert_close(loaded.likelihood.grid.scale, loaded.normaliser.scale)
    assert (loaded.likelihood.grid.scale > 1000).all()
    raw = loaded.normaliser.raw(loaded.generate(6, 5, seed=0).double())
    torch.testing.assert_close(raw, raw.round(), rtol=0, atol=0.02)

    # A checkpoint may only name data modules of this package.
    data = Tones(batch_size=4)
    data.setup()
    monkeypatch.setattr("datamodules.loading.load_data", lambda *_: data)
    shown = command("evaluate.py", tmp_path, "--k", 2, "--json", tmp_path / "scores.json")
    assert "bits per sample" in shown
    again = json.loads((tmp_path / "scores.json").read_text())
    assert again["test/elbo_bits_per_sample"] == pytest.approx(
        figures["test/elbo_bits_per_sample"], rel=1e-5
    )


@pytest.mark.parametrize(
    ("model", "data", "kind"),
    [
        ("rnn_hier", "Tones", "audio"),
        ("vrnn_nade", "Rolls", "binary"),
        pytest.param("vrnn_hier", "Tones", "audio", marks=pytest.mark.slow),
        pytest.param("rnn_nade", "Rolls", "binary", marks=pytest.mark.slow),
    ],
)
def test_autoregressive_models_train_and_come_back(model, data, kind, tmp_path):
    overrides = ["optim.lr=0.01"]
    figures = train.run(configured(tmp_path, model, data, kind, *overrides))
    assert figures["test/elbo_per_step"] > figures["untrained/elbo_per_step"]
    assert not any("bits" in key for key in figures)
    loaded = vrnn.load(tmp_path)
    assert loaded.parameter_count == figures["parameters"]
    assert set(np.load(tmp_path / "samples" / "generated.npz")) == {"x", "columns"}
    assert not list((tmp_path / "samples").glob("*mean*"))
    x = loaded.generate(5, 3, seed=1)
    assert torch.equal(x, vrnn.load(tmp_path).generate(5, 3, seed=1)) and x.isfinite().all()


def test_other_than_whole_levels_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match="DiscretisedLogisticMixture describes whole numbers from -32768 to 32767, but "
        "data=tones has .*GaussianMixture would fit",
    ):
        train.run(configured(tmp_path, "rnn_dmol", "Tones", "audio", step=0.01))
    with pytest.raises(ValueError, match="whole numbers from -128 to 127, but data=tones has"):
        few = ["model.likelihood.levels=256", "model.likelihood.lowest=-128"]
        train.run(configured(tmp_path, "rnn_dmol", "Tones", "audio", *few))


@pytest.mark.parametrize(
    ("model", "data", "like"),
    [
        ("rnn_hier", "synthetic_speech", "vrnn_gmm"),
        ("vrnn_hier", "synthetic_speech", "vrnn_gmm"),
        ("rnn_nade", "jsb", "vrnn_bernoulli"),
        ("vrnn_nade", "jsb", "vrnn_bernoulli"),
    ],
)
def test_parameter_counts_match_as_the_configuration_says(model, data, like):
    counts = []
    for name in (model, like):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"model={name}", f"data={data}"])
        counts.append(instantiate(cfg.model).parameter_count)
    head = (CONF / "model" / f"{model}.yaml").read_text().split("_target_")[0]
    assert re.findall(r"\d+,\d+,?\d*\d", head)[:2] == [f"{count:,}" for count in counts]
    assert counts[0] == pytest.approx(counts[1], rel=0.02)


def test_a_bound_that_needs_a_mean_is_refused_in_one_sentence(make_model):
    model = make_model(vrnn.VRNN, AutoregressiveBernoulli(3, 4))
    x, mask = torch.zeros(4, 2, 3), torch.ones(4, 2, dtype=torch.bool)
    with pytest.raises(
        NotImplementedError, match="AutoregressiveBernoulli has no mean .*open_loop"
    ):
        score(model, x, mask, torch.arange(2), bounds=["open_loop"])
