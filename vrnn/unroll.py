"""The cell over time: the plain loop, which is the specification, and fast ones that equal it."""

import logging
from collections.abc import Callable
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor

from vrnn import native
from vrnn.cell import Cell, Unrolled, VRNNCell
from vrnn.cell_tape import dense_layers, unroll_fused
from vrnn.fused import UPDATES
from vrnn.graphs import NotRecordedError, unroll_graph
from vrnn.networks import State, at_least_float32, positive, top

__all__ = ["ENGINES", "unroll_fast", "unroll_native", "unroll_plain", "unroll_split"]

log = logging.getLogger(__name__)


def unroll_plain(cell: Cell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """Calls `cell.step` T times. Shapes: phi_x (T, B, X), u (T, B, U), noise (T, B, Z)."""
    h, steps = [], []
    for phi_x_t, u_t, noise_t in zip(phi_x, u, noise, strict=True):
        h.append(top(state))
        step = cell.step(phi_x_t, u_t, state, noise_t)
        state = step.state
        steps.append(step)
    z, mean, std, phi_z = (torch.stack(parts) for parts in list(zip(*steps, strict=True))[:4])
    return Unrolled(z, mean, std, phi_z, torch.stack(h), state)


def unroll_split(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_plain`, with every product that does not depend on h taken out of the loop.

    The first layer of the encoder and the gates of the recurrence are linear in their parts, so
    the shares of u and phi_x are formed for all t at once. Autograd differentiates it.
    """
    first, *rest = dense_layers(cell.encoder.hidden)
    encoder_u, encoder_h = first.weight.split([u.shape[-1], cell.rnn.hidden], dim=1)
    from_u = F.linear(u, encoder_u, first.bias)

    gates_x, gates_z = cell.rnn.input_weights[0].split(
        [phi_x.shape[-1], cell.rnn.inputs - phi_x.shape[-1]], dim=1
    )
    from_x = F.linear(phi_x, gates_x, cell.rnn.biases[0])

    h, z, means, stds, phi_z = [], [], [], [], []
    for from_u_t, from_x_t, noise_t in zip(from_u, from_x, noise, strict=True):
        h.append(top(state))
        hidden = from_u_t + F.linear(h[-1], encoder_h)
        for layer in rest:
            hidden = layer(hidden.relu())
        mean, a = cell.encoder.out(hidden.relu()).chunk(2, dim=-1)
        mean = at_least_float32(mean)
        means.append(mean + cell.prior(h[-1])[0] if cell.residual else mean)
        stds.append(positive(a))
        z.append(means[-1] + stds[-1] * noise_t)
        phi_z.append(cell.phi_z(z[-1]))
        state = cell.rnn.step_from_gates(from_x_t + F.linear(phi_z[-1], gates_z), state)
    z_all, mean_all, std_all, phi_z_all, h_all = map(torch.stack, (z, means, stds, phi_z, h))
    return Unrolled(z_all, mean_all, std_all, phi_z_all, h_all, state)


def unroll_fast(cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """As `unroll_plain`, by whichever of the ways below is the fastest that runs here.

    `unroll_fused` on a CPU, but for mixed precision, and `unroll_graph` on a GPU; `unroll_split`
    elsewhere.
    """
    if not reason_against("cpu", cell, phi_x):
        return unroll_fused(cell, phi_x, u, state, noise)
    if not reason_against("cuda", cell, phi_x) and cell not in unrecorded:
        try:
            return unroll_graph(cell, phi_x, u, state, noise)
        except NotRecordedError as error:
            unrecorded.add(cell)
            log.warning("The loop over time is launched in parts, which takes longer: %s", error)
    return unroll_split(cell, phi_x, u, state, noise)


def unroll_native(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_fused`, but refuses to do with anything less than the compiled loop.

    Raises:
        ValueError: where the loop cannot be compiled or does not serve the device or precision.
    """
    reason = reason_against("cpu", cell, phi_x)
    if reason is None and phi_x.dtype not in native.RUNNERS:
        reason = f"it does not compute in {str(phi_x.dtype).removeprefix('torch.')}"
    if reason is None and native.library() is None:
        reason = "it could not be compiled, for the reason logged above"
    if reason is not None:
        raise ValueError(f"model.engine=native cannot run: {reason}; choose model.engine=fast")
    return unroll_fused(cell, phi_x, u, state, noise)


def unroll_recorded(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_graph`.

    Raises:
        ValueError: where the loop cannot be recorded or is not on a GPU.
    """
    try:
        if reason := reason_against("cuda", cell, phi_x):
            raise NotRecordedError(reason)
        return unroll_graph(cell, phi_x, u, state, noise)
    except NotRecordedError as error:
        sentence = f"model.engine=graph cannot run: {error}; choose model.engine=fast"
        raise ValueError(sentence) from error


def reason_against(device: str, cell: VRNNCell, phi_x: Tensor) -> str | None:
    """Why the loop outside autograd that is for `device` does not serve here, if so."""
    if phi_x.device.type != device:
        return f"it runs on a {NAMES[device]}, not on {phi_x.device}"
    if device == "cpu" and torch.is_autocast_enabled(device):
        return "it knows no mixed precision"
    if type(cell.rnn) not in UPDATES:
        return f"it has no update for {type(cell.rnn).__name__}"
    return "it is not for torch.compile" if torch.compiler.is_compiling() else None


NAMES = {"cpu": "CPU", "cuda": "GPU"}

unrecorded: WeakSet[VRNNCell] = WeakSet()
"""Cells whose loop could not be recorded."""

ENGINES: dict[str, Callable[..., Unrolled]] = {
    "fast": unroll_fast,
    "graph": unroll_recorded,
    "native": unroll_native,
    "plain": unroll_plain,
}
