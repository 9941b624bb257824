"""A bound as a loss: what all objectives of `vrnn.objectives` share."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vrnn.networks import State
from vrnn.particle_filter import USUAL, Resampling
from vrnn.sequence_model import SequenceModel, choose

__all__ = ["Loss", "Objective"]


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
