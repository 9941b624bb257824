"""Fixtures that several test modules share."""

import os

# Small models are fastest on one thread, and several processes then do not wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support.helpers import Command

from vrnn import DMM, RNN, SRNN, STORN, VRNN
from vrnn.likelihoods import Bernoulli, GaussianMixture, PenMixture

WIDTHS = {"phi_x_dim": 5, "decoder_dim": 7}
"""All widths differ, so that no two can be mistaken for each other unnoticed."""

LATENT_WIDTHS = {
    RNN: {},
    VRNN: {"z_dim": 2, "phi_z_dim": 4, "encoder_dim": 6, "prior_dim": 8},
    SRNN: {"z_dim": 2, "encoder_dim": 6, "prior_dim": 8},
    STORN: {"z_dim": 2, "encoder_dim": 6},
    DMM: {"z_dim": 2, "prior_dim": 8},
}

MODELS = {
    "filtering-lstm": (VRNN, PenMixture(components=3), {}),
    "filtering-gru-deep": (
        VRNN,
        GaussianMixture(3, 2),
        {"rnn": "gru", "rnn_layers": 2, "mlp_layers": 2},
    ),
    "filtering-standard-prior": (VRNN, GaussianMixture(3), {"prior": "standard"}),
    "smoothing-lstm-deep": (
        VRNN,
        PenMixture(components=1),
        {"posterior": "smoothing", "rnn_layers": 2, "mlp_layers": 2},
    ),
    "smoothing-gru": (VRNN, Bernoulli(3), {"posterior": "smoothing", "rnn": "gru"}),
    "srnn-smoothing": (SRNN, PenMixture(components=3), {"mlp_layers": 2}),
    "srnn-filtering": (SRNN, Bernoulli(3), {"posterior": "filtering", "residual": False}),
    "srnn-filtering-lstm": (SRNN, GaussianMixture(3), {"posterior": "filtering", "rnn": "lstm"}),
    "storn-filtering": (STORN, GaussianMixture(3, 2), {}),
    "storn-smoothing": (STORN, PenMixture(components=3), {"posterior": "smoothing"}),
    "storn-lstm": (STORN, GaussianMixture(3), {"rnn": "lstm"}),
    "dmm": (DMM, GaussianMixture(3, 2), {}),
    "dmm-deep": (DMM, Bernoulli(3), {"mlp_layers": 2}),
    "rnn-lstm-deep": (RNN, GaussianMixture(3, 2), {"rnn_layers": 2}),
    "rnn-gru": (RNN, PenMixture(components=3), {"rnn": "gru", "mlp_layers": 2}),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def float64():
    """Makes float64 torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def make_model():
    """Builds a small model whose weights are large enough for every input to matter."""

    def make(kind=VRNN, likelihood=None, spread=0.4, **options):
        likelihood = likelihood or GaussianMixture(3)
        widths = WIDTHS | LATENT_WIDTHS[kind]
        model = kind(
            **(widths | {"x_dim": likelihood.x_dim, "hidden": 9} | options), likelihood=likelihood
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
                if parameter.ndim == 1:
                    parameter.add_(1.0)  # Else all units of a small layer may be off at once.
        return model

    return make


@pytest.fixture(params=MODELS)
def any_model(request, make_model):
    """Each kind of model in turn, frames of three numbers."""
    kind, likelihood, options = MODELS[request.param]
    return make_model(kind, likelihood, **options)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capfd)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
