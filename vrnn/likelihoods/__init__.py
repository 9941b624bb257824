"""Output distributions: each maps the decoder's outputs to a torch `Distribution` over x_t."""

from vrnn.likelihoods.autoregressive import AutoregressiveBernoulli, AutoregressiveGaussianMixture
from vrnn.likelihoods.base import Likelihood
from vrnn.likelihoods.discrete import DiscretisedLogisticMixture, MuLawCategorical
from vrnn.likelihoods.factorised import Bernoulli, GaussianMixture, PenMixture

__all__ = [
    "AutoregressiveBernoulli",
    "AutoregressiveGaussianMixture",
    "Bernoulli",
    "DiscretisedLogisticMixture",
    "GaussianMixture",
    "Likelihood",
    "MuLawCategorical",
    "PenMixture",
]
