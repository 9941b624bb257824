"""The VRNN's cell written as a tape, for the loop over time to run outside autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vrnn.cell import Unrolled, VRNNCell
from vrnn.engine.network_tape import dense, from_state, mlp, to_state
from vrnn.engine.operations import ReLU, Sample
from vrnn.engine.tape import Programs, Tape
from vrnn.layers.feedforward import GaussianNet, dense_layers, positive
from vrnn.layers.recurrent import Gated
from vrnn.layers.state import State, at_least_float32

__all__ = ["read", "unroll_fused", "write"]


def unroll_fused(
    cell: VRNNCell,
    phi_x: Tensor,
    u: Tensor,
    state: State,
    noise: Tensor,
    programs: Programs | None = None,
) -> Unrolled:
    """As `unroll_plain`, with the loop and its gradient outside autograd (`vrnn.engine.tape`)."""
    return read(cell, *write(cell, *cell.prepare(phi_x, u), state, noise, programs).play())


def write(
    cell: VRNNCell,
    from_x: Tensor,
    from_u: Tensor,
    state: State,
    noise: Tensor,
    programs: Programs | None = None,
) -> Tape:
    """The step of the cell, from what it prepared, as a tape whose outputs are those that `read`
    takes."""
    rnn, H = cell.rnn, cell.rnn.hidden
    assert isinstance(rnn, Gated)
    first, *encoder = dense_layers(cell.encoder.hidden)

    inputs = (from_x, from_u, *state, noise, *cell.parameters())
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    tape = Tape(noise, from_x.dtype, len(noise), keep, programs)

    # The encoder's first layer stands beside the gates of the top layer.
    layers = from_state(tape, rnn, state, from_x, from_u, first.weight[:, -H:], output=True)
    a, (h, *_) = layers[-1]

    hidden = a[..., 4 * H :]
    tape.add(ReLU(hidden))
    hidden = mlp(tape, hidden, encoder)
    prior = cell.prior if cell.residual and isinstance(cell.prior, GaussianNet) else None
    Z = noise.shape[-1]
    bias: Tensor = cell.encoder.out.bias
    if prior is not None:
        bias = bias + F.pad(prior.out.bias[:Z], (0, Z))
    out = tape.slot(2 * Z, output=True)
    dense(tape, hidden, cell.encoder.out.weight, bias, out)
    if prior is not None:
        hidden = mlp(tape, h[:-1], dense_layers(prior.hidden))
        tape.add_product(hidden, prior.out.weight[:Z], out[..., :Z])
    z = tape.slot(Z, output=True, dtype=noise.dtype)
    tape.add(Sample(out, noise, z))

    maps = dense_layers(cell.phi_z)
    phi_z = mlp(tape, z, maps, tape.slot(maps[-1].out_features, output=True))
    # phi_x's share of the bottom layer's input is in what has been given.
    to_state(tape, rnn, layers, phi_z, rnn.input_weights[0][:, -phi_z.values.shape[-1] :])

    final = [states[k][-1:] for k in range(rnn.tensors) for _, states in layers]
    tape.outputs = [z, out, phi_z, h[:-1], *final]
    return tape


def read(
    cell: VRNNCell, z: Tensor, out: Tensor, phi_z: Tensor, h: Tensor, *final: Tensor
) -> Unrolled:
    """Shapes: (T, B, *); of `final`, (1, B, H) for each layer of each of the state's tensors."""
    mean, a = at_least_float32(out).chunk(2, dim=-1)
    state = torch.cat(final).unflatten(0, (-1, cell.rnn.layers)).unbind()
    return Unrolled(z, mean, positive(a), phi_z, h, state)
