"""The loop over time in mixed precision: what it rounds, and what it says where it cannot."""

import statistics

import pytest
import torch
from support.loops import H, Z, make_cell, make_inputs, median_error, values_and_gradients

from vrnn.cell import VRNNCell
from vrnn.engine import native
from vrnn.engine.cell_tape import unroll_fused
from vrnn.engine.tape import Tape
from vrnn.engine.unroll import tell, unroll_fast, unroll_native, unroll_plain
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import GRU, LSTM

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=["compiled", "python"])
def half(request, monkeypatch):
    """Mixed precision as on a CPU that multiplies so, or by torch's operations as on a GPU."""
    if request.param == "python":
        monkeypatch.setattr(native, "TYPES", {})
    elif not native.serves(torch.device("cpu"), torch.float32, torch.bfloat16):
        pytest.skip("no products in bfloat16")


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_in_mixed_precision_it_is_as_exact_as_the_plain_loop(recurrence, layers, residual):
    ours, plain = [], []
    for seed in range(5):
        torch.manual_seed(seed)
        prior = GaussianNet(H, 4, 1, Z) if residual else None
        cell = make_cell(recurrence, layers, depth=2, prior=prior)
        inputs = make_inputs(cell)
        exact = values_and_gradients(unroll_plain, cell, inputs)
        ours.append(median_error(unroll_fused, cell, inputs, exact))
        plain.append(median_error(unroll_plain, cell, inputs, exact))
    assert 1e-3 < statistics.median(ours) < 1.25 * statistics.median(plain)


@pytest.mark.parametrize("hidden", [7, 900], ids=["rows", "columns"])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_compiled_products_round_to_bfloat16_and_sum_in_float32(
    recurrence, hidden, monkeypatch, two_threads
):
    """Two threads share the rows, or of wide layers the columns. The loop in Python rounds the
    same factors; it differs where a last bit makes one of them round the other way."""
    if not native.serves(torch.device("cpu"), torch.float32, torch.bfloat16):
        pytest.skip("no products in bfloat16")
    torch.set_default_dtype(torch.float32)
    encoder = GaussianNet(30 + hidden, 33, 2, 5)
    cell = VRNNCell(StandardNormal(5), encoder, MLP(5, 65, 2), recurrence(95, hidden))
    phi_x, noise = (torch.randn(3, 21, width) for width in (30, 5))
    state = tuple(torch.randn(1, 21, hidden) for _ in range(cell.rnn.tensors))
    inputs = [x.requires_grad_() for x in (phi_x, noise, *state)]
    inputs = phi_x, phi_x, tuple(inputs[2:]), noise

    def both(unroll):
        with torch.autocast("cpu", torch.bfloat16):
            values, gradients = values_and_gradients(unroll, cell, inputs)
        return [*values, *gradients]

    ours, exact = both(unroll_native), values_and_gradients(unroll_plain, cell, inputs)
    monkeypatch.setattr(Tape, "program", lambda self, backward: None)
    for one, other, far in zip(ours, both(unroll_fused), [*exact[0], *exact[1]], strict=True):
        if torch.equal(other, other.bfloat16().float()):
            continue  # autograd has rounded this gradient once more, outside the loop
        error = (one - other).norm() / other.norm()
        # One of seven products not rounded would differ by a third of what all of it changes.
        assert error < (one - far).norm() / far.norm() / 4


def test_where_the_compiled_loop_does_not_serve_one_line_says_why(monkeypatch, caplog):
    monkeypatch.setattr(native, "serves", lambda *kinds: False)
    tell.cache_clear()
    cell = make_cell(LSTM).float()
    phi_x, _, state, noise = make_inputs(cell)
    state = tuple(s.float() for s in state)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            unroll_fast(cell, phi_x.bfloat16(), phi_x.bfloat16(), state, noise.float())
    (record,) = caplog.records
    assert "AMX or AVX512-BF16 and a C++ compiler" in record.message
