"""On a GPU, where there is one: the loop recorded or as one kernel, and training with it."""

import pytest
import torch
from support.loops import H, X, Z, assert_close, make_cell, values_and_gradients

from vrnn import VRNN
from vrnn.bounds import elbo
from vrnn.cell import VRNNCell
from vrnn.engine.cuda_graphs import STEPS
from vrnn.engine.unroll import unroll_fast, unroll_persistent, unroll_plain, unroll_recorded
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import GRU, LSTM
from vrnn.likelihoods import GaussianMixture
from vrnn.noise import sequence_noise, sequence_uniform

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [STEPS - 1, STEPS, 2 * STEPS + 3])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_values_and_gradients_are_those_of_the_plain_loop(recurrence, steps):
    cell = make_cell(recurrence, depth=2).cuda()
    for _ in range(2):  # once recorded and once only replayed
        phi_x, noise = (torch.randn(steps, 3, n, device="cuda") for n in (X, Z))
        state = tuple(torch.randn(1, 3, H, device="cuda") for _ in range(cell.rnn.tensors))
        inputs = phi_x.requires_grad_(), phi_x, tuple(s.requires_grad_() for s in state), noise
        noise.requires_grad_()
        values, gradients = values_and_gradients(unroll_plain, cell, inputs)
        for unroll in (unroll_recorded, unroll_persistent, unroll_fast):
            ours, ours_gradients = values_and_gradients(unroll, cell, inputs)
            assert_close(ours, values)
            assert_close(ours_gradients, gradients)


@pytest.mark.parametrize("unroll", [unroll_recorded, unroll_persistent])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_in_mixed_precision_the_loop_follows_the_plain_one(recurrence, unroll):
    torch.manual_seed(0)
    cell = make_cell(recurrence, depth=2).float().cuda()
    phi_x, noise = (torch.randn(2 * STEPS + 3, 3, n, device="cuda") for n in (X, Z))
    state = tuple(torch.randn(1, 3, H, device="cuda") for _ in range(cell.rnn.tensors))
    exact = unroll_plain(cell, phi_x, phi_x, state, noise)
    with torch.autocast("cuda", torch.bfloat16):
        ours = unroll(cell, phi_x.bfloat16(), phi_x.bfloat16(), state, noise)
    assert ours.z.dtype == ours.h.dtype == torch.float32
    for name in ("z", "mean", "std", "h"):
        one, other = getattr(ours, name), getattr(exact, name)
        assert 1e-4 < (one - other).norm() / other.norm() < 2e-2
    ours.h.sum().backward()
    assert all(p.grad.isfinite().all() for p in cell.rnn.parameters())


@pytest.mark.parametrize("hidden", [1200, 128])
def test_the_kernel_follows_the_plain_loop_at_the_sizes_of_use(hidden):
    """Where all blocks of the GPU compute, and wait for each other."""
    torch.manual_seed(0)
    encoder, phi_z = GaussianNet(250 + hidden, 250, 2, 50), MLP(50, 250, 2)
    cell = VRNNCell(StandardNormal(50), encoder, phi_z, LSTM(500, hidden)).cuda()
    phi_x, noise = (torch.randn(100, 64, n, device="cuda") for n in (250, 50))
    state = cell.initial(64)
    for _ in range(3):
        found = {}
        for unroll in (unroll_persistent, unroll_plain):
            cell.zero_grad()
            unrolled = unroll(cell, phi_x, phi_x, state, noise)
            unrolled.h.square().mean().backward()
            found[unroll] = [unrolled.h, unrolled.mean, *(p.grad for p in cell.parameters())]
        for one, other in zip(*found.values(), strict=True):
            assert (one - other).norm() <= 1e-3 * other.norm()


def test_training_curves_of_engines_lie_on_each_other():
    losses = {}
    for engine in ("graph", "persistent", "plain"):
        torch.manual_seed(0)
        model = VRNN(3, 2, 8, GaussianMixture(3, 2), mlp_layers=2, engine=engine).cuda()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        x = (torch.randn(50, 8, 3).cumsum(0) / 4).cuda()
        mask = torch.ones(50, 8, dtype=torch.bool, device="cuda")
        losses[engine] = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = -elbo(model.trace(x), x, mask).mean()
            loss.backward()
            optimizer.step()
            losses[engine].append(loss.item())
    assert losses["graph"][-1] < losses["graph"][0] - 5
    assert losses["graph"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["persistent"] == pytest.approx(losses["plain"], rel=1e-3)


def test_the_noise_of_scores_is_that_of_the_cpu():
    ids, mask = torch.arange(50), torch.ones(101, 50, dtype=torch.bool)
    ours, other = (
        sequence_noise(ids, mask.to(device), 7, range(40), 3, torch.float32)
        for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(ours.cpu(), other, rtol=0, atol=1e-5)
    ours, other = (sequence_uniform(ids.to(device), 101, 40, 3) for device in ("cuda", "cpu"))
    assert ours.is_cuda and torch.equal(ours.cpu(), other)
