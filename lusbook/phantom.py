"""Phantom: simulated convex-probe lung ultrasound with exact B-line masks (section 2.4).

The paper's images are private, so the book's cohorts are simulated. A *patient* is one anatomy
(:mod:`lusbook.anatomy`) seen with one scanner setting (:mod:`lusbook.scanner`); its frames vary as a clip does. Two
independent knobs stand for what the paper could only observe together: ``diversity`` (how variable place, number, size
and background are) and ``consistency`` (how closely the label follows the truth, :mod:`lusbook.annotator`).
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import zlib
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from lusbook import anatomy, annotator
from lusbook.anatomy import NUMBERS
from lusbook.cohort import Cohort
from lusbook.errors import LusbookError
from lusbook.scanner import SCANNERS, SIDE, image, shrink, widen_gap

#: Frames per patient, fold by fold. The paper (section 2.4) reports seven CAP patients, but its folds (section 2.5)
#: of 1, 2 and 3 patients with 148, 111 and 67 images already hold all 326 images. We follow the folds, which account
#: for every image: six CAP patients.
PLAN = {
    "covid": ((160, 159), (160, 159), (170, 169)),
    "cap": ((148,), (56, 55), (23, 22, 22)),
}

FRAME_RATE = 5.0  # frames per second that are kept of a clip: 22 frames see about one breath


def simulate(name, *, plan=None, processes=None, progress=False, **parameters):
    """Simulate a cohort.

    Two cohorts of the same scanner differ through their ``name`` (another random stream), ``diversity`` and
    ``consistency``, and in nothing else. Frames are always simulated at 256 x 256 and then averaged to
    ``image_size``, so that a cohort is the same data at every size.

    Parameters
    ----------
    name : str
        A key of :data:`PLAN`, or any name if a plan is given.
    plan : sequence of sequences of int, optional
        Frames of each patient, fold by fold.
    processes : int, optional
        Worker processes, which a script must then guard by ``if __name__ == "__main__"``. Without, and for plans of
        under 100 frames, all is done in this one.
    progress : bool
        Show a progress bar.
    **parameters
        As for :func:`frame`.

    Returns
    -------
    Cohort
        ``images`` (n, image_size, image_size) uint8, 0 outside the fan; ``masks`` (the annotator's labels) and
        ``truth``, bool of the same shape, neither ever empty unless ``numbers`` is "mixed"; patients
        ``"<name>-1"``... in the plan's order.

    Raises
    ------
    LusbookError
        On a name that has no plan, or a parameter out of its range.

    Examples
    --------
    >>> cohort = simulate("covid", diversity=0.3, consistency=0.9, image_size=32, plan=((1, 1), (1,)))
    >>> cohort.images.shape, cohort.folds.tolist()
    ((3, 32, 32), [0, 0, 1])
    """
    plan, key = _checked_plan(name, plan), _key(**parameters)
    folds = [fold for fold, patients in enumerate(plan) for _ in patients]
    counts = [count for patients in plan for count in patients]
    jobs = [  # a few frames of one patient each, so that the workers end together
        (name, patient, range(start, min(start + 20, count)), key)
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
        digest=digest(name, plan=plan, **parameters),
    )


def frame(name, patient, index, **parameters):
    """Simulate one frame alone; it equals the one in the cohort.

    Parameters
    ----------
    name : str
        Name of the cohort.
    patient : int
        Number of the patient, from 1.
    index : int
        Number of the frame in the patient's clip, from 0.
    diversity : float
        0 (every patient typical) to 1: how much patients, and frames of a patient, differ.
    consistency : float
        0 to 1 (label is the truth): how closely the annotator follows the exact mask.
    seed : int
        Seed of every random choice; 0 by default.
    scanner : str
        A key of :data:`lusbook.scanner.SCANNERS`; "butterfly" by default.
    numbers : str
        A key of :data:`lusbook.anatomy.NUMBERS`, how many B-lines frames have; "paper" by default.
    image_size : int
        Side of the images in px, a multiple of 8; 256 by default.
    annotator : int
        Who labels: another number is another person of the same consistency; 0 by default.
    gap : float
        0 to 1: how far the frames' appearance lies from that of the scanner's own settings, as another hospital's
        would; 0 by default. Neither the truth nor the label changes with it.

    Returns
    -------
    image : ndarray of uint8, shape (image_size, image_size)
    truth : ndarray of bool, shape (image_size, image_size)
        The pixels inside a B-line, from the surface of the lung to the bottom of the fan.
    label : ndarray of bool, shape (image_size, image_size)
        What the annotator drew.
    """
    if patient < 1 or index < 0:
        raise LusbookError(f"phantom frame: expected patient >= 1 and index >= 0, received {patient} and {index}")
    return _frames((name, patient, [index], _key(**parameters)))[0]


def digest(name, *, plan=None, **parameters):
    """Digest of the parameters that define a cohort, as for :func:`simulate`.

    Returns
    -------
    str
        16 hexadecimal digits of SHA-256.
    """
    key = vars(_key(**parameters))
    if not key["gap"]:  # cohorts without a gap are those from before there was one
        del key["gap"]
    defined = [name, key, _checked_plan(name, plan)]
    return hashlib.sha256(json.dumps(defined, separators=(",", ":")).encode()).hexdigest()[:16]


def _checked_plan(name, plan):
    if plan is None and name not in PLAN:
        raise LusbookError(f"phantom cohort: expected one of {sorted(PLAN)} or a plan, received name {name!r}")
    plan = tuple(tuple(int(count) for count in fold) for fold in (PLAN[name] if plan is None else plan))
    if not plan or not all(fold and min(fold) > 0 for fold in plan):
        raise LusbookError(f"phantom plan: expected folds of patients with at least one frame each, received {plan}")
    return plan


def _key(
    *, diversity, consistency, seed=0, scanner="butterfly", numbers="paper", image_size=SIDE, annotator=0, gap=0.0
):
    """What frames depend on beside the cohort's name, checked."""
    for key, value in (("diversity", diversity), ("consistency", consistency), ("gap", gap)):
        if not 0 <= value <= 1:
            raise LusbookError(f"phantom {key}: expected a number from 0 to 1, received {value}")
    for key, value, known in (("scanner", scanner, SCANNERS), ("numbers", numbers, NUMBERS)):
        if value not in known:
            raise LusbookError(f"phantom {key}: expected one of {sorted(known)}, received {value!r}")
    if image_size < 8 or image_size % 8:
        raise LusbookError(f"phantom image_size: expected a multiple of 8, received {image_size}")
    for key, value in (("seed", seed), ("annotator", annotator)):
        if value < 0:
            raise LusbookError(f"phantom {key}: expected 0 or more, received {value}")
    return SimpleNamespace(
        diversity=float(diversity),
        consistency=float(consistency),
        seed=int(seed),
        scanner=scanner,
        numbers=numbers,
        image_size=int(image_size),
        annotator=int(annotator),
        gap=float(gap),
    )


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
    name, patient, indices, key = job

    def random(index, purpose):
        """Make a generator for one purpose: images do not change with the annotator, nor frames with the plan."""
        parts = [key.seed, zlib.crc32(name.encode()), patient, index, zlib.crc32(purpose.encode())]
        return np.random.default_rng(parts)

    person = f"annotator {key.annotator}"
    p = anatomy.draw_patient(random(0, "patient"), key.diversity, key.scanner, key.numbers)
    widen_gap(p, key.gap)
    style = annotator.draw_style(random(0, person))
    frames = []
    for index in indices:
        m = anatomy.moment(p, index / FRAME_RATE)
        shown = image(p, *anatomy.echoes(p, m), m.shift_mm, random(index + 1, "image"))
        lines = anatomy.drawable(p, m)
        truth = annotator.draw(p, lines.left, lines.right, lines.begin, np.full(len(lines.left), p.depth + 1))
        label = annotator.label(p, lines, truth, style, random(index + 1, person), key.consistency)
        frames.append(tuple(shrink(array, key.image_size) for array in (shown, truth, label)))
    return frames
