"""Tuned on one half of the patients, reported on the other."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lusbook import tuning


def make_attempts(seed=0):
    """Two attempts: one that is right on half A and wrong on half B, one that is right everywhere."""
    rng = np.random.default_rng(seed)
    rows = []
    for half in "AB":
        for patient in range(6):
            for clip in range(4):
                flag = bool((patient + clip) % 2)
                about = {"clip": f"{half}{patient}{clip}", "patient": f"{half}{patient}", "half": half, "b_lines": flag}
                noise = rng.normal(0, 0.01)
                fickle = flag if half == "A" else not flag
                rows.append(about | {"attempt": "fickle", "adapted": "", "one": fickle + noise, "two": 0.5})
                for adapted in "AB":
                    steady = 0.9 * flag + rng.normal(0, 0.4)
                    rows.append(about | {"attempt": "steady", "adapted": adapted, "one": 0.0, "two": steady})
    return pd.DataFrame(rows)


def test_rates_are_areas_under_the_curve():
    table = make_attempts()
    rated = tuning.rate(table).set_index(["attempt", "pooling", "adapted", "half"])["auroc"]
    part = table[(table["attempt"] == "steady") & (table["adapted"] == "A") & (table["half"] == "B")]
    assert rated["steady", "two", "A", "B"] == pytest.approx(roc_auc_score(part["b_lines"], part["two"]))
    assert rated["fickle", "one", "", "A"] == 1 and rated["fickle", "one", "", "B"] == 0


def test_what_is_chosen_on_one_half_is_reported_on_the_other():
    chosen = tuning.choose(make_attempts(), n_resamples=100).set_index("chosen_on")
    assert chosen.loc["A", ["attempt", "pooling"]].tolist() == ["fickle", "one"]
    assert (chosen.loc["A", "auroc_there"], chosen.loc["A", "auroc"]) == (1, 0)  # luck on A does not help on B
    assert chosen.loc["B", ["attempt", "pooling"]].tolist() == ["steady", "two"]
    assert chosen.loc["both", "auroc"] == pytest.approx(chosen.loc[["A", "B"], "auroc"].mean())
    assert chosen.loc["both", "clips"] == 48 and chosen.loc["both", "patients"] == 12
    assert (chosen["low"] <= chosen["auroc"]).all() and (chosen["auroc"] <= chosen["high"]).all()


def test_choice_sees_only_networks_that_saw_its_own_half():
    table = make_attempts()
    foreign = (table["attempt"] == "steady") & (table["adapted"] == "B")
    table.loc[foreign & (table["half"] == "A"), "two"] = table["b_lines"].astype(float)  # perfect, but adapted to B
    best = tuning.choose(table, "steady", n_resamples=20).set_index("chosen_on")
    assert best.loc["A", "auroc_there"] < 1
