"""Exact tests against all sign assignments, effect sizes against their definitions, Holm's published example."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from lusbook import paired

DIFFERENCES = {n: np.random.default_rng(n).normal(0.4, 0.5, n) for n in (3, 6, 8)}


def all_signs(differences, statistic):
    """Two-sided p by brute force: twice the smaller tail of a statistic over all assignments of signs."""
    signs = np.array(list(product((-1, 1), repeat=len(differences))))
    values = np.array([statistic(row * differences) for row in signs])
    observed = statistic(differences)
    return min(1, 2 * min(np.mean(values >= observed - 1e-12), np.mean(values <= observed + 1e-12)))


def rank_sum(differences):
    return np.sum(stats.rankdata(np.abs(differences)) * (differences > 0))


@pytest.mark.parametrize("n", DIFFERENCES)
def test_both_tests_equal_brute_force(n):
    differences = DIFFERENCES[n]
    assert paired.sign_flip_test(differences) == pytest.approx(all_signs(differences, np.mean))
    assert paired.signed_rank_test(differences) == pytest.approx(all_signs(differences, rank_sum))
    assert paired.signed_rank_test(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_ties_are_exact_too():
    tied = np.array([0.1, 0.1, -0.1, 0.2, 0.2, 0.3])
    assert paired.signed_rank_test(tied) == pytest.approx(all_signs(tied, rank_sum))


def test_signs_and_scale():
    differences = DIFFERENCES[6]
    for test in (paired.sign_flip_test, paired.signed_rank_test):
        assert test(-differences) == pytest.approx(test(differences)) == pytest.approx(test(10 * differences))
        assert test(np.zeros(4)) == 1
        assert np.isnan(test([0.3])) and np.isnan(test([]))


def test_more_patients_than_all_assignments_are_drawn_alike(monkeypatch):
    differences = np.random.default_rng(5).normal(0.3, 1, 30)
    p = paired.sign_flip_test(differences)
    assert p == paired.sign_flip_test(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)
    ranks = paired.signed_rank_test(differences)
    monkeypatch.setattr(paired, "AT_ONCE", 1000)  # of 30 times 16384: memory is bounded, and nothing else changes
    assert (paired.sign_flip_test(differences), paired.signed_rank_test(differences)) == (p, ranks)


@pytest.mark.parametrize("n", range(2, 9))
def test_smallest_p_is_reached_and_never_beaten(n):
    one_sided = np.arange(1, n + 1) / 10
    for test in (paired.sign_flip_test, paired.signed_rank_test):
        assert test(one_sided) == pytest.approx(paired.smallest_p(n))
        assert test(np.random.default_rng(n).normal(size=n)) >= paired.smallest_p(n) - 1e-12
    assert np.isnan(paired.smallest_p(1)) and np.isnan(paired.smallest_p(0))


@pytest.mark.parametrize("comparisons", [1, 5, 18, 64, 1000])
def test_patients_needed_are_the_fewest(comparisons):
    needed = paired.patients_needed(comparisons)
    assert comparisons * paired.smallest_p(needed) < 0.05 <= comparisons * paired.smallest_p(needed - 1)


def test_cohens_dz_is_t_over_root_n_and_its_interval_inverts_the_noncentral_t():
    differences = DIFFERENCES[8]
    dz, low, high = paired.cohens_dz(differences)
    t = stats.ttest_1samp(differences, 0).statistic
    assert dz == pytest.approx(t / np.sqrt(8)) and low < dz < high
    assert stats.nct.cdf(t, 7, low * np.sqrt(8)) == pytest.approx(0.975, abs=1e-6)
    assert stats.nct.cdf(t, 7, high * np.sqrt(8)) == pytest.approx(0.025, abs=1e-6)
    assert paired.cohens_dz(-differences) == pytest.approx((-dz, -high, -low), abs=1e-6)


def test_interval_of_dz_excludes_zero_when_the_t_test_does():
    for seed in range(30):
        differences = np.random.default_rng(seed).normal(0.5, 0.6, 6)
        _, low, high = paired.cohens_dz(differences)
        assert (low > 0 or high < 0) == (stats.ttest_1samp(differences, 0).pvalue < 0.05)


def test_dz_of_nothing_that_varies_is_nan():
    for differences in ([], [0.2], [0.2, 0.2, 0.2], np.zeros(5)):
        assert np.isnan(paired.cohens_dz(differences)).all()


def test_rank_biserial_by_counting_walsh_averages():
    """Means of all pairs above zero less those below, as a share: the same number without any rank."""
    for differences in DIFFERENCES.values():
        i, j = np.triu_indices(len(differences))
        walsh = (differences[i] + differences[j]) / 2
        assert paired.rank_biserial(differences) == pytest.approx(np.mean(np.sign(walsh)))
        assert paired.rank_biserial(-differences) == pytest.approx(-paired.rank_biserial(differences))
    assert paired.rank_biserial([0.1, 0.2]) == 1 and paired.rank_biserial([0, 0]) == 0
    assert paired.rank_biserial([0, 0.3, -0.1]) == paired.rank_biserial([0.3, -0.1])


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    adjusted = paired.holm([0.01, 0.04, 0.03, np.nan, 0.005])
    assert adjusted[[0, 1, 2, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(adjusted[3])
    assert paired.holm([0.7, 0.8]) == pytest.approx([1, 1])
    assert np.isnan(paired.holm([np.nan, np.nan])).all() and len(paired.holm([])) == 0


def test_bootstrap_coverage_is_what_simulation_gives():
    rng = np.random.default_rng(3)
    data = rng.normal(size=(1500, 6))
    drawn = data[:, rng.integers(6, size=(400, 6))].mean(axis=2)  # the same resamples for all data sets
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(paired.bootstrap_coverage(6), abs=0.03)
    assert np.isnan(paired.bootstrap_coverage(1))
