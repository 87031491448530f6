"""The U-Net, its loss and its training step."""

import keras
import numpy as np
import pytest

from lusbook import backend, unet
from lusbook.augment import random_transforms
from lusbook.settings import make_settings
from lusbook.training import reset


def test_levels_and_layers():
    model = unet.build_unet()
    kinds = [type(layer).__name__ for layer in model.layers]
    filters = [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert filters == [16, 16, 32, 32, 64, 64, 128, 128, 64, 64, 32, 32, 16, 16, 1]
    assert kinds.count("BatchNorm") == kinds.count("Dropout") == 14
    for first, second in zip(kinds, kinds[1:], strict=False):
        assert (first == "BatchNorm") == (second == "Dropout")
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == {0.5}


@pytest.mark.parametrize("size", [16, 40])
def test_any_size_divisible_by_eight(size):
    assert unet.build_unet(0.125)(np.zeros((1, size, size, 1), "float32"))[0].shape == (1, size, size, 1)


def test_loss_equals_keras_cross_entropy_and_numpy_dice():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (3, 8, 8, 1)).astype("float32")
    masks = (rng.random((3, 8, 8, 1)) < 0.3).astype("float32")
    cross_entropy, dice = unet.bce_dice(logits, masks)
    expected = np.mean(keras.losses.binary_crossentropy(masks, logits, from_logits=True))
    assert float(cross_entropy) == pytest.approx(expected, rel=1e-4)
    p = 1 / (1 + np.exp(-logits))
    assert float(dice) == pytest.approx(1 - 2 * (p * masks).sum() / (p.sum() + masks.sum()), rel=1e-4)


def test_loss_stays_finite_at_extreme_logits_and_empty_masks():
    for mask in (0.0, 1.0):
        masks = np.full((1, 8, 8, 1), mask, "float32")
        for logit in (-1e4, 1e4):
            assert np.isfinite([float(loss) for loss in unet.bce_dice(np.full_like(masks, logit), masks)]).all()


def bright_squares(n=8, size=16, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, size, size, 1), "float32")
    for mask in masks:
        x, y = rng.integers(2, 8, 2)
        mask[y : y + 6, x : x + 6] = 1
    return np.clip(masks * 1.2 - 0.6 + rng.normal(0, 0.1, masks.shape), -0.9, 0.9).astype("float32"), masks


def test_training_learns_and_repeats_exactly():
    settings = make_settings("smoke")
    images, masks = bright_squares()
    model = unet.build_unet(0.25, 0.1, seed=1)
    step, optimizer, state = unet.make_step(model)
    optimizer.rate.assign(0.005)
    initial = [np.asarray(variable.value) for variable in state]
    runs = []
    for _ in range(2):
        reset(state, initial)
        history = []
        for iteration in range(60):
            transforms = random_transforms(np.random.default_rng(iteration), len(images), 16, settings)
            history.append(float(step(images, masks, transforms)["dice_loss"]))
        runs.append((history, [np.asarray(variable.value) for variable in state]))
    assert np.mean(runs[0][0][-5:]) < 0.65 * runs[0][0][0]
    assert runs[0][0] == runs[1][0]
    for one, other in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_prediction_changes_no_variable():
    model = unet.build_unet(0.125)
    before = [np.asarray(variable.value) for variable in model.variables]
    probabilities = np.asarray(unet.make_predict(model)(bright_squares()[0]))
    assert probabilities.shape == (8, 16, 16)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.value)


def test_the_backend_names_its_device():
    assert backend.device()
