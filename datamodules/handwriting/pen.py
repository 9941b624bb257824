"""Pen trajectories as offsets, the form in which the VRNN paper models handwriting."""

import numpy as np

__all__ = ["offsets", "points"]


def offsets(points: np.ndarray) -> np.ndarray:
    r"""Turns absolute pen points into the steps between them.

    .. math:: x_t = [e_{t+1},\; p_{t+1} - p_t], \qquad t = 1, \dots, n - 1

    The first point is dropped: only its position is lost, since nothing is drawn before it.

    Args:
        points: (n, 3), the pen-up flag e (1 on the last point of a stroke), x and y.

    Returns:
        The offsets (n - 1, 3) in float32: pen-up flag, dx, dy.

    References:
        | A Recurrent Latent Variable Model for Sequential Data (Chung et al., 2015)
        | https://arxiv.org/abs/1506.02216
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError(f"points must be a non-empty array (n, 3), not of shape {points.shape}")
    return np.column_stack([points[1:, 0], np.diff(points[:, 1:], axis=0)]).astype(np.float32)


def points(offsets: np.ndarray) -> np.ndarray:
    """Turns offsets back into absolute pen points, starting at (0, 0) with the pen down.

    Args:
        offsets: (T, 3), pen-up flag, dx, dy.

    Returns:
        The points (T + 1, 3) in float64: pen-up flag, x, y.
    """
    offsets = np.asarray(offsets, dtype=np.float64)
    if offsets.ndim != 2 or offsets.shape[1] != 3:
        raise ValueError(f"offsets must be an array (T, 3), not of shape {offsets.shape}")
    out = np.zeros((len(offsets) + 1, 3))
    out[1:, 0] = offsets[:, 0]
    out[1:, 1:] = offsets[:, 1:].cumsum(axis=0)
    return out
