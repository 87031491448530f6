"""Controls of the adaptation: shifts of appearance, who is adapted to and tested, and when they pass."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lusbook import controls, loading, phantom, store, trials
from lusbook.ceiling import ceiling
from lusbook.cohort import Cohort, fold_indices, network_images
from lusbook.controls import FRAMES, TRAININGS, find_training, haze, invert, passes
from lusbook.errors import LusbookError, MissingData
from lusbook.settings import make_settings
from tests import fakes
from tests.helpers import untraced

SIDE = 32


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
    """Sixty patients, ten frames each; a pixel tells which, and the first label alone is of median area."""
    images = np.full((60 * FRAMES, SIDE, SIDE), 120, np.uint8)
    patients = np.repeat(np.arange(60), FRAMES)
    images[:, 0, 0], images[:, 0, 1] = patients + 1, np.tile(np.arange(FRAMES), 60)
    masks = np.zeros(images.shape, bool)
    masks[:, 8:, 8:20] = True
    masks[45 * FRAMES + 3, :20, 8:20] = False
    masks[45 * FRAMES + 3, 0, 0] = True
    names = np.array([f"covid-more-{patient + 1}" for patient in patients])
    return Cohort("covid-more", images, masks, names, np.zeros(len(images), int), masks, "digest")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Two trainings of two iterations each, and what their networks were given; shifts change nothing here."""
    settings = make_settings("smoke", cohorts="phantom", sifa_snapshots=1, seed=9)
    results, given = tmp_path_factory.mktemp("results"), {}
    adapt, train, look = trials.adapt, trials.train_unet, trials.probabilities

    def load_phantom(**parameters):
        given["parameters"] = parameters
        return make_more()

    def adapted(source, b, chosen, *rest, **keep):
        given["sifa"] = (source, b, chosen)
        return adapt(source, b, chosen, *rest, **keep)

    def trained(experiment, training, chosen, *rest, **keep):
        given["unet"] = (training, chosen)
        return train(experiment, training, chosen, *rest, **keep)

    def looked(predict, images):
        given.setdefault("seen", []).append(images)
        return look(predict, images)

    with pytest.MonkeyPatch.context() as patch, untraced():
        patch.setattr(controls, "load_cohorts", lambda _: {"covid": fakes.make_cohort("covid")})
        patch.setattr(controls, "load_phantom", load_phantom)
        patch.setattr(controls, "SHIFTS", {"haze": lambda images, rng: images, "inversion": invert})
        patch.setattr(trials, "adapt", adapted)
        patch.setattr(trials, "train_unet", trained)
        patch.setattr(trials, "probabilities", looked)
        trials.sifa_network.cache_clear()
        trials.unet_network.cache_clear()
        controls.compute(settings, results, [("haze", "sifa", 0), ("haze", "unet", 0)])
        trials.sifa_network.cache_clear()
        trials.unet_network.cache_clear()
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
    images = make_more().images
    np.testing.assert_array_equal(given["sifa"][1], network_images(images[: 40 * FRAMES]))
    tested = {int(image[0, 0]) for seen in given["seen"] for image in seen}
    assert tested == set(range(41, 61))
    counts = {len(seen) for seen in given["seen"]}
    assert counts == {20 * FRAMES, 1}  # all of them, and the one that is shown


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
    rows, more = table[table["method"] == method], make_more()
    assert rows["iteration"].max() == (2 if method == "sifa" else 1)  # U-Net batches are twice as large
    assert set(rows["images"]) == {"shifted", "as they are"} and set(rows["seed"]) == {0}
    # the same images under both names here
    shifted, plain = (rows.loc[rows["images"] == name, "dice"].tolist() for name in ("shifted", "as they are"))
    assert shifted == plain
    np.testing.assert_allclose(rows["ceiling"], ceiling(more.masks[40 * FRAMES :], method).mean(), rtol=1e-5)
    assert passes(table) is None
    shown = pictures["haze", method, 0]
    assert shown["image"][0, 0] > 40
    np.testing.assert_array_equal(shown["mask"], more.masks[40 * FRAMES])  # of median area
    assert ("fake" in shown) == ("hazed" in shown) == (method == "sifa")


def test_finished_trainings_are_kept_and_others_refused(computed, monkeypatch):
    settings, results, _ = computed
    monkeypatch.setattr(controls, "_train", lambda *_: pytest.fail("trained again"))
    controls.compute(settings, results, [("haze", "sifa", 0), ("haze", "unet", 0)])
    other = settings.model_copy(update={"control_iterations": 3, "preset": "smoke"})
    assert store.study_folder(other, results) != store.study_folder(settings, results)


def test_without_any_training_reading_says_what_to_do(tmp_path):
    with pytest.raises(MissingData, match="`lusbook controls` does so"):
        controls.read(make_settings("smoke"), tmp_path)


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
