"""The examination of an installation: every hint, and what it changes (nothing)."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from lusbook import cli, doctor, sources
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT


@pytest.fixture
def free(monkeypatch):
    """Set the free space of every disk, GiB."""

    def set_free(gib):
        usage = SimpleNamespace(free=gib * 2**30)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)

    set_free(100)
    return set_free


@pytest.fixture
def backend(monkeypatch):
    """Name what the backend finds, or what keeps it from starting."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)

    def find(found):
        def find_backend():
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(doctor, "find_backend", find_backend)

    find(("tensorflow", "CPU"))
    return find


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """Only the kernels of a folder of their own are there."""
    monkeypatch.setattr(
        doctor,
        "KernelSpecManager",
        partial(KernelSpecManager, kernel_dirs=[str(tmp_path)], ensure_native_kernel=False),
    )

    def register(name, program):
        (tmp_path / name).mkdir()
        spec = {"argv": [program, "-m", "ipykernel_launcher"], "display_name": name, "language": "python"}
        (tmp_path / name / "kernel.json").write_text(json.dumps(spec))

    return register


def test_nothing_is_wrong_and_nothing_is_changed(backend, free, monkeypatch, tmp_path):
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "a" / "cache"))
    findings = doctor.examine(tmp_path / "b" / "results")
    assert [f.what for f in findings if f.hint and f.what != "kernels"] == []
    assert not any(f.stops for f in findings)
    looked = {"Python", "backend", "versions", "device", "kernels", *sources.VARIABLES, "results", "cache", "machine"}
    assert {f.what for f in findings} == looked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("version", "wrong"), [((3, 10, 4), True), ((3, 11, 0), False), ((3, 14, 0), True)])
def test_python(version, wrong, monkeypatch):
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version_info=version, executable="python"))
    found = doctor.check_python()
    assert found.found.startswith(".".join(map(str, version)))
    assert ("expected Python 3.11, 3.12 or 3.13" in found.hint, found.stops) == (wrong, wrong)


def test_pythons_are_those_of_the_package():
    limits = (PROJECT / "pyproject.toml").read_text().split('requires-python = "')[1].split('"')[0]
    first, last = doctor.PYTHONS[0], doctor.PYTHONS[-1]
    assert limits == f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"


def test_an_unknown_backend_stops_a_study(backend, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    found = doctor.check_backend()[0]
    assert found.hint == "KERAS_BACKEND is 'theano'; expected tensorflow or jax, or unset it"
    assert found.stops


def test_a_backend_that_does_not_start_stops_a_study(backend):
    backend(LusbookError("the Keras backend does not start: ModuleNotFoundError: No module named 'jax'"))
    found = doctor.check_backend()[0]
    assert "No module named 'jax'; install an extra" in found.hint
    assert found.stops


@pytest.mark.parametrize(
    ("device", "driver", "wrong"), [("CPU", None, False), ("cpu", "nvidia-smi", True), ("NVIDIA H100", "x", False)]
)
def test_a_gpu_that_the_backend_does_not_see(device, driver, wrong, backend, monkeypatch):
    backend(("jax", device))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    found = doctor.check_backend()[-1]
    assert (found.what, found.found, found.stops) == ("device", device, False)
    assert bool(found.hint) == wrong


def test_the_backend_is_asked_in_another_process(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE", "print('noise')\nprint('[\"jax\", \"TPU v4\"]')")
    assert doctor.find_backend() == ("jax", "TPU v4")
    monkeypatch.setattr(doctor, "PROBE", "raise ImportError('no libcudnn')")
    with pytest.raises(LusbookError, match="does not start: ImportError: no libcudnn$"):
        doctor.find_backend()


def test_no_kernel(kernels, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel.kernelspec", None)  # else its kernel counts as registered
    kernels("lusbook", sys.executable)
    found = doctor.check_kernel()
    assert found.found == "lusbook"
    assert "no kernel 'python3'" in found.hint


@pytest.mark.parametrize(
    ("program", "wrong"), [("python", False), (sys.executable, False), ("/somewhere/bin/python", True)]
)
def test_a_kernel_of_another_environment(program, wrong, kernels):
    kernels("python3", program)
    found = doctor.check_kernel()
    assert found.found == "python3"
    assert ("another environment's" in found.hint) == wrong


def test_data_that_are_not_here_are_nothing_wrong():
    for name, variable in sources.VARIABLES.items():
        found = doctor.check_data(name)
        assert variable in found.found
        assert (found.hint, found.stops) == ("", False)


def test_data_that_are_here(copy, monkeypatch):
    monkeypatch.setenv("LUSBOOK_COVID_BLUES", str(copy))
    assert doctor.check_data("covid-blues").found == "2 clips of 1 patients"


@pytest.mark.parametrize("name", list(sources.VARIABLES))
def test_a_variable_that_names_no_copy(name, monkeypatch, tmp_path):
    monkeypatch.setenv(sources.VARIABLES[name], str(tmp_path))
    found = doctor.check_data(name)
    assert sources.VARIABLES[name] in found.hint
    assert found.stops == (name == "covid-blues")


def test_a_folder_that_cannot_be_written(free, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    found = doctor.check_folder("results", tmp_path / "file", stops=True)
    assert "cannot be written" in found.hint
    assert "LUSBOOK_RESULTS" in found.hint
    assert found.stops
    assert not doctor.check_folder("cache", tmp_path / "file").stops


def test_a_full_disk(free, tmp_path):
    free(2.9)
    found = doctor.check_folder("results", tmp_path / "new", stops=True)
    assert found.hint.startswith("less than 3 GiB free")
    assert found.stops
    assert not doctor.check_folder("cache", tmp_path / "new").stops
    free(3.1)
    assert doctor.check_folder("results", tmp_path / "new", stops=True).hint == ""


def test_the_command_fails_only_for_what_stops_a_study(monkeypatch, capsys):
    finding = doctor.Finding("kernels", "none", "no kernel")
    monkeypatch.setattr(doctor, "examine", lambda results: [finding])
    cli.doctor()
    assert "  wrong: no kernel\n" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda results: [finding, finding._replace(what="backend", stops=True)])
    with pytest.raises(LusbookError, match="mended: backend$"):
        cli.doctor()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_kernel_registers_this_environment(tmp_path):
    variables = [f"VENV={sys.prefix}", f"KERNEL_AT=--prefix {tmp_path}", "KERAS_BACKEND=jax"]
    done = subprocess.run(["make", "kernel", *variables], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spec = json.loads((tmp_path / "share" / "jupyter" / "kernels" / "lusbook" / "kernel.json").read_text())
    assert Path(spec["argv"][0]).parent == Path(sys.prefix) / "bin"
    assert spec["env"] == {"KERAS_BACKEND": "jax"}
