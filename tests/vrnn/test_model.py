"""The model as a whole: its size, what depends on what, generation, padding, carried state."""

import math

import pytest
import torch
from support.densities import flat, generative, noise_that_draws

from vrnn import DMM, RNN, SRNN, STORN, VRNN, bounds
from vrnn.layers.state import top
from vrnn.likelihoods import Bernoulli, GaussianMixture, PenMixture
from vrnn.likelihoods.autoregressive import AutoregressiveBernoulli, AutoregressiveGaussianMixture
from vrnn.normaliser import Normaliser

pytestmark = pytest.mark.usefixtures("float64")

BLIZZARD = {"x_dim": 200, "hidden": 4000, "mlp_layers": 4}
IAM = {"x_dim": 3, "hidden": 1200}


def dependence(parameters, x):
    """How much `parameters` (P,) of one step and row depend on each frame of x, (T, B)."""
    weights = torch.randn_like(parameters)
    (gradient,) = torch.autograd.grad((weights * parameters).sum(), x, retain_graph=True)
    return gradient.abs().amax(-1)


@pytest.mark.parametrize(
    ("kind", "sizes", "widths", "components", "expected"),
    [
        (RNN, BLIZZARD, (800,), 1, 84_342_800),
        (RNN, BLIZZARD, (700,), 20, 86_723_620),
        (VRNN, BLIZZARD, (600, 500, 200), 1, 93_898_000),
        (VRNN, BLIZZARD, (500, 500, 200), 20, 94_894_820),
        (RNN, IAM, (340,), 1, 7_808_546),
        (RNN, IAM, (300,), 20, 7_602_721),
        (VRNN, IAM, (250, 150, 50), 1, 8_460_706),
        (VRNN, IAM, (250, 150, 50), 20, 8_489_571),
    ],
)
def test_parameter_counts_are_those_of_the_original_code(
    kind, sizes, widths, components, expected
):
    x_dim = sizes["x_dim"]
    likelihood = PenMixture(3, components) if x_dim == 3 else GaussianMixture(x_dim, components)
    options = {"phi_x_dim": widths[0], "decoder_dim": widths[0]}
    if kind is VRNN:
        for name in ("phi_z_dim", "encoder_dim", "prior_dim"):
            options[name] = widths[1]
        options["z_dim"] = widths[2]
    with torch.device("meta"):
        model = kind(**sizes, **options, likelihood=likelihood)
    assert model.parameter_count == expected


def test_a_step_is_generated_from_the_past_alone(any_model):
    T, B = 5, 2
    x = torch.randn(T, B, 3, requires_grad=True)
    z = torch.randn(T, B, any_model.z_dim)
    trace = any_model.trace(x, noise=noise_that_draws(any_model, x, z))
    torch.testing.assert_close(trace.z, z, rtol=0, atol=1e-12)
    for t, step in enumerate(generative(trace)):
        on = dependence(step[0], x)
        assert (on[t:] < 1e-12).all(), "the present or the future leaks into the prediction"
        assert (on[:, 1] == 0).all(), "one sequence leaks into another"
        used = on[:t, 0] > 1e-6
        if isinstance(any_model, DMM):
            assert not used.any(), "z_{t-1} is all that is known of the past"
        else:
            assert used.all(), "the past is not used"


def test_inference_sees_the_future_only_when_smoothing(make_model):
    T, end = 6, 4
    mask = torch.ones(T, 2, dtype=torch.bool)
    mask[end:, 0] = False
    noise = torch.randn(T, 2, 2)
    for posterior in ("filtering", "smoothing"):
        model = make_model(VRNN, posterior=posterior)
        x = torch.randn(T, 2, 3, requires_grad=True)
        steps = flat(model.trace(x, mask, noise=noise).posterior)
        for t in range(end):
            on = dependence(steps[t, 0], x)
            assert (on[: t + 1, 0] > 1e-9).all()
            assert (on[:, 1] == 0).all()
            assert (on[end:, 0] == 0).all(), "padding is seen"
            future = on[t + 1 : end, 0]
            assert (future > 1e-9).all() if posterior == "smoothing" else (future == 0).all()


@pytest.mark.parametrize("prime", [0, 3])
def test_the_generator_runs_the_densities_of_training(any_model, prime):
    T, B, Z = 6, 2, any_model.z_dim
    beginning = torch.randn(prime, B, 3) if prime else None
    torch.manual_seed(7)
    stream = any_model.stream(B, beginning)
    frames = [next(stream) for _ in range(T)]
    x, z = torch.stack([f.x for f in frames]), torch.stack([f.z for f in frames])
    if prime:
        # A beginning is inferred with the first noise the generator draws.
        torch.manual_seed(7)
        first = any_model.trace(beginning, noise=torch.randn(prime, B, Z) if Z else None)
        x, z = torch.cat([beginning, x]), torch.cat([first.z, z])

    with torch.no_grad():
        trace = any_model.trace(x, noise=noise_that_draws(any_model, x, z))
    torch.testing.assert_close(trace.z, z, rtol=0, atol=1e-10)
    generated = torch.stack(
        [torch.cat(([flat(f.prior)] if Z else []) + [flat(f.likelihood)], -1) for f in frames]
    )
    torch.testing.assert_close(generative(trace)[prime:], generated, rtol=0, atol=1e-10)
    assert x.unique(dim=1).shape[1] == B, "rows are drawn one by one"


def test_the_stream_draws_from_the_densities_it_yields(make_model):
    model = make_model(VRNN, PenMixture(components=3))
    for temperature in (1.0, 0.25, 0.0):
        torch.manual_seed(3)
        frame = next(model.stream(4, temperature_z=temperature))
        torch.manual_seed(3)
        noise = torch.randn(4, 2)
        expected = frame.prior.mean + temperature**0.5 * frame.prior.stddev * noise
        torch.testing.assert_close(frame.z, expected, rtol=0, atol=1e-12)

    stream = model.stream(2, temperature_z=0.0, temperature_x=0.0)
    state, frames = model.rnn.initial(2), []
    for frame in (next(stream) for _ in range(4)):
        mean, _ = model.cell.prior(top(state))
        distribution = model.likelihood(model.decode(mean, top(state)))
        torch.testing.assert_close(frame.z, mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(frame.x, distribution.mode, rtol=0, atol=1e-12)
        state = model.advance(distribution.mode, mean, state)
        frames.append(frame.x)
    assert torch.equal(model.generate(4, 2, temperature_z=0, temperature_x=0), torch.stack(frames))

    for temperature in (0.3, 1.0):
        torch.manual_seed(3)
        frame = next(model.stream(2, temperature_x=temperature))
        params = model.decode(frame.z, top(model.rnn.initial(2)))
        torch.manual_seed(3)
        torch.randn(2, 2)
        torch.testing.assert_close(frame.x, model.likelihood(params, temperature).sample())
        torch.testing.assert_close(flat(frame.likelihood), flat(model.likelihood(params)))


def test_a_seed_fixes_what_is_generated_and_nothing_else(any_model):
    a = any_model.generate(4, 2, seed=5)
    before = torch.get_rng_state()
    assert torch.equal(any_model.generate(4, 2, seed=5), a)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(any_model.generate(4, 2, seed=6), a)
    assert a.shape == (4, 2, 3) and not a.requires_grad


@pytest.mark.parametrize("kind", [VRNN, SRNN, STORN, DMM, RNN])
def test_centred_inputs_are_the_frames_less_their_mean(make_model, kind):
    """In inference, in generation and in priming; the targets stay as they are."""
    means = [0.2, 0.5, 0.7]
    centred, plain = (
        make_model(kind, Bernoulli(3), normaliser=Normaliser([0.0] * 3, [1.0] * 3, means, centre))
        for centre in (True, False)
    )
    weights = centred.state_dict()
    with torch.no_grad():  # phi_x(x - m) = W x + (b - W m)
        shift = weights["phi_x.0.weight"] @ torch.tensor(means)
        weights["phi_x.0.bias"] = weights["phi_x.0.bias"] - shift
    plain.load_state_dict(weights)
    x, noise = torch.randint(2, (4, 2, 3)).double(), torch.randn(4, 2, centred.z_dim)
    one, other = (model.trace(x, noise=noise) for model in (centred, plain))
    torch.testing.assert_close(one.likelihood.log_prob(x), other.likelihood.log_prob(x))
    lines = [model.generate(6, 2, prime=x, seed=0) for model in (centred, plain)]
    assert torch.equal(*lines) and set(lines[0].unique().tolist()) <= {0.0, 1.0}


def test_a_mean_frame_that_cannot_be_one_is_refused():
    with pytest.raises(ValueError, match=r"data\.centre=true needs the mean frame"):
        Normaliser([0.0], [1.0], centre=True)
    with pytest.raises(ValueError, match="2 means for 3 shifts"):
        Normaliser([0.0] * 3, [1.0] * 3, [0.1, 0.2])


@pytest.mark.parametrize("kind", [VRNN, RNN])
def test_binary_outputs_start_at_the_mean_frame(kind):
    means = [0.0, 0.2, 0.9]
    widths = {"hidden": 4, "phi_x_dim": 4} | ({"z_dim": 2} if kind is VRNN else {})
    normaliser = Normaliser([0.0] * 3, [1.0] * 3, means)
    model = kind(3, likelihood=Bernoulli(3), normaliser=normaliser, **widths)
    start = torch.tensor(means).clamp(1e-4, 1 - 1e-4).logit()
    torch.testing.assert_close(model.out.bias.detach(), start)


def test_vrnn_i_has_a_standard_prior_at_every_step(make_model):
    model = make_model(VRNN, prior="standard")
    trace = model.trace(torch.randn(4, 2, 3))
    assert (trace.prior.mean == 0).all() and (trace.prior.stddev == 1).all()
    assert trace.prior.batch_shape == (4, 2) and trace.prior.event_shape == (2,)


@pytest.mark.parametrize(
    "likelihood",
    [
        GaussianMixture(3),
        GaussianMixture(3, 2),
        PenMixture(components=2),
        Bernoulli(3),
        AutoregressiveBernoulli(3, 8),
        AutoregressiveGaussianMixture(3, 2, 8),
    ],
    ids=repr,
)
def test_a_constant_sequence_does_not_run_away(likelihood):
    """The density of a constant is bounded, and so is what training can reach; in float32."""
    torch.set_default_dtype(torch.float32)
    T, B, steps = 2, 4, 300
    widths = {f"{name}_dim": 8 for name in ("phi_x", "phi_z", "encoder", "prior", "decoder")}
    model = VRNN(3, 2, 8, likelihood, **widths)
    x = torch.tensor([1.0, 0.7, -0.3]).expand(T, B, 3)
    if "binary" in likelihood.kinds:
        x = torch.zeros(T, B, 3)
    mask = torch.ones(T, B, dtype=torch.bool)
    coordinates = {"real": 3, "pen": 2, "binary": 0}[likelihood.kinds[0]]
    log_peak = -coordinates * (math.log(1e-4) + 0.5 * math.log(2 * math.pi))
    log_peak += -0.5 * math.log(1e-4 * (2 - 1e-4)) if "pen" in likelihood.kinds else 0.0

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = -bounds.elbo(model.trace(x, mask), x, mask).mean() / T
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
        assert -log_peak - 1e-3 <= losses[-1] < 1e6
    assert min(losses) < losses[0] - 1
    if "binary" in likelihood.kinds:
        assert losses[-1] == pytest.approx(0, abs=0.05), "silence costs nothing"


def test_bad_arguments_are_named(make_model):
    likelihood = GaussianMixture(3)
    for key, options in {
        "model.posterior=both": {"posterior": "both"},
        "model.prior=flat": {"prior": "flat"},
        "model.rnn=elman": {"rnn": "elman"},
        "model.engine=warp": {"engine": "warp"},
    }.items():
        with pytest.raises(ValueError, match=f"{key} is not one of"):
            VRNN(3, 2, 4, likelihood, **options)
    with pytest.raises(ValueError, match="model.rnn=elman is not one of gru, lstm"):
        RNN(3, 4, likelihood, rnn="elman")
    for kind, sizes in ((VRNN, (4, 2, 4)), (RNN, (4, 4))):
        with pytest.raises(ValueError, match=r"x_dim is 4.*frames of 3 numbers"):
            kind(*sizes, likelihood)

    for model in (make_model(VRNN), make_model(RNN)):
        for bad in ({"temperature_z": -1.0}, {"temperature_x": math.nan}, {"temperature_x": -0.1}):
            with pytest.raises(ValueError, match="a temperature must be 0"):
                model.generate(1, **bad)
        with pytest.raises(ValueError, match=r"prime must be \(T0, 2, 3\)"):
            model.generate(1, 2, prime=torch.zeros(4, 1, 3))
        with pytest.raises(AssertionError, match="time-major"):
            model.trace(torch.zeros(4, 2, 5))
        with pytest.raises(AssertionError, match="mask must be bool"):
            model.trace(torch.zeros(4, 2, 3), torch.ones(4, 2))
        with pytest.raises(AssertionError, match="mask must be bool"):
            model.trace(torch.zeros(4, 2, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="scales must be above 0"):
        Normaliser([0.0], [0.0])
