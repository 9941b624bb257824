"""The operations of a time step, laid out for the kernel that runs all steps in one launch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.errors import TritonError

from vrnn.engine.operations import Given, GRUUpdate, LSTMUpdate, Operation, Product, ReLU, Sample
from vrnn.engine.tape import ALIGNED
from vrnn.engine.triton_kernel import Matrix, Span, walk

__all__ = ["KernelProgram", "NotLaunchedError"]

LEAST, MOST = 16, 64
"""Rows of a tile, and its columns."""

DEPTH = {torch.float64: 16, torch.float32: 32}
"""Inputs that a product takes at a time; in half precision 64."""

WARPS = 8

SHARE = 4
"""Such pieces at least that a block sums, where the inputs of a product are shared."""


class NotLaunchedError(RuntimeError):
    """The kernel does not run on this machine, for the reason given."""


class Move(NamedTuple):
    """An operation of the kernel.

    Attributes:
        kind: its name there.
        target: what it writes, or a part; which block computes what depends on it alone.
        slots: what it works on: tensors (T, B, N), tuples of them, matrices and numbers.
        shares: into which the inputs of a product are divided.
    """

    kind: str
    target: Tensor
    slots: tuple[Any, ...]
    shares: int = 1

    @property
    def width(self) -> int:
        return self.target.shape[-1]


class KernelProgram:
    """The operations of a time step, or their derivatives, as one launch.

    Args:
        rows: K * B.
        backward: run the derivatives, from the last step to the first.
    """

    def __init__(self, operations: Sequence[Operation], rows: int, backward: bool) -> None:
        if backward:
            whole = [derivative(x) for x in reversed(operations) if not isinstance(x, Given)]
        else:
            whole = [value(x) for x in operations]
        self.rows, self.device = rows, whole[0].target.device
        factors = next(move.slots[1].start.dtype for move in whole if move.kind == "product")
        depth, height = DEPTH.get(factors, 64), tile(rows)
        down, available = ceil(rows, height), multiprocessors(self.device)
        across = max(available // down, 1)

        moves = [part for move in whole for part in shared(move, across, depth)]
        columns = [MOST if x.shares > 1 else tile(ceil(x.width, across)) for x in moves]
        tiles = (ceil(x.width, n) * x.shares for x, n in zip(moves, columns, strict=True))
        self.blocks = min(max(tiles) * down, available)
        self.operations = tuple((x.width, laid_out(x.slots, backward)) for x in moves)
        self.constants = {
            "KINDS": tuple(x.kind for x in moves),
            "WAITS": tuple(waits(moves)),
            "SHARES": tuple(x.shares for x in moves),
            "COLUMNS": tuple(columns),
            "ROWS": height,
            "DEPTH": depth,
            "PRECISION": "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        }

    def run(self, steps: int) -> None:
        """Runs T steps.

        Raises:
            NotLaunchedError: where the GPU does not run so many blocks at once: those that it does
                would wait for the others forever.
        """
        arrived = torch.zeros(1, dtype=torch.int32, device=self.device)
        given = self.operations, arrived, steps, self.rows
        options = {"num_warps": WARPS, "launch_cooperative_grid": True}
        try:
            walk[(self.blocks,)](*given, **self.constants, **options)
        except (RuntimeError, TritonError) as error:
            raise NotLaunchedError(str(error).splitlines()[-1]) from error


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def ceil(size: int, of: int) -> int:
    return -(-size // of)


def tile(wanted: int) -> int:
    """The next power of two, within bounds."""
    return min(max(int(triton.next_power_of_2(wanted)), LEAST), MOST)


def value(operation: Operation) -> Move:
    """The operation itself."""
    match operation:
        case Given(x=x, y=y):
            return Move("given", y.values, (x, y.values, x.shape[1]))
        case Product(x=x, factor=weight, y=y):
            return Move("product", y.values, (filled(x.values), packed(weight), y.values))
        case ReLU(x=x):
            return Move("relu", x.values, (x.values,))
        case Sample(mean=mean, a=a, noise=noise, z=z):
            return Move("sample", z.values, (mean.values, a.values, noise.values, z.values))
        case LSTMUpdate(blocks=blocks, state=(h, c)):
            gates = tuple(x.values for x in blocks)
            slots = gates, c.values[:-1], c.values[1:], h.values[1:]
            return Move("lstm", h.values[1:], slots)
        case GRUUpdate(blocks=blocks, state=(h,)):
            gates = tuple(x.values for x in blocks)
            return Move("gru", h.values[1:], (gates, h.values[:-1], h.values[1:]))
    raise TypeError(f"the kernel has no {type(operation).__name__}")


def derivative(operation: Operation) -> Move:
    """What adds to the gradients of what the operation read."""
    match operation:
        case Product(x=x, factor=weight, y=y):
            return Move("product", x.grads, (filled(y.grads), packed(weight.t()), x.grads))
        case ReLU(x=x):
            return Move("relu_backward", x.grads, (x.values, x.grads))
        case Sample(mean=mean, a=a, noise=noise, z=z):
            slots = a.values, noise.values, mean.grads, a.grads, z.grads
            return Move("sample_backward", z.grads, slots)
        case LSTMUpdate(blocks=blocks, state=(h, c)):
            gates = tuple(x.values for x in blocks), tuple(x.grads for x in blocks)
            state = c.values[:-1], c.values[1:], c.grads[:-1], c.grads[1:]
            return Move("lstm_backward", h.grads[1:], (*gates, *state, h.grads[1:]))
        case GRUUpdate(blocks=blocks, state=(h,)):
            gates = tuple(x.values for x in blocks), tuple(x.grads for x in blocks)
            before = h.values[:-1], h.grads[:-1]
            return Move("gru_backward", h.grads[1:], (*gates, *before, h.grads[1:]))
    raise TypeError(f"the kernel has no derivative of {type(operation).__name__}")


def shared(move: Move, across: int, depth: int) -> list[Move]:
    """A product of few outputs and many inputs in two: its shares, and their sum.

    Args:
        across: the blocks that compute a row of tiles at once.
    """
    if move.kind != "product":
        return [move]
    x, weight, y = move.slots
    shares = min(across // ceil(move.width, MOST), ceil(x.shape[-1], depth) // SHARE)
    if shares < 2:
        return [move]
    dtype = torch.promote_types(y.dtype, torch.float32)
    sums = y.new_empty(shares, *y.shape[1:], dtype=dtype)
    return [Move("share", sums, (x, weight, sums), shares), Move("total", y, (sums, y, shares))]


def packed(weight: Tensor) -> Matrix:
    """With zeros up to a size that is read in whole vectors."""
    outputs, inputs = (ceil(n, ALIGNED) * ALIGNED for n in weight.shape)
    # As the rows of `weight` are, or columns, so that a transpose is one here too.
    flipped = weight.stride(0) == 1
    memory = weight.new_zeros((inputs, outputs) if flipped else (outputs, inputs))
    matrix = memory.t() if flipped else memory
    matrix[: len(weight), : weight.shape[1]] = weight
    row, column = matrix.stride()
    return Matrix(matrix, row, column, outputs, inputs)


def filled(x: Tensor) -> Tensor:
    """With the zeros that end its rows in memory, where it goes up to them."""
    row = x.stride(1)
    left = row - x.storage_offset() % row
    width = left if left - x.shape[-1] < ALIGNED else x.shape[-1]
    return x.as_strided((*x.shape[:2], width), x.stride(), x.storage_offset())


def tensors(slots: Any) -> Iterator[Tensor]:
    if isinstance(slots, Tensor):
        yield slots
    elif type(slots) is tuple:
        for slot in slots:
            yield from tensors(slot)


def laid_out(slots: Any, backward: bool) -> Any:
    """With a span in the place of every tensor."""
    if isinstance(slots, Tensor):
        step, row, _ = slots.stride()
        start, step = (slots[-1], -step) if backward else (slots[0], step)
        return Span(start, step, row, slots.shape[-1])
    if type(slots) is tuple:
        return tuple(laid_out(slot, backward) for slot in slots)
    return slots


class Columns(NamedTuple):
    """Of what lies in one memory, at all steps."""

    memory: int
    first: int
    end: int

    @classmethod
    def of(cls, x: Tensor) -> "Columns":
        first = int(x.storage_offset()) % max(x.stride(1), 1)
        return cls(x.untyped_storage().data_ptr(), first, first + x.shape[-1])

    def overlap(self, other: "Columns") -> bool:
        return self.memory == other.memory and self.first < other.end and other.first < self.end


def waits(moves: Sequence[Move]) -> list[bool]:
    """Whether all blocks wait for each other before a move.

    A barrier is needed if the move touches memory that another move has touched since the last
    barrier. The exception is a target that both moves share: each block computes the same part of
    it in both.
    """
    since: list[tuple[Columns, Columns]] = []
    found: list[bool] = []
    for move in (*moves, *moves):  # a step, and one that follows another
        target = Columns.of(move.target)
        mine = [(Columns.of(x), target) for x in tensors(move.slots)]
        wait = any(
            x.overlap(y) and not x == y == target == theirs for x, _ in mine for y, theirs in since
        )
        since = mine if wait else since + mine
        found.append(wait)
    return found[len(moves) :]
