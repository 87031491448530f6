"""Tables 1 and 2 of the paper, ours beside the published values, and the tables behind them.

All take the rows of a study, one for each test image and route of each run: as one table, or read part by part,
see :mod:`lusbook.rows`.
"""

from itertools import chain

import pandas as pd

from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.metrics import METRICS, summarise
from lusbook.rows import ROUTES, by_run, each_part, of_variants
from lusbook.settings import PROJECT

PUBLISHED = PROJECT / "data" / "paper"
NOT_RUN, NO_VALUE = "not run", "–"


def load_published(name):
    """One table of what the paper states; nothing published is written anywhere else.

    Parameters
    ----------
    name : str
        ``table1`` (experiment, cohort, dice_mean, dice_std), ``table2`` (experiment, cohort, sensitivity,
        specificity), ``names`` (experiment, its row's title; the joint experiment of section 4 has no row in the
        paper), ``claims`` (section 3: ``better`` above ``worse`` on ``cohort``, with p ``p_relation`` ``p_value``),
        ``statements`` and ``comparisons`` (all claims, see :func:`lusbook.claims.load_claims`),
        ``cohorts`` (cohort, its title, patients_reported, images: section 2.4) or ``folds`` (cohort, fold,
        patients, images: section 2.5).

    Returns
    -------
    table : pandas.DataFrame
        In the paper's order.

    Raises
    ------
    LusbookError
        When there is no table of that name.

    Examples
    --------
    >>> load_published("cohorts")["name"].tolist()
    ['COVID-19', 'CAP']
    """
    path = PUBLISHED / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PUBLISHED.glob("*.csv")))
        raise LusbookError(f"published table {name!r} is not known; expected one of {known} (in {PUBLISHED})")
    return pd.read_csv(path)


def titles(table):
    """Titles as the paper prints them.

    Parameters
    ----------
    table : {"names", "cohorts"}
        Whose: the experiments', as rows of Tables 1 and 2, or the cohorts'.

    Returns
    -------
    titles : dict of str to str
        In the paper's order.

    Examples
    --------
    >>> titles("cohorts")
    {'covid': 'COVID-19', 'cap': 'CAP'}
    """
    published = load_published(table)
    return dict(zip(published.iloc[:, 0], published["name"], strict=True))


def paper_order(column):
    """Sort key: experiments and cohorts as in the paper, unknown experiments last; others as they are."""
    if column.name not in ("experiment", "cohort"):
        return column
    known = load_published({"experiment": "names", "cohort": "cohorts"}[column.name])[column.name]
    places = {name: place for place, name in enumerate(known)}
    return column.map(lambda name: (places.get(name, len(places)), str(name)))


def metric_table(per_image, metric, by=("experiment", "cohort")):
    """Mean and standard deviation of one metric over the test images of all folds together.

    Parameters
    ----------
    per_image : pandas.DataFrame or iterable of pandas.DataFrame
        All rows count: choose the route first, as with :func:`lusbook.rows.each_part`. Of several tables, one is held
        at a time.
    metric : {"dice", "sensitivity", "specificity"}
    by : sequence of str
        Columns to group by.

    Returns
    -------
    table : pandas.DataFrame
        Columns of ``by``, ``mean``, ``std`` (ddof = 1), ``n``, ``undefined`` (images that are left out); in the
        paper's order, and only what was run.
    """
    if metric not in METRICS:
        raise LusbookError(f"metric: expected one of {METRICS}, received {metric!r}")
    rows = [
        dict(zip(by, key, strict=True)) | summarise(group).loc[metric].to_dict()
        for table in ([per_image] if isinstance(per_image, pd.DataFrame) else per_image)
        for key, group in table.groupby(list(by), sort=False)
    ]
    return together(pd.DataFrame(rows, columns=[*by, "mean", "std", "n", "undefined"]), by)


def together(table, by):
    """Mean and standard deviation over the images of several groups, from those of each.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a group, as :func:`metric_table` returns it.
    by : sequence of str
        Columns that groups to be taken together have in common.

    Returns
    -------
    table : pandas.DataFrame
        As of :func:`metric_table`.

    References
    ----------
    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983), 242-247.
    """
    by = list(by)
    n, mean, std = table["n"].astype(float), table["mean"].fillna(0), table["std"].fillna(0)
    total = table.assign(n=n, sum=n * mean).groupby(by)[["n", "sum"]].transform("sum")
    common = total["sum"] / total["n"]
    squares = (n - 1).clip(lower=0) * std**2 + n * (mean - common) ** 2
    groups = table.assign(mean=common, squares=squares).groupby(by, sort=False)
    sums = {name: (name, "sum") for name in ("n", "undefined", "squares")}
    table = groups.agg(mean=("mean", "first"), std=("std", "first"), **sums)
    table["std"] = (table.pop("squares") / (table["n"] - 1).where(table["n"] > 1)) ** 0.5
    table = table.astype({"n": int, "undefined": int}).reset_index()
    return table.sort_values(by, key=paper_order, ignore_index=True)


def dice_table(per_image):
    """Dice of every experiment on every cohort as numbers, by the default route: see :func:`metric_table`."""
    return metric_table(each_part(per_image), "dice")


def _number(value, digits=2):
    # Rounding first, then adding zero, turns -0.00 into 0.00.
    return NO_VALUE if pd.isna(value) else f"{round(float(value), digits) + 0.0:.{digits}f}"


def mean_std(mean, std):
    """Mean and standard deviation as the paper prints them.

    Examples
    --------
    >>> mean_std(0.6, 0.256)
    '0.60 ± 0.26'
    """
    return f"{_number(mean)} ± {_number(std)}"


def _layout(rows, title, ours, published):
    """One row an experiment by its published name, ours beside the published value.

    ``ours`` and ``published`` are dicts of (experiment, cohort) to text, ``title`` heads their columns.
    """
    names = titles("names")
    extra = [name for name in rows["experiment"].unique() if name not in names]
    table = {}
    for cohort, label in titles("cohorts").items():
        head = f"{label} {title}".strip()
        for side, cells, absent in (("ours", ours, NOT_RUN), ("published", published, NO_VALUE)):
            table[f"{head} {side}"] = [cells.get((name, cohort), absent) for name in [*names, *extra]]
    return pd.DataFrame(table, index=[*names.values(), *extra])


def _noted_table(per_image, metric):
    """As :func:`metric_table`, with a column ``note``: over how many folds, where they are fewer than the study's."""
    key = ["experiment", "cohort"]
    by_fold = metric_table(per_image, metric, [*key, "fold"])
    total, folds = by_fold["fold"].nunique(), by_fold.groupby(key)["fold"].nunique()
    notes = folds.map(lambda count: f" ({count} of {total} folds)" if count < total else "").rename("note")
    return together(by_fold, key).join(notes, on=key)


def _cells(table, text):
    """Dict of (experiment, cohort) to the text of a row."""
    return {(row.experiment, row.cohort): text(row) for row in table.itertuples()}


def table1(per_image, dice="dice"):
    """Table 1: Dice, mean ± standard deviation over test images, ours beside the published.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
    dice : {"dice", "dice_truth"}
        Against the labels, or the exact masks of a simulated cohort.

    Returns
    -------
    table : pandas.DataFrame of str
        One row an experiment, in the paper's order and by its title there, then the joint one; columns
        ``"COVID-19 ours"``, ``"COVID-19 published"``, ``"CAP ours"``, ``"CAP published"``. What was not run says
        so; a mean over fewer folds than the study's other runs have says over how many.
    """
    rows = _noted_table((rows.assign(dice=rows[dice]) for rows in each_part(per_image)), "dice")
    ours = _cells(rows, lambda row: mean_std(row.mean, row.std) + row.note)
    published = _cells(load_published("table1"), lambda row: mean_std(row.dice_mean, row.dice_std))
    return _layout(rows, "", ours, published)


def beside_published(means):
    """Mean Dice of every experiment, ours with its interval and the published in one cell: narrow enough for a phone.

    Parameters
    ----------
    means : pandas.DataFrame
        As :func:`lusbook.patients.image_means` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
        Rows as in :func:`table1`, a column for each cohort.
    """
    ours = _cells(means, lambda row: with_interval(row.mean, row.mean_low, row.mean_high))
    published = _cells(load_published("table1"), lambda row: f"; published {_number(row.dice_mean)}")
    sides = _layout(means, "", ours, published).replace(NO_VALUE, "")
    return pd.DataFrame(
        {label: sides[f"{label} ours"] + sides[f"{label} published"] for label in titles("cohorts").values()}
    )


def table2(per_image):
    """Table 2: mean sensitivity and specificity over test images, ours beside the published.

    Images where a metric is undefined are left out of its mean; :func:`metric_table` counts them.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable

    Returns
    -------
    table : pandas.DataFrame of str
        Rows as in :func:`table1`; columns ``("COVID-19 sensitivity", "ours")``, ``("COVID-19 sensitivity",
        "published")``, ``("COVID-19 specificity", "ours")``, ... and the same for CAP.
    """
    sides = []
    for metric in ("sensitivity", "specificity"):
        rows = _noted_table(each_part(per_image), metric)
        ours = _cells(rows, lambda row: _number(row.mean) + row.note)
        published = _cells(load_published("table2"), lambda row, metric=metric: _number(getattr(row, metric)))
        sides.append(_layout(rows, metric, ours, published))
    table = pd.concat(sides, axis=1)
    cohorts = titles("cohorts").values()
    table = table[[column for name in cohorts for column in table if column.startswith(f"{name} ")]]
    return table.set_axis(pd.MultiIndex.from_tuples(column.rsplit(" ", 1) for column in table), axis=1)


def route_table(per_image):
    """Dice of the adapted networks on their source cohort: through the generator, and directly.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable

    Returns
    -------
    table : pandas.DataFrame
        One row an experiment, by its title, with translated rows: ``tested on``, ``translated`` and ``direct`` (text,
        mean ± standard deviation), ``difference`` (translated minus direct, mean over images), ``n`` (images). Empty
        when no adapted network was run.
    """
    names = titles("names")
    cohorts = titles("cohorts")
    parts = (rows for read in by_run(per_image).values() for rows in read())
    table = metric_table(parts, "dice", by=("experiment", "cohort", "route"))
    rows = []
    for (experiment, cohort), group in table.groupby(["experiment", "cohort"], sort=False):
        by_route = group.set_index("route")
        if "translated" not in by_route.index:
            continue
        by_route = by_route.reindex(ROUTES)
        text = {route: mean_std(row["mean"], row["std"]) for route, row in by_route.iterrows()}
        rows.append(
            {
                "experiment": names.get(experiment, experiment),
                "tested on": cohorts[cohort],
                "translated": text["translated"],
                "direct": text["direct"],
                "difference": by_route.loc["translated", "mean"] - by_route.loc["direct", "mean"],
                "n": int(by_route.loc["translated", "n"]),
            }
        )
    table = pd.DataFrame(rows, columns=["experiment", "tested on", "translated", "direct", "difference", "n"])
    return table.set_index("experiment").rename_axis(None)


def selection_table(per_image, selection):
    """Dice of the adapted networks with other weights than the last.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of the last weights.
    selection : pandas.DataFrame
        Of the others, see :func:`lusbook.trials.test_snapshots`, with ``experiment`` and ``fold``.

    Returns
    -------
    table : pandas.DataFrame of str
        Rows by experiment and cohort; a column for each kind of weights, mean ± standard deviation over images.
    """
    adapted = set(selection["experiment"])
    last = (rows.assign(weights="last") for rows in each_part(per_image) if adapted.issuperset(rows["experiment"]))
    others = selection.reindex(columns=[*selection.columns, *METRICS[1:]])  # it has the Dice alone
    columns = {"last": "last", "average": "average", "label-free": "label-free choice", "oracle": "oracle (leak)"}
    return _side_by_side(chain(last, [others]), "weights").rename(columns=columns)[list(columns.values())]


def spread_table(per_image, by, over="seed"):
    """How far the mean Dice of one experiment moves with the seed, kept apart from its spread over images.

    Parameters
    ----------
    per_image : pandas.DataFrame
        Of runs that differ in settings, see :func:`lusbook.runs.read_variants`.
    by : str
        Column of a setting: one row for each of its values and each cohort.
    over : str
        Column of the setting that is the repetition.

    Returns
    -------
    table : pandas.DataFrame
        Rows by ``by`` and cohort: ``n`` (values of ``over``), the mean Dice of each, their mean, and their standard
        deviation.
    """
    means = metric_table(of_variants(per_image, [by, over]), "dice", by=(by, "cohort", over))
    means = means.pivot(index=[by, "cohort"], columns=over, values="mean")
    table = means.add_prefix(f"{over} ")
    table.insert(0, "n", means.count(axis=1))
    table["mean"], table["SD"] = means.mean(axis=1), means.std(axis=1)
    table = table.rename(index=titles("cohorts"), level="cohort").rename_axis(columns=None)
    return table.rename_axis(index=[by.rpartition("_")[2], "tested on"])


def variants_table(per_image, by):
    """Dice under several values of a setting, beside each other.

    Parameters
    ----------
    per_image : pandas.DataFrame
        Of runs that differ in a setting, see :func:`lusbook.runs.read_variants`.
    by : str
        Column of the setting.

    Returns
    -------
    table : pandas.DataFrame of str
        Rows by experiment and cohort; a column for each value, mean ± standard deviation over images.
    """
    return _side_by_side(of_variants(per_image, [by]), by)


def _side_by_side(rows, by):
    """Dice of each experiment and cohort in a column for each value of ``by``."""
    table = metric_table(rows, "dice", by=("experiment", "cohort", by))
    table["text"] = [mean_std(mean, std) for mean, std in zip(table["mean"], table["std"], strict=True)]
    for column, names in (("experiment", titles("names")), ("cohort", titles("cohorts"))):
        table[column] = table[column].map(lambda name, names=names: names.get(name, name))
    wide = table.pivot_table(index=["experiment", "cohort"], columns=by, values="text", aggfunc="first", sort=False)
    return wide.rename_axis(index=["experiment", "tested on"], columns=None)


def fold_table(per_image):
    """Mean Dice of every experiment, cohort and fold, as numbers.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable

    Returns
    -------
    table : pandas.DataFrame of float
        Rows by the experiment's title, those that were run; columns such as ``"COVID-19 fold 0"``; NaN where a
        fold was not run.
    """
    names = titles("names")
    cohorts = titles("cohorts")
    table = metric_table(each_part(per_image), "dice", by=("cohort", "fold", "experiment"))
    heads = [f"{cohorts[cohort]} fold {fold}" for cohort, fold in zip(table["cohort"], table["fold"], strict=True)]
    wide = table.assign(column=heads).pivot(index="experiment", columns="column", values="mean")
    order = [name for name in dict.fromkeys([*names, *wide.index]) if name in wide.index]
    wide = wide.reindex(index=order, columns=list(dict.fromkeys(heads)))
    return wide.rename(index=names).rename_axis(index=None, columns=None)


def tests_table(tests):
    """The t-tests of section 3 as text: rows by A, B and test cohort; differences, p-values, verdict.

    Parameters
    ----------
    tests : pandas.DataFrame
        As :func:`lusbook.statistics.section3_tests` returns it.
    """
    table = pair_index(tests["better"], tests["worse"], tests["cohort"])
    columns = {
        "A - B, published": tests["published_difference"].map(_number),
        "A - B, ours": tests["mean_difference"].map(_number),
        "p, published": tests["published_p"].map(bare_p),
        "p, ours, paired": tests["p_paired"].map(p_text),
        "p, ours, unpaired": tests["p_unpaired"].map(p_text),
        "images": tests["n"],
        "verdict": tests["verdict"],
    }
    return pd.DataFrame(columns).set_axis(table)


def pair_index(a, b, cohorts):
    """Rows of a comparison of two experiments: A, B and the test cohort, by their titles."""
    names, known = titles("names"), titles("cohorts")
    return pd.MultiIndex.from_arrays([a.map(names), b.map(names), cohorts.map(known)], names=["A", "B", "tested on"])


def p_text(p):
    """A p-value as text.

    Examples
    --------
    >>> p_text(0.0004), p_text(0.0312), p_text(float("nan"))
    ('< 0.001', '0.031', '–')
    """
    return NO_VALUE if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def bare_p(published):
    """A published p-value below a head that says what it is.

    Examples
    --------
    >>> bare_p("p < 0.001"), bare_p("p = 0.23")
    ('< 0.001', '0.23')
    """
    return published.removeprefix("p ").removeprefix("= ")


def folds_table(described):
    """Patients and images of each cohort and fold, ours beside the published.

    Parameters
    ----------
    described : pandas.DataFrame
        One row an image, with cohort, fold and patient.
    """
    ours = described.groupby(["cohort", "fold"]).agg(patients=("patient", "nunique"), images=("patient", "size"))
    published = load_published("folds").set_index(["cohort", "fold"])
    table = ours.join(published, rsuffix=" (published)").reindex(published.index)
    names = titles("cohorts")
    return table.rename(index=names, level="cohort")


def experiments_table():
    """The experiments: what trains them, what they start from, and their row in Tables 1 and 2."""
    names = titles("names")
    cohorts = titles("cohorts")
    rows = [
        {
            "experiment": experiment.name,
            "row of the paper's tables": names[experiment.name],
            "labelled": " and ".join(cohorts[name] for name in experiment.source)
            + (" (reduced)" if experiment.reduced else ""),
            "unlabelled": cohorts.get(experiment.target, NO_VALUE),
            "starts from": experiment.parent or NO_VALUE,
        }
        for experiment in EXPERIMENTS.values()
    ]
    return pd.DataFrame(rows).set_index("experiment").rename_axis(None)


def percent(share, digits=0):
    """A share as text, in the way of the book.

    Examples
    --------
    >>> percent(0.8712), percent(0.058, 1)
    ('87 %', '5.8 %')
    """
    return f"{100 * share:.{digits}f} %"


def set_title(name):
    """A set of frames that is compared with the reference, in words.

    Examples
    --------
    >>> set_title("earlier phantom, covid"), set_title("other source")
    ('earlier phantom, COVID-19', 'other source')
    """
    kind, comma, cohort = name.rpartition(", ")
    return kind + comma + titles("cohorts").get(cohort, cohort)


def distances_table(distances):
    """Distances of each set from the reference, by the titles of sets and measures.

    Parameters
    ----------
    distances : pandas.DataFrame
        As :func:`lusbook.comparison.compare` returns it.
    """
    heads = {"grey": "grey levels", "snr": "speckle SNR", "axial": "axial correlation"}
    heads |= {"lateral": "lateral correlation", "frechet": "Fréchet"}
    return distances.set_index("set").rename(index=set_title, columns=heads).rename_axis(None)


def shapes_table(shapes):
    """Number and shape of B-lines in each set, heads in words.

    Parameters
    ----------
    shapes : pandas.DataFrame
        As :func:`lusbook.comparison.shapes` returns it.
    """
    heads = {"lines": "B-lines", "low": "length / width, lower quartile", "median": "length / width, median"}
    heads |= {"high": "length / width, upper quartile"}
    heads |= {number: f"share with {number}" for number in ("one", "two", "three", "more")}
    return shapes.set_index("set").rename(columns=heads).rename_axis(None)


def annotators_table(agreement):
    """Mean Dice of two annotators with each other, and of the first with the exact mask: one row a cohort.

    Parameters
    ----------
    agreement : pandas.DataFrame
        One row a frame: cohort, ``annotators``, ``truth``.
    """
    means = agreement.groupby("cohort", sort=False)[["annotators", "truth"]].mean()
    heads = {"annotators": "two annotators", "truth": "first annotator and exact mask"}
    return means.rename(index=titles("cohorts"), columns=heads).rename_axis(None)


def parameters_table(counts, width):
    """Trainable parameters of SIFA's networks, as published and here.

    Parameters
    ----------
    counts : dict of str to int
        As :func:`lusbook.sifa.count_parameters` returns it.
    width : float
        Factor on the channels of the networks that were counted.
    """
    published = load_published("sifa-parameters").set_index("network")
    table = published[["symbol"]].assign(
        **{
            "published, width 1": published["parameters"].map("{:,}".format),
            f"ours, width {width:g}": pd.Series(counts).map("{:,}".format),
        }
    )
    return table.set_axis(published["title"]).rename_axis(None)


def told_apart_table(told_apart):
    """AUROC of each set and classifier, with its interval, as text: one row a set, in their order.

    Parameters
    ----------
    told_apart : pandas.DataFrame
        As :func:`lusbook.comparison.compare` returns it.
    """
    texts = [with_interval(row.auroc, row.low, row.high) for row in told_apart.itertuples()]
    table = told_apart.assign(auroc=texts).pivot(index="set", columns="classifier", values="auroc")
    return table.reindex(told_apart["set"].unique()).rename(index=set_title).rename_axis(index=None, columns=None)


def auroc_table(evaluated, by=("arm",)):
    """AUROC of each arm with its interval, as text, with clips and patients.

    Parameters
    ----------
    evaluated : pandas.DataFrame
        As :func:`lusbook.evaluation.evaluate` returns it.
    by : sequence of str
        Columns that name the rows.
    """
    texts = [with_interval(row.auroc, row.low, row.high, 3) for row in evaluated.itertuples()]
    table = evaluated[[*by, "clips", "patients"]].assign(AUROC=texts).set_index(list(by))
    return table.sort_index() if len(by) > 1 else table.rename_axis(None)


def with_interval(value, low, high, digits=2):
    """A number with its interval as text; without one where there is none, a dash where there is no number.

    Examples
    --------
    >>> with_interval(0.636, 0.559, 0.704), with_interval(0.5, None, None), with_interval(-0.122, -0.2, 0.01, 3)
    ('0.64 (0.56 to 0.70)', '0.50', '-0.122 (-0.200 to 0.010)')
    """
    interval = "" if pd.isna(low) else f" ({_number(low, digits)} to {_number(high, digits)})"
    return _number(value, digits) + interval


def differences_table(differences):
    """Differences of AUROC with their intervals: rows by arm, a column for each reference.

    Parameters
    ----------
    differences : pandas.DataFrame
        As :func:`lusbook.evaluation.differences` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    texts = [with_interval(row.difference, row.low, row.high) for row in differences.itertuples()]
    wide = differences.assign(text=texts).pivot(index="arm", columns="reference", values="text").fillna(NO_VALUE)
    arms, references = (list(dict.fromkeys(differences[name])) for name in ("arm", "reference"))
    wide = wide.reindex(index=[arm for arm in arms if arm not in references] + references, columns=references)
    return wide.rename(columns=lambda reference: f"less {reference}").rename_axis(index=None, columns=None)


def secondary_table(secondary):
    """What the protocol asks beside the AUROC for the flags: one row an arm, intervals in brackets.

    Parameters
    ----------
    secondary : pandas.DataFrame
        As :func:`lusbook.evaluation.secondary` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    rows = {
        row.arm: {
            "Spearman with severity": with_interval(row.spearman, row.spearman_low, row.spearman_high),
            "AUROC, severity 2 and more": with_interval(row.severe, row.severe_low, row.severe_high),
            "area on clips without B-lines": NO_VALUE if pd.isna(row.area_no) else percent(row.area_no, 1),
            "Dice of neighbouring frames": _number(row.neighbours),
        }
        for row in secondary.itertuples()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def chosen_table(chosen):
    """What was chosen on each half, and what it is worth on the other: one row a half, and both.

    Parameters
    ----------
    chosen : pandas.DataFrame
        As :func:`lusbook.tuning.choose` returns it, with ``family``.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    rows = [
        {
            "chosen from": row.family,
            "by the flags of": f"half {row.chosen_on}" if row.chosen_on in ("A", "B") else "each half, mean",
            "attempt": row.attempt or NO_VALUE,
            "pooling": row.pooling or NO_VALUE,
            "AUROC there": _number(row.auroc_there),
            "AUROC on the other half": with_interval(row.auroc, row.low, row.high),
            "clips": str(row.clips),
        }
        for row in chosen.itertuples()
    ]
    return pd.DataFrame(rows).set_index(["chosen from", "by the flags of"])


def condition_title(condition):
    """A condition of :mod:`lusbook.recordings` in words.

    Examples
    --------
    >>> condition_title("covid19"), condition_title("other_lung_disease")
    ('COVID-19', 'other lung disease')
    """
    return condition.replace("_", " ").replace("covid19", "COVID-19")


def counted(number, noun):
    """A number of things in words.

    Examples
    --------
    >>> counted(1, "patient"), counted(22.0, "patient")
    ('1 patient', '22 patients')
    """
    return f"{number:.0f} {noun}" + ("" if number == 1 else "s")


def condition_table(by_condition):
    """AUROC of each arm in each condition, with clips, patients and the share of clips with the flag.

    Parameters
    ----------
    by_condition : pandas.DataFrame
        As :func:`lusbook.evaluation.by_condition` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
        Rows by arm, columns by condition; an arm that does not score a condition has a dash.
    """
    counts = by_condition.groupby("condition")[["clips", "patients", "flagged"]].max()
    heads = {
        name: f"{condition_title(name)}: {counted(row.clips, 'clip')}, {counted(row.patients, 'patient')}, "
        f"{percent(row.flagged)} flagged"
        for name, row in counts.iterrows()
    }
    texts = [with_interval(row.auroc, row.low, row.high) for row in by_condition.itertuples()]
    cells = by_condition.assign(text=texts)
    wide = cells.pivot(index="arm", columns="condition", values="text").reindex(list(dict.fromkeys(cells["arm"])))
    return wide.rename(columns=heads).rename_axis(index=None, columns=None)


def attempts_table(rated, pooling="area, 75th percentile"):
    """AUROC of each attempt on each half of the patients, under one pooling.

    Parameters
    ----------
    rated : pandas.DataFrame
        As :func:`lusbook.tuning.rate` returns it.
    pooling : str

    Returns
    -------
    table : pandas.DataFrame of str
        Rows by attempt; for each half, the network that saw the half's frames and the one that saw the other's. An
        attempt that saw none has one network.
    """
    rows = rated[rated["pooling"] == pooling]
    table = {}
    for row in rows.itertuples():
        kinds = ("saw this half",) if row.adapted == row.half else ("saw the other half",)
        for kind in kinds if row.adapted else ("saw this half", "saw the other half"):
            table.setdefault(row.attempt, {})[f"half {row.half}, {kind}"] = _number(row.auroc, 3)
    columns = [f"half {half}, {kind}" for half in "AB" for kind in ("saw this half", "saw the other half")]
    return pd.DataFrame.from_dict(table, orient="index", columns=columns)
