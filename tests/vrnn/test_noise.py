"""The random numbers behind scores: what they are, what they depend on, how they are spread."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from vrnn import VRNN, noise
from vrnn.diagnostics import latent_use
from vrnn.evaluation import BOUNDS, score
from vrnn.noise import SPLITS, sequence_noise, sequence_uniform, splitmix64

IDS = torch.tensor([11, 3, 0, 2**40, 2])


def mask_of(lengths: list[int], steps: int | None = None) -> torch.Tensor:
    return torch.arange(steps or max(lengths))[:, None] < torch.tensor(lengths)


def drawn(steps=7, ids=IDS, z_dim=3, draws=range(1), seed=0, split="test") -> torch.Tensor:
    """Noise without padding, (T, K, B, Z)."""
    mask = torch.ones(steps, len(ids), dtype=torch.bool)
    flat = sequence_noise(ids, mask, z_dim, draws, seed, torch.float32, split)
    return flat.unflatten(1, (len(draws), len(ids)))


def splitmix64_of_integers(seed: int, index: int) -> int:
    """As published, in whole numbers of any size: https://prng.di.unimi.it/splitmix64.c"""
    bits = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def words_of_integers(seed: int, *numbers: int) -> tuple[int, int]:
    """The upper and the lower half of what a chain of seeds ends in."""
    for number in numbers:
        seed = splitmix64_of_integers(seed, number)
    return divmod(seed, 2**32)


def test_the_generator_gives_its_published_numbers():
    published = {
        1234567: [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ],
        0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
    }
    for seed, numbers in published.items():
        ours = splitmix64(torch.tensor(seed), torch.arange(len(numbers)))
        assert [value % 2**64 for value in ours.tolist()] == numbers
        assert [splitmix64_of_integers(seed, i) for i in range(len(numbers))] == numbers


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 + 5, 2**64 - 1])
def test_values_are_those_of_integers_and_double_precision(seed):
    values = drawn(draws=range(2, 4), seed=seed, split="val")
    for t, k, b, d in np.ndindex(*values.shape):
        key = 1, 0, int(IDS[b]), k + 2, t // 2, d
        upper, lower = words_of_integers(seed, *key)
        radius = math.sqrt(-2 * math.log((lower + 0.5) / 2**32))
        wave = math.sin if t % 2 else math.cos
        expected = radius * wave(2 * math.pi * upper / 2**32)
        assert values[t, k, b, d].item() == pytest.approx(expected, abs=3e-6)
    values = sequence_uniform(IDS, 7, 6, seed, "train")
    for t, k, b in np.ndindex(*values.shape):
        upper, lower = words_of_integers(seed, 0, 1, int(IDS[b]), k, t // 2, 0)
        assert values[t, k, b].item() == ((upper if t % 2 else lower) >> 8) / 2**24


def test_the_extremes_are_finite_and_far_out():
    words = torch.tensor([0, 1, 2**31, 2**32 - 1])
    first, second = noise.normal(words.repeat_interleave(4), words.repeat(4))
    assert torch.stack([first, second]).isfinite().all()
    assert first.max().item() == pytest.approx(math.sqrt(66 * math.log(2)))
    for values in noise.uniform(words, words):
        assert 0 <= values.min() and values.max() < 1


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
def test_noise_depends_on_its_numbers_only(block, monkeypatch):
    """Exactly: not on blocks, company, order, padding, draws at once, or other dimensions."""
    K, Z = 5, 3
    whole = drawn(9, draws=range(K), z_dim=Z, seed=4, split="val")
    uniform = sequence_uniform(IDS, 9, K, 4, "val")
    monkeypatch.setitem(noise.BLOCK, "cpu", block)
    order, lengths = [3, 1, 4, 0, 2], [5, 2, 9, 1, 4]
    together = sequence_noise(
        IDS[order], mask_of(lengths, 12), Z, range(1, K), 4, torch.float64, "val"
    ).unflatten(1, (K - 1, 5))
    assert together.shape == (12, K - 1, 5, Z) and together.dtype == torch.float64
    for column, (b, n) in enumerate(zip(order, lengths, strict=True)):
        assert torch.equal(together[:n, :, column], whole[:n, 1:, b].double())
        assert (together[n:, :, column] == 0).all(), "padding"
        alone = drawn(n, IDS[b : b + 1], 2, range(2, 3), 4, "val")
        assert torch.equal(alone[:, 0, 0], whole[:n, 2, b, :2])
        own = sequence_uniform(IDS[b : b + 1], n, 3, 4, "val")
        assert torch.equal(own[:, :, 0], uniform[:n, :3, b])


def test_no_two_numbers_are_the_same_by_more_than_chance():
    """Over all splits, both purposes, and some seeds: of 64 bits none meets another."""
    shape = 4, torch.arange(5), 6, range(7)
    parts = [
        drawn(*shape, seed, split)[::2].double() + 7 * drawn(*shape, seed, split)[1::2].double()
        for seed in range(3)
        for split in SPLITS
    ]
    parts += [
        pair[0] + pair[1] * 2.0**-24
        for seed in range(3)
        for split in SPLITS
        for pair in sequence_uniform(torch.arange(5), 40, 10, seed, split).double().split(2)
    ]
    values = torch.cat([part.flatten() for part in parts])
    assert len(values) == 9 * (2 * 5 * 6 * 7 + 20 * 50) and len(values.unique()) == len(values)
    # The same bits behind both purposes would show in the lower word, which is the radius.
    seeds = torch.arange(5), 40, 10
    first = drawn(40, seeds[0], 1, range(10))[::2, ..., 0].double()
    second = drawn(40, seeds[0], 1, range(10))[1::2, ..., 0].double()
    lower = (-(first.square() + second.square()) / 2).exp().flatten()
    uniform = sequence_uniform(*seeds, 0)[::2].double().flatten()
    assert abs(np.corrcoef(lower, uniform)[0, 1]) < 4 / math.sqrt(len(lower))
    assert (lower - uniform).abs().median() > 0.2


def test_the_numbers_are_spread_as_they_should_be():
    values = drawn(500, torch.arange(20), 8, range(10)).flatten().double().numpy()
    n = len(values)
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(stats.skew(values)) < 4 * math.sqrt(6 / n)
    assert abs(stats.kurtosis(values)) < 4 * math.sqrt(24 / n)
    assert stats.kstest(values, "norm").pvalue > 0.01
    for bound in (3.0, 4.0):
        expected = 2 * stats.norm.sf(bound) * n
        assert abs((abs(values) > bound).sum() - expected) < 4 * math.sqrt(expected)
    uniform = sequence_uniform(torch.arange(20), 500, 10, 0)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert stats.kstest(uniform.flatten().double().numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("lag", [1, 2, 3, 8])
def test_neighbours_are_independent(lag):
    """In value and in size, whichever of the numbers differs."""
    base = drawn(60, torch.arange(20), 10, range(10))
    pairs = {axis: (base.narrow(axis, lag, base.shape[axis] - lag), base) for axis in range(4)}
    pairs = {axis: (a, b.narrow(axis, 0, a.shape[axis])) for axis, (a, b) in pairs.items()}
    pairs["seed"] = drawn(60, torch.arange(20), 10, range(10), seed=lag), base
    pairs["split"] = drawn(60, torch.arange(20), 10, range(10), split=SPLITS[lag % 2]), base
    pairs["step and sequence"] = base[lag:, :, :-lag], base[:-lag, :, lag:]
    pairs["draw and sequence"] = base[:, lag:, :-lag], base[:, :-lag, lag:]
    for name, (a, b) in pairs.items():
        for change in (torch.Tensor.double, torch.Tensor.square):
            one, other = (change(v).flatten().double().numpy() for v in (a, b))
            correlation = np.corrcoef(one, other)[0, 1]
            assert abs(correlation) < 4 / math.sqrt(len(one)), (name, change)


def test_an_unknown_split_and_impossible_seeds_are_refused():
    with pytest.raises(ValueError, match="split=dev is not one of train, val, test"):
        drawn(split="dev")
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=f"between 0 and 2\\*\\*64 - 1, and is {seed}"):
            drawn(seed=seed)


@torch.no_grad()
def test_every_bound_has_other_noise_in_another_split(make_model):
    model, x, mask, ids = make_model(VRNN), torch.randn(9, 2, 3), mask_of([9, 6]), IDS[:2]
    test, same, val = (
        score(model, x, mask, ids, 3, bounds=list(BOUNDS), **options)
        for options in ({}, {"split": "test"}, {"split": "val"})
    )
    for name, value in test.items():
        assert torch.equal(value, same[name]) and not torch.isclose(value, val[name]).any(), name
    uses = [latent_use(model, x, mask, ids, split=split) for split in ("test", "val")]
    assert not torch.isclose(uses[0].kl, uses[1].kl).any()
    assert not torch.isclose(uses[0].effective[1:], uses[1].effective[1:]).any()
