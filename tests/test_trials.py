"""One run with fake networks: what training and tests are given, and which numbers are kept.

Everything here is named by image: see tests/fakes.py. tests/mutants.py lists the faults that these tests must notice.
"""

import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from lusbook import trials
from lusbook.cohort import fold_indices, reduce_to, shown_frame
from lusbook.errors import OutOfTime
from lusbook.experiments import EXPERIMENTS
from lusbook.norms import BatchNorm
from lusbook.selection import information
from tests import fakes
from tests.fakes import AVERAGE, SNAPSHOTS, Fakes, codes_of, names_of, seen

SIFA = "sifa-covid-to-cap"
REFRESH = trials.refresh_statistics  # the fake networks have another one
PLAIN = {"augment_rotation": 0, "augment_shift": 0, "augment_scale": 0, "sifa_iterations": 6}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Fake networks in place of the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        forget()
        yield Fakes(patch, tmp_path_factory.mktemp("runs"))
        forget()


def forget():
    """Networks are built anew."""
    trials.unet_network.cache_clear()
    trials.sifa_network.cache_clear()


def flat(lists):
    return [name for names in lists for name in names]


def subset_names(cohort, fold, part="test"):
    """Names of a cohort's images in one part of a fold."""
    training, test = fold_indices(cohort, fold)
    return names_of(cohort.images[{"training": training, "test": test}[part]])


def training_names(names, fold):
    """Names of the images in the training folds of some cohorts."""
    return sorted(flat(subset_names(fakes.make_cohort(name), fold, "training") for name in names))


def order(run, cohort, key="images"):
    """The order in which images of one cohort trained, by their places in its training folds, to compare folds."""
    names = subset_names(fakes.make_cohort(cohort), run.fold, "training")
    return [names.index(name) for name in flat(seen(run, key))]


def moves(run, key="transforms"):
    """Transforms of all images that a run was given."""
    return np.concatenate([getattr(step, key) for step in run.steps])


# ---------------------------------------------------------------------------------------------
# Which images train


@pytest.mark.parametrize(("name", "fold"), [(name, number % 3) for number, name in enumerate(EXPERIMENTS)])
def test_all_images_of_the_training_folds_train_and_no_other(fake, name, fold):
    experiment, run = EXPERIMENTS[name], fake.once(name, fold, fine_tune_epochs=1)
    images = flat(seen(run))
    if experiment.method == "unet":
        assert sorted(images) == training_names(experiment.source, fold)  # an epoch: each of them once
        return
    assert set(flat(seen(run, "target"))) == set(training_names([experiment.target], fold))
    if not experiment.reduced:
        assert set(images) == set(training_names(experiment.source, fold))


def test_the_reduced_source_has_the_size_of_the_target(fake):
    run = fake.once("sifa-reduced-covid-to-cap", 1, seed=1)
    cohorts = fakes.make_cohorts()
    training = {name: cohort.subset(fold_indices(cohort, 1)[0]) for name, cohort in cohorts.items()}
    kept = names_of(reduce_to(training["covid"], len(training["cap"]), 1).images)
    assert set(flat(seen(run))) == set(kept) and len(kept) == 32


@pytest.mark.parametrize("name", ["unet-covid", "unet-joint", SIFA, "sifa-cap-to-covid"])
def test_every_image_comes_with_its_own_mask(fake, name):
    for step in fake.once(name).steps:
        assert set(np.unique(step.masks)) == {0, 1} and step.masks.shape == step.images.shape
        assert step.images.dtype == step.masks.dtype == np.float32
        assert fakes.labelled(step.masks).tolist() == codes_of(names_of(step.images)).tolist()


def test_a_joint_batch_holds_both_cohorts(fake):
    batches = seen(fake.once("unet-joint"))
    assert any(len({name.split("-")[0] for name in batch}) == 2 for batch in batches)


def spoilt(cohort):
    """A cohort with other masks, and other exact ones, in its training folds of fold 0."""
    change = (cohort.folds != 0)[:, None, None]
    return replace(cohort, masks=cohort.masks ^ change, truth=cohort.truth ^ change)


def same_tables(one, other):
    assert one.keys() == other.keys()
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name])


@pytest.mark.parametrize(("name", "target"), [(SIFA, "cap"), ("sifa-cap-to-covid", "covid")])
def test_labels_of_the_target_change_nothing(fake, name, target):
    cohorts, run = fakes.make_cohorts(), fake.once(name)
    other = fake.run(name, cohorts=cohorts | {target: spoilt(cohorts[target])})
    assert fakes.digest(run) == fakes.digest(other)
    same_tables(run.tables, other.tables)
    without = replace(cohorts[target], masks=np.zeros_like(cohorts[target].masks), truth=None)
    assert fakes.digest(run) == fakes.digest(fake.run(name, cohorts=cohorts | {target: without}))


@pytest.mark.parametrize("name", ["unet-joint", SIFA])
def test_exact_masks_and_tested_images_do_not_train(fake, name):
    run, other = fake.once(name), {}
    for key, cohort in fakes.make_cohorts().items():
        images = cohort.images.copy()
        images[cohort.folds == 0, 5:] = 33
        masks = np.where((cohort.folds == 0)[:, None, None], ~cohort.masks, cohort.masks)
        other[key] = replace(cohort, images=images, masks=masks, truth=~cohort.truth)
    assert fakes.digest(run) == fakes.digest(fake.run(name, cohorts=other))


# ---------------------------------------------------------------------------------------------
# Seeds


def test_the_same_run_is_given_the_same(fake):
    for name in ("unet-covid", SIFA):
        assert fakes.digest(fake.once(name)) == fakes.digest(fake.run(name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("unet-covid", 0, 0), ("unet-covid", 1, 0)),
        (("unet-covid", 0, 0), ("unet-covid", 0, 1)),
        (("unet-covid", 0, 0), ("unet-cap-then-covid", 0, 0)),
        ((SIFA, 0, 0), (SIFA, 1, 0)),
        ((SIFA, 0, 0), (SIFA, 0, 1)),
        ((SIFA, 0, 0), ("sifa-reduced-covid-to-cap", 0, 0)),
    ],
    ids=["fold", "seed", "name", "sifa fold", "sifa seed", "sifa name"],
)
def test_fold_seed_and_name_each_change_order_and_augmentation(fake, one, other):
    runs = []
    for name, fold, seed in (one, other):
        runs.append(fake.once(name, fold, seed=seed, augment_intensity=0))
    orders = {"images": "covid"} | ({"target": "cap"} if one[0] == SIFA else {})
    if EXPERIMENTS[other[0]].reduced:  # its source has another number of images
        del orders["images"]
    for key, cohort in orders.items():
        first, second = (order(run, cohort, key)[:72] for run in runs)  # fine-tuning goes on for longer
        assert first != second
    for key in ("transforms", "target_transforms") if one[0] == SIFA else ("transforms",):
        first, second = ({tuple(row) for row in moves(run, key).tolist()} for run in runs)
        assert not first & second


@pytest.mark.parametrize("name", ["unet-covid", SIFA])
def test_networks_are_built_from_the_settings_once(fake, name):
    chosen = {"seed": 5, "unet_width": 0.25, "unet_dropout": 0.125, "sifa_width": 0.75, "precision": "bfloat16"}
    chosen |= {"sifa_iterations": 2, "sifa_snapshots": 1}
    forget()
    fake.built.clear()
    fake.run(name, **chosen)
    fake.run(name, 1, **chosen)
    assert fake.built == [(0.25, 0.125, 5, "bfloat16") if name == "unet-covid" else (32, 0.75, 5, "bfloat16")]
    fake.run(name, **chosen | {"seed": 6})
    assert len(fake.built) == 2


# ---------------------------------------------------------------------------------------------
# Where training starts, and how long it goes on


def test_fine_tuning_starts_from_its_parent_with_its_own_rate_and_length(fake):
    run = fake.run("unet-cap-then-covid", parent=fake.parent(100))
    first = run.start
    assert first[0].tolist() == [7, 7] and first[1] == 100  # the parent's
    assert not np.any(np.concatenate([array.ravel() for array in first[2:-1]]))  # Adam's moments and steps
    assert [step.rate for step in run.steps] == [0.0625] * 2 * 9  # epochs of 72 images by 8
    rows = run.tables["per_image"].query("cohort == 'cap'")
    names = subset_names(fakes.make_cohort("cap"), 0)
    assert (rows["tp"] + rows["fp"]).tolist() == fakes.found(names, 118).tolist()


def test_training_from_scratch_has_its_own_rate_and_length(fake):
    run = fake.once("unet-covid", unet_epochs=3)
    assert [step.rate for step in run.steps] == [0.25] * 3 * 9
    assert [array.tolist() for array in run.start[:2]] == [[0, 1], 0]


@pytest.mark.parametrize(("name", "count"), [("unet-covid", 5), ("unet-cap-then-covid", 4), (SIFA, 13)])
def test_iterations_can_be_set(fake, name, count):
    run = fake.once(name, unet_iterations=5, fine_tune_iterations=4, sifa_iterations=13)
    assert len(run.steps) == count
    assert run.tables["history"].to_dict("list") == {"iteration": list(range(1, count + 1)), "loss": [0.5] * count}


def test_nothing_is_left_of_the_run_before(fake):
    before = {"unet-covid": "unet-cap-then-covid", SIFA: "sifa-cap-to-covid"}
    for name, other in before.items():
        forget()
        fake.built.clear()
        run = fake.run(name)
        fake.run(other)
        after = fake.run(name)
        assert len(fake.built) == 1  # networks serve all three
        assert fakes.digest(run) == fakes.digest(after), name
        same_tables(run.tables, after.tables)
        assert not any(array >= 1 for array in after.start if array.ndim in (0, 2))  # nothing was counted


def test_a_deadline_is_handed_on(fake):
    for name in ("unet-covid", SIFA):
        run = (EXPERIMENTS[name], 0, fakes.settings(), fakes.make_cohorts())
        with pytest.raises(OutOfTime, match="label: time is up at iteration 0"):
            trials.run_trial(*run, label="label", folder=fake.folder, key="", deadline=time.monotonic() - 1)


# ---------------------------------------------------------------------------------------------
# Augmentation


@pytest.mark.parametrize("name", ["unet-covid", SIFA])
def test_every_image_is_moved_by_a_transform_of_its_own(fake, name):
    run = fake.once(name)
    keys = ("transforms", "target_transforms") if name == SIFA else ("transforms",)
    rows = np.concatenate([moves(run, key) for key in keys])
    assert rows.shape == (len(keys) * sum(len(step.images) for step in run.steps), 8)
    assert len(np.unique(rows[:, :6], axis=0)) == len(rows)  # the two domains share none either
    turned = np.rad2deg(np.arctan2(rows[:, 3], rows[:, 0]))
    assert 10 < np.abs(turned).max() <= 15 + 1e-3  # augment_rotation
    assert np.std(np.hypot(rows[:, 0], rows[:, 3])) > 0.02


@pytest.mark.parametrize("name", ["unet-covid", SIFA])
def test_settings_of_augmentation_reach_the_transforms(fake, name):
    still = np.float32([[1, 0, 0, 0, 1, 0, 0, 0]])
    run = fake.once(name, **PLAIN)
    shifted = fake.once(name, **PLAIN | {"augment_shift": 0.25})
    for key in ("transforms", "target_transforms") if name == SIFA else ("transforms",):
        np.testing.assert_allclose(moves(run, key), np.repeat(still, len(moves(run, key)), axis=0), atol=1e-5)
        assert 7 < np.abs(moves(shifted, key)[:, [2, 5]]).max() <= 8  # a quarter of 32 px


@pytest.mark.parametrize("name", ["unet-covid", "unet-cap-then-covid", SIFA])
def test_intensity_varies_in_every_image_and_leaves_masks_and_order(fake, name):
    plain, varied = (fake.once(name, augment_intensity=strength) for strength in (0, 0.5))
    for one, other in zip(plain.steps, varied.steps, strict=True):
        for key in ("images", "target") if name == SIFA else ("images",):
            before, after = one.given[key], other.given[key]
            assert np.all(np.abs(after - before).mean(axis=(1, 2, 3)) > 0.005)
            np.testing.assert_allclose(after[:, -1], -0.9, atol=1e-6)  # black stays black
            assert after.dtype == np.float32
            changes = (after - before)[:, 5, 5, 0].tolist()
            assert len(set(changes)) == len(changes)
        for key in ("masks", "transforms") + (("target_transforms",) if name == SIFA else ()):
            np.testing.assert_array_equal(one.given[key], other.given[key])


def test_the_domains_vary_in_intensity_on_their_own(fake):
    for step in fake.once(SIFA, augment_intensity=0.5).steps:
        assert not np.any(step.images[:, 5, 5] == step.target[:, 5, 5])


# ---------------------------------------------------------------------------------------------
# Image pools


def test_a_pool_gives_back_what_its_own_domain_generated(fake):
    size, run = 3, fake.once(SIFA, sifa_iterations=60)
    for domain, (key, part) in enumerate((("stored_a", 0.25), ("stored_b", 0.75))):
        pool, used = [], []
        for number, step in enumerate(run.steps):
            assert step.given[key].shape == step.images.shape and step.use_stored.shape == (2,)
            if number < size:
                assert not step.use_stored[domain]
                pool.append(number)
            elif step.use_stored[domain]:
                (value,) = np.unique(step.given[key])
                assert value % 1 == part, "of the other domain"
                assert int(value) in pool, "not kept, or replaced before"
                used.append(int(value))
                pool[pool.index(int(value))] = number  # the new one takes its place
        assert 15 < len(used) < 45 and len(set(used)) == len(used)
    flags = np.array([step.use_stored for step in run.steps[size:]])
    assert len(np.unique(flags, axis=0)) == 4  # each pool draws on its own


# ---------------------------------------------------------------------------------------------
# Tests: which rows there are, and of which weights


def rows_of(table, cohort, **chosen):
    """Rows of a table for a cohort's images, in the cohort's order, checked against the cohort; route or weights."""
    for key, value in {"cohort": cohort.name, **chosen}.items():
        table = table[table[key] == value]
    index = fold_indices(cohort, 0)[1]
    assert table["image"].tolist() == index.tolist()
    assert table["patient"].tolist() == cohort.patients[index].tolist()
    return table.reset_index(drop=True)


def check_counts(rows, cohort, iterations, route):
    """Rows hold what a network of so many iterations finds by a route, against the labels."""
    names = subset_names(cohort, 0)
    predicted, area = fakes.found(names, iterations, route), 410 + codes_of(names)
    assert (rows["tp"] + rows["fp"]).tolist() == predicted.tolist()
    assert (rows["tp"] + rows["fn"]).tolist() == area.tolist()
    assert rows["tp"].tolist() == np.minimum(predicted, area).tolist()
    np.testing.assert_allclose(rows["dice"], fakes.dice(predicted, area))
    return predicted, names


@pytest.mark.parametrize("exact", [True, False], ids=["exact masks", "no exact masks"])
@pytest.mark.parametrize(
    ("name", "routes", "iterations"),
    [
        ("unet-covid", {"covid": ["direct"], "cap": ["direct"]}, 9),
        ("unet-joint", {"covid": ["direct"], "cap": ["direct"]}, 13),
        (SIFA, {"covid": ["translated", "direct"], "cap": ["direct"]}, 20),
        ("sifa-cap-to-covid", {"covid": ["direct"], "cap": ["translated", "direct"]}, 20),
    ],
)
def test_tested_images_have_their_rows_by_cohort_and_route(fake, name, routes, iterations, exact):
    cohorts = fakes.make_cohorts()
    if not exact:
        cohorts = {key: replace(cohort, truth=None) for key, cohort in cohorts.items()}
    table = fake.run(name, cohorts=cohorts).tables["per_image"]
    assert {key: rows["route"].unique().tolist() for key, rows in table.groupby("cohort")} == routes
    for key, cohort in cohorts.items():
        for route in routes[key]:
            rows = rows_of(table, cohort, route=route)
            predicted, names = check_counts(rows, cohort, iterations, route)
            if exact:
                np.testing.assert_allclose(rows["dice_truth"], fakes.dice(predicted, 373 + codes_of(names)))
    assert ("dice_truth" in table) == exact


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_the_threshold_decides(fake, threshold):
    cohort, run = fakes.make_cohort("cap"), fake.once(SIFA, threshold=threshold)
    names = subset_names(cohort, 0)
    last = rows_of(run.tables["per_image"], cohort, route="direct")
    average = rows_of(run.tables["selection"], cohort, weights="average")
    for rows, iterations in ((last, 20), (average, AVERAGE)):
        assert (rows["tp"] + rows["fp"]).tolist() == fakes.found(names, iterations, threshold=threshold).tolist()
    assert np.count_nonzero(run.overlays["cap_direct"]) in fakes.found(names, 20, threshold=threshold)


@pytest.mark.parametrize(("name", "last"), [("unet-covid", 9), (SIFA, 20)])
def test_the_weights_kept_are_the_last(fake, name, last):
    weights = fake.once(name).weights
    counts = [float(array) for array in weights if array.ndim == 0]
    assert counts == [last] * (4 if name == SIFA else 1)
    constants = [array.tolist() for array in weights if array.ndim == 1]
    assert [array.tolist() for array in weights if array.ndim == 2] == (
        [[[last]]] if name == SIFA else []
    )  # statistics
    assert constants == [list(range(number + 2)) for number in range(len(counts))]


# ---------------------------------------------------------------------------------------------
# Snapshots, average and the label-free criterion


def test_snapshots_are_of_their_iterations(fake):
    cohorts, run = fakes.make_cohorts(), fake.once(SIFA)
    table = run.tables["snapshots"]
    assert table["iteration"].tolist() == SNAPSHOTS
    for cohort, route in ((cohorts["covid"], "translated"), (cohorts["cap"], "direct")):
        names = subset_names(cohort, 0)
        for iteration, dice in zip(SNAPSHOTS, table[f"dice_{cohort.name}"], strict=True):
            expected = fakes.dice(fakes.found(names, iteration, route), 410 + codes_of(names))
            assert dice == pytest.approx(expected.mean())
    assert table["dice_cap"].tolist()[1] == 1  # after 14 iterations the fake network is right


@pytest.mark.parametrize(("name", "target"), [(SIFA, "cap"), ("sifa-cap-to-covid", "covid")])
def test_the_criterion_sees_training_images_of_the_target_alone(fake, name, target):
    table = fake.once(name, 1).tables["snapshots"]
    names = subset_names(fakes.make_cohort(target), 1, "training")
    expected = [information(fakes.probabilities(names, iteration)) for iteration in SNAPSHOTS]
    np.testing.assert_allclose(table["information"], expected, rtol=1e-6)


def test_of_many_training_images_the_criterion_sees_some_evenly_spread(fake, monkeypatch):
    monkeypatch.setattr(trials, "UNLABELLED", 5)
    table = fake.run(SIFA).tables["snapshots"]
    names = subset_names(fakes.make_cohort("cap"), 0, "training")
    chosen = [names[place] for place in (0, 8, 16, 23, 31)]
    expected = [information(fakes.probabilities(chosen, iteration)) for iteration in SNAPSHOTS]
    np.testing.assert_allclose(table["information"], expected, rtol=1e-6)


def test_rows_of_other_weights_are_those_of_the_weights_they_name(fake):
    run = fake.once(SIFA)
    table = run.tables["selection"]
    worth = {"average": AVERAGE, "label-free": 7, "oracle": 14}  # see fakes.probabilities
    assert sorted(table["weights"].unique()) == sorted(worth)
    for cohort, route in ((fakes.make_cohort("covid"), "translated"), (fakes.make_cohort("cap"), "direct")):
        for weights, iterations in worth.items():
            rows = rows_of(table, cohort, weights=weights)
            check_counts(rows, cohort, iterations, route)
            named = "average" if weights == "average" else iterations
            assert rows["iteration"].tolist() == [named] * len(rows)


def test_chosen_weights_are_tested_on_all_images_where_snapshots_see_some(fake, monkeypatch):
    monkeypatch.setattr(trials, "CURVE", 4)
    run, cohorts = fake.run(SIFA), fakes.make_cohorts()
    places = {"covid": ("translated", (0, 12, 23, 35)), "cap": ("direct", (0, 5, 10, 15))}
    for key, (route, chosen) in places.items():
        names = [subset_names(cohorts[key], 0)[place] for place in chosen]
        for iteration, dice in run.tables["snapshots"].set_index("iteration")[f"dice_{key}"].items():
            expected = fakes.dice(fakes.found(names, iteration, route), 410 + codes_of(names))
            assert dice == pytest.approx(expected.mean())
        for weights in ("average", "label-free", "oracle"):
            rows_of(run.tables["selection"], cohorts[key], weights=weights)


# ---------------------------------------------------------------------------------------------
# Statistics of batch normalisations; the fake networks check that they are those of their weights


@pytest.mark.parametrize(
    ("name", "fold"), [(SIFA, 1), ("sifa-reduced-covid-to-cap", 0), ("sifa-cap-to-covid", 2)], ids=str
)
def test_statistics_are_recomputed_from_training_images_of_both_domains(fake, name, fold):
    experiment, run = EXPERIMENTS[name], fake.once(name, fold)
    assert [given.steps for given in run.refreshed] == [*SNAPSHOTS, 20]  # before each snapshot, and for the average
    for given, iterations in zip(run.refreshed, [*SNAPSHOTS, AVERAGE], strict=True):
        np.testing.assert_allclose(given.iterations, iterations)  # of all networks
        source, target = (names_of(given.given[key]) for key in ("source", "target"))
        assert sorted(target) == training_names([experiment.target], fold)
        assert {array.dtype for array in given.given.values()} == {np.dtype("float32")}
        assert {array.shape[1:] for array in given.given.values()} == {(fakes.SIDE, fakes.SIDE, 1)}
        if experiment.reduced:
            assert len(source) == len(target) and set(source) == set(flat(seen(run)))
        else:
            assert sorted(source) == training_names(experiment.source, fold)


def test_of_many_training_images_statistics_see_some_evenly_spread(fake, monkeypatch):
    monkeypatch.setattr(trials, "STATISTICS", 5)
    places = {"source": ("covid", (0, 18, 36, 53, 71)), "target": ("cap", (0, 8, 16, 23, 31))}
    for given in fake.run(SIFA).refreshed:
        for key, (cohort, chosen) in places.items():
            names = subset_names(fakes.make_cohort(cohort), 0, "training")
            assert names_of(given.given[key]) == [names[place] for place in chosen]


def test_a_unet_keeps_the_statistics_of_its_training(fake):
    assert fake.once("unet-covid").refreshed == []


@pytest.mark.parametrize("counts", [(32, 32), (40, 70)])
def test_statistics_are_the_mean_over_translated_source_and_target(counts):
    """Of images themselves, in a network of one batch normalisation; batches are filled up with their own images."""
    inputs, norm = keras.Input((4, 4, 1)), BatchNorm()
    encoder = keras.Model(inputs, list(norm(inputs)))
    rng, modes = np.random.default_rng(0), []
    a, b = (rng.normal(mean, mean, (n, 4, 4, 1)).astype("float32") for mean, n in zip((1, 3), counts, strict=True))

    def generator(batch, training):
        modes.append(training)
        return 2 * batch - 7

    REFRESH(SimpleNamespace(generator=generator, encoder=encoder), a, b)
    assert set(modes) == {False}
    moments = []
    for images in (2 * a - 7, b):
        parts = [images[start : start + 32] for start in range(0, len(images), 32)]
        parts = [np.concatenate([part] * 32)[:32].astype("float64") for part in parts]
        moments.append([np.mean([p.mean() for p in parts]), np.mean([p.var(ddof=1) + p.mean() ** 2 for p in parts])])
    mean, square = np.mean(moments, axis=0)
    np.testing.assert_allclose(np.ravel(norm.moving.value), [mean, square - mean**2], rtol=1e-4)


# ---------------------------------------------------------------------------------------------
# Learning curves


def check_curve(table, cohorts, taken, routes, before=0, places=None):
    """A curve has a row for each iteration, cohort and route, with the means over its images."""
    assert list(table) == ["iteration", "cohort", "route", "images", "dice", "dice_truth"]
    expected = [(iteration, key, route) for iteration in taken for key in routes for route in routes[key]]
    assert list(table[["iteration", "cohort", "route"]].itertuples(index=False, name=None)) == expected
    for row in table.itertuples():
        names = subset_names(cohorts[row.cohort], 0)
        names = [names[place] for place in places[row.cohort]] if places else names
        predicted = fakes.found(names, before + row.iteration, row.route)
        assert row.images == len(names)
        assert row.dice == pytest.approx(fakes.dice(predicted, 410 + codes_of(names)).mean())
        if cohorts[row.cohort].truth is None:
            assert np.isnan(row.dice_truth)
        else:
            assert row.dice_truth == pytest.approx(fakes.dice(predicted, 373 + codes_of(names)).mean())


DIRECT = {"covid": ["direct"], "cap": ["direct"]}
BOTH = {
    SIFA: DIRECT | {"covid": ["translated", "direct"]},
    "sifa-cap-to-covid": DIRECT | {"cap": ["translated", "direct"]},
}


@pytest.mark.parametrize("name", BOTH)
def test_curves_of_sifa_have_all_routes_at_every_snapshot(fake, name):
    check_curve(fake.once(name).tables["curve"], fakes.make_cohorts(), SNAPSHOTS, BOTH[name])


def test_curves_of_a_unet_are_of_snapshots_of_its_training(fake):
    check_curve(fake.once("unet-covid").tables["curve"], fakes.make_cohorts(), [3, 6, 9], DIRECT)


def test_a_fine_tuning_has_its_share_of_points(fake):
    epochs = {"unet_epochs": 4, "fine_tune_epochs": 2}  # half of three points, rounded up
    run = fake.run("unet-cap-then-covid", parent=fake.parent(30), **epochs)
    check_curve(run.tables["curve"], fakes.make_cohorts(), [9, 18], DIRECT, before=30)


def test_no_points_no_curve(fake):
    run = fake.run("unet-covid", unet_snapshots=0)
    assert sorted(run.tables) == ["history", "per_image"] and not list(run.folder.glob("snapshot-*"))


@pytest.mark.parametrize("name", ["unet-covid", SIFA])
def test_curves_are_taken_on_the_same_part_of_the_tested_images(fake, monkeypatch, name):
    monkeypatch.setattr(trials, "CURVE", 4)
    taken, routes = ([3, 6, 9], DIRECT) if name == "unet-covid" else (SNAPSHOTS, BOTH[SIFA])
    places = {"covid": (0, 12, 23, 35), "cap": (0, 5, 10, 15)}
    cohorts = fakes.make_cohorts()
    cohorts["cap"] = replace(cohorts["cap"], truth=None)
    check_curve(fake.run(name, cohorts=cohorts).tables["curve"], cohorts, taken, routes, places=places)


# ---------------------------------------------------------------------------------------------
# More patients


@pytest.mark.parametrize(
    ("name", "iterations"), [("unet-cap", 4), ("unet-cap-then-covid", 18), ("unet-joint", 13), (SIFA, 20)], ids=str
)
def test_more_patients_are_tested_by_every_route_and_train_nothing(fake, name, iterations):
    more, routes = fakes.make_more(), BOTH.get(name, DIRECT)
    run, without = fake.run(name, more=more), fake.run(name)
    assert fakes.digest(run) == fakes.digest(without)
    table = run.tables.pop("more_patients")
    same_tables(run.tables, without.tables)
    assert run.overlays.keys() == without.overlays.keys()
    assert {key: rows["route"].unique().tolist() for key, rows in table.groupby("cohort")} == routes
    for key, cohort in more.items():
        names = names_of(cohort.images)
        for route in routes[key]:
            rows = table[(table["cohort"] == key) & (table["route"] == route)]
            predicted, area = fakes.found(names, iterations, route), 410 + codes_of(names)
            assert rows["image"].tolist() == list(range(len(names)))
            assert rows["patient"].tolist() == cohort.patients.tolist()
            assert (rows["tp"] + rows["fp"]).tolist() == predicted.tolist()
            assert (rows["tp"] + rows["fn"]).tolist() == area.tolist()
            np.testing.assert_allclose(rows["dice"], fakes.dice(predicted, area))
            np.testing.assert_allclose(rows["dice_truth"], fakes.dice(predicted, 373 + codes_of(names)))


def test_without_more_patients_there_is_no_table_of_them(fake):
    assert "more_patients" not in fake.once(SIFA).tables
    assert "more_patients" not in fake.run("unet-cap", more={}).tables


# ---------------------------------------------------------------------------------------------
# Frames that are shown


@pytest.mark.parametrize("fold", [0, 2])
@pytest.mark.parametrize("name", ["unet-cap", SIFA])
def test_shown_frames_are_the_cohort_s_with_their_predictions(fake, name, fold):
    overlays = fake.once(name, fold).overlays
    for key, cohort in fakes.make_cohorts().items():
        shown = shown_frame(cohort, fold)
        (label,) = names_of(cohort.images[[shown]])
        assert overlays[f"{key}_index"] == shown
        assert names_of(overlays[f"{key}_image"][None]) == [label]
        np.testing.assert_array_equal(overlays[f"{key}_mask"], cohort.masks[shown])
        for route in ("translated", "direct"):
            if f"{key}_{route}" in overlays:
                (predicted,) = fakes.found([label], 4 if name == "unet-cap" else 20, route)
                assert np.count_nonzero(overlays[f"{key}_{route}"]) == predicted
        assert f"{key}_direct" in overlays
        assert (f"{key}_translated" in overlays) == (name == SIFA and key == "covid")


def test_translations_are_of_their_domain_and_their_weights(fake):
    overlays = fake.once(SIFA).overlays
    for key, step in (("covid", "source"), ("cap", "target")):
        cohort = fakes.make_cohort(key)
        label = names_of(cohort.images[[shown_frame(cohort, 0)]])
        for kind in ("fake", "cycle"):
            for suffix, count in (("", 20), *((f"_{iteration}", iteration) for iteration in SNAPSHOTS)):
                image = overlays[f"{key}_{kind}{suffix}"]
                assert image.dtype == (np.uint8 if suffix else np.float32)  # small where there are many
                grey = image if suffix else (image + 0.9) / 1.8 * 255
                assert np.allclose(grey[1:], fakes.SHOWN[step, kind] + count, atol=1e-3)
                named = image[None] if suffix else image[None, ..., None]
                assert names_of(named) == label


def test_of_many_snapshots_translations_are_kept_of_some(fake, monkeypatch):
    monkeypatch.setattr(trials, "PICTURED", 2)
    overlays = fake.run(SIFA).overlays
    kept = {int(key.rsplit("_", 1)[1]) for key in overlays if key.startswith(("covid_fake_", "cap_cycle_"))}
    assert kept == {7, 20}


# ---------------------------------------------------------------------------------------------
# Inference in batches


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 70])
def test_inference_keeps_the_order_in_batches_of_one_size(count):
    sizes, images = [], np.arange(count * 4, dtype="float32").reshape(count, 2, 2, 1)

    def function(batch):
        sizes.append(len(batch))
        return batch[..., 0] * 2

    np.testing.assert_array_equal(trials.in_batches(function, images), images[..., 0] * 2)
    assert set(sizes) == {trials.INFERENCE_BATCH} and len(sizes) == -(-count // trials.INFERENCE_BATCH)


def test_probabilities_are_of_images_as_networks_take_them():
    images = np.array([0, 255], np.uint8)[:, None, None] * np.ones((2, 4, 4), np.uint8)
    found = trials.probabilities(lambda batch: batch[..., 0], images)
    np.testing.assert_allclose(found[:, 0, 0], [-0.9, 0.9], rtol=1e-6)
    assert found.shape == images.shape
