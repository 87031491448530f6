"""Scores of clips and their agreement with flags."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from lusbook import real
from lusbook.errors import LusbookError

FANS = np.ones((5, 16, 16), bool)


def test_pooled_value_is_the_percentile_of_each_clip():
    rng = np.random.default_rng(0)
    values, clip = rng.random(30), rng.permutation(np.repeat([0, 1, 2], [5, 12, 13]))
    expected = [np.percentile(values[clip == index], 75) for index in range(3)]
    np.testing.assert_allclose(real.pool_frames(values, clip), expected)


def test_pooling_refuses_a_clip_without_frames():
    with pytest.raises(LusbookError, match="none of clip 1"):
        real.pool_frames(np.zeros(2), np.array([0, 2]))
    with pytest.raises(LusbookError, match="for each frame"):
        real.pool_frames(np.zeros(2), np.array([0]))


def test_clip_score_counts_in_the_fan_only():
    fans = np.zeros((5, 16, 16), bool)
    fans[:, :, :8] = True
    masks = np.zeros_like(fans)
    masks[:, :, 6:10] = np.arange(5)[:, None, None] > 0  # two of eight columns of the fan, and two outside
    clip = np.array([0, 0, 0, 0, 1])
    np.testing.assert_allclose(real.clip_scores(masks, fans, clip), [0.25, 0.25])
    np.testing.assert_allclose(real.clip_scores(masks * 0.7, fans, clip), [0.25, 0.25])
    np.testing.assert_allclose(real.clip_scores(masks * 0.7, fans, clip, threshold=0.8), [0, 0])


def test_empty_fan_is_refused_by_frame():
    fans = FANS.copy()
    fans[3] = False
    for function in (real.mean_brightness, real.streak_score):
        with pytest.raises(LusbookError, match="frame 3"):
            function(np.zeros(fans.shape, np.uint8), fans)


def test_mean_brightness_is_the_mean_in_the_fan():
    rng = np.random.default_rng(0)
    frames, fans = rng.integers(0, 256, (5, 16, 16), dtype=np.uint8), rng.random((5, 16, 16)) > 0.5
    expected = [image[fan].mean() for image, fan in zip(frames, fans, strict=True)]
    np.testing.assert_allclose(real.mean_brightness(frames, fans), expected)


def test_streak_score_sees_streaks_below_not_bands_or_gain():
    frames = np.full((5, 16, 16), 40, np.uint8)
    frames[1, :, 5:8] += 30  # a streak down to the bottom
    frames[2, :6, 5:8] += 30  # one that ends in the upper half
    frames[3, 10:12] += 30  # a horizontal line
    frames[4] += 100  # more gain
    np.testing.assert_allclose(real.streak_score(frames, FANS), [0, 30, 0, 0, 0])


def test_streak_score_ignores_what_is_outside_and_at_the_rim_of_the_fan():
    y, x = np.mgrid[:32, :32]
    fans = (np.hypot(y + 8, x - 15.5) < 38)[None].copy()
    fans[:, :, :3] &= y[:, :3] < 18  # columns that barely reach the lower half
    frames = np.where(fans, 40, 255).astype(np.uint8)
    frames[:, :, :3] = 255
    assert real.streak_score(frames, fans)[0] == 0


def make_scores(n_patients=12, clips=5):
    rng = np.random.default_rng(0)
    flags = rng.random(n_patients * clips) > 0.4
    names = [f"clip-{index}" for index in range(len(flags))]
    patients = [f"p{index // clips}" for index in range(len(flags))]
    table = pd.DataFrame({"clip": names, "patient": patients, "b_lines": flags})
    return table.assign(perfect=flags * 1.0, random=rng.random(len(flags)), useful=flags + rng.normal(0, 1, len(flags)))


def test_evaluate_reports_each_arm_with_its_interval():
    scores = make_scores()
    table = real.evaluate(scores, n_resamples=200).set_index("arm")
    assert table.index.tolist() == ["perfect", "random", "useful"]
    assert table.loc["perfect", ["auroc", "low", "high"]].tolist() == [1, 1, 1]
    assert table.loc["useful", "auroc"] == pytest.approx(roc_auc_score(scores["b_lines"], scores["useful"]))
    assert (table["clips"] == 60).all()
    assert (table["patients"] == 12).all()
    assert table.loc["random", "low"] < 0.5 < table.loc["random", "high"]
    assert (table["low"] <= table["auroc"]).all()
    assert (table["auroc"] <= table["high"]).all()
    pd.testing.assert_frame_equal(real.evaluate(scores, n_resamples=200), table.reset_index())  # same seed


def test_evaluate_names_bad_input():
    scores = make_scores()
    with pytest.raises(LusbookError, match="column 'patient'"):
        real.evaluate(scores.drop(columns="patient"))
    with pytest.raises(LusbookError, match="column of scores"):
        real.evaluate(scores[["clip", "patient", "b_lines"]])
    scores.loc[7, "random"] = np.inf
    with pytest.raises(LusbookError, match="random: clip clip-7"):
        real.evaluate(scores)


def test_an_arm_is_judged_on_the_clips_that_it_scores():
    scores = make_scores()
    scores.loc[scores["patient"] < "p3", "useful"] = np.nan
    row = real.evaluate(scores, n_resamples=50).set_index("arm").loc["useful"]
    part = scores.dropna()
    assert (row["clips"], row["patients"]) == (len(part), part["patient"].nunique())
    assert row["auroc"] == pytest.approx(roc_auc_score(part["b_lines"], part["useful"]))
    alike = real.evaluate(scores.assign(b_lines=True), n_resamples=50)
    assert alike["auroc"].isna().all()  # nothing to tell apart


def test_differences_are_paired():
    scores = make_scores()
    scores["shifted"] = 2 * scores["useful"] + 1  # the same order: the same area in every resample
    table = real.differences(scores, ["useful"], n_resamples=200).set_index("arm")
    assert table.loc["shifted", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    areas = real.evaluate(scores, n_resamples=10).set_index("arm")["auroc"]
    assert table.loc["perfect", "difference"] == pytest.approx(areas["perfect"] - areas["useful"])
    assert table.loc["perfect", "low"] > 0 and "useful" not in table.index


def test_secondary_measures_agree_with_their_definitions():
    scores = make_scores()
    rng = np.random.default_rng(1)
    scores["severity"] = rng.integers(0, 4, len(scores))
    agreement = scores[["clip"]].assign(useful=rng.random(len(scores)))
    table = real.secondary(scores, agreement, n_resamples=100).set_index("arm")
    expected = spearmanr(scores["useful"], scores["severity"]).statistic
    assert table.loc["useful", "spearman"] == pytest.approx(expected)
    assert table.loc["useful", "spearman_low"] < expected < table.loc["useful", "spearman_high"]
    assert table.loc["useful", "severe"] == pytest.approx(roc_auc_score(scores["severity"] >= 2, scores["useful"]))
    assert table.loc["useful", "area_no"] == pytest.approx(scores.loc[~scores["b_lines"], "useful"].mean())
    assert table.loc["useful", "neighbours"] == pytest.approx(agreement["useful"].mean())
    assert np.isnan(table.loc["random", "area_no"])  # an arm that draws nothing


def test_conditions_and_what_the_experts_own_labels_allow():
    scores = make_scores()
    scores["condition"] = np.where(scores["patient"] < "p5", "covid19", "healthy_lung")
    scores["severity"] = scores["b_lines"].astype(int) * 2
    table = real.by_condition(scores, n_resamples=50).set_index(["condition", "arm"])
    part = scores[scores["condition"] == "covid19"]
    found = table.loc[("covid19", "useful")]
    assert found["auroc"] == pytest.approx(roc_auc_score(part["b_lines"], part["useful"]))
    assert found["flagged"] == pytest.approx(part["b_lines"].mean())
    ceiling, flagged = real.bounds(scores, n_resamples=50)
    assert ceiling["auroc"].tolist() == [1]  # here the severity says all that the flags do
    assert flagged.set_index("condition").loc["covid19", "clips"] == len(part)
