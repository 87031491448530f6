"""What adaptation gains, taken apart by recipe, network and adaptation: known answers are found again."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from lusbook import gains
from lusbook.errors import LusbookError
from lusbook.rivals import GROUPS

FEW = 200  # resamples: three patients are drawn in 27 ways
PATIENTS = {"covid": ["covid-1", "covid-2", "covid-3"], "cap": ["cap-1", "cap-2", "cap-3"]}
IMAGES = {"covid-1": 10, "covid-2": 20, "covid-3": 30, "cap-1": 5, "cap-2": 5, "cap-3": 50}


def make_rivals(dice):
    """Rivals' scores by a function of rival, cohort, patient, route and statistics."""
    rows = []
    for rival in (rival for group in GROUPS.values() for rival in group):
        for cohort, statistics in product(PATIENTS, ("trained", "source", "target", "both")):
            routes = ("direct", "translated") if rival.method == "sifa" and cohort == rival.labels else ("direct",)
            for route, (fold, patient) in product(routes, enumerate(PATIENTS[cohort])):
                about = {**rival._asdict(), "fold": fold, "cohort": cohort, "patient": patient}
                about |= {"images": IMAGES[patient], "route": route, "statistics": statistics}
                rows.append(about | {"dice": dice(rival, cohort, patient, route, statistics)})
    return pd.DataFrame(rows)


def offset(patient):
    return 0.01 * IMAGES[patient]


def test_the_steps_add_up_and_are_what_was_put_in():
    def dice(rival, cohort, patient, route, statistics):
        height = {"unet": 0.2, "plain": 0.5, "sifa": 0.7}[rival.method]
        height += 0.1 if rival.dropout == 0 and rival.learning_rate == 0.0005 else 0
        return (
            height
            + offset(patient) / 10
            - (0.3 if route == "direct" and rival.method == "sifa" else 0) * (cohort == rival.labels)
        )

    table = gains.split(make_rivals(dice), n_resamples=FEW)
    steps = table.pivot(index=["labels", "cohort"], columns="step", values="difference")
    assert np.allclose(steps[["recipe", "network", "adaptation", "whole"]], [0.1, 0.2, 0.2, 0.5])
    assert np.allclose(table["low"], table["difference"]) and np.allclose(table["high"], table["difference"])
    assert (table.loc[table["cohort"] == "cap", "images"] == 60).all() and (table["patients"] == 3).all()


def test_means_are_over_images_and_intervals_over_patients():
    def dice(rival, cohort, patient, route, statistics):
        return offset(patient) if rival.method == "sifa" else 0.0

    table = gains.split(make_rivals(dice), n_resamples=FEW).set_index(["labels", "cohort", "step"])
    row = table.loc[("covid", "cap", "whole")]
    assert row["difference"] == pytest.approx((5 * 0.05 + 5 * 0.05 + 50 * 0.5) / 60)
    assert row["low"] == pytest.approx(0.05) and row["high"] == pytest.approx(0.5)


def test_statistics_and_routes_are_kept_apart():
    def dice(rival, cohort, patient, route, statistics):
        return {"trained": 0.1, "source": 0.2, "target": 0.3, "both": 0.4}[statistics] + (route == "direct") * 0.5

    table = gains.levels_table(make_rivals(dice), n_resamples=FEW)
    assert len(table) == 16 * 2 * 4 + 2 * 4
    row = table[(table["method"] == "sifa") & (table["cohort"] == "cap") & (table["labels"] == "cap")]
    found = row.set_index(["route", "statistics"])["dice"]
    assert found["translated", "both"] == pytest.approx(0.4) and found["direct", "trained"] == pytest.approx(0.6)


def test_what_is_not_there_or_not_paired_is_refused():
    table = make_rivals(lambda *_: 0.5)
    with pytest.raises(LusbookError, match="no rows of 'unet' trained on 'covid', recipe \\(0.3, 0.1\\)"):
        gains.arm(table, "unet", "covid", (0.3, 0.1))
    one = gains.arm(table, "plain", "covid")
    with pytest.raises(LusbookError, match="expected the same patients, received 6 and 5 rows"):
        gains.difference(one, one.iloc[1:])


def test_a_steady_curve_has_no_swing_and_a_jumping_one_has():
    rows = [
        {"method": "unet", "labels": "covid", "cohort": "covid", "dropout": dropout, "learning_rate": 0.005}
        | {"fold": fold, "patient": f"covid-{fold + 1}", "images": 10, "iteration": iteration}
        | {"dice": 0.5 + (0.2 if dropout and iteration % 20 else 0)}
        for dropout, fold, iteration in product((0.0, 0.5), range(3), range(10, 130, 10))
    ]
    swing = gains.swing(pd.DataFrame(rows))
    table = swing.set_index("dropout")
    assert table.loc[0.0, "step"] == pytest.approx(0) and table.loc[0.0, "mean"] == pytest.approx(0.5)
    assert table.loc[0.5, "step"] == pytest.approx(0.2)
    assert table.loc[0.5, ["lowest", "highest"]].tolist() == pytest.approx([0.5, 0.7])
    assert gains.swing_table(swing).loc[("0.5", "0.005", "COVID-19"), "mean change"] == "0.20"


def test_tables_in_words():
    table = make_rivals(lambda rival, *_: 0.5 if rival.method == "sifa" else 0.25)
    split = gains.split_table(gains.split(table, n_resamples=FEW))
    assert list(split) == ["recipe", "network", "adaptation", "whole", "patients", "images"]
    assert split.index.names == ["labels of", "tested on"] and split.index[0] == ("COVID-19", "CAP")
    assert split["whole"].iloc[0] == "0.25 (0.25 to 0.25)"
    levels = gains.levels_table(table, n_resamples=FEW)
    bounds = gains.bounds_table(levels)
    assert bounds.shape == (8, 4) and (bounds.loc["SIFA"] == "0.50 (0.50 to 0.50)").all()
    assert "U-Net, dropout 0.5, rate 0.005" in bounds.index and not bounds.isna().any(axis=None)
    statistics = gains.statistics_table(levels)
    assert len(statistics) == 14 * 2 + 2 * 3 and list(statistics)[-4:] == ["trained", "source", "target", "both"]
    assert gains.shift(table, "plain", "covid", n_resamples=FEW)["difference"] == 0
