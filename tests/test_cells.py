"""What a cell shows is followed to the functions, and the studies, that it comes from."""

import pytest

from lusbook.site import cells

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
    made, read, _ = cells.makers(sources)
    assert (sorted(made), read) == (sorted(calls), source)


@pytest.mark.parametrize(
    ("source", "folders"),
    [
        ("tables.table1(per_image)", ["runs"]),
        ('clips = runs.kept_tables("real", 0, results)\ntables.table1(clips)', ["real"]),
        ("a = runs.describe(0, results)\ntables.table1(a, per_image)", ["cohorts", "runs"]),
        ('tables.table1([runs.read_variants(n, 0, results) for n in "ab"])', []),
        ('tables.table1(runs.read_variants("unet-cap", 0, results))', ["unet-cap"]),
        ('figures.knobs(runs.read_arrays(runs.study_folder(0, results) / "real"))', ["real"]),
        ("figures.knobs()", []),
    ],
)
def test_folders_of_a_study_are_those_that_a_cell_read(source, folders):
    assert sorted(cells.makers([BEFORE, source])[2]) == folders


def test_a_function_that_a_module_imports_is_named_where_it_is_defined():
    assert cells.functions("status")["load_benchmark"] == "performance.load_benchmark"
    assert cells.functions("no_such_module") == {}
