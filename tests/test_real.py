"""Scores of clips and their agreement with flags."""

import numpy as np
import pytest

from lusbook import real
from lusbook.errors import LusbookError

FANS = np.ones((5, 16, 16), bool)


def test_pooled_value_is_the_percentile_of_each_clip():
    rng = np.random.default_rng(0)
    values, clip = rng.random(30), rng.permutation(np.repeat([0, 1, 2], [5, 12, 13]))
    expected = [np.percentile(values[clip == index], 75) for index in range(3)]
    np.testing.assert_allclose(real.pool_frames(values, clip), expected)


def test_pooling_refuses_a_clip_without_frames():
    with pytest.raises(LusbookError, match="none of clip 1"):
        real.pool_frames(np.zeros(2), np.array([0, 2]))
    with pytest.raises(LusbookError, match="for each frame"):
        real.pool_frames(np.zeros(2), np.array([0]))


def test_clip_score_counts_in_the_fan_only():
    fans = np.zeros((5, 16, 16), bool)
    fans[:, :, :8] = True
    masks = np.zeros_like(fans)
    masks[:, :, 6:10] = np.arange(5)[:, None, None] > 0  # two of eight columns of the fan, and two outside
    clip = np.array([0, 0, 0, 0, 1])
    np.testing.assert_allclose(real.clip_scores(masks, fans, clip), [0.25, 0.25])
    np.testing.assert_allclose(real.clip_scores(masks * 0.7, fans, clip), [0.25, 0.25])
    np.testing.assert_allclose(real.clip_scores(masks * 0.7, fans, clip, threshold=0.8), [0, 0])


def test_empty_fan_is_refused_by_frame():
    fans = FANS.copy()
    fans[3] = False
    for function in (real.mean_brightness, real.streak_score):
        with pytest.raises(LusbookError, match="frame 3"):
            function(np.zeros(fans.shape, np.uint8), fans)


def test_mean_brightness_is_the_mean_in_the_fan():
    rng = np.random.default_rng(0)
    frames, fans = rng.integers(0, 256, (5, 16, 16), dtype=np.uint8), rng.random((5, 16, 16)) > 0.5
    expected = [image[fan].mean() for image, fan in zip(frames, fans, strict=True)]
    np.testing.assert_allclose(real.mean_brightness(frames, fans), expected)


def test_streak_score_sees_streaks_below_not_bands_or_gain():
    frames = np.full((5, 16, 16), 40, np.uint8)
    frames[1, :, 5:8] += 30  # a streak down to the bottom
    frames[2, :6, 5:8] += 30  # one that ends in the upper half
    frames[3, 10:12] += 30  # a horizontal line
    frames[4] += 100  # more gain
    np.testing.assert_allclose(real.streak_score(frames, FANS), [0, 30, 0, 0, 0])


def test_streak_score_ignores_what_is_outside_and_at_the_rim_of_the_fan():
    y, x = np.mgrid[:32, :32]
    fans = (np.hypot(y + 8, x - 15.5) < 38)[None].copy()
    fans[:, :, :3] &= y[:, :3] < 18  # columns that barely reach the lower half
    frames = np.where(fans, 40, 255).astype(np.uint8)
    frames[:, :, :3] = 255
    assert real.streak_score(frames, fans)[0] == 0
