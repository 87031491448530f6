"""Ceilings of Dice: the enlargement is that of the networks, and the best map is near the best."""

import numpy as np
import pytest

from lusbook import metrics
from lusbook.ceiling import STRIDES, best_map, ceiling, enlarging

SIDE = 64


def dice(found, mask):
    return metrics.dice(*metrics.confusion_counts(found[None], mask[None]).T[:3]).item()


def bar(width, middle=32):
    """A vertical line across a mask; by default it lies between the centres of two columns of cells, 27.5 and 35.5."""
    mask, left = np.zeros((SIDE, SIDE), bool), middle - (width + 1) // 2
    mask[:, left : left + width] = True
    return mask


@pytest.mark.parametrize("cells", [1, 2, 8])
def test_the_enlargement_is_that_of_the_segmenter(cells):
    import keras

    logits = np.random.default_rng(0).normal(size=(1, cells, cells, 1)).astype("float32")
    expected = np.asarray(keras.layers.UpSampling2D(8, interpolation="bilinear")(logits))[0, ..., 0]
    weights = enlarging(cells, 8 * cells)
    np.testing.assert_allclose(weights @ logits[0, ..., 0] @ weights.T, expected, atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_the_stride_is_that_of_the_networks():
    from lusbook import sifa, unet

    segmenter = sifa.build_segmenter(32, 0.0625)
    cells = segmenter.input.shape[1]
    (resize,) = [layer for layer in segmenter.layers if "up_sampling" in layer.name]
    assert (32 // cells, resize.interpolation) == (STRIDES["sifa"], "bilinear")
    logits = unet.build_unet(0.125, 0.0)(np.zeros((1, 32, 32, 1), "float32"))[0]
    assert 32 // logits.shape[1] == STRIDES["unet"]


@pytest.mark.parametrize("seed", range(3))
def test_what_the_grid_can_say_it_nearly_says(seed):
    logits = np.random.default_rng(seed).normal(size=(8, 8))
    weights = enlarging(8, SIDE)
    mask = weights @ logits @ weights.T > 0
    assert dice(best_map(mask, 8), mask) > 0.99


def test_a_grid_of_pixels_says_everything():
    mask = np.random.default_rng(0).random((8, 8)) < 0.3
    np.testing.assert_array_equal(best_map(mask, 1), mask)
    masks = np.stack([bar(1), bar(20), np.zeros((SIDE, SIDE), bool)])
    assert ceiling(masks, "unet").tolist() == [1, 1, 1]


def test_ceilings_fall_with_narrower_lines():
    """Between two centres logits are linear: where a line ends, those of one side at least stay positive up to one."""
    found = ceiling(np.stack([bar(width) for width in (8, 6, 4, 2, 1)]), "sifa")
    best = [1, 2 * 6 / (6 + 7), 2 * 4 / (4 + 6), 2 * 2 / (2 + 5), 2 * 1 / (1 + 4)]
    assert (np.diff(found) < 0).all() and found[0] > 0.99
    # Never more than there is; symmetric lines are where the fit misses most, since it starts between two best maps.
    assert (found < np.array(best) + 0.01).all() and (found > np.array(best) - 0.2).all()
    assert ceiling(bar(1, middle=28)[None], "sifa").item() > 0.99  # at the centre of a cell a line may be narrow
    diagonal = np.eye(SIDE, dtype=bool)
    assert ceiling(diagonal[None], "sifa").item() < 0.7


def test_ceilings_are_of_each_mask_and_no_worse_than_a_map_of_shares():
    rng = np.random.default_rng(1)
    masks = np.stack([bar(3), bar(3).T, bar(12) & bar(30).T, rng.random((SIDE, SIDE)) < 0.05])
    found, weights = ceiling(masks, "sifa"), enlarging(8, SIDE)
    assert found.shape == (4,) and found[0] == pytest.approx(found[1], abs=0.01)
    for mask, best in zip(masks, found, strict=True):
        shares = mask.reshape(8, 8, 8, 8).mean((1, 3))
        plain = [dice(weights @ (shares - level) @ weights.T > 0, mask) for level in (0.1, 0.2, 0.3, 0.4, 0.5)]
        assert max(plain) - 0.02 < best <= 1
