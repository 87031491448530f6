"""Rank correlations with Dice, and what chance gives in as large a table."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lusbook.errors import LusbookError
from lusbook.observed import MEASURES
from lusbook.relation import by_labels, chance, chance_table, labels_table, mean_dice, relate, relation_table
from tests.helpers import route_of

EXPERIMENTS = ["unet-covid", "unet-cap", "unet-cap-then-covid", "sifa-covid-to-cap", "unet-joint"]


def groups_of(n=6, seed=0):
    """Random measures of n patients in each cohort."""
    rng = np.random.default_rng(seed)
    index = [(cohort, k % 3, f"p{k}") for cohort in ("covid", "cap") for k in range(n)]
    groups = pd.DataFrame(index, columns=["cohort", "fold", "patient"]).assign(images=5)
    return groups.assign(**{name: rng.random(2 * n) for name in MEASURES})


def study_of(groups, value, experiments=EXPERIMENTS):
    """Per-image rows, two images a patient, whose mean Dice is ``value(row, experiment)``."""
    rows = []
    for experiment in experiments:
        for _, row in groups.iterrows():
            for image, off in enumerate((-0.01, 0.01)):
                key = {"experiment": experiment, "image": image} | row[["cohort", "fold", "patient"]].to_dict()
                rows.append(key | {"route": route_of(experiment, row["cohort"]), "dice": value(row, experiment) + off})
    return pd.DataFrame(rows).assign(sensitivity=0.5, specificity=0.5)


def random_study(groups, seed=1):
    rng = np.random.default_rng(seed)
    return study_of(groups, lambda *_: rng.uniform(0.1, 0.9))


def test_mean_dice_of_patients_folds_and_experiments():
    groups = groups_of()
    per_image = random_study(groups)
    dice = mean_dice(per_image, "patient")
    part = per_image[(per_image["cohort"] == "cap") & (per_image["patient"] == "p4")]
    expected = part.groupby("experiment")["dice"].mean()
    row = dice.loc[("cap", 1, "p4")]
    np.testing.assert_allclose(row[EXPERIMENTS], expected[EXPERIMENTS])
    assert row["mean"] == pytest.approx(expected.mean())
    assert mean_dice(per_image, "fold").shape == (6, 6)


def test_coefficients_are_those_of_scipy():
    groups = groups_of()
    per_image = random_study(groups)
    dice = mean_dice(per_image, "patient")
    found = relate(groups, dice, 50).set_index(["cohort", "measure", "experiment"])
    assert len(found) == 3 * len(MEASURES) * 6
    for cohort, n in (("covid", 6), ("cap", 6), ("both", 12)):
        x = groups[(groups["cohort"] == cohort) | (cohort == "both")]
        y = [dice.loc[tuple(key), "unet-cap"] for key in x[["cohort", "fold", "patient"]].to_numpy()]
        row = found.loc[(cohort, "size", "unet-cap")]
        assert row["rho"] == pytest.approx(stats.spearmanr(x["size"], y).statistic) and row["n"] == n
        assert np.isfinite(row["low"]) == (n >= 10)


def test_the_order_of_rows_and_the_type_of_names_do_not_matter():
    groups = groups_of()
    groups["patient"] = [str(k) for k in range(12)]
    per_image = random_study(groups)
    expected = relate(groups, mean_dice(per_image, "patient"), 20)
    numbers = per_image.assign(patient=per_image["patient"].astype(int)).sample(frac=1, random_state=0)
    shuffled = groups.assign(patient=groups["patient"].astype(int)).sample(frac=1, random_state=1)
    found = relate(shuffled, mean_dice(numbers, "patient"), 20)
    columns = ["measure", "experiment", "cohort"]
    for one, other in zip(*(t.sort_values(columns)["rho"].to_numpy() for t in (expected, found)), strict=True):
        assert one == pytest.approx(other)


def test_dice_that_follows_a_measure_is_found_with_its_interval():
    groups = groups_of()
    dice = mean_dice(study_of(groups, lambda row, _: 0.9 - 0.5 * row["place"]), "patient")
    found = relate(groups, dice, 200).set_index(["cohort", "measure", "experiment"])
    row = found.loc[("both", "place", "mean")]
    assert row[["rho", "low", "high"]].tolist() == pytest.approx([-1, -1, -1])


@pytest.mark.filterwarnings("error")
def test_missing_or_constant_measures_and_two_patients_give_no_coefficient():
    groups = groups_of().assign(annotators=np.nan, size=1.0)
    dice = mean_dice(random_study(groups), "patient")
    found = relate(groups, dice, 20).set_index("measure")
    assert found.loc[["annotators", "size"], ["rho", "low"]].isna().all(axis=None)
    assert found.loc["place", "rho"].notna().all()
    few = groups[groups["patient"].isin(["p0", "p1"])]
    two = relate(few, dice, 20)
    assert two.loc[two["cohort"] != "both", "rho"].isna().all() and (two["n"] == 2).sum() == 2 * len(MEASURES) * 6


def test_a_relation_in_every_experiment_is_more_than_chance():
    groups = groups_of()
    related = mean_dice(study_of(groups, lambda row, _: 0.9 - 0.5 * row["place"]), "patient")
    groups = groups.assign(**dict.fromkeys(MEASURES, groups["place"]))
    found = chance(groups, related, 300)
    assert found["coefficients"] == 2 * len(MEASURES) * len(EXPERIMENTS) and found["n"] == 6
    assert found["typical"] == pytest.approx(1) and found["typical_p"] < 0.02
    assert found["typical_high"] < 1


def test_chance_is_no_more_than_chance():
    """p values of tables without any relation are spread over 0 to 1, and large coefficients are common in them."""
    p, largest = [], []
    for seed in range(20):
        groups = groups_of(seed=seed)
        found = chance(groups, mean_dice(random_study(groups, 100 + seed), "patient"), 60)
        p.append(found["typical_p"])
        largest.append(found["largest"])
    assert np.mean(np.array(p) <= 0.2) < 0.5 and max(p) > 0.5
    assert np.mean(largest) > 0.85


def test_chance_of_nothing_to_compute():
    groups = groups_of(2)
    found = chance(groups, mean_dice(random_study(groups), "patient"), 5)
    assert found["coefficients"] == 0 and np.isnan(found["largest_p"])
    assert chance_table({"patients": found}).loc["mean |rho|", "patients"] == "–"


def test_dice_by_the_labels_that_were_seen():
    level = dict(zip(EXPERIMENTS, (0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
    per_image = study_of(groups_of(), lambda _, experiment: level[experiment])
    found = by_labels(per_image).set_index(["labels", "cohort"])
    # Adapted without target labels: SIFA has seen those of its source only. Fine-tuning has seen both.
    assert found.loc[("COVID-19", "cap"), ["experiments", "mean", "least", "greatest"]].tolist() == pytest.approx(
        [2, 0.35, 0.2, 0.5]
    )
    assert found.loc[("CAP", "cap"), "mean"] == pytest.approx(0.3)
    assert found.loc[("COVID-19 and CAP", "covid"), "mean"] == pytest.approx(0.5)
    table = labels_table(by_labels(per_image))
    assert table.loc["COVID-19 (2 experiments)", "tested on CAP"] == "0.35 (0.20 to 0.50)"


def test_tables_name_n():
    groups = groups_of()
    dice = mean_dice(random_study(groups), "patient")
    text = relation_table(relate(groups, dice, 20))
    assert list(text.columns) == ["COVID-19 (n = 6)", "CAP (n = 6)", "both (n = 12)"]
    assert "to" in text.iloc[0, 2] and "to" not in text.iloc[0, 0]
    assert chance_table({"patients": chance(groups, dice, 20)}).loc["coefficients", "patients"] == str(36 * 5)


def test_other_patients_are_refused():
    groups = groups_of()
    dice = mean_dice(random_study(groups.assign(patient="x" + groups["patient"])), "patient")
    for function in (relate, chance):
        with pytest.raises(LusbookError, match="expected the same patients, received none in common"):
            function(groups, dice)
