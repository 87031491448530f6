"""How Snakemake is started: by a profile, with the GPUs that there are. Nothing is computed."""

import os
import subprocess
import sys

import pytest
import yaml

from lusbook import devices, graph
from lusbook.errors import LusbookError


@pytest.fixture
def started(monkeypatch):
    """Catch what would be started: its arguments and its environment."""
    caught = {}

    class Process:
        returncode = 0

        def __init__(self, command, env, **options):
            caught.update(command=command, env=env)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    return caught


@pytest.fixture
def folder(tmp_path):
    """Of a study, which is there before its graph is."""
    path = tmp_path / "smoke"
    path.mkdir()
    return path


def config(command):
    return dict(pair.split("=", 1) for pair in command[command.index("--config") + 1 :])


def test_on_this_machine_there_is_a_process_for_each_core(started, monkeypatch, folder):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert graph.compute("study", folder, "smoke", ["seed=1"], together=True) == 0
    command = started["command"]
    assert command[:4] == [sys.executable, "-m", "snakemake", "study"]
    assert command[command.index("--cores") + 1] == str(os.cpu_count())
    assert "--resources" not in command
    assert devices.PER_GPU not in started["env"]
    expected = {"preset": "smoke", "results": str(folder.parent), "set": "seed=1", "together": "True"}
    assert config(command) == expected | {"cores": str(os.cpu_count())}


def test_gpus_of_this_machine_are_shared_out(started, monkeypatch, folder):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    graph.compute("study", folder, "smoke", per_gpu=3)
    command = started["command"]
    assert command[command.index("--resources") + 1] == "gpu=12"
    assert int(command[command.index("--cores") + 1]) >= 12
    assert started["env"][devices.PER_GPU] == "3"
    assert config(command)["gpu"] == "1"


def test_a_cluster_gives_its_own_gpus(started, monkeypatch, folder):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(devices.PER_GPU, "2")
    graph.compute("study", folder, "smoke", profile="slurm", estimate=folder / "estimate.json")
    command = started["command"]
    assert "--cores" not in command and "--resources" not in command
    assert devices.PER_GPU not in started["env"]
    assert config(command).keys() == {"preset", "results", "estimate"}


def test_shipped_profiles_go_on_after_a_failure():
    found = {path.parent.name: yaml.safe_load(path.read_text()) for path in graph.PROFILES.glob("*/config.yaml")}
    assert {name: graph.executor(graph.PROFILES / name) for name in found} == {
        "local": "local",
        "slurm": "slurm",
        "kubernetes": "kubernetes",
    }
    for content in found.values():
        assert content["keep-going"] and content["keep-incomplete"] and content["rerun-incomplete"]


def test_a_profile_can_be_a_folder_and_an_unknown_one_is_named(tmp_path):
    with pytest.raises(LusbookError, match="profile 'slrm': expected one of kubernetes, local, slurm, or a folder"):
        graph.find_profile("slrm")
    (tmp_path / "config.yaml").write_text("jobs: [")
    assert graph.find_profile(str(tmp_path)) == tmp_path
    with pytest.raises(LusbookError, match=r"config\.yaml: not readable as YAML"):
        graph.executor(tmp_path)
