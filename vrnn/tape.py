"""The loop over time without autograd inside it, and its gradient as the same loop backwards.

A time step is a list of operations (`vrnn.fused`), a `Tape`. Each knows its own derivative: the
list runs forwards for t = 1..T and backwards for t = T..1, adding to the gradients of what was
read. What is known beforehand comes in for all t at once, and a weight's gradient is formed over
all T * B rows after the loop.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vrnn import native
from vrnn.fused import Bias, Given, Operation, Product, Slot, Start

__all__ = ["Tape"]


class Tape:
    """The operations of a time step, in order, and the slots they work on.

    Args:
        like: gives the rows and the device, (*, K * B, *).
        factors: the data type of what is multiplied.
        steps: T.
        keep: whether to remember all steps, as the backward pass needs, or of outputs only.
    """

    def __init__(self, like: Tensor, factors: torch.dtype, steps: int, keep: bool) -> None:
        self.like, self.factors, self.steps, self.keep = like, factors, steps, keep
        # A product gives what it multiplies, but for compiled ones, which round for themselves.
        self.dtype = like.dtype if native.serves(like.device, like.dtype, factors) else factors
        self.slots: list[Slot] = []
        self.beforehand: list[Operation] = []
        self.operations: list[Operation] = []
        self.outputs: list[Slot] = []

    def slot(
        self,
        width: int,
        boundary: int = 0,
        output: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Slot:
        """Allocates a slot of T + `boundary` steps, in the data type of products or another."""
        steps = self.steps + boundary
        kept = steps if self.keep or output else 1
        shape = kept, self.like.shape[-2], width
        memory = self.like.new_empty(shape, dtype=dtype or self.dtype)
        self.slots.append(Slot(memory.expand(steps, -1, -1)))
        return self.slots[-1]

    def start(self, *operations: Start) -> None:
        self.beforehand.extend(operations)

    def add(self, *operations: Operation) -> None:
        self.operations.extend(operations)

    def add_given(self, x: Tensor, y: Slot) -> None:
        """y_t = x_t, or x where it is the same at all steps. Shapes: (T, B, N) or (N,)."""
        self.early().append(Bias(x, y) if x.ndim == 1 else Given(x, y))

    def add_product(self, x: Slot, weight: Tensor, y: Slot) -> None:
        """y_t += W x_t."""
        self.add(Product(x, weight, y, self.factors))

    def early(self) -> list[Operation]:
        """Where to write what is known: before the loop on a GPU, where every operation costs a
        launch; inside it on a CPU, whose cache keeps it."""
        return self.beforehand if self.keep and self.on_gpu else self.operations

    def player(self) -> Callable[[], None]:
        """What plays the steps again with every call, from the state that the last call left.

        Without gradient; the weights have to stay as they are.
        """
        if not self.compiled:
            return self.forward
        program = self.program(backward=False)
        return lambda: program.run(self.steps)

    def play(self) -> tuple[Tensor, ...]:
        """Runs all steps and returns the outputs, differentiable in all that operations got."""
        given = [operation.given for operation in self.users()]
        return Loop.apply(self, *given)  # type: ignore[no-untyped-call]

    def users(self) -> list[Operation]:
        """The operations that use tensors from outside."""
        operations = self.beforehand + self.operations
        return [operation for operation in operations if operation.given is not None]

    def forward(self) -> None:
        with self.own_precision():
            for operation in self.beforehand:
                operation.ahead()
            if self.compiled:
                return self.program(backward=False).run(self.steps)
            for t in range(self.steps):
                for operation in self.operations:
                    operation.forward(t)

    def backward(self, grads: Iterable[Tensor]) -> None:
        """Computes the gradients of all slots from those of the outputs."""
        for slot in self.slots:
            slot.receive(torch.zeros_like(slot.values))
        for slot, grad in zip(self.outputs, grads, strict=True):
            slot.grads.copy_(grad)
        with self.own_precision():
            if self.compiled:
                self.program(backward=True).run(self.steps)
            else:
                for t in reversed(range(self.steps)):
                    for operation in reversed(self.operations):
                        operation.backward(t)

    def own_precision(self) -> torch.autocast:
        """Leaves every data type as the slots have it."""
        return torch.autocast(self.like.device.type, enabled=False)

    @property
    def on_gpu(self) -> bool:
        return self.like.is_cuda

    @property
    def compiled(self) -> bool:
        kinds = {slot.values.dtype for slot in self.slots}
        return kinds == {self.dtype} and native.serves(self.like.device, self.dtype, self.factors)

    def program(self, backward: bool) -> native.Program:
        """The operations in `loop.cpp`."""
        rows = [operation.native() for operation in self.operations]
        return native.Program(self.dtype, self.factors, rows, self.like.shape[-2], backward)


class Loop(torch.autograd.Function):
    """A tape as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, *given: Tensor) -> Any:
        ctx.tape = tape
        ctx.save_for_backward(*given)
        tape.forward()
        return tuple(slot.values.clone() for slot in tape.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises where a weight has been changed since
        ctx.tape.backward(grads)
        needed = zip(ctx.tape.users(), ctx.needs_input_grad[1:], strict=True)
        return None, *(user.gradient() if need else None for user, need in needed)
