"""What a cell shows is followed to the functions, and the studies, that it comes from."""

import pytest

from lusbook import cells

BEFORE = "from lusbook.settings import settings_table\nresults = ''\nper_image = runs.study(settings, results=results)"


@pytest.mark.parametrize(
    ("sources", "calls", "source"),
    [
        (["figures.knobs(diversities=[0.5]);"], ["figures.knobs"], None),
        ([BEFORE, "tables.table1(per_image).round(2)"], ["tables.table1"], "study"),
        ([BEFORE, "settings_table(settings, ())"], ["settings.settings_table"], None),
        (
            [BEFORE, "x = tables.table1(per_image)\nif len(x):\n    display(x)\nelse:\n    print(0)"],
            ["tables.table1"],
            "study",
        ),
        (["found = None\ntries = ranking.rankings(0)", "tries if found else None"], ["ranking.rankings"], None),
        (
            [
                BEFORE,
                "rows = []\nfor k in per_image:\n    rows.append(paired.smallest_p(k))\npd.concat(rows)",
            ],
            ["paired.smallest_p"],
            "study",
        ),
        (["def show(x):\n    return claims.claims_table(x)", "show(1)"], ["claims.claims_table"], None),
        (["x = figures.knobs()", "x = 1", "x"], [], None),
        (["x = patients.spreads(0)\nx = x.round(2)", "x = x.T\nx"], ["patients.spreads"], None),
        ([BEFORE, "per_image.head()"], ["runs.study"], "study"),
        (
            ["more = runs.read_variants(0, settings, results)", "tables.spread_table(more)"],
            ["tables.spread_table"],
            "studies",
        ),
        (["figures.no_such_figure(1)"], [], None),
        (["figures._panel(1)"], [], None),
        (["%matplotlib inline\nfigures.knobs()"], [], None),
    ],
)
def test_what_a_cell_shows_is_followed_to_what_made_it(sources, calls, source):
    made, read = cells.makers(sources)
    assert (sorted(made), read) == (sorted(calls), source)


def test_a_function_that_a_module_imports_is_named_where_it_is_defined():
    assert cells.functions("status")["load_benchmark"] == "performance.load_benchmark"
    assert cells.functions("no_such_module") == {}
