"""Cohorts: images, masks, patients and folds of one condition (sections 2.4 and 2.5).

A cohort is simulated (:mod:`lusbook.phantom`) or read from a manifest of a user's own images and masks
(:mod:`lusbook.manifests`).
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np

from lusbook.errors import LusbookError

NAMES = ("covid", "cap")  # the two cohorts of every study
N_FOLDS = 3
BLACK = -0.9  # at the networks' door, see network_images


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images, masks, patients and folds of one condition.

    Parameters
    ----------
    name : str
        ``"covid"``, ``"cap"``, ...
    images : ndarray, shape (n, size, size), uint8
    masks : ndarray, shape (n, size, size), bool, or None
        The labels that networks are trained on and scored against.
    patients : ndarray, shape (n,), str
    folds : ndarray, shape (n,), int
        Fold of each image; a patient is in one fold only.
    truth : ndarray, shape (n, size, size), bool, or None
        Exact masks (simulated cohorts only).
    digest : str
        Identifies the data in the manifest of a run.

    Raises
    ------
    LusbookError
        When shapes or types do not fit together, or a patient is in two folds.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray | None
    patients: np.ndarray
    folds: np.ndarray
    truth: np.ndarray | None = None
    digest: str = ""

    def __post_init__(self):
        shape = self.images.shape
        if len(shape) != 3 or shape[1] != shape[2]:
            raise LusbookError(f"cohort {self.name!r}: images: expected (n, size, size), received {shape}")
        expected = {
            "images": (shape, np.uint8),
            "masks": (shape, np.bool_),
            "truth": (shape, np.bool_),
            "patients": (shape[:1], np.str_),
            "folds": (shape[:1], np.integer),
        }
        for key, (form, kind) in expected.items():
            array = getattr(self, key)
            if array is None and key in ("masks", "truth"):
                continue
            if array.shape != form or not np.issubdtype(array.dtype, kind):
                raise LusbookError(
                    f"cohort {self.name!r}: {key}: expected {kind.__name__} of shape {form}, "
                    f"received {array.dtype.name} of shape {array.shape}"
                )
        pairs = sorted(set(zip(self.patients.tolist(), self.folds.tolist(), strict=True)))
        for (patient, fold), (other, fold_too) in pairwise(pairs):
            if patient == other:
                raise LusbookError(f"cohort {self.name!r}: patient {patient!r} is in folds {fold} and {fold_too}")

    def __len__(self):
        return len(self.images)

    def subset(self, index):
        """The cohort with only some of its images.

        Parameters
        ----------
        index : ndarray of int, or of bool with shape (n,)

        Returns
        -------
        cohort : Cohort
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{key: value[index] for key, value in values.items() if isinstance(value, np.ndarray)})


# ---------------------------------------------------------------------------------------------
# Folds and subsets


def assign_folds(patients, n_folds=N_FOLDS):
    """Divide images into folds of near-equal size that never split a patient.

    Largest first: patients in order of falling number of images (equal numbers: by name), each to the fold that is
    smallest so far (equal folds: the first).

    Parameters
    ----------
    patients : sequence of str, length n
        Patient of each image.
    n_folds : int

    Returns
    -------
    folds : ndarray, shape (n,), int

    Raises
    ------
    LusbookError
        When there are fewer patients than folds.

    References
    ----------
    Section 2.5 of the paper divides by patient; how it chose the patients of a fold is not stated. The method here
    is the longest-processing-time rule of Graham, 1969, "Bounds on multiprocessing timing anomalies".

    Examples
    --------
    >>> assign_folds(["ann", "ann", "ann", "bob", "bob", "cy", "dee"]).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    names, which, counts = np.unique(np.asarray(patients, str), return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise LusbookError(
            f"expected at least {n_folds} patients, one for each fold, received {len(names)}: {', '.join(names)}"
        )
    sizes = np.zeros(n_folds, int)
    fold_of = np.zeros(len(names), int)
    for patient in np.argsort(-counts, kind="stable"):  # names are sorted: equal numbers stay in their order
        fold_of[patient] = np.argmin(sizes)
        sizes[fold_of[patient]] += counts[patient]
    return fold_of[which]


def fold_indices(cohort, fold):
    """Indices of a fold's training and test images.

    Parameters
    ----------
    cohort : Cohort
    fold : int
        The fold that is tested; the others train.

    Returns
    -------
    training, test : ndarray of int

    Raises
    ------
    LusbookError
        When one of the two would be empty.
    """
    test = cohort.folds == fold
    if not test.any() or test.all():
        there = ", ".join(str(k) for k in np.unique(cohort.folds))
        raise LusbookError(f"cohort {cohort.name!r}: fold {fold} leaves nothing to train or test; folds are {there}")
    return np.flatnonzero(~test), np.flatnonzero(test)


def shown_frame(cohort, fold):
    """The frame of a fold that figures show: the one whose labelled B-line area is the median of the fold.

    The rule looks at labels alone, never at a result. Frames of equal area count in their order in the cohort; of an
    even number of frames, the lower median is taken.

    Parameters
    ----------
    cohort : Cohort
        With masks.
    fold : int

    Returns
    -------
    index : int
        In the cohort.
    """
    _, test = fold_indices(cohort, fold)
    return int(test[median_frame(cohort.masks[test])])


def median_frame(masks):
    """Number of the mask of median area, by the rule of :func:`shown_frame`; shape (n, size, size), bool."""
    areas = np.count_nonzero(masks, axis=(1, 2))
    return int(np.argsort(areas, kind="stable")[(len(areas) - 1) // 2])


def reduce_to(cohort, n, seed):
    """Reduce a cohort to ``n`` images and keep its patients' shares (sixth experiment of section 2.5).

    Each patient's number of images is in proportion, rounded by the largest remainder (equal remainders: by name);
    which of its images they are is random.

    Parameters
    ----------
    cohort : Cohort
    n : int
        The paper does not state it; the size of the other cohort's training set takes its purpose, to remove
        the difference in size, at its word.
    seed : int

    Returns
    -------
    cohort : Cohort
        Images in their former order.

    Raises
    ------
    LusbookError
        When the cohort has fewer than ``n`` images.
    """
    if not 1 <= n <= len(cohort):
        raise LusbookError(f"cohort {cohort.name!r}: expected to keep 1 to {len(cohort)} images, received {n}")
    names, counts = np.unique(cohort.patients, return_counts=True)
    quotas, remainders = np.divmod(n * counts, len(cohort))
    quotas[np.argsort(-remainders, kind="stable")[: n - quotas.sum()]] += 1
    rng = np.random.default_rng(seed)
    kept = [
        rng.choice(np.flatnonzero(cohort.patients == name), quota, replace=False)
        for name, quota in zip(names, quotas, strict=True)
    ]
    return cohort.subset(np.sort(np.concatenate(kept)))


def network_images(images):
    """Images as the networks take them.

    Black is -0.9, not -1: SIFA's generator gives ``tanh(input + residual)``, which never reaches -1, so it could
    not leave the background outside the fan as it is.

    Parameters
    ----------
    images : ndarray, shape (n, size, size), uint8

    Returns
    -------
    images : ndarray, shape (n, size, size, 1), float32 in [-0.9, 0.9]

    Examples
    --------
    >>> print(network_images(np.array([[[0, 255]]], np.uint8)).ravel())
    [-0.9  0.9]
    """
    return (images[..., None].astype("float32") / 127.5 - 1) * np.float32(-BLACK)
