"""The particle filter on small inputs."""

import torch

from vrnn.particle_filter import particle_filter
from vrnn.trace import Particles, Resampling

T, B, K = 6, 3, 4


def run(model, x, mask, particles=K, seed=0, **resampling) -> Particles:
    generator = torch.Generator().manual_seed(seed)
    steps, rows = mask.shape
    noise = torch.randn(steps, particles * rows, model.z_dim, generator=generator)
    uniform = torch.rand(steps, particles, rows, generator=generator)
    return particle_filter(model, x, mask, noise, uniform, Resampling(**resampling))
