"""Threads are limited, and GPUs shared out among processes; no GPU is needed to see that."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from lusbook import devices
from lusbook.errors import LusbookError

CHILD = """
import os, sys
from lusbook import devices
devices.WAIT_SECONDS = 0.01
print(devices.take_gpu(sys.argv[1]), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


THREADS = """
import os, sys
from lusbook.devices import limit_threads
limit_threads(*map(int, sys.argv[1:]))
print(*(os.environ.get(name) for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")))
"""


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [
        ([], {}, f"1 {devices.usable_cores()} 1"),
        ([], {"TF_NUM_INTRAOP_THREADS": "4"}, f"4 {devices.usable_cores()} 1"),
        (["3"], {"TF_NUM_INTRAOP_THREADS": "4", "TF_NUM_INTEROP_THREADS": "5"}, "1 3 1"),
        (["0"], {"TF_NUM_INTEROP_THREADS": "5"}, "0 0 None"),
    ],
)
def test_each_operation_has_one_thread_unless_threads_are_left_to_the_backend(asked, environment, expected):
    bare = {name: value for name, value in os.environ.items() if "_NUM_" not in name}
    command = [sys.executable, "-c", THREADS, *asked]
    done = subprocess.run(command, env=bare | environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def child(folder, gpus="0,1", per_gpu="2"):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus, devices.PER_GPU: per_gpu}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", CHILD, folder], env=environment, text=True, **pipes)


def test_gpus_fill_evenly_and_a_killed_process_leaves_its_place(tmp_path):
    children = [child(tmp_path) for _ in range(4)]
    try:
        taken = [process.stdout.readline().split() for process in children]
        assert Counter(gpu for gpu, _ in taken) == {"0": 2, "1": 2}
        assert all(gpu == visible for gpu, visible in taken)
        children.append(late := child(tmp_path))
        assert "all 4 places on 2 GPUs are taken" in late.stderr.readline()
        children[2].kill()
        assert late.stdout.readline().split()[0] == taken[2][0]
    finally:
        for process in children:
            process.kill()
            process.communicate()


def test_two_processes_have_a_gpu_each(tmp_path):
    children = [child(tmp_path, per_gpu="3") for _ in range(2)]
    taken = {process.stdout.readline().split()[0] for process in children}  # before either ends
    for process in children:
        process.communicate("")
    assert taken == {"0", "1"}


def test_nothing_is_chosen_without_a_study_or_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv(devices.PER_GPU, raising=False)
    assert devices.take_gpu(tmp_path) is None
    monkeypatch.setenv(devices.PER_GPU, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert devices.take_gpu(tmp_path) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize(("text", "status", "found"), [("0\n1\n", 0, ["0", "1"]), ("No devices\n", 6, [])])
def test_gpus_are_asked_of_the_driver(tmp_path, monkeypatch, text, status, found):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {status}\n")
    driver.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.find_gpus() == found
    monkeypatch.setenv("PATH", "")
    assert devices.find_gpus() == []


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_an_impossible_number_of_runs_is_refused(value):
    with pytest.raises(LusbookError, match=f"runs per GPU: expected a whole number from 1 on, received '{value}'"):
        devices.runs_per_gpu(value)
