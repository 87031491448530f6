"""The store of results: what identifies a run, the folder that it owns, and reading and writing it whole.

A run's folder holds ``params.json`` (what identifies it), ``history.csv`` (losses), ``per_image.csv``
(counts and metrics of every test image), for SIFA ``snapshots.csv`` and ``selection.csv`` (other weights than the
last, see :mod:`lusbook.selection`), ``overlays.npz`` (the few images and masks that figures show),
``weights.npz`` (never committed) and, written last, ``manifest.json``. A lock beside the folder keeps it to one
process at a time.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

from lusbook.digests import CODE, RUN_CODE, code_digest, short_digest, versions
from lusbook.errors import LusbookError, OutOfTime
from lusbook.experiments import EXPERIMENTS, FOLDS, get_experiment
from lusbook.loading import cohort_digests
from lusbook.settings import PROJECT, is_preset, make_settings

FILES = ("params.json", "overlays.npz")  # of a manifest, beside every table

# ---------------------------------------------------------------------------------------------
# What identifies a run


def relevant(settings, method):
    """Settings that can change a run of one method (the other method's, and those of real clips, are left out)."""
    other = ("real_", "sifa_") if method == "unet" else ("real_", "unet_", "fine_tune_")
    if settings.cohorts != "phantom":
        other += ("phantom_", "covid_", "cap_")
    return {k: v for k, v in settings.model_dump().items() if not k.startswith(other) and k != "preset"}


def parameters(name, fold, settings):
    """What identifies a run: experiment, fold, relevant settings and the cohorts' digests."""
    return {
        "experiment": name,
        "fold": fold,
        "settings": relevant(settings, get_experiment(name).method),
        "data": cohort_digests(settings),
    }


def checkpoint_key(params, modules=RUN_CODE):
    """What a checkpoint shares with the run that goes on from it: parameters, code, backend and libraries.

    The device is not part of it: a run may go on on another one.
    """
    from lusbook import backend  # loads Keras

    parts = [params, code_digest((*modules, "checkpoints")), backend.keras.backend.backend(), versions()]
    return short_digest(json.dumps(parts, sort_keys=True).encode())


def made_by(folder):
    """Modules whose code makes the numbers of a folder: what it is named for, or one of the two folders above it."""
    if folder.parent.name in EXPERIMENTS:
        return RUN_CODE
    names = (folder.name, folder.parent.name, folder.parent.parent.name)
    return next((CODE[name] for name in names if name in CODE), RUN_CODE)


# ---------------------------------------------------------------------------------------------
# Folders


def study_name(settings):
    """Preset, and what differs from it: up to three settings by name, more of them as a digest.

    Examples
    --------
    >>> from lusbook.settings import make_settings
    >>> study_name(make_settings("demo")), study_name(make_settings("demo", image_size=96, seed=1))
    ('demo', 'demo-seed-1-image_size-96')
    """
    if is_preset(settings):
        return settings.preset
    try:
        preset = make_settings(settings.preset)
    except LusbookError:  # a preset of the user's own file
        preset = None
    changed = {name: value for name, value in settings if preset is None or getattr(preset, name) != value}
    text = "-".join(f"{name}-{value}" for name, value in changed.items())
    if len(changed) > 3 or not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        text = short_digest(settings.model_dump_json().encode())[:8]
    return f"{settings.preset}-{text}"


def results_folder(results=None):
    """Folder of studies: ``results``, else ``$LUSBOOK_RESULTS``, else the project's own."""
    root = results or os.environ.get("LUSBOOK_RESULTS") or PROJECT / "data" / "results"
    return Path(root).expanduser().resolve()


def study_folder(settings, results=None):
    """Folder of the study of these settings, in that of :func:`results_folder`."""
    return results_folder(results) / study_name(settings)


def run_folder(name, fold, settings, results=None):
    """Folder of a run."""
    if fold not in FOLDS:
        raise LusbookError(f"fold {fold!r}: expected one of {', '.join(map(str, FOLDS))}")
    return study_folder(settings, results) / get_experiment(name).name / f"fold-{fold}"


# ---------------------------------------------------------------------------------------------
# Reading and writing


def check_writable(folder):
    """Refuse a folder that cannot take results, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise LusbookError(
            f"results folder {folder}: cannot be written ({error.strerror}); nothing computed"
        ) from error


@contextmanager
def alone(folder, deadline=None):
    """Keep other processes from computing what goes into a folder; the lock ends with the process, however that ends.

    A process that holds the lock of a fine-tuning may take its parent's, never the other way round.

    Raises
    ------
    OutOfTime
        When another process still computes it at the deadline.
    """
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{folder}: another process computes it; waiting for that", file=sys.stderr)
        try:
            lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic()))
        except filelock.Timeout:
            raise OutOfTime(f"{folder}: time is up while another process computes it") from None
    except OSError as error:
        raise LusbookError(f"{lock.lock_file}: cannot be written ({error.strerror}); nothing computed") from error
    try:
        yield
    finally:
        lock.release()


def write_atomically(path, text):
    """Write a text file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LusbookError(f"{path}: cannot be written ({error.strerror}); completed runs are kept") from error


def read_json(path):
    """Read a JSON object of a run folder."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LusbookError(f"{path}: not readable as JSON ({error}); remove its folder to compute it again") from error
    if not isinstance(value, dict):
        raise LusbookError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def is_complete(folder, params):
    """Whether a complete run with these parameters is in the folder.

    Raises
    ------
    LusbookError
        When a manifest is there but the run is damaged, or is one of other parameters.
    """
    if not (folder / "manifest.json").exists():
        return False
    check_files(folder)
    if read_json(folder / "params.json") != json.loads(json.dumps(params)):
        raise LusbookError(
            f"{folder}: holds a run of other settings or data; remove it, or give another results folder"
        )
    return True


def check_files(folder):
    """Check the files of a complete run against its manifest; a damaged or half-written one is an error."""
    manifest_path = folder / "manifest.json"
    if not manifest_path.exists():
        raise LusbookError(f"{folder}: incomplete run, no manifest.json; compute the study again to complete it")
    for name, digest in read_json(manifest_path).get("files", {}).items():
        path = folder / name
        if not path.exists():
            raise LusbookError(f"{path}: missing, though manifest.json names it; remove {folder} to compute it again")
        if short_digest(path.read_bytes()) != digest:
            raise LusbookError(f"{path}: differs from its manifest; remove {folder} to compute it again")


def write(folder, params, outcome, settings, seconds):
    """Write a run's folder, the manifest last.

    Parameters
    ----------
    folder : Path
        Is there.
    params : dict
        What identifies the run; ``data`` in it goes into the manifest, too.
    outcome : dict
        ``tables`` (DataFrames by name), ``overlays`` (arrays by name), ``weights`` (list of arrays) and ``machine``
        (what computed), as :func:`lusbook.trials.run_trial` gives them.
    settings : Settings
    seconds : float
        What computing took.

    Raises
    ------
    LusbookError
        When it cannot be written.
    """
    try:
        write_atomically(folder / "params.json", json.dumps(params, indent=1))
        for name, table in outcome["tables"].items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        if outcome["overlays"]:
            np.savez_compressed(folder / "overlays.npz", **outcome["overlays"])
        if outcome["weights"]:
            np.savez(folder / "weights.npz", *outcome["weights"])
    except OSError as error:
        raise LusbookError(f"{folder}: cannot be written ({error.strerror}); completed runs are kept") from error
    manifest = {
        "code": code_digest(made_by(folder)),
        "params": short_digest(json.dumps(params, sort_keys=True).encode()),
        "data": params["data"],
        "files": {
            path.name: short_digest(path.read_bytes())
            for path in sorted(folder.iterdir())
            if path.name in FILES or path.suffix == ".csv"
        },
        "seed": settings.seed,
        "seconds": round(seconds, 1),
        **outcome["machine"],
        "python": platform.python_version(),
        "versions": versions(),
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1))


def read_arrays(folder):
    """The arrays of a complete run's folder, by name; none where it keeps none."""
    check_files(folder)
    if not (folder / "overlays.npz").exists():
        return {}
    with np.load(folder / "overlays.npz", allow_pickle=False) as stored:
        return dict(stored)


def read_tables(folder):
    """The tables of a complete run's folder, by name."""
    check_files(folder)
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
