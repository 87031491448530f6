"""The cohorts of a study: of a manifest, or simulated and kept."""

import warnings
from functools import lru_cache

import numpy as np
import pytest

from lusbook import loading, phantom
from lusbook.errors import LusbookError
from lusbook.loading import cohort_digests, load_cohorts
from lusbook.settings import Settings
from tests.helpers import SIDE, png


def test_load_cohorts_of_a_manifest(manifest):
    path = manifest()
    settings = Settings(cohorts=str(path), image_size=SIDE)
    first, again = load_cohorts(settings), load_cohorts(settings)
    assert list(first) == ["covid", "cap"]
    assert again["cap"] is first["cap"]  # read once in a process ...
    assert {name: c.digest for name, c in first.items()} == cohort_digests(settings)
    manifest(files={"4.png": png(np.zeros((SIDE, SIDE)))})
    assert not load_cohorts(settings)["cap"].images[0].any()  # ... unless a file has changed
    assert load_cohorts(Settings(cohorts=str(path), image_size=16))["cap"].images.shape == (3, 16, 16)


@pytest.mark.parametrize("other", ["CAP", "covid-19"])
def test_other_cohort_names_are_refused(manifest, other):
    path = manifest({n: f"{n}.png,{n}-mask.png,p{n},{other}" for n in (4, 5, 6)})
    with pytest.raises(LusbookError, match=f"expected the cohorts covid and cap, received .*{other}"):
        load_cohorts(Settings(cohorts=str(path), image_size=SIDE))


def test_study_without_masks_is_refused(manifest):
    path = manifest({n: f"{n}.png,,p{n},cap" for n in (4, 5, 6)})
    with pytest.raises(LusbookError, match="cohort 'cap': no masks"):
        load_cohorts(Settings(cohorts=str(path), image_size=SIDE))


simulate_once = lru_cache(phantom.simulate)


@pytest.fixture
def small_phantom(monkeypatch, tmp_path):
    monkeypatch.setattr(phantom, "PLAN", {"covid": ((1,), (1, 1), (1,)), "cap": ((1,), (1,), (2,))})
    monkeypatch.setattr(phantom, "simulate", simulate_once)
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "cache"))
    return Settings(image_size=SIDE)


def assert_same(one, other):
    for name in ("covid", "cap"):
        assert one[name].name == name and one[name].digest == other[name].digest
        for key in ("images", "masks", "truth", "patients", "folds"):
            np.testing.assert_array_equal(getattr(one[name], key), getattr(other[name], key))
            assert getattr(one[name], key).dtype == getattr(other[name], key).dtype


def refuse(*args, **kwargs):
    raise AssertionError("simulated, where the kept cohort should have been read")


def test_phantom_is_simulated_once_and_read_back_exactly(small_phantom, tmp_path, monkeypatch):
    first = load_cohorts(small_phantom)
    assert_same(
        first,
        {
            "covid": phantom.simulate("covid", diversity=0.3, consistency=0.9, image_size=SIDE),
            "cap": phantom.simulate("cap", diversity=0.8, consistency=0.5, image_size=SIDE, gap=0.3),
        },
    )
    assert cohort_digests(small_phantom) == {name: c.digest for name, c in first.items()}
    names = sorted(file.name for file in (tmp_path / "cache").iterdir())
    assert len(names) == 2 and names[1].startswith(f"phantom-covid-{first['covid'].digest}-")
    monkeypatch.setattr(phantom, "simulate", refuse)
    assert_same(load_cohorts(small_phantom), first)
    with pytest.raises(AssertionError, match="simulated"):
        load_cohorts(Settings(image_size=SIDE, phantom_seed=1))


def test_other_phantom_code_is_not_served_from_the_cache(small_phantom, monkeypatch):
    load_cohorts(small_phantom)
    monkeypatch.setattr("lusbook.loading.code_digest", lambda modules: "other")
    monkeypatch.setattr(phantom, "simulate", refuse)
    with pytest.raises(AssertionError, match="simulated"):
        load_cohorts(small_phantom)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other arrays"])
def test_damaged_cache_is_simulated_again(small_phantom, tmp_path, damage):
    first = load_cohorts(small_phantom)
    path = next((tmp_path / "cache").glob("phantom-cap-*"))
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    elif damage == "empty":
        path.touch()
    else:
        with open(path, "wb") as file:
            np.savez(file, images=np.zeros((2, 8, 8)))
    with pytest.warns(UserWarning, match="phantom-cap-.*simulated again"):
        assert_same(load_cohorts(small_phantom), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load_cohorts(small_phantom), first)


def test_cache_that_cannot_be_written_is_only_a_warning(small_phantom, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written .*not kept"):
        assert len(load_cohorts(small_phantom)["covid"]) == 4


def test_full_disk_leaves_no_half_file(small_phantom, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.np, "savez", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        load_cohorts(small_phantom)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("given", [(), (2,)])
def test_workers_simulate_only_where_they_are_asked_for(small_phantom, monkeypatch, given):
    seen = []

    def simulate(*args, processes, **kwargs):  # workers start this script anew: a script without guard must not
        seen.append(processes)
        return simulate_once(*args, **kwargs)

    monkeypatch.setattr(phantom, "simulate", simulate)
    load_cohorts(small_phantom, *given)
    assert seen == [*(given or (None,))] * 2


@pytest.fixture
def simulated(monkeypatch, tmp_path):
    """What is simulated, where only the first patient of a cohort really is."""
    seen = []

    def simulate(name, *, plan, processes, progress, **parameters):
        seen.append({"name": name, "plan": plan, "processes": processes} | parameters)
        return simulate_once(name, plan=((1,),), **parameters)

    monkeypatch.setattr(phantom, "simulate", simulate)
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "cache"))
    return seen


def test_more_patients_are_sixty_of_either_kind_with_the_gap_of_their_cohort(simulated):
    settings = Settings(image_size=SIDE, phantom_test_frames=7, cap_gap=0.6, phantom_seed=4, covid_diversity=0.125)
    more = loading.load_more(settings, 2)
    assert {key: cohort.name for key, cohort in more.items()} == {"covid": "covid-more", "cap": "cap-more"}
    for name, gap in (("covid", 0), ("cap", 0.6)):
        (given,) = [given for given in simulated if given["name"] == f"{name}-more"]
        assert given["plan"] == ((7,) * 60,) and given["processes"] == 2
        assert given.get("gap", 0) == gap
        own = loading.phantom_parameters(name, settings)
        assert {key: given.get(key) for key in own if key != "name"} == {k: v for k, v in own.items() if k != "name"}
        assert more[name].patients[0] == f"{name}-more-1"
    assert len(simulated) == 2


def test_no_more_patients_where_settings_want_none_or_cohorts_are_ones_own(manifest, monkeypatch):
    monkeypatch.setattr(phantom, "simulate", refuse)
    assert loading.load_more(Settings(image_size=SIDE, phantom_test_frames=0)) == {}
    assert loading.load_more(Settings(image_size=SIDE, cohorts=str(manifest()))) == {}
