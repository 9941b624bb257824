"""The affine map between a corpus's own units and the model's, and the units of a density."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Normaliser", "convert"]


class Normaliser(nn.Module):
    """Standardises frames, x = (raw - shift) / scale; part of the model, and stored with it.

    Args:
        shift, scale: (D,), in the corpus's own units; coordinates that stay as they are have 0
            and 1.
        means: the mean frame (D,) of the training data, standardised, where outputs may start;
            None where it is not known.
        centre: phi_x sees x - means, as some models of piano rolls do.

    Raises:
        ValueError: if a scale is not above 0, or there are not as many means as shifts, or none
            to centre by.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        shift: Sequence[float],
        scale: Sequence[float],
        means: Sequence[float] | None = None,
        centre: bool = False,
    ) -> None:
        super().__init__()
        if not all(s > 0 for s in scale):
            raise ValueError(f"a normaliser's scales must be above 0, not {list(scale)}")

        if means is not None and len(means) != len(shift):
            raise ValueError(f"a normaliser has {len(means)} means for {len(shift)} shifts")
        if centre and means is None:
            raise ValueError("data.centre=true needs the mean frame, which binary data give")

        self.centre = centre
        self.means: Tensor | None
        mean_frame = None if means is None else torch.tensor(means, dtype=torch.float64)
        self.register_buffer("means", mean_frame, persistent=False)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    @classmethod
    def identity(cls, x_dim: int) -> "Normaliser":
        """That of frames that stay as they are."""
        return cls([0.0] * x_dim, [1.0] * x_dim)

    def standardise(self, raw: Tensor) -> Tensor:
        """Shapes: (*, D) -> (*, D), in the dtype of `raw`."""
        return ((raw - self.shift) / self.scale).to(raw.dtype)

    def centred(self, x: Tensor) -> Tensor:
        """What phi_x sees of standardised frames. Shapes: (*, D) -> (*, D)."""
        return x - self.means.to(x) if self.centre and self.means is not None else x

    def raw(self, x: Tensor) -> Tensor:
        """The inverse of `standardise`. Shapes: (*, D) -> (*, D)."""
        return (x * self.scale + self.shift).to(x.dtype)


def convert(
    nats: Tensor, steps: Tensor | float, log_scales: Mapping[str, float], source: str, target: str
) -> Tensor:
    r"""Converts log densities of sequences between spaces.

    A space is an affine map of the raw frame, x = (raw - shift) / scale, and its log scale
    :math:`\sum_d \log scale_d`. With T frames,

    .. math:: \log p_{target} = \log p_{source} + T (\log scale_{target} - \log scale_{source})

    Args:
        nats: log densities in `source`, summed over `steps` frames.
        steps: T, of the same shape as `nats` or a number.
        log_scales: log scale of every space; that of "raw" is 0.
    """
    return nats + steps * (log_scales[target] - log_scales[source])
