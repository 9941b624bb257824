"""The cell over time: the plain loop, which is the specification, and fast ones that equal it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vrnn import native
from vrnn.cell import Cell, VRNNCell
from vrnn.fused import UPDATES, Bias, Product, ReLU, Sample, Slot, Start
from vrnn.networks import MLP, GaussianNet, State, at_least_float32, positive, top
from vrnn.tape import Tape

__all__ = [
    "ENGINES",
    "Unrolled",
    "unroll_fast",
    "unroll_fused",
    "unroll_native",
    "unroll_plain",
    "unroll_split",
]


class Unrolled(NamedTuple):
    """What the loop leaves; all else of the model is computed from it for all t at once."""

    z: Tensor
    """(T, B, Z), drawn from the posterior."""
    mean: Tensor
    """(T, B, Z), of the posterior."""
    std: Tensor
    """(T, B, Z), of the posterior."""
    phi_z: Tensor
    """(T, B, F), features of z."""
    h: Tensor
    """(T, B, H), h_{t-1}: what prior and decoder of step t see."""
    state: State
    """State after step T."""


def unroll_plain(cell: Cell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """Calls `cell.step` T times. Shapes: phi_x (T, B, X), u (T, B, U), noise (T, B, Z)."""
    h, steps = [], []
    for phi_x_t, u_t, noise_t in zip(phi_x, u, noise, strict=True):
        h.append(top(state))
        step = cell.step(phi_x_t, u_t, state, noise_t)
        state = step.state
        steps.append(step)
    z, mean, std, phi_z = (torch.stack(parts) for parts in list(zip(*steps, strict=True))[:4])
    return Unrolled(z, mean, std, phi_z, torch.stack(h), state)


def unroll_split(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_plain`, with every product that does not depend on h taken out of the loop.

    The first layer of the encoder and the gates of the recurrence are linear in their parts, so
    the shares of u and phi_x are formed for all t at once. Autograd differentiates it.
    """
    first, *rest = dense_layers(cell.encoder.hidden)
    encoder_u, encoder_h = first.weight.split([u.shape[-1], cell.rnn.hidden], dim=1)
    from_u = F.linear(u, encoder_u, first.bias)

    gates_x, gates_z = cell.rnn.input_weights[0].split(
        [phi_x.shape[-1], cell.rnn.inputs - phi_x.shape[-1]], dim=1
    )
    from_x = F.linear(phi_x, gates_x, cell.rnn.biases[0])

    h, z, means, stds, phi_z = [], [], [], [], []
    for from_u_t, from_x_t, noise_t in zip(from_u, from_x, noise, strict=True):
        h.append(top(state))
        hidden = from_u_t + F.linear(h[-1], encoder_h)
        for layer in rest:
            hidden = layer(hidden.relu())
        mean, a = cell.encoder.out(hidden.relu()).chunk(2, dim=-1)
        mean = at_least_float32(mean)
        means.append(mean + cell.prior(h[-1])[0] if cell.residual else mean)
        stds.append(positive(a))
        z.append(means[-1] + stds[-1] * noise_t)
        phi_z.append(cell.phi_z(z[-1]))
        state = cell.rnn.step_from_gates(from_x_t + F.linear(phi_z[-1], gates_z), state)
    z_all, mean_all, std_all, phi_z_all, h_all = map(torch.stack, (z, means, stds, phi_z, h))
    return Unrolled(z_all, mean_all, std_all, phi_z_all, h_all, state)


def unroll_fast(cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor) -> Unrolled:
    """As `unroll_plain`, by whichever of the two ways below is the faster where it runs.

    `unroll_fused` on a CPU in the precision of the weights; `unroll_split` on a GPU, and under
    autocast, whose casts it leaves to torch.
    """
    unroll = unroll_split if reason_against_fused(cell, phi_x) else unroll_fused
    return unroll(cell, phi_x, u, state, noise)


def unroll_native(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_fused`, but refuses to do with anything less than the compiled loop.

    Raises:
        ValueError: where the loop cannot be compiled or does not serve the device or precision.
    """
    reason = reason_against_fused(cell, phi_x)
    if reason is None and phi_x.dtype not in native.RUNNERS:
        reason = f"it does not compute in {str(phi_x.dtype).removeprefix('torch.')}"
    if reason is None and native.library() is None:
        reason = "it could not be compiled, for the reason logged above"
    if reason is not None:
        raise ValueError(f"model.engine=native cannot run: {reason}; choose model.engine=fast")
    return unroll_fused(cell, phi_x, u, state, noise)


def reason_against_fused(cell: VRNNCell, phi_x: Tensor) -> str | None:
    """Why `unroll_fused` does not serve here, if so."""
    if phi_x.device.type != "cpu":
        return f"it runs on a CPU, not on {phi_x.device}"
    if torch.is_autocast_enabled("cpu"):
        return "it knows no mixed precision"
    if type(cell.rnn) not in UPDATES:
        return f"it has no update for {type(cell.rnn).__name__}"
    return "it is not for torch.compile" if torch.compiler.is_compiling() else None


def unroll_fused(
    cell: VRNNCell, phi_x: Tensor, u: Tensor, state: State, noise: Tensor
) -> Unrolled:
    """As `unroll_plain`, with the loop and its gradient outside autograd, see `vrnn.tape`."""
    rnn, update = cell.rnn, UPDATES[type(cell.rnn)]
    H, gates = rnn.hidden, rnn.gates * rnn.hidden
    first, *encoder = dense_layers(cell.encoder.hidden)
    encoder_u, encoder_h = first.weight.split([u.shape[-1], H], dim=1)

    inputs = (phi_x, u, *state, noise, *cell.parameters())
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    tape = Tape(phi_x, len(phi_x), keep)

    own = tape.input(phi_x)
    seen = own if u is phi_x else tape.input(u)
    latent = tape.slot(rnn.inputs - phi_x.shape[-1], output=True)
    gates_x, gates_z = update.rows(rnn.input_weights[0]).split(
        [phi_x.shape[-1], rnn.inputs - phi_x.shape[-1]], dim=1
    )

    # The encoder's first layer stands beside the gates of the top layer: one product with h gives
    # both.
    layers = []
    for layer in range(rnn.layers):
        is_top = layer == rnn.layers - 1
        weight, bias = rnn.hidden_weights[layer], update.rows(rnn.biases[layer])
        if is_top:
            weight = torch.cat([weight, encoder_h])
        a = tape.slot(4 * H + is_top * len(first.bias))
        states = [tape.slot(H, boundary=1, output=is_top) for _ in state]
        tape.start(*(Start(x[layer], s) for x, s in zip(state, states, strict=True)))
        if layer == 0:
            tape.add_affine(gates_x, bias, own, a[..., :gates])
        else:
            tape.add(Bias(bias, a[..., :gates]))
        if gates < 4 * H:
            tape.add(Bias(bias.new_zeros(4 * H - gates), a[..., gates : 4 * H]))
        if is_top:
            tape.add_affine(encoder_u, first.bias, seen, a[..., 4 * H :])
        tape.add(Product(states[0][:-1], weight, a[..., update.offset * H :]))
        layers.append((a, states))
    a, (h, *_) = layers[-1]

    hidden = a[..., 4 * H :]
    tape.add(ReLU(hidden))
    for linear in encoder:
        hidden = dense(tape, hidden, linear)
        tape.add(ReLU(hidden))
    prior = cell.prior if cell.residual and isinstance(cell.prior, GaussianNet) else None
    Z, bias = noise.shape[-1], cell.encoder.out.bias
    if prior is not None:
        bias = bias + F.pad(prior.out.bias[:Z], (0, Z))
    out = dense(tape, hidden, cell.encoder.out, bias)
    if prior is not None:
        hidden = h[:-1]
        for linear in dense_layers(prior.hidden):
            hidden = dense(tape, hidden, linear)
            tape.add(ReLU(hidden))
        tape.add(Product(hidden, prior.out.weight[:Z], out[..., :Z]))
    z = tape.slot(Z, output=True)
    tape.add(Sample(out, noise, z))

    *phi_z, last = dense_layers(cell.phi_z)
    hidden = z
    for linear in phi_z:
        hidden = dense(tape, hidden, linear)
        tape.add(ReLU(hidden))
    tape.add(Bias(last.bias, latent), Product(hidden, last.weight, latent), ReLU(latent))

    below = latent
    for layer, (a, states) in enumerate(layers):
        weight = update.rows(rnn.input_weights[layer]) if layer else gates_z
        tape.add(Product(below, weight, a[..., :gates]), update(a[..., : 4 * H], *states))
        below = states[0][1:]

    final = [states[k][-1:] for k in range(rnn.tensors) for _, states in layers]
    z_all, out_all, phi_z_all, h_all, *final_all = tape.play(z, out, latent, h[:-1], *final)
    mean, a_std = out_all.chunk(2, dim=-1)
    end = torch.cat(final_all).unflatten(0, (rnn.tensors, rnn.layers)).unbind()
    return Unrolled(z_all, mean, positive(a_std), phi_z_all, h_all, end)


def dense_layers(mlp: MLP) -> list[nn.Linear]:
    return [layer for layer in mlp if isinstance(layer, nn.Linear)]


def dense(tape: Tape, x: Slot, linear: nn.Linear, bias: Tensor | None = None) -> Slot:
    y = tape.slot(linear.out_features, output=True)
    tape.add(Bias(linear.bias if bias is None else bias, y), Product(x, linear.weight, y))
    return y


ENGINES: dict[str, Callable[..., Unrolled]] = {
    "fast": unroll_fast,
    "native": unroll_native,
    "plain": unroll_plain,
}
