"""Tables of measured speed."""

import pytest

from lusbook import performance


@pytest.fixture
def benchmark():
    row = {"unit": "s", "min": 1.0, "max": 3.0, "repeats": 5}
    rows = [
        row | {"name": "64 px iteration, plain", "median": 2.0},
        row | {"name": "64 px floor, plain", "median": 1.25},
        row | {"name": "64 px iteration, sequential", "median": 1.5},
        row | {"name": "64 px floor, sequential", "median": 1.0},
        row
        | {
            "name": "64 px sequential / plain",
            "unit": "",
            "median": 0.75,
            "target": 0.7,
            "bound": "at most",
            "met": False,
        },
    ]
    machine = {
        "processor": "P",
        "usable_cores": 1,
        "cores": 2,
        "memory_gib": 7.6,
        "python": "3.11",
        "date": "2026-01-01",
    }
    return {"quantities": rows, "machine": machine | {"versions": {"tensorflow-cpu": "2.21"}}}


def test_benchmark_tables_show_range_and_target(benchmark):
    table = performance.benchmark_table(benchmark, "plain$")
    assert table.loc["64 px iteration, plain"].tolist() == ["2 s", "1 – 3", 5, "–", "–", "–"]
    assert table.loc["64 px sequential / plain"].tolist()[3:] == ["at most 0.7", "1.07", "no"]
    assert "target" not in performance.benchmark_table(benchmark, "floor")


def test_quantities_are_named_in_words(benchmark):
    benchmark["quantities"][0]["name"] = "unet 64 px step, torch"
    assert performance.benchmark_table(benchmark).index[0] == "U-Net 64 px step, PyTorch"


def test_benchmark_medians_are_one_a_range_or_missing(benchmark):
    assert performance.benchmark_median(benchmark, "/ plain") == "0.75"
    assert performance.benchmark_median(benchmark, "floor") == "1 to 1.25"
    assert (
        performance.benchmark_median(benchmark, "torch") == performance.benchmark_median(None, "") == "(not measured)"
    )


def test_iterations_stand_beside_their_floor(benchmark):
    table = performance.sifa_seconds(benchmark)
    assert table[["size", "variant", "median", "floor"]].values.tolist() == [
        [64, "plain", 2.0, 1.25],
        [64, "sequential", 1.5, 1.0],
    ]


def test_machines_are_those_that_computed(benchmark):
    other = benchmark | {"computed_on": benchmark["machine"] | {"processor": "Q", "device": "G"}}
    table = performance.machines_table({"one": benchmark, "other": other, "third": benchmark})
    assert table.index.tolist() == ["one, third", "other"]
    assert table["processor"].tolist() == ["P", "Q"] and table["device"].tolist() == ["–", "G"]
    assert table.loc["one, third", ["cores used", "versions"]].tolist() == ["1 of 2", "tensorflow 2.21"]


def test_a_benchmark_that_was_not_run_is_none(tmp_path):
    assert performance.load_benchmark("sifa", tmp_path) is None


def test_fans_by_source():
    names = {"COVID-BLUES, clips": 5, "COVID-BLUES, fan found": 4, "POCUS, clips": 3, "POCUS, fan found": 3}
    content = {"quantities": [{"name": name, "median": float(count)} for name, count in names.items()]}
    table = performance.fans_table(content)
    assert table.loc["COVID-BLUES"].to_dict() == {"clips": 5, "fan found": 4}
    assert list(table.columns) == ["clips", "fan found"] and table.loc["POCUS", "clips"] == 3
