"""The paper's claims, what came out here, and verdicts by stated rules.

A claim is a statement of the abstract, the results or the discussion. Most are a set of comparisons of two experiments
on one test cohort. Each comparison is judged by the 95 % interval of the difference of Dice, patients being the unit,
and a statement by its comparisons. What is claimed stands in ``data/paper/statements.csv`` and ``comparisons.csv``.
"""

import numpy as np
import pandas as pd

from lusbook import dose, response
from lusbook.errors import LusbookError, MissingData
from lusbook.rows import by_run, image_pairs
from lusbook.statistics import bootstrap_ci
from lusbook.tables import NO_VALUE, load_published, pair_index, titles, with_interval

#: Dice below which a difference counts as none. Ours; the paper states none.
MARGIN = 0.05
HOLDS, NOT_SHOWN, UNDECIDED, CONTRADICTED = "holds", "not shown", "undecided", "contradicted"
MISSING = "not computed"
REPRODUCED, PARTLY, NOT, UNTESTED = "reproduced", "partly", "not reproduced", "cannot be tested here"
CANNOT_TELL = "cannot tell"  # of a study whose controls do not let it speak of adaptation
VERDICTS = (REPRODUCED, PARTLY, NOT, UNTESTED, CANNOT_TELL)
TERMS = ("consistency", "diversity", "consistency:diversity")


def higher(low, high):
    """Judge a claimed gain by the interval of the difference.

    Parameters
    ----------
    low, high : float
        95 % interval of the difference in Dice, experiment less reference.

    Returns
    -------
    outcome : str
        "holds" when the interval lies above 0, "contradicted" when below 0, else "not shown".

    Examples
    --------
    >>> higher(0.1, 0.3), higher(-0.3, -0.1), higher(-0.1, 0.3)
    ('holds', 'contradicted', 'not shown')
    """
    return HOLDS if low > 0 else CONTRADICTED if high < 0 else NOT_SHOWN


def not_higher(low, high):
    """Judge a claim that there is no gain.

    Parameters
    ----------
    low, high : float
        As for :func:`higher`.

    Returns
    -------
    outcome : str
        "holds" when the interval lies below :data:`MARGIN`, "contradicted" when above it, else "undecided".

    Examples
    --------
    >>> not_higher(-0.3, 0.02), not_higher(0.1, 0.2), not_higher(0.01, 0.1)
    ('holds', 'contradicted', 'undecided')
    """
    return HOLDS if high < MARGIN else CONTRADICTED if low > MARGIN else UNDECIDED


def similar(low, high):
    """Judge a claim that two experiments are about as good: an equivalence test by its interval.

    Parameters
    ----------
    low, high : float
        As for :func:`higher`.

    Returns
    -------
    outcome : str
        "holds" when the interval lies within plus or minus :data:`MARGIN`, "contradicted" when outside, else
        "undecided". An interval that merely holds 0 shows no likeness.

    References
    ----------
    Westlake, "Symmetrical confidence intervals for bioequivalence trials", Biometrics 32 (1976), 741-744.

    Examples
    --------
    >>> similar(-0.02, 0.03), similar(-0.3, -0.1), similar(-0.1, 0.1)
    ('holds', 'contradicted', 'undecided')
    """
    if -MARGIN < low and high < MARGIN:
        return HOLDS
    return CONTRADICTED if low > MARGIN or high < -MARGIN else UNDECIDED


# Each with an order: its first difference decides a statement. The least gain, the greatest, the farthest from none.
RULES = {
    "higher": (higher, np.positive),
    "not higher": (not_higher, np.negative),
    "similar": (similar, lambda difference: -difference.abs()),
}
ALONE = ("premise", "explanation")  # rules of statements that compare no experiments


def load_claims():
    """Statements of the paper and their comparisons, checked.

    Returns
    -------
    statements : pandas.DataFrame
        Columns id, section, statement, rule, chapter and anchor (where the book shows it).
    comparisons : pandas.DataFrame
        Columns statement (an id), experiment, reference, cohort: the difference is experiment less reference.

    Raises
    ------
    LusbookError
        On an unknown rule, a comparison of an unknown statement, or a statement without the comparisons it needs.
    """
    statements, comparisons = load_published("statements"), load_published("comparisons")
    check_claims(statements, comparisons)
    return statements, comparisons


def check_claims(statements, comparisons):
    """Refuse statements that no rule can judge, see :func:`load_claims`."""
    known = [*RULES, *ALONE]
    for row in statements.itertuples():
        if row.rule not in known:
            raise LusbookError(
                f"statements.csv: {row.id!r}: rule: expected one of {', '.join(known)}, received {row.rule!r}"
            )
        compared = (comparisons["statement"] == row.id).any()
        if compared != (row.rule in RULES):
            raise LusbookError(
                f"comparisons.csv: statement {row.id!r} of rule {row.rule!r}: expected "
                f"{'comparisons' if row.rule in RULES else 'no comparison'}, received {'some' if compared else 'none'}"
            )
    strange = comparisons[~comparisons["statement"].isin(statements["id"])]
    if len(strange):
        raise LusbookError(
            f"comparisons.csv: row {strange.index[0] + 1}: statement {strange['statement'].iloc[0]!r} is not in "
            "statements.csv"
        )


def compare(per_image, statements=None, comparisons=None, n_resamples=2000, seed=0):
    """Every comparison of the statements, with its interval and outcome.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study, all routes.
    statements, comparisons : pandas.DataFrame, optional
        Default: the paper's, see :func:`load_claims`.
    n_resamples, seed : int
        Of the bootstrap over patients.

    Returns
    -------
    compared : pandas.DataFrame
        One row a comparison: its four columns, ``rule``, ``published`` (difference of the published means; NaN where
        the paper prints none), ``difference`` (mean over patients of each one's mean difference), ``low``, ``high``
        (95 %), ``patients``, ``images``, ``outcome`` ("not computed" without an interval).
    """
    if statements is None:
        statements, comparisons = load_claims()
    check_claims(statements, comparisons)
    means = load_published("table1").set_index(["experiment", "cohort"])["dice_mean"]
    rules = statements.set_index("id")["rule"]
    runs, rows = by_run(per_image), []
    for row in comparisons.itertuples(index=False):
        pairs = image_pairs(runs, row.experiment, row.reference, row.cohort).dropna()
        found = (pairs[row.experiment] - pairs[row.reference]).groupby("patient").agg(["mean", "size"])
        low, high = np.nan, np.nan
        if len(found):
            low, high = bootstrap_ci(found["mean"], found.index, np.mean, n_resamples, seed)
        published = means.get((row.experiment, row.cohort), np.nan) - means.get((row.reference, row.cohort), np.nan)
        values = {"rule": rules[row.statement], "published": published, "difference": found["mean"].mean()}
        values |= {"low": low, "high": high, "patients": len(found), "images": int(found["size"].sum())}
        outcome = MISSING if np.isnan(low) else RULES[values["rule"]][0](low, high)
        rows.append(row._asdict() | values | {"outcome": outcome})
    return pd.DataFrame(rows)


def verdict(outcomes):
    """Verdict on a statement from the outcomes of its comparisons.

    Parameters
    ----------
    outcomes : sequence of str

    Returns
    -------
    verdict : str
        "reproduced" when all hold, "partly" when some do, "not reproduced" when none does; "cannot be tested here"
        when one is not computed, or all are undecided: the intervals are too wide to show that there is no difference.

    Examples
    --------
    >>> verdict(["holds", "holds"]), verdict(["holds", "undecided"]), verdict(["contradicted", "undecided"])
    ('reproduced', 'partly', 'not reproduced')
    >>> verdict(["undecided", "undecided"])
    'cannot be tested here'
    """
    outcomes = list(outcomes)
    if MISSING in outcomes or set(outcomes) <= {UNDECIDED}:
        return UNTESTED
    held = outcomes.count(HOLDS)
    return REPRODUCED if held == len(outcomes) else PARTLY if held else NOT


def explanation(effects=None):
    """Verdict on the paper's explanation, from a controlled experiment on the phantom's two knobs.

    The paper adapts well from consistent labels to diverse images, and badly from inconsistent labels to uniform ones.
    So the gain of adaptation has to grow with the consistency of the source's labels, and with the diversity of the
    target's images.

    Parameters
    ----------
    effects : pandas.DataFrame, optional
        Of one fitted model of the gain of adaptation: columns ``term`` (rows "consistency", "diversity" and
        "consistency:diversity"; others are left aside), ``estimate``, ``low``, ``high``, in Dice, as
        :func:`lusbook.response.fit` has them for both directions together. None: not computed.

    Returns
    -------
    verdict : str
        "reproduced" when the intervals of both main effects lie above 0, "partly" when one does, "not reproduced"
        when none does; "cannot be tested here" without effects, or when one has no interval.

    Raises
    ------
    LusbookError
        When a column or a term is missing, or a term is there twice.
    """
    if effects is None:
        return UNTESTED
    missing = [name for name in ("term", "estimate", "low", "high") if name not in effects]
    if missing:
        raise LusbookError(f"effects: expected column {missing[0]!r}, received {list(effects.columns)}")
    for term in TERMS:
        if (count := int((effects["term"] == term).sum())) != 1:
            raise LusbookError(f"effects: term {term!r}: expected one row, received {count}")
    main = effects.set_index("term").loc[list(TERMS[:2])]
    bounds = zip(main["low"], main["high"], strict=True)
    return verdict(MISSING if np.isnan(low) else higher(low, high) for low, high in bounds)


def effects_on_gain(settings, results=None):
    """What :func:`explanation` judges, of a study's grid; nothing is computed.

    Parameters
    ----------
    settings : Settings
    results : path, optional

    Returns
    -------
    effects : pandas.DataFrame or None
        As :func:`lusbook.response.fit`, of both directions together; None where the cohorts have no knobs or the
        grid was not computed.
    """
    if settings.cohorts != "phantom":
        return None
    try:
        patients = dose.gather(settings, results, compute=False)
    except MissingData:
        return None
    return response.fit(response.gains(patients))


def silenced(means, ceilings, passed):
    """Why a study can tell nothing of adaptation: controls come before claims.

    Parameters
    ----------
    means : pandas.DataFrame
        Mean Dice of experiments: columns experiment, cohort, mean.
    ceilings : dict of str to float
        By cohort: best mean Dice on the output grid of SIFA, see :mod:`lusbook.ceiling`.
    passed : bool or None
        Of the positive control, see :func:`lusbook.controls.passes`; None: not computed.

    Returns
    -------
    reasons : list of str
        In words; empty where the study can tell.

    Examples
    --------
    >>> means = pd.DataFrame({"experiment": ["unet-covid"], "cohort": ["covid"], "mean": [0.86]})
    >>> silenced(means, {"covid": 0.7}, True)
    ['on COVID-19 a U-Net (0.86) is above the ceiling of SIFA (0.70)']
    >>> silenced(means, {"covid": 0.92}, True), silenced(means, {"covid": 0.92}, None)
    ([], ['the positive control was not computed at these settings'])
    """
    reasons = []
    for cohort, ceiling in ceilings.items():
        of = means[(means["cohort"] == cohort) & means["experiment"].str.startswith("unet-")]
        if (best := of["mean"].max()) >= ceiling:
            reasons.append(
                f"on {titles('cohorts')[cohort]} a U-Net ({best:.2f}) is above the ceiling of SIFA ({ceiling:.2f})"
            )
    if not passed:
        reasons.append("the positive control " + ("was not computed at these settings" if passed is None else "failed"))
    return reasons


def judge(compared, effects=None, statements=None, silenced=()):
    """Every statement with its verdict.

    Parameters
    ----------
    compared : pandas.DataFrame
        As :func:`compare` returns it.
    effects : pandas.DataFrame, optional
        As for :func:`explanation`.
    statements : pandas.DataFrame, optional
        Default: the paper's.
    silenced : list of str
        Reasons of :func:`silenced`: with any, what is said of SIFA has the verdict "cannot tell".

    Returns
    -------
    judged : pandas.DataFrame
        Columns of the statements, ``published`` and ``ours`` (text: for each test cohort the difference in Dice that
        decides, ours with its interval), ``outcomes`` (text: how many comparisons came out how) and ``verdict``.
    """
    statements = load_published("statements") if statements is None else statements
    rows = []
    for statement in statements.itertuples(index=False):
        of = compared[compared["statement"] == statement.id]
        said = {"published": NO_VALUE, "ours": NO_VALUE, "outcomes": NO_VALUE, "verdict": UNTESTED}
        if statement.rule == "explanation":
            said |= {"verdict": explanation(effects), "ours": _effects_text(effects)}
        elif statement.rule in RULES:
            counts = of["outcome"].value_counts().reindex([HOLDS, NOT_SHOWN, UNDECIDED, CONTRADICTED, MISSING]).dropna()
            said["published"], said["ours"] = (_by_cohort(of, column) for column in ("published", "difference"))
            said |= {"outcomes": "; ".join(f"{name}: {n:.0f}" for name, n in counts.items())}
            said["verdict"] = verdict(of["outcome"])
        adapts = (
            of[["experiment", "reference"]].stack().str.startswith("sifa-").any() or statement.rule == "explanation"
        )
        if silenced and adapts:
            said["verdict"] = CANNOT_TELL
        rows.append(statement._asdict() | said)
    return pd.DataFrame(rows)


def _by_cohort(compared, column):
    """For each cohort the difference that decides, as text; nothing where there is none."""
    texts = []
    for cohort, title in titles("cohorts").items():
        of = compared[(compared["cohort"] == cohort) & compared[column].notna()]
        if of.empty:
            continue
        order = RULES[of["rule"].iloc[0]][1]
        row = of.loc[order(of[column]).idxmin()]
        limits = (row["low"], row["high"]) if column == "difference" else (np.nan, np.nan)
        texts.append(f"{title}: {with_interval(row[column], *limits)}")
    return "; ".join(texts) or NO_VALUE


def _effects_text(effects):
    """Main effects and interaction with their intervals, as text."""
    if effects is None:
        return NO_VALUE
    rows = effects[effects["term"].isin(TERMS)].itertuples()
    texts = {response.term_title(row.term): with_interval(row.estimate, row.low, row.high) for row in rows}
    return "; ".join(f"{term}: {text}" for term, text in texts.items())


def claims_table(judged):
    """The statements as a table in Markdown, each with a link to where the book shows it.

    Parameters
    ----------
    judged : pandas.DataFrame
        As :func:`judge` returns it.

    Returns
    -------
    markdown : str
        MyST: an anchor is a label of another page.
    """
    head = "| | claim | published | ours, 95 % interval | comparisons | verdict | shown in |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for place, row in enumerate(judged.itertuples(), start=1):
        numbers = [text.replace("; ", "<br>") for text in (row.published, row.ours, row.outcomes)]
        claim, link = f"{row.statement} *({row.section})*", f"[{row.chapter}](#{row.anchor})"
        lines.append("| " + " | ".join([f"{place}", claim, *numbers, f"**{row.verdict}**", link]) + " |")
    return "\n".join(lines)


def silenced_text(reasons):
    """Reasons of :func:`silenced` as a paragraph of Markdown under the table; nothing where there are none."""
    return f"\n\nCannot tell: {'; '.join(reasons)}." if reasons else ""


def comparisons_table(compared, statements=None):
    """Every comparison once, as text: what is compared, the published and our difference, n and the outcome.

    Parameters
    ----------
    compared : pandas.DataFrame
        As :func:`compare` returns it.
    statements : pandas.DataFrame, optional
        Default: the paper's.

    Returns
    -------
    table : pandas.DataFrame of str
        Rows by the claim's number in :func:`claims_table`, A, B and test cohort.
    """
    statements = load_published("statements") if statements is None else statements
    places = {name: place for place, name in enumerate(statements["id"], start=1)}
    pair = pair_index(compared["experiment"], compared["reference"], compared["cohort"]).to_frame(index=False)
    columns = {
        "published A - B": [with_interval(value, None, None) for value in compared["published"]],
        "ours A - B (95 %)": [with_interval(row.difference, row.low, row.high) for row in compared.itertuples()],
        "patients": compared["patients"],
        "images": compared["images"],
        "rule": compared["rule"],
        "outcome": compared["outcome"],
    }
    pair.insert(0, "claim", compared["statement"].map(places).to_numpy())
    return pd.DataFrame(columns).set_axis(pd.MultiIndex.from_frame(pair))
