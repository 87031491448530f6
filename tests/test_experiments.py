"""The experiments as data."""

import pytest

from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, get_experiment, in_order, packs
from lusbook.tables import load_published


def test_seven_published_experiments_and_the_joint_one():
    assert list(EXPERIMENTS) == list(load_published("names")["experiment"])
    assert set(EXPERIMENTS) - set(load_published("table1")["experiment"]) == {"unet-joint"}


def test_fine_tuning_starts_from_the_other_cohort():
    for experiment in EXPERIMENTS.values():
        if experiment.parent:
            parent = get_experiment(experiment.parent)
            assert set(parent.source).isdisjoint(experiment.source)
            assert parent.parent is None


def test_sifa_has_two_domains_and_unet_none():
    for experiment in EXPERIMENTS.values():
        assert (experiment.target is not None) == (experiment.method == "sifa")
        assert experiment.target not in experiment.source


def test_parents_come_first_and_packs_hold_everything_once():
    order = in_order()
    assert sorted(order) == sorted(EXPERIMENTS)
    assert all(order.index(e.parent) < order.index(e.name) for e in EXPERIMENTS.values() if e.parent)
    assert sorted(name for pack in packs().values() for name in pack) == sorted(EXPERIMENTS)


def test_an_unknown_experiment_is_named():
    with pytest.raises(LusbookError, match="'unet-flu' is not known; expected one of unet-covid"):
        get_experiment("unet-flu")
