"""The grid of doses: what its design holds, and what is varied by nothing else."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from lusbook import dose, rivals, runs
from lusbook.errors import LusbookError, MissingData
from lusbook.loading import load_cohorts, phantom_parameters
from lusbook.settings import make_settings
from tests.helpers import untraced, write_manifest


def test_the_design_is_factorial_in_both_directions():
    trainings = [training for group in dose.design(3).values() for training in group]
    sifa = [training for training in trainings if training["method"] == "sifa"]
    keys = ("direction", "consistency", "diversity", "fold")
    cells = {tuple(training[key] for key in keys) for training in sifa}
    assert cells == set(product(dose.SOURCES, (0.1, 0.5, 0.9), (0.1, 0.5, 0.9), range(3))) and len(sifa) == 54
    unets = [training for training in trainings if training["method"] == "unet"]
    assert len(unets) == 2 * 3 * 3 and {training["diversity"] for training in unets} == {None}
    reduced = [training for training in trainings if training["method"] == "sifa-reduced"]
    assert {training["direction"] for training in reduced} == {"covid-to-cap"} and len(reduced) == 4 * 3
    names = [dose.part_name(training) for training in trainings]
    assert len(set(names)) == len(names) == 102


def test_a_finer_grid_with_seeds():
    trainings = [training for group in dose.design(4, 2).values() for training in group]
    sifa = [training for training in trainings if training["method"] == "sifa"]
    assert len(sifa) == 2 * 16 * 3 * 2 and {training["seed"] for training in sifa} == {0, 1}
    assert dose.levels(4) == [0.1, 0.367, 0.633, 0.9]
    with pytest.raises(LusbookError, match="levels: expected at least 2 of each factor, received 1"):
        dose.design(1)


def test_a_cell_turns_two_knobs_and_holds_the_rest():
    settings = make_settings("demo")
    there, back = (dose.cell(settings, direction, 0.1, 0.9) for direction in dose.SOURCES)
    assert (there.covid_consistency, there.cap_diversity) == (back.cap_consistency, back.covid_diversity) == (0.1, 0.9)
    assert there.covid_diversity == back.cap_diversity == dose.SOURCE_DIVERSITY
    assert there.cap_consistency == back.covid_consistency == dose.TARGET_CONSISTENCY
    knobs = {f"{cohort}_{knob}" for cohort in ("covid", "cap") for knob in ("consistency", "diversity")}
    assert there.model_dump(exclude=knobs) == settings.model_dump(exclude=knobs)
    # Another diversity of the target leaves the source what it was, and the other way round.
    other = dose.cell(settings, "covid-to-cap", 0.1, 0.1)
    assert phantom_parameters("covid", there) == phantom_parameters("covid", other)
    assert phantom_parameters("cap", there) == phantom_parameters("cap", dose.cell(settings, "covid-to-cap", 0.9, 0.9))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Cohorts of a few frames in place of simulated ones, the same in every cell."""
    folder = tmp_path_factory.mktemp("cohorts")
    cohorts = load_cohorts(make_settings("smoke", cohorts=str(write_manifest(folder))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dose, "load_cohorts", lambda settings: cohorts)
        yield make_settings("smoke"), tmp_path_factory.mktemp("results")


def test_a_group_is_trained_and_scored_in_all_its_cells(small):
    settings, results = small
    with untraced():
        dose.compute_group("cap-to-covid-0.1-controls", settings, results, n_levels=2)
    root = dose.folder_of(settings, results, 2)
    table = runs.read_tables(root / "cap-to-covid-plain-consistency-0.1-seed-0-fold-1")["patients"]
    assert len(table) == 2 * 2 and set(table["diversity"]) == {0.1, 0.9} and set(table["route"]) == {"direct"}
    assert not list(root.rglob("checkpoint-*")) and not list(root.rglob("snapshot-*"))
    assert runs.stale_runs(settings, results) == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dose, "_train", lambda *_: pytest.fail("trained again"))
        dose.compute_group("cap-to-covid-0.1-controls", settings, results, n_levels=2)


def test_the_table_has_every_training_once(small, tmp_path, monkeypatch):
    settings, _ = small

    def train(training, settings, n_levels, keep):
        cells = dose._diversities(training, n_levels)
        scores = rivals.score(lambda x: np.zeros(x.shape[:3]), dose.load_cohorts(settings), training["fold"], 0.5)
        table = scores.assign(route="direct").merge(pd.DataFrame({"diversity": cells}), how="cross")
        return {"tables": {"patients": table}, "machine": dict.fromkeys(("backend", "device", "cores", "threads"))}

    monkeypatch.setattr(dose, "_train", train)
    patients = dose.gather(settings, tmp_path, 2)
    keys = ["direction", "method", "consistency", "diversity", "seed", "fold", "cohort", "patient"]
    assert not patients.duplicated(keys).any()
    sifa = patients[patients["method"] == "sifa"]
    assert len(sifa) == 2 * 4 * 3 * 2 and len(patients[patients["method"] == "unet"]) == len(sifa)
    again = dose.gather(settings, tmp_path, 2, compute=False)
    assert again.equals(patients)


def test_real_cohorts_and_missing_grids_are_refused(tmp_path):
    with pytest.raises(LusbookError, match="expected simulated cohorts, received 'mine.csv'"):
        dose.gather(make_settings("smoke", cohorts="mine.csv"), tmp_path)
    with pytest.raises(MissingData, match="`lusbook dose-response` does so"):
        dose.gather(make_settings("smoke"), tmp_path, compute=False)
    assert not list(tmp_path.iterdir())
