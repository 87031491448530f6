"""One run: train a network on the training folds, test it on both cohorts' test fold."""

import os
import zlib
from functools import lru_cache, partial
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lusbook import backend, checkpoints, metrics, selection, sifa, unet
from lusbook.augment import random_transforms, vary_intensity
from lusbook.cohort import fold_indices, network_images, reduce_to, shown_frame
from lusbook.norms import moments, set_statistics
from lusbook.training import batch_indices, fit, iterations_per_epoch, reset

INFERENCE_BATCH = 32
UNLABELLED = 128  # target training images that the label-free criterion looks at, evenly spread
STATISTICS = 96  # training images of either domain from which batch-norm statistics are recomputed, evenly spread
PICTURED = 5  # snapshots whose translations are kept, evenly spread
CURVE = 48  # test images of either cohort on which learning curves are taken, evenly spread


def run_trial(experiment, fold, settings, cohorts, parent=None, label="", more=None, **keep):
    """Train and test one experiment on one fold.

    Parameters
    ----------
    experiment : Experiment
    fold : int
        The fold that is tested; the others train.
    settings : Settings
    cohorts : dict of Cohort
        ``covid`` and ``cap``.
    parent : Path, optional
        Weights that a fine-tuning starts from.
    label : str
        What progress lines name.
    more : dict of Cohort, optional
        Further patients of both conditions, whom nothing is trained on, see :func:`lusbook.loading.load_more`.
    **keep
        ``folder``, ``key`` and ``deadline`` of :func:`lusbook.training.fit`.

    Returns
    -------
    outcome : dict
        ``tables`` (``history``, ``per_image``, ``curve`` where snapshots are taken and ``more_patients`` where there
        are any; for SIFA also ``snapshots`` and ``selection``, see :mod:`lusbook.selection`), ``overlays`` (arrays by
        name), ``weights`` (list of arrays) and ``machine`` (what computed).
    """
    seed = (settings.seed, fold, zlib.crc32(experiment.name.encode()))
    training = {name: cohort.subset(fold_indices(cohort, fold)[0]) for name, cohort in cohorts.items()}
    if experiment.method == "unet":
        network, history = train_unet(experiment, training, settings, seed, parent, label, **keep)
    else:
        network, history = train_sifa(experiment, training, settings, seed, label, **keep)
    per_image, overlays = test(experiment, fold, settings, cohorts, network)
    weights = [np.asarray(variable.value) for variable in network.weights]
    tables = {"history": pd.DataFrame(history), "per_image": per_image}
    if more:
        tables["more_patients"] = pd.concat(
            [
                score(predict(network, experiment, name, cohort.images, settings.threshold), name, cohort)
                for name, cohort in more.items()
            ],
            ignore_index=True,
        )
    if experiment.method == "sifa":
        images = training[experiment.target].images
        found, grown = test_snapshots(experiment, fold, settings, cohorts, network, images, keep["folder"])
        tables, overlays = tables | found, overlays | grown
    elif taken := snapshots_of_unet(experiment, len(history), settings):
        tables["curve"] = curve_of_unet(experiment, fold, settings, cohorts, network, taken, keep["folder"])
    return {"tables": tables, "overlays": overlays, "weights": weights, "machine": machine()}


def machine():
    """What computes: backend, device, cores, and threads of one operation where they are limited."""
    return {
        "backend": backend.keras.backend.backend(),
        "device": backend.device(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or None,
    }


@lru_cache(maxsize=1)
def unet_network(width, dropout, seed, precision):
    """A U-Net with its compiled step and inference; one serves all runs of the same settings."""
    model = unet.build_unet(width, dropout, seed, precision)
    step, optimizer, state = unet.make_step(model)
    predict = unet.make_predict(model)
    initial = [np.asarray(variable.value) for variable in state]
    return SimpleNamespace(
        step=step,
        optimizer=optimizer,
        state=state,
        initial=initial,
        weights=model.variables,
        routes={"direct": predict},
    )


def train_unet(experiment, training, settings, seed, parent, label, **keep):
    """Train or fine-tune a U-Net on the labelled images of the experiment's cohorts."""
    network = unet_network(settings.unet_width, settings.unet_dropout, settings.seed, settings.precision)
    reset(network.state, network.initial)
    iterations, epochs = settings.unet_iterations, settings.unet_epochs
    network.optimizer.rate.assign(settings.unet_learning_rate)
    if experiment.parent:
        iterations, epochs = settings.fine_tune_iterations, settings.fine_tune_epochs
        network.optimizer.rate.assign(settings.fine_tune_learning_rate)
        with np.load(parent, allow_pickle=False) as stored:
            reset(network.weights, [stored[f"arr_{i}"] for i in range(len(network.weights))])
    images = np.concatenate([network_images(training[name].images) for name in experiment.source])
    masks = np.concatenate([network_masks(training[name].masks) for name in experiment.source])
    size = settings.unet_batch_size

    def batch(iteration):
        chosen = batch_indices(len(images), size, iteration, (*seed, 0))
        rng = np.random.default_rng((*seed, 1, iteration))
        transforms = random_transforms(rng, size, settings.image_size, settings)
        return vary_intensity(images[chosen], rng, settings.augment_intensity), masks[chosen], transforms

    iterations = iterations or epochs * iterations_per_epoch(len(images), size)
    taken = snapshots_of_unet(experiment, iterations, settings)

    def after(iteration):
        if iteration in taken:
            checkpoints.save_snapshot(keep["folder"], iteration, [np.asarray(v.value) for v in network.weights])

    return network, fit(network.step, batch, iterations, label, state=network.state, after=after, **keep)


def snapshots_of_unet(experiment, iterations, settings):
    """Iterations at which the learning curve of a U-Net is taken; a fine-tuning has a share of a training's."""
    count = settings.unet_snapshots
    if experiment.parent:
        count = -(-count * settings.fine_tune_epochs // settings.unet_epochs)
    return selection.snapshot_iterations(iterations, count) if count else []


@lru_cache(maxsize=1)
def sifa_network(settings):
    """SIFA's networks with their compiled step and inference; one serves all runs of the same settings."""
    networks = sifa.build_networks(
        settings.image_size, settings.sifa_width, seed=settings.seed, precision=settings.precision
    )
    step, state = sifa.make_step(networks, settings)
    direct, translated = sifa.make_predict(networks)
    names = ("generator", "encoder", "decoder", "segmenter")  # what segments and translates
    weights = [v for name in names for v in getattr(networks, name).variables]
    averages, follow = selection.make_average(weights, settings.sifa_average_decay)
    state = [*state, *averages]
    return SimpleNamespace(
        step=step,
        state=state,
        initial=[np.asarray(variable.value) for variable in state],
        weights=weights,
        averages=averages,
        follow=follow,
        routes={"translated": translated, "direct": direct},
        translate=sifa.make_translate(networks),
        generator=networks.generator,
        encoder=networks.encoder,
    )


def train_sifa(experiment, training, settings, seed, label, **keep):
    """Train SIFA on labelled source and unlabelled target images."""
    source, target = training[experiment.source[0]], training[experiment.target]
    if experiment.reduced:
        source = reduce_to(source, len(target), settings.seed)
    return adapt(source, network_images(target.images), settings, seed, label, **keep)


def adapt(source, b, settings, seed, label, **keep):
    """Train SIFA from a labelled cohort to unlabelled images.

    Parameters
    ----------
    source : Cohort
    b : ndarray, shape (n, size, size, 1), float32
    **keep
        As :func:`run_trial`; snapshots of the weights go to ``folder``, too.
    """
    network = sifa_network(settings)
    reset(network.state, network.initial)
    a, masks = network_images(source.images), network_masks(source.masks)
    size, side = settings.sifa_batch_size, settings.image_size
    pools = [sifa.ImagePool(settings.sifa_pool_size, (size, side, side, 1)) for _ in "ab"]
    slots = [None, None]

    def batch(iteration):
        rng = np.random.default_rng((*seed, 1, iteration))
        chosen_a = batch_indices(len(a), size, iteration, (*seed, 2))
        chosen_b = batch_indices(len(b), size, iteration, (*seed, 3))
        slots[:], used = zip(*(pool.draw(rng, iteration) for pool in pools), strict=True)
        stored = [pool.batches[slot or 0] for pool, slot in zip(pools, slots, strict=True)]
        transforms = [random_transforms(rng, size, side, settings) for _ in "ab"]
        seen = [vary_intensity(x, rng, settings.augment_intensity) for x in (a[chosen_a], b[chosen_b])]
        return seen[0], masks[chosen_a], seen[1], *transforms, *stored, np.array(used, "float32")

    def step(*arrays):
        losses = network.step(*arrays)
        for pool, slot, name in zip(pools, slots, ("fake_a", "fake_b"), strict=True):
            pool.put(slot, np.asarray(losses.pop(name)))
        return losses

    taken = selection.snapshot_iterations(settings.sifa_iterations, settings.sifa_snapshots)
    network.refresh = partial(refresh_statistics, network, evenly(a, STATISTICS), evenly(b, STATISTICS))

    def after(iteration):
        network.follow(iteration)
        if iteration in taken:  # the last iteration always is
            network.refresh()
            checkpoints.save_snapshot(keep["folder"], iteration, [np.asarray(v.value) for v in network.weights])

    batches = [pool.batches for pool in pools]
    iterations = settings.sifa_iterations
    return network, fit(step, batch, iterations, label, state=network.state, pools=batches, after=after, **keep)


def refresh_statistics(network, a, b):
    """Recompute the statistics of the encoder's batch normalisations at its weights as they are.

    The moving ones lag behind weights that move fast. Segmentation sees target images and translated source images:
    statistics are the mean over both. Training itself never reads them.

    Parameters
    ----------
    network : types.SimpleNamespace
        As :func:`sifa_network` gives it.
    a, b : ndarray, shape (n, size, size, 1), float32
        Training images of the source and of the target; no labels.

    References
    ----------
    The reference implementation passes 20 batches in training mode before it stores weights.
    """
    translated = [network.generator(part, training=False) for part in filled_batches(a)]
    found = [moments(network.encoder, batches) for batches in (translated, filled_batches(b))]
    set_statistics(network.encoder, np.mean(found, axis=0))


def evenly(images, count):
    """At most so many images, evenly spread."""
    return images[np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))]


def network_masks(masks):
    """Masks as the networks take them: (n, size, size, 1), float32 in {0, 1}."""
    return masks[..., None].astype("float32")


def probabilities(predict, images):
    """Probability of B-line in every pixel.

    Parameters
    ----------
    predict : callable
        One of a network's ``routes``.
    images : ndarray, shape (n, size, size), uint8

    Returns
    -------
    probabilities : ndarray, shape (n, size, size), float32
    """
    return in_batches(predict, network_images(images))


def in_batches(function, images):
    """Apply a compiled function to images in batches of one size, so that it is traced once."""
    return np.concatenate([np.asarray(function(part)) for part in filled_batches(images)])[: len(images)]


def filled_batches(images):
    """Images in batches of one size; the last one is filled up with its own again."""
    parts = (images[start : start + INFERENCE_BATCH] for start in range(0, len(images), INFERENCE_BATCH))
    return [np.resize(part, (INFERENCE_BATCH, *part.shape[1:])) for part in parts]


def default_route(experiment, cohort):
    """How a network segments a cohort: SIFA sends its source domain through the generator first."""
    return "translated" if experiment.method == "sifa" and cohort in experiment.source else "direct"


def test(experiment, fold, settings, cohorts, network):
    """Test a network on both cohorts' test fold.

    SIFA segments target images directly, and source images both through the generator
    ("translated", what its segmenter was trained on) and directly.

    Returns
    -------
    per_image : pandas.DataFrame
    overlays : dict of ndarray
        For the frame that :func:`lusbook.cohort.shown_frame` picks: image, mask, and prediction by route.
    """
    tables, overlays = [], {}
    for name, cohort in cohorts.items():
        index = fold_indices(cohort, fold)[1]
        subset = cohort.subset(index)
        shown = int(np.flatnonzero(index == shown_frame(cohort, fold))[0])
        overlays |= {f"{name}_image": subset.images[shown], f"{name}_mask": subset.masks[shown]}
        overlays[f"{name}_index"] = index[shown]
        predicted = predict(network, experiment, name, subset.images, settings.threshold)
        overlays |= {f"{name}_{route}": masks[shown] for route, masks in predicted.items()}
        tables.append(score(predicted, name, subset, index))
        if experiment.method == "sifa":
            overlays |= translations(experiment, name, network, subset.images[shown])
    return pd.concat(tables, ignore_index=True), overlays


def predict(network, experiment, name, images, threshold):
    """Masks of the images of a cohort, by every route that it has.

    Parameters
    ----------
    network : types.SimpleNamespace
    experiment : Experiment
    name : str
        ``covid`` or ``cap``: what the images are to the experiment.
    images : ndarray, shape (n, size, size), uint8
    threshold : float

    Returns
    -------
    predicted : dict of ndarray, shape (n, size, size), bool
    """
    routes = network.routes if name in experiment.source else ["direct"]
    return {route: probabilities(network.routes[route], images) > threshold for route in routes}


def score(predicted, name, cohort, index=None):
    """Score masks against a cohort's labels, and against its exact masks where they are known.

    Parameters
    ----------
    predicted : dict of ndarray
        As :func:`predict` gives it.
    name : str
    cohort : Cohort
    index : ndarray of int, optional
        Numbers of the images; from 0 by default.

    Returns
    -------
    per_image : pandas.DataFrame
        Columns cohort, patient, image, route, those of :func:`lusbook.metrics.per_image`, and ``dice_truth`` where
        exact masks are known.
    """
    tables = []
    for route, masks in predicted.items():
        rows = pd.DataFrame({"cohort": name, "patient": cohort.patients, "route": route})
        rows.insert(2, "image", np.arange(len(cohort)) if index is None else index)
        found = metrics.per_image(masks, cohort.masks)
        if cohort.truth is not None:  # beside the Dice against what the annotator drew
            found["dice_truth"] = metrics.per_image(masks, cohort.truth)["dice"]
        tables.append(pd.concat([rows, found], axis=1))
    return pd.concat(tables, ignore_index=True)


def curve_cohorts(cohorts, fold):
    """The test images on which learning curves are taken: a fixed part of the fold, evenly spread."""
    return {name: cohort.subset(evenly(fold_indices(cohort, fold)[1], CURVE)) for name, cohort in cohorts.items()}


def curve_point(experiment, network, cohorts, settings, iteration):
    """Mean scores of a network as it is: one point of a learning curve.

    Nothing is chosen by it, but for the oracle of :mod:`lusbook.selection`, which is shown as the leak that it is.

    Parameters
    ----------
    experiment : Experiment
    network : types.SimpleNamespace
    cohorts : dict of Cohort
        As :func:`curve_cohorts` picks them.
    settings : Settings
    iteration : int

    Returns
    -------
    point : pandas.DataFrame
        One row for each cohort and route: iteration, cohort, route, ``images``, and the means of ``dice`` and of
        ``dice_truth`` (NaN where exact masks are not known) over them.
    """
    tables = []
    for name, cohort in cohorts.items():
        found = score(predict(network, experiment, name, cohort.images, settings.threshold), name, cohort)
        tables.append(found if "dice_truth" in found else found.assign(dice_truth=np.nan))
    groups = pd.concat(tables).groupby(["cohort", "route"], sort=False)
    means = groups[["dice", "dice_truth"]].mean()
    means.insert(0, "images", groups.size())
    means.insert(0, "iteration", iteration)
    return means.reset_index()[["iteration", "cohort", "route", "images", "dice", "dice_truth"]]


def curve_of_unet(experiment, fold, settings, cohorts, network, taken, folder):
    """Learning curve of a U-Net, from the snapshots of its training; as :func:`curve_point`, one after the other."""
    points = []
    for iteration in taken:
        reset(network.weights, checkpoints.load_snapshot(folder, iteration))
        points.append(curve_point(experiment, network, curve_cohorts(cohorts, fold), settings, iteration))
    return pd.concat(points, ignore_index=True)


def translations(experiment, cohort, network, image, suffix=""):
    """An image of a cohort translated to the other domain (``fake``) and back (``cycle``), by a trained SIFA."""
    step = "source" if cohort in experiment.source else "target"
    images = network.translate(network_images(image[None]))[step]
    return {f"{cohort}_{key}{suffix}": np.asarray(found)[0, ..., 0] for key, found in images.items()}


def test_snapshots(experiment, fold, settings, cohorts, network, unlabelled, folder):
    """Test the snapshots of a SIFA training on a part of the test fold, and those that are chosen on all of it.

    Parameters
    ----------
    unlabelled : ndarray, shape (n, size, size), uint8
        Training images of the target.
    folder : Path
        Where the snapshots are.

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``curve`` (see :func:`curve_point`), ``snapshots`` (see :func:`lusbook.selection.choose`; Dice by the default
        route of each cohort, on the part of the test fold that curves are taken on) and ``selection``: rows of every
        test image for the average, the label-free choice and the oracle, with columns ``weights`` and ``iteration``.
    overlays : dict of ndarray
        Translations of the shown frames by some snapshots, ``<cohort>_fake_<iteration>`` and so on.
    """
    seen = evenly(unlabelled, UNLABELLED)
    tested, overlays, points = curve_cohorts(cohorts, fold), {}, []

    def load(iteration):
        if iteration == "average":
            reset(network.weights, [average.value for average in network.averages])
            network.refresh()
        else:
            reset(network.weights, checkpoints.load_snapshot(folder, iteration))

    taken = selection.snapshot_iterations(settings.sifa_iterations, settings.sifa_snapshots)
    pictured, rows = evenly(np.array(taken), PICTURED), []
    for iteration in taken:
        load(iteration)
        for name, cohort in cohorts.items() if iteration in pictured else ():
            image = cohort.images[shown_frame(cohort, fold)]
            overlays.update(translations(experiment, name, network, image, f"_{iteration}"))
        points.append(curve_point(experiment, network, tested, settings, iteration))
        usual = points[-1][[row.route == default_route(experiment, row.cohort) for row in points[-1].itertuples()]]
        dice = usual.set_index("cohort")["dice"].add_prefix("dice_")
        information = selection.information(probabilities(network.routes["direct"], seen))
        rows.append({"iteration": iteration, "information": information, **dice})
    snapshots, chosen_rows = pd.DataFrame(rows), []
    for weights, iteration in ({"average": "average"} | selection.choose(snapshots, experiment.target)).items():
        load(iteration)
        for name, cohort in cohorts.items():
            index = fold_indices(cohort, fold)[1]
            subset = cohort.subset(index)
            route = default_route(experiment, name)
            predicted = {route: probabilities(network.routes[route], subset.images) > settings.threshold}
            found = score(predicted, name, subset, index)
            columns = ["cohort", "patient", "image", "tp", "fp", "fn", "tn", "dice"]
            chosen_rows.append(found[columns].assign(weights=weights, iteration=iteration))
    tables = {"snapshots": snapshots, "selection": pd.concat(chosen_rows, ignore_index=True)}
    tables["curve"] = pd.concat(points, ignore_index=True)
    return tables, {key: quantise(image) for key, image in overlays.items()}


def quantise(image):
    """A network's image in [-1, 1] as uint8: small enough to keep for every snapshot."""
    return np.clip(np.round((image + 0.9) / 1.8 * 255), 0, 255).astype("uint8")
