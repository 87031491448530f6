"""Metrics of segmentation, from counts of pixels (section 2.5).

Counts come first; Dice, sensitivity and specificity are pure functions of them.
"""

import numpy as np
import pandas as pd

from lusbook.errors import LusbookError

METRICS = ["dice", "sensitivity", "specificity"]


def confusion_counts(prediction, mask):
    """Count true and false positives and negatives in each image.

    Parameters
    ----------
    prediction, mask : ndarray, shape (n, height, width), bool

    Returns
    -------
    counts : ndarray, shape (n, 4), int
        Columns tp, fp, fn, tn.

    Raises
    ------
    LusbookError
        When shapes differ, or an array is not boolean.

    Examples
    --------
    >>> mask = np.array([[[True, True, False, False]]])
    >>> confusion_counts(np.array([[[True, False, True, False]]]), mask).tolist()
    [[1, 1, 1, 1]]
    """
    for name, array in (("prediction", prediction), ("mask", mask)):
        if array.dtype != bool or array.ndim != 3:
            raise LusbookError(
                f"{name}: expected bool of shape (n, height, width), received {array.dtype} {array.shape}"
            )
    if prediction.shape != mask.shape:
        raise LusbookError(
            f"prediction and mask: expected the same shape, received {prediction.shape} and {mask.shape}"
        )
    axes = (1, 2)
    tp = np.count_nonzero(prediction & mask, axis=axes)
    predicted, labelled = np.count_nonzero(prediction, axis=axes), np.count_nonzero(mask, axis=axes)
    pixels = mask.shape[1] * mask.shape[2]
    fp, fn = predicted - tp, labelled - tp
    return np.stack([tp, fp, fn, pixels - tp - fp - fn], axis=1)


def _ratio(numerator, denominator, undefined):
    """Quotient, with a value for what has no denominator."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, undefined), where=denominator > 0)


def dice(tp, fp, fn):
    """Dice coefficient, 2 tp / (2 tp + fp + fn).

    When mask and prediction are both empty it is 1: nothing was there and nothing was found. Libraries
    differ (0, 1, undefined); frames without B-lines would otherwise punish the right answer.

    Parameters
    ----------
    tp, fp, fn : array_like of int

    Returns
    -------
    dice : ndarray of float

    References
    ----------
    Dice 1945; Mason et al. 2021, section 2.5.

    Examples
    --------
    >>> dice([1, 0, 0], [1, 0, 3], [1, 0, 0]).tolist()
    [0.5, 1.0, 0.0]
    """
    tp = np.asarray(tp)
    return _ratio(2 * tp, 2 * tp + fp + fn, undefined=1.0)


def sensitivity(tp, fn):
    """Share of labelled pixels that were found, tp / (tp + fn); NaN for an empty mask.

    Examples
    --------
    >>> sensitivity([3, 0], [1, 0]).tolist()
    [0.75, nan]
    """
    return _ratio(tp, np.add(tp, fn), undefined=np.nan)


def specificity(tn, fp):
    """Share of unlabelled pixels left alone, tn / (tn + fp); NaN for a mask that fills the image.

    Examples
    --------
    >>> specificity([9, 0], [1, 0]).tolist()
    [0.9, nan]
    """
    return _ratio(tn, np.add(tn, fp), undefined=np.nan)


def per_image(prediction, mask):
    """Counts and metrics of each image.

    Parameters
    ----------
    prediction, mask : ndarray, shape (n, height, width), bool

    Returns
    -------
    table : pandas.DataFrame
        Columns tp, fp, fn, tn, dice, sensitivity, specificity.
    """
    tp, fp, fn, tn = confusion_counts(prediction, mask).T
    values = {"dice": dice(tp, fp, fn), "sensitivity": sensitivity(tp, fn), "specificity": specificity(tn, fp)}
    return pd.DataFrame({"tp": tp, "fp": fp, "fn": fn, "tn": tn, **values})


def summarise(per_image):
    """Mean and standard deviation of each metric over images.

    Parameters
    ----------
    per_image : pandas.DataFrame

    Returns
    -------
    summary : pandas.DataFrame
        One row a metric: ``mean``, ``std`` (over n - 1), ``n`` (images with a value), ``undefined`` (without).
    """
    values = per_image[METRICS]
    columns = {"mean": values.mean(), "std": values.std(), "n": values.count(), "undefined": values.isna().sum()}
    return pd.DataFrame(columns)
