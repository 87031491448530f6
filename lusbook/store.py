"""The store of results: what identifies a run, the folder that it owns, and reading and writing it whole.

A run's folder holds ``params.json`` (what identifies it), ``history.csv`` (losses), ``per_image.csv``
(counts and metrics of every test image), for SIFA ``snapshots.csv`` and ``selection.csv`` (other weights than the
last, see :mod:`lusbook.selection`), ``overlays.npz`` (the few images and masks that figures show),
``weights.npz`` (never committed) and, written last, ``manifest.json``. A lock beside the folder keeps it to one
process at a time. What is damaged is never read; computing it again sets it aside first, under a name with a dot.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

from lusbook import provenance
from lusbook.arrays import unpack
from lusbook.devices import limit_threads
from lusbook.digests import file_digest, processor, short_digest, versions
from lusbook.errors import LusbookError, OutOfTime
from lusbook.experiments import FOLDS, get_experiment
from lusbook.loading import cohort_digests
from lusbook.settings import PROJECT, is_preset, make_settings

FILES = ("params.json", "overlays.npz")  # of a manifest, beside every table
NEEDED = ("data", "files", "seconds")  # of what a manifest says
PART = 2**13  # rows of a run's per-image table that are read at a time
#: Values that leave out what settings added later; a run's parameters do not name them.
BEFORE = {"devices": 1, "cap_gap": 0.0, "phantom_test_frames": 0, "unet_snapshots": 0}
LOCK_SECONDS = 0.1  # until a lock that another process holds is tried again

# ---------------------------------------------------------------------------------------------
# What identifies a run


def relevant(settings, method):
    """Settings that can change a run of one method (the other method's, and those of real clips, are left out)."""
    other = ("real_", "control_", *(("sifa_",) if method == "unet" else ("unet_", "fine_tune_")))
    if settings.cohorts != "phantom":
        other += ("phantom_", "covid_", "cap_")
    found = {k: v for k, v in settings.model_dump().items() if not k.startswith(other) and k != "preset"}
    for name, without in BEFORE.items():  # runs from before there was the setting are the same
        if found.get(name) == without:
            del found[name]
    return found


def parameters(name, fold, settings):
    """What identifies a run: experiment, fold, relevant settings and the cohorts' digests."""
    return {
        "experiment": name,
        "fold": fold,
        "settings": relevant(settings, get_experiment(name).method),
        "data": cohort_digests(settings),
    }


def checkpoint_key(params, folder):
    """What a checkpoint shares with the run that goes on from it: parameters, code, backend and libraries.

    Of the code it is the fingerprints, the commit and what differs from it. The device is not part of it: a run may go
    on on another one.
    """
    limit_threads()
    from lusbook import backend  # loads Keras

    code = [*map(provenance.fingerprint, (*provenance.parts_of(folder), "gap")), provenance.state()]
    parts = [params, code, backend.keras.backend.backend(), versions()]
    return short_digest(json.dumps(parts, sort_keys=True).encode())


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

    Yields
    ------
    lock : int
        File descriptor: a process that inherits it holds the lock, too.

    Raises
    ------
    OutOfTime
        When another process still computes it at the deadline.
    """
    path = folder.with_name(f".{folder.name}.lock")
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise LusbookError(f"{path}: cannot be written ({error.strerror}); nothing computed") from error
    try:
        told = False
        while not filelock.lock_descriptor(lock, blocking=False):
            if not told:
                print(f"{folder}: another process computes it; waiting for that", file=sys.stderr)
                told = True
            if deadline is not None and time.monotonic() > deadline:
                raise OutOfTime(f"{folder}: time is up while another process computes it")
            time.sleep(LOCK_SECONDS)
        yield lock
    finally:
        os.close(lock)


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
    except (OSError, ValueError, RecursionError) as error:
        raise LusbookError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise LusbookError(f"{path}: expected a JSON object, received {type(value).__name__}")
    return value


def manifest_folders(root, pattern="**/manifest.json"):
    """Folders below a root that have a manifest; none whose name, or that of one above it, begins with a dot."""
    found = sorted(path.parent for path in Path(root).glob(pattern))
    return [folder for folder in found if not any(part.startswith(".") for part in folder.relative_to(root).parts)]


def read_manifest(folder):
    """The manifest of a complete run.

    Raises
    ------
    LusbookError
        When it cannot be read, or does not say what a manifest says.
    """
    path = folder / "manifest.json"
    manifest = read_json(path)
    if not set(NEEDED) <= set(manifest):
        raise LusbookError(f"{path}: expected {', '.join(NEEDED)}, received {', '.join(manifest) or 'nothing'}")
    for name in ("data", "files"):
        if not isinstance(manifest[name], dict) or not manifest[name]:
            raise LusbookError(f"{path}: {name}: expected digests by name, received {manifest[name]!r}")
    for name in manifest["files"]:
        if os.path.basename(name) != name or name in ("", ".", "..") or not name.isprintable():
            raise LusbookError(f"{path}: expected names of files in its folder, received {name!r}")
    return manifest


def read_manifests(root, pattern="**/manifest.json"):
    """Manifests below a root, by folder; those that cannot be read are left out."""
    found = {}
    for folder in manifest_folders(root, pattern):
        with suppress(LusbookError):
            found[folder] = read_manifest(folder)
    return found


def damage(folder):
    """What is wrong with the files of a complete run, in words.

    Parameters
    ----------
    folder : Path
        Has a manifest.

    Returns
    -------
    reason : str
        Names the file; empty when all are as the manifest says. It knows nothing of the weights.
    """
    try:
        manifest = read_manifest(folder)
    except LusbookError as error:
        return str(error)
    for name, digest in manifest["files"].items():
        try:
            found = file_digest(folder / name)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return f"{folder / name}: " + ("missing, though manifest.json names it" if missing else error.strerror)
        if found != digest:
            return f"{folder / name}: differs from its manifest"
    return ""


def is_complete(folder, params):
    """Whether a complete run with these parameters is in the folder; a damaged one is not complete.

    Raises
    ------
    LusbookError
        When it is one of other parameters: names what differs.
    """
    if not (folder / "manifest.json").exists() or damage(folder):
        return False
    if names := differing(read_json(folder / "params.json"), params):
        raise LusbookError(
            f"{folder}: holds a run of other settings or data ({', '.join(names)}); remove it, or give another "
            "results folder"
        )
    return True


def differing(found, wanted):
    """Names of the entries in which parameters, as read and as wanted, differ.

    Examples
    --------
    >>> differing({"fold": 0, "data": {"covid": "1a", "cap": "2b"}}, {"fold": 0, "data": {"covid": "1a", "cap": "3c"}})
    ['data cap']
    """
    names, wanted = [], json.loads(json.dumps(wanted))  # as what was read: tuples are lists
    for key in sorted({*found, *wanted}):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{key} {name}" for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
        elif one != other:
            names.append(key)
    return names


def check_files(folder):
    """Check the files of a complete run against its manifest; a damaged or half-written one is an error."""
    if not (folder / "manifest.json").exists():
        raise LusbookError(f"{folder}: incomplete run, no manifest.json; compute the study again to complete it")
    if reason := damage(folder):
        raise LusbookError(f"{reason}; `lusbook study` sets it aside and computes it again")


def has_weights(folder):
    """Whether a folder has weights that can be read, by the checksums of their archive."""
    try:
        return bool(unpack(folder / "weights.npz"))
    except (OSError, ValueError):
        return False


def set_aside(folder, reason=None):
    """Move the files of a damaged complete run into a folder beside it, so that it is computed again; none is lost.

    Folders in it stay, as the single trainings of a grid. For who is alone in the folder, see :func:`alone`.

    Parameters
    ----------
    folder : Path
    reason : str, optional
        By default what :func:`damage` finds, if anything.
    """
    if not (folder / "manifest.json").exists() or not (reason := reason or damage(folder)):
        return
    aside = next(path for n in count(1) if not (path := folder.with_name(f".{folder.name}.damaged-{n}")).exists())
    try:
        aside.mkdir()
        # The manifest first: without it the run counts as incomplete, whatever happens next.
        for path in sorted(folder.iterdir(), key=lambda path: path.name != "manifest.json"):
            if path.is_file():
                os.replace(path, aside / path.name)
    except OSError as error:
        raise LusbookError(f"{reason}; it cannot be set aside ({error.strerror}); nothing computed") from error
    print(f"{reason}; set aside as {aside.name}, it is computed again", file=sys.stderr)


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
        (what computed), as :func:`lusbook.trials.run_trial` gives them; ``inputs``, digests of what it was made from,
        where they are known.
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
        "commit": provenance.commit(),
        "date": provenance.date(),
        "environment": provenance.environment(),
        "fingerprints": provenance.fingerprints(folder, settings),
        "inputs": outcome.get("inputs", {}),
        **({"weights": file_digest(folder / "weights.npz")} if outcome["weights"] else {}),
        "params": short_digest(json.dumps(params, sort_keys=True).encode()),
        "data": params["data"],
        "files": {
            path.name: file_digest(path)
            for path in sorted(folder.iterdir())
            if path.name in FILES or path.suffix == ".csv"
        },
        "seed": settings.seed,
        "seconds": round(seconds, 1),
        **outcome["machine"],
        "processor": processor(),
        "python": platform.python_version(),
        "versions": versions(),
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1))
    for partial in folder.glob(".*.json.*"):  # of processes that were killed while they wrote
        partial.unlink(missing_ok=True)


def read_arrays(folder):
    """The arrays of a complete run's folder, by name; none where it keeps none."""
    check_files(folder)
    if not (folder / "overlays.npz").exists():
        return {}
    try:
        return unpack(folder / "overlays.npz")
    except (OSError, ValueError) as error:
        raise LusbookError(f"{folder / 'overlays.npz'}: not readable ({error})") from error


def read_tables(folder):
    """The tables of a complete run's folder, by name."""
    check_files(folder)
    return {path.stem: read_table(path) for path in sorted(folder.glob("*.csv"))}


def read_table(path):
    """One table of a run's folder."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise LusbookError(f"{path}: not readable as CSV ({error})") from error


def read_parts(path):
    """One per-image table of a run's folder, in parts of as many rows as are read at a time.

    Yields
    ------
    rows : pandas.DataFrame
    """
    try:
        with pd.read_csv(path, chunksize=PART, dtype={"patient": str}) as parts:
            yield from parts
    except (OSError, ValueError) as error:
        raise LusbookError(f"{path}: not readable as CSV ({error})") from error
