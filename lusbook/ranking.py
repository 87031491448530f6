"""What other measures than Dice, and other thresholds, change in how experiments compare."""

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.secondary import EXACT
from lusbook.statistics import bootstrap_ci
from lusbook.tables import NO_VALUE, titles, with_interval

LOWER = ("hd95", "false_lines")  # measures that are better when lower

#: Measures that :func:`summarise` takes, each with its title and unit.
MEASURES = {
    "dice": "Dice",
    "nsd": "NSD",
    "hd95": "HD95, share of side",
    "found": "lines found, share",
    "false_lines": "false lines a frame",
}


def _ratio_ci(top, below, patients):
    """Quotient of two sums over images, with its interval by bootstrap over patients.

    A mean over images is such a quotient, and sums of patients are all that a resample needs.
    """
    sums = pd.DataFrame({"top": top, "below": below, "patient": patients}).groupby("patient").sum()

    def ratio(rows):
        top, below = rows.sum(axis=0)
        return top / below if below else np.nan

    values = sums[["top", "below"]].to_numpy(float)
    value = ratio(values)
    return (value, *(bootstrap_ci(values, sums.index, ratio) if not np.isnan(value) else (np.nan, np.nan)))


def summarise(images):
    """Every measure of every experiment and cohort, all folds together, with 95 % intervals over patients.

    Parameters
    ----------
    images : pandas.DataFrame
        As :func:`lusbook.secondary.run_secondary` returns it.

    Returns
    -------
    summary : pandas.DataFrame
        One row an experiment, cohort and measure of :data:`MEASURES`: ``value`` (mean over images; of ``found``, all
        lines found / all lines), ``low``, ``high``, ``n`` (images with a value), ``undefined`` (images without one:
        for ``hd95`` those with an empty prediction or label, for ``found`` those without a line), ``patients`` and
        ``lines`` (of the labels).
    """
    rows = []
    for (experiment, cohort), group in images.groupby(["experiment", "cohort"], sort=False):
        for name in MEASURES:
            defined = group["lines"] > 0 if name == "found" else group[name].notna()
            below = group["lines"] if name == "found" else defined
            value, low, high = _ratio_ci(group[name].fillna(0), below, group["patient"])
            row = {"experiment": experiment, "cohort": cohort, "measure": name, "value": value, "low": low}
            row |= {"high": high, "n": defined.sum(), "undefined": (~defined).sum()}
            rows.append(row | {"patients": group["patient"].nunique(), "lines": group["lines"].sum()})
    return pd.DataFrame(rows)


def summary_table(summary, cohort):
    """Measures of one cohort as text, with intervals; a row each experiment, by its title in Tables 1 and 2.

    Parameters
    ----------
    summary : pandas.DataFrame
        As :func:`summarise` returns it.
    cohort : str

    Returns
    -------
    table : pandas.DataFrame of str
        Columns by the titles of :data:`MEASURES`, and ``HD95 undefined`` (images).
    """
    rows = summary[summary["cohort"] == cohort]
    digits = {"hd95": 3}
    texts = [with_interval(row.value, row.low, row.high, digits.get(row.measure, 2)) for row in rows.itertuples()]
    wide = rows.assign(text=texts).pivot(index="experiment", columns="measure", values="text")
    wide = wide[list(MEASURES)].rename(columns=MEASURES)
    counts = rows[rows["measure"] == "hd95"].set_index("experiment")
    wide["HD95 undefined"] = counts["undefined"]
    wide = wide.reindex([name for name in [*EXPERIMENTS, EXACT] if name in wide.index])
    return wide.rename(index=titles("names")).rename_axis(index=None, columns=None)


def counts(summary, cohort):
    """What the measures of a cohort were taken of, in words: ranges where experiments differ.

    Parameters
    ----------
    summary : pandas.DataFrame
        As :func:`summarise` returns it.
    cohort : str

    Returns
    -------
    counts : dict of str to str
        ``images``, ``patients`` and ``lines`` (of the labels).
    """
    rows = summary[(summary["cohort"] == cohort) & (summary["measure"] == "dice")]
    found = {"images": rows["n"] + rows["undefined"], "patients": rows["patients"], "lines": rows["lines"]}
    ends = {name: sorted({values.min(), values.max()}) for name, values in found.items()}
    return {name: " to ".join(f"{value:g}" for value in values) for name, values in ends.items()}


def rankings(summary):
    """How each measure ranks the experiments, held against how Dice does.

    Parameters
    ----------
    summary : pandas.DataFrame
        As :func:`summarise` returns it.

    Returns
    -------
    rankings : pandas.DataFrame
        One row a cohort and measure: cohort, measure, ``tau`` (Kendall's tau-b with Dice: 1 for the same order, -1 for
        the reverse; NaN where a side does not vary), ``n`` (experiments with both), ``best`` and ``worst``
        (tuples of experiments: all that share the place).
    """
    rows = []
    experiments = summary[summary["experiment"] != EXACT]
    for cohort, group in experiments.groupby("cohort", sort=False):
        wide = group.pivot(index="experiment", columns="measure", values="value")
        wide[list(LOWER)] *= -1
        for name in MEASURES:
            both = wide[["dice", name]].dropna() if name != "dice" else wide[["dice", "dice"]]
            known = wide[name].dropna()
            best, worst = (tuple(known.index[np.isclose(known, end)]) for end in (known.max(), known.min()))
            rows.append((cohort, name, _tau(*both.to_numpy().T), len(both), best, worst))
    return pd.DataFrame(rows, columns=["cohort", "measure", "tau", "n", "best", "worst"])


def _tau(a, b):
    """Kendall's tau-b; NaN for fewer than two pairs, or where a side does not vary."""
    return float(stats.kendalltau(a, b).statistic) if len(a) > 1 else np.nan


def rankings_table(ranked):
    """Rankings as text: a row each cohort and measure, the experiments by their titles."""
    names, cohorts = titles("names"), titles("cohorts")
    rows = {
        (cohorts[row.cohort], MEASURES[row.measure]): {
            "tau with Dice": with_interval(row.tau, None, None),
            "experiments": row.n,
            "best": "; ".join(names.get(name, name) for name in row.best) or NO_VALUE,
            "worst": "; ".join(names.get(name, name) for name in row.worst) or NO_VALUE,
        }
        for row in ranked.itertuples()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def threshold_curve(thresholds):
    """Mean Dice over all test images at each threshold.

    Parameters
    ----------
    thresholds : pandas.DataFrame
        As :func:`lusbook.secondary.run_secondary` returns it.

    Returns
    -------
    curve : pandas.DataFrame
        One row an experiment, cohort and threshold: experiment, cohort, threshold, dice, images.
    """
    sums = thresholds.assign(dice=thresholds["dice"] * thresholds["images"])
    curve = sums.groupby(["experiment", "cohort", "threshold"], sort=False)[["dice", "images"]].sum().reset_index()
    return curve.assign(dice=curve["dice"] / curve["images"])


def threshold_rankings(curve, at=0.5):
    """How another threshold ranks the experiments, held against how the one in use does.

    Parameters
    ----------
    curve : pandas.DataFrame
        As :func:`threshold_curve` returns it.
    at : float
        The threshold in use.

    Returns
    -------
    rankings : pandas.DataFrame
        One row a cohort and other threshold: cohort, threshold, ``tau`` (Kendall's tau-b of the experiments' mean Dice
        with that at the threshold in use), ``n`` (experiments).

    Raises
    ------
    LusbookError
        When the threshold in use was not measured.
    """
    at = _measured(curve, at)
    rows = []
    for cohort, group in curve.groupby("cohort", sort=False):
        wide = group.pivot(index="experiment", columns="threshold", values="dice")
        for threshold in wide.columns.drop(at):
            rows.append((cohort, threshold, _tau(wide[at], wide[threshold]), len(wide)))
    return pd.DataFrame(rows, columns=["cohort", "threshold", "tau", "n"])


def _measured(table, at):
    """The measured threshold that is the one in use, up to rounding."""
    known = np.unique(table["threshold"])
    if not np.isclose(known, at).any():
        raise LusbookError(f"threshold {at}: expected one of {known.tolist()}")
    return known[np.isclose(known, at)][0]


def threshold_gains(thresholds, at=0.5):
    """What another threshold would have given.

    Parameters
    ----------
    thresholds : pandas.DataFrame
        As :func:`lusbook.secondary.run_secondary` returns it.
    at : float
        The threshold in use.

    Returns
    -------
    gains : pandas.DataFrame
        One row an experiment and cohort: ``dice`` at the threshold in use, ``best`` (the threshold with the highest
        mean Dice on these very images, of equal ones the lowest), ``gain`` there, with ``low`` and ``high`` of a 95 %
        interval over patients with that threshold held fixed, ``images`` and ``patients``. The test labels choose the
        threshold, so a gain is an upper bound and never negative.

    Raises
    ------
    LusbookError
        When the threshold in use was not measured.
    """
    at = _measured(thresholds, at)
    rows = []
    curve = threshold_curve(thresholds).set_index(["experiment", "cohort"])
    for (experiment, cohort), group in thresholds.groupby(["experiment", "cohort"], sort=False):
        means = curve.loc[[(experiment, cohort)]].set_index("threshold")["dice"]
        best = means.idxmax()
        at_best, in_use = (group[group["threshold"] == value].set_index("patient") for value in (best, at))
        change = (at_best["dice"] - in_use["dice"]) * in_use["images"]
        gain, low, high = _ratio_ci(change.to_numpy(), in_use["images"].to_numpy(), in_use.index)
        row = {"experiment": experiment, "cohort": cohort, "dice": means[at]}
        row |= {"best": best, "gain": gain, "low": low, "high": high}
        rows.append(row | {"images": in_use["images"].sum(), "patients": len(in_use)})
    return pd.DataFrame(rows)


def threshold_table(gains):
    """Gains of :func:`threshold_gains` as text, by titles."""
    names, cohorts = titles("names"), titles("cohorts")
    rows = {
        (cohorts[row.cohort], names.get(row.experiment, row.experiment)): {
            "Dice": with_interval(row.dice, None, None),
            "best threshold": f"{row.best:g}",
            "gain in Dice there": with_interval(row.gain, row.low, row.high, 3),
            "images": row.images,
            "patients": row.patients,
        }
        for cohort in cohorts
        for row in gains[gains["cohort"] == cohort].itertuples()
    }
    return pd.DataFrame.from_dict(rows, orient="index")
