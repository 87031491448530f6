"""Measures of realism against known cases, and distances between sets."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, optimize

from lusbook import realism
from lusbook.errors import LusbookError
from tests.helpers import all_fan, noise, random_set

SIDE = 128


def sector(side=64):
    """A fan as a convex probe makes it."""
    y, x = np.mgrid[:side, :side]
    radius, angle = np.hypot(y + side / 4, x - (side - 1) / 2), np.arctan2(x - (side - 1) / 2, y + side / 4)
    return (radius > side * 0.4) & (radius < side * 1.2) & (np.abs(angle) < 0.5)


# ---------------------------------------------------------------------------------------------
# Measures of a frame


def test_grey_of_a_ramp_in_depth_is_the_depth():
    rows = np.arange(100)
    frames = np.zeros((2, 100, 100), np.uint8)
    fans = np.zeros(frames.shape, bool)
    for column in range(100):  # the fan begins lower and lower; grey is the depth below its own edge
        top = column // 4
        fans[:, top:, column] = True
        frames[:, top:, column] = rows[: 100 - top] * 2
    frames[~fans] = 255
    mean, sd = realism.grey_by_depth(frames, fans, bins=10)
    values = (rows * 2).reshape(10, 10) / 255
    np.testing.assert_allclose(mean[1, :7], values.mean(axis=1)[:7])  # below, short columns have ended
    np.testing.assert_allclose(sd[1, :7], values.std(axis=1)[:7])
    np.testing.assert_array_equal(mean[0], mean[1])
    assert mean.shape == sd.shape == (2, 10)


def test_grey_by_depth_equals_a_loop_over_pixels():
    fan = sector()
    frames = noise(side=64, sd=30)
    cells = {}
    depths = {(y, x): y - fan[:, x].argmax() for y, x in np.argwhere(fan)}
    for (y, x), depth in depths.items():
        cells.setdefault(int((depth + 0.5) / (max(depths.values()) + 1) * 5), []).append(frames[0, y, x] / 255)
    mean, sd = realism.grey_by_depth(frames, fan[None], bins=5)
    np.testing.assert_allclose(mean[0], [np.mean(cells[k]) for k in range(5)])
    np.testing.assert_allclose(sd[0], [np.std(cells[k]) for k in range(5)])


@pytest.mark.parametrize(("level", "sd"), [(100, 10), (120, 30)])
def test_speckle_snr_of_noise_is_mean_over_sd(level, sd):
    frames = noise(3, level=level, sd=sd)
    assert realism.speckle(frames, all_fan(frames))[0] == pytest.approx(level / sd, rel=0.04)


def test_speckle_snr_ignores_structure_dark_and_what_is_outside():
    frames = noise(2)
    fans = all_fan(frames)
    frames[1, :, 60:70] = 250  # a streak
    frames[1, 100:] = 3  # almost black
    fans[1, :, :20] = False
    frames[1, :, :20] = 255
    plain, disturbed = realism.speckle(frames, fans)[0]
    assert disturbed == pytest.approx(plain, rel=0.03)


def half_lag(sigma, high_pass):
    """Lag at which noise blurred by a Gaussian, and freed of Gaussian means, is correlated by one half."""

    def correlation(lag):  # before the high-pass exp(-lag**2 / (4 sigma**2)), one half at 2 sigma sqrt(ln 2)
        variances = 2 * sigma**2 + np.arange(3) * high_pass**2
        return [1, -2, 1] @ (np.exp(-(lag**2) / 2 / variances) / np.sqrt(variances))

    return optimize.brentq(lambda lag: correlation(lag) - correlation(0) / 2, 0, 3 * sigma)


@pytest.mark.parametrize("blur", [(1, 1), (1.5, 1), (1, 2)])
def test_correlation_lengths_of_blurred_noise(blur):
    frames = noise(4, blur=blur, sd=25)
    for found, sigma in zip(realism.speckle(frames, all_fan(frames))[1:], blur, strict=True):
        assert half_lag(sigma, 1e6) == pytest.approx(2 * sigma * np.sqrt(np.log(2)), rel=1e-4)
        assert found.mean() == pytest.approx(half_lag(sigma, SIDE / 16), rel=0.05)


def test_a_streak_is_no_long_speckle():
    frames = np.repeat(noise(level=60, sd=12), 2, axis=0)
    frames[1, :, 50:70] += 80
    np.testing.assert_allclose(*np.array(realism.speckle(frames, all_fan(frames))[1]), rtol=0.02)


def test_correlation_lengths_of_white_noise_in_any_fan():
    frames = noise(2, side=64)
    fans = np.stack([all_fan(frames)[0], sector()])
    # White noise without its mean over a Gaussian of SD 4 px: power, and product of neighbours (one half at 0.5
    # without the high-pass).
    kernel = -ndimage.gaussian_filter1d(np.eye(99)[49], 4)
    kernel[49] += 1
    power, neighbours = kernel @ kernel, kernel[1:] @ kernel[:-1]
    expected = 0.5 * power / (power - neighbours)
    np.testing.assert_allclose(realism.speckle(frames, fans)[1:], expected, atol=0.02)


def test_correlation_lengths_do_not_depend_on_gain_and_count_all_parts_alike():
    frames = np.repeat(noise(blur=(1, 1), level=40, sd=5), 3, axis=0)
    frames[1] *= 3
    strong = noise(blur=(3, 3), level=40, sd=10)[0]
    frames[2, :64] = strong[:64]  # coarse texture of twice the contrast in one half: still one half of the measure
    both = np.stack([frames[0], strong])
    lengths = np.array(realism.speckle(frames, all_fan(frames))[1:])
    np.testing.assert_allclose(lengths[:, 1], lengths[:, 0], rtol=1e-3)
    fine, coarse = np.array(realism.speckle(both, all_fan(both))[1:]).mean(axis=0)
    assert fine < lengths[:, 2].mean() < (fine + coarse) / 2


@pytest.mark.parametrize("ring", [2, 6, 13])
def test_spectrum_of_a_wave_peaks_at_its_frequency(ring):
    wave = np.cos(2 * np.pi * (ring + 0.5) / 32 * np.arange(SIDE))
    frames = np.rint(120 + 80 * np.stack([wave[:, None] + 0 * wave, wave + 0 * wave[:, None]])).astype(np.uint8)
    frequencies, power = realism.power_spectrum(frames, all_fan(frames))
    assert power.argmax(axis=1).tolist() == [ring, ring]
    assert frequencies[ring] == (ring + 0.5) / 32


def test_spectrum_of_white_noise_is_flat_and_free_of_gain():
    frames = noise(20, level=60, sd=12)
    frequencies, power = realism.power_spectrum(frames, all_fan(frames))
    np.testing.assert_allclose(power.mean(axis=0)[2:], 0, atol=0.5)  # the mean is taken off the lowest
    np.testing.assert_allclose(realism.power_spectrum(frames * 2, all_fan(frames))[1], power, atol=1e-9)
    np.testing.assert_allclose(np.diff(frequencies), 0.5 / 16)


def test_spectra_of_small_and_large_fans_agree():
    frames = noise(40, blur=(1, 1), sd=25)
    fans = all_fan(frames)
    fans[20:, :40] = fans[20:, 75:] = False  # squares of 35 px in place of 63
    power = realism.power_spectrum(frames, fans, bins=8)[1]
    np.testing.assert_allclose(power[:20].mean(axis=0)[:5], power[20:].mean(axis=0)[:5], atol=1)


def test_patch_is_the_largest_square_inside_the_fan():
    fan = sector()
    image = np.where(fan, 100, 0).astype(np.uint8)
    patch = realism._patch(image, fan, 64)
    assert (patch == 100).all()
    larger = ndimage.binary_erosion(fan, np.ones((len(patch) + 2, len(patch) + 2)))
    assert not larger.any()
    assert realism._patch(image, fan, 12).shape == (11, 11)


def test_description_is_finite_even_without_texture():
    frames = np.stack([noise(side=64)[0], np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)])
    fans = np.stack([sector()] * 3)
    described = realism.describe_frames(frames, fans, np.array(["a", "b", "b"]))
    assert described.shape == (3, 1 + 2 + 3 + 10 + 10 + 16)
    assert np.isfinite(described.drop(columns="patient")).all(axis=None)
    assert described.loc[1, ["axial", "lateral", "spectrum_3", "mean"]].tolist() == [16, 16, 0, 0]
    assert described["mean"][0] == pytest.approx(frames[0][fans[0]].mean() / 255)
    assert described["grey_2"][0] == realism.grey_by_depth(frames, fans)[0][0, 2]


# ---------------------------------------------------------------------------------------------
# Distances between sets


def described(n_patients=6, each=3, seed=0):
    return realism.describe_frames(*random_set(n_patients, each, seed=seed))


def test_distance_of_a_shifted_set_is_the_shift():
    a = described()
    b = a.copy()
    shifts = {"grey": ("grey_", 0.1), "contrast": ("sd_", 0.02), "snr": ("snr", 3), "axial": ("axial", 0.5)}
    shifts |= {"lateral": ("lateral", 2), "spectrum": ("spectrum_", 4)}
    for prefix, shift in shifts.values():
        b[[column for column in b if column.startswith(prefix)]] += shift
    found = realism.distances(a, b)
    assert found.to_dict() == pytest.approx({key: shift for key, (_, shift) in shifts.items()})
    assert (realism.distances(a, a) == 0).all()


def test_every_patient_weighs_the_same():
    a, b = described(seed=0), described(seed=1)
    more = pd.concat([a, a[a["patient"] == "a2"], a[a["patient"] == "a2"]])
    pd.testing.assert_series_equal(realism.distances(more, b), realism.distances(a, b))


def test_distances_refuse_other_tables():
    a = described()
    with pytest.raises(LusbookError, match="two tables of describe_frames"):
        realism.distances(a, a.drop(columns="snr"))
    with pytest.raises(LusbookError, match="received 0 rows"):
        realism.distances(a[:0], a)


def test_arrays_that_do_not_fit_are_refused():
    frames, fans, patients = random_set(2, 2)
    with pytest.raises(LusbookError, match=r"fans: expected bool \(4, 32, 32\), received bool \(3, 32, 32\)"):
        realism.describe_frames(frames, fans[:3], patients)
    with pytest.raises(LusbookError, match="fans: expected bool.*received uint8"):
        realism.speckle(frames, fans.astype(np.uint8))
    with pytest.raises(LusbookError, match="patients: expected one for each of 4 frames"):
        realism.describe_frames(frames, fans, patients[:3])
    with pytest.raises(LusbookError, match="frames: expected uint8.*received float64"):
        realism.grey_by_depth(frames / 255, fans)


@pytest.mark.parametrize("function", [realism.grey_by_depth, realism.speckle, realism.power_spectrum])
def test_empty_and_tiny_fans_are_refused_by_frame(function):
    frames, fans, _ = random_set(2, 2)
    fans[2] = False
    with pytest.raises(LusbookError, match="frame 2: expected a fan, received an empty one"):
        function(frames, fans)
    fans[2, 10:15, 10:15] = True
    with pytest.raises(LusbookError, match="frame 2: expected a fan (that holds|with pixels)"):
        function(frames, fans)
