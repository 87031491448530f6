"""What the chapter on real clips compares: networks that learn from the phantom, with and without adaptation.

No arm sees an expert's flag. Networks that adapt see frames of real clips; which ones, each arm says.
"""

import warnings
import zlib
from collections import namedtuple

import numpy as np
import pandas as pd
from skimage.transform import resize_local_mean

from lusbook import metrics, real, recordings, sources, trials, video
from lusbook.cohort import network_images
from lusbook.errors import MissingData
from lusbook.experiments import EXPERIMENTS, FOLDS

UNTRAINED = {"streaks (untrained)": real.streak_score, "brightness (untrained)": real.mean_brightness}

#: What an arm trains: method, source (a simulated cohort), target (patients whose frames it adapts to), other settings.
Arm = namedtuple("Arm", ["method", "source", "target", "changes"], defaults=("clinic", None, {}))
STRONG = {"augment_intensity": 0.5}
ARMS = {
    "U-Net (phantom only)": Arm("unet"),
    "U-Net (varied intensity)": Arm("unet", changes=STRONG),
    "SIFA (phantom to real)": Arm("sifa", target="all"),
    "SIFA (half A to half B)": Arm("sifa", target="A"),
    "SIFA (half B to half A)": Arm("sifa", target="B"),
    "SIFA (phantom COVID-19 to PCR-positive)": Arm("sifa", "covid", "positive"),
    "SIFA (phantom COVID-19 to PCR-negative)": Arm("sifa", "covid", "negative"),
}
SHOWN = {"U-Net (phantom only)": "unet", "SIFA (phantom to real)": "sifa"}  # whose masks figures show


def halves(table):
    """Divide patients in two halves of like conditions.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a clip: patient, condition, known.

    Returns
    -------
    half : ndarray, shape (clips,), str
        ``"A"`` or ``"B"``: every other patient in order of condition and name; ``""`` for patients kept unseen.
    """
    patients = (
        table.loc[table["known"], ["condition", "patient"]].drop_duplicates().sort_values(["condition", "patient"])
    )
    half = dict(zip(patients["patient"], np.resize(["A", "B"], len(patients)), strict=True))
    return table["patient"].map(half).fillna("").to_numpy(str)


def divide(target, table):
    """Which clips an arm adapts to, and which it scores.

    Parameters
    ----------
    target : {None, "all", "A", "B", "positive", "negative"}
    table : pandas.DataFrame
        One row a clip: known, half, pcr.

    Returns
    -------
    adapted, scored : ndarray, shape (clips,), bool
        Patients kept unseen are never adapted to; they are scored where all clips are. An arm that adapts to one half
        scores the other.
    """
    known, everything = table["known"].to_numpy(bool), np.ones(len(table), bool)
    if target is None:
        return ~everything, everything
    if target == "all":
        return known, everything
    if target in ("A", "B"):
        half = table["half"].to_numpy(str)
        return half == target, half == {"A": "B", "B": "A"}[target]
    chosen = known & (table["pcr"] == target).to_numpy()
    return chosen, chosen


def train(arm, settings, cohorts, frames, name, **keep):
    """Train one network of an arm.

    Parameters
    ----------
    arm : Arm
    settings : Settings
    cohorts : dict of Cohort
        Simulated sources by name.
    frames : ndarray, shape (n, size, size), uint8
        Of real clips, to adapt to; a U-Net does not look at them.
    name : str
        Of progress lines, and of the arm's subfolder.
    **keep
        As :func:`lusbook.trials.run_trial`; the network has a subfolder of ``folder``.

    Returns
    -------
    network : SimpleNamespace
        As :func:`lusbook.trials.unet_network` or :func:`lusbook.trials.sifa_network`.
    history : list of dict
    """
    seed = (settings.seed, len(FOLDS), zlib.crc32(b"real"))  # no fold is left out: the real clips are the test
    iterations = settings.real_iterations or settings.unet_iterations
    settings = settings.model_copy(update=arm.changes)
    if keep.get("folder"):
        keep |= {"folder": keep["folder"] / name.replace(" ", "-")}
    cohort, label = cohorts[arm.source], f"real  {name}"
    if arm.method == "sifa":
        return trials.adapt(cohort, network_images(frames), settings, seed, label, **keep)
    settings = settings.model_copy(update={"unet_iterations": iterations})
    return trials.train_unet(EXPERIMENTS["unet-covid"], {"covid": cohort}, settings, seed, None, label, **keep)


def score_clips(found, neighbours, clips, threshold):
    """Scores of clips, and how much the masks of neighbouring frames agree.

    Parameters
    ----------
    found, neighbours : ndarray, shape (n, size, size), float
        Probabilities of B-line in ``clips.frames`` and ``clips.neighbours``.
    clips : lusbook.video.Clips
    threshold : float

    Returns
    -------
    scores, agreement : ndarray, shape (clips,), float
        As :func:`lusbook.real.clip_scores`; mean Dice of neighbouring frames, NaN where neither has a B-line.
    """
    masks, beside = ((part > threshold) & clips.fans for part in (found, neighbours))
    dice = metrics.dice(*metrics.confusion_counts(masks, beside).T[:3])
    drawn = masks.any(axis=(1, 2)) | beside.any(axis=(1, 2))
    agreement = pd.Series(np.where(drawn, dice, np.nan)).groupby(clips.clip).mean()
    return real.clip_scores(masks, clips.fans, clips.clip), agreement.to_numpy()


def shown_frames(settings):
    """Frames that figures may show, of CC BY clips of another source: none where that source is not here.

    Returns
    -------
    frames : ndarray, shape (n, 256, 256), uint8, or None
    credits : pandas.DataFrame, or None
        As :func:`lusbook.recordings.gallery`.
    small : ndarray, shape (n, image_size, image_size), uint8, or None
        The same frames as networks take them.
    """
    try:
        table = sources.read_pocus()
    except MissingData as missing:
        warnings.warn(f"without frames to show: {missing}", stacklevel=2)
        return None, None, None
    frames, credits = recordings.gallery(table)
    small = [np.rint(resize_local_mean(frame, (settings.image_size,) * 2)) for frame in frames.astype(float)]
    return frames, credits, np.stack(small).astype(np.uint8)


def run_arms(settings, cohorts, table, **keep):
    """Train every arm and score every real clip.

    Parameters
    ----------
    settings : Settings
    cohorts : dict of Cohort
        Labelled sources: ``clinic`` (:func:`lusbook.loading.load_source`) and ``covid``.
    table : pandas.DataFrame
        Clips, as :func:`lusbook.sources.read_covid_blues` lists them.
    **keep
        As :func:`lusbook.trials.run_trial`.

    Returns
    -------
    outcome : dict
        As :func:`lusbook.trials.run_trial`; the tables are ``history``, ``clips`` (:data:`lusbook.real.KEYS` and a
        column of scores for each arm; NaN where an arm does not score a clip) and ``agreement`` (of neighbouring
        frames, likewise), and ``credits`` of the frames that are shown; the overlays are those frames and the masks
        that two networks draw on them, where the source of the frames is here.
    """
    clips = video.load_clips(table, settings.image_size)
    scores = clips.table.assign(half=halves(clips.table))[real.KEYS].copy()
    agreement, histories = scores[["clip"]].copy(), []
    frames, credits, small = shown_frames(settings)
    overlays = {} if frames is None else {"frames": frames}
    for name, score in UNTRAINED.items():
        scores[name] = real.pool_frames(score(clips.frames, clips.fans), clips.clip)
    for name, arm in ARMS.items():
        scores[name] = agreement[name] = np.nan
        adapted, scored = divide(arm.target, scores)
        if arm.target and not adapted.any():  # a copy that says nothing of PCR tests
            continue
        network, history = train(arm, settings, cohorts, clips.frames[adapted[clips.clip]], name, **keep)
        histories.append(pd.DataFrame(history).assign(arm=name))
        found = [trials.probabilities(network.routes["direct"], part) for part in (clips.frames, clips.neighbours)]
        for target, values in zip((scores, agreement), score_clips(*found, clips, settings.threshold), strict=True):
            target.loc[scored, name] = values[scored]
        if frames is not None and name in SHOWN:
            overlays[SHOWN[name]] = trials.probabilities(network.routes["direct"], small) > settings.threshold
    tables = {"history": pd.concat(histories), "clips": scores, "agreement": agreement}
    tables |= {} if frames is None else {"credits": credits}
    return {"tables": tables, "overlays": overlays, "weights": [], "machine": trials.machine()}
