"""The loop over time as CUDA graphs: some of its steps are recorded once, and launched at once.

A step is two dozen small kernels, and a GPU is done with each of them before Python has launched
the next. A graph holds addresses in place of tensors, so a stretch of steps works on memory of its
own, into which its inputs and, for the gradient, its activations are copied.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vrnn.cell import Unrolled, VRNNCell
from vrnn.engine.cell_tape import read, write
from vrnn.layers.state import State

__all__ = ["NotRecordedError", "STEPS", "unroll_graph"]

STEPS = 20
"""Steps of a recorded stretch; the steps that are left over run kernel by kernel."""

KEPT = 8
"""Stretches that a cell keeps: for batches of different sizes, with gradient and without."""

stretches: WeakKeyDictionary[VRNNCell, dict[tuple[Any, ...], "Stretch"]] = WeakKeyDictionary()


class NotRecordedError(RuntimeError):
    """The loop cannot be recorded on this machine, for the reason given."""


def unroll_graph(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `vrnn.engine.cell_tape.unroll_fused`, launched a stretch at a time.

    Raises:
        NotRecordedError: where a stretch cannot be recorded.
    """
    parameters = [p for p in cell.parameters() if p.requires_grad]
    sequences = [noise, *cell.prepare(phi_x, u)]
    parts = []
    for start in range(0, len(noise), STEPS):
        now = [x[start : start + STEPS] for x in sequences]
        if len(now[0]) == STEPS:
            stretch = recorded(cell, now, state)
            # The parameters are for autograd: the stretch knows where they are.
            outputs = Replay.apply(stretch, *now, *state, *parameters)  # type: ignore[no-untyped-call]
        else:
            outputs = write(cell, now[1], now[2], state, now[0]).play()
        parts.append(read(cell, *outputs))
        state = parts[-1].state
    *values, _ = zip(*parts, strict=True)
    z, mean, std, phi_z, h = map(torch.cat, values)
    return Unrolled(z, mean, std, phi_z, h, state)


def recorded(cell: VRNNCell, sequences: Sequence[Tensor], state: State) -> "Stretch":
    """The stretch for batches of this kind, recorded when first asked for."""
    known = stretches.setdefault(cell, {})
    kinds = [(x.shape, x.dtype, x.device) for x in (*sequences, state[0])]
    places = [(p.data_ptr(), p.requires_grad) for p in cell.parameters()]
    keep = torch.is_grad_enabled()
    key = (keep, *kinds, *places)
    if key not in known:
        if len(known) >= KEPT:
            del known[next(iter(known))]
        # Its memory may be written in both modes, in which it may be asked for again.
        with torch.inference_mode(False), torch.set_grad_enabled(keep):
            known[key] = Stretch(cell, sequences, state)
    return known[key]


class Stretch:
    """Steps of a cell, forwards and backwards, on memory of their own.

    Args:
        sequences: noise (S, K * B, Z) and what the cell prepared, (S, B, *) each.
        state: that before the first step.
    """

    def __init__(self, cell: VRNNCell, sequences: Sequence[Tensor], state: State) -> None:
        self.keep = torch.is_grad_enabled()
        self.inputs = [x.detach().clone().requires_grad_(self.keep) for x in (*sequences, *state)]
        noise, from_x, from_u, *start = self.inputs

        def forward() -> tuple[Tensor, ...]:
            self.tape = write(cell, from_x, from_u, tuple(start), noise)
            return self.tape.play()

        self.forward, self.outputs = record(forward)
        if self.keep:
            wanted = [*self.inputs, *(p for p in cell.parameters() if p.requires_grad)]
            self.grads = [torch.ones_like(y) for y in self.outputs]

            def backward() -> tuple[Tensor, ...]:
                # With zeros for the weights of what was prepared.
                return torch.autograd.grad(
                    self.outputs,
                    wanted,
                    self.grads,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )

            self.backward, self.found = record(backward)

    @property
    def memory(self) -> list[Tensor]:
        """What the backward pass reads of the forward one."""
        return [self.inputs[0], *(slot.values for slot in self.tape.slots)]


class Replay(torch.autograd.Function):
    """A recorded stretch as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, stretch: Stretch, *given: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_(stretch.inputs, list(given[: len(stretch.inputs)]))
        stretch.forward.replay()
        if stretch.keep:
            ctx.stretch, ctx.memory = stretch, [x.clone() for x in stretch.memory]
            ctx.save_for_backward(*given)
        return tuple(y.clone() for y in stretch.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises where a weight has been changed since
        stretch: Stretch = ctx.stretch
        torch._foreach_copy_([*stretch.memory, *stretch.grads], [*ctx.memory, *grads])
        stretch.backward.replay()
        found = zip(stretch.found, ctx.needs_input_grad[1:], strict=True)
        return None, *(x.clone() if need else None for x, need in found)


def record(
    function: Callable[[], tuple[Tensor, ...]],
) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """Records what `function` does on the GPU.

    Returns:
        The graph, and the tensors that `function` returned, which every replay fills anew.

    Raises:
        NotRecordedError: where that fails, or a replay gives other values than a call.
    """
    aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    try:
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # Compiles and allocates what may not be while recording.
            expected = [x.clone() for x in function()]
        torch.cuda.current_stream().wait_stream(aside)
        # Other threads, such as those of NCCL, may go on using the device.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = function()
        graph.replay()
    except RuntimeError as error:
        raise NotRecordedError(str(error).splitlines()[0]) from error
    for x, y in zip(results, expected, strict=True):
        if not torch.allclose(x, y, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise NotRecordedError("recorded, it gave other values")
    return graph, results
