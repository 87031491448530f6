"""Rules and verdicts on hand-made tables; differences against pandas and an exhaustive bootstrap."""

import itertools

import nbformat
import numpy as np
import pandas as pd
import pytest

from lusbook import claims
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from lusbook.tables import load_published
from tests.helpers import route_of

STATEMENTS = pd.DataFrame(
    {"id": ["gain"], "section": ["abstract"], "statement": ["A beats B"], "rule": ["higher"]}
    | {"chapter": ["results"], "anchor": ["fig-dice"]}
)
PAIR = pd.DataFrame(
    {"statement": ["gain"], "experiment": ["unet-cap"], "reference": ["unet-covid"], "cohort": ["covid"]}
)


def rows_of(experiment, dice, cohort="covid", patients=3):
    """Per-image rows with two images for each patient."""
    table = pd.DataFrame({"dice": np.repeat(dice, 2) if np.ndim(dice) else np.full(2 * patients, float(dice))})
    patient = np.repeat(np.arange(len(table) // 2), 2)
    return table.assign(
        experiment=experiment, fold=patient % 3, cohort=cohort, patient=[f"p{k}" for k in patient], image=table.index
    ).assign(route=route_of(experiment, cohort), sensitivity=0.5, specificity=0.5)


def study(**dice):
    """Per-image rows of experiments on both cohorts."""
    parts = [rows_of(name.replace("_", "-"), values, c) for name, values in dice.items() for c in ("covid", "cap")]
    return pd.concat(parts, ignore_index=True)


def effects(consistency=(0.1, 0.3), diversity=(0.1, 0.3)):
    """Effects whose estimates are the middle of their intervals."""
    low, high = zip(consistency, diversity, (-0.1, 0.1), strict=True)
    table = pd.DataFrame({"term": claims.TERMS, "low": low, "high": high})
    return table.assign(estimate=(table["low"] + table["high"]) / 2)


def as_published(noise=0.002, seed=5):
    """A study whose patients have the Dice of Table 1, but for a little noise; the joint network as unet-covid."""
    rng, parts = np.random.default_rng(seed), []
    means = load_published("table1")
    joint = means[means["experiment"] == "unet-covid"].assign(experiment="unet-joint")
    for row in pd.concat([means, joint]).itertuples():
        parts.append(rows_of(row.experiment, row.dice_mean + rng.normal(0, noise, 6), row.cohort))
    return pd.concat(parts, ignore_index=True)


def test_a_study_like_the_paper_reproduces_every_claim_that_compares():
    judged = claims.judge(claims.compare(as_published(), n_resamples=200), effects())
    found = judged.set_index("id")["verdict"].to_dict()
    assert found.pop("premise") == "cannot be tested here"
    assert set(found.values()) == {"reproduced"} and len(found) == 11


def test_a_study_unlike_the_paper_reproduces_none():
    per_image = as_published()
    per_image["dice"] = 1 - per_image["dice"]
    raised = ["unet-joint", "sifa-reduced-covid-to-cap", "sifa-cap-to-covid"]
    per_image.loc[per_image["experiment"].isin(raised), "dice"] += 0.3
    judged = claims.judge(claims.compare(per_image, n_resamples=200), effects((-0.3, -0.1), (-0.1, 0.1)))
    found = judged.set_index("id")["verdict"].drop(["premise", "size"])
    assert set(found) == {"not reproduced"}


def test_difference_is_the_mean_over_patients_of_paired_differences():
    rng = np.random.default_rng(0)
    per_image = study(unet_cap=rng.random(4), unet_covid=rng.random(4))
    per_image = per_image.drop(per_image.index[[0, 18]]).sample(frac=1, random_state=1)  # unmatched images, any order
    row = claims.compare(per_image, STATEMENTS, PAIR).iloc[0]
    rows = per_image[per_image["cohort"] == "covid"]
    wide = rows.pivot(index=["patient", "image"], columns="experiment", values="dice").dropna()
    by_patient = (wide["unet-cap"] - wide["unet-covid"]).groupby("patient").mean()
    assert row["difference"] == pytest.approx(by_patient.mean())
    assert (row["patients"], row["images"]) == (4, len(wide)) and len(wide) == 6
    # All 4^4 resamples of four patients: the drawn interval must be near the exact one.
    means = [np.mean(drawn) for drawn in itertools.product(by_patient, repeat=4)]
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.05)


def test_patients_count_alike_however_many_images_they_have():
    per_image = study(unet_cap=[0.9, 0.5], unet_covid=[0.5, 0.5])
    more = pd.concat([per_image[per_image["patient"] == "p1"].assign(image=k) for k in range(10, 20)])
    more = more.drop_duplicates(["experiment", "cohort", "image"])
    row = claims.compare(pd.concat([per_image, more]), STATEMENTS, PAIR).iloc[0]
    assert row["difference"] == pytest.approx(0.2) and row["images"] == 14


def test_source_images_go_through_the_generator():
    direct = rows_of("sifa-covid-to-cap", 0.1)
    both = [direct.assign(route="direct"), direct.assign(route="translated", dice=0.9), rows_of("unet-covid", 0.5)]
    pair = PAIR.assign(experiment="sifa-covid-to-cap")
    assert claims.compare(pd.concat(both), STATEMENTS, pair)["difference"][0] == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["unet_cap", "unet_covid"])
def test_an_experiment_that_was_not_run_cannot_be_tested(name):
    compared = claims.compare(study(**{name: 0.5}), STATEMENTS, PAIR)
    assert compared["outcome"].tolist() == ["not computed"] and compared["patients"].tolist() == [0]
    assert claims.judge(compared, statements=STATEMENTS)["verdict"].tolist() == ["cannot be tested here"]


def test_one_patient_gives_no_interval():
    compared = claims.compare(study(unet_cap=[0.9], unet_covid=[0.1]), STATEMENTS, PAIR)
    assert compared["difference"][0] == pytest.approx(0.8) and compared["outcome"][0] == "not computed"


@pytest.mark.parametrize("rule", [claims.higher, claims.not_higher, claims.similar])
def test_rules_have_three_outcomes_and_follow_shifts(rule):
    outcomes = [rule(middle - 0.02, middle + 0.02) for middle in np.linspace(-0.5, 0.5, 201)]
    runs = [key for key, _ in itertools.groupby(outcomes)]  # in order of the interval's place
    expected = {
        claims.higher: ["contradicted", "not shown", "holds"],
        claims.not_higher: ["holds", "undecided", "contradicted"],
        claims.similar: ["contradicted", "undecided", "holds", "undecided", "contradicted"],
    }
    assert runs == expected[rule]
    assert rule(-0.9, 0.9) in ("not shown", "undecided")  # a wide interval decides nothing


def test_similar_is_symmetric():
    rng = np.random.default_rng(1)
    for low, high in np.sort(rng.uniform(-0.2, 0.2, (200, 2))):
        assert claims.similar(low, high) == claims.similar(-high, -low)


@pytest.mark.parametrize(
    ("consistency", "diversity", "expected"),
    [
        ((0.1, 0.3), (0.1, 0.3), "reproduced"),
        ((0.1, 0.3), (-0.1, 0.3), "partly"),
        ((-0.3, -0.1), (0.1, 0.3), "partly"),
        ((-0.1, 0.3), (-0.3, -0.1), "not reproduced"),
        ((np.nan, np.nan), (0.1, 0.3), "cannot be tested here"),
    ],
)
def test_explanation(consistency, diversity, expected):
    assert claims.explanation(effects(consistency, diversity)) == expected
    assert claims.explanation(effects(consistency, diversity).sample(frac=1, random_state=0)) == expected


def test_explanation_without_an_experiment_is_not_tested():
    assert claims.explanation(None) == "cannot be tested here"
    judged = claims.judge(claims.compare(as_published(), n_resamples=10)).set_index("id")
    assert judged.loc["explanation", "ours"] == "–"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="low"), "effects: expected column 'low', received"),
        (lambda table: table.iloc[1:], "effects: term 'consistency': expected one row, received 0"),
        (lambda table: pd.concat([table, table]), "effects: term 'consistency': expected one row, received 2"),
    ],
)
def test_bad_effects_are_refused(change, message):
    with pytest.raises(LusbookError, match=message):
        claims.explanation(change(effects()))


@pytest.mark.parametrize(
    ("statements", "pairs", "message"),
    [
        (STATEMENTS.assign(rule="better"), PAIR, "'gain': rule: expected one of higher, .*, received 'better'"),
        (STATEMENTS, PAIR.assign(statement="loss"), "statement 'gain' of rule 'higher': expected comparisons"),
        (STATEMENTS.assign(rule="premise"), PAIR, "rule 'premise': expected no comparison, received some"),
        (
            STATEMENTS,
            pd.concat([PAIR, PAIR.assign(statement="loss")], ignore_index=True),
            "comparisons.csv: row 2: statement 'loss' is not in statements.csv",
        ),
    ],
)
def test_statements_that_no_rule_can_judge_are_refused(statements, pairs, message):
    with pytest.raises(LusbookError, match=message):
        claims.compare(study(unet_cap=0.5, unet_covid=0.5), statements, pairs)


def test_published_statements_are_whole():
    statements, comparisons = claims.load_claims()
    assert statements["id"].is_unique and not statements.isna().any().any()
    assert not comparisons.duplicated().any()
    known = load_published("names")["experiment"]
    assert comparisons[["experiment", "reference"]].isin(set(known)).all().all()
    # The t-tests of section 3 are statements, too: each of their pairs is compared.
    tests = load_published("claims")[["better", "worse", "cohort"]].itertuples(index=False, name=None)
    of = comparisons[comparisons["statement"].isin(["above-unets", "above-inverse", "inverse-below", "inverse-equal"])]
    assert set(tests) == set(of[["experiment", "reference", "cohort"]].itertuples(index=False, name=None))


def test_published_numbers_satisfy_the_rules():
    """The paper agrees with its own statements, as far as its means tell."""
    compared = claims.compare(as_published(), n_resamples=10).dropna(subset="published")
    for row in compared.itertuples():
        assert claims.RULES[row.rule][0](row.published, row.published) == "holds", row


def test_the_decisive_difference_is_shown():
    pairs = pd.concat([PAIR, PAIR.assign(reference="unet-joint")], ignore_index=True)
    per_image = study(unet_cap=[0.6, 0.6], unet_covid=[0.5, 0.5], unet_joint=[0.8, 0.8])
    for rule, text in (("higher", "-0.20"), ("not higher", "0.10"), ("similar", "-0.20")):
        statements = STATEMENTS.assign(rule=rule)
        ours = claims.judge(claims.compare(per_image, statements, pairs), statements=statements)["ours"][0]
        assert ours == f"COVID-19: {text} ({text} to {text})"


def test_tables_have_every_row():
    compared = claims.compare(as_published(), n_resamples=10)
    judged = claims.judge(compared)
    lines = claims.claims_table(judged).splitlines()
    assert len(lines) == 2 + len(judged) and {line.count("|") for line in lines} == {8}
    assert all(f"**{verdict}**" in line for verdict, line in zip(judged["verdict"], lines[2:], strict=True))
    table = claims.comparisons_table(compared)
    assert len(table) == len(compared) and not table.isna().any().any()
    numbers = dict(zip(compared["statement"], table.index.get_level_values("claim"), strict=True))
    assert all(lines[1 + number].startswith(f"| {number} | ") for number in numbers.values())
    assert judged["id"][numbers["joint"] - 1] == "joint"


def test_effects_are_named_in_words():
    effects = pd.DataFrame({"term": claims.TERMS, "estimate": 0.1, "low": 0.0, "high": 0.2})
    ours = claims.judge(claims.compare(as_published(), n_resamples=10), effects)["ours"].iloc[-1]
    assert "consistency × diversity: 0.10 (0.00 to 0.20)" in ours and len(ours.split("; ")) == 3


def test_the_chapter_explains_every_rule_and_verdict():
    notebook = nbformat.read(PROJECT / "book" / "claims.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").lower()
    for rule in (*claims.RULES, *claims.ALONE):
        assert f"`{rule}`" in text
    words = " ".join(text.split())
    for name in (claims.REPRODUCED, claims.PARTLY, claims.NOT, claims.UNTESTED, claims.NOT_SHOWN, claims.UNDECIDED):
        assert f"*{name}*" in words, name


def test_claims_link_to_what_a_page_has_even_before_its_grid_is_computed():
    """A figure that is not drawn is no target: a link to it would break the build of a fresh study."""
    for row in claims.load_claims()[0].itertuples():
        cells = nbformat.read(PROJECT / "book" / f"{row.chapter}.ipynb", as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        named = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
        computed = row.chapter not in ("secondary", "rivals", "dose-response", "real")
        assert f"({row.anchor})=" in text or (computed and row.anchor in named), row.id


def test_without_controls_nothing_is_said_of_sifa_and_the_rest_stands():
    compared = claims.compare(as_published(), n_resamples=200)
    told = claims.judge(compared, effects()).set_index("id")["verdict"]
    judged = claims.judge(compared, effects(), silenced=["the positive control failed"]).set_index("id")["verdict"]
    assert judged[["joint", "premise"]].tolist() == told[["joint", "premise"]].tolist()
    assert set(judged.drop(["joint", "premise"])) == {claims.CANNOT_TELL}


@pytest.mark.parametrize("passed, words", [(True, ""), (False, "failed"), (None, "not computed")])
def test_ceilings_and_the_positive_control_silence_a_study(passed, words):
    means = pd.DataFrame({"experiment": ["unet-cap", "sifa-cap-to-covid"], "cohort": "cap", "mean": [0.6, 0.9]})
    reasons = claims.silenced(means, {"covid": 0.9, "cap": 0.8}, passed)  # SIFA's own Dice does not count
    assert len(reasons) == bool(words) and all(words in reason for reason in reasons)
    (above, *_) = claims.silenced(means, {"cap": 0.6}, passed)
    assert "CAP" in above and "0.60" in above
    assert all(reason in claims.silenced_text(reasons) for reason in reasons)
