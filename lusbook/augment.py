"""Augmentation: rotation, shift and scale of image and mask together (section 2.3), and intensity, which is ours."""

import numpy as np
from keras import ops

from lusbook.cohort import BLACK


def random_transforms(rng, n, size, settings):
    """Draw the affine transforms of a batch.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Images in the batch.
    size : int
        Side of the images, px.
    settings : Settings
        ``augment_rotation`` (degrees), ``augment_shift`` (share of the side), ``augment_scale`` (share).

    Returns
    -------
    transforms : ndarray, shape (n, 8), float32
        Rows ``a0 a1 a2 b0 b1 b2 c0 c1`` of ``keras.ops.image.affine_transform``: output to input pixels.
    """
    angle = np.deg2rad(rng.uniform(-settings.augment_rotation, settings.augment_rotation, n))
    scale = rng.uniform(1 - settings.augment_scale, 1 + settings.augment_scale, n)
    shift = rng.uniform(-settings.augment_shift, settings.augment_shift, (2, n)) * size
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = (size - 1) / 2
    x = centre - cos * centre + sin * centre + shift[0]
    y = centre - sin * centre - cos * centre + shift[1]
    zero = np.zeros(n)
    return np.stack([cos, -sin, x, sin, cos, y, zero, zero], axis=1).astype("float32")


def transform(images, masks, transforms):
    """Transform images and masks alike, in one interpolation.

    Parameters
    ----------
    images : tensor, shape (n, size, size, 1), float32 in [-0.9, 0.9]
    masks : tensor, shape (n, size, size, 1), float32 in {0, 1}
    transforms : tensor, shape (n, 8), float32

    Returns
    -------
    images, masks : tensors of the same shapes
        What comes from outside the frame is black and not B-line. The mask is interpolated
        with the image and cut at one half.
    """
    # One fill value serves both channels once black is zero.
    stacked = ops.concatenate([images - BLACK, masks], axis=-1)  # (n, size, size, 2)
    moved = ops.image.affine_transform(stacked, transforms, interpolation="bilinear", fill_mode="constant")
    return moved[..., :1] + BLACK, ops.cast(moved[..., 1:] > 0.5, "float32")


def vary_intensity(images, rng, strength):
    """Vary contrast, gain, time-gain compensation and noise of each image, as scanners and their settings do.

    Not in the paper. Black stays black, so that the ground outside the fan is no clue.

    Parameters
    ----------
    images : ndarray, shape (n, size, size, 1), float32 in [-0.9, 0.9]
    rng : numpy.random.Generator
    strength : float
        From 0 (images as they are) to 1.

    Returns
    -------
    images : ndarray of the same shape and type
    """
    if not strength:
        return images
    shape = (len(images), 1, 1, 1)
    gamma = np.exp(rng.uniform(-strength, strength, shape))
    gain = np.exp(rng.uniform(-strength / 2, strength / 2, shape))
    slope = rng.uniform(-strength, strength, shape)
    noise = rng.normal(size=images.shape) * rng.uniform(0, 0.1 * strength, shape)
    grey = (1 - images / BLACK) / 2  # in [0, 1]
    depth = np.linspace(-0.5, 0.5, images.shape[1])[:, None, None]
    varied = gain * grey**gamma * np.exp(slope * depth) + noise * (grey > 0)
    return ((1 - 2 * np.clip(varied, 0, 1)) * BLACK).astype("float32")
