"""Frames from a VRNN or RNN, one after the other, with little besides the products.

A step is some 50 small operations, so that for narrow batches the time goes into calling them:
here weights are matrices at hand, what reads h is one product, and no `Distribution` is built.
`SequenceModel.frames` is the specification.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vrnn.likelihoods import Likelihood
from vrnn.networks import (
    MLP,
    Gaussian,
    GaussianNet,
    Recurrence,
    State,
    at_least_float32,
    positive,
)
from vrnn.sequence_model import Frame

__all__ = ["Networks", "fast_frames"]

Dense = tuple[Tensor, Tensor]
"""Bias (N,) and transposed weight (M, N), as `torch.addmm` reads them the fastest."""


class Networks(NamedTuple):
    """What generation needs of a model; the decoder reads [phi_z(z), h]."""

    centred: Callable[[Tensor], Tensor]
    phi_x: MLP
    decoder: MLP
    out: nn.Linear
    likelihood: Likelihood
    rnn: Recurrence
    prior: nn.Module | None = None
    phi_z: MLP | None = None


def fast_frames(
    model: Networks, state: State, noise: Iterator[Tensor], temperature: float
) -> Iterator[Frame]:
    """As `SequenceModel.frames`, with the weights as they are when the first frame is drawn."""
    rnn, draw, centred = model.rnn, model.likelihood.draw, model.centred
    net = model.prior if isinstance(model.prior, GaussianNet) else None
    prior = [] if net is None else dense(*net.hidden, net.out)
    phi_x, phi_z = dense(*model.phi_x), dense(*(model.phi_z or ()))
    (decoder_bias, first), *decoder = dense(*model.decoder, model.out)
    decoder_z, decoder_h = first.split([len(first) - rnn.hidden, rnn.hidden])
    inputs = [packed(w, b) for w, b in zip(rnn.input_weights, rnn.biases, strict=True)]
    *hiddens, top = [packed(w, torch.zeros_like(w[:, 0])) for w in rnn.hidden_weights]

    # All that reads h of the top layer stands side by side.
    readers = [top, (decoder_bias, decoder_h), *prior[:1]]
    bias, weight = (torch.cat(parts, dim=-1) for parts in zip(*readers, strict=True))
    widths = [len(b) for b, _ in readers]
    layers = [tuple(s[layer] for s in state) for layer in range(rnn.layers)]

    density: Gaussian | None = None
    for z in noise:
        # Also spares autograd's bookkeeping; what leaves the loop is cloned, as other tensors are.
        with torch.inference_mode():
            uh, hidden, *seen = torch.addmm(bias, layers[-1][0], weight).split(widths, dim=-1)
            if net is not None:
                mean, a = chain(seen[0], prior[1:]).chunk(2, dim=-1)
                density = at_least_float32(mean), positive(a)
                z = torch.addcmul(*density, z)
            elif model.prior is not None:
                density = torch.zeros_like(z), torch.ones_like(z)
            features = rectified(z, phi_z)
            if phi_z:
                hidden = torch.addmm(hidden, features, decoder_z)
            params = chain(hidden, decoder)
            x = draw(params, temperature)
        yield Frame(
            x.clone(),
            z.clone(),
            density and (density[0].clone(), density[1].clone()),
            params.clone(),
            model.likelihood,
        )

        with torch.inference_mode():
            below = rectified(centred(x), phi_x)
            if phi_z:
                below = torch.cat([below, features], dim=-1)
            uhs = [torch.addmm(b, own[0], w) for own, (b, w) in zip(layers, hiddens, strict=False)]
            for layer, (b, w) in enumerate(inputs):
                wx = torch.addmm(b, below, w)
                layers[layer] = rnn.update(wx, [*uhs, uh][layer], layers[layer])
                below = layers[layer][0]


def packed(weight: Tensor, bias: Tensor) -> Dense:
    return bias.detach(), weight.detach().t().contiguous()


def dense(*layers: nn.Module) -> list[Dense]:
    return [packed(each.weight, each.bias) for each in layers if isinstance(each, nn.Linear)]


def rectified(x: Tensor, layers: list[Dense]) -> Tensor:
    """As `MLP`."""
    for bias, weight in layers:
        x = torch.addmm(bias, x, weight).relu_()
    return x


def chain(x: Tensor, layers: list[Dense]) -> Tensor:
    """What stands behind the pre-activations x, whose own are not rectified at the end."""
    for bias, weight in layers:
        x = torch.addmm(bias, x.relu_(), weight)
    return x
