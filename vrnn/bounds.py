"""Lower bounds of the log likelihood, as pure functions, and the table of those that score a
sequence, `BOUNDS`. All figures are in nats.

A density's value depends on the scale of x: these are in the space of the x given, the
standardised one; `vrnn.normaliser.convert` takes them elsewhere.
"""

import math
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vrnn.trace import Particles, Trace

__all__ = [
    "BOUNDS",
    "Bound",
    "DEFAULT_BOUNDS",
    "Source",
    "Terms",
    "check_bounds",
    "elbo",
    "elbo_terms",
    "filtering_bound",
    "forecast",
    "importance_weighted",
    "is_density",
    "log_ratio",
    "log_weights",
    "masked",
    "paper_estimate",
    "resampling_score",
    "split_particles",
    "untempered_bound",
]


class Terms(NamedTuple):
    """The two parts of the ELBO at every step, zero on padding."""

    log_likelihood: Tensor
    """log p(x_t | z_{<=t}, x_{<t}), (T, B)."""
    kl: Tensor
    """KL(q_t || prior_t), analytic, (T, B); 0 without latent variables."""

    @property
    def elbo(self) -> Tensor:
        """The share of the ELBO, (T, B)."""
        return self.log_likelihood - self.kl


def elbo_terms(trace: Trace, x: Tensor, mask: Tensor) -> Terms:
    """Computes the ELBO's terms. Shapes: x (T, B, D), mask (T, B)."""
    log_likelihood = masked(trace.likelihood.log_prob(x), mask)
    if trace.posterior is None or trace.prior is None:
        return Terms(log_likelihood, torch.zeros_like(log_likelihood))
    return Terms(log_likelihood, masked(kl_divergence(trace.posterior, trace.prior), mask))


def elbo(trace: Trace, x: Tensor, mask: Tensor) -> Tensor:
    r"""Evidence lower bound, one draw of z and the analytic KL; exact without latent variables.

    .. math::
        E_q \sum_t [\log p(x_t | z_{\le t}, x_{<t}) - KL(q_t \| prior_t)] \le \log p(x_{\le T})

    Shapes: x (T, B, D), mask (T, B) -> nats per sequence (B,).
    """
    return elbo_terms(trace, x, mask).elbo.sum(0)


def forecast(trace: Trace, mask: Tensor) -> Tensor:
    """Log density of what inference sees of the future, log p(b_t | z_t, h_{t-1}).

    Shapes: mask (T, B) -> nats (T, B), zero on padding.

    Raises:
        ValueError: if the model forecasts nothing.
    """
    if trace.forecast is None or trace.future is None:
        raise ValueError(
            "objective.forecast needs model.forecast=true, a model with model.posterior=smoothing"
        )
    return masked(trace.forecast.log_prob(trace.future), mask)


def log_ratio(trace: Trace, mask: Tensor) -> Tensor:
    r"""The latents' share of a log weight, minus a draw of the KL.

    .. math:: \log p(z_t | x_{<t}, z_{<t}) - \log q(z_t | \cdot)

    Shapes: mask (T, B) -> (T, B), zero on padding and without latent variables.
    """
    if trace.posterior is None or trace.prior is None:
        return trace.z.new_zeros(mask.shape)
    return masked(trace.prior.log_prob(trace.z) - trace.posterior.log_prob(trace.z), mask)


def log_weights(trace: Trace, x: Tensor, mask: Tensor) -> Tensor:
    r"""Log importance weight of every step.

    .. math::
        \log w_t = \log p(x_t | z_{\le t}, x_{<t}) + \log p(z_t | x_{<t}, z_{<t})
            - \log q(z_t | \cdot)

    Shapes: x (T, B, D), mask (T, B) -> (T, B), zero on padding.
    """
    return masked(trace.likelihood.log_prob(x), mask) + log_ratio(trace, mask)


def split_particles(log_w: Tensor, particles: int) -> Tensor:
    """Unfolds K particles from the batch. Shapes: (T, K * B), particle-major -> (T, K, B)."""
    return log_w.unflatten(1, (particles, -1))


def importance_weighted(log_w: Tensor) -> Tensor:
    r"""Importance-weighted bound of K trajectories; with K = 1 a draw of the ELBO.

    .. math:: \log \frac{1}{K} \sum_k \prod_t w_t^k

    Shapes: (T, K, B) -> nats per sequence (B,).

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """
    return log_mean_exp(log_w.sum(0))


def filtering_bound(particles: Particles) -> Tensor:
    r"""The particle filter's estimate of the log likelihood, in expectation a lower bound; without
    resampling the importance-weighted bound.

    .. math:: \sum_r \log \frac{1}{K} \sum_k \prod_{t_{r-1} < t \le t_r} w_t^k

    over the steps :math:`t_r` after which the particles were resampled, the last one included, and
    with the weights :math:`w_t` of one step each, along the ancestors of particle k. Shapes:
    (T, K, B) -> nats per sequence (B,).

    References:
        Filtering Variational Objectives (Maddison et al., 2017), https://arxiv.org/abs/1705.09279
    """
    return evidence(particles).sum(0)


def untempered_bound(particles: Particles) -> Tensor:
    r"""The same of a filter whose weights were tempered by beta: a bound again.

    .. math:: \sum_{r < R} \log \frac{1}{K} \sum_k W_r^k + \log \frac{1}{K} \sum_k W_R^k
        \prod_{t \le T} \left[ \frac{p(z_t^k | \cdot)}{q(z_t^k | \cdot)} \right]^{1 - \beta}

    with the tempered weights :math:`W_r^k` gathered between two resamplings, and the last product
    along the ancestors of particle k. Its exponential is unbiased, and noisier the smaller beta
    is. Shapes: (T, K, B) -> nats per sequence (B,).
    """
    gained = evidence(particles)[:-1].sum(0)
    return gained + log_mean_exp(particles.log_w[-1] + particles.owed)


def resampling_score(particles: Particles) -> Tensor:
    r"""What makes the gradient of the filtering bound count the choice of ancestors too.

    .. math:: \sum_r [\log \hat p - \log \hat p_{\le t_r}] \sum_k \log \bar W_r^{a_k}

    with the weights gathered between two resamplings, their sum over particles made one, and the
    bracket, the evidence of later steps, held constant: its expectation is no figure of
    interest, its gradient is the part that reparameterisation leaves out where the steps
    :math:`t_r` are given: with a threshold of 1 or 0. Of multinomial resampling only, whose
    ancestors are independent. Shapes: (T, K, B) -> (B,).
    """
    gained = evidence(particles).detach()
    later = gained.sum(0) - gained.cumsum(0)
    chosen = particles.log_w.log_softmax(1).gather(1, particles.ancestors).sum(1)
    return (torch.where(particles.collected, chosen, 0.0) * later).sum(0)


def evidence(particles: Particles) -> Tensor:
    """Log mean weights where they were collected, else 0. Shapes: (T, K, B) -> (T, B)."""
    return torch.where(particles.collected, log_mean_exp(particles.log_w.transpose(0, 1)), 0.0)


def paper_estimate(log_w: Tensor) -> Tensor:
    r"""What the original evaluation script computes. Not a bound: it may exceed the log
    likelihood.

    .. math:: \sum_t \log \frac{1}{K} \sum_k w_t^k

    Shapes: (T, K, B) -> nats per sequence (B,).
    """
    return log_mean_exp(log_w.transpose(0, 1)).sum(0)


def log_mean_exp(x: Tensor) -> Tensor:
    """Shapes: (K, *) -> (*)."""
    return torch.logsumexp(x, dim=0) - math.log(len(x))


def masked(values: Tensor, mask: Tensor) -> Tensor:
    assert values.shape == mask.shape, (
        f"a term must be (T, B) = {tuple(mask.shape)}, not {tuple(values.shape)}"
    )
    return torch.where(mask, values, 0.0)


class Source(Enum):
    """What a bound is computed from, hence what an evaluation runs the model for."""

    TERMS = "trajectories"
    """`Terms` of every sequence, each (B,), means over K trajectories."""
    WEIGHTS = "weighted trajectories"
    """Log weights (T, K, B) of K trajectories."""
    FILTER = "a particle filter"
    """`Particles` of a filter of K particles."""
    SILENCED = "a particle filter whose z_t does not look at x_t"
    """`Particles` of one that draws z_t from the prior."""
    OPEN_LOOP = "the model left to itself"
    """`Terms` of every step, each (T, B), under the model that is fed its own mean instead of x:
    another model, and none without latent variables."""


class Bound(NamedTuple):
    """A figure that scores a sequence, and how it is called."""

    label: str
    """Its name in tables and pages, where K follows it if it depends on K."""
    source: Source
    compute: Callable[[Any], Tensor]
    """Computes it from its source: nats per sequence, (B,)."""
    parts: tuple[str, ...] = ()
    """Fields of its source that are reported with it."""
    no_bound: str = ""
    """What the figure is, for a footnote, if it may exceed the log likelihood; else empty."""

    @property
    def weighs_particles(self) -> bool:
        """Whether it is another figure for another K."""
        return self.source in (Source.WEIGHTS, Source.FILTER, Source.SILENCED)

    @property
    def of_log_likelihood(self) -> bool:
        """Whether it estimates log p(x), and is log p(x) without latent variables."""
        return self.source is not Source.OPEN_LOOP

    @property
    def is_lower_bound(self) -> bool:
        """Whether it is at most log p(x), in expectation."""
        return self.of_log_likelihood and not self.no_bound

    def title(self, particles: float | None) -> str:
        """The label, with its K if that is known and counts."""
        k = f"-{particles:.0f}" if particles is not None and self.weighs_particles else ""
        return f"{self.label}{k}"


BOUNDS = {
    "elbo": Bound("ELBO", Source.TERMS, lambda terms: terms.elbo, parts=Terms._fields),
    "iwae": Bound("IWAE", Source.WEIGHTS, importance_weighted),
    "fivo": Bound("FIVO", Source.FILTER, filtering_bound),
    "silenced": Bound("silenced", Source.SILENCED, filtering_bound),
    "paper": Bound(
        "paper",
        Source.WEIGHTS,
        paper_estimate,
        no_bound="the original script's estimate, not a bound",
    ),
    "open_loop": Bound("open loop", Source.OPEN_LOOP, lambda steps: steps.elbo.double().sum(0)),
}
"""All figures that `vrnn.evaluation.score` computes, by their names in files and options. Options,
tables, pages and curves take names and labels from here, so that one more line is enough."""

DEFAULT_BOUNDS = ("elbo", "iwae", "paper")


def check_bounds(names: Collection[str], option: str = "bounds") -> None:
    """Refuses names that are not in `BOUNDS`.

    Raises:
        ValueError: names them, the option, and those that there are.
    """
    unknown = sorted(set(names) - BOUNDS.keys())
    if unknown:
        raise ValueError(f"{option} {','.join(unknown)}: choose from {', '.join(BOUNDS)}")


def is_density(figure: str) -> bool:
    """Whether a figure is a log density of x, which depends on the unit of x; a KL is none."""
    known = (name for bound, row in BOUNDS.items() for name in (bound, *row.parts))
    return figure != "kl" and figure in known
