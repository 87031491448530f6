"""Run folders, manifests and studies."""

import json
import os
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from lusbook import digests, provenance, runs, store
from lusbook.errors import Interrupted, LusbookError, OutOfTime
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import make_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The smoke preset on a small cohort of the user's own kind."""
    from tests.helpers import write_manifest

    return make_settings("smoke", cohorts=str(write_manifest(tmp_path_factory.mktemp("cohort"))))


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """Results with a parent, its fine-tuning, and one SIFA run."""
    results = tmp_path_factory.mktemp("results")
    for name in ("unet-cap-then-covid", "sifa-covid-to-cap"):
        runs.run(name, 0, settings, results)
    return results


@pytest.fixture
def results(finished, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(finished, tmp_path / "results")


def folder_of(name, settings, results):
    return store.run_folder(name, 0, settings, results)


def test_a_run_holds_what_it_should(settings, finished):
    folder = folder_of("sifa-covid-to-cap", settings, finished)
    assert {path.name for path in folder.iterdir()} == {
        "params.json",
        "history.csv",
        "per_image.csv",
        "curve.csv",
        "snapshots.csv",
        "selection.csv",
        "overlays.npz",
        "weights.npz",
        "manifest.json",
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {
        "commit",
        "fingerprints",
        "inputs",
        "weights",
        "environment",
        "params",
        "data",
        "files",
        "seed",
        "seconds",
        "backend",
        "device",
        "versions",
    } <= set(manifest)
    history = runs.read_run("sifa-covid-to-cap", 0, settings, finished, "history.csv")
    assert history["iteration"].tolist() == list(range(1, settings.sifa_iterations + 1))
    table = runs.read_run("sifa-covid-to-cap", 0, settings, finished)
    assert set(zip(table["cohort"], table["route"], strict=True)) == {
        ("covid", "translated"),
        ("covid", "direct"),
        ("cap", "direct"),
    }
    pixels = table[["tp", "fp", "fn", "tn"]].sum(axis=1)
    assert (pixels == settings.image_size**2).all()
    snapshots = runs.read_run("sifa-covid-to-cap", 0, settings, finished, "snapshots.csv")
    assert snapshots["iteration"].tolist() == [1, 2]
    selection = runs.read_run("sifa-covid-to-cap", 0, settings, finished, "selection.csv")
    assert set(selection["weights"]) == {"average", "label-free", "oracle"}
    assert (selection.groupby("weights").size() == len(table[table["route"] == "direct"])).all()
    overlays = runs.read_overlays("sifa-covid-to-cap", 0, settings, finished)
    assert overlays["cap_fake_2"].dtype == np.uint8
    assert {"covid_image", "covid_fake", "covid_cycle", "covid_translated", "cap_direct", "cap_fake"} <= set(overlays)


def test_only_the_test_fold_is_tested(settings, finished):
    from lusbook.loading import load_cohorts

    cohorts = load_cohorts(settings)
    table = runs.read_run("unet-cap-then-covid", 0, settings, finished)
    for name, rows in table.groupby("cohort"):
        assert set(rows["patient"]) == set(cohorts[name].patients[cohorts[name].folds == 0])


def test_fine_tuning_computed_its_parent(settings, finished):
    assert (folder_of("unet-cap", settings, finished) / "manifest.json").exists()


def test_a_finished_run_is_read_not_repeated(settings, results):
    folder = folder_of("unet-cap", settings, results)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert runs.run("unet-cap", 0, settings, results) == folder
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_numbers(settings, finished, tmp_path):
    runs.run("sifa-covid-to-cap", 0, settings, tmp_path)
    for file in ("history.csv", "per_image.csv"):
        one, other = (runs.read_run("sifa-covid-to-cap", 0, settings, root, file) for root in (finished, tmp_path))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_half_written_run_is_completed(settings, results):
    folder = folder_of("unet-cap", settings, results)
    expected = (folder / "per_image.csv").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "per_image.csv").write_bytes(expected[:100])
    with pytest.raises(LusbookError, match="unet-cap.*incomplete run, no manifest"):
        runs.read_run("unet-cap", 0, settings, results)
    runs.run("unet-cap", 0, settings, results)
    assert (folder / "per_image.csv").read_bytes() == expected


@pytest.mark.parametrize("name", ["per_image.csv", "overlays.npz", "history.csv", "params.json"])
def test_a_damaged_run_is_named_and_never_read(settings, results, name):
    path = folder_of("unet-cap", settings, results) / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(LusbookError, match=rf"{name}: differs from its manifest"):
        runs.read_run("unet-cap", 0, settings, results)
    path.unlink()
    with pytest.raises(LusbookError, match=rf"{name}: missing"):
        runs.read_run("unet-cap", 0, settings, results)


def test_a_corrupt_manifest_is_named(settings, results):
    (folder_of("unet-cap", settings, results) / "manifest.json").write_text('{"code": ')
    with pytest.raises(LusbookError, match=r"manifest\.json: not readable as JSON"):
        runs.read_run("unet-cap", 0, settings, results)


def test_a_run_of_other_settings_is_not_taken_for_this_one(settings, results):
    other = settings.model_copy(update={"unet_iterations": 3})
    target = store.run_folder("unet-cap", 0, other, results)
    shutil.copytree(folder_of("unet-cap", settings, results), target)
    with pytest.raises(LusbookError, match="holds a run of other settings or data"):
        runs.run("unet-cap", 0, other, results)


def test_lost_weights_of_a_parent_are_trained_again(settings, results):
    parent = folder_of("unet-cap", settings, results)
    (parent / "weights.npz").unlink()
    shutil.rmtree(folder_of("unet-cap-then-covid", settings, results))
    runs.run("unet-cap-then-covid", 0, settings, results)
    assert (parent / "weights.npz").exists()


def test_a_failed_run_stops_no_other_and_is_named(settings, tmp_path, monkeypatch):
    from lusbook import trials

    def fail(experiment, fold, *rest, **keep):
        if fold == 1:
            raise LusbookError("broken on purpose")
        return real(experiment, fold, *rest, **keep)

    real = trials.run_trial
    monkeypatch.setattr(trials, "run_trial", fail)
    with pytest.raises(LusbookError, match=r"failed runs:\s+unet-cap fold 1: LusbookError: broken on purpose"):
        runs.run_all(["unet-cap"], [0, 1, 2], settings, tmp_path)
    done = sorted(path.parent.name for path in tmp_path.glob("*/unet-cap/fold-*/manifest.json"))
    assert done == ["fold-0", "fold-2"]


def test_an_interruption_stops_the_runs_after_it(settings, tmp_path, monkeypatch):
    from lusbook import trials

    def interrupt(experiment, fold, *rest, **keep):
        raise Interrupted("stop") if fold == 1 else LusbookError("broken")

    monkeypatch.setattr(trials, "run_trial", interrupt)
    with pytest.raises(Interrupted, match=r"stop\n  unet-cap fold 0: LusbookError: broken$"):
        runs.run_all(["unet-cap"], [0, 1, 2], settings, tmp_path)


def test_a_run_that_ended_after_its_training_goes_on_from_its_checkpoint(settings, finished, tmp_path, monkeypatch):
    """And leaves neither checkpoint nor anything else that the other run did not."""
    from lusbook import trials

    monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trials, "test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        runs.run("sifa-covid-to-cap", 0, settings, tmp_path)
    folder, expected = (folder_of("sifa-covid-to-cap", settings, root) for root in (tmp_path, finished))
    kept = [f"{kind}-0000000{iteration}.npz" for kind in ("checkpoint", "snapshot") for iteration in (1, 2)]
    assert sorted(path.name for path in folder.iterdir()) == kept
    monkeypatch.setattr(trials.sifa_network(settings), "step", lambda *_: pytest.fail("trained"))
    runs.run("sifa-covid-to-cap", 0, settings, tmp_path)
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    for file in ("history.csv", "per_image.csv", "snapshots.csv", "selection.csv"):
        assert (folder / file).read_bytes() == (expected / file).read_bytes()


def test_checkpoints_of_other_code_or_backend_are_not_used(settings, monkeypatch):
    params = store.parameters("unet-cap", 0, settings)
    folder = store.run_folder("unet-cap", 0, settings)
    key = store.checkpoint_key(params, folder)
    assert key == store.checkpoint_key(json.loads(json.dumps(params)), folder)
    assert key != store.checkpoint_key(store.parameters("unet-cap", 1, settings), folder)
    for module, name, value in (
        (store, "versions", {"keras": "0"}),
        (provenance, "commit", "another"),
        (provenance, "changes", "+1"),
        (provenance, "fingerprint", "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_, value=value: value)
            assert key != store.checkpoint_key(params, folder), name


def test_a_run_waits_for_another_process_until_its_deadline(settings, tmp_path, capsys):
    folder = folder_of("unet-cap", settings, tmp_path)
    folder.mkdir(parents=True)
    with store.alone(folder), pytest.raises(OutOfTime, match=r"fold-0: time is up while another process computes it"):
        runs.run("unet-cap", 0, settings, tmp_path, deadline=time.monotonic() + 0.1)
    assert f"{folder}: another process computes it; waiting for that" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_refused_before_training(settings, tmp_path, monkeypatch):
    from lusbook import trials

    monkeypatch.setattr(trials, "run_trial", lambda *_, **keep: pytest.fail("trained"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LusbookError, match="cannot be written.*nothing computed"):
        runs.run("unet-cap", 0, settings, tmp_path / "file")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_keeps_finished_runs(settings, results, monkeypatch):
    def full(path, *arrays, **named):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"0")

    shutil.rmtree(folder_of("sifa-covid-to-cap", settings, results))
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(LusbookError, match=r"sifa-covid-to-cap.*No space left.*completed runs are kept"):
        runs.run("sifa-covid-to-cap", 0, settings, results)
    monkeypatch.undo()
    assert len(runs.read_run("unet-cap", 0, settings, results))
    assert not (folder_of("sifa-covid-to-cap", settings, results) / "manifest.json").exists()


def test_changed_code_makes_a_run_stale(settings, results, monkeypatch):
    assert runs.stale_runs(settings, results) == {}
    monkeypatch.setattr(provenance, "fingerprint", lambda part: "other")
    assert "unet-cap/fold-0" in runs.stale_runs(settings, results)
    runs.remove_stale_runs(settings, results)
    assert not list(results.rglob("manifest.json"))


def test_a_study_of_changed_settings_has_its_own_folder():
    names = [store.study_name(make_settings("demo", seed=seed)) for seed in range(3)]
    assert names == ["demo", "demo-seed-1", "demo-seed-2"]
    many = {"seed": 1, "image_size": 32, "sifa_width": 0.5, "unet_width": 0.25}
    for overrides in (many, {"cohorts": "/some/where.csv"}):
        assert re.fullmatch("demo-[0-9a-f]{8}", store.study_name(make_settings("demo", **overrides)))


def test_variants_are_read_where_all_folds_are_complete(settings, results):
    assert runs.read_variants("unet-cap", settings, results, seed=[0, 1]).empty
    for fold in (1, 2):
        runs.run("unet-cap", fold, settings, results)
    found = runs.read_variants("unet-cap", settings, results, seed=[0, 1])
    assert set(found["seed"]) == {0}
    assert set(found["fold"]) == {0, 1, 2}


def test_rows_are_read_in_parts(settings, results, monkeypatch):
    monkeypatch.setattr(store, "PART", 2)
    readers = runs.readers(settings, results, ["unet-cap", "unet-covid"])
    assert ("unet-cap", 0) in readers and ("unet-covid", 0) not in readers
    parts = list(readers["unet-cap", 0]())
    whole = runs.read_run("unet-cap", 0, settings, results)
    assert [len(part) for part in parts[:-1]] == [2] * (len(parts) - 1) and len(parts) > 2
    pd.testing.assert_frame_equal(pd.concat(parts)[list(whole)], whole)


def test_a_table_that_is_no_per_image_table_is_named(settings, results):
    readers = runs.readers(settings, results, ["unet-cap"])
    folder = store.run_folder("unet-cap", 0, settings, results)
    manifest = json.loads((folder / "manifest.json").read_text())
    whole = (folder / "per_image.csv").read_text()
    changed = {"dice": "x", "direct": "straight", "\n": '\n"', "dice,": "other,"}
    for old, new in changed.items():
        (folder / "per_image.csv").write_text(whole.replace(old, new, 3))
        with pytest.raises(LusbookError, match=r"per_image.csv: differs from its manifest"):
            list(readers["unet-cap", 0]())
        manifest["files"]["per_image.csv"] = digests.file_digest(folder / "per_image.csv")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(LusbookError, match=r"fold-0.per_image.csv: "):
            list(readers["unet-cap", 0]())


def test_settings_of_the_other_method_do_not_matter():
    one, other = make_settings("demo"), make_settings("demo", sifa_iterations=7)
    assert runs.relevant(one, "unet") == runs.relevant(other, "unet")
    assert runs.relevant(one, "sifa") != runs.relevant(other, "sifa")
    assert all(runs.relevant(one, e.method) for e in EXPERIMENTS.values())


@pytest.mark.parametrize("name", ["unet-covid", "sifa-covid-to-cap"])
def test_settings_that_came_later_do_not_make_other_runs_of_committed_ones(name):
    settings = make_settings("demo")
    committed = json.loads((store.run_folder(name, 0, settings) / "params.json").read_text())
    assert store.parameters(name, 0, settings) == committed
    later = {"cap_gap": 0.3, "phantom_test_frames": 10, "unet_snapshots": 20, "devices": 2}
    assert not set(later) & set(committed["settings"])
    for key, value in later.items():
        other = store.parameters(name, 0, make_settings("demo", **{key: value}))
        assert (other != committed) == (name == "unet-covid" or key != "unet_snapshots"), key
    assert store.parameters(name, 0, make_settings("demo", control_iterations=7)) == committed


def test_a_run_on_simulated_cohorts_tests_more_patients(tmp_path, monkeypatch):
    from lusbook import loading, phantom

    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(phantom, "PLAN", {"covid": ((1,), (1,), (1,)), "cap": ((1,), (1,), (1,))})
    monkeypatch.setattr(loading, "MORE", 3)
    settings = make_settings("smoke", phantom_test_frames=2)
    table = runs.read_tables(runs.run("unet-covid", 0, settings, tmp_path / "results"))["more_patients"]
    assert table["patient"].tolist() == [f"{name}-more-{n}" for name in ("covid", "cap") for n in (1, 1, 2, 2, 3, 3)]
    assert table["cohort"].tolist() == ["covid"] * 6 + ["cap"] * 6 and set(table["route"]) == {"direct"}
    assert table["dice_truth"].notna().all()
    assert (table[["tp", "fp", "fn", "tn"]].sum(axis=1) == 32**2).all()
