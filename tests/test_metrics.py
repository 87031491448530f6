"""Counts, metrics and their rule for empty masks."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from lusbook.errors import LusbookError
from lusbook.metrics import confusion_counts, dice, per_image, sensitivity, specificity, summarise


def random_masks(seed, n=12, h=7, w=9):  # 63 pixels: not a whole number of bytes
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 0.9, (n, 1, 1))
    return rng.random((n, h, w)) < share


def test_counts_and_metrics_equal_scikit_learn():
    prediction, mask = random_masks(1), random_masks(2)
    table = per_image(prediction, mask)
    for row, p, m in zip(table.itertuples(), prediction, mask, strict=True):
        p, m = p.ravel(), m.ravel()
        tn, fp, fn, tp = confusion_matrix(m, p, labels=[False, True]).ravel()
        assert (row.tp, row.fp, row.fn, row.tn) == (tp, fp, fn, tn)
        assert row.dice == pytest.approx(f1_score(m, p))
        assert row.sensitivity == pytest.approx(recall_score(m, p))
        assert row.specificity == pytest.approx(recall_score(m, p, pos_label=False))


def test_two_overlapping_squares():
    prediction, mask = np.zeros((2, 1, 10, 10), bool)
    prediction[0, 0:4, 0:4] = True
    mask[0, 2:6, 0:4] = True
    table = per_image(prediction, mask)
    assert table.loc[0, ["tp", "fp", "fn", "tn"]].tolist() == [8, 8, 8, 76]
    assert table.loc[0, ["dice", "sensitivity", "specificity"]].tolist() == [0.5, 0.5, 76 / 84]


def test_empty_and_full_masks():
    empty, full = np.zeros((1, 3, 3), bool), np.ones((1, 3, 3), bool)
    expected = {  # prediction and mask: Dice, sensitivity, specificity
        "both empty": (empty, empty, 1, np.nan, 1),
        "false alarm": (full, empty, 0, np.nan, 0),
        "all missed": (empty, full, 0, 0, np.nan),
        "both full": (full, full, 1, 1, np.nan),
    }
    for case, (prediction, mask, *values) in expected.items():
        row = per_image(prediction, mask)[["dice", "sensitivity", "specificity"]].to_numpy()[0]
        np.testing.assert_array_equal(row, values, err_msg=case)


def test_counts_add_up_and_swapping_arrays_swaps_errors():
    prediction, mask = random_masks(3), random_masks(4)
    counts = confusion_counts(prediction, mask)
    assert counts.shape == (12, 4) and np.issubdtype(counts.dtype, np.integer)
    assert (counts.sum(axis=1) == 63).all()
    np.testing.assert_array_equal(confusion_counts(mask, prediction), counts[:, [0, 2, 1, 3]])
    np.testing.assert_array_equal(confusion_counts(~prediction, ~mask), counts[:, [3, 2, 1, 0]])


def test_arrays_that_are_not_contiguous_count_alike():
    prediction, mask = random_masks(5, h=8, w=8), random_masks(6, h=8, w=8)
    turned = confusion_counts(prediction.transpose(0, 2, 1), mask.transpose(0, 2, 1))
    np.testing.assert_array_equal(turned, confusion_counts(prediction, mask))
    np.testing.assert_array_equal(confusion_counts(prediction[::2], mask[::2]), confusion_counts(prediction, mask)[::2])


def test_no_images_make_an_empty_table():
    table = per_image(np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), bool))
    assert len(table) == 0
    assert summarise(table)["n"].tolist() == [0, 0, 0]


def test_functions_take_numbers_and_broadcast():
    assert dice(0, 0, 0) == 1
    assert np.isnan(sensitivity(0, 0)) and np.isnan(specificity(0, 0))
    np.testing.assert_allclose(sensitivity(np.array([[1], [2]]), np.array([1, 2])), [[1 / 2, 1 / 3], [2 / 3, 1 / 2]])


def test_summary_leaves_undefined_out_and_counts_it():
    mask = random_masks(7)
    mask[:3] = False
    table = per_image(random_masks(8), mask)
    summary = summarise(table)
    defined = table["sensitivity"].to_numpy()[3:]
    assert summary.loc["sensitivity", ["n", "undefined"]].tolist() == [9, 3]
    assert summary.loc["sensitivity", "mean"] == pytest.approx(np.mean(defined))
    assert summary.loc["sensitivity", "std"] == pytest.approx(np.std(defined, ddof=1))
    assert summary.loc["dice", ["n", "undefined"]].tolist() == [12, 0]


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (np.zeros((2, 4, 4), bool), np.zeros((2, 4, 5), bool), r"same shape, received \(2, 4, 4\) and \(2, 4, 5\)"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), r"prediction: expected bool .*received float64"),
        (np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), np.uint8), r"mask: expected bool .*received uint8"),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool), r"\(n, height, width\), received bool \(4, 4\)"),
    ],
)
def test_bad_arrays_are_named(prediction, mask, message):
    with pytest.raises(LusbookError, match=message):
        confusion_counts(prediction, mask)
