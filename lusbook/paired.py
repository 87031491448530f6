"""Paired comparisons of few: exact tests, effect sizes, and what they can and cannot reach.

All take the differences of pairs, here one a patient. The p-values are exact, so there is a smallest one that any
result could reach.
"""

import numpy as np
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from lusbook.statistics import LEVEL

EXACT = 2**14  # assignments of signs up to which all are tried: 14 patients
AT_ONCE = 2**20  # signs in memory, of assignments times patients


def _permutations(differences):
    """Options of SciPy: how many assignments, how many of them at once, and where random ones start."""
    return {"n_resamples": EXACT, "batch": max(1, AT_ONCE // len(differences)), "rng": 0}


def sign_flip_test(differences):
    """Permutation test of paired differences: under no difference, each could as well have the other sign.

    Parameters
    ----------
    differences : array_like, shape (n,), float
        One a patient.

    Returns
    -------
    p : float
        Two-sided, of the mean; exact up to 14 patients, beyond from 16384 random assignments of signs. NaN for fewer
        than two patients.

    Examples
    --------
    >>> sign_flip_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    0.03125
    """
    differences = np.asarray(differences, float)
    if len(differences) < 2:
        return np.nan
    options = {"permutation_type": "samples", "vectorized": True, **_permutations(differences)}
    return float(stats.permutation_test((differences,), np.mean, **options).pvalue)


def signed_rank_test(differences):
    """Wilcoxon's signed-rank test, exact also with ties; conventions as in :func:`sign_flip_test`.

    Zeros are left out, as Wilcoxon does.

    Examples
    --------
    >>> signed_rank_test([0.1, 0.2, 0.3, 0.4, 0.5, -0.6])
    0.4375
    """
    differences = np.asarray(differences, float)
    if len(differences) < 2:
        return np.nan
    return float(stats.wilcoxon(differences, method=stats.PermutationMethod(**_permutations(differences))).pvalue)


def smallest_p(n):
    """Smallest two-sided p that either test can reach with n patients, all on one side: 2 of 2**n assignments.

    Examples
    --------
    >>> smallest_p(6)
    0.03125
    """
    return 2.0 ** (1 - n) if n > 1 else np.nan


def patients_needed(comparisons, level=LEVEL):
    """Least number of patients with which Holm's first step can reach a level at all.

    Parameters
    ----------
    comparisons : int
        In the family.
    level : float

    Examples
    --------
    >>> patients_needed(1), patients_needed(18)
    (6, 10)
    """
    return int(np.floor(1 + np.log2(comparisons / level))) + 1


def cohens_dz(differences, level=0.95):
    """Standardised mean of paired differences, mean / SD, with its interval by the noncentral t distribution.

    Parameters
    ----------
    differences : array_like, shape (n,), float
    level : float

    Returns
    -------
    dz, low, high : float
        NaN for fewer than two differences, or when they do not vary. The interval takes differences as normal.

    References
    ----------
    Cumming and Finch, "A primer on the understanding, use, and calculation of confidence intervals that are based on
    central and noncentral distributions", Educ. Psychol. Meas. 61 (2001), 532-574.

    Examples
    --------
    >>> [round(value, 2) for value in cohens_dz([0.1, 0.2, 0.3, 0.4])]
    [1.94, 0.15, 3.67]
    """
    differences = np.asarray(differences, float)
    n = len(differences)
    if n < 2 or np.ptp(differences) <= 1e-12:
        return np.nan, np.nan, np.nan
    dz = differences.mean() / differences.std(ddof=1)
    t, freedom = dz * np.sqrt(n), n - 1
    ends = special.nctdtrinc(freedom, [(1 + level) / 2, (1 - level) / 2], t)
    return float(dz), *(float(end / np.sqrt(n)) for end in ends)


def rank_biserial(differences):
    """Matched-pairs rank-biserial correlation: the ranks that favour one side, less those that favour the other.

    Parameters
    ----------
    differences : array_like, shape (n,), float

    Returns
    -------
    r : float
        From -1 (all differences negative) to 1 (all positive); 0 when none differs from zero.

    References
    ----------
    Kerby, "The simple difference formula", Compr. Psychol. 3 (2014), 11.IT.3.1.

    Examples
    --------
    >>> round(rank_biserial([0.1, 0.2, -0.3, 0.4]), 3)
    0.4
    """
    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    ranks = stats.rankdata(np.abs(differences))
    return float(np.sum(np.sign(differences) * ranks) / ranks.sum()) if len(ranks) else 0.0


def bootstrap_coverage(n, level=0.95):
    """What share of percentile bootstrap intervals of a mean hold it, about, for n normal values.

    The interval is about mean ± z sqrt((n - 1) / n) SD / sqrt(n), too narrow in both: z where Student's t is due, and
    the spread of a resample's values over n, not n - 1.

    Parameters
    ----------
    n : int
        Patients.
    level : float
        That the interval is named after.

    References
    ----------
    Hesterberg, "What teachers should know about the bootstrap", Am. Stat. 69 (2015), 371-386.

    Examples
    --------
    >>> round(bootstrap_coverage(6), 2), round(bootstrap_coverage(1000), 2)
    (0.87, 0.95)
    """
    if n < 2:
        return np.nan
    end = stats.norm.ppf((1 + level) / 2) * np.sqrt((n - 1) / n)
    return float(1 - 2 * stats.t.sf(end, n - 1))


def holm(p):
    """P-values adjusted by Holm for the comparisons that have one.

    Parameters
    ----------
    p : array_like, shape (n,), float
        NaN: not tested, and not counted.

    Returns
    -------
    adjusted : ndarray, shape (n,), float

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979), 65-70.

    Examples
    --------
    >>> [round(float(value), 2) for value in holm([0.01, 0.04, 0.03, float("nan")])]
    [0.03, 0.06, 0.06, nan]
    """
    adjusted = np.array(p, float)
    tested = ~np.isnan(adjusted)
    if tested.any():
        adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
    return adjusted
