"""Phantom and real frames compared: the numbers of the chapter ``phantom``.

Every set of frames has the same number of patients and of frames of each, is cut and resized alike, and is compared
with one reference, a part of the patients of COVID-BLUES; another part of them, and another source, are the yardstick.
"""

import warnings

import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull

from lusbook import anatomy, features, metrics, phantom, realism, recordings, sources, video
from lusbook.errors import LusbookError, MissingData

SIZE = 128  # px, side of the frames that are measured; networks see them at half of it
PATIENTS, FRAMES = 14, 12  # of each set, and of each patient
REFERENCE = "COVID-BLUES"
LINE_PATIENTS = 200  # of the phantom, whose B-lines are measured


def few(patients, n_patients=PATIENTS, n_frames=FRAMES):
    """Choose the same number of frames of the same number of patients.

    Parameters
    ----------
    patients : sequence of str, length n
        Patient of each frame.
    n_patients, n_frames : int

    Returns
    -------
    rows : ndarray of int
        Of the first patients by name, each with frames evenly spaced from the first to the last; patients with fewer
        frames are passed over.

    Raises
    ------
    LusbookError
        When too few patients have that many frames.
    """
    patients = np.asarray(patients, str)
    names, counts = np.unique(patients, return_counts=True)
    names = names[counts >= n_frames][:n_patients]
    if len(names) < n_patients:
        raise LusbookError(f"expected {n_patients} patients with {n_frames} frames, received {len(names)}")
    spread = [np.flatnonzero(patients == name) for name in names]
    return np.concatenate([rows[np.linspace(0, len(rows) - 1, n_frames).round().astype(int)] for rows in spread])


def real_sets(clips, n_parts=3):
    """Divide clips by patient into parts of equal size.

    Parameters
    ----------
    clips : lusbook.video.Clips
    n_parts : int

    Returns
    -------
    sets : list of tuple
        Of each part: frames (n, size, size) uint8, fans (n, size, size) bool, patients (n,) str.
    """
    patients = clips.table["patient"].to_numpy(str)[clips.clip]
    part = np.unique(patients, return_inverse=True)[1] % n_parts
    chosen = [np.flatnonzero(part == k) for k in range(n_parts)]
    chosen = [rows[few(patients[rows])] for rows in chosen]
    return [(clips.frames[rows], clips.fans[rows], patients[rows]) for rows in chosen]


def phantom_set(parameters):
    """Frames of a simulated cohort, cut as real ones are: frames, fans, patients."""
    cohort = phantom.simulate(**parameters | {"plan": ((FRAMES,) * PATIENTS,), "image_size": 2 * SIZE})
    parts = []
    for patient in dict.fromkeys(cohort.patients):
        frames = cohort.images[cohort.patients == patient]
        parts.append(video.crop_fan(frames, video.fan_mask(frames), SIZE))
    fans = [np.broadcast_to(fan, frames.shape) for frames, fan in parts]
    return np.concatenate([frames for frames, _ in parts]), np.concatenate(fans), cohort.patients


def halve(frames):
    """Frames of half the side, averaged."""
    n, size, _ = frames.shape
    return np.rint(frames.reshape(n, size // 2, 2, size // 2, 2).mean(axis=(2, 4))).astype(np.uint8)


def compare(sets, reference, others, seed=0):
    """Compare sets of frames with a reference.

    Parameters
    ----------
    sets : dict of tuple
        By name: frames (n, size, size) uint8, fans (n, size, size) bool, patients (n,) str.
    reference : tuple
        Likewise.
    others : tuple
        Likewise: real frames of patients that are in no set, from which a network learns features.
    seed : int

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``distances``: one row a set, as :func:`lusbook.realism.distances`, and ``frechet``;
        ``told_apart``: one row a set and classifier, as :func:`lusbook.features.tell_apart`;
        ``profiles``: quartiles over frames of what :func:`lusbook.realism.describe_frames` measures, of the
        reference too.
    """
    described = {name: realism.describe_frames(*frames) for name, frames in ({REFERENCE: reference} | sets).items()}
    seen = features.train_features(halve(others[0]), others[2], seed)
    distances, told_apart = [], []
    for name, (frames, _, patients) in sets.items():
        nets = [seen(halve(part)) for part in (frames, reference[0])]
        distance = realism.distances(described[name], described[REFERENCE])
        distances.append({"set": name, **distance, "frechet": features.frechet_distance(*nets)})
        labels = np.repeat([True, False], [len(frames), len(reference[0])])
        who = np.concatenate([np.char.add(f"{name} ", patients), reference[2]])
        table = pd.concat([described[name], described[REFERENCE]]).drop(columns="patient")
        found = {
            "measures": features.tell_apart(table, labels, who, seed),
            "network": features.tell_apart_network(halve(np.concatenate([frames, reference[0]])), labels, who, seed),
        }
        told_apart += [{"set": name, "classifier": kind, **result} for kind, result in found.items()]
    return {
        "distances": pd.DataFrame(distances),
        "told_apart": pd.DataFrame(told_apart),
        "profiles": pd.concat([_quartiles(table).assign(set=name) for name, table in described.items()]),
    }


def _quartiles(described):
    quartiles = described.drop(columns="patient").quantile([0.25, 0.5, 0.75]).T
    return quartiles.set_axis(["low", "median", "high"], axis=1).rename_axis("measure").reset_index()


def agreement(cohorts):
    """Agreement of two simulated annotators with each other and with the truth.

    Parameters
    ----------
    cohorts : dict of dict
        By name: parameters of :func:`lusbook.phantom.simulate`.

    Returns
    -------
    agreement : pandas.DataFrame
        One row a frame: cohort, patient, ``annotators`` (Dice of the labels of two annotators) and ``truth`` (Dice of
        the first one's label and the exact mask).
    """
    tables = []
    for name, parameters in cohorts.items():
        plan = [[-(-count // 8) for count in fold] for fold in phantom.PLAN[name]]
        one, other = (phantom.simulate(**parameters | {"plan": plan, "annotator": k}) for k in (0, 1))
        dice = {
            key: metrics.dice(*metrics.confusion_counts(one.masks, masks).T[:3])
            for key, masks in (("annotators", other.masks), ("truth", one.truth))
        }
        tables.append(pd.DataFrame({"cohort": name, "patient": one.patients, **dice}))
    return pd.concat(tables, ignore_index=True)


def least_rectangle(points):
    """Length / width of the smallest rectangle around points, shape (n, 2)."""
    hull = points[ConvexHull(points).vertices]
    sizes = []
    for side in np.diff(hull, axis=0, append=hull[:1]):
        along = side / np.linalg.norm(side)
        sizes.append(sorted((np.ptp(hull @ along), np.ptp(hull @ [-along[1], along[0]]))))
    width, length = min(sizes, key=np.prod)
    return length / width


def phantom_lines(scanner, numbers, diversity, n_patients=LINE_PATIENTS):
    """B-lines of phantom frames, three frames a patient.

    Returns
    -------
    ratios : ndarray, shape (lines,)
        Length / width of the smallest rectangle around each.
    counts : ndarray, shape (frames,)
        B-lines of each frame.
    """
    ratios, counts = [], []
    for number in range(1, n_patients + 1):
        p = anatomy.draw_patient(np.random.default_rng([0, number]), diversity, scanner, numbers)
        for seconds in (0.0, 2.0, 4.0):
            lines = anatomy.drawable(p, anatomy.moment(p, seconds))
            counts.append(len(lines.number))
            for left, right in zip(lines.left, lines.right, strict=True):
                mask = phantom.annotator.draw(p, left[None], right[None], lines.begin, [p.depth + 1])
                corners = [np.argwhere(mask) + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
                ratios.append(least_rectangle(np.concatenate(corners)))
    return np.array(ratios), np.array(counts)


def shapes(sets):
    """Shape and number of B-lines.

    Parameters
    ----------
    sets : dict of tuple
        By name: length / width of each B-line, and number of B-lines of each frame that has any.

    Returns
    -------
    shapes : pandas.DataFrame
        One row a set: set, ``lines``, quartiles ``low``, ``median`` and ``high`` of length / width, ``frames``, and
        shares of them with ``one``, ``two``, ``three`` and ``more`` B-lines.
    """
    rows = []
    for name, (ratios, counts) in sets.items():
        low, median, high = np.percentile(ratios, [25, 50, 75])
        shares = np.bincount(np.minimum(counts, 4), minlength=5)[1:] / np.count_nonzero(counts)
        row = {"set": name, "lines": len(ratios), "low": low, "median": median, "high": high, "frames": len(counts)}
        rows.append(row | dict(zip(("one", "two", "three", "more"), shares, strict=True)))
    return pd.DataFrame(rows)


def run_realism(clinic, cohorts, seed=0, folder=None):
    """Everything that the chapter ``phantom`` shows beside live figures.

    Parameters
    ----------
    clinic : dict
        Parameters of :func:`lusbook.phantom.simulate` that imitate the reference's scanner.
    cohorts : dict of dict
        Those of the study's cohorts, by name.
    seed : int
        Of networks, folds and bootstrap.
    folder : path, optional
        Of COVID-BLUES.

    Returns
    -------
    outcome : dict
        ``tables``: those of :func:`compare`, :func:`agreement`, :func:`shapes` and
        :func:`lusbook.recordings.gallery`; ``overlays``: the gallery's frames. Without POCUS there is no second source
        and no gallery, without CIT no row of its polygons.
    """
    clips = video.load_clips(sources.read_covid_blues(folder), SIZE, max_frames=FRAMES)
    others, reference, same = real_sets(clips)
    sets = {"same source, other patients": same}
    simulated = {"clinic": clinic | {"numbers": "paper"}} | cohorts  # as the cohorts: every frame has B-lines
    tables, overlays, lines = {}, {}, {}
    try:
        pocus = sources.read_pocus()
        overlays["gallery"], tables["gallery"] = recordings.gallery(pocus)
        sets["other source"] = real_sets(video.load_clips(pocus, SIZE, max_frames=FRAMES), 1)[0]
    except MissingData as missing:
        warnings.warn(f"without POCUS: {missing}", stacklevel=2)
    try:
        _, polygons, _ = sources.read_cit()
        counts = polygons.groupby(["clip", "frame"]).size().to_numpy()
        lines["CIT polygons"] = np.array([least_rectangle(points) for points in polygons["points"]]), counts
    except MissingData as missing:
        warnings.warn(f"without CIT: {missing}", stacklevel=2)
    sets |= {f"phantom, {name}": phantom_set(parameters) for name, parameters in simulated.items()}
    tables |= compare(sets, reference, others, seed)
    lines |= {f"phantom, {numbers}": phantom_lines(clinic["scanner"], numbers, 1.0) for numbers in ("public", "paper")}
    tables |= {"shapes": shapes(lines), "agreement": agreement(cohorts)}
    return {"tables": tables, "overlays": overlays}
