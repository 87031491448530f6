"""Measures beside Dice, held against all pairs of border points, cases by hand and the counts of runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.measure import perimeter
from skimage.metrics import hausdorff_distance

from lusbook import metrics, runs, secondary, segment
from lusbook.cohort import fold_indices
from lusbook.errors import LusbookError, MissingData
from lusbook.loading import load_cohorts
from lusbook.settings import make_settings
from tests.helpers import write_manifest

# Length of border around a corner of four pixels, by how many of them are in the mask: a cut corner, a side, a cut
# corner; two pixels that touch only at the corner cut it twice.
CUT = np.sqrt(0.5)


def border(mask):
    """Corners of pixels on the border of a mask, shape (points, 2), and the length of border at each."""
    padded = np.pad(mask, 1).astype(int)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    inside = a + b + c + d
    lengths = np.select([inside % 2 == 1, (inside == 2) & (a == d), inside == 2], [CUT, 2 * CUT, 1.0], 0.0)
    return np.argwhere((inside > 0) & (inside < 4)).astype(float), lengths[(inside > 0) & (inside < 4)]


def brute_force(prediction, mask, tolerance):
    """HD95 and normalised surface distance from the distances between all pairs of border points."""
    (points, lengths), (others, other_lengths) = border(prediction), border(mask)
    pairs = cdist(points, others)
    percentiles, near = [], 0.0
    for nearest, weights in ((pairs.min(axis=1), lengths), (pairs.min(axis=0), other_lengths)):
        within = [weights[nearest <= distance].sum() / weights.sum() for distance in np.unique(nearest)]
        percentiles.append(np.unique(nearest)[np.argmax(np.array(within) >= 0.95)])
        near += weights[nearest <= tolerance].sum()
    return max(percentiles), near / (lengths.sum() + other_lengths.sum())


def blobs(n=12, side=24, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([ndimage.gaussian_filter(rng.normal(size=(side, side)), 2) > 0.05 for _ in range(n)])


def columns(*ranges, height=16, width=16):
    """A mask of upright bars."""
    mask = np.zeros((1, height, width), bool)
    for start, stop in ranges:
        mask[:, :, start:stop] = True
    return mask


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_distances_are_those_between_all_pairs_of_border_points(tolerance):
    prediction, mask = blobs(seed=1), blobs(seed=2)
    found = secondary.surface_metrics(prediction, mask, tolerance=tolerance)
    expected = [brute_force(*pair, tolerance) for pair in zip(prediction, mask, strict=True)]
    np.testing.assert_allclose(found.to_numpy(), expected)
    assert found["nsd"].between(0.01, 0.99).all() and found["hd95"].nunique() > 3


def test_the_hausdorff_distance_is_an_upper_bound():
    prediction, mask = blobs(seed=3), blobs(seed=4)
    found = secondary.surface_metrics(prediction, mask)["hd95"]
    for hd95, *pair in zip(found, prediction, mask, strict=True):
        corners = [np.zeros(np.add(mask.shape[1:], 1), bool) for _ in pair]
        for image, part in zip(corners, pair, strict=True):
            image[tuple(border(part)[0].astype(int).T)] = True
        assert 0 < hd95 <= hausdorff_distance(*corners)


def test_lengths_of_borders_are_a_perimeter():
    """The brute force weighs points by length: their sum is close to another estimate of the perimeter."""
    disc = np.hypot(*np.mgrid[-30:31, -30:31]) < 25
    assert border(disc)[1].sum() == pytest.approx(perimeter(disc), rel=0.06)
    assert border(columns((3, 7))[0])[1].sum() == pytest.approx(2 * 15 + 2 * 3 + 4 * CUT)


@pytest.mark.parametrize(
    ("prediction", "hd95", "nsd"),
    [
        (columns((4, 6)), 0, 1),  # the same line
        (columns((5, 7)), 1, 1),  # one pixel aside: within the tolerance everywhere
        (columns((3, 7)), 1, 1),  # one pixel wider on both sides
        (columns((9, 11)), 5, 0),  # a parallel line
    ],
)
def test_lines_that_are_shifted(prediction, hd95, nsd):
    found = secondary.surface_metrics(prediction, columns((4, 6))).iloc[0]
    assert (found["hd95"], found["nsd"]) == (hd95, pytest.approx(nsd))


def test_a_shifted_square_and_a_pixel_that_is_not_square():
    square = np.zeros((1, 30, 30), bool)
    square[:, 5:15, 5:15] = True
    moved = np.roll(square, 4, 2)
    assert secondary.surface_metrics(moved, square)["hd95"].iloc[0] == 4
    across, down = (np.roll(square, 3, axis) for axis in (2, 1))
    assert secondary.surface_metrics(across, square, (1.0, 2.0))["hd95"].iloc[0] == 6
    assert secondary.surface_metrics(down, square, (1.0, 2.0))["hd95"].iloc[0] == 3
    finer = secondary.surface_metrics(moved, square, (0.5, 0.5), 0.5)
    pd.testing.assert_frame_equal(finer * [2, 1], secondary.surface_metrics(moved, square))


def test_both_directions_count_and_order_does_not_matter():
    prediction, mask = blobs(seed=5), blobs(seed=6)
    pd.testing.assert_frame_equal(
        secondary.surface_metrics(prediction, mask), secondary.surface_metrics(mask, prediction)
    )
    far = secondary.surface_metrics(columns((4, 6), (12, 14)), columns((4, 6))).iloc[0]
    assert far["hd95"] == 8 and far["nsd"] == pytest.approx(2 / 3)


def test_empty_masks_follow_the_rule_of_dice():
    empty, line = columns(), columns((4, 6))
    prediction, mask = np.concatenate([empty, empty, line, line]), np.concatenate([empty, line, empty, line])
    found = secondary.measure(prediction, mask)
    assert found["nsd"].tolist() == found["dice"].tolist() == [1, 0, 0, 1]
    assert found["hd95"].isna().tolist() == [True, True, True, False]
    assert found[["lines", "found", "false_lines"]].values.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]]


def test_distances_are_shares_of_the_side():
    small, large = columns((4, 6), height=64, width=64), columns((16, 24), height=256, width=256)
    found = [secondary.measure(np.roll(mask, mask.shape[-1] // 64, 2), mask).iloc[0] for mask in (small, large)]
    assert found[0]["hd95"] == found[1]["hd95"] == 1 / 64
    assert found[0]["nsd"] == found[1]["nsd"] == 1


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (columns((2, 4), (10, 12)), [2, 2, 0]),
        (columns((2, 4)), [2, 1, 0]),
        (columns((2, 3), (10, 11)), [2, 2, 0]),  # half of each
        (columns((0, 16)), [2, 2, 0]),  # one blob over both finds both
        (columns((2, 4), (6, 8), (14, 16)), [2, 1, 2]),
        (columns((4, 6)), [2, 0, 1]),  # beside the line
        (columns((3, 6)), [2, 1, 0]),  # half of it, and more beside
        (columns(), [2, 0, 0]),
    ],
)
def test_lines_are_found_when_half_of_them_is_predicted(prediction, expected):
    mask = columns((2, 4), (10, 12))
    assert secondary.lines_found(prediction, mask).iloc[0].tolist() == expected


def test_less_than_half_of_a_line_is_not_found_and_corners_connect():
    mask = columns((2, 4), (10, 12))
    part = mask.copy()
    part[:, 7:, 2:4] = False
    assert secondary.lines_found(part, mask).iloc[0].tolist() == [2, 1, 0]
    diagonal = np.eye(8, dtype=bool)[None]
    assert secondary.lines_found(diagonal, diagonal).iloc[0].tolist() == [1, 1, 0]


def test_lines_against_parts_that_are_grown_one_by_one():
    prediction, mask = blobs(20, seed=7), blobs(20, seed=8)
    for row, predicted, labelled in zip(secondary.lines_found(prediction, mask).values, prediction, mask, strict=True):
        lines, drawn = (parts(image) for image in (labelled, predicted))
        found = sum(2 * (line & predicted).sum() >= line.sum() for line in lines)
        assert row.tolist() == [len(lines), found, sum(not (part & labelled).any() for part in drawn)]


def parts(image):
    """Connected parts, each grown from its first pixel."""
    left, found = image.copy(), []
    while left.any():
        part = np.zeros_like(image)
        part[tuple(np.argwhere(left)[0])] = True
        part = ndimage.binary_propagation(part, np.ones((3, 3)), mask=image)
        found.append(part)
        left &= ~part
    return found


def test_counts_at_thresholds_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    probabilities, mask = rng.random((5, 8, 8)).astype(np.float32), rng.random((5, 8, 8)) > 0.5
    counts = secondary.at_thresholds(probabilities, mask)
    assert counts["threshold"].unique().tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for threshold, rows in counts.groupby("threshold"):
        expected = metrics.per_image(probabilities > threshold, mask)[["tp", "fp", "fn"]]
        assert rows[["tp", "fp", "fn"]].values.tolist() == expected.values.tolist()
        assert rows["index"].tolist() == [0, 1, 2, 3, 4]
    predicted = counts.assign(predicted=counts["tp"] + counts["fp"]).groupby("threshold")["predicted"].sum()
    assert predicted.is_monotonic_decreasing and predicted.nunique() == 9


@pytest.mark.parametrize("function", [secondary.surface_metrics, secondary.lines_found, secondary.measure])
def test_what_are_no_masks_is_refused(function):
    with pytest.raises(LusbookError, match="expected the same shape"):
        function(columns(), columns(width=8))
    with pytest.raises(LusbookError, match="expected bool"):
        function(columns().astype(float), columns())


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0,), 1.0), ((1.0, 0.0), 1.0), ((1.0, 1.0), -1.0)])
def test_impossible_lengths_are_refused(spacing, tolerance):
    with pytest.raises(LusbookError, match="two positive sides of a pixel and a tolerance of 0 or more, received"):
        secondary.surface_metrics(columns(), columns(), spacing, tolerance)


# ---------------------------------------------------------------------------------------------
# Studies


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return make_settings("smoke", cohorts=str(write_manifest(tmp_path_factory.mktemp("cohort"))))


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    return runs.run("unet-cap", 1, settings, tmp_path_factory.mktemp("results"))


def test_a_trained_network_is_measured_on_its_test_fold(settings, finished):
    cohorts = load_cohorts(settings)
    tables = secondary.run_secondary(settings, cohorts, {("unet-cap", 1): finished})["tables"]
    images, expected = tables["images"], pd.read_csv(finished / "per_image.csv")
    assert images["image"].tolist() == expected["image"].tolist()
    assert images["cohort"].tolist() == expected["cohort"].tolist()
    np.testing.assert_allclose(images["dice"], expected["dice"], atol=5e-5)
    assert set(images["experiment"]) == {"unet-cap"}  # own images have no exact masks
    at_half = tables["thresholds"][tables["thresholds"]["threshold"] == 0.5].set_index(["cohort", "patient"])
    means = expected.groupby(["cohort", "patient"])["dice"].agg(["mean", "size"])
    np.testing.assert_allclose(at_half["dice"], means["mean"].reindex(at_half.index), atol=5e-5)
    assert at_half["images"].tolist() == means["size"].reindex(at_half.index).tolist()


def test_missing_weights_are_named_with_the_command_that_trains_them(settings, finished, tmp_path):
    folder = tmp_path / "smoke" / "unet-cap" / "fold-1"
    folder.parent.mkdir(parents=True)
    (folder).mkdir()
    for path in finished.iterdir():
        if path.name != "weights.npz":
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(LusbookError, match=r"weights.npz: missing; .*lusbook run unet-cap --fold 1"):
        secondary.run_secondary(settings, load_cohorts(settings), {("unet-cap", 1): folder})


def stand_in(monkeypatch, settings, cohorts, folder, method="unet", **counts):
    """A run whose network answers with the label, by route; its counts can be changed."""
    routes = []

    def load_network(folder, method, settings, route):
        routes.append(route)
        whole = {
            images.tobytes(): mask for c in cohorts.values() for images, mask in zip(c.images, c.masks, strict=True)
        }
        return lambda images: np.stack([whole[image.tobytes()] for image in images]).astype(np.float32)

    tables = []
    for name, cohort in cohorts.items():
        index = fold_indices(cohort, 0)[1]
        for route in ("direct", "translated"):
            found = metrics.per_image(cohort.masks[index], cohort.masks[index])
            tables.append(found.assign(cohort=name, image=index, route=route))
    table = pd.concat(tables, ignore_index=True)
    for column, change in counts.items():
        table.loc[3, column] += change
    table.sample(frac=1, random_state=0).to_csv(folder / "per_image.csv", index=False)  # order is no matter
    monkeypatch.setattr(segment, "read_model", lambda _: (method, settings))
    monkeypatch.setattr(segment, "load_network", load_network)
    return routes


def test_a_source_goes_through_the_generator(monkeypatch, settings, tmp_path):
    cohorts = load_cohorts(settings)
    routes = stand_in(monkeypatch, settings, cohorts, tmp_path, "sifa")
    found = secondary.run_secondary(settings, cohorts, {("sifa-cap-to-covid", 0): tmp_path})["tables"]["images"]
    assert dict(zip(cohorts, routes, strict=True)) == {"covid": "direct", "cap": "translated"}
    assert (found[["dice", "nsd", "found"]] == 1).all(axis=None) and (found[["hd95", "false_lines"]] == 0).all(
        axis=None
    )


def test_other_counts_than_the_runs_are_refused(monkeypatch, settings, tmp_path):
    cohorts = load_cohorts(settings)
    stand_in(monkeypatch, settings, cohorts, tmp_path, tp=-1, fn=1)
    with pytest.raises(LusbookError, match=r"weights.npz: expected the counts .* received others for 1 of 4 images"):
        secondary.run_secondary(settings, cohorts, {("unet-cap", 0): tmp_path})


def test_exact_masks_are_measured_against_the_labels(monkeypatch, settings, tmp_path):
    cohorts = load_cohorts(settings)
    object.__setattr__(cohorts["cap"], "truth", np.roll(cohorts["cap"].masks, 4, axis=2))
    stand_in(monkeypatch, settings, cohorts, tmp_path)
    found = secondary.run_secondary(settings, cohorts, {("unet-cap", 0): tmp_path})["tables"]["images"]
    exact = found[found["experiment"] == secondary.EXACT]
    assert set(exact["cohort"]) == {"cap"} and exact["image"].tolist() == list(range(len(cohorts["cap"])))
    expected = metrics.per_image(cohorts["cap"].truth, cohorts["cap"].masks)["dice"]
    np.testing.assert_allclose(exact["dice"], expected, atol=5e-5)
    assert exact["fold"].tolist() == cohorts["cap"].folds.tolist()


def test_a_study_is_measured_once_and_then_read(monkeypatch, settings, tmp_path):
    with pytest.raises(MissingData, match="`lusbook secondary` does so"):
        runs.secondary(settings, tmp_path, compute=False)
    assert not list(tmp_path.iterdir())
    asked, table = [], pd.DataFrame({"a": [1]})

    def run_secondary(settings, cohorts, folders):
        asked.extend(folders)
        return {"tables": {"images": table, "thresholds": table}}

    def run(name, fold, *_, with_weights):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "weights.npz").write_bytes(b"weights")
        return with_weights and tmp_path / name

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(secondary, "run_secondary", run_secondary)
    for compute in (True, False):
        found = runs.secondary(settings, tmp_path, compute=compute)
        assert set(found) == {"images", "thresholds"}
        pd.testing.assert_frame_equal(found["images"], table)
    assert len(asked) == len(set(asked)) == 24
    assert runs.stale_runs(settings, tmp_path) == {}
