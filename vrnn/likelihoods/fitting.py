"""What is fitted to the frames of a corpus, where the training of an output layer starts."""

import math
import warnings

import torch
from torch import Tensor

__all__ = ["fit_mixture", "log_frequencies"]

VARIANCE_FLOOR = 1e-4
"""Added to every variance, so that a constant, or frames that are often the same, leave a density
that training can still change."""

FRAMES = 50_000
"""Enough for a start; EM over as many takes a second or two."""


def fit_mixture(frames: Tensor, components: int, full: bool = False) -> tuple[Tensor, ...]:
    """Fits a mixture of Gaussians by EM, from k-means, the same in every process.

    Args:
        frames: (N, D).
        components: K.
        full: covariances are full; otherwise diagonal.

    Returns:
        Log weights (K,), means (K, D) and variances (K, D), or covariances (K, D, D), in float64.

    Raises:
        ValueError: if fewer than K frames differ.
    """
    from sklearn.exceptions import ConvergenceWarning  # A second to load, for trainings only.
    from sklearn.mixture import GaussianMixture

    frames = frames[:: -(-len(frames) // FRAMES)]
    different = len(frames.unique(dim=0))
    if different < components:
        raise ValueError(
            f"start=data fits {components} components to the frames of the training split, of "
            f"which only {different} differ; choose model.likelihood.components={different} or "
            "fewer, or start=published"
        )
    mixture = GaussianMixture(
        components,
        covariance_type="full" if full else "diag",
        reg_covar=VARIANCE_FLOOR,
        random_state=0,
    )
    with warnings.catch_warnings():
        # A start does not need the last digit of the likelihood.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(frames.double().cpu().numpy())
    fitted = (mixture.weights_, mixture.means_, mixture.covariances_)
    weights, means, covariances = (torch.from_numpy(part) for part in fitted)
    return weights.clamp_min(1e-8).log(), means, covariances


def log_frequencies(classes: Tensor, count: int) -> Tensor:
    """Log of how frequent each class is, (count,) float64, as if each had been seen once more.

    Args:
        classes: (N,) int64, below `count`.
    """
    seen = classes.bincount(minlength=count).double() + 1
    return seen.log() - math.log(len(classes) + count)
