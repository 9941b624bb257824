"""The loop over time without autograd inside it, and its gradient as the same loop backwards.

A time step is a list of operations (`vrnn.engine.operations`), a `Tape`. Each knows its own
derivative: the list runs forwards for t = 1..T and backwards for t = T..1, adding to the gradients
of what was read. What is known beforehand comes in for all t at once, and a weight's gradient is
formed over all T * B rows after the loop.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vrnn.engine import native
from vrnn.engine.operations import Bias, Given, Operation, Product, Slot, Start

__all__ = ["ALIGNED", "Program", "Programs", "Tape"]

ALIGNED = 16
"""Columns, of which programs find whole multiples in memory, the last ones zero."""


class Program(Protocol):
    """Operations, or their derivatives, that run without Python in between."""

    def run(self, steps: int) -> None: ...


Programs = Callable[[Sequence[Operation], int, bool], Program]
"""What makes a program of operations on K * B rows, or with True of their derivatives."""


class Tape:
    """The operations of a time step, in order, and the slots they work on.

    Args:
        like: gives the rows and the device, (*, K * B, *).
        factors: the data type of what is multiplied.
        steps: T.
        keep: whether to remember all steps, as the backward pass needs, or of outputs only.
        programs: what runs them, in place of `vrnn.engine.native` and Python.
    """

    def __init__(
        self,
        like: Tensor,
        factors: torch.dtype,
        steps: int,
        keep: bool,
        programs: Programs | None = None,
    ) -> None:
        self.like, self.factors, self.steps, self.keep = like, factors, steps, keep
        self.programs = programs
        # A product gives what it multiplies, but for those of vrnn.engine.native, which round.
        rounds = programs is None and native.serves(like.device, like.dtype, factors)
        self.dtype = like.dtype if rounds else factors
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
        memory = self.memory(kept, width, dtype or self.dtype)
        self.slots.append(Slot(memory.expand(steps, -1, -1)))
        return self.slots[-1]

    def memory(self, steps: int, width: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised, or for programs zero, with rows of whole multiples of `ALIGNED`."""
        shape = steps, self.like.shape[-2]
        if self.programs is None:
            return self.like.new_empty(*shape, width, dtype=dtype)
        columns = -(-width // ALIGNED) * ALIGNED
        return self.like.new_zeros(*shape, columns, dtype=dtype)[..., :width]

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
        program = self.program(backward=False)
        return self.forward if program is None else lambda: program.run(self.steps)

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
            if program := self.program(backward=False):
                return program.run(self.steps)
            for t in range(self.steps):
                for operation in self.operations:
                    operation.forward(t)

    def backward(self, grads: Iterable[Tensor]) -> None:
        """Computes the gradients of all slots from those of the outputs."""
        for slot in self.slots:
            steps, _, width = slot.values.shape
            slot.receive(self.memory(steps, width, slot.values.dtype).zero_())
        for slot, grad in zip(self.outputs, grads, strict=True):
            slot.grads.copy_(grad)
        with self.own_precision():
            if program := self.program(backward=True):
                return program.run(self.steps)
            for t in reversed(range(self.steps)):
                for operation in reversed(self.operations):
                    operation.backward(t)

    def own_precision(self) -> torch.autocast:
        """Leaves every data type as the slots have it."""
        return torch.autocast(self.like.device.type, enabled=False)

    @property
    def on_gpu(self) -> bool:
        return self.like.is_cuda

    def program(self, backward: bool) -> Program | None:
        """The operations, or their derivatives, as a program, where there is one for them."""
        rows = self.like.shape[-2]
        if self.programs is not None:
            return self.programs(self.operations, rows, backward)
        kinds = {slot.values.dtype for slot in self.slots}
        serves = native.serves(self.like.device, self.dtype, self.factors)
        if kinds != {self.dtype} or not serves:
            return None
        operations = [operation.native() for operation in self.operations]
        return native.NativeProgram(self.dtype, self.factors, operations, rows, backward)


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
