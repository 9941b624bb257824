"""SRNN, STORN and the deep Markov model: their graphs, sizes, loops, likelihoods and training."""

import pytest
import torch
from support.helpers import build, configure
from support.linear_gaussian import all_of

import vrnn
from vrnn import DMM, SRNN, STORN, bounds
from vrnn.engine.unroll import unroll_plain
from vrnn.layers.state import top
from vrnn.likelihoods import GaussianMixture, PenMixture
from vrnn.objectives import ELBO, FIVO, IWAE
from vrnn.particle_filter import particle_filter
from vrnn.trace import Resampling, gaussian

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {
    "srnn-smoothing": (SRNN, {}),
    "srnn-filtering": (SRNN, {"posterior": "filtering", "residual": False}),
    "storn-filtering": (STORN, {}),
    "storn-smoothing": (STORN, {"posterior": "smoothing"}),
    "dmm": (DMM, {}),
}


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


@pytest.fixture
def model(name, make_model):
    kind, options = KINDS[name]
    return make_model(kind, **options)


def depends(value, on):
    """Whether a number depends on each step of `on` (T, 1, N)."""
    (gradient,) = torch.autograd.grad(value, on, retain_graph=True, allow_unused=True)
    return (
        [False] * len(on) if gradient is None else (gradient.abs() > 1e-9).any(-1)[:, 0].tolist()
    )


def test_generation_has_the_published_graph(model):
    """Which x and z the prior of z_t and the likelihood of x_t depend on, t = 0..3."""
    T = 4
    x, z = (torch.randn(T, 1, n, requires_grad=True) for n in (3, 2))
    state = model.initial(1)
    for t in range(T):
        mean, std = model.cell.prior(top(state))
        params = model.decode(z[t], top(state))
        before, now, never = ([s < t for s in range(T)], [s == t for s in range(T)], [False] * T)
        last = [s == t - 1 for s in range(T)]
        upto = [s <= t for s in range(T)]
        expected = {
            SRNN: {"prior": (before, last), "likelihood": (before, now)},
            STORN: {"prior": (never, never), "likelihood": (before, upto)},
            DMM: {"prior": (never, last), "likelihood": (never, now)},
        }[type(model)]
        found = {"likelihood": params.square().sum()}
        if type(model) is not STORN:
            found["prior"] = (mean + std).square().sum()
        for part, value in found.items():
            assert (depends(value, x), depends(value, z)) == expected[part], (part, t)
        if type(model) is STORN:
            assert (mean == 0).all() and (std == 1).all()
        state = model.advance(x[t], z[t], state)


def test_inference_has_the_published_graph(name, model):
    """q(z_t | ...) at fixed z: which x it depends on, and whether on z_{t-1}; t = 0..3 of 4."""
    T = 5
    mask = torch.ones(T, 1, dtype=torch.bool)
    mask[4:] = False
    x = torch.randn(T, 1, 3, requires_grad=True)
    z = torch.randn(T, 1, 2, requires_grad=True)
    _, u = model.observe(x, mask)
    state = model.initial(1)
    for t in range(4):
        mean, std = model.cell.infer(u[t], top(state))
        value = (mean + std).square().sum()
        sees = {
            "srnn-smoothing": range(4),
            "srnn-filtering": range(t + 1),
            "storn-filtering": range(t + 1),
            "storn-smoothing": range(4),
            "dmm": range(t, 4),
        }[name]
        assert depends(value, x) == [s in sees for s in range(T)]
        chained = type(model) is not STORN
        assert depends(value, z) == [chained and s == t - 1 for s in range(T)]
        state = model.advance(x[t], z[t], state)


@pytest.mark.parametrize(("kind", "options"), [KINDS[name] for name in KINDS if name != "dmm"])
def test_the_fast_loop_is_the_plain_one(make_model, kind, options):
    model = make_model(kind, **options)
    T, B = 6, 3
    x, noise = torch.randn(T, B, 3), torch.randn(T, B, 2)
    mask = torch.arange(T)[:, None] < torch.tensor([6, 1, 4])
    start = torch.randn_like(model.initial(B)[0]).requires_grad_()
    wanted = [start, *model.parameters()]
    results = []
    for unroll in (model.unroll, lambda *inputs: unroll_plain(model.cell, *inputs)):
        phi_x, u = model.observe(x, mask, (start,))
        steps = unroll(phi_x, u, (start,), noise)
        values = [*steps[:-1], *steps.state, model.decode_features(steps.phi_z, steps.h)]
        generator = torch.Generator().manual_seed(1)
        loss = sum((v * torch.randn(v.shape, generator=generator)).sum() for v in values)
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        results.append((values, [g for g in gradients if g is not None]))
    (values, gradients), (plain_values, plain_gradients) = results
    assert len(gradients) == len(plain_gradients) > 10
    for one, other in zip([*values, *gradients], [*plain_values, *plain_gradients], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_importance_weights_integrate_to_the_likelihood(name, make_model):
    """Two steps, one latent dimension: both integrals over z by quadrature."""
    kind, options = KINDS[name]
    model = make_model(kind, GaussianMixture(3, 2), spread=0.2, **options, z_dim=1)
    x = torch.randn(2, 1, 3)
    grid = torch.linspace(-9, 9, 181)
    e = torch.cartesian_prod(grid, grid).T[..., None]  # (2, 181^2, 1)
    log_dz = gaussian(torch.zeros(1), torch.ones(1)).log_prob(e).sum(0) + 2 * grid.diff()[0].log()
    many = x.expand(-1, e.shape[1], -1)

    with torch.no_grad():
        state, log_p = model.initial(e.shape[1]), torch.zeros(e.shape[1])
        for x_t, e_t in zip(many, e, strict=True):
            z, _ = model.draw_z(state, e_t)
            log_p += model.likelihood(model.decode(z, top(state))).log_prob(x_t)
            state = model.advance(x_t, z, state)
        log_w = bounds.log_weights(model.trace(many, noise=e), many, all_of(many)).sum(0)
    exact = (log_p + log_dz).logsumexp(0)
    torch.testing.assert_close((log_w + log_dz).logsumexp(0), exact, rtol=0, atol=5e-4)
    elbo = (log_w * log_dz.exp()).sum()
    assert elbo < exact - 5e-3


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        # phi_x + d + a + prior + encoder + decoder + out; a GRU has 3 H (inputs + H + 1) numbers.
        (
            SRNN,
            {"encoder_dim": 6, "prior_dim": 8},
            20 + 3 * 9 * (5 + 9 + 1) + 3 * 9 * (14 + 9 + 1) + (12 * 8 + 36) + (12 * 6 + 28) + 84,
        ),
        (
            SRNN,
            {"encoder_dim": 6, "prior_dim": 8, "posterior": "filtering"},
            20 + 3 * 9 * (5 + 9 + 1) + 9 * (14 + 1) + (12 * 8 + 36) + (12 * 6 + 28) + 84,
        ),
        # phi_x + recognition + encoder + generation + decoder + out.
        (STORN, {"encoder_dim": 6}, 20 + 405 + (10 * 6 + 28) + 3 * 9 * (7 + 9 + 1) + 70),
        (
            STORN,
            {"encoder_dim": 6, "posterior": "smoothing"},
            20 + 2 * 405 + (19 * 6 + 28) + 3 * 9 * (7 + 9 + 1) + 70,
        ),
        # phi_x + backward + combiner + gate + proposal + linear mean + std + decoder + out.
        (DMM, {"prior_dim": 8}, 20 + 405 + (27 + 40) + 2 * (24 + 18) + 2 * 6 + 21),
    ],
)
def test_parameter_counts_are_those_by_hand(kind, options, expected):
    likelihood = GaussianMixture(3)
    model = kind(3, 2, 9, likelihood, phi_x_dim=5, decoder_dim=7, **options)
    assert model.parameter_count == expected + 7 * 6 + 6


def test_a_residual_mean_is_that_of_the_prior_plus_a_correction(make_model):
    model, x = make_model(SRNN), torch.randn(4, 2, 3)
    with torch.no_grad():
        model.cell.encoder.out.weight[:2] = 0
        model.cell.encoder.out.bias[:2] = torch.tensor([0.5, -2.0])
    trace = model.trace(x)
    correction = trace.posterior.mean - trace.prior.mean
    torch.testing.assert_close(correction, torch.tensor([0.5, -2.0]).expand(4, 2, 2))


def test_what_reads_no_x_is_in_open_loop_already(model):
    x = torch.randn(5, 2, 3)
    noise = torch.randn(5, 2, 2)
    closed, free = model.trace(x, noise=noise), model.open_loop(x, all_of(x), noise)
    gap = (bounds.elbo(closed, x, all_of(x)) - bounds.elbo(free, x, all_of(x))).abs()
    assert (gap < 1e-9).all() if type(model) is DMM else (gap > 1e-6).all()


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), FIVO(3)], ids=["elbo", "iwae", "fivo"])
def test_objectives_train_every_weight_and_carry_the_state(model, objective):
    x, mask = torch.randn(5, 2, 3), torch.ones(5, 2, dtype=torch.bool)
    state = None
    for step in range(2):
        result = objective(model, x, mask, torch.Generator().manual_seed(0), step, state)
        gradients = torch.autograd.grad(result.loss, list(model.parameters()))
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
        state = tuple(s.detach() for s in result.state)
        assert state[0].shape == (1, 2 * objective.particles, model.cell.width)


def test_a_particle_filter_goes_on_where_it_ended(make_model):
    model = make_model(SRNN, PenMixture(components=2), posterior="filtering")
    x, mask, K = torch.randn(6, 2, 3), torch.ones(6, 2, dtype=torch.bool), 3
    noise, uniform = torch.randn(6, K * 2, 2), torch.rand(6, K, 2)

    def bound(part, state=None):
        inputs = (x[part], mask[part], noise[part], uniform[part])
        return particle_filter(model, *inputs, resampling=Resampling(threshold=1.0), state=state)

    whole, first = bound(slice(6)), bound(slice(2))
    rest = bound(slice(2, 6), first.state)
    torch.testing.assert_close(torch.cat([first.log_w, rest.log_w]), whole.log_w)
    torch.testing.assert_close(rest.state[0], whole.state[0])


def test_half_precision_follows(model):
    model, x = model.float(), torch.randn(5, 2, 3, dtype=torch.float32)
    mask, noise = all_of(x), torch.randn(5, 2, 2, dtype=torch.float32)
    exact = model.trace(x, mask, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        trace = model.trace(x, mask, noise=noise)
    for one, other in ((trace.posterior, exact.posterior), (trace.likelihood, exact.likelihood)):
        assert one.mean.dtype == torch.float32
        torch.testing.assert_close(one.mean, other.mean, rtol=0.1, atol=0.3)
    assert not torch.equal(trace.z, exact.z)
    bounds.elbo(trace, x, mask).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["srnn", "storn", "dmm"])
def test_a_model_comes_back_from_the_file_of_its_module(name, tmp_path):
    _, module = build(configure(tmp_path, f"model={name}"))
    file = tmp_path / "model.ckpt"
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content, file)
    loaded = vrnn.load(file)
    assert type(loaded) is type(module.model)
    line = loaded.generate(4, 2, prime=torch.zeros(2, 2, 3), seed=0)
    assert torch.equal(line, module.model.generate(4, 2, prime=torch.zeros(2, 2, 3), seed=0))


def test_bad_arguments_are_named():
    likelihood = GaussianMixture(3)
    for kind in (SRNN, STORN):
        with pytest.raises(ValueError, match=r"model.posterior=both is not one of filtering, smo"):
            kind(3, 2, 4, likelihood, posterior="both")
    for kind in (SRNN, STORN, DMM):
        with pytest.raises(ValueError, match="model.z_dim must be at least 1, not 0"):
            kind(3, 0, 4, likelihood)
        with pytest.raises(ValueError, match=r"x_dim is 4.*frames of 3 numbers"):
            kind(4, 2, 4, likelihood)
