"""Variational recurrent neural networks: models, bounds, and loading a trained one.

Example:
    >>> import vrnn
    >>> likelihood = vrnn.likelihoods.PenMixture(components=20)
    >>> model = vrnn.VRNN(x_dim=3, z_dim=16, hidden=128, likelihood=likelihood)
    >>> model.generate(steps=50, batch=2).shape
    torch.Size([50, 2, 3])
"""

from vrnn import bounds, likelihoods
from vrnn.checkpoint import load
from vrnn.models.dmm import DMM
from vrnn.models.rnn import RNN
from vrnn.models.srnn import SRNN
from vrnn.models.storn import STORN
from vrnn.models.vrnn import VRNN

__all__ = ["DMM", "RNN", "SRNN", "STORN", "VRNN", "bounds", "likelihoods", "load"]
