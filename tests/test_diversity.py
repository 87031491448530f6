"""Measures of labels and images, their variability, and its relation to Dice."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from lusbook.cohort import Cohort
from lusbook.diversity import MEASURES, describe_masks, variability
from lusbook.errors import LusbookError

SIDE = 24


def cohort_of(masks, images=None, patients=None, truth=None, name="covid"):
    """A cohort of given masks; by default noise images and a patient for every three images, one a fold."""
    n = len(masks)
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE))
    patients = np.array([f"{name}-{i // 3}" for i in range(n)] if patients is None else patients)
    folds = np.unique(patients, return_inverse=True)[1] % 3
    return Cohort(name, np.asarray(images, np.uint8), np.asarray(masks, bool), patients, folds, truth)


def boxes(*corners):
    """A mask for each (top, bottom, left, right)."""
    masks = np.zeros((len(corners), SIDE, SIDE), bool)
    for mask, (top, bottom, left, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def random_cohort(n=9, seed=1, name="covid"):
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, 8, n), rng.integers(0, 16, n)
    masks = boxes(*zip(top, top + rng.integers(6, 14, n), left, left + rng.integers(2, 7, n), strict=True))
    images = np.clip(rng.normal(80, 30, masks.shape) + 60 * masks, 0, 255)
    return cohort_of(masks, images, name=name)


def test_a_box_has_the_measures_of_a_box():
    row = describe_masks(cohort_of(boxes((6, 18, 2, 6)))).iloc[0]
    assert row["area_share"] == pytest.approx(48 / SIDE**2)
    assert (row["centroid_x"], row["centroid_y"]) == (pytest.approx(4 / SIDE), pytest.approx(12 / SIDE))
    assert row["components"] == 1
    # The ellipse of a box's second moments: variance of a side L is L^2 / 12, an axis is four standard deviations.
    assert row["length"] == pytest.approx(4 * 12 / np.sqrt(12) / SIDE)
    assert row["width"] == pytest.approx(4 * 4 / np.sqrt(12) / SIDE)
    assert row["orientation"] == pytest.approx(0)


def test_orientation_is_from_the_vertical_to_the_right_below():
    rows, columns = np.mgrid[:SIDE, :SIDE]
    right_below = np.abs(rows - columns) <= 1
    orientations = describe_masks(cohort_of([right_below, right_below[:, ::-1]]))["orientation"]
    assert orientations.tolist() == [pytest.approx(45), pytest.approx(-45)]


def test_the_largest_part_gives_the_shape_and_all_parts_the_count():
    mask = boxes((2, 20, 4, 7))
    mask[0, 21:23, 20] = True
    alone, both = describe_masks(cohort_of([boxes((2, 20, 4, 7))[0], mask[0]])).to_dict("records")
    assert (alone["components"], both["components"]) == (1, 2)
    assert (both["length"], both["width"]) == (alone["length"], alone["width"])
    diagonal = np.eye(SIDE, dtype=bool)
    assert describe_masks(cohort_of([diagonal]))["components"].item() == 1


def test_empty_and_full_labels_are_nan_where_nothing_is_to_measure():
    empty, full = describe_masks(cohort_of([np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))])).to_dict("records")
    assert (empty["area_share"], empty["components"]) == (0, 0)
    assert np.isnan([empty[key] for key in ("centroid_x", "length", "orientation", "edge_evidence")]).all()
    assert (full["area_share"], full["components"], full["centroid_x"]) == (1, 1, 0.5)
    assert np.isnan([full[key] for key in ("edge_evidence", "brightness_outside")]).all()


def test_grey_levels_in_and_out_of_the_label():
    masks = boxes((4, 20, 6, 14))
    row = describe_masks(cohort_of(masks, np.where(masks, 204, 51))).iloc[0]
    assert (row["brightness_inside"], row["brightness_outside"]) == (pytest.approx(0.8), pytest.approx(0.2))
    share = masks.mean()
    assert row["image_mean"] == pytest.approx(0.2 + 0.6 * share)
    assert row["entropy"] == pytest.approx(stats.entropy([share, 1 - share], base=2))


def test_edge_evidence_is_the_slope_into_the_label():
    masks = boxes((0, SIDE, 8, SIDE))  # the border is one vertical line; elsewhere the label ends with the image
    ramp = np.broadcast_to(5 * np.arange(SIDE), masks.shape)
    evidence = describe_masks(cohort_of(masks, ramp))["edge_evidence"].item()
    assert evidence == pytest.approx(5 / 255, rel=1e-3)
    assert describe_masks(cohort_of(masks, ramp[..., ::-1]))["edge_evidence"].item() == pytest.approx(-evidence)


def test_a_misplaced_label_has_less_edge_evidence():
    masks = boxes((4, 20, 8, 14))
    image = np.where(masks, 200, 60)
    placed, shifted = (
        describe_masks(cohort_of(m, image))["edge_evidence"].item() for m in (masks, boxes((4, 20, 13, 19)))
    )
    assert placed > 0.1 and shifted < 0.5 * placed


def test_image_distances_equal_all_pairs_one_by_one():
    cohort = random_cohort()
    described = describe_masks(cohort)
    correlation = np.corrcoef(cohort.images.reshape(9, -1))
    same = cohort.patients[:, None] == cohort.patients
    others = same & ~np.eye(9, dtype=bool)
    expected = [np.mean(1 - correlation[i][others[i]]) for i in range(9)]
    np.testing.assert_allclose(described["image_distance_within"], expected, atol=1e-5)
    expected = [np.mean(1 - correlation[i][~same[i]]) for i in range(9)]
    np.testing.assert_allclose(described["image_distance_between"], expected, atol=1e-5)


def test_an_even_image_correlates_with_none_and_a_lone_one_has_no_others():
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE))
    images[1] = 90
    described = describe_masks(cohort_of(boxes(*[(2, 20, 4, 7)] * 3), images, patients=["a", "a", "b"]))
    assert described["image_distance_within"][:2].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert np.isnan(described["image_distance_within"][2])
    assert described["image_distance_between"].notna().all()
    alone = describe_masks(cohort_of(boxes((2, 20, 4, 7))))
    assert alone[["image_distance_within", "image_distance_between"]].isna().all(axis=None)


def test_labels_are_held_against_exact_masks_where_known():
    masks, truth = boxes((4, 20, 6, 12), (2, 8, 2, 8)), boxes((6, 20, 7, 12), (2, 8, 2, 8))
    described = describe_masks(cohort_of(masks, truth=truth))
    expected = [f1_score(t.ravel(), m.ravel()) for m, t in zip(masks, truth, strict=True)]
    np.testing.assert_allclose(described["label_truth_dice"], expected)
    assert describe_masks(cohort_of(masks))["label_truth_dice"].isna().all()


def test_a_cohort_without_labels_is_refused():
    cohort = random_cohort()
    bare = Cohort("real", cohort.images, None, cohort.patients, cohort.folds)
    with pytest.raises(LusbookError, match="cohort 'real': masks"):
        describe_masks(bare)


def test_variability_by_patient_is_that_of_its_images():
    described = describe_masks(random_cohort())
    table = variability(described, "patient")
    assert list(table.columns) == ["cohort", "fold", "patient", "images", *MEASURES]
    assert table["patient"].tolist() == ["covid-0", "covid-1", "covid-2"] and (table["images"] == 3).all()
    rows = described[described["patient"] == "covid-1"]
    row = table.set_index("patient").loc["covid-1"]
    assert row["place"] == pytest.approx(np.sqrt(rows["centroid_x"].var() + rows["centroid_y"].var()))
    assert row["size"] == pytest.approx(stats.variation(rows["area_share"], ddof=1))
    assert row["elongation"] == pytest.approx(np.std(rows["length"] / rows["width"], ddof=1))
    assert row["brightness"] == pytest.approx(np.std(rows["image_mean"], ddof=1))
    assert row["edge_evidence"] == pytest.approx(rows["edge_evidence"].mean())


def test_distance_within_a_patient_is_the_mean_over_its_pairs():
    cohort = random_cohort()
    row = variability(describe_masks(cohort), "patient").iloc[0]
    pairs = [
        1 - np.corrcoef(cohort.images[i].ravel(), cohort.images[j].ravel())[0, 1] for i, j in combinations(range(3), 2)
    ]
    assert row["image_distance_within"] == pytest.approx(np.mean(pairs), abs=1e-5)


def test_same_labels_do_not_vary_and_moving_them_varies_place_alone():
    still = variability(describe_masks(cohort_of(boxes(*[(4, 20, 6, 9)] * 3))), "patient").iloc[0]
    moved = variability(
        describe_masks(cohort_of(boxes((4, 20, 2, 5), (4, 20, 6, 9), (4, 20, 10, 13)))), "patient"
    ).iloc[0]
    shape = ["size", "components", "elongation", "direction"]
    for row in (still, moved):
        np.testing.assert_allclose(row[shape].astype(float), 0, atol=1e-6)
    assert still["place"] == pytest.approx(0)
    assert moved["place"] == pytest.approx(4 / SIDE)


def test_directions_just_off_the_horizontal_are_alike_on_either_side():
    # Slopes of 1 in 22 either way: -87 and 87 degrees from the vertical are 5 degrees apart, not 175.
    masks = np.zeros((3, SIDE, SIDE), bool)
    masks[:, 11:13, 1:23] = True
    masks[0, 11, 1:12], masks[0, 12, 12:23] = False, False
    masks[1, 11, 12:23], masks[1, 12, 1:12] = False, False
    described = describe_masks(cohort_of(masks))
    assert np.ptp(described["orientation"]) > 150
    assert variability(described, "patient")["direction"].item() < 10


def test_a_patient_with_one_image_has_no_spread_and_an_empty_label_is_left_out():
    masks = boxes((4, 20, 6, 9), (4, 20, 10, 13), (4, 20, 8, 11))
    masks[2] = False
    table = variability(describe_masks(cohort_of(masks, patients=["a", "a", "b"])), "patient").set_index("patient")
    assert table.loc["b", ["place", "size", "components", "elongation", "direction", "brightness"]].isna().all()
    whole = variability(describe_masks(cohort_of(masks)), "cohort")
    assert whole["place"].item() == pytest.approx(np.std([7.5, 11.5], ddof=1) / SIDE)


def test_groups_of_each_kind():
    described = pd.concat([describe_masks(random_cohort(name=name)) for name in ("covid", "cap")])
    assert variability(described, "cohort")["cohort"].tolist() == ["covid", "cap"]
    assert len(variability(described, "fold")) == 6
    with pytest.raises(LusbookError, match=r"expected one of \['cohort', 'fold', 'patient'\], received 'frame'"):
        variability(described, "frame")
