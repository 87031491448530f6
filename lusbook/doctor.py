"""Examination of an installation: what ``lusbook`` finds on a machine, and what is wrong, each with a hint."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pooch
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from lusbook import sources
from lusbook.devices import is_gpu
from lusbook.digests import versions
from lusbook.errors import LusbookError, MissingData
from lusbook.store import check_writable, results_folder

PYTHONS = ((3, 11), (3, 12), (3, 13))
BACKENDS = ("tensorflow", "jax")
KERNEL = "python3"  # executes the chapters
DISK_GIB = 3.0  # below this, a study may not find room for weights, checkpoints and simulated cohorts
PROBE = """
import json
from lusbook import backend
print(json.dumps([backend.keras.backend.backend(), backend.device()]))
"""


class Finding(NamedTuple):
    """One thing that was looked at.

    Parameters
    ----------
    what : str
    found : str
    hint : str
        What is wrong and how to mend it; empty when nothing is.
    stops : bool
        Whether that stops a study.
    """

    what: str
    found: str
    hint: str = ""
    stops: bool = False


def examine(results=None):
    """Look at everything that a study and the chapters need; nothing is changed.

    Parameters
    ----------
    results : path, optional
        Folder of studies.

    Returns
    -------
    findings : list of Finding
    """
    return [
        check_python(),
        *check_backend(),
        check_kernel(),
        *(check_data(name) for name in sources.VARIABLES),
        check_folder("results", results_folder(results), stops=True),
        check_folder("cache", Path(os.environ.get("LUSBOOK_CACHE") or pooch.os_cache("lusbook"))),
        Finding("machine", f"{os.cpu_count()} cores, {memory_gib():.1f} GiB of memory"),
    ]


def report(findings):
    """Findings as text: one line each, and below it what is wrong.

    Examples
    --------
    >>> print(report([Finding("machine", "2 cores"), Finding("kernel", "none", "run `make env`")]))
    machine         2 cores
    kernel          none
      wrong: run `make env`
    """
    lines = []
    for finding in findings:
        lines.append(f"{finding.what:15} {finding.found}")
        lines += [f"  wrong: {finding.hint}"] if finding.hint else []
    return "\n".join(lines)


def find_backend():
    """Backend and device, found by another process: one that only asks must not keep a GPU's memory.

    Returns
    -------
    backend, device : str

    Raises
    ------
    LusbookError
        When the backend does not start.
    """
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise LusbookError(f"the Keras backend does not start: {last}")
    backend, device = json.loads(done.stdout.splitlines()[-1])
    return backend, device


def memory_gib():
    """Memory of this machine, GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def check_python():
    """Whether this Python is one of those that the package is made for."""
    found = ".".join(map(str, sys.version_info[:3]))
    hint = "" if sys.version_info[:2] in PYTHONS else "expected Python 3.11, 3.12 or 3.13: make env PYTHON=python3.12"
    return Finding("Python", f"{found} ({sys.executable})", hint, bool(hint))


def check_backend():
    """Backend, versions and device."""
    installed = ", ".join(f"{name} {text}" for name, text in versions().items())
    named = os.environ.get("KERAS_BACKEND")
    packages = Finding("versions", installed)
    if named and named not in BACKENDS:
        hint = f"KERAS_BACKEND is {named!r}; expected {' or '.join(BACKENDS)}, or unset it"
        return [Finding("backend", named, hint, True), packages]
    try:
        backend, device = find_backend()
    except LusbookError as error:
        hint = f"{error}; install an extra: pip install -e '.[cpu]', or gpu, jax, jax-gpu"
        return [Finding("backend", named or "none", hint, True), packages]
    hint = ""
    if not is_gpu(device) and shutil.which("nvidia-smi"):
        hint = "an NVIDIA driver is here, but the backend sees no GPU; the README makes an environment for it"
    return [Finding("backend", backend), packages, Finding("device", device, hint)]


def check_kernel():
    """Whether the kernel that executes chapters is there, and is this environment's."""
    manager = KernelSpecManager()
    registered = ", ".join(sorted(manager.find_kernel_specs())) or "none"
    try:
        program = manager.get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        return Finding("kernels", registered, f"no kernel {KERNEL!r} to execute chapters: pip install ipykernel")
    hint = ""
    # Jupyter replaces a bare "python" by the environment's own.
    if os.path.isabs(program) and Path(program).parent != Path(sys.executable).parent:
        hint = f"kernel {KERNEL!r} starts {program}, another environment's: jupyter kernelspec remove {KERNEL}"
    return Finding("kernels", registered, hint)


def check_data(name):
    """Whether a public source is here, and readable; none is needed for the simulated study.

    Parameters
    ----------
    name : str
        A key of :data:`lusbook.sources.VARIABLES`.
    """
    read = {"covid-blues": sources.read_covid_blues, "pocus": sources.read_pocus, "cit": sources.read_cit}[name]
    try:
        found = read()
    except MissingData:
        return Finding(name, f"not here; the chapters show committed numbers ({sources.VARIABLES[name]})")
    except LusbookError as error:
        # A study scores the clips of COVID-BLUES where it finds them; the others are for chapters alone.
        return Finding(name, "not usable", str(error), name == "covid-blues")
    table = found[0] if isinstance(found, tuple) else found
    return Finding(name, f"{len(table)} clips of {table['patient'].nunique()} patients")


def check_folder(what, folder, stops=False):
    """Whether a folder, or where it would be made, can be written and has room.

    Parameters
    ----------
    what : str
    folder : Path
    stops : bool
        Whether a study stops when not.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    found = f"{folder}, {free:.1f} GiB free"
    try:
        check_writable(there)
    except LusbookError as error:
        variable = {"results": "--results or LUSBOOK_RESULTS", "cache": "LUSBOOK_CACHE"}[what]
        return Finding(what, found, f"{error}; name another by {variable}", stops)
    hint = "" if free >= DISK_GIB else f"less than {DISK_GIB:g} GiB free: make room, or name a folder on another disk"
    return Finding(what, found, hint, stops and bool(hint))
