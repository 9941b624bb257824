"""Bounds by segments of time are those of whole sequences: values, gradients, state and noise."""

import pytest
import torch
from support.helpers import build, configure, trainer

from vrnn import VRNN
from vrnn.bounds import elbo_terms
from vrnn.evaluation import score
from vrnn.memory import memory_told
from vrnn.objectives import ELBO, FIVO, IWAE
from vrnn.segments import by_segments

T, LENGTHS = 11, [11, 4, 8, 1]


def padded(model, particles=1):
    """Sequences of several lengths, the first and the last of which go on from a state."""
    x = torch.randn(T, len(LENGTHS), 3)
    if "binary" in model.likelihood.kinds or "pen" in model.likelihood.kinds:
        x = (x > 0).to(x.dtype)
    mask = torch.arange(T)[:, None] < torch.tensor(LENGTHS)
    goes_on = torch.tensor([True, False, False, True]).repeat(particles)[:, None]
    state = model.initial(particles * len(LENGTHS))
    return x, mask, tuple(torch.where(goes_on, torch.randn_like(s), 0.0) for s in state)


def run(model, objective, steps, batch):
    """All numbers of a training step, in a row."""
    model.checkpoint_steps = steps
    x, mask, state = batch
    result = objective(model, x, mask, torch.Generator().manual_seed(1), 5, state)
    # A later window's gradient reaches this one through the state.
    onwards = sum(s.square().sum() for s in result.state)
    gradients = torch.autograd.grad(
        result.loss + onwards, list(model.parameters()), allow_unused=True
    )
    return [result.loss, result.bound, result.kl, *result.state, *gradients]


def assert_same(ours, theirs, tolerance=1e-9):
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [1, 4, T, 50])
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3)], ids=lambda o: o.name)
def test_a_training_step_is_the_same(any_model, objective, steps):
    batch = padded(any_model, objective.particles)
    whole = run(any_model, objective, None, batch)
    assert_same(run(any_model, objective, steps, batch), whole)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("options", "costs"),
    [
        ({"engine": "plain"}, {}),
        ({"posterior": "smoothing", "residual": True, "engine": "plain"}, {}),
        ({"posterior": "smoothing", "forecast": True}, {"forecast": 0.7}),
        ({}, {"free_bits": 0.4, "kl_start": 0.2, "kl_steps": 10}),
        ({}, {"free_bits": 0.2, "free_bits_per": "dimension"}),
    ],
)
def test_so_it_is_with_every_cost(make_model, options, costs):
    model = make_model(VRNN, **options)
    batch = padded(model)
    assert_same(run(model, ELBO(**costs), 4, batch), run(model, ELBO(**costs), None, batch))


@pytest.mark.usefixtures("float64")
def test_so_it_is_with_frozen_weights_and_a_gradient_for_the_start(make_model):
    model = make_model(VRNN, posterior="smoothing")
    model.decoder.requires_grad_(False)
    x, mask, state = padded(model)
    noise = torch.randn(T, 4, model.z_dim)
    wanted = [s.requires_grad_() for s in state] + [x.requires_grad_(), model.out.bias]
    found = []
    for steps in (None, 3):
        (log_p, kl), _ = by_segments(elbo_terms, model, x, mask, noise, steps, state)
        found.append(torch.autograd.grad((log_p - kl).sum(), wanted))
    assert_same(found[1][:2] + found[1][3:], found[0][:2] + found[0][3:])


def test_so_it_is_under_autocast(make_model):
    model = make_model(VRNN)
    batch = padded(model)
    exact = run(model, ELBO(), None, batch)
    with torch.autocast("cpu", torch.bfloat16):
        whole, parts = (run(model, ELBO(), steps, batch) for steps in (None, 4))
    assert not torch.equal(exact[0], whole[0])
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-4, atol=0)
    for part, other in zip(parts, whole, strict=True):
        assert (part - other).norm() <= 0.02 * other.norm()


def test_a_weight_changed_before_the_backward_pass_is_noticed(make_model):
    model = make_model(VRNN, checkpoint_steps=4)
    x, mask, state = padded(model)
    loss = ELBO()(model, x, mask, torch.Generator(), 0, state).loss
    with torch.no_grad():
        model.out.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("length", [1, 5, 30])
def test_scores_do_not_depend_on_the_segments(any_model, length, monkeypatch):
    x, mask, _ = padded(any_model)
    scores = []
    for steps in (100, length):
        monkeypatch.setattr("vrnn.evaluation.SEGMENT", steps)
        with torch.inference_mode():
            scores.append(score(any_model, x, mask, torch.arange(4), particles=3, seed=2))
    assert scores[0].keys() == scores[1].keys()
    assert_same(scores[1].values(), scores[0].values())


@pytest.mark.parametrize("objective", ["elbo", pytest.param("iwae", marks=pytest.mark.slow)])
def test_training_by_segments_ends_with_the_same_weights(objective, tmp_path):
    ends = []
    for steps in ("null", "7"):
        options = [f"model.checkpoint_steps={steps}", f"objective={objective}"]
        data, module = build(configure(tmp_path, *options, "model.posterior=smoothing"))
        trainer(tmp_path, max_steps=3).fit(module, data)
        ends.append(list(module.model.parameters()))
    assert_same(ends[1], ends[0], tolerance=1e-4)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_full_memory_is_answered_by_what_needs_less(where, tmp_path, monkeypatch):
    def fill(*args, **kwargs):
        torch.empty(2**60)  # What torch says where there is no such memory.

    data, module = build(configure(tmp_path, "objective=iwae", "objective.particles=3"))
    if where == "forward":
        monkeypatch.setattr(module.model, "trace", fill)
    else:
        monkeypatch.setattr(torch.Tensor, "backward", fill)
    with pytest.raises(
        ValueError,
        match=r"memory is full in a batch of 8 sequences and 40 steps, 3 particles of each: try "
        r"model.checkpoint_steps=6, which keeps activations of 15.0% of the steps, or "
        r"objective.particles below 3, or data.batch_size below 8, or data.max_steps below 40",
    ):
        trainer(tmp_path, max_steps=1).fit(module, data)


def test_other_errors_and_small_segments_are_told_as_they_are():
    shape = torch.Size([100, 4, 3])
    with pytest.raises(RuntimeError, match="no memory of it"), memory_told(shape, 1, None, True):
        raise RuntimeError("no memory of it")
    for steps, segments in ((10, True), (None, False)):
        with pytest.raises(ValueError, match="try data.batch_size below 4"):
            with memory_told(shape, 1, steps, segments):
                raise torch.OutOfMemoryError("CUDA out of memory.")


def test_segments_that_cannot_be_are_refused(make_model):
    for steps in (0, -3):
        with pytest.raises(
            ValueError, match=f"model.checkpoint_steps must be at least 1, not {steps}"
        ):
            make_model(VRNN, checkpoint_steps=steps)
    model = make_model(VRNN, checkpoint_steps=4)
    x, mask, _ = padded(model)
    with pytest.raises(ValueError, match="checkpoint_steps is for objective=elbo and"):
        FIVO(2)(model, x, mask, torch.Generator(), 0)


def test_the_second_run_is_under_the_first_ones_autocast(make_model):
    model = make_model(VRNN, checkpoint_steps=4)
    x, mask, state = padded(model)
    found = []
    for inside in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            loss = ELBO()(model, x, mask, torch.Generator().manual_seed(1), 5, state).loss
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    assert_same(*found, tolerance=0)
