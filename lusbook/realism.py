"""How near simulated frames are to real ones, and, as the yardstick, how far real sources are from each other.

Three views: what a sonographer would name (grey levels by depth, speckle, spectrum), distances between two sets in
these and in features that a network learned from other real patients, and whether a classifier can tell the two sets
apart in patients that it has not seen. Lengths are in pixels: compare frames of one size only, cropped alike.
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.signal.windows import hann
from scipy.stats import wasserstein_distance
from skimage.measure import shannon_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lusbook.cohort import network_images
from lusbook.errors import LusbookError
from lusbook.real import fan_pixels, mean_brightness
from lusbook.statistics import auroc_ci

WINDOW = 9  # px, side of the windows of the speckle SNR, three blocks of 3 px
DARK = 10  # mean grey level below which a window is almost black: there rounding, not echo, makes the grey levels vary
LEAST_SD = 2.0  # grey levels, local standard deviation below which texture is rounding and coding noise
SMALLEST_PATCH = 8  # px, side of the square that a spectrum needs
FLOOR = 1e-6  # -60 dB, below the rounding noise of 8 bits
BATCH = 32


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
    _check(frames, fans)
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
    _check(frames, fans)
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
    _check(frames, fans)
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
    _check(frames, fans, patients)
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


def frechet_distance(a, b):
    """Fréchet distance between Gaussians fitted to two sets of features.

    It grows as sets get smaller, and its scale is that of the features: only distances between sets of like size in
    the same features compare.

    Parameters
    ----------
    a : ndarray, shape (n, d), float
    b : ndarray, shape (m, d), float

    Returns
    -------
    distance : float

    Raises
    ------
    LusbookError
        When shapes do not fit together, or a set has fewer than two rows.

    References
    ----------
    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium".

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(frechet_distance(a, a + 2), 6)
    12.0
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise LusbookError(f"expected two sets of features (n, d) of at least 2 rows, received {a.shape} and {b.shape}")
    # With covariances A'A and B'B, the trace of the root of their product is the sum of the singular values of AB':
    # no root of a matrix that may be singular.
    root_a, root_b = (np.linalg.qr((x - x.mean(axis=0)) / np.sqrt(len(x) - 1), "r") for x in (a, b))
    spread = (root_a**2).sum() + (root_b**2).sum() - 2 * np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + max(spread, 0))


def train_features(frames, patients, seed=0, epochs=30):
    """Train a small network to recognise patients, for a feature space made from real ultrasound.

    The patients should be others than those whose frames are then compared.

    Parameters
    ----------
    frames : ndarray, shape (n, size, size), uint8
    patients : ndarray, shape (n,), str
    seed : int
        The same seed gives the same features on the same machine (on a GPU, nearly).
    epochs : int

    Returns
    -------
    features : callable
        Frames, shape (m, size, size), uint8, to features, shape (m, 64), float32, of no unit.

    Raises
    ------
    LusbookError
        When shapes do not fit together, or there are fewer than two patients.
    """
    _check(frames, patients=patients)
    names, classes = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        raise LusbookError(f"features: expected at least 2 patients to tell apart, received {', '.join(names)}")
    return partial(_predict, _train(frames, classes, seed, epochs)[0])


def _train(frames, classes, seed, epochs):
    """Train a network that classifies frames, every class with the same weight; gives features and logits."""
    from lusbook.backend import keras  # here, as most of this module needs no network; before any other Keras import
    from lusbook.training import batch_indices, iterations_per_epoch

    initializers = (keras.initializers.HeNormal(int(s)) for s in np.random.SeedSequence(seed).generate_state(9))
    inputs = x = keras.Input((None, None, 1))
    for count, kernel in ((16, 5), (32, 3), (64, 3), (64, 3)):
        options = {"use_bias": False, "kernel_initializer": next(initializers)}
        x = keras.layers.Conv2D(count, kernel, strides=2, padding="same", **options)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)  # (n, 64)
    counts = np.bincount(classes)
    logits = keras.layers.Dense(len(counts), kernel_initializer=next(initializers))(x)
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    for iteration in range(epochs * iterations_per_epoch(len(frames), BATCH)):
        chosen = batch_indices(len(frames), BATCH, iteration, (seed, 0))
        images = _augment(frames[chosen], np.random.default_rng((seed, 1, iteration)))
        weights = len(frames) / len(counts) / counts[classes[chosen]]
        model.train_on_batch(network_images(images), classes[chosen], sample_weight=weights.astype("float32"))
    return keras.Model(inputs, x), model


def _augment(frames, rng):
    """Change gain and grey map, and mirror half of the frames; black stays black."""
    gain, gamma = rng.uniform(0.8, 1.25, (2, len(frames), 1, 1)).astype("float32")
    changed = 255 * np.minimum(gain * (frames / np.float32(255)) ** gamma, 1)
    return np.where(rng.random((len(frames), 1, 1)) < 0.5, changed[:, :, ::-1], changed)


def _predict(model, frames):
    """What a model makes of frames, shape (n, channels), float32."""
    _check(frames)
    # Called, not ``model.predict``: that traces a graph for every model, and TensorFlow warns of the fifth.
    batches = (network_images(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH))
    return np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])


def tell_apart(features, labels, patients, seed=0, n_resamples=2000):
    """Tell two sets of frames apart by a logistic regression of features, in patients that it has not seen.

    Parameters
    ----------
    features : array_like, shape (n, d), float
    labels : ndarray, shape (n,), bool
        Whether a frame is of set 1.
    patients : ndarray, shape (n,), str
    seed : int
        Of folds and bootstrap.
    n_resamples : int
        Bootstrap resamples of patients.

    Returns
    -------
    result : dict
        ``auroc`` (0.5: cannot be told apart, 1: always) of all frames, each scored by a regression that was fitted to
        other patients; ``low`` and ``high``, 95 % interval by bootstrap over patients; ``frames`` and ``patients``,
        their numbers. The bootstrap draws scores and fits nothing anew, so with few patients the interval is too
        narrow: for sets of 12 patients that did not differ, 78 to 92 % of intervals held 0.5.

    Raises
    ------
    LusbookError
        When lengths do not fit together, or a set has fewer than two patients.
    """
    features, labels = np.asarray(features, float), np.asarray(labels, bool)
    if features.ndim != 2 or not np.isfinite(features).all():
        wrong = np.count_nonzero(~np.isfinite(features))
        raise LusbookError(f"features: expected finite (n, d), received {features.shape} with {wrong} not finite")
    folds = _folds(features, labels, patients, 5, seed)
    regression = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    scores = cross_val_predict(regression, features, labels, cv=folds, method="decision_function")
    return _result(scores, labels, patients, n_resamples, seed)


def tell_apart_network(frames, labels, patients, seed=0, epochs=20, n_folds=3, n_resamples=2000):
    """Tell two sets of frames apart by a small network, in patients that it has not seen.

    Parameters
    ----------
    frames : ndarray, shape (n, size, size), uint8
    labels, patients, seed, n_resamples
        As :func:`tell_apart`.
    epochs : int
    n_folds : int
        At most: not more than either set has patients.

    Returns
    -------
    result : dict
        As :func:`tell_apart`.

    Raises
    ------
    LusbookError
        As :func:`tell_apart`.
    """
    _check(frames)
    labels, scores = np.asarray(labels, bool), np.empty(len(frames))
    for training, test in _folds(frames, labels, patients, n_folds, seed):
        _, model = _train(frames[training], labels[training].astype(int), seed, epochs)
        scores[test] = _predict(model, frames[test]) @ [-1, 1]  # log of the odds of set 1
    return _result(scores, labels, patients, n_resamples, seed)


def _folds(rows, labels, patients, n_folds, seed):
    """Training and test rows of folds that never split a patient: list of pairs of ndarray of int."""
    patients = np.asarray(patients)
    if not len(rows) == len(labels) == len(patients):
        raise LusbookError(
            f"expected a label and a patient for each row, received {len(rows)} rows, {len(labels)} labels and "
            f"{len(patients)} patients"
        )
    sides = [len(np.unique(patients[labels == side])) for side in (False, True)]
    if min(sides) < 2:
        raise LusbookError(f"expected at least 2 patients in each set, received {sides[0]} and {sides[1]}")
    splitter = StratifiedGroupKFold(min(n_folds, *sides), shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, patients))


def _result(scores, labels, patients, n_resamples, seed):
    """AUROC, its interval, and counts."""
    auroc, low, high = auroc_ci(scores, labels, patients, n_resamples, seed)
    counts = {"frames": len(labels), "patients": len(np.unique(patients))}
    return {"auroc": auroc, "low": low, "high": high} | counts


def _check(frames, fans=None, patients=None):
    """Refuse arrays that do not fit together, and empty fans."""
    if frames.ndim != 3 or frames.shape[1] != frames.shape[2] or frames.dtype != np.uint8 or not len(frames):
        raise LusbookError(f"frames: expected uint8 (n, size, size), received {frames.dtype} {frames.shape}")
    if fans is not None:
        if fans.shape != frames.shape or fans.dtype != bool:
            raise LusbookError(f"fans: expected bool {frames.shape}, received {fans.dtype} {fans.shape}")
        fan_pixels(fans)
    if patients is not None and np.shape(patients) != frames.shape[:1]:
        raise LusbookError(f"patients: expected one for each of {len(frames)} frames, received {np.shape(patients)}")
