"""Queues: what they accept, and that they end inside their budget."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lusbook import queues, runs, store
from lusbook.errors import Interrupted, LusbookError
from lusbook.settings import PROJECT
from tests.helpers import write_manifest


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "accelerator.py").write_text("print('fast')\n")
    monkeypatch.setattr(queues, "BENCHMARKS", folder)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return str(write_manifest(tmp_path_factory.mktemp("cohort")))


def write(folder, *entries):
    path = folder / "queue.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def smoke(manifest, *experiments, **more):
    return {"preset": "smoke", "set": {"cohorts": manifest}, "experiments": list(experiments), "folds": [0], **more}


def test_the_gpu_queue_is_valid_and_in_its_order(benchmarks, tmp_path):
    jobs = queues.read_queue(PROJECT / "data" / "queues" / "gpu.yaml", tmp_path)
    assert jobs[0].title == "benchmark accelerator"
    assert len({job.folder for job in jobs}) == len(jobs) == 1 + 24 + 5 + 24 + 2 * 24 - 2
    settings = [job.settings for job in jobs[1:]]
    assert [(s.image_size, s.sifa_updates) for s in settings[:24]] == [(128, "simultaneous")] * 24
    assert [job.name.startswith("sifa") for job in jobs[1:25]] == [False] * 15 + [True] * 9
    assert [(s.sifa_updates, s.seed) for s in settings[24:29]] == [
        ("sequential", 0), ("sequential", 1), ("simultaneous", 1), ("sequential", 2), ("simultaneous", 2)
    ]  # fmt: skip
    assert {(s.image_size, s.sifa_updates, s.seed) for s in settings[29:53]} == {(256, "sequential", 0)}
    assert [s.seed for s in settings[53:]] == [1] * 23 + [2] * 23
    assert all(s.sifa_iterations == 10_000 and s.sifa_batch_size == 12 for s in settings)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"preset": "huge"}, "entry 2: preset 'huge': no file"),
        ({"preset": "smoke", "experiments": ["unet-flu"]}, r"entry 2: 'experiments.0': .*'unet-cap'.*'unet-flu'"),
        ({"preset": "smoke", "folds": [3]}, "entry 2: 'folds.0': input should be 0, 1 or 2, received 3"),
        ({"preset": "smoke", "folds": []}, "entry 2: 'folds': .*at least 1 item"),
        ({"preset": "smoke", "set": {"image_size": 100}}, "entry 2: preset 'smoke': setting 'image_size': .*100"),
        ({"preset": "smoke", "sets": {}}, "entry 2: unknown key 'sets'; expected preset, set, experiments"),
        ({"preset": "smoke", "set": {"cohorts": "/nowhere/m.csv"}}, "entry 2: .*/nowhere/m.csv"),
        ({"folds": [0]}, "entry 2: expected either preset or benchmark"),
        ({"benchmark": "accelerator", "folds": [0]}, "entry 2: expected nothing else beside benchmark"),
        ({"benchmark": "abacus"}, "entry 2: benchmark 'abacus': no such script; expected one of accelerator"),
        ("smoke", "entry 2: expected a mapping, received 'smoke'"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(entry, message, benchmarks, manifest, tmp_path):
    path = write(tmp_path, smoke(manifest, "unet-cap"), entry)
    with pytest.raises(LusbookError, match=f"^queue {path}: {message}"):
        queues.work(path, 25, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("a: 1", "expected a list of entries, received dict"), ("[", "not readable as YAML")]
)
def test_a_file_that_is_no_queue_is_named(text, message, tmp_path):
    (tmp_path / "queue.yaml").write_text(text)
    with pytest.raises(LusbookError, match=f"queue.yaml: {message}"):
        queues.read_queue(tmp_path / "queue.yaml")
    with pytest.raises(LusbookError, match="missing.yaml: cannot be read"):
        queues.read_queue(tmp_path / "missing.yaml")


def test_with_enough_time_everything_is_done_once(benchmarks, manifest, tmp_path, capsys):
    path = write(
        tmp_path,
        {"benchmark": "accelerator"},
        smoke(manifest, "unet-cap-then-covid", "unet-cap"),
        smoke(manifest, "unet-cap"),
        smoke(manifest, "sifa-covid-to-cap"),
    )
    assert queues.work(path, 25, tmp_path / "results") == []
    out = capsys.readouterr().out
    assert out.startswith("fast\n")
    assert f"{path}: 4 done now, 0 before, 0 left, 0 failed of 4" in out
    assert (tmp_path / "results" / "benchmarks" / "accelerator.txt").read_text() == "fast\n"
    for job in queues.read_queue(path, tmp_path / "results")[1:]:
        assert queues._is_finished(job)
    assert queues.work(path, 0, tmp_path / "results") == []
    assert capsys.readouterr().out == f"{path}: 0 done now, 4 before, 0 left, 0 failed of 4\n"


def test_with_too_little_time_it_stops_inside_its_budget_and_goes_on(manifest, tmp_path, monkeypatch, capsys):
    path = write(
        tmp_path, smoke(manifest, "unet-cap", "unet-covid", set={"cohorts": manifest, "unet_iterations": 3000})
    )
    monkeypatch.setattr(queues, "FINISH_SECONDS", 2.0)
    monkeypatch.setattr(queues, "START_SECONDS", 0.0)
    folder = queues.read_queue(path, tmp_path)[0].folder
    reached, minutes = [0], 4 / 60
    for _ in range(2):
        start = time.monotonic()
        left = queues.work(path, minutes, tmp_path)
        assert time.monotonic() - start < 60 * minutes
        assert [title.partition(":")[0].split("  ")[1] for title in left] == ["unet-cap fold 0", "unet-covid fold 0"]
        assert "not started" in left[1]
        assert f"time is up at iteration {newest(folder)} of 3000; the same command goes on from there" in left[0]
        assert (
            "0 done now, 0 before, 2 left, 0 failed of 2\nThe same command goes on from here."
            in capsys.readouterr().out
        )
        reached.append(newest(folder))
    assert reached == sorted(set(reached))


def newest(folder):
    return max(int(path.name[11:-4]) for path in folder.glob("checkpoint-*.npz"))


def test_nothing_is_started_in_the_last_minutes(benchmarks, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run", lambda *_: pytest.fail("started"))
    path = write(tmp_path, {"benchmark": "accelerator"}, smoke(manifest, "unet-cap"))
    minutes = (queues.FINISH_SECONDS + queues.START_SECONDS) / 60
    assert [title.endswith("not started") for title in queues.work(path, minutes, tmp_path)] == [True, True]


def test_a_failure_stops_no_other_and_an_interruption_does(benchmarks, manifest, tmp_path, monkeypatch, capsys):
    def run(name, *rest):
        raise Interrupted("stop") if name == "unet-covid" else LusbookError("broken")

    monkeypatch.setattr(runs, "run", run)
    (benchmarks / "accelerator.py").write_text("raise SystemExit(3)\n")
    path = write(tmp_path, {"benchmark": "accelerator"}, smoke(manifest, "unet-cap"))
    with pytest.raises(LusbookError, match=r"failed runs:\n  benchmark.*exit status 3\n  smoke.*LusbookError: broken"):
        queues.work(path, 25, tmp_path)
    assert "0 left, 2 failed of 2" in capsys.readouterr().out
    with pytest.raises(Interrupted, match="^stop$"):
        queues.work(write(tmp_path, smoke(manifest, "unet-covid", "unet-cap")), 25, tmp_path)


def test_a_benchmark_ends_at_the_deadline_with_what_it_started(benchmarks, tmp_path, monkeypatch):
    (benchmarks / "accelerator.py").write_text(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    monkeypatch.setattr(queues, "FINISH_SECONDS", 0.0)
    monkeypatch.setattr(queues, "START_SECONDS", 0.0)
    (left,) = queues.work(write(tmp_path, {"benchmark": "accelerator"}), 2 / 60, tmp_path)
    assert "time is up" in left
    assert not (tmp_path / "benchmarks" / "accelerator.txt").exists()
    child = Path("/proc") / (tmp_path / "pid").read_text()
    if child.parent.exists():
        time.sleep(0.2)
        assert not child.exists() or "\nState:\tZ" in (child / "status").read_text()


def test_the_command_on_jax(manifest, tmp_path):
    pytest.importorskip("jax")
    path = write(tmp_path, smoke(manifest, "unet-cap"))
    command = [str(Path(sys.executable).with_name("lusbook")), "queue", str(path), f"--results={tmp_path}"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    for done, before in ((1, 0), (0, 1)):
        ended = subprocess.run([*command, "--threads=1"], capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert ended.stdout.endswith(f"{path}: {done} done now, {before} before, 0 left, 0 failed of 1\n")
    (manifest_path,) = tmp_path.rglob("fold-0/manifest.json")
    assert store.read_json(manifest_path)["backend"] == "jax"
