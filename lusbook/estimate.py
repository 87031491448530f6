"""How long a study takes on this machine: a few timed iterations, times the iterations of its runs."""

import heapq
import math
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context

import numpy as np
import pandas as pd

from lusbook.cohort import Cohort
from lusbook.devices import is_gpu
from lusbook.doctor import memory_gib
from lusbook.errors import LusbookError, OutOfTime
from lusbook.experiments import EXPERIMENTS, FOLDS, packs
from lusbook.performance import significant
from lusbook.workload import METHODS, cohort_sizes, duration, iterations

TIMED, LEAST, SECONDS = 10, 3, 30.0  # iterations that are timed: 10, or fewer, at least 3, after 30 s

# ---------------------------------------------------------------------------------------------
# Timing


def measure(method, settings):
    """Time a few iterations of one method in this process, on noise of the study's size.

    Parameters
    ----------
    method : {"unet", "sifa"}
    settings : Settings

    Returns
    -------
    measured : dict
        ``first`` (s, with compilation), ``times`` (list, s), ``memory`` and ``device_memory`` (peaks, GiB, the latter
        None where the backend keeps no count), ``device`` and more of :func:`lusbook.trials.machine`.
    """
    from lusbook import trials  # networks, and with them Keras

    enough = TIMED + 3  # never reached: what is written at the end of a training is not
    few = {"unet_iterations": enough, "unet_snapshots": 0, "sifa_iterations": enough, "sifa_snapshots": 1}
    few = settings.model_copy(update=few)
    if method == "unet":
        network = trials.unet_network(few.unet_width, few.unet_dropout, few.seed, few.precision)
        train = partial(trials.train_unet, EXPERIMENTS["unet-joint"], parent=None)
    else:
        network, train = trials.sifa_network(few), partial(trials.train_sifa, EXPERIMENTS["sifa-covid-to-cap"])
    starts, step = [], network.step
    network.step = timed(step, starts)
    try:
        with suppress(OutOfTime):
            cohorts = stand_ins(few, cohort_sizes(few))
            train(training=cohorts, settings=few, seed=(0,), label=f"timing {method}", every=math.inf)
    finally:
        network.step = step  # a process keeps networks for its next run
    first, *times = np.diff(starts).tolist()
    peaks = {"memory": peak_memory(), "device_memory": device_memory()}
    return {"first": first, "times": times, **peaks, **trials.machine()}


def timed(step, starts):
    """A step that notes when it starts, and ends the training by OutOfTime when enough of them are timed.

    Parameters
    ----------
    step : callable
    starts : list of float
        Grows by each start, s. The first interval holds the compilation.
    """

    def call(*arrays):
        starts.append(time.perf_counter())
        count = len(starts) - 2
        if count >= TIMED or (count >= LEAST and starts[-1] - starts[1] > SECONDS):
            raise OutOfTime(f"{count} iterations are timed")
        return step(*arrays)

    return call


def stand_ins(settings, sizes):
    """Cohorts of noise, as large as the largest training set: time and memory do not depend on what images show."""
    rng, side, cohorts = np.random.default_rng(0), settings.image_size, {}
    for name, counts in sizes.items():
        images = rng.integers(0, 256, (sum(counts) - min(counts), side, side), np.uint8)
        patients, folds = np.full(len(images), name), np.zeros(len(images), int)
        cohorts[name] = Cohort(name, images, images > 200, patients, folds)
    return cohorts


def peak_memory():
    """Peak of this process's memory so far, GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_memory():
    """Peak of this process's memory on the device, GiB; None where the backend keeps no count, as on a CPU."""
    import keras

    try:
        if keras.backend.backend() == "jax":
            import jax

            return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**30
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    except (TypeError, KeyError, ValueError):
        return None


def measure_methods(settings):
    """Time each method in a process of its own, so that its peak of memory is its own.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    measured : dict of dict
        By method, as :func:`measure`.

    Raises
    ------
    LusbookError
        When a process fails or is ended, as for want of memory.
    """
    measured = {}
    for method in METHODS:
        what = f"timing {method} at {settings.image_size} px"
        print(what, file=sys.stderr)
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                measured[method] = pool.submit(measure, method, settings).result()
        except BrokenProcessPool as error:
            raise LusbookError(f"{what}: its process was ended, perhaps for want of memory") from error
        except LusbookError:
            raise
        except Exception as error:  # a backend can raise almost anything
            raise LusbookError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    return measured


# ---------------------------------------------------------------------------------------------
# What it comes to


def estimate_table(settings, measured, sizes):
    """What each experiment, and all of them one after the other, will take.

    Parameters
    ----------
    settings : Settings
    measured : dict of dict
        As :func:`measure_methods`.
    sizes : dict of list of int
        As :func:`lusbook.workload.cohort_sizes`.

    Returns
    -------
    table : pandas.DataFrame
        One row an experiment, and ``study``: runs, iterations (of all runs), ``iteration`` (median, s) and
        ``seconds`` by that median; ``low`` and ``high`` (s) by the fastest and the slowest timed iteration. A process
        compiles once; a fine-tuning shares its parent's.
    """
    rows = {}
    for name, experiment in EXPERIMENTS.items():
        found = measured[experiment.method]
        count = sum(iterations(experiment, fold, settings, sizes) for fold in FOLDS)
        compiling = 0.0 if experiment.parent else max(0.0, found["first"] - np.median(found["times"]))
        rows[name] = {"runs": len(FOLDS), "iterations": count, "iteration": np.median(found["times"])}
        for key, function in (("low", np.min), ("seconds", np.median), ("high", np.max)):
            rows[name][key] = compiling + count * function(found["times"])
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["study"] = table.drop(columns="iteration").sum()
    return table.astype({"runs": int, "iterations": int})


def side_by_side(seconds, cores):
    """Seconds until the processes of a study are done, ``cores`` at a time, the longest first.

    Parameters
    ----------
    seconds : pandas.Series
        By experiment.
    cores : int

    Returns
    -------
    seconds : float
        As if processes did not slow each other.

    References
    ----------
    Graham, 1969, "Bounds on multiprocessing timing anomalies".
    """
    busy = [0.0] * cores
    for process in sorted((sum(seconds[name] for name in names) for names in packs().values()), reverse=True):
        heapq.heappush(busy, heapq.heappop(busy) + process)
    return max(busy)


def report(settings, measured, cores):
    """An estimate as text: a table of the experiments, the whole study, memory, and what it cannot know.

    Parameters
    ----------
    settings : Settings
    measured : dict of dict
        As :func:`measure_methods`.
    cores : int
        Processes at a time.
    """
    table = estimate_table(settings, measured, cohort_sizes(settings))
    shown = table[["runs", "iterations"]].copy()
    shown["s / iteration"] = table["iteration"].map(significant, na_action="ignore").fillna("")
    shown["time"] = table["seconds"].map(duration)
    shown["range"] = [
        f"{duration(low)} – {duration(high)}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    machine = measured["sifa"]
    cores = 1 if is_gpu(machine["device"]) else cores
    ends = [duration(side_by_side(table[key], cores)) for key in ("seconds", "low", "high")]
    together = f"{cores} processes at a time: {ends[0]} ({ends[1]} – {ends[2]}), if they do not slow each other"
    return "\n".join(
        [
            f"{machine['backend']} on {machine['device']}; {os.cpu_count()} cores, {memory_gib():.1f} GiB of memory; "
            f"threads of a process: {machine['threads'] or 'as the backend likes'}",
            shown.to_string(),
            together if cores > 1 else "one process at a time: the study takes the sum",
            *(memory_line(method, found) for method, found in measured.items()),
            "Ranges are those of the timed iterations; a busy machine takes longer. Not in it: simulating the cohorts, "
            "testing, real clips.",
        ]
    )


def memory_line(method, found):
    """What one process of a method took."""
    device = "" if found["device_memory"] is None else f", and {found['device_memory']:.1f} GiB of the device's"
    return f"{method}: {len(found['times'])} iterations timed; a process took {found['memory']:.1f} GiB{device}"
