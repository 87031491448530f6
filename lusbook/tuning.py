"""Chosen on one half of the patients, reported on the other: what attempts are worth."""

import numpy as np
import pandas as pd

from lusbook.statistics import auroc, auroc_ci, bootstrap_ci


def rate(attempts):
    """AUROC of every attempt and pooling on each half of the patients.

    Parameters
    ----------
    attempts : pandas.DataFrame
        As :func:`lusbook.attempts.run_attempts` returns it.

    Returns
    -------
    rated : pandas.DataFrame
        attempt, pooling, adapted, half, auroc.
    """
    long = attempts.melt(
        id_vars=["attempt", "adapted", "clip", "patient", "half", "b_lines"], var_name="pooling", value_name="score"
    ).dropna(subset="score")
    rows = [
        dict(zip(("attempt", "pooling", "adapted", "half"), key, strict=True))
        | {"auroc": auroc(part["score"].to_numpy(), part["b_lines"].to_numpy(bool))}
        for key, part in long.groupby(["attempt", "pooling", "adapted", "half"], sort=False)
    ]
    return pd.DataFrame(rows)


def choose(attempts, family="", n_resamples=2000, seed=0):
    """Choose on one half, report on the other, both ways.

    Parameters
    ----------
    attempts : pandas.DataFrame
        As :func:`lusbook.attempts.run_attempts` returns it.
    family : str
        How the names of the attempts begin that are chosen from.
    n_resamples, seed : int
        Of the bootstrap over the patients of the half that is reported.

    Returns
    -------
    chosen : pandas.DataFrame
        One row a half: ``chosen_on``, attempt, pooling, ``auroc_there`` (by which it was chosen, so too high),
        ``auroc``, low, high (on the other half), clips, patients; and a row ``both``: mean of the two.
    """
    rated = rate(attempts[attempts["attempt"].str.startswith(family)])
    rows, drawn = [], []
    for half, other in (("A", "B"), ("B", "A")):
        candidates = rated[(rated["half"] == half) & rated["adapted"].isin(["", half])]
        best = candidates.loc[candidates["auroc"].idxmax()]
        part = attempts[
            (attempts["attempt"] == best["attempt"])
            & (attempts["adapted"] == best["adapted"])
            & (attempts["half"] == other)
        ]
        score, flag = part[best["pooling"]].to_numpy(float), part["b_lines"].to_numpy(bool)
        patients = part["patient"].to_numpy(str)
        drawn.append((np.column_stack([score, flag]), patients))
        area, low, high = auroc_ci(score, flag, patients, n_resamples, seed)
        row = {"chosen_on": half, "attempt": best["attempt"], "pooling": best["pooling"], "auroc_there": best["auroc"]}
        row |= {"auroc": area, "low": low, "high": high, "clips": len(part), "patients": len(set(patients))}
        rows.append(row)
    both = {"chosen_on": "both", "attempt": "", "pooling": ""} | _mean_of_halves(drawn, n_resamples, seed)
    both["auroc_there"] = np.mean([row["auroc_there"] for row in rows])
    return pd.DataFrame([*rows, both | {name: sum(row[name] for row in rows) for name in ("clips", "patients")}])


def _mean_of_halves(drawn, n_resamples, seed):
    """Mean AUROC of two halves, whose scores have no common scale, with an interval over all patients."""
    values = np.concatenate([np.insert(values, 2, half, axis=1) for half, (values, _) in enumerate(drawn)])

    def mean(rows):  # (m, 3): score, flag, half
        parts = [rows[rows[:, 2] == half] for half in (0, 1)]
        return float(np.mean([auroc(part[:, 0], part[:, 1] > 0) for part in parts]))

    low, high = bootstrap_ci(values, np.concatenate([names for _, names in drawn]), mean, n_resamples, seed)
    return {"auroc": mean(values), "low": low, "high": high}
