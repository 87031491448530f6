"""A controlled test of the paper's explanation: adaptation at set doses of label consistency and image diversity.

The paper saw that its source with consistent labels and its target with diverse images adapt well together, and that
the other direction does not. In its data both go with the direction. In the phantom they are knobs: here the
consistency of the *source's* labels and the diversity of the *target's* images are crossed, in both directions, and
all else is held.
"""

from itertools import product

import numpy as np
import pandas as pd

from lusbook import checkpoints, provenance, runs
from lusbook.cohort import fold_indices, reduce_to
from lusbook.errors import LusbookError, MissingData
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.loading import load_cohorts, phantom_parameters
from lusbook.rivals import other, score, seed_of, train_plain

SOURCES = {"covid-to-cap": "covid", "cap-to-covid": "cap"}  # by direction
LOW, HIGH = 0.1, 0.9  # ends of both factors; levels are evenly spaced between them
SOURCE_DIVERSITY, TARGET_CONSISTENCY = 0.5, 0.9  # held; target labels train nothing
FOLDER = "dose-response"


def levels(n):
    """Levels of both factors.

    Examples
    --------
    >>> levels(3)
    [0.1, 0.5, 0.9]
    """
    if n < 2:
        raise LusbookError(f"levels: expected at least 2 of each factor, received {n}")
    return np.linspace(LOW, HIGH, n).round(3).tolist()


def cell(settings, direction, consistency, diversity):
    """Settings of the cohorts of one cell of the grid."""
    source = SOURCES[direction]
    target = other(source)
    return settings.model_copy(
        update={
            f"{source}_consistency": consistency,
            f"{source}_diversity": SOURCE_DIVERSITY,
            f"{target}_diversity": diversity,
            f"{target}_consistency": TARGET_CONSISTENCY,
        }
    )


def design(n_levels=3, seeds=1):
    """All trainings of the grid, by the group of those that share a process.

    U-Net and SIFA are trained in every cell. In its corners there are two controls: SIFA's network without adaptation
    ("plain"), and U-Net and SIFA on a source cut to the size of the target (only where it is the larger set). What
    sees no target image is trained once for all diversities.

    Parameters
    ----------
    n_levels : int
        Of each factor.
    seeds : int
        Repetitions.

    Returns
    -------
    design : dict of list of dict
        By group: trainings with direction, method, consistency, diversity (None: one for all), fold and seed.
    """
    found = {}
    for direction, consistency, seed in product(SOURCES, levels(n_levels), range(seeds)):
        corner = consistency in (LOW, HIGH)
        methods = {"unet": (None,), "sifa": levels(n_levels)}
        if corner:
            methods["plain"] = (None,)
        if corner and direction == "covid-to-cap":
            methods |= {"unet-reduced": (None,), "sifa-reduced": (LOW, HIGH)}
        for method, diversities in methods.items():
            group = f"{direction}-{consistency:g}" + ("" if method in ("unet", "sifa") else "-controls")
            for diversity, fold in product(diversities, FOLDS):
                keys = ("direction", "method", "consistency", "diversity", "fold", "seed")
                training = dict(zip(keys, (direction, method, consistency, diversity, fold, seed), strict=True))
                found.setdefault(group, []).append(training)
    return found


def compute_group(group, settings, results=None, n_levels=3, seeds=1):
    """Train and test a group of the design; finished trainings are kept, interrupted ones go on.

    Parameters
    ----------
    group : str
        Of :func:`design`.
    settings : Settings
        Of simulated cohorts.
    results : path, optional
    n_levels, seeds : int
        As for :func:`design`.
    """
    root = folder_of(settings, results, n_levels, seeds)
    for training in design(n_levels, seeds)[group]:
        folder = root / part_name(training)
        seeded = settings.model_copy(update={"seed": settings.seed + training["seed"]})
        params = _params(training, seeded, n_levels)
        keep = {"folder": folder, "key": runs.checkpoint_key(params, folder)}
        if not runs.is_complete(folder, params):
            runs.once(folder, params, seeded, lambda: _train(training, seeded, n_levels, keep))  # noqa: B023
            checkpoints.remove(folder)


def folder_of(settings, results=None, n_levels=3, seeds=1):
    """Folder of a grid."""
    return runs.study_folder(settings, results) / FOLDER / f"{n_levels}x{n_levels}-seeds-{seeds}"


def part_name(training):
    """Name of the folder of one training."""
    parts = [training["direction"], training["method"], f"consistency-{training['consistency']:g}"]
    parts += [] if training["diversity"] is None else [f"diversity-{training['diversity']:g}"]
    return "-".join([*parts, f"seed-{training['seed']}", f"fold-{training['fold']}"])


def _diversities(training, n_levels):
    """Diversities of the targets that a training is tested on."""
    if training["diversity"] is not None:
        return [training["diversity"]]
    return levels(n_levels) if training["method"] == "unet" else [LOW, HIGH]


def _cells(training, settings, n_levels):
    return {
        diversity: cell(settings, training["direction"], training["consistency"], diversity)
        for diversity in _diversities(training, n_levels)
    }


def _params(training, settings, n_levels):
    method = "unet" if training["method"].startswith("unet") else "sifa"
    swept = ("covid_", "cap_")  # of the cells, below
    return {
        "training": training,
        "settings": {k: v for k, v in runs.relevant(settings, method).items() if not k.startswith(swept)},
        "data": {
            f"{diversity:g}": runs.cohort_digests(found)
            for diversity, found in _cells(training, settings, n_levels).items()
        },
    }


def _train(training, settings, n_levels, keep):
    """Train one network, and test it on both cohorts of each of its cells."""
    from lusbook import trials

    source, fold, method = SOURCES[training["direction"]], training["fold"], training["method"]
    cells = {diversity: load_cohorts(found) for diversity, found in _cells(training, settings, n_levels).items()}
    cohorts = next(iter(cells.values()))  # the source is the same in all
    parts = {name: cohort.subset(fold_indices(cohort, fold)[0]) for name, cohort in cohorts.items()}
    label = part_name(training)
    reduced = "sifa-reduced-covid-to-cap"
    name = {
        "unet": f"unet-{source}",
        "unet-reduced": f"unet-{source}",
        "plain": f"sifa-{training['direction']}",
        "sifa": f"sifa-{training['direction']}",
        "sifa-reduced": reduced,
    }[method]
    seed = seed_of(settings, fold, name)
    # The settings are those of the study in every cell: one compiled step serves them all.
    if method.startswith("unet"):
        if method == "unet-reduced":
            parts[source] = reduce_to(parts[source], len(parts[other(source)]), settings.seed)
        network, _ = trials.train_unet(EXPERIMENTS[name], parts, settings, seed, None, label, **keep)
    elif method == "plain":
        network = train_plain(parts[source], settings, seed, label, **keep)
    else:
        network, _ = trials.train_sifa(EXPERIMENTS[name], parts, settings, seed, label, **keep)
    tables = []
    for diversity, found in cells.items():
        for cohort, one in found.items():
            for route in network.routes if cohort == source else ["direct"]:
                scores = score(network.routes[route], {cohort: one}, fold, settings.threshold)
                tables.append(scores.assign(diversity=diversity, route=route))
    parts = {f"{diversity:g} {name}": one for diversity, found in cells.items() for name, one in found.items()}
    tables = {"patients": pd.concat(tables, ignore_index=True)}
    return {"tables": tables, "machine": trials.machine(), "inputs": provenance.contents(parts)}


def gather(settings, results=None, n_levels=3, seeds=1, compute=True):
    """Scores of all trainings of the grid; what is missing is computed first.

    Parameters
    ----------
    settings : Settings
        Of simulated cohorts.
    results : path, optional
    n_levels, seeds : int
        As for :func:`design`.
    compute : bool
        Compute what is not there; at the demo preset that takes about an hour on two cores.

    Returns
    -------
    patients : pandas.DataFrame
        One row for each training, cell, cohort, test patient and route: direction, method, consistency (of the
        source's labels), diversity (of the target's images), seed, fold, cohort, patient, images, route, and means
        over images of Dice (against the drawn labels, and ``dice_truth`` against the exact masks), sensitivity and
        specificity.

    Raises
    ------
    MissingData
        When they are not there and are not to be computed.
    LusbookError
        When cohorts are not simulated: real ones have no knobs.
    """
    if settings.cohorts != "phantom":
        raise LusbookError(f"dose-response: expected simulated cohorts, received {settings.cohorts!r}; they have knobs")
    folder = folder_of(settings, results, n_levels, seeds)
    trainings = [training for group in design(n_levels, seeds).values() for training in group]
    params = {
        "design": [part_name(training) for training in trainings],
        "held": {"source_diversity": SOURCE_DIVERSITY, "target_consistency": TARGET_CONSISTENCY},
        "settings": runs.relevant(settings, "unet") | runs.relevant(settings, "sifa"),
        "data": {name: phantom_parameters(name, settings) for name in ("covid", "cap")},
    }
    if not compute and not (folder / "manifest.json").exists():
        raise MissingData("the grid was not computed for these settings; `lusbook dose-response` does so")

    def put_together():
        for group in design(n_levels, seeds):
            compute_group(group, settings, results, n_levels, seeds)
        tables = []
        for training in trainings:
            table = runs.read_tables(folder / part_name(training))["patients"]
            about = {key: value for key, value in training.items() if key != "diversity"}
            tables.append(table.assign(**about)[[*about, *table.columns]])
        machine = runs.read_json(folder / part_name(trainings[0]) / "manifest.json")
        machine = {key: machine[key] for key in ("backend", "device", "cores", "threads")}
        return {"tables": {"patients": pd.concat(tables, ignore_index=True)}, "machine": machine}

    runs.once(folder, params, settings, put_together)
    return runs.read_tables(folder)["patients"]
