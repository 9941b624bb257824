"""The operations that a time step is made of, on buffers that hold all steps, and their
derivatives: in Python here and, for the loop to run without it, in `loop.cpp`."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from vrnn.engine import native
from vrnn.engine.pointwise import (
    Tensors,
    gru,
    gru_backward,
    lstm,
    lstm_backward,
    sample,
    sample_backward,
)
from vrnn.layers.feedforward import positive
from vrnn.layers.recurrent import GRU, LSTM, Gated

__all__ = [
    "Bias",
    "GRUUpdate",
    "Given",
    "LSTMUpdate",
    "Operation",
    "Product",
    "ReLU",
    "Sample",
    "Slot",
    "Start",
    "UPDATES",
]

aten = torch.ops.aten


class Slot:
    """A quantity at all steps, `values` (T, B, N), and in the backward pass its gradient, `grads`.

    Indexing gives a slot on a part of the same memory.
    """

    def __init__(self, values: Tensor) -> None:
        self.values, self.grads = values, values.new_empty(0)
        self.parts: list[tuple[Callable[[Tensor], Tensor], Slot]] = []

    def part(self, view: Callable[[Tensor], Tensor]) -> "Slot":
        part = Slot(view(self.values))
        self.parts.append((view, part))
        return part

    def __getitem__(self, index: Any) -> "Slot":
        return self.part(lambda x: x[index])

    def receive(self, grads: Tensor) -> None:
        self.grads = grads
        vars(self).pop("grad_at", None)
        for view, part in self.parts:
            part.receive(view(grads))

    @cached_property
    def at(self) -> tuple[Tensor, ...]:
        return self.values.unbind()

    @cached_property
    def grad_at(self) -> tuple[Tensor, ...]:
        return self.grads.unbind()


class Operation:
    """A part of a time step, which writes slots from slots.

    Attributes:
        given: the tensor from outside that it uses, if any.
        kind: its number in `loop.cpp`, and `slots`, in the order that is expected there.
    """

    given: Tensor | None = None
    kind: ClassVar[int]
    slots: tuple[Slot, ...] = ()

    def ahead(self) -> None:
        """Computes all steps before the loop."""

    def forward(self, t: int) -> None:
        """Computes step t."""

    def backward(self, t: int) -> None:
        """Adds to the gradients of what step t read, when those of what it wrote are complete."""

    def gradient(self) -> Tensor | None:
        """Gradient of `given`, when all steps are done."""
        return None

    def native(self) -> native.NativeOperation:
        """The same for `loop.cpp`."""
        slots = [native.NativeSlot.of(slot.values, slot.grads) for slot in self.slots]
        return native.NativeOperation(kind=self.kind, slots=(native.NativeSlot * 3)(*slots))


class Start(Operation):
    """s_0 = x. Shapes: x (B, N)."""

    def __init__(self, x: Tensor, s: Slot) -> None:
        self.given, self.s = x, s
        with torch.no_grad():
            s.values[0].copy_(x)

    def gradient(self) -> Tensor:
        return self.s.grads[0]


class Given(Operation):
    """y_t = x_t, known beforehand and the same for all particles.

    Shapes: x (T, B, N), y (T, K * B, N).
    """

    kind = 0
    given: Tensor

    def __init__(self, x: Tensor, y: Slot) -> None:
        self.given, self.y = x, y
        self.x = self.over_time(x.detach().to(y.values.dtype).contiguous())
        self.slots = (Slot(self.x), y)

    def over_time(self, x: Tensor) -> Tensor:
        return x

    def forward(self, t: int) -> None:
        self.y.at[t].unflatten(0, (-1, self.x.shape[1])).copy_(self.x[t])

    def ahead(self) -> None:
        self.y.values.unflatten(1, (-1, self.x.shape[1])).copy_(self.x[:, None])

    def gradient(self) -> Tensor:
        grads = self.y.grads.unflatten(1, (-1, self.x.shape[1]))
        return (grads.sum(1) if grads.shape[1] > 1 else grads[:, 0]).to(self.given)


class Bias(Given):
    """y_t = b. Shapes: b (N,)."""

    def over_time(self, x: Tensor) -> Tensor:
        return x.expand(len(self.y.values), 1, -1)

    def gradient(self) -> Tensor:
        return self.y.grads.sum((0, 1), dtype=self.given.dtype)


class Product(Operation):
    """y_t += W x_t, in the data type of y, with W and x, or the gradient, rounded to `factors`."""

    kind = 1

    def __init__(self, x: Slot, weight: Tensor, y: Slot, factors: torch.dtype) -> None:
        self.given, self.x, self.y, self.factors = weight, x, y, factors
        self.weight, self.slots = weight.detach().to(y.values.dtype), (x, y)

    def rounded(self, x: Tensor) -> Tensor:
        return x.to(self.factors).to(self.y.values.dtype)

    @cached_property
    def factor(self) -> Tensor:
        return self.rounded(self.weight)

    def forward(self, t: int) -> None:
        y = self.y.at[t]
        torch.addmm(y, self.rounded(self.x.at[t]), self.factor.t(), out=y)

    def backward(self, t: int) -> None:
        dx, dy = self.x.grad_at[t], self.rounded(self.y.grad_at[t])
        if dx.dtype == dy.dtype:
            torch.addmm(dx, dy, self.factor, out=dx)
        else:
            dx.add_(dy @ self.factor)

    def gradient(self) -> Tensor:
        dy, x = (v.flatten(0, 1).to(self.factors) for v in (self.y.grads, self.x.values))
        return (dy.t() @ x).to(self.given)

    def native(self) -> native.NativeOperation:
        operation = super().native()
        operation.weight = self.weight.data_ptr()
        operation.weight_row, operation.weight_column = self.weight.stride()
        return operation


class ReLU(Operation):
    """x_t = max(x_t, 0), in place."""

    kind = 2

    def __init__(self, x: Slot) -> None:
        self.x, self.slots = x, (x,)

    def forward(self, t: int) -> None:
        self.x.at[t].relu_()

    def backward(self, t: int) -> None:
        dx = self.x.grad_at[t]
        aten.threshold_backward(dx, self.x.at[t], 0, grad_input=dx)


class Sample(Operation):
    """z_t = mean_t + positive(a_t) noise_t, where mean and a are the halves of `out`."""

    kind = 3

    def __init__(self, out: Slot, noise: Tensor, z: Slot) -> None:
        width = noise.shape[-1]
        self.given, self.mean, self.a, self.z = noise, out[..., :width], out[..., width:], z
        self.noise = Slot(noise.detach().contiguous())
        self.slots = (out, self.noise, z)

    def forward(self, t: int) -> None:
        sample(self.mean.at[t], self.a.at[t], self.noise.at[t], self.z.at[t])

    def backward(self, t: int) -> None:
        parts = self.z.grad_at[t], self.a.at[t], self.noise.at[t]
        sample_backward(*parts, self.mean.grad_at[t], self.a.grad_at[t])

    def gradient(self) -> Tensor:
        return self.z.grads * positive(self.a.values)


class Update(Operation):
    """The new state of a recurrent layer from its pre-activations, 4 blocks of H, in place.

    The share of the layer's input goes into the first blocks, that of h into as many from number
    `offset` on: one buffer takes both, even where a gate does not add them.

    Args:
        a: pre-activations (T, B, 4 H).
        state: h, or h and c, before and after each step (T + 1, B, H).
    """

    gates: int
    offset: int

    def __init__(self, a: Slot, *state: Slot) -> None:
        width = a.values.shape[-1] // 4
        self.blocks = [a[..., k * width : (k + 1) * width] for k in range(4)]
        self.state = state
        self.slots = (a, *state)

    @classmethod
    def ordered(cls, gates: Tensor, dim: int = 0) -> Tensor:
        """Puts the rows of an input matrix or of a bias, or what they give, in the order of the
        blocks."""
        shift = cls.offset * (gates.shape[dim] // cls.gates)
        return gates.roll(shift, dim) if shift else gates

    def values(self, t: int) -> tuple[Tensors, Tensors]:
        """The blocks, and of each tensor of the state that before and that after the step."""
        state = [s.at[k] for s in self.state for k in (t, t + 1)]
        return [block.at[t] for block in self.blocks], state

    def grads(self, t: int) -> tuple[Tensors, Tensors]:
        state = [s.grad_at[k] for s in self.state for k in (t, t + 1)]
        return [block.grad_at[t] for block in self.blocks], state


class LSTMUpdate(Update):
    """Blocks: i, f, g, o."""

    kind = 4
    gates, offset = 4, 0

    def forward(self, t: int) -> None:
        lstm(*self.values(t))

    def backward(self, t: int) -> None:
        lstm_backward(*self.values(t), *self.grads(t))


class GRUUpdate(Update):
    """Blocks: W_n x, r, u, U_n h."""

    kind = 5
    gates, offset = 3, 1

    def forward(self, t: int) -> None:
        gru(*self.values(t))

    def backward(self, t: int) -> None:
        gru_backward(*self.values(t), *self.grads(t))


UPDATES: dict[type[Gated], type[Update]] = {LSTM: LSTMUpdate, GRU: GRUUpdate}
"""The recurrences that a tape has operations for: exactly these classes, none that inherits."""
