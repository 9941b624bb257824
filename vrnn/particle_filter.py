"""A particle filter over the one-step cell, which the filtering bound is computed from."""

import torch
from torch import Tensor

from vrnn.layers.state import State, at_least_float32, top
from vrnn.models.latent import LatentModel
from vrnn.trace import USUAL, Particles, Resampling, check_resampling, gaussian

__all__ = ["draw_ancestors", "effective_sample_size", "particle_filter", "take"]


def particle_filter(
    model: LatentModel,
    x: Tensor,
    mask: Tensor,
    noise: Tensor,
    uniform: Tensor,
    resampling: Resampling = USUAL,
    state: State | None = None,
    kl_weight: float = 1.0,
    silenced: bool = False,
) -> Particles:
    r"""Proposes z_t from the posterior, weighs it, and resamples where few particles carry the
    weight.

    The weights may be tempered by beta < 1. The particles that a next window goes on from are
    drawn after step T by the untempered ones, so that bounds of windows add up to one.

    .. math:: w_t^k = w_{t-1}^k \, p(x_t | z_{\le t}^k, x_{<t}) \left[ \frac{p(z_t^k | x_{<t},
        z_{<t}^k)}{q(z_t^k | \cdot)} \right]^\beta

    Args:
        x: standardised frames, (T, B, D).
        mask: (T, B); padding adds nothing.
        noise: standard normal noise behind the proposals, (T, K * B, Z), particle-major.
        uniform: in [0, 1), the choice of ancestors, (T, K, B); systematic resampling reads the
            first of K only.
        state: where the recurrence starts, K * B rows; None for h_0 = 0.
        kl_weight: beta, 1 but in the warm-up of a training.
        silenced: proposes z_t from the prior in place of the posterior, the bootstrap filter.

    Raises:
        ValueError: as of `check_resampling`.

    References:
        Filtering Variational Objectives (Maddison et al., 2017),
        https://arxiv.org/abs/1705.09279

        Novel Approach to Nonlinear/Non-Gaussian Bayesian State Estimation (Gordon et al., 1993),
        for the bootstrap filter, https://doi.org/10.1049/ip-f-2.1993.0015
    """
    check_resampling(resampling)
    how, threshold = resampling
    T, K, B = uniform.shape
    assert noise.shape[:2] == (T, K * B) and x.shape[:2] == (T, B) == mask.shape

    phi_x, u = model.observe(x, mask, state)
    from_x, from_u = (phi_x, u) if silenced else model.cell.prepare(phi_x, u)
    state = model.initial(K * B) if state is None else state
    own = torch.arange(K, device=x.device)[:, None].expand(K, B)
    log_w = owed = at_least_float32(x).new_zeros(K, B)
    rows = []
    noise = model.own_noise(noise)
    # Taken apart at once: the gradient of every [t] would be as large as the whole.
    for t, (from_x_t, from_u_t, noise_t) in enumerate(zip(from_x, from_u, noise, strict=True)):
        h = top(state)
        seen = from_x_t.repeat(K, 1), from_u_t.repeat(K, 1)
        if silenced:
            step = model.cell.step_unseen(seen[0], state, noise_t)
        else:
            step = model.cell.step_prepared(*seen, state, noise_t)
        likelihood = model.likelihood(model.decode_features(step.phi_z, h))
        kl = gaussian(step.mean, step.std).log_prob(step.z)
        kl = kl - gaussian(*model.cell.prior(h)).log_prob(step.z)
        log_alpha = likelihood.log_prob(x[t].repeat(K, 1)) - kl_weight * kl
        log_w = log_w + torch.where(mask[t], log_alpha.unflatten(0, (K, B)), 0.0)
        kl = torch.where(mask[t], kl.unflatten(0, (K, B)), 0.0)
        owed = owed + (kl_weight - 1) * kl

        last = t == T - 1
        ancestors, state, collected = own, step.state, mask.new_full((B,), last)
        # After the last step always: a window goes on from particles of equal weight, or no sum
        # over windows would be a bound.
        if last:
            ancestors = draw_ancestors(log_w + owed, uniform[t], how)
        elif how != "never":
            # Not where a sequence ends: its last weights are the same however long the padding.
            collected = (effective_sample_size(log_w) < threshold * K) & mask[t + 1]
            ancestors = torch.where(collected, draw_ancestors(log_w, uniform[t], how), own)
        if last or how != "never":
            state = take(state, ancestors)
        rows.append((log_w, ancestors, collected, kl))
        if not last:
            log_w, owed = torch.where(collected, 0.0, log_w), owed.gather(0, ancestors)
    log_ws, chosen, when, kls = (torch.stack(part) for part in zip(*rows, strict=True))
    return Particles(log_ws, chosen, when, kls, state, owed)


def effective_sample_size(log_w: Tensor) -> Tensor:
    r"""How many equally weighted particles are worth as much, :math:`(\sum_k w_k)^2 / \sum_k
    w_k^2`.

    Shapes: (*, K, B) -> (*, B), between 1 and K.
    """
    w = log_w.detach().softmax(-2)
    return 1 / w.square().sum(-2)


def draw_ancestors(log_w: Tensor, uniform: Tensor, how: str) -> Tensor:
    """Draws K particles with replacement, by their weights, independently or systematically.

    Shapes: (K, B), (K, B) -> (K, B).
    """
    cumulative = log_w.detach().double().softmax(0).cumsum(0).T.contiguous()
    K = len(log_w)
    uniform = uniform.double()  # In single precision (K - 1 + u) / K may be 1.
    if how == "systematic":
        uniform = (torch.arange(K, device=uniform.device)[:, None] + uniform[:1]) / K
    # Scaled by the sum, which rounding leaves a little off one: no particle without weight is hit.
    places = uniform.T * cumulative[:, -1:]
    return torch.searchsorted(cumulative, places.contiguous(), right=True).T.clamp_max(K - 1)


def take(state: State, ancestors: Tensor) -> State:
    """Gives each particle its ancestor's state. Shapes: (layers, K * B, H), (K, B)."""
    B = ancestors.shape[1]
    index = (ancestors * B + torch.arange(B, device=ancestors.device)).flatten()
    return tuple(s.index_select(1, index) for s in state)
