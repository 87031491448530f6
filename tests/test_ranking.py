"""What other measures and thresholds change: means, orders and gains, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lusbook import ranking
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.secondary import EXACT
from lusbook.statistics import bootstrap_ci

NAMES = list(EXPERIMENTS)[:4]


def images(experiments=NAMES, seed=0):
    """Random measures of 40 images of four unequal patients; the better the experiment, the higher its Dice."""
    rng, tables = np.random.default_rng(seed), []
    for number, name in enumerate(experiments):
        table = pd.DataFrame(
            {"experiment": name, "cohort": "covid", "patient": np.repeat(list("abcd"), [4, 8, 12, 16])}
        )
        table["dice"] = (0.9 - number / 10) + rng.normal(0, 0.02, 40)
        table["nsd"], table["hd95"] = rng.random(40), rng.random(40)
        table["lines"] = rng.integers(0, 4, 40)
        table["found"] = rng.integers(0, table["lines"] + 1)
        table["false_lines"] = rng.integers(0, 3, 40)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table.loc[[0, 5, 6], "hd95"] = np.nan
    return table


def thresholds(dice, cohort="covid"):
    """Mean Dice by experiment, as a dict of threshold to one value each of two patients of 10 and 30 images."""
    rows = [
        {"experiment": name, "fold": fold, "cohort": cohort, "patient": f"p{fold}", "threshold": threshold}
        | {"dice": values[fold], "images": (10, 30)[fold]}
        for name, by_threshold in dice.items()
        for threshold, values in by_threshold.items()
        for fold in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_values_are_means_over_images_and_intervals_the_bootstrap_of_images():
    table = images()
    summary = ranking.summarise(table).set_index(["experiment", "measure"])
    for name, group in table.groupby("experiment"):
        for measure in ("dice", "nsd", "hd95", "false_lines"):
            row, known = summary.loc[(name, measure)], group.dropna(subset=measure)
            assert row["value"] == pytest.approx(known[measure].mean())
            expected = bootstrap_ci(known[measure], known["patient"], np.mean)
            assert (row["low"], row["high"]) == pytest.approx(expected)
            assert (row["n"], row["undefined"]) == (len(known), len(group) - len(known))
        row, lined = summary.loc[(name, "found")], group[group["lines"] > 0]
        assert row["value"] == group["found"].sum() / group["lines"].sum() == row["value"]
        assert (row["n"], row["lines"], row["patients"]) == (len(lined), group["lines"].sum(), 4)
    assert summary.loc[(NAMES[0], "hd95"), "undefined"] == 3


def test_a_measure_without_any_value_is_nan_and_shown_as_such():
    table = images(NAMES[:2])
    table.loc[table["experiment"] == NAMES[1], "hd95"] = np.nan
    summary = ranking.summarise(table)
    row = summary[(summary["experiment"] == NAMES[1]) & (summary["measure"] == "hd95")].iloc[0]
    assert np.isnan([row["value"], row["low"], row["high"]]).all() and row["n"] == 0
    text = ranking.summary_table(summary, "covid")
    assert text["HD95, share of side"].iloc[1] == "–" and text["HD95 undefined"].tolist() == [3, 40]


def test_one_patient_has_no_interval():
    row = ranking.summarise(images(NAMES[:1]).query("patient == 'a'")).iloc[0]
    assert not np.isnan(row["value"]) and np.isnan([row["low"], row["high"]]).all()


def test_the_table_is_in_the_papers_order_with_the_exact_masks_last():
    table = ranking.summary_table(ranking.summarise(images([EXACT, *reversed(NAMES)])), "covid")
    assert table.index.tolist()[0] == "U-Net (COVID-19)" and table.index[-1] == EXACT
    assert list(table) == [*ranking.MEASURES.values(), "HD95 undefined"]
    dice = images([EXACT]).groupby("experiment")["dice"].mean()[EXACT]
    assert table.loc[EXACT, "Dice"].startswith(f"{dice:.2f} (")


def test_counts_are_ranges_where_experiments_differ():
    whole = images(NAMES[:2]).assign(lines=2)
    assert ranking.counts(ranking.summarise(whole), "covid") == {"images": "40", "patients": "4", "lines": "80"}
    less = whole[(whole["experiment"] != NAMES[1]) | (whole["patient"] != "a")]
    assert ranking.counts(ranking.summarise(less), "covid")["patients"] == "3 to 4"


def test_orders_are_compared_by_kendalls_tau_and_low_distances_are_good():
    summary = ranking.summarise(images([*NAMES, EXACT]))
    wide = summary.pivot(index="experiment", columns="measure", values="value").loc[NAMES]
    ranked = ranking.rankings(summary).set_index("measure")
    for measure in ranking.MEASURES:
        better = -1 if measure in ("hd95", "false_lines") else 1
        tau = stats.kendalltau(wide["dice"], better * wide[measure]).statistic
        assert ranked.loc[measure, "tau"] == pytest.approx(tau)
        values = better * wide[measure]
        assert ranked.loc[measure, "best"] == tuple(values[values == values.max()].index)
        assert ranked.loc[measure, "worst"] == tuple(values[values == values.min()].index)
    assert ranked.loc["dice", "tau"] == 1 and set(ranked["n"]) == {4}  # exact masks are no experiment


def test_orders_without_a_difference_have_no_tau():
    table = images().assign(false_lines=0)
    ranked = ranking.rankings(ranking.summarise(table)).set_index("measure")
    assert np.isnan(ranked.loc["false_lines", "tau"]) and ranked.loc["dice", "tau"] == 1
    text = ranking.rankings_table(ranked.reset_index())
    assert text.loc[("COVID-19", "false lines a frame"), "tau with Dice"] == "–"
    assert ranked.loc["false_lines", "best"] == ranked.loc["false_lines", "worst"] == tuple(sorted(NAMES))
    assert text.loc[("COVID-19", "false lines a frame"), "best"].count("; ") == 3
    assert np.isnan(ranking.rankings(ranking.summarise(images(NAMES[:1])))["tau"]).all()


def test_the_curve_is_a_mean_over_images():
    curve = ranking.threshold_curve(thresholds({NAMES[0]: {0.4: (0.2, 0.6), 0.5: (0.5, 0.5)}}))
    assert curve["dice"].tolist() == pytest.approx([0.5, 0.5]) and curve["images"].tolist() == [40, 40]


def test_gains_of_the_best_threshold():
    table = thresholds(
        {
            NAMES[0]: {0.4: (0.6, 0.8), 0.5: (0.5, 0.7), 0.6: (0.1, 0.1)},
            NAMES[1]: {0.4: (0.0, 0.0), 0.5: (0.4, 0.4), 0.6: (0.4, 0.4)},
        }
    )
    gains = ranking.threshold_gains(table, 0.5).set_index("experiment")
    assert gains["best"].tolist() == [0.4, 0.5]  # of equal ones the lowest
    np.testing.assert_allclose(gains["gain"], [0.1, 0], atol=1e-12)
    np.testing.assert_allclose(gains["dice"], [0.65, 0.4])
    assert gains["images"].tolist() == [40, 40] and gains["patients"].tolist() == [2, 2]
    text = ranking.threshold_table(gains.reset_index())
    assert text["gain in Dice there"].tolist() == ["0.100 (0.100 to 0.100)", "0.000 (0.000 to 0.000)"]


def test_gains_have_the_interval_of_their_patients():
    gain = ranking.threshold_gains(thresholds({NAMES[0]: {0.5: (0.5, 0.5), 0.6: (0.4, 0.7)}}), 0.5).iloc[0]
    assert (gain["gain"], gain["low"], gain["high"]) == pytest.approx((0.125, -0.1, 0.2))


def test_orders_at_other_thresholds():
    table = thresholds(
        {
            NAMES[0]: {0.3: (0.9, 0.9), 0.5: (0.9, 0.9), 0.7: (0.1, 0.1)},
            NAMES[1]: {0.3: (0.5, 0.5), 0.5: (0.8, 0.8), 0.7: (0.2, 0.2)},
            NAMES[2]: {0.3: (0.6, 0.6), 0.5: (0.7, 0.7), 0.7: (0.3, 0.3)},
        }
    )
    orders = ranking.threshold_rankings(ranking.threshold_curve(table), 0.5)
    assert orders["threshold"].tolist() == [0.3, 0.7] and set(orders["n"]) == {3}
    np.testing.assert_allclose(orders["tau"], [1 / 3, -1])


@pytest.mark.parametrize("function", [ranking.threshold_gains, ranking.threshold_rankings])
def test_a_threshold_that_was_not_measured_is_refused(function):
    table = thresholds({NAMES[0]: {0.4: (0.2, 0.6), 0.5: (0.5, 0.5)}})
    with pytest.raises(LusbookError, match=r"threshold 0.45: expected one of \[0.4, 0.5\]"):
        function(table, 0.45)
