"""What a model relies on in its recurrence, of LSTM, GRU and others that are like neither."""

import logging

import pytest
import torch
from support.densities import flat, generative, noise_that_draws
from support.own_recurrences import Echo, Elman

from callbacks.max_norm import MaxNorm, incoming
from runs.record import first_change
from vrnn import DMM, RNN, SRNN, STORN, VRNN, bounds
from vrnn.engine.unroll import tell, unroll_plain
from vrnn.layers.recurrences import RECURRENCES
from vrnn.layers.recurrent import Recurrence
from vrnn.layers.state import copies, joined, parted, top
from vrnn.models.base import SequenceModel
from vrnn.module import VRNNModule
from vrnn.moved import current
from vrnn.objectives import ELBO, FIVO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

KINDS = [
    (VRNN, {}),
    (VRNN, {"posterior": "smoothing"}),
    (RNN, {}),
    (SRNN, {}),
    (SRNN, {"posterior": "filtering"}),
    (STORN, {}),
    (STORN, {"posterior": "smoothing"}),
    (DMM, {}),
]
NAMES = ["lstm", "gru", "echo", "elman"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(RECURRENCES, "echo", Echo)
    monkeypatch.setitem(RECURRENCES, "elman", Elman)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0].__name__, *kind[1].values()]))
def model(request, name, make_model):
    kind, options = request.param
    return make_model(kind, rnn=name, **options)


def test_a_sequence_is_step_after_step(name):
    rnn = RECURRENCES[name]((3, 2), 4)
    x, state = torch.randn(6, 2, 5), rnn.initial(2)
    h, last = rnn.sequence(x, state)
    for h_t, x_t in zip(h, x, strict=True):
        state = rnn.step(x_t, state)
        torch.testing.assert_close(h_t, top(state))
    for one, other in zip(last, state, strict=True):
        torch.testing.assert_close(one, other)
    assert rnn.layout == [(len(s), s.shape[-1]) for s in state]
    for one, other in zip(parted(joined(state), rnn.layout), state, strict=True):
        assert torch.equal(one, other)


def test_every_recurrence_of_the_model_is_that_one(model, name):
    used = {type(part) for part in model.modules() if isinstance(part, Recurrence)}
    assert used == {RECURRENCES[name]}


def test_an_unknown_one_is_refused(make_model):
    for kind, options in KINDS:
        with pytest.raises(ValueError, match="model.rnn=jordan is not one of echo, elman, gru"):
            make_model(kind, rnn="jordan", **options)


@pytest.mark.parametrize("K", [1, 3])
def test_the_models_own_loop_is_the_plain_one(model, K):
    if isinstance(model, RNN):
        pytest.skip("has no latents to loop over")
    x, noise = torch.randn(5, 2, 3), torch.randn(5, 2 * K, 2)
    mask = torch.ones(5, 2, dtype=torch.bool)
    for state in (model.initial(2 * K), model.trace(x, noise=noise).state):
        # What particles have in common is computed of the first: that has to be the same of all.
        state = tuple(copies(part[:, :2], K) for part in state)
        phi_x, u = model.observe(x, mask, state)
        own, plain = (
            model.unroll(phi_x, u, state, noise),
            unroll_plain(model.cell, phi_x, u, state, noise),
        )
        for one, other in zip(own[:5], plain[:5], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        for one, other in zip(own.state, plain.state, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prime", [0, 3])
def test_generation_runs_the_densities_of_training(model, prime):
    T, B, Z = 5, 2, model.z_dim
    beginning = torch.randn(prime, B, 3) if prime else None
    torch.manual_seed(7)
    stream = model.stream(B, beginning)
    frames = [next(stream) for _ in range(T)]
    x, z = torch.stack([f.x for f in frames]), torch.stack([f.z for f in frames])
    if prime:
        torch.manual_seed(7)
        first = model.trace(beginning, noise=torch.randn(prime, B, Z) if Z else None)
        x, z = torch.cat([beginning, x]), torch.cat([first.z, z])
    with torch.no_grad():
        trace = model.trace(x, noise=noise_that_draws(model, x, z))
    generated = torch.stack(
        [torch.cat(([flat(f.prior)] if Z else []) + [flat(f.likelihood)], -1) for f in frames]
    )
    torch.testing.assert_close(generative(trace)[prime:], generated, rtol=0, atol=1e-9)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2), FIVO(2)])
def test_every_weight_learns(model, objective):
    if isinstance(objective, FIVO) and isinstance(model, RNN):
        pytest.skip("has no latents to filter")
    mask = torch.ones(6, 2, dtype=torch.bool)
    x, rng = torch.randn(6, 2, 3), torch.Generator().manual_seed(0)
    loss = objective(model, x, mask, rng, 0)
    loss.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    # The next window starts in the state that this one ended in.
    objective(model, x, mask, rng, 0, tuple(s.detach() for s in loss.state)).loss.backward()


def test_segments_give_the_same_gradient(name, make_model):
    for kind, options in KINDS:
        model = make_model(kind, rnn=name, **options)
        x, mask = torch.randn(7, 2, 3), torch.ones(7, 2, dtype=torch.bool)
        grads = []
        for steps in (None, 3):
            model.checkpoint_steps = steps
            loss = ELBO()(model, x, mask, torch.Generator().manual_seed(0), 0).loss
            grads.append(torch.autograd.grad(loss, list(model.parameters())))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"posterior": "smoothing"}])
def test_the_fast_loops_leave_others_to_the_plain_one_and_say_so(options, make_model, caplog):
    tell.cache_clear()
    fast = make_model(VRNN, rnn="echo", **options)
    plain = make_model(VRNN, rnn="echo", engine="plain", **options)
    plain.load_state_dict(fast.state_dict())
    x, noise, drawn = torch.randn(5, 2, 3), torch.randn(5, 2, 2), torch.randn(4, 2, 2)
    with caplog.at_level(logging.WARNING):
        values = [
            bounds.elbo(m.trace(x, noise=noise), x, mask=torch.ones(5, 2, dtype=bool))
            for m in (fast, plain, fast)
        ]
    for value in values:
        torch.testing.assert_close(value, values[0])
    assert [record.getMessage() for record in caplog.records] == [
        "The loop over time is autograd's, slower than the compiled one: it does not know Echo"
    ]
    ours = list(fast.frames(fast.initial(2), iter(drawn), 0.0))
    theirs = list(SequenceModel.frames(fast, fast.initial(2), iter(drawn), 0.0))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.params, other.params)
    fast.engine = "native"
    with pytest.raises(ValueError, match="native cannot run: it does not know Echo"):
        fast.trace(x)


def test_a_row_that_starts_anew_starts_where_the_recurrence_does():
    head = {"_target_": "vrnn.likelihoods.GaussianMixture", "x_dim": 3}
    sizes = {"x_dim": 3, "z_dim": 2, "hidden": 4, "rnn": "echo"}
    module = VRNNModule(
        {"_target_": "vrnn.VRNN", **sizes, "likelihood": head},
        {"_target_": "vrnn.objectives.ELBO"},
        {},
        {"shift": [0.0] * 3, "scale": [1.0] * 3, "kind": "real", "log_scales": {}},
    )
    begun = module.model.initial(4)
    module.carried = tuple(torch.randn(s.shape) for s in begun)
    goes_on = torch.tensor([True, False, True, False])
    batch = type("Batch", (), {"continues": goes_on})
    for now, old, first in zip(module.initial_state(batch), module.carried, begun, strict=True):
        assert torch.equal(now[:, goes_on], old[:, goes_on])
        assert torch.equal(now[:, ~goes_on], first[:, ~goes_on])


def test_max_norm_bounds_the_dense_layers_of_another_recurrence_or_refuses_it(make_model):
    model = make_model(VRNN, rnn="echo")
    read = model.cell.rnn.read
    with torch.no_grad():
        read.weight.mul_(100)
    before = read.weight.detach().clone()
    module = torch.nn.Module()
    module.model = model
    callback = MaxNorm(1.5)
    callback.on_fit_start(None, module)
    callback.on_train_batch_end(None, module, None, None, 0)
    both = (weight.split(read.parents, dim=1) for weight in (read.weight, before))
    parts = list(zip(*both, strict=True))
    assert len(parts) == 4
    for part, old in parts:
        assert old.norm(dim=1).min() > 1.5
        torch.testing.assert_close(part.norm(dim=1), torch.full((len(part),), 1.5))
    assert len(list(incoming(model.cell.rnn))) == 4
    for kind, options in KINDS:
        module.model = make_model(kind, rnn="elman", **options)
        with pytest.raises(ValueError, match="which matrices of Elman read its inputs"):
            callback.on_fit_start(None, module)


def test_runs_from_before_there_was_the_option_go_on():
    for kind in ("SRNN", "STORN", "DMM"):
        before = {"model": {"_target_": f"vrnn.{kind}", "hidden": 3}}
        now = {"model": {"_target_": f"vrnn.{kind}", "hidden": 3, "rnn": "gru"}}
        assert first_change(before, now, ()) is None
        now["model"]["rnn"] = "lstm"
        assert first_change(before, now, ()) == ("model.rnn", "gru", "lstm")
    old = {"_target_": "vrnn.srnn.SRNN", "likelihood": {"_target_": "vrnn.dmm.DMM"}}
    assert current(old) == {
        "_target_": "vrnn.models.srnn.SRNN",
        "rnn": "gru",
        "latents": "inferred",
        "likelihood": {"_target_": "vrnn.models.dmm.DMM", "rnn": "gru", "latents": "inferred"},
    }
    assert current({"_target_": "vrnn.RNN", "hidden": 3}) == {"_target_": "vrnn.RNN", "hidden": 3}


def test_a_misspelt_argument_is_one_sentence(make_model):
    for kind, _ in KINDS:
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'droput'") as told:
            make_model(kind, droput=0.1)
        assert "\n" not in str(told.value)
