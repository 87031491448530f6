"""The work of a study, counted from its settings before anything is timed or computed."""

import json
import math
import re

import numpy as np

from lusbook import manifests
from lusbook.cohort import NAMES, assign_folds
from lusbook.devices import is_gpu
from lusbook.errors import LusbookError
from lusbook.experiments import get_experiment
from lusbook.loading import cohort_digests
from lusbook.performance import load_benchmark, significant
from lusbook.phantom import PLAN
from lusbook.store import run_folder

METHODS = ("unet", "sifa")
MARGIN = 2.0  # what a scheduler is asked for, over the slowest timed iteration: a node may be slower or busier
START_MINUTES, GIB = 10, 4.0  # beside training; memory of a process that was not measured
LONG_HOURS = 12.0  # without a GPU, what takes longer is computed only when asked for


def cohort_sizes(settings):
    """Number of images in each fold of both cohorts, without making or decoding an image.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    sizes : dict of list of int
        By cohort.
    """
    if settings.cohorts == "phantom":
        return {name: [sum(counts) for counts in PLAN[name]] for name in NAMES}
    cohort_digests(settings)  # says what is wrong with a manifest
    _, table = manifests.read_table(settings.cohorts)
    patients = {name: table.loc[table["cohort"] == name, "patient"] for name in NAMES}
    return {name: np.bincount(assign_folds(names)).tolist() for name, names in patients.items()}


def iterations(experiment, fold, settings, sizes):
    """Iterations of a run, as :mod:`lusbook.trials` counts them, without loading Keras.

    Parameters
    ----------
    experiment : Experiment
    fold : int
    settings : Settings
    sizes : dict of list of int
        As :func:`cohort_sizes`.

    Returns
    -------
    iterations : int

    Examples
    --------
    >>> from lusbook.settings import make_settings
    >>> iterations(get_experiment("unet-cap"), 0, make_settings("paper"), {"cap": [148, 111, 67]})
    2750
    """
    if experiment.method == "sifa":
        return settings.sifa_iterations
    fixed, epochs = settings.unet_iterations, settings.unet_epochs
    if experiment.parent:
        fixed, epochs = settings.fine_tune_iterations, settings.fine_tune_epochs
    images = sum(sum(sizes[name]) - sizes[name][fold] for name in experiment.source)
    return fixed or epochs * max(1, images // settings.unet_batch_size)


def rough_seconds(method, settings, folder=""):
    """Seconds of an iteration by the benchmarks in ``data/benchmarks``, without timing anything.

    In proportion to the pixels of a batch and to the width: narrow networks are bound by memory more than by
    multiplications.

    Parameters
    ----------
    method : {"unet", "sifa"}
    settings : Settings
    folder : path, optional
        As for :func:`lusbook.performance.load_benchmark`.

    Returns
    -------
    seconds : float
        NaN where there is no benchmark.
    """
    content = load_benchmark(method, folder) or {"quantities": []}
    kind = "step, lusbook" if method == "unet" else f"iteration, {settings.sifa_updates}"
    rows = ((re.fullmatch(rf"(\d+) px {kind}", row["name"]), row["median"]) for row in content["quantities"])
    found = {int(match[1]): median for match, median in rows if match}
    if not found:
        return math.nan
    side, options = max(found), content["options"]
    batch, width = getattr(settings, f"{method}_batch_size"), getattr(settings, f"{method}_width")
    pixels = batch * settings.image_size**2 / (options["batch"] * side**2)
    return found[side] * pixels * width / options["width"]


def rough_hours(pairs, settings):
    """Hours of runs by :func:`rough_seconds`, one after the other.

    Parameters
    ----------
    pairs : iterable of (str, int)
        Experiment and fold of each run.
    settings : Settings
    """
    sizes = cohort_sizes(settings)
    each = {method: rough_seconds(method, settings) for method in METHODS}
    runs = [(get_experiment(name), fold) for name, fold in pairs]
    return sum(each[e.method] * iterations(e, fold, settings, sizes) for e, fold in runs) / 3600


def runs_to_compute(names, folds, settings, results=None, stale=()):
    """Runs that are not there, and parents whose weights a fine-tuning among them needs.

    Parameters
    ----------
    names : iterable of str
        Experiments.
    folds : iterable of int
    settings : Settings
    results : path, optional
    stale : collection of str
        Runs, as :func:`lusbook.runs.stale_runs` names them, that count as not there.

    Returns
    -------
    pairs : set of (str, int)
    """

    def lacks(name, fold, file):
        return f"{name}/fold-{fold}" in stale or not (run_folder(name, fold, settings, results) / file).exists()

    pairs = {(name, fold) for name in names for fold in folds if lacks(name, fold, "manifest.json")}
    parents = {(parent, fold) for name, fold in pairs if (parent := get_experiment(name).parent)}
    return pairs | {pair for pair in parents if lacks(*pair, "weights.npz")}


def require_gpu(names, folds, settings, results=None, stale=()):
    """Refuse runs that would take more than 12 hours without a GPU, before anything is computed.

    A rough count decides whether a GPU is looked for at all, so that small settings lose no time.

    Parameters
    ----------
    names, folds, settings, results, stale
        As :func:`runs_to_compute`.

    Raises
    ------
    LusbookError
        With the hours that they would take.
    """
    pairs = runs_to_compute(names, folds, settings, results, stale)
    hours = rough_hours(pairs, settings)
    if not hours > LONG_HOURS:
        return
    from lusbook.doctor import find_backend  # loads Jupyter's client

    if is_gpu(find_backend()[1]):
        return
    machine = load_benchmark("sifa")["machine"]
    raise LusbookError(
        f"no GPU was found, and without one {len(pairs)} runs take about {duration(3600 * hours)} (by data/benchmarks, "
        f"measured on {machine['usable_cores']} cores of {machine['processor']}); nothing computed. `lusbook estimate` "
        "times this machine; --without-gpu computes them all the same"
    )


def duration(seconds):
    """Seconds as text in the unit that suits them.

    Examples
    --------
    >>> duration(41.2), duration(600), duration(9000), duration(1e7)
    ('41.2 s', '10 min', '2.5 h', '116 days')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds)} s"


def needs(pairs, settings, measured=None):
    """Time, memory and GPU that a scheduler is asked for, for a process that computes several runs.

    Parameters
    ----------
    pairs : list of (str, int)
        Experiment and fold of each run.
    settings : Settings
    measured : dict of dict, optional
        As :func:`lusbook.estimate.measure_methods` gives it; without, by the benchmarks in ``data/benchmarks``.

    Returns
    -------
    needs : dict of int
        ``runtime`` (minutes), ``mem_mb`` and ``gpu``, with a margin: a job that reaches a limit is ended.
    """
    sizes, runs = cohort_sizes(settings), [(get_experiment(name), fold) for name, fold in pairs]
    found = [measured[method] for method in {experiment.method for experiment, _ in runs}] if measured else []
    each = {m: max(measured[m]["times"]) if measured else rough_seconds(m, settings) for m in METHODS}
    seconds = sum(iterations(experiment, fold, settings, sizes) * each[experiment.method] for experiment, fold in runs)
    if not math.isfinite(seconds):  # there is no benchmark
        seconds = LONG_HOURS * 3600
    return {
        "runtime": START_MINUTES + math.ceil(MARGIN * seconds / 60),
        "mem_mb": math.ceil(1024 * MARGIN * max([one["memory"] for one in found], default=GIB)),
        "gpu": int(any(is_gpu(one["device"]) for one in found)),
    }


def read_estimate(path):
    """What ``lusbook estimate --out`` wrote, checked.

    Raises
    ------
    LusbookError
        When it cannot be read or is something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            measured = json.load(file)
        for method in METHODS:
            found = measured[method]
            if not (min(found["times"]) > 0 and found["memory"] > 0 and found["device"]):
                raise ValueError(f"{method}: no times")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        expected = "expected a file that `lusbook estimate --out` wrote"
        raise LusbookError(f"estimate {path}: {expected}, received {type(error).__name__}: {error}") from error
    return measured
