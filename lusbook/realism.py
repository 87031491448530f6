"""How near simulated frames are to real ones, in what a sonographer would name.

Grey levels by depth, speckle, spectrum, and distances between two sets of frames in these; how far real sources are
from each other is the yardstick. Lengths are in pixels: compare frames of one size only, cropped alike.
:mod:`lusbook.features` compares what networks see.
"""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.signal.windows import hann
from scipy.stats import wasserstein_distance
from skimage.measure import shannon_entropy

from lusbook.errors import LusbookError
from lusbook.real import fan_pixels, mean_brightness

WINDOW = 9  # px, side of the windows of the speckle SNR, three blocks of 3 px
DARK = 10  # mean grey level below which a window is almost black: there rounding, not echo, makes the grey levels vary
LEAST_SD = 2.0  # grey levels, local standard deviation below which texture is rounding and coding noise
SMALLEST_PATCH = 8  # px, side of the square that a spectrum needs
FLOOR = 1e-6  # -60 dB, below the rounding noise of 8 bits


def grey_by_depth(frames, fans, bins=10):
    """Mean and standard deviation of the grey level in equal bins of depth.

    The depth of a pixel is its vertical distance below the upper edge of the fan in its own column, as a share of the
    greatest such distance in the frame.

    Parameters
    ----------
    frames : ndarray, shape (n, size, size), uint8
    fans : ndarray, shape (n, size, size), bool
    bins : int

    Returns
    -------
    mean, sd : ndarray, shape (n, bins), float
        Share of 255.

    Raises
    ------
    LusbookError
        If a fan is empty, or has no pixel in a bin.
    """
    check_frames(frames, fans)
    mean, sd = np.empty((2, len(frames), bins))
    for index, (image, fan) in enumerate(zip(frames, fans, strict=True)):
        depth = np.where(fan, np.arange(len(fan))[:, None] - fan.argmax(axis=0), -1)  # (size, size), px
        which = ((depth[fan] + 0.5) / (depth.max() + 1) * bins).astype(int)  # a pixel is where its centre is
        pixels, grey = np.bincount(which, minlength=bins), image[fan] / 255
        if not pixels.all():
            raise LusbookError(f"frame {index}: expected a fan with pixels in {bins} bins of depth, received {pixels}")
        mean[index] = np.bincount(which, grey, bins) / pixels
        sd[index] = np.sqrt(np.bincount(which, (grey - mean[index][which]) ** 2, bins) / pixels)
    return mean, sd


def speckle(frames, fans):
    """Speckle signal-to-noise ratio (SNR), and how far speckle reaches along and across the beam.

    The SNR is the median of local mean / local standard deviation over homogeneous windows: of the 9 x 9 px windows
    that lie in the fan and are not almost black (unless all are), the half whose 3 x 3 px blocks take the least share
    of the window's variance. Grey levels are log-compressed, so the SNR is not Rayleigh's 1.91; it compares frames
    that were processed alike. A window without any variance counts with that of rounding.

    The correlation lengths are the lags at which the autocorrelation inside the fan falls to one half, linear between
    pixels. Before, local means along the same direction are taken off (Gaussian, size / 16), so that a streak is not
    taken for long speckle, and local standard deviations made equal, so that a bright pleura counts no more than other
    pixels. Taking means off shortens lengths: in frames of 128 px, 1.7 px to 1.4 px.

    Parameters
    ----------
    frames, fans
        As :func:`grey_by_depth`.

    Returns
    -------
    snr : ndarray, shape (n,), float
        No unit.
    axial, lateral : ndarray, shape (n,), float
        Vertical and horizontal correlation length in px; size / 4 where the autocorrelation stays above one half
        that far, and in a frame without texture.

    Raises
    ------
    LusbookError
        If a fan is empty, or no window fits in it.
    """
    check_frames(frames, fans)
    measures = np.empty((3, len(frames)))
    for index, (image, fan) in enumerate(zip(frames.astype(float), fans, strict=True)):
        whole = ndimage.binary_erosion(fan, np.ones((WINDOW, WINDOW)))
        if not whole.any():
            raise LusbookError(f"frame {index}: expected a fan that holds a window of {WINDOW} px, received a smaller")
        measures[:, index] = _snr(image, whole), _half_length(image, fan), _half_length(image.T, fan.T)
    return tuple(measures)


def _snr(image, whole):
    """Speckle SNR; ``whole``, shape (size, size), bool, marks the centres of the windows inside the fan."""
    level, variance = _moments(image, WINDOW)
    variance = np.maximum(variance, 1 / 12)  # of rounding to whole grey levels
    block = WINDOW // 3
    structure = _moments(ndimage.uniform_filter(image, block), WINDOW - block + 1)[1] / variance
    bright = whole & (level >= DARK)
    bright = bright if bright.any() else whole
    even = bright & (structure <= np.median(structure[bright]))
    return np.median((level / np.sqrt(variance))[even])


def _moments(image, side):
    """Mean and variance in the square of a side about every pixel."""
    mean = ndimage.uniform_filter(image, side)
    return mean, ndimage.uniform_filter(image**2, side) - mean**2


def _half_length(image, fan):
    """Vertical lag, px, at which the autocorrelation over pairs of pixels in the fan falls to one half."""
    sigma, longest = len(image) / 16, len(image) // 4
    high = np.where(fan, image - _local_mean(image, fan, (sigma, 0)), 0)
    texture = high / np.maximum(np.sqrt(_local_mean(high**2, fan, sigma)), LEAST_SD)
    power, before = (texture[fan] ** 2).mean(), 1.0
    if power == 0:
        return longest
    for lag in range(1, longest):
        pairs = fan[lag:] & fan[:-lag]
        now = (texture[lag:] * texture[:-lag])[pairs].sum() / max(pairs.sum(), 1) / power
        if now <= 0.5:
            return lag - (0.5 - now) / (before - now)
        before = now
    return longest


def _local_mean(image, fan, sigma):
    """Gaussian mean that sees the fan only; outside, no matter what."""
    weight = ndimage.gaussian_filter(fan.astype(float), sigma)
    return ndimage.gaussian_filter(np.where(fan, image, 0), sigma) / np.maximum(weight, 1e-9)


def power_spectrum(frames, fans, bins=16):
    """Radially averaged power spectrum of a patch of the fan.

    The patch is the largest square of odd side that lies in the fan, the middle one of equals in order of rows, cut
    down about its centre to size / 2. It is weighted by a Hann window, freed of its mean, and padded with zeros, which
    puts patches of every side on the same frequencies.

    Parameters
    ----------
    frames, fans
        As :func:`grey_by_depth`.
    bins : int
        Rings of equal width between 0 and the highest frequency.

    Returns
    -------
    frequencies : ndarray, shape (bins,), float
        Middle of each ring, cycles per pixel, below 0.5.
    power : ndarray, shape (n, bins), float
        Mean power in a ring over mean power in all, in dB, free of gain: 0 in every ring for white noise (and for a
        patch without texture), at least -60.

    Raises
    ------
    LusbookError
        If a fan is empty, or holds no square of 8 px.
    """
    check_frames(frames, fans)
    size = frames.shape[1]
    side = max(size // 2, 4 * bins)  # at least two frequencies across a ring, so none is empty
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    inside = (radius > 0) & (radius < 0.5)
    ring = (radius[inside] * 2 * bins).astype(int)
    power = np.ones((len(frames), bins))
    for index, (image, fan) in enumerate(zip(frames, fans, strict=True)):
        patch = _patch(image, fan, size // 2)
        if len(patch) < SMALLEST_PATCH:
            raise LusbookError(
                f"frame {index}: expected a fan that holds a square of {SMALLEST_PATCH} px, received {len(patch)} px"
            )
        window = np.outer(*[hann(len(patch) + 2)[1:-1]] * 2)  # without its zeros at both ends
        patch = (patch - np.average(patch, weights=window)) * window
        found = np.abs(np.fft.fft2(patch, (side, side)))[inside] ** 2
        if found.sum() > 1e-9:  # less is the rounding of a patch without texture
            power[index] = np.bincount(ring, found) / np.bincount(ring) / found.mean()
    return (np.arange(bins) + 0.5) / bins / 2, 10 * np.log10(np.maximum(power, FLOOR))


def _patch(image, fan, side):
    """Largest square inside the fan, at most ``side``."""
    distance = ndimage.distance_transform_cdt(np.pad(fan, 1), "chessboard")[1:-1, 1:-1]  # beyond the frame is no fan
    largest = np.argwhere(distance == distance.max())
    row, column = largest[len(largest) // 2]
    half = min(distance.max() - 1, (side - 1) // 2)
    return image[row - half : row + half + 1, column - half : column + half + 1].astype(float)


def describe_frames(frames, fans, patients):
    """Measure every frame.

    Parameters
    ----------
    frames, fans
        As :func:`grey_by_depth`.
    patients : ndarray, shape (n,), str

    Returns
    -------
    described : pandas.DataFrame
        One row a frame: patient; ``mean`` (share of 255) and ``entropy`` (bits) of the grey levels in the fan;
        ``grey_0`` to ``grey_9`` and ``sd_0`` to ``sd_9``, see :func:`grey_by_depth`; ``snr``, ``axial``, ``lateral``,
        see :func:`speckle`; ``spectrum_0`` to ``spectrum_15``, see :func:`power_spectrum`. All finite: these functions
        say what a frame without texture gets.

    Raises
    ------
    LusbookError
        If shapes or types do not fit together, or a fan is empty or too small, naming the frame.
    """
    check_frames(frames, fans, patients)
    columns = {"mean": mean_brightness(frames, fans) / 255}
    columns["entropy"] = [shannon_entropy(image[fan]) for image, fan in zip(frames, fans, strict=True)]
    columns |= dict(zip(("snr", "axial", "lateral"), speckle(frames, fans), strict=True))
    mean, sd = grey_by_depth(frames, fans)
    for name, profile in (("grey", mean), ("sd", sd), ("spectrum", power_spectrum(frames, fans)[1])):
        columns |= {f"{name}_{k}": values for k, values in enumerate(profile.T)}
    return pd.DataFrame({"patient": np.asarray(patients, str), **columns})


def distances(a, b):
    """Distances between two sets of frames in what :func:`describe_frames` measures; every patient weighs the same.

    Parameters
    ----------
    a, b : pandas.DataFrame
        As :func:`describe_frames`.

    Returns
    -------
    distances : pandas.Series
        1-Wasserstein distances of the values of frames: ``grey`` and ``contrast`` (of the mean and the standard
        deviation by depth, averaged over depth, share of 255), ``snr`` (no unit), ``axial`` and ``lateral`` (px); and
        ``spectrum``, the root mean square difference of the mean spectra (dB).

    Raises
    ------
    LusbookError
        If the columns differ or a table is empty.
    """
    if list(a) != list(b) or "patient" not in a or not (len(a) and len(b)):
        raise LusbookError(
            f"expected two tables of describe_frames, received {len(a)} rows of {list(a)} and {len(b)} of {list(b)}"
        )
    # Frames of a clip are near copies: a patient with more of them does not count for more.
    weights = [1 / table.groupby("patient")["patient"].transform("size") for table in (a, b)]

    def mean_distance(name):
        columns = [column for column in a if column == name or column.startswith(f"{name}_")]
        return np.mean([wasserstein_distance(a[column], b[column], *weights) for column in columns])

    measures = {"grey": "grey", "contrast": "sd", "snr": "snr", "axial": "axial", "lateral": "lateral"}
    spectra = [np.average(t.filter(like="spectrum_"), axis=0, weights=w) for t, w in zip((a, b), weights, strict=True)]
    spectrum = np.sqrt(np.mean((spectra[0] - spectra[1]) ** 2))
    return pd.Series({key: mean_distance(name) for key, name in measures.items()} | {"spectrum": spectrum})


def check_frames(frames, fans=None, patients=None):
    """Refuse arrays that do not fit together, and empty fans."""
    if frames.ndim != 3 or frames.shape[1] != frames.shape[2] or frames.dtype != np.uint8 or not len(frames):
        raise LusbookError(f"frames: expected uint8 (n, size, size), received {frames.dtype} {frames.shape}")
    if fans is not None:
        if fans.shape != frames.shape or fans.dtype != bool:
            raise LusbookError(f"fans: expected bool {frames.shape}, received {fans.dtype} {fans.shape}")
        fan_pixels(fans)
    if patients is not None and np.shape(patients) != frames.shape[:1]:
        raise LusbookError(f"patients: expected one for each of {len(frames)} frames, received {np.shape(patients)}")
