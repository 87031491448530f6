"""What a study of many centres would take: rates that were measured, times its size; and what would break first."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.growth import measured_parts, memory_an_image
from lusbook.performance import load_benchmark, significant
from lusbook.phantom import PLAN, SIDE
from lusbook.settings import Settings, make_settings
from lusbook.store import read_json, study_folder
from lusbook.workload import METHODS, duration, iterations, rough_seconds

IMAGES = sum(sum(map(sum, folds)) for folds in PLAN.values())  # of the paper
RUNS = len(EXPERIMENTS) * len(FOLDS)  # of a study, which its tables hold together
MAX_FILES, MAX_SCHEDULING = 10**6, 3600  # what a shared disk may allow a user; s that somebody may wait for a graph

#: Each resource that can run out, and why it does.
RESOURCES = {
    "training": ("training on this CPU", "a training takes too long without a GPU, whatever the number of frames"),
    "gpu": ("training on GPUs", "epochs of a U-Net grow with the frames: fewer of them, or iterations in their place"),
    "simulating": ("simulating the frames", "frames are made one by one: more cores"),
    "testing": ("testing on this CPU", "every run segments every image of its test fold: a GPU, or fewer of them"),
    "metrics": ("metrics of predicted masks", "every run measures every image of its test fold: more cores"),
    "tables": (
        "tables and their intervals",
        "every comparison reads the rows of its runs anew: files that are faster to read than CSV",
    ),
    "memory": (
        "memory of a run's process",
        "a run holds all images of its cohorts, in single precision: batches must be read from the disk instead",
    ),
    "table memory": (
        "memory of what makes tables",
        "a comparison holds the Dice of all its images, twice: sums of patients instead",
    ),
    "frames": ("frames on the disk", "frames are kept without compression: a larger disk"),
    "results": ("results on the disk", "runs keep a row for each tested image and each iteration: fewer of either"),
    "files": ("number of files", "an image and a mask are files of their own: frames in archives"),
    "scheduling": ("scheduling", "every run is looked at before the first one starts: several grids"),
}


class Plan(NamedTuple):
    """A study that nobody has run.

    Parameters
    ----------
    frames : int
        Of both cohorts together, in the paper's proportions.
    runs : int
        Shared evenly among experiments and folds.
    settings : Settings
    gpu_speed : float
        How many times as fast as the CPU that was measured a GPU is taken to be where none was measured.
    folder : path
        As for :func:`lusbook.performance.load_benchmark`.
    """

    frames: int
    runs: int
    settings: Settings
    gpu_speed: float = 100.0
    folder: str = ""


# ---------------------------------------------------------------------------------------------
# What was measured


def measured_rates(folder="", results=None):
    """The rates from which a study is extrapolated.

    Parameters
    ----------
    folder : path, optional
        As for :func:`lusbook.performance.load_benchmark`.
    results : path, optional
        Folder of studies: the study ``demo`` says what runs leave on the disk.

    Returns
    -------
    rates : dict of float, or None
        ``phantom`` and ``metrics`` (s an image), ``tables`` (s an image of a whole study), ``held`` and ``kept`` (GiB
        an image, of a run's process and of one that makes tables), ``testing`` (s an image), ``scheduling`` (s a run),
        and those of :func:`disk_rates`. None where a benchmark or the study is missing.
    """
    contents = {name: load_benchmark(name, folder) for name in ("scaling", "many_runs", "inference", *METHODS)}
    disk = disk_rates(results)
    if disk is None or not all(contents.values()):
        return None
    parts = measured_parts(contents["scaling"])
    last = parts.groupby("part")["seconds"].last()
    graph = quantity(contents["many_runs"], "from nothing to the table")
    return {
        "phantom": last["phantom"],
        "metrics": last["metrics"],
        "tables": last[["tables", "tests", "bootstrap", "figure"]].sum(),
        "held": memory_an_image(parts, "held"),
        "kept": memory_an_image(parts, "tables"),
        "testing": 1 / quantity(contents["inference"], "batch 16 keras")["median"],
        "scheduling": graph["median"] / graph["runs"],
        **disk,
    }


def quantity(content, end):
    """The first quantity of a benchmark whose name ends so."""
    return next(row for row in content["quantities"] if row["name"].endswith(end))


def disk_rates(results=None):
    """What runs of the study ``demo`` leave on the disk, means over runs.

    Returns
    -------
    rates : dict of float, or None
        Bytes: ``row_bytes`` for each row of a tested image, ``history_bytes`` for each iteration, ``other_bytes`` (but
        for weights, which are not kept with the book); ``rows`` for each tested image, and ``files`` of a run.
    """

    def lines(path):
        return path.read_bytes().count(b"\n") - 1

    found = []
    for path in sorted(study_folder(make_settings("demo"), results).glob("*/fold-*/manifest.json")):
        sizes = {name: (path.parent / name).stat().st_size for name in read_json(path)["files"]}
        tested = [name for name in ("per_image.csv", "selection.csv") if name in sizes]
        images = pd.read_csv(path.parent / "per_image.csv", usecols=["cohort", "image"]).drop_duplicates()
        rows, bytes_ = sum(lines(path.parent / name) for name in tested), sum(sizes[name] for name in tested)
        other = sum(sizes.values()) - bytes_ - sizes["history.csv"] + path.stat().st_size
        history = sizes["history.csv"] / lines(path.parent / "history.csv")
        found.append((bytes_ / rows, history, other, rows / len(images), len(sizes) + 1))
    names = ("row_bytes", "history_bytes", "other_bytes", "rows", "files")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True)) if found else None


# ---------------------------------------------------------------------------------------------
# What a study would take


def sized(frames):
    """Number of images in each fold of both cohorts of a study, in the paper's proportions.

    Examples
    --------
    >>> sized(IMAGES)
    {'covid': [319, 319, 339], 'cap': [148, 111, 67]}
    """
    return {name: [round(frames * sum(counts) / IMAGES) for counts in folds] for name, folds in PLAN.items()}


def training(plan):
    """Iterations and hours of a study's trainings, by method.

    Epochs of a U-Net grow with the frames; iterations of SIFA do not.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    table : pandas.DataFrame
        Rows ``unet`` and ``sifa``: runs, iterations (of one run, mean), ``cpu_seconds`` and ``gpu_seconds`` (an
        iteration), ``measured`` (whether a GPU was), ``cpu_hours`` and ``gpu_hours`` (of all runs).
    """
    sizes, settings, rows = sized(plan.frames), plan.settings, {}
    for method in METHODS:
        group = [experiment for experiment in EXPERIMENTS.values() if experiment.method == method]
        each = np.mean([iterations(experiment, fold, settings, sizes) for experiment in group for fold in FOLDS])
        cpu, gpu = rough_seconds(method, settings, plan.folder), gpu_seconds(method, plan)
        rows[method] = {
            "runs": plan.runs * len(group) / len(EXPERIMENTS),
            "iterations": each,
            "cpu_seconds": cpu,
            "gpu_seconds": cpu / plan.gpu_speed if gpu is None else gpu,
            "measured": gpu is not None,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    for kind in ("cpu", "gpu"):
        table[f"{kind}_hours"] = table["runs"] * table["iterations"] * table[f"{kind}_seconds"] / 3600
    return table


def gpu_seconds(method, plan):
    """Seconds of an iteration on the GPU that was measured, other image sizes in proportion; None without a GPU."""
    content = load_benchmark("accelerator", plan.folder) or {"quantities": []}
    kind = "unet" if method == "unet" else plan.settings.sifa_updates
    name = f"{kind} {SIDE} px {plan.settings.precision}, iteration"
    found = [row["median"] for row in content["quantities"] if row["name"] == name]
    return found[0] * (plan.settings.image_size / SIDE) ** 2 if found else None


def needs(plan, rates):
    """What a study would take of each resource.

    Parameters
    ----------
    plan : Plan
    rates : dict
        As :func:`measured_rates` gives them.

    Returns
    -------
    needs : dict of float
        By the names of :data:`RESOURCES`: hours, GiB of memory of one process, GB on the disk (frames of 8 bits a
        pixel and 1 for the mask), number of files (an image and a mask each frame, and those of runs), s of scheduling.
    """
    larger, trained = (plan.settings.image_size / SIDE) ** 2, training(plan)
    tested = plan.runs * plan.frames / len(FOLDS)
    histories = (trained["runs"] * trained["iterations"]).sum() * rates["history_bytes"]
    rows = tested * rates["rows"] * rates["row_bytes"]
    return {
        "training": trained["cpu_hours"].sum(),
        "gpu": trained["gpu_hours"].sum(),
        "simulating": plan.frames * rates["phantom"] / 3600,
        "testing": tested * rates["testing"] * larger / 3600,
        "metrics": tested * rates["metrics"] * larger / 3600,
        "tables": plan.runs / RUNS * plan.frames * rates["tables"] / 3600,
        "memory": plan.frames * rates["held"] * larger,
        "table memory": plan.frames * rates["kept"],
        "frames": plan.frames * plan.settings.image_size**2 * (1 + 1 / 8) / 1e9,
        "results": (rows + histories + plan.runs * rates["other_bytes"]) / 1e9,
        "files": 2 * plan.frames + plan.runs * rates["files"],
        "scheduling": plan.runs * rates["scheduling"],
    }


# ---------------------------------------------------------------------------------------------
# What would break first


def limits(cores, memory_gib, disk_tb, days, gpus):
    """What there is of each resource.

    Parameters
    ----------
    cores : int
        Of the machine that was measured: a network uses all of them, other work one each.
    memory_gib, disk_tb, days, gpus : float
        Of one process, of the disk, until the study must be done, at hand.

    Returns
    -------
    limits : dict of (float, str)
        How much, and its unit, by resource.
    """
    hours = 24 * days
    return {
        **dict.fromkeys(("training", "testing"), (hours, "h")),
        "gpu": (hours * gpus, "h"),
        **dict.fromkeys(("simulating", "metrics", "tables"), (hours * cores, "h")),
        **dict.fromkeys(("memory", "table memory"), (memory_gib, "GiB")),
        **dict.fromkeys(("frames", "results"), (1000 * disk_tb, "GB")),
        "files": (MAX_FILES, ""),
        "scheduling": (MAX_SCHEDULING, "s"),
    }


def breaking(plan, rates, available):
    """At how many frames each resource runs out, with the runs held; the first to do so comes first.

    A need is a part that frames do not change, and a part in proportion to them.

    Parameters
    ----------
    plan, rates
        As for :func:`needs`.
    available : dict
        As :func:`limits` gives it.

    Returns
    -------
    table : pandas.DataFrame
        Rows by resource: ``need``, ``limit``, ``unit``, ``full`` (frames; 0 when runs alone are too many, infinite
        when frames do not matter).
    """
    most, least, rows = needs(plan, rates), needs(plan._replace(frames=0), rates), {}
    for name, (limit, unit) in available.items():
        grown, left = most[name] - least[name], limit - least[name]
        full = 0.0 if left <= 0 else plan.frames * left / grown if grown > 0 else math.inf
        rows[name] = {"need": most[name], "limit": limit, "unit": unit, "full": full}
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("full", kind="stable")


def first_broken(table):
    """What runs out first, at how many frames, and why, in words."""
    name = table.index[0]
    words, why = RESOURCES[name]
    return f"{words}, {full_text(table.loc[name, 'full'])}: {why}"


def gpu_text(plan, trained, days):
    """What the speed of the GPU is, and how many of it would train a study in so many days."""
    names = {"unet": "U-Net", "sifa": "SIFA"}
    assumed = [names[name] for name in trained.index if not trained.loc[name, "measured"]]
    number = math.ceil(trained["gpu_hours"].sum() / (24 * days))
    text = f"In {days:,} days that takes {number:,} GPUs. "
    if assumed:
        text += f"No GPU was measured for {' and '.join(assumed)}: one is taken to be {plan.gpu_speed:g} times as fast "
        text += "as the CPU."
    return text.strip()


def full_text(full):
    """At how many frames a limit is reached, in words.

    Examples
    --------
    >>> full_text(0.0), full_text(23456.7), full_text(math.inf)
    ('before any frame', 'at 23,000 frames', 'never')
    """
    if math.isinf(full):
        return "never"
    return f"at {float(f'{full:.2g}'):,.0f} frames" if full > 0 else "before any frame"


# ---------------------------------------------------------------------------------------------
# Tables as text


def amount(value, unit):
    """A need or a limit as text.

    Examples
    --------
    >>> amount(60, "h"), amount(1e6, "h"), amount(1234567, ""), amount(0.5, "GiB")
    ('2.5 days', '114 years', '1,234,567', '0.5 GiB')
    """
    if unit in ("h", "s"):
        seconds, year = value * (3600 if unit == "h" else 1), 365.25 * 86400
        return f"{seconds / year:,.0f} years" if seconds >= 10 * year else duration(seconds)
    return f"{f'{value:,.0f}' if value >= 100 else significant(value)} {unit}".strip()


def training_table(trained):
    """What :func:`training` gives, as text."""
    table = {
        "runs": [amount(value, "") for value in trained["runs"]],
        "iterations of a run": [amount(value, "") for value in trained["iterations"]],
        "CPU, s an iteration": trained["cpu_seconds"].map(significant),
        "all runs, CPU": [amount(value, "h") for value in trained["cpu_hours"]],
        "GPU, s an iteration": trained["gpu_seconds"].map(significant),
        "all runs, GPU": [amount(value, "h") for value in trained["gpu_hours"]],
    }
    return pd.DataFrame(table).rename(index={"unet": "U-Net", "sifa": "SIFA"})


def breaking_table(table):
    """What :func:`breaking` gives, as text."""
    texts = {
        "needed": [amount(row.need, row.unit) for row in table.itertuples()],
        "there is": [amount(row.limit, row.unit) for row in table.itertuples()],
        "needed / there is": [significant(value) for value in table["need"] / table["limit"]],
        "used up": [full_text(value) for value in table["full"]],
    }
    return pd.DataFrame(texts, index=[RESOURCES[name][0] for name in table.index])
