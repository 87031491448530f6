"""What a process computes with: its threads, and the one GPU that it has, alone or with a few others."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock

from lusbook.errors import LusbookError

PER_GPU = "LUSBOOK_RUNS_PER_GPU"  # set by a study for its processes: how many share a GPU
WAIT_SECONDS = 1.0  # until a taken GPU is asked for again
_held = []  # the lock of this process, which ends with it


def limit_threads(threads=None):
    """Give each operation one thread, and this process so many operations side by side, before a backend starts.

    Sums over more threads change in the last digit, and with that all that follows: the same seed would give one result
    in a study, whose processes have a core each, and another alone. How many operations run side by side leaves no
    trace.

    Parameters
    ----------
    threads : int, optional
        As many as there are cores by default, where the environment does not say otherwise. 0 leaves threads to the
        backend, which may be faster where there are many cores.
    """
    if "keras" in sys.modules:  # it is too late
        return
    if threads == 0:
        values = {"TF_NUM_INTRAOP_THREADS": "0", "TF_NUM_INTEROP_THREADS": "0"}
    else:
        values = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), "1")
        values["TF_NUM_INTEROP_THREADS"] = str(threads or usable_cores())
    for name, value in values.items():
        if threads is not None or name not in os.environ:
            os.environ[name] = value


def usable_cores():
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def is_gpu(device):
    """Whether a device, as the backends name it, is another than the processor."""
    return device.lower() != "cpu"


def find_gpus():
    """GPUs that this process may use, without loading a backend.

    Returns
    -------
    gpus : list of str
        As in ``CUDA_VISIBLE_DEVICES``, which decides where it is set; else as ``nvidia-smi`` lists them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() and not gpu.strip().startswith("-")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def take_gpu(folder=None):
    """Keep this process to one GPU, before a backend starts, when it is one of a study's processes.

    Every GPU has as many places as runs may share it; a place is a lock on a file, which ends with the process,
    however that ends. All first places are tried before any second one, so that GPUs fill evenly.

    Parameters
    ----------
    folder : path, optional
        Of the locks; one for each user in the machine's temporary folder by default.

    Returns
    -------
    gpu : str or None
        None where there is nothing to choose: no study started this process, or there is no GPU.
    """
    gpus = find_gpus()
    if PER_GPU not in os.environ or not gpus or _held:
        return None
    per_gpu = runs_per_gpu(os.environ[PER_GPU])
    folder = Path(folder or Path(tempfile.gettempdir()) / f"lusbook-gpus-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    places = [(gpu, filelock.FileLock(folder / f"{gpu}-{place}.lock")) for place in range(per_gpu) for gpu in gpus]
    told = False
    while True:
        for gpu, lock in places:
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            _held.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # TensorFlow else takes all memory of a GPU
            os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / per_gpu:.2f}"  # and JAX three quarters
            return gpu
        if not told:
            print(f"all {len(places)} places on {len(gpus)} GPUs are taken; waiting for one", file=sys.stderr)
            told = True
        time.sleep(WAIT_SECONDS)


def runs_per_gpu(value):
    """A number of runs that share a GPU, checked.

    Raises
    ------
    LusbookError
        When it is not a whole number from 1 on.
    """
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise LusbookError(f"runs per GPU: expected a whole number from 1 on, received {value!r}")
    return number
