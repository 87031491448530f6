"""Controls of the adaptation: shifts of appearance, who is adapted to and tested, and when they pass."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from lusbook import checkpoints, controls, loading, phantom, store, trials
from lusbook.cohort import Cohort, fold_indices, network_images
from lusbook.controls import FRAMES, TRAININGS, find_training, haze, invert, passes
from lusbook.errors import LusbookError, MissingData
from lusbook.settings import make_settings
from tests import fakes
from tests.helpers import write_manifest

SIDE = 32
MEDIAN = 453  # frame of median labelled area: the fourth of the sixth patient of those tested


@pytest.fixture
def clips():
    """Two clips whose fans differ: grey levels 0 to 255 along rows, over a black margin."""
    images = np.zeros((2 * FRAMES, SIDE, 256), np.uint8)
    images[:FRAMES, 4:] = images[FRAMES:, 10:] = np.arange(256)
    images[0, 4:, 0] = 9  # black elsewhere, but part of the first clip's fan
    return images


def inside(clips):
    fan = np.zeros(clips.shape, bool)
    fan[:FRAMES, 4:] = fan[FRAMES:, 10:] = True
    fan[FRAMES:, :, 0] = False  # black in every frame
    return fan


@pytest.mark.parametrize("shift", [haze, invert])
def test_shifts_leave_the_outside_of_the_fan_black(clips, shift):
    before = clips.copy()
    shifted, again = (shift(clips, np.random.default_rng(0)) for _ in "ab")
    np.testing.assert_array_equal(clips, before)
    np.testing.assert_array_equal(shifted, again)
    assert shifted.dtype == np.uint8 and shifted.shape == clips.shape
    np.testing.assert_array_equal(shifted > 0, inside(clips))


def test_haze_keeps_the_order_of_grey_levels_and_a_third_of_their_contrast(clips):
    hazy = haze(clips, np.random.default_rng(0)).astype(float)
    means = hazy[:, 10:, 1:].mean(axis=(0, 1))  # over 440 pixels of each grey level
    assert means[0] == pytest.approx(90, abs=3) and means[-1] == pytest.approx(90 + 0.35 * 255, abs=3)
    assert (np.diff(means[::15]) > 0).all()
    slope = np.polyfit(np.arange(1, 256), means, 1)[0]
    assert slope == pytest.approx(0.35, abs=0.01)
    assert hazy[:, 10:, 1:].std(axis=(0, 1)).mean() == pytest.approx(12, rel=0.05)  # noise
    assert hazy[:FRAMES, 4:].min() > 30  # nothing is dark any more


def test_inversion_turns_the_order_of_grey_levels_round(clips):
    inverted, fan = invert(clips, None).astype(int), inside(clips)
    np.testing.assert_array_equal(inverted[fan], np.maximum(255 - clips[fan].astype(int), 1))
    np.testing.assert_array_equal(inverted[:, 20, 1:255], np.tile(np.arange(254, 0, -1), (2 * FRAMES, 1)))


def test_trainings_have_names():
    assert find_training("haze-sifa-2") == ("haze", "sifa", 2) and find_training("inversion-unet-0")[1] == "unet"
    names = ["-".join(map(str, training)) for training in TRAININGS]
    assert [find_training(name) for name in names] == TRAININGS and len(set(names)) == 6
    for name in ("haze", "haze-sifa-3", "inversion-sifa-1", ""):
        with pytest.raises(LusbookError, match=rf"control '{name}' is not known; expected one of haze-unet-0, inver"):
            find_training(name)


def test_networks_without_adaptation_see_as_many_images():
    settings = make_settings("small", control_iterations=100, unet_dropout=0.5)
    chosen = controls.trained_by(settings, 2)
    assert chosen.unet_iterations * settings.unet_batch_size == 100 * settings.sifa_batch_size
    assert (chosen.seed, chosen.sifa_iterations, chosen.unet_dropout) == (2, 100, 0.1)
    assert controls.trained_by(settings.model_copy(update={"control_iterations": 1}), 0).unet_iterations == 1


# ---------------------------------------------------------------------------------------------
# Whether the positive control passes


def curves(changed=None, drop=(), **more):
    """Curves that just pass: training gets better, the ceiling is 0.9; ``changed``: Dice at the end."""
    rows = []
    for shift, method, seed in TRAININGS:
        if (shift, method, seed) in drop:
            continue
        end = {"haze": {"unet": 0.09, "sifa": 0.76}, "inversion": {"unet": 0.5, "sifa": 0.0}}[shift][method]
        end = (changed or {}).get((shift, method, seed), end)
        for images, at_the_end in (("shifted", end), ("as they are", 0.3)):
            row = {"shift": shift, "method": method, "seed": seed, "images": images, "ceiling": 0.9}
            rows += [row | {"iteration": 200, "dice": at_the_end}, row | {"iteration": 100, "dice": 0.5}]
    return pd.DataFrame(rows).assign(**more)


def test_a_control_passes_by_its_last_weights_on_shifted_frames():
    assert passes(curves()) is True
    assert passes(curves()[::-1]) is True  # whatever the order of rows
    assert passes(curves(drop=[("inversion", "unet", 0), ("inversion", "sifa", 0)])) is True


@pytest.mark.parametrize(
    "changed", [{("haze", "unet", 0): 0.1}, *({("haze", "sifa", seed): 0.74} for seed in range(3))], ids=str
)
def test_a_control_fails_by_any_of_its_trainings(changed):
    assert passes(curves(changed)) is False


def test_a_control_is_measured_by_the_ceiling():
    assert passes(curves(ceiling=0.92)) is False
    assert passes(curves(ceiling=0.8)) is True


@pytest.mark.parametrize("missing", [training for training in TRAININGS if training[0] == "haze"], ids=str)
def test_without_one_of_its_trainings_nothing_is_said(missing):
    assert passes(curves(drop=[missing])) is None


# ---------------------------------------------------------------------------------------------
# Trainings


def make_more():
    """Sixty patients, ten frames each; pixels tell which; of those tested, one label alone is of median area."""
    images = np.full((60 * FRAMES, SIDE, SIDE), 120, np.uint8)
    patients = np.repeat(np.arange(60), FRAMES)
    images[:, 0, 0], images[:, 0, 1] = patients + 1, np.tile(np.arange(FRAMES), 60)
    masks = np.zeros(images.shape, bool)
    masks[:, 8:, 8:20] = True
    masks[: 50 * FRAMES, 20:] = False  # half of those tested have less to find,
    masks[MEDIAN, 8:26, 8:20] = True  # one of them more than they
    names = np.array([f"covid-more-{patient + 1}" for patient in patients])
    return Cohort("covid-more", images, masks, names, np.zeros(len(images), int), masks, "digest")


class Network:
    """Finds more of a B-line with each iteration, on shifted images alone; writes down what it looks at."""

    def __init__(self, seen):
        self.weights, self.seen = [keras.Variable(0.0)], seen
        self.routes = {"direct": self.direct, "translated": lambda batch: pytest.fail("another route")}

    def direct(self, batch):
        grey = np.round((batch[..., 0] / 0.9 + 1) * 127.5).astype(int)
        self.seen |= set(grey[:, 0, 0].tolist())
        found = np.zeros(grey.shape, "float32")
        found[:, 8 : 8 + 12 * int(self.weights[0].value), 8:20] = 0.9
        return found * (grey[:, 1, 1] == 200)[:, None, None]

    def translate(self, batch):
        grey = np.round((batch[0, ..., 0] / 0.9 + 1) * 127.5)[1, 1] / 255 * 1.8 - 0.9
        made = {"fake": np.full(batch.shape, grey, "float32"), "cycle": np.full(batch.shape, 0.9, "float32")}
        return {"source": made, "target": made}


def flagged(images, rng):
    """A shift that the network can tell."""
    images = images.copy()
    images[:, 1, 1] = 200
    return images


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Two trainings of two iterations each, with networks that only write down what they are given."""
    settings = make_settings("smoke", seed=9, sifa_batch_size=4)
    results, given = tmp_path_factory.mktemp("results"), {"seen": set(), "ceiling": []}

    def trained(method, folder, *more):
        given[method] = more
        network, history = Network(given["seen"]), [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.25}]
        for iteration in (1, 2):
            checkpoints.save_snapshot(folder, iteration, [np.float32(iteration)])
        network.weights[0].assign(77.0)  # whatever it is: snapshots are loaded
        return network, history

    def load_phantom(**parameters):
        given["parameters"] = parameters
        return make_more()

    def best(masks, method):
        given["ceiling"].append((masks, method))
        return np.linspace(0.5, 0.9, len(masks))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "load_cohorts", lambda _: {"covid": fakes.make_cohort("covid")})
        patch.setattr(controls, "load_phantom", load_phantom)
        patch.setattr(controls, "ceiling", best)
        patch.setattr(controls, "SHIFTS", {"haze": flagged})
        patch.setattr(trials, "adapt", lambda a, b, chosen, *_, folder, key: trained("sifa", folder, a, b, chosen))
        patch.setattr(trials, "train_unet", lambda _, a, chosen, *__, folder, key: trained("unet", folder, a, chosen))
        controls.compute(settings, results, [("haze", "sifa", 0), ("haze", "unet", 0)])
    return settings, results, given


def test_labels_are_of_the_source_s_training_folds(computed):
    _, _, given = computed
    covid = fakes.make_cohort("covid")
    expected = covid.images[fold_indices(covid, 0)[0]]
    np.testing.assert_array_equal(given["sifa"][0].images, expected)
    np.testing.assert_array_equal(given["unet"][0]["covid"].images, expected)
    assert list(given["unet"][0]) == ["covid"]


def test_patients_who_are_tested_are_never_adapted_to(computed):
    _, _, given = computed
    np.testing.assert_array_equal(given["sifa"][1], network_images(flagged(make_more().images[: 40 * FRAMES], None)))
    assert given["seen"] == set(range(41, 61))  # patients, from 1
    for masks, _ in given["ceiling"]:
        np.testing.assert_array_equal(masks, make_more().masks[40 * FRAMES :])


def test_other_patients_are_simulated_with_settings_of_the_source(computed):
    settings, _, given = computed
    own = {"name": "covid-more", "plan": ((10,) * 60,)}
    assert given["parameters"] == loading.phantom_parameters("covid", settings) | own
    assert given["sifa"][2].seed == given["unet"][1].seed == 0 and given["sifa"][2].sifa_iterations == 2


@pytest.mark.parametrize("method", ["sifa", "unet"])
def test_folders_are_complete_and_read_back(computed, method):
    settings, results, _ = computed
    folder = store.study_folder(settings, results) / "controls" / f"haze-{method}-seed-0"
    names = {path.name for path in folder.iterdir()}
    assert names == {"params.json", "manifest.json", "history.csv", "curve.csv", "overlays.npz"}  # no checkpoint
    params = json.loads((folder / "params.json").read_text())
    assert params["control"] == ["haze", method, 0]
    assert params["data"]["covid"] == phantom.digest(**loading.phantom_parameters("covid", settings))
    table, pictures = controls.read(settings, results)
    assert set(pictures) == {("haze", "sifa", 0), ("haze", "unet", 0)}
    rows = table[table["method"] == method]
    assert set(rows["seed"]) == {0} and set(rows["shift"]) == {"haze"}
    np.testing.assert_allclose(rows["ceiling"], 0.7)
    masks = make_more().masks[40 * FRAMES :]
    for iteration, part in rows.groupby("iteration"):
        found = np.zeros(masks.shape, bool)
        found[:, 8 : 8 + 12 * iteration, 8:20] = True
        expected = np.mean(2 * (found & masks).sum((1, 2)) / (found.sum((1, 2)) + masks.sum((1, 2))))
        assert part.set_index("images")["dice"].to_dict() == pytest.approx({"shifted": expected, "as they are": 0})
    assert rows["iteration"].unique().tolist() == [1, 2]
    assert passes(table) is None
    shown = pictures["haze", method, 0]
    for key, flag in (("image", 120), ("shifted", 200)):
        assert shown[key][0, 0] - 1 == MEDIAN // FRAMES and shown[key][0, 1] == MEDIAN % FRAMES
        assert shown[key][1, 1] == flag
    np.testing.assert_array_equal(shown["mask"], make_more().masks[MEDIAN])
    np.testing.assert_array_equal(shown["predicted"], masks[-1])
    if method == "sifa":
        assert shown["fake"].max() == 200 and shown["hazed"].max() == 120 and shown["cycle"].max() == 255
    else:
        assert not {"fake", "hazed", "cycle"} & set(shown)


def test_finished_trainings_are_kept_and_those_of_other_patients_refused(computed, monkeypatch):
    settings, results, _ = computed
    monkeypatch.setattr(controls, "_train", lambda *_: pytest.fail("trained again"))
    controls.compute(settings, results, [("haze", "sifa", 0), ("haze", "unet", 0)])
    with pytest.raises(LusbookError, match="holds a run of other settings or data"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(controls, "FRAMES", 9)
            controls.compute(settings, results, [("haze", "sifa", 0)])


def test_without_any_training_reading_says_what_to_do(tmp_path):
    with pytest.raises(MissingData, match="`lusbook controls` does so"):
        controls.read(make_settings("smoke"), tmp_path)


def test_controls_of_a_study_on_ones_own_cohorts_are_simulated(tmp_path):
    own = make_settings("smoke", cohorts=str(write_manifest(tmp_path)))
    chosen = controls.trained_by(own, 1)
    assert chosen == controls.trained_by(make_settings("smoke"), 1) and chosen.cohorts == "phantom"


def test_dice_is_the_mean_over_images():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 0] = masks[1, :2] = True
    found = masks.copy()
    found[1, 1] = False
    assert controls.dice(found, masks) == pytest.approx((1 + 2 / 3) / 2)


# ---------------------------------------------------------------------------------------------
# Command


def lusbook(*arguments):
    command = [str(Path(sys.executable).with_name("lusbook")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_explains_itself_and_refuses_unknown_trainings(tmp_path):
    said = lusbook("controls", "--help")
    assert said.returncode == 0 and "haze-sifa-0" in said.stdout and "that it must undo" in said.stdout
    done = lusbook("controls", "fog-sifa-0", "--preset", "smoke", "--results", tmp_path)
    assert done.returncode == 1 and "control 'fog-sifa-0' is not known; expected one of haze-unet-0" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
