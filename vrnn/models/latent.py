"""What all models with a latent variable at every time step share, whatever their graph."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from vrnn.arguments import choose
from vrnn.cell import Cell, Unrolled
from vrnn.engine.unroll import unroll_plain
from vrnn.layers.feedforward import Linear, StandardNormal, inverse_positive
from vrnn.layers.recurrent import Recurrence
from vrnn.layers.state import Gaussian, State, top
from vrnn.models.base import SequenceModel
from vrnn.trace import Trace, gaussian

__all__ = ["LATENTS", "LatentModel", "summarise_future"]

LATENTS = ("inferred", "noise", "fixed")
"""What z_t is: drawn from q(z_t | x); or, in the twins of a model, which show what latents
contribute, noise or a vector that know nothing of x."""


class LatentModel(SequenceModel):
    """A sequence model whose `cell` has a latent variable z_t.

    A subclass says what inference sees of the sequence (`observe`) and how the decoder reads the
    latents (`decode_features`), and may know a faster loop over time (`unroll`).

    Attributes:
        filters: inference at a step sees that step and the state, nothing else.
        latents: which of `LATENTS` z_t is.
    """

    cell: Cell
    filters: bool = False
    latents: str = "inferred"
    fixed: Tensor | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("fixed", None)

    def use_latents(self, latents: str) -> None:
        r"""Makes the model a twin of itself, with the same layers, unless `latents` is "inferred".

        .. math::
            noise: \quad & q(z_t | \cdot) = p(z_t | \cdot) = N(0, I), \quad KL = 0 \\
            fixed: \quad & z_t = c, \quad c \sim N(0, I) \text{ once, for all steps}

        The encoder is there and untrained. What a model gains over the first twin comes from its
        latents; what that twin gains over an RNN comes from its layers. The likelihood of the
        second twin is exact.

        Raises:
            ValueError: if `latents` is none of `LATENTS`.
        """
        choose("model.latents", latents, LATENTS)
        self.latents = latents
        if latents == "inferred":
            return
        self.cell.prior = StandardNormal(self.z_dim)
        encoder = self.cell.get_submodule("encoder")
        out = encoder.get_submodule("out")
        assert isinstance(out, Linear)
        with torch.no_grad():
            out.weight.zero_()
            out.bias[: self.z_dim] = 0
            out.bias[self.z_dim :] = inverse_positive(torch.ones(self.z_dim))
        encoder.requires_grad_(False)
        if latents == "fixed":
            self.fixed = torch.randn(self.z_dim)

    @property
    def exact(self) -> bool:
        return self.fixed is not None

    def own_noise(self, noise: Tensor) -> Tensor:
        """What stands for the noise behind z, (*, Z): the fixed vector, where there is one."""
        return noise if self.fixed is None else self.fixed.expand(*noise.shape[:-1], -1)

    def trace(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        noise: Tensor | None = None,
        u: Tensor | None = None,
    ) -> Trace:
        mask = self.check(x, mask)
        if u is None:
            phi_x, u = self.observe(x, mask, state)
        else:
            phi_x = self.features(x)
        if noise is None:
            noise = torch.randn(*x.shape[:2], self.z_dim, device=x.device, dtype=x.dtype)
        if state is None:
            state = self.initial(noise.shape[1])

        return self.densities(self.unroll(phi_x, u, state, self.own_noise(noise)), u)

    def look_ahead(self, x: Tensor, mask: Tensor, state: State | None = None) -> Tensor | None:
        return None if self.filters else self.observe(x, mask, state)[1]

    @abstractmethod
    def observe(
        self, x: Tensor, mask: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the cell sees of whole sequences, phi_x (T, B, X) and u (T, B, U).

        Args:
            state: where the recurrence starts, K * B rows, particle-major; None for h_0 = 0.
        """

    @abstractmethod
    def decode_features(self, phi_z: Tensor, h: Tensor) -> Tensor:
        """As `decode`, from the features of z_t."""

    def unroll(self, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
        """The cell over time; equal to `unroll_plain`, which is the specification, also where
        noise has the rows of K particles."""
        return unroll_plain(self.cell, phi_x, u, state, noise)

    def initial(self, batch: int) -> State:
        return self.cell.initial(batch)

    def open_loop(self, x: Tensor, mask: Tensor, noise: Tensor) -> Trace:
        r"""As `trace`, of the model left to itself: the recurrence reads the mean of the output
        distribution in place of x_t.

        .. math:: h_t = f(\phi_x(\hat x_t), \phi_z(z_t), h_{t-1}), \quad \hat x_t = E[x_t | z_t,
            h_{t-1}]

        So h is a function of z alone, which has to carry all there is to know of the past, and
        the ELBO of this trace bounds the likelihood of that other model. Inference sees x.
        """
        _, u = self.observe(x, self.check(x, mask))
        state = self.initial(x.shape[1])
        rows = []
        for u_t, noise_t in zip(u, self.own_noise(noise), strict=True):
            h = top(state)
            mean, std = self.cell.infer(u_t, h)
            z = mean + std * noise_t
            phi_z = self.cell.features(z, h)
            rows.append((z, mean, std, phi_z, h))
            mean_x = self.likelihood(self.decode_features(phi_z, h)).mean
            state = self.cell.advance(self.features(mean_x), phi_z, state)
        z, mean, std, phi_z, h = map(torch.stack, zip(*rows, strict=True))
        return self.densities(Unrolled(z, mean, std, phi_z, h, state), u)

    def densities(self, steps: Unrolled, u: Tensor) -> Trace:
        """What does not feed the recurrence, for all t at once."""
        return Trace(
            posterior=gaussian(steps.mean, steps.std),
            prior=gaussian(*self.cell.prior(steps.h)),
            likelihood=self.likelihood(self.decode_features(steps.phi_z, steps.h)),
            z=steps.z,
            state=steps.state,
        )

    def draw_z(self, state: State, noise: Tensor) -> tuple[Tensor, Gaussian | None]:
        mean, std = self.cell.prior(top(state))
        return mean + std * self.own_noise(noise), (mean, std)

    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        return self.decode_features(self.cell.features(z, h), h)

    def advance(self, x: Tensor, z: Tensor, state: State) -> State:
        phi_z = self.cell.features(z, top(state))
        return self.cell.advance(self.features(x), phi_z, state)


def summarise_future(rnn: Recurrence, phi_x: Tensor, mask: Tensor) -> Tensor:
    """Runs a recurrence backwards over each sequence's own steps.

    Shapes: phi_x (T, B, X), mask (T, B) -> b (T, B, hidden), b_t a function of phi_x_t..phi_x_T
        only.
    """
    steps = torch.arange(len(phi_x), device=phi_x.device)[:, None]
    mirrored = torch.where(mask, mask.sum(0) - 1 - steps, steps)
    flipped = phi_x.gather(0, mirrored[..., None].expand_as(phi_x))
    b, _ = rnn.sequence(flipped, rnn.initial(phi_x.shape[1]))
    return b.gather(0, mirrored[..., None].expand_as(b))
