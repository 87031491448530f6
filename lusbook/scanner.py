"""Scanner: what a curved probe makes of echoes on scan lines, from point spread to the fan on the screen.

Scan lines are a grid of depth samples x beams (angles). A random scatterer field, weighted by the echoes of the
tissue, is blurred by a point spread that widens away from the focus, detected, log-compressed and only then
converted to the fan, as a scanner does.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates, uniform_filter1d
from scipy.special import expit

SIDE = 256  # px, side of a simulated frame; other sizes are averages of it
SAMPLES, BEAMS = 384, 160  # depth samples and scan lines
LOOKS = 3  # directions from which echoes are compounded: their speckle differs

#: Settings of a scanner by name, the value of the typical patient and half the range between patients at diversity 1.
#: Typical values follow what public clips of either kind of device show; they are no manufacturer's data.
BUTTERFLY = {
    "radius": (45, 12),  # mm, of the (virtual) curved probe
    "opening": (60, 10),  # degrees, of the fan
    "depth": (115, 40),  # mm, from the probe's face to the bottom of the fan
    "aspect": (1.15, 0.25),  # width / height of what the screen shows: it cuts the sides of the fan off
    "top": (0, 4),  # mm of the fan's top that the screen cuts off
    "focus": (0.5, 0.3),  # share of the depth, where beams are narrowest
    "axial": (0.2, 0.08),  # mm, standard deviation of the pulse
    "lateral": (0.36, 0.15),  # degrees, standard deviation of the beam at the focus
    "side_lobes": (-28, 6),  # dB, of what bright echoes leave beside them
    "gain": (-1, 7),  # dB
    "grain": (0.55, 0.25),  # share of speckle, in dB, that the scanner's speckle filter leaves
    "range": (64, 8),  # dB, dynamic range shown
    "gamma": (1.2, 0.3),  # of the grey map
    "slope": (-0.7, 0.8),  # dB/cm, what gain compensation (TGC) leaves of attenuation
    "noise": (-42, 6),  # dB, electronic noise at the probe
    "noise_slope": (1.0, 0.6),  # dB/cm, by which gain compensation raises it
    "contact": (1.15, 0.45),  # share of the half fan beyond which the probe loses contact
    "face": (0, 1),  # the side on which it does: sign
}
#: The two sets of settings, by name.
SCANNERS = {
    "butterfly": BUTTERFLY,
    "lumify": BUTTERFLY
    | {
        "radius": (56, 6),
        "opening": (68, 5),
        "depth": (118, 40),
        "aspect": (1.02, 0.12),
        "axial": (0.13, 0.05),
        "lateral": (0.16, 0.05),
        "gain": (-11, 5),
        "grain": (0.75, 0.2),
        "range": (76, 8),
        "slope": (-1.0, 0.8),
        "noise": (-43, 4),
    },
}

#: What another hospital's settings of the same kind of probe change at gap 1, in the units above. Each keeps the order
#: of echoes: what is brighter than its surroundings stays so.
GAP = {"gain": -20, "range": 40, "slope": 0.4, "grain": 0.3, "lateral": 0.2, "axial": 0.1}
CLUTTER = -10.0  # dB over muscle, of the haze of echoes from elsewhere at gap 1; its amplitude grows with the gap


def widen_gap(p, gap):
    """Change how a patient looks, and nothing of what there is to see: gain, dynamic range, haze, size of speckle.

    Parameters
    ----------
    p : types.SimpleNamespace
        The patient, laid out; its settings change in place. Geometry, anatomy and random choices stay.
    gap : float
        0 (as drawn) to 1: how far from the settings drawn, see :data:`GAP`.
    """
    for name, change in GAP.items():
        setattr(p, name, getattr(p, name) + gap * change)
    p.clutter = gap * 10 ** (CLUTTER / 20)  # amplitude


def lay_out(p):
    """Grid of scan lines, point spread, and coordinates of every pixel of the fan.

    Parameters
    ----------
    p : types.SimpleNamespace
        Holds the settings of a scanner; receives the grid (``z`` (samples, 1) mm, ``angle`` (beams,) degrees,
        ``millimetre`` and ``degree``, samples and beams a unit) and, for the pixels of the fan, ``pixel_z`` (n,) mm,
        ``pixel_angle`` (n,) degrees, ``pixel_row`` and ``pixel_column``, nearest sample and beam.
    """
    p.half = p.opening / 2
    p.angle = np.linspace(-p.half, p.half, BEAMS, dtype=np.float32)  # (beams,) degrees
    p.z = np.linspace(0, p.depth, SAMPLES, dtype=np.float32)[:, None]  # (samples, 1) mm
    p.millimetre, p.degree = SAMPLES / p.depth, BEAMS / p.opening  # samples per unit
    # beams widen away from the focus: two blurs, mixed by depth
    p.mix = np.clip(np.abs(p.z / p.depth - p.focus) / 0.5, 0, 1)  # (samples, 1)
    lost = (p.angle / p.half * (1 if p.face >= 0 else -1) - p.contact) / 0.06
    p.no_contact = (30 * expit(lost)).astype(np.float32)  # (beams,) dB
    top = p.radius * np.cos(np.radians(p.half)) + max(0.0, p.top)  # mm below the centre of the probe's arc
    height = p.radius + p.depth - top
    width = min(p.aspect * height, 2 * (p.radius + p.depth) * np.sin(np.radians(p.half)))
    pixel = max(height, width) / SIDE  # mm
    x = (np.arange(SIDE) - (SIDE - 1) / 2) * pixel
    y = x[:, None] + top + height / 2
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y))
    p.inside = (radius >= p.radius) & (radius <= p.radius + p.depth) & (np.abs(angle) <= p.half)
    p.inside &= (np.abs(x) <= width / 2) & (y >= top)
    p.pixel_z = (radius[p.inside] - p.radius).astype(np.float32)
    p.pixel_angle = angle[p.inside].astype(np.float32)
    p.pixel_sample = p.pixel_z / p.depth * (SAMPLES - 1)
    p.pixel_beam = (p.pixel_angle + p.half) / p.opening * (BEAMS - 1)
    p.pixel_row, p.pixel_column = np.rint(p.pixel_sample).astype(int), np.rint(p.pixel_beam).astype(int)


def image(p, scattered, mirrored, shadow, shift, rng):
    """One B-mode frame.

    Parameters
    ----------
    p : types.SimpleNamespace
        As :func:`lay_out` leaves it, with the patient's ``scatterers``, shape (2 * looks, samples, beams).
    scattered : ndarray, shape (samples, beams)
        Power of scatterers.
    mirrored : ndarray, shape (samples, beams)
        Amplitude of smooth surfaces.
    shadow : ndarray, shape (samples, beams)
        Loss in dB.
    shift : float
        By how many mm tissue has moved down.
    rng : numpy.random.Generator

    Returns
    -------
    image : ndarray, shape (256, 256), uint8
    """
    fresh = rng.standard_normal((2 * LOOKS, SAMPLES, BEAMS), dtype=np.float32)
    moved = np.roll(p.scatterers, round(shift * p.millimetre), axis=1)
    field = (0.8 * moved + 0.6 * fresh) * np.sqrt(scattered)  # speckle decorrelates from frame to frame
    field[:LOOKS] += mirrored  # real part; smooth surfaces echo in phase: no speckle
    field *= np.exp(-0.1151 * shadow)  # 10 ** (-dB / 20)
    field = gaussian_filter1d(field, p.axial * p.millimetre, axis=1, truncate=3)
    narrow = gaussian_filter1d(field, p.lateral * p.degree, axis=2, truncate=3)
    field = narrow + p.mix * (gaussian_filter1d(narrow, p.lateral * p.degree, axis=2, truncate=3) - narrow)
    # a blur averages scatterers out: give their energy back
    field *= 2 * np.sqrt(np.pi * p.axial * p.millimetre * p.lateral * p.degree) * np.exp(0.1151 * p.slope * p.z / 10)
    # noise of the same distribution as fresh scatterers, and far from them: their own numbers, upside down
    field += np.exp(0.1151 * (p.noise + p.noise_slope * p.z / 10)) * fresh[:, ::-1, ::-1]
    power = np.einsum("lij,lij->ij", field, field) / LOOKS
    if p.clutter:
        power += p.clutter**2 * np.einsum("lij,lij->ij", fresh[:, ::-1], fresh[:, ::-1]) / LOOKS
    power += np.exp(0.2303 * p.side_lobes) * uniform_filter1d(power, 2 * int(6 * p.degree) + 1, axis=1)
    shown = 10 * np.log10(power + 1e-9) + p.gain + 2 * p.diversity * rng.uniform(-1, 1)
    shown = _less_speckle(shown, p.grain)
    grey = np.clip((shown + 0.55 * p.range) / p.range, 0, 1) ** p.gamma
    pixels = map_coordinates(grey, [p.pixel_sample, p.pixel_beam], order=1, mode="nearest")
    shown = np.zeros((SIDE, SIDE), np.uint8)
    shown[p.inside] = np.rint(255 * pixels)
    return shown


def _less_speckle(level, grain):
    """Pull a level in dB towards its surroundings where it departs little from them: what stands out is kept."""
    around = gaussian_filter1d(gaussian_filter1d(level, 3, axis=0, truncate=2), 1.2, axis=1, truncate=2)
    detail = level - around
    kept = grain + (1 - grain) * np.clip(detail / 10, 0, 1) ** 2
    return around + kept * detail


def shrink(image, size):
    """Average an image over the areas of larger pixels; a mask by majority, but never to nothing."""
    if size == SIDE:
        return image
    edges = np.linspace(0, SIDE, size + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, SIDE + 1)) - np.maximum(edges[:-1, None], np.arange(SIDE))
    share = np.clip(overlap, 0, None) * size / SIDE  # (size, SIDE), rows sum to 1
    mean = np.round(share @ image.astype(float) @ share.T, 6)  # rounded: no linear algebra library decides a tie
    if image.dtype == bool:
        return (mean >= min(0.5, mean.max())) & (mean > 0)
    return np.rint(mean).astype(np.uint8)
