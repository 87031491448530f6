"""The arms of the chapter on real clips."""

import numpy as np
import pandas as pd
import pytest

from lusbook import arms, real, runs
from lusbook.cohort import Cohort
from lusbook.errors import MissingData
from lusbook.settings import make_settings
from lusbook.video import Clips

TABLE = pd.DataFrame(
    {
        "clip": list("abcdefgh"),
        "patient": ["p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6"],
        "known": [True] * 7 + [False],
        "condition": ["covid19"] * 4 + ["healthy_lung"] * 4,
        "pcr": ["positive"] * 4 + ["negative"] * 4,
        "b_lines": [True, False] * 4,
        "severity": [2, 0, 1, 3, 0, 0, 1, 2],
    }
)


def test_halves_divide_patients_of_each_condition_and_leave_out_the_unseen():
    half = arms.halves(TABLE)
    assert half.tolist() == ["A", "A", "B", "A", "B", "B", "A", ""]
    np.testing.assert_array_equal(arms.halves(TABLE.iloc[::-1])[::-1], half)  # the order of rows is no matter


@pytest.mark.parametrize(
    ("target", "n_adapted", "n_scored"),
    [(None, 0, 8), ("all", 7, 8), ("A", 4, 3), ("B", 3, 4), ("positive", 4, 4), ("negative", 3, 3)],
)
def test_no_arm_adapts_to_the_unseen_and_halves_never_score_themselves(target, n_adapted, n_scored):
    adapted, scored = arms.divide(target, TABLE.assign(half=arms.halves(TABLE)))
    assert (adapted.sum(), scored.sum()) == (n_adapted, n_scored)
    assert not adapted[7]
    if target in ("A", "B"):
        assert not (adapted & scored).any()


def test_scores_and_agreement_of_neighbours():
    fans = np.ones((4, 8, 8), bool)
    fans[:, :, 6:] = False
    found, beside = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    found[:2, :, :2], beside[0, :, :2], beside[1, :, 1:3] = 0.9, 0.9, 0.9
    found[:, :, 7] = 0.9  # outside the fan
    clips = Clips(pd.DataFrame(), None, fans, np.array([0, 0, 1, 1]), None)
    scores, agreement = arms.score_clips(found, beside, clips, 0.5)
    np.testing.assert_allclose(scores, [1 / 3, 0])
    assert agreement[0] == pytest.approx((1 + 0.5) / 2) and np.isnan(agreement[1])


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, (16, 32, 32), dtype=np.uint8)
    which = np.repeat(np.arange(8), 2)
    return Clips(TABLE, frames, np.ones(frames.shape, bool), which, frames[:, ::-1].copy())


@pytest.fixture(scope="module")
def cohorts():
    rng = np.random.default_rng(1)
    masks = rng.random((6, 32, 32)) > 0.7
    masks[::2] = False
    images = rng.integers(0, 200, masks.shape, dtype=np.uint8)
    source = Cohort("clinic", images, masks, np.array(list("aabbcc")), np.repeat([0, 1, 2], 2))
    return {"clinic": source, "covid": source}


def test_every_arm_scores_its_clips(clips, cohorts, tmp_path, monkeypatch):
    """Networks are stand-ins that know what they were shown: the arms' bookkeeping is what is tested."""
    shown = {}

    def train(arm, settings, cohorts, frames, name, **keep):
        shown[name] = len(frames)
        return type("Network", (), {"routes": {"direct": None}}), [{"iteration": 1}]

    monkeypatch.setattr(arms, "train", train)
    monkeypatch.setattr(arms.trials, "probabilities", lambda route, frames: frames / 255)
    monkeypatch.setattr(arms.video, "load_clips", lambda *_: clips)
    shown_frames = np.zeros((2, 256, 256), np.uint8), TABLE[["clip"]][:2], np.full((2, 32, 32), 200, np.uint8)
    monkeypatch.setattr(arms, "shown_frames", lambda settings: shown_frames)
    outcome = arms.run_arms(make_settings("smoke"), cohorts, TABLE, folder=tmp_path)
    scores = outcome["tables"]["clips"]
    assert list(scores.columns) == [*real.KEYS, *arms.UNTRAINED, *arms.ARMS]
    assert scores["SIFA (phantom to real)"].notna().all()
    assert scores["SIFA (half A to half B)"].notna().tolist() == [half == "B" for half in arms.halves(TABLE)]
    assert scores["SIFA (phantom COVID-19 to PCR-positive)"].notna().tolist() == [True] * 4 + [False] * 4
    assert shown["SIFA (phantom to real)"] == 14  # frames of the seven clips of known patients
    assert (shown["SIFA (half A to half B)"], shown["SIFA (half B to half A)"]) == (8, 6)
    assert set(outcome["tables"]["agreement"].columns) == {"clip", *arms.ARMS}
    assert len(outcome["tables"]["history"]) == 7
    assert set(outcome["overlays"]) == {"frames", "unet", "sifa"}
    assert outcome["overlays"]["sifa"].shape == (2, 32, 32) and outcome["overlays"]["sifa"].all()


def test_without_frames_that_may_be_shown_there_are_none(nowhere):
    with pytest.warns(UserWarning, match="without frames to show.*LUSBOOK_POCUS"):
        assert arms.shown_frames(make_settings("smoke")) == (None, None, None)


def test_arms_train_with_their_own_settings(cohorts, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(arms.trials, "train_unet", lambda e, t, settings, *a, **k: seen.update(unet=settings))
    monkeypatch.setattr(arms.trials, "adapt", lambda c, b, settings, *a, **k: seen.update(sifa=settings, images=b))
    settings = make_settings("smoke")
    arms.train(arms.ARMS["U-Net (varied intensity)"], settings, cohorts, np.zeros((2, 32, 32), np.uint8), "one")
    assert seen["unet"].augment_intensity == 0.5 and seen["unet"].unet_iterations == settings.real_iterations
    arms.train(arms.ARMS["SIFA (phantom to real)"], settings, cohorts, np.zeros((3, 32, 32), np.uint8), "two")
    assert seen["sifa"].augment_intensity == 0 and seen["images"].shape == (3, 32, 32, 1)


def test_a_finished_folder_is_read_without_clips(tmp_path, monkeypatch, clips, cohorts):
    settings = make_settings("smoke")
    tables = {"clips": TABLE.assign(half=arms.halves(TABLE), arm=0.5), "agreement": TABLE[["clip"]]}
    outcome = {"tables": tables, "overlays": {}, "weights": [], "machine": {}}
    monkeypatch.setattr(arms, "run_arms", lambda *_, **__: outcome)
    monkeypatch.setattr("lusbook.sources.read_covid_blues", lambda folder: TABLE)
    monkeypatch.setattr(runs, "load_source", lambda settings: cohorts["clinic"])
    monkeypatch.setattr(runs, "load_cohorts", lambda settings: cohorts)
    first = runs.real_clips(settings, tmp_path)
    monkeypatch.setattr(arms, "run_arms", None)
    again = runs.real_clips(settings, tmp_path)
    pd.testing.assert_frame_equal(first["clips"], again["clips"])
    assert again["clips"]["half"].tolist()[-1] == ""


def test_attempts_are_computed_only_where_they_are_asked_for(tmp_path):
    with pytest.raises(MissingData, match="`lusbook attempts` does so"):
        runs.attempts(make_settings("smoke"), tmp_path, compute=False)
    assert not list(tmp_path.iterdir())
