"""The VRNN's cell written as a tape, for the loop over time to run outside autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn.cell import Unrolled, VRNNCell
from vrnn.fused import UPDATES, Product, ReLU, Sample, Slot, Start
from vrnn.networks import GaussianNet, State, at_least_float32, dense_layers, positive
from vrnn.tape import Tape

__all__ = ["read", "unroll_fused", "write"]


def unroll_fused(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_plain`, with the loop and its gradient outside autograd, see `vrnn.tape`."""
    return read(cell, *write(cell, *cell.prepare(phi_x, u), state, noise).play())


def write(cell: VRNNCell, from_x: Tensor, from_u: Tensor, state: State, noise: Tensor) -> Tape:
    """The step of the cell, from what it prepared, as a tape whose outputs are those that `read`
    takes."""
    rnn, update = cell.rnn, UPDATES[type(cell.rnn)]
    H, gates = rnn.hidden, rnn.gates * rnn.hidden
    first, *encoder = dense_layers(cell.encoder.hidden)
    *phi_z, last = dense_layers(cell.phi_z)

    inputs = (from_x, from_u, *state, noise, *cell.parameters())
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    tape = Tape(noise, from_x.dtype, len(noise), keep)
    latent = tape.slot(last.out_features, output=True)

    # The encoder's first layer stands beside the gates of the top layer: one product with h gives
    # both.
    layers = []
    for layer in range(rnn.layers):
        is_top = layer == rnn.layers - 1
        weight: Tensor = rnn.hidden_weights[layer]
        if is_top:
            weight = torch.cat([weight, first.weight[:, -H:]])
        a = tape.slot(4 * H + is_top * from_u.shape[-1])
        states = [tape.slot(H, boundary=1, output=is_top, dtype=s.dtype) for s in state]
        tape.start(*(Start(x[layer], s) for x, s in zip(state, states, strict=True)))
        if layer == 0:
            tape.add_given(update.ordered(from_x, -1), a[..., :gates])
        else:
            tape.add_bias(update.ordered(rnn.biases[layer]), a[..., :gates])
        if gates < 4 * H:
            tape.add_bias(from_x.new_zeros(4 * H - gates), a[..., gates : 4 * H])
        if is_top:
            tape.add_given(from_u, a[..., 4 * H :])
        tape.add(Product(states[0][:-1], weight, a[..., update.offset * H :]))
        layers.append((a, states))
    a, (h, *_) = layers[-1]

    hidden = a[..., 4 * H :]
    tape.add(ReLU(hidden))
    for linear in encoder:
        hidden = dense(tape, hidden, linear)
        tape.add(ReLU(hidden))
    prior = cell.prior if cell.residual and isinstance(cell.prior, GaussianNet) else None
    Z = noise.shape[-1]
    bias: Tensor = cell.encoder.out.bias
    if prior is not None:
        bias = bias + F.pad(prior.out.bias[:Z], (0, Z))
    out = dense(tape, hidden, cell.encoder.out, bias)
    if prior is not None:
        hidden = h[:-1]
        for linear in dense_layers(prior.hidden):
            hidden = dense(tape, hidden, linear)
            tape.add(ReLU(hidden))
        tape.add(Product(hidden, prior.out.weight[:Z], out[..., :Z]))
    z = tape.slot(Z, output=True, dtype=noise.dtype)
    tape.add(Sample(out, noise, z))

    hidden = z
    for linear in phi_z:
        hidden = dense(tape, hidden, linear)
        tape.add(ReLU(hidden))
    tape.add_bias(last.bias, latent)
    tape.add(Product(hidden, last.weight, latent), ReLU(latent))

    below = latent
    for layer, (a, states) in enumerate(layers):
        # phi_x's share of the bottom layer's input is in what has been given.
        columns = slice(0 if layer else -last.out_features, None)
        weight = update.ordered(rnn.input_weights[layer][:, columns])
        tape.add(Product(below, weight, a[..., :gates]), update(a[..., : 4 * H], *states))
        below = states[0][1:]

    final = [states[k][-1:] for k in range(rnn.tensors) for _, states in layers]
    tape.outputs = [z, out, latent, h[:-1], *final]
    return tape


def read(
    cell: VRNNCell, z: Tensor, out: Tensor, phi_z: Tensor, h: Tensor, *final: Tensor
) -> Unrolled:
    """Shapes: (T, B, *); of `final`, (1, B, H) for each layer of each of the state's tensors."""
    mean, a = at_least_float32(out).chunk(2, dim=-1)
    state = torch.cat(final).unflatten(0, (cell.rnn.tensors, cell.rnn.layers)).unbind()
    return Unrolled(z, mean, positive(a), phi_z, h, state)


def dense(tape: Tape, x: Slot, linear: nn.Linear, bias: Tensor | None = None) -> Slot:
    y = tape.slot(linear.out_features, output=True)
    tape.add_bias(linear.bias if bias is None else bias, y)
    tape.add(Product(x, linear.weight, y))
    return y
