"""Statistics over patients against plain loops, and that a patient counts once however many the images."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lusbook import patients
from lusbook.errors import LusbookError
from lusbook.metrics import dice, sensitivity, specificity
from lusbook.paired import sign_flip_test
from lusbook.statistics import bootstrap_ci
from lusbook.tables import load_published

FEW = 50  # resamples, where the interval itself is not looked at
PAIRS = [("unet-cap", "covid"), ("unet-cap", "cap"), ("sifa-cap-to-covid", "cap")]
CLAIMS = pd.DataFrame([("unet-covid", *pair) for pair in PAIRS], columns=["better", "worse", "cohort"])
MEANS = {"unet-covid": 0.7, "unet-cap": 0.5, "sifa-cap-to-covid": 0.4}


def study(experiments=tuple(MEANS), seed=0, images=(2, 3, 4, 5)):
    """Per-image rows of four patients a cohort in two folds; SIFA has two routes on its source cohort."""
    rng, rows = np.random.default_rng(seed), []
    for name, cohort, (number, count) in itertools.product(experiments, ("covid", "cap"), enumerate(images)):
        for image, route in itertools.product(range(count), ("direct", "translated")):
            if route == "translated" and not (name == "sifa-cap-to-covid" and cohort == "cap"):
                continue
            tp, fp, fn = rng.integers(1, 40, 3) + np.array([int(60 * MEANS.get(name, 0.5)), 0, 0])
            key = {"experiment": name, "fold": number % 2, "cohort": cohort, "patient": f"p{number}", "image": image}
            rows.append(key | {"route": route, "tp": tp, "fp": fp, "fn": fn, "tn": 900})
    table = pd.DataFrame(rows)
    table["image"] += 10 * table["patient"].str[1:].astype(int)
    return with_metrics(table)


def with_metrics(table):
    tp, fp, fn, tn = (table[name].to_numpy() for name in ("tp", "fp", "fn", "tn"))
    return table.assign(dice=dice(tp, fp, fn), sensitivity=sensitivity(tp, fn), specificity=specificity(tn, fp))


def rows_of(per_image, experiment, cohort, route="direct"):
    return per_image[
        (per_image["experiment"] == experiment) & (per_image["cohort"] == cohort) & (per_image["route"] == route)
    ]


def test_patient_means_take_the_default_route():
    per_image = study()
    means = patients.patient_means(per_image).set_index(["experiment", "cohort", "patient"])
    assert len(means) == 3 * 2 * 4
    for key, route in ((("sifa-cap-to-covid", "cap"), "translated"), (("unet-cap", "cap"), "direct")):
        rows = rows_of(per_image, *key, route)
        assert means.loc[(*key, "p2"), "dice"] == pytest.approx(rows.loc[rows["patient"] == "p2", "dice"].mean())
        assert means.loc[(*key, "p2"), "images"] == 4


def test_image_means_are_those_of_all_averages():
    per_image = study()
    means, averages = patients.image_means(per_image, FEW), patients.averages(per_image, FEW)
    key = ["experiment", "cohort"]
    of_all = averages.set_index(key)[["image_mean", "image_mean_low", "image_mean_high"]]
    np.testing.assert_allclose(means.set_index(key).loc[of_all.index], of_all)
    assert patients.image_means(per_image[:0], FEW).empty


def test_comparisons_are_of_the_patients_means():
    per_image = study()
    compared = patients.compare_patients(per_image, CLAIMS, FEW)
    row = compared.iloc[2]
    a, b = rows_of(per_image, "unet-covid", "cap"), rows_of(per_image, "sifa-cap-to-covid", "cap", "translated")
    differences = a.groupby(["fold", "patient"])["dice"].mean() - b.groupby(["fold", "patient"])["dice"].mean()
    assert (row["patients"], row["images"]) == (4, 14)
    assert row["mean"] == pytest.approx(differences.mean()) and row["median"] == pytest.approx(differences.median())
    assert row["dz"] == pytest.approx(differences.mean() / differences.std())
    assert row["p_permutation"] == pytest.approx(sign_flip_test(differences))
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert row["p_smallest"] == 2 / 2**4
    assert row["r"] == pytest.approx(np.corrcoef(a["dice"], b["dice"])[0, 1])
    assert row["published"] == pytest.approx(0.36 - 0.33)
    ends = bootstrap_ci(differences, range(4), np.mean, FEW)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx(ends)


def test_the_adjustment_is_over_the_whole_family():
    compared = patients.compare_patients(study(), CLAIMS, FEW)
    p = np.sort(compared["p_permutation"])
    expected = np.maximum.accumulate(np.minimum(1, p * np.arange(3, 0, -1)))
    assert np.sort(compared["holm_permutation"]) == pytest.approx(expected)
    alone = patients.compare_patients(study(), CLAIMS.head(1), FEW)
    assert alone["holm_permutation"].item() == alone["p_permutation"].item()


def test_order_of_rows_and_copies_of_images_change_nothing():
    per_image = study()
    compared = patients.compare_patients(per_image, CLAIMS, FEW)
    shuffled = patients.compare_patients(per_image.sample(frac=1, random_state=3), CLAIMS, FEW)
    exact = ["mean", "median", "dz", "p_permutation", "p_wilcoxon", "images"]
    pd.testing.assert_frame_equal(compared[exact], shuffled[exact])
    copied = pd.concat([per_image, per_image.assign(image=per_image["image"] + 1000)])
    twice = patients.compare_patients(copied, CLAIMS, FEW)
    exact.remove("images")
    pd.testing.assert_frame_equal(compared[exact], twice[exact])
    assert (twice["images"] == 2 * compared["images"]).all()


def test_what_was_not_run_is_no_part_of_the_family():
    compared = patients.compare_patients(study(["unet-covid", "unet-cap"]), CLAIMS, FEW)
    assert compared["patients"].tolist() == [4, 4, 0]
    assert np.isnan(compared.loc[2, ["mean", "mean_low", "dz", "p_permutation", "holm_wilcoxon"]].astype(float)).all()
    expected = patients.compare_patients(study(["unet-covid", "unet-cap"]), CLAIMS.head(2), FEW)
    assert compared["holm_wilcoxon"][:2].tolist() == expected["holm_wilcoxon"].tolist()
    differences, tests = patients.compared_text(compared)
    assert differences["mean A - B"].iloc[2] == "–" and tests["sign flips: Holm"].iloc[2] == "–"
    assert differences.index.equals(tests.index) and differences.index.names == ["A", "B", "tested on"]


def test_the_papers_claims_are_the_default_family():
    compared = patients.compare_patients(study(), n_resamples=FEW)
    assert compared[["better", "worse", "cohort"]].equals(load_published("claims")[["better", "worse", "cohort"]])


def test_methods_that_do_not_differ():
    per_image = study(["unet-cap"])
    same = pd.concat([per_image, per_image.assign(experiment="unet-covid")])
    row = patients.compare_patients(same, CLAIMS.head(1), FEW).iloc[0]
    assert (row["mean"], row["rank_biserial"], row["p_permutation"], row["p_wilcoxon"]) == (0, 0, 1, 1)
    assert np.isnan(row["dz"])


@pytest.mark.parametrize("claims", [CLAIMS.drop(columns="worse"), CLAIMS.head(0)])
def test_claims_that_cannot_be_read_are_refused(claims):
    with pytest.raises(LusbookError, match="claims: expected columns better, worse, cohort and a row, received"):
        patients.compare_patients(study(), claims)


def test_three_averages_by_hand():
    per_image = study()
    table = patients.averages(per_image, FEW).set_index(["experiment", "cohort"])
    rows = rows_of(per_image, "unet-covid", "cap")
    row = table.loc[("unet-covid", "cap")]
    means = rows.groupby("patient")["dice"].mean()
    assert row[["image_mean", "image_median"]].tolist() == pytest.approx([rows["dice"].mean(), rows["dice"].median()])
    assert row[["patient_mean", "patient_median"]].tolist() == pytest.approx([means.mean(), means.median()])
    tp, fp, fn = (rows[name].sum() for name in ("tp", "fp", "fn"))
    assert row["pooled"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert (row["patients"], row["images"]) == (4, 14)
    for name in ("image_mean", "patient_mean", "pooled"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    low, high = bootstrap_ci(rows["dice"], rows["patient"], np.mean, FEW)
    assert (row["image_mean_low"], row["image_mean_high"]) == (low, high)
    text = patients.averages_text(table.reset_index())
    assert text.columns.tolist()[-1] == "pooled pixels" and len(text) == 6
    assert text.loc[("U-Net (COVID-19)", "CAP"), "images"] == 14


def test_one_patient_has_no_interval():
    per_image = study()
    row = patients.averages(per_image[per_image["patient"] == "p0"], FEW).iloc[0]
    assert row["patients"] == 1 and np.isnan(row[["image_mean_low", "pooled_high"]].astype(float)).all()


def test_rules_for_empty_masks():
    per_image = study(["unet-cap"])
    covid = per_image.index[per_image["cohort"] == "covid"]
    per_image.loc[covid[:2], ["tp", "fp", "fn"]] = 0  # both empty
    per_image.loc[covid[2], ["tp", "fn"]] = 0  # label empty
    per_image.loc[covid[3:6], ["tp", "fp"]] = 0  # prediction empty
    per_image = with_metrics(per_image)
    table = patients.empty_masks(per_image).set_index("cohort")
    counts = ["images", "empty_label", "empty_prediction", "both_empty"]
    assert table.loc["covid", counts].tolist() == [14, 3, 5, 2]
    assert table.loc["cap", counts].tolist() == [14, 0, 0, 0]
    others = per_image.loc[covid[2:], "dice"]
    expected = {"one": (others.sum() + 2) / 14, "zero": others.sum() / 14, "left_out": others.mean()}
    assert table.loc["covid", list(expected)].tolist() == pytest.approx(list(expected.values()))
    assert table.loc["cap", list(expected)].nunique() == 1
    all_empty = with_metrics(per_image.assign(tp=0, fp=0, fn=0))
    row = patients.empty_masks(all_empty).iloc[0]
    assert (row["one"], row["zero"]) == (1, 0) and np.isnan(row["left_out"])


def test_spread_over_seeds_is_apart_from_spread_over_patients():
    runs = [study(["unet-cap"], seed=seed).assign(seed=seed) for seed in range(3)]
    row = patients.spreads(pd.concat(runs), FEW).set_index("cohort").loc["cap"]
    parts = [rows_of(run, "unet-cap", "cap") for run in runs]
    means = [part["dice"].mean() for part in parts]
    assert (row["seeds"], row["patients"], row["images"]) == (3, 4, 14)
    assert row["mean"] == pytest.approx(np.mean(means)) and row["sd_seeds"] == pytest.approx(np.std(means, ddof=1))
    assert row["sd_images"] == pytest.approx(np.mean([part["dice"].std() for part in parts]))
    assert row["sd_patients"] == pytest.approx(
        np.mean([part.groupby("patient")["dice"].mean().std() for part in parts])
    )
    ends = [bootstrap_ci(part["dice"], part["patient"], np.mean, FEW) for part in parts]
    assert row["interval_width"] == pytest.approx(np.mean([high - low for low, high in ends]))
    # Of three normal values: from 0.52 to 6.28 times their SD, as tables of the chi-squared distribution have it.
    assert [row["sd_seeds_low"], row["sd_seeds_high"]] / row["sd_seeds"] == pytest.approx([0.5207, 6.2847], abs=1e-3)


def test_a_single_seed_has_no_spread_over_seeds():
    spread = patients.spreads(study(["unet-cap"]).assign(seed=7), FEW)
    assert spread["seeds"].tolist() == [1, 1] and spread["sd_seeds"].isna().all()
    assert spread["interval_width"].notna().all()
    assert patients.spreads_text(spread)["SD over seeds"].tolist() == ["–", "–"]


def test_seeds_of_several_experiments_are_refused():
    with pytest.raises(LusbookError, match="expected runs of one experiment, received \\['sifa-cap-to-covid'"):
        patients.spreads(study().assign(seed=0))


def test_runs_computed_twice_are_compared_image_by_image():
    first = study()
    moved = (first["experiment"] == "unet-cap") & (first["image"] == 11)
    again = with_metrics(first.assign(tp=first["tp"] + 9 * moved))
    again = pd.concat([again[again["experiment"] != "sifa-cap-to-covid"], study(["sifa-covid-to-cap"])])
    table = patients.repeats(first, again).set_index(["experiment", "cohort"])
    assert list(table.index) == list(itertools.product(("unet-covid", "unet-cap"), ("covid", "cap")))
    assert (table["images"] == 14).all() and table["equal"].tolist() == [14, 14, 13, 13]
    one = first[moved & (first["cohort"] == "cap")].iloc[0]
    by = dice(one["tp"] + 9, one["fp"], one["fn"]) - one["dice"]
    row = table.loc[("unet-cap", "cap")]
    assert row["again"] - row["first"] == pytest.approx(by / 14) and row["largest"] == pytest.approx(by)
    text = patients.repeats_text(table.reset_index(), ("here", "there"))
    assert text["same Dice"].tolist() == ["14", "14", "13", "13"] and text["difference"].iloc[0] == "+0.00"
    assert list(text)[2:4] == ["here", "there"]
    with pytest.raises(LusbookError, match="repeats: expected the same images twice, received .*unet-cap.* once"):
        patients.repeats(first, again[(again["experiment"] != "unet-cap") | (again["image"] != 11)])
