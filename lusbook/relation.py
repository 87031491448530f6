"""How Dice goes with what was observed, and what chance alone would show (sections 3 and 4)."""

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.diversity import GROUPS
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.observed import MEASURES, measure_titles
from lusbook.rows import each_part
from lusbook.tables import dice_table, metric_table, titles, with_interval

ENOUGH = 10  # patients that an interval of a rank correlation needs: six of them can be ordered in 720 ways only


def mean_dice(per_image, by):
    """Mean Dice of every experiment in each fold or patient, and of their mean.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    by : {"fold", "patient"}

    Returns
    -------
    dice : pandas.DataFrame
        Rows by the group (cohort, fold, and patient), a column an experiment, and ``mean`` of them.
    """
    parts = (rows.astype({"patient": str}) for rows in each_part(per_image))
    means = metric_table(parts, "dice", ["experiment", *GROUPS[by]])
    dice = means.pivot_table(index=GROUPS[by], columns="experiment", values="mean", sort=False)
    return dice.assign(mean=dice.mean(axis=1)).rename_axis(columns=None)


def _matched(groups, dice):
    """Measures and Dice of the same groups: index, and two tables with rows in one order."""
    names = list(dice.index.names)
    # Names that look like numbers are read as such.
    measures = groups.astype({name: str for name in names if name == "patient"}).set_index(names)[list(MEASURES)]
    common = [key for key in measures.index if key in dice.index]
    if not common:
        raise LusbookError(f"measures and Dice: expected the same {names[-1]}s, received none in common")
    return measures.loc[common], dice.loc[common]


def _rhos(x, y):
    """Spearman's correlation of every column of x with every column of y, NaN where one varies not or has NaN."""
    ranks = [stats.rankdata(values, axis=0, nan_policy="propagate") for values in (x, y)]
    ranks = [values - values.mean(axis=0) for values in ranks]
    norms = [np.sqrt((values**2).sum(axis=0)) for values in ranks]
    size = np.outer(*norms)
    return np.divide(ranks[0].T @ ranks[1], size, out=np.full(size.shape, np.nan), where=size > 1e-9)


def relate(groups, dice, n_resamples=1000, seed=0):
    """Rank correlation of every measure with the Dice of every experiment, over patients or folds.

    Parameters
    ----------
    groups : pandas.DataFrame
        As :func:`lusbook.observed.measure_groups`, by patient or fold.
    dice : pandas.DataFrame
        As :func:`mean_dice`, by the same.
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    relation : pandas.DataFrame
        One row a measure, experiment (and ``mean``) and cohort (``both``: pooled, where a measure that only tells the
        cohorts apart correlates too): measure, experiment, cohort, ``rho`` (Spearman's; NaN for fewer than three
        groups, a missing value, or a side that does not vary), ``n``, and ``low``, ``high``, 95 % by bootstrap over
        groups, NaN for fewer than ten.

    Raises
    ------
    LusbookError
        When the tables have no group in common.
    """
    measures, dice = _matched(groups, dice)
    cohorts = measures.index.get_level_values("cohort")
    tables = []
    for cohort in [*dict.fromkeys(cohorts), "both"]:
        rows = np.flatnonzero((cohorts == cohort) | (cohort == "both"))
        x, y = measures.to_numpy(float)[rows], dice.to_numpy(float)[rows]
        rho = _rhos(x, y) if len(rows) > 2 else np.full((x.shape[1], y.shape[1]), np.nan)
        low = high = np.full(rho.size, np.nan)
        if len(rows) >= ENOUGH:
            drawn = np.random.default_rng(seed).integers(len(rows), size=(n_resamples, len(rows)))
            rhos = pd.DataFrame([_rhos(x[index], y[index]).ravel() for index in drawn])
            low, high = rhos.quantile([0.025, 0.975]).to_numpy()  # NaN, where a resample does not vary, left out
        index = pd.MultiIndex.from_product([measures.columns, dice.columns], names=["measure", "experiment"])
        columns = {"rho": rho.ravel(), "n": len(rows), "low": low, "high": high}
        tables.append(pd.DataFrame(columns, index).reset_index().assign(cohort=cohort))
    return pd.concat(tables, ignore_index=True)


def chance(groups, dice, n_permutations=2000, seed=0):
    """What chance alone gives in as large a table of rank correlations.

    Within each cohort, the measures of one patient (or fold) are given to another at random, all of them together, so
    that measures and experiments stay as much alike as they are.

    Parameters
    ----------
    groups, dice
        As for :func:`relate`.
    n_permutations, seed : int

    Returns
    -------
    chance : dict
        ``coefficients`` (that could be computed, each cohort by itself, without ``mean``); ``n`` (groups of the
        smaller cohort); ``largest`` and ``typical`` (mean) absolute value; for both ``<name>_chance`` (median over
        permutations), ``<name>_high`` (their 95th percentile) and ``<name>_p`` (share of permutations at least as
        large, the observed one included).
    """
    measures, dice = _matched(groups, dice.drop(columns="mean", errors="ignore"))
    cohorts = measures.index.get_level_values("cohort")
    sides = [np.flatnonzero(cohorts == cohort) for cohort in dict.fromkeys(cohorts)]
    x, y, rng = measures.to_numpy(float), dice.to_numpy(float), np.random.default_rng(seed)

    def sizes(shuffle):
        found = [np.abs(_rhos(x[shuffle(rows)], y[rows])).ravel() for rows in sides if len(rows) > 2]
        found = np.concatenate([np.zeros(0), *found])
        return found[~np.isnan(found)]

    observed = sizes(lambda rows: rows)
    result = {"coefficients": len(observed), "n": min(map(len, sides))}
    names = {"largest": np.max, "typical": np.mean}
    if not len(observed):
        return result | {f"{name}{end}": np.nan for name in names for end in ("", "_chance", "_high", "_p")}
    permuted = [sizes(rng.permutation) for _ in range(n_permutations)]
    for name, statistic in names.items():
        drawn = np.array([statistic(values) for values in permuted])
        p = (1 + (drawn >= statistic(observed) - 1e-9).sum()) / (1 + n_permutations)
        values = statistic(observed), np.median(drawn), np.quantile(drawn, 0.95), p
        result |= {
            f"{name}{end}": float(value) for end, value in zip(("", "_chance", "_high", "_p"), values, strict=True)
        }
    return result


def by_labels(per_image):
    """Dice by whose labels an experiment learned from.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.

    Returns
    -------
    table : pandas.DataFrame
        One row a set of labels and test cohort: ``labels`` (of), ``cohort`` (tested on), ``experiments``, their
        ``mean`` Dice, and the ``least`` and ``greatest`` of their means.
    """
    names = titles("cohorts")
    means = dice_table(per_image).rename(columns={"mean": "dice"})
    means["labels"] = [" and ".join(names[c] for c in _labelled(name)) for name in means["experiment"]]
    columns = {"experiments": ("dice", "size"), "mean": ("dice", "mean"), "least": ("dice", "min")}
    return means.groupby(["labels", "cohort"], sort=False).agg(**columns, greatest=("dice", "max")).reset_index()


def _labelled(name):
    """Cohorts whose labels an experiment has seen, its parent's included."""
    experiment = EXPERIMENTS[name]
    seen = set(experiment.source) | (set(_labelled(experiment.parent)) if experiment.parent else set())
    return [cohort for cohort in titles("cohorts") if cohort in seen]


# ---------------------------------------------------------------------------------------------
# As text


def relation_table(relation, experiment="mean"):
    """Rank correlation of every measure with the Dice of one experiment: a row a measure, a column a cohort.

    Parameters
    ----------
    relation : pandas.DataFrame
        As :func:`relate` returns it.
    experiment : str
    """
    rows = relation[relation["experiment"] == experiment]
    texts = [with_interval(row.rho, row.low, row.high) for row in rows.itertuples()]
    wide = rows.assign(text=texts).pivot(index="measure", columns="cohort", values="text")
    heads = titles("cohorts") | {"both": "both"}
    counts = rows.groupby("cohort")["n"].max()
    order = [cohort for cohort in heads if cohort in wide]
    wide = wide.reindex(index=list(MEASURES), columns=order).rename(
        index=measure_titles(), columns={cohort: f"{heads[cohort]} (n = {counts[cohort]})" for cohort in order}
    )
    return wide.rename_axis(index=None, columns=None)


def chance_table(found):
    """What was found beside what chance alone gives, as text.

    Parameters
    ----------
    found : dict of dict
        What :func:`chance` returns, by the name of the groups.
    """
    rows = {}
    for name, row in found.items():
        counts = {"n in a cohort, at least": str(row["n"]), "coefficients": str(row["coefficients"])}
        for key, title in (("largest", "largest |rho|"), ("typical", "mean |rho|")):
            by_chance = with_interval(row[f"{key}_chance"], None, None)
            high = with_interval(row[f"{key}_high"], None, None)
            counts |= {title: with_interval(row[key], None, None), f"{title} by chance": f"{by_chance}, up to {high}"}
            counts[f"p of {title}"] = with_interval(row[f"{key}_p"], None, None)
        rows[name] = counts
    return pd.DataFrame.from_dict(rows, orient="columns")


def labels_table(table):
    """:func:`by_labels` as text: mean Dice of the experiments, from the least to the greatest."""
    names = titles("cohorts")
    texts = [with_interval(row.mean, row.least, row.greatest) for row in table.itertuples(index=False)]
    wide = table.assign(text=texts, cohort=table["cohort"].map(names))
    counts = table.groupby("labels")["experiments"].max()
    wide = wide.pivot(index="labels", columns="cohort", values="text").reindex(columns=list(names.values()))
    wide = wide.rename(index=lambda labels: f"{labels} ({counts[labels]} experiments)", columns="tested on {}".format)
    return wide.rename_axis(index=None, columns=None)
