"""Label consistency and image diversity, observed (sections 3 and 4).

The paper explains why only one direction of adaptation helps by what it saw: CAP labels less consistent, CAP images
more diverse in place, size and background. Here every image and its label are measured; then how much the measures
vary, in a cohort, a fold or a patient. :mod:`lusbook.relation` holds that against Dice. All of it is observation.
"""

import numpy as np
import pandas as pd
from scipy import ndimage, stats
from skimage.measure import label, regionprops, shannon_entropy

from lusbook.errors import LusbookError
from lusbook.metrics import confusion_counts, dice

SMOOTHING = 1.0  # px, scale at which a border's direction and the image's gradient are taken
GROUPS = {"cohort": ["cohort"], "fold": ["cohort", "fold"], "patient": ["cohort", "fold", "patient"]}

#: Columns of :func:`variability`, each with its title and unit.
MEASURES = {
    "place": "place: spread of centroids (share of side)",
    "size": "size: coefficient of variation of area",
    "components": "number of B-lines: SD (components)",
    "elongation": "shape: SD of length / width",
    "direction": "direction: circular SD (degrees)",
    "image_distance_within": "images of a patient: 1 - correlation",
    "image_distance_between": "images of different patients: 1 - correlation",
    "brightness": "brightness: SD of image means (share of 255)",
    "edge_evidence": "edge evidence (share of 255 per px)",
    "label_truth_dice": "label and exact mask: Dice",
}


def describe_masks(cohort):
    """Measure every image of a cohort and its label.

    Parameters
    ----------
    cohort : lusbook.cohort.Cohort
        With masks; ``truth`` may be None.

    Returns
    -------
    described : pandas.DataFrame
        One row an image: cohort, patient, fold, image (index in the cohort), and

        - ``area_share``: labelled pixels / pixels of the image;
        - ``centroid_x``, ``centroid_y``: of all labelled pixels, share of the side from the left, from the top;
        - ``components``: parts of the label that do not touch, not even at a corner;
        - ``length``, ``width`` (share of the side), ``orientation`` (degrees from the vertical, -90 to 90, positive
          towards the right below): axes of the ellipse with the second moments of the largest part;
        - ``edge_evidence``: mean slope of the image into the label across its border, share of 255 per pixel;
        - ``brightness_inside``, ``brightness_outside``: mean grey level in and out of the label (the black around
          the fan included), share of 255;
        - ``image_mean``, ``image_std`` (share of 255) and ``entropy`` (bits) of all grey levels;
        - ``image_distance_within``, ``image_distance_between``: 1 - correlation of the image with another, mean over
          the other images of its patient, and over those of other patients;
        - ``label_truth_dice``: Dice of the label and the exact mask, NaN where that is not known.

        NaN where an empty label (or a full one, a lone image, a lone patient) leaves nothing to measure.

    Raises
    ------
    LusbookError
        When the cohort has no masks.
    """
    if cohort.masks is None:
        raise LusbookError(f"cohort {cohort.name!r}: masks: expected labels to describe, received none")
    index = {"cohort": cohort.name, "patient": cohort.patients, "fold": cohort.folds, "image": np.arange(len(cohort))}
    measured = [_shape(mask) | _grey(image, mask) for image, mask in zip(cohort.images, cohort.masks, strict=True)]
    described = pd.concat([pd.DataFrame(index), pd.DataFrame(measured)], axis=1)
    described["image_distance_within"], described["image_distance_between"] = _distances(cohort.images, cohort.patients)
    described["label_truth_dice"] = np.nan
    if cohort.truth is not None:
        tp, fp, fn, _ = confusion_counts(cohort.masks, cohort.truth).T
        described["label_truth_dice"] = dice(tp, fp, fn)
    return described


def _shape(mask):
    """Place, size and shape of one label, shape (size, size), bool."""
    side = len(mask)
    keys = ("centroid_x", "centroid_y", "length", "width", "orientation")
    measures = {"area_share": mask.mean(), "components": 0} | dict.fromkeys(keys, np.nan)
    if not mask.any():
        return measures
    rows, columns = np.nonzero(mask)
    parts = regionprops(label(mask, connectivity=2))
    largest = max(parts, key=lambda part: part.area)  # the first of equals
    # A pixel is a square, not a point: its own second moment, 1/12, gives a line of one pixel a width.
    length, width = 4 * np.sqrt(np.asarray(largest.inertia_tensor_eigvals) + 1 / 12) / side
    measures |= {"components": len(parts), "length": length, "width": width}
    measures |= {"centroid_x": (columns.mean() + 0.5) / side, "centroid_y": (rows.mean() + 0.5) / side}
    return measures | {"orientation": np.degrees(largest.orientation)}


def _grey(image, mask):
    """Grey levels of one image, shape (size, size), uint8, and what they say of its label's border."""
    grey = image / np.float32(255)
    measures = {"edge_evidence": np.nan, "brightness_inside": np.nan, "brightness_outside": np.nan}
    if mask.any() and not mask.all():
        measures["edge_evidence"] = _edge_evidence(grey, mask)
        measures["brightness_inside"], measures["brightness_outside"] = grey[mask].mean(), grey[~mask].mean()
    return measures | {"image_mean": grey.mean(), "image_std": grey.std(), "entropy": shannon_entropy(image)}


def _edge_evidence(grey, mask):
    """Mean slope of an image into a mask, over the pixels of the mask that touch its outside."""
    border = mask & ~ndimage.binary_erosion(mask, border_value=1)  # the image's own edge is no border
    # The gradient of the smoothed mask points into it. Speckle slopes either way and averages out.
    inward = [ndimage.gaussian_filter(mask.astype(np.float32), SMOOTHING, order)[border] for order in ((1, 0), (0, 1))]
    slopes = [ndimage.gaussian_filter(grey, SMOOTHING, order)[border] for order in ((1, 0), (0, 1))]
    size = np.hypot(*inward)
    # A line of one pixel is its own border on both sides: it has no inward direction, and counts as no slope.
    along = sum(a * b for a, b in zip(inward, slopes, strict=True))
    return np.divide(along, size, out=np.zeros_like(size), where=size > 1e-6).mean()


def _distances(images, patients):
    """Mean of 1 - correlation of each image with the others of its patient, and with those of other patients.

    The mean of an image's correlations is its product with the mean of the others, so no pair is ever formed.
    """
    n, pixels = len(images), images[0].size
    members = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    sums = np.stack([_standardised(images[rows]).sum(axis=0, dtype=np.float64) for rows in members])  # (patients, px)
    total = sums.sum(axis=0)
    within, between = np.full(n, np.nan), np.full(n, np.nan)
    for rows, own in zip(members, sums, strict=True):
        z = _standardised(images[rows])  # (m, px)
        if len(rows) > 1:
            itself = np.einsum("ij,ij->i", z, z)
            within[rows] = 1 - (z @ own - itself) / pixels / (len(rows) - 1)
        if len(rows) < n:
            between[rows] = 1 - z @ (total - own) / pixels / (n - len(rows))
    return within, between


def _standardised(images):
    """Images as rows of mean 0 and variance 1, float32; an even image becomes 0 and so correlates with none."""
    z = images.reshape(len(images), -1).astype(np.float32)
    z -= z.mean(axis=1, keepdims=True)
    return z / np.maximum(z.std(axis=1, keepdims=True), 1e-6)


def variability(described, by="cohort"):
    """How much labels and images vary within a cohort, a fold or a patient.

    Parameters
    ----------
    described : pandas.DataFrame
        As :func:`describe_masks`, one cohort or several.
    by : {"cohort", "fold", "patient"}

    Returns
    -------
    variability : pandas.DataFrame
        One row a group, with the columns that name it, ``images`` and

        - ``place``: root of the summed variances of the centroid's x and y, share of the side;
        - ``size``: standard deviation of the area share / its mean, no unit;
        - ``components``: standard deviation of their number;
        - ``elongation``: standard deviation of length / width, no unit;
        - ``direction``: circular standard deviation of the orientation, degrees;
        - ``image_distance_within``, ``image_distance_between``: means; from 0 (same) over 1 (unrelated) to 2;
        - ``brightness``: standard deviation of the images' means, share of 255;
        - ``edge_evidence`` (share of 255 per pixel), ``label_truth_dice``: means, of label consistency; the greater,
          the more consistent.

        Standard deviations have ddof = 1 and leave NaN out; NaN for a group with one image.

    Raises
    ------
    LusbookError
        When ``by`` is not one of the three.
    """
    if by not in GROUPS:
        raise LusbookError(f"by: expected one of {sorted(GROUPS)}, received {by!r}")
    rows = []
    for key, group in described.groupby(GROUPS[by], sort=False):
        rows.append(dict(zip(GROUPS[by], key, strict=True)) | {"images": len(group)} | _spread(group))
    return pd.DataFrame(rows, columns=[*GROUPS[by], "images", *MEASURES])


def _spread(group):
    """The measures of one group of images."""
    sd = group[["centroid_x", "centroid_y", "area_share", "components", "image_mean"]].std(ddof=1)
    means = ["image_distance_within", "image_distance_between", "edge_evidence", "label_truth_dice"]
    return {
        "place": np.hypot(sd["centroid_x"], sd["centroid_y"]),
        "size": sd["area_share"] / group["area_share"].mean(),
        "components": sd["components"],
        "elongation": (group["length"] / group["width"]).std(ddof=1),
        "direction": _circular_sd(group["orientation"].dropna()),
        "brightness": sd["image_mean"],
    } | group[means].mean().to_dict()


def _circular_sd(degrees):
    """Circular standard deviation of directions without a sense: -90 and 90 degrees are the same."""
    if len(degrees) < 2:
        return np.nan
    return np.degrees(stats.circstd(np.radians(degrees), high=np.pi / 2, low=-np.pi / 2))
