"""The state of a recurrence, and the shapes that everything shares."""

import torch
from torch import Tensor

__all__ = [
    "Gaussian",
    "State",
    "at_least_float32",
    "copies",
    "joined",
    "particles",
    "parted",
    "top",
]

State = tuple[Tensor, ...]
"""State of a recurrence: tensors of shape (layers, B, hidden), or other ones of shape (n, B, N).
The first of them ends with h of the uppermost layer."""

Gaussian = tuple[Tensor, Tensor]
"""Mean and standard deviation of a diagonal Gaussian, each (*, Z)."""


def top(state: State) -> Tensor:
    """Returns h of the uppermost layer, (B, hidden): all that prior, encoder and decoder see."""
    return state[0][-1]


def joined(state: State) -> Tensor:
    """All tensors of a state side by side. Shapes: (n, *, N) each -> (*, sum of all n N)."""
    return torch.cat([part.movedim(0, -2).flatten(-2) for part in state], dim=-1)


def parted(numbers: Tensor, layout: list[tuple[int, int]]) -> State:
    """The state that `joined` made these numbers of, given n and N of every tensor."""
    parts = numbers.split([n * width for n, width in layout], dim=-1)
    return tuple(
        part.unflatten(-1, shape).movedim(-2, 0) for part, shape in zip(parts, layout, strict=True)
    )


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
