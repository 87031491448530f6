"""Sets of frames of equal make, compared; annotators; shapes of B-lines."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lusbook import comparison
from lusbook.errors import LusbookError
from lusbook.tables import told_apart_table
from tests.helpers import random_set


def test_few_takes_as_many_frames_of_as_many_patients():
    patients = np.repeat(["d", "a", "b", "c"], [9, 2, 5, 4])
    rows = comparison.few(patients, n_patients=2, n_frames=3)
    assert patients[rows].tolist() == ["b"] * 3 + ["c"] * 3
    assert rows.tolist() == [11, 13, 15, 16, 18, 19]  # from the first to the last
    with pytest.raises(LusbookError, match="expected 4 patients with 4 frames, received 3"):
        comparison.few(patients, 4, 4)


def test_parts_of_real_clips_share_no_patient(monkeypatch):
    monkeypatch.setattr(comparison, "few", lambda patients: np.arange(len(patients)))
    frames, fans, patients = random_set(7, 2, side=16)
    clips = SimpleNamespace(
        table=pd.DataFrame({"patient": patients}), clip=np.arange(len(patients)), frames=frames, fans=fans
    )
    parts = comparison.real_sets(clips)
    names = [set(who) for _, _, who in parts]
    assert sorted(map(len, names)) == [2, 2, 3] and not names[0] & names[1] and not names[1] & names[2]
    for some, _, who in parts:
        np.testing.assert_array_equal(some, frames[np.isin(patients, who)])


def test_a_set_is_near_itself_and_far_from_another():
    make = {"n_patients": 4, "each": 3, "side": 32}
    reference, others = random_set(name="r", seed=1, **make), random_set(name="o", seed=2, **make)
    sets = {"like": random_set(name="l", seed=3, **make), "loud": random_set(name="x", seed=4, sd=40, level=60, **make)}
    tables = comparison.compare(sets, reference, others)
    distances = tables["distances"].set_index("set")
    for measure, ratio in (("grey", 0.1), ("contrast", 0.1), ("snr", 0.1), ("frechet", 0.5)):
        assert distances.loc["like", measure] < ratio * distances.loc["loud", measure]
    told = tables["told_apart"].set_index(["set", "classifier"])["auroc"]
    assert told["loud", "measures"] == 1 and 0 <= told["like", "measures"] <= 1
    assert set(tables["profiles"]["set"]) == {"like", "loud", comparison.REFERENCE}
    assert (tables["profiles"]["low"] <= tables["profiles"]["high"]).all()
    text = told_apart_table(tables["told_apart"])
    assert text.index.tolist() == ["like", "loud"] and text.loc["loud", "measures"].startswith("1.00 (1.00 to ")


def test_a_phantom_set_is_cut_like_real_clips(monkeypatch):
    monkeypatch.setattr(comparison, "PATIENTS", 2)
    monkeypatch.setattr(comparison, "FRAMES", 2)
    parameters = {"name": "covid", "diversity": 0.3, "consistency": 0.9, "seed": 0, "image_size": 32}
    frames, fans, patients = comparison.phantom_set(parameters)
    assert frames.shape == fans.shape == (4, 128, 128) and patients.tolist() == ["covid-1"] * 2 + ["covid-2"] * 2
    assert not frames[~fans].any() and fans.any(axis=1).mean() > 0.9  # the fan fills the frame


def test_halves_are_means_of_four():
    frames = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    expected = [
        [[np.rint(f[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean()) for j in (0, 1)] for i in (0, 1)] for f in frames
    ]
    np.testing.assert_array_equal(comparison.halve(frames), expected)


def test_surer_annotators_agree_more(monkeypatch):
    monkeypatch.setattr(comparison.phantom, "PLAN", {"covid": ((16, 8),), "cap": ((16, 8),)})
    common = {"diversity": 0.5, "seed": 0, "image_size": 64}
    cohorts = {n: {"name": n, "consistency": c, **common} for n, c in (("covid", 0.9), ("cap", 0.3))}
    found = comparison.agreement(cohorts)
    assert len(found) == 6 and found["cohort"].tolist() == ["covid"] * 3 + ["cap"] * 3
    means = found.groupby("cohort")[["annotators", "truth"]].mean()
    assert (means.loc["covid"] > means.loc["cap"]).all() and (found[["annotators", "truth"]] <= 1).all().all()


@pytest.mark.parametrize("degrees", [0, 30, 77])
def test_least_rectangle_of_a_turned_rectangle(degrees):
    turn = np.exp(1j * np.radians(degrees))
    corners = np.array([0, 10, 10 + 4j, 4j]) * turn
    inside = (np.random.default_rng(0).uniform(0, 10, 50) + 1j * np.random.default_rng(1).uniform(0, 4, 50)) * turn
    points = np.concatenate([corners, inside])
    assert comparison.least_rectangle(np.c_[points.real, points.imag]) == pytest.approx(2.5)


def test_shapes_counts_frames_with_lines():
    row = comparison.shapes({"x": (np.arange(1, 6.0), np.array([0, 1, 1, 2, 7]))}).iloc[0]
    assert row[["low", "median", "high"]].tolist() == [2, 3, 4]
    assert row[["one", "two", "three", "more"]].tolist() == [0.5, 0.25, 0, 0.25]
