"""Dropout: what it leaves out, what it leaves alone, and how it is repeated."""

import numpy as np
import pytest
import torch
from support.helpers import build, configure, trainer

import train
from runs.samples import generate_raw
from vrnn import RNN, VRNN, segments
from vrnn.checkpoint import load_module
from vrnn.objectives import ELBO, IWAE

T, B = 7, 3


@pytest.fixture
def x():
    return torch.randn(T, B, 3)


def assert_dropped(dropped, whole, share):
    """Of the numbers that are not 0 anyway `share` are left out, and the others scaled up."""
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / (1 - share))
    n = int((whole != 0).sum())
    assert n > 500 and abs(1 - kept.sum() / n - share) < 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.usefixtures("float64")
def test_training_leaves_out_a_share_and_makes_up_for_it(make_model):
    """Of the features of x, and of what the decoder reads."""
    model = make_model(RNN, dropout=0.3, phi_x_dim=60)
    read = []
    model.decoder.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    x, h = torch.randn(20, B, 3), torch.randn(200, 9)
    features = [model.train(training).features(x) for training in (False, True)]
    params = [model.train(training).params(h) for training in (False, True)]
    assert_dropped(features[1], features[0], 0.3)
    assert torch.equal(read[0], h)
    assert_dropped(read[1], h, 0.3)
    assert not torch.allclose(*params)


@pytest.mark.usefixtures("float64")
def test_so_it_does_of_the_units_of_the_decoders_last_layer(make_model):
    model = make_model(RNN, dropout=0.3, decoder_dim=60).train()
    read, made = [], []
    model.decoder.register_forward_hook(lambda _, args, out: made.append(out))
    model.out.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    model.params(torch.randn(100, 9))
    assert_dropped(read[0], made[0], 0.3)


@pytest.mark.usefixtures("float64")
def test_scores_and_generation_are_without(any_model, x):
    x = (x > 0).to(x.dtype) if "real" not in any_model.likelihood.kinds else x
    noise = torch.randn(T, B, any_model.z_dim)
    plain = any_model.train().trace(x, noise=noise)
    drawn = any_model.generate(4, seed=1)
    any_model.dropout.p = 0.5
    dropped = any_model.trace(x, noise=noise)
    assert not torch.allclose(dropped.likelihood.log_prob(x), plain.likelihood.log_prob(x))
    assert not torch.allclose(dropped.state[0], plain.state[0])
    scored = any_model.eval().trace(x, noise=noise)
    torch.testing.assert_close(scored.likelihood.log_prob(x), plain.likelihood.log_prob(x))
    torch.testing.assert_close(scored.state, plain.state)
    torch.testing.assert_close(any_model.generate(4, seed=1), drawn)


def test_weights_have_the_same_names_with_and_without(make_model):
    names = [list(make_model(VRNN, dropout=p).state_dict()) for p in (0.0, 0.5)]
    assert names[0] == names[1]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3)], ids=lambda o: o.name)
def test_segments_leave_out_the_same_units_the_second_time(make_model, objective, x, monkeypatch):
    model = make_model(VRNN, dropout=0.4, checkpoint_steps=3).train()
    mask = torch.ones(T, B, dtype=torch.bool)

    def gradients():
        torch.manual_seed(4)
        loss = objective(model, x, mask, torch.Generator().manual_seed(1), 0).loss
        torch.rand(5)  # Others draw as well, before the backward pass.
        state = torch.get_rng_state()
        found = torch.autograd.grad(loss, list(model.parameters()))
        assert torch.equal(torch.get_rng_state(), state)
        return loss, *found

    ours = gradients()
    # Autograd remembers the first time.
    monkeypatch.setattr(segments, "recomputed", lambda function, _, inputs: function(*inputs))
    torch.testing.assert_close(ours, gradients())


def test_a_training_draws_what_it_left_out_from_its_own_seed(tmp_path):
    """The same update leaves out the same units, whatever else draws random numbers."""
    losses = []
    for draws in (0, 3):
        cfg = configure(tmp_path, "model.dropout=0.5")
        data, module = build(cfg)
        fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
        torch.rand(draws)
        fit.fit(module, data)
        losses.append(fit.callback_metrics["train/elbo_per_step"].item())
    assert losses[0] == losses[1]


def test_what_a_run_draws_at_its_end_is_what_its_weights_draw_later(tmp_path):
    few = ["callbacks.checkpoint=null", "untrained=false", "trainer.max_epochs=1"]
    cfg = configure(tmp_path, "model.dropout=0.5", *few)
    train.run(cfg)
    drawn = np.load(tmp_path / "samples" / "generated.npz")["x"]
    again = generate_raw(load_module(tmp_path), n=len(drawn), seed=cfg.seed)
    np.testing.assert_array_equal(drawn, again.x)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_share_is_below_one(make_model, share):
    with pytest.raises(ValueError, match=r"model.dropout must be in \[0, 1\)"):
        make_model(VRNN, dropout=share)
