"""Ceilings: the best Dice that the grid of a network's output allows, whatever the network has learned.

SIFA's segmenters (Chen et al. 2020) give one logit for each cell of 8 x 8 pixels, resized bilinearly to the image;
B-lines may be narrower than a cell. A U-Net has a logit for every pixel, and so no ceiling below 1.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

from lusbook import metrics

STRIDES = {"unet": 1, "sifa": 8}  # pixels of the image by side of a cell of the output


def enlarging(cells, size):
    """Bilinear interpolation from cells to pixels along one axis, half-pixel centres, as ``UpSampling2D`` of Keras.

    Returns
    -------
    weights : ndarray, shape (size, cells), float64

    Examples
    --------
    >>> enlarging(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None)


def best_map(mask, stride):
    """Fit the map of logits whose enlargement comes nearest to a mask.

    Parameters
    ----------
    mask : ndarray, shape (size, size), bool
    stride : int
        Pixels by side of a cell.

    Returns
    -------
    found : ndarray, shape (size, size), bool
        Where the enlarged map is positive.
    """
    size = len(mask)
    cells = size // stride
    weights = enlarging(cells, size)
    wanted = mask.astype(float)

    def loss(flat):  # soft Dice; its gradient goes back through the enlargement
        share = expit(weights @ flat.reshape(cells, cells) @ weights.T)
        overlap, total = 2 * (share * wanted).sum(), share.sum() + wanted.sum()
        slope = -(2 * wanted * total - overlap) / total**2 * share * (1 - share)
        return 1 - overlap / total, (weights.T @ slope @ weights).ravel()

    # From the share of B-line in each cell; the bounds keep logits where they still have a gradient.
    start = 8 * (wanted.reshape(cells, stride, cells, stride).mean((1, 3)) - 0.4).ravel()
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-60, 60)] * cells**2).x
    return weights @ fitted.reshape(cells, cells) @ weights.T > 0


def ceiling(masks, method):
    """Best Dice of each mask on the output grid of a method.

    Parameters
    ----------
    masks : ndarray, shape (n, size, size), bool
    method : {"unet", "sifa"}

    Returns
    -------
    dice : ndarray, shape (n,), float64
        1 where the grid is that of the pixels. The fit may miss the very best map: a lower bound, near from below.
    """
    if STRIDES[method] == 1:
        return np.ones(len(masks))
    with threadpool_limits(1):  # on matrices this small, threads of BLAS wait longer than they work
        found = np.stack([best_map(mask, STRIDES[method]) for mask in masks])
    return metrics.dice(*metrics.confusion_counts(found, masks).T[:3])
