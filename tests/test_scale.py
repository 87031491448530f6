"""A study that nobody has run: its needs by hand, and the rule of what breaks first."""

import json
import math

import pytest

from lusbook import scale
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import make_settings
from tests.test_growth import MACHINE, scaling

RATES = {"phantom": 0.36, "metrics": 0.0036, "tables": 0.036, "held": 1e-3, "kept": 1e-6, "testing": 0.036}
RATES |= {"scheduling": 0.01, "row_bytes": 100, "history_bytes": 10, "other_bytes": 1000, "rows": 2, "files": 6}


@pytest.fixture
def folder(tmp_path):
    """Benchmarks of round numbers."""
    contents = {
        "unet": {"quantities": [{"name": "256 px step, lusbook", "median": 2.0}], "options": {"batch": 16, "width": 1}},
        "sifa": {
            "quantities": [{"name": "256 px iteration, sequential", "median": 36.0}],
            "options": {"batch": 12, "width": 1},
        },
        "scaling": scaling(),
        "many_runs": {"quantities": [{"name": "5 runs: from nothing to the table", "median": 10.0, "runs": 5}]},
        "inference": {"quantities": [{"name": "batch 16 keras", "median": 20.0}]},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content | {"machine": MACHINE}))
    return tmp_path


def plan(folder, frames=1303, runs=24, **changed):
    return scale.Plan(frames, runs, make_settings("paper", **changed), 100.0, folder)


def test_a_study_of_the_papers_size_has_the_papers_iterations(folder):
    table = scale.training(plan(folder))
    assert table["runs"].to_dict() == {"unet": 15, "sifa": 9}
    assert table.loc["sifa", "iterations"] == 10_000
    assert table.loc["sifa", "cpu_hours"] == pytest.approx(9 * 10_000 * 36 / 3600)
    assert table["gpu_hours"].tolist() == pytest.approx((table["cpu_hours"] / 100).tolist())
    assert not table["measured"].any() and sum(e.method == "sifa" for e in EXPERIMENTS.values()) == 3


def test_epochs_grow_with_frames_and_iterations_of_sifa_do_not(folder):
    one, ten = (scale.training(plan(folder, frames=frames)) for frames in (13_030, 130_300))
    assert ten.loc["unet", "iterations"] == pytest.approx(10 * one.loc["unet", "iterations"], rel=0.01)
    assert ten.loc["sifa", "iterations"] == one.loc["sifa", "iterations"]


def test_a_gpu_that_was_measured_takes_the_place_of_the_assumed_one(folder):
    rows = [{"name": "sequential 256 px float32, iteration", "median": 0.5}]
    (folder / "accelerator.json").write_text(json.dumps({"quantities": rows}))
    table = scale.training(plan(folder, image_size=128))
    assert table["measured"].to_dict() == {"unet": False, "sifa": True}
    assert table.loc["sifa", "gpu_seconds"] == pytest.approx(0.5 / 4)
    text = scale.gpu_text(plan(folder), table, 30)
    assert (
        text.startswith("In 30 days that takes ") and "No GPU was measured for U-Net:" in text and "100 times" in text
    )


def test_needs_are_rates_times_sizes(folder):
    found = scale.needs(plan(folder, frames=1_303_000, runs=48), RATES)
    assert found["simulating"] == pytest.approx(1_303_000 * 0.36 / 3600)
    assert found["testing"] == pytest.approx(48 * 1_303_000 / 3 * 0.036 / 3600)
    assert found["memory"] == pytest.approx(1303) and found["table memory"] == pytest.approx(1.303)
    assert found["files"] == 2 * 1_303_000 + 48 * 6 and found["scheduling"] == pytest.approx(0.48)
    assert found["frames"] == pytest.approx(1_303_000 * 256**2 * 1.125 / 1e9)
    smaller = scale.needs(plan(folder, frames=1_303_000, runs=48, image_size=128), RATES)
    assert smaller["memory"] == pytest.approx(found["memory"] / 4) and smaller["tables"] == found["tables"]


def test_what_is_used_up_at_the_fewest_frames_breaks_first(folder):
    study = plan(folder, frames=100_000, runs=24)
    table = scale.breaking(study, RATES, scale.limits(cores=2, memory_gib=10, disk_tb=1, days=1, gpus=1000))
    assert set(table.index) == set(scale.RESOURCES) and table["full"].is_monotonic_increasing
    assert table.index[0] == "training" and table.loc["training", "full"] == 0  # SIFA alone takes longer
    assert table.loc["memory", "full"] == pytest.approx(10_000)
    assert math.isinf(table.loc["scheduling", "full"])
    assert scale.first_broken(table).startswith("training on this CPU, before any frame: ")
    others = table.drop(index=["training", "testing", "gpu"])
    assert scale.first_broken(others).startswith("memory of a run's process, at 10,000 frames: a run holds all images")
    # At the number of frames that a limit names, the need is the limit.
    at = scale.needs(study._replace(frames=round(table.loc["tables", "full"])), RATES)
    assert at["tables"] == pytest.approx(table.loc["tables", "limit"], rel=1e-3)


def test_rates_come_from_the_files_and_the_study(folder, tmp_path):
    rates = scale.measured_rates(folder)
    assert rates["phantom"] == 0.002 and rates["tables"] == pytest.approx(0.008)
    assert rates["scheduling"] == 2 and rates["testing"] == 0.05
    assert rates["held"] * 2**30 == pytest.approx(1e6)
    assert 40 < rates["row_bytes"] < 200 and 10 < rates["history_bytes"] < 200 and 4 < rates["files"] < 10
    assert 1 < rates["rows"] < 5
    assert scale.measured_rates(folder, tmp_path / "nothing") is None
    (folder / "many_runs.json").unlink()
    assert scale.measured_rates(folder) is None


def test_tables_are_text(folder):
    study = plan(folder)
    table = scale.breaking(study, RATES, scale.limits(2, 24, 10, 30, 8))
    shown = scale.breaking_table(table)
    assert shown.loc["number of files", ["needed", "there is"]].tolist() == ["2,750", "1,000,000"]
    assert set(scale.training_table(scale.training(study)).index) == {"U-Net", "SIFA"}
