"""The run graph: Snakemake computes a study side by side, on this machine or on a cluster, by a profile."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lusbook.devices import PER_GPU, find_gpus
from lusbook.errors import LusbookError
from lusbook.formats import parse_yaml, read_bytes
from lusbook.settings import PROJECT
from lusbook.store import alone

PROFILES = PROJECT / "data" / "profiles"
ENDED = Path(".snakemake") / "ended"  # in the folder of a study: exit status of each job that failed


def compute(target, folder, preset, set_=(), cores=0, profile="local", per_gpu=1, **config):
    """Let Snakemake compute a target of the run graph.

    Parameters
    ----------
    target : str
        Rule of the Snakefile.
    folder : Path
        Of the study.
    preset : str
    set_ : list of str
        Settings as ``name=value``.
    cores : int
        Processes at a time on this machine; 0 for one on each core, or, where there are GPUs, for as many as these
        take.
    profile : str
        Of Snakemake: a name in ``data/profiles``, or a folder.
    per_gpu : int
        Processes that share a GPU of this machine.
    **config
        More for the Snakefile; None is left out.

    Returns
    -------
    status : int
        Exit status of Snakemake.
    """
    profile, gpus = find_profile(profile), find_gpus()
    config |= {"preset": preset, "results": folder.parent, "set": shlex.join(set_) if set_ else None}
    options = ["--snakefile", PROJECT / "Snakefile", "--profile", profile, "--directory", folder]
    options += ["--nolock"]  # its own lock would outlive it when it is killed
    environment = {key: value for key, value in os.environ.items() if key != PER_GPU}
    if executor(profile) == "local":
        cores = cores or max(os.cpu_count(), len(gpus) * per_gpu)
        options += ["--cores", cores]
        config["cores"] = cores
        if gpus:  # each process takes one of so many places
            options += ["--resources", f"gpu={len(gpus) * per_gpu}"]
            config["gpu"] = 1
            environment[PER_GPU] = str(per_gpu)
    pairs = [f"{name}={value}" for name, value in config.items() if value is not None]
    command = [sys.executable, "-m", "snakemake", target, *options, "--config", *pairs]
    # The jobs call lusbook by name: the one beside this Python, whatever else is on the path.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [str(part) for part in command]
    with alone(folder / "study") as lock:
        shutil.rmtree(folder / ENDED, ignore_errors=True)
        # Snakemake holds the lock, too: killed alone, this process leaves it at work.
        with subprocess.Popen(command, env=environment, process_group=0, pass_fds=[lock]) as done:
            try:
                done.wait()
            except KeyboardInterrupt:
                # To Snakemake and its jobs alike: each run leaves a checkpoint. In the background SIGINT is ignored.
                ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                os.killpg(done.pid, signal.SIGTERM if ignored else signal.SIGINT)
                done.wait()
                raise
    return done.returncode


def killed(folder, status):
    """What a signal ended when a target was last computed, in words.

    Parameters
    ----------
    folder : Path
        Of the study.
    status : int
        As :func:`compute` gave it.

    Returns
    -------
    text : str
        Empty when there was no signal.
    """
    ended = {path.name: int(path.read_text().strip() or 0) for path in sorted((folder / ENDED).glob("*"))}
    # A shell gives 128 and the number; a library whose allocation fails aborts, or goes on with what it has not got.
    signals = (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)
    short = [name for name, code in ended.items() if code - 128 in signals]
    text = ""
    if short:
        text += f"\n  {', '.join(short)}: killed, as by a system whose memory runs out"
    if status < 0:
        text += "\n  Snakemake was killed; what it had started may go on, the same command waits for that"
    return text


def find_profile(name):
    """Folder of a profile, by its name or as a path.

    Raises
    ------
    LusbookError
        When there is none.
    """
    for folder in (PROFILES / name, Path(name).expanduser().resolve()):
        if (folder / "config.yaml").is_file():
            return folder
    known = ", ".join(sorted(path.parent.name for path in PROFILES.glob("*/config.yaml")))
    raise LusbookError(f"profile {name!r}: expected one of {known}, or a folder that holds a config.yaml")


def executor(profile):
    """What a profile computes on, as Snakemake names it: ``local``, ``slurm``, ..."""
    path = profile / "config.yaml"
    return (parse_yaml(path, read_bytes(path)) or {}).get("executor", "local")
