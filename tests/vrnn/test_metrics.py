"""Means and standard errors over sequences."""

import math

import numpy as np
import pytest
import torch

from vrnn.bounds import BOUNDS
from vrnn.metrics import Scores


def random_rows(n):
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 200, n)
    nats = steps * (2 + 0.3 * rng.standard_normal(n)) + 10 * rng.standard_normal(n)
    return rng.permutation(n), steps, nats


def collect(order, sizes, ids, steps, nats):
    scores = Scores({"standardised": 0.5, "raw": 0.0})
    for rows in np.split(order, np.cumsum(sizes)):
        if len(rows):
            figures = {"elbo": torch.from_numpy(nats[rows])}
            scores.update(torch.from_numpy(ids[rows]), torch.from_numpy(steps[rows]), figures)
    return scores.compute()


def test_means_and_standard_errors_are_numpys_in_any_batching():
    n = 400
    ids, steps, nats = rows = random_rows(n)
    result = collect(np.arange(n), [100, 200], *rows)
    raw = nats - 0.5 * steps
    for key, values in {"elbo": nats, "elbo_raw": raw}.items():
        assert result[key] == pytest.approx(values.mean(), rel=1e-12)
        assert result[f"{key}_se"] == pytest.approx(values.std(ddof=1) / n**0.5, rel=1e-12)
        assert result[f"{key}_per_step"] == pytest.approx(values.sum() / steps.sum(), rel=1e-12)
    assert result["sequences"] == n and result["steps"] == steps.sum()

    order = np.random.default_rng(1).permutation(n)
    assert collect(order, [1, 3, 250], *rows) == result, "bit for bit"

    one = collect(np.arange(1), [], *rows)
    assert one["elbo"] == nats[0] and "elbo_se" not in one

    draws = np.random.default_rng(2).integers(0, n, (4000, n))
    bootstrap = (nats[draws].sum(1) / steps[draws].sum(1)).std()
    assert result["elbo_per_step_se"] == pytest.approx(bootstrap, rel=0.08)
    naive = nats.std() / n**0.5 / steps.mean()
    assert abs(naive - bootstrap) > 0.5 * bootstrap, "or the ratio would not be tested"


def test_twenty_thousand_updates_in_float32_lose_nothing():
    n = 20_000
    values = (1e4 + 100 * torch.randn(n)).float()
    scores = Scores({"standardised": 0.0})
    for i, value in enumerate(values.split(1)):
        scores.update(torch.tensor([i]), torch.tensor([700]), {"elbo": value})
    result = scores.compute()
    exact = math.fsum(values.tolist())
    assert result["elbo"] == pytest.approx(exact / n, rel=1e-14)
    assert result["elbo_per_step"] == pytest.approx(exact / (700 * n), rel=1e-14)


def test_every_density_is_converted_and_a_kl_is_not():
    names = {name for bound in BOUNDS for name in (bound, *BOUNDS[bound].parts)}
    scores = Scores({"standardised": math.log(8.0), "raw": 0.0})
    zeros = {name: torch.zeros(1) for name in names}
    scores.update(torch.tensor([0]), torch.tensor([10]), zeros)
    result = scores.compute()
    for name in names - {"kl"}:
        assert result[f"{name}_raw"] == pytest.approx(-10 * math.log(8.0)), name
    assert "kl_raw" not in result
