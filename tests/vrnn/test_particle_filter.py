"""The particle filter, step by step and for every kind of model."""

import math

import pytest
import torch
from support.filters import B, K, T, run
from support.linear_gaussian import all_of

from vrnn import DMM, RNN, SRNN, STORN, VRNN, bounds
from vrnn.evaluation import score
from vrnn.likelihoods import PenMixture
from vrnn.noise import sequence_noise, sequence_uniform
from vrnn.objectives import ELBO, FIVO, IWAE
from vrnn.particle_filter import draw_ancestors, effective_sample_size, particle_filter
from vrnn.trace import Resampling

pytestmark = pytest.mark.usefixtures("float64")


MODELS = {
    "filtering": (VRNN, {"residual": True, "engine": "fast"}),
    "smoothing": (VRNN, {"posterior": "smoothing", "residual": True, "engine": "fast"}),
    "srnn": (SRNN, {}),
    "storn": (STORN, {}),
    "dmm": (DMM, {}),
}


@pytest.fixture(params=MODELS)
def model(request, make_model):
    kind, options = MODELS[request.param]
    return make_model(kind, PenMixture(components=2), **options)


@pytest.fixture
def batch():
    mask = torch.arange(T)[:, None] < torch.tensor([6, 1, 4])
    return torch.randn(T, B, 3), mask


def test_without_resampling_it_is_the_importance_weighted_bound(model, batch):
    x, mask = batch
    noise = torch.randn(T, K * B, 2)
    for resampling in (Resampling("never"), Resampling(threshold=0.0)):
        particles = particle_filter(model, x, mask, noise, torch.rand(T, K, B), resampling)
        rows, rows_mask = x.repeat(1, K, 1), mask.repeat(1, K)
        trace = model.trace(rows, rows_mask, noise=noise)
        log_w = bounds.split_particles(bounds.log_weights(trace, rows, rows_mask), K)
        torch.testing.assert_close(particles.log_w, log_w.cumsum(0))
        expected = bounds.importance_weighted(log_w)
        torch.testing.assert_close(bounds.filtering_bound(particles), expected)
        assert particles.collected.sum(0).tolist() == [1, 1, 1] and particles.collected[-1].all()
    torch.testing.assert_close(
        particles.kl.sum(),
        -((trace.prior.log_prob(trace.z) - trace.posterior.log_prob(trace.z))[rows_mask].sum()),
    )


@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_padding_and_company_change_nothing(model, batch, resampling):
    x, mask = batch
    noise, uniform = torch.randn(T, K * B, 2), torch.rand(T, K, B)
    together = particle_filter(model, x, mask, noise, uniform, Resampling(resampling, 0.9))
    for b, n in enumerate((6, 1, 4)):
        alone = particle_filter(
            model,
            x[:n, b : b + 1],
            mask[:n, b : b + 1],
            noise.unflatten(1, (K, B))[:n, :, b],
            uniform[:n, :, b : b + 1],
            Resampling(resampling, 0.9),
        )
        torch.testing.assert_close(
            bounds.filtering_bound(alone)[0], bounds.filtering_bound(together)[b]
        )


def test_a_particle_goes_on_from_its_ancestor(model, batch):
    """Each trajectory, followed back through its ancestors, has the weights of its own trace."""
    x, mask = batch[0][:, :1], torch.ones(T, 1, dtype=torch.bool)
    noise = torch.randn(T, K, 2)
    particles = particle_filter(
        model, x, mask, noise, torch.rand(T, K, 1), Resampling(threshold=1.0)
    )
    assert (particles.ancestors[:-1, :, 0] != torch.arange(K)).any()
    for k in range(K):
        line = [k]
        for t in range(T - 2, -1, -1):
            line.insert(0, int(particles.ancestors[t, line[0], 0]))
        own = noise[torch.arange(T), torch.tensor(line)][:, None]
        log_w = bounds.log_weights(model.trace(x, mask, noise=own), x, mask)[:, 0]
        gathered = particles.log_w[torch.arange(T), torch.tensor(line), 0]
        before = torch.where(particles.collected[:-1, 0], 0.0, gathered[:-1])
        torch.testing.assert_close(gathered - torch.cat([torch.zeros(1), before]), log_w)


def test_one_particle_is_a_draw_of_the_elbo(model, batch):
    x, mask = batch
    noise = torch.randn(T, B, 2)
    particles = particle_filter(model, x, mask, noise, torch.rand(T, 1, B))
    expected = bounds.log_weights(model.trace(x, mask, noise=noise), x, mask).sum(0)
    torch.testing.assert_close(bounds.filtering_bound(particles), expected)


@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_ancestors_are_drawn_by_weight(resampling):
    log_w = torch.tensor([[0.5, 0.0], [0.3, 0.0], [0.2, 1.0], [0.0, 0.0]]).log() + 7
    n = 4000
    uniform = torch.rand(n, 4, 2)
    counts = torch.zeros(4, 2)
    for u in uniform:
        drawn = draw_ancestors(log_w, u, resampling)
        if resampling == "systematic":  # Never further than one from the expected count.
            share = torch.bincount(drawn[:, 0], minlength=4) - 4 * log_w[:, 0].softmax(0)
            assert share.abs().max() < 1
        for b in range(2):
            counts[:, b] += torch.bincount(drawn[:, b], minlength=4)
    expected = torch.tensor([[0.5, 0], [0.3, 0], [0.2, 1], [0, 0]])
    assert (counts / (4 * n) - expected).abs().max() < 5 * 0.5 / (4 * n) ** 0.5
    assert counts[3].sum() == 0 and counts[:2, 1].sum() == 0


@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_no_particle_without_weight_is_drawn_by_the_largest_number_below_one(resampling):
    log_w = torch.tensor([0.0] * 7 + [-math.inf], dtype=torch.float32)[:, None]
    uniform = torch.full((8, 1), 1 - 2**-24, dtype=torch.float32)
    assert draw_ancestors(log_w, uniform, resampling).max() == 6


def test_effective_sample_size():
    log_w = torch.tensor([[0.0, 3.0, 0.0], [0.0, -math.inf, math.log(3.0)]])
    torch.testing.assert_close(effective_sample_size(log_w), torch.tensor([2.0, 1.0, 1.6]))


@torch.no_grad()
def test_its_mean_weight_is_that_of_single_trajectories(model):
    """Of every kind of model: what is resampled at each step estimates the same p(x)."""
    n, steps = 6000, 3
    for p in model.parameters():  # or the weights would be too far apart to have a mean
        p.mul_(0.4)
    x = torch.cat([torch.ones(steps, 1, 1), torch.randn(steps, 1, 2)], -1).expand(-1, n, -1)
    weights = [
        bounds.filtering_bound(run(model, x, all_of(x), seed=seed, **options))
        for seed, options in enumerate(({"threshold": 1.0}, {"how": "never"}))
    ]
    top = max(w.max() for w in weights)
    ours, other = ((w - top).exp() for w in weights)
    error = ((ours.var() + other.var()) / n).sqrt()
    assert abs(ours.mean() - other.mean()) < 4 * error < 0.2 * other.mean()


def test_objectives_of_one_particle_agree(model, batch):
    x, mask = batch
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    iwae, fivo = (
        objective(model, x, mask, generator, 0)
        for objective, generator in zip((IWAE(1), FIVO(1)), generators, strict=False)
    )
    noise = torch.randn(T, B, 2, generator=generators[2])
    expected = bounds.log_weights(model.trace(x, mask, noise=noise), x, mask).sum()
    for result in (iwae, fivo):
        torch.testing.assert_close(result.bound, expected)
        torch.testing.assert_close(result.loss, -expected)
    elbo = ELBO()(model, x, mask, torch.Generator().manual_seed(3), 0)
    torch.testing.assert_close(elbo.kl, iwae.kl)
    for ours, other in zip(elbo.state, iwae.state, strict=True):
        torch.testing.assert_close(ours, other)


def test_objectives_are_their_bounds(model, batch):
    x, mask = batch
    for objective, resampling in ((IWAE(K), "never"), (FIVO(K, threshold=0.9), "multinomial")):
        result = objective(model, x, mask, torch.Generator().manual_seed(0), 0)
        particles = run(model, x, mask, how=resampling, threshold=0.9)
        expected = bounds.filtering_bound(particles).sum()
        torch.testing.assert_close(result.bound, expected)
        assert result.loss.requires_grad and not result.bound.requires_grad
        assert all(s.shape[1] == K * B for s in result.state)
    scored = FIVO(K, threshold=0.9, resampling_gradient=True)
    other = scored(model, x, mask, torch.Generator().manual_seed(0), 0)
    torch.testing.assert_close(other.loss, result.loss)
    gradients = [torch.autograd.grad(r.loss, model.out.weight)[0] for r in (result, other)]
    assert not torch.allclose(*gradients)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, 10_000])
def test_scores_are_the_filter_sequence_by_sequence(model, batch, rows, monkeypatch):
    monkeypatch.setattr("vrnn.evaluation.FILTER_ROWS", rows)
    x, mask = batch
    ids, seed = torch.tensor([7, 0, 3]), 5
    together = score(model, x, mask, ids, K, seed, ["fivo"])
    assert together.keys() == {"fivo"} and together["fivo"].dtype == torch.float64
    for b, n in enumerate((6, 1, 4)):
        own = mask[:n, b : b + 1]
        noise = sequence_noise(ids[b : b + 1], own, 2, range(K), seed, x.dtype)
        uniform = sequence_uniform(ids[b : b + 1], n, K, seed)
        alone = particle_filter(model, x[:n, b : b + 1], own, noise, uniform)
        torch.testing.assert_close(together["fivo"][b], bounds.filtering_bound(alone)[0])


def test_weights_that_vanish_are_told_with_their_step(model, batch):
    x, mask = batch
    x[2, 2] = math.inf
    ahead = not (model.filters or isinstance(model, STORN))
    step = 0 if ahead else 2  # A smoothing posterior sees it coming.
    for bound in ("iwae", "fivo"):
        with pytest.raises(FloatingPointError, match=f"sequence 9 .* from step {step} on"):
            score(model, x, mask, torch.tensor([7, 8, 9]), K, bounds=[bound])


def test_impossible_options_are_refused(make_model, batch):
    for kind, options in (
        (IWAE, {"particles": 0}),
        (FIVO, {"particles": 0}),
        (FIVO, {"resampling": "often"}),
        (FIVO, {"threshold": 1.5}),
        (FIVO, {"resampling": "systematic", "resampling_gradient": True}),
    ):
        with pytest.raises(ValueError, match=r"particles|resampling|threshold"):
            kind(**options)


def test_more_particles_than_memory_holds_are_refused(model, batch, monkeypatch):
    x, mask = batch
    monkeypatch.setattr("vrnn.memory.free_memory", lambda: 6 * 4 * (2 + 15) * 500)
    score(model, x, mask, torch.arange(3), 500, bounds=["fivo"])
    with pytest.raises(ValueError, match=r"1,000 particles over 6 steps.* 500 would fit"):
        score(model, x, mask, torch.arange(3), 1000, bounds=["fivo"])


def test_without_latents_every_wanted_bound_is_the_likelihood(make_model, batch):
    x, mask = batch
    model = make_model(RNN, PenMixture(components=2))
    exact = model.trace(x).likelihood.log_prob(x)
    for wanted in (["fivo"], ["open_loop"], ["elbo", "iwae"]):
        figures = score(model, x, mask, torch.arange(3), 8, bounds=wanted)
        assert "elbo" in figures and "open_loop" not in figures
        for name, value in figures.items():
            expected = torch.where(mask, exact, 0.0).sum(0) * (name != "kl")
            torch.testing.assert_close(value, expected)


def test_the_kl_of_an_objective_is_the_mean_over_its_particles(model, batch):
    x, mask = batch
    noise = torch.randn(T, K * B, 2, generator=torch.Generator().manual_seed(0))
    rows, rows_mask = x.repeat(1, K, 1), mask.repeat(1, K)
    trace = model.trace(rows, rows_mask, noise=noise)
    kls = bounds.elbo_terms(trace, rows, rows_mask).kl, -bounds.log_ratio(trace, rows_mask)
    for objective, kl in zip((IWAE(K), FIVO(K, resampling="never")), kls, strict=True):
        result = objective(model, x, mask, torch.Generator().manual_seed(0), 0)
        torch.testing.assert_close(result.kl, kl.sum() / K)


@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_no_particle_without_weight_is_drawn_by_zero(resampling):
    log_w = torch.tensor([-math.inf] + [0.0] * 7)[:, None]
    assert draw_ancestors(log_w, torch.zeros(8, 1), resampling).min() == 1


@torch.no_grad()
@pytest.mark.parametrize("resampling", ["multinomial", "never"])
def test_silenced_it_is_the_filter_of_a_posterior_that_is_the_prior(model, batch, resampling):
    x, mask = batch
    given = torch.randn(T, K * B, 2), torch.rand(T, K, B), Resampling(resampling, 0.9)
    silenced = particle_filter(model, x, mask, *given, silenced=True)
    seen = particle_filter(model, x, mask, *given)
    assert (silenced.log_w - seen.log_w).abs().max() > 1e-3
    assert (silenced.kl == 0).all() and (silenced.owed == 0).all()

    cell = type(model.cell)

    class Blind(cell):
        """No network of its own knows x: inferred is what the prior says."""

        def infer(self, u, h):
            return self.prior(h)

        step_prepared = cell.step

        def prepare(self, phi_x, u):
            return phi_x, u

    model.cell.__class__ = Blind
    expected = particle_filter(model, x, mask, *given)
    torch.testing.assert_close(silenced.log_w, expected.log_w)
    torch.testing.assert_close(silenced.state, expected.state)


def test_the_silenced_score_does_not_depend_on_the_encoder(make_model, batch):
    x, mask = batch
    model, ids = make_model(VRNN, PenMixture(components=2)), torch.arange(B)
    wanted = ["elbo", "fivo", "silenced"]
    before = score(model, x, mask, ids, K, bounds=wanted)
    with torch.no_grad():
        for parameter in model.cell.encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    after = score(model, x, mask, ids, K, bounds=wanted)
    assert torch.equal(before["silenced"], after["silenced"])
    assert not torch.equal(before["fivo"], after["fivo"])
