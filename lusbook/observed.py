"""Consistency and diversity of cohorts, folds and patients, in one table of measures (sections 3 and 4).

Sums up what :mod:`lusbook.diversity`, :mod:`lusbook.spread` and :mod:`lusbook.domains` measure. Patients are the unit:
intervals come from drawing patients. :mod:`lusbook.relation` holds the measures against Dice.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lusbook.diversity import GROUPS
from lusbook.errors import LusbookError
from lusbook.spread import FEATURES, GREY, KEY, TEXTURE, choose_frames, standardise
from lusbook.statistics import bootstrap_ci
from lusbook.tables import titles, with_interval

SPACE = [f"space_{name}" for name in FEATURES]
CONSISTENCY, DIVERSITY, DISTANCE = "consistency of labels", "diversity of images", "distance from the cohorts"

#: By column, what it is a measure of, its title, its unit, and how it is defined. SD is the standard deviation (n - 1).
MEASURES = {
    "place": (CONSISTENCY, "place", "share of side", "root of the summed variances of the label's centroid, x and y"),
    "size": (CONSISTENCY, "size", "no unit", "SD of the labelled area / its mean"),
    "direction": (CONSISTENCY, "direction", "degrees", "circular SD of the axis of the label's largest part"),
    "border_auroc": (
        CONSISTENCY,
        "contrast at the border",
        "AUROC",
        "mean over images: chance that a pixel just inside the label is brighter than one just outside",
    ),
    "truth_auroc": (
        CONSISTENCY,
        "contrast at the exact border",
        "AUROC",
        "the same for the exact mask, known of simulated images only: what the images allow",
    ),
    "evidence_auroc": (
        CONSISTENCY,
        "label predicted at the border",
        "AUROC",
        "as for contrast, of a logistic regression of seven local measures, fitted to the cohort's other patients",
    ),
    "annotators": (CONSISTENCY, "two annotators", "Dice", "mean over every eighth image: two simulated annotators"),
    "label_truth_dice": (CONSISTENCY, "label and exact mask", "Dice", "mean over images; known of simulated ones only"),
    "brightness": (DIVERSITY, "brightness", "share of 255", "SD of the images' mean grey levels"),
    "grey": (
        DIVERSITY,
        "grey levels by depth",
        "share of 255",
        "root of the summed variances of mean and SD of the grey level in five bins of depth",
    ),
    "texture": (
        DIVERSITY,
        "texture",
        "share of pixels",
        "root of the summed variances of the shares of ten local binary patterns",
    ),
    "features": (
        DIVERSITY,
        "all twenty measures",
        "SD",
        "as the two before, each measure in units of its SD; root mean square over measures",
    ),
    "image_distance_within": (
        DIVERSITY,
        "images of a patient",
        "1 - r",
        "mean over pairs of images of 1 - their correlation r",
    ),
    "image_distance_between": (DIVERSITY, "images of different patients", "1 - r", "likewise, images of two patients"),
    "vendi_images": (
        DIVERSITY,
        "distinct frames, by pixels",
        "frames",
        "Vendi score of at most 20 frames a patient; two frames are alike as they correlate",
    ),
    "vendi_features": (
        DIVERSITY,
        "distinct frames, by measures",
        "frames",
        "likewise; alike by a Gaussian kernel of the twenty measures, its width the median distance",
    ),
    "far_covid": (
        DISTANCE,
        "distance from COVID-19",
        "SD",
        "mean distance in the twenty measures from its other patients",
    ),
    "far_cap": (DISTANCE, "distance from CAP", "SD", "mean distance in the twenty measures from its other patients"),
}


def _total_sd(values):
    """Root of the summed variances of columns, NaN left out."""
    values = values[~np.isnan(values).any(axis=1)]
    return float(np.sqrt(values.var(axis=0, ddof=1).sum())) if len(values) > 1 else np.nan


def _mean(values):
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _variation(values):
    return _total_sd(values) / values.mean() if values.any() else np.nan


def _circular_sd(values):
    """Of directions without a sense, degrees: -90 and 90 are the same."""
    angles = np.radians(values[~np.isnan(values)])
    return float(np.degrees(stats.circstd(angles, high=np.pi / 2, low=-np.pi / 2))) if len(angles) > 1 else np.nan


#: Measures that are a function of the images' rows, by name with columns and function.
STATISTICS = {
    "place": (["centroid_x", "centroid_y"], _total_sd),
    "size": (["area_share"], _variation),
    "direction": (["orientation"], _circular_sd),
    "brightness": (["image_mean"], _total_sd),
    "grey": (GREY, _total_sd),
    "texture": (TEXTURE, _total_sd),
    "features": (SPACE, _total_sd),
} | {
    name: ([name], _mean)
    for name in MEASURES
    if name.startswith(("border", "truth", "evidence", "label", "image_distance", "far"))
}


def definitions():
    """The measures, with their units and definitions: a table with a row a measure."""
    rows = [dict(zip(("of", "measure", "unit", "definition"), entry, strict=True)) for entry in MEASURES.values()]
    return pd.DataFrame(rows).set_index(["of", "measure"])


def gather(described, frames):
    """Everything known of each image in one row.

    Parameters
    ----------
    described : pandas.DataFrame
        As :func:`lusbook.diversity.describe_masks`, both cohorts.
    frames : pandas.DataFrame
        As :func:`lusbook.spread.run_spread` keeps them.

    Returns
    -------
    frames : pandas.DataFrame
        The columns of both, and ``space_<measure>``, see :func:`lusbook.spread.standardise`.

    Raises
    ------
    LusbookError
        When the tables are not of the same images.
    """
    both = described.merge(frames, on=KEY, validate="one_to_one")
    if not len(both) == len(described) == len(frames):
        raise LusbookError(
            f"described and frames: expected the same images, received {len(described)} and {len(frames)}, "
            f"{len(both)} in common"
        )
    space = standardise(both, choose_frames(both))
    return both.join(pd.DataFrame(space, columns=SPACE))


def measure_groups(frames, by, effective, agreement=None):
    """All measures of each cohort, fold or patient.

    Parameters
    ----------
    frames : pandas.DataFrame
        As :func:`gather`.
    by : {"cohort", "fold", "patient"}
    effective : pandas.DataFrame
        As :func:`lusbook.spread.effective_frames`.
    agreement : pandas.DataFrame, optional
        As :func:`lusbook.comparison.agreement`; without, ``annotators`` is NaN.

    Returns
    -------
    groups : pandas.DataFrame
        One row a group: the columns that name it, ``images``, and the columns of :data:`MEASURES`.

    Raises
    ------
    LusbookError
        When ``by`` is not one of the three.
    """
    if by not in GROUPS:
        raise LusbookError(f"by: expected one of {sorted(GROUPS)}, received {by!r}")
    rows, names = [], GROUPS[by]
    for key, group in frames.groupby(names, sort=False):
        measures = {
            name: statistic(group[columns].to_numpy(float)) for name, (columns, statistic) in STATISTICS.items()
        }
        rows.append(dict(zip(names, key, strict=True)) | {"images": len(group)} | measures)
    groups = pd.DataFrame(rows)
    vendi = effective.loc[effective["by"] == by, [*names, "vendi_images", "vendi_features"]]
    groups = groups.merge(vendi.astype(frames[names].dtypes.to_dict()), on=names, how="left")
    if agreement is None:
        return groups.assign(annotators=np.nan)[[*names, "images", *MEASURES]]
    folds = frames[["cohort", "patient", "fold"]].drop_duplicates()
    means = agreement.merge(folds, on=["cohort", "patient"]).groupby(names)["annotators"].mean().reset_index()
    return groups.merge(means, on=names, how="left")[[*names, "images", *MEASURES]]


def measure_titles(*kinds):
    """Titles of the measures with their units, by column; of some kinds only where they are named."""
    return {name: f"{title} ({unit})" for name, (of, title, unit, _) in MEASURES.items() if of in kinds or not kinds}


def patient_means(by_patient, n_resamples=2000, seed=0):
    """Mean over patients of every measure, in each cohort, and the difference.

    Parameters
    ----------
    by_patient : pandas.DataFrame
        As :func:`measure_groups`, by patient.
    n_resamples, seed : int
        Of the bootstrap over patients, percentile intervals of 95 %. With six patients such an interval is too narrow.

    Returns
    -------
    means : pandas.DataFrame
        One row a measure and ``cohort`` (covid, cap, or ``difference``, CAP less COVID-19): measure, cohort, ``mean``,
        ``low``, ``high`` (NaN for fewer than two patients), ``n`` (patients).
    """
    rows = []
    for measure in MEASURES:
        values = {c: by_patient.loc[by_patient["cohort"] == c, measure].dropna().to_numpy() for c in ("covid", "cap")}
        samples = {cohort: ((sample,), _mean_of_one) for cohort, sample in values.items()}
        samples["difference"] = ((values["cap"], values["covid"]), _difference)
        for cohort, (sides, statistic) in samples.items():
            row = {"measure": measure, "cohort": cohort, "mean": np.nan, "low": np.nan, "high": np.nan}
            row["n"] = sum(map(len, sides))
            if min(map(len, sides)):
                row["mean"] = float(statistic(*sides))
            if min(map(len, sides)) > 1:
                options = {"n_resamples": n_resamples, "method": "percentile", "rng": np.random.default_rng(seed)}
                found = stats.bootstrap(sides, statistic, **options).confidence_interval
                row |= {"low": float(found.low), "high": float(found.high)}
            rows.append(row)
    return pd.DataFrame(rows)


def _mean_of_one(a, axis=-1):
    return a.mean(axis=axis)


def _difference(a, b, axis=-1):
    return a.mean(axis=axis) - b.mean(axis=axis)


def cohort_intervals(frames, by_cohort, n_resamples=1000, seed=0):
    """Every measure of all images of a cohort together, with an interval by bootstrap over patients.

    Parameters
    ----------
    frames : pandas.DataFrame
        As :func:`gather`.
    by_cohort : pandas.DataFrame
        As :func:`measure_groups`, by cohort.
    n_resamples, seed : int

    Returns
    -------
    intervals : pandas.DataFrame
        One row a measure and cohort: measure, cohort, ``value``, ``low``, ``high``, ``n`` (patients). No interval of a
        Vendi score: a patient drawn twice adds no new frame, so every resample would be less diverse than the cohort.
        (Spreads suffer from this too, by up to a tenth with six patients.) None of ``annotators``. Distances from
        other patients are those from all of them, not only from those drawn.
    """
    rows = []
    for cohort, part in frames.groupby("cohort", sort=False):
        values, patients = by_cohort.set_index("cohort").loc[cohort], part["patient"].to_numpy(str)
        for measure in MEASURES:
            interval = np.nan, np.nan
            if measure in STATISTICS and np.isfinite(values[measure]):
                columns, statistic = STATISTICS[measure]
                interval = bootstrap_ci(part[columns].to_numpy(float), patients, statistic, n_resamples, seed)
            row = {"measure": measure, "cohort": cohort, "value": values[measure], "n": part["patient"].nunique()}
            rows.append(row | dict(zip(("low", "high"), interval, strict=True)))
    return pd.DataFrame(rows)


def within_between(frames):
    """How much of the spread is within patients, and how much between them.

    Parameters
    ----------
    frames : pandas.DataFrame
        As :func:`gather`.

    Returns
    -------
    spread : pandas.DataFrame
        One row a measure (``place``, ``grey``, ``texture``, ``features``) and cohort: ``within``, root of the mean over
        patients of their summed variances; ``between``, root of the summed variances of the patients' means; both in
        the measure's unit; ``share_between``, of the sum of the two squares; ``n`` (patients).
    """
    rows = []
    for measure in ("place", "grey", "texture", "features"):
        columns = STATISTICS[measure][0]
        for cohort, part in frames.groupby("cohort", sort=False):
            patients = part.groupby("patient")[columns]
            within, between = patients.var(ddof=1).sum(axis=1, skipna=False).mean(), patients.mean().var(ddof=1).sum()
            row = {"measure": measure, "cohort": cohort, "within": np.sqrt(within), "between": np.sqrt(between)}
            rows.append(row | {"share_between": between / (within + between), "n": part["patient"].nunique()})
    return pd.DataFrame(rows)


def distance_summary(distances):
    """The distances between the cohorts beside their yardstick.

    Parameters
    ----------
    distances : pandas.DataFrame
        As :func:`lusbook.domains.distances`.

    Returns
    -------
    summary : pandas.DataFrame
        One row a distance: ``cohorts`` (all patients), ``p`` (share of the random divisions of all patients that lie
        at least as far apart, the cohorts' own included) and ``least_p`` (of such a share); ``halves``, ``covid``,
        ``cap``: median over the halves, with their ``_low`` and ``_high``, the least and the greatest.
    """
    rows, shuffled = [], distances[distances["kind"] == "shuffled"]
    for name in ("a_distance", "mmd", "frechet"):
        value = distances.loc[distances["kind"] == "cohorts", name].iloc[0]
        row = {"distance": name, "cohorts": value, "p": np.nan, "least_p": 1 / len(shuffled)}
        if np.isfinite(value):
            # The division into cohorts is one of them where all are there; where some are drawn, it counts as one more.
            row["p"] = max((shuffled[name] >= value - 1e-9).mean(), row["least_p"])
        for kind in ("halves", "covid", "cap"):
            halves = distances.loc[distances["kind"] == kind, name]
            row |= {kind: halves.median(), f"{kind}_low": halves.min(), f"{kind}_high": halves.max()}
        rows.append(row)
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------
# As text


def _digits(measure):
    """Decimals that a measure's unit deserves."""
    return {"degrees": 1, "AUROC": 2, "Dice": 2, "frames": 2}.get(MEASURES[measure][2], 3)


def side_by_side(table, value):
    """Every measure of the cohorts beside each other, with intervals: as text, a row a measure.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`patient_means` or :func:`cohort_intervals` returns it, or some of its rows.
    value : {"mean", "value"}
        Its column of numbers.
    """
    heads = titles("cohorts") | {"difference": "CAP less COVID-19"}
    texts = [with_interval(row[value], row["low"], row["high"], _digits(row["measure"])) for _, row in table.iterrows()]
    wide = table.assign(text=texts).pivot(index="measure", columns="cohort", values="text")
    counts = table.groupby("cohort")["n"].max()
    order = [cohort for cohort in heads if cohort in wide]
    named = {c: f"{heads[c]} (n = {counts[c]})" for c in order}
    rows = [measure for measure in MEASURES if measure in wide.index]
    wide = wide.reindex(index=rows, columns=order).rename(index=measure_titles(), columns=named)
    return wide.rename_axis(index=None, columns=None)


def groups_table(groups):
    """Every measure of every group as text: a row a measure, a column a group, by its last name and its images."""
    names = titles("cohorts")
    last = groups.columns[groups.columns.get_loc("images") - 1]
    heads = groups["cohort"].map(names) + ("" if last == "cohort" else f", {last} " + groups[last].astype(str))
    heads += " (" + groups["images"].astype(str) + " images)"
    rows = {m: [with_interval(value, None, None, _digits(m)) for value in groups[m]] for m in MEASURES}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=heads.to_list())
    return table.rename(index=measure_titles())


def within_between_table(spread):
    """:func:`within_between` as text, a row a measure and cohort."""
    table = spread.assign(
        measure=spread["measure"].map(measure_titles()), cohort=spread["cohort"].map(titles("cohorts"))
    )
    for column in ("within", "between"):
        table[column] = [with_interval(value, None, None, 3) for value in table[column]]
    table["share_between"] = [with_interval(value, None, None) for value in table["share_between"]]
    heads = {"share_between": "between patients, share of variance", "n": "patients"}
    heads |= {"within": "SD within patients", "between": "SD between patients"}
    return table.rename(columns=heads).set_index(["measure", "cohort"]).rename_axis([None, None])


#: Titles of the distances, with their units.
DISTANCES = {"a_distance": "proxy A-distance (0 to 2)", "mmd": "MMD, squared (no unit)", "frechet": "Fréchet (SD²)"}


def distances_table(summary):
    """:func:`distance_summary` as text: a row a distance; medians with least and greatest."""
    rows = {}
    for row in summary.to_dict("records"):
        halves = {
            head: with_interval(row[kind], row[f"{kind}_low"], row[f"{kind}_high"])
            for kind, head in (
                ("halves", "half of COVID-19, half of CAP"),
                ("covid", "two halves of COVID-19"),
                ("cap", "two halves of CAP"),
            )
        }
        p = with_interval(row["p"], None, None, 3)
        rows[DISTANCES[row["distance"]]] = {"all patients": with_interval(row["cohorts"], None, None), "p": p} | halves
    return pd.DataFrame.from_dict(rows, orient="index")


def fold_distances_table(distances):
    """Distances between the cohorts in each fold as text, with the patients of each side."""
    names, folds = titles("cohorts"), distances[distances["kind"].str.startswith("fold")]
    table = folds[["a", "b"]].rename(columns={"a": f"{names['covid']}, patients", "b": f"{names['cap']}, patients"})
    for column, title in DISTANCES.items():
        table[title] = [with_interval(value, None, None) for value in folds[column]]
    return table.set_index(folds["kind"]).rename_axis(None)
