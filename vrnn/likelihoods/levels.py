"""Distributions over the levels that a digital sample can take, of total mass 1."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints

__all__ = ["Grid", "LogisticMixtureDistribution", "MuLawDistribution"]


class Grid(nn.Module):
    """The levels of a raw sample, lowest, lowest + 1, ..., where the model sees them.

    Args:
        x_dim: D.
        levels: how many there are.
        lowest: the first one.
        shift, scale: (D,), of the normaliser; None for 0 and 1.

    Raises:
        ValueError: if there are fewer than two levels, or not D numbers.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        x_dim: int,
        levels: int,
        lowest: int,
        shift: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"likelihood.levels must be at least 2, not {levels}")
        shift, scale = [0.0] * x_dim if shift is None else shift, scale or [1.0] * x_dim
        if not len(shift) == len(scale) == x_dim:
            raise ValueError(
                f"likelihood.shift and likelihood.scale have {len(shift)} and {len(scale)} "
                f"numbers for x_dim={x_dim}"
            )

        self.levels, self.lowest = levels, lowest
        # Arguments of the model, which its checkpoint has as such.
        for name, value in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64), persistent=False)

    @property
    def highest(self) -> int:
        return self.lowest + self.levels - 1

    def index(self, x: Tensor) -> Tensor:
        """Number of the level nearest to x, from 0. Shapes: (*, D) -> (*, D) int64."""
        raw = (x * self.scale + self.shift).round() - self.lowest
        return raw.clamp(0, self.levels - 1).long()

    def x(self, index: Tensor, like: Tensor) -> Tensor:
        """Where the model sees a level, in the dtype of `like`; the inverse of `index`."""
        return ((index + self.lowest - self.shift) / self.scale).to(like.dtype)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, lowest={self.lowest}"


class LogisticMixtureDistribution(Distribution):
    r"""Samples that are mixtures of logistics, rounded to levels and clipped to the outer ones.

    .. math::
        P(x_d) = \sum_k \pi_{d,k} [\sigma((x_d + \delta - \mu_{d,k}) / s_{d,k})
            - \sigma((x_d - \delta - \mu_{d,k}) / s_{d,k})]

    with delta half a level; the lowest level takes all that lies below, the highest all above.

    Args:
        grid: the levels.
        logits, mean, s: (*, D, K).

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, grid: Grid, logits: Tensor, mean: Tensor, s: Tensor) -> None:
        self.grid, self.logits = grid, logits.log_softmax(-1)
        self.means, self.s = mean, s
        super().__init__(mean.shape[:-2], mean.shape[-2:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the levels nearest to `value`. Shapes: (*, D) -> (*)."""
        index = self.grid.index(value)
        centre = (self.grid.x(index, self.means)[..., None] - self.means) / self.s
        half = (0.5 / self.grid.scale).to(self.s.dtype)[:, None] / self.s
        # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)), without cancellation; without
        # a bound on one side, what belongs to it is 1.
        below = F.logsigmoid(centre + half)
        above = F.logsigmoid(half - centre)
        width = torch.log(-torch.expm1(-2 * half))
        lowest, highest = (index == 0)[..., None], (index == self.grid.levels - 1)[..., None]
        log_p = torch.where(highest, 0.0, below) + torch.where(lowest, 0.0, above)
        log_p = log_p + torch.where(lowest | highest, 0.0, width)
        return torch.logsumexp(self.logits + log_p, dim=-1).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        k = Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
        mean, s = self.pick(self.means, k), self.pick(self.s, k)
        logistic = torch.rand_like(mean).logit(eps=torch.finfo(mean.dtype).eps)
        return self.grid.x(self.grid.index(mean + s * logistic), mean)

    @property
    def mean(self) -> Tensor:
        """(*, D), that of the logistics before rounding, inside the outer levels."""
        mean = (self.logits.exp() * self.means).sum(-1)
        lowest, highest = self.grid.x(
            torch.tensor([[0], [self.grid.levels - 1]]).to(mean.device), mean
        )
        return mean.clamp(lowest, highest)

    @property
    def mode(self) -> Tensor:
        """(*, D): for each sample the level at the mean of the component with the highest peak."""
        k = (self.logits - self.s.log()).argmax(-1)
        return self.grid.x(self.grid.index(self.pick(self.means, k)), self.means)

    @staticmethod
    def pick(components: Tensor, k: Tensor) -> Tensor:
        """Selects component k of each sample. Shapes: (*, D, K), (*, D) -> (*, D)."""
        return components.expand(*k.shape, -1).gather(-1, k[..., None]).squeeze(-1)


class MuLawDistribution(Distribution):
    r"""Samples whose mu-law class is drawn first, then one of the class's levels, all alike.

    .. math:: P(x_d) = \pi_{d,c(x_d)} / n_{c(x_d)}

    with c(x) the class of a level and n_c the number of levels in class c.

    Args:
        grid: the levels.
        of_level: (levels,) int64, the class of each level, in rising order.
        counts: (C,), n_c.
        logits: (*, D, C).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, grid: Grid, of_level: Tensor, counts: Tensor, logits: Tensor) -> None:
        self.grid, self.of_level, self.counts = grid, of_level, counts
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the levels nearest to `value`. Shapes: (*, D) -> (*)."""
        c = self.of_level[self.grid.index(value)]
        shape = torch.broadcast_shapes(c.shape, self.logits.shape[:-1])
        log_class = self.logits.expand(*shape, -1).gather(-1, c.expand(shape)[..., None])[..., 0]
        return (log_class - self.counts.to(log_class.dtype).log()[c]).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        c = Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
        inside = (torch.rand(c.shape, device=c.device) * self.counts[c]).long()
        return self.grid.x(self.firsts[c] + inside.clamp_max(self.counts[c] - 1), self.logits)

    @property
    def mean(self) -> Tensor:
        """(*, D)."""
        middle = self.firsts + (self.counts - 1) / 2
        return self.grid.x(self.logits.exp() @ middle.to(self.logits.dtype), self.logits)

    @property
    def mode(self) -> Tensor:
        """(*, D): for each sample the middle of the class whose levels are the likeliest."""
        c = (self.logits - self.counts.to(self.logits.dtype).log()).argmax(-1)
        return self.grid.x(self.firsts[c] + (self.counts[c] - 1) // 2, self.logits)

    @property
    def firsts(self) -> Tensor:
        """(C,) the first level of each class."""
        return self.counts.cumsum(0) - self.counts
