"""What adaptation gains by dose of label consistency and image diversity.

Reads the table of :mod:`lusbook.dose`, one row a patient and cell. Every gain is taken within patients, every interval
is from a bootstrap over patients, who keep all their cells.
"""

import numpy as np
import pandas as pd

from lusbook.dose import HIGH, LOW, SOURCES
from lusbook.errors import LusbookError
from lusbook.gains import image_mean, mean_over_images
from lusbook.statistics import bootstrap_ci
from lusbook.tables import NO_VALUE, titles, with_interval

#: Terms of the model.
EFFECTS = ("consistency", "diversity", "consistency:diversity")
DIRECTION = "direction"


def gains(patients, better="sifa", worse="unet", score="dice_truth", cohort="target"):
    """Gain of one method over another for each test patient and cell of the grid.

    Parameters
    ----------
    patients : pandas.DataFrame
        As :func:`lusbook.dose.gather` returns them.
    better, worse : str
        Methods; only cells that have both count.
    score : {"dice_truth", "dice"}
        Against the exact masks, or the drawn labels.
    cohort : {"target", "source"}
        Whose test images.

    Returns
    -------
    gains : pandas.DataFrame
        direction, consistency, diversity, seed, fold, patient, images, the score of both, and ``gain``.

    Raises
    ------
    LusbookError
        When no cell has both.
    """
    source = patients["direction"].map(SOURCES)
    rows = patients[(patients["cohort"] == source) == (cohort == "source")]
    translated = rows["method"].str.startswith("sifa") & (cohort == "source")
    rows = rows[rows["route"] == np.where(translated, "translated", "direct")]
    keys = ["direction", "consistency", "diversity", "seed", "fold", "patient", "images"]
    sides = [
        rows[rows["method"] == method].set_index(keys)[score].rename(side)
        for side, method in (("better", better), ("worse", worse))
    ]
    found = pd.concat(sides, axis=1, join="inner").reset_index()
    if found.empty:
        raise LusbookError(f"gains: no cell has both {better!r} and {worse!r}")
    return found.assign(gain=found["better"] - found["worse"])


def surface(gains, by=("direction", "consistency", "diversity"), n_resamples=2000):
    """Mean gain of each cell over test images, with a 95 % interval over patients.

    Parameters
    ----------
    gains : pandas.DataFrame
        As :func:`gains`.
    by : sequence of str
    n_resamples : int

    Returns
    -------
    surface : pandas.DataFrame
        ``by``, means over images ``better``, ``worse`` and ``gain``, ``low`` and ``high`` of the gain, ``patients``,
        ``images`` (seeds counted once).
    """
    rows = []
    for key, group in gains.groupby(list(by), sort=True):
        values = group[["images", "better", "worse", "gain"]].to_numpy(float)
        gain, low, high = image_mean(values, group["patient"].to_numpy(str), n_resamples)
        better, worse, _ = mean_over_images(values)
        row = dict(zip(by, key, strict=True)) | {"better": better, "worse": worse, "gain": gain}
        once = group.drop_duplicates(["direction", "patient"])
        rows.append(row | {"low": low, "high": high, "patients": len(once), "images": int(once["images"].sum())})
    return pd.DataFrame(rows)


def design_matrix(gains):
    """Terms of the model, each from -1 to 1, and the gain, all less their patient's mean.

    The means stand for an intercept of each patient, and with it for the direction: a patient is in one only.

    Parameters
    ----------
    gains : pandas.DataFrame
        As :func:`gains`.

    Returns
    -------
    terms : pandas.DataFrame
        :data:`EFFECTS`, and where both directions are there, each times the direction (1: COVID-19 to CAP).
    gain : pandas.Series
    """
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    terms = (gains[["consistency", "diversity"]] - middle) / half
    terms["consistency:diversity"] = terms["consistency"] * terms["diversity"]
    if gains["direction"].nunique() > 1:
        sign = np.where(gains["direction"] == "covid-to-cap", 1.0, -1.0)
        terms = terms.join(terms.mul(sign, axis=0).add_suffix(f":{DIRECTION}"))
    patients = gains["patient"].astype(str)
    return terms - terms.groupby(patients).transform("mean"), gains["gain"] - gains["gain"].groupby(patients).transform(
        "mean"
    )


def effects(gains, n_resamples=2000, seed=0):
    """Effects of consistency, diversity and their product on the gain, for each direction and for both.

    Ordinary least squares with an intercept for each patient. An effect is the change in gain (Dice) from the lowest to
    the highest level of a factor, the other in the middle; that of the product is half the difference between one
    factor's effect at the highest and at the lowest level of the other. With both directions, effects are their means,
    and ``:direction`` is half of what COVID-19 to CAP has more than CAP to COVID-19.

    Parameters
    ----------
    gains : pandas.DataFrame
        As :func:`gains`.
    n_resamples, seed : int
        Of the bootstrap over patients, who keep all their cells.

    Returns
    -------
    effects : pandas.DataFrame
        direction ("both" for the joint model), term, ``estimate``, ``low``, ``high`` (Dice), ``patients``, ``cells``,
        ``residual`` (standard deviation of what the model leaves, Dice).
    """
    parts = dict(iter(gains.groupby("direction", sort=False)))
    tables = [fit(rows, n_resamples, seed).assign(direction=direction) for direction, rows in parts.items()]
    if len(parts) > 1:
        tables.append(fit(gains, n_resamples, seed).assign(direction="both"))
    table = pd.concat(tables, ignore_index=True)
    return table[["direction", *table.columns.drop("direction")]]


def fit(gains, n_resamples=2000, seed=0):
    """One model of the gain, of all rows together: :func:`effects` without ``direction``."""
    terms, gain = design_matrix(gains)
    values, names = np.column_stack([terms, gain]), list(terms)
    patients = gains["patient"].to_numpy(str)

    def coefficients(drawn):
        return 2 * np.linalg.lstsq(drawn[:, :-1], drawn[:, -1], rcond=None)[0]

    estimate = coefficients(values)
    n_patients = len(np.unique(patients))
    freedom = len(values) - len(names) - n_patients
    residual = np.sqrt(((values[:, -1] - values[:, :-1] @ (estimate / 2)) ** 2).sum() / max(freedom, 1))
    cells = len(gains[["direction", "consistency", "diversity"]].drop_duplicates())
    counts = {"patients": n_patients, "cells": cells, "residual": float(residual)}
    rows = []
    for place, name in enumerate(names):
        low, high = bootstrap_ci(
            values, patients, lambda drawn, place=place: coefficients(drawn)[place], n_resamples, seed
        )
        rows.append({"term": name, "estimate": float(estimate[place]), "low": low, "high": high} | counts)
    return pd.DataFrame(rows)


def reversal(surface, factor):
    """Whether a factor alone reverses the gain, by the rule of the chapter, for each direction.

    Parameters
    ----------
    surface : pandas.DataFrame
        As :func:`surface`.
    factor : {"consistency", "diversity"}

    Returns
    -------
    verdicts : dict of str to str
        By direction: "reverses" when, with the other factor in the middle, the interval of the gain is above 0 at one
        end and below 0 at the other; else "does not reverse".
    """
    held = {"consistency": "diversity", "diversity": "consistency"}[factor]
    verdicts = {}
    for direction, rows in surface.groupby("direction", sort=False):
        present = np.sort(rows[held].unique())
        middle = present[len(present) // 2]
        ends = rows[rows[held] == middle].set_index(factor).loc[[LOW, HIGH]]
        signs = np.where(ends["low"] > 0, 1, np.where(ends["high"] < 0, -1, 0))
        verdicts[direction] = "reverses" if signs[0] * signs[1] < 0 else "does not reverse"
    return verdicts


def change(low, high):
    """Whether an interval leaves out 0, in words: "changes" or "no effect seen"."""
    return "changes" if low > 0 or high < 0 else "no effect seen"


def reduced_source(patients, score="dice_truth", n_resamples=2000):
    """Gain with the full source less gain with a source cut to the target's size, in the corners that have both.

    Returns
    -------
    table : pandas.DataFrame
        As :func:`surface`, one row a corner and one over all of them (consistency and diversity NaN): ``better`` is the
        gain with the full set, ``worse`` that with the reduced one.
    """
    keys = ["direction", "consistency", "diversity", "seed", "fold", "patient", "images"]
    full = gains(patients, "sifa", "unet", score).set_index(keys)["gain"]
    cut = gains(patients, "sifa-reduced", "unet-reduced", score).set_index(keys)["gain"]
    both = pd.concat([full.rename("better"), cut.rename("worse")], axis=1, join="inner").reset_index()
    both["gain"] = both["better"] - both["worse"]
    whole = surface(both, by=("direction",), n_resamples=n_resamples)
    return pd.concat([surface(both, n_resamples=n_resamples), whole], ignore_index=True)


def direction_titles():
    """Directions of adaptation as text, by name."""
    names = titles("cohorts")
    return {direction: " to ".join(names[name] for name in direction.split("-to-")) for direction in SOURCES}


def effects_table(effects):
    """Effects as text: one row a term, a column for each direction and for both; a dash where a model has no such."""
    heads = direction_titles() | {"both": "both directions"}
    texts = [with_interval(row.estimate, row.low, row.high) for row in effects.itertuples()]
    wide = effects.assign(text=texts).pivot(index="term", columns="direction", values="text").fillna(NO_VALUE)
    wide = wide.reindex(index=list(dict.fromkeys(effects["term"])), columns=list(dict.fromkeys(effects["direction"])))
    return wide.rename(index=term_title, columns=heads).rename_axis(index=None, columns=None)


def term_title(term):
    """A term of the model as text.

    Examples
    --------
    >>> term_title("consistency:diversity")
    'consistency × diversity'
    """
    return term.replace(":", " × ")


def joint_row(gains, name):
    """Effects over both directions as text: one row, of that name."""
    fitted = fit(gains).assign(direction="both")
    return effects_table(fitted[fitted["term"].isin(EFFECTS)]).T.set_axis([name])


def surface_table(surface, better="SIFA", worse="U-Net"):
    """Cells as text: by direction, consistency and diversity what both sides have, gain with its interval, n.

    Parameters
    ----------
    surface : pandas.DataFrame
        As :func:`surface`.
    better, worse : str
        What the two sides are called.
    """
    table = surface.replace({"direction": direction_titles()}).round({"better": 2, "worse": 2})
    texts = [with_interval(row.gain, row.low, row.high) for row in surface.itertuples()]
    table = table.assign(gain=texts).drop(columns=["low", "high"]).rename(columns={"better": better, "worse": worse})
    levels = ["consistency", "diversity"]
    table[levels] = table[levels].astype(object).where(table[levels].notna(), "all")
    return table.set_index(["direction", *levels])
