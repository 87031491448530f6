"""Annotator: a model of the person who draws B-line masks (section 2.4: a student, reviewed by researchers).

Every fault is in proportion to ``1 - consistency``. Some are a habit that a patient's frames share (style), some are
chance: edges that wander, lines too wide or too narrow, beside the truth, too short; faint lines missed, neighbours
drawn as one, the tails of Z-lines and bright tissue taken for B-lines.
"""

import numpy as np

KNOTS = 9  # along a line, between which its drawn edge wanders


def draw_style(rng):
    """Draw a patient's style: habits of width, length, attention, beginning, and of seeing too much, each -1 to 1."""
    return rng.uniform(-1, 1, 5)


def label(p, lines, truth, style, rng, consistency):
    """Draw the B-lines of one frame as an annotator would.

    Parameters
    ----------
    p : types.SimpleNamespace
        The patient.
    lines : types.SimpleNamespace
        B-lines that are there: ``number`` (n,), ``left`` and ``right`` (n, samples) degrees, ``contrast`` (n,) dB,
        ``begin`` (pixels,) mm; ``false_left`` and ``false_right`` of the Z-lines; ``faintest``, dB.
    truth : ndarray, shape (256, 256), bool
    style : ndarray, shape (5,)
    rng : numpy.random.Generator
        Of the frame.
    consistency : float
        0 to 1; at 1 the label is the truth.

    Returns
    -------
    label : ndarray, shape (256, 256), bool
        Empty only where the truth is.
    """
    fault = 1 - consistency
    chance = rng.uniform(-1, 1, (4, 8))[:, lines.number]  # of this frame, by line
    wiggle = rng.uniform(-1, 1, (2, 8, KNOTS))[:, lines.number]  # of either edge, from top to bottom
    false, which, extent = rng.uniform(0, 1, 3)
    if fault == 0 or not len(lines.number):
        return truth
    left, right = _edges(lines.left, lines.right, fault, style, chance, wiggle)
    # some stop where the line pales, most go to the bottom
    begin = lines.begin.mean()
    short = fault * np.clip(0.3 + 0.5 * style[1] + 0.3 * chance[2], 0, 0.75)
    end = np.where(short < 0.03, 1.01, 1 - short) * (p.depth - begin) + begin
    # the faint ones are missed, never the clearest
    seen = lines.contrast > lines.faintest + 9 * fault * np.clip(0.4 + 0.6 * style[2] + 0.5 * chance[3], 0, None)
    seen[np.argmax(lines.contrast)] = True
    left, right, end = _merged(left[seen], right[seen], end[seen], closer=8 * fault)
    if len(lines.false_left) and false < fault * (0.4 + 0.3 * style[4]):  # a comet tail is taken for a B-line
        pick = int(which * len(lines.false_left))
        left, right = np.vstack([left, lines.false_left[pick]]), np.vstack([right, lines.false_right[pick]])
        end = np.r_[end, begin + (0.3 + 0.7 * extent) * (p.depth - begin)]
    drawn = draw(p, left, right, lines.begin + 3 * fault * (style[3] + 0.5), end)
    return drawn if drawn.any() else truth  # an empty drawing is not handed in


def _edges(left, right, fault, style, chance, wiggle):
    """Drawn edges: wider or narrower by habit and chance, aside, and wandering."""
    width = right - left
    wider = 0.5 * width * fault * (0.6 * style[0] + 0.4 * chance[0])[:, None]
    aside = 0.3 * width * fault * chance[1][:, None]
    samples = np.arange(left.shape[1])
    knots = np.linspace(0, samples[-1], KNOTS)
    jitter = [[np.interp(samples, knots, edge) for edge in side] for side in wiggle]
    left = left + aside - wider + 0.3 * fault * width * np.array(jitter[0])
    right = right + aside + wider + 0.3 * fault * width * np.array(jitter[1])
    return left, np.maximum(right, left + 0.3 * width)


def _merged(left, right, end, closer):
    """Draw neighbours as one where the gap between them is less than ``closer`` degrees."""
    order = np.argsort(left.mean(1), kind="stable")
    left, right, end = left[order], right[order], end[order]
    for i in range(len(order) - 1):
        if 0 < (left[i + 1] - right[i]).mean() < closer:
            right[i] = np.maximum(right[i], left[i + 1])
    return left, right, end


def draw(p, left, right, begin, end):
    """Mask of lines between two edges and two depths.

    Parameters
    ----------
    p : types.SimpleNamespace
        The patient.
    left, right : ndarray, shape (lines, samples)
        Degrees.
    begin : ndarray, shape (pixels,)
        mm, for each pixel of the fan.
    end : ndarray, shape (lines,)
        mm.

    Returns
    -------
    mask : ndarray, shape (256, 256), bool
    """
    inside = np.zeros(len(p.pixel_z), bool)
    for line_left, line_right, line_end in zip(left, right, end, strict=True):
        across = (p.pixel_angle > line_left[p.pixel_row]) & (p.pixel_angle < line_right[p.pixel_row])
        inside |= across & (p.pixel_z < line_end)
    mask = np.zeros(p.inside.shape, bool)
    mask[p.inside] = inside & (p.pixel_z > begin) & p.pixel_open  # no B-line starts behind a rib
    return mask
