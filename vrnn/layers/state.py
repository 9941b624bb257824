"""The state of a recurrence, and the shapes that everything shares."""

import torch
from torch import Tensor

__all__ = ["Gaussian", "State", "at_least_float32", "copies", "particles", "top"]

State = tuple[Tensor, ...]
"""State of a recurrence: tensors of shape (layers, B, hidden), the first of them h."""

Gaussian = tuple[Tensor, Tensor]
"""Mean and standard deviation of a diagonal Gaussian, each (*, Z)."""


def top(state: State) -> Tensor:
    """Returns h of the uppermost layer, (B, hidden): all that prior, encoder and decoder see."""
    return state[0][-1]


def particles(x: Tensor, noise: Tensor) -> int:
    """K of noise (T, K * B, Z) for sequences (T, B, D)."""
    return noise.shape[1] // x.shape[1]


def copies(x: Tensor, count: int) -> Tensor:
    """One set of rows for each particle; x itself where there is but one.

    Shapes: (*, B, N) -> (*, count * B, N), particle-major.
    """
    return x if count == 1 else torch.cat([x] * count, dim=-2)


def at_least_float32(x: Tensor) -> Tensor:
    """Returns `x` (*) in float32 when it came out of a half-precision product, else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
