"""Distances in features, and classifiers that tell sets of frames apart."""

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import sqrtm

from lusbook import features
from lusbook.errors import LusbookError
from tests.helpers import noise, random_set


def test_frechet_distance_has_its_closed_form():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 5)), rng.normal(size=(300, 5)) * [1, 2, 3, 0.5, 0.1] + 1
    covariances = np.cov(a.T), np.cov(b.T)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    assert features.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    scale = np.array([1, 2, 3, 0.5, 0])
    q = np.linalg.qr(a - a.mean(0))[0]  # columns of mean 0 that are uncorrelated: diagonal covariances
    diagonal = ((scale - 1) ** 2).sum() / 199
    assert features.frechet_distance(q, q * scale) == pytest.approx(diagonal)
    assert features.frechet_distance(a, a + 3) == pytest.approx(5 * 9)


def test_frechet_distance_of_a_set_to_itself_is_zero_with_fewer_rows_than_features():
    a = np.random.default_rng(0).normal(size=(10, 64)) * 100
    assert features.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert features.frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(LusbookError, match=r"received \(10, 64\) and \(1, 64\)"):
        features.frechet_distance(a, a[:1])
    with pytest.raises(LusbookError, match=r"received \(10, 64\) and \(10, 3\)"):
        features.frechet_distance(a, a[:, :3])


# ---------------------------------------------------------------------------------------------
# Telling sets apart


def two_sets(n_patients=12, each=5, dimensions=3, seed=0):
    """Features of two sets that do not differ, but whose patients do."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(2 * n_patients), each)
    features = rng.normal(size=(2 * n_patients, dimensions))[which] + 0.01 * rng.normal(size=(len(which), dimensions))
    return features, which >= n_patients, np.array([f"p{k}" for k in which])


def test_sets_that_differ_are_told_apart_and_equal_ones_are_not():
    found, labels, patients = two_sets()
    apart = features.tell_apart(found + 20 * labels[:, None], labels, patients, n_resamples=100)
    assert apart["auroc"] == apart["high"] == 1
    assert (apart["frames"], apart["patients"]) == (120, 24)
    assert apart == features.tell_apart(found + 20 * labels[:, None], labels, patients, n_resamples=100)  # same seed
    same = pd.DataFrame([features.tell_apart(*two_sets(seed=seed), n_resamples=50) for seed in range(20)])
    assert same["auroc"].mean() == pytest.approx(0.5, abs=0.12)
    assert ((same["low"] < 0.5) & (same["high"] > 0.5)).mean() > 0.6


def test_no_patient_is_trained_and_tested_on():
    # 200 dimensions identify every patient: a leak would give an area of 1
    areas = [features.tell_apart(*two_sets(dimensions=200, seed=seed), n_resamples=10)["auroc"] for seed in range(10)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.15)
    found, labels, patients = two_sets()
    for n_folds in (2, 5):
        folds = features._folds(found, labels, patients, n_folds, 0)
        assert len(folds) == n_folds
        assert not any(set(patients[training]) & set(patients[test]) for training, test in folds)
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(labels)))


def test_two_patients_a_side_are_enough_and_one_is_not():
    found, labels, patients = two_sets(n_patients=2)
    assert features.tell_apart(found + 20 * labels[:, None], labels, patients, n_resamples=50)["auroc"] == 1
    kept = patients != "p0"
    for function in (features.tell_apart, features.tell_apart_network):
        rows = noise(kept.sum(), 16) if function is features.tell_apart_network else found[kept]
        with pytest.raises(LusbookError, match="at least 2 patients in each set, received 1 and 2"):
            function(rows, labels[kept], patients[kept])


def test_features_are_a_function_of_the_seed():
    frames, _, patients = random_set(3, 6)
    frames = np.clip(frames + 20.0 * np.repeat(np.arange(3), 6)[:, None, None], 0, 255).astype(np.uint8)
    first, again, other = (features.train_features(frames, patients, seed, epochs=2)(frames) for seed in (1, 1, 2))
    assert first.shape == (18, 64)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_network_tells_textures_apart():
    smooth, rough = random_set(4, 8, blur=(2, 2), sd=25), random_set(4, 8, name="b", sd=25)
    frames, _, patients = (np.concatenate(pair) for pair in zip(smooth, rough, strict=True))
    labels = np.arange(64) >= 32
    result = features.tell_apart_network(frames, labels, patients, epochs=15, n_folds=2, n_resamples=100)
    assert result["auroc"] > 0.95
    assert (result["frames"], result["patients"]) == (64, 8)


# ---------------------------------------------------------------------------------------------
# Bad input


def test_arrays_that_do_not_fit_are_refused():
    frames, _, patients = random_set(2, 2)
    with pytest.raises(LusbookError, match=r"received uint8 \(4, 32, 30\)"):
        features.train_features(frames[:, :, :30], patients)
    with pytest.raises(LusbookError, match="at least 2 patients to tell apart, received a0"):
        features.train_features(frames, np.full(4, "a0"))
    with pytest.raises(LusbookError, match="received 4 rows, 3 labels and 4 patients"):
        features.tell_apart(np.zeros((4, 2)), np.array([True, False, True]), patients)
    with pytest.raises(LusbookError, match="with 8 not finite"):
        features.tell_apart(np.full((4, 2), np.nan), np.arange(4) > 1, patients)
