"""Queues: runs of several studies, worked off within a time budget by one command that can be repeated.

A queue is a YAML list. An entry names a preset, settings that differ from it (``set``), experiments and folds (both
all by default), or a script of ``benchmarks/``::

    - benchmark: accelerator
    - preset: paper
      set: {image_size: 128, sifa_updates: simultaneous}
      experiments: [sifa-covid-to-cap]
      folds: [0]
"""

import os
import reprlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic

from lusbook import runs, store
from lusbook.errors import Interrupted, LusbookError, OutOfTime
from lusbook.experiments import EXPERIMENTS, FOLDS, in_order
from lusbook.formats import parse_yaml
from lusbook.loading import cohort_digests
from lusbook.settings import PROJECT, Settings, make_settings

BENCHMARKS = PROJECT / "benchmarks"
FINISH_SECONDS = 60.0  # kept free at the end of a budget: for a checkpoint, or for testing a network just trained
START_SECONDS = 60.0  # nothing is started that would get less: networks are built and compiled before they train


class Entry(pydantic.BaseModel):
    """One entry of a queue file: runs, or a benchmark."""

    model_config = pydantic.ConfigDict(extra="forbid")

    preset: str | None = None
    set: dict[str, Any] = {}
    experiments: list[Literal[tuple(EXPERIMENTS)]] = pydantic.Field(list(EXPERIMENTS), min_length=1)
    folds: list[Literal[FOLDS]] = pydantic.Field(list(FOLDS), min_length=1)
    benchmark: str | None = None

    @pydantic.model_validator(mode="after")
    def _one_kind(self):
        if (self.preset is None) == (self.benchmark is None):
            raise ValueError("expected either preset or benchmark")
        if self.benchmark is not None and self.model_fields_set != {"benchmark"}:
            raise ValueError("expected nothing else beside benchmark")
        return self


class Job(NamedTuple):
    """One run or benchmark of a queue.

    Parameters
    ----------
    title : str
        How reports name it.
    folder : Path
        Where its results are.
    name : str
        Experiment, or benchmark.
    fold : int or None
    settings : Settings or None
        None for a benchmark.
    """

    title: str
    folder: Path
    name: str
    fold: int | None = None
    settings: Settings | None = None


def read_queue(path, results=None):
    """Read a queue file; every entry is checked.

    Parameters
    ----------
    path : path
    results : path, optional
        Folder of studies.

    Returns
    -------
    jobs : list of Job
        In the order of the file, a parent before its fine-tuning; what several entries name is there once.

    Raises
    ------
    LusbookError
        Names the file and the entry, what was expected and what was received.
    """
    try:
        values = parse_yaml(f"queue {path}", Path(path).read_bytes())
    except OSError as error:
        raise LusbookError(f"queue {path}: cannot be read ({error.strerror})") from error
    if not isinstance(values, list) or not values:
        raise LusbookError(f"queue {path}: expected a list of entries, received {type(values).__name__}")
    jobs = {}
    for number, value in enumerate(values, start=1):
        try:
            for job in _jobs(Entry.model_validate(value), results):
                jobs.setdefault(job.folder, job)
        except pydantic.ValidationError as error:
            problems = "; ".join(_explain(e) for e in error.errors()[:5])
            raise LusbookError(f"queue {path}: entry {number}: {problems}") from error
        except LusbookError as error:
            raise LusbookError(f"queue {path}: entry {number}: {error}") from error
    return list(jobs.values())


def _jobs(entry, results):
    """Jobs of an entry."""
    if entry.benchmark is not None:
        name = entry.benchmark
        known = sorted(file.stem for file in BENCHMARKS.glob("*.py"))
        if name not in known:
            raise LusbookError(f"benchmark {name!r}: no such script; expected one of {', '.join(known) or '(none)'}")
        return [Job(f"benchmark {name}", store.results_folder(results) / "benchmarks" / f"{name}.txt", name)]
    settings = make_settings(entry.preset, **entry.set)
    cohort_digests(settings)  # a manifest that cannot be used is found now
    jobs = []
    for name in in_order(entry.experiments):
        for fold in entry.folds:
            folder = store.run_folder(name, fold, settings, results)
            jobs.append(Job(f"{folder.parts[-3]}  {name} fold {fold}", folder, name, fold, settings))
    return jobs


def _explain(error):
    """One validation error in words."""
    name = ".".join(str(part) for part in error["loc"])[:80]
    if error["type"] == "extra_forbidden":
        return f"unknown key {name!r}; expected {', '.join(Entry.model_fields)}"
    if error["type"] == "model_type":
        return f"expected a mapping, received {reprlib.repr(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{name!r}: {message}, received {reprlib.repr(error['input'])}" if name else message


def work(path, minutes, results=None):
    """Work off a queue in this process until it is done or the time is up.

    Finished runs are read and interrupted ones go on. A failed one stops no other.

    Parameters
    ----------
    path : path
        Queue file.
    minutes : float
        Budget; training stops 60 s before its end, and nothing is started in the 60 s before that.
    results : path, optional
        Folder of studies.

    Returns
    -------
    left : list of str
        Titles of the jobs that are not finished.

    Raises
    ------
    LusbookError
        Before anything starts, as :func:`read_queue`; at the end, naming every run that failed and why.
    """
    deadline = time.monotonic() + 60 * minutes - FINISH_SECONDS
    jobs = read_queue(path, results)
    done, left, failed = [], [], []
    for number, job in enumerate(jobs, start=1):
        try:
            if not _is_finished(job):
                if time.monotonic() > deadline - START_SECONDS:
                    raise OutOfTime("not started")
                _compute(job, f"queue {number} of {len(jobs)}  {job.title}", deadline, results)
                done.append(job.title)
        except OutOfTime as stop:
            left.append(f"{job.title}: {stop}")
        except Interrupted:
            raise
        except Exception as error:  # whatever broke it, the others must go on
            failed.append(f"{job.title}: {type(error).__name__}: {error}")
    before = len(jobs) - len(done) - len(left) - len(failed)
    for word, titles in (("done", done), ("left", left)):
        print(*(f"{word}  {title}" for title in titles), sep="\n", end="\n" if titles else "")
    print(f"{path}: {len(done)} done now, {before} before, {len(left)} left, {len(failed)} failed of {len(jobs)}")
    if left:
        print("The same command goes on from here.")
    if failed:
        raise LusbookError("failed runs:\n  " + "\n  ".join(failed))
    return left


def _is_finished(job):
    if job.settings is None:
        return job.folder.exists()
    return store.is_complete(job.folder, store.parameters(job.name, job.fold, job.settings))


def _compute(job, label, deadline, results):
    """Compute a run, or run a benchmark."""
    if job.settings is not None:
        runs.run(job.name, job.fold, job.settings, results, label, deadline)
        return
    print(label, file=sys.stderr)
    store.check_writable(job.folder.parent)
    with store.alone(job.folder, deadline):
        if not job.folder.exists():
            text = _run_script(BENCHMARKS / f"{job.name}.py", deadline - time.monotonic())
            store.write_atomically(job.folder, text)


def _run_script(script, seconds):
    """Output of a script, which is also shown; with what it started itself it ends after so many seconds."""
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            text, _ = process.communicate(timeout=max(0.0, seconds))
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise OutOfTime(f"time is up after {seconds:.0f} s; it starts anew") from None
            raise
    print(text, end="")
    if process.returncode:
        raise LusbookError(f"{script}: ended with exit status {process.returncode}")
    return text
