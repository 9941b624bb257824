"""What training maximises. Reported figures never depend on an objective's weights."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from vrnn import bounds
from vrnn.arguments import check_counts, choose
from vrnn.layers.state import State
from vrnn.models.base import SequenceModel
from vrnn.models.latent import LatentModel
from vrnn.particle_filter import draw_ancestors, particle_filter, take
from vrnn.segments import by_segments
from vrnn.trace import USUAL, Resampling, Trace, check_resampling, per_dimension

__all__ = ["ELBO", "FIVO", "IWAE", "Loss", "Objective"]


class Loss(NamedTuple):
    """One training step's loss and what to log of it: nats, summed over the batch's own steps."""

    loss: Tensor
    """(), minus the weighted objective."""
    bound: Tensor
    """(), the bound as it is: neither weighted nor clamped."""
    kl: Tensor
    """(), likewise; where there are particles, their mean."""
    state: State
    """State after the batch, particles * B rows."""


class Objective(nn.Module, ABC):
    """A lower bound as a loss, with an optional warm-up of beta, the weight of the KL.

    Args:
        kl_start: beta at the first update.
        kl_steps: updates over which beta rises to 1; 0, as in the paper, for none.
        kl_schedule: how it rises, "linear" or "cosine" (half a period).

    Raises:
        ValueError: if `kl_start` is not in [0, 1], `kl_steps` is negative, one of them is given
            without the other, or the schedule is none of those above.

    Attributes:
        name: as in `val/<name>`, by which the best weights are chosen.
        particles: K, latent trajectories of every sequence.
        segments: it can be computed by segments of time, `model.checkpoint_steps`.
        resampling: of the particle filter behind `val/fivo` and `test/fivo`.
    """

    name: str
    particles: int = 1
    segments: bool = True
    resampling: Resampling = USUAL

    def __init__(
        self, kl_start: float = 1.0, kl_steps: int = 0, kl_schedule: str = "linear"
    ) -> None:
        super().__init__()
        if not 0 <= kl_start <= 1:
            raise ValueError(f"objective.kl_start must be between 0 and 1, not {kl_start}")
        if kl_steps < 0:
            raise ValueError(f"objective.kl_steps must not be negative, and is {kl_steps}")
        choose("objective.kl_schedule", kl_schedule, ("linear", "cosine"))
        if (kl_start < 1) != (kl_steps > 0):
            raise ValueError(
                f"objective.kl_start={kl_start} with objective.kl_steps={kl_steps} is no warm-up: "
                "give a kl_start below 1 and a number of kl_steps"
            )

        self.kl_start, self.kl_steps, self.kl_schedule = kl_start, kl_steps, kl_schedule

    def kl_weight(self, step: int) -> float:
        """beta at an update, a function of its number alone, so that resumed runs go on."""
        if step >= self.kl_steps:
            return 1.0
        share = step / self.kl_steps
        if self.kl_schedule == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return self.kl_start + (1.0 - self.kl_start) * share

    @abstractmethod
    def forward(
        self,
        model: SequenceModel,
        x: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        step: int,
        state: State | None = None,
    ) -> Loss:
        """Computes the loss of a batch.

        Args:
            x: standardised frames, (T, B, D).
            mask: (T, B).
            generator: of all noise.
            step: number of the update.
            state: where the recurrence starts, K * B rows; None for h_0 = 0.
        """

    def noise(self, model: SequenceModel, x: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise for K particles, (T, K * B, Z)."""
        shape = (len(x), self.particles * x.shape[1], model.z_dim)
        return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)


class ELBO(Objective):
    r"""The evidence lower bound, with optional free bits and an optional forecast of the future.

    .. math:: -\sum_{t,b} [\log p(x_t | z_{\le t}, x_{<t}) - \beta \max(\lambda, KL(q_t \|
        prior_t)) + \alpha \log p(b_t | z_t, h_{t-1})]

    All are off by default, as in the paper.

    Args:
        kl_start, kl_steps, kl_schedule: the warm-up, as of `Objective`.
        free_bits: lambda, nats that cost nothing.
        free_bits_per: "step", lambda for every time step, or "dimension", for every latent
            dimension of every time step.
        forecast: alpha, weight of the auxiliary cost of Z-Forcing; needs `model.forecast`.

    Raises:
        ValueError: as of `Objective`; if free bits or a weight are negative, or `free_bits_per` is
            none of those above.

    References:
        Z-Forcing: Training Stochastic Recurrent Networks (Goyal et al., 2017),
        https://arxiv.org/abs/1711.05411
    """

    name = "elbo"

    def __init__(
        self,
        kl_start: float = 1.0,
        kl_steps: int = 0,
        kl_schedule: str = "linear",
        free_bits: float = 0.0,
        free_bits_per: str = "step",
        forecast: float = 0.0,
    ) -> None:
        super().__init__(kl_start, kl_steps, kl_schedule)
        for name, value in (("free_bits", free_bits), ("forecast", forecast)):
            if value < 0:
                raise ValueError(f"objective.{name} must not be negative, and is {value}")
        choose("objective.free_bits_per", free_bits_per, ("step", "dimension"))

        self.free_bits, self.free_bits_per, self.forecast = free_bits, free_bits_per, forecast

    def forward(
        self,
        model: SequenceModel,
        x: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        step: int,
        state: State | None = None,
    ) -> Loss:
        noise = self.noise(model, x, generator)
        (log_likelihood, kl, paid, gained), state = by_segments(
            self.terms, model, x, mask, noise, model.checkpoint_steps, state
        )
        loss = self.kl_weight(step) * paid.sum() - gained.sum()
        bound = log_likelihood - kl
        return Loss(loss, bound.detach().sum(), kl.detach().sum(), state)

    def terms(self, trace: Trace, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The bound's two terms, and what the loss makes of the KL and of the likelihood."""
        terms = bounds.elbo_terms(trace, x, mask)
        kl, gained = terms.kl, terms.log_likelihood
        if self.free_bits > 0 and trace.posterior is not None and trace.prior is not None:
            if self.free_bits_per == "dimension":
                pair = per_dimension(trace.posterior), per_dimension(trace.prior)
                kl = kl_divergence(*pair).clamp_min(self.free_bits).sum(-1)
            kl = torch.where(mask, kl.clamp_min(self.free_bits), 0.0)
        if self.forecast > 0 or trace.forecast is not None:
            gained = gained + self.forecast * bounds.forecast(trace, mask)
        return *terms, kl, gained

    def extra_repr(self) -> str:
        return (
            f"kl_start={self.kl_start}, kl_steps={self.kl_steps}, kl_schedule={self.kl_schedule}, "
            f"free_bits={self.free_bits} per {self.free_bits_per}, forecast={self.forecast}"
        )


class IWAE(Objective):
    r"""The importance-weighted bound of K trajectories, `vrnn.bounds.importance_weighted`.

    .. math:: -\sum_b \log \frac{1}{K} \sum_k \prod_t p(x_t | z_{\le t}^k, x_{<t}) \left[
        \frac{p(z_t^k | x_{<t}, z_{<t}^k)}{q(z_t^k | \cdot)} \right]^\beta

    Args:
        particles: K.
        kl_start, kl_steps, kl_schedule: the warm-up of beta, as of `Objective`.

    Raises:
        ValueError: as of `Objective`, or if there are fewer particles than one.
    """

    name = "iwae"

    def __init__(
        self,
        particles: int = 8,
        kl_start: float = 1.0,
        kl_steps: int = 0,
        kl_schedule: str = "linear",
    ) -> None:
        super().__init__(kl_start, kl_steps, kl_schedule)
        check_counts("objective.", particles=particles)
        self.particles = particles

    def forward(
        self,
        model: SequenceModel,
        x: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        step: int,
        state: State | None = None,
    ) -> Loss:
        K, beta = self.particles, self.kl_weight(step)
        noise = self.noise(model, x, generator)
        (log_likelihood, log_ratio, kl), state = by_segments(
            self.terms, model, x, mask, noise, model.checkpoint_steps, state
        )

        def bound(log_w: Tensor) -> Tensor:
            return bounds.importance_weighted(bounds.split_particles(log_w, K)).sum()

        loss = -bound(log_likelihood + beta * log_ratio)
        with torch.no_grad():
            log_w = log_likelihood + log_ratio
            true = -loss if beta == 1 else bound(log_w)
            # What the next window goes on from has to be of equal weight, or no sum over windows
            # would be a bound.
            totals = bounds.split_particles(log_w, K).sum(0)
            uniform = torch.rand(totals.shape, generator=generator, device=x.device)
            state = take(state, draw_ancestors(totals, uniform, "multinomial"))
        return Loss(loss, true.detach(), kl.detach().sum() / K, state)

    @staticmethod
    def terms(trace: Trace, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        terms = bounds.elbo_terms(trace, x, mask)
        return terms.log_likelihood, bounds.log_ratio(trace, mask), terms.kl

    def extra_repr(self) -> str:
        return (
            f"particles={self.particles}, kl_start={self.kl_start}, kl_steps={self.kl_steps}, "
            f"kl_schedule={self.kl_schedule}"
        )


class FIVO(Objective):
    """The filtering bound of a particle filter, `vrnn.bounds.filtering_bound`.

    While beta is below 1 the filter's weights are tempered by it, those that particles are chosen
    by on the way included. The bound that is logged is untempered, and so is the choice of those
    that a next window goes on from.

    Args:
        particles: K.
        resampling: "multinomial", "systematic" or "never".
        threshold: resample where the effective sample size is below this share of K.
        resampling_gradient: count the choice of ancestors in the gradient, which makes it
            noisier, and unbiased with a threshold of 1 or 0; between them the weights also decide
            when to resample, which no gradient counts. The paper found it better left out.
        kl_start, kl_steps, kl_schedule: the warm-up of beta, as of `Objective`.

    Raises:
        ValueError: as of `Objective`; if there are fewer particles than one, or the gradient is
            asked of another resampling than multinomial.
    """

    name = "fivo"
    segments = False

    def __init__(
        self,
        particles: int = 8,
        resampling: str = "multinomial",
        threshold: float = 0.5,
        resampling_gradient: bool = False,
        kl_start: float = 1.0,
        kl_steps: int = 0,
        kl_schedule: str = "linear",
    ) -> None:
        super().__init__(kl_start, kl_steps, kl_schedule)
        self.resampling = Resampling(resampling, threshold)
        check_resampling(self.resampling)
        if resampling_gradient and resampling != "multinomial":
            raise ValueError(
                "objective.resampling_gradient is that of objective.resampling=multinomial, not "
                f"of {resampling}"
            )
        check_counts("objective.", particles=particles)
        self.particles = particles
        self.resampling_gradient = resampling_gradient

    def forward(
        self,
        model: SequenceModel,
        x: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        step: int,
        state: State | None = None,
    ) -> Loss:
        if not isinstance(model, LatentModel):
            raise ValueError(
                f"objective=fivo needs latent variables, which {type(model).__name__} has not; "
                "objective=elbo is its exact likelihood"
            )
        if model.checkpoint_steps is not None:
            raise ValueError(
                "objective=fivo remembers all steps: model.checkpoint_steps is for objective=elbo "
                "and objective=iwae"
            )
        beta = self.kl_weight(step)
        noise = self.noise(model, x, generator)
        shape = (len(x), self.particles, x.shape[1])
        uniform = torch.rand(shape, generator=generator, device=x.device)
        particles = particle_filter(model, x, mask, noise, uniform, self.resampling, state, beta)
        bound = bounds.filtering_bound(particles).sum()
        loss = -bound
        if self.resampling_gradient:
            score = bounds.resampling_score(particles).sum()
            loss = loss - (score - score.detach())
        if beta < 1:
            with torch.no_grad():
                bound = bounds.untempered_bound(particles).sum()
        kl = particles.kl.detach().sum() / self.particles
        return Loss(loss, bound.detach(), kl, particles.state)

    def extra_repr(self) -> str:
        how, threshold = self.resampling
        return (
            f"particles={self.particles}, resampling={how}, threshold={threshold}, "
            f"resampling_gradient={self.resampling_gradient}, "
            f"kl_start={self.kl_start}, kl_steps={self.kl_steps}, kl_schedule={self.kl_schedule}"
        )
