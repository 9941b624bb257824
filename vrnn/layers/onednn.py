"""Products of many rows, on AMD's processors by oneDNN.

`torch.mm` is MKL there, which multiplies float32 at half to nine tenths of oneDNN's rate.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear"]

WORTHWHILE = 2**26
"""Multiply-adds, from which on laying out the weight costs little."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b, as `torch.nn.functional.linear`.

    Shapes: x (*, inputs), weight (outputs, inputs), bias (outputs,) -> (*, outputs).
    """
    y: Tensor = (OneDNN.apply if suits(x, weight) else F.linear)(x, weight, bias)
    return y


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is the faster one."""
    return (
        x.numel() * len(weight) >= WORTHWHILE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and mkl_is_slow()
    )


@cache
def mkl_is_slow() -> bool:
    """By the processor's maker, not by the clock, whose answers would differ from run to run."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    processor = Path("/proc/cpuinfo")
    return processor.exists() and "AuthenticAMD" in processor.read_text()


class OneDNN(torch.autograd.Function):
    """`linear` by oneDNN; its gradient may be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        laid_out = weight.detach().to_mkldnn()
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = dy.reshape(-1, len(weight))
        return (
            linear(dy, weight.t()) if of_x else None,
            rows.t() @ x.reshape(len(rows), -1) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
