"""What networks see of the difference between two sets of frames.

The distance between them in features that a network learned from other real patients, and whether a classifier can
tell the two sets apart in patients that it has not seen.
"""

from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lusbook.cohort import network_images
from lusbook.errors import LusbookError
from lusbook.realism import check_frames
from lusbook.statistics import auroc_ci

BATCH = 32


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
    check_frames(frames, patients=patients)
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
    check_frames(frames)
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
    check_frames(frames)
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
