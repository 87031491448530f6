"""How cost and memory grow, read from a benchmark's file."""

import pytest

from lusbook import figures, growth
from lusbook.performance import significant

MACHINE = {"usable_cores": 2, "processor": "P", "memory_gib": 23.5}


def scaling(**changed):
    """Content of the benchmark `scaling`: every part costs 2 ms an image, and takes 1 GiB and 1 MB an image."""
    rows = []
    for part in ("phantom", "metrics", "tables", "tests", "bootstrap", "figure", "held"):
        for asked in (1000, 10_000):
            row = {"part": part, "asked": asked, "images": asked, "repeats": 1} | changed.get(part, {})
            slope = 0 if part in ("phantom", "metrics") else 1e6 / 2**30
            values = {"GiB": 1 + slope * row["images"]} | ({} if part == "held" else {"s": 0.002})
            rows += [
                row | {"name": f"{part}, {asked}: {unit}", "unit": unit, "median": v} for unit, v in values.items()
            ]
    return {"quantities": rows, "machine": MACHINE, "quick": False}


def test_parts_are_in_the_order_of_the_file_and_held_has_no_cost():
    parts = growth.measured_parts(scaling())
    assert parts["part"].tolist()[::2] == ["phantom", "metrics", "tables", "tests", "bootstrap", "figure", "held"]
    assert parts["asked"].tolist() == [1000, 10_000] * 7
    assert parts["seconds"].isna().sum() == 2
    table = growth.parts_table(parts)
    assert table.iloc[1].tolist() == ["10,000", "2", "1", "1"]
    assert table.loc["held", ["ms an image", "times the fewest"]].to_numpy().tolist() == [["–", "–"]] * 2


def test_texts_say_what_grew_most_and_how_much_was_simulated():
    content = scaling()
    for row in content["quantities"]:
        if row["asked"] == 10_000 and row["part"] == "figure" and row["unit"] == "s":
            row["median"] = 0.003
        if row["asked"] == 10_000 and row["part"] == "tests" and row["unit"] == "GiB":
            row["median"] += 3
        if row["asked"] == 10_000 and row["part"] == "phantom":
            row["images"] = 4000
    found = growth.texts(content)
    assert (found["asked"], found["simulated"]) == ("10,000", "4,000")
    assert (found["worst"], found["part"]) == ("1.5", "figure")
    assert (found["grown"], found["grows"]) == (significant(3 + 9e9 / 2**30), "tests")
    assert found["held"] == found["kept"] == "1000"
    assert set(growth.texts(None).values()) == {"(not measured)"} and set(growth.texts(None)) == set(found)


def test_memory_an_image_is_a_slope():
    assert growth.memory_an_image(growth.measured_parts(scaling()), "held") * 2**30 == pytest.approx(1e6)


def test_seconds_for_each_run():
    content = {"quantities": [{"name": "10 runs: manifests", "median": 0.5, "runs": 10}]}
    assert growth.runs_table(content).loc["manifests"].tolist() == ["0.5", "50"]


def test_the_figure_has_a_line_for_each_part_that_was_measured():
    cost, memory = figures.scaling_curves(growth.measured_parts(scaling())).axes
    assert len(cost.lines) == 6 and len(memory.lines) == 7
    assert cost.lines[0].get_ydata().tolist() == [2.0, 2.0] and cost.get_xscale() == cost.get_yscale() == "log"


def test_kills_and_inputs_are_counted():
    rows = [
        {"name": "runs", "median": 72.0, "unit": ""},
        {"name": "seconds for each kill", "median": 34.3, "unit": "s"},
    ]
    assert growth.kills_table({"quantities": rows})[""].to_dict() == {"runs": "72", "seconds for each kill": "34.3 s"}
    counts = {"b, c": (1200, 1000, 200, 0), "a": (5, 0, 4, 1)}
    kinds = ("inputs", "result", "refused", "mishandled")
    rows = [
        {"name": f"{reader}, {kind}", "median": float(number)}
        for reader, numbers in counts.items()
        for kind, number in zip(kinds, numbers, strict=True)
    ]
    table = growth.inputs_table({"quantities": rows})
    assert table.index.tolist() == ["b, c", "a", "all"]
    assert table.loc["b, c"].tolist() == ["1,200", "1,000", "200", "0"]
    assert table.loc["all"].tolist() == ["1,205", "1,000", "204", "1"]
