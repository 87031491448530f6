"""t-tests against scipy and by hand, claims, and the bootstrap over patients."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lusbook.errors import LusbookError
from lusbook.statistics import (
    auroc,
    auroc_ci,
    bootstrap_ci,
    compare,
    paired_ttest,
    section3_tests,
    unpaired_ttest,
    verdict,
)
from lusbook.tables import load_published
from tests.helpers import route_of


def rows_of(experiment, dice, cohort="covid", route=None):
    """Per-image rows of one experiment, three images a patient and fold."""
    image = np.arange(len(dice))
    table = {"experiment": experiment, "fold": image // 3, "cohort": cohort, "image": image}
    table["route"] = route or route_of(experiment, cohort)
    table |= {"patient": [f"{cohort}-{i // 3}" for i in image], "dice": dice, "sensitivity": 0.5, "specificity": 0.5}
    return pd.DataFrame(table)


def two_methods(seed=0, n=9, gain=0.2):
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.2, 0.6, n)
    return base + gain + rng.normal(0, 0.05, n), base


def test_paired_test_equals_scipy_and_its_formula():
    a, b = two_methods()
    t, p = paired_ttest(a, b)
    expected = stats.ttest_rel(a, b)
    assert (t, p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert t == pytest.approx(np.mean(a - b) / (np.std(a - b, ddof=1) / 3))
    assert paired_ttest(b, a) == (pytest.approx(-t), pytest.approx(p))


def test_unpaired_test_is_welchs():
    a, b = two_methods()
    t, p = unpaired_ttest(a, b[:5])
    va, vb = np.var(a, ddof=1) / 9, np.var(b[:5], ddof=1) / 5
    freedom = (va + vb) ** 2 / (va**2 / 8 + vb**2 / 4)
    assert t == pytest.approx((a.mean() - b[:5].mean()) / np.sqrt(va + vb))
    assert p == pytest.approx(2 * stats.t.sf(abs(t), freedom))


def test_nan_leave_with_their_pair():
    a, b = two_methods()
    spoiled = a.copy()
    spoiled[2] = np.nan
    keep = np.arange(9) != 2
    assert paired_ttest(spoiled, b) == paired_ttest(a[keep], b[keep])
    assert unpaired_ttest(spoiled, b) == unpaired_ttest(a[keep], b)


@pytest.mark.filterwarnings("error")
def test_nothing_to_test_is_nan_without_a_warning():
    a, b = two_methods()
    for pair in ((a, a), (a, a - 0.1), (a[:1], b[:1]), ([], []), (np.full(9, np.nan), b)):
        assert np.isnan(paired_ttest(*pair)).all()
    for pair in (([1.0, 1.0], [2.0, 2.0]), (a[:1], b), ([], b)):
        assert np.isnan(unpaired_ttest(*pair)).all()


def test_samples_of_different_lengths_cannot_be_paired():
    with pytest.raises(LusbookError, match=r"received \(3,\) and \(2,\)"):
        paired_ttest([1, 2, 3], [1, 2])


def test_compare_matches_images_not_rows():
    a, b = two_methods()
    shuffled = rows_of("unet-cap", b).sample(frac=1, random_state=4)
    result = compare(pd.concat([rows_of("unet-covid", a), shuffled]), "unet-covid", "unet-cap", "covid")
    assert (result["n"], result["unmatched"]) == (9, 0)
    assert result["mean_difference"] == pytest.approx(np.mean(a - b))
    assert result["p_paired"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert result["p_unpaired"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_compare_counts_images_that_only_one_has():
    a, b = two_methods()
    result = compare(
        pd.concat([rows_of("unet-covid", a), rows_of("unet-cap", b[:6])]), "unet-covid", "unet-cap", "covid"
    )
    assert (result["n"], result["unmatched"]) == (6, 3)
    assert result["mean_difference"] == pytest.approx(np.mean(a[:6] - b[:6]))
    assert result["p_unpaired"] == pytest.approx(stats.ttest_ind(a, b[:6], equal_var=False).pvalue)


def test_compare_takes_translated_rows():
    (a, b), direct = two_methods(), two_methods(seed=1)[0]
    parts = [rows_of("sifa-covid-to-cap", a), rows_of("sifa-covid-to-cap", direct, route="direct")]
    per_image = pd.concat([*parts, rows_of("unet-cap", b)])
    names = ("sifa-covid-to-cap", "unet-cap", "covid")
    assert compare(per_image, *names)["mean_difference"] == pytest.approx(np.mean(a - b))
    with pytest.raises(LusbookError, match="'sifa-covid-to-cap' has no test images of cohort 'covid'"):
        compare(per_image[per_image["route"] == "direct"], *names)


def test_compare_names_an_experiment_without_rows():
    with pytest.raises(LusbookError, match="'unet-cap' has no test images of cohort 'cap'"):
        compare(pd.concat([rows_of("unet-covid", [0.5, 0.6], "cap")]), "unet-covid", "unet-cap", "cap")


def test_verdict_follows_its_rule_at_the_level():
    cases = {
        (0.1, 0.049, True): "reproduced",
        (0.1, 0.05, True): "same direction, not significant",
        (-0.1, 0.05, True): "opposite direction, not significant",
        (-0.1, 0.049, True): "contradicted",
        (0.1, 0.05, False): "reproduced",
        (0.1, 0.049, False): "contradicted",
        (0.0, np.nan, True): "cannot be tested",
    }
    assert {case: verdict(*case) for case in cases} == cases


def test_section3_has_a_row_for_each_claim_and_says_what_was_not_run():
    a, b = two_methods()
    per_image = pd.concat([rows_of("sifa-covid-to-cap", a), rows_of("unet-covid", b)])
    tests = section3_tests(per_image)
    assert len(tests) == 18
    done = tests[tests["verdict"] != "not run"]
    assert done[["better", "worse", "cohort"]].values.tolist() == [["sifa-covid-to-cap", "unet-covid", "covid"]]
    row = done.iloc[0]
    assert (row["published_p"], row["verdict"], row["n"]) == ("p < 0.001", "reproduced", 9)
    assert row["published_difference"] == pytest.approx(0.27)
    assert row["p_paired"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    rest = tests[tests["verdict"] == "not run"]
    assert rest["p_paired"].isna().all() and (rest["n"] == 0).all()


def test_section3_reads_a_claim_of_no_difference():
    a, b = two_methods()
    parts = [rows_of("unet-cap-then-covid", a, "cap"), rows_of("sifa-cap-to-covid", b, "cap")]
    tests = section3_tests(pd.concat(parts))
    row = tests[tests["published_p"] == "p = 0.23"].iloc[0]
    assert row["verdict"] == "contradicted" and row["p_paired"] < 0.05


def test_section3_agrees_with_dice_as_published():
    # Dice as in the paper's Table 1, so every claim holds but the one of no difference (0.35 against 0.33).
    published = load_published("table1")
    noise = np.random.default_rng(5).normal(0, 0.002, (len(published), 9))
    parts = [rows_of(row.experiment, row.dice_mean + noise[row.Index], row.cohort) for row in published.itertuples()]
    tests = section3_tests(pd.concat(parts))
    assert (tests["verdict"] == "reproduced").tolist() == [True] * 17 + [False]


def test_section3_takes_the_default_route():
    (a, b), direct = two_methods(), two_methods(seed=1)[0]
    sifa = [rows_of("sifa-covid-to-cap", a), rows_of("sifa-covid-to-cap", direct, route="direct")]
    per_image = pd.concat([*sifa, rows_of("unet-covid", b)])
    assert section3_tests(per_image)["mean_difference"][0] == pytest.approx(np.mean(a - b))


def test_paired_and_unpaired_verdicts_can_differ():
    # Images that differ much more than methods do: pairing sees the gain, the unpaired test does not.
    base = np.linspace(0.1, 0.9, 9)
    better = base + np.tile([0.01, 0.02, 0.03], 3)
    per_image = pd.concat([rows_of("sifa-covid-to-cap", better), rows_of("unet-covid", base)])
    row = section3_tests(per_image).iloc[0]
    assert row[["verdict", "verdict_unpaired"]].tolist() == ["reproduced", "same direction, not significant"]


def test_bootstrap_draws_whole_groups():
    values, groups = np.array([1.0, 1, 1, 5, 9, 9]), np.array(["a", "a", "a", "b", "c", "c"])
    seen = []
    bootstrap_ci(values, groups, lambda drawn: seen.append(np.sort(drawn)) or 0.0, n_resamples=200)
    sizes = {"a": (1.0, 3), "b": (5.0, 1), "c": (9.0, 2)}
    for drawn in seen:
        times = [np.sum(drawn == value) / size for value, size in sizes.values()]
        assert sum(times) == 3 and all(time == int(time) for time in times)


def test_bootstrap_of_single_rows_agrees_with_scipy():
    values = np.random.default_rng(2).normal(size=60)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    ours = bootstrap_ci(values, np.arange(60), np.mean, n_resamples=4000)
    np.testing.assert_allclose(ours, expected, atol=0.03)


def test_near_copies_of_an_image_do_not_narrow_the_interval():
    values, patients = np.random.default_rng(3).normal(size=8), np.arange(8)
    once = bootstrap_ci(values, patients, np.mean, n_resamples=500)
    copied = bootstrap_ci(np.repeat(values, 20), np.repeat(patients, 20), np.mean, n_resamples=500)
    np.testing.assert_allclose(copied, once)


def test_bootstrap_is_the_same_in_another_process_and_for_rows_in_another_order():
    code = (
        "import numpy as np; from lusbook.statistics import bootstrap_ci\n"
        "v = np.arange(12) ** 2.0; g = np.array(list('ddccaabbffee'))\n"
        "print(bootstrap_ci(v, g, np.mean, 300, seed=7), bootstrap_ci(v[::-1], g[::-1], np.mean, 300, seed=7))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    values, groups = np.arange(12) ** 2.0, np.array(list("ddccaabbffee"))
    here = bootstrap_ci(values, groups, np.mean, 300, seed=7)
    turned = bootstrap_ci(values[::-1], groups[::-1], np.mean, 300, seed=7)
    assert other.strip() == f"{here} {turned}"
    assert turned == pytest.approx(here)
    assert bootstrap_ci(values, groups, np.mean, 300, seed=8) != here


def test_one_patient_has_no_interval_and_bad_groups_are_named():
    assert np.isnan(bootstrap_ci([1.0, 2.0], ["a", "a"], np.mean)).all()
    with pytest.raises(LusbookError, match="received 2 and 1"):
        bootstrap_ci([1.0, 2.0], ["a"], np.mean)
    with pytest.raises(LusbookError, match="row 1 has none"):
        bootstrap_ci([1.0, 2.0], np.array(["a", None], object), np.mean)
    with pytest.raises(LusbookError, match="undefined in 500 of 500 resamples of 2 groups"):
        bootstrap_ci([1.0, 2.0], ["a", "b"], lambda drawn: np.nan, n_resamples=50)


def clips(seed=0, patients=8, each=6):
    rng = np.random.default_rng(seed)
    flag = rng.random(patients * each) < 0.5
    return rng.normal(flag, 1.0), flag, np.repeat([f"p{i}" for i in range(patients)], each)


@pytest.mark.parametrize("levels", [1000, 5])  # without and with ties
def test_area_under_the_curve_is_scikit_learns(levels):
    rng = np.random.default_rng(0)
    score, flag = rng.integers(0, levels, 200).astype(float), rng.random(200) > 0.3
    assert auroc(score, flag) == pytest.approx(roc_auc_score(flag, score))
    assert np.isnan(auroc(score, np.zeros(200, bool)))


def test_auroc_and_its_interval():
    score, flag, patient = clips()
    area, low, high = auroc_ci(score, flag, patient, n_resamples=200)
    assert area == pytest.approx(roc_auc_score(flag, score))
    assert 0 < low < area < high < 1
    assert auroc_ci(-score, flag, patient, n_resamples=200) == pytest.approx((1 - area, 1 - high, 1 - low))
    assert auroc_ci(score, flag, patient, n_resamples=200, seed=1)[1:] != (low, high)


def test_resamples_with_one_class_are_drawn_again():
    # Two patients of one class each: half of all resamples have no AUROC, the others have 1.
    assert auroc_ci([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "a", "b", "b"], n_resamples=100) == (1, 1, 1)


@pytest.mark.parametrize(
    ("score", "flag", "message"),
    [
        ([0.1, 0.2], [True, True], "both classes, received 2 of 2"),
        ([0.1, np.nan], [True, False], "score 1 is not finite"),
        ([0.1, 0.2, 0.3], [True, False], r"received \(3,\) and \(2,\)"),
    ],
)
def test_bad_scores_are_refused(score, flag, message):
    with pytest.raises(LusbookError, match=message):
        auroc_ci(score, flag, ["a"] * len(score))
