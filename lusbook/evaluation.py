"""How well scores of real clips agree with what experts noted.

A clip has no mask, only a flag: B-lines yes or no. What is reported is the area under the ROC curve (AUROC) of the clip
scores for the flags, with patients, not clips, as the unit of chance.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.real import KEYS
from lusbook.statistics import auroc, auroc_ci, bootstrap_ci


def arm_names(scores):
    """Columns of a table of scores that hold an arm's."""
    return [name for name in scores.columns if name not in KEYS]


def evaluate(scores, n_resamples=2000, seed=0):
    """Measure how well clip scores agree with a flag.

    Parameters
    ----------
    scores : pandas.DataFrame
        One row per clip: clip, patient (str), b_lines (bool, the flag), and a column of scores per arm; an arm is
        judged on the clips that it scores.
    n_resamples : int
        Bootstrap resamples of patients.
    seed : int

    Returns
    -------
    table : pandas.DataFrame
        One row per arm, in order of columns: arm, clips, patients, auroc, low, high; low and high bound the 95 %
        percentile interval of a bootstrap over patients. NaN where flags are all alike.

    Raises
    ------
    LusbookError
        If a column is missing, or an arm's scores are infinite.
    """
    arms = arm_names(scores)
    missing = [name for name in ("clip", "patient", "b_lines") if name not in scores]
    if missing := missing or ([] if arms else ["<a column of scores>"]):
        raise LusbookError(f"scores: expected column {missing[0]!r}, received {list(scores.columns)}")
    rows = []
    for arm in arms:
        part = scores[scores[arm].notna()]
        flags, values = part["b_lines"].to_numpy(bool), part[arm].to_numpy(float)
        if np.isinf(values).any():
            raise LusbookError(f"{arm}: clip {part['clip'].iloc[int(np.argmax(np.isinf(values)))]} has no finite score")
        found = (np.nan,) * 3
        if flags.any() and not flags.all():
            found = auroc_ci(values, flags, part["patient"].to_numpy(str), n_resamples, seed)
        rows.append({"arm": arm, "clips": len(part), "patients": part["patient"].nunique()})
        rows[-1] |= dict(zip(("auroc", "low", "high"), found, strict=True))
    return pd.DataFrame(rows)


def differences(scores, references, n_resamples=2000, seed=0):
    """Differences of AUROC between arms on the same clips, with paired bootstrap intervals over patients.

    Parameters
    ----------
    scores : pandas.DataFrame
        As for :func:`evaluate`.
    references : list of str
        Arms that every other arm is compared with.
    n_resamples, seed : int

    Returns
    -------
    table : pandas.DataFrame
        One row a pair: arm, reference, clips (that both score), difference (of the arm less the reference), low, high.
    """
    rows = []
    for reference in references:
        for arm in arm_names(scores):
            part = scores[scores[arm].notna() & scores[reference].notna()]
            flags = part["b_lines"].to_numpy(bool)
            if arm == reference or flags.all() or not flags.any():
                continue
            values = part[[arm, reference]].assign(flag=flags).to_numpy(float)

            def difference(drawn):  # (m, 3): arm, reference, flag
                flagged = drawn[:, 2] > 0
                return auroc(drawn[:, 0], flagged) - auroc(drawn[:, 1], flagged)

            low, high = bootstrap_ci(values, part["patient"].to_numpy(str), difference, n_resamples, seed)
            row = {"arm": arm, "reference": reference, "clips": len(part)}
            rows.append(row | {"difference": difference(values), "low": low, "high": high})
    return pd.DataFrame(rows)


def secondary(scores, agreement, n_resamples=2000, seed=0):
    """What else the protocol asks of each arm.

    Parameters
    ----------
    scores, agreement : pandas.DataFrame
        As :func:`lusbook.arms.run_arms` returns them.
    n_resamples, seed : int

    Returns
    -------
    table : pandas.DataFrame
        One row an arm: ``spearman`` with severity and its interval (``spearman_low``, ``spearman_high``); ``severe``,
        AUROC for severity of 2 and more, likewise; ``area_no``, mean score of clips without the flag (share of the
        fan; NaN for arms that do not draw); ``neighbours``, mean Dice of the masks of neighbouring frames.
    """
    severe = evaluate(scores.assign(b_lines=scores["severity"] >= 2), n_resamples=n_resamples, seed=seed)
    rows = []
    for arm, (_, found) in zip(arm_names(scores), severe.iterrows(), strict=True):
        part = scores[scores[arm].notna()]
        values = part[[arm, "severity"]].to_numpy(float)
        row = {"arm": arm, "spearman": _spearman(values), "spearman_low": np.nan, "spearman_high": np.nan}
        if np.isfinite(row["spearman"]):  # an arm that draws nothing anywhere has no order
            patients = part["patient"].to_numpy(str)
            interval = bootstrap_ci(values, patients, _spearman, n_resamples, seed)
            row |= dict(zip(("spearman_low", "spearman_high"), interval, strict=True))
        row |= {"severe": found["auroc"], "severe_low": found["low"], "severe_high": found["high"]}
        drawn = arm in agreement
        row["area_no"] = part.loc[~part["b_lines"].to_numpy(bool), arm].mean() if drawn else np.nan
        row["neighbours"] = agreement.loc[part.index, arm].mean() if drawn else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _spearman(values):
    """Spearman's correlation of two columns; NaN where one does not vary."""
    if np.ptp(values, axis=0).min() == 0:
        return np.nan
    ranks = stats.rankdata(values, axis=0)
    return float(np.corrcoef(ranks.T)[0, 1])


def by_condition(scores, n_resamples=2000, seed=0):
    """AUROC of each arm within each condition: arm, condition, and what :func:`evaluate` returns."""
    tables = [
        evaluate(rows, n_resamples=n_resamples, seed=seed).assign(condition=condition, flagged=rows["b_lines"].mean())
        for condition, rows in scores.groupby("condition", sort=True)
    ]
    return pd.concat(tables, ignore_index=True)


def bounds(scores, n_resamples=2000, seed=0):
    """What the experts' own labels allow: how well their severity scores agree with their flags.

    Parameters
    ----------
    scores : pandas.DataFrame
        As for :func:`evaluate`, with severity and condition.

    Returns
    -------
    ceiling : pandas.DataFrame
        As :func:`evaluate`, of the experts' severity as a score for their flags.
    flagged : pandas.DataFrame
        One row a condition: condition, clips, patients, flagged (share of the clips with the flag), severity (mean).
    """
    own = scores[["clip", "patient", "b_lines"]].assign(**{"experts' severity": scores["severity"].astype(float)})
    flagged = scores.groupby("condition").agg(
        clips=("clip", "size"),
        patients=("patient", "nunique"),
        flagged=("b_lines", "mean"),
        severity=("severity", "mean"),
    )
    return evaluate(own, n_resamples=n_resamples, seed=seed), flagged.reset_index()
