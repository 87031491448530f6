"""The geometry of a convex probe's fan, and frames along its scan lines.

A fan is an annular sector: scan lines leave an arc of the probe and end at an arc of equal depth, and their directions
meet in one point behind the probe. Along scan lines a B-line is straight and upright wherever it lies, and as wide
below as its origin.
"""

import numpy as np
from scipy import ndimage
from skimage.measure import LineModelND, ransac

from lusbook.errors import LusbookError
from lusbook.video import crop_fan

UPPER = 0.6  # share of the fan's height in which its sides are looked for: below, they may be dark
FEWEST = 5  # rows that a straight side must be seen in
FLATTEST = 0.2  # columns a row by which a side must part from the vertical


def fit_sector(fan):
    """Find the sector whose part a fan is.

    The sides are the straight lines through the fan's outermost pixels where the frame does not cut them off; where
    they meet is the centre of the arcs. A fan whose deep corners are dark still shows its sides above them.

    Parameters
    ----------
    fan : ndarray, shape (height, width), bool

    Returns
    -------
    sector : dict of float
        ``row`` and ``column`` of the centre, px; ``near`` and ``far``, the radii, px; ``left`` and ``right``, the
        angles of the sides to the vertical, degrees.

    Raises
    ------
    LusbookError
        When the sides cannot be seen, or do not meet above the fan, as those of a linear probe.
    """
    rows = np.flatnonzero(fan.any(axis=1))
    upper = rows[: max(FEWEST, round(UPPER * len(rows)))]
    left, right = fan[upper].argmax(axis=1), fan.shape[1] - 1 - fan[upper, ::-1].argmax(axis=1)
    across = fan.shape[1] - 1  # mirrors a column
    sides = [_side(upper, left - 0.5, left > 0), _side(upper, across - right - 0.5, right < across)]
    steepness = [-np.inf if side is None else -side[0] for side in sides]
    if max(steepness) < FLATTEST:
        raise LusbookError("no sector: neither side of the fan is seen to part from the other, as in a linear probe's")
    (slope_left, start_left), (slope_right, start_right) = (
        side if steep >= max(steepness) / 2 else sides[np.argmax(steepness)]  # a dark side is as its mirror image
        for side, steep in zip(sides, steepness, strict=True)
    )
    slope_right, start_right = -slope_right, across - start_right
    row = (start_left - start_right) / (slope_right - slope_left)
    column = start_left + slope_left * row
    y, x = np.nonzero(fan)
    radius = np.hypot(y - row, x - column)
    middle = np.abs(x - column) <= 0.15 * np.ptp(x)
    angles = {"left": np.degrees(np.arctan(slope_left)), "right": np.degrees(np.arctan(slope_right))}
    near = max(radius[middle].min() - 0.5, 1.0)
    return {"row": row, "column": column, "near": near, "far": radius.max() + 0.5} | angles


def _side(rows, columns, seen):
    """Slope and start of the line through the left side, columns over rows; None where it is not seen."""
    # Going down, the side parts from the other one; where the fan closes in again its corner is dark.
    points = np.column_stack([rows, columns])[seen & (np.gradient(columns) <= 0)]
    if len(points) < FEWEST:
        return None
    line, _ = ransac(points, LineModelND, min_samples=2, residual_threshold=1.5, max_trials=200, rng=0)
    start, end = line.predict_y([0.0, 1.0])
    return float(end - start), float(start)


def draw_sector(sector, shape):
    """Draw a sector: bool, of a frame's shape (height, width)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - sector["row"], x - sector["column"]
    radius, angle = np.hypot(y, x), np.degrees(np.arctan2(x, y))
    inside = (sector["near"] <= radius) & (radius <= sector["far"])
    return inside & (sector["left"] <= angle) & (angle <= sector["right"])


def scan_lines(images, sector, size, order=1):
    """Sample frames along the scan lines of their fan.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
    sector : dict of float
        As :func:`fit_sector` returns it.
    size : int
        Side of the result, px.
    order : {0, 1}
        Nearest pixel (masks), or linear interpolation.

    Returns
    -------
    sampled : ndarray, shape (n, size, size), of the same type
        Rows are depths from the near to the far arc, columns scan lines from left to right; 0 where the scan line
        leaves the frame.
    """
    share = (np.arange(size) + 0.5) / size
    angle = np.radians(sector["left"] + share * (sector["right"] - sector["left"]))  # (size,)
    radius = (sector["near"] + share * (sector["far"] - sector["near"]))[:, None]  # (size, 1)
    places = [sector["row"] + radius * np.cos(angle), sector["column"] + radius * np.sin(angle)]  # 2 of (size, size)
    return np.stack([ndimage.map_coordinates(image, places, order=order) for image in images])


def cut_scan_lines(frames, fan, size):
    """Cut the fan out of frames along its scan lines; where it is no sector, as :func:`lusbook.video.crop_fan` does.

    Parameters
    ----------
    frames : ndarray, shape (n, height, width), uint8
    fan : ndarray, shape (height, width), bool
    size : int
        Side of the result, px.

    Returns
    -------
    cut : ndarray, shape (n, size, size), uint8
    cut_fan : ndarray, shape (size, size), bool
    """
    try:
        sector = fit_sector(fan)
    except LusbookError:
        return crop_fan(frames, fan, size)
    inside = (fan * np.uint8(255))[None]
    fine = scan_lines(np.concatenate([np.where(fan, frames, 0), inside]), sector, 4 * size)  # (n + 1, 4 size, 4 size)
    small = np.rint(fine.reshape(-1, size, 4, size, 4).mean(axis=(2, 4))).astype(np.uint8)  # without aliasing
    cut_fan = small[-1] > 127
    return np.where(cut_fan, small[:-1], 0).astype(np.uint8), cut_fan
