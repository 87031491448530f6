"""Measures beside Dice that suit thin structures, of the same predicted masks; and other thresholds than 0.5.

A B-line is a few pixels wide. One pixel more on each side costs it much Dice and changes nothing that a reader of the
image would see; a line that is missed costs little when another is large. So borders are compared by distance, and
lines are counted. Runs keep counts of pixels, not masks: these measures need weights, with which masks are predicted
again.
"""

from importlib.metadata import version

import numpy as np
import pandas as pd
import surface_distance
from skimage.measure import label
from tqdm.auto import tqdm

from lusbook import metrics
from lusbook.cohort import fold_indices
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS

LIBRARY = "surface-distance"  # its name where packages are installed from
#: Share of the side, a pixel of the demo's images and a third of the width of a B-line in them.
TOLERANCE = 1 / 64
FOUND = 0.5  # share of a line's pixels that must be predicted
THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
#: Stands in place of an experiment for what a network without error has, against labels that have some.
EXACT = "exact mask"

# ---------------------------------------------------------------------------------------------
# Measures of masks


def surface_metrics(prediction, mask, spacing=(1.0, 1.0), tolerance=1.0):
    """Distances between the borders of predictions and masks.

    Parameters
    ----------
    prediction, mask : ndarray, shape (n, height, width), bool
    spacing : tuple of float
        Height and width of a pixel, in any unit of length.
    tolerance : float
        Distance up to which borders agree, in the same unit.

    Returns
    -------
    table : pandas.DataFrame
        One row an image. ``hd95``: the 95th percentile of the distances from the points of either border to the other
        border, each weighted by the length of border that it stands for, the greater of both directions, in the unit
        of ``spacing``; NaN when prediction or mask is empty. ``nsd``, normalised surface distance, also surface Dice:
        the length of both borders that is within the tolerance of the other, divided by the length of both; 1 when
        prediction and mask are both empty and 0 when one of them is, as for :func:`lusbook.metrics.dice`.

    Raises
    ------
    LusbookError
        When shapes differ, an array is not boolean, or spacing or tolerance is no length.

    References
    ----------
    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy: deep learning
    algorithm development and validation study", J. Med. Internet Res. 23 (2021), e26151; computed by their library,
    surface-distance.

    Examples
    --------
    >>> mask = np.zeros((1, 8, 8), bool)
    >>> mask[:, :, 2:4] = True
    >>> surface_metrics(np.roll(mask, 2, axis=2), mask)["hd95"].tolist()
    [2.0]
    """
    metrics.confusion_counts(prediction, mask)  # refuses what are no masks of one shape
    if len(spacing) != 2 or not min(spacing) > 0 or not tolerance >= 0:
        raise LusbookError(
            f"surface metrics: expected two positive sides of a pixel and a tolerance of 0 or more, "
            f"received {spacing} and {tolerance}"
        )
    rows = []
    for pair in zip(mask, prediction, strict=True):
        if not all(part.any() for part in pair):
            rows.append((np.nan, 1.0 if not np.any(pair) else 0.0))
            continue
        distances = surface_distance.compute_surface_distances(*pair, spacing)
        hd95 = surface_distance.compute_robust_hausdorff(distances, 95)
        rows.append((hd95, surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)))
    return pd.DataFrame(rows, columns=["hd95", "nsd"], dtype=float)


def lines_found(prediction, mask):
    """Count B-lines that predictions find, and lines that they make up.

    A line is a connected part of a mask; parts that touch only at a corner are one, as in
    :func:`lusbook.diversity.describe_masks`.

    Parameters
    ----------
    prediction, mask : ndarray, shape (n, height, width), bool

    Returns
    -------
    table : pandas.DataFrame of int
        One row an image: ``lines`` of the mask; ``found``, those of which at least half of the pixels are predicted;
        ``false_lines``, lines of the prediction that share no pixel with the mask.

    Raises
    ------
    LusbookError
        When shapes differ, or an array is not boolean.

    Examples
    --------
    >>> mask = np.array([[[1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]]], bool)
    >>> prediction = np.array([[[1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]]], bool)
    >>> lines_found(prediction, mask).values.tolist()
    [[2, 1, 1]]
    """
    metrics.confusion_counts(prediction, mask)  # refuses what are no masks of one shape
    rows = []
    for predicted, labelled in zip(prediction, mask, strict=True):
        lines, n = label(labelled, connectivity=2, return_num=True)
        drawn, n_drawn = label(predicted, connectivity=2, return_num=True)
        sizes = np.bincount(lines.ravel(), minlength=n + 1)[1:]
        covered = np.bincount(lines[predicted], minlength=n + 1)[1:]
        touching = np.unique(drawn[labelled & predicted]).size
        rows.append((n, np.count_nonzero(covered >= FOUND * sizes), n_drawn - touching))
    return pd.DataFrame(rows, columns=["lines", "found", "false_lines"], dtype=int)


def at_thresholds(probabilities, mask, thresholds=THRESHOLDS):
    """Count pixels at several thresholds.

    Parameters
    ----------
    probabilities : ndarray, shape (n, height, width), float
    mask : ndarray, shape (n, height, width), bool
    thresholds : sequence of float
        A pixel is predicted when its probability is above.

    Returns
    -------
    counts : pandas.DataFrame
        One row a threshold and image: threshold, index (of the image, from 0), tp, fp, fn.

    Raises
    ------
    LusbookError
        When shapes differ, or the mask is not boolean.
    """
    tables = []
    for threshold in thresholds:
        tp, fp, fn, _ = metrics.confusion_counts(probabilities > threshold, mask).T
        index = np.arange(len(mask))
        tables.append(pd.DataFrame({"threshold": threshold, "index": index, "tp": tp, "fp": fp, "fn": fn}))
    return pd.concat(tables, ignore_index=True)


def measure(prediction, mask):
    """Dice and every measure of this module for square images; distances as shares of the side.

    Parameters
    ----------
    prediction, mask : ndarray, shape (n, size, size), bool

    Returns
    -------
    table : pandas.DataFrame
        One row an image: dice, hd95, nsd (tolerance :data:`TOLERANCE`), lines, found, false_lines.
    """
    side = mask.shape[-1]
    surfaces = surface_metrics(prediction, mask, tolerance=TOLERANCE * side)  # in pixels: whole distances stay exact
    surfaces["hd95"] /= side
    dice = metrics.per_image(prediction, mask)["dice"]
    return pd.concat([dice, surfaces, lines_found(prediction, mask)], axis=1)


# ---------------------------------------------------------------------------------------------
# A study


def run_secondary(settings, cohorts, folders):
    """Predict the test images of runs again, by the default route, and measure the masks.

    Parameters
    ----------
    settings : Settings
    cohorts : dict of Cohort
        ``covid`` and ``cap``.
    folders : dict of (str, int) to Path
        Folders of complete runs with weights, by experiment and fold.

    Returns
    -------
    outcome : dict
        As :func:`lusbook.trials.run_trial`, against the drawn labels. The table ``images`` has one row an image of each
        run: experiment, fold, cohort, patient, image, and the columns of :func:`measure` at the settings' threshold;
        the exact masks have rows too, as experiment :data:`EXACT`, where they are known. The table ``thresholds`` has
        one row a run, patient and threshold: experiment, fold, cohort, patient, threshold, dice (mean), images.

    Raises
    ------
    LusbookError
        When weights are missing or damaged, or give other counts of pixels than the run has.
    """
    from lusbook import trials  # loads Keras

    images, curves = [], []
    for (name, fold), folder in tqdm(folders.items(), desc="measuring", unit="run", mininterval=5):
        for cohort, subset, index, found in predict(name, fold, folder, cohorts):
            about = pd.DataFrame({"experiment": name, "fold": fold, "cohort": cohort, "patient": subset.patients})
            measured = measure(found > settings.threshold, subset.masks)
            images.append(pd.concat([about.assign(image=index), measured], axis=1))
            counts = at_thresholds(found, subset.masks, sorted({*THRESHOLDS, settings.threshold}))
            counts["dice"] = metrics.dice(counts["tp"], counts["fp"], counts["fn"])
            curves.append(about.merge(counts, left_index=True, right_on="index"))
    images += [_exact(cohort) for cohort in cohorts.values() if cohort.truth is not None]
    by = ["experiment", "fold", "cohort", "patient", "threshold"]
    curve = pd.concat(curves).groupby(by, sort=False)["dice"].agg(dice="mean", images="size").reset_index()
    machine = trials.machine() | {LIBRARY: version(LIBRARY)}
    tables = {"images": pd.concat(images, ignore_index=True).round(4), "thresholds": curve.round(4)}
    return {"tables": tables, "overlays": {}, "weights": [], "machine": machine}


def predict(name, fold, folder, cohorts):
    """Probabilities of the test images of one run by the default route, checked against the counts that it has.

    Parameters
    ----------
    name : str
        Experiment.
    fold : int
    folder : path
    cohorts : dict of Cohort

    Yields
    ------
    cohort : str
    subset : Cohort
        Its test fold.
    index : ndarray of int
        Of the test images in the cohort.
    probabilities : ndarray, shape (n, size, size), float32

    Raises
    ------
    LusbookError
        As :func:`run_secondary`.
    """
    from lusbook import segment, trials  # loads Keras

    method, settings = segment.read_model(folder)
    per_image = pd.read_csv(folder / "per_image.csv")
    for cohort, whole in cohorts.items():
        index = fold_indices(whole, fold)[1]
        subset = whole.subset(index)
        route = trials.default_route(EXPERIMENTS[name], cohort)
        found = segment.load_network(folder, method, settings, route)(subset.images)
        rows = per_image[(per_image["cohort"] == cohort) & (per_image["route"] == route)]
        expected = rows.set_index("image").reindex(index)[["tp", "fp", "fn", "tn"]].to_numpy()
        differ = (metrics.confusion_counts(found > settings.threshold, subset.masks) != expected).any(axis=1)
        if differ.any():
            raise LusbookError(
                f"{folder / 'weights.npz'}: expected the counts of pixels of per_image.csv, received others for "
                f"{np.count_nonzero(differ)} of {len(index)} images of {cohort}; remove {folder} to compute it again, "
                "or measure on the kind of machine that trained it"
            )
        yield cohort, subset, index, found


def _exact(cohort):
    """Rows of a cohort's exact masks, measured against its labels."""
    about = {"experiment": EXACT, "fold": cohort.folds, "cohort": cohort.name, "patient": cohort.patients}
    about = pd.DataFrame(about).assign(image=np.arange(len(cohort)))
    return pd.concat([about, measure(cohort.truth, cohort.masks)], axis=1)
