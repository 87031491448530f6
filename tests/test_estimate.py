"""How long a study takes: what is timed, and what it comes to."""

from concurrent.futures.process import BrokenProcessPool
from itertools import compress, product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lusbook import estimate
from lusbook.errors import LusbookError, OutOfTime
from lusbook.experiments import EXPERIMENTS, packs
from lusbook.settings import make_settings
from lusbook.workload import cohort_sizes, iterations
from tests.helpers import untraced

MACHINE = {"backend": "tensorflow", "device": "CPU", "cores": 2, "threads": 1, "memory": 1.5, "device_memory": None}
MEASURED = {
    "unet": MACHINE | {"first": 5.5, "times": [0.4, 0.5, 0.7]},
    "sifa": MACHINE | {"first": 24.0, "times": [3.0, 4.0, 6.0]},
}


@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 10), (20.0, 3), (7.0, 5)])
def test_timing_ends_after_enough_iterations_or_seconds(seconds, expected, monkeypatch):
    clock = iter(np.arange(100) * seconds)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    starts, done = [], []
    step = estimate.timed(done.append, starts)
    with pytest.raises(OutOfTime):
        for number in range(100):
            step(number)
    first, *times = np.diff(starts)
    assert len(times) == expected
    assert {first, *times} == {seconds}
    assert done == list(range(expected + 1))  # the last start computes nothing


def test_the_table_multiplies_and_adds():
    settings = make_settings("demo")
    sizes = cohort_sizes(settings)
    table = estimate.estimate_table(settings, MEASURED, sizes)
    assert list(table.index) == [*EXPERIMENTS, "study"]
    assert table.loc["sifa-cap-to-covid", "iterations"] == 3 * 450
    assert table.loc["sifa-cap-to-covid", ["low", "seconds", "high"]].tolist() == [20 + 3 * 450 * s for s in (3, 4, 6)]
    assert table.loc["unet-cap", "seconds"] == pytest.approx(5 + 3 * 120 * 0.5)
    assert table.loc["unet-cap-then-covid", "seconds"] == pytest.approx(3 * 30 * 0.5)  # compiled by its parent
    each = table.drop("study")
    assert table.loc["study", "runs"] == 24
    for column in ("iterations", "low", "seconds", "high"):
        assert table.loc["study", column] == pytest.approx(each[column].sum())


def test_the_table_counts_epochs_by_the_size_of_each_training_set():
    settings = make_settings("paper")
    sizes = cohort_sizes(settings)
    table = estimate.estimate_table(settings, MEASURED, sizes)
    expected = sum(iterations(EXPERIMENTS["unet-joint"], fold, settings, sizes) for fold in range(3))
    assert table.loc["unet-joint", "iterations"] == expected == 250 * sum((836 // 16, 873 // 16, 897 // 16))


def test_side_by_side():
    seconds = pd.Series(np.random.default_rng(0).random(len(EXPERIMENTS)), EXPERIMENTS)
    processes = [sum(seconds[name] for name in names) for names in packs().values()]
    assert estimate.side_by_side(seconds, 1) == pytest.approx(seconds.sum())
    assert estimate.side_by_side(seconds, 99) == pytest.approx(max(processes))
    first = (sum(compress(processes, chosen)) for chosen in product((0, 1), repeat=len(processes)))
    best = min(max(part, seconds.sum() - part) for part in first)
    assert best - 1e-9 <= estimate.side_by_side(seconds, 2) <= (4 / 3 - 1 / 6) * best  # Graham's bound
    assert estimate.side_by_side(pd.Series(1.0, EXPERIMENTS), 2) == 4.0  # 2, 2, 1, 1, 1, 1: four on each


def test_the_report_says_what_it_timed_and_what_it_adds_up_to():
    text = estimate.report(make_settings("demo"), MEASURED, 2)
    assert "tensorflow on CPU" in text
    assert "2 processes at a time: " in text
    assert "sifa: 3 iterations timed; a process took 1.5 GiB\n" in text
    row = next(line for line in text.splitlines() if line.startswith("sifa-cap-to-covid"))
    assert row.split() == ["sifa-cap-to-covid", "3", "1350", "4", "90.3", "min", "67.8", "min", "–", "2.26", "h"]


def test_one_gpu_serves_one_process_at_a_time():
    gpu = {name: found | {"device": "NVIDIA H100", "device_memory": 20.25} for name, found in MEASURED.items()}
    text = estimate.report(make_settings("paper"), gpu, 16)
    assert "one process at a time: the study takes the sum" in text
    assert "a process took 1.5 GiB, and 20.2 GiB of the device's" in text


@pytest.mark.parametrize("method", ["unet", "sifa"])
def test_iterations_are_timed_as_a_study_runs_them(method, monkeypatch):
    from lusbook import trials

    monkeypatch.setattr(estimate, "TIMED", 2)
    built = []
    network = getattr(trials, f"{method}_network")

    def build(*options):
        built.append(network(*options))
        built.append(built[-1].step)
        return built[-2]

    monkeypatch.setattr(trials, f"{method}_network", build)
    with untraced():
        found = estimate.measure(method, make_settings("smoke"))
    assert len(found["times"]) == 2
    assert min(found["times"]) > 0
    assert found["first"] > 0
    assert 0.05 < found["memory"] < 500
    assert found["device"] == trials.machine()["device"]
    assert built[0].step is built[1]  # as it was


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BrokenProcessPool(), "timing unet at 32 px: its process was ended, perhaps for want of memory"),
        (ValueError("no room"), "timing unet at 32 px: ValueError: no room"),
        (LusbookError("no such"), "^no such$"),
    ],
)
def test_a_process_that_fails_is_one_clear_line(error, message, monkeypatch):
    class Pool:
        def __init__(self, *options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        def submit(self, *call):
            raise error

    monkeypatch.setattr(estimate, "ProcessPoolExecutor", Pool)
    with pytest.raises(LusbookError, match=message):
        estimate.measure_methods(make_settings("smoke"))
