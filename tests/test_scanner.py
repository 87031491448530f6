"""The scanner: speckle, grey map, shadow, focus, and the fan."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.special import polygamma

from lusbook import scanner
from lusbook.scanner import BEAMS, SAMPLES, SIDE, shrink
from tests.helpers import fixed_patient

EVEN = {"slope": 0, "noise": -90, "noise_slope": 0, "contact": 9, "gamma": 1, "side_lobes": -99, "grain": 1}


def shown(p, scattered=1.0, mirrored=0.0, shadow=0.0, seed=0):
    """Grey levels inside the fan of an even medium."""
    grid = np.ones((SAMPLES, BEAMS), np.float32)
    image = scanner.image(p, scattered * grid, mirrored * grid, shadow * grid, 0.0, np.random.default_rng(seed))
    assert not image[~p.inside].any()
    return image[p.inside].astype(float), image


def test_an_even_medium_is_even_in_depth_and_across():
    p = fixed_patient(**EVEN)
    grey, _ = shown(p)
    by_depth = [grey[(p.pixel_z > low) & (p.pixel_z < low + 20)].mean() for low in (10, 40, 70, 90)]
    assert np.ptp(by_depth) < 6
    assert abs(grey[p.pixel_angle < 0].mean() - grey[p.pixel_angle > 0].mean()) < 3


@pytest.mark.parametrize("step", [-10.0, 5.0])
def test_grey_follows_echo_gain_and_shadow_in_decibel(step):
    p = fixed_patient(**EVEN)
    grey = shown(p)[0].mean()
    expected = 255 * step / p.range
    assert shown(p, scattered=10 ** (step / 10))[0].mean() - grey == pytest.approx(expected, abs=0.5)
    assert shown(p, shadow=-step)[0].mean() - grey == pytest.approx(expected, abs=0.5)
    louder = fixed_patient(**EVEN | {"gain": p.gain + step})
    assert shown(louder)[0].mean() - grey == pytest.approx(expected, abs=0.5)


def test_speckle_of_three_directions_has_the_spread_of_a_gamma_variable():
    """Power compounded of three looks is gamma distributed; its logarithm's variance is the trigamma function at 3."""
    p = fixed_patient(**EVEN)
    p.pixel_sample, p.pixel_beam = p.pixel_row, p.pixel_column  # on the grid: interpolation would even it out
    decibel = shown(p)[0] * p.range / 255
    assert decibel.std() == pytest.approx(10 / np.log(10) * np.sqrt(polygamma(1, 3)), rel=0.05)


def test_smooth_surfaces_have_no_speckle():
    p = fixed_patient(**EVEN)
    assert shown(p, scattered=1e-6, mirrored=0.3)[0].std() < 0.2 * shown(p)[0].std()


def test_beams_are_narrowest_at_the_focus():
    def roughness(image, rows):
        part = image[rows, 100:156].astype(float)
        return np.abs(np.diff(part, axis=1)).mean()

    p = fixed_patient(**EVEN | {"focus": 0.15, "lateral": 1.0, "opening": 40})
    near, far = ([roughness(shown(p, seed=k)[1], rows) for k in range(3)] for rows in (slice(45, 75), slice(190, 220)))
    assert np.mean(near) > 1.3 * np.mean(far)


def test_noise_is_what_remains_in_shadow():
    quiet, loud = (shown(fixed_patient(**EVEN | {"noise": level}), shadow=80.0)[0].mean() for level in (-60, -20))
    assert quiet < 1 and loud > 10


def test_less_speckle_keeps_what_stands_out():
    rng = np.random.default_rng(0)
    level = rng.normal(0, 3, (80, 60))
    level[40] += 40
    smooth = scanner._less_speckle(level, 0.4)
    assert smooth[:30].std() < 0.65 * level[:30].std()
    assert smooth[40].mean() - smooth[:30].mean() > 35
    assert np.allclose(scanner._less_speckle(level, 1.0), level)


def test_speckle_decorrelates_from_frame_to_frame_but_not_at_once():
    p = fixed_patient(**EVEN)
    frames = [shown(p, seed=k)[1].astype(float) for k in (0, 1)]
    high = [(f - uniform_filter(f, 9))[p.inside] for f in frames]
    assert 0.3 < np.corrcoef(*high)[0, 1] < 0.9


@pytest.mark.parametrize("kind", sorted(scanner.SCANNERS))
def test_every_pixel_of_the_fan_lies_on_the_grid(kind):
    p = fixed_patient(kind, top=3, aspect=0.9)
    assert p.inside.shape == (SIDE, SIDE) and p.inside.sum() == len(p.pixel_z)
    assert p.pixel_z.min() >= -1e-3 and p.pixel_z.max() <= p.depth + 1e-3
    assert np.abs(p.pixel_angle).max() <= p.half + 1e-3
    rows, columns = np.nonzero(p.inside)
    assert max(np.ptp(rows), np.ptp(columns)) >= SIDE - 3  # the fan fills the image


def test_a_mask_never_shrinks_to_nothing():
    mask = np.zeros((256, 256), bool)
    mask[100, 30] = True
    small = shrink(mask, 16)
    assert small.sum() == 1 and small[6, 1]
