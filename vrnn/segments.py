"""What a bound needs of every step, computed for one segment of time after the other.

The densities of all steps at once are most of a long sequence's memory. A bound is a sum over
steps, and the state carries all that a segment needs of those before it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from vrnn.layers.state import State, copies, particles
from vrnn.models.base import SequenceModel
from vrnn.trace import Trace

__all__ = ["by_segments", "recomputed"]

Terms = Callable[[Trace, Tensor, Tensor], tuple[Tensor, ...]]
"""(trace, x, mask) -> figures of every step, each (T, K * B), as all that is given."""


def by_segments(
    terms: Terms,
    model: SequenceModel,
    x: Tensor,
    mask: Tensor,
    noise: Tensor,
    steps: int | None = None,
    state: State | None = None,
) -> tuple[tuple[Tensor, ...], State]:
    """Computes `terms` of a model's trace.

    Of a segment only the terms and the state are kept. For the gradient it is run again, so that
    with segments of sqrt(T) steps no more than their activations and sqrt(T) states are in memory
    at once, beside the sequence, its noise, and what inference sees of the future.

    Args:
        x, mask, noise, state: as of `SequenceModel.trace`.
        steps: length of a segment; None for the whole sequence at once.

    Returns:
        The terms, each (T, K * B), and the state after step T; values and gradients are the same
        for every `steps`. Only dropout draws anew what it leaves out of the features that
        inference sees of the future, where one segment shares it with the recurrence.
    """
    K = particles(x, noise)
    if steps is None:
        trace = model.trace(x, mask, state, noise)
        return terms(trace, copies(x, K), mask.repeat(1, K)), trace.state
    mask = model.check(x, mask)
    ahead = model.look_ahead(x, mask, state)
    state = model.initial(noise.shape[1]) if state is None else state
    layers = len(state)
    rows = []
    for start in range(0, len(x), steps):
        part = slice(start, start + steps)

        def segment(
            *inputs: Tensor,
            x: Tensor = x[part],
            mask: Tensor = mask[part],
            noise: Tensor = noise[part],
        ) -> tuple[Tensor, ...]:
            u = inputs[layers] if len(inputs) > layers else None
            trace = model.trace(x, mask, inputs[:layers], noise, u)
            return *trace.state, *terms(trace, copies(x, K), mask.repeat(1, K))

        inputs = state if ahead is None else (*state, ahead[part])
        outputs = recomputed(segment, list(model.parameters()), inputs)
        state = outputs[:layers]
        rows.append(outputs[layers:])
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True)), state


def recomputed(
    function: Callable[..., tuple[Tensor, ...]], parameters: Sequence[Tensor], inputs: State
) -> tuple[Tensor, ...]:
    """Calls `function(*inputs)`, which remembers nothing and is called again for its gradient.

    In place of `torch.utils.checkpoint`, which drops only what autograd has saved: a fast loop
    over time keeps its activations itself. And gradients of `parameters`, those that `function`
    uses, go through autograd's graph once, as DDP wants them.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    wanted = [p for p in parameters if p.requires_grad]
    return Recomputed.apply(function, len(inputs), *inputs, *wanted)  # type: ignore[no-untyped-call]


class Recomputed(torch.autograd.Function):
    """A function as one node of autograd's graph."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., tuple[Tensor, ...]], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        kind = tensors[0].device.type
        ctx.function, ctx.count = function, count
        ctx.autocast = torch.autocast(
            kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
        )
        ctx.save_for_backward(*tensors)
        # What dropout leaves out the second time is what it left out the first time.
        ctx.random, ctx.random_of = torch.get_rng_state(), get_device_states(*tensors)
        return function(*tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        inputs = [
            x.detach().requires_grad_(need)
            for x, need in zip(tensors[: ctx.count], ctx.needs_input_grad[2:], strict=False)
        ]
        devices, states = ctx.random_of
        with torch.enable_grad(), ctx.autocast, torch.random.fork_rng(devices):
            torch.set_rng_state(ctx.random)
            set_device_states(devices, states)
            outputs = ctx.function(*inputs)
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
        leaves = [*inputs, *tensors[ctx.count :]]
        wanted = [x for x in leaves if x.requires_grad]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
        )
        return None, None, *(next(found) if x.requires_grad else None for x in leaves)
