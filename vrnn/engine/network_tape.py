"""The networks of `vrnn.layers.feedforward` as operations on a tape."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vrnn.engine.operations import UPDATES, ReLU, Slot, Start
from vrnn.engine.tape import Tape
from vrnn.layers.feedforward import MLP, GaussianNet, Linear, StandardNormal
from vrnn.layers.recurrent import Gated
from vrnn.layers.state import State

__all__ = ["Layer", "dense", "from_state", "mlp", "to_state", "unknown"]

Layer = tuple[Slot, list[Slot]]
"""Of a recurrent layer, its pre-activations, in the blocks of its
`vrnn.engine.operations.Update`, and its state before and after each step, (T + 1, B, H) each."""


KNOWN = (MLP, GaussianNet, StandardNormal, Linear, nn.ReLU, nn.ParameterList, *UPDATES)


def unknown(*networks: nn.Module | None) -> str | None:
    """Name of the class of the first submodule that the fast loops cannot translate, or None.

    They know the networks of `vrnn.layers`, and recurrences that have an `Update`."""
    parts = (part for network in networks if network is not None for part in network.modules())
    return next((type(part).__name__ for part in parts if type(part) not in KNOWN), None)


def dense(tape: Tape, x: Slot, weight: Tensor, bias: Tensor, y: Slot | None = None) -> Slot:
    """W x + b, into `y` if given."""
    y = tape.slot(len(weight)) if y is None else y
    tape.add_given(bias, y)
    tape.add_product(x, weight, y)
    return y


def mlp(tape: Tape, x: Slot, layers: Sequence[nn.Linear], y: Slot | None = None) -> Slot:
    """As the `MLP` of these layers, into `y` if given."""
    for layer in layers:
        x = dense(tape, x, layer.weight, layer.bias, y if layer is layers[-1] else None)
        tape.add(ReLU(x))
    return x


def from_state(
    tape: Tape,
    rnn: Gated,
    state: State,
    below: Tensor,
    beside: Tensor,
    readers: Tensor,
    output: bool,
) -> list[Layer]:
    """The part of each layer's pre-activation that does not need its input: U h + b.

    Args:
        state: that before the first step.
        below: what else the bottom layer's gates have been given, its b included, (T, B, gates *
            H); or b, (gates * H,).
        beside: likewise of other units that read h of the top layer, (T, B, N) or (N,).
        readers: their matrix, (N, H). They stand behind the top layer's own: one product gives
            both.
        output: the top layer's state is wanted of all steps, not only of the last.
    """
    H, gates, update = rnn.hidden, rnn.gates * rnn.hidden, UPDATES[type(rnn)]
    layers: list[Layer] = []
    for layer in range(rnn.layers):
        is_top = layer == rnn.layers - 1
        weight: Tensor = rnn.hidden_weights[layer]
        if is_top:
            weight = torch.cat([weight, readers])
        a = tape.slot(4 * H + is_top * len(readers))
        states = [tape.slot(H, boundary=1, output=is_top and output, dtype=s.dtype) for s in state]
        tape.start(*(Start(x[layer], s) for x, s in zip(state, states, strict=True)))
        known = rnn.biases[layer] if layer else below
        tape.add_given(update.ordered(known, -1), a[..., :gates])
        if gates < 4 * H:
            tape.add_given(weight.new_zeros(4 * H - gates), a[..., gates : 4 * H])
        if is_top:
            tape.add_given(beside, a[..., 4 * H :])
        tape.add_product(states[0][:-1], weight, a[..., update.offset * H :])
        layers.append((a, states))
    return layers


def to_state(tape: Tape, rnn: Gated, layers: list[Layer], below: Slot, weight: Tensor) -> None:
    """Adds W x to all layers' pre-activations, and updates their states.

    Args:
        layers: as of `from_state`.
        below: what the bottom layer reads, (T, B, N).
        weight: its matrix for that, (gates * H, N).
    """
    gates, update = rnn.gates * rnn.hidden, UPDATES[type(rnn)]
    for layer, (a, states) in enumerate(layers):
        W = update.ordered(rnn.input_weights[layer] if layer else weight)
        tape.add_product(below, W, a[..., :gates])
        tape.add(update(a[..., : 4 * rnn.hidden], *states))
        below = states[0][1:]
