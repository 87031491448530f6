"""The published values, and ours beside them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lusbook import tables
from lusbook.errors import LusbookError
from lusbook.rows import default_route
from lusbook.tables import dice_table, fold_table, load_published, metric_table, route_table
from tests.helpers import random_rows as study

EXPERIMENTS = list(load_published("names")["experiment"])
TITLES = list(load_published("names")["name"])


def test_published_numbers_add_up():
    cohorts, folds = load_published("cohorts").set_index("cohort"), load_published("folds")
    sums = folds.groupby("cohort")[["patients", "images"]].sum()
    assert sums.loc["covid"].tolist() == cohorts.loc["covid", ["patients_reported", "images"]].tolist()
    assert sums.loc["cap", "images"] == cohorts.loc["cap", "images"]
    # The paper's own inconsistency: its CAP folds hold one patient fewer than it reports.
    assert sums.loc["cap", "patients"] == cohorts.loc["cap", "patients_reported"] - 1


def test_published_tables_hold_seven_experiments_on_two_cohorts():
    published = [name for name in EXPERIMENTS if name != "unet-joint"]
    for name, values in (("table1", ["dice_mean", "dice_std"]), ("table2", ["sensitivity", "specificity"])):
        table = load_published(name)
        pairs = table[["experiment", "cohort"]].itertuples(index=False, name=None)
        assert list(pairs) == list(itertools.product(published, ["covid", "cap"]))
        assert table[values].stack().between(0, 1).all()


def test_published_claims_agree_with_published_means():
    claims = load_published("claims")
    means = load_published("table1").set_index(["experiment", "cohort"])["dice_mean"]
    assert not claims.duplicated(["better", "worse", "cohort"]).any()
    for claim in claims.itertuples():
        assert means[claim.better, claim.cohort] > means[claim.worse, claim.cohort]
    # Ten above (five methods, two test sets), eight below; only one of them is not a difference.
    assert claims["better"].eq("sifa-covid-to-cap").sum() == 10
    assert claims["worse"].eq("sifa-cap-to-covid").sum() == 2 + 8
    assert claims["p_relation"].value_counts().to_dict() == {"<": 17, "=": 1}


def test_an_unknown_published_table_is_named():
    with pytest.raises(
        LusbookError, match="'table3' is not known; expected one of claims, cohorts, comparisons, folds"
    ):
        load_published("table3")


def test_table1_prints_ours_beside_the_published():
    per_image = study()
    table = tables.table1(per_image)
    assert list(table.columns) == ["COVID-19 ours", "COVID-19 published", "CAP ours", "CAP published"]
    assert list(table.index) == TITLES
    chosen = per_image.query("experiment == 'sifa-covid-to-cap' and cohort == 'covid' and route == 'translated'")
    mean, std = chosen["dice"].mean(), chosen["dice"].std()
    assert table.loc[TITLES[4]].tolist()[:2] == [f"{mean:.2f} ± {std:.2f}", "0.87 ± 0.13"]
    assert table.loc[TITLES[0], "COVID-19 published"] == "0.60 ± 0.26"
    assert table.iloc[-1][["COVID-19 published", "CAP published"]].tolist() == ["–", "–"]


def test_one_cell_has_ours_with_its_interval_and_the_published():
    rows = [("unet-cap", "covid", 0.5, 0.4, 0.6), ("unet-joint", "cap", 0.7, np.nan, np.nan)]
    table = tables.beside_published(
        pd.DataFrame(rows, columns=["experiment", "cohort", "mean", "mean_low", "mean_high"])
    )
    assert list(table.columns) == ["COVID-19", "CAP"]
    assert table.loc["U-Net (CAP)"].tolist() == ["0.50 (0.40 to 0.60); published 0.52", "not run; published 0.43"]
    assert table.loc["U-Net (COVID-19 and CAP jointly)"].tolist() == ["not run", "0.70"]


def test_table2_has_both_metrics_of_each_cohort():
    per_image = study()
    table = tables.table2(per_image)
    heads = [f"{cohort} {metric}" for cohort in ("COVID-19", "CAP") for metric in ("sensitivity", "specificity")]
    assert list(table.columns) == list(itertools.product(heads, ("ours", "published")))
    mean = per_image.query("experiment == 'unet-cap' and cohort == 'cap'")["specificity"].mean()
    assert table.loc["U-Net (CAP)"].tolist()[-2:] == [f"{mean:.2f}", "0.93"]


def test_a_partial_study_says_what_was_not_run():
    per_image = study(["unet-cap", "sifa-cap-to-covid"], folds=(0, 1, 2))
    per_image = per_image[(per_image["experiment"] != "unet-cap") | (per_image["fold"] == 0)]
    table = tables.table1(per_image)
    assert table.loc["U-Net (COVID-19)", "CAP ours"] == "not run"
    assert table.loc["U-Net (COVID-19)", "CAP published"] == "0.36 ± 0.24"
    assert table.loc["U-Net (CAP)", "CAP ours"].endswith(" (1 of 3 folds)")
    assert "folds" not in table.loc["SIFA (CAP Source / COVID-19 Target)", "CAP ours"]
    assert tables.table2(per_image).loc["U-Net (CAP)", ("CAP sensitivity", "ours")].endswith(" (1 of 3 folds)")


def test_no_rows_at_all():
    nothing = study().iloc[:0]
    assert (tables.table1(nothing)[["COVID-19 ours", "CAP ours"]] == "not run").all(axis=None)
    assert (tables.table2(nothing).xs("ours", axis=1, level=1) == "not run").all(axis=None)
    assert dice_table(nothing).empty and route_table(nothing).empty
    assert fold_table(nothing).isna().all(axis=None)


def test_an_experiment_beyond_the_paper_comes_last():
    per_image = pd.concat([study(["unet-joint"]), study(["unet-cap"]).assign(experiment="another")])
    table = tables.table1(per_image)
    assert list(table.index) == [*TITLES, "another"]
    assert table.loc["another", "CAP published"] == "–" and "±" in table.loc["another", "CAP ours"]
    assert dice_table(per_image)["experiment"].tolist() == ["unet-joint"] * 2 + ["another"] * 2


def test_dice_table_is_in_the_papers_order_whatever_the_rows():
    per_image = study()
    table = dice_table(per_image)
    assert list(dict.fromkeys(table["experiment"])) == EXPERIMENTS
    assert table["cohort"].tolist() == ["covid", "cap"] * 8
    pd.testing.assert_frame_equal(dice_table(per_image.sample(frac=1, random_state=1)), table)


def test_undefined_values_are_counted_and_a_single_image_has_no_spread():
    per_image = study(["unet-cap"], folds=(0,), images=1)
    per_image.loc[per_image["cohort"] == "cap", "sensitivity"] = np.nan
    row = metric_table(per_image, "sensitivity").set_index("cohort").loc["cap"]
    assert (row["n"], row["undefined"]) == (0, 1)
    assert tables.table2(per_image).loc["U-Net (CAP)", ("CAP sensitivity", "ours")] == "–"
    assert tables.table1(per_image).loc["U-Net (CAP)", "CAP ours"].endswith(" ± –")


def test_a_tiny_negative_mean_is_not_minus_zero():
    assert tables.mean_std(-0.001, 0.004) == "0.00 ± 0.00"


def test_route_table_compares_the_two_ways_on_the_source_cohort():
    per_image = study()
    table = route_table(per_image)
    assert table["tested on"].to_dict() == {TITLES[4]: "COVID-19", TITLES[5]: "COVID-19", TITLES[6]: "CAP"}
    rows = per_image.query("experiment == 'sifa-cap-to-covid' and cohort == 'cap'")
    means = rows.groupby("route")["dice"].mean()
    assert table.loc[TITLES[6], "difference"] == pytest.approx(means["translated"] - means["direct"])
    assert table.loc[TITLES[6], "direct"].startswith(f"{means['direct']:.2f} ± ")


def test_selection_table_sets_other_weights_beside_the_last():
    per_image = study(["unet-covid", "sifa-covid-to-cap"])
    rows = default_route(per_image)
    rows = rows[rows["experiment"] == "sifa-covid-to-cap"]
    others = [rows.assign(weights=name) for name in ("average", "label-free")]
    best = rows.assign(weights="oracle", dice=1.0)
    selection = pd.concat([*others, best]).drop(columns=["sensitivity", "specificity"])
    table = tables.selection_table(per_image, selection)
    assert table.index.unique("experiment").tolist() == ["SIFA (COVID-19 Source / CAP Target)"]
    table = table.droplevel("experiment")
    for cohort, name in (("covid", "COVID-19"), ("cap", "CAP")):
        dice = rows.loc[rows["cohort"] == cohort, "dice"]
        same = f"{dice.mean():.2f} ± {dice.std():.2f}"
        row = table.loc[name, ["last", "average", "label-free choice", "oracle (leak)"]]
        assert row.tolist() == [same, same, same, "1.00 ± 0.00"]


def test_spread_table_is_over_the_means_of_the_seeds():
    parts = [
        study(["sifa-covid-to-cap"], seed=seed).assign(seed=seed, sifa_updates=way)
        for way, seed in (("sequential", 0), ("simultaneous", 0), ("simultaneous", 1))
    ]
    table = tables.spread_table(pd.concat(parts), "sifa_updates")
    assert table.index.names == ["updates", "tested on"]
    means = [default_route(part).groupby("cohort")["dice"].mean() for part in parts]
    row = table.loc["simultaneous", "CAP"]
    assert row["n"] == 2
    assert row["seed 1"] == pytest.approx(means[2]["cap"])
    assert row["mean"] == pytest.approx(np.mean([means[1]["cap"], means[2]["cap"]]))
    assert row["SD"] == pytest.approx(np.std([means[1]["cap"], means[2]["cap"]], ddof=1))
    alone = table.loc["sequential", "COVID-19"]
    assert alone["n"] == 1 and np.isnan(alone["SD"]) and np.isnan(alone["seed 1"])


def test_variants_table_has_a_column_for_each_value():
    one, other = (
        study(["unet-covid"], seed=seed).assign(precision=p) for seed, p in enumerate(["float32", "bfloat16"])
    )
    table = tables.variants_table(pd.concat([one, other]), "precision")
    dice = other.loc[other["cohort"] == "cap", "dice"]
    assert table.loc[("U-Net (COVID-19)", "CAP"), "bfloat16"] == f"{dice.mean():.2f} ± {dice.std():.2f}"


def test_fold_table_averages_over_the_images_of_a_fold():
    per_image = study()
    table = fold_table(per_image)
    assert list(table.columns) == ["COVID-19 fold 0", "COVID-19 fold 1", "CAP fold 0", "CAP fold 1"]
    expected = per_image.query("experiment == 'unet-joint' and cohort == 'cap' and fold == 1")["dice"].mean()
    assert table.loc[TITLES[-1], "CAP fold 1"] == pytest.approx(expected)


def test_means_of_parts_are_those_of_the_whole():
    per_image = study()
    per_image.loc[per_image.index[::7], "sensitivity"] = np.nan
    for metric in ("dice", "sensitivity"):
        whole = metric_table(per_image, metric)
        groups = per_image.groupby(["experiment", "cohort"], sort=False)[metric]
        expected = groups.agg(["mean", "std", "count"]).loc[whole[["experiment", "cohort"]].itertuples(index=False)]
        np.testing.assert_allclose(whole[["mean", "std", "n"]], expected)
        by_fold = metric_table(per_image, metric, ["experiment", "cohort", "fold"])
        pd.testing.assert_frame_equal(tables.together(by_fold, ["experiment", "cohort"]), whole)
        parts = (part for _, part in per_image.groupby(np.arange(len(per_image)) % 5))
        pd.testing.assert_frame_equal(metric_table(parts, metric), whole)


def test_table1_against_exact_masks():
    per_image = study().assign(dice_truth=0.25)
    assert (tables.table1(per_image, "dice_truth")[["COVID-19 ours", "CAP ours"]] == "0.25 ± 0.00").all(axis=None)


def test_an_unknown_metric_is_refused():
    with pytest.raises(LusbookError, match="received 'accuracy'"):
        metric_table(study(), "accuracy")


def test_conditions_side_by_side():
    rows = [("a", "covid19", 4, 2, 0.5, 0.61, 0.5, 0.7), ("b", "covid19", 4, 2, 0.5, np.nan, np.nan, np.nan)]
    rows += [
        ("a", "healthy_lung", 2, 1, 1.0, np.nan, np.nan, np.nan),
        ("b", "healthy_lung", 2, 1, 1.0, 0.5, np.nan, np.nan),
    ]
    names = ["arm", "condition", "clips", "patients", "flagged", "auroc", "low", "high"]
    table = tables.condition_table(pd.DataFrame(rows, columns=names))
    assert table.loc["a", "COVID-19: 4 clips, 2 patients, 50 % flagged"] == "0.61 (0.50 to 0.70)"
    assert table.loc["b"].tolist() == [tables.NO_VALUE, "0.50"]
    assert table.columns[1].startswith("healthy lung: 2 clips, 1 patient, ")


def test_attempts_on_both_halves():
    rows = [("a", "p", "", "A", 0.5), ("a", "p", "", "B", 0.75), ("b", "p", "A", "A", 0.6), ("b", "p", "A", "B", 0.7)]
    rows += [("b", "p", "B", "A", 0.55), ("b", "p", "B", "B", 0.65), ("b", "q", "B", "B", 0.9)]
    rated = pd.DataFrame(rows, columns=["attempt", "pooling", "adapted", "half", "auroc"])
    table = tables.attempts_table(rated, "p")
    assert table.loc["a"].tolist() == ["0.500", "0.500", "0.750", "0.750"]
    assert table.loc["b"].tolist() == ["0.600", "0.550", "0.650", "0.700"]


def test_differences_secondary_and_chosen_are_texts():
    rows = [("x", "ref", 0.05, -0.02, 0.1), ("ref", "other", -0.1, -0.2, -0.01), ("x", "other", 0.0, -0.1, 0.1)]
    rows += [("other", "ref", 0.1, 0.01, 0.2)]
    differences = pd.DataFrame(rows, columns=["arm", "reference", "difference", "low", "high"])
    table = tables.differences_table(differences)
    assert table.loc["x", "less ref"] == "0.05 (-0.02 to 0.10)"
    assert table.loc["ref", "less ref"] == tables.NO_VALUE and table.index.tolist()[0] == "x"
    secondary = pd.DataFrame(
        [("a", 0.1, -0.1, 0.3, 0.6, 0.5, 0.7, 0.058, 0.73), ("b", *[np.nan] * 8)],
        columns="arm spearman spearman_low spearman_high severe severe_low severe_high area_no neighbours".split(),
    )
    table = tables.secondary_table(secondary)
    assert table.loc["a"].tolist() == ["0.10 (-0.10 to 0.30)", "0.60 (0.50 to 0.70)", "5.8 %", "0.73"]
    assert set(table.loc["b"]) == {tables.NO_VALUE}
    chosen = pd.DataFrame(
        [("A", "one", "p", 0.7, 0.6, 0.5, 0.7, 9), ("both", "", "", 0.7, 0.6, 0.5, 0.7, 18)],
        columns=["chosen_on", "attempt", "pooling", "auroc_there", "auroc", "low", "high", "clips"],
    )
    table = tables.chosen_table(chosen.assign(family="SIFA"))
    assert table.loc[("SIFA", "half A"), "AUROC on the other half"] == "0.60 (0.50 to 0.70)"
    assert table.loc[("SIFA", "each half, mean"), "attempt"] == tables.NO_VALUE


def test_tables_of_the_phantom_are_in_words():
    distances = pd.DataFrame({"set": ["phantom, cap", "other source"], "snr": [0.1, 0.2], "frechet": [1.0, 2.0]})
    table = tables.distances_table(distances)
    assert table.index.tolist() == ["phantom, CAP", "other source"] and list(table) == ["speckle SNR", "Fréchet"]
    agreement = pd.DataFrame({"cohort": ["covid", "covid", "cap"], "annotators": [0.8, 0.9, 0.5], "truth": 0.7})
    table = tables.annotators_table(agreement)
    assert table["two annotators"].to_dict() == pytest.approx({"COVID-19": 0.85, "CAP": 0.5})
    shapes = pd.DataFrame({"set": ["a"], "lines": [3], "low": [1.0], "one": [0.5], "frames": [2]})
    heads = ["B-lines", "length / width, lower quartile", "share with one", "frames"]
    assert list(tables.shapes_table(shapes)) == heads


def test_parameters_beside_the_published():
    table = tables.parameters_table({"generator": 1234567}, 0.125)
    assert table.loc["generator"].tolist() == ["G", "2,849,537", "1,234,567"]
    assert table.columns[-1] == "ours, width 0.125" and "discriminator, source images" in table.index


def test_auroc_with_its_interval_and_n():
    rows = [("b", 1, 9, 3, 0.61, 0.5, 0.7), ("a", 0, 9, 3, 0.5, np.nan, np.nan)]
    evaluated = pd.DataFrame(rows, columns=["arm", "seed", "clips", "patients", "auroc", "low", "high"])
    table = tables.auroc_table(evaluated)
    assert table.loc["b"].tolist() == [9, 3, "0.610 (0.500 to 0.700)"] and table.index.tolist() == ["b", "a"]
    assert tables.auroc_table(evaluated, ("arm", "seed")).index.tolist() == [("a", 0), ("b", 1)]


def test_tests_are_rows_of_pairs():
    tests = {"better": ["unet-cap"], "worse": ["unet-covid"], "cohort": ["cap"], "published_difference": [0.1]}
    tests |= {"mean_difference": [np.nan], "published_p": ["p = 0.23"], "p_paired": [0.0002], "p_unpaired": [0.5]}
    table = tables.tests_table(pd.DataFrame(tests | {"n": [3], "verdict": ["reproduced"]}))
    row = table.loc[("U-Net (CAP)", "U-Net (COVID-19)", "CAP")]
    assert row.tolist() == ["0.10", "–", "0.23", "< 0.001", "0.500", 3, "reproduced"]
