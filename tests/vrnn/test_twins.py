"""Twins of a model: the same layers, with a z_t that knows nothing of x."""

import math

import pytest
import torch
from support.linear_gaussian import all_of

from vrnn import DMM, SRNN, STORN, VRNN, bounds
from vrnn.evaluation import score
from vrnn.likelihoods import GaussianMixture, PenMixture
from vrnn.objectives import ELBO, FIVO

pytestmark = pytest.mark.usefixtures("float64")

KINDS = {
    "vrnn": (VRNN, {}),
    "vrnn-residual-smoothing": (VRNN, {"residual": True, "posterior": "smoothing"}),
    "srnn": (SRNN, {}),
    "storn": (STORN, {}),
    "dmm": (DMM, {}),
}
T, B = 5, 3


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def spread(model, by=0.4):
    """Makes what is trained large enough for every input to matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn_like(parameter))
    return model


@pytest.fixture
def make_twin(kind):
    def make(latents):
        model = kind[0](
            x_dim=3,
            z_dim=2,
            hidden=9,
            likelihood=PenMixture(components=2),
            latents=latents,
            **kind[1],
        )
        return spread(model)

    return make


@pytest.fixture
def batch():
    return torch.randn(T, B, 3), torch.arange(T)[:, None] < torch.tensor([5, 2, 4])


def test_its_layers_start_as_the_models(kind):
    def made(latents):
        torch.manual_seed(3)
        model = kind[0](3, 2, 9, PenMixture(components=2), latents=latents, **kind[1])
        return dict(model.named_parameters())

    model = made("inferred")
    for twin in (made("noise"), made("fixed")):
        assert model.keys() - twin.keys() == {name for name in model if "prior" in name}
        changed = {name for name in twin if not torch.equal(twin[name], model[name])}
        assert changed == {"cell.encoder.out.weight", "cell.encoder.out.bias"}


def test_noise_knows_nothing_of_x(make_twin, batch):
    x, mask = batch
    twin = make_twin("noise")
    noise = torch.randn(T, B, 2)
    trace = twin.trace(x, mask, noise=noise)
    torch.testing.assert_close(trace.z, noise)
    terms = bounds.elbo_terms(trace, x, mask)
    assert terms.kl.abs().max() < 1e-12
    figures = score(twin, x, mask, torch.arange(B), 4, bounds=["fivo", "silenced", "elbo"])
    torch.testing.assert_close(figures["fivo"], figures["silenced"])
    assert not twin.exact and figures["elbo"].lt(figures["fivo"]).any()


def test_one_vector_leaves_an_exact_likelihood(make_twin, batch):
    x, mask = batch
    twin = make_twin("fixed")
    assert twin.exact
    trace = twin.trace(x, mask)
    torch.testing.assert_close(trace.z, twin.fixed.expand_as(trace.z))
    expected = trace.likelihood.log_prob(x).where(mask, 0).sum(0)
    figures = score(twin, x, mask, torch.arange(B), 4, bounds=["elbo", "iwae", "fivo", "silenced"])
    for name in ("elbo", "iwae", "fivo", "silenced"):
        torch.testing.assert_close(figures[name], expected)
    assert (figures["kl"] == 0).all() and "open_loop" not in figures
    drawn = list(zip(range(4), twin.stream(2), strict=False))
    assert all(torch.allclose(frame.z, twin.fixed) for _, frame in drawn)


def test_only_the_encoder_is_untrained(make_twin, batch):
    x, mask = batch
    for latents in ("noise", "fixed"):
        twin = make_twin(latents)
        before = {name: p.clone() for name, p in twin.state_dict().items()}
        optimizer = torch.optim.Adam(twin.parameters(), 0.01)
        for objective in (ELBO(), FIVO(particles=2)):
            result = objective(twin, x, mask, torch.Generator().manual_seed(0), 0)
            result.loss.backward()
            optimizer.step()
        changed = {n for n, p in twin.state_dict().items() if not torch.equal(p, before[n])}
        assert not any("encoder" in name for name in changed)
        assert {"out.weight", "decoder.0.weight"} <= changed


def test_particles_of_noise_find_the_marginal_likelihood():
    """Of one step, against an integral over a grid of z."""
    twin = VRNN(1, 1, 3, GaussianMixture(1), latents="noise")
    spread(twin, 0.2)
    x = torch.tensor([[[0.7]]])
    z = torch.linspace(-8, 8, 4001)
    params = twin.decode(z[:, None], torch.zeros(len(z), 3))
    joint = twin.likelihood(params).log_prob(x[0]) - z.square() / 2 - math.log(2 * math.pi) / 2
    expected = (joint.logsumexp(0) + math.log(16 / 4000)).item()
    found = score(
        twin, x, all_of(x), torch.zeros(1, dtype=torch.long), 20_000, bounds=["elbo", "iwae"]
    )
    assert found["iwae"].item() == pytest.approx(expected, abs=0.02)
    assert found["elbo"].item() < expected - 0.005


@pytest.mark.parametrize("latents", ["noise", "fixed"])
def test_the_fast_loop_runs_twins(batch, latents):
    x, mask = batch
    twin = spread(VRNN(3, 2, 9, PenMixture(components=2), latents=latents, engine="fast"))
    noise = torch.randn(T, B, 2)
    gradients = []
    for engine in ("fast", "plain"):
        twin.engine = engine
        twin.zero_grad()
        bounds.elbo(twin.trace(x, mask, noise=noise), x, mask).sum().backward()
        gradients.append([p.grad for p in twin.parameters() if p.requires_grad])
    torch.testing.assert_close(*gradients)


def test_other_latents_are_refused():
    with pytest.raises(
        ValueError, match="model.latents=none is not one of fixed, inferred, noise"
    ):
        VRNN(3, 2, 8, PenMixture(components=2), latents="none")
