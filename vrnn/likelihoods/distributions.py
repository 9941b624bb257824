"""Two distributions that torch lacks: a mixture with a mode, and the pen's next move."""

import math

import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    constraints,
)

__all__ = [
    "GaussianMixtureDistribution",
    "PenDistribution",
    "pick",
    "sample_component",
    "sample_pen",
]

LOG_2PI = math.log(2 * math.pi)


class GaussianMixtureDistribution(MixtureSameFamily):
    r"""A mixture of diagonal Gaussians with one weight vector for the whole event.

    .. math:: p(x) = \sum_k \pi_k \prod_d N(x_d; \mu_{k,d}, \sigma_{k,d}^2)

    Args:
        logits: (*, K), of the mixture weights.
        mean, std: (*, K, D).
    """

    def __init__(self, logits: Tensor, mean: Tensor, std: Tensor) -> None:
        self.std = std
        super().__init__(
            Categorical(logits=logits, validate_args=False),
            Independent(Normal(mean, std, validate_args=False), 1, validate_args=False),
            validate_args=False,
        )

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        # Chooses a component before it draws, in place of a draw from each.
        shape = torch.Size(sample_shape) + self.batch_shape
        mean = self.component_distribution.mean.expand(*shape, -1, -1)
        k = sample_component(self.mixture_distribution.logits.expand(*shape, -1))
        return torch.normal(pick(mean, k), pick(self.std.expand_as(mean), k))

    @property
    def mode(self) -> Tensor:
        """The mean of the component with the highest peak, (*, D)."""
        peak = self.mixture_distribution.logits - self.std.log().sum(-1)
        return pick(self.component_distribution.mean, peak.argmax(-1))


class PenDistribution(Distribution):
    r"""The pen's next move: a pen-lift bit and an offset from a mixture of bivariate Gaussians.

    .. math::
        p(x) = Bernoulli(x_0; b) \sum_k \pi_k N_2((x_1, x_2); \mu_k, \sigma_k, \rho_k)

    The event is [pen, dx, dy], the pen first, as in the original code.

    Args:
        pen: (*,), logit of lifting the pen.
        logits: (*, K), of the mixture weights.
        mean, std: (*, K, 2).
        rho: (*, K), correlation, inside (-1, 1).

    References:
        Generating Sequences With Recurrent Neural Networks (Graves, 2013), https://arxiv.org/abs/1308.0850
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self, pen: Tensor, logits: Tensor, mean: Tensor, std: Tensor, rho: Tensor
    ) -> None:
        self.pen, self.std, self.rho = pen, std, rho
        self.logits = logits.log_softmax(-1)
        self.means = mean
        super().__init__(pen.shape, torch.Size([3]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the offset plus log probability of the bit. Shapes: (*, 3) -> (*)."""
        pen = value[..., 0]
        u, v = ((value[..., None, 1:] - self.means) / self.std).unbind(-1)
        free = (1 - self.rho) * (1 + self.rho)
        quadratic = (u - self.rho * v).square() / free + v.square()
        log_n2 = -0.5 * (free.log() + quadratic) - self.std.log().sum(-1) - LOG_2PI
        log_offset = torch.logsumexp(self.logits + log_n2, dim=-1)
        log_pen = pen * self.pen - torch.nn.functional.softplus(self.pen)
        return log_offset + log_pen

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        k = sample_component(self.logits.expand(*shape, -1))
        mean = pick(self.means.expand(*shape, *self.means.shape[-2:]), k)
        std = pick(self.std.expand(*shape, *self.std.shape[-2:]), k)
        rho = self.rho.expand(*shape, -1).gather(-1, k[..., None])
        return sample_pen(self.pen.expand(shape)[..., None], mean, std, rho)

    @property
    def mean(self) -> Tensor:
        """(*, 3): the probability of a lift and the mixture's mean offset."""
        offset = (self.logits.exp()[..., None] * self.means).sum(-2)
        return torch.cat([self.pen.sigmoid()[..., None], offset], -1)

    @property
    def mode(self) -> Tensor:
        """(*, 3): the likelier bit and the mean of the component with the highest peak."""
        spread = self.std.log().sum(-1) + 0.5 * ((1 - self.rho) * (1 + self.rho)).log()
        offset = pick(self.means, (self.logits - spread).argmax(-1))
        return torch.cat([(self.pen > 0).to(offset.dtype)[..., None], offset], -1)


def sample_component(logits: Tensor) -> Tensor:
    """Draws k, by Gumbel's way. Shapes: (*, K) -> (*)."""
    if logits.shape[-1] == 1:
        return torch.zeros_like(logits[..., 0], dtype=torch.int64)
    waits = torch.empty_like(logits).exponential_()
    return (logits - waits.log()).argmax(-1)


def sample_pen(pen: Tensor, mean: Tensor, std: Tensor, rho: Tensor) -> Tensor:
    """Draws [pen, dx, dy] of one component. Shapes: pen (*, 1), logit of the lift, mean and std
    (*, 2), rho (*, 1) -> (*, 3)."""
    dx, free = torch.randn_like(mean).split(1, -1)
    dy = torch.addcmul(rho * dx, rho.acos().sin(), free)
    offset = torch.addcmul(mean, std, torch.cat([dx, dy], -1))
    return torch.cat([torch.bernoulli(pen.sigmoid()), offset], -1)


def pick(components: Tensor, k: Tensor) -> Tensor:
    """Selects component k. Shapes: (*, K, D), (*) -> (*, D)."""
    index = k[..., None, None].expand(*k.shape, 1, components.shape[-1])
    return components.gather(-2, index).squeeze(-2)
