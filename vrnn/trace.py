"""What models give to bounds: the densities of sequences, frames, and weighted particles."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vrnn.layers.state import Gaussian, State

__all__ = [
    "Frame",
    "Particles",
    "RESAMPLING",
    "Resampling",
    "Trace",
    "USUAL",
    "check_resampling",
    "gaussian",
    "per_dimension",
]


class Trace(NamedTuple):
    """All densities of a batch of sequences under a model; what the bounds are computed from."""

    posterior: Distribution | None
    """q(z_t | ...), batch (T, B), event (Z,); None for a model without latent variables."""
    prior: Distribution | None
    """p(z_t | x_{<t}, z_{<t}), likewise."""
    likelihood: Distribution
    """p(x_t | z_{<=t}, x_{<t}), batch (T, B), event (D,)."""
    z: Tensor
    """(T, B, Z), one draw from the posterior; Z = 0 without latent variables."""
    state: State
    """State after step T; of no meaning for rows that ended before."""
    forecast: Distribution | None = None
    """p(b_t | z_t, h_{t-1}), batch (T, B), of a model that forecasts what inference sees of the
    future, b_t."""
    future: Tensor | None = None
    """b_t, (T, B, U), without gradient."""


class Frame(NamedTuple):
    """One generated time step, standardised."""

    x: Tensor
    """(B, D), the drawn frame, which is also fed back."""
    z: Tensor
    """(B, Z)."""
    density: Gaussian | None
    """Mean and standard deviation of `prior`."""
    params: Tensor
    """(B, P), the decoder's outputs."""
    head: Callable[[Tensor], Distribution]
    """The likelihood that they are parameters of."""

    @property
    def prior(self) -> Distribution | None:
        """p(z_t | x_{<t}, z_{<t})."""
        return None if self.density is None else gaussian(*self.density)

    @property
    def likelihood(self) -> Distribution:
        """p(x_t | z_{<=t}, x_{<t}), at temperature 1."""
        return self.head(self.params)


RESAMPLING = ("multinomial", "systematic", "never")


class Resampling(NamedTuple):
    """When a particle filter draws its particles anew on the way, by their weights, and how."""

    how: str = "multinomial"
    """One of `RESAMPLING`."""
    threshold: float = 0.5
    """Where the effective sample size is below this share of K."""


USUAL = Resampling()


class Particles(NamedTuple):
    """K weighted trajectories of every sequence, step by step."""

    log_w: Tensor
    """(T, K, B), log of the weight gathered since the last resampling, that of step t included:
    the sum of log p(x_t | ...) + beta (log p(z_t | ...) - log q(z_t | ...))."""
    ancestors: Tensor
    """(T, K, B) int64, which particle each one goes on from after step t; itself where nothing
    was resampled."""
    collected: Tensor
    """(T, B) bool, where the weights were turned into evidence and set back to one: at every
    resampling before a sequence's last step, and after step T."""
    kl: Tensor
    """(T, K, B), log q(z_t | ...) - log p(z_t | ...), whose expectation is the KL of step t."""
    state: State
    """State after step T, K * B rows, particle-major, resampled."""
    owed: Tensor
    """(K, B), what the last log weights lack of untempered ones: the sum of (1 - beta)
    (log p(z_t | ...) - log q(z_t | ...)) over the steps of particle k and of its ancestors."""


def per_dimension(diagonal: Distribution) -> Normal:
    """The Normal over single dimensions, batch (T, B, Z), of a diagonal Gaussian."""
    assert isinstance(diagonal, Independent) and isinstance(diagonal.base_dist, Normal)
    return diagonal.base_dist


def gaussian(mean: Tensor, std: Tensor) -> Distribution:
    """A diagonal Gaussian. Shapes: mean, std (*, Z) -> batch (*), event (Z,)."""
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)


def check_resampling(resampling: Resampling) -> None:
    """Refuses what is no way of resampling.

    Raises:
        ValueError: if `how` is none of `RESAMPLING`, or `threshold` is outside of [0, 1].
    """
    how, threshold = resampling
    if how not in RESAMPLING:
        raise ValueError(f"resampling={how} is not one of {', '.join(RESAMPLING)}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a share of the particles in [0, 1], not {threshold}")
