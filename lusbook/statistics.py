"""The t-tests of section 3, and intervals by bootstrap over patients.

The paper does not state whether its t-tests were paired. All methods see the same test images, so ours are paired;
the unpaired test is beside each. Both take images as independent, as the paper does; frames of one clip are not, so
their p values are far too small for a statement about patients. The bootstrap draws whole patients instead.
"""

from itertools import islice

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.rows import by_run, image_pairs
from lusbook.tables import NOT_RUN, dice_table, load_published

LEVEL = 0.05  # of significance, section 2.5


def paired_ttest(a, b):
    """Paired t-test of two methods on the same images, two-sided.

    Parameters
    ----------
    a, b : array_like, shape (n,), float
        Pairs in which either is NaN are left out.

    Returns
    -------
    t, p : float
        NaN for fewer than two pairs, or when all differences are the same (nothing to test against).

    Raises
    ------
    LusbookError
        When the lengths differ.

    Examples
    --------
    >>> t, p = paired_ttest([0.9, 0.8, 0.7], [0.5, 0.6, 0.5])
    >>> round(t, 3), round(p, 3)
    (4.0, 0.057)
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise LusbookError(f"paired t-test: expected two samples of one length, received {a.shape} and {b.shape}")
    both = ~(np.isnan(a) | np.isnan(b))
    difference = a[both] - b[both]
    if len(difference) < 2 or _constant(difference):
        return np.nan, np.nan
    result = stats.ttest_1samp(difference, 0)
    return float(result.statistic), float(result.pvalue)


def unpaired_ttest(a, b):
    """Welch's t-test of two samples, two-sided: variances need not be equal.

    Parameters
    ----------
    a : array_like, shape (n,), float
    b : array_like, shape (m,), float
        NaN are left out of both.

    Returns
    -------
    t, p : float
        NaN for fewer than two values in either sample, or when neither varies.
    """
    a, b = (np.asarray(sample, float) for sample in (a, b))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if min(len(a), len(b)) < 2 or (_constant(a) and _constant(b)):
        return np.nan, np.nan
    result = stats.ttest_ind(a, b, equal_var=False)
    return float(result.statistic), float(result.pvalue)


def _constant(sample):
    """Whether a sample varies by no more than rounding."""
    return np.ptp(sample) <= 1e-12 * max(1, np.abs(sample).max())


def compare(per_image, better, worse, cohort):
    """Compare the Dice of two experiments on the test images of one cohort, all folds together.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    better, worse : str
        Experiments; the difference is ``better`` minus ``worse``.
    cohort : str

    Returns
    -------
    comparison : dict
        ``n`` (images that both have, matched on fold, cohort, patient and image), ``unmatched`` (images that only
        one has), ``mean_difference``, ``t`` and ``p_paired`` over the n; ``p_unpaired`` over all images of each.

    Raises
    ------
    LusbookError
        When either experiment has no rows on the cohort, or an image is there twice.
    """
    found = image_pairs(per_image, better, worse, cohort)
    for name in (better, worse):
        if found[name].isna().all():
            raise LusbookError(f"experiment {name!r} has no test images of cohort {cohort!r}")
    pairs = found.dropna()
    t, p_paired = paired_ttest(pairs[better], pairs[worse])
    return {
        "n": len(pairs),
        "unmatched": len(found) - len(pairs),
        "mean_difference": float((pairs[better] - pairs[worse]).mean()),
        "t": t,
        "p_paired": p_paired,
        "p_unpaired": unpaired_ttest(found[better], found[worse])[1],
    }


def verdict(difference, p, published_significant, level=LEVEL):
    """Whether a difference agrees with a published claim, by a stated rule.

    Parameters
    ----------
    difference : float
        Ours, in the direction that the paper claims.
    p : float
        Ours.
    published_significant : bool
        Whether the paper claims a difference, or none.
    level : float

    Returns
    -------
    verdict : str
        For a claimed difference: "reproduced" (same direction, p < level), "contradicted" (opposite direction,
        p < level), "same direction, not significant" or "opposite direction, not significant". For a claim of no
        difference: "reproduced" (p >= level) or "contradicted". "cannot be tested" when p is NaN.

    Examples
    --------
    >>> verdict(0.2, 0.0001, True), verdict(-0.2, 0.4, True), verdict(0.2, 0.0001, False)
    ('reproduced', 'opposite direction, not significant', 'contradicted')
    """
    if np.isnan(p):
        return "cannot be tested"
    if not published_significant:
        return "contradicted" if p < level else "reproduced"
    if p < level:
        return "reproduced" if difference > 0 else "contradicted"
    return f"{'same' if difference > 0 else 'opposite'} direction, not significant"


def section3_tests(per_image, claims=None):
    """The significance claims of section 3, each with ours beside it.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    claims : pandas.DataFrame, optional
        Columns better, worse, cohort, p_relation ("<" or "="), p_value; default: the paper's.

    Returns
    -------
    tests : pandas.DataFrame
        One row a claim: better, worse, cohort, ``published_p`` (text), ``published_difference`` (of the published
        means; NaN where the paper has none), what :func:`compare` returns, ``verdict`` (of the paired test) and
        ``verdict_unpaired``. Verdict "not run" when either experiment has no rows.
    """
    claims = load_published("claims") if claims is None else claims
    means = load_published("table1").set_index(["experiment", "cohort"])["dice_mean"]
    runs, rows = by_run(per_image), []
    ran = set(dice_table(runs)[["experiment", "cohort"]].itertuples(index=False, name=None))
    for claim in claims.itertuples():
        pair = [(claim.better, claim.cohort), (claim.worse, claim.cohort)]
        row = {"better": claim.better, "worse": claim.worse, "cohort": claim.cohort}
        row["published_p"] = f"p {claim.p_relation} {claim.p_value:g}"
        row["published_difference"] = means.get(pair[0], np.nan) - means.get(pair[1], np.nan)
        if not ran.issuperset(pair):
            row |= {"n": 0, "unmatched": 0} | dict.fromkeys(("mean_difference", "t", "p_paired", "p_unpaired"), np.nan)
            rows.append(row | {"verdict": NOT_RUN, "verdict_unpaired": NOT_RUN})
            continue
        ours = compare(runs, claim.better, claim.worse, claim.cohort)
        # "p < 0.001" claims a difference; "p = 0.23" claims none.
        claimed = claim.p_value <= LEVEL
        verdicts = {
            key: verdict(ours["mean_difference"], ours[p], claimed)
            for key, p in (("verdict", "p_paired"), ("verdict_unpaired", "p_unpaired"))
        }
        rows.append(row | ours | verdicts)
    return pd.DataFrame(rows)


def _resamples(groups, seed):
    """Endless indices of rows: as many groups as there are, drawn with replacement, each with all its rows."""
    rng = np.random.default_rng(seed)
    _, which, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    # In the order of the groups' names, so that the order of rows is no matter; sorted once for all groups.
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
    while True:
        yield np.concatenate([members[drawn] for drawn in rng.integers(len(members), size=len(members))])


def bootstrap_ci(values, groups, statistic, n_resamples=2000, seed=0, level=0.95):
    """Percentile interval of a statistic by bootstrap over groups: whole patients are drawn, not images.

    Parameters
    ----------
    values : array_like, shape (n, ...)
        One entry for each image, clip, ...
    groups : array_like, shape (n,)
        The patient of each.
    statistic : callable
        Takes some of ``values``, returns a float. A resample in which it is NaN is drawn again.
    n_resamples : int
    seed : int
        The same seed gives the same interval.
    level : float
        Share of resamples inside the interval.

    Returns
    -------
    low, high : float
        NaN for fewer than two groups: one patient says nothing of others.

    Raises
    ------
    LusbookError
        When lengths differ or values are missing, or the statistic is NaN in nine of ten resamples.

    References
    ----------
    Field and Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 69 (2007), 369-390.

    Examples
    --------
    >>> bootstrap_ci([1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"], np.mean)
    (1.0, 3.0)
    """
    values, groups = np.asarray(values), np.asarray(groups)
    if len(values) != len(groups) or len(values) == 0:
        raise LusbookError(f"bootstrap: expected a group for each value, received {len(values)} and {len(groups)}")
    if pd.isna(groups).any():
        raise LusbookError(
            f"bootstrap: expected a group for each value, row {int(np.argmax(pd.isna(groups)))} has none"
        )
    if len(np.unique(groups)) < 2:
        return np.nan, np.nan
    drawn = (float(statistic(values[index])) for index in islice(_resamples(groups, seed), 10 * n_resamples))
    kept = list(islice((value for value in drawn if not np.isnan(value)), n_resamples))
    if len(kept) < n_resamples:
        raise LusbookError(
            f"bootstrap: the statistic is undefined in {10 * n_resamples - len(kept)} of {10 * n_resamples} resamples "
            f"of {len(np.unique(groups))} groups; more groups are needed"
        )
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auroc(score, flag):
    """Area under the ROC curve.

    Parameters
    ----------
    score : ndarray, shape (n,), float
        The greater, the more likely the flag.
    flag : ndarray, shape (n,), bool

    Returns
    -------
    auroc : float
        The chance that a flagged one has a greater score than one without flag, ties counting half; NaN when flags
        are all alike.

    References
    ----------
    Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982), 29-36.

    Examples
    --------
    >>> auroc(np.array([1.0, 2.0, 3.0, 2.0]), np.array([False, True, True, False]))
    0.875
    """
    n_with = np.count_nonzero(flag)
    n_without = len(flag) - n_with
    if not n_with or not n_without:
        return np.nan
    ranks = stats.rankdata(score)  # a resample needs thousands of areas: scikit-learn's function takes ten times longer
    return float((ranks[flag].sum() - n_with * (n_with + 1) / 2) / (n_with * n_without))


def auroc_ci(score, flag, patient, n_resamples=2000, seed=0):
    """Area under the ROC curve, with a 95 % interval by bootstrap over patients.

    Parameters
    ----------
    score : array_like, shape (n,), float
        The greater, the more likely the flag.
    flag : array_like, shape (n,), bool
    patient : array_like, shape (n,)
    n_resamples : int
        A resample without both classes has no AUROC and is drawn again, so the interval holds for resamples with
        both. (When patients have clips of both classes that is rare.)
    seed : int

    Returns
    -------
    auroc, low, high : float
        Interval NaN for a single patient.

    Raises
    ------
    LusbookError
        When lengths differ, a score is not finite, or flags are all alike.
    """
    score, flag = np.asarray(score, float), np.asarray(flag, bool)
    if score.shape != flag.shape or score.ndim != 1:
        raise LusbookError(f"AUROC: expected a flag for each score, received {score.shape} and {flag.shape}")
    if not np.isfinite(score).all():
        raise LusbookError(f"AUROC: score {int(np.argmin(np.isfinite(score)))} is not finite")
    if flag.all() or not flag.any():
        raise LusbookError(f"AUROC: expected both classes, received {flag.sum()} of {len(flag)} flagged")

    rows = np.column_stack([score, flag])
    low, high = bootstrap_ci(rows, patient, lambda drawn: auroc(drawn[:, 0], drawn[:, 1] > 0), n_resamples, seed)
    return auroc(score, flag), low, high
