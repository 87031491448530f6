"""Properties that hold for whatever Hypothesis thinks of: round trips, metrics, folds, intervals, adjusted p-values."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lusbook import checkpoints, cli
from lusbook.annotations import draw
from lusbook.cohort import N_FOLDS, Cohort, assign_folds, fold_indices
from lusbook.manifests import read_manifest
from lusbook.metrics import METRICS, dice, per_image
from lusbook.paired import holm
from lusbook.settings import make_settings
from lusbook.statistics import bootstrap_ci
from tests.helpers import png

SHARES = st.floats(0, 1)
SIDES = st.integers(1, 40)


@pytest.fixture
def folder():
    """A new folder for every example, where tmp_path is one for all of them."""

    def make():
        return tempfile.TemporaryDirectory()

    return make


# ---------------------------------------------------------------------------------------------
# Round trips


@given(st.integers(-5, 30), st.integers(-5, 30), SIDES, SIDES)
def test_a_rectangle_of_whole_pixels_has_its_area_wherever_it_is(x, y, width, height):
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], float)
    mask = draw([corners], 33, 29)
    inside = max(0, min(x + width, 29) - max(x, 0)) * max(0, min(y + height, 33) - max(y, 0))
    assert mask.sum() == inside


@given(arrays.arrays(float, st.integers(3, 9), elements=st.floats(5, 90)), st.floats(-100, 100), st.floats(-100, 100))
def test_a_star_has_its_area_up_to_its_border(radii, dx, dy):
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    x, y = radii * np.cos(angles) + dx + 200, radii * np.sin(angles) + dy + 200
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    border = np.hypot(np.roll(x, -1) - x, np.roll(y, -1) - y).sum()
    drawn = draw([np.c_[x, y]], 400, 400)
    assert abs(drawn.sum() - area) <= border + 4
    assert (draw([np.c_[y, x]], 400, 400) == drawn.T).mean() > 0.999  # rows and columns alike, but for edges


CELLS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1, max_size=20)


@settings(max_examples=20)
@given(
    st.lists(st.text("pqé,\"' ;é-", min_size=1).map(str.strip).filter(bool), min_size=3, max_size=5, unique=True),
    st.data(),
)
def test_a_manifest_gives_back_what_was_written(folder, patients, data):
    pictures = data.draw(arrays.arrays(np.uint8, (len(patients), 2, 6, 6)))
    names = data.draw(st.lists(CELLS.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3, unique=True))
    with folder() as made:
        rows = []
        for k, (patient, (image, mask)) in enumerate(zip(patients, pictures, strict=True)):
            stem = f"{names[k % len(names)]}-{k}"
            (Path(made) / f"{stem}.png").write_bytes(png(image))
            (Path(made) / f"{stem}-mask.png").write_bytes(png(255 * (mask > 127)))
            rows.append({"image": f"{stem}.png", "mask": f"./{stem}-mask.png", "patient": patient, "cohort": "covid"})
        pd.DataFrame(rows).to_csv(Path(made) / "manifest.csv", index=False)
        cohort = read_manifest(Path(made) / "manifest.csv", 6)["covid"]
    np.testing.assert_array_equal(cohort.images, pictures[:, 0])
    np.testing.assert_array_equal(cohort.masks, pictures[:, 1] > 127)
    assert cohort.patients.tolist() == patients


SETTINGS = st.fixed_dictionaries(
    {"preset": st.sampled_from(["mine", "a.b-c_1"]), "image_size": st.integers(2, 99).map(lambda k: 8 * k)},
    optional={
        "seed": st.integers(0, 2**63),
        "threshold": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "precision": st.sampled_from(["float32", "bfloat16"]),
        "cohorts": st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30).map("./{}".format),
        "unet_learning_rate": st.floats(0, 1e3, exclude_min=True),
        "unet_iterations": st.none() | st.integers(1, 10**9),
        "sifa_average_decay": SHARES.filter(lambda share: share < 1),
    },
)


@given(SETTINGS)
@example({"preset": "mine", "image_size": 16, "cohorts": "./2001-01-01", "unet_learning_rate": 1e-05})
def test_settings_survive_yaml_and_the_command_line(folder, values):
    wanted = make_settings("paper", **values)
    with folder() as made:
        path = Path(made) / "mine.yaml"
        path.write_text(yaml.safe_dump(wanted.model_dump(), allow_unicode=True), "utf-8")
        assert make_settings(path) == wanted
    texts = {name: yaml.safe_dump(value).removesuffix("...\n").strip() for name, value in values.items()}
    assert (
        cli.parse_settings("paper", [f"{name}={text}" for name, text in texts.items()]).model_dump()
        == wanted.model_dump()
    )


KINDS = st.sampled_from(["float32", "float64", "int64", "uint32", "bool"])
ARRAYS = st.lists(
    KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)))
)


@settings(max_examples=25)
@given(ARRAYS, st.lists(st.tuples(st.floats(), SHARES), max_size=4))
def test_a_checkpoint_gives_back_what_was_saved(folder, stored, rows):
    history = [{"iteration": k, "loss": loss, "dice": share} for k, (loss, share) in enumerate(rows, 1)]
    with folder() as made:
        checkpoints.save(made, "run", len(rows), stored, history)
        iteration, found, losses = checkpoints.load(made, "run")
    assert iteration == len(rows) and len(found) == len(stored)
    for array, expected in zip(found, stored, strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    np.testing.assert_array_equal([list(row.values()) for row in losses], [list(row.values()) for row in history])


# ---------------------------------------------------------------------------------------------
# Metrics

MASKS = st.tuples(st.integers(1, 3), SIDES, SIDES).flatmap(lambda shape: arrays.arrays(bool, (2, *shape)))


@given(MASKS)
def test_counts_are_all_pixels_and_dice_does_not_mind_the_order(masks):
    table, swapped = per_image(*masks), per_image(*masks[::-1])
    assert (table[["tp", "fp", "fn", "tn"]].sum(axis=1) == masks[0, 0].size).all()
    np.testing.assert_array_equal(table["dice"], swapped["dice"])
    values = table[METRICS].to_numpy()
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    same = per_image(masks[0], masks[0])
    assert (same["dice"] == 1).all() and (same["fp"] + same["fn"] == 0).all()


@given(*[st.integers(0, 10**9)] * 3)
def test_dice_rises_with_what_is_found_and_falls_with_what_is_not(tp, fp, fn):
    now = dice(tp, fp, fn)
    assert dice(tp, fp + 1, fn) <= now and dice(tp, fp, fn + 1) <= now
    if fn:
        assert dice(tp + 1, fp, fn - 1) > now
    jaccard = tp / (tp + fp + fn) if tp + fp + fn else 1.0
    assert math.isclose(now, 2 * jaccard / (1 + jaccard), abs_tol=1e-12)


# ---------------------------------------------------------------------------------------------
# Folds and statistics


@given(st.lists(st.sampled_from("abcdefg"), min_size=N_FOLDS, max_size=40))
def test_every_patient_is_tested_once_and_never_trained_on_then(patients):
    assume(len(set(patients)) >= N_FOLDS)
    pixels = np.zeros((len(patients), 1, 1), np.uint8)
    cohort = Cohort("covid", pixels, None, np.array(patients), assign_folds(patients))
    tested = []
    for fold in range(N_FOLDS):
        training, test = fold_indices(cohort, fold)
        assert not {patients[k] for k in training} & {patients[k] for k in test}
        tested += [*test.tolist()]
    assert sorted(tested) == list(range(len(patients)))


VALUES = st.lists(st.integers(-100, 100), min_size=2, max_size=20)


@settings(max_examples=25)
@given(VALUES, st.integers(2, 5), st.integers(-50, 50), st.integers(1, 9))
def test_an_interval_moves_and_stretches_with_its_values(values, groups, shift, scale):
    values, groups = np.array(values), np.arange(len(values)) % groups
    low, high = bootstrap_ci(values, groups, np.mean, 200)
    assert values.min() <= low <= high <= values.max()
    moved = bootstrap_ci(scale * values + shift, groups, np.mean, 200)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-9)
    wider = bootstrap_ci(values, groups, np.mean, 200, level=0.99)
    assert wider[0] <= low + 1e-9 and wider[1] >= high - 1e-9


@settings(max_examples=15)
@given(st.lists(SHARES, min_size=1, max_size=12), st.integers(0, 99))
def test_adjusted_p_values_keep_their_order_and_bounds(p, seed):
    p, adjusted = np.array(p), holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_allclose(holm(p[order]), adjusted[order])
    with_gap = holm([*p, np.nan])
    np.testing.assert_array_equal(with_gap, [*adjusted, np.nan])
