"""What adaptation gains by dose: effects that were put in are found again."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from lusbook import response
from lusbook.dose import design, levels
from lusbook.errors import LusbookError

FEW = 200  # resamples: three patients are drawn in 27 ways
PATIENTS = {"covid": ["covid-1", "covid-2", "covid-3"], "cap": ["cap-1", "cap-2", "cap-3"]}
IMAGES = {"covid-1": 10, "covid-2": 20, "covid-3": 30, "cap-1": 5, "cap-2": 5, "cap-3": 50}


def make_grid(gain, n_levels=3, seeds=1):
    """Scores of the grid's trainings; SIFA is better by a function of direction, consistency, diversity, patient."""
    rows = []
    for training in (training for group in design(n_levels, seeds).values() for training in group):
        source, target = training["direction"].split("-to-")
        corners = [0.1, 0.9] if training["method"] != "unet" else levels(n_levels)
        for diversity in corners if training["diversity"] is None else [training["diversity"]]:
            patient = PATIENTS[target][training["fold"]]
            more = gain(training["direction"], training["consistency"], diversity, patient)
            dice = 0.5 + (more if training["method"].startswith("sifa") else 0)
            about = training | {"diversity": diversity, "patient": patient, "images": IMAGES[patient]}
            rows.append(about | {"cohort": target, "route": "direct", "dice_truth": dice, "dice": dice / 2})
            there = PATIENTS[source][training["fold"]]
            about |= {"cohort": source, "patient": there, "images": IMAGES[there]}
            for route in ("direct", "translated") if training["method"].startswith("sifa") else ("direct",):
                rows.append(about | {"route": route, "dice_truth": 0.3 if route == "direct" else 0.9, "dice": 0.1})
    return pd.DataFrame(rows)


def offset(patient):
    return 0.01 * IMAGES[patient]


def linear(direction, consistency, diversity, patient):
    c, d = (consistency - 0.5) / 0.4, (diversity - 0.5) / 0.4
    return offset(patient) + 0.10 * c - 0.05 * d + 0.02 * c * d * (1 if direction == "covid-to-cap" else -1)


def test_effects_that_were_put_in_are_found_again():
    found = response.effects(response.gains(make_grid(linear)), n_resamples=FEW)
    table = found.set_index(["direction", "term"])
    for direction, sign in (("covid-to-cap", 1), ("cap-to-covid", -1)):
        assert table.loc[direction, "estimate"].tolist() == pytest.approx([0.2, -0.1, sign * 0.04])
    joint = table.loc["both", "estimate"]
    assert joint[list(response.EFFECTS)].tolist() == pytest.approx([0.2, -0.1, 0.0], abs=1e-12)
    assert joint["consistency:diversity:direction"] == pytest.approx(0.04)
    assert (found["residual"] < 1e-9).all() and (found["low"] <= found["estimate"] + 1e-9).all()


def test_the_model_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    table = response.gains(make_grid(lambda *_: rng.normal()))
    one = table[table["direction"] == "covid-to-cap"].assign(
        c=lambda rows: (rows["consistency"] - 0.5) / 0.4, d=lambda rows: (rows["diversity"] - 0.5) / 0.4
    )
    fitted = smf.ols("gain ~ c * d + C(patient)", one).fit()
    ours = response.effects(one, n_resamples=FEW).set_index("term")
    assert ours["estimate"].tolist() == pytest.approx([2 * fitted.params[name] for name in ("c", "d", "c:d")])
    assert ours["residual"].iloc[0] == pytest.approx(np.sqrt(fitted.mse_resid))


def test_the_surface_is_the_mean_over_images_and_its_cells_are_whole():
    table = response.surface(response.gains(make_grid(linear)), n_resamples=FEW)
    assert len(table) == 18 and (table["patients"] == 3).all()
    row = table.set_index(["direction", "consistency", "diversity"]).loc[("covid-to-cap", 0.5, 0.5)]
    assert row["gain"] == pytest.approx((5 * 0.05 + 5 * 0.05 + 50 * 0.5) / 60)
    assert row["low"] <= row["gain"] <= row["high"] and row["images"] == 60


def test_scores_cohorts_and_controls_are_chosen():
    grid = make_grid(linear)
    half = response.gains(grid, score="dice")
    assert np.allclose(half["gain"], response.gains(grid)["gain"] / 2)
    source = response.gains(grid, cohort="source")  # the adapted network sends its source through the generator
    assert np.allclose(source["better"], 0.9) and np.allclose(source["worse"], 0.3)
    assert len(response.gains(grid, "sifa", "plain")) == 2 * 4 * 3
    with pytest.raises(LusbookError, match="no cell has both 'sifa' and 'unets'"):
        response.gains(grid, worse="unets")


def test_reversal_needs_intervals_on_both_sides_of_zero():
    def surface(function):
        return response.surface(response.gains(make_grid(function)), n_resamples=FEW)

    crossing = surface(lambda direction, c, d, patient: (c - 0.5) * (1 if direction == "covid-to-cap" else 0))
    assert response.reversal(crossing, "consistency") == {
        "covid-to-cap": "reverses",
        "cap-to-covid": "does not reverse",
    }
    assert set(response.reversal(crossing, "diversity").values()) == {"does not reverse"}
    rising = surface(lambda direction, c, d, patient: c)
    assert set(response.reversal(rising, "consistency").values()) == {"does not reverse"}
    assert response.change(0.1, 0.2) == response.change(-0.2, -0.1) == "changes"
    assert response.change(-0.1, 0.2) == "no effect seen"


def test_the_reduced_source_is_compared_in_its_corners_only():
    grid = make_grid(lambda *_: 0.2)
    reduced = grid["method"].isin(["sifa-reduced"]) & (grid["cohort"] == "cap")
    grid.loc[reduced, "dice_truth"] -= 0.15
    table = response.reduced_source(grid, n_resamples=FEW)
    assert len(table) == 5 and set(table["direction"]) == {"covid-to-cap"}
    assert np.allclose(table["gain"], 0.15) and table["consistency"].isna().sum() == 1


def test_tables_in_words():
    grid = make_grid(linear)
    gain = response.gains(grid)
    row = response.joint_row(gain, "a name")
    assert list(row.index) == ["a name"] and list(row) == ["consistency", "diversity", "consistency × diversity"]
    assert row.loc["a name", "consistency"].startswith("0.20 (")
    wide = response.effects_table(response.effects(gain, n_resamples=FEW))
    assert list(wide) == ["COVID-19 to CAP", "CAP to COVID-19", "both directions"]
    assert wide.loc["diversity × direction", "COVID-19 to CAP"] == "–"
    table = response.surface_table(response.surface(gain, n_resamples=FEW))
    assert set(table.index.get_level_values("direction")) == {"COVID-19 to CAP", "CAP to COVID-19"}
    assert table.index.names == ["direction", "consistency", "diversity"]
    assert list(table) == ["SIFA", "U-Net", "gain", "patients", "images"]
