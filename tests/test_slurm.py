"""A study on a real Slurm, of one node on this machine, gives the files of one computed without it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.settings import PROJECT, make_settings
from lusbook.store import run_folder
from tests.helpers import write_manifest

SCRIPT = str(PROJECT / "tests" / "slurm.sh")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
MISSING = [name for name in PROGRAMS if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here ({', '.join(MISSING)}); `make slurm` installs it"),
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="starting Slurm needs root"),
    pytest.mark.skipif(os.path.lexists("/etc/slurm/slurm.conf"), reason="this machine has a Slurm of its own"),
]
RUNS = [(name, fold) for name in EXPERIMENTS for fold in FOLDS]


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    # Daemons keep their parent's outputs open, so that nobody may wait for the end of a pipe.
    with open(tmp_path / "start.log", "w") as log:
        done = subprocess.run([SCRIPT, "start", str(folder)], stdout=log, stderr=log, timeout=120)
    try:
        assert done.returncode == 0, (tmp_path / "start.log").read_text()
        yield folder
    finally:
        subprocess.run([SCRIPT, "stop", str(folder)], timeout=60)


def start(command, results, set_, *options):
    program = [str(Path(sys.executable).with_name("lusbook")), command, "--preset=smoke", f"--results={results}"]
    with open(f"{results}.log", "w") as log:
        return subprocess.Popen([*program, *(f"--set={one}" for one in set_), *options], stdout=log, stderr=log)


def finish(process, results):
    assert process.wait(timeout=900) == 0, Path(f"{results}.log").read_text()[-4000:]


def jobs():
    """States of all jobs that Slurm knows of, with their limits of memory (MB) and time (minutes)."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T %m %l"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split() for line in lines]


def test_a_study_on_slurm_is_the_study_here(cluster, tmp_path):
    """Its node's daemon is killed meanwhile; what is compared with it is computed in one process."""
    set_ = [f"cohorts={write_manifest(tmp_path, 32)}", "image_size=16", "sifa_pool_size=9"]
    settings = make_settings("smoke", **dict(assignment.split("=") for assignment in set_))
    here, there = tmp_path / "here", tmp_path / "there"
    process = start("study", there, set_, "--profile=slurm")
    while not any(state == "RUNNING" for state, *_ in jobs()):
        assert process.poll() is None, Path(f"{there}.log").read_text()[-4000:]
        time.sleep(0.5)
    os.kill(int((cluster / "slurmd.pid").read_text()), signal.SIGKILL)
    time.sleep(2.0)
    subprocess.run(["slurmd"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    finish(process, there)
    assert {state for state, *_ in jobs()} == {"COMPLETED"}
    assert all("G" in memory or memory.endswith("M") for _, memory, _ in jobs())
    finish(start("run", here, set_), here)
    for pair in RUNS:
        one, other = (run_folder(*pair, settings, results) for results in (here, there))
        assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
        for path in one.glob("*.csv"):
            assert path.read_bytes() == (other / path.name).read_bytes(), path
        with np.load(one / "weights.npz") as mine, np.load(other / "weights.npz") as theirs:
            assert all((mine[key] == theirs[key]).all() for key in mine.files)
