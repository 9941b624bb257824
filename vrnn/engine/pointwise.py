"""What a time step does element by element, and its derivatives: on a GPU one kernel each."""

from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec

import torch
from torch import Tensor

from vrnn.layers.feedforward import positive

__all__ = ["Tensors", "gru", "gru_backward", "lstm", "lstm_backward", "sample", "sample_backward"]

aten = torch.ops.aten

Tensors = list[Tensor]
Pointwise = Callable[..., None]
HAS_TRITON = find_spec("triton") is not None


@cache
def compiled(function: Pointwise) -> Pointwise:
    # Beyond torch's limit on variants, a new shape runs operation by operation.
    return torch.compile(function, dynamic=False)


def one_kernel(function: Pointwise) -> Pointwise:
    """On a GPU, where Triton is installed, torch makes a single kernel of `function`."""

    @wraps(function)
    def call(*given: Tensor | Tensors) -> None:
        fuse = given[0][0].is_cuda and HAS_TRITON
        (compiled(function) if fuse else function)(*given)

    return call


@one_kernel
def sample(mean: Tensor, a: Tensor, noise: Tensor, z: Tensor) -> None:
    torch.addcmul(mean, positive(a), noise, out=z)


@one_kernel
def sample_backward(dz: Tensor, a: Tensor, noise: Tensor, dmean: Tensor, da: Tensor) -> None:
    dmean.add_(dz)
    da.add_(aten.softplus_backward(dz * noise, a, 1, 20))


@one_kernel
def lstm(blocks: Tensors, state: Tensors) -> None:
    """The blocks become the gates, and the state, h and c, goes on."""
    i, f, g, o = blocks
    _, h1, c, c1 = state
    for gate in (i, f, o):
        gate.sigmoid_()
    g.tanh_()
    torch.mul(f, c, out=c1).addcmul_(i, g)
    torch.tanh(c1, out=h1).mul_(o)


@one_kernel
def lstm_backward(blocks: Tensors, state: Tensors, dblocks: Tensors, dstate: Tensors) -> None:
    """Adds to the gradient of c, and sets those of the blocks."""
    i, f, g, o = blocks
    _, _, c, c1 = state
    di, df, dg, do = dblocks
    _, dh1, dc, dc1 = dstate
    tanh_c = c1.tanh()
    dc1 += aten.tanh_backward(dh1 * o, tanh_c)
    aten.sigmoid_backward(dc1 * g, i, grad_input=di)
    aten.sigmoid_backward(dc1 * c, f, grad_input=df)
    aten.tanh_backward(dc1 * i, g, grad_input=dg)
    aten.sigmoid_backward(dh1 * tanh_c, o, grad_input=do)
    dc.addcmul_(dc1, f)


@one_kernel
def gru(blocks: Tensors, state: Tensors) -> None:
    """The first three blocks become the gates, and the state, h, goes on."""
    n, r, u, uh = blocks
    h, h1 = state
    r.sigmoid_()
    u.sigmoid_()
    n.addcmul_(r, uh).tanh_()
    torch.lerp(n.to(h), h, u.to(h), out=h1)


@one_kernel
def gru_backward(blocks: Tensors, state: Tensors, dblocks: Tensors, dstate: Tensors) -> None:
    """Adds to the gradient of h, and sets those of the blocks."""
    n, r, u, uh = blocks
    h, _ = state
    dn, dr, du, duh = dblocks
    dh, dh1 = dstate
    kept = dh1 * u
    dh.add_(kept)
    aten.sigmoid_backward(dh1 * (h - n), u, grad_input=du)
    aten.tanh_backward(dh1 - kept, n, grad_input=dn)
    aten.sigmoid_backward(dn * uh, r, grad_input=dr)
    duh.copy_(dn * r)
