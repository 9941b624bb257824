"""A batch of sequences, as models and bounds take it."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["SequenceBatch"]


class SequenceBatch(NamedTuple):
    """Sequences side by side, time first, padded at their ends."""

    x: Tensor
    """Standardised frames, (T, B, D) float32, zero on padding."""
    mask: Tensor
    """(T, B) bool, True on a sequence's own steps."""
    ids: Tensor
    """(B,) int64, each sequence's number in its split."""
    continues: Tensor | None = None
    """(B,) bool, True where a row goes on from the same row of the batch before it, in the state
    that ended in; None where every row is a sequence of its own."""
