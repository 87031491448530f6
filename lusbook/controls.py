"""Controls of the adaptation: a shift of appearance that it must undo, and one that it cannot.

Before anything is said of two diseases, the code has to show that it adapts where there is a shift and nothing else.
Labelled COVID-19 frames are the source; frames of other simulated COVID-19 patients, changed pixel by pixel, are the
unlabelled target. Under haze (the positive control) a network that saw the source alone finds nothing, and what is
bright stays bright. Inverted (the negative control), bright and dark change places, which losses that look at images
and features, but at no label of the target, need not notice.
"""

import zlib

import numpy as np
import pandas as pd

from lusbook import checkpoints, metrics, phantom, provenance, runs
from lusbook.ceiling import ceiling
from lusbook.cohort import fold_indices, median_frame, network_images
from lusbook.errors import LusbookError, MissingData
from lusbook.experiments import EXPERIMENTS
from lusbook.loading import MORE, load_cohorts, load_phantom, phantom_parameters

FOLDER = "controls"
FRAMES, TRAIN = 10, 40  # frames of each of 60 patients; the first 40 patients are adapted to, the others tested
BLIND, NEAR = 0.1, 0.15  # a positive control: Dice of a network without adaptation, and distance from the ceiling


def haze(images, rng):
    """Lay haze over the fan: grey levels from 90 on, contrast of a third, noise; order is kept.

    Parameters
    ----------
    images : ndarray, shape (n, size, size), uint8
    rng : numpy.random.Generator

    Returns
    -------
    images : ndarray of the same shape and type
    """
    hazy = 90 + 0.35 * images + rng.normal(0, 12, images.shape)
    return np.where(inside_fan(images), np.clip(np.rint(hazy), 1, 255), 0).astype(np.uint8)


def invert(images, rng):
    """Invert grey levels within the fan; parameters and returns as :func:`haze`, ``rng`` is not used."""
    return np.where(inside_fan(images), np.clip(255 - images.astype(int), 1, 255), 0).astype(np.uint8)


def inside_fan(images):
    """Where any frame of a clip of 10 shows something, which is the fan of its patient; shape as the images."""
    clips = images.reshape(-1, FRAMES, *images.shape[1:])
    return np.repeat((clips > 0).any(axis=1), FRAMES, axis=0)


SHIFTS = {"haze": haze, "inversion": invert}
#: Trainings by shift, method and seed. SIFA's positive control has three seeds.
TRAININGS = [
    *((shift, "unet", 0) for shift in SHIFTS),
    *(("haze", "sifa", seed) for seed in range(3)),
    ("inversion", "sifa", 0),
]


def find_training(name):
    """A training of :data:`TRAININGS` by its name, as ``haze-sifa-0``.

    Raises
    ------
    LusbookError
        When there is none of that name.
    """
    named = {"-".join(map(str, training)): training for training in TRAININGS}
    if name not in named:
        raise LusbookError(f"control {name!r} is not known; expected one of {', '.join(named)}")
    return named[name]


def compute(settings, results=None, trainings=None):
    """Train and test the controls; finished ones are kept, interrupted ones go on.

    Parameters
    ----------
    settings : Settings
        ``control_iterations`` of SIFA, and of U-Nets as many as see the same number of images.
    results : path, optional
        Folder of studies.
    trainings : list of (shift, method, seed), optional
        All of :data:`TRAININGS` by default.
    """
    for shift, method, seed in trainings or TRAININGS:
        folder = runs.study_folder(settings, results) / FOLDER / f"{shift}-{method}-seed-{seed}"
        chosen = trained_by(settings, seed)
        source, more = phantom_parameters("covid", chosen), more_parameters(chosen)
        params = {
            "control": [shift, method, seed],
            "settings": runs.relevant(chosen, method),
            "data": {"covid": phantom.digest(**source), "covid-more": phantom.digest(**more)},
        }
        keep = {"folder": folder, "key": runs.checkpoint_key(params, folder)}
        runs.once(folder, params, chosen, lambda: _train(shift, method, chosen, more, keep))  # noqa: B023
        checkpoints.remove(folder)


def trained_by(settings, seed):
    """Settings of one training of the controls: the study's, with simulated cohorts and its own seed and length.

    A U-Net has the steady dropout of 0.1: what is asked is whether labels of the source suffice, not whether the
    published recipe is a good one.
    """
    changes = {"cohorts": "phantom", "seed": seed, "sifa_iterations": settings.control_iterations, "unet_dropout": 0.1}
    seen = settings.control_iterations * settings.sifa_batch_size
    changes["unet_iterations"] = max(1, seen // settings.unet_batch_size)
    return settings.model_copy(update=changes)


def more_parameters(settings):
    """Parameters of the simulated patients who are adapted to and tested."""
    own = {"name": "covid-more", "plan": ((FRAMES,) * MORE,)}
    return phantom_parameters("covid", settings) | own


def _train(shift, method, settings, more, keep):
    """Train on labelled source frames, adapt to shifted ones, and test on those of other patients."""
    from lusbook import selection, trials  # networks, and with them Keras

    covid, more = load_cohorts(settings)["covid"], load_phantom(**more)
    source = covid.subset(fold_indices(covid, 0)[0])
    target = SHIFTS[shift](more.images, np.random.default_rng((settings.seed, zlib.crc32(shift.encode()))))
    test = slice(TRAIN * FRAMES, None)
    unlabelled, seed = network_images(target[: TRAIN * FRAMES]), (settings.seed, 0, zlib.crc32(b"controls"))
    label = f"control  {shift} {method} seed {settings.seed}"
    if method == "sifa":
        network, history = trials.adapt(source, unlabelled, settings, seed, label, **keep)
        count = settings.sifa_snapshots
    else:
        experiment = EXPERIMENTS["unet-covid"]
        network, history = trials.train_unet(experiment, {"covid": source}, settings, seed, None, label, **keep)
        count = settings.unet_snapshots
    taken = selection.snapshot_iterations(len(history), count) if count else []
    rows, seen = [], {"shifted": target[test], "as they are": more.images[test]}
    for iteration in taken or [len(history)]:
        if taken:
            trials.reset(network.weights, checkpoints.load_snapshot(keep["folder"], iteration))
        for name, images in seen.items():
            found = trials.probabilities(network.routes["direct"], images) > settings.threshold
            rows.append({"iteration": iteration, "images": name, "dice": dice(found, more.masks[test])})
    tables = {"history": pd.DataFrame(history), "curve": pd.DataFrame(rows)}
    best = ceiling(more.masks[test], method).mean()
    tables["curve"] = tables["curve"].assign(ceiling=best, shift=shift, method=method, seed=settings.seed)
    return {
        "tables": tables,
        "overlays": _picture(network, method, more, target, settings.threshold),
        "inputs": provenance.contents({"covid": covid, "covid-more": more}),
        "machine": trials.machine(),
    }


def dice(found, masks):
    """Mean Dice over images."""
    return float(metrics.dice(*metrics.confusion_counts(found, masks).T[:3]).mean())


def _picture(network, method, more, target, threshold):
    """The test frame of median labelled area: as it is, shifted, translated back, its label and the prediction."""
    from lusbook import trials

    chosen = TRAIN * FRAMES + median_frame(more.masks[TRAIN * FRAMES :])
    shown = target[chosen][None]
    found = {
        "image": more.images[chosen],
        "shifted": shown[0],
        "mask": more.masks[chosen],
        "predicted": trials.probabilities(network.routes["direct"], shown)[0] > threshold,
    }
    if method == "sifa":
        translated = network.translate(network_images(shown))["target"]
        back = network.translate(network_images(more.images[chosen][None]))["source"]
        found["fake"] = trials.quantise(np.asarray(translated["fake"])[0, ..., 0])  # to the source
        found["cycle"] = trials.quantise(np.asarray(translated["cycle"])[0, ..., 0])  # and back
        found["hazed"] = trials.quantise(np.asarray(back["fake"])[0, ..., 0])  # the frame as it is, by the generator
    return found


# ---------------------------------------------------------------------------------------------
# Reading


def read(settings, results=None):
    """What the controls gave, as far as they are there; nothing is computed.

    Returns
    -------
    curves : pandas.DataFrame
        Columns iteration, images ("shifted" or "as they are"), dice, ceiling, shift, method, seed.
    pictures : dict of dict of ndarray
        By (shift, method, seed).

    Raises
    ------
    MissingData
        When none is there.
    """
    root, tables, pictures = runs.study_folder(settings, results) / FOLDER, [], {}
    for shift, method, seed in TRAININGS:
        folder = root / f"{shift}-{method}-seed-{seed}"
        if (folder / "manifest.json").exists():
            tables.append(runs.read_tables(folder)["curve"])
            pictures[shift, method, seed] = runs.read_arrays(folder)
    if not tables:
        raise MissingData("controls were not computed for these settings; `lusbook controls` does so")
    return pd.concat(tables, ignore_index=True), pictures


def passed(settings, results=None):
    """As :func:`passes`, of a study; None where its controls are not there."""
    try:
        return passes(read(settings, results)[0])
    except MissingData:
        return None


def last_weights(curves):
    """Dice of the last weights of every training: on shifted frames, on the same as they are, and the ceiling.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`read` gives it.

    Returns
    -------
    table : pandas.DataFrame
        Rows by shift, method and seed.
    """
    last = curves.sort_values("iteration").groupby(["shift", "method", "seed", "images"], sort=False).last()
    dice = last["dice"].unstack("images")
    table = dice.assign(ceiling=last["ceiling"].groupby(["shift", "method", "seed"]).first())
    return table.rename(columns={"shifted": "shifted frames"})[
        ["shifted frames", "as they are", "ceiling"]
    ].sort_index()


def said(curves):
    """What the controls say, in one or two sentences of Markdown.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`read` gives it.
    """
    last = last_weights(curves)["shifted frames"]
    outcome = {True: "passes", False: "fails", None: "is not complete"}[passes(curves)]
    texts = []
    for shift in last.index.unique("shift"):
        found = ", ".join(
            f"{title} {' and '.join(f'{value:.2f}' for value in last.loc[shift].loc[[method]])}"
            for method, title in (("unet", "the U-Net without adaptation"), ("sifa", "SIFA"))
            if (shift, method) in last.index.droplevel("seed")
        )
        texts.append(f"Under {shift}, Dice on frames of patients never seen is: {found}.")
    return f"**The positive control {outcome}.** " + " ".join(texts)


def passes(curves):
    """Whether the positive control passes: the code adapts where there is a shift and nothing else.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`read` gives it.

    Returns
    -------
    passed : bool or None
        True when, at the end of training, the U-Net without adaptation is below 0.1 on hazed frames and SIFA
        within 0.15 of its ceiling, with each of three seeds. None where trainings are missing.

    Examples
    --------
    >>> def row(method, seed, dice):
    ...     where = {"iteration": 1, "images": "shifted", "shift": "haze", "ceiling": 0.9}
    ...     return where | {"method": method, "seed": seed, "dice": dice}
    >>> found = [row("unet", 0, 0.05), *(row("sifa", seed, 0.8) for seed in range(3))]
    >>> passes(pd.DataFrame(found)), passes(pd.DataFrame(found[:3]))
    (True, None)
    >>> passes(pd.DataFrame([row("unet", 0, 0.2), *found[1:]]))
    False
    """
    shown = curves[(curves["shift"] == "haze") & (curves["images"] == "shifted")]
    last = shown.sort_values("iteration").groupby(["method", "seed"]).last()
    wanted = [(method, seed) for shift, method, seed in TRAININGS if shift == "haze"]
    if not set(wanted) <= set(last.index):
        return None
    adapted = last.loc["sifa"]
    blind = last.loc[("unet", 0), "dice"] < BLIND
    return bool(blind and (adapted["dice"] >= adapted["ceiling"] - NEAR).all())
