"""Likelihoods of audio as the levels that were recorded, in bits per sample.

The model sees standardised numbers, x = (raw - shift) / scale, whose raw values are whole levels;
`log_prob` is the log of a probability, so it is the same in all units of x. In bits per sample it
is -log_prob / (D ln 2).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vrnn.arguments import check_counts
from vrnn.layers.feedforward import SIGMA_BIAS, inverse_positive, positive
from vrnn.layers.state import at_least_float32
from vrnn.likelihoods.base import Likelihood
from vrnn.likelihoods.fitting import fit_mixture, log_frequencies
from vrnn.likelihoods.levels import Grid, LogisticMixtureDistribution, MuLawDistribution

__all__ = ["DiscreteLikelihood", "DiscretisedLogisticMixture", "MuLawCategorical"]


class DiscreteLikelihood(Likelihood):
    """Base of the likelihoods over levels.

    Attributes:
        grid: the levels.
    """

    kinds = ("audio",)
    discrete = True
    grid: Grid


class DiscretisedLogisticMixture(DiscreteLikelihood):
    """A mixture of discretised logistics for every sample, for 16-bit audio.

    The decoder's outputs are D * K logits, D * K means and D * K pre-activations of s. A
    temperature multiplies s, since a logistic's tails are exponential.

    Args:
        x_dim: D, samples in a frame.
        components: K.
        levels, lowest: the levels of a raw sample; as they are, those of 16 bits.
        shift, scale: (D,), of the normaliser, x = (raw - shift) / scale; None for raw samples.
    """

    def __init__(
        self,
        x_dim: int,
        components: int = 10,
        levels: int = 2**16,
        lowest: int = -(2**15),
        shift: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_counts("model.likelihood.", components=components)

        self.x_dim, self.components = x_dim, components
        self.size = 3 * components * x_dim
        self.grid = Grid(x_dim, levels, lowest, shift, scale)

    def bias(self, means: Tensor | None = None) -> Tensor:
        bias = torch.zeros(self.size)
        bias[2 * self.components * self.x_dim :] = SIGMA_BIAS
        return bias

    def fit(self, frames: Tensor) -> Tensor:
        """One mixture for the samples of all places of a frame: of Gaussians, whose standard
        deviations the logistics take over, s = sqrt(3) sigma / pi."""
        logits, means, variances = fit_mixture(frames.reshape(-1, 1), self.components)
        s = variances.sqrt() * 3**0.5 / math.pi
        parts = (logits, means[:, 0], inverse_positive(s[:, 0]))
        return torch.cat([part.repeat(self.x_dim) for part in parts]).float()

    def forward(self, params: Tensor, temperature: float = 1.0) -> LogisticMixtureDistribution:
        shape = (3, self.x_dim, self.components)
        logits, mean, a = at_least_float32(params).unflatten(-1, shape).unbind(-3)
        s = positive(a) * temperature
        return LogisticMixtureDistribution(self.grid, logits / temperature, mean, s)

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, components={self.components}"


class MuLawCategorical(DiscreteLikelihood):
    r"""A categorical distribution over mu-law classes for every sample, for 16-bit audio.

    .. math::
        c(v) = \lfloor C (1 + f(v)) / 2 \rfloor, \quad
        f(v) = sign(v) \ln(1 + \mu |v|) / \ln(1 + \mu), \quad \mu = C - 1

    with v in (-1, 1) the middle of a level. Within a class all levels are as likely, so that the
    masses are those of 16-bit samples, comparable with `DiscretisedLogisticMixture`; of a class
    alone they would be too favourable where the model is told the exact past. The decoder's
    outputs are D * C logits.

    Args:
        x_dim: D, samples in a frame.
        classes: C.
        levels: of a raw sample, half of them below 0; as they are, those of 16 bits.
        shift, scale: (D,), of the normaliser, x = (raw - shift) / scale; None for raw samples.

    Raises:
        ValueError: if there are fewer than two classes, or so many that some have no level.

    References:
        WaveNet (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499
    """

    of_level: Tensor
    counts: Tensor

    def __init__(
        self,
        x_dim: int,
        classes: int = 256,
        levels: int = 2**16,
        shift: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()

        if classes < 2:
            raise ValueError(f"likelihood.classes must be at least 2, not {classes}")

        self.x_dim, self.classes = x_dim, classes
        self.size = classes * x_dim
        self.grid = Grid(x_dim, levels, -(levels // 2), shift, scale)
        v = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels * 2 - 1
        f = v.sign() * torch.log1p((classes - 1) * v.abs()) / math.log(classes)
        of_level = ((1 + f) / 2 * classes).long()
        counts = of_level.bincount(minlength=classes)
        if (counts == 0).any():
            raise ValueError(
                f"likelihood.classes={classes} is too many for {levels} levels: some classes "
                "would have none"
            )
        self.register_buffer("of_level", of_level, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def fit(self, frames: Tensor) -> Tensor:
        """How frequent the classes are among the samples of all places of a frame."""
        classes = self.of_level[self.grid.index(frames.double())].flatten()
        return log_frequencies(classes, self.classes).repeat(self.x_dim).float()

    def forward(self, params: Tensor, temperature: float = 1.0) -> MuLawDistribution:
        logits = at_least_float32(params).unflatten(-1, (self.x_dim, self.classes))
        # The factors are those of levels, of which a class has several.
        log_n = self.counts.to(logits.dtype).log()
        logits = (logits - log_n) / temperature + log_n
        return MuLawDistribution(self.grid, self.of_level, self.counts, logits)

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, classes={self.classes}"
