"""The time loop as one kernel of a GPU: the operations and slots of `vrnn.engine.operations`.

All blocks of the kernel walk through the steps together. Each computes its tiles of what an
operation writes, and waits for the others where the next one reads what they wrote. Nothing is
launched in between, and the weights, read again at every step, stay in the cache of the chip.
`vrnn.engine.triton_program` lays out the arguments.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

__all__ = ["Matrix", "Span", "walk"]


class Span(NamedTuple):
    """A slot in the order of the walk: the element (t, b, n) is at start + t step + b row + n."""

    start: Any
    step: Any
    row: Any
    width: Any


class Matrix(NamedTuple):
    """Of a product; the weight of output n and input k is at start + n row + k column."""

    start: Any
    row: Any
    column: Any
    outputs: Any
    inputs: Any


# So that it is compiled once for sequences of all lengths.
@triton.jit(do_not_specialize=["steps", "rows"])
def walk(
    operations,
    arrived,
    steps,
    rows,
    KINDS: tl.constexpr,
    WAITS: tl.constexpr,
    SHARES: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Runs the steps.

    Args:
        operations: of each, the columns that it writes and the spans and matrices it works on.
        arrived: how often a block has come to where all wait, zero at first.
        rows: K * B.
        KINDS, WAITS, SHARES, COLUMNS: of each operation, what it does, whether all blocks wait for
            each other before it, how many shares of a product's inputs are summed apart, and how
            many columns its tiles have.
        ROWS: of a tile.
        DEPTH: inputs that a product takes at a time.
        PRECISION: how factors in float32 are multiplied, as of `tl.dot`.
    """
    goal = 0
    for step in range(steps):
        t = tl.cast(step, tl.int64)
        for k in tl.static_range(len(KINDS)):
            if WAITS[k]:
                goal += tl.num_programs(0)
                wait(arrived, goal)
            else:
                tl.debug_barrier()  # What comes next reads what threads of this block wrote.
            width, spans = operations[k]
            across, down = parts(width, COLUMNS[k]), parts(rows, ROWS)
            tiles = across * down
            for tile in range(tl.program_id(0), tiles * SHARES[k], tl.num_programs(0)):
                b = tile // across % down * ROWS + tl.arange(0, ROWS)[:, None]
                n = tile % across * COLUMNS[k] + tl.arange(0, COLUMNS[k])[None, :]
                at = t, b, n, (b < rows) & (n < width)
                if KINDS[k] == "product":
                    product(spans, at, rows, DEPTH, PRECISION)
                elif KINDS[k] == "share":
                    share(spans, at, rows, tile // tiles, SHARES[k], DEPTH, PRECISION)
                elif KINDS[k] == "given":
                    given(spans, at)
                elif KINDS[k] == "total":
                    total(spans, at)
                elif KINDS[k] == "relu":
                    relu(spans, at)
                elif KINDS[k] == "relu_backward":
                    relu_backward(spans, at)
                elif KINDS[k] == "sample":
                    sample(spans, at)
                elif KINDS[k] == "sample_backward":
                    sample_backward(spans, at)
                elif KINDS[k] == "lstm":
                    lstm(spans, at)
                elif KINDS[k] == "lstm_backward":
                    lstm_backward(spans, at)
                elif KINDS[k] == "gru":
                    gru(spans, at)
                elif KINDS[k] == "gru_backward":
                    gru_backward(spans, at)
                else:
                    tl.static_assert(False, "no such operation")


@triton.jit
def parts(size, of):
    return (size + of - 1) // of


@triton.jit
def wait(arrived, goal):
    """Until all blocks are here, and what they wrote can be read."""
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="release")
    while tl.atomic_add(arrived, 0, sem="acquire") < goal:
        pass
    tl.debug_barrier()


@triton.jit
def product(spans, at, rows, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """y_t += W x_t."""
    x, _, y = spans
    write(y, at, plus(read(y, at), spans, at, rows, 0, x.width, DEPTH, PRECISION))


@triton.jit
def share(
    spans, at, rows, index, SHARES: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
):
    """W x_t, of one share of the inputs."""
    x, _, sums = spans
    _, b, n, ok = at
    size = parts(parts(x.width, DEPTH), SHARES) * DEPTH
    start, end = index * size, tl.minimum((index + 1) * size, x.width)
    zero = tl.where(ok, 0, 0).to(sums.start.dtype.element_ty)
    found = plus(zero, spans, at, rows, start, end, DEPTH, PRECISION)
    write(sums, (index, b, n, ok), found)


@triton.jit
def plus(y, spans, at, rows, start, end, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """y + W x_t, of the inputs from `start` to `end`."""
    x, weight, _ = spans
    t, b, n, _ = at
    for first in range(start, end, DEPTH):
        k = first + tl.arange(0, DEPTH)
        factor = tl.load(
            weight.start + n * weight.row + k[:, None] * weight.column,
            mask=(k < weight.inputs)[:, None] & (n < weight.outputs),
            other=0,
            eviction_policy="evict_last",
        )
        known = load(x, (t, b, k[None, :], (b < rows) & (k < end)[None, :])).to(factor.dtype)
        y = tl.dot(known, factor, y, input_precision=PRECISION, out_dtype=y.dtype)
    return y


@triton.jit
def total(spans, at):
    """y_t += what all shares of a product give."""
    sums, y, shares = spans
    _, b, n, ok = at
    found = read(y, at)
    for index in range(shares):
        found += read(sums, (index, b, n, ok))
    write(y, at, found)


@triton.jit
def given(spans, at):
    x, y, sequences = spans
    t, b, n, ok = at
    write(y, at, read(x, (t, b % sequences, n, ok)))


@triton.jit
def relu(spans, at):
    x = read(spans[0], at)
    write(spans[0], at, tl.where(x < 0, 0, x))  # leaves what is not a number


@triton.jit
def relu_backward(spans, at):
    x, dx = spans
    write(dx, at, tl.where(read(x, at) <= 0, 0, read(dx, at)))


@triton.jit
def sample(spans, at):
    mean, a, noise, z = spans
    write(z, at, read(mean, at) + positive(read(a, at)) * read(noise, at))


@triton.jit
def sample_backward(spans, at):
    a, noise, dmean, da, dz = spans
    d = read(dz, at)
    write(dmean, at, read(dmean, at) + d)
    write(da, at, read(da, at) + d * read(noise, at) * sigmoid(read(a, at)))


@triton.jit
def lstm(spans, at):
    blocks, c_before, c_after, h_after = spans
    i, f = sigmoid(read(blocks[0], at)), sigmoid(read(blocks[1], at))
    g, o = tanh(read(blocks[2], at)), sigmoid(read(blocks[3], at))
    c = f * read(c_before, at) + i * g
    write(blocks[0], at, i)
    write(blocks[1], at, f)
    write(blocks[2], at, g)
    write(blocks[3], at, o)
    write(c_after, at, c)
    write(h_after, at, o * tanh(c))


@triton.jit
def lstm_backward(spans, at):
    blocks, dblocks, c_before, c_after, dc_before, dc_after, dh_after = spans
    i, f, g, o = read(blocks[0], at), read(blocks[1], at), read(blocks[2], at), read(blocks[3], at)
    tanh_c, dh = tanh(read(c_after, at)), read(dh_after, at)
    dc = read(dc_after, at) + dh * o * (1 - tanh_c * tanh_c)
    write(dblocks[0], at, dc * g * i * (1 - i))
    write(dblocks[1], at, dc * read(c_before, at) * f * (1 - f))
    write(dblocks[2], at, dc * i * (1 - g * g))
    write(dblocks[3], at, dh * tanh_c * o * (1 - o))
    write(dc_before, at, read(dc_before, at) + dc * f)


@triton.jit
def gru(spans, at):
    blocks, h_before, h_after = spans
    r, u = sigmoid(read(blocks[1], at)), sigmoid(read(blocks[2], at))
    n = tanh(read(blocks[0], at) + r * read(blocks[3], at))
    write(blocks[0], at, n)
    write(blocks[1], at, r)
    write(blocks[2], at, u)
    write(h_after, at, n + u * (read(h_before, at) - n))


@triton.jit
def gru_backward(spans, at):
    blocks, dblocks, h_before, dh_before, dh_after = spans
    n, r, u = read(blocks[0], at), read(blocks[1], at), read(blocks[2], at)
    dh = read(dh_after, at)
    dn = dh * (1 - u) * (1 - n * n)
    write(dblocks[0], at, dn)
    write(dblocks[1], at, dn * read(blocks[3], at) * r * (1 - r))
    write(dblocks[2], at, dh * (read(h_before, at) - n) * u * (1 - u))
    write(dblocks[3], at, dn * r)
    write(dh_before, at, read(dh_before, at) + dh * u)


@triton.jit
def load(x, at):
    t, b, n, ok = at
    return tl.load(x.start + t * x.step + b * x.row + n, mask=ok, other=0)


@triton.jit
def read(x, at):
    """In float32 or better."""
    value = load(x, at)
    return value if value.dtype == tl.float64 else value.to(tl.float32)


@triton.jit
def write(x, at, value):
    t, b, n, ok = at
    tl.store(x.start + t * x.step + b * x.row + n, value, mask=ok)


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    return 2 * sigmoid(2 * x) - 1


@triton.jit
def positive(a):
    """softplus(a) + 1e-4, as `vrnn.layers.feedforward.positive`."""
    u = tl.exp(-tl.abs(a))
    # log(1 + u), and the logarithm's share in what 1 + u rounds away.
    log1p = tl.log(1 + u) - ((1 + u - 1) - u) / (1 + u)
    return tl.maximum(a, 0) + log1p + 1e-4
