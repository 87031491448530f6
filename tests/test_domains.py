"""Distances between sets of frames, with patients as the unit."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lusbook import domains
from lusbook.domains import a_distance, bandwidth, distances, mmd
from lusbook.errors import LusbookError


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer halves: each costs three fits."""
    monkeypatch.setattr(domains, "PAIRS", 8)


def rows_of(n_patients, each=5, d=3, shift=0.0, spread=1.0, seed=0, name="a"):
    """Frames of patients with a mean of their own; names of patients."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(shift, spread, (n_patients, 1, d))
    rows = (centres + rng.normal(0, 0.1, (n_patients, each, d))).reshape(-1, d)
    return rows, np.repeat([f"{name}{k}" for k in range(n_patients)], each)


def test_mmd_equals_a_double_loop():
    (a, pa), (b, pb) = rows_of(3), rows_of(2, name="b", seed=1)

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * 0.7**2))

    def within(rows, patients):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if patients[i] != patients[j]]
        return np.mean([kernel(rows[i], rows[j]) for i, j in pairs])

    expected = within(a, pa) + within(b, pb) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert mmd(a, b, pa, pb, 0.7) == pytest.approx(expected)
    assert mmd(b, a, pb, pa, 0.7) == pytest.approx(expected)
    np.testing.assert_allclose(mmd(a + 5, b + 5, pa, pb, 0.7), expected)


def test_mmd_with_a_frame_a_patient_is_the_unbiased_estimate_of_gretton():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 2)), rng.normal(1, 1, size=(4, 2))
    kernel = np.exp(-((np.r_[a, b][:, None] - np.r_[a, b]) ** 2).sum(axis=2) / 2)
    sums = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel[:6, :6], kernel[6:, 6:])]
    expected = sum(sums) - 2 * kernel[:6, 6:].mean()
    assert mmd(a, b, [f"a{i}" for i in range(6)], [f"b{i}" for i in range(4)], 1.0) == pytest.approx(expected)


def test_mmd_is_zero_in_expectation_for_patients_of_one_kind():
    """Exactly so, averaged over all ways to divide the same patients into halves."""
    rows, patients = rows_of(6)
    values = []
    for half in combinations(np.unique(patients), 3):
        side = np.isin(patients, half)
        values.append(mmd(rows[side], rows[~side], patients[side], patients[~side], 1.0))
    assert np.mean(values) == pytest.approx(0, abs=1e-12) and min(values) < 0 < max(values)
    # Counting pairs of near copies would make any two sets of patients differ.
    counted = [mmd(rows, rows_of(6, seed=s)[0], np.arange(30), 99 - np.arange(30), 1.0) for s in range(1, 20)]
    assert np.mean(counted) > 0.05


def test_mmd_of_sets_far_apart_is_two_for_tight_ones():
    a, b = np.zeros((4, 2)), np.full((4, 2), 100.0)
    assert mmd(a, b, list("wxyz"), list("stuv"), 1.0) == pytest.approx(2)


def test_a_distance_goes_from_zero_to_two():
    (a, pa), (b, pb) = rows_of(4, shift=0), rows_of(4, shift=50, name="b")
    assert a_distance(a, b, pa, pb) == 2
    same = [a_distance(a, rows_of(4, seed=s)[0], pa, pb) for s in range(1, 9)]
    assert min(same) >= 0 and np.mean(same) < 0.8
    assert a_distance(a, a, pa, pb) == 0
    assert a_distance(10 * a + 3, 10 * b + 3, pa, pb) == 2


def test_a_distance_cannot_learn_patients_by_heart():
    """Each patient is a cluster and its cohort is drawn: for patients held out, nothing better than chance."""
    rows, patients = rows_of(12, each=10, spread=5, d=10)
    found = []
    for seed in range(8):
        side = np.isin(patients, np.random.default_rng(seed).permutation(np.unique(patients))[:6])
        found.append(a_distance(rows[side], rows[~side], patients[side], patients[~side]))
    assert np.mean(found) < 0.8


def test_a_side_of_one_patient_has_neither():
    (a, pa), (b, pb) = rows_of(1), rows_of(3, name="b", seed=1)
    assert np.isnan(mmd(a, b, pa, pb, 1.0)) and np.isnan(a_distance(a, b, pa, pb))


@pytest.mark.parametrize("function", [mmd, a_distance])
def test_what_does_not_fit_together_is_refused(function):
    (a, pa), (b, pb) = rows_of(2), rows_of(2, name="b", seed=1)
    extra = (1.0,) if function is mmd else ()
    with pytest.raises(LusbookError, match=r"finite features .* received \(10, 3\) and \(10, 2\)"):
        function(a, b[:, :2], pa, pb, *extra)
    with pytest.raises(LusbookError, match="patients: expected one for each of 10 and 10 frames, received 9 and 10"):
        function(a, b, pa[1:], pb, *extra)
    with pytest.raises(LusbookError, match="finite"):
        function(np.where(a == a.max(), np.nan, a), b, pa, pb, *extra)


def test_bandwidth_is_the_median_distance():
    assert bandwidth(np.array([[0.0], [1.0], [3.0]])) == 2
    assert bandwidth(np.zeros((3, 1))) == 1


def keys_of(n_covid, n_cap, each=4):
    patients = [("covid", f"p{k}", k % 3) for k in range(n_covid)] + [("cap", f"p{k}", k % 3) for k in range(n_cap)]
    return pd.DataFrame([row for row in patients for _ in range(each)], columns=["cohort", "patient", "fold"])


def space_of(keys, shift, seed=0):
    rng = np.random.default_rng(seed)
    centres = {key: rng.normal(size=3) for key in dict.fromkeys(zip(keys["cohort"], keys["patient"], strict=True))}
    rows = np.array([centres[key] for key in zip(keys["cohort"], keys["patient"], strict=True)])
    return rows + rng.normal(0, 0.1, rows.shape) + shift * (keys["cohort"] == "cap").to_numpy()[:, None]


def test_every_way_to_divide_is_there_and_the_cohorts_own_among_them():
    keys = keys_of(4, 4)
    found = distances(keys, space_of(keys, 30.0))
    counts = found["kind"].value_counts()
    assert counts[["covid", "cap", "shuffled"]].tolist() == [3, 3, 35]
    own = found[found["kind"] == "cohorts"].iloc[0]
    assert own["a_distance"] == 2
    shuffled = found[found["kind"] == "shuffled"]
    assert shuffled["frechet"].max() == pytest.approx(own["frechet"])
    assert (shuffled["frechet"] < own["frechet"] - 1e-9).sum() == 34
    halves = found[found["kind"] == "halves"]
    assert halves["mmd"].min() > found[found["kind"].isin(["covid", "cap"])]["mmd"].max()


def test_the_same_names_in_both_cohorts_are_other_patients():
    keys = keys_of(3, 3)
    space = space_of(keys, 0.0)
    renamed = keys.assign(patient=keys["cohort"] + keys["patient"])
    pd.testing.assert_frame_equal(distances(keys, space), distances(renamed, space))


def test_unequal_cohorts_and_folds_of_one_patient():
    keys = keys_of(5, 3)
    found = distances(keys, space_of(keys, 1.0)).set_index("kind")
    assert found.loc["fold 2", ["a", "b"]].tolist() == [1, 1] and np.isnan(found.loc["fold 2", "mmd"])
    assert np.isfinite(found.loc["fold 2", "frechet"])
    assert (found.loc["shuffled", "a"] == 5).all() and len(found.loc["shuffled"]) == 56
    assert found.loc["cap", ["a", "b"]].to_numpy().tolist() == [[1, 2]] * 3


def test_many_patients_are_divided_in_some_ways_only(monkeypatch):
    monkeypatch.setattr(domains, "SPLITS", 12)
    keys = keys_of(6, 6, each=2)
    found = distances(keys, space_of(keys, 1.0))
    assert found["kind"].value_counts()[["shuffled", "covid", "cap", "halves"]].tolist() == [12, 8, 8, 8]
    assert len(found.loc[found["kind"] == "shuffled", "mmd"].round(6).unique()) > 6
