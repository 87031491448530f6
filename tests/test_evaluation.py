"""How well scores of clips agree with flags."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from lusbook import evaluation
from lusbook.errors import LusbookError


def make_scores(n_patients=12, clips=5):
    rng = np.random.default_rng(0)
    flags = rng.random(n_patients * clips) > 0.4
    names = [f"clip-{index}" for index in range(len(flags))]
    patients = [f"p{index // clips}" for index in range(len(flags))]
    table = pd.DataFrame({"clip": names, "patient": patients, "b_lines": flags})
    return table.assign(perfect=flags * 1.0, random=rng.random(len(flags)), useful=flags + rng.normal(0, 1, len(flags)))


def test_evaluate_reports_each_arm_with_its_interval():
    scores = make_scores()
    table = evaluation.evaluate(scores, n_resamples=200).set_index("arm")
    assert table.index.tolist() == ["perfect", "random", "useful"]
    assert table.loc["perfect", ["auroc", "low", "high"]].tolist() == [1, 1, 1]
    assert table.loc["useful", "auroc"] == pytest.approx(roc_auc_score(scores["b_lines"], scores["useful"]))
    assert (table["clips"] == 60).all()
    assert (table["patients"] == 12).all()
    assert table.loc["random", "low"] < 0.5 < table.loc["random", "high"]
    assert (table["low"] <= table["auroc"]).all()
    assert (table["auroc"] <= table["high"]).all()
    pd.testing.assert_frame_equal(evaluation.evaluate(scores, n_resamples=200), table.reset_index())  # same seed


def test_evaluate_names_bad_input():
    scores = make_scores()
    with pytest.raises(LusbookError, match="column 'patient'"):
        evaluation.evaluate(scores.drop(columns="patient"))
    with pytest.raises(LusbookError, match="column of scores"):
        evaluation.evaluate(scores[["clip", "patient", "b_lines"]])
    scores.loc[7, "random"] = np.inf
    with pytest.raises(LusbookError, match="random: clip clip-7"):
        evaluation.evaluate(scores)


def test_an_arm_is_judged_on_the_clips_that_it_scores():
    scores = make_scores()
    scores.loc[scores["patient"] < "p3", "useful"] = np.nan
    row = evaluation.evaluate(scores, n_resamples=50).set_index("arm").loc["useful"]
    part = scores.dropna()
    assert (row["clips"], row["patients"]) == (len(part), part["patient"].nunique())
    assert row["auroc"] == pytest.approx(roc_auc_score(part["b_lines"], part["useful"]))
    alike = evaluation.evaluate(scores.assign(b_lines=True), n_resamples=50)
    assert alike["auroc"].isna().all()  # nothing to tell apart


def test_differences_are_paired():
    scores = make_scores()
    scores["shifted"] = 2 * scores["useful"] + 1  # the same order: the same area in every resample
    table = evaluation.differences(scores, ["useful"], n_resamples=200).set_index("arm")
    assert table.loc["shifted", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    areas = evaluation.evaluate(scores, n_resamples=10).set_index("arm")["auroc"]
    assert table.loc["perfect", "difference"] == pytest.approx(areas["perfect"] - areas["useful"])
    assert table.loc["perfect", "low"] > 0 and "useful" not in table.index


def test_secondary_measures_agree_with_their_definitions():
    scores = make_scores()
    rng = np.random.default_rng(1)
    scores["severity"] = rng.integers(0, 4, len(scores))
    scores["silent"] = 0.0
    agreement = scores[["clip"]].assign(useful=rng.random(len(scores)))
    table = evaluation.secondary(scores, agreement, n_resamples=100).set_index("arm")
    expected = spearmanr(scores["useful"], scores["severity"]).statistic
    assert table.loc["useful", "spearman"] == pytest.approx(expected)
    assert table.loc["useful", "spearman_low"] < expected < table.loc["useful", "spearman_high"]
    assert table.loc["useful", "severe"] == pytest.approx(roc_auc_score(scores["severity"] >= 2, scores["useful"]))
    assert table.loc["useful", "area_no"] == pytest.approx(scores.loc[~scores["b_lines"], "useful"].mean())
    assert table.loc["useful", "neighbours"] == pytest.approx(agreement["useful"].mean())
    assert np.isnan(table.loc["random", "area_no"])  # an arm that draws no masks
    assert table.loc["silent", ["spearman", "spearman_low", "spearman_high"]].isna().all()
    assert table.loc["silent", "severe"] == 0.5


def test_conditions_and_what_the_experts_own_labels_allow():
    scores = make_scores()
    scores["condition"] = np.where(scores["patient"] < "p5", "covid19", "healthy_lung")
    scores["severity"] = scores["b_lines"].astype(int) * 2
    table = evaluation.by_condition(scores, n_resamples=50).set_index(["condition", "arm"])
    part = scores[scores["condition"] == "covid19"]
    found = table.loc[("covid19", "useful")]
    assert found["auroc"] == pytest.approx(roc_auc_score(part["b_lines"], part["useful"]))
    assert found["flagged"] == pytest.approx(part["b_lines"].mean())
    ceiling, flagged = evaluation.bounds(scores, n_resamples=50)
    assert ceiling["auroc"].tolist() == [1]  # here the severity says all that the flags do
    assert flagged.set_index("condition").loc["covid19", "clips"] == len(part)
