"""Faults, each injected: the same command then completes the study, as an undisturbed one, and repeats nothing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from lusbook import runs, store
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.settings import PROJECT, make_settings
from tests.helpers import write_manifest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
LUSBOOK = str(Path(sys.executable).with_name("lusbook"))
RUNS = [(name, fold) for name in EXPERIMENTS for fold in FOLDS]
CONTROL_GROUPS = Path("/sys/fs/cgroup/memory")
DONE = re.compile(r"^run .*? of \d+  (.*?)  iteration (\d+)/\2 ", re.MULTILINE)  # the line at the end of a training


@pytest.fixture(scope="session")  # a worker that takes tests of other files in between keeps it
def study(tmp_path_factory):
    """Settings of a study in seconds, as assignments and as an object."""
    set_ = [f"cohorts={write_manifest(tmp_path_factory.mktemp('cohort'), 32)}", "image_size=16"]
    return set_, make_settings("smoke", **dict(assignment.split("=") for assignment in set_))


@pytest.fixture(scope="session")
def undisturbed(study, tmp_path_factory):
    """All runs of a study that nothing happened to, computed in one process."""
    results = tmp_path_factory.mktemp("undisturbed")
    _, err = finish(start("run", study, results, "--threads=1"))
    assert len(trained(err)) == len(RUNS)
    runs.describe(study[1], results)
    return results


@pytest.fixture
def results(undisturbed, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(undisturbed, tmp_path / "results")


def start(command, study, results, *options, before="", within=()):
    """Start ``lusbook`` in a process of its own, in a program; ``before`` is Python that runs first in it."""
    program = [LUSBOOK] if not before else [sys.executable, "-c", f"{before}\nfrom lusbook.cli import main\nmain()"]
    arguments = ["--preset=smoke", *(f"--set={assignment}" for assignment in study[0]), f"--results={results}"]
    environment = {**os.environ, "LUSBOOK_COVID_BLUES": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*within, *program, command, *arguments, *options],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=PROJECT,
    )


def finish(process, status=0):
    _, err = process.communicate(timeout=900)
    assert process.returncode == status, err[-4000:]
    assert "Traceback" not in err, err[-4000:]
    return process.returncode, err


def trained(err):
    """Runs whose training ended, as often as it did."""
    return sorted(name for name, _ in DONE.findall(err))


def compute(study, results, status=0):
    """Repeat the command of a study; returns the runs that it trained, and all that it said."""
    _, err = finish(start("study", study, results, "--cores=2"), status)
    return trained(err), err


def folder_of(name, fold, study, results):
    return store.run_folder(name, fold, study[1], results)


def drop(study, results, *pairs):
    """Let runs be missing."""
    for pair in pairs:
        shutil.rmtree(folder_of(*pair, study, results))
        folder_of(*pair, study, results).with_name(f".fold-{pair[1]}.lock").unlink(missing_ok=True)


def state(study, results, *without):
    """When the files of complete runs were last written."""
    folders = [folder_of(*pair, study, results) for pair in RUNS if pair not in without]
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}


def assert_same(study, results, undisturbed):
    """All runs are there, whole, and as those of an undisturbed study."""
    for pair in RUNS:
        folder, expected = (folder_of(*pair, study, root) for root in (results, undisturbed))
        store.check_files(folder)
        assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
        for path in [*expected.glob("*.csv"), expected / "params.json"]:
            assert (folder / path.name).read_bytes() == path.read_bytes(), (pair, path.name)
        for file in ("weights.npz", "overlays.npz"):
            with np.load(folder / file) as one, np.load(expected / file) as other:
                assert one.files == other.files
                assert all(np.array_equal(one[key], other[key]) for key in one.files), (pair, file)
    store.check_files(folder.parents[1] / "cohorts")


def processes(parent, word):
    """Processes below one whose command has a word."""
    found = []
    for child in psutil.Process(parent.pid).children(recursive=True):
        try:
            found += [child] if word in child.cmdline() and child.name() not in ("bash", "sh") else []
        except psutil.Error:  # ended meanwhile
            continue
    return found


def read_until(text, process):
    """What a process says until it says this."""
    said = ""
    while text not in said:
        line = process.stderr.readline()
        assert line, said[-4000:]
        said += line
    return said


def wait_for(condition, process):
    while not (value := condition()):
        assert process.poll() is None, process.stderr.read()[-4000:]
        time.sleep(0.02)
    return value


# ---------------------------------------------------------------------------------------------
# Damage


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


DAMAGE = {
    ("unet-joint", 0): ("per_image.csv", cut, "per_image.csv: differs from its manifest"),
    ("unet-joint", 1): ("overlays.npz", flip, "overlays.npz: differs from its manifest"),
    ("unet-joint", 2): ("history.csv", Path.unlink, "history.csv: missing, though manifest.json names it"),
    ("unet-cap", 0): ("manifest.json", lambda path: path.write_bytes(b""), "manifest.json: not readable as JSON"),
    ("unet-cap", 1): ("manifest.json", lambda path: path.write_text("{}"), "manifest.json: expected data, files"),
    ("unet-cap", 2): ("params.json", cut, "params.json: differs from its manifest"),
}


def test_what_is_damaged_is_never_read_but_set_aside_and_computed_again(study, results, undisturbed):
    study_folder = store.study_folder(study[1], results)
    for pair, (file, damage, message) in DAMAGE.items():
        damage(folder_of(*pair, study, results) / file)
        with pytest.raises(LusbookError, match=message):
            runs.read_run(*pair, study[1], results)
    cut(study_folder / "cohorts" / "described.csv")
    spoilt = {pair: sorted(path.name for path in folder_of(*pair, study, results).iterdir()) for pair in DAMAGE}
    before = state(study, results, *DAMAGE)
    assert runs.stale_runs(study[1], results) == {}  # a manifest that cannot be read says nothing
    names, err = compute(study, results)
    assert names == sorted(f"{name} fold {fold}" for name, fold in DAMAGE)
    for (name, fold), (_, _, message) in DAMAGE.items():
        assert f"{message}" in err
        aside = folder_of(name, fold, study, results).with_name(f".fold-{fold}.damaged-1")
        assert sorted(path.name for path in aside.iterdir()) == spoilt[name, fold]
    assert (study_folder / ".cohorts.damaged-1" / "described.csv").exists()
    assert state(study, results, *DAMAGE) == before
    assert_same(study, results, undisturbed)
    assert runs.stale_runs(study[1], results) == {}


def test_damaged_weights_of_a_parent_are_trained_again(study, results, undisturbed):
    parent = folder_of("unet-cap", 0, study, results)
    flip(parent / "weights.npz")
    drop(study, results, ("unet-cap-then-covid", 0))
    names, err = compute(study, results)
    assert names == ["unet-cap-then-covid fold 0"]
    assert f"{parent / 'weights.npz'}: damaged; set aside as .fold-0.damaged-1" in err
    assert_same(study, results, undisturbed)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
@pytest.mark.parametrize("kind", ["checkpoint", "snapshot"])
def test_a_damaged_checkpoint_or_snapshot_is_not_gone_on_from(study, tmp_path, monkeypatch, capsys, kind, damage):
    """Of SIFA, whose snapshots are tested at the end of its training; operation by operation, in this process."""
    from lusbook import trials
    from tests.helpers import untraced

    monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", "0")
    trials.sifa_network.cache_clear()
    with untraced():
        expected = runs.run("sifa-cap-to-covid", 0, study[1], tmp_path / "undisturbed")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(trials, "test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            runs.run("sifa-cap-to-covid", 0, study[1], tmp_path)
        folder = folder_of("sifa-cap-to-covid", 0, study, tmp_path)
        damage(folder / f"{kind}-00000002.npz")
        runs.run("sifa-cap-to-covid", 0, study[1], tmp_path)
    trials.sifa_network.cache_clear()
    shown = capsys.readouterr().err
    assert f"{kind}-00000002.npz" in shown or (kind, damage) == ("checkpoint", Path.unlink)
    assert "goes on from iteration 1/2" in shown
    for path in expected.glob("*.csv"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_damaged_tables_that_a_chapter_only_reads_are_an_error(study, results):
    settings = study[1]
    folder = store.study_folder(settings, results) / "secondary"
    shutil.copytree(store.study_folder(settings, results) / "cohorts", folder)
    cut(folder / "described.csv")
    with pytest.raises(LusbookError, match=r"described.csv: differs from its manifest; `lusbook study` sets it aside"):
        runs.secondary(settings, results, compute=False)
    assert not list(folder.parent.glob(".secondary*"))


# ---------------------------------------------------------------------------------------------
# Processes that are killed, and started twice


@pytest.mark.slow
def test_killed_from_the_top_down(study, results, undisturbed):
    """The command is killed, the next one waits for its Snakemake, which is killed; of two runs one computes."""
    pair = ("sifa-cap-to-covid", 1)
    drop(study, results, pair)
    before = state(study, results, pair)
    with store.alone(folder_of(*pair, study, results)):  # both runs wait, until all is killed that is to be
        first = start("study", study, results, "--cores=2")
        said = read_until("fold-1: another process computes it; waiting", first)
        (snakemake,) = [p for p in processes(first, "snakemake") if p.ppid() == first.pid]
        (worker,) = processes(first, "run")
        first.kill()
        first.wait()
        second = start("study", study, results, "--cores=2")
        said += read_until("study: another process computes it; waiting", second)
        snakemake.kill()
        said += read_until("fold-1: another process computes it; waiting", second)
        assert worker.is_running()
    said += finish(second)[1] + first.stderr.read()  # to its end: no process is left that could write
    assert trained(said) == ["sifa-cap-to-covid fold 1"]
    assert state(study, results, pair) == before
    assert_same(study, results, undisturbed)
    first.stderr.close()


@pytest.fixture
def scarce():
    """A control group of 100 MiB, of which importing TensorFlow alone takes more: the kernel kills who wants more."""
    group = CONTROL_GROUPS / f"lusbook-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("100M")
    except OSError as error:
        pytest.skip(f"no control group (version 1) with less memory can be made here: {error}")
    yield group
    wait = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < wait:
        time.sleep(0.02)
    group.rmdir()


@pytest.mark.parametrize("cause", ["a signal", "the kernel, for memory"])
def test_a_killed_run_stops_no_other_and_memory_is_named(cause, study, results, undisturbed, request):
    scarce = request.getfixturevalue("scarce") if cause != "a signal" else None
    pairs = [("unet-joint", 0), ("sifa-cap-to-covid", 2)]
    drop(study, results, *pairs)
    process = start("study", study, results, "--cores=2")
    (worker,) = wait_for(lambda: processes(process, "unet-joint"), process)
    if scarce:
        (scarce / "cgroup.procs").write_text(str(worker.pid))
    else:
        worker.kill()
    _, err = finish(process, 1)
    if scarce:
        assert "oom_kill 1" in (scarce / "memory.oom_control").read_text()
    assert "lusbook: not completed: unet-joint fold 0\n  unet-joint: killed, as by a system whose memory runs" in err
    assert "lower unet_batch_size (4), unet_width (0.125), sifa_batch_size (2)" in err.splitlines()[-1]
    before = state(study, results, pairs[0])
    assert compute(study, results)[0] == ["unet-joint fold 0"]
    assert state(study, results, pairs[0]) == before
    assert_same(study, results, undisturbed)


@pytest.mark.slow
def test_two_studies_in_one_folder_compute_it_once(study, results, undisturbed):
    drop(study, results, ("unet-joint", 2))
    two = [start("study", study, results, "--cores=1") for _ in range(2)]
    said = [finish(process)[1] for process in two]
    assert sorted("study: another process computes it; waiting" in err for err in said) == [False, True]
    assert trained("\n".join(said)) == ["unet-joint fold 2"]
    assert_same(study, results, undisturbed)


KILLED_WRITING = """
import os, signal
replace = os.replace
def killed(source, target):
    if str(target).endswith("manifest.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
"""


def test_killed_while_the_manifest_is_written(study, results, undisturbed):
    drop(study, results, ("unet-joint", 1))
    options = ["unet-joint", "--fold=1", "--threads=1"]
    process = start("run", study, results, *options, before=KILLED_WRITING)
    process.communicate(timeout=900)
    folder = folder_of("unet-joint", 1, study, results)
    assert process.returncode == -signal.SIGKILL
    assert list(folder.glob(".manifest.json.*")) and not (folder / "manifest.json").exists()
    with pytest.raises(LusbookError, match="incomplete run, no manifest.json"):
        runs.read_run("unet-joint", 1, study[1], results)
    finish(start("run", study, results, *options))
    assert_same(study, results, undisturbed)


# ---------------------------------------------------------------------------------------------
# Disks, clocks, memory, data


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


def test_a_full_disk_is_one_line(study, results, undisturbed):
    """A file may have 16 kB: tables and the check before all have room, weights have not."""
    pytest.importorskip("resource")
    drop(study, results, ("unet-joint", 1))
    options = ["unet-joint", "--fold=1", "--threads=1"]
    _, err = finish(start("run", study, results, *options, before=FULL), 1)
    folder = folder_of("unet-joint", 1, study, results)
    line = err[err.index("lusbook: failed runs:\n") :].splitlines()[1]  # whichever of its files is too large
    assert line.startswith(f"  unet-joint fold 1: LusbookError: {folder}") and "cannot be written" in line
    assert err.rstrip().endswith("are kept") and not (folder / "manifest.json").exists()
    finish(start("run", study, results, *options))
    assert_same(study, results, undisturbed)


def test_results_that_cannot_be_written_are_refused_and_read(study, results, monkeypatch):
    """A file is where the folder should be: permissions do not bind root."""
    place = results.with_name("read-only")
    place.touch()
    _, err = finish(start("study", study, place), 1)
    assert err.splitlines()[-1].startswith(f"lusbook: results folder {place}") and "nothing computed" in err
    for name in ("check_writable", "alone"):
        monkeypatch.setattr(runs, name, lambda *_: pytest.fail("a finished study is only read"))
    assert len(runs.study(study[1], ["unet-cap", "unet-cap-then-covid"], results))


def allow(results, folders, files):
    """Set the permissions of all folders and files of studies."""
    for path in (results, *results.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


def test_read_only_results_are_read_and_left_as_they_are(study, results, undisturbed):
    within = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []  # permissions do not bind root
    if within and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that right away")
    allow(results, 0o555, 0o444)
    _, err = finish(start("run", study, results, within=within))
    assert not trained(err)
    allow(results, 0o755, 0o644)
    drop(study, results, ("unet-joint", 0))
    allow(results, 0o555, 0o444)
    before = state(study, results, ("unet-joint", 0))
    _, err = finish(start("study", study, results, within=within), 1)
    assert err.splitlines()[-1].startswith(f"lusbook: results folder {results}") and "nothing computed" in err
    assert state(study, results, ("unet-joint", 0)) == before
    allow(results, 0o755, 0o644)
    assert compute(study, results)[0] == ["unet-joint fold 0"]
    assert_same(study, results, undisturbed)


def test_clocks_do_not_matter(study, results, undisturbed):
    """What is finished is from the future, its parts in reverse order; the parent of what is missing is the newest."""
    folders = sorted({path.parent for path in results.rglob("*") if path.is_file()}, reverse=True)
    for n, folder in enumerate(folders):
        for path in (*folder.iterdir(), folder):
            os.utime(path, (time.time() + 1e6 + n,) * 2)
    pair = ("unet-cap-then-covid", 0)
    drop(study, results, pair)
    before = state(study, results, pair)
    _, err = finish(start("study", study, results, "--cores=2", "--no-together"))
    assert trained(err) == ["unet-cap-then-covid fold 0"]
    assert state(study, results, pair) == before
    assert_same(study, results, undisturbed)


def test_nothing_asks_for_the_time_of_day():
    for path in sorted((PROJECT / "lusbook").rglob("*.py")):
        if path.name == "provenance.py":  # gives results a date, and picks what to verify by the week
            continue
        assert not re.search(r"time\.time\(|\bdatetime\b|getmtime", path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")]
)
def test_out_of_memory_in_one_run(study, tmp_path, monkeypatch, error):
    from lusbook import trials

    def trial(experiment, fold, *rest, **keep):
        if fold == 1:
            raise error
        return {"tables": {"per_image": table}, "overlays": {}, "weights": [], "machine": {}}

    table = runs.pd.DataFrame({"dice": [0.5]})
    monkeypatch.setattr(trials, "run_trial", trial)
    said = r"^failed runs:\n  unet-cap fold 1: LusbookError: out of memory; lower unet_batch_size \(4\), "
    said += r"unet_width \(0.125\) or image_size \(16\), or start fewer runs at a time \(--cores, --runs-per-gpu\)$"
    with pytest.raises(LusbookError, match=said):
        runs.run_all(["unet-cap"], FOLDS, study[1], tmp_path)
    done = [(folder_of("unet-cap", fold, study, tmp_path) / "manifest.json").exists() for fold in FOLDS]
    assert done == [True, False, True]


def test_changed_data_are_named_and_computed_again_when_asked(study, results):
    manifest = Path(study[1].cohorts)
    image = next(manifest.parent.glob("cap-*-mask.png"))
    kept = image.read_bytes()
    shutil.copy(manifest.parent / "covid-0-0-mask.png", image)
    try:
        assert image.read_bytes() != kept
        with pytest.raises(LusbookError, match=r"other settings or data \(data cap\); remove it, or give another"):
            runs.run("unet-cap", 0, study[1], results)
        _, err = finish(start("study", study, results), 1)
        assert f"{store.study_folder(study[1], results)}: rows or files of cap changed since cohorts, sifa-" in err
        assert "and 22 more were computed; `lusbook study --recompute` replaces these" in err
        runs.remove_stale_runs(study[1], results)
        assert store.manifest_folders(store.study_folder(study[1], results)) == []
    finally:
        image.write_bytes(kept)


def test_a_changed_preset_is_named(study, results):
    """The same name of a study, but other settings behind it."""
    other = study[1].model_copy(update={"unet_iterations": 3})
    shutil.move(store.study_folder(study[1], results), store.study_folder(other, results))
    with pytest.raises(LusbookError, match="settings unet_iterations changed since unet-cap/fold-0, unet-cap/fold-1"):
        runs.refuse_outdated(other, results)


# ---------------------------------------------------------------------------------------------
# Chapters


def test_a_chapter_whose_kernel_dies_stops_no_other(tmp_path, monkeypatch):
    import contextlib

    import nbformat

    from lusbook import chapters

    class Pool(contextlib.nullcontext):
        map = staticmethod(map)

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = {"first": "import os; os.kill(os.getpid(), 9)", "second": "1 + 1"}
    (tmp_path / "book").mkdir()
    for name, cell in cells.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
        nbformat.write(notebook, tmp_path / "book" / f"{name}.ipynb")
    before = (tmp_path / "book" / "first.ipynb").read_bytes()
    monkeypatch.setattr(chapters, "PROJECT", tmp_path)
    monkeypatch.setattr(chapters, "chapter_names", lambda: list(cells))
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: Pool(Pool()))
    with pytest.raises(LusbookError, match=r"^failed chapters:\n  chapter first: its kernel died, as where memory"):
        chapters.execute_book(out=tmp_path)
    assert (tmp_path / "book" / "first.ipynb").read_bytes() == before
    outputs = nbformat.read(tmp_path / "book" / "second.ipynb", as_version=4).cells[0].outputs
    assert outputs[0]["data"]["text/plain"] == "2"
    assert sorted(path.name for path in (tmp_path / "book").iterdir()) == ["first.ipynb", "second.ipynb"]
