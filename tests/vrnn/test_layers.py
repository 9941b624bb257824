"""Initial weights, and the recurrences against torch's own cells."""

import math

import pytest
import torch
from torch import nn

from vrnn import VRNN
from vrnn.layers.feedforward import GaussianNet, StandardNormal, positive
from vrnn.layers.recurrent import GRU, LSTM
from vrnn.layers.state import top
from vrnn.likelihoods import PenMixture

pytestmark = pytest.mark.usefixtures("float64")

CELLS = [(LSTM, nn.LSTMCell), (GRU, nn.GRUCell)]
SIGMA_0 = math.log1p(math.exp(0.6)) + 1e-4


def random_state(recurrence, batch):
    return tuple(torch.randn_like(s) for s in recurrence.initial(batch))


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)


def torch_cells(recurrence, cell_type):
    """torch's cells with the same weights and a second bias of zero."""
    cells = []
    for w, u, b in zip(
        recurrence.input_weights, recurrence.hidden_weights, recurrence.biases, strict=True
    ):
        cell = cell_type(w.shape[1], recurrence.hidden)
        values = {"weight_ih": w, "weight_hh": u, "bias_ih": b, "bias_hh": torch.zeros_like(b)}
        cell.load_state_dict({name: value.detach() for name, value in values.items()})
        cells.append(cell)
    return cells


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_initial_weights_are_those_of_the_original_code(rnn):
    model = VRNN(
        3, 10, 40, PenMixture(), posterior="smoothing", rnn=rnn, rnn_layers=2, mlp_layers=2
    )
    recurrent, sigma_biases = 0, 0
    for name, value in model.named_parameters():
        if "hidden_weights" in name:
            for block in value.split(40):
                torch.testing.assert_close(block @ block.T, torch.eye(40))
                recurrent += 1
        elif value.ndim == 2:
            assert 0.075 < value.abs().max() <= 0.08, name
            if value.numel() > 1000:
                assert value.std().item() == pytest.approx(0.16 / 12**0.5, rel=0.05), name
        else:
            # Zero, the forget gate's included, but for those of sigma.
            assert set(value.tolist()) <= {0.0, 0.6}, name
            sigma_biases += int((value == 0.6).sum())
    assert recurrent == 3 * (4 if rnn == "lstm" else 3)
    assert sigma_biases == 2 * 10 + 20 * 2


def test_every_recurrence_has_one_bias_vector_a_layer():
    count = sum(p.numel() for p in LSTM(5, 7, 2).parameters())
    assert count == 4 * 7 * (5 + 7 + 1) + 4 * 7 * (7 + 7 + 1)
    count = sum(p.numel() for p in GRU(5, 7).parameters())
    assert count == 3 * 7 * (5 + 7 + 1)


def test_sigma_starts_at_1_0375_and_never_falls_below_its_floor():
    mean, std = GaussianNet(4, 6, 2, 3)(torch.zeros(5, 2, 4))
    torch.testing.assert_close(mean, torch.zeros(5, 2, 3), rtol=0, atol=0)
    torch.testing.assert_close(std, torch.full((5, 2, 3), SIGMA_0))
    assert pytest.approx(1.0375, abs=1e-4) == SIGMA_0

    a = torch.tensor([-1e4, -50.0, 0.0, 1e4], requires_grad=True)
    sigma = positive(a)
    sigma.sum().backward()
    expected = torch.tensor([1e-4, 1e-4, math.log(2) + 1e-4, 1e4 + 1e-4])
    torch.testing.assert_close(sigma, expected)
    assert a.grad.isfinite().all()


def test_densities_are_kept_in_float32_when_products_are_in_half_precision():
    net = GaussianNet(4, 6, 1, 3).to(torch.bfloat16)
    outputs = (*net(torch.randn(2, 4, dtype=torch.bfloat16)), positive(torch.ones(2).half()))
    assert {value.dtype for value in outputs} == {torch.float32}
    mean, std = StandardNormal(3)(torch.ones(4, 2, 5, dtype=torch.bfloat16))
    assert mean.shape == std.shape == (4, 2, 3) and mean.dtype == torch.float32
    assert (mean == 0).all() and (std == 1).all()


@pytest.mark.parametrize(("ours", "theirs"), CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_equals_torchs_cells(ours, theirs, layers):
    recurrence = ours(5, 7, layers)
    randomise(recurrence)
    x, state = torch.randn(3, 5), random_state(recurrence, 3)
    stepped = recurrence.step(x, state)

    inputs, h = x, None
    for layer, cell in enumerate(torch_cells(recurrence, theirs)):
        before = tuple(part[layer] for part in state)
        after = cell(inputs, before if theirs is nn.LSTMCell else before[0])
        after = after if isinstance(after, tuple) else (after,)
        for part, expected in zip(stepped, after, strict=True):
            torch.testing.assert_close(part[layer], expected, rtol=0, atol=1e-13)
        inputs = h = after[0]
    torch.testing.assert_close(top(stepped), h, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ours", [LSTM, GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_sequence_equals_stepping_values_and_gradients(ours, layers):
    recurrence = ours(5, 7, layers)
    randomise(recurrence)
    x, start = torch.randn(6, 3, 5, requires_grad=True), random_state(recurrence, 3)
    weights = torch.randn(6, 3, 7)

    state, outputs = start, []
    for frame in x:
        state = recurrence.step(frame, state)
        outputs.append(top(state))
    stepped = torch.stack(outputs)
    fused, last = recurrence.sequence(x, start)

    torch.testing.assert_close(fused, stepped, rtol=0, atol=1e-13)
    for part, expected in zip(last, state, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-13)
    at = [x, *recurrence.parameters()]
    for gradient, expected in zip(
        torch.autograd.grad((weights * fused).sum(), at),
        torch.autograd.grad((weights * stepped).sum(), at),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
