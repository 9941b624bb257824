"""The cell over time: the plain loop, which is the specification, and a fast one that equals it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vrnn.cell import VRNNCell
from vrnn.networks import State, at_least_float32, positive, top

__all__ = ["ENGINES", "Unrolled", "unroll_fast", "unroll_plain"]


class Unrolled(NamedTuple):
    """What the loop leaves behind; everything else of the model is computed from it for all t at once."""

    z: Tensor
    """(T, B, Z), drawn from the posterior."""
    mean: Tensor
    """(T, B, Z), of the posterior."""
    std: Tensor
    """(T, B, Z), of the posterior."""
    phi_z: Tensor
    """(T, B, F), features of z."""
    h: Tensor
    """(T, B, H), h_{t-1}: what prior and decoder of step t see."""
    state: State
    """State after step T."""


def unroll_plain(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """Calls `cell.step` T times. Shapes: phi_x (T, B, X), u (T, B, U), noise (T, B, Z)."""
    h, steps = [], []
    for phi_x_t, u_t, noise_t in zip(phi_x, u, noise, strict=True):
        h.append(top(state))
        step = cell.step(phi_x_t, u_t, state, noise_t)
        state = step.state
        steps.append(step)
    z, mean, std = (torch.stack(parts) for parts in list(zip(*steps, strict=True))[:3])
    return Unrolled(z, mean, std, cell.phi_z(z), torch.stack(h), state)


def unroll_fast(cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """As `unroll_plain`, with every product that does not depend on h taken out of the loop.

    The first layer of the encoder and the gates of the recurrence are linear in their parts, so
    the shares of u and phi_x are formed for all t at once.
    """
    first, *rest = cell.encoder.hidden
    encoder_u, encoder_h = first.weight.split([u.shape[-1], cell.rnn.hidden], dim=1)
    from_u = F.linear(u, encoder_u, first.bias)

    gates_x, gates_z = cell.rnn.input_weights[0].split(
        [phi_x.shape[-1], cell.rnn.inputs - phi_x.shape[-1]], dim=1
    )
    from_x = F.linear(phi_x, gates_x, cell.rnn.biases[0])

    h, z, out, phi_z = [], [], [], []
    for from_u_t, from_x_t, noise_t in zip(from_u, from_x, noise, strict=True):
        h.append(top(state))
        hidden = from_u_t + F.linear(h[-1], encoder_h)
        for layer in rest:
            hidden = layer(hidden)
        out.append(cell.encoder.out(hidden))
        mean, a = out[-1].chunk(2, dim=-1)
        z.append(at_least_float32(mean) + positive(a) * noise_t)
        phi_z.append(cell.phi_z(z[-1]))
        state = cell.rnn.step_from_gates(from_x_t + F.linear(phi_z[-1], gates_z), state)
    mean, a = torch.stack(out).chunk(2, dim=-1)
    return Unrolled(
        torch.stack(z),
        at_least_float32(mean),
        positive(a),
        torch.stack(phi_z),
        torch.stack(h),
        state,
    )


ENGINES: dict[str, Callable[..., Unrolled]] = {"fast": unroll_fast, "plain": unroll_plain}
