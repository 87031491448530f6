"""Anatomy: the chest wall and lung of a simulated patient, and what of them echoes (scan lines, decibel).

Depth x angle, as the scanner sees it: skin, fat, muscle and its fasciae, ribs and their shadows, the pleural line, its
reverberations (A-lines, and the haze that repeats the chest wall), fluid, consolidations, B-lines and the comet tails
that are none (Z-lines). A patient is drawn once; breathing and sliding move it from frame to frame.
"""

from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit
from scipy.stats import norm

from lusbook import scanner
from lusbook.scanner import BEAMS, LOOKS, SAMPLES, SCANNERS

#: Shares of frames with 0, 1, 2, ... B-lines, at diversity 1; at less, frames keep nearer to the median.
#: ``public`` is what the polygons of the CIT set hold (365 frames with B-lines); ``paper`` allows more: a
#: guess for patients with pneumonia, of whose frames the paper gives no numbers; ``mixed`` has frames without.
NUMBERS = {
    "public": (0, 0.85, 0.12, 0.03),
    "paper": (0, 0.45, 0.27, 0.15, 0.08, 0.05),
    "mixed": (0.5, 0.27, 0.12, 0.06, 0.03, 0.02),
}

B_LINES, Z_LINES = 6, 4  # most B-lines of a patient, and comet tails that fade (Z-lines): look-alikes, not in the mask
LINES = B_LINES + Z_LINES
FAINTEST = 4.0  # dB above the background at the pleura: no B-line is fainter
LAYERS = 5  # sheets of fascia between skin and pleura
WRAP = 4 * BEAMS  # beams round which the lung slides

#: By name, the value of the typical patient and half the range between patients at diversity 1.
ANATOMY = {
    "pleura": (20, 9),  # mm, depth of the pleural line at the centre
    "tilt": (0, 6),  # mm, over half the fan
    "flatness": (0.5, 0.5),  # 0: parallel to the probe, 1: a straight line
    "rough": (0.35, 0.35),  # mm, irregularity of the pleural line
    "thickness": (0.25, 0.12),  # mm, of the pleural line
    "pleura_level": (12, 6),  # dB, over muscle
    "fat": (0.4, 0.2),  # share of the pleural depth above which there is fat
    "fat_level": (-4, 5),  # dB, over muscle
    "streaks": (4, 2),  # dB, standard deviation of muscle and fat striation
    "fascia": (-1, 5),  # dB, over muscle
    "haze": (-4, 5),  # dB, background under the pleura
    "haze_slope": (-3.3, 1.3),  # dB/cm, of that background
    "patches": (1.5, 1),  # dB, its lateral unevenness
    "mirror": (0.35, 0.25),  # share of the chest wall's striation (in dB) that reverberation repeats under the pleura
    "a_line": (-3, 8),  # dB, first A-line over muscle
    "a_fade": (5, 2.5),  # dB from one A-line to the next
    "edge_loss": (12, 6),  # dB, at the edges of the fan, where beams meet the chest wall at a slant
    "rib_shadow": (14, 13),  # dB; little where the probe lies along the ribs
    "rib_level": (8, 7),  # dB, bright surface of the ribs over muscle
    "rib_spacing": (31, 7),  # degrees
    "rib_half_width": (6, 2.5),  # degrees
    "rib_offset": (0, 15),  # degrees, of the central intercostal space
    "rib_softness": (3, 1.3),  # exponent of the shadow's edge: the greater, the sharper
    "breath": (1.0, 2.0),  # mm, up and down of the pleura
    "slide": (0.8, 1.6),  # degrees, lung sliding with breath
    "z_lines": (1.0, 3.0),  # number of Z-lines
    # rarer: there only where the value is above 0
    "confluence": (-0.9, 1.9),  # share by which B-lines widen to the whole intercostal space; 1 is white lung
    "consolidation": (-7, 15),  # mm, greatest depth of subpleural consolidations
    "effusion": (-12, 18),  # mm, of fluid between chest wall and lung
}

#: As ANATOMY, for each line of a patient.
LINE = {
    "place": (0, 1.5),  # in its intercostal space: 0 the middle; the ribs are never reached
    "log_width": (0.0, 0.3),  # logarithm of its width, over the typical one
    "contrast": (8, 5),  # dB over the background at the pleura
    "taper": (0.1, 0.3),  # relative growth of the angular width from pleura to bottom
    "wobble": (0.15, 0.4),  # degrees, snaking with depth
    "fade": (-0.3, 0.6),  # dB/cm; the haze about them fades faster
    "swing": (1.0, 4.0),  # dB, slow change of contrast in a clip
    "drift": (0.3, 1.2),  # degrees, slow change of place in a clip
    "edge": (2.6, 0.8),  # exponent of its edge: the greater, the sharper
}
HALF_WIDTH = 1.56  # degrees from the middle of a typical B-line to where its echo has fallen by half (in amplitude)


def draw_patient(rng, diversity, kind, numbers):
    """Draw anatomy, scanner and lines, and compute once what all frames of a patient share.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the patient.
    diversity : float
        0 (the typical patient) to 1.
    kind : str
        A key of :data:`lusbook.scanner.SCANNERS`.
    numbers : str
        A key of :data:`NUMBERS`.

    Returns
    -------
    p : types.SimpleNamespace
        Every parameter by its name, and arrays on the grid of scan lines; units stand where they are made.
    """
    # one draw per parameter whatever the diversity: a patient at diversity 0.3 and at 0.8 is the same one, pulled apart
    p = SimpleNamespace(diversity=diversity, numbers=np.cumsum(NUMBERS[numbers]))
    for parameter, (typical, half_range) in (SCANNERS[kind] | ANATOMY).items():
        setattr(p, parameter, typical + diversity * half_range * rng.uniform(-1, 1))
    for parameter, (typical, half_range) in LINE.items():
        setattr(p, parameter, typical + diversity * half_range * rng.uniform(-1, 1, LINES))
    if numbers == "public":  # whose polygons outline lines one by one
        p.confluence = 0.0
    p.burden = rng.standard_normal(7)  # how many lines: of the patient, and slow waves of the clip
    p.phase = rng.uniform(0, 2 * np.pi, (4, LINES))  # of contrast, place, snaking; of breath
    p.period = rng.uniform(4, 12, LINES)  # s, of the slow changes
    scanner.lay_out(p)
    _place_ribs_and_lines(p)
    _draw_textures(p, rng)
    _draw_surfaces(p, rng)
    _lay_chest_wall(p)
    return p


def _place_ribs_and_lines(p):
    """Ribs at even angles; every line starts in an intercostal space, the first (always shown) nearest the centre."""
    p.ribs = p.rib_offset + p.rib_spacing * (np.arange(-3, 3) + 0.5)  # (ribs,) degrees
    from_rib = np.abs(p.angle[:, None] - p.ribs).min(1)  # degrees
    p.rib_distance = (from_rib / p.rib_half_width).astype(np.float32)  # (beams,) 1 at a rib's edge
    usable = min(0.7, p.contact - 0.15) * p.half  # degrees; nothing starts where the probe has no contact
    left = np.maximum(p.ribs[:-1] + p.rib_half_width, -usable)
    right = np.minimum(p.ribs[1:] - p.rib_half_width, usable)
    wide = np.flatnonzero(right - left >= min(6, (right - left).max()))
    wide = wide[np.argsort(np.abs(left + right)[wide], kind="stable")]
    home = wide[np.arange(LINES) % len(wide)]
    p.home_left, p.home_right = left[home], right[home]
    p.place += np.resize([-0.8, 0.8, 0], LINES)  # lines of one space stand side by side
    half_width = HALF_WIDTH * np.exp(p.log_width)
    room = (p.home_right - p.home_left) / 2
    confluence = np.clip(p.confluence, 0, 1) * (half_width < room)
    p.half_width = half_width + confluence * (room - half_width)
    p.pixel_open = np.abs(p.pixel_angle[:, None] - p.ribs).min(1) > p.rib_half_width
    p.open = 1 - np.exp(-0.693 * p.rib_distance**p.rib_softness)  # (beams,) 0 behind a rib, one half at its edge


def _draw_textures(p, rng):
    """Random fields of a patient that move with the tissue."""
    p.scatterers = rng.standard_normal((2 * LOOKS, SAMPLES, BEAMS), dtype=np.float32)  # real and imaginary parts
    layers = _smooth(rng, (SAMPLES, BEAMS), 0.25 * p.millimetre, 3 * p.degree)  # thin, along the probe
    patches = _smooth(rng, (SAMPLES, BEAMS), 1.5 * p.millimetre, 5 * p.degree)
    slant = 1.5 * _smooth(rng, (SAMPLES, BEAMS), 5 * p.millimetre, 6 * p.degree)  # mm
    rows = (np.arange(SAMPLES)[:, None] + np.rint(slant * p.millimetre).astype(int)) % SAMPLES
    p.striation = p.streaks * (np.take_along_axis(layers, rows, axis=0) * (0.6 + expit(2 * patches)) + 0.5 * patches)
    p.ringing = 1.5 * _smooth(rng, (SAMPLES, BEAMS), 0.3 * p.millimetre, 0.8 * p.degree)  # dB, B-lines are short echoes
    p.unevenness = p.patches * _smooth(rng, BEAMS, 3 * p.degree)  # dB


def _draw_surfaces(p, rng):
    """Shapes along the pleura, on an axis longer than the fan: the lung slides past."""
    p.bumps = p.rough * _smooth(rng, WRAP, 2.5 * p.degree)  # mm
    p.glints = 3.5 * _smooth(rng, WRAP, 1.5 * p.degree)  # dB, brightness along the pleura
    p.rays = 2 * _smooth(rng, WRAP, 0.7 * p.degree)  # dB, B-lines are bundles
    p.sheets = np.sort(rng.uniform(0.15, 0.9, LAYERS))  # share of the pleural depth
    p.waves = 0.05 * np.stack([_smooth(rng, BEAMS, 8 * p.degree) for _ in range(LAYERS)])
    broken = np.stack([_smooth(rng, BEAMS, 2.5 * p.degree) for _ in range(LAYERS)])
    p.sheet_level = rng.uniform(-6, 6, (LAYERS, 1)) + 7 * broken  # dB
    ragged = _smooth(rng, WRAP, 0.8 * p.degree)
    where, half = rng.uniform(0, WRAP, 6), rng.uniform(4, 10, 6) * p.degree
    away = (np.arange(WRAP) - where[:, None] + WRAP / 2) % WRAP - WRAP / 2  # (patches, WRAP)
    dome = np.clip(1 - (away / half[:, None]) ** 2, 0, None).max(0)
    p.consolidated = np.clip(max(0.0, p.consolidation) * (dome + 0.15 * ragged * (dome > 0)), 0, None)  # (WRAP,) mm


def _smooth(rng, shape, *sigmas):
    """Noise of unit variance, blurred along each axis, without a seam."""
    field = rng.standard_normal(shape, dtype=np.float32)
    for axis, sigma in enumerate(sigmas):
        field = gaussian_filter1d(field, sigma, axis=axis, mode="wrap")
    return field / field.std()


def _lay_chest_wall(p):
    """Echo level of skin, fat and muscle, and what reverberation repeats of it under the pleura: dB, on the grid."""
    flat = p.flatness * (1 / np.cos(np.radians(p.angle)) - 1)
    even = (p.radius + p.pleura) * (1 + flat) - p.radius + p.tilt * p.angle / p.half
    p.even = np.clip(even, 6, 0.45 * p.depth).astype(np.float32)  # (beams,) mm, depth of the pleura, smoothed
    share = p.z / p.even
    ring_down = (8 + 5 * np.sin(5 * p.z)) * np.exp(-p.z / 2)  # of the probe itself
    tissue = ring_down + p.striation + p.fat_level * expit((p.fat - share) / 0.02)
    fascia = np.zeros_like(p.striation)
    for sheet, wave, level in zip(p.sheets, p.waves, p.sheet_level, strict=True):
        fascia += surface((share - sheet - wave) * p.even, 0.3, p.fascia + level)
    again = np.floor(share)  # how often the sound has been up and down
    rows = np.rint((share - again) * p.even * p.millimetre).astype(int).clip(0, SAMPLES - 1)
    repeated = np.take_along_axis(p.striation + 0.5 * decibel(1 + fascia), rows, axis=0)
    slant = p.edge_loss * (p.angle / p.half) ** 2
    p.tissue = (tissue - 0.4 * slant).astype(np.float32)
    p.fascia_echo = fascia.astype(np.float32)
    under = p.haze + p.unevenness + p.haze_slope * np.maximum(p.z - p.even, 0) / 10 - slant
    p.under = (under + p.mirror * repeated * 0.85**again).astype(np.float32)
    p.background = (p.haze - slant).astype(np.float32)  # (beams,) dB, at the pleura: B-lines stand above it


def power(level):
    """Power of a level in dB."""
    return np.exp(np.float32(0.2303) * level)


def decibel(amplitude):
    """Level in dB of an amplitude."""
    return 20 * np.log10(amplitude)


def surface(distance, thickness, level):
    """Amplitude of a mirror-like sheet of a thickness (standard deviation, mm) at distance 0; it rings on below."""
    spread = np.where(distance > 0, 2 * thickness, thickness)
    return np.exp(0.1151 * level - 0.5 * (distance / spread) ** 2)


# ---------------------------------------------------------------- frame


def moment(p, seconds):
    """Where pleura, lung and lines of a patient are at one time of the clip.

    Parameters
    ----------
    p : types.SimpleNamespace
        As :func:`draw_patient` returns it.
    seconds : float

    Returns
    -------
    m : types.SimpleNamespace
        ``pleura`` and ``lung`` (where air begins), shape (beams,), mm; ``left`` and ``right``, shape (lines, samples),
        degrees; ``contrast``, shape (lines,), dB; ``shown``, shape (lines,), bool; ...
    """
    breath = np.sin(2 * np.pi * seconds / 4 + p.phase[3, 0])
    m = SimpleNamespace(shift_mm=breath * p.breath)
    m.slid = (2 * BEAMS + p.slide * 3 * p.degree * breath + np.arange(BEAMS)) % WRAP  # lung sliding

    def along(values):
        return np.interp(m.slid, np.arange(WRAP), values, period=WRAP).astype(np.float32)

    m.pleura = (p.even + m.shift_mm + along(p.bumps)).astype(np.float32)  # (beams,) mm
    m.glint = along(p.glints)
    m.fluid = np.float32(max(0.0, p.effusion))
    m.lung = m.pleura + m.fluid + along(p.consolidated)  # (beams,) mm, where air begins
    slow = 2 * np.pi * seconds / p.period
    swing = p.swing * np.sin(slow + p.phase[0])
    m.contrast = np.maximum(p.contrast + swing, FAINTEST).astype(np.float32)  # (lines,) dB
    waves = p.burden[1:].reshape(2, 3) * [np.cos(slow[:3]), np.sin(slow[:3])]
    burden = 0.8 * p.burden[0] + 0.6 * waves.sum() / np.sqrt(3)  # a standard normal variable over patients and time
    count = np.searchsorted(p.numbers, norm.cdf(p.diversity * burden))
    m.shown = np.r_[np.arange(B_LINES) < count, np.arange(Z_LINES) < round(p.z_lines)]
    place = (1 + np.tanh(p.place)) / 2
    centre = p.home_left + place * (p.home_right - p.home_left)
    centre = centre + p.slide * breath + p.drift * np.sin(slow + p.phase[1])
    m.centre = np.clip(centre, p.home_left + 1, p.home_right - 1)
    down = np.linspace(0, 1, SAMPLES)[:, None]
    half_width = p.half_width * (1 + p.taper * (down - 0.5))
    snake = p.wobble * np.sin(7 * down + p.phase[2] + 0.5 * seconds) * down
    m.left = (m.centre + snake - half_width).T.astype(np.float32)  # (lines, samples) degrees
    m.right = (m.centre + snake + half_width).T.astype(np.float32)
    return m


def drawable(p, m):
    """What an annotator could draw in a frame.

    Returns
    -------
    lines : types.SimpleNamespace
        B-lines that are shown: their ``number`` (n,), edges ``left`` and ``right`` (n, samples) in degrees and
        ``contrast`` (n,) in dB; ``begin``, where the lung begins under each pixel of the fan, (pixels,) mm; edges of
        Z-lines, ``false_left`` and ``false_right``; ``faintest``, dB.
    """
    real, false = np.flatnonzero(m.shown[:B_LINES]), B_LINES + np.flatnonzero(m.shown[B_LINES:])
    return SimpleNamespace(
        number=real,
        left=m.left[real],
        right=m.right[real],
        contrast=m.contrast[real],
        begin=m.lung[p.pixel_column],  # (pixels,) mm
        false_left=m.left[false],
        false_right=m.right[false],
        faintest=FAINTEST,
    )


def echoes(p, m):
    """Echoes of one frame.

    Returns
    -------
    scattered : ndarray, shape (samples, beams)
        Power of scatterers, 1 for muscle.
    mirrored : ndarray, shape (samples, beams)
        Amplitude of mirror-like surfaces.
    shadow : ndarray, shape (samples, beams)
        Loss in dB.
    """
    air = p.z - m.lung  # (samples, beams) mm into the lung
    wall = p.z - m.pleura  # mm below the pleural line
    scattered = power(np.where(air < 0, p.tissue, p.under))
    between = (wall > 0) & (air < 0)
    if between.any():  # fluid echoes nothing, consolidated lung like liver
        fluid = wall < m.fluid
        scattered[between] = power(np.where(fluid, -30, -7 + 0.3 * p.striation)[between])
    lines, erased = _line_power(p, m, air)
    scattered += lines
    bright = p.pleura_level + m.glint - 0.5 * p.edge_loss * (p.angle / p.half) ** 2
    mirrored = surface(wall, p.thickness, bright)
    if between.any():
        mirrored += surface(air, 1.5 * p.thickness, bright - 7) * (m.lung > m.pleura + 1)
    mirrored += p.fascia_echo * (wall < 0)
    dry = expit((1.5 - (m.lung - m.pleura)) / 0.3)  # A-lines need air behind the pleural line
    for order in range(2, 7):  # the sound goes up and down between probe and pleura
        level = p.a_line + 2.5 * m.glint - p.a_fade * (order - 2) - (order - 1) * p.edge_loss * (p.angle / p.half) ** 2
        rows = np.abs(p.z[:, 0] - order * p.even.mean()) < 5 + np.ptp(order * p.even)
        if rows.any():
            there = surface(p.z[rows] - order * (p.even + m.shift_mm), p.thickness, level)
            mirrored[rows] += there * (1 - erased[rows]) * dry
    rib = 0.72 * m.pleura + 0.15 * p.rib_half_width * np.minimum(p.rib_distance, 1.5) ** 2 - p.z  # mm above the bone
    behind = (1 - p.open) * expit(-rib / 0.8)
    mirrored = mirrored * (1 - behind) + (1 - p.open) * surface(rib, 0.5, p.rib_level + m.glint)
    return scattered, mirrored, behind * p.rib_shadow + p.no_contact


def _line_power(p, m, air):
    """Power of B- and Z-lines, and by how much B-lines erase A-lines (0 to 1)."""
    total, erased = np.zeros((SAMPLES, BEAMS), np.float32), np.zeros((SAMPLES, BEAMS), np.float32)
    start = expit(np.clip(air / 0.5, -30, 30))  # from the lung's surface
    depth = np.maximum(air, 0) / 10  # cm
    for line in np.flatnonzero(m.shown):
        left, right = m.left[line][:, None], m.right[line][:, None]
        across = np.abs(p.angle - (left + right) / 2) / (0.5 * (right - left))
        near = np.flatnonzero((across < 2).any(0))
        if not near.size:
            continue
        beams = slice(near[0], near[-1] + 1)
        profile = (
            np.exp(-1.386 * across[:, beams] ** p.edge[line]) * start[:, beams]
        )  # one half in amplitude at the edge
        fade = p.fade[line]
        if line < B_LINES:
            erased[:, beams] = np.maximum(erased[:, beams], profile)
        else:
            fade = fade - 5  # Z-lines are gone after a few centimetres
        ray = np.interp(p.angle[beams] - m.centre[line], (np.arange(WRAP) - WRAP / 2) / p.degree, p.rays)
        level = p.background[beams] + m.contrast[line] + ray + p.ringing[:, beams] + fade * depth[:, beams]
        total[:, beams] = np.maximum(total[:, beams], profile * power(level.astype(np.float32)))
    return total, erased
