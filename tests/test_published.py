"""The paper's numbers against themselves: t-tests by hand and by simulated samples, rounding, sums and bounds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lusbook import published
from lusbook.errors import LusbookError
from lusbook.tables import load_published

KEY = ["better", "worse", "cohort"]


@pytest.fixture(scope="module")
def checked():
    return published.check_claims()


def samples(mean_a, mean_b, sd_a, sd_b, r, n):
    """Two samples with exactly these means, standard deviations and correlation."""
    z = np.random.default_rng(0).normal(size=(n, 2))
    z = (z - z.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T)).T)  # uncorrelated, SD 1
    return mean_a + sd_a * z[:, 0], mean_b + sd_b * (r * z[:, 0] + np.sqrt(1 - r**2) * z[:, 1])


def one_claim(p_relation="<", p_value=0.001, means=(0.6, 0.5), stds=(0.2, 0.2), images=100):
    claims = pd.DataFrame([("a", "b", "cap", p_relation, p_value)], columns=[*KEY, "p_relation", "p_value"])
    rows = [("a", "cap", means[0], stds[0]), ("b", "cap", means[1], stds[1])]
    table1 = pd.DataFrame(rows, columns=["experiment", "cohort", "dice_mean", "dice_std"])
    return claims, table1, pd.DataFrame({"cohort": ["cap"], "images": [images]})


def test_unpaired_tests_by_hand(checked):
    dice = load_published("table1").set_index(["experiment", "cohort"])
    for row in checked.itertuples():
        n = {"covid": 977, "cap": 326}[row.cohort]
        a, b = dice.loc[(row.better, row.cohort)], dice.loc[(row.worse, row.cohort)]
        va, vb = a["dice_std"] ** 2 / n, b["dice_std"] ** 2 / n
        t = (a["dice_mean"] - b["dice_mean"]) / np.sqrt(va + vb)
        freedom = (va + vb) ** 2 * (n - 1) / (va**2 + vb**2)
        assert row.p_welch == pytest.approx(2 * stats.t.sf(abs(t), freedom))
        assert row.p_pooled == pytest.approx(2 * stats.t.sf(abs(t), 2 * n - 2))
        assert row.difference == pytest.approx(a["dice_mean"] - b["dice_mean"])


def test_one_published_p_is_out_of_reach_of_an_unpaired_test(checked):
    never = checked[checked["agrees_welch"] == published.DISAGREES]
    assert never[KEY].values.tolist() == [["unet-covid", "sifa-cap-to-covid", "cap"]]
    assert never[KEY].equals(checked.loc[checked["agrees_pooled"] == published.DISAGREES, KEY])
    assert never["p_welch"].item() == pytest.approx(0.066, abs=0.0005)
    equal = checked[checked["published_p"] == "p = 0.23"]
    assert equal["agrees_welch"].tolist() == [published.ROUNDED]
    rest = checked.drop([*never.index, *equal.index])
    assert len(rest) == 16 and (rest["agrees_welch"] == published.AGREES).all()
    assert (rest["p_welch_high"] < 0.001).all() and (rest["r_low_rounded"] == -1).all()


def test_every_p_within_rounding_is_inside_its_range(checked):
    rng, dice = np.random.default_rng(1), load_published("table1").set_index(["experiment", "cohort"])
    for row in checked.itertuples():
        a, b = (dice.loc[(name, row.cohort)].to_numpy() for name in (row.better, row.worse))
        shift = rng.uniform(-published.ROUNDING, published.ROUNDING, (4, 500))
        for name, equal in (("welch", False), ("pooled", True)):
            p = stats.ttest_ind_from_stats(
                a[0] + shift[0], a[1] + shift[1], row.images, b[0] + shift[2], b[1] + shift[3], row.images, equal
            ).pvalue
            low, high = getattr(row, f"p_{name}_low"), getattr(row, f"p_{name}_high")
            assert (p >= low * (1 - 1e-9)).all() and (p <= high * (1 + 1e-9)).all()
            assert low <= getattr(row, f"p_{name}") <= high  # the smallest are 0 as float


@pytest.mark.parametrize("r", [-0.5, 0.0, 0.7])
def test_correlation_gives_back_the_paired_test_of_a_sample(r):
    a, b = samples(0.6, 0.55, 0.2, 0.3, r, 80)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(r)
    p = stats.ttest_rel(a, b).pvalue
    assert published.correlation_for(p, 0.05, 0.2, 0.3, 80) == pytest.approx(r)


def test_a_paired_test_holds_just_above_the_correlation_and_not_below(checked):
    row = checked[checked["agrees_welch"] == published.DISAGREES].iloc[0]
    p = [stats.ttest_rel(*samples(0.36, 0.33, 0.24, 0.17, row["r_low"] + step, 326)).pvalue for step in (-0.01, 0.01)]
    assert p[0] > 0.001 > p[1]
    assert row["r_low_rounded"] < row["r_low"] < row["r_high"] == 1
    equal = checked[checked["published_p"] == "p = 0.23"].iloc[0]
    for r, p in ((equal["r_low"], 0.235), (equal["r_high"], 0.225)):
        assert stats.ttest_rel(*samples(0.35, 0.33, 0.26, 0.17, r, 326)).pvalue == pytest.approx(p)


def test_a_claim_that_no_correlation_saves():
    checked = published.check_claims(*one_claim(means=(0.5, 0.5), stds=(0.2, 0.3), images=10)).iloc[0]
    assert np.isnan(checked["r_low"]) and np.isnan(checked["r_high"])
    assert checked["direction"] == published.ROUNDED and checked["p_welch_high"] == pytest.approx(1)
    paired = published.claims_text(published.check_claims(*one_claim(means=(0.5, 0.5))))[1]
    assert paired["r, as printed"].item() == "no r"


def test_a_difference_the_other_way_is_named():
    assert published.check_claims(*one_claim(means=(0.5, 0.6)))["direction"].item() == published.DISAGREES
    assert published.check_claims(*one_claim(means=(0.6, 0.59)))["direction"].item() == published.ROUNDED


def test_text_shows_a_range_only_where_rounding_matters(checked):
    unpaired, paired = published.claims_text(checked.assign(r=np.linspace(-0.5, 0.5, len(checked))))
    assert unpaired["p, Welch"].tolist().count("< 0.001") == 16
    assert unpaired["p, Welch"].iloc[11].startswith("0.066 (0.012 to ")
    assert unpaired["published p"].iloc[[0, 17]].tolist() == ["< 0.001", "0.23"]
    assert paired["r, as printed"].iloc[[0, 11]].tolist() == ["any r", "r > 0.73"]
    assert paired["r in this study"].iloc[0] == "-0.50" and paired.index.equals(unpaired.index)
    assert "r in this study" not in published.claims_text(checked)[1]


def test_what_disagrees_is_found_and_nothing_else():
    numbers = published.check_numbers().set_index("check")
    wrong = numbers[~numbers["agrees"]]
    assert wrong[["stated", "found"]].values.tolist() == [[7, 6], [18, 17]]
    assert wrong.index[0].startswith("patients of CAP")
    assert numbers.loc["images of COVID-19, sum of the folds", "found"] == 319 + 319 + 339


def test_bounds_notice_impossible_rows(monkeypatch):
    def impossible(name):
        table = load_published(name)
        if name == "table1":
            table.loc[0, "dice_std"], table.loc[1, "dice_mean"] = 0.6, 0.9
        return table

    monkeypatch.setattr(published, "load_published", impossible)
    assert [row[1:] for row in published._bounds()] == [(14, 13), (14, 13)]


def test_bounds_hold_for_any_images():
    """Mean Dice of random counts against 2 s / (1 + s), standard deviations against their bound."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        tp, fp, fn = rng.integers(1, rng.integers(2, 60), (3, 7))
        dice, s = 2 * tp / (2 * tp + fp + fn), (tp / (tp + fn)).mean()
        assert dice.mean() <= 2 * s / (1 + s) + 1e-12
        assert dice.std(ddof=1) <= np.sqrt(dice.mean() * (1 - dice.mean()) * 7 / 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_relation": ">"}, "p_relation: expected '<' or '=', received '>'"),
        ({"stds": (0.2, 0.0)}, "'b' on 'cap': expected dice_std above 0.005, received 0"),
    ],
)
def test_claims_that_cannot_be_checked_are_named(change, message):
    with pytest.raises(LusbookError, match=message):
        published.check_claims(*one_claim(**change))


def test_missing_rows_are_named():
    claims, table1, cohorts = one_claim()
    with pytest.raises(LusbookError, match="Table 1: expected a row of 'b' on 'cap', received none"):
        published.check_claims(claims, table1.head(1), cohorts)
    with pytest.raises(LusbookError, match="expected images of 'cap', received cohorts \\['flu'\\]"):
        published.check_claims(claims, table1, cohorts.assign(cohort="flu"))
