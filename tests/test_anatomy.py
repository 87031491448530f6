"""Anatomy of a simulated patient: what echoes where, and how many B-lines of what shape."""

import numpy as np

from lusbook import anatomy, comparison
from lusbook.scanner import SAMPLES
from tests.helpers import fixed_patient as fixed
from tests.helpers import phantom_patient as patient


def echo(p, at, mirrored=True):
    """Level of the echoes on the central beam around a depth in mm, dB, and of those within 4 mm beside it."""
    scattered, surfaces, _ = anatomy.echoes(p, anatomy.moment(p, 0.0))
    column = (surfaces if mirrored else np.sqrt(scattered))[:, p.angle.size // 2 - 3 : p.angle.size // 2 + 3].mean(1)
    z = p.z[:, 0]
    near, around = np.abs(z - at) < 1.5, (np.abs(z - at) > 2.5) & (np.abs(z - at) < 4)
    return 20 * np.log10(column[near].max() + 1e-6), 20 * np.log10(column[around].max() + 1e-6)


def test_a_lines_stand_at_multiples_of_the_pleura_and_b_lines_erase_them():
    values = {"breath": 0, "rough": 0, "tilt": 0, "rib_offset": 0, "a_line": 3, "z_lines": 0, "wobble": 0, "drift": 0}
    p = fixed(**values)  # its two B-lines stand beside the middle of their space
    middle = len(p.even) // 2
    for order in (1, 2, 3):
        level, beside = echo(p, order * p.even[middle])
        assert level > beside + 10
    assert echo(p, 2 * p.even[middle])[0] > echo(p, 3 * p.even[middle])[0]  # they fade
    _, erased = anatomy._line_power(p, m := anatomy.moment(p, 0.0), p.z - m.lung)
    _, surfaces, _ = anatomy.echoes(p, m)
    rows = np.abs(p.z[:, 0] - 2 * p.even[middle]) < 1
    line, open_ = (erased[rows].min(0) > 0.9) & (p.open > 0.8), (erased[rows].max(0) < 0.1) & (p.open > 0.8)
    assert surfaces[rows][:, line].max() < 0.2 * surfaces[rows][:, open_].max()


def test_fluid_is_black_and_the_lung_begins_below_it():
    p = fixed(effusion=8, consolidation=-1, breath=0)
    m = anatomy.moment(p, 0.0)
    assert np.allclose(m.lung - m.pleura, 8, atol=1e-3)
    assert echo(p, m.pleura[80] + 4, mirrored=False)[0] < -20
    scattered, surfaces, _ = anatomy.echoes(p, m)
    for order in (2, 3):  # no A-line: there is no air behind the pleural line
        row = np.argmin(np.abs(p.z[:, 0] - order * p.even[80]))
        assert surfaces[row, 80] < 0.05


def test_consolidation_lies_under_the_pleura_in_patches():
    p = fixed(consolidation=8)
    deep = (m := anatomy.moment(p, 0.0)).lung - m.pleura
    assert deep.min() >= 0 and 0 < (p.consolidated == 0).mean() < 1 and 6 < p.consolidated.max() < 14


def test_ribs_throw_shadows():
    p = fixed(rib_shadow=25, rib_softness=6)
    shadow = anatomy.echoes(p, anatomy.moment(p, 0.0))[2] - p.no_contact
    assert (shadow[-1, p.open < 0.05] > 20).all() and (shadow[-1, p.open > 0.99] < 2).all()
    assert (shadow[5] < 2).all()  # none above the bone


def test_white_lung_fills_the_intercostal_space():
    narrow, white = fixed(confluence=0), fixed(confluence=1)
    assert np.allclose(2 * white.half_width, white.home_right - white.home_left)
    assert (white.half_width > 2 * narrow.half_width).all()


def test_z_lines_fade_and_are_not_in_the_mask():
    p = fixed(z_lines=4, fade=0)
    m = anatomy.moment(p, 0.0)
    assert m.shown[anatomy.B_LINES :].all()
    m.shown[: anatomy.B_LINES] = False
    power, erased = anatomy._line_power(p, m, p.z - m.lung)
    assert power[SAMPLES // 3].max() > 30 * power[-1].max() and not erased.any()
    assert not anatomy.drawable(p, m).number.size


def test_b_lines_have_the_number_and_the_shape_of_public_polygons():
    """CIT: length / width 9.8 (8.1 to 11.6); one B-line in 85 % of positive frames, two in 12 %, three in 3 %."""
    row = comparison.shapes({"": comparison.phantom_lines("lumify", "public", 1.0)}).iloc[0]
    assert np.allclose(row[["one", "two", "three", "more"]].astype(float), [0.85, 0.12, 0.03, 0], atol=0.05)
    assert np.allclose(row[["low", "median", "high"]].astype(float), [8.1, 9.8, 11.6], atol=0.6)


def test_paper_has_more_lines_than_public_and_mixed_has_frames_without():
    def mean(numbers, diversity=1.0):
        shown = [anatomy.moment(patient("n", k, diversity, numbers=numbers), 0.0).shown for k in range(1, 41)]
        return np.array([s[: anatomy.B_LINES].sum() for s in shown])

    assert mean("paper").mean() > mean("public").mean() + 0.3 and mean("paper").min() == mean("public").min() == 1
    assert 0.3 < (mean("mixed") == 0).mean() < 0.7
    assert mean("paper", 0.0).std() == 0


def test_scanners_differ_and_share_the_anatomy():
    one, other = (patient("cap", 1, 0.8, kind) for kind in ("butterfly", "lumify"))
    assert one.pleura == other.pleura and one.rib_spacing == other.rib_spacing
    assert one.opening != other.opening and one.gain > other.gain
