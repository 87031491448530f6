"""Augmentation of image and mask together."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from lusbook.augment import BLACK, random_transforms, transform, vary_intensity
from lusbook.settings import make_settings


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.9, 0.9, (3, 24, 24, 1)).astype("float32")
    return images, (images > 0.2).astype("float32")


def test_no_augmentation_changes_nothing(frames):
    settings = make_settings("smoke", augment_rotation=0, augment_shift=0, augment_scale=0)
    transforms = random_transforms(np.random.default_rng(0), 3, 24, settings)
    images, masks = transform(*frames, transforms)
    np.testing.assert_allclose(images, frames[0], atol=1e-5)
    np.testing.assert_array_equal(masks, frames[1])


def test_transform_equals_scipy(frames):
    transforms = random_transforms(np.random.default_rng(1), 3, 24, make_settings("smoke"))
    moved = np.asarray(transform(*frames, transforms)[0])
    for image, result, (a0, a1, a2, b0, b1, b2, *_) in zip(frames[0], moved, transforms, strict=True):
        # SciPy orders rows before columns; it and Keras fade differently at the border, so compare inside.
        matrix, offset = [[b1, b0], [a1, a0]], [b2, a2]
        expected = affine_transform(image[..., 0] - BLACK, matrix, offset, order=1, mode="constant") + BLACK
        np.testing.assert_allclose(result[6:-6, 6:-6, 0], expected[6:-6, 6:-6], atol=1e-3)


def test_mask_moves_with_its_image(frames):
    smooth = np.tile(np.linspace(-0.9, 0.9, 24, dtype="float32")[None, None, :, None], (3, 24, 1, 1))
    masks = (smooth > 0).astype("float32")
    images, moved = transform(smooth, masks, random_transforms(np.random.default_rng(2), 3, 24, make_settings("smoke")))
    images, moved = np.asarray(images), np.asarray(moved)
    clear = abs(images) > 0.1  # away from the edge itself
    assert ((images > 0) == (moved > 0.5))[clear].mean() > 0.995
    assert set(np.unique(moved)) <= {0.0, 1.0}


def test_transforms_stay_within_their_limits():
    settings = make_settings("smoke", augment_rotation=10, augment_shift=0.2, augment_scale=0.1)
    rows = random_transforms(np.random.default_rng(3), 500, 100, settings)
    scale = 1 / np.hypot(rows[:, 0], rows[:, 3])
    angle = np.degrees(np.arctan2(rows[:, 3], rows[:, 0]))
    centre = rows[:, :6].reshape(-1, 2, 3) @ np.array([49.5, 49.5, 1.0]) - 49.5
    assert 0.9 <= scale.min() < 0.92 and 1.08 < scale.max() <= 1.1
    assert 9 < abs(angle).max() <= 10.001
    assert 18 < abs(centre).max() <= 20.001


def test_intensity_varies_each_image_and_leaves_black_black():
    images = np.full((6, 16, 16, 1), -0.9, "float32")
    images[:, 4:12, 4:12] = np.linspace(-0.5, 0.8, 64, dtype="float32").reshape(8, 8, 1)
    varied = vary_intensity(images, np.random.default_rng(0), 0.5)
    assert varied.shape == images.shape and varied.dtype == np.float32
    assert (varied[images == np.float32(-0.9)] == np.float32(-0.9)).all()
    assert varied.min() >= np.float32(-0.9) and varied.max() <= np.float32(0.9)
    inside = varied[:, 4:12, 4:12].reshape(6, -1)
    assert np.ptp(inside.mean(axis=1)) > 0.1  # each image in its own way
    assert (np.corrcoef(inside)[0] > 0.7).all()  # and what was brighter stays so


def test_intensity_without_strength_takes_nothing_from_the_generator():
    rng = np.random.default_rng(0)
    images = np.zeros((2, 8, 8, 1), "float32")
    assert vary_intensity(images, rng, 0.0) is images
    assert rng.random() == np.random.default_rng(0).random()
