"""The fast loops give the values and the gradients of the plain one."""

import gc
import logging
import multiprocessing
import weakref

import pytest
import torch
from support.loops import (
    B,
    H,
    T,
    X,
    Z,
    assert_as_plain,
    assert_close,
    flat,
    make_cell,
    make_inputs,
    particle_inputs,
    unroll_copies,
    values_and_gradients,
)

from vrnn import VRNN
from vrnn.bounds import elbo
from vrnn.cell import VRNNCell
from vrnn.engine import native
from vrnn.engine.cell_tape import unroll_fused
from vrnn.engine.unroll import unroll_fast, unroll_native, unroll_plain, unroll_split
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import GRU, LSTM
from vrnn.likelihoods import GaussianMixture

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("unroll", [unroll_fused, unroll_split])
@pytest.mark.parametrize("u", [X, 9], ids=["filtering", "smoothing"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_values_and_gradients_are_those_of_the_plain_loop(recurrence, layers, depth, u, unroll):
    cell = make_cell(recurrence, layers, depth, u)
    assert_as_plain(unroll, cell, make_inputs(cell, u))


@pytest.mark.parametrize("unroll", [unroll_fused, unroll_split])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
@pytest.mark.parametrize("prior_depth", [0, 1, 2])
def test_a_residual_mean_is_that_of_the_plain_loop(prior_depth, recurrence, unroll):
    prior = GaussianNet(H, 4, prior_depth, Z) if prior_depth else StandardNormal(Z)
    cell = make_cell(recurrence, layers=2, u=9, prior=prior)
    assert_as_plain(unroll, cell, make_inputs(cell, 9))


@pytest.mark.parametrize("unroll", [unroll_fused, unroll_split, unroll_plain])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_particles_share_what_is_given(recurrence, layers, unroll):
    cell = make_cell(recurrence, layers, depth=2, u=9)
    assert_as_plain(unroll, cell, particle_inputs(cell, T, B, K=3), unroll_copies)


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_gradients_are_those_of_finite_differences(recurrence):
    cell = make_cell(recurrence, layers=2, depth=2, u=9)
    phi_x, u, state, noise = make_inputs(cell, 9)

    def function(phi_x, u, *state):
        return flat(unroll_fused(cell, phi_x[:2], u[:2], state, noise[:2]))

    assert torch.autograd.gradcheck(function, (phi_x, u, *state))


def test_two_losses_may_share_one_loop():
    cell = make_cell(LSTM)
    inputs = make_inputs(cell)
    ours, plain = unroll_fused(cell, *inputs), unroll_plain(cell, *inputs)
    for name in ("z", "h"):
        one, other = (
            torch.autograd.grad(
                getattr(unrolled, name).sum(), list(cell.rnn.parameters()), retain_graph=True
            )
            for unrolled in (ours, plain)
        )
        assert_close(one, other)


def test_a_weight_changed_before_the_backward_pass_is_noticed():
    cell = make_cell(GRU)
    loss = unroll_fused(cell, *make_inputs(cell)).z.sum()
    with torch.no_grad():
        cell.encoder.out.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_is_freed_with_the_graph(batch):
    cell = make_cell(LSTM)
    phi_x, u, state, noise = make_inputs(cell)
    state = tuple(s[:, :batch] for s in state)
    gc.disable()
    try:
        z = unroll_fused(cell, phi_x[:, :batch], u[:, :batch], state, noise[:, :batch]).z
        z.sum().backward()
        node = weakref.ref(z.grad_fn)
        del z
        assert node() is None
    finally:
        gc.enable()


def test_frozen_weights_need_no_gradient():
    cell = make_cell(LSTM).requires_grad_(False)
    cell.rnn.biases[0].requires_grad_()
    phi_x, u, state, noise = (
        [s.detach() for s in x] if isinstance(x, tuple) else x.detach() for x in make_inputs(cell)
    )
    unroll_fused(cell, phi_x, u, tuple(state), noise).h.sum().backward()
    assert cell.rnn.biases[0].grad.abs().sum() > 0
    assert cell.encoder.out.weight.grad is None


def test_under_autocast_it_follows_the_plain_loop():
    cell = make_cell(LSTM, depth=2).float()
    phi_x, u, state, noise = make_inputs(cell)
    inputs = (phi_x.float(), u.float(), tuple(s.float() for s in state), noise.float())
    exact = unroll_plain(cell, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        fast = unroll_fast(cell, *inputs)
    fast.z.sum().backward()
    assert fast.mean.dtype == fast.z.dtype == torch.float32
    torch.testing.assert_close(fast.z, exact.z, rtol=0.05, atol=0.1)
    assert not torch.equal(fast.z, exact.z)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A machine without a compiler, where nothing has been compiled before."""
    monkeypatch.setenv("VRNN_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.library.cache_clear()
    yield
    native.library.cache_clear()


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_the_compiled_loop_gives_what_the_one_in_python_gives(
    recurrence, batch, monkeypatch, two_threads
):
    """Two threads share the rows where there are enough."""
    cell = make_cell(recurrence, layers=2, depth=2, prior=GaussianNet(H, 4, 1, Z))
    phi_x, noise = (torch.randn(T, batch, width, requires_grad=True) for width in (X, Z))
    state = tuple(torch.randn(2, batch, H, requires_grad=True) for _ in range(cell.rnn.tensors))
    inputs = phi_x, phi_x, state, noise
    values, gradients = values_and_gradients(unroll_native, cell, inputs)
    monkeypatch.setattr(native, "library", lambda: None)
    python_values, python_gradients = values_and_gradients(unroll_fused, cell, inputs)
    assert_close([*values, *gradients], [*python_values, *python_gradients])


def test_two_threads_share_the_columns_of_wide_layers(two_threads):
    cell = VRNNCell(
        StandardNormal(5), GaussianNet(30 + 400, 33, 2, 5), MLP(5, 300, 2), LSTM(330, 400)
    )
    phi_x, noise = (torch.randn(2, 9, width, requires_grad=True) for width in (30, 5))
    state = tuple(torch.randn(1, 9, 400, requires_grad=True) for _ in range(2))
    inputs = phi_x, phi_x, state, noise
    values, gradients = values_and_gradients(unroll_native, cell, inputs)
    plain_values, plain_gradients = values_and_gradients(unroll_plain, cell, inputs)
    assert_close([*values, *gradients], [*plain_values, *plain_gradients])


@pytest.mark.parametrize("make", [unroll_native, unroll_fused])
def test_gates_far_from_zero_give_finite_gradients(make):
    cell = make_cell(LSTM).float()
    with torch.no_grad():
        cell.rnn.biases[0].copy_(torch.tensor([200.0, -200.0] * 2 * H))
        cell.encoder.out.bias.copy_(torch.tensor([0.0, 0.0, 200.0, -200.0]))
    inputs = [x.float() if isinstance(x, torch.Tensor) else x for x in make_inputs(cell)]
    inputs[2] = tuple(x.float() for x in inputs[2])
    inputs[1] = inputs[0]
    values, gradients = values_and_gradients(make, cell, inputs)
    plain_values, plain_gradients = values_and_gradients(unroll_plain, cell, inputs)
    for one, other in zip([*values, *gradients], [*plain_values, *plain_gradients], strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_python_runs_the_loop_and_one_line_says_so(no_compiler, caplog):
    cell = make_cell(LSTM)
    inputs = make_inputs(cell)
    with caplog.at_level(logging.INFO):
        values = [unroll_fast(cell, *inputs).z for _ in range(2)]
    assert_close(values, [unroll_plain(cell, *inputs).z] * 2)
    (record,) = caplog.records
    assert "loop over time runs in Python" in record.message
    assert "no-such-compiler" in record.message and "\n" not in record.message


def test_a_source_that_does_not_compile_is_told_in_one_line(no_compiler, monkeypatch, tmp_path):
    source = tmp_path / "loop.cpp"
    source.write_text("this is no C++;")
    monkeypatch.setattr(native, "SOURCE", source)
    monkeypatch.delenv("CXX")
    with pytest.raises(native.subprocess.CalledProcessError) as caught:
        native.build()
    assert "error:" in native.reason(caught.value) and "\n" not in native.reason(caught.value)
    assert list(tmp_path.iterdir()) == [source], "nothing half-made is left"


def test_the_compiler_may_come_with_options(no_compiler, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -pipe")
    with pytest.raises(FileNotFoundError) as caught:
        native.build()
    assert caught.value.filename == "no-such-compiler"


def test_an_engine_asked_for_by_name_fails_where_it_cannot_run(no_compiler):
    cell = make_cell(LSTM)
    phi_x, u, state, noise = make_inputs(cell)
    with pytest.raises(ValueError, match=r"model.engine=native cannot run: it could not be com"):
        unroll_native(cell, phi_x, u, state, noise)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match="needs a processor with AMX or AVX512-BF16"),
    ):
        unroll_native(cell, phi_x, u, state, noise)
    with pytest.raises(ValueError, match="it does not compute in bfloat16"):
        unroll_native(cell.bfloat16(), phi_x.bfloat16(), u, state, noise)


@pytest.mark.slow
def test_processes_may_compile_at_the_same_time(monkeypatch, tmp_path):
    monkeypatch.setenv("VRNN_CACHE", str(tmp_path / "cache"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        files = pool.starmap(native.build, [(), ()])
    assert files[0] == files[1] and list(files[0].parent.iterdir()) == [files[0]]


def test_training_curves_of_two_engines_lie_on_each_other():
    losses = {}
    for engine in ("native", "plain"):
        torch.manual_seed(0)
        likelihood = GaussianMixture(3, 2)
        model = VRNN(3, 2, 8, likelihood, mlp_layers=2, engine=engine)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        x = torch.randn(20, 8, 3).cumsum(0) / 4
        mask = torch.ones(20, 8, dtype=torch.bool)
        losses[engine] = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = -elbo(model.trace(x), x, mask).mean()
            loss.backward()
            optimizer.step()
            losses[engine].append(loss.item())
    assert losses["native"][-1] < losses["native"][0] - 5
    assert losses["native"] == pytest.approx(losses["plain"], rel=1e-7)
