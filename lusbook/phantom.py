"""Phantom: simulated convex-probe lung ultrasound with exact B-line masks (section 2.4).

The paper's images are private, so the book's cohorts are simulated. A *patient* is one anatomy
seen with one scanner setting; its frames vary as a clip does. Two independent knobs stand for what
the paper could only observe together: ``diversity`` (how variable place, number, size and
background are) and ``consistency`` (how closely the annotator's label follows the truth).

Everything is computed on scan lines (depth x angle), as a scanner does: a random scatterer field,
weighted by a map of echo levels in decibel, blurred by a point spread function, detected,
log-compressed, and only then converted to the fan.
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import zlib
from types import SimpleNamespace

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.special import expit
from tqdm import tqdm

from lusbook.cohort import Cohort
from lusbook.errors import LusbookError

#: Frames per patient, fold by fold. The paper (section 2.4) reports seven CAP patients, but its folds (section 2.5)
#: of 1, 2 and 3 patients with 148, 111 and 67 images already hold all 326 images. We follow the folds, which account
#: for every image: six CAP patients.
PLAN = {
    "covid": ((160, 159), (160, 159), (170, 169)),
    "cap": ((148,), (56, 55), (23, 22, 22)),
}

SIDE = 256  # px, side of a simulated frame; other sizes are averages of it
SAMPLES, BEAMS = 320, 176  # depth samples and scan lines of the simulated scanner
B_LINES, Z_LINES = 6, 4  # most B-lines of a patient, and comet tails that fade (Z-lines): look-alikes, not in the mask
FRAME_RATE = 5.0  # frames per second that are kept of a clip: 22 frames see about one breath
FAINTEST = 3.0  # dB above the background below which a B-line is not there

#: name: (value of the typical patient, half range between patients at diversity 1).
PATIENT = {
    # scanner
    "radius": (45, 15),  # mm, of the curved probe
    "opening": (57, 14),  # degrees, of the fan
    "depth": (120, 40),  # mm, from the probe's face to the bottom of the fan
    "focus": (0.5, 0.3),  # share of the depth, where beams are narrowest
    "axial": (0.5, 0.25),  # mm, standard deviation of the pulse
    "lateral": (0.45, 0.25),  # degrees, standard deviation of the beam at the focus
    "gain": (2, 7),  # dB
    "speckle": (0.7, 0.4),  # samples, standard deviation of the filter that reduces speckle
    "range": (62, 12),  # dB, dynamic range shown
    "gamma": (1.1, 0.35),  # of the grey map
    "slope": (-0.7, 0.9),  # dB/cm, what gain compensation leaves of attenuation
    "noise": (-42, 7),  # dB, electronic noise at the probe
    "noise_slope": (1.0, 0.6),  # dB/cm, by which gain compensation raises it
    "contact": (1.15, 0.45),  # share of the half fan beyond which the probe loses contact
    "side": (0, 1),  # the side on which it does: sign
    # anatomy
    "pleura": (25, 10),  # mm, depth of the pleural line at the centre
    "tilt": (0, 9),  # mm, over half the fan
    "flatness": (0.6, 0.55),  # 0: parallel to the probe, 1: a straight line
    "rough": (0.35, 0.35),  # mm, irregularity of the pleural line
    "pleura_level": (13, 6),  # dB, over muscle
    "fat": (0.45, 0.22),  # share of the pleural depth above which there is fat
    "fat_level": (-5, 6),  # dB, over muscle
    "streaks": (4, 2.5),  # dB, standard deviation of muscle and fat striation
    "haze": (-12, 5),  # dB, background under the pleura
    "haze_slope": (-0.8, 0.9),  # dB/cm, of that background
    "patches": (1.5, 1.5),  # dB, its lateral unevenness
    "a_line": (-1, 8),  # dB, first A-line over muscle
    "rib_shadow": (16, 15),  # dB
    "rib_spacing": (34, 8),  # degrees
    "rib_half_width": (4.5, 2),  # degrees
    "rib_offset": (0, 16),  # degrees, of the central intercostal space
    "breath": (1.0, 2.0),  # mm, up and down of the pleura
    "slide": (0.8, 1.6),  # degrees, lung sliding with breath
    "lines": (2.2, 3.0),  # number of B-lines
    "z_lines": (1.0, 3.0),  # number of Z-lines
}

#: As PATIENT, for each line of a patient.
LINE = {
    "place": (0, 1.5),  # in its intercostal space: 0 the middle; the ribs are never reached
    "half_width": (2.4, 1.6),  # degrees, where the B-line's echo has fallen by half (in amplitude)
    "contrast": (9, 5),  # dB over the background at the pleura
    "taper": (0.15, 0.35),  # relative growth of the angular width from pleura to bottom
    "wobble": (0.15, 0.5),  # degrees, snaking with depth
    "fade": (-0.5, 0.5),  # dB/cm
    "swing": (1.0, 5.0),  # dB, slow change of contrast in a clip
    "drift": (0.3, 1.2),  # degrees, slow change of place in a clip
}


def simulate(name, *, seed=0, diversity, consistency, image_size=SIDE, plan=None, processes=None, progress=False):
    """Simulate a cohort.

    Two cohorts differ through their ``name`` (another random stream), ``diversity`` and ``consistency``, and in
    nothing else. Frames are always simulated at 256 x 256 and then averaged to ``image_size``, so that a cohort is
    the same data at every size.

    Parameters
    ----------
    name : str
        A key of :data:`PLAN`, or any name if a plan is given.
    seed : int
        Seed of every random choice.
    diversity : float
        0 (every patient typical) to 1: how much patients, and frames of a patient, differ.
    consistency : float
        0 to 1 (label is the truth): how closely the annotator follows the exact mask.
    image_size : int
        Side of the images in px, a multiple of 8.
    plan : sequence of sequences of int, optional
        Frames of each patient, fold by fold.
    processes : int, optional
        Worker processes, which a script must then guard by ``if __name__ == "__main__"``. Without, and for plans of
        under 100 frames, all is done in this one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Cohort
        ``images`` (n, image_size, image_size) uint8, 0 outside the fan; ``masks`` (the annotator's labels) and
        ``truth``, bool of the same shape, neither ever empty; patients ``"<name>-1"``... in the plan's order.

    Raises
    ------
    LusbookError
        On a name that has no plan, or a number out of its range.

    Examples
    --------
    >>> cohort = simulate("covid", diversity=0.3, consistency=0.9, image_size=32, plan=((1, 1), (1,)))
    >>> cohort.images.shape, cohort.folds.tolist()
    ((3, 32, 32), [0, 0, 1])
    """
    plan = _checked_plan(name, plan)
    _check(seed, diversity, consistency, image_size)
    folds = [fold for fold, patients in enumerate(plan) for _ in patients]
    counts = [count for patients in plan for count in patients]
    jobs = [  # a few frames of one patient each, so that the workers end together
        (name, patient, range(start, min(start + 20, count)), seed, diversity, consistency, image_size)
        for patient, count in enumerate(counts, start=1)
        for start in range(0, count, 20)
    ]
    parts = []
    with tqdm(total=sum(counts), desc=f"simulating {name}", unit="frame", mininterval=2, disable=not progress) as bar:
        for part in _run(jobs, processes if sum(counts) >= 100 else None):
            parts += part
            bar.update(len(part))
    images, truth, labels = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    return Cohort(
        name=name,
        images=images,
        masks=labels,
        patients=np.repeat([f"{name}-{i}" for i in range(1, len(counts) + 1)], counts),
        folds=np.repeat(folds, counts),
        truth=truth,
        digest=digest(name, seed, diversity, consistency, image_size, plan),
    )


def frame(name, patient, index, *, seed=0, diversity, consistency, image_size=SIDE):
    """Simulate one frame alone; it equals the one in the cohort.

    Parameters
    ----------
    name : str
        Name of the cohort.
    patient : int
        Number of the patient, from 1.
    index : int
        Number of the frame in the patient's clip, from 0.
    seed, diversity, consistency, image_size
        As for :func:`simulate`.

    Returns
    -------
    image : ndarray of uint8, shape (image_size, image_size)
    truth : ndarray of bool, shape (image_size, image_size)
        The pixels inside a B-line, from the pleural line to the bottom of the fan.
    label : ndarray of bool, shape (image_size, image_size)
        What the annotator drew.
    """
    _check(seed, diversity, consistency, image_size)
    if patient < 1 or index < 0:
        raise LusbookError(f"phantom frame: expected patient >= 1 and index >= 0, received {patient} and {index}")
    return _frames((name, patient, [index], seed, diversity, consistency, image_size))[0]


def digest(name, seed, diversity, consistency, image_size=SIDE, plan=None):
    """Digest of the parameters that define a cohort.

    Parameters
    ----------
    name, seed, diversity, consistency, image_size, plan
        As for :func:`simulate`.

    Returns
    -------
    str
        16 hexadecimal digits of SHA-256.
    """
    parameters = [name, int(seed), float(diversity), float(consistency), int(image_size), _checked_plan(name, plan)]
    return hashlib.sha256(json.dumps(parameters, separators=(",", ":")).encode()).hexdigest()[:16]


def _checked_plan(name, plan):
    if plan is None and name not in PLAN:
        raise LusbookError(f"phantom cohort: expected one of {sorted(PLAN)} or a plan, received name {name!r}")
    plan = tuple(tuple(int(count) for count in fold) for fold in (PLAN[name] if plan is None else plan))
    if not plan or not all(fold and min(fold) > 0 for fold in plan):
        raise LusbookError(f"phantom plan: expected folds of patients with at least one frame each, received {plan}")
    return plan


def _check(seed, diversity, consistency, image_size):
    for key, value in (("diversity", diversity), ("consistency", consistency)):
        if not 0 <= value <= 1:
            raise LusbookError(f"phantom {key}: expected a number from 0 to 1, received {value}")
    if image_size < 8 or image_size % 8:
        raise LusbookError(f"phantom image_size: expected a multiple of 8, received {image_size}")
    if seed < 0:
        raise LusbookError(f"phantom seed: expected 0 or more, received {seed}")


def _run(jobs, processes):
    """Frames of every job, in order."""
    if processes in (None, 1):
        yield from map(_frames, jobs)
        return
    # spawned: a fork of a process that has loaded TensorFlow may hang
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_frames, jobs)


def _frames(job):
    """Frames of one patient: list of (image, truth, label)."""
    name, patient, indices, seed, diversity, consistency, size = job
    p = _patient(name, patient, seed, diversity)
    style = _random(seed, name, patient, 0, "annotator").uniform(-1, 1, 4)
    frames = []
    for index in indices:
        moment = _moment(p, index / FRAME_RATE)
        image = _image(p, moment, _random(seed, name, patient, index + 1, "image"))
        truth, label = _masks(p, moment, style, _random(seed, name, patient, index + 1, "annotator"), consistency)
        frames.append((_shrink(image, size), _shrink(truth, size), _shrink(label, size)))
    return frames


def _random(seed, name, patient, index, purpose):
    """Make a generator for one purpose: images do not change with the annotator, nor frames with the plan."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), patient, index, zlib.crc32(purpose.encode())])


# ---------------------------------------------------------------- patient


def _patient(name, patient, seed, diversity):
    """Draw anatomy, scanner and lines, and what is computed once for all frames of a patient."""
    rng = _random(seed, name, patient, 0, "patient")
    # one draw per parameter whatever the diversity: a patient at diversity 0.3 and at 0.8 is the same one, pulled apart
    p = SimpleNamespace(diversity=diversity)
    for key, (typical, half_range) in PATIENT.items():
        setattr(p, key, typical + diversity * half_range * rng.uniform(-1, 1))
    for key, (typical, half_range) in LINE.items():
        setattr(p, key, typical + diversity * half_range * rng.uniform(-1, 1, B_LINES + Z_LINES))
    p.half = p.opening / 2
    p.phase = rng.uniform(0, 2 * np.pi, (4, B_LINES + Z_LINES))  # of contrast, place, snaking; of breath
    p.period = rng.uniform(4, 12, B_LINES + Z_LINES)  # s, of the slow changes
    p.angle = np.linspace(-p.half, p.half, BEAMS, dtype=np.float32)  # (beams,) degrees
    p.z = np.linspace(0, p.depth, SAMPLES, dtype=np.float32)[:, None]  # (samples, 1) mm
    _place_ribs_and_lines(p)
    _draw_textures(p, rng)
    _fan(p)
    return p


def _place_ribs_and_lines(p):
    """Ribs at even angles; every line starts in an intercostal space, the first (always shown) nearest the centre."""
    p.ribs = p.rib_offset + p.rib_spacing * (np.arange(-3, 3) + 0.5)  # (ribs,) degrees
    from_rib = np.abs(p.angle[:, None] - p.ribs).min(1)  # degrees
    p.rib_distance = (from_rib / p.rib_half_width).astype(np.float32)  # (beams,) 1 at a rib's edge
    usable = min(0.85, p.contact - 0.1) * p.half  # degrees; nothing starts where the probe has no contact
    left = np.maximum(p.ribs[:-1] + p.rib_half_width, -usable)
    right = np.minimum(p.ribs[1:] - p.rib_half_width, usable)
    wide = np.flatnonzero(right - left > 5)
    wide = wide[np.argsort(np.abs(left + right)[wide], kind="stable")]
    home = wide[np.arange(B_LINES + Z_LINES) % len(wide)]
    p.home_left, p.home_right = left[home], right[home]
    p.place += np.resize([-0.8, 0.8, 0], B_LINES + Z_LINES)  # lines of one space stand side by side
    p.shown = np.r_[np.arange(B_LINES) < max(1, round(p.lines)), np.arange(Z_LINES) < round(p.z_lines)]
    p.contrast[0] = max(p.contrast[0], FAINTEST + 3)  # every frame of the paper contains B-lines
    spare = p.contrast[0] - FAINTEST - 0.5
    p.swing[0] = np.clip(p.swing[0], -spare, spare)


def _draw_textures(p, rng):
    """Random fields of a patient that move with the tissue, and the pulse."""

    def smooth(shape, *sigmas):
        field = rng.standard_normal(shape, dtype=np.float32)
        for axis, sigma in enumerate(sigmas):
            field = gaussian_filter1d(field, sigma, axis=axis, mode="wrap")
        return field / field.std()

    p.millimetre, p.degree = SAMPLES / p.depth, BEAMS / p.opening  # samples per unit
    p.scatterers = rng.standard_normal((2, SAMPLES, BEAMS), dtype=np.float32)  # real and imaginary part
    p.striation = p.streaks * smooth((SAMPLES, BEAMS), 0.5 * p.millimetre, 6 * p.degree)  # layers across the beams
    p.ringing = smooth((SAMPLES, BEAMS), 0.5 * p.millimetre, 2 * p.degree)  # B-lines are made of short echoes
    p.unevenness = p.patches * smooth(BEAMS, 4 * p.degree)
    p.bumps = p.rough * smooth(4 * BEAMS, 2.5 * p.degree)  # longer than the fan: the lung slides past
    p.glints = 2.5 * smooth(4 * BEAMS, 1.5 * p.degree)  # dB, brightness along the pleura
    # beams widen away from the focus: two blurs, mixed by depth
    p.mix = np.clip(np.abs(p.z / p.depth - p.focus) / 0.5, 0, 1)  # (samples, 1)
    lost = (p.angle / p.half * (1 if p.side >= 0 else -1) - p.contact) / 0.06
    p.no_contact = (30 * expit(lost)).astype(np.float32)  # (beams,) dB


def _fan(p):
    """Coordinates of every pixel on the scan-line grid. The corners of a wide fan are cut off, as by a screen crop."""
    top, bottom = p.radius * np.cos(np.radians(p.half)), p.radius + p.depth  # mm below the centre of the probe's arc
    width = 2 * bottom * np.sin(np.radians(p.half))
    pixel = 1.02 * max(bottom - top, 0.82 * width) / SIDE  # mm
    x = (np.arange(SIDE) - (SIDE - 1) / 2) * pixel
    y = x + (top + bottom) / 2
    radius, angle = np.hypot(x, y[:, None]), np.degrees(np.arctan2(x, y[:, None]))
    p.inside = (radius >= p.radius) & (radius <= p.radius + p.depth) & (np.abs(angle) <= p.half)
    p.pixel_z = (radius[p.inside] - p.radius).astype(np.float32)  # (n,) mm, pixels of the fan only
    p.pixel_angle = angle[p.inside].astype(np.float32)  # (n,) degrees
    p.pixel_sample = p.pixel_z / p.depth * (SAMPLES - 1)
    p.pixel_beam = (p.pixel_angle + p.half) / p.opening * (BEAMS - 1)
    p.pixel_row, p.pixel_column = np.rint(p.pixel_sample).astype(int), np.rint(p.pixel_beam).astype(int)
    p.pixel_open = np.abs(p.pixel_angle[:, None] - p.ribs).min(1) > p.rib_half_width


# ---------------------------------------------------------------- frame


def _moment(p, seconds):
    """Where pleura and lines are at one time of the clip."""
    breath = np.sin(2 * np.pi * seconds / 4 + p.phase[3, 0])
    shift = (2 * BEAMS + p.slide * 3 * p.degree * breath + np.arange(BEAMS)) % (4 * BEAMS)  # lung sliding
    flat = p.flatness * (1 / np.cos(np.radians(p.angle)) - 1)
    m = SimpleNamespace(breath=breath, shift=shift)
    even = (p.radius + p.pleura) * (1 + flat) - p.radius + p.tilt * p.angle / p.half + p.breath * breath
    m.even = np.clip(even, 8, 0.6 * p.depth).astype(np.float32)  # (beams,) mm, depth of the pleura, smoothed
    m.pleura = m.even + np.interp(shift, np.arange(4 * BEAMS), p.bumps).astype(np.float32)
    slow = 2 * np.pi * seconds / p.period
    m.contrast = (p.contrast + p.swing * np.sin(slow + p.phase[0])).astype(np.float32)  # (lines,) dB
    m.shown = p.shown & (m.contrast > FAINTEST)
    place = (1 + np.tanh(p.place)) / 2
    centre = p.home_left + place * (p.home_right - p.home_left)
    centre = centre + p.slide * breath + p.drift * np.sin(slow + p.phase[1])
    centre = np.clip(centre, p.home_left + 1, p.home_right - 1)
    down = np.linspace(0, 1, SAMPLES)[:, None]
    half_width = p.half_width * (1 + p.taper * down)
    centre = centre + p.wobble * np.sin(7 * down + p.phase[2] + 0.5 * seconds) * down
    m.left = (centre - half_width).T.astype(np.float32)  # (lines, samples) degrees
    m.right = (centre + half_width).T.astype(np.float32)
    return m


def _image(p, m, rng):
    """One B-mode frame: echo levels (dB) weight scatterers; blur, detect, compress, convert to the fan."""
    scattered, mirrored, shadow = _levels(p, m)
    fresh = rng.standard_normal((2, SAMPLES, BEAMS), dtype=np.float32)
    moved = np.roll(p.scatterers, round(m.breath * p.breath * p.millimetre), axis=1)
    field = (0.8 * moved + 0.6 * fresh) * np.sqrt(scattered)  # speckle decorrelates from frame to frame
    field[0] += mirrored  # smooth surfaces echo in phase: no speckle
    field *= np.exp(-0.1151 * shadow)  # 10 ** (-dB / 20)
    field = gaussian_filter1d(field, p.axial * p.millimetre, axis=1, truncate=3)
    narrow = gaussian_filter1d(field, p.lateral * p.degree, axis=2, truncate=3)
    field = narrow + p.mix * (gaussian_filter1d(narrow, p.lateral * p.degree, axis=2, truncate=3) - narrow)
    # a blur averages scatterers out: give their energy back
    field *= 2 * np.sqrt(np.pi * p.axial * p.millimetre * p.lateral * p.degree)
    decay = np.exp(0.1151 * p.slope * p.z / 10)
    noise = np.exp(0.1151 * (p.noise + p.noise_slope * p.z / 10))
    field = field * decay + noise * rng.standard_normal((2, SAMPLES, BEAMS), dtype=np.float32)
    power = field[0] ** 2 + field[1] ** 2
    shown = 10 * np.log10(power + 1e-9) + p.gain + 2 * p.diversity * rng.uniform(-1, 1)
    for axis in (0, 1):
        shown = gaussian_filter1d(shown, p.speckle, axis=axis, truncate=3)
    grey = np.clip((shown + 0.55 * p.range) / p.range, 0, 1) ** p.gamma
    image = np.zeros((SIDE, SIDE), np.uint8)
    pixels = map_coordinates(grey, [p.pixel_sample, p.pixel_beam], order=1, mode="nearest")
    image[p.inside] = np.rint(255 * pixels)
    return image


def _levels(p, m):
    """Echoes on the grid: power of scatterers, amplitude of mirror-like surfaces, and shadow in dB."""
    below = p.z - m.pleura  # (samples, beams) mm under the pleura
    share = p.z / m.pleura
    skin = 6 * np.exp(-p.z / 1.5)
    tissue = skin + p.striation + p.fat_level * expit((p.fat - share) / 0.02)
    haze = p.haze + p.unevenness + p.haze_slope * np.maximum(below, 0) / 10
    power = _power(np.where(below < 0, tissue, haze))
    lines, erased = _line_power(p, m, below)
    power += lines
    glint = np.interp(m.shift, np.arange(4 * BEAMS), p.glints).astype(np.float32)  # (beams,) dB
    surface = _surface(below, 0.5, p.pleura_level + glint)
    surface += _surface((share - p.fat) * m.pleura, 0.35, 2 + glint[::-1])  # fascia between fat and muscle
    for order in (2, 3, 4):  # A-lines: the sound goes up and down between probe and pleura; B-lines erase them
        level = p.a_line + 3 * glint - 6 * (order - 2)  # in patches: only where the pleura faces the probe
        surface += _surface(p.z - order * m.even, 0.5, level) * (1 - erased)
    fibres = np.exp(0.1151 * (1.3 * p.striation - 10)) * expit(-below / 0.4)  # of muscle, along the probe
    in_rib = np.exp(-0.693 * p.rib_distance**8)  # (beams,) 1 inside a rib, one half at its edge
    rib = 0.7 * m.pleura + 2.5 * np.minimum(p.rib_distance, 1.5) ** 2 - p.z  # mm above the bone, which is curved
    surface = (surface + fibres) * (1 - in_rib * expit(-rib / 0.5)) + in_rib * _surface(rib, 0.5, p.pleura_level - 2)
    shadow = in_rib * p.rib_shadow * expit(-rib / 0.5) + p.no_contact
    return power, surface, shadow


def _power(level):
    return np.exp(0.2303 * level)  # 10 ** (dB / 10)


def _surface(distance, thickness, level):
    """Amplitude of a mirror-like line of a thickness in mm at distance 0."""
    return np.exp(0.1151 * level - 0.5 * (distance / thickness) ** 2)


def _line_power(p, m, below):
    """Power of B- and Z-lines, and by how much B-lines erase A-lines (0 to 1)."""
    total = np.zeros((SAMPLES, BEAMS), np.float32)
    erased = np.zeros((SAMPLES, BEAMS), np.float32)
    start = expit(below / 0.4)  # from the pleura
    free = p.rib_distance > 1
    for line in np.flatnonzero(m.shown):
        left, right = m.left[line][:, None], m.right[line][:, None]
        across = (p.angle - (left + right) / 2) / (0.5 * (right - left))
        profile = np.exp(-1.386 * np.abs(across) ** 3) * start * free  # one half in amplitude at the edges
        if line < B_LINES:
            fade = float(p.fade[line])
            erased = np.maximum(erased, profile)
        else:
            fade = -5 + float(p.fade[line])  # Z-lines are gone after a few centimetres
        level = float(p.haze + m.contrast[line]) + 1.5 * p.ringing + fade * np.maximum(below, 0) / 10
        total = np.maximum(total, profile * _power(level))
    return total, erased


# ---------------------------------------------------------------- masks


def _masks(p, m, style, rng, consistency):
    """Exact mask, and the label of an annotator whose every fault is in proportion to ``1 - consistency``."""
    lines = np.flatnonzero(m.shown[:B_LINES])
    left, right, contrast = m.left[lines], m.right[lines], m.contrast[lines]
    pleura = m.pleura[p.pixel_column]  # (pixels,) mm
    truth = _between(p, left, right, pleura, np.full(len(lines), p.depth + 1))
    fault = 1 - consistency
    chance = rng.uniform(-1, 1, (4, B_LINES))[:, lines]  # of this frame
    wiggle = rng.uniform(-1, 1, (2, B_LINES, 9))[:, lines]  # of either edge, from pleura to bottom
    width = right - left
    wider = 0.5 * width * fault * (0.6 * style[0] + 0.4 * chance[0])[:, None]  # a habit, and chance
    aside = 0.3 * width * fault * chance[1][:, None]
    knots = np.linspace(0, SAMPLES - 1, 9)
    jitter = [[np.interp(np.arange(SAMPLES), knots, edge) for edge in side] for side in wiggle]
    left = left + aside - wider + 0.3 * fault * width * np.array(jitter[0])
    right = np.maximum(right + aside + wider + 0.3 * fault * width * np.array(jitter[1]), left + 0.3 * width)
    # some stop where the line pales, most go to the bottom
    short = fault * np.clip(0.3 + 0.5 * style[1] + 0.3 * chance[2], 0, 0.75)
    end = np.where(short < 0.03, 1.01, 1 - short) * (p.depth - pleura.mean()) + pleura.mean()
    # the faint ones are missed, never the clearest
    seen = contrast > FAINTEST + 9 * fault * np.clip(0.4 + 0.6 * style[2] + 0.5 * chance[3], 0, None)
    seen[np.argmax(contrast)] = True
    left, right, end = _merged(left[seen], right[seen], end[seen], closer=8 * fault)
    label = _between(p, left, right, pleura + 3 * fault * (style[3] + 0.5), end)
    return truth, label if label.any() else truth  # an empty drawing is not handed in


def _between(p, left, right, begin, end):
    """Image mask of the lines between two edges (lines, samples) in degrees, and two depths in mm."""
    inside = np.zeros(len(p.pixel_z), bool)
    for line_left, line_right, line_end in zip(left, right, end, strict=True):
        across = (p.pixel_angle > line_left[p.pixel_row]) & (p.pixel_angle < line_right[p.pixel_row])
        inside |= across & (p.pixel_z < line_end)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[p.inside] = inside & (p.pixel_z > begin) & p.pixel_open  # no B-line starts behind a rib
    return mask


def _merged(left, right, end, closer):
    """Draw neighbours as one where the gap between them is less than ``closer`` degrees."""
    order = np.argsort(left.mean(1), kind="stable")
    left, right, end = left[order], right[order], end[order]
    for i in range(len(order) - 1):
        if 0 < (left[i + 1] - right[i]).mean() < closer:
            right[i] = np.maximum(right[i], left[i + 1])
    return left, right, end


def _shrink(image, size):
    """Average an image over the areas of larger pixels; a mask by majority, but never to nothing."""
    if size == SIDE:
        return image
    edges = np.linspace(0, SIDE, size + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, SIDE + 1)) - np.maximum(edges[:-1, None], np.arange(SIDE))
    share = np.clip(overlap, 0, None) * size / SIDE  # (size, SIDE), rows sum to 1
    mean = np.round(share @ image.astype(float) @ share.T, 6)  # rounded: no linear algebra library decides a tie
    if image.dtype == bool:
        return mean >= min(0.5, mean.max())
    return np.rint(mean).astype(np.uint8)
