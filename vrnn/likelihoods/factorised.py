"""Output distributions in closed form: Gaussian mixtures, the pen's, and bits."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent, Normal

from vrnn.arguments import check_counts
from vrnn.layers.feedforward import SIGMA_BIAS, inverse_positive, positive
from vrnn.layers.state import at_least_float32
from vrnn.likelihoods.base import Likelihood, mixture_logits
from vrnn.likelihoods.distributions import (
    GaussianMixtureDistribution,
    PenDistribution,
    pick,
    sample_component,
    sample_pen,
)
from vrnn.likelihoods.fitting import fit_mixture

__all__ = ["Bernoulli", "GaussianMixture", "PenMixture"]

RHO_MAX = 1 - 1e-4
"""Keeps the bivariate density bounded and 1 - rho^2 exact enough in float32."""


class GaussianMixture(Likelihood):
    """A mixture of diagonal Gaussians, one weight vector per frame; with one component, a
    diagonal Gaussian.

    The decoder's outputs are K * D means, K * D pre-activations of sigma and, for K > 1, K logits.

    Args:
        x_dim: D.
        components: K.
    """

    kinds = ("real", "audio")

    def __init__(self, x_dim: int, components: int = 1) -> None:
        super().__init__()
        check_counts("model.likelihood.", components=components)

        self.x_dim, self.components = x_dim, components
        self.size = 2 * components * x_dim + mixture_logits(components)

    def bias(self, means: Tensor | None = None) -> Tensor:
        n = self.components * self.x_dim
        bias = torch.zeros(self.size)
        bias[n : 2 * n] = SIGMA_BIAS
        return bias

    def fit(self, frames: Tensor) -> Tensor:
        logits, means, variances = fit_mixture(frames, self.components)
        parts = [means.flatten(), inverse_positive(variances.sqrt()).flatten(), logits]
        return torch.cat(parts)[: self.size].float()

    def forward(self, params: Tensor, temperature: float = 1.0) -> Distribution:
        n = self.components * self.x_dim
        mean, a, logits = at_least_float32(params).split([n, n, self.size - 2 * n], dim=-1)
        std = positive(a) * temperature**0.5
        if self.components == 1:
            return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
        shape = (self.components, self.x_dim)
        return GaussianMixtureDistribution(
            logits / temperature, mean.unflatten(-1, shape), std.unflatten(-1, shape)
        )

    def sample(self, params: Tensor, temperature: float) -> Tensor:
        n, K, D = self.components * self.x_dim, self.components, self.x_dim
        mean, a = params[..., :n], params[..., n : 2 * n]
        if K > 1:
            k = sample_component(params[..., 2 * n :] / temperature)
            mean, a = (pick(part.unflatten(-1, (K, D)), k) for part in (mean, a))
        return torch.normal(mean, positive(a) * temperature**0.5)

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, components={self.components}"


class PenMixture(Likelihood):
    """A bivariate Gaussian mixture for the pen's offset and a Bernoulli for its lift; x_t = [pen,
    dx, dy].

    The decoder's outputs are 1 pen logit, K * 2 means, K * 2 pre-activations of sigma, K of rho
    (tanh) and, for K > 1, K logits.

    Args:
        x_dim: must be 3.
        components: K.

    Raises:
        ValueError: if `x_dim` is another number, or `components` is below 1.
    """

    kinds = ("pen",)
    firsts: Tensor
    strides: Tensor

    def __init__(self, x_dim: int = 3, components: int = 20) -> None:
        super().__init__()
        if x_dim != 3:
            raise ValueError(
                f"model.likelihood=PenMixture describes frames [pen, dx, dy], not x.dim={x_dim} "
                "numbers; of pen trajectories leave x.dim at its default, of other data choose "
                "x.likelihood=vrnn.likelihoods.GaussianMixture"
            )
        check_counts("model.likelihood.", components=components)

        self.x_dim, self.components = x_dim, components
        self.size = 1 + 5 * components + mixture_logits(components)
        # Where the five numbers of a component stand.
        firsts = [1, 2, 1 + 2 * components, 2 + 2 * components, 1 + 4 * components]
        for name, where in (("firsts", firsts), ("strides", [2, 2, 2, 2, 1])):
            self.register_buffer(name, torch.tensor(where), persistent=False)

    def bias(self, means: Tensor | None = None) -> Tensor:
        n = 2 * self.components
        bias = torch.zeros(self.size)
        bias[1 + n : 1 + 2 * n] = SIGMA_BIAS
        return bias

    def fit(self, frames: Tensor) -> Tensor:
        logits, means, covariances = fit_mixture(frames[:, 1:], self.components, full=True)
        std = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
        rho = covariances[:, 0, 1] / std.prod(-1)
        parts = [
            frames[:, :1].double().mean(0).logit(eps=1e-4),
            means.flatten(),
            inverse_positive(std).flatten(),
            (rho / RHO_MAX).clamp(-RHO_MAX, RHO_MAX).atanh(),
            logits,
        ]
        return torch.cat(parts)[: self.size].float()

    def forward(self, params: Tensor, temperature: float = 1.0) -> PenDistribution:
        k = self.components
        params = at_least_float32(params)
        pen, mean, a, r, logits = params.split([1, 2 * k, 2 * k, k, mixture_logits(k)], dim=-1)
        return PenDistribution(
            pen=pen[..., 0] / temperature,
            logits=logits / temperature if k > 1 else torch.zeros_like(r),
            mean=mean.unflatten(-1, (k, 2)),
            std=positive(a).unflatten(-1, (k, 2)) * temperature**0.5,
            rho=RHO_MAX * r.tanh(),
        )

    def sample(self, params: Tensor, temperature: float) -> Tensor:
        K, chosen = self.components, params[..., 1:]
        if K > 1:
            k = sample_component(params[..., 1 + 5 * K :] / temperature)[..., None]
            chosen = params.gather(-1, torch.addcmul(self.firsts, self.strides, k))
        mean, a, r = chosen.split([2, 2, 1], dim=-1)
        std = positive(a) * temperature**0.5
        return sample_pen(params[..., :1] / temperature, mean, std, RHO_MAX * r.tanh())

    def extra_repr(self) -> str:
        return f"components={self.components}"


class Bernoulli(Likelihood):
    """Independent bits, for piano rolls.

    The decoder's outputs are logits, so that logits of +-1e4 stay finite. Their initial bias is
    the log-odds of the mean frame.

    Args:
        x_dim: D.
    """

    kinds = ("binary",)

    def __init__(self, x_dim: int) -> None:
        super().__init__()

        self.x_dim = self.size = x_dim

    def bias(self, means: Tensor | None = None) -> Tensor:
        return super().bias() if means is None else means.logit(eps=1e-4)

    def fit(self, frames: Tensor) -> Tensor:
        return self.bias(frames.mean(0))

    def forward(self, params: Tensor, temperature: float = 1.0) -> Distribution:
        logits = at_least_float32(params) / temperature
        return Independent(
            BernoulliDistribution(logits=logits, validate_args=False), 1, validate_args=False
        )

    def draw(self, params: Tensor, temperature: float = 1.0) -> Tensor:
        # torch's Bernoulli has no mode at a logit of 0, where an untrained model starts.
        if temperature > 0:
            return super().draw(params, temperature)
        return (params > 0).to(at_least_float32(params).dtype)

    def sample(self, params: Tensor, temperature: float) -> Tensor:
        return torch.bernoulli((params / temperature).sigmoid())

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}"
