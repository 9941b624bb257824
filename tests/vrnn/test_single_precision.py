"""What is float32 in use, and not in the tests of mathematics, which are of float64."""

import math

import pytest
import torch

from vrnn import VRNN
from vrnn.bounds import BOUNDS, elbo_terms, log_weights
from vrnn.evaluation import score
from vrnn.noise import sequence_noise


@torch.no_grad()
def test_scores_are_summed_in_double(make_model):
    model, ids = make_model(VRNN), torch.zeros(1, dtype=torch.int64)
    x, mask = torch.randn(3000, 1, 3), torch.ones(3000, 1, dtype=torch.bool)
    figures = score(model, x, mask, ids, bounds=list(BOUNDS))

    noise = sequence_noise(ids, mask, 2, range(1), 0, x.dtype)
    trace, free = model.trace(x, mask, noise=noise), model.open_loop(x, mask, noise)
    log_p, kl = elbo_terms(trace, x, mask)
    weights, (log_p_free, kl_free) = log_weights(trace, x, mask), elbo_terms(free, x, mask)
    terms = {
        "log_likelihood": log_p,
        "kl": kl,
        "iwae": weights,
        "paper": weights,
        "open_loop": log_p_free - kl_free,
    }
    for name, term in terms.items():
        assert figures[name].item() == pytest.approx(math.fsum(term[:, 0].tolist()), rel=1e-9), (
            name
        )
    assert all(value.dtype == torch.float64 for value in figures.values())
