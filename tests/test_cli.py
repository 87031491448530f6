"""The command line, and the run graph behind it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lusbook.cli import parse_settings
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from tests.helpers import write_manifest


def lusbook(*arguments, **environment):
    command = [str(Path(sys.executable).with_name("lusbook")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_settings_from_assignments():
    settings = parse_settings("demo", ["image_size=96", "unet_dropout=0.2", "unet_iterations=null"])
    assert (settings.image_size, settings.unet_dropout, settings.unet_iterations) == (96, 0.2, 120)
    with pytest.raises(LusbookError, match="'image_size': expected name=value"):
        parse_settings("demo", ["image_size"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "unet-flu", "--preset", "smoke"], "experiment 'unet-flu' is not known"),
        (["run", "unet-cap", "--set", "image_size=100"], "setting 'image_size': input should be a multiple of 8"),
        (["run", "unet-cap", "--preset", "smoke", "--fold", "7"], "fold 7: expected one of 0, 1, 2"),
        (["study", "--preset", "huge"], "preset 'huge': no file"),
        (["study", "--set", "image_size"], "--set 'image_size': expected name=value"),
        (["study", "--set", "cohorts=/nowhere/manifest.csv"], "/nowhere/manifest.csv"),
        (["rivals", "unet-7", "--preset", "smoke"], "rivals: group 'unet-7' is not known; expected some of unet-0, "),
        (
            ["dose-response", "--levels", "1", "--preset", "smoke"],
            "levels: expected at least 2 of each factor, received 1",
        ),
        (["dose-response", "gather", "--set", "cohorts=mine.csv"], "expected simulated cohorts, received "),
        (["download", "covid-blues"], "CC BY-NC-ND"),
        (["download", "covid"], "source 'covid' is not known; expected covid-blues, pocus, cit"),
    ],
)
def test_bad_input_is_one_clear_line_and_a_failure(arguments, message, tmp_path):
    options = ["--results", tmp_path] if arguments[0] != "download" else ["--folder", tmp_path]
    done = lusbook(*arguments, *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_study_runs_its_graph_and_a_failure_stops_no_other(tmp_path):
    """One fold cannot write its results; everything else completes, and the same command then completes the study."""
    manifest = write_manifest(tmp_path)
    arguments = ["study", "--preset", "smoke", "--set", f"cohorts={manifest}", "--results", tmp_path / "results"]
    environment = {"LUSBOOK_COVID_BLUES": ""}
    settings = parse_settings("smoke", [f"cohorts={manifest}"])
    from lusbook.store import run_folder

    broken = run_folder("sifa-cap-to-covid", 1, settings, tmp_path / "results")
    (broken / "params.json").mkdir(parents=True)  # in the way
    done = lusbook(*arguments, "--cores", 2, **environment)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("not completed: sifa-cap-to-covid fold 1")
    assert len(list((tmp_path / "results").glob("*/*/fold-*/manifest.json"))) == 23
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*/*/fold-*/manifest.json")}
    (broken / "params.json").rmdir()
    done = lusbook(*arguments, "--cores", 2, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "results").glob("*/*/fold-*/manifest.json"))) == 24
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize(("grid", "trainings"), [("rivals", 48), ("dose-response", 102)])
def test_a_grid_is_one_graph_whose_finished_parts_are_not_run_again(grid, trainings, tmp_path):
    """Asked for a dry run, Snakemake lists the groups of the grid, and not those that are finished."""
    from lusbook import dose, rivals
    from lusbook.store import study_folder

    settings, results = parse_settings("smoke", []), tmp_path / "results"
    root = {"rivals": study_folder(settings, results) / "rivals", "dose-response": dose.folder_of(settings, results)}[
        grid
    ]
    parts = {
        "rivals": [f"{rival.name}/fold-{k}" for group in rivals.GROUPS.values() for rival in group for k in range(3)],
        "dose-response": [dose.part_name(training) for group in dose.design().values() for training in group],
    }[grid]
    assert len(parts) == trainings
    root.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        grid,
        "--snakefile",
        str(PROJECT / "Snakefile"),
        "--dry-run",
        "--cores",
    ]
    command += ["1", "--directory", str(tmp_path), "--config", "preset=smoke", f"results={results}"]

    def listed():
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return {line.split()[0] for line in done.stdout.splitlines() if line.startswith(grid) and line.endswith("1")}

    groups = {f"{grid}-{name}" for name in (rivals.GROUPS if grid == "rivals" else dose.design())}
    assert listed() == {grid, *groups}
    for part in parts:
        (root / part).mkdir(parents=True)
        (root / part / "manifest.json").write_text("{}")
    assert listed() == {grid}


def test_help_names_every_command():
    done = lusbook("--help")
    assert done.returncode == 0
    for command in (
        "run",
        "queue",
        "describe",
        "study",
        "estimate",
        "doctor",
        "chapters",
        "real",
        "attempts",
        "secondary",
        "rivals",
        "dose-response",
        "download",
        "import",
        "segment",
        "adapt",
    ):
        assert f" {command} " in done.stdout


def test_no_paths_of_one_machine_in_the_project():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.yml", "*.yaml", "*.toml", "*.md", "*.ipynb", "Snakefile"],
                            cwd=PROJECT, capture_output=True, text=True)  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    for file in listed.stdout.split():
        assert str(PROJECT) not in (PROJECT / file).read_text("utf-8"), file


INTERRUPTED = """
import signal
from lusbook import cli
from lusbook.errors import LusbookError
from tests.helpers import signal_self

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background starts with it ignored


def app():
    try:
        signal_self({number})
    except KeyboardInterrupt:
        raise LusbookError("failed runs: ImportError") from None


cli.app = app
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_a_library_turns_into_an_error_is_one(number):
    script = INTERRUPTED.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.rstrip().endswith("the same command goes on from them")
