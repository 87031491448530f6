"""Rows of a study as one table and read in parts: both give the same, and few are held at a time."""

import itertools
import tracemalloc
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lusbook import claims, figures, patients, readme, relation, statistics, tables
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.rows import by_run, default_route, each_part, image_pairs, sample
from tests.helpers import random_rows

FEW = {"n_resamples": 20}
PAIR = pd.DataFrame({"better": ["sifa-covid-to-cap"], "worse": ["unet-covid"], "cohort": ["covid"]})
MAKERS = {
    "table1": tables.table1,
    "table2": tables.table2,
    "route_table": tables.route_table,
    "fold_table": tables.fold_table,
    "dice_table": tables.dice_table,
    "section3_tests": statistics.section3_tests,
    "patient_means": patients.patient_means,
    "compare_patients": partial(patients.compare_patients, claims=PAIR, **FEW),
    "averages": partial(patients.averages, **FEW),
    "image_means": partial(patients.image_means, **FEW),
    "empty_masks": patients.empty_masks,
    "repeats": lambda per_image: patients.repeats(per_image, per_image),
    "claims": partial(claims.compare, n_resamples=1),
    "mean_dice": partial(relation.mean_dice, by="patient"),
    "by_labels": relation.by_labels,
}


def read_in_turn(per_image, called, most=2):
    """Readers of the runs of a table, in parts of a few rows; each notes that it is called."""

    def read(key):
        called.append(key)
        rows = per_image[(per_image["experiment"] == key[0]) & (per_image["fold"] == key[1])]
        yield from (rows.iloc[start : start + most] for start in range(0, len(rows), most))

    keys = per_image[["experiment", "fold"]].drop_duplicates().itertuples(index=False, name=None)
    return {key: partial(read, key) for key in keys}


@pytest.mark.parametrize("name", MAKERS)
def test_rows_read_in_parts_give_what_one_table_gives(name):
    per_image, called = random_rows(), []
    runs = read_in_turn(per_image, called)
    pd.testing.assert_frame_equal(MAKERS[name](runs), MAKERS[name](per_image))
    assert set(called) == set(runs) or name == "compare_patients"


def test_the_readme_and_the_figure_are_the_same_too():
    per_image = random_rows()
    runs = read_in_turn(per_image, [])
    assert readme.results(runs) == readme.results(per_image) and readme.drawn_from(runs) == readme.drawn_from(per_image)
    boxes = [
        [line.get_xydata().tolist() for line in figures.dice_distribution(rows).axes[0].lines]
        for rows in (runs, per_image)
    ]
    plt.close("all")
    assert boxes[0] == boxes[1] and boxes[0]


def test_a_pair_reads_only_its_own_runs_and_matches_images():
    per_image, called = random_rows(), []
    pairs = image_pairs(read_in_turn(per_image, called), "sifa-covid-to-cap", "unet-covid", "covid")
    assert set(called) == {(name, fold) for name in ("sifa-covid-to-cap", "unet-covid") for fold in (0, 1)}
    chosen = default_route(per_image).query("cohort == 'covid'").set_index(["experiment", "image"])["dice"]
    for image, (_, row) in enumerate(pairs.iterrows()):
        assert all(row[name] == chosen[name, image] for name in pairs)
    assert pairs.index.tolist() == [(0, "covid-0")] * 3 + [(1, "covid-1")] * 3
    alone = image_pairs(per_image, "unet-covid", "another", "covid")
    assert alone["unet-covid"].notna().all() and alone["another"].isna().all() and len(alone) == 6
    assert image_pairs(per_image, "one", "another", "covid").empty
    assert sample(per_image, "another", "covid").empty


def test_an_image_in_two_parts_of_a_run_is_refused():
    part = random_rows(["unet-covid"], [0])
    with pytest.raises(LusbookError, match="'image': 0.* is there twice"):
        image_pairs({("unet-covid", 0): lambda: [part, part]}, "unet-covid", "unet-cap", "covid")


def test_readers_stay_what_they_are():
    runs = read_in_turn(random_rows(), [])
    assert by_run(runs) is runs
    assert list(by_run(random_rows(["unet-cap"]))) == [("unet-cap", 0), ("unet-cap", 1)]
    assert list(each_part(random_rows().iloc[:0])) == []


@pytest.mark.parametrize(
    "make",
    [
        *(MAKERS[name] for name in ("table2", "route_table", "compare_patients", "image_means", "empty_masks")),
        *(
            partial(statistics.section3_tests, claims=tables.load_published("claims").head(2)),
            figures.dice_distribution,
        ),
    ],
)
def test_few_rows_are_held_at_a_time(make):
    one = random_rows(["sifa-covid-to-cap"], [0], images=2000, side=2)
    parts = [one[start : start + 1500] for start in range(0, len(one), 1500)]

    def read(name, fold):
        yield from (part.assign(experiment=name, fold=fold) for part in parts)

    runs = {key: partial(read, *key) for key in itertools.product(EXPERIMENTS, range(3))}
    size = one.memory_usage(deep=True).sum()
    make(runs)  # what is loaded once
    tracemalloc.start()
    make(runs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plt.close("all")
    assert peak < 2 * size  # of 24 runs


def test_default_route_keeps_each_test_image_once():
    per_image = random_rows()
    rows = default_route(per_image)
    assert not rows.duplicated(["experiment", "fold", "cohort", "image"]).any()
    kept = rows[rows["route"] == "translated"].groupby("experiment")["cohort"].unique()
    assert {name: list(cohorts) for name, cohorts in kept.items()} == {
        "sifa-cap-to-covid": ["cap"],
        "sifa-covid-to-cap": ["covid"],
        "sifa-reduced-covid-to-cap": ["covid"],
    }
    assert len(rows) == 8 * 2 * 2 * 3
    pd.testing.assert_frame_equal(default_route(rows), rows)
    direct = per_image[per_image["route"] == "direct"]
    assert len(default_route(direct)) == (8 * 2 - 3) * 2 * 3  # nothing stands in for what the generator has not seen


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="route"), r"columns \['route'\] are missing"),
        (lambda t: t.replace({"route": {"direct": "straight"}}), r"route: expected one of .*received \['straight'\]"),
        (lambda t: t.replace({"cohort": {"cap": "flu"}}), r"cohort: expected one of .*received \['flu'\]"),
        (lambda t: t.astype({"dice": str}), "dice: expected numbers, received str"),
        (lambda t: pd.concat([t, t.head(2)]), "2 rows are there twice, first .*unet-covid"),
    ],
)
def test_a_bad_per_image_table_is_refused(spoil, message):
    with pytest.raises(LusbookError, match=message):
        tables.table1(spoil(random_rows()))
