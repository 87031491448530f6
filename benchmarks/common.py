"""What the benchmarks share: the machine, interleaved timing, tables and JSON.

A *quantity* is a row of a benchmark's JSON: what was measured, its unit, the median, minimum and maximum
over the repeats and their number; with a target, also the ``ratio`` to judge by it, and whether it was met.
"""

import gc
import json
import os
import platform
import statistics
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "onnxruntime", "openvino", "numpy")
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")

Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes: whether the script runs. Its numbers mean nothing.")]
Out = Annotated[Path | None, typer.Option(help="JSON file; data/benchmarks/NAME.json by default.")]
Rounds = Annotated[int, typer.Option(help="Repeats, in turns.")]

# ---------------------------------------------------------------------------------------------
# The machine


def machine():
    """What computes: processor, cores, memory, Python, versions of packages, backend and day."""
    from lusbook.devices import usable_cores
    from lusbook.digests import processor, versions  # here: scripts choose threads before anything of lusbook starts

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        **_backend(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _backend():
    """Backend and device, for scripts that have started one."""
    if "lusbook.backend" not in sys.modules:
        return {}
    from lusbook import backend

    return {"backend": backend.keras.backend.backend(), "device": backend.device()}


# ---------------------------------------------------------------------------------------------
# Timing


def seconds(call):
    """Time of one call, until what it returns is computed."""
    start = time.perf_counter()
    wait(call())
    return time.perf_counter() - start


def wait(results):
    """Have results on the host: backends return before they have computed."""
    if isinstance(results, dict):
        results = list(results.values())
    if isinstance(results, list | tuple):
        for result in results:
            wait(result)
    else:
        np.asarray(results)


def interleaved(calls, repeats, inner=1, timer=seconds):
    """Time several calls in turns, A B A B ..., so that drift of the machine meets all alike.

    Parameters
    ----------
    calls : dict of callable
        By name. Each was called before: first calls compile.
    repeats : int
        Turns.
    inner : int
        Calls in one turn. With more than one, a further call before them, not timed, brings its
        program's threads and data back, and a turn counts the mean of the others.
    timer : callable
        Takes a call, returns seconds.

    Returns
    -------
    times : dict of list of float
        Seconds per call, ``repeats`` of each.
    """
    times = {name: [] for name in calls}
    gc.collect()
    for _ in range(repeats):
        for name, call in calls.items():
            if inner > 1:
                timer(call)
            times[name].append(statistics.fmean(timer(call) for _ in range(inner)))
    return times


# ---------------------------------------------------------------------------------------------
# Quantities and files


def quantity(name, values, unit="s", target=None, bound="at most", **more):
    """One measured quantity.

    Parameters
    ----------
    name : str
    values : float or sequence of float
        One for each repeat.
    unit : str
    target : float, optional
        What the median is to be ``bound`` ("at most" or "at least").
    **more
        Further columns.
    """
    values = [float(value) for value in np.atleast_1d(values)]
    row = {"name": name, "unit": unit, **more, "median": statistics.median(values)}
    row |= {"min": min(values), "max": max(values), "repeats": len(values)}
    if target is not None:
        met = row["median"] <= target if bound == "at most" else row["median"] >= target
        row |= {"target": target, "bound": bound, "ratio": row["median"] / target, "met": bool(met)}
    return row


def ratio(name, numerator, denominator, target=None, **more):
    """Quotient of two calls timed in turns: one value for each turn.

    The row's ``ratio`` is the median quotient; its target bounds that.
    """
    row = quantity(name, np.divide(numerator, denominator), "", target, **more)
    return row | {"ratio": row["median"]}


def geometric_mean(name, rows, target=None, **more):
    """Geometric mean of the ratios of several rows; the least and the greatest are its range."""
    values = [row["ratio"] for row in rows]
    row = quantity(name, values, "", target, **more)
    row["median"] = row["ratio"] = statistics.geometric_mean(values)
    row["repeats"] = min(part["repeats"] for part in rows)
    if target is not None:
        row["met"] = row["ratio"] <= target
    return row


def report(name, rows, out=None, quick=False, quiet=False, **more):
    """Print quantities as a table and write them, with the machine, to JSON.

    Parameters
    ----------
    name : str
        Of the benchmark.
    rows : list of dict
        As :func:`quantity` gives them.
    out : path, optional
        ``data/benchmarks/NAME.json`` by default; a quick run's is kept out of the way, in ``_build``.
    quiet : bool
        Write only.
    **more
        Further entries of the file.
    """
    default = PROJECT / ("_build" if quick else "data") / "benchmarks" / f"{name}.json"
    path = Path(out or default)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "quick": quick, "machine": machine(), **more, "quantities": rows}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    partial.replace(path)
    if not quiet:
        print_table(rows)
        print(f"\n{path}")


def print_table(rows):
    """Print quantities, one a line."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}  {'median':>10} {'min':>10} {'max':>10}  {'n':>3}  target")
    for row in rows:
        numbers = " ".join(f"{row[key]:10.4g}" for key in ("median", "min", "max"))
        goal = f"{row['bound']} {row['target']:g}: {'met' if row['met'] else 'MISSED'}" if "target" in row else ""
        print(f"{row['name']:{width}}  {numbers}  {row['repeats']:3}  {goal}  {row['unit']}".rstrip())


def progress(text):
    """A line about what runs now, on the error stream."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------
# Inputs


@contextmanager
def without_augmentation():
    """Steps that are built and first called here augment nothing; what they compile otherwise is the same."""
    from lusbook import augment

    kept = augment.transform
    augment.transform = lambda images, masks, transforms: (images, masks)
    try:
        yield
    finally:
        augment.transform = kept


@contextmanager
def untraced():
    """Compiled steps run operation by operation here, for few calls of tiny size (TensorFlow only)."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def identity_transforms(n):
    """Transforms that move nothing, for steps that augment."""
    return np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (n, 1))


def random_images(n, size, seed=0):
    """Images, (n, size, size, 1) float32 in [-0.9, 0.9]."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (n, size, size, 1)).astype("float32")


def random_masks(n, size, seed=1):
    """Masks, (n, size, size, 1) float32 in {0, 1}; a fifth is B-line."""
    return (np.random.default_rng(seed).random((n, size, size, 1)) < 0.2).astype("float32")
