"""What every sequence model gives, and how it generates."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TypedDict, TypeVar

import torch
from torch import Tensor, nn

from vrnn.arguments import check_counts, check_temperatures
from vrnn.layers.feedforward import MLP, Linear
from vrnn.layers.state import Gaussian, State, top
from vrnn.likelihoods import Likelihood
from vrnn.normaliser import Normaliser
from vrnn.trace import Frame, Trace

__all__ = ["Common", "SequenceModel"]

Kept = TypeVar("Kept")


class Common(TypedDict, total=False):
    """The arguments that a model leaves to `SequenceModel`, which has their defaults and says what
    they are."""

    mlp_layers: int
    phi_x_dim: int
    decoder_dim: int
    dropout: float
    checkpoint_steps: int | None
    normaliser: Normaliser | None


class SequenceModel(nn.Module, ABC):
    """What all models share: phi_x, decoder, generation, and the normaliser stored with them.

    Args:
        x_dim: D, numbers in a frame.
        likelihood: output distribution over a frame.
        decoder_reads: width of what the decoder reads, or of each of several side by side; a
            subclass gives it.
        mlp_layers: hidden layers of every feed-forward network.
        phi_x_dim: X, width of phi_x, the features of a frame.
        decoder_dim: width of the decoder.
        dropout: share of the features of x, of what the decoder reads and of its last layer's
            units that training leaves out; what goes from step to step stays whole.
        checkpoint_steps: train on segments of so many steps, one after the other, to save memory
            (`vrnn.segments`); about sqrt(T) saves the most. None for whole sequences.
        normaliser: standardises raw frames; None leaves them as they are.

    Raises:
        ValueError: if a size is below 1, the likelihood describes frames of another size, or
            `dropout` is not a share below 1.

    Attributes:
        z_dim: Z, latent dimensions; 0 without any.
    """

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        decoder_reads: int | tuple[int, ...],
        mlp_layers: int = 1,
        phi_x_dim: int = 64,
        decoder_dim: int = 64,
        dropout: float = 0.0,
        checkpoint_steps: int | None = None,
        normaliser: Normaliser | None = None,
    ) -> None:
        super().__init__()
        check_counts(
            "model.",
            x_dim=x_dim,
            mlp_layers=mlp_layers,
            phi_x_dim=phi_x_dim,
            decoder_dim=decoder_dim,
            checkpoint_steps=checkpoint_steps,
        )
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout must be in [0, 1), not {dropout}")
        if likelihood.x_dim != x_dim:
            raise ValueError(
                f"model.x_dim is {x_dim}, but model.likelihood describes frames of "
                f"{likelihood.x_dim} numbers"
            )

        self.x_dim, self.mlp_layers = x_dim, mlp_layers
        self.phi_x_dim, self.decoder_dim = phi_x_dim, decoder_dim
        self.likelihood = likelihood
        self.normaliser = normaliser or Normaliser.identity(x_dim)
        self.phi_x = MLP(x_dim, phi_x_dim, mlp_layers)
        self.decoder = MLP(decoder_reads, decoder_dim, mlp_layers)
        self.checkpoint_steps = checkpoint_steps
        self.dropout = nn.Dropout(dropout)
        self.out = Linear(decoder_dim, likelihood.size)
        with torch.no_grad():
            self.out.bias.copy_(likelihood.bias(self.normaliser.means))

    z_dim: int

    @property
    def exact(self) -> bool:
        """Nothing is drawn: the ELBO is log p(x), whatever the number of particles."""
        return self.z_dim == 0

    @torch.no_grad()
    def start_from(self, frames: Tensor) -> None:
        """Sets the output layer's biases so that training starts from the distribution of all
        frames, whatever came before; with those of `Likelihood.bias` it starts far away, and all
        components of a mixture alike.

        Args:
            frames: standardised, of the training split, (N, D).

        Raises:
            ValueError: if there are too few different ones.
        """
        self.out.bias.copy_(self.likelihood.fit(frames))

    @abstractmethod
    def trace(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: State | None = None,
        noise: Tensor | None = None,
        u: Tensor | None = None,
    ) -> Trace:
        """Runs inference over whole sequences, or over a part of them.

        Args:
            x: standardised frames, (T, B, D).
            mask: (T, B), True on a sequence's own steps, which come first; None if there is no
                padding.
            state: where the recurrence starts, K * B rows; None for h_0 = 0.
            noise: standard normal noise behind K draws of z of each sequence, (T, K * B, Z),
                particle-major; None to draw it here, once.
            u: of a part, what `look_ahead` says of it.

        Returns:
            Of K * B rows. What all draws have in common is computed once.
        """

    def look_ahead(self, x: Tensor, mask: Tensor, state: State | None = None) -> Tensor | None:
        """What inference sees of the whole sequence, for a trace of its parts, (T, B, U); None
        where the state is enough."""
        return None

    @abstractmethod
    def initial(self, batch: int) -> State:
        """The state before the first step."""

    @abstractmethod
    def draw_z(self, state: State, noise: Tensor) -> tuple[Tensor, Gaussian | None]:
        """Draws z_t from the prior, with noise (B, Z) already scaled by the temperature."""

    @abstractmethod
    def decode(self, z: Tensor, h: Tensor) -> Tensor:
        """Parameters of the likelihood from z_t and h_{t-1}. Shapes: (*, Z), (*, H) -> (*, P)."""

    @abstractmethod
    def advance(self, x: Tensor, z: Tensor, state: State) -> State:
        """The state after frame x_t (B, D) and latent z_t (B, Z)."""

    def params(self, seen: Tensor) -> Tensor:
        """The decoder, from all that it reads. Shapes: (*, S) -> (*, P)."""
        params: Tensor = self.out(self.dropout(self.decoder(self.dropout(seen))))
        return params

    @property
    def drops_out(self) -> bool:
        """Units are left out now, at random."""
        return self.training and self.dropout.p > 0

    def features(self, x: Tensor) -> Tensor:
        """phi_x(x). Shapes: (*, D) -> (*, X)."""
        features: Tensor = self.dropout(self.phi_x(self.normaliser.centred(x)))
        return features

    def stream(
        self,
        batch: int,
        prime: Tensor | None = None,
        temperature_z: float = 1.0,
        temperature_x: float = 1.0,
    ) -> Iterator[Frame]:
        """Generates `batch` sequences side by side, frame by frame and without end.

        The same cell as in training, with the prior in place of the posterior. A temperature tau
        multiplies variances and divides logits. It makes of a Gaussian, of bits and of mu-law
        levels the density raised to 1 / tau; of a mixture it does so to the weights and to each
        component, not to the sum. 0 takes a Gaussian's mean, the likelier bit, the likeliest
        level, of a mixture the mean of the component with the highest peak. The weights have to
        stay as they are until the last frame is drawn.

        Args:
            batch: B.
            prime: standardised beginning to be continued, (T0, B, D); its own frames are not
                yielded again.
            temperature_z: of the latents.
            temperature_x: of the frames.

        Raises:
            ValueError: if a temperature is negative or infinite, or `prime` has another shape.
        """
        check_temperatures(temperature_z, temperature_x)
        if prime is not None and prime.shape[1:] != (batch, self.x_dim):
            raise ValueError(
                f"prime must be (T0, {batch}, {self.x_dim}), not {tuple(prime.shape)}"
            )
        if prime is None or len(prime) == 0:
            state = self.initial(batch)
        else:
            with torch.no_grad():
                state = self.trace(prime).state
        shape, scale = (batch, self.z_dim), temperature_z**0.5
        noise = (scale * torch.randn(shape).to(state[0]) for _ in itertools.count())
        yield from self.frames(state, noise, temperature_x)

    @torch.no_grad()
    def frames(
        self, state: State, noise: Iterator[Tensor], temperature: float = 1.0
    ) -> Iterator[Frame]:
        """Generates a frame for every noise (B, Z) behind z, scaled by the temperature of z."""
        for noise_t in noise:
            z, density = self.draw_z(state, noise_t)
            params = self.decode(z, top(state))
            x = self.likelihood.draw(params, temperature)
            yield Frame(x, z, density, params, self.likelihood)
            state = self.advance(x, z, state)

    def generate(
        self,
        steps: int,
        batch: int = 1,
        prime: Tensor | None = None,
        temperature_z: float = 1.0,
        temperature_x: float = 1.0,
        seed: int | None = None,
    ) -> Tensor:
        """Generates sequences of a fixed length; see `stream`.

        Args:
            steps: T.
            seed: makes the draws reproducible and leaves torch's random state as it was.

        Returns:
            Standardised frames, (T, B, D); `model.normaliser.raw` takes them to the corpus's
            units.

        Raises:
            ValueError: as of `stream`, or if there are fewer steps than one.
        """
        check_counts(steps=steps)
        xs = self.draw_frames(
            lambda frame: frame.x, steps, batch, prime, temperature_z, temperature_x, seed
        )
        return torch.stack(xs)

    @torch.no_grad()
    def draw_frames(
        self,
        keep: Callable[[Frame], Kept],
        steps: int,
        batch: int = 1,
        prime: Tensor | None = None,
        temperature_z: float = 1.0,
        temperature_x: float = 1.0,
        seed: int | None = None,
    ) -> list[Kept]:
        """As `generate`, but returns what `keep` wants of each frame."""
        devices = [self.out.weight.device] if self.out.weight.is_cuda else []
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            frames = self.stream(batch, prime, temperature_z, temperature_x)
            return [keep(frame) for frame in itertools.islice(frames, steps)]

    def check(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the mask, all True if there is none, after asserting the shapes of both."""
        assert x.ndim == 3 and x.shape[-1] == self.x_dim, (
            f"x must be time-major (T, B, {self.x_dim}), not {tuple(x.shape)}"
        )
        if mask is None:
            return x.new_ones(x.shape[:2], dtype=torch.bool)
        assert mask.shape == x.shape[:2] and mask.dtype == torch.bool, (
            f"mask must be bool {tuple(x.shape[:2])}, not {mask.dtype} {tuple(mask.shape)}"
        )
        return mask

    @property
    def parameter_count(self) -> int:
        """Numbers that training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
