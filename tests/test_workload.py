"""The count of a study's work, and the question before a long computation."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from lusbook import cli, doctor, workload
from lusbook.cohort import Cohort, fold_indices
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.performance import load_benchmark
from lusbook.settings import make_settings
from lusbook.store import run_folder
from tests.helpers import write_manifest

SIZES = {"covid": [319, 319, 339], "cap": [148, 111, 67]}


def cohort(name, counts, side=8):
    folds = np.repeat(FOLDS, counts)
    images = np.zeros((len(folds), side, side), np.uint8)
    return Cohort(name, images, images > 0, np.char.add("p", folds.astype(str)), folds)


@pytest.fixture
def device(monkeypatch):
    """Name what the backend finds; without a name, nobody may look."""

    def found(name=None):
        def find_backend():
            assert name, "a GPU was looked for"
            return "tensorflow", name

        monkeypatch.setattr(doctor, "find_backend", find_backend)

    return found


def test_cohort_sizes_of_the_phantom_and_of_a_manifest(tmp_path):
    assert workload.cohort_sizes(make_settings("paper")) == SIZES
    settings = make_settings("smoke", cohorts=str(write_manifest(tmp_path)))
    assert workload.cohort_sizes(settings) == {"covid": [4, 4, 4], "cap": [4, 4, 4]}


@pytest.mark.parametrize("preset", ["paper", "demo"])
def test_iterations_are_those_that_a_training_asks_for(preset, monkeypatch, tmp_path):
    from lusbook import trials

    asked = []
    monkeypatch.setattr(trials, "fit", lambda step, batch, iterations, *rest, **keep: asked.append(iterations))
    rate = SimpleNamespace(assign=lambda value: None)
    network = SimpleNamespace(optimizer=SimpleNamespace(rate=rate), step=None, state=[], initial=[], weights=[])
    monkeypatch.setattr(trials, "unet_network", lambda *settings: network)
    np.savez(tmp_path / "weights.npz", 0)
    settings = make_settings(preset)
    cohorts = {name: cohort(name, counts) for name, counts in SIZES.items()}
    for experiment in EXPERIMENTS.values():
        if experiment.method == "sifa":
            assert workload.iterations(experiment, 0, settings, SIZES) == settings.sifa_iterations
            continue
        for fold in FOLDS:
            training = {name: c.subset(fold_indices(c, fold)[0]) for name, c in cohorts.items()}
            trials.train_unet(experiment, training, settings, (0,), tmp_path / "weights.npz", "")
            assert asked.pop() == workload.iterations(experiment, fold, settings, SIZES)


def test_rough_seconds_grow_with_pixels_and_width():
    settings = make_settings("paper", image_size=128, sifa_batch_size=4)
    rows = load_benchmark("sifa")["quantities"]
    measured = next(row["median"] for row in rows if row["name"] == "128 px iteration, sequential")
    assert workload.rough_seconds("sifa", settings) == pytest.approx(measured)
    larger = settings.model_copy(update={"image_size": 256, "sifa_batch_size": 12, "sifa_width": 0.5})
    assert workload.rough_seconds("sifa", larger) == pytest.approx(4 * 3 * 0.5 * measured)


def test_without_benchmarks_nothing_is_known_and_nothing_refused(monkeypatch, device):
    monkeypatch.setattr(workload, "load_benchmark", lambda *_: None)
    device()
    assert math.isnan(workload.rough_seconds("unet", make_settings("paper")))
    workload.require_gpu(EXPERIMENTS, FOLDS, make_settings("paper"))


def test_rough_hours_are_a_sum_over_runs():
    settings = make_settings("paper")
    expected = 2750 * workload.rough_seconds("unet", settings) + 10_000 * workload.rough_seconds("sifa", settings)
    found = workload.rough_hours([("unet-cap", 0), ("sifa-cap-to-covid", 2)], settings)
    assert 3600 * found == pytest.approx(expected)


def test_what_is_there_is_not_computed_and_parents_are(tmp_path):
    settings = make_settings("smoke")
    done = run_folder("unet-covid", 1, settings, tmp_path)
    done.mkdir(parents=True)
    (done / "manifest.json").touch()
    wanted = (["unet-covid", "unet-covid-then-cap"], [1], settings, tmp_path)
    # The parent is complete, but its weights, which are never committed, are gone.
    assert workload.runs_to_compute(*wanted) == {("unet-covid-then-cap", 1), ("unet-covid", 1)}
    (done / "weights.npz").touch()
    assert workload.runs_to_compute(*wanted) == {("unet-covid-then-cap", 1)}
    assert workload.runs_to_compute(*wanted, stale=["unet-covid/fold-1"]) == {
        ("unet-covid-then-cap", 1),
        ("unet-covid", 1),
    }


@pytest.mark.parametrize("preset", ["demo", "smoke"])
def test_small_presets_do_not_even_look_for_a_gpu(preset, device, tmp_path):
    device()
    workload.require_gpu(EXPERIMENTS, FOLDS, make_settings(preset), tmp_path)


def test_the_paper_needs_a_gpu_or_a_word(device, tmp_path):
    everything = (EXPERIMENTS, FOLDS, make_settings("paper"), tmp_path)
    device("NVIDIA H100")
    workload.require_gpu(*everything)
    for name in ("CPU", "cpu"):  # as TensorFlow and JAX write it
        device(name)
        with pytest.raises(LusbookError, match=r"no GPU was found.*24 runs take about [\d.]+ days.*--without-gpu"):
            workload.require_gpu(*everything)
    for name in EXPERIMENTS:
        for fold in FOLDS:
            folder = run_folder(name, fold, everything[2], tmp_path)
            folder.mkdir(parents=True)
            (folder / "manifest.json").touch()
    device()
    workload.require_gpu(*everything)  # a finished study is read anywhere


def test_run_refuses_before_anything_is_computed(device, tmp_path):
    device("CPU")
    options = {"preset": "paper", "results": tmp_path}
    with pytest.raises(LusbookError, match="3 runs take about"):
        cli.run(["sifa-cap-to-covid"], **options)
    with pytest.raises(LusbookError, match="24 runs take about"):
        cli.study(**options)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_run_goes_on_when_told_to(device, monkeypatch, tmp_path):
    from lusbook import runs

    device()
    computed = []
    monkeypatch.setattr(runs, "run_all", lambda names, folds, settings, results: computed.append((names, folds)))
    cli.run(["sifa-cap-to-covid"], fold=[1], preset="paper", results=tmp_path, without_gpu=True)
    assert computed == [(["sifa-cap-to-covid"], [1])]


def estimated(seconds=0.5, memory=1.5, device="CPU"):
    return {method: {"times": [0.1, seconds], "memory": memory, "device": device} for method in workload.METHODS}


def test_a_scheduler_is_asked_for_twice_the_slowest_iteration():
    settings = make_settings("demo")
    pairs = [("sifa-covid-to-cap", fold) for fold in FOLDS]
    found = workload.needs(pairs, settings, estimated())
    minutes = 2 * 3 * settings.sifa_iterations * 0.5 / 60
    assert found == {"runtime": workload.START_MINUTES + math.ceil(minutes), "mem_mb": 3072, "gpu": 0}
    assert workload.needs(pairs, settings, estimated(device="NVIDIA H100"))["gpu"] == 1
    both = workload.needs([*pairs, ("unet-covid", 0)], settings, estimated())
    assert both["runtime"] > found["runtime"]


def test_without_a_measurement_it_goes_by_benchmarks(monkeypatch):
    settings = make_settings("demo")
    found = workload.needs([("unet-covid", 0)], settings)
    assert workload.START_MINUTES < found["runtime"] < 60 and found["mem_mb"] == 8192 and found["gpu"] == 0
    monkeypatch.setattr(workload, "load_benchmark", lambda *_: None)
    assert workload.needs([("unet-covid", 0)], settings)["runtime"] == workload.START_MINUTES + 24 * 60


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"unet": {}}', '{"unet": {"times": [], "memory": 1, "device": "CPU"}}']
)
def test_another_file_is_no_estimate(tmp_path, text):
    path = tmp_path / "estimate.json"
    path.write_text(text)
    with pytest.raises(LusbookError, match=r"estimate\.json: expected a file that `lusbook estimate --out` wrote"):
        workload.read_estimate(path)
    path.write_text(json.dumps(estimated()))
    assert workload.read_estimate(path) == estimated()
