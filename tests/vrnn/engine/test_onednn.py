"""A dense layer by oneDNN gives what torch gives."""

import pytest
import torch
import torch.nn.functional as F

from vrnn import VRNN
from vrnn.bounds import elbo
from vrnn.layers import onednn as dense
from vrnn.likelihoods import GaussianMixture


@pytest.fixture
def onednn(monkeypatch):
    """It multiplies, whatever the processor and however small the product."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(dense, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(dense, "WORTHWHILE", 0)


CASES = {
    "steps and sequences": lambda x, w, b: (x, w, b),
    "one row": lambda x, w, b: (x[0, 0], w, b),
    "without a bias": lambda x, w, b: (x, w, None),
    "some columns": lambda x, w, b: (x[..., 2:5], w[:, 3:6], b),
    "a transposed weight": lambda x, w, b: (x[..., :6], w.t()[:, :6], b[:7]),
    "steps and sequences exchanged": lambda x, w, b: (x.transpose(0, 1), w, b),
    "one sequence for all": lambda x, w, b: (x[:, :1].expand(-1, 9, -1), w, b),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_torch(case, onednn):
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((4, 5, 7), (6, 7), (6,))]
    if case == "a transposed weight":
        leaves[2] = torch.randn(7, requires_grad=True)

    def derivatives(layer, leaves):
        """y, its gradients in one direction and their gradients."""
        x, weight, bias = CASES[case](*leaves)
        wanted = leaves if bias is not None else leaves[:2]
        y = layer(x, weight, bias)
        first = torch.autograd.grad(y.pow(3).mean(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), wanted)
        return y, *first, *second

    ours = derivatives(dense.linear, leaves)
    exact = derivatives(F.linear, [leaf.detach().double().requires_grad_() for leaf in leaves])
    assert "OneDNN" in type(ours[0].grad_fn).__name__
    for value, wanted in zip(ours, exact, strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-4)


def test_only_what_wants_a_gradient_gets_one(onednn):
    x, weight, bias = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True), torch.randn(5)
    dense.linear(x, weight, bias).sum().backward()
    assert weight.grad is not None and x.grad is None and bias.grad is None


def test_other_precisions_and_narrow_products_are_left_to_torch(onednn, monkeypatch):
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    assert dense.suits(x, weight)
    assert not dense.suits(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not dense.suits(x, weight)
        assert dense.linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(dense, "WORTHWHILE", 61)
    assert not dense.suits(x, weight)


def test_a_model_has_the_same_loss_and_gradients(onednn, monkeypatch):
    model = VRNN(x_dim=3, z_dim=2, hidden=8, likelihood=GaussianMixture(3, 2), mlp_layers=2)
    x, noise, mask = torch.randn(6, 4, 3), torch.randn(6, 4, 2), torch.ones(6, 4, dtype=torch.bool)

    def loss_and_gradients():
        loss = -elbo(model.trace(x, noise=noise), x, mask).mean()
        return loss, *torch.autograd.grad(loss, tuple(model.parameters()))

    ours = loss_and_gradients()
    monkeypatch.setattr(dense, "mkl_is_slow", lambda: False)
    torch.testing.assert_close(ours, loss_and_gradients(), rtol=1e-4, atol=1e-5)
