"""The cell over time: the plain loop, which is the specification, and fast ones that equal it."""

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from weakref import WeakSet

import torch
from torch import Tensor

from vrnn.cell import Cell, Step, Unrolled, VRNNCell
from vrnn.engine import native
from vrnn.engine.cell_tape import unroll_fused
from vrnn.engine.cuda_graphs import NotRecordedError, unroll_graph
from vrnn.engine.network_tape import unknown
from vrnn.layers.state import State, copies, particles, top

__all__ = [
    "ENGINES",
    "unroll_fast",
    "unroll_native",
    "unroll_persistent",
    "unroll_plain",
    "unroll_recorded",
    "unroll_split",
]

log = logging.getLogger(__name__)


def unroll_plain(cell: Cell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """Calls `cell.step` T times.

    Shapes: phi_x (T, B, X), u (T, B, U), state of K * B rows, noise (T, K * B, Z).
    """
    return repeat(cell.step, phi_x, u, state, noise)


def unroll_split(cell: Cell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """As `unroll_plain`, with what does not depend on h taken out of the loop.

    Autograd differentiates it.
    """
    return repeat(cell.step_prepared, *cell.prepare(phi_x, u), state, noise)


def repeat(
    step_of: Callable[..., Step], x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    h, steps = [], []
    K = particles(x, noise)
    for x_t, u_t, noise_t in zip(x, u, noise, strict=True):
        h.append(top(state))
        step = step_of(copies(x_t, K), copies(u_t, K), state, noise_t)
        state = step.state
        steps.append(step)
    z, mean, std, phi_z = (torch.stack(parts) for parts in list(zip(*steps, strict=True))[:4])
    return Unrolled(z, mean, std, phi_z, torch.stack(h), state)


def unroll_fast(cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """As `unroll_plain`, by whichever of the ways below is the fastest that runs here.

    `unroll_fused` on a CPU and `unroll_graph` on a GPU; `unroll_split` elsewhere.
    """
    if (reason := reason_against("cpu", cell, phi_x)) is None:
        return unroll_fused(cell, phi_x, u, state, noise)
    if phi_x.device.type == "cpu" and not torch.compiler.is_compiling():
        tell(reason)
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


def unroll_persistent(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_fused`, on a GPU: one kernel runs all steps, forwards or backwards.

    Raises:
        ValueError: where it does not run.
    """
    reason = reason_against("cuda", cell, phi_x)
    if reason is None and find_spec("triton") is None:
        reason = "it needs Triton, which `pip install triton` installs"
    if reason is None:
        from vrnn.engine.triton_program import KernelProgram, NotLaunchedError

        try:
            return unroll_fused(cell, phi_x, u, state, noise, KernelProgram)
        except NotLaunchedError as error:
            reason = str(error)
    raise ValueError(f"model.engine=persistent cannot run: {reason}; choose model.engine=fast")


def reason_against(device: str, cell: VRNNCell, phi_x: Tensor) -> str | None:
    """Why the loop outside autograd that is for `device` does not serve here, if so."""
    if phi_x.device.type != device:
        return f"it runs on a {NAMES[device]}, not on {phi_x.device}"
    if device == "cpu":
        mixed = torch.is_autocast_enabled(device)
        factors = torch.get_autocast_dtype(device) if mixed else phi_x.dtype
        kind = str(factors).removeprefix("torch.")
        if (torch.float32 if mixed else factors, factors) not in native.TYPES:
            return f"it does not compute in {kind}"
        if mixed and not native.serves(phi_x.device, torch.float32, factors):
            return f"in {kind} it needs a processor with AMX or AVX512-BF16 and a C++ compiler"
    if type(cell) is not VRNNCell:
        return f"it is that of VRNNCell, not of {type(cell).__name__}"
    if name := unknown(*cell.children()):
        return f"it does not know {name}"
    return "it is not for torch.compile" if torch.compiler.is_compiling() else None


@cache
def tell(reason: str) -> None:
    """Once in a process."""
    log.warning("The loop over time is autograd's, slower than the compiled one: %s", reason)


NAMES = {"cpu": "CPU", "cuda": "GPU"}

unrecorded: WeakSet[VRNNCell] = WeakSet()
"""Cells whose loop could not be recorded."""

ENGINES: dict[str, Callable[..., Unrolled]] = {
    "fast": unroll_fast,
    "graph": unroll_recorded,
    "native": unroll_native,
    "persistent": unroll_persistent,
    "plain": unroll_plain,
}
