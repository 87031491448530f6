"""Statistics over patients: what the t-tests of section 3 become when frames of a patient are not counted as many.

A patient's value is the mean over the patient's test images, by the default route. Methods are compared in pairs over
patients, with the tests of :mod:`lusbook.paired`; intervals are by bootstrap over patients.
"""

from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.metrics import dice
from lusbook.paired import cohens_dz, holm, rank_biserial, sign_flip_test, signed_rank_test, smallest_p
from lusbook.rows import by_run, each_part, image_pairs, matched, of_variants, one_table, sample
from lusbook.statistics import bootstrap_ci
from lusbook.tables import (
    load_published,
    p_text,
    pair_index,
    paper_order,
    titles,
    with_interval,
)

TESTS = {"permutation": "sign flips", "wilcoxon": "Wilcoxon"}
EMPTY_COUNTS = ("images", "empty_label", "empty_prediction", "both_empty")
EMPTY_RULES = {"one": 1.0, "zero": 0.0, "left_out": np.nan}  # Dice of an image whose label and prediction are empty


def patient_means(per_image):
    """Mean Dice of every experiment for each patient.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.

    Returns
    -------
    means : pandas.DataFrame
        One row an experiment and patient: experiment, cohort, fold, patient, ``dice`` (mean over the patient's test
        images) and ``images``.
    """
    key = ["experiment", "cohort", "fold", "patient"]
    parts = (rows.groupby(key, sort=False)["dice"].agg(total="sum", images="count") for rows in each_part(per_image))
    sums = one_table((part.reset_index() for part in parts), [*key, "total", "images"])
    sums = sums.groupby(key, sort=False, as_index=False).sum()
    sums.insert(len(key), "dice", sums.pop("total") / sums["images"])
    return sums


def compare_patients(per_image, claims=None, n_resamples=2000):
    """The comparisons of section 3, in pairs over patients.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    claims : pandas.DataFrame, optional
        Columns better, worse, cohort; default: the paper's. All of them together are the family that Holm's
        adjustment is over, less those that were not run.
    n_resamples : int
        Of the bootstrap over patients.

    Returns
    -------
    compared : pandas.DataFrame
        One row a claim: better, worse, cohort, ``published`` (difference of the published means; NaN without one),
        ``patients``, ``images`` (that both experiments have), ``r`` (correlation of the two over images); of the
        patients' differences ``mean``, ``median``, ``dz`` (Cohen's d_z) and ``rank_biserial``, each with ``*_low`` and
        ``*_high``, 95 %, by bootstrap but for ``dz``; ``p_permutation``, ``p_wilcoxon``,
        ``p_smallest`` and ``holm_permutation``, ``holm_wilcoxon``. ``patients`` 0 and NaN where an experiment was
        not run.

    Raises
    ------
    LusbookError
        When claims lack a column, or are none.
    """
    claims = load_published("claims") if claims is None else claims
    missing = [name for name in ("better", "worse", "cohort") if name not in claims]
    if missing or claims.empty:
        raise LusbookError(
            f"claims: expected columns better, worse, cohort and a row, received {len(claims)} rows of "
            f"{list(claims.columns)}"
        )
    means = load_published("table1").set_index(["experiment", "cohort"])["dice_mean"]
    runs, rows = by_run(per_image), []
    for claim in claims.itertuples():
        published = [means.get((name, claim.cohort), np.nan) for name in (claim.better, claim.worse)]
        row = {"better": claim.better, "worse": claim.worse, "cohort": claim.cohort}
        row["published"] = published[0] - published[1]
        pairs = image_pairs(runs, claim.better, claim.worse, claim.cohort).dropna()
        difference = (pairs[claim.better] - pairs[claim.worse]).groupby(["fold", "patient"], sort=False).mean()
        row |= {"patients": len(difference), "images": len(pairs), "r": pairs.corr().iloc[0, 1]}
        rows.append(row | _describe(difference.to_numpy(), n_resamples))
    compared = pd.DataFrame(rows)
    return compared.assign(**{f"holm_{test}": holm(compared[f"p_{test}"]) for test in TESTS})


def _describe(differences, n_resamples):
    """Tests, intervals and effect sizes of the differences of patients."""
    row = {"p_permutation": sign_flip_test(differences), "p_wilcoxon": signed_rank_test(differences)}
    row["p_smallest"] = smallest_p(len(differences))
    for name, statistic in {"mean": np.mean, "median": np.median, "rank_biserial": rank_biserial}.items():
        estimate = statistic(differences) if len(differences) else np.nan
        row |= _with_ends(name, estimate, differences, np.arange(len(differences)), statistic, n_resamples)
    return row | dict(zip(("dz", "dz_low", "dz_high"), cohens_dz(differences), strict=True))


def _with_ends(name, estimate, values, patients, statistic, n_resamples):
    """An estimate and its interval over patients, as columns."""
    low, high = bootstrap_ci(values, patients, statistic, n_resamples) if len(values) else (np.nan, np.nan)
    return {name: float(estimate), f"{name}_low": low, f"{name}_high": high}


def averages(per_image, n_resamples=2000):
    """Dice averaged in three ways: over images, over patients, and over all pixels together.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    n_resamples : int

    Returns
    -------
    averages : pandas.DataFrame
        One row an experiment and cohort, in the paper's order: experiment, cohort, ``patients``, ``images``;
        ``image_mean``, ``image_median`` (over images, as the paper's Table 1), ``patient_mean``, ``patient_median``
        (over the means of patients) and ``pooled`` (Dice of the summed counts of pixels), each with ``*_low`` and
        ``*_high``, 95 % by bootstrap over patients.
    """
    runs, table = by_run(per_image), []
    for experiment, cohort in _experiments_on_cohorts({name for name, _ in runs}):
        images = sample(runs, experiment, cohort, ["dice", "tp", "fp", "fn"])
        if images.empty:
            continue
        means = images.groupby(["fold", "patient"], as_index=False)["dice"].mean()
        row = {"experiment": experiment, "cohort": cohort, "patients": len(means), "images": len(images)}
        for unit, values in {"image": images, "patient": means}.items():
            for name, statistic in {"mean": np.mean, "median": np.median}.items():
                estimate, value = statistic(values["dice"]), values["dice"]
                row |= _with_ends(f"{unit}_{name}", estimate, value, values["patient"], statistic, n_resamples)
        counts = images[["tp", "fp", "fn"]].to_numpy()
        row |= _with_ends("pooled", _pooled(counts), counts, images["patient"], _pooled, n_resamples)
        table.append(row)
    return pd.DataFrame(table)


def _experiments_on_cohorts(experiments):
    """Pairs of experiments and cohorts that they may have been tested on, in the paper's order."""
    names = pd.Series(sorted(experiments), name="experiment", dtype=str).sort_values(key=paper_order)
    return product(names, titles("cohorts"))


def image_means(per_image, n_resamples=2000):
    """Mean Dice over images, with an interval over patients: part of :func:`averages`, in a fraction of the time.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    n_resamples : int

    Returns
    -------
    means : pandas.DataFrame
        One row an experiment and cohort: experiment, cohort, ``mean``, ``mean_low``, ``mean_high`` (95 %).
    """
    groups = patient_means(per_image).groupby(["experiment", "cohort"], sort=False)
    rows = [
        {"experiment": experiment, "cohort": cohort}
        | _with_ends("mean", _weighted(values), values, patients, _weighted, n_resamples)
        for (experiment, cohort), means in groups
        for values, patients in [(means[["dice", "images"]].to_numpy(float), means["patient"])]
    ]
    return pd.DataFrame(rows, columns=["experiment", "cohort", "mean", "mean_low", "mean_high"])


def _weighted(means):
    """Mean over images from those of patients, shape (n, 2): mean, images."""
    return float(np.average(means[:, 0], weights=means[:, 1]))


def _pooled(counts):
    """Dice of summed counts, shape (n, 3): tp, fp, fn."""
    return float(dice(*counts.sum(axis=0)))


def empty_masks(per_image):
    """How many images the rule for empty masks concerns, and mean Dice under each rule.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.

    Returns
    -------
    table : pandas.DataFrame
        One row an experiment and cohort, in the paper's order: experiment, cohort, ``images``, ``empty_label``,
        ``empty_prediction``, ``both_empty`` (images, those that the rule concerns) and the mean Dice when both empty
        count as 1 (``one``, the rule here), as 0 (``zero``) or not at all (``left_out``; NaN when nothing is left).
        A prediction that is empty where the label is not has a Dice of 0 under every rule.
    """
    key = ["experiment", "cohort"]
    table = one_table(map(_empty, each_part(per_image)), [*key, *EMPTY_COUNTS, *EMPTY_RULES]).groupby(key).sum()
    left = {"one": table["images"], "zero": table["images"], "left_out": table["images"] - table["both_empty"]}
    for rule, images in left.items():
        table[rule] /= images.where(images > 0)
    return table.reset_index().sort_values(key, key=paper_order, ignore_index=True)


def _empty(rows):
    """Images of one part of a run that the rule for empty masks concerns, and the sum of Dice under each rule."""
    label, prediction = rows["tp"] + rows["fn"] == 0, rows["tp"] + rows["fp"] == 0
    counts = dict(zip(EMPTY_COUNTS, (1, label, prediction, label & prediction), strict=True))
    sums = {rule: rows["dice"].mask(label & prediction, value) for rule, value in EMPTY_RULES.items()}
    return rows[["experiment", "cohort"]].assign(**counts, **sums).groupby(["experiment", "cohort"]).sum().reset_index()


def spreads(per_seed, n_resamples=2000, level=0.95):
    """Spread of one experiment's Dice over seeds, kept apart from that over patients and images.

    Parameters
    ----------
    per_seed : pandas.DataFrame
        Per-image tables of one experiment under several seeds, with a column ``seed``, see
        :func:`lusbook.runs.read_variants`.
    n_resamples : int
    level : float

    Returns
    -------
    table : pandas.DataFrame
        One row a cohort: cohort, ``seeds``, ``patients``, ``images``, ``mean`` (of the seeds' means over images);
        ``sd_seeds`` (of these means, ddof = 1) with ``sd_seeds_low`` and ``sd_seeds_high`` (from the chi-squared
        distribution, as if normal); ``interval_width`` (of the interval of a mean by bootstrap over patients),
        ``sd_patients`` and ``sd_images``, each of one seed, mean over seeds. NaN where one seed or patient leaves no
        spread.

    Raises
    ------
    LusbookError
        When there is more than one experiment.
    """
    names = sorted(set(per_seed["experiment"]))
    if len(names) != 1:
        raise LusbookError(f"seeds: expected runs of one experiment, received {names}")
    rows = of_variants(per_seed, ["seed"])
    return pd.DataFrame([_spread(rows[rows["cohort"] == cohort], n_resamples, level) for cohort in titles("cohorts")])


def _spread(rows, n_resamples, level):
    """Spreads of one cohort."""
    runs = [run for _, run in rows.groupby("seed")]
    means = pd.Series([run["dice"].mean() for run in runs])
    ends = [bootstrap_ci(run["dice"], run["patient"], np.mean, n_resamples, level=level) for run in runs]
    n, sd = len(runs), means.std()
    quantiles = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], n - 1) if n > 1 else np.full(2, np.nan)
    low, high = sd * np.sqrt((n - 1) / quantiles)
    return {
        "cohort": rows["cohort"].iloc[0],
        "seeds": n,
        "patients": runs[0]["patient"].nunique(),
        "images": len(runs[0]),
        "mean": means.mean(),
        "sd_seeds": sd,
        "sd_seeds_low": low,
        "sd_seeds_high": high,
        "interval_width": float(np.mean([high - low for low, high in ends])),
        "sd_patients": np.mean([patient_means(run)["dice"].std() for run in runs]),
        "sd_images": np.mean([run["dice"].std() for run in runs]),
    }


def repeats(first, again):
    """The same runs computed twice, as on two processors: how far their Dice lie apart.

    Parameters
    ----------
    first, again : pandas.DataFrame or dict of callable
        Rows of two studies; experiments that one of them lacks are left out. The default route counts.

    Returns
    -------
    table : pandas.DataFrame
        One row an experiment and cohort, in the paper's order: experiment, cohort, ``images``, ``equal`` (images whose
        Dice is the same), ``first`` and ``again`` (means over images), ``largest`` (difference of one image).

    Raises
    ------
    LusbookError
        When an experiment was not tested on the same images.
    """
    studies, rows = {"first": by_run(first), "again": by_run(again)}, []
    both = set.intersection(*({name for name, _ in runs} for runs in studies.values()))
    for experiment, cohort in _experiments_on_cohorts(both):
        pairs = matched({time: sample(runs, experiment, cohort) for time, runs in studies.items()})
        if pairs.empty:
            continue
        if pairs.isna().any(axis=None):
            where = (experiment, cohort, *pairs.index[pairs.isna().any(axis=1)][0])
            raise LusbookError(f"repeats: expected the same images twice, received {where} once")
        difference = (pairs["again"] - pairs["first"]).abs()
        row = {"experiment": experiment, "cohort": cohort, "images": len(pairs), "equal": int((difference == 0).sum())}
        rows.append(row | pairs.mean().to_dict() | {"largest": difference.max()})
    return pd.DataFrame(rows, columns=["experiment", "cohort", "images", "equal", "first", "again", "largest"])


def compared_text(compared):
    """Comparisons over patients as text, in two tables: what the differences are, and what the tests say.

    Parameters
    ----------
    compared : pandas.DataFrame
        As :func:`compare_patients` returns it.

    Returns
    -------
    differences, tests : pandas.DataFrame of str
        Rows by A, B and test cohort.
    """
    pair = pair_index(compared["better"], compared["worse"], compared["cohort"])
    counts = {"patients": compared["patients"], "images": compared["images"]}
    heads = {"mean": "mean A - B", "median": "median A - B", "dz": "d_z", "rank_biserial": "rank-biserial"}
    effects = {title: _intervals(compared, name) for name, title in heads.items()}
    p_values = {
        f"{title}: {kind}": compared[f"{column}_{test}"].map(p_text)
        for test, title in TESTS.items()
        for kind, column in (("p", "p"), ("Holm", "holm"))
    }
    published = compared["published"].map(lambda value: with_interval(value, None, None))
    differences = {"published A - B": published} | effects
    tests = counts | {"smallest p": compared["p_smallest"].map(p_text)} | p_values
    return pd.DataFrame(differences).set_axis(pair), pd.DataFrame(tests).set_axis(pair)


def repeats_text(table, names):
    """Runs computed twice, as text: rows by experiment and test cohort.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`repeats` returns it.
    names : sequence of str
        What to call both.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    shift = (table["again"] - table["first"]).map("{:+.2f}".format)
    columns = {
        "images": table["images"],
        "same Dice": table["equal"],
        **{name: table[time].map("{:.2f}".format) for name, time in zip(names, ("first", "again"), strict=True)},
        "difference": shift,
        "largest of an image": table["largest"].map("{:.2f}".format),
    }
    return _titled(table, columns).astype(str)


def averages_text(table):
    """The averages as text, each with its interval: rows by experiment and test cohort.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`averages` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    heads = {"image_mean": "images, mean", "image_median": "images, median", "patient_mean": "patients, mean"}
    heads |= {"patient_median": "patients, median", "pooled": "pooled pixels"}
    columns = {"patients": table["patients"], "images": table["images"]}
    return _titled(table, columns | {title: _intervals(table, name) for name, title in heads.items()})


def spreads_text(spread):
    """Spreads over seeds, patients and images as text.

    Parameters
    ----------
    spread : pandas.DataFrame
        As :func:`spreads` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    heads = {"mean": "mean Dice", "interval_width": "width of the interval over patients"}
    heads |= {"sd_patients": "SD over patients", "sd_images": "SD over images"}
    table = {title: spread[name].map(lambda value: with_interval(value, None, None)) for name, title in heads.items()}
    table = {"tested on": spread["cohort"].map(titles("cohorts")), **spread[["seeds", "patients", "images"]], **table}
    table |= {"SD over seeds": _intervals(spread, "sd_seeds")}
    return pd.DataFrame(table).set_index("tested on").rename_axis(None)


def _titled(table, columns):
    """Columns in rows by the titles of a table's experiment and test cohort."""
    names, cohorts = titles("names"), titles("cohorts")
    rows = [table["experiment"].map(lambda name: names.get(name, name)), table["cohort"].map(cohorts)]
    return pd.DataFrame(columns).set_axis(pd.MultiIndex.from_arrays(rows, names=["experiment", "tested on"]))


def _intervals(table, name):
    """An estimate with its interval, row by row."""
    return [
        with_interval(*values) for values in zip(*(table[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
    ]
