"""Rival trainings: what they start from, what they see, and how they are scored."""

import numpy as np
import pytest

from lusbook import metrics, norms, provenance, rivals, runs, store, trials
from lusbook.cohort import network_images
from lusbook.errors import MissingData
from lusbook.loading import load_cohorts
from lusbook.settings import make_settings
from tests.helpers import untraced, write_manifest


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return make_settings("smoke", cohorts=str(write_manifest(tmp_path_factory.mktemp("cohorts"))))


def test_every_rival_has_a_folder_of_its_own():
    names = [rival.name for group in rivals.GROUPS.values() for rival in group]
    assert len(names) == len(set(names)) == 16
    assert "unet-covid-dropout-0.5-rate-0.005" in names and "plain-cap" in names


@pytest.mark.parametrize("trained", [1, 2, 5, 120, 450, 10_000])
def test_curves_hold_the_studys_iterations_and_go_three_times_as_far(trained):
    taken = rivals.snapshots(trained)
    assert trained in taken and taken == sorted(set(taken)) and taken[0] > 0
    assert 2.7 * trained <= taken[-1] <= 3 * trained and len(taken) <= 2 * rivals.POINTS


def test_a_plain_network_starts_where_sifa_does_and_learns(settings, tmp_path):
    from lusbook import sifa

    cohort = load_cohorts(settings)["covid"]
    longer = settings.model_copy(update={"sifa_iterations": 12})
    with untraced():
        network = rivals.train_plain(cohort, longer, (0, 0, 0), "", [12], folder=tmp_path, key="")
    whole = sifa.build_networks(32, settings.sifa_width, seed=settings.seed)
    started = [*whole.encoder.variables, *whole.segmenter.variables, *whole.segmenter_low.variables]
    for variable, initial in zip(started, network.initial, strict=False):
        np.testing.assert_array_equal(variable.value, initial)
    with np.load(tmp_path / "snapshot-00000012.npz") as stored:
        assert len(stored.files) == len(network.weights)
        moved = [not np.array_equal(stored[f"arr_{i}"], w) for i, w in enumerate(network.initial[: len(stored.files)])]
    assert all(moved)


def test_statistics_of_a_batch_make_inference_what_training_saw():
    """With the moments of 32 images, inference on them is the pass in training mode."""
    from lusbook import unet

    model = unet.build_unet(0.5, 0.0, seed=1)
    images = network_images(np.random.default_rng(0).integers(0, 255, (32, 32, 32), dtype=np.uint8))
    seen, before = np.asarray(model(images, training=True)[0]), np.asarray(model(images, training=False)[0])
    norms.set_statistics(model, norms.moments(model, [images]))
    after = np.asarray(model(images, training=False)[0])
    np.testing.assert_allclose(after, seen, atol=0.02)
    assert np.abs(before - seen).max() > 0.2


def test_moments_of_two_batches_are_those_of_all_their_images():
    """The first batch normalisation sees the same whatever the batch, so its moments are exact."""
    from lusbook import unet

    model = unet.build_unet(0.25, 0.0, seed=1)
    images = network_images(np.random.default_rng(0).integers(0, 255, (64, 16, 16), dtype=np.uint8))
    first = next(layer for layer in model.layers if "conv" in layer.name)
    seen = np.asarray(first(images))
    mean, square = norms.moments(model, trials.filled_batches(images))[:, : seen.shape[-1]]
    np.testing.assert_allclose(mean, seen.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(square, (seen**2).mean(axis=(0, 1, 2)), rtol=1e-3)


def test_scores_are_means_over_each_patients_test_images(settings):
    cohorts = load_cohorts(settings)

    def bright(batch):
        return (np.asarray(batch)[..., 0] > 0).astype("float32")

    table = rivals.score(bright, cohorts, 0, 0.5)
    assert len(table) == 2 and table["images"].tolist() == [4, 4] and table["dice_truth"].isna().all()
    cap = cohorts["cap"].subset(np.flatnonzero(cohorts["cap"].folds == 0))
    expected = metrics.per_image(network_images(cap.images)[..., 0] > 0, cap.masks)
    row = table[table["cohort"] == "cap"].iloc[0]
    for name in ("dice", "sensitivity", "specificity"):
        assert row[name] == pytest.approx(expected[name].mean())


@pytest.fixture(scope="module")
def gathered(settings, tmp_path_factory):
    """A whole gathering of three rivals; the adapted network is one that has not been trained."""
    from lusbook import sifa

    results = tmp_path_factory.mktemp("results")
    networks = sifa.build_networks(32, settings.sifa_width, seed=settings.seed)
    names = ("generator", "encoder", "decoder", "segmenter")
    weights = [np.asarray(v.value) for name in names for v in getattr(networks, name).variables]
    few = {
        "unet-0": [rivals.Rival("unet", "covid", 0.0, 0.005)],
        "plain": [rivals.Rival("plain", "cap")],
        "sifa": [rivals.Rival("sifa", "covid")],
    }
    with pytest.MonkeyPatch.context() as patch, untraced():
        patch.setattr(rivals, "GROUPS", few)
        patch.setattr(rivals, "FOLDS", (0,))
        patch.setattr(rivals, "_adapted_weights", lambda *_: weights)
        found = rivals.gather(settings, results)
        yield found, results


def test_everything_is_scored_by_all_routes_and_statistics(gathered):
    patients, curves = gathered[0]["patients"], gathered[0]["curves"]
    keys = ["method", "fold", "cohort", "patient", "route", "statistics"]
    assert not patients.duplicated(keys).any()
    assert patients.groupby("method").size().to_dict() == {"unet": 8, "plain": 8, "sifa": 12}
    assert set(patients["statistics"]) == {"trained", "source", "target", "both"}
    translated = patients[patients["route"] == "translated"]
    assert set(translated["method"]) == {"sifa"} and set(translated["cohort"]) == {"covid"}
    assert set(curves["iteration"]) == {1, 2, 3, 4, 5, 6} and set(curves["method"]) == {"unet", "plain"}
    at_the_end = curves[(curves["method"] == "unet") & (curves["iteration"] == 2)].set_index(["fold", "cohort"])["dice"]
    scored = patients[(patients["method"] == "unet") & (patients["statistics"] == "trained")]
    np.testing.assert_allclose(at_the_end, scored.set_index(["fold", "cohort"])["dice"].loc[at_the_end.index])


def test_what_is_gathered_is_read_and_stale_only_by_its_own_code(gathered, settings):
    folder = store.study_folder(settings, gathered[1]) / "rivals"
    before = (folder / "manifest.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "compute_group", lambda *_: pytest.fail("computed again"))
        patch.setattr(rivals, "GROUPS", {"unet-0": [], "plain": [], "sifa": []})  # fewer than were put together
        with pytest.raises(Exception, match="holds a run of other settings"):
            rivals.gather(settings, gathered[1])
    assert (folder / "manifest.json").read_bytes() == before
    assert runs.stale_runs(settings, gathered[1]) == {}
    parts = provenance.parts_of(folder)
    assert provenance.parts_of(folder / "plain-cap" / "fold-0") == parts and {"plain", "sifa"} < set(parts)


def test_nothing_is_computed_when_it_must_not_be(settings, tmp_path):
    with pytest.raises(MissingData, match="`lusbook rivals` does so"):
        rivals.gather(settings, tmp_path, compute=False)
    assert not list(tmp_path.iterdir())
