"""Is it the adaptation at all? Rival explanations of its gain, each with trainings of its own.

The paper sets an adapted network of 43 million parameters beside a U-Net of half a million, trained by another recipe.
Here the same test folds are segmented by SIFA's encoder and segmenters trained without adaptation ("plain"), by U-Nets
of six recipes, and by all of them with batch-normalisation statistics of one domain or of both.
"""

import zlib
from functools import lru_cache
from itertools import product
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd

from lusbook import checkpoints, metrics, provenance, runs
from lusbook.cohort import NAMES as COHORTS
from lusbook.cohort import fold_indices, network_images
from lusbook.errors import MissingData
from lusbook.experiments import FOLDS
from lusbook.loading import cohort_digests, load_cohorts

DROPOUTS, RATES = (0.0, 0.1, 0.5), (0.005, 0.0005)
LONGER, POINTS = 3, 12  # a learning curve has 12 points, over three times the iterations of the study's U-Net
#: Metrics that are kept, means over the test images of a patient.
SCORES = ["dice", "dice_truth", "sensitivity", "specificity"]
FOLDER = "rivals"


class Rival(NamedTuple):
    """One training that explains the gain without adaptation, or the adapted network itself.

    Parameters
    ----------
    method : {"unet", "plain", "sifa"}
    labels : str
        Cohort whose labels train it; the other one is its target.
    dropout, learning_rate : float or None
        Recipe of a U-Net.
    """

    method: str
    labels: str
    dropout: float | None = None
    learning_rate: float | None = None

    @property
    def name(self):
        """Name of its folder."""
        recipe = "" if self.dropout is None else f"-dropout-{self.dropout:g}-rate-{self.learning_rate:g}"
        return f"{self.method}-{self.labels}{recipe}"


#: Rivals that share a compiled step, and so a process.
GROUPS = {
    **{
        f"unet-{dropout:g}": [Rival("unet", labels, dropout, rate) for labels, rate in product(COHORTS, RATES)]
        for dropout in DROPOUTS
    },
    "plain": [Rival("plain", labels) for labels in COHORTS],
    "sifa": [Rival("sifa", labels) for labels in COHORTS],
}


def other(cohort):
    """The cohort that is not this one."""
    return COHORTS[1 - COHORTS.index(cohort)]


# ---------------------------------------------------------------------------------------------
# Computing


def compute_group(group, settings, results=None):
    """Train and test the rivals of a group on all folds; finished ones are kept, interrupted ones go on.

    Parameters
    ----------
    group : str
        Of :data:`GROUPS`.
    settings : Settings
    results : path, optional
        Folder of studies.
    """
    for rival, fold in product(GROUPS[group], FOLDS):
        folder = runs.study_folder(settings, results) / FOLDER / rival.name / f"fold-{fold}"
        method = "unet" if rival.method == "unet" else "sifa"
        params = {
            "rival": rival._asdict(),
            "fold": fold,
            "settings": runs.relevant(settings, method),
            "data": cohort_digests(settings),
        }
        keep = {"folder": folder, "key": runs.checkpoint_key(params, folder)}
        compute = {"unet": _unet, "plain": _plain, "sifa": _sifa}[rival.method]
        if not runs.is_complete(folder, params):
            parent = _adapted_weights(rival, fold, settings, results) if rival.method == "sifa" else None
            runs.once(folder, params, settings, lambda: compute(rival, fold, settings, parent, keep))  # noqa: B023
            checkpoints.remove(folder)


def gather(settings, results=None, compute=True):
    """Put the scores of all rivals together; what is missing is computed first.

    Parameters
    ----------
    settings : Settings
    results : path, optional
    compute : bool
        Compute what is not there; it takes longer than a whole study.

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``patients``: one row for each rival, fold, cohort, patient, route and ``statistics`` (of the batch
        normalisations: ``trained``, or those of ``source``, ``target`` or ``both``): images, and means over them of
        Dice, Dice against the exact masks (NaN where not known), sensitivity and specificity.
        ``curves``: Dice of the U-Nets and plain networks by iteration, over both cohorts' test folds.

    Raises
    ------
    MissingData
        When they are not there and are not to be computed.
    """
    folder = runs.study_folder(settings, results) / FOLDER
    rivals = [rival for group in GROUPS.values() for rival in group]
    params = {
        "rivals": [rival.name for rival in rivals],
        "settings": runs.relevant(settings, "unet") | runs.relevant(settings, "sifa"),
        "data": cohort_digests(settings),
    }
    if not compute and not (folder / "manifest.json").exists():
        raise MissingData("rivals were not computed for these settings; `lusbook rivals` does so")

    def put_together():
        for group in GROUPS:
            compute_group(group, settings, results)
        parts = {"patients": [], "curves": []}
        for rival, fold in product(rivals, FOLDS):
            about = {**rival._asdict(), "fold": fold}
            for name, table in runs.read_tables(folder / rival.name / f"fold-{fold}").items():
                parts[name].append(table.assign(**about)[[*about, *table.columns]])
        tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
        machine = runs.read_json(folder / rivals[0].name / "fold-0" / "manifest.json")
        machine = {key: machine[key] for key in ("backend", "device", "cores", "threads")}
        return {"tables": tables, "machine": machine}

    runs.once(folder, params, settings, put_together)
    return runs.read_tables(folder)


def _adapted_weights(rival, fold, settings, results):
    """Weights of the study's own adapted network; trained again where they are missing, as commits leave them out."""
    name = f"sifa-{rival.labels}-to-{other(rival.labels)}"
    with np.load(runs.run(name, fold, settings, results, with_weights=True) / "weights.npz") as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files))]


def seed_of(settings, fold, experiment):
    """Seed of a training: that of the study's run of an experiment, so that trainings differ in what they should."""
    return (settings.seed, fold, zlib.crc32(experiment.encode()))


def _unet(rival, fold, settings, parent, keep):
    """A U-Net by one recipe: learning curve, and scores at the iterations that the study trains."""
    from lusbook import trials, unet

    recipe = settings.model_copy(update={"unet_dropout": rival.dropout, "unet_learning_rate": rival.learning_rate})
    network = trials.unet_network(recipe.unet_width, recipe.unet_dropout, recipe.seed, recipe.precision)
    trials.reset(network.state, network.initial)
    network.optimizer.rate.assign(rival.learning_rate)
    cohorts = load_cohorts(settings)
    source = cohorts[rival.labels].subset(fold_indices(cohorts[rival.labels], fold)[0])
    size = settings.unet_batch_size
    trained = settings.unet_iterations or settings.unet_epochs * trials.iterations_per_epoch(len(source), size)
    taken = snapshots(trained)
    seed = seed_of(settings, fold, f"unet-{rival.labels}")
    _train(network, source, recipe, size, taken[-1], seed, taken, f"{rival.name} fold {fold}", (0, 1), **keep)
    # Without dropout, so that a pass that takes statistics has no noise; its variables are the trained ones'.
    model = unet.build_unet(recipe.unet_width, 0.0, recipe.seed, recipe.precision)
    quiet = SimpleNamespace(model=model, routes={"direct": unet.make_predict(model)})
    weights = [variable for variable in network.weights if "seed" not in variable.path]

    def load(iteration):
        trials.reset(network.weights, checkpoints.load_snapshot(keep["folder"], iteration))
        trials.reset(model.variables, [np.asarray(variable.value) for variable in weights])

    return _outcome(quiet, load, trained, taken, rival, fold, cohorts, settings.threshold)


def _plain(rival, fold, settings, parent, keep):
    """SIFA's encoder and segmenters trained on labels alone, by SIFA's recipe."""
    from lusbook import trials

    cohorts = load_cohorts(settings)
    source = cohorts[rival.labels].subset(fold_indices(cohorts[rival.labels], fold)[0])
    taken = snapshots(settings.sifa_iterations)
    taken = taken[: taken.index(settings.sifa_iterations) + 1]  # no longer than the adaptation
    seed = seed_of(settings, fold, f"sifa-{rival.labels}-to-{other(rival.labels)}")
    network = train_plain(source, settings, seed, f"{rival.name} fold {fold}", taken, **keep)

    def load(iteration):
        trials.reset(network.weights, checkpoints.load_snapshot(keep["folder"], iteration))

    return _outcome(network, load, taken[-1], taken, rival, fold, cohorts, settings.threshold)


def _sifa(rival, fold, settings, weights, keep):
    """The study's adapted network, with other statistics and by both routes."""
    from lusbook import sifa, trials

    networks = sifa.build_networks(
        settings.image_size, settings.sifa_width, seed=settings.seed, precision=settings.precision
    )
    names = ("generator", "encoder", "decoder", "segmenter")  # as the run keeps them
    trials.reset([v for name in names for v in getattr(networks, name).variables], weights)
    direct, translated = sifa.make_predict(networks)
    routes = {"direct": direct, "translated": translated}
    network = SimpleNamespace(model=networks.encoder, routes=routes, generator=networks.generator)
    cohorts = load_cohorts(settings)
    return _outcome(network, lambda iteration: None, 0, [], rival, fold, cohorts, settings.threshold)


def snapshots(trained):
    """Iterations at which a learning curve is taken: as many before ``trained`` as divide it, and as far again.

    Examples
    --------
    >>> snapshots(120)
    [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 360]
    """
    step = max(1, trained * LONGER // POINTS)
    return sorted({*range(step, trained * LONGER + 1, step), trained})


def train_plain(source, settings, seed, label, taken=(), **keep):
    """Train SIFA's encoder and segmenters on labelled images alone: its segmentation loss, optimiser and batches.

    Parameters
    ----------
    source : Cohort
        Training images.
    settings : Settings
    seed : sequence of int
    label : str
        What progress lines name.
    taken : sequence of int
        Iterations whose weights are kept in the folder.
    **keep
        ``folder``, ``key`` and ``deadline`` of :func:`lusbook.training.fit`.

    Returns
    -------
    network : types.SimpleNamespace
        ``model`` (the encoder), ``weights`` and ``routes``.
    """
    from lusbook import trials

    network = _plain_network(settings)
    trials.reset(network.state, network.initial)
    size, iterations = settings.sifa_batch_size, settings.sifa_iterations
    _train(network, source, settings, size, iterations, seed, taken, label, (2, 1), **keep)
    return network


@lru_cache(maxsize=1)
def _plain_network(settings):
    """Encoder and segmenters from the weights that SIFA starts from, with their compiled step and inference."""
    from keras import ops

    from lusbook import backend, sifa
    from lusbook.augment import transform
    from lusbook.norms import move_statistics
    from lusbook.training import Adam

    seeds = np.random.SeedSequence(settings.seed).generate_state(9).tolist()  # as sifa.build_networks hands them out
    size, width = settings.image_size, settings.sifa_width
    encoder = sifa.build_encoder(size, width, seeds[1], settings.precision)
    segmenter = sifa.build_segmenter(size, width, seed=seeds[3])
    segmenter_low = sifa.build_segmenter(size, width, seed=seeds[4], name="segmenter_low")
    models = (encoder, segmenter, segmenter_low)
    variables = [variable for model in models for variable in model.trainable_variables]
    optimizer = Adam(variables, settings.sifa_segmenter_learning_rate, 0.9)
    weights = [variable for model in models for variable in model.variables]
    state = [*weights, *optimizer.variables]

    def prepare(images, masks, transforms):
        images, masks = transform(images, masks, transforms)
        return images, ops.concatenate([1 - masks, masks], axis=-1)

    def step(images, one_hot):
        def losses():
            features, low, statistics = encoder(images, training=True)
            return [sifa.segmentation_loss(segmenter(features), segmenter_low(low), one_hot), statistics]

        (loss, statistics), pull = backend.vjp(losses, [], variables)
        optimizer.apply(sifa.decay(pull([ops.ones(()), None], variables=True)[1], variables))
        move_statistics(encoder, [statistics])
        return {"segmentation": loss}

    def direct(images):
        return ops.softmax(segmenter(encoder(images, training=False)[0]))[..., 1]

    return SimpleNamespace(
        model=encoder,
        step=backend.compile_step(step, state, prepare),
        state=state,
        initial=[np.asarray(variable.value) for variable in state],
        weights=weights,
        routes={"direct": backend.compile_step(direct, weights)},
    )


def _train(network, source, settings, size, iterations, seed, taken, label, streams, **keep):
    """Train on labelled images with the batches that the study's run sees: ``streams`` number its random streams."""
    from lusbook import trials
    from lusbook.augment import random_transforms, vary_intensity

    images, masks = network_images(source.images), trials.network_masks(source.masks)

    def batch(iteration):
        chosen = trials.batch_indices(len(images), size, iteration, (*seed, streams[0]))
        rng = np.random.default_rng((*seed, streams[1], iteration))
        transforms = random_transforms(rng, size, settings.image_size, settings)
        return vary_intensity(images[chosen], rng, settings.augment_intensity), masks[chosen], transforms

    def after(iteration):
        if iteration in taken:
            values = [np.asarray(variable.value) for variable in network.weights]
            checkpoints.save_snapshot(keep["folder"], iteration, values)

    trials.fit(network.step, batch, iterations, label, state=network.state, after=after, **keep)


# ---------------------------------------------------------------------------------------------
# Testing


def _outcome(network, load, trained, taken, rival, fold, cohorts, threshold):
    """Learning curve at the iterations ``taken``, and scores at ``trained`` with every kind of statistics."""
    from lusbook import trials
    from lusbook.norms import set_statistics

    curve = []
    for iteration in taken:
        load(iteration)
        found = score(network.routes["direct"], cohorts, fold, threshold)
        curve.append(found[["cohort", "patient", "images", "dice"]].assign(iteration=iteration))
    load(trained)
    tables = [_scores(network, rival, cohorts, fold, threshold).assign(statistics="trained")]
    for kind, found in _statistics(network, rival, cohorts, fold).items():
        set_statistics(network.model, found)
        tables.append(_scores(network, rival, cohorts, fold, threshold).assign(statistics=kind))
    tables = {"patients": pd.concat(tables, ignore_index=True)}
    if curve:
        tables["curves"] = pd.concat(curve, ignore_index=True)
    return {"tables": tables, "machine": trials.machine(), "inputs": provenance.contents(cohorts)}


def _scores(network, rival, cohorts, fold, threshold):
    """Scores by every route that a cohort has: only the source goes through a generator."""
    tables = []
    for route, predict in network.routes.items():
        chosen = {rival.labels: cohorts[rival.labels]} if route == "translated" else cohorts
        tables.append(score(predict, chosen, fold, threshold).assign(route=route))
    return pd.concat(tables, ignore_index=True)


def score(predict, cohorts, fold, threshold):
    """Scores of the test fold, one row a patient: cohort, patient, images, and the means of :data:`SCORES`.

    Parameters
    ----------
    predict : callable
        One of a network's routes.
    cohorts : dict of Cohort
    fold : int
    threshold : float
    """
    from lusbook import trials

    tables = []
    for name, cohort in cohorts.items():
        test = cohort.subset(fold_indices(cohort, fold)[1])
        predicted = trials.probabilities(predict, test.images) > threshold
        table = metrics.per_image(predicted, test.masks)
        table["dice_truth"] = np.nan if test.truth is None else metrics.per_image(predicted, test.truth)["dice"]
        table = table[SCORES].assign(cohort=name, patient=test.patients)
        groups = table.groupby(["cohort", "patient"], sort=True)
        tables.append(groups.size().rename("images").to_frame().join(groups[SCORES].mean()).reset_index())
    return pd.concat(tables, ignore_index=True)


def _statistics(network, rival, cohorts, fold):
    """Moments of training images of the source (translated, where the network does that), the target, and both."""
    from lusbook import trials
    from lusbook.norms import moments

    images = {
        kind: network_images(cohorts[name].subset(fold_indices(cohorts[name], fold)[0]).images)
        for kind, name in (("source", rival.labels), ("target", other(rival.labels)))
    }
    if "translated" in network.routes:
        images["source"] = trials.in_batches(lambda batch: network.generator(batch, training=False), images["source"])
    found = {kind: moments(network.model, trials.filled_batches(part)) for kind, part in images.items()}
    return found | {"both": np.mean(list(found.values()), axis=0)}
