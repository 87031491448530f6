"""Cohorts, folds and subsets."""

from collections import Counter

import numpy as np
import pytest

from lusbook.cohort import Cohort, assign_folds, fold_indices, network_images, reduce_to, shown_frame
from lusbook.errors import LusbookError


def make_cohort(names, **changes):
    n = len(names)
    rng = np.random.default_rng(0)
    values = {
        "name": "covid",
        "images": rng.integers(0, 256, (n, 8, 8), dtype=np.uint8),
        "masks": rng.random((n, 8, 8)) > 0.5,
        "patients": np.array(names),
        "folds": assign_folds(names),
    }
    return Cohort(**(values | changes))


# ---------------------------------------------------------------- Cohort


def test_subset_takes_every_array_and_keeps_the_rest():
    cohort = make_cohort(["a", "b", "c", "c"], digest="d")
    part = cohort.subset(np.array([3, 1]))
    assert len(part) == 2 and part.name == "covid" and part.digest == "d" and part.truth is None
    assert part.patients.tolist() == ["c", "b"]
    np.testing.assert_array_equal(part.images, cohort.images[[3, 1]])
    np.testing.assert_array_equal(part.masks, cohort.masks[[3, 1]])
    np.testing.assert_array_equal(part.folds, cohort.folds[[3, 1]])
    np.testing.assert_array_equal(cohort.subset(cohort.patients == "c").images, cohort.images[2:])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": np.zeros((3, 8, 8))}, "images: expected uint8"),
        ({"images": np.zeros((3, 8, 4), np.uint8)}, r"images: expected \(n, size, size\)"),
        ({"masks": np.zeros((3, 8, 8), np.uint8)}, "masks: expected bool"),
        ({"masks": np.zeros((2, 8, 8), bool)}, r"masks: .* received bool of shape \(2, 8, 8\)"),
        ({"truth": np.zeros((3, 4, 4), bool)}, "truth"),
        ({"patients": np.array(["a", "b"])}, "patients"),
        ({"patients": np.array([1, 2, 3])}, "patients: expected str_"),
        ({"folds": np.array([0.0, 1.0, 2.0])}, "folds: expected integer"),
        ({"patients": np.array(["a", "b", "a"])}, "patient 'a' is in folds 0 and 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(LusbookError, match=f"cohort 'covid': {words}"):
        make_cohort(["a", "b", "c"], **changes)


# ---------------------------------------------------------------- folds and subsets


@pytest.mark.parametrize("seed", range(20))
def test_folds_never_split_a_patient_and_are_near_equal(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 60, rng.integers(3, 12))
    patients = rng.permutation(np.repeat([f"p{i}" for i in range(len(counts))], counts))
    n_folds = int(rng.integers(2, 4))
    folds = assign_folds(patients, n_folds)
    assert len(set(zip(patients, folds, strict=True))) == len(counts)
    sizes = np.bincount(folds, minlength=n_folds)
    # The greedy rule's own bounds: two folds differ by one patient at most, and the largest fold exceeds the mean
    # by a patient at most (Graham, 1969).
    assert sizes.min() > 0 and np.ptp(sizes) <= counts.max()
    assert sizes.max() <= len(patients) / n_folds + (1 - 1 / n_folds) * counts.max()


def test_folds_depend_on_names_and_numbers_not_on_order():
    patients = np.repeat(["d", "a", "c", "b"], [2, 2, 2, 3])
    order = np.random.default_rng(1).permutation(len(patients))
    np.testing.assert_array_equal(assign_folds(patients[order]), assign_folds(patients)[order])
    fold_of = dict(zip(patients.tolist(), assign_folds(patients).tolist(), strict=True))
    assert fold_of == {"b": 0, "a": 1, "c": 2, "d": 1}  # 3; then ties by name; the first of the smallest folds


def test_fewer_patients_than_folds_is_an_error():
    with pytest.raises(LusbookError, match="at least 3 patients.* received 2: a, b"):
        assign_folds(["a", "b", "a"])


def test_fold_indices_divide_the_cohort_by_patient():
    cohort = make_cohort(["a", "b", "c", "a", "d"])
    for fold in range(3):
        training, test = fold_indices(cohort, fold)
        assert sorted([*training, *test]) == list(range(5))
        assert not set(cohort.patients[training]) & set(cohort.patients[test])
        assert set(cohort.folds[test]) == {fold}


@pytest.mark.parametrize("folds, fold", [([0, 1, 2], 3), ([1, 1, 1], 1)])
def test_a_fold_that_leaves_nothing_is_an_error(folds, fold):
    with pytest.raises(LusbookError, match=f"cohort 'covid': fold {fold} leaves nothing"):
        fold_indices(make_cohort(["a", "b", "c"], folds=np.array(folds)), fold)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 29, 30])
def test_reduced_cohort_keeps_shares(n):
    counts = {"a": 15, "b": 9, "c": 6}
    cohort = make_cohort(np.random.default_rng(0).permutation(np.repeat(list(counts), list(counts.values()))))
    kept = Counter(reduce_to(cohort, n, seed=0).patients.tolist())
    assert kept.total() == n
    assert all(abs(kept[name] - n * count / 30) < 1 for name, count in counts.items())


def test_reduced_cohort_is_seeded_sorted_and_without_repetition():
    cohort = make_cohort(
        ["a", "b", "c"] * 10, images=np.arange(30, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), "u1")
    )
    first, again, other = (reduce_to(cohort, 12, seed).images[:, 0, 0].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first == sorted(set(first))


def test_largest_remainders_win_and_equal_ones_go_by_name():
    cohort = make_cohort(["a"] * 3 + ["b"] * 3 + ["c"] * 4)
    # 5 of 10: quotas 1.5, 1.5, 2: the half goes to a
    assert Counter(reduce_to(cohort, 5, 0).patients.tolist()) == {"a": 2, "b": 1, "c": 2}
    # 2 of 10: quotas 0.6, 0.6, 0.8
    assert Counter(reduce_to(cohort, 2, 0).patients.tolist()) == {"c": 1, "a": 1}


@pytest.mark.parametrize("n", [0, 4])
def test_impossible_reduction_is_an_error(n):
    with pytest.raises(LusbookError, match=f"cohort 'covid': expected to keep 1 to 3 images, received {n}"):
        reduce_to(make_cohort(["a", "b", "c"]), n, 0)


def test_network_images_keep_order_and_reach_both_ends():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = network_images(values)
    assert out.shape == (1, 16, 16, 1) and out.dtype == np.float32
    np.testing.assert_allclose(out.ravel(), np.linspace(-0.9, 0.9, 256), atol=1e-6)
    assert out.ravel()[0] == np.float32(-0.9)


def test_the_shown_frame_has_the_median_labelled_area():
    masks = np.zeros((10, 8, 8), bool)
    for index, area in enumerate([5, 1, 3, 9, 7, 2, 2, 2, 2, 2]):
        masks[index].ravel()[:area] = True
    folds = np.array([0] * 5 + [1] * 5)
    patients = np.array(["a"] * 5 + ["b"] * 5)
    cohort = Cohort("covid", np.zeros((10, 8, 8), np.uint8), masks, patients, folds)
    assert shown_frame(cohort, 0) == 0  # areas 5 1 3 9 7: the median is 5
    assert shown_frame(cohort, 1) == 7  # all equal: their order in the cohort decides
