"""What inference makes of single sequences, and sequences that differ in one thing only."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from datamodules.base import collate
from vrnn.layers.state import State, top
from vrnn.models.base import SequenceModel
from vrnn.models.latent import LatentModel
from vrnn.noise import sequence_noise
from vrnn.trace import per_dimension

__all__ = ["Inferred", "continued", "decoded", "drawn", "infer", "state_after"]


class Inferred(NamedTuple):
    """The latents of one sequence of T frames, under one draw of its trajectory."""

    x: np.ndarray
    """(T, D), the sequence itself, raw."""
    mean: np.ndarray
    """(T, Z), of the posterior."""
    std: np.ndarray
    """(T, Z), of the posterior."""
    prior_mean: np.ndarray
    """(T, Z)."""
    prior_std: np.ndarray
    """(T, Z)."""
    kl: np.ndarray
    """(T, Z), KL(q_t || prior_t) of single dimensions, nats."""
    h: np.ndarray
    """(T, H), h_{t-1}: what prior and decoder of step t see."""


@torch.no_grad()
def infer(
    model: LatentModel, sequences: Sequence[np.ndarray], ids: Sequence[int], seed: int = 0
) -> list[Inferred]:
    """Runs inference over raw sequences (T_i, D).

    Args:
        ids: their numbers in the test split, which fix their noise: with the seed of a run, KL and
            latents are those behind its scores.
    """
    x, mask = padded(model, sequences)
    noise = sequence_noise(torch.tensor(ids), mask, model.z_dim, range(1), seed, x.dtype)
    phi_x, u = model.observe(x, mask)
    steps = model.unroll(phi_x, u, model.initial(len(ids)), model.own_noise(noise))
    trace = model.densities(steps, u)
    assert trace.posterior is not None and trace.prior is not None
    q, p = per_dimension(trace.posterior), per_dimension(trace.prior)
    parts = [q.mean, q.stddev, p.mean, p.stddev, kl_divergence(q, p), steps.h]
    arrays = [part.expand(*mask.shape, -1).cpu().numpy() for part in parts]
    return [
        Inferred(np.asarray(s), *(a[: len(s), b] for a in arrays)) for b, s in enumerate(sequences)
    ]


def padded(model: SequenceModel, sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Raw sequences (T_i, D) as standardised x (T, B, D) and mask (T, B)."""
    affine = (part.cpu().numpy() for part in (model.normaliser.shift, model.normaliser.scale))
    batch = collate(list(sequences), np.arange(len(sequences)), *affine)
    place = model.out.weight.device
    return batch.x.to(place), batch.mask.to(place)


@torch.no_grad()
def state_after(model: SequenceModel, sequence: np.ndarray) -> State:
    """The state after a raw sequence (T, D), every z_t the mean of its posterior; B = 1."""
    x, mask = padded(model, [sequence])
    return model.trace(x, mask, noise=x.new_zeros(len(x), 1, model.z_dim)).state


def drawn(model: SequenceModel, steps: int, seed: int, shift: Tensor) -> np.ndarray:
    r"""Generates a sequence whose latents are pushed off the prior, raw, (T, D).

    .. math:: z_t = \mu_{0,t} + \sigma_{0,t} (\epsilon_t + shift)

    With a shift of 0 it is `model.generate(steps, 1, seed=seed)`; with another one, all noise is
    still the same.

    Args:
        shift: (Z,), in standard deviations of the prior.
    """
    return frames(model, model.initial(1), [shift] * steps, seed)


def continued(model: SequenceModel, state: State, steps: int, seed: int) -> np.ndarray:
    """Generates from a state, B = 1, on, raw, (T, D); the same noise from whatever state."""
    return frames(model, state, [torch.zeros(model.z_dim)] * steps, seed)


def decoded(model: SequenceModel, z: np.ndarray, seed: int) -> np.ndarray:
    """Draws frames given latents (T, Z) from h_0 = 0 on, raw, (T, D); the same noise for whatever
    latents."""
    return frames(model, model.initial(1), torch.from_numpy(z), seed, given=True)


@torch.no_grad()
def frames(
    model: SequenceModel,
    state: State,
    latents: Iterable[Tensor],
    seed: int,
    given: bool = False,
) -> np.ndarray:
    """`model.stream` for a single sequence, the latents, (Z,) each, shifted or given."""
    place = model.out.weight.device
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        rows = ((z[None].to(state[0]), torch.randn(1, model.z_dim).to(state[0])) for z in latents)
        if given:
            drawn = list(decode_all(model, state, (row for row, _ in rows)))
        else:
            drawn = [frame.x for frame in model.frames(state, (e + row for row, e in rows))]
    raw: np.ndarray = model.normaliser.raw(torch.cat(drawn)).cpu().numpy()
    return raw


def decode_all(model: SequenceModel, state: State, latents: Iterable[Tensor]) -> Iterator[Tensor]:
    for z in latents:
        x = model.likelihood.draw(model.decode(z, top(state)))
        yield x
        state = model.advance(x, z, state)
