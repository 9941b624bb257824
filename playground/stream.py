"""Endless generation whose temperatures and latents change while it runs."""

from typing import NamedTuple

import torch
from torch import Tensor

from vrnn.layers.state import top
from vrnn.models.base import SequenceModel

__all__ = ["Controls", "Stream"]


class Controls(NamedTuple):
    """What a visitor may change from step to step."""

    temperature_z: float = 1.0
    temperature_x: float = 1.0
    offsets: Tensor | None = None
    """(Z,) or (B, Z), added to every draw of z_t, in standard deviations of its prior."""


class Stream:
    """`SequenceModel.stream` with controls, and with random numbers of its own.

    Two streams must not run at the same time in two threads: torch's random state, which each
    exchanges for its own while it runs, is that of the process.

    Args:
        model: in evaluation mode.
        seed: of all draws.
        prime: standardised beginning to be continued, (T0, B, D).
        batch: B.
        length: frames after which the next sequence begins, at h_0; None for one without end.
    """

    def __init__(
        self,
        model: SequenceModel,
        seed: int,
        prime: Tensor | None = None,
        batch: int = 1,
        length: int | None = None,
    ) -> None:
        self.model, self.batch, self.length = model, batch, length
        self.drawn = 0
        with torch.random.fork_rng([]), torch.inference_mode():
            torch.manual_seed(seed)
            self.state = (
                model.initial(batch)
                if prime is None or len(prime) == 0
                else model.trace(prime).state
            )
            self.rng = torch.get_rng_state()

    @torch.inference_mode()
    def frames(self, n: int, controls: Controls) -> Tensor:
        """The next n frames, standardised, (n, B, D).

        Raises:
            FloatingPointError: if the model diverges; the stream is of no more use then.
        """
        model = self.model
        frames = []
        with torch.random.fork_rng([]):
            torch.set_rng_state(self.rng)
            for _ in range(n):
                if self.length is not None and self.drawn == self.length:
                    self.state, self.drawn = model.initial(self.batch), 0
                noise = torch.randn(self.batch, model.z_dim).to(self.state[0])
                noise = controls.temperature_z**0.5 * noise
                if controls.offsets is not None:
                    noise = noise + controls.offsets
                z, _ = model.draw_z(self.state, noise)
                params = model.decode(z, top(self.state))
                if not params.isfinite().all():
                    raise FloatingPointError("the model's outputs are no longer finite numbers")
                x = model.likelihood.draw(params, controls.temperature_x)
                frames.append(x)
                self.state = model.advance(x, z, self.state)
                self.drawn += 1
            self.rng = torch.get_rng_state()
        return torch.stack(frames)
