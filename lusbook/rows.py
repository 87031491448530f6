"""Rows of a study, one for each test image and route of each run: read part by part, so that few are held at a time.

What makes tables, tests and figures takes them in either form: as one table, or as functions that each read the rows
of one run, by experiment and fold, as :func:`lusbook.runs.study` gives them.
"""

import pandas as pd
from pandas.api.types import is_numeric_dtype

from lusbook.cohort import NAMES as COHORTS
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.metrics import METRICS

ROUTES = ("direct", "translated")
IMAGE = ["fold", "patient", "image"]
COLUMNS = ("experiment", "cohort", *IMAGE, "route", *METRICS)


def check_per_image(per_image):
    """Refuse rows that would be read wrongly.

    Raises
    ------
    LusbookError
        On a missing column, a metric that is no number, an unknown route or cohort, or a test image that is there
        twice.
    """
    missing = [column for column in COLUMNS if column not in per_image]
    if missing:
        raise LusbookError(f"per-image table: columns {missing} are missing; received {list(per_image.columns)}")
    for column in METRICS:
        if not is_numeric_dtype(per_image[column]):
            raise LusbookError(f"per-image table: {column}: expected numbers, received {per_image[column].dtype}")
    for column, known in (("route", ROUTES), ("cohort", COHORTS)):
        unknown = sorted(set(per_image[column].unique()) - set(known), key=str)
        if unknown:
            raise LusbookError(f"per-image table: {column}: expected one of {known}, received {unknown}")
    key = ["experiment", "cohort", *IMAGE, "route"]
    twice = per_image[per_image.duplicated(key)]
    if len(twice):
        raise LusbookError(f"per-image table: {len(twice)} rows are there twice, first {twice[key].iloc[0].to_dict()}")


def default_route(per_image):
    """Rows that count: one for each test image of each run.

    An adapted network segments its source cohort through the generator, which is what its segmenter was trained on;
    every other image goes into the network directly. So what counts are an adapted experiment's translated rows on its
    source cohort, and else the direct ones.

    Parameters
    ----------
    per_image : pandas.DataFrame

    Returns
    -------
    per_image : pandas.DataFrame
        The rows that count, in their order.
    """
    translated = pd.Series(False, per_image.index)
    for name, experiment in EXPERIMENTS.items():
        if experiment.method == "sifa":
            translated |= (per_image["experiment"] == name) & per_image["cohort"].isin(experiment.source)
    return per_image[(per_image["route"] == "translated") == translated]


def by_run(per_image):
    """Rows of a study as functions that read those of one run.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Either form.

    Returns
    -------
    readers : dict of callable
        By (experiment, fold), in the order of the rows: each gives tables, of which only one need be held at a time.
    """
    if not isinstance(per_image, pd.DataFrame):
        return per_image
    check_per_image(per_image)
    runs = per_image.groupby(["experiment", "fold"], sort=False)
    return {key: (lambda rows=rows: [rows]) for key, rows in runs}


def each_part(per_image):
    """Rows that count, part by part.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable

    Yields
    ------
    rows : pandas.DataFrame
        All or some of one run's, by :func:`default_route`.
    """
    for read in by_run(per_image).values():
        yield from map(default_route, read())


def of_variants(per_image, settings):
    """Rows that count of runs that differ in settings: an image is there once for each combination of their values.

    Parameters
    ----------
    per_image : pandas.DataFrame
        As of :func:`lusbook.runs.read_variants`.
    settings : list of str
        Columns of the settings.

    Returns
    -------
    rows : pandas.DataFrame
    """
    return pd.concat([part for _, rows in per_image.groupby(settings) for part in each_part(rows)])


def sample(per_image, experiment, cohort, columns=("dice",)):
    """Rows that count of one experiment on one cohort, all folds together.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
    experiment, cohort : str
    columns : sequence of str

    Returns
    -------
    rows : pandas.DataFrame
        ``fold``, ``patient`` and ``image``, and the columns; empty where the experiment was not run on the cohort.
    """
    keep = [*IMAGE, *columns]
    readers = [read for (name, _), read in by_run(per_image).items() if name == experiment]
    parts = (rows.loc[rows["cohort"] == cohort, keep] for read in readers for rows in map(default_route, read()))
    return one_table(parts, keep)


def image_pairs(per_image, experiment, reference, cohort):
    """Dice of two experiments on each test image, side by side; two runs are read at a time.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
    experiment, reference, cohort : str

    Returns
    -------
    pairs : pandas.DataFrame
        By fold and patient, in the order of fold, patient and image: a column for each experiment, NaN where it was
        not tested on the image.
    """
    runs, names, found = by_run(per_image), (experiment, reference), []
    for fold in sorted({fold for name, fold in runs if name in names}) or [None]:
        readers = {key: read for key, read in runs.items() if key[1] == fold}
        found.append(matched({name: sample(readers, name, cohort) for name in names}).droplevel("image"))
    return pd.concat(found)


def matched(samples):
    """Dice of several samples of the same images, side by side.

    Parameters
    ----------
    samples : dict of pandas.DataFrame
        As :func:`sample` returns them.

    Returns
    -------
    dice : pandas.DataFrame
        By fold, patient and image, in their order: a column for each sample, NaN where it lacks the image.

    Raises
    ------
    LusbookError
        When a sample has an image twice.
    """
    rows = one_table((rows.assign(sample=name) for name, rows in samples.items()), [*IMAGE, "sample", "dice"])
    if (twice := rows.duplicated([*IMAGE, "sample"])).any():
        raise LusbookError(f"per-image tables: image {rows.loc[twice].iloc[0].to_dict()} is there twice")
    wide = rows.pivot(index=IMAGE, columns="sample", values="dice")
    return wide.reindex(columns=list(samples)).astype(float).rename_axis(columns=None)


def one_table(tables, columns):
    """One table of several; where none has a row, an empty one with these columns."""
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
