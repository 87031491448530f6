"""Attempts to adapt better: sources, statistics of the target, pooling."""

import numpy as np
import pytest

from lusbook import attempts, trials
from lusbook.cohort import Cohort
from lusbook.settings import make_settings
from tests.helpers import untraced


def test_shares_of_area_and_of_probability():
    fans = np.ones((3, 4, 4), bool)
    fans[:, :2] = False
    found = np.zeros((3, 4, 4))
    found[0, 2:], found[1, 2], found[2, :2] = 0.6, 0.4, 1.0
    clips = type("Clips", (), {"fans": fans, "clip": np.array([0, 0, 0])})
    scores = attempts.pool(found, clips, 0.5).iloc[0]
    assert scores["area, median"] == 0 and scores["area, 75th percentile"] == 0.5
    assert scores["probability, 75th percentile"] == pytest.approx((0.2 + 0.6) / 2)


def source(size=32, n=6):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    fan = (np.hypot(y + 12, x - size / 2 + 0.5) < 42) & (np.abs(np.arctan2(x - size / 2 + 0.5, y + 12)) < 0.6)
    images = np.where(fan, rng.integers(60, 200, (n, size, size)), 0).astype(np.uint8)
    masks = fan & (np.abs(x - 20) < 2) & (np.arange(n) % 2 == 0)[:, None, None]
    return Cohort("clinic", images, masks, np.repeat(["a", "b", "c"], 2)[:n], np.repeat([0, 1, 2], 2)[:n])


def test_source_of_an_attempt():
    cohort = source()
    positive = attempts.prepare(attempts.ATTEMPTS["SIFA, source frames with B-lines only"], cohort)
    assert len(positive) == 3 and positive.masks.any(axis=(1, 2)).all()
    lines = attempts.prepare(attempts.ATTEMPTS["SIFA, scan lines"], cohort)
    assert lines.images.shape == cohort.images.shape
    assert lines.masks.any(axis=(1, 2)).tolist() == cohort.masks.any(axis=(1, 2)).tolist()
    assert attempts.prepare(attempts.ATTEMPTS["SIFA"], cohort) is cohort


def test_statistics_of_the_target_are_those_that_training_would_see():
    settings = make_settings("smoke", unet_dropout=0.0)
    with untraced():
        network = trials.unet_network(settings.unet_width, 0.1, settings.seed, settings.precision)
        frames = np.random.default_rng(0).integers(0, 255, (trials.INFERENCE_BATCH, 32, 32), dtype=np.uint8)
        attempts.take_statistics(network, settings, frames)
        first = [variable for variable in network.weights if variable.path.endswith("moving")][0]
        kernel = np.asarray(network.weights[0].value)
        images = trials.network_images(frames)
    padded = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    out = np.einsum("nhwij,ijc->nhwc", windows, kernel[:, :, 0])
    np.testing.assert_allclose(np.asarray(first.value)[0], out.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(np.asarray(first.value)[1], out.var(axis=(0, 1, 2)), rtol=1e-2)
