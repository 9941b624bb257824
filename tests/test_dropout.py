"""Dropout of the decoder: what it leaves out, what it leaves alone, and how it is repeated."""

import pytest
import torch
from helpers import build, configure, trainer

from vrnn import RNN, VRNN, segments
from vrnn.objectives import ELBO, IWAE

T, B = 7, 3


@pytest.fixture
def x():
    return torch.randn(T, B, 3)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [VRNN, RNN])
def test_training_leaves_out_a_share_and_makes_up_for_it(make_model, kind, x):
    """Both of what the decoder reads and of the units of its last layer."""
    model = make_model(kind, dropout=0.3, decoder_dim=60, hidden=50)
    seen = {"decoder": [], "out": []}
    for name, inputs in seen.items():
        getattr(model, name).register_forward_pre_hook(
            lambda _, args, inputs=inputs: inputs.append(args[0])
        )
    noise = torch.randn(T, B, model.z_dim)
    for training in (False, True):
        model.train(training)
        torch.manual_seed(0)
        model.trace(x, noise=noise)
    whole, dropped = seen["decoder"]
    n = whole.numel()
    kept = dropped != 0
    assert (whole == 0).double().mean() < 0.2
    share = 1 - (kept & (whole != 0)).sum() / (whole != 0).sum()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.7)
    whole, dropped = seen["out"]
    assert (dropped == 0).double().mean() > (whole == 0).double().mean() + 0.1


@pytest.mark.usefixtures("float64")
def test_scores_latents_and_state_do_not_know_it(any_model, make_model, x):
    """Whatever is left out: inference and recurrence see all, and evaluation is without."""
    x = (x > 0).to(x.dtype) if "real" not in any_model.likelihood.kinds else x
    noise = torch.randn(T, B, any_model.z_dim)
    plain = any_model.train().trace(x, noise=noise)
    any_model.dropout.p = 0.5
    dropped = any_model.trace(x, noise=noise)
    torch.testing.assert_close(dropped.z, plain.z)
    torch.testing.assert_close(dropped.state, plain.state)
    scored = any_model.eval().trace(x, noise=noise).likelihood.log_prob(x)
    torch.testing.assert_close(scored, plain.likelihood.log_prob(x))
    assert not torch.allclose(dropped.likelihood.log_prob(x), scored)


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


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_share_is_below_one(make_model, share):
    with pytest.raises(ValueError, match=r"model.dropout must be in \[0, 1\)"):
        make_model(VRNN, dropout=share)
