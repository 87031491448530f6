"""Attempts to adapt better: tuned on the flags of one half of the patients, reported on the other half.

The list was written down before any of it was run, and all of it is reported. An attempt that adapts sees frames of one
half only; a rule (:func:`lusbook.tuning.choose`) takes the best attempt and pooling by the flags of that half, and what
counts is its AUROC on the other half, whose frames and flags it has not seen.
"""

from collections import namedtuple

import numpy as np
import pandas as pd
from keras import ops

from lusbook import arms, geometry, real, trials, unet, video
from lusbook.cohort import Cohort, network_images

#: method; whether frames are sampled along scan lines; whether batch normalisations take the statistics of the target;
#: whether the source has only frames with B-lines; how many times as long SIFA trains; other settings.
Attempt = namedtuple("Attempt", ["method", "lines", "statistics", "positive", "longer", "changes"])


def _attempt(method, lines=False, statistics=False, positive=False, longer=1, **changes):
    return Attempt(method, lines, statistics, positive, longer, changes)


HALF, FULL = {"augment_intensity": 0.5}, {"augment_intensity": 1.0}
ATTEMPTS = {
    "U-Net": _attempt("unet"),
    "U-Net, intensity 0.5": _attempt("unet", **HALF),
    "U-Net, intensity 1": _attempt("unet", **FULL),
    "U-Net, target statistics": _attempt("unet", statistics=True),
    "U-Net, intensity 0.5, target statistics": _attempt("unet", statistics=True, **HALF),
    "U-Net, scan lines": _attempt("unet", lines=True),
    "U-Net, scan lines, intensity 0.5": _attempt("unet", lines=True, **HALF),
    "U-Net, scan lines, intensity 0.5, target statistics": _attempt("unet", lines=True, statistics=True, **HALF),
    "SIFA": _attempt("sifa"),
    "SIFA, three times as long": _attempt("sifa", longer=3),
    "SIFA, intensity 0.5": _attempt("sifa", **HALF),
    "SIFA, source frames with B-lines only": _attempt("sifa", positive=True),
    "SIFA, scan lines": _attempt("sifa", lines=True),
    "SIFA, scan lines, intensity 0.5": _attempt("sifa", lines=True, **HALF),
}
#: Ways to pool the frames of a clip, by name with percentile, and whether pixels count by their probability.
POOLING = {
    "area, median": (50, False),
    "area, 75th percentile": (75, False),
    "area, 95th percentile": (95, False),
    "probability, 75th percentile": (75, True),
}


BASELINES = {False: "streaks (untrained)", True: "streaks (untrained), scan lines"}


def prepare(attempt, cohort):
    """The source of an attempt: along scan lines, only frames with B-lines, or as it is."""
    if attempt.positive:
        cohort = cohort.subset(cohort.masks.any(axis=(1, 2)))
    if not attempt.lines:
        return cohort
    size = cohort.images.shape[-1]
    images, masks = np.empty_like(cohort.images), np.empty_like(cohort.masks)
    for patient in np.unique(cohort.patients):  # one scanner setting each
        rows = np.flatnonzero(cohort.patients == patient)
        fan = video.fan_mask(cohort.images[rows])
        images[rows], cut_fan = geometry.cut_scan_lines(cohort.images[rows], fan, size)
        drawn, _ = geometry.cut_scan_lines(cohort.masks[rows] * np.uint8(255), fan, size)
        masks[rows] = (drawn > 127) & cut_fan
    return Cohort(cohort.name, images, masks, cohort.patients, cohort.folds)


def take_statistics(network, settings, frames):
    """Give the U-Net's batch normalisations the statistics of frames; the same predictor sees them.

    References
    ----------
    Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS 2020.
    """
    model = unet.build_unet(settings.unet_width, 0.0, settings.seed, settings.precision)  # without dropout's noise
    trained = [variable for variable in network.weights if "seed" not in variable.path]
    for variable, value in zip(model.variables, trained, strict=True):
        variable.assign(value)
    images = network_images(frames)
    found = trials.in_batches(lambda batch: ops.convert_to_numpy(model(batch, training=True)[1])[None], images)
    mean, square = found[:, 0].mean(axis=0), (found[:, 1] + found[:, 0] ** 2).mean(axis=0)
    statistics = np.stack([mean, square - mean**2])  # (2, channels of all batch normalisations)
    norms = [variable for variable in trained if variable.path.endswith("moving")]
    ends = np.cumsum([moving.shape[-1] for moving in norms])
    for moving, end in zip(norms, ends, strict=True):
        moving.assign(statistics[:, end - moving.shape[-1] : end])


def pool(found, clips, threshold):
    """Scores of every clip under each of :data:`POOLING`: a table, one row a clip."""
    pixels = real.fan_pixels(clips.fans)
    shares = {
        soft: (np.where(clips.fans, found, 0) if soft else (found > threshold) & clips.fans).sum(axis=(1, 2)) / pixels
        for soft in (False, True)
    }
    return pd.DataFrame(
        {name: real.pool_frames(shares[soft], clips.clip, percentile) for name, (percentile, soft) in POOLING.items()}
    )


def run_attempts(settings, cohort, table, **keep):
    """Train every attempt on each half of the patients, and score every clip.

    Parameters
    ----------
    settings : Settings
    cohort : Cohort
        Labelled source, see :func:`lusbook.loading.load_source`.
    table : pandas.DataFrame
        Clips, as :func:`lusbook.sources.read_covid_blues` lists them; patients kept unseen are left out.
    **keep
        As :func:`lusbook.trials.run_trial`.

    Returns
    -------
    outcome : dict
        As :func:`lusbook.trials.run_trial`; the table ``attempts`` has one row for each attempt, half whose frames it
        saw ("" where it saw none) and clip: attempt, adapted, clip, patient, half, b_lines, a column for each pooling.
    """
    table = table[table["known"]]
    cuts = {False: video.crop_fan, True: geometry.cut_scan_lines}
    clips = {lines: video.load_clips(table, settings.image_size, cut=cut) for lines, cut in cuts.items()}
    about = clips[False].table.assign(half=arms.halves(clips[False].table))[["clip", "patient", "half", "b_lines"]]
    tables = [_streaks(clips[lines]).assign(attempt=name) for lines, name in BASELINES.items()]
    for names in networks():
        attempt = ATTEMPTS[names[0]]
        source, seen = prepare(attempt, cohort), clips[attempt.lines]
        frames = {half: seen.frames[(about["half"] == half).to_numpy()[seen.clip]] for half in ("", "A", "B")}
        for trained_on in ("A", "B") if attempt.method == "sifa" else ("",):
            network = _train(attempt, settings, source, frames[trained_on], f"{names[0]} {trained_on}".strip(), **keep)
            for name in names:
                for half in ("A", "B") if ATTEMPTS[name].statistics else (trained_on,):
                    if ATTEMPTS[name].statistics:
                        take_statistics(network, settings, frames[half])
                    found = trials.probabilities(network.routes["direct"], seen.frames)
                    tables.append(pool(found, seen, settings.threshold).assign(attempt=name, adapted=half))
    scores = pd.concat([about.join(part) for part in tables]).fillna({"adapted": ""})
    return {"tables": {"attempts": scores}, "overlays": {}, "weights": [], "machine": trials.machine()}


def _streaks(clips):
    """The untrained score, under the name of the pooling that it has."""
    scores = real.pool_frames(real.streak_score(clips.frames, clips.fans), clips.clip)
    return pd.DataFrame({"area, 75th percentile": scores})


def networks():
    """Attempts that share a trained network, those that change its statistics last: a list of lists of names."""
    shared = {}
    for name, attempt in sorted(ATTEMPTS.items(), key=lambda item: item[1].statistics):
        shared.setdefault(str(attempt._replace(statistics=False)), []).append(name)
    return list(shared.values())


def _train(attempt, settings, source, adapted, name, **keep):
    changes = attempt.changes | {"sifa_iterations": settings.sifa_iterations * attempt.longer}
    arm = arms.Arm(attempt.method, "source", None, changes)
    return arms.train(arm, settings, {"source": source}, adapted, name, **keep)[0]
