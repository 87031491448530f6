"""What adaptation gains, taken apart by recipe, network and adaptation.

Reads the tables of :mod:`lusbook.rivals`, one row a patient. Every difference is taken within patients, every interval
is from a bootstrap over patients.
"""

import numpy as np
import pandas as pd

from lusbook.cohort import NAMES as COHORTS
from lusbook.errors import LusbookError
from lusbook.rivals import other
from lusbook.statistics import bootstrap_ci
from lusbook.tables import NO_VALUE, titles, with_interval

RECIPES = {"paper": (0.5, 0.005), "demo": (0.1, 0.005), "steady": (0.0, 0.0005)}  # dropout, learning rate
METHODS = {"unet": "U-Net", "plain": "SIFA's network, not adapted", "sifa": "SIFA"}


def arm(patients, method, labels, recipe=None, statistics="trained"):
    """Rows of one rival by the default route, one for each test patient.

    Parameters
    ----------
    patients : pandas.DataFrame
        As :func:`lusbook.rivals.gather` returns them.
    method : {"unet", "plain", "sifa"}
    labels : str
        Cohort whose labels train it.
    recipe : tuple of float, optional
        Dropout and learning rate of a U-Net.
    statistics : {"trained", "source", "target", "both"}
        Of the batch normalisations.

    Returns
    -------
    rows : pandas.DataFrame
        Indexed by cohort and patient.

    Raises
    ------
    LusbookError
        When there are none.
    """
    translated = (method == "sifa") & (patients["cohort"] == labels)  # its source goes through the generator
    rows = patients[
        (patients["method"] == method)
        & (patients["labels"] == labels)
        & (patients["statistics"] == statistics)
        & (patients["route"] == np.where(translated, "translated", "direct"))
    ]
    if recipe is not None:
        rows = rows[(rows["dropout"] == recipe[0]) & (rows["learning_rate"] == recipe[1])]
    if rows.empty:
        raise LusbookError(f"rivals: no rows of {method!r} trained on {labels!r}, recipe {recipe}, {statistics!r}")
    return rows.set_index(["cohort", "patient"]).sort_index()


def mean_over_images(values):
    """Mean of the other columns over images, whose number is the first: values of shape (n, 1 + k) to (k,)."""
    return values[:, 0] @ values[:, 1:] / values[:, 0].sum()


def image_mean(values, patients, n_resamples=2000):
    """Mean of the last column over images, with its 95 % interval by bootstrap over patients.

    Parameters
    ----------
    values : ndarray, shape (n, 1 + k), float
        As for :func:`mean_over_images`.
    patients : ndarray, shape (n,), str
    n_resamples : int

    Returns
    -------
    mean, low, high : float
    """

    def statistic(drawn):
        return mean_over_images(drawn)[-1]

    return float(statistic(values)), *bootstrap_ci(values, patients, statistic, n_resamples)


def difference(one, two, column="dice", n_resamples=2000):
    """Mean difference of two rivals on the same patients, with its interval.

    Parameters
    ----------
    one, two : pandas.DataFrame
        With the same index, ``images`` and ``column``; the difference is ``one`` less ``two``, over images.
    column : str
    n_resamples : int
        Of the bootstrap over patients.

    Returns
    -------
    difference : dict
        ``difference``, ``low``, ``high``, ``patients``, ``images``.

    Raises
    ------
    LusbookError
        When the patients are not the same.
    """
    if not one.index.equals(two.index):
        raise LusbookError(f"difference: expected the same patients, received {len(one)} and {len(two)} rows")
    values = np.column_stack([one["images"], one[column] - two[column]])
    groups = one.index.get_level_values("patient").to_numpy(str)
    found, low, high = image_mean(values, groups, n_resamples)
    counts = {"patients": len(np.unique(groups)), "images": int(one["images"].sum())}
    return {"difference": found, "low": low, "high": high, **counts}


def split(patients, start="paper", n_resamples=2000):
    """Split the gain of adaptation over a U-Net into recipe, network and adaptation.

    Three steps lead from a U-Net to SIFA, all trained on the same labels: another recipe for the U-Net (without
    dropout, at the smaller learning rate: of those tried, the nearest to SIFA's own), SIFA's network in its place,
    and adaptation. They add up to the whole.

    Parameters
    ----------
    patients : pandas.DataFrame
        As :func:`lusbook.rivals.gather` returns them.
    start : {"paper", "demo"}
        Recipe of the first U-Net.
    n_resamples : int

    Returns
    -------
    split : pandas.DataFrame
        One row for each cohort of labels, test cohort and step: labels, cohort, step, from, to, what
        :func:`difference` returns.
    """
    rows = []
    for labels in COHORTS:
        ladder = {
            f"U-Net, {start} recipe": arm(patients, "unet", labels, RECIPES[start]),
            "U-Net, steady recipe": arm(patients, "unet", labels, RECIPES["steady"]),
            "SIFA's network, not adapted": arm(patients, "plain", labels),
            "SIFA": arm(patients, "sifa", labels),
        }
        names = list(ladder)
        steps = {"recipe": (0, 1), "network": (1, 2), "adaptation": (2, 3), "whole": (0, 3)}
        for cohort in (other(labels), labels):
            for step, (a, b) in steps.items():
                found = difference(
                    ladder[names[b]].loc[[cohort]], ladder[names[a]].loc[[cohort]], n_resamples=n_resamples
                )
                about = {"labels": labels, "cohort": cohort, "step": step, "from": names[a], "to": names[b]}
                rows.append(about | found)
    return pd.DataFrame(rows)


def levels_table(patients, n_resamples=2000):
    """Mean Dice of every rival on every cohort, with its interval.

    Returns
    -------
    table : pandas.DataFrame
        One row a rival, cohort, route and kind of statistics: ``rival``, method, labels, dropout, learning_rate,
        cohort, route, statistics, ``dice``, ``low``, ``high``, patients, images.
    """
    keys = ["method", "labels", "dropout", "learning_rate", "cohort", "route", "statistics"]
    rows = []
    for key, group in patients.groupby(keys, sort=False, dropna=False):
        values = group[["images", "dice"]].to_numpy(float)
        dice, low, high = image_mean(values, group["patient"].to_numpy(str), n_resamples)
        counts = {"patients": group["patient"].nunique(), "images": int(group["images"].sum())}
        row = dict(zip(keys, key, strict=True)) | {"dice": dice, "low": low, "high": high}
        rows.append(row | counts)
    return pd.DataFrame(rows)


def swing(curves):
    """How far the test Dice of each recipe moves from point to point of its learning curve.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`lusbook.rivals.gather` returns them.

    Returns
    -------
    swing : pandas.DataFrame
        One row a recipe and cohort of labels, tested on the same cohort: dropout, learning_rate, labels,
        ``mean`` (Dice over images and points of the second half), ``lowest`` and ``highest`` (of a fold's mean Dice in
        the second half), ``step`` (mean absolute change from one point to the next, of a fold).
    """
    own = curves[(curves["cohort"] == curves["labels"]) & (curves["method"] == "unet")]
    keys = ["dropout", "learning_rate", "labels"]
    folds = fold_curves(own, keys)
    late = folds[folds["iteration"] > folds["iteration"].max() / 2]
    rows = []
    for key, group in late.groupby(keys):
        wide = group.pivot(index="iteration", columns="fold", values="dice")
        mean = np.average(group["dice"], weights=group["images"])
        row = dict(zip(keys, key, strict=True)) | {"mean": mean, "lowest": wide.min().min()}
        rows.append(row | {"highest": wide.max().max(), "step": wide.diff().abs().mean().mean()})
    return pd.DataFrame(rows)


def swing_table(swing):
    """As :func:`swing` returns it, heads in words: rows by dropout, learning rate and cohort of labels."""
    texts = {name: swing[name].map("{:g}".format) for name in ("dropout", "learning_rate")}
    texts |= {name: swing[name].map("{:.2f}".format) for name in ("mean", "lowest", "highest", "step")}
    table = swing.assign(labels=swing["labels"].map(titles("cohorts")), **texts)
    heads = {"learning_rate": "learning rate", "labels": "labels of", "step": "mean change"}
    return table.rename(columns=heads).set_index(["dropout", "learning rate", "labels of"])


def fold_curves(curves, keys):
    """Mean Dice over the test images of each fold, by iteration: ``keys``, fold, iteration, images, dice."""
    weighted = curves.assign(dice=curves["dice"] * curves["images"])
    folds = weighted.groupby([*keys, "fold", "iteration"], as_index=False)[["images", "dice"]].sum()
    return folds.assign(dice=folds["dice"] / folds["images"])


def split_table(split):
    """The steps as text: one row for each cohort of labels and test cohort, a column for each step, with n."""
    names = titles("cohorts")
    texts = [with_interval(row.difference, row.low, row.high) for row in split.itertuples()]
    wide = split.assign(text=texts).pivot(index=["labels", "cohort"], columns="step", values="text")
    wide = wide[list(dict.fromkeys(split["step"]))].reindex(
        split.groupby(["labels", "cohort"], sort=False).size().index
    )
    counts = split.groupby(["labels", "cohort"], sort=False)[["patients", "images"]].first()
    table = wide.join(counts).rename_axis(columns=None).rename(index=names)
    return table.rename_axis(index=["labels of", "tested on"])


def name_of(row):
    """Name of a rival: method, and recipe of a U-Net."""
    recipe = "" if pd.isna(row.dropout) else f", dropout {row.dropout:g}, rate {row.learning_rate:g}"
    return METHODS[row.method] + recipe


def bounds_table(levels):
    """Dice of every rival as trained, by the default route: a column for each cohort of labels and test cohort.

    Parameters
    ----------
    levels : pandas.DataFrame
        As :func:`levels_table`.
    """
    names = titles("cohorts")
    translated = (levels["method"] == "sifa") & (levels["cohort"] == levels["labels"])
    rows = levels[(levels["statistics"] == "trained") & ((levels["route"] == "translated") == translated)]
    rows = rows.assign(
        rival=[name_of(row) for row in rows.itertuples()],
        text=[with_interval(row.dice, row.low, row.high) for row in rows.itertuples()],
        head=[f"{names[row.labels]} labels, {names[row.cohort]} test" for row in rows.itertuples()],
    )
    wide = rows.pivot(index="rival", columns="head", values="text").reindex(list(dict.fromkeys(rows["rival"])))
    return wide[sorted(wide, key=list(dict.fromkeys(rows["head"])).index)].rename_axis(index=None, columns=None)


def statistics_table(levels):
    """Dice with statistics of one domain or of both, and by both routes: a column for each kind of statistics.

    Parameters
    ----------
    levels : pandas.DataFrame
        As :func:`levels_table`.
    """
    names = titles("cohorts")
    rows = levels.assign(
        rival=[name_of(row) for row in levels.itertuples()],
        text=[with_interval(row.dice, row.low, row.high) for row in levels.itertuples()],
        labels=levels["labels"].map(names),
        cohort=levels["cohort"].map(names),
    )
    index = ["rival", "labels", "cohort", "route"]
    wide = rows.pivot(index=index, columns="statistics", values="text")
    wide = wide.reindex(rows[index].drop_duplicates().itertuples(index=False, name=None))
    wide = wide[["trained", "source", "target", "both"]].fillna(NO_VALUE).rename_axis(columns=None)
    return wide.rename_axis(index=["rival", "labels of", "tested on", "route"])


def shift(patients, method, labels, recipe=None, statistics="target", n_resamples=2000):
    """What other statistics of the batch normalisations change on the target, as :func:`difference` gives it."""
    chosen = (arm(patients, method, labels, recipe, kind).loc[[other(labels)]] for kind in (statistics, "trained"))
    return difference(*chosen, n_resamples=n_resamples)
