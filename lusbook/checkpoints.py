"""Checkpoints: the state of an interrupted training, so that it goes on as if nothing had happened.

A checkpoint is one NPZ file, written whole or not at all. The two newest are kept: a damaged one is noticed by the
checksums of its archive, and the one before it is used; so is one whose snapshots are not all there and whole.
"""

import os
import sys
from pathlib import Path

import numpy as np

from lusbook.arrays import unpack
from lusbook.errors import LusbookError

SECONDS = 60.0  # between checkpoints; when they are written changes no number
KEPT = 2


def interval():
    """Seconds between checkpoints: ``$LUSBOOK_CHECKPOINT_SECONDS``, else 60; with 0, every iteration writes one."""
    text = os.environ.get("LUSBOOK_CHECKPOINT_SECONDS", SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise LusbookError(f"LUSBOOK_CHECKPOINT_SECONDS: expected a number of seconds, at least 0, received {text!r}")
    return seconds


def save(folder, key, iteration, arrays, history):
    """Write a checkpoint; it and the one before it are kept.

    Parameters
    ----------
    folder : path
    key : str
        What the run is; only a run of the same key goes on from this checkpoint.
    iteration : int
        Complete iterations.
    arrays : list of ndarray
        Everything that an iteration changes.
    history : list of dict
        Rows of ``iteration`` and losses, all with the same columns.

    Returns
    -------
    path : Path

    Raises
    ------
    LusbookError
        When it cannot be written; the checkpoints that are there stay.
    """
    folder = Path(folder)
    path = folder / f"checkpoint-{iteration:08d}.npz"
    columns = list(history[0]) if history else []
    rows = np.array([[row[name] for name in columns] for row in history], "float64")
    names = np.array(columns, str)
    about = {"key": key, "iteration": iteration, "snapshots": np.array(_snapshots(folder, iteration), str)}
    _write(path, arrays, **about, count=len(arrays), columns=names, rows=rows)
    # One of a later iteration is damaged or of another key: this run went on from before it.
    earlier = [other for other in _stored(folder) if other < path]
    for other in {*_stored(folder)} - {path, *earlier[: KEPT - 1]}:
        other.unlink(missing_ok=True)
    return path


def load(folder, key):
    """Read the newest checkpoint that can be read; a line on stderr names every one that cannot.

    Parameters
    ----------
    folder : path
    key : str
        As :func:`save` was given it.

    Returns
    -------
    checkpoint : tuple of (iteration, arrays, history), or None
    """
    folder = Path(folder)
    for partial in _partial(folder):
        partial.unlink(missing_ok=True)
    stored = _stored(folder)
    for number, path in enumerate(stored, start=1):
        try:
            return _read(path, key)
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive can raise almost anything
            reason = str(error) or type(error).__name__
        before = stored[number : number + 1]
        instead = f"the one before it, {before[0].name}, is used" if before else "the run starts anew"
        print(f"{path}: not used ({reason}); {instead}", file=sys.stderr)
    return None


def remove(folder):
    """Remove all checkpoints and snapshots of a folder."""
    folder = Path(folder)
    for path in (*_stored(folder), *_partial(folder), *folder.glob("snapshot-*.npz")):
        path.unlink(missing_ok=True)


def save_snapshot(folder, iteration, weights):
    """Write the weights of one iteration, which are tested when training has ended; arguments as of :func:`save`."""
    _write(Path(folder) / f"snapshot-{iteration:08d}.npz", weights)


def load_snapshot(folder, iteration):
    """Read the weights that :func:`save_snapshot` wrote.

    Raises
    ------
    LusbookError
        When it is not there or damaged.
    """
    path = Path(folder) / f"snapshot-{iteration:08d}.npz"
    try:
        stored = unpack(path)
        return [stored[f"arr_{i}"] for i in range(len(stored))]
    except (OSError, ValueError, KeyError) as error:
        raise LusbookError(f"{path}: not readable ({error}); the same command trains the run again") from error


def _write(path, arrays, **named):
    """Write an NPZ file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            np.savez(file, *arrays, **named)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LusbookError(f"{path}: cannot be written ({error.strerror}); earlier checkpoints are kept") from error


def _stored(folder):
    """Checkpoints of a folder, the newest first."""
    return sorted(Path(folder).glob("checkpoint-*.npz"), reverse=True)


def _snapshots(folder, iteration):
    """Names of the snapshots of a training up to an iteration."""
    return sorted(path.name for path in folder.glob("snapshot-*.npz") if path.name <= f"snapshot-{iteration:08d}.npz")


def _partial(folder):
    """What processes that were killed while they wrote left."""
    return [*Path(folder).glob(".checkpoint-*"), *Path(folder).glob(".snapshot-*")]


def _read(path, key):
    """Read one checkpoint; raises whatever shows that it is damaged or another run's."""
    stored = unpack(path)
    if str(stored["key"]) != key:
        raise ValueError("of other settings, data, code or libraries")
    for name in stored["snapshots"].tolist():
        try:
            unpack(path.with_name(name))
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} is damaged: {error}") from error
    iteration, columns, rows = int(stored["iteration"]), stored["columns"].tolist(), stored["rows"]
    arrays = [stored[f"arr_{i}"] for i in range(int(stored["count"]))]
    if path.name != f"checkpoint-{iteration:08d}.npz" or len(rows) != iteration:
        raise ValueError(f"holds iteration {iteration} and {len(rows)} rows of history")
    history = [dict(zip(columns, row, strict=True)) for row in rows.tolist()]
    for row in history:
        row["iteration"] = int(row["iteration"])
    return iteration, arrays, history
