"""What each image says of its label's border, of grey levels and of texture, and how many frames are distinct.

:mod:`lusbook.diversity` measures labels and whole images; here is what it leaves out. :mod:`lusbook.domains` holds the
cohorts against each other in the same measures, :mod:`lusbook.observed` sums all of it up.
"""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist, squareform
from skimage.feature import local_binary_pattern
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lusbook.domains import bandwidth, distances, rbf
from lusbook.errors import LusbookError
from lusbook.realism import grey_by_depth

BAND = 1 / 32  # share of the side, half the width of the band about a label's border
FRAMES = 20  # of a patient, evenly spaced: a patient with more frames counts for no more
DEPTHS = 5
CODES = 10  # uniform binary patterns of 8 neighbours: 9 by their number of brighter ones, 1 for all that is not uniform
GREY = [*(f"grey_{k}" for k in range(DEPTHS)), *(f"sd_{k}" for k in range(DEPTHS))]
TEXTURE = [f"lbp_{k}" for k in range(CODES)]
FEATURES = [*GREY, *TEXTURE]
KEY = ["cohort", "patient", "fold", "image"]


def run_spread(cohorts):
    """Everything that needs the images.

    Parameters
    ----------
    cohorts : dict of lusbook.cohort.Cohort
        Two, with masks.

    Returns
    -------
    outcome : dict
        ``tables``: ``frames``, see :func:`measure_frames`, with ``far_<cohort>``, see :func:`remoteness`;
        ``effective``, see :func:`effective_frames`; ``distances``, see :func:`lusbook.domains.distances`.
        ``overlays``: see :func:`examples`.

    Raises
    ------
    LusbookError
        As :func:`measure_frames`.
    """
    frames = pd.concat([measure_frames(cohort) for cohort in cohorts.values()], ignore_index=True)
    images = np.concatenate([cohort.images for cohort in cohorts.values()])
    few = choose_frames(frames)
    space = standardise(frames, few)
    effective = effective_frames(frames.iloc[few][KEY], images[few], space[few])
    apart = distances(frames.iloc[few][KEY], space[few])
    frames = frames.join(remoteness(frames, space, few))
    tables = {"frames": frames.round(5), "effective": effective, "distances": apart}
    return {"tables": tables, "overlays": examples(frames, images, np.concatenate([c.masks for c in cohorts.values()]))}


def examples(frames, images, masks):
    """Frames at the 10th, 50th and 90th percentile of ``border_auroc`` in each cohort.

    Parameters
    ----------
    frames : pandas.DataFrame
        As :func:`measure_frames`, rows as images.
    images : ndarray, shape (n, size, size), uint8
    masks : ndarray, shape (n, size, size), bool

    Returns
    -------
    arrays : dict of ndarray
        ``<cohort>_image``, ``<cohort>_mask`` and ``<cohort>_auroc``, 3 each; of a cohort without any AUROC, none.
    """
    arrays = {}
    for cohort, part in frames.groupby("cohort", sort=False):
        ordered = part["border_auroc"].dropna().sort_values(kind="stable")
        if len(ordered):
            chosen = ordered.index[[round(share * (len(ordered) - 1)) for share in (0.1, 0.5, 0.9)]]
            arrays |= {f"{cohort}_image": images[chosen], f"{cohort}_mask": masks[chosen]}
            arrays[f"{cohort}_auroc"] = ordered[chosen].to_numpy()
    return arrays


def measure_frames(cohort):
    """Measure every image and its label's border.

    Parameters
    ----------
    cohort : lusbook.cohort.Cohort
        With masks.

    Returns
    -------
    frames : pandas.DataFrame
        One row an image: cohort, patient, fold, image (index in the cohort), and

        - ``border_auroc``: AUROC of the grey level for being inside the label, over the pixels of
          :func:`border_band`: 1 when all inside are brighter than all outside, 0.5 when grey levels say nothing;
        - ``truth_auroc``: the same of the exact mask in its own band, NaN where that is not known;
        - ``evidence_auroc``: as ``border_auroc``, of what :func:`border_evidence` predicts, fitted to other patients;
        - ``grey_0`` to ``grey_4``, ``sd_0`` to ``sd_4``: mean and standard deviation of the grey level (share of 255)
          in five bins of depth, see :func:`lusbook.realism.grey_by_depth`;
        - ``lbp_0`` to ``lbp_9``: shares of the pixels with each uniform local binary pattern of 8 neighbours.

        All over the pixels of :func:`seen_pixels`; AUROCs are NaN where a band has one side only.

    Raises
    ------
    LusbookError
        When the cohort has no masks, or a patient's frames are all black.

    References
    ----------
    Ojala, Pietikäinen and Mäenpää, "Multiresolution gray-scale and rotation invariant texture classification with
    local binary patterns", IEEE TPAMI 24 (2002), 971-987.
    """
    if cohort.masks is None:
        raise LusbookError(f"cohort {cohort.name!r}: masks: expected labels to measure, received none")
    seen = seen_pixels(cohort)
    frames = pd.DataFrame({"cohort": cohort.name, "patient": cohort.patients, "fold": cohort.folds})
    frames["image"] = np.arange(len(cohort))
    frames["border_auroc"] = border_aurocs(cohort.images, cohort.masks, seen)
    frames["truth_auroc"] = np.nan if cohort.truth is None else border_aurocs(cohort.images, cohort.truth, seen)
    bands = [border_band(mask, fan) for mask, fan in zip(cohort.masks, seen, strict=True)]
    labels = [mask[band] for mask, band in zip(cohort.masks, bands, strict=True)]
    evidence = [border_evidence(image, band) for image, band in zip(cohort.images, bands, strict=True)]
    frames["evidence_auroc"] = evidence_auroc(evidence, labels, frames)
    profiles = np.hstack([*grey_by_depth(cohort.images, seen, DEPTHS)])
    texture = [texture_codes(image, fan) for image, fan in zip(cohort.images, seen, strict=True)]
    return frames.join(pd.DataFrame(np.hstack([profiles, texture]), columns=FEATURES))


def seen_pixels(cohort):
    """Pixels that are not black in every frame of their patient: the fan, less what is always in shadow.

    Parameters
    ----------
    cohort : lusbook.cohort.Cohort

    Returns
    -------
    seen : ndarray, shape (n, size, size), bool
    """
    seen = np.zeros(cohort.images.shape, bool)
    for patient in dict.fromkeys(cohort.patients.tolist()):
        rows = cohort.patients == patient
        seen[rows] = cohort.images[rows].max(axis=0) > 0
        if not seen[rows].any():
            raise LusbookError(f"cohort {cohort.name!r}: patient {patient!r}: expected images, all frames are black")
    return seen


def border_band(mask, seen):
    """Pixels within 1/32 of the side (at least one pixel) of a label's border, on either side.

    Parameters
    ----------
    mask, seen : ndarray, shape (size, size), bool

    Returns
    -------
    band : ndarray, shape (size, size), bool
        Empty for a label that is empty or full. The image's own edge is no border.
    """
    if not mask.any() or mask.all():
        return np.zeros_like(mask)
    distance = np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    return (distance <= max(1, len(mask) * BAND)) & seen


def border_aurocs(images, masks, seen):
    """AUROC of the grey level for being inside each mask, over the pixels of :func:`border_band`.

    Parameters
    ----------
    images : ndarray, shape (n, size, size), uint8
    masks, seen : ndarray, shape (n, size, size), bool

    Returns
    -------
    aurocs : ndarray, shape (n,), float
        NaN for a band with one side only.
    """
    bands = [border_band(mask, fan) for mask, fan in zip(masks, seen, strict=True)]
    return np.array([_auroc(mask[b], image[b]) for image, mask, b in zip(images, masks, bands, strict=True)])


def border_evidence(image, band):
    """What an image shows about each pixel of a band: grey level, two local means, and their curvature.

    Parameters
    ----------
    image : ndarray, shape (size, size), uint8
    band : ndarray, shape (size, size), bool

    Returns
    -------
    evidence : ndarray, shape (pixels, 7), float32
        Grey level; Gaussian means and their second derivatives across and along, at scales of 1/64 and 1/32 of the
        side. Each has mean 0 and standard deviation 1 in the band, so that neither gain nor contrast matters.
    """
    grey, scale = image.astype(np.float32), len(image) / 64
    kinds = [(s * scale, order) for s in (1, 2) for order in ((0, 0), (0, 2), (2, 0))]
    maps = [grey, *(ndimage.gaussian_filter(grey, sigma, order) for sigma, order in kinds)]
    evidence = np.stack([values[band] for values in maps], axis=1)
    if len(evidence):
        evidence = (evidence - evidence.mean(axis=0)) / np.maximum(evidence.std(axis=0), 1e-6)
    return evidence


def evidence_auroc(evidence, labels, frames):
    """How well a logistic regression tells inside from outside in bands of patients that it has not seen.

    Parameters
    ----------
    evidence : list of ndarray, shape (pixels, k), float
        Of each image.
    labels : list of ndarray, shape (pixels,), bool
    frames : pandas.DataFrame
        cohort and patient of each image, of one cohort. The regression is fitted to 20 frames of every other patient.

    Returns
    -------
    aurocs : ndarray, shape (n,), float
        NaN for a band with one side only, and for a lone patient.
    """
    aurocs, patients = np.full(len(labels), np.nan), frames["patient"].to_numpy(str)
    few = choose_frames(frames)
    for patient in np.unique(patients):
        others = few[patients[few] != patient]
        target = np.concatenate([np.zeros(0, bool), *(labels[row] for row in others)])
        if not target.any() or target.all():
            continue
        regression = LogisticRegression(max_iter=500).fit(np.concatenate([evidence[row] for row in others]), target)
        for row in np.flatnonzero(patients == patient):
            if len(labels[row]):
                aurocs[row] = _auroc(labels[row], regression.decision_function(evidence[row]))
    return aurocs


def _auroc(flags, scores):
    """Area under the ROC curve, NaN for one class only."""
    return roc_auc_score(flags, scores) if flags.any() and not flags.all() else np.nan


def texture_codes(image, seen):
    """Shares of the pixels with each uniform local binary pattern of 8 neighbours, shape (10,), float."""
    codes = local_binary_pattern(image, 8, 1, "uniform")[seen].astype(int)
    return np.bincount(codes, minlength=CODES) / len(codes)


def choose_frames(frames):
    """Rows of at most 20 frames of each patient, evenly spaced from the first to the last; ndarray of int."""
    members = frames.groupby(["cohort", "patient"], sort=False).indices.values()
    spaced = [rows[np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int)] for rows in members]
    return np.concatenate(spaced)


def standardise(frames, few):
    """Measures of every frame in units of their standard deviation.

    Parameters
    ----------
    frames : pandas.DataFrame
        As :func:`measure_frames`, both cohorts.
    few : ndarray of int
        Rows whose means and standard deviations count, see :func:`choose_frames`.

    Returns
    -------
    space : ndarray, shape (n, 20), float
        Divided by the root of 20, so that a squared distance is the mean of the measures' squared differences.
    """
    values = frames[FEATURES].to_numpy(float)
    sd = values[few].std(axis=0)
    return (values - values[few].mean(axis=0)) / np.where(sd > 1e-9, sd, 1) / np.sqrt(len(FEATURES))


def remoteness(frames, space, few):
    """Mean distance of every frame from the frames of other patients.

    Parameters
    ----------
    frames, space, few
        As :func:`standardise` takes and returns them.

    Returns
    -------
    remoteness : pandas.DataFrame
        A column ``far_<cohort>`` for each cohort, in standard deviations; NaN where it has no other patient.
    """
    columns = {}
    for cohort in dict.fromkeys(frames["cohort"]):
        others = few[(frames["cohort"] == cohort).to_numpy()[few]]
        own = (frames["cohort"] == cohort).to_numpy()[:, None] & (
            frames["patient"].to_numpy()[:, None] == frames["patient"].to_numpy()[others]
        )
        away = np.where(own, 0, cdist(space, space[others])).sum(axis=1)
        count = (~own).sum(axis=1)
        columns[f"far_{cohort}"] = np.divide(away, count, out=np.full(len(away), np.nan), where=count > 0)
    return pd.DataFrame(columns, index=frames.index)


def vendi_score(similarity):
    """Effective number of distinct items: exponential of the entropy of the eigenvalues of a similarity matrix / n.

    Parameters
    ----------
    similarity : array_like, shape (n, n), float
        Symmetric, positive semidefinite, 1 on the diagonal.

    Returns
    -------
    score : float
        From 1 (all alike) to n (no two alike).

    Raises
    ------
    LusbookError
        When the matrix is not square, symmetric and finite with a diagonal of 1.

    References
    ----------
    Friedman and Dieng 2023, "The Vendi Score: a diversity evaluation metric for machine learning", TMLR.

    Examples
    --------
    >>> round(vendi_score(np.ones((4, 4))), 6), round(vendi_score(np.eye(4)), 6)
    (1.0, 4.0)
    """
    similarity = np.asarray(similarity, float)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise LusbookError(f"similarity: expected a square matrix, received shape {similarity.shape}")
    if not (np.allclose(similarity, similarity.T, atol=1e-6) and np.allclose(np.diag(similarity), 1, atol=1e-6)):
        raise LusbookError("similarity: expected finite and symmetric, with 1 on the diagonal; received another matrix")
    shares = np.linalg.eigvalsh(similarity) / len(similarity)
    shares = shares[shares > 1e-12]  # rounding makes some slightly negative
    return float(np.exp(-(shares * np.log(shares)).sum()))


def image_similarity(images):
    """Correlation of every two images; an even one is like none but itself.

    Parameters
    ----------
    images : ndarray, shape (n, size, size), uint8

    Returns
    -------
    similarity : ndarray, shape (n, n), float
    """
    pixels = images.reshape(len(images), -1).astype(float)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-9)
    similarity = pixels @ pixels.T
    np.fill_diagonal(similarity, 1)
    return similarity


def effective_frames(keys, images, space):
    """Effective number of distinct frames of each cohort, fold and patient.

    Parameters
    ----------
    keys : pandas.DataFrame
        cohort, fold and patient of the chosen frames.
    images : ndarray, shape (n, size, size), uint8
    space : ndarray, shape (n, d), float
        As :func:`standardise` returns it.

    Returns
    -------
    effective : pandas.DataFrame
        One row a group: ``by`` (cohort, fold or patient), cohort, fold, patient (empty where they do not apply),
        ``frames``, and two Vendi scores: ``vendi_images``, similarity as :func:`image_similarity`; and
        ``vendi_features``, similarity :func:`lusbook.domains.rbf` with the bandwidth of all frames given.
    """
    alike = image_similarity(images), rbf(squareform(pdist(space)), bandwidth(space))
    keys, rows = keys.reset_index(drop=True), []
    for by, names in (("cohort", ["cohort"]), ("fold", ["cohort", "fold"]), ("patient", ["cohort", "fold", "patient"])):
        for key, group in keys.groupby(names, sort=False):
            scores = [vendi_score(matrix[np.ix_(group.index, group.index)]) for matrix in alike]
            row = {"by": by} | dict(zip(names, key, strict=True)) | {"frames": len(group)}
            rows.append(row | dict(zip(("vendi_images", "vendi_features"), scores, strict=True)))
    columns = ["by", "cohort", "fold", "patient", "frames", "vendi_images", "vendi_features"]
    return pd.DataFrame(rows, columns=columns).astype({"fold": "Int64"})
