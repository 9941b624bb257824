"""On-line handwriting: frames [pen, dx, dy], the pen flag 1 on a stroke's last point, y up."""

from typing import Any

import numpy as np

from datamodules.base import SequenceData
from datamodules.ragged import Ragged

__all__ = ["PAPER_SCALE", "PAPER_SHIFT", "PenData"]

PAPER_SHIFT = 8.0
"""Mean of dx + dy over the VRNN's training set, rounded down, in the corpus's units."""

PAPER_SCALE = 56.04462
"""Square root of the mean of dx^2 + dy^2, rounded down, less the square of the shift."""


class PenData(SequenceData):
    """Base of the handwriting corpora in IAM-OnDB's units.

    Args:
        normaliser: "paper", (d - 8) / 56.04462 for dx and dy, as the original code has it, or
            those of `SequenceData`.
        **kwargs: of `SequenceData`.
    """

    kind = "pen"
    columns = ("pen", "dx", "dy")
    binary = (0,)
    rate = 65.6
    paper_scale = (1.0, PAPER_SCALE, PAPER_SCALE)

    def __init__(self, normaliser: str = "paper", **kwargs: Any) -> None:
        super().__init__(normaliser=normaliser, **kwargs)

    def statistics(self, train: Ragged) -> tuple[np.ndarray, np.ndarray]:
        if self.normaliser == "paper":
            return np.array([0.0, PAPER_SHIFT, PAPER_SHIFT]), np.array(self.paper_scale)
        if self.normaliser not in ("coordinate", "none"):
            raise ValueError(
                f"data.normaliser={self.normaliser} is not one of coordinate, none, paper"
            )
        return super().statistics(train)
