"""Frames from a VRNN or RNN, one after the other, with little besides the products.

A step is some 50 small operations, so that for narrow batches the time goes into calling them.
Here they are two tapes (`vrnn.engine.tape`), one up to the parameters of the frame's distribution
and one from the drawn frame on: on a CPU two calls of compiled code. `SequenceModel.frames` is the
specification.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vrnn.engine.network_tape import dense, from_state, mlp, to_state, unknown
from vrnn.engine.operations import ReLU, Sample, Slot
from vrnn.engine.tape import Tape
from vrnn.layers.feedforward import MLP, GaussianNet, dense_layers, positive
from vrnn.layers.recurrent import Gated, Recurrence
from vrnn.layers.state import Gaussian, State
from vrnn.models.base import SequenceModel
from vrnn.trace import Frame

__all__ = ["Networks", "fast_frames"]


class Networks(NamedTuple):
    """What generation needs of a model whose decoder reads [phi_z(z), h]."""

    model: SequenceModel
    rnn: Recurrence
    prior: nn.Module | None = None
    phi_z: MLP | None = None

    def serve(self, state: State) -> bool:
        """Whether a tape can do what the model does, to this state."""
        model, mixed = self.model, torch.is_autocast_enabled(state[0].device.type)
        parts = (model.phi_x, model.decoder, model.out, *self[1:])
        return not (mixed or model.drops_out or unknown(*parts))


def fast_frames(
    networks: Networks, state: State, noise: Iterator[Tensor], temperature: float
) -> Iterator[Frame]:
    """As `SequenceModel.frames`. The weights have to stay as they are while it runs."""
    with torch.inference_mode(False), torch.no_grad():
        step = FrameTapes(networks, state)
    model = networks.model
    for noise_t in noise:
        params = step.draw(noise_t)
        with torch.inference_mode():  # Spares autograd's bookkeeping.
            x = model.likelihood.draw(params, temperature)
        step.x.copy_(model.normaliser.centred(x))
        yield Frame(x.clone(), step.z.clone(), step.density(), params.clone(), model.likelihood)
        step.advance()


class FrameTapes:
    """A step of generation in two halves, on memory of its own.

    Args:
        state: that before the first step.

    Attributes:
        z: (B, Z).
        x: (B, D), to be set to what `phi_x` reads of the drawn frame before `advance` is called.
    """

    def __init__(self, networks: Networks, state: State) -> None:
        model, rnn, self.prior, phi_z = networks
        assert isinstance(rnn, Gated)
        net = self.prior if isinstance(self.prior, GaussianNet) else None
        first, *decoder = dense_layers(model.decoder)
        prior = dense_layers(net.hidden) if net else []
        phi_x = dense_layers(model.phi_x)
        X, features = phi_x[-1].out_features, first.in_features - rnn.hidden

        like = state[0][-1:]
        drawing, advancing = (Tape(like, like.dtype, steps=1, keep=False) for _ in range(2))
        # All that reads h of the top layer stands side by side.
        readers = [first, *prior[:1]]
        layers = from_state(
            drawing,
            rnn,
            state,
            rnn.biases[0],
            torch.cat([layer.bias for layer in readers]),
            torch.cat([layer.weight[:, -rnn.hidden :] for layer in readers]),
            output=False,
        )
        beside = layers[-1][0][..., 4 * rnn.hidden :]
        hidden, hidden_prior = beside[..., : len(first.bias)], beside[..., len(first.bias) :]

        self.noise = like.new_empty(1, like.shape[1], model.z_dim)
        self.out: Slot | None = None
        z = Slot(self.noise)
        if net is not None:
            drawing.add(ReLU(hidden_prior))
            hidden_prior = mlp(drawing, hidden_prior, prior[1:])
            self.out = dense(drawing, hidden_prior, net.out.weight, net.out.bias)
            z = drawing.slot(self.noise.shape[-1])
            drawing.add(Sample(self.out, self.noise, z))
        inputs = drawing.slot(X + features)
        if phi_z is not None:
            phi = mlp(drawing, z, dense_layers(phi_z), inputs[..., X:])
            drawing.add_product(phi, first.weight[:, :features], hidden)
        drawing.add(ReLU(hidden))
        params = dense(drawing, mlp(drawing, hidden, decoder), model.out.weight, model.out.bias)

        x = advancing.slot(phi_x[0].in_features)
        mlp(advancing, x, phi_x, inputs[..., :X])
        to_state(advancing, rnn, layers, inputs, rnn.input_weights[0])

        self.play, self.advance = drawing.player(), advancing.player()
        self.x, self.z, self.params = x.at[0], z.at[0], params.at[0]

    def draw(self, noise: Tensor) -> Tensor:
        """Draws z_t, and returns the decoder's outputs (B, P), valid until the next step."""
        self.noise.copy_(noise)
        self.play()
        return self.params

    def density(self) -> Gaussian | None:
        """Mean and standard deviation of the prior."""
        if self.out is not None:
            mean, a = self.out.at[0].chunk(2, dim=-1)
            return mean.clone(), positive(a)
        return None if self.prior is None else self.prior(self.z)
