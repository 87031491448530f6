"""What images say of label borders and texture, distinct frames, and the folder that keeps them."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from lusbook import runs, spread, store
from lusbook.cohort import Cohort
from lusbook.errors import LusbookError
from lusbook.settings import make_settings
from tests.helpers import write_manifest

SIDE = 32


def stripes(n, seed=0):
    """A vertical stripe as label of each of n images."""
    masks = np.zeros((n, SIDE, SIDE), bool)
    for mask, left in zip(masks, np.random.default_rng(seed).integers(4, SIDE - 10, n), strict=True):
        mask[8:, left : left + 5] = True
    return masks


def cohort_of(masks, name="covid", contrast=60, seed=0, truth=None, each=4):
    """Noise with brighter labels; a patient for every few images, in three folds."""
    images = np.random.default_rng(seed).normal(80, 20, masks.shape) + contrast * masks
    patients = np.array([f"{name}-{i // each}" for i in range(len(masks))])
    folds = np.unique(patients, return_inverse=True)[1] % 3
    return Cohort(name, np.clip(images, 0, 255).astype(np.uint8), masks, patients, folds, truth)


@pytest.fixture(scope="module")
def frames():
    masks = stripes(12)
    return spread.measure_frames(cohort_of(masks, truth=np.roll(masks, 1, axis=2)))


def test_the_band_is_a_pixel_or_a_thirty_second_on_either_side():
    for side in (SIDE, 4 * SIDE):
        mask = np.zeros((side, side), bool)
        mask[:, side // 2 :] = True  # the image's edge on three sides is no border
        columns = np.flatnonzero(spread.border_band(mask, np.ones_like(mask)).any(axis=0))
        width = side // 32
        assert columns.tolist() == list(range(side // 2 - width, side // 2 + width))
        seen = np.zeros_like(mask)
        seen[: side // 2] = True
        assert not spread.border_band(mask, seen)[side // 2 :].any()
    for even in (np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)):
        assert not spread.border_band(even, np.ones_like(even)).any()


def test_border_auroc_counts_pairs_of_pixels():
    cohort = cohort_of(stripes(3), contrast=15)
    seen = np.ones_like(cohort.masks)
    found = spread.border_aurocs(cohort.images, cohort.masks, seen)
    for image, mask, auroc in zip(cohort.images, cohort.masks, found, strict=True):
        band = spread.border_band(mask, np.ones_like(mask))
        pairs = list(product(image[band & mask].astype(int), image[band & ~mask].astype(int)))
        assert auroc == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
        assert auroc == pytest.approx(roc_auc_score(mask[band], image[band]))
    inverse = spread.border_aurocs(255 - cohort.images, cohort.masks, seen)
    np.testing.assert_allclose(inverse, 1 - found)


def test_border_auroc_is_one_for_a_bright_label_and_half_for_an_even_image():
    masks = stripes(2)
    images = np.stack([np.where(masks[0], 200, 50), np.full((SIDE, SIDE), 90)]).astype(np.uint8)
    assert spread.border_aurocs(images, masks, np.ones_like(masks)).tolist() == [1, 0.5]
    assert np.isnan(spread.border_aurocs(images, np.zeros_like(masks), np.ones_like(masks))).all()


def test_a_label_beside_the_line_has_less_contrast_than_the_exact_mask():
    truth = stripes(12)
    frames = spread.measure_frames(cohort_of(truth, truth=truth))
    assert (frames["border_auroc"] == frames["truth_auroc"]).all()
    images = cohort_of(truth).images
    patients = np.array([f"p{i // 4}" for i in range(12)])
    beside = Cohort("covid", images, np.roll(truth, 3, axis=2), patients, np.arange(12) // 4, truth)
    moved = spread.measure_frames(beside)
    assert (moved["truth_auroc"] > 0.9).all() and moved["border_auroc"].mean() < 0.7


def test_without_exact_masks_their_contrast_is_unknown():
    assert spread.measure_frames(cohort_of(stripes(4, 1), each=2))["truth_auroc"].isna().all()


def test_gain_and_brightness_do_not_change_what_a_border_shows():
    cohort = cohort_of(stripes(1))
    image, band = cohort.images[0] // 2, spread.border_band(cohort.masks[0], np.ones((SIDE, SIDE), bool))
    one, other = (spread.border_evidence(changed.astype(np.uint8), band) for changed in (image, 2 * image + 1))
    np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(one.mean(axis=0), 0, atol=1e-5)
    assert one.shape == (band.sum(), 7)


def test_a_regression_of_other_patients_predicts_clear_borders_and_not_random_ones():
    clear = spread.measure_frames(cohort_of(stripes(12), contrast=80))
    assert clear["evidence_auroc"].min() > 0.9
    masks = stripes(24)
    nothing = spread.measure_frames(cohort_of(masks, contrast=0))
    assert abs(nothing["evidence_auroc"].mean() - 0.5) < 0.08


def test_a_patient_is_predicted_without_its_own_labels():
    """Labels of one patient that contradict the others' are predicted worse than by chance."""
    masks = stripes(12)
    cohort = cohort_of(masks, contrast=60)
    cohort.images[8:] = 255 - cohort.images[8:]
    found = spread.measure_frames(cohort)["evidence_auroc"]
    assert (found[8:] < 0.1).all()
    alone = cohort_of(stripes(4))
    assert spread.measure_frames(alone)["evidence_auroc"].isna().all()


def test_black_pixels_of_a_patient_are_not_looked_at():
    cohort = cohort_of(stripes(8))
    cohort.images[:, :, :4] = 0
    cohort.images[4:, :6] = 0
    seen = spread.seen_pixels(cohort)
    assert not seen[:, :, :4].any() and not seen[4:, :6].any() and seen[:4, :6, 4:].all()
    cohort.images[4:] = 0
    with pytest.raises(LusbookError, match="patient 'covid-1': expected images, all frames are black"):
        spread.measure_frames(cohort)


def test_texture_shares_sum_to_one_and_do_not_know_the_gain(frames):
    np.testing.assert_allclose(frames[spread.TEXTURE].sum(axis=1), 1)
    image, seen = np.random.default_rng(0).integers(0, 100, (SIDE, SIDE)), np.ones((SIDE, SIDE), bool)
    one, other = (spread.texture_codes((gain * image).astype(np.uint8), seen) for gain in (1, 2))
    np.testing.assert_array_equal(one, other)
    even = spread.texture_codes(np.full((SIDE, SIDE), 7, np.uint8), seen)
    assert even[8] > 0.8  # all neighbours are as bright


def test_frames_are_evenly_spaced_and_at_most_twenty():
    patients = np.repeat(["a", "b"], [39, 5])
    table = pd.DataFrame({"cohort": "covid", "patient": patients})
    assert spread.choose_frames(table).tolist() == [*range(0, 39, 2), *range(39, 44)]
    mixed = table.sample(frac=1, random_state=0)
    assert sorted(mixed["patient"].iloc[spread.choose_frames(mixed)]) == ["a"] * 20 + ["b"] * 5


def test_standardised_measures_have_unit_mean_square(frames):
    few = np.arange(len(frames))
    space = spread.standardise(frames, few)
    np.testing.assert_allclose(space.mean(axis=0), 0, atol=1e-12)
    assert (space**2).sum(axis=1).mean() == pytest.approx(1)
    scaled = frames.assign(**{name: 5 * frames[name] + 1 for name in spread.FEATURES})
    np.testing.assert_allclose(spread.standardise(scaled, few), space, atol=1e-9)


def test_remoteness_is_the_mean_distance_from_other_patients(frames):
    other = spread.measure_frames(cohort_of(stripes(8, 3), "cap", seed=3))
    both = pd.concat([frames, other], ignore_index=True)
    few = np.arange(len(both))
    space = spread.standardise(both, few)
    found = spread.remoteness(both, space, few)
    apart = cdist(space, space)
    assert found["far_cap"][0] == pytest.approx(apart[0, 12:].mean())
    assert found["far_covid"][0] == pytest.approx(apart[0, 4:12].mean())
    alone = spread.remoteness(frames[:4], space[:4], np.arange(4))
    assert alone["far_covid"].isna().all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_vendi_score_of_copies_is_one_and_of_unlike_frames_their_number(n):
    assert spread.vendi_score(np.ones((n, n))) == pytest.approx(1)
    assert spread.vendi_score(np.eye(n)) == pytest.approx(n)


def test_vendi_score_of_groups_of_copies_is_the_entropy_of_their_sizes():
    groups = np.repeat([0, 1, 2], [5, 3, 2])
    shares = np.array([0.5, 0.3, 0.2])
    found = spread.vendi_score(groups[:, None] == groups)
    assert found == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    order = np.random.default_rng(0).permutation(10)
    assert spread.vendi_score((groups[:, None] == groups)[np.ix_(order, order)]) == pytest.approx(found)


def test_vendi_score_of_two_is_known():
    shares = np.array([1 + 0.6, 1 - 0.6]) / 2
    assert spread.vendi_score([[1, 0.6], [0.6, 1]]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.ones((2, 3)), "square matrix, received shape"),
        (np.zeros((0, 0)), "square matrix"),
        ([[1, 0.5], [0.2, 1]], "symmetric"),
        ([[1, 0.5], [0.5, 2]], "1 on the diagonal"),
        ([[1, np.nan], [np.nan, 1]], "finite"),
    ],
)
def test_what_is_no_similarity_is_refused(similarity, message):
    with pytest.raises(LusbookError, match=message):
        spread.vendi_score(similarity)


def test_similarity_of_images_is_their_correlation():
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8)).astype(np.uint8)
    np.testing.assert_allclose(spread.image_similarity(images), np.corrcoef(images.reshape(4, -1)))
    images[2] = 9
    even = spread.image_similarity(images)
    assert even[2].tolist() == [0, 0, 1, 0]


def test_effective_frames_of_every_group():
    keys = pd.DataFrame({"cohort": ["covid"] * 4, "fold": [0, 0, 1, 1], "patient": ["a", "a", "b", "b"]})
    image = np.random.default_rng(0).integers(0, 255, (8, 8))
    images = np.stack([image, image, image.T, image.T]).astype(np.uint8)
    space = np.array([[0.0], [0.0], [1000.0], [1000.0]])
    found = spread.effective_frames(keys, images, space)
    assert found["by"].tolist() == ["cohort", "fold", "fold", "patient", "patient"]
    assert found["frames"].tolist() == [4, 2, 2, 2, 2]
    np.testing.assert_allclose(found["vendi_images"][1:], 1)
    r = np.corrcoef(image.ravel(), image.T.ravel())[0, 1]
    assert found["vendi_images"][0] == pytest.approx(spread.vendi_score([[1, r], [r, 1]]))
    assert found["vendi_features"].tolist()[1:] == pytest.approx([1] * 4) and 1 < found["vendi_features"][0] <= 2


def test_examples_are_ordered_by_their_contrast(frames):
    masks = stripes(12)
    arrays = spread.examples(frames, cohort_of(masks).images, masks)
    assert arrays["covid_image"].shape == arrays["covid_mask"].shape == (3, SIDE, SIDE)
    assert arrays["covid_auroc"].tolist() == sorted(arrays["covid_auroc"])
    unknown = frames.assign(border_auroc=np.nan)
    assert spread.examples(unknown, cohort_of(masks).images, masks) == {}


def test_a_cohort_without_labels_is_refused():
    cohort = cohort_of(stripes(4))
    bare = Cohort("real", cohort.images, None, cohort.patients, cohort.folds)
    with pytest.raises(LusbookError, match="cohort 'real': masks"):
        spread.measure_frames(bare)


def test_the_folder_is_computed_once_and_the_same_again(tmp_path):
    settings = make_settings("smoke", cohorts=str(write_manifest(tmp_path)))
    assert runs.kept_tables("spread", settings, tmp_path / "one") == {}
    one, examples = runs.spread(settings, tmp_path / "one")
    other, _ = runs.spread(settings, tmp_path / "other")
    assert set(one) == {"frames", "effective", "distances"} and "cap_mask" in examples
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name], check_exact=True)
    path = store.study_folder(settings, tmp_path / "one") / "spread"
    before = (path / "frames.csv").stat().st_mtime_ns
    again, _ = runs.spread(settings, tmp_path / "one")
    assert (path / "frames.csv").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again["frames"], runs.kept_tables("spread", settings, tmp_path / "one")["frames"])
    assert len(one["frames"]) == 24 and runs.stale_runs(settings, tmp_path / "one") == {}
