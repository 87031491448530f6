"""Scores of real clips, and how well they agree with the experts' flags.

A clip has no mask, only a flag: B-lines yes or no. A score is made per frame, then per clip; what is reported is the
area under the ROC curve (AUROC) of the clip scores for the flags, with patients, not clips, as the unit of chance.
"""

import numpy as np
import pandas as pd

from lusbook.errors import LusbookError
from lusbook.statistics import auroc_ci

PERCENTILE = 75  # over the frames of a clip: B-lines come and go with breathing, and a single frame may be an artefact
STREAK = 90  # percentile of the columns that stands for the brightest ones


def pool_frames(values, clip):
    """Pool values of frames to clips: their 75th percentile.

    Parameters
    ----------
    values : ndarray, shape (n,), float
    clip : ndarray, shape (n,), int
        The clip of each frame, counted from 0.

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
    return pd.Series(values).groupby(clip).quantile(PERCENTILE / 100).to_numpy()


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


def evaluate(scores, n_resamples=2000, seed=0):
    """Measure how well clip scores agree with the experts' flags.

    Parameters
    ----------
    scores : pandas.DataFrame
        One row per clip: clip, patient (str), b_lines (bool), and a column of scores per arm.
    n_resamples : int
        Bootstrap resamples of patients.
    seed : int

    Returns
    -------
    table : pandas.DataFrame
        One row per arm, in order of columns: arm, clips, patients, auroc, low, high; low and high bound the 95 %
        percentile interval of a bootstrap over patients.

    Raises
    ------
    LusbookError
        If a column is missing, flags are all alike, or an arm has no score for a clip.
    """
    keys = ["clip", "patient", "b_lines"]
    arms = [name for name in scores.columns if name not in keys]
    if missing := [name for name in keys if name not in scores] or ([] if arms else ["<a column of scores>"]):
        raise LusbookError(f"scores: expected column {missing[0]!r}, received {list(scores.columns)}")
    flags = scores["b_lines"].to_numpy(bool)
    if flags.all() or not flags.any():
        raise LusbookError(
            f"b_lines: expected clips with and without B-lines, received {flags.sum()} of {len(flags)} with"
        )
    for arm in arms:
        finite = np.isfinite(scores[arm].to_numpy(float))
        if not finite.all():
            raise LusbookError(f"{arm}: clip {scores['clip'].iloc[int(np.argmin(finite))]} has no finite score")
    rows = []
    for arm in arms:
        auroc, low, high = auroc_ci(scores[arm].to_numpy(float), flags, scores["patient"].to_numpy(), n_resamples, seed)
        counts = {"clips": len(scores), "patients": scores["patient"].nunique()}
        rows.append({"arm": arm, **counts, "auroc": auroc, "low": low, "high": high})
    return pd.DataFrame(rows)
