"""The paper's own numbers, checked: what its tests give when computed from its table, and whether its counts add up.

A mean, a standard deviation and n are all that an unpaired t-test needs (section 3, Table 1). A paired one also needs
the correlation of the two methods over the images, which the paper does not give; so the check is which correlations
would make its statement true. Printed numbers are rounded: each check is made for all values that print alike.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.tables import NO_VALUE, bare_p, load_published, p_text, pair_index

ROUNDING = 0.005  # half a unit of the second decimal, to which the paper prints Dice and p
VARIANCES = {"welch": False, "pooled": True}  # whether a test takes the two variances as equal
AGREES, ROUNDED, DISAGREES = "agrees", "within rounding", "does not agree"


def correlation_for(p, difference, sd_a, sd_b, n):
    """Correlation of two samples at which their paired t-test gives p.

    The standard deviation of the differences is sqrt(sd_a² + sd_b² - 2 r sd_a sd_b), and t is the mean difference over
    it, times sqrt(n); this is that solved for r. A greater r gives a smaller p.

    Parameters
    ----------
    p : float or ndarray
        Two-sided.
    difference : float or ndarray
        Of the means.
    sd_a, sd_b : float or ndarray
        Standard deviations (ddof = 1), above zero.
    n : int
        Pairs.

    Returns
    -------
    r : float or ndarray
        Below -1 when every correlation gives a smaller p; above 1 when none gives one as small.

    Examples
    --------
    >>> round(float(correlation_for(0.05, 0.1, 0.3, 0.3, 20)), 3)
    0.746
    """
    t = stats.t.isf(np.asarray(p) / 2, n - 1)
    return (sd_a**2 + sd_b**2 - n * (difference / t) ** 2) / (2 * sd_a * sd_b)


def check_claims(claims=None, table1=None, cohorts=None):
    """Recompute every t-test of section 3 from the published means, standard deviations and numbers of images.

    Parameters
    ----------
    claims : pandas.DataFrame, optional
        Columns better, worse, cohort, p_relation ("<" or "="), p_value; default: the paper's.
    table1 : pandas.DataFrame, optional
        Columns experiment, cohort, dice_mean, dice_std; default: the paper's.
    cohorts : pandas.DataFrame, optional
        Columns cohort, images; default: the paper's.

    Returns
    -------
    checked : pandas.DataFrame
        One row a claim: better, worse, cohort, ``published_p`` (text), ``images``, ``difference`` (of the means),
        ``direction`` (whether ``better`` has the greater mean); for ``welch`` and ``pooled``: the two-sided ``p_*``,
        its range over what rounding hides ``p_*_low``, ``p_*_high``, and ``agrees_*``; for a paired test the
        correlations ``r_low`` to ``r_high`` at which the claim is true (NaN: none) and the widest such range that
        rounding allows, ``r_low_rounded`` to ``r_high_rounded``. "agrees": the printed numbers give the claim;
        "within rounding": some numbers that print alike do; "does not agree": none do.

    Raises
    ------
    LusbookError
        When a claim's experiment or cohort is not in the tables, a standard deviation could be zero, or a relation
        is not known.
    """
    claims = load_published("claims") if claims is None else claims
    table1 = load_published("table1") if table1 is None else table1
    cohorts = load_published("cohorts") if cohorts is None else cohorts
    dice, images = table1.set_index(["experiment", "cohort"]), cohorts.set_index("cohort")["images"]
    rows = []
    for claim in claims.itertuples():
        a, b = (_mean_sd(dice, name, claim.cohort) for name in (claim.better, claim.worse))
        if claim.cohort not in images:
            raise LusbookError(f"cohorts: expected images of {claim.cohort!r}, received cohorts {list(images.index)}")
        n, claimed = int(images[claim.cohort]), _claimed(claim)
        row = {"better": claim.better, "worse": claim.worse, "cohort": claim.cohort}
        row |= {"published_p": f"p {claim.p_relation} {claim.p_value:g}", "images": n}
        rows.append(row | _direction(a, b) | _unpaired(a, b, n, claimed) | _paired(a, b, n, claimed))
    return pd.DataFrame(rows)


def _mean_sd(dice, experiment, cohort):
    """Published mean and standard deviation."""
    if (experiment, cohort) not in dice.index:
        raise LusbookError(f"Table 1: expected a row of {experiment!r} on {cohort!r}, received none")
    mean, sd = dice.loc[(experiment, cohort), ["dice_mean", "dice_std"]]
    if not sd > ROUNDING:
        row = f"Table 1: {experiment!r} on {cohort!r}"
        raise LusbookError(f"{row}: expected dice_std above {ROUNDING}, received {sd:g}")
    return float(mean), float(sd)


def _claimed(claim):
    """Least and greatest p that a claim can mean."""
    if claim.p_relation not in ("<", "="):
        raise LusbookError(f"claims: p_relation: expected '<' or '=', received {claim.p_relation!r}")
    return (0.0, claim.p_value) if claim.p_relation == "<" else (claim.p_value - ROUNDING, claim.p_value + ROUNDING)


def _rounded(a, b):
    """Differences of means and standard deviations that print as two rows do, as grids with their ends."""
    steps = np.linspace(-1, 1, 11)
    difference = round(a[0] - b[0], 10) + 2 * ROUNDING * steps
    return np.meshgrid(difference, a[1] + ROUNDING * steps, b[1] + ROUNDING * steps)


def _direction(a, b):
    """Difference of two published means, and whether its sign is the claim's."""
    difference = round(a[0] - b[0], 10)
    surely = abs(difference) > 2 * ROUNDING
    return {
        "difference": difference,
        "direction": ROUNDED if not surely else AGREES if difference > 0 else DISAGREES,
    }


def _unpaired(a, b, n, claimed):
    """Unpaired tests of two published rows."""
    difference, sd_a, sd_b = _rounded(a, b)
    low, high = claimed
    row = {}
    for name, equal in VARIANCES.items():
        p = stats.ttest_ind_from_stats(*a, n, *b, n, equal_var=equal).pvalue
        grid = stats.ttest_ind_from_stats(difference, sd_a, n, 0, sd_b, n, equal_var=equal).pvalue
        verdict = AGREES if low <= p <= high else ROUNDED if grid.min() <= high and grid.max() >= low else DISAGREES
        row |= {f"p_{name}": float(p), f"p_{name}_low": grid.min(), f"p_{name}_high": grid.max()}
        row[f"agrees_{name}"] = verdict
    return row


def _paired(a, b, n, claimed):
    """Correlations at which a paired test gives what is claimed."""
    low, high = claimed
    printed = (round(a[0] - b[0], 10), a[1], b[1], n)
    grid = (*_rounded(a, b), n)
    row = {}
    for suffix, numbers in (("", printed), ("_rounded", grid)):
        least, most = np.min(correlation_for(high, *numbers)), np.max(correlation_for(low, *numbers))
        possible = least < 1 - 1e-9 and most >= -1  # at r = 1 and equal spread all differences are the same
        row[f"r_low{suffix}"] = max(float(least), -1.0) if possible else np.nan
        row[f"r_high{suffix}"] = min(float(most), 1.0) if possible else np.nan
    return row


def claims_text(checked):
    """The recomputed t-tests as text, in two tables: unpaired, and at which correlations a paired one is true.

    Parameters
    ----------
    checked : pandas.DataFrame
        As :func:`check_claims` returns it; with a column ``r``, ours, it is shown too.

    Returns
    -------
    unpaired, paired : pandas.DataFrame of str
        Rows by A, B and test cohort. The range of p in brackets is what rounding allows.
    """
    pair = pair_index(checked["better"], checked["worse"], checked["cohort"])
    stated = {"images": checked["images"], "published p": checked["published_p"].map(bare_p)}
    unpaired = {"A - B": checked["difference"].map("{:.2f}".format)} | stated
    for name, title in (("welch", "Welch"), ("pooled", "pooled")):
        columns = zip(*(checked[f"p_{name}{end}"] for end in ("", "_low", "_high")), strict=True)
        unpaired[f"p, {title}"] = [_p_range(*values) for values in columns]
        unpaired[title] = checked[f"agrees_{name}"]
    paired = stated | {
        "r, as printed": [_r(row.r_low, row.r_high) for row in checked.itertuples()],
        "r, within rounding": [_r(row.r_low_rounded, row.r_high_rounded) for row in checked.itertuples()],
    }
    if "r" in checked:
        paired["r in this study"] = [NO_VALUE if pd.isna(r) else f"{r + 0.0:.2f}" for r in checked["r"]]
    return pd.DataFrame(unpaired).set_axis(pair), pd.DataFrame(paired).set_axis(pair)


def _p_range(p, low, high):
    """A p-value and what rounding makes of it, where that is more than one text."""
    low, high = p_text(low), p_text(high)
    return p_text(p) if low == high else f"{p_text(p)} ({low} to {high})"


def _r(low, high):
    """A range of correlations in words."""
    if pd.isna(low):
        return "no r"
    if low <= -1 and high >= 1:
        return "any r"
    return f"r > {low:.2f}" if high >= 1 else f"r < {high:.2f}" if low <= -1 else f"r {low:.2f} to {high:.2f}"


def check_numbers():
    """Whether what the paper states agrees with itself.

    Patients and images of the folds are summed. A mean Dice cannot exceed 2 s / (1 + s) at a mean sensitivity s, as
    each image's cannot at its own and that function is concave; a standard deviation of values from 0 to 1 with mean
    m and n of them cannot exceed sqrt(m (1 - m) n / (n - 1)). Both bounds leave room for rounding. The t-tests are
    those of :func:`check_claims`.

    Returns
    -------
    checked : pandas.DataFrame
        Columns ``check``, ``stated``, ``found`` (both int), ``agrees`` (bool).
    """
    rows = [*_sums(), *_bounds()]
    claims = check_claims()
    rows.append(("t-tests whose difference has the claimed sign", len(claims), int((claims["difference"] > 0).sum())))
    unpaired = (claims["agrees_welch"] != DISAGREES) & (claims["agrees_pooled"] != DISAGREES)
    rows.append(("t-tests whose p an unpaired test can give, within rounding", len(claims), int(unpaired.sum())))
    paired = int(claims["r_low_rounded"].notna().sum())
    rows.append(("t-tests whose p a paired test can give, at some correlation", len(claims), paired))
    table = pd.DataFrame(rows, columns=["check", "stated", "found"])
    return table.assign(agrees=table["stated"] == table["found"])


def _sums():
    """Patients and images of each cohort, as stated and as the sum over folds."""
    cohorts, folds = load_published("cohorts"), load_published("folds")
    sums = folds.groupby("cohort")[["patients", "images"]].sum()
    stated = {"patients": "patients_reported", "images": "images"}
    return [
        (f"{unit} of {row['name']}, sum of the folds", int(row[column]), int(sums.loc[row["cohort"], unit]))
        for unit, column in stated.items()
        for _, row in cohorts.iterrows()
    ]


def _bounds():
    """Rows of Table 1 that are possible, given Table 2 and that Dice is between 0 and 1."""
    table = load_published("table1").merge(load_published("table2"), on=["experiment", "cohort"])
    n = table["cohort"].map(load_published("cohorts").set_index("cohort")["images"])
    s, m = table["sensitivity"] + ROUNDING, table["dice_mean"]
    mean_possible = m - ROUNDING <= 2 * s / (1 + s)
    widest = np.maximum.reduce([k * (1 - k) for k in (m - ROUNDING, m, m + ROUNDING)])
    sd_possible = table["dice_std"] - ROUNDING <= np.sqrt(widest * n / (n - 1))
    return [
        ("mean Dice possible at the mean sensitivity", len(table), int(mean_possible.sum())),
        ("standard deviation of Dice possible at its mean", len(table), int(sd_possible.sum())),
    ]
