"""Linear maps in the VRNN's networks, and exact expectations over its noise.

Pairs of ReLUs carry linear maps, relu(a) - relu(-a) = a. Where all terms of the ELBO are quadratic
in the noise, expectations are exact: the 2n points +-sqrt(n) e_i, e_i a unit vector, have the
moments of n standard normal numbers.
"""

import torch

from vrnn import bounds


def signed(n):
    """Reads n numbers from their ReLU pairs."""
    return torch.cat([torch.eye(n), -torch.eye(n)], 1)


def pre_sigma(sigma):
    return torch.log(torch.expm1(sigma - 1e-4))


@torch.no_grad()
def set_pairs(layer, *weights, bias=None):
    """Sets a layer to the ReLU pairs of a linear map of its inputs' parts."""
    weight = torch.cat(weights, 1)
    layer.weight.copy_(torch.cat([weight, -weight]))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    layer.bias.copy_(torch.cat([bias, -bias]))


@torch.no_grad()
def set_gaussian(layer, mean_bias, sigma):
    """Sets an output layer to the mean its ReLU pairs hold and a constant sigma."""
    layer.weight.zero_()
    layer.weight[: len(sigma)] = signed(len(sigma))
    layer.bias.copy_(torch.cat([mean_bias, pre_sigma(sigma)]))


def cubature(steps, z_dim):
    """Noise (T, 2TZ, Z) whose mean over columns is exact for quadratic functions."""
    n = steps * z_dim
    points = n**0.5 * torch.cat([torch.eye(n), -torch.eye(n)])
    return points.reshape(2 * n, steps, z_dim).transpose(0, 1).contiguous()


def all_of(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def expected_elbo(model, x):
    """E_q of the ELBO of one sequence (T, 1, D), exactly."""
    noise = cubature(len(x), model.z_dim)
    x = x.expand(-1, noise.shape[1], -1)
    return bounds.elbo(model.trace(x, noise=noise), x, all_of(x)).mean()
