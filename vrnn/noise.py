"""The random numbers behind scores: functions of a few numbers, with no state.

Each is numbered by the seed, the split, the sequence, the draw, the step, the latent dimension,
and what it is for. So it is the same whatever the batch, its padding, the process, and the
particles that are drawn at once; on another device to within 1e-5.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SPLITS", "sequence_noise", "sequence_uniform", "splitmix64"]

SPLITS = ("train", "val", "test")
PURPOSES = ("latents", "ancestors")

GAMMA = -0x61C8864680B583EB
"""2**64 over the golden ratio, odd and as a signed number; so are the multipliers."""
MIXING = (30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)
LAST_SHIFT = 31
WORD = 0xFFFFFFFF

BLOCK = {"cpu": 2**14}
"""Words of 64 bits at once, by device: on a CPU few, so that they stay in its cache."""
LARGE_BLOCK = 2**22


def sequence_noise(
    ids: Tensor,
    mask: Tensor,
    z_dim: int,
    draws: range,
    seed: int,
    dtype: torch.dtype,
    split: str = "test",
) -> Tensor:
    """The standard normal noise behind z, by Box and Muller's transform.

    Args:
        ids: (B,), the sequences' numbers in their split.
        mask: (T, B).
        draws: numbers of the draws of the latent trajectory, K of them.
        split: one of `SPLITS`.

    Returns:
        (T, K * B, Z), particle-major, zero on padding; of single precision, whatever `dtype` it is
        in.

    Raises:
        ValueError: if there is no such split, or the seed is negative or above 2**64 - 1.
    """
    noise = filled(normal, ids, mask, z_dim, draws, seed, split, "latents", dtype)
    noise.unflatten(1, (len(draws), -1)).mul_(mask[:, None, :, None])
    return noise


def sequence_uniform(
    ids: Tensor, steps: int, particles: int, seed: int, split: str = "test"
) -> Tensor:
    """The uniform numbers that choose the ancestors of particles, multiples of 2**-24.

    Shapes: ids (B,) -> (T, K, B) in [0, 1).

    Raises:
        ValueError: as of `sequence_noise`.
    """
    mask = ids.new_ones(steps, 1)
    draws = range(particles)
    flat = filled(uniform, ids, mask, 1, draws, seed, split, "ancestors", torch.float32)
    return flat.view(steps, particles, len(ids))


def filled(
    transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ids: Tensor,
    mask: Tensor,
    z_dim: int,
    draws: range,
    seed: int,
    split: str,
    purpose: str,
    dtype: torch.dtype,
) -> Tensor:
    """Draws numbers block by block, (T, K * B, Z). Two steps share 64 random bits."""
    if split not in SPLITS:
        raise ValueError(f"split={split} is not one of {', '.join(SPLITS)}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed of noise must be between 0 and 2**64 - 1, and is {seed}")
    place, steps = mask.device, len(mask)
    # From each number to the next, an output of a generator is the seed of another one.
    key = torch.tensor(seed - 2**64 * (seed >= 2**63), device=place)
    key = splitmix64(key, torch.tensor(SPLITS.index(split), device=place))
    key = splitmix64(key, torch.tensor(PURPOSES.index(purpose), device=place))
    key = splitmix64(splitmix64(key, ids.to(place)), torch.tensor(draws, device=place)[:, None])
    keys = key.flatten()[:, None]
    pairs = torch.arange((steps + 1) // 2, device=place)[:, None, None]
    dimensions = torch.arange(z_dim, device=place)
    values = torch.empty(2 * len(pairs), len(keys), z_dim, dtype=dtype, device=place)

    block = BLOCK.get(place.type, LARGE_BLOCK)
    width = max(1, z_dim)
    columns = max(1, block // width)
    targets = values.unflatten(0, (-1, 2)).split(columns, 2)
    for own, target in zip(keys.split(columns), targets, strict=True):
        rows = max(1, block // (len(own) * width))
        for pair, part in zip(pairs.split(rows), target.split(rows), strict=True):
            bits = splitmix64(splitmix64(own, pair), dimensions)
            for i, drawn in enumerate(transform(bits & WORD, (bits >> 32) & WORD)):
                part[:, i] = drawn
    return values[:steps]


def splitmix64(seed: Tensor, index: Tensor) -> Tensor:
    """Output number `index`, from 0, of the generator SplitMix64 with this seed.

    Shapes: int64, of unsigned 64 bits, that broadcast; outputs of one seed all differ.

    References:
        Fast Splittable Pseudorandom Number Generators (Steele et al., 2014),
        https://doi.org/10.1145/2660193.2660195; the multipliers are variant 13 of Stafford (2011)
    """
    bits = seed + (index + 1) * GAMMA  # int64 wraps
    for shift, multiplier in MIXING:
        bits ^= shifted(bits, shift)
        bits *= multiplier
    bits ^= shifted(bits, LAST_SHIFT)
    return bits


def shifted(bits: Tensor, by: int) -> Tensor:
    """Bits moved down, zeros in their place; torch moves copies of the sign there."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def normal(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers of two words of 32 bits, below 6.8 in size."""
    radius = first.float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = second.float().mul_(2 * math.pi * 2.0**-32)
    return radius * angle.cos(), angle.sin_().mul_(radius)


def uniform(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers in [0, 1) of two words; of the upper 24 bits, which float32 holds exactly."""
    return (first >> 8).float().mul_(2.0**-24), (second >> 8).float().mul_(2.0**-24)
