"""The loop launched as recorded graphs, on a CPU by a stand-in for CUDA's."""

import logging
from contextlib import contextmanager, nullcontext

import pytest
import torch
from support.loops import (
    X,
    assert_close,
    flat,
    make_cell,
    particle_inputs,
    unroll_copies,
    values_and_gradients,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vrnn.engine import cuda_graphs as graphs
from vrnn.engine import operations as fused
from vrnn.engine import pointwise, unroll
from vrnn.engine.cell_tape import unroll_fused
from vrnn.engine.cuda_graphs import unroll_graph
from vrnn.engine.tape import Tape
from vrnn.engine.unroll import unroll_fast, unroll_plain, unroll_recorded
from vrnn.layers.feedforward import GaussianNet
from vrnn.layers.recurrent import GRU, LSTM

pytestmark = pytest.mark.usefixtures("float64")


class Recorded(TorchDispatchMode):
    """As torch.cuda.CUDAGraph: a replay repeats the operations on the memory they had."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, result in self.calls:
                new = function(*args, **kwargs)
                for old, value in zip(tree_leaves(result), tree_leaves(new), strict=True):
                    if torch.is_tensor(old) and old.data_ptr() != value.data_ptr():
                        old.data.copy_(value)  # unseen by autograd, as what a graph does


class Stream:
    def wait_stream(self, other):
        """There is but one."""


@contextmanager
def graph(recorded, capture_error_mode):
    """As torch.cuda.graph, in which, too, nothing is computed that a replay would not."""
    with recorded:
        yield


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(graphs, "STEPS", 3)
    monkeypatch.setattr(Tape, "on_gpu", True)
    # The compiled loop does not go through torch's dispatcher, which is what is recorded here.
    monkeypatch.setattr("vrnn.engine.native.TYPES", {})


def make_inputs(cell, steps, u=X, batch=3):
    shapes = (X, u, cell.prior.outputs if hasattr(cell.prior, "outputs") else 2)
    phi_x, other, noise = (torch.randn(steps, batch, n, requires_grad=True) for n in shapes)
    state = tuple(
        torch.randn(cell.rnn.layers, batch, cell.rnn.hidden, requires_grad=True)
        for _ in range(cell.rnn.tensors)
    )
    return phi_x, phi_x if u == X else other, state, noise


@pytest.mark.parametrize("steps", [2, 3, 9, 11])
@pytest.mark.parametrize("u", [X, 9], ids=["filtering", "smoothing"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_values_and_gradients_are_those_of_the_plain_loop(recurrence, layers, u, steps):
    cell = make_cell(recurrence, layers, 2, u, prior=GaussianNet(6, 5, 1, 2))
    for _ in range(2):  # once recorded and once only replayed
        inputs = make_inputs(cell, steps, u)
        ours = values_and_gradients(unroll_graph, cell, inputs)
        plain = values_and_gradients(unroll_plain, cell, inputs)
        assert_close(ours[0], plain[0])
        assert_close(ours[1], plain[1])
    assert len(graphs.stretches.get(cell, ())) == (1 if steps >= 3 else 0)


def test_particles_share_what_is_given():
    cell = make_cell(LSTM, u=9)
    for _ in range(2):
        inputs = particle_inputs(cell, 7, 2, K=3)
        ours = values_and_gradients(unroll_graph, cell, inputs)
        copied = values_and_gradients(unroll_copies, cell, inputs)
        assert_close(ours[0], copied[0])
        assert_close(ours[1], copied[1])


def halved(inputs):
    """As they come to the loop in mixed precision."""
    phi_x, _, state, noise = inputs
    phi_x = phi_x.bfloat16()
    return phi_x, phi_x, tuple(s.float() for s in state), noise.float()


def mixed(unroll, cell, inputs):
    with torch.autocast("cpu", torch.bfloat16):
        return values_and_gradients(unroll, cell, inputs)


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_in_mixed_precision_it_repeats_what_a_call_computes(recurrence):
    cell = make_cell(recurrence, 2, prior=GaussianNet(6, 5, 1, 2)).float()
    for _ in range(2):  # once recorded and once only replayed
        inputs = halved(make_inputs(cell, 3))
        for ours, called in zip(
            mixed(unroll_graph, cell, inputs), mixed(unroll_fused, cell, inputs), strict=True
        ):
            assert [x.dtype for x in ours] == [x.dtype for x in called]
            assert all(torch.equal(x, y) for x, y in zip(ours, called, strict=True))
    phi_x, _, state, noise = inputs
    unroll_graph(cell, phi_x.float(), phi_x.float(), state, noise)
    assert len(graphs.stretches[cell]) == 2, "one for each precision"


def test_a_replay_sees_the_weights_as_they_are_now():
    cell = make_cell(LSTM)
    optimizer = torch.optim.SGD(cell.parameters(), 0.1)
    for _ in range(3):
        inputs = make_inputs(cell, 6)
        values, gradients = values_and_gradients(unroll_graph, cell, inputs)
        plain_values, plain_gradients = values_and_gradients(unroll_plain, cell, inputs)
        assert_close(values, plain_values)
        assert_close(gradients, plain_gradients)
        for p, g in zip(
            cell.parameters(), gradients[-len(list(cell.parameters())) :], strict=True
        ):
            p.grad = g
        optimizer.step()
    assert len(graphs.stretches[cell]) == 1


def test_weights_that_have_moved_are_recorded_anew():
    cell = make_cell(LSTM)
    inputs = make_inputs(cell, 3)
    unroll_graph(cell, *inputs)
    cell.rnn.biases[0] = torch.nn.Parameter(torch.randn_like(cell.rnn.biases[0]))
    assert_close(flat(unroll_graph(cell, *inputs)), flat(unroll_plain(cell, *inputs)))


def test_a_weight_changed_before_the_gradient_is_refused():
    cell = make_cell(LSTM)
    loss = unroll_graph(cell, *make_inputs(cell, 6)).z.sum()
    with torch.no_grad():
        cell.rnn.biases[0] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_two_losses_at_once_do_not_disturb_each_other():
    cell = make_cell(LSTM)
    both = [make_inputs(cell, 6) for _ in range(2)]
    sums = [unroll_graph(cell, *inputs).h.sum() for inputs in both]
    for inputs, total in zip(both, sums, strict=True):
        (ours,) = torch.autograd.grad(total, inputs[0])
        (plain,) = torch.autograd.grad(unroll_plain(cell, *inputs).h.sum(), inputs[0])
        assert_close([ours], [plain])


def test_without_gradients_only_what_is_returned_is_kept():
    cell = make_cell(LSTM, depth=3)
    inputs = make_inputs(cell, 6)
    with torch.no_grad():
        assert_close(flat(unroll_graph(cell, *inputs)), flat(unroll_plain(cell, *inputs)))
    (stretch,) = graphs.stretches[cell].values()
    assert not stretch.keep and any(s.values.stride(0) == 0 for s in stretch.tape.slots)


def test_what_was_recorded_in_inference_mode_serves_outside_of_it():
    cell = make_cell(LSTM)
    inputs = make_inputs(cell, 6)
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            assert_close(flat(unroll_graph(cell, *inputs)), flat(unroll_plain(cell, *inputs)))
    assert len(graphs.stretches[cell]) == 1


def test_a_cell_keeps_a_limited_number_of_stretches():
    cell = make_cell(LSTM)
    for batch in range(1, graphs.KEPT + 3):
        inputs = make_inputs(cell, 3, batch=batch)
        assert_close(flat(unroll_graph(cell, *inputs)), flat(unroll_plain(cell, *inputs)))
    assert len(graphs.stretches[cell]) == graphs.KEPT


@pytest.fixture
def on_a_gpu(monkeypatch):
    def reason_against(device, cell, phi_x):
        return None if device == "cuda" else "it is not on a CPU"

    monkeypatch.setattr(unroll, "reason_against", reason_against)
    monkeypatch.setattr(unroll, "tell", lambda reason: None)


def test_a_gpu_that_cannot_record_does_without_and_one_line_says_so(on_a_gpu, monkeypatch, caplog):
    @contextmanager
    def graph(recorded, capture_error_mode):
        raise RuntimeError("CUDA error: operation not permitted\nmore of it")
        yield

    monkeypatch.setattr(torch.cuda, "graph", graph)
    cell = make_cell(LSTM)
    inputs = make_inputs(cell, 6)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert_close(flat(unroll_fast(cell, *inputs)), flat(unroll_plain(cell, *inputs)))
    (line,) = caplog.records
    assert "in parts" in line.message and line.message.endswith("operation not permitted")
    with pytest.raises(ValueError, match="engine=graph cannot run: CUDA error: operation not"):
        unroll_recorded(cell, *inputs)


def test_a_recording_that_gives_other_values_is_not_used(on_a_gpu, monkeypatch, caplog):
    def replay(recorded):
        for *_, result in recorded.calls:
            if torch.is_tensor(result):
                result.data.fill_(7.0)

    monkeypatch.setattr(Recorded, "replay", replay)
    cell = make_cell(LSTM)
    inputs = make_inputs(cell, 6)
    assert_close(flat(unroll_fast(cell, *inputs)), flat(unroll_plain(cell, *inputs)))
    assert "it gave other values" in caplog.text


def test_the_engine_for_a_gpu_says_where_it_cannot_run():
    cell = make_cell(LSTM)
    with pytest.raises(ValueError, match="engine=graph cannot run: it runs on a GPU, not on cpu"):
        unroll_recorded(cell, *make_inputs(cell, 3))


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_what_torch_compiles_for_a_gpu_computes_the_same(recurrence, precision, monkeypatch):
    """With all of torch.compile but the making of kernels, which takes minutes on a CPU."""
    cell = make_cell(recurrence)
    inputs, both, tolerance = make_inputs(cell, 4), values_and_gradients, 1e-9
    if precision == "bf16-mixed":
        cell.float()
        inputs, both, tolerance = halved(inputs), mixed, 2e-2
    expected = both(unroll_fused, cell, inputs)

    def compiled(function):
        return torch.compile(function.__wrapped__, backend="aot_eager", fullgraph=True)

    for name in ("sample", "lstm", "gru"):
        for each in (name, f"{name}_backward"):
            monkeypatch.setattr(fused, each, compiled(getattr(pointwise, each)))
    for ours, called in zip(both(unroll_fused, cell, inputs), expected, strict=True):
        for x, y in zip(ours, called, strict=True):
            torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)
