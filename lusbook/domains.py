"""Distances between two sets of frames, with patients as the unit, and the yardstick to read them by."""

from itertools import combinations, islice
from math import comb

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lusbook.errors import LusbookError
from lusbook.features import frechet_distance

FOLDS = 3  # at most, of patients, to measure the error of a classifier
SPLITS = 500  # at most, of patients into two sets
PAIRS = 50  # of halves


def bandwidth(space):
    """Median distance between two rows (1 where that is 0), the customary bandwidth of :func:`rbf`."""
    return float(np.median(pdist(space))) or 1.0


def rbf(distance, width):
    """Gaussian kernel of distances."""
    return np.exp(-(distance**2) / (2 * width**2))


def _check(a, b, patients_a, patients_b):
    """Two sets of features as arrays, with their patients; refuse what does not fit together."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    patients_a, patients_b = np.asarray(patients_a, str), np.asarray(patients_b, str)
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise LusbookError(f"expected two sets of finite features (n, d), received {a.shape} and {b.shape}")
    if len(a) != len(patients_a) or len(b) != len(patients_b):
        raise LusbookError(
            f"patients: expected one for each of {len(a)} and {len(b)} frames, received {len(patients_a)} and "
            f"{len(patients_b)}"
        )
    return a, b, patients_a, patients_b


def mmd(a, b, patients_a, patients_b, width):
    """Squared maximum mean discrepancy of two sets of frames, Gaussian kernel, unbiased over patients.

    Pairs of frames of one patient are left out: they are near copies, and would make any two sets of patients differ.
    With one frame a patient this is the unbiased estimate of the reference.

    Parameters
    ----------
    a, b : array_like, shape (n, d) and (m, d), float
    patients_a, patients_b : array_like of str
        No name is in both.
    width : float
        Of the kernel, see :func:`bandwidth`.

    Returns
    -------
    mmd : float
        No unit. 0 in expectation for patients of one kind, so it can be negative; at most 2. NaN where a set has one
        patient only.

    Raises
    ------
    LusbookError
        When shapes do not fit together, or a value is not finite.

    References
    ----------
    Gretton et al. 2012, "A kernel two-sample test", JMLR 13, 723-773, eq. 3.
    """
    a, b, patients_a, patients_b = _check(a, b, patients_a, patients_b)
    within = []
    for rows, patients in ((a, patients_a), (b, patients_b)):
        others = patients[:, None] != patients
        within.append(rbf(cdist(rows, rows), width)[others].mean() if others.any() else np.nan)
    return float(sum(within) - 2 * rbf(cdist(a, b), width).mean())


def a_distance(a, b, patients_a, patients_b, seed=0):
    """Proxy A-distance: 2 (1 - 2 error) of a logistic regression that tells the sets apart in patients held out.

    Parameters
    ----------
    a, b, patients_a, patients_b
        As for :func:`mmd`.
    seed : int
        Of the folds.

    Returns
    -------
    distance : float
        From 0 (no better than chance, or worse) to 2 (always right). The error is the mean of the two sets' errors
        over up to three folds of patients. NaN where a set has one patient only.

    Raises
    ------
    LusbookError
        As :func:`mmd`.

    References
    ----------
    Ben-David et al. 2007, "Analysis of representations for domain adaptation", NIPS 19, 137-144.
    """
    a, b, patients_a, patients_b = _check(a, b, patients_a, patients_b)
    folds = min(FOLDS, len(np.unique(patients_a)), len(np.unique(patients_b)))
    if folds < 2:
        return np.nan
    labels = np.repeat([0, 1], [len(a), len(b)])
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(labels, labels, np.concatenate([patients_a, patients_b])))
    regression = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
    wrong = cross_val_predict(regression, np.concatenate([a, b]), labels, cv=splits) != labels
    error = (wrong[labels == 0].mean() + wrong[labels == 1].mean()) / 2
    return float(2 * (1 - 2 * min(error, 0.5)))


def distances(keys, space, seed=0):
    """Distances between the two cohorts, and those between sets of patients to read them by.

    Parameters
    ----------
    keys : pandas.DataFrame
        cohort (two), fold and patient of each frame.
    space : ndarray, shape (n, d), float
        Standardised measures, see :func:`lusbook.spread.standardise`.
    seed : int
        Of folds, and of what is drawn where there are too many ways to divide.

    Returns
    -------
    distances : pandas.DataFrame
        One row a comparison: ``kind``, ``a`` and ``b`` (patients of each side, number), ``a_distance``, ``mmd``
        and ``frechet``. Kinds:

        - ``cohorts``: one against the other;
        - ``fold <k>``: those of one fold;
        - ``halves``: half of the patients of one cohort against half of the other's;
        - ``<cohort>``: half of the patients of one cohort against its other half, the yardstick;
        - ``shuffled``: all patients divided at random into sets of the cohorts' sizes, as if cohorts did not matter.

        Of ``halves`` 50 are drawn. Of ``<cohort>`` and ``shuffled`` all ways to divide are there, up to 50 and 500;
        where there are more, as many are drawn.
    """
    cohorts = list(dict.fromkeys(keys["cohort"]))
    names = (keys["cohort"] + " " + keys["patient"].astype(str)).to_numpy(str)
    width, rng = bandwidth(space), np.random.default_rng(seed)
    patients = {c: list(dict.fromkeys(names[(keys["cohort"] == c).to_numpy()])) for c in cohorts}
    fold = dict(zip(names, keys["fold"], strict=True))

    def row(kind, one, other):
        a, b = (np.isin(names, side) for side in (one, other))
        sides = space[a], space[b], names[a], names[b]
        values = {"a_distance": a_distance(*sides, seed), "mmd": mmd(*sides, width)}
        counts = {"kind": kind, "a": len(one), "b": len(other)}
        enough = min(a.sum(), b.sum()) > 1
        return counts | values | {"frechet": frechet_distance(space[a], space[b]) if enough else np.nan}

    one, other = patients.values()
    rows = [row("cohorts", one, other)]
    for k in sorted(set(fold.values())):
        sides = [[name for name in side if fold[name] == k] for side in (one, other)]
        rows += [row(f"fold {k}", *sides)] if all(sides) else []
    for _ in range(PAIRS):
        rows.append(row("halves", *(rng.permutation(side)[: len(side) // 2] for side in (one, other))))
    for cohort, side in patients.items():
        rows += [row(cohort, *halves) for halves in _divide(side, len(side) // 2, PAIRS, rng)]
    rows += [row("shuffled", *sides) for sides in _divide(one + other, len(one), SPLITS, rng)]
    return pd.DataFrame(rows)


def _divide(names, size, at_most, rng):
    """All ways to divide names into a set of a size and the rest; where there are more than ``at_most``, some drawn."""
    alike = 2 if 2 * size == len(names) else 1  # halves: the same two sets in another order are the same
    ways = comb(len(names), size) // alike
    if ways <= at_most:
        chosen = islice(combinations(names, size), ways)
    else:
        chosen = (rng.permutation(names)[:size].tolist() for _ in range(at_most))
    return [(way, [name for name in names if name not in way]) for way in chosen]
