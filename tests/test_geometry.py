"""The sector of a convex probe's fan, and frames along its scan lines."""

import os

import numpy as np
import pytest

from lusbook import geometry, sources, video
from lusbook.errors import LusbookError

SHAPE = (120, 140)
SECTOR = {"row": -50.0, "column": 69.5, "near": 60.0, "far": 160.0, "left": -30.0, "right": 30.0}


def assert_close(found, expected, **tolerances):
    for name, tolerance in {"row": 4, "column": 1.5, "near": 3, "far": 4, "left": 1, "right": 1, **tolerances}.items():
        assert found[name] == pytest.approx(expected[name], abs=tolerance), name


def test_a_drawn_sector_is_found_again():
    assert_close(geometry.fit_sector(geometry.draw_sector(SECTOR, SHAPE)), SECTOR)


def test_a_sector_off_the_middle_with_unequal_sides():
    other = SECTOR | {"column": 60.0, "left": -22.0, "right": 28.0}
    assert_close(geometry.fit_sector(geometry.draw_sector(other, SHAPE)), other)


def test_dark_deep_corners_do_not_matter():
    fan = geometry.draw_sector(SECTOR, SHAPE)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    dark = (y > 75) & (y - 75 > (x - 10) / 2) & (x < 69)
    assert (fan & dark).sum() > 200
    assert_close(geometry.fit_sector(fan & ~dark), SECTOR)


def test_a_dark_side_is_the_mirror_image_of_the_other():
    fan = geometry.draw_sector(SECTOR, SHAPE)
    fan[:, :40] = False  # a rib's shadow down the whole left side
    assert_close(geometry.fit_sector(fan), SECTOR)


@pytest.mark.parametrize("fan", [np.ones(SHAPE, bool), np.pad(np.ones((100, 60), bool), ((10, 10), (40, 40)))])
def test_what_has_no_parting_sides_is_no_sector(fan):
    with pytest.raises(LusbookError, match="no sector"):
        geometry.fit_sector(fan)


def test_along_scan_lines_a_ray_is_upright_and_an_arc_level():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = np.degrees(np.arctan2(x - SECTOR["column"], y - SECTOR["row"]))
    radius = np.hypot(x - SECTOR["column"], y - SECTOR["row"])
    ray, arc = np.abs(angle - 15) < 2, np.abs(radius - 110) < 3
    sampled = geometry.scan_lines(np.stack([ray, arc]).astype(np.uint8), SECTOR, 64, order=0)
    columns = np.flatnonzero(sampled[0, :40].any(axis=0))  # below, the ray leaves the frame
    assert columns.min() >= 44 and columns.max() <= 51  # 15 degrees: three quarters of the way from -30 to 30
    rows = np.flatnonzero(sampled[1].any(axis=1))
    assert 29 <= rows.min() and rows.max() <= 34  # half way from 60 to 160
    assert sampled[1, 32].mean() > 0.9


def test_cutting_gives_the_whole_fan_and_nothing_else():
    fan = geometry.draw_sector(SECTOR, SHAPE)
    frames = np.where(fan, 100, 250).astype(np.uint8)[None]
    cut, cut_fan = geometry.cut_scan_lines(frames, fan, 32)
    assert cut.shape == (1, 32, 32) and cut.dtype == np.uint8
    assert cut_fan.mean() > 0.85  # what the frame cuts off is missing
    assert cut.max() <= 101 and np.median(cut[0][cut_fan]) == 100
    assert not cut[0][~cut_fan].any()


def test_what_is_no_sector_is_cut_as_a_frame():
    frames, fan = np.full((2, *SHAPE), 90, np.uint8), np.ones(SHAPE, bool)
    for found, expected in zip(geometry.cut_scan_lines(frames, fan, 16), video.crop_fan(frames, fan, 16), strict=True):
        np.testing.assert_array_equal(found, expected)


REAL = os.environ.get(sources.COVID_BLUES)


@pytest.mark.skipif(not REAL, reason="LUSBOOK_COVID_BLUES does not name a copy of COVID-BLUES")
def test_sectors_of_real_clips_hold_their_fans():
    """Of every 20th clip: found, of one probe's angles, and all of the fan inside."""
    held = []
    for path in sources.read_covid_blues(REAL)["path"].iloc[::20]:
        fan = video.fan_mask(video.read_clip(path))
        try:
            sector = geometry.fit_sector(fan)
        except LusbookError:
            held.append(False)
            continue
        inside = geometry.draw_sector(sector, fan.shape)
        held.append(sector["right"] - sector["left"] > 50 and (fan & ~inside).sum() < 0.03 * fan.sum())
    assert np.mean(held) > 0.75
