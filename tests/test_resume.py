"""Real processes that are killed, interrupted and started twice end as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lusbook.settings import make_settings
from lusbook.store import run_folder
from tests.helpers import write_manifest

ITERATIONS = {"unet-cap": 400, "sifa-covid-to-cap": 80}
FILES = {"params.json", "history.csv", "per_image.csv", "overlays.npz", "weights.npz", "manifest.json"}
MORE = {"snapshots.csv", "selection.csv"}  # of SIFA
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and SIGSTOP")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Settings, as assignments and as an object, of two short runs on tiny images."""
    set_ = [f"cohorts={write_manifest(tmp_path_factory.mktemp('cohort'), 32)}", "image_size=16", "sifa_pool_size=9"]
    set_ += [f"unet_iterations={ITERATIONS['unet-cap']}", f"sifa_iterations={ITERATIONS['sifa-covid-to-cap']}"]
    return set_, make_settings("smoke", **dict(assignment.split("=") for assignment in set_))


@pytest.fixture(scope="module")
def uninterrupted(study, tmp_path_factory):
    """Results of both runs, without an interruption."""
    results = tmp_path_factory.mktemp("uninterrupted")
    _, err = finish(start(study, results, *ITERATIONS))
    assert "goes on from" not in err
    return results


def start(study, results, *experiments, seconds=60.0):
    """Start ``lusbook run`` in a process of its own."""
    command = [str(Path(sys.executable).with_name("lusbook")), "run", *experiments, "--fold=0", "--preset=smoke"]
    command += [f"--set={assignment}" for assignment in study[0]] + [f"--results={results}", "--threads=1"]
    environment = {**os.environ, "LUSBOOK_CHECKPOINT_SECONDS": str(seconds)}
    # A shell that starts pytest in the background lets it, and all below it, ignore SIGINT.
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=lambda: signal.signal(2, signal.SIG_DFL)
    )


def finish(process, status=0):
    _, err = process.communicate(timeout=300)
    assert process.returncode == status, err[-2000:]
    return process.returncode, err


def newest(folder):
    return max((int(path.name[11:-4]) for path in folder.glob("checkpoint-*.npz")), default=0)


def wait_for(process, condition):
    """Look, without a pause, until the condition holds; the process must not end before."""
    while not (value := condition()):
        assert process.poll() is None, process.stderr.read()[-2000:]
    return value


def kill_in_training(study, results, name, iterations, delay, seconds):
    """Kill a run some time after it has done so many iterations more; returns its newest checkpoint."""
    folder = run_folder(name, 0, study[1], results)
    before, process = newest(folder), start(study, results, name, seconds=seconds)
    wait_for(process, lambda: time.sleep(0.01) or newest(folder) >= before + iterations)
    time.sleep(delay)
    assert process.poll() is None, "ended before it was killed: give it more iterations"
    process.kill()
    _, err = process.communicate()
    assert (f"goes on from iteration {before}/" in err) == (before > 0)
    return newest(folder)


def kill_in_writing(study, results, name):
    """Kill a run while a checkpoint is half written; returns its newest whole checkpoint."""
    folder = run_folder(name, 0, study[1], results)
    before, process = newest(folder), start(study, results, name, seconds=0.0)
    while True:
        wait_for(process, lambda: newest(folder) > before and any(folder.glob(".checkpoint-*")))
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        if any(folder.glob(".checkpoint-*")):  # still: it is stopped within the writing
            break
        os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.communicate()
    assert any(folder.glob(".checkpoint-*"))
    return newest(folder)


def assert_same(name, study, results, uninterrupted):
    folder, expected = (run_folder(name, 0, study[1], root) for root in (results, uninterrupted))
    files = FILES | (MORE if name.startswith("sifa") else set())
    assert {path.name for path in folder.iterdir()} == files
    for file in sorted(files - {"manifest.json", "weights.npz", "overlays.npz"}):
        assert (folder / file).read_bytes() == (expected / file).read_bytes(), file
    for file in ("weights.npz", "overlays.npz"):
        with np.load(folder / file) as one, np.load(expected / file) as other:
            assert one.files == other.files
            for key in one.files:
                np.testing.assert_array_equal(one[key], other[key], strict=True)


def interrupt(study, results, name):
    """Interrupt a run by Ctrl-C; returns the iteration that it says it goes on from."""
    folder = run_folder(name, 0, study[1], results)
    before, process = newest(folder), start(study, results, name, seconds=0.0)
    wait_for(process, lambda: time.sleep(0.01) or newest(folder) > before)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert "stopping after this iteration; Ctrl-C again stops at once" in err
    said = f"interrupted at iteration {newest(folder)} of {ITERATIONS[name]}; the same command goes on from there"
    assert err.rstrip().endswith(said)
    assert "Traceback" not in err
    return newest(folder)


def finish_twice(study, results, name):
    """Start a run in two processes at once: one computes and the other reads; returns what the first one said."""
    with ThreadPoolExecutor(2) as two:
        errors = [*two.map(lambda _: finish(start(study, results, name))[1], range(2))]
    waited = ["another process computes it; waiting" in err for err in errors]
    computed = [f"iteration {ITERATIONS[name]}/{ITERATIONS[name]}" in err for err in errors]
    assert sorted(waited) == sorted(computed) == [False, True]
    assert waited != computed
    return errors[computed.index(True)]


@pytest.mark.slow
def test_killed_at_random_moments(study, uninterrupted, tmp_path):
    """Ten kills, one of each network within the writing of a checkpoint, and a Ctrl-C."""

    def chain(name, kills, interrupted):
        rng, reached = random.Random(name), [0]
        for number in range(kills):
            if number == 1:
                reached.append(kill_in_writing(study, tmp_path, name))
            else:
                # Every second one goes back several iterations.
                moment = rng.randint(1, ITERATIONS[name] // 10), rng.uniform(0, 0.05), 0.1 * (number % 2)
                reached.append(kill_in_training(study, tmp_path, name, *moment))
        if interrupted:
            reached.append(interrupt(study, tmp_path, name))
            err = finish_twice(study, tmp_path, name)
        else:
            _, err = finish(start(study, tmp_path, name))
        assert f"goes on from iteration {reached[-1]}/{ITERATIONS[name]}" in err
        assert reached == sorted(set(reached))
        assert_same(name, study, tmp_path, uninterrupted)
        return reached[1:]

    with ThreadPoolExecutor(2) as two:
        reached = [*two.map(chain, ITERATIONS, (6, 4), (True, False))]
    print("stopped at the iterations", *reached)


def test_termination_before_training_says_what_goes_on(study, tmp_path):
    process = start(study, tmp_path, "unet-cap")
    wait_for(process, lambda: time.sleep(0.01) or any(tmp_path.rglob(".fold-0.lock")))
    process.terminate()
    _, err = finish(process, 130)
    assert err.rstrip().endswith("the same command goes on from them")
