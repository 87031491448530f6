import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.stats import spearmanr

from lusbook import anatomy, phantom, scanner
from lusbook.errors import LusbookError
from lusbook.loading import phantom_parameters
from lusbook.settings import Settings
from lusbook.tables import load_published
from tests.helpers import phantom_patient

TINY = ((3, 2), (4,))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def cohort():
    return phantom.simulate("cap", seed=3, diversity=0.8, consistency=0.5, plan=TINY)


@pytest.fixture(scope="module")
def varied():
    """Eight patients of the greatest diversity: their fixed part, a moment, and the frame at that moment."""
    patients = []
    for number in range(1, 9):
        p = phantom_patient("cap", number, 1.0)
        patients.append((p, anatomy.moment(p, 0.0), phantom.frame("cap", number, 0, diversity=1, consistency=0)))
    return patients


def test_plan_is_the_papers():
    assert [sum(fold) for fold in phantom.PLAN["covid"]] == [319, 319, 339]
    assert [len(fold) for fold in phantom.PLAN["covid"]] == [2, 2, 2]
    assert [sum(fold) for fold in phantom.PLAN["cap"]] == [148, 111, 67]
    assert [len(fold) for fold in phantom.PLAN["cap"]] == [1, 2, 3]


def test_shapes_types_patients_and_folds(cohort):
    assert cohort.name == "cap"
    for array, dtype in ((cohort.images, np.uint8), (cohort.masks, bool), (cohort.truth, bool)):
        assert array.shape == (9, 256, 256) and array.dtype == dtype
    assert cohort.patients.tolist() == ["cap-1"] * 3 + ["cap-2"] * 2 + ["cap-3"] * 4
    assert cohort.folds.tolist() == [0] * 5 + [1] * 4


def test_a_single_frame_is_the_cohorts(cohort):
    image, truth, label = phantom.frame("cap", 2, 1, seed=3, diversity=0.8, consistency=0.5)
    assert np.array_equal(image, cohort.images[4])
    assert np.array_equal(truth, cohort.truth[4])
    assert np.array_equal(label, cohort.masks[4])


def test_frames_differ_and_so_do_seeds_and_names(cohort):
    assert len({image.tobytes() for image in cohort.images}) == len(cohort.images)
    arguments = {"diversity": 0.8, "consistency": 0.5, "plan": ((1,),)}
    first = {phantom.simulate(n, seed=s, **arguments).images.tobytes() for n in ("cap", "covid") for s in (3, 4)}
    assert len(first) == 4


def test_same_bytes_in_another_process(tmp_path):
    script = tmp_path / "hash.py"
    script.write_text(
        "import hashlib\n"
        "from lusbook import phantom\n"
        "c = phantom.simulate('cap', seed=5, diversity=0.8, consistency=0.5, image_size=96, plan=((2,), (1,)))\n"
        "print(hashlib.sha256(c.images.tobytes() + c.masks.tobytes() + c.truth.tobytes()).hexdigest())\n"
    )
    environments = ({"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2"})
    hashes = {
        subprocess.run(
            [sys.executable, script], env=os.environ | extra, capture_output=True, text=True, check=True
        ).stdout
        for extra in environments
    }
    assert len(hashes) == 1 and len(hashes.pop().strip()) == 64


def test_workers_give_what_one_process_gives():
    key = phantom._key(seed=1, diversity=0.3, consistency=0.9, image_size=32)
    jobs = [("covid", number, range(2), key) for number in (1, 2)]
    for one, other in zip(phantom._run(jobs, None), phantom._run(jobs, 2), strict=True):
        assert len(one) == len(other) == 2
        assert all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_black_outside_the_fan_and_masks_inside(varied):
    for p, _, (image, truth, label) in varied:
        assert not image[~p.inside].any() and not truth[~p.inside].any() and not label[~p.inside].any()
        assert truth.any() and label.any()
        assert image[p.inside].std() > 10


def test_truth_runs_from_the_lung_to_the_bottom(varied):
    for p, m, (_, truth, _) in varied:
        inside, lung = truth[p.inside], m.lung[p.pixel_column]
        assert (m.lung >= m.pleura).all()
        assert (p.pixel_z[inside] > lung[inside]).all()
        pixel = np.diff(np.sort(p.pixel_z)).max() + 256 / p.depth  # mm, generous
        assert (p.pixel_z - lung)[inside].min() < pixel  # starts at the surface of the lung
        bottom = np.abs(p.pixel_z - p.depth) < pixel
        for line in np.flatnonzero(m.shown[: anatomy.B_LINES]):
            middle = (m.left[line, -1] + m.right[line, -1]) / 2
            at_line = bottom & (np.abs(p.pixel_angle - middle) < 0.3) & p.pixel_open
            assert inside[at_line].all()  # reaches the bottom, where the frame's crop leaves one


def test_a_b_line_is_brighter_than_what_surrounds_it():
    for number in range(1, 7):
        p = phantom_patient("covid", number, 0.3)
        image, truth, _ = phantom.frame("covid", number, 0, diversity=0.3, consistency=1)
        lung = np.zeros_like(truth)
        begin = anatomy.moment(p, 0.0).lung[p.pixel_column]
        lung[p.inside] = (p.pixel_z > begin + 3) & p.pixel_open  # ribs' shadows left out
        assert image[truth & lung].mean() > image[lung & ~truth].mean() + 5
        assert image[p.inside & ~lung].max() > np.percentile(image[truth & lung], 99)  # not the only bright thing


def test_frames_without_b_lines_have_empty_masks():
    c = phantom.simulate("x", diversity=1, consistency=0.2, image_size=32, numbers="mixed", plan=(tuple([1] * 12),))
    assert np.array_equal(c.truth.any((1, 2)), c.masks.any((1, 2))) and 0 < c.truth.any((1, 2)).sum() < 12


def test_consistent_labels_are_the_truth():
    cohort = phantom.simulate("cap", diversity=1, consistency=1, plan=((1, 1, 1, 1, 1, 1),))
    assert np.array_equal(cohort.masks, cohort.truth)


def test_agreement_falls_with_consistency_and_images_stay():
    plan = ((2, 2, 2), (2, 2, 2))
    cohorts = [phantom.simulate("cap", diversity=0.5, consistency=c, plan=plan) for c in (0.9, 0.5, 0.1)]
    agreement = [np.mean([dice(*pair) for pair in zip(c.masks, c.truth, strict=True)]) for c in cohorts]
    assert agreement[0] > agreement[1] + 0.05 > agreement[2] + 0.1
    for other in cohorts[1:]:
        assert np.array_equal(cohorts[0].images, other.images) and np.array_equal(cohorts[0].truth, other.truth)


def test_another_annotator_labels_the_same_images_differently():
    plan = ((3, 3), (3,))
    one, other = (phantom.simulate("cap", diversity=0.5, consistency=0.5, plan=plan, annotator=k) for k in (0, 1))
    assert np.array_equal(one.images, other.images) and np.array_equal(one.truth, other.truth)
    assert np.mean([dice(*pair) for pair in zip(one.masks, other.masks, strict=True)]) < 0.98
    sure = [phantom.simulate("cap", diversity=0.5, consistency=1, plan=plan, annotator=k).masks for k in (0, 1)]
    assert np.array_equal(*sure)


def test_diversity_spreads_place_size_and_brightness():
    spread = []
    for diversity in (0.1, 0.5, 1.0):
        plan = (tuple([2] * 12),)
        c = phantom.simulate("cap", diversity=diversity, consistency=1, image_size=64, plan=plan)
        column = [np.nonzero(mask)[1].mean() for mask in c.truth]
        spread.append([np.std(column), c.truth.mean((1, 2)).std(), c.images.mean((1, 2)).std()])
    assert (np.diff(spread, axis=0) > 0).all()


@pytest.mark.parametrize("diversity", [0.2, 1.0])
def test_frames_of_a_patient_are_alike(diversity):
    c = phantom.simulate("cap", diversity=diversity, consistency=1, image_size=64, plan=((4, 4, 4, 4),))
    means = c.images.reshape(4, 4, -1).astype(float).mean(1)  # of every patient
    within = np.mean([np.abs(c.images[i] - means[i // 4].reshape(64, 64)).mean() for i in range(16)])
    between = np.mean([np.abs(means[i] - means[j]).mean() for i in range(4) for j in range(i)])
    assert between > within


@pytest.mark.parametrize("size", [64, 96, 128])
def test_sizes_are_averages_of_one_simulation(cohort, size):
    small = phantom.simulate("cap", seed=3, diversity=0.8, consistency=0.5, plan=TINY, image_size=size)
    assert small.images.shape == (9, size, size) and small.images.dtype == np.uint8 and small.masks.dtype == bool
    assert np.allclose(small.images.mean((1, 2)), cohort.images.mean((1, 2)), atol=0.5)
    assert np.allclose(small.truth.mean((1, 2)), cohort.truth.mean((1, 2)), rtol=0.15)  # ties go to the mask
    if 256 % size == 0:
        step = 256 // size
        blocks = cohort.images[0].reshape(size, step, size, step).mean((1, 3))
        assert np.abs(small.images[0] - blocks).max() <= 0.5
        majority = cohort.truth[0].reshape(size, step, size, step).mean((1, 3)) >= 0.5
        assert np.array_equal(small.truth[0], majority)


def test_digest_follows_every_parameter():
    one = {"name": "cap", "seed": 0, "diversity": 0.5, "consistency": 0.5, "image_size": 64}
    changes = [{}, {"name": "covid"}, {"seed": 1}, {"diversity": 0.6}, {"consistency": 0.6}, {"image_size": 96}]
    changes += [{"plan": [[1]]}, {"scanner": "lumify"}, {"numbers": "public"}, {"annotator": 1}]
    changes += [{"gap": 0.25}, {"gap": 1}]
    digests = {phantom.digest(**one | change) for change in changes}
    assert len(digests) == 12
    assert phantom.digest(**one, gap=0) == phantom.digest(**one)
    assert phantom.digest(**one) == phantom.digest(**one, plan=phantom.PLAN["cap"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diversity": 1.1}, "diversity.*0 to 1.*1.1"),
        ({"diversity": float("nan")}, "diversity.*nan"),
        ({"consistency": -0.1}, "consistency.*0 to 1.*-0.1"),
        ({"gap": -0.1}, "phantom gap: expected a number from 0 to 1, received -0.1"),
        ({"gap": 1.1}, "phantom gap: expected a number from 0 to 1, received 1.1"),
        ({"gap": float("nan")}, "phantom gap.*nan"),
        ({"name": "influenza"}, "influenza"),
        ({"image_size": 100}, "multiple of 8.*100"),
        ({"image_size": 0}, "multiple of 8.*0"),
        ({"seed": -1}, "seed.*-1"),
        ({"annotator": -1}, "annotator.*-1"),
        ({"scanner": "toaster"}, "scanner.*butterfly.*toaster"),
        ({"numbers": "many"}, "numbers.*public.*many"),
        ({"plan": ((3, 0),)}, "at least one frame"),
        ({"plan": ()}, "phantom plan.*received \\(\\)"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(LusbookError, match=message):
        phantom.simulate(**{"name": "covid", "diversity": 0.3, "consistency": 0.9} | change)


def test_bad_frame():
    with pytest.raises(LusbookError, match="patient"):
        phantom.frame("covid", 0, 0, diversity=0.3, consistency=0.9)


def test_the_plan_is_the_papers_folds():
    published = load_published("folds")
    for name, folds in phantom.PLAN.items():
        rows = published[published["cohort"] == name]
        assert [len(patients) for patients in folds] == rows["patients"].tolist()
        assert [sum(patients) for patients in folds] == rows["images"].tolist()


# ---------------------------------------------------------------------------------------------
# The gap in appearance


@pytest.mark.parametrize(("kind", "expected"), [("butterfly", "1bed77c611bb8c2e"), ("lumify", "816ead906f033b0d")])
@pytest.mark.parametrize("gap", [{}, {"gap": 0}])
def test_without_a_gap_frames_are_those_from_before_there_was_one(kind, expected, gap):
    options = {"diversity": 0.8, "consistency": 0.5, "scanner": kind, "image_size": 64}
    frame = phantom.frame("cap", 2, 1, **options, **gap)
    assert hashlib.sha256(b"".join(array.tobytes() for array in frame)).hexdigest()[:16] == expected


def test_without_a_gap_digests_are_those_from_before_there_was_one():
    assert phantom.digest(**phantom_parameters("covid", Settings())) == "5bdd74c28b01e8f3"
    assert phantom.digest(**phantom_parameters("cap", Settings(cap_gap=0))) == "56552ed82b638d31"


GAPS = (0, 0.25, 0.5, 1)


@pytest.fixture(scope="module")
def widened():
    """Frames of five patients at every gap."""
    options = {"diversity": 0.8, "consistency": 0.5, "image_size": 64}
    return [[phantom.frame("cap", n, n, gap=gap, **options) for gap in GAPS] for n in range(1, 6)]


def test_truth_and_labels_are_the_same_at_any_gap(widened):
    for frames in widened:
        for _, truth, label in frames[1:]:
            np.testing.assert_array_equal(truth, frames[0][1])
            np.testing.assert_array_equal(label, frames[0][2])


def test_images_change_the_more_the_wider_the_gap(widened):
    for frames in widened:
        images = [image.astype(float) for image, _, _ in frames]
        changes = [np.abs(image - images[0]).mean() for image in images]
        assert changes[0] == 0 and (np.diff(changes) > 1).all(), changes


def test_order_of_grey_levels_survives_the_gap(widened):
    correlations, contrasts = [], []
    for frames in widened:
        images, truth = [image.astype(float) for image, _, _ in frames], frames[0][1]
        fan = np.any([image > 0 for image in images], axis=0)
        smooth = [gaussian_filter(image, 1.5) for image in images]
        correlations.append([spearmanr(smooth[0][fan], image[fan]).statistic for image in smooth[1:]])
        beside = binary_dilation(truth, iterations=4) & ~binary_dilation(truth) & fan & truth.any(1)[:, None]
        contrasts.append([image[truth].mean() - image[beside].mean() for image in smooth])
    correlations, contrasts = np.array(correlations), np.array(contrasts)
    assert (np.median(correlations, axis=0) > [0.95, 0.92, 0.85]).all() and correlations.min() > 0.8
    assert (contrasts > 0).all()  # a B-line stays brighter than what is beside it,
    assert (np.diff(contrasts, axis=1) < 0).all()  # by less and less


@pytest.mark.parametrize("diversity", [0.0, 1.0])
@pytest.mark.parametrize("kind", sorted(scanner.SCANNERS))
def test_a_gap_shifts_settings_of_the_scanner_and_nothing_else(kind, diversity):
    near, far = (vars(phantom_patient("cap", 3, diversity, kind, gap=gap)) for gap in (0.0, 0.5))
    assert near.keys() == far.keys() and near["clutter"] == 0 < far["clutter"]
    for name in near.keys() - {"clutter"}:
        if name in scanner.GAP:
            assert far[name] - near[name] == pytest.approx(0.5 * scanner.GAP[name])
        else:
            np.testing.assert_equal(far[name], near[name])


def test_a_gap_draws_no_random_numbers():
    left = []
    for gap in (0.0, 1.0):
        p, rng = phantom_patient("cap", 1, 0.5, gap=gap), np.random.default_rng(0)
        m = anatomy.moment(p, 0.0)
        scanner.image(p, *anatomy.echoes(p, m), m.shift_mm, rng)
        left.append(rng.random())
    assert left[0] == left[1]
