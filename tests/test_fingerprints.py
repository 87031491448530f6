"""Fingerprints: the code gives the committed ones, results name them, and every setting moves one."""

import json
import shutil

import numpy as np
import pytest
import yaml

from lusbook import digests, fingerprints, provenance, store
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import PROJECT, Settings, make_settings
from lusbook.store import relevant

RESULTS = provenance.RESULTS
SETTINGS = make_settings("demo")  # without a gap


def needs_tensorflow():
    from lusbook.backend import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("fingerprints are TensorFlow's: another backend draws other dropout from the same seed")


# ---------------------------------------------------------------------------------------------
# The code


@pytest.mark.parametrize("part", fingerprints.PARTS)
def test_the_code_gives_the_fingerprint(part):
    needs_tensorflow()
    kept = fingerprints.read(part)
    assert kept["tolerance"] == fingerprints.TOLERANCE.get(part, fingerprints.EXACT)
    assert kept["settings"] == fingerprints.SETTINGS.get(part, {}), "make fingerprints if the settings are meant"
    lines = fingerprints.moved(kept, fingerprints.compute(part))
    assert not lines, "\n".join([f"{part}: {len(lines)} values moved; make fingerprints if meant", *lines[:10]])


def kept(values, processor="another"):
    return {"values": values, "tolerance": fingerprints.NEAR, "processor": processor, "settings": {}}


def test_what_moved_is_named_with_what_it_was_and_is():
    one = kept({"loss": [1.0, 2.0], "covid/tp": [40.0], "old": 1.0})
    assert fingerprints.moved(one, {"loss": [1.0, 2.0005], "covid/tp": [43.0], "old": 1.0}) == []
    lines = fingerprints.moved(one, {"loss": [1.0, 2.1], "covid/tp": [50.0], "new": 1.0})
    assert lines == ["new: new", "old: gone", "loss: was [1.0, 2.0], is [1.0, 2.1]", "covid/tp: was [40.0], is [50.0]"]
    assert fingerprints.moved(one, {"loss": [1.0], "covid/tp": [40.0], "old": 1.0})
    assert fingerprints.moved(kept({"x bfloat16": 1.0}), {"x bfloat16": 1.01}) == []
    assert fingerprints.moved(kept({"x": 1.0}), {"x": np.nan})


def test_the_same_processor_gives_the_same_values():
    here = kept({"loss": 1.0, "tp": 40.0}, digests.processor())
    assert fingerprints.moved(here, {"loss": 1.0 + 1e-6, "tp": 40.0}) == []
    assert len(fingerprints.moved(here, {"loss": 1.0001, "tp": 41.0})) == 2


def test_a_fingerprint_that_holds_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "FINGERPRINTS", tmp_path)
    assert fingerprints.write("unet", {"loss": 1.0}, "abc")
    before = (tmp_path / "unet.json").read_bytes()
    assert not fingerprints.write("unet", {"loss": 1.000001}, "def")
    assert (tmp_path / "unet.json").read_bytes() == before
    assert fingerprints.write("unet", {"loss": 1.1}, "def") and fingerprints.read("unet")["made_at"] == "def"


def test_every_part_that_a_folder_depends_on_has_a_fingerprint():
    needed = {part for parts in provenance.PARTS.values() for part in parts} | {*provenance.NETWORKS, "gap"}
    assert needed == set(fingerprints.PARTS)
    assert {path.stem for path in provenance.FINGERPRINTS.glob("*.json")} == needed


# ---------------------------------------------------------------------------------------------
# Committed results


@pytest.fixture(scope="module")
def manifests():
    return {str(folder.relative_to(RESULTS)): found for folder, found in store.read_manifests(RESULTS).items()}


def test_exactly_what_is_listed_is_stale(manifests):
    listed = yaml.safe_load((RESULTS / "stale.yaml").read_text()) or {}
    assert all(isinstance(reason, str) and len(reason.split()) > 3 for reason in listed.values())
    stale = {str(folder.relative_to(RESULTS)) for folder in provenance.stale(store.read_manifests(RESULTS))}
    unlisted = sorted(name for name in stale if not provenance.known_stale(name, listed))
    assert not unlisted, "the code no longer gives these: lusbook study --recompute, or list them with the reason"
    fresh = sorted(name for name in manifests if provenance.known_stale(name, listed) and name not in stale)
    assert not fresh, "data/results/stale.yaml lists what is not stale"
    idle = [pattern for pattern in listed if not any(provenance.known_stale(n, {pattern: "x"}) for n in manifests)]
    assert not idle, "data/results/stale.yaml lists what is not there"


def test_manifests_say_where_they_come_from(manifests):
    for name, manifest in manifests.items():
        assert len(manifest["commit"]) == 40 and not manifest["commit"].endswith("-dirty"), name
        assert manifest["date"] and "code" not in manifest, name


def test_runs_of_one_study_were_given_the_same_contents(manifests):
    seen = {}
    for name, manifest in manifests.items():
        study, *rest = name.split("/")
        if rest and rest[0] in EXPERIMENTS:
            for cohort in ("covid", "cap"):
                if digest := manifest.get("inputs", {}).get(cohort):
                    assert seen.setdefault((study, cohort), digest) == digest, name


def test_fine_tunings_start_from_their_parents(manifests):
    for name, manifest in manifests.items():
        experiment = EXPERIMENTS.get(name.split("/")[-2])
        if experiment is not None and experiment.parent and "parent" in manifest.get("inputs", {}):
            parent = manifests["/".join([*name.split("/")[:-2], experiment.parent, name.split("/")[-1]])]
            assert manifest["inputs"]["parent"] == parent.get("weights", manifest["inputs"]["parent"]), name


def test_nothing_in_a_manifest_depends_on_names_of_modules(manifests):
    """So that a module can be moved: no file or module of the package is named, and no digest is of its text."""
    modules = {path.stem for path in (PROJECT / "lusbook").rglob("*.py")}
    asked = {"commit", "environment", "fingerprints", "inputs", "weights", "versions"}
    for name, manifest in manifests.items():
        said = json.dumps({key: manifest[key] for key in asked - {"fingerprints", "versions"} if key in manifest})
        assert ".py" not in said and not modules & set(manifest.get("inputs", {})), name


def test_a_moved_module_makes_nothing_stale(tmp_path, monkeypatch):
    """The code elsewhere, under other names: what a folder belongs to stays as it was."""
    folder = RESULTS / "demo" / "unet-covid" / "fold-0"
    before = provenance.fingerprints(folder, SETTINGS)
    for file in (PROJECT / "lusbook").glob("*.py"):
        shutil.copy(file, tmp_path / f"other_{file.name}")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "other_provenance.py"))
    assert provenance.fingerprints(folder, SETTINGS) == before
    assert provenance.stale({folder: store.read_manifest(folder)}) == {}


def test_a_stale_parent_makes_its_fine_tuning_stale(tmp_path):
    parent, child = tmp_path / "unet-cap" / "fold-0", tmp_path / "unet-cap-then-covid" / "fold-0"
    good = {"fingerprints": provenance.fingerprints(parent, SETTINGS), "weights": "aa"}
    fine = {"fingerprints": provenance.fingerprints(child, SETTINGS), "inputs": {"parent": "aa"}}
    assert provenance.stale({parent: good, child: fine}) == {}
    old = {**good, "fingerprints": good["fingerprints"] | {"unet": "other"}}
    found = provenance.stale({parent: old, child: fine})
    assert found[parent] == {"unet": ("other", provenance.fingerprint("unet"))} and "parent" in found[child]
    assert provenance.stale({parent: {**good, "weights": "bb"}, child: fine}) == {child: {"parent": ("aa", "bb")}}


# ---------------------------------------------------------------------------------------------
# Fingerprints are worth believing


OTHER = {
    "seed": 1,
    "image_size": 40,
    "threshold": 0.3,
    "precision": "bfloat16",
    "phantom_seed": 1,
    "phantom_scanner": "lumify",
    "augment_rotation": 5.0,
    "augment_shift": 0.02,
    "augment_scale": 0.02,
    "augment_intensity": 0.2,
    "unet_width": 0.75,
    "unet_dropout": 0.3,
    "unet_batch_size": 3,
    "unet_epochs": 3,
    "unet_learning_rate": 0.001,
    "unet_iterations": 11,
    "fine_tune_learning_rate": 0.001,
    "fine_tune_iterations": 3,
    "sifa_width": 0.125,
    "sifa_batch_size": 3,
    "sifa_iterations": 11,
    "sifa_learning_rate": 3e-4,
    "sifa_segmenter_learning_rate": 0.003,
    "sifa_pool_size": 3,
    "sifa_average_decay": 0.75,
    "sifa_snapshots": 3,
    "real_iterations": 5,
    **dict.fromkeys(("covid_diversity", "cap_diversity", "covid_consistency", "cap_consistency"), 0.6),
}
#: Settings that no fingerprint has: what they change is named another way, or is in one under both values; the gap has
#: a fingerprint of its own, and who is tested besides and when curves are taken changes no other number.
WITHOUT = {"preset", "cohorts", "devices", "sifa_updates", "fine_tune_epochs"}
WITHOUT |= {"cap_gap", "phantom_test_frames", "unet_snapshots"}


def moves(part, **changes):
    needs_tensorflow()
    return fingerprints.moved(fingerprints.read(part), fingerprints.compute(part, **changes))


def part_of(name):
    for prefix, part in (("phantom_", "phantom"), ("covid_", "phantom"), ("cap_", "phantom"), ("real_", "real")):
        if name.startswith(prefix):
            return part
    return "unet" if name.startswith(("unet_", "fine_tune_")) else "sifa" if name.startswith("sifa_") else ""


def test_every_setting_is_changed_below():
    asked = set(relevant(Settings(devices=2), "unet")) | set(relevant(Settings(), "sifa")) | {"real_iterations"}
    assert asked - WITHOUT == set(OTHER) - WITHOUT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name in OTHER for part in ([part_of(name)] if part_of(name) else ["unet", "sifa"])],
)
def test_every_setting_moves_a_fingerprint(name, part):
    assert moves(part, **{name: OTHER[name]})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CYCLE", "DECODER", "FEATURE", "FEATURE_LOW", "AUXILIARY", "LOW", "DECAY"])
def test_every_weight_of_a_loss_moves_a_fingerprint(name, monkeypatch):
    from lusbook import sifa, trials

    trials.sifa_network.cache_clear()
    monkeypatch.setattr(sifa, name, 2 * getattr(sifa, name))
    assert moves("sifa")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["unet", "sifa"])
@pytest.mark.parametrize(("index", "value"), [(0, 0.7), (1, 0.9), (2, 1e-4)])
def test_every_constant_of_adam_moves_a_fingerprint(part, index, value, monkeypatch):
    from lusbook import trials
    from lusbook.training import Adam

    def changed(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.constants = (*self.constants[:index], value, *self.constants[index + 1 :])

    begin = Adam.__init__
    monkeypatch.setattr(Adam, "__init__", changed)
    for cached in (trials.unet_network, trials.sifa_network):
        cached.cache_clear()
    assert moves(part)


@pytest.fixture(autouse=True)
def anew():
    """Networks of changed constants are not kept for the next test."""
    from lusbook import rivals, trials

    yield
    for cached in (trials.unet_network, trials.sifa_network, rivals._plain_network):
        cached.cache_clear()
