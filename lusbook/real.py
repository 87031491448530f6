"""Scores of real clips: of each frame, then of the clip."""

import numpy as np
import pandas as pd

from lusbook.errors import LusbookError

PERCENTILE = 75  # over the frames of a clip: B-lines come and go with breathing, and a single frame may be an artefact
#: Columns of a table of scores that are no scores.
KEYS = ["clip", "patient", "known", "condition", "pcr", "half", "b_lines", "severity"]
STREAK = 90  # percentile of the columns that stands for the brightest ones


def pool_frames(values, clip, percentile=PERCENTILE):
    """Pool values of frames to clips: their 75th percentile, or another one.

    Parameters
    ----------
    values : ndarray, shape (n,), float
    clip : ndarray, shape (n,), int
        The clip of each frame, counted from 0.
    percentile : float

    Returns
    -------
    scores : ndarray, shape (clips,), float

    Examples
    --------
    >>> pool_frames(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0]), np.array([0, 0, 0, 0, 0, 1])).tolist()
    [3.0, 9.0]
    """
    values, clip = np.asarray(values, float), np.asarray(clip)
    if values.shape != clip.shape:
        raise LusbookError(f"expected a clip for each frame, received {values.shape} values and {clip.shape} clips")
    empty = np.setdiff1d(np.arange(clip.max(initial=-1) + 1), clip)
    if empty.size:
        raise LusbookError(f"expected frames of every clip, received none of clip {empty[0]}")
    return pd.Series(values).groupby(clip).quantile(percentile / 100).to_numpy()


def clip_scores(predictions, fans, clip, threshold=0.5):
    """Score clips by their predicted B-line area.

    Parameters
    ----------
    predictions : ndarray, shape (n, size, size), bool or float
        Masks or probabilities of B-line.
    fans : ndarray, shape (n, size, size), bool
    clip : ndarray, shape (n,), int
        The clip of each frame, counted from 0.
    threshold : float
        Probability above which a pixel is B-line.

    Returns
    -------
    scores : ndarray, shape (clips,), float
        75th percentile over frames of B-line pixels in the fan / pixels in the fan.
    """
    found = (np.asarray(predictions) > threshold) & fans
    return pool_frames(found.sum(axis=(1, 2)) / fan_pixels(fans), clip)


def mean_brightness(frames, fans):
    """Score frames by their mean grey level in the fan, what knows least; arguments as in :func:`streak_score`."""
    return np.where(fans, frames, 0).sum(axis=(1, 2)) / fan_pixels(fans)


def fan_pixels(fans):
    """Number of pixels in each fan, shape (n,)."""
    pixels = fans.sum(axis=(1, 2))
    if not pixels.all():
        raise LusbookError(f"frame {int(np.argmin(pixels))}: expected a fan, received an empty one")
    return pixels


def streak_score(frames, fans):
    """Score frames by how far bright streaks stand out below the pleura, without learning anything.

    In the lower half of the fan, where a B-line goes on and most else has faded, the grey levels of each column are
    averaged; the score is the 90th percentile of the columns less their median. Columns with fewer than half as many
    pixels as the longest one are left out: short ones are noisy. Grey levels are log-compressed, so the difference is
    a ratio of echoes, free of gain. Columns are vertical: at the sides of the fan, where beams slant, streaks blur.

    Parameters
    ----------
    frames : ndarray, shape (n, size, size), uint8
    fans : ndarray, shape (n, size, size), bool

    Returns
    -------
    scores : ndarray, shape (n,), float
        In grey levels.
    """
    fan_pixels(fans)
    scores = np.empty(len(frames))
    for index, (image, fan) in enumerate(zip(frames, fans, strict=True)):
        rows = np.flatnonzero(fan.any(axis=1))
        middle = (rows[0] + rows[-1] + 1) // 2
        image, fan = image[middle:], fan[middle:]
        pixels = fan.sum(axis=0)  # (size,)
        long = 2 * pixels >= pixels.max()
        columns = np.where(fan, image, 0).sum(axis=0)[long] / pixels[long]
        scores[index] = np.percentile(columns, STREAK) - np.median(columns)
    return scores
