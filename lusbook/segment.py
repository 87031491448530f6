"""A trained network applied to clips, and one adapted to clips that nobody has labelled.

A clip is decoded twice, once to find its fan and once to segment it, and is never held whole.
"""

import shlex
import zlib
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pandas as pd
import pydicom
import yaml
from skimage.segmentation import find_boundaries
from skimage.transform import resize
from tqdm.auto import tqdm

from lusbook import media, provenance, real, runs, store, video
from lusbook.arrays import unpack
from lusbook.cohort import network_images
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.folders import new_folder
from lusbook.formats import checked
from lusbook.loading import load_source
from lusbook.manifests import read_manifest
from lusbook.settings import PRESETS, make_settings

AMBER = (255, 176, 0)  # of outlines, as in the book's figures
BATCH = 32  # frames in memory at a time
UNKNOWN_RATE = Fraction(25)  # frames per second
MODELS = "_build/models"  # results folder that a message names where weights are missing: runs there are computed anew

# ---------------------------------------------------------------------------------------------
# The model


def read_model(folder):
    """Read how a run's network was trained, and check that its weights are there.

    Parameters
    ----------
    folder : path
        A run's folder, see :mod:`lusbook.runs`, or one that :func:`lusbook.runs.adapted` made.

    Returns
    -------
    method : {"unet", "sifa"}
    settings : Settings

    Raises
    ------
    LusbookError
        If it is no complete run, was trained under settings that are not known here, or has no weights; then, which
        command makes them.
    """
    folder = Path(folder)
    path = folder / "params.json"
    if not path.is_file():
        raise LusbookError(
            f"{path}: no such file; expected the folder of a run, such as {MODELS}/demo/unet-covid/fold-0"
        )
    store.check_files(folder)
    params = store.read_json(path)
    name, stored = params.get("experiment"), params.get("settings")
    methods = {experiment.name: experiment.method for experiment in EXPERIMENTS.values()} | {runs.ADAPTED: "sifa"}
    if not isinstance(name, str) or name not in methods or not isinstance(stored, dict):
        raise LusbookError(f"{path}: expected an experiment of {', '.join(methods)}, received {name!r}")
    where = f"{path}: trained under settings that are not known here"
    if missing := sorted({"image_size", "threshold", f"{methods[name]}_width"} - set(stored)):
        raise LusbookError(f"{where}: {missing[0]} is missing")
    checked(f"{where}: cohorts", str, stored.get("cohorts", "phantom"))
    try:  # the paper's values are the defaults; a manifest is not opened: the folder may be a stranger's
        settings = make_settings("paper", **stored | {"cohorts": "phantom"})
    except LusbookError as error:
        raise LusbookError(f"{where}: {error}") from error
    if not (folder / "weights.npz").exists():
        raise LusbookError(f"{folder / 'weights.npz'}: missing; {_remedy(folder, params)}")
    return methods[name], settings


def _remedy(folder, params):
    """How to get the weights that a run lacks, in words."""
    if params["experiment"] == runs.ADAPTED:
        return f"remove {folder} and repeat lusbook adapt"
    study, stored, fold = folder.resolve().parents[1].name, params["settings"], params.get("fold")
    presets = [path.stem for path in sorted(PRESETS.glob("*.yaml")) if f"{study}-".startswith(f"{path.stem}-")]
    preset = make_settings(presets[0] if presets else "paper")
    changed = {name: value for name, value in stored.items() if getattr(preset, name) != value}
    study = store.study_name(preset.model_copy(update=changed))
    given = [f"--set {shlex.quote(f'{name}={yaml.safe_dump(value).split()[0]}')}" for name, value in changed.items()]
    command = ["lusbook run", params["experiment"], f"--fold {fold} --preset {preset.preset}", *given]
    return (
        f"weights are not committed. Train it: {' '.join(command)} --results {MODELS}; "
        f"then name {MODELS}/{study}/{params['experiment']}/fold-{fold} here"
    )


def load_network(folder, method, settings, route="direct"):
    """Build a run's network and put its weights in.

    Parameters
    ----------
    folder : path
    method, settings
        As :func:`read_model` returns them.
    route : {"direct", "translated"}
        SIFA takes images for those of its target, or through the generator for those of its source.

    Returns
    -------
    predict : callable
        Images, (n, size, size), uint8, to probabilities of B-line of that shape, float32.

    Raises
    ------
    LusbookError
        If the weights are damaged or of another network.
    """
    from lusbook import trials  # loads Keras: only when all else is in order

    if method == "unet":
        network = trials.unet_network(settings.unet_width, settings.unet_dropout, settings.seed, settings.precision)
    else:
        network = trials.sifa_network(settings)
    path = Path(folder) / "weights.npz"
    try:
        stored = unpack(path)
        weights = [stored[f"arr_{i}"] for i in range(len(stored))]
    except (OSError, ValueError, KeyError) as error:
        raise LusbookError(f"{path}: damaged ({error}); remove {folder} to train the network again") from error
    expected = [tuple(variable.shape) for variable in network.weights]
    if (received := [array.shape for array in weights]) != expected:
        raise LusbookError(
            f"{path}: of another network; expected {len(expected)} arrays from {expected[0]} to {expected[-1]}, "
            f"received {len(received)}{f' from {received[0]} to {received[-1]}' if received else ''}"
        )
    trials.reset(network.weights, weights)
    return partial(trials.probabilities, network.routes[route])


# ---------------------------------------------------------------------------------------------
# A clip


def segment(model, clip, out=None):
    """Segment every frame of a clip or image.

    The fan is found, cut out and resized as for the networks' training; what the network finds is resized back into
    the frame. Into ``out`` go ``masks/frame-00000.png`` and so on, 0 and 255, of the frame's size; ``areas.csv``; and
    ``overlay.mp4`` (``overlay.png`` for a single image), the fan with the outline of what was found and nothing of
    the text around it.

    Parameters
    ----------
    model : path
        As for :func:`read_model`.
    clip : path
        As :func:`lusbook.media.open_recording` takes it.
    out : path, optional
        A new folder; by default ``<clip>-segmented`` in the working directory.

    Returns
    -------
    areas : pandas.DataFrame
        One row a frame: frame (from 0), seconds, b_line_pixels, fan_pixels, share; no share for black frames at the
        start, whose masks are empty.
    out : Path

    Raises
    ------
    LusbookError
        On a model, clip or folder that cannot be used; ``out`` is there whole or not at all.
    """
    method, settings = read_model(model)
    out = Path(out or f"{Path(clip).stem}-segmented")
    if out.exists():
        raise LusbookError(f"{out}: exists; name a new folder with --out")
    if not Path(clip).is_file():
        raise LusbookError(f"{clip}: no such file")
    stream, fan, lit = find_fan(clip)
    rate = frame_rate(clip)
    predict = load_network(model, method, settings)
    with new_folder(out) as folder, overlay_writer(folder, lit.stop, rate) as write:
        (folder / "masks").mkdir()
        found = []
        decoded = tqdm(stream(), desc="segmenting", total=lit.stop, unit="frame", mininterval=5)
        for frame, mask in find_masks(decoded, fan, predict, settings):
            mask &= len(found) in lit
            iio.imwrite(folder / "masks" / f"frame-{len(found):05d}.png", mask * np.uint8(255))
            write(outlined(frame, mask, fan))
            found.append(np.count_nonzero(mask))
        areas = pd.DataFrame({"frame": range(lit.stop), "seconds": np.arange(lit.stop) / float(rate)})
        areas = areas.assign(b_line_pixels=found, fan_pixels=np.count_nonzero(fan))
        areas["share"] = (areas["b_line_pixels"] / areas["fan_pixels"]).where(areas["frame"].isin(lit))
        areas.to_csv(folder / "areas.csv", index=False, float_format="%.6g")
    return areas, out


def find_fan(clip):
    """Open a recording and find its fan.

    Returns
    -------
    stream, lit
        As of :func:`lusbook.media.open_recording` and :func:`lusbook.media.find_fan`.
    fan : ndarray, shape (height, width), bool
        In the whole frame.
    """
    stream, region, _ = media.open_recording(clip)
    found, lit = media.find_fan(clip, stream, region)
    fan = np.zeros(next(stream()).shape[:2], bool)
    fan[region] = found
    return stream, fan, lit


def frame_rate(clip):
    """Frames per second of a recording, as a fraction; 25 where it does not say."""
    kind, rate = media.kind_of(clip), None
    try:
        if kind == "dicom":
            header = pydicom.dcmread(clip, stop_before_pixels=True, specific_tags=["FrameTime"])
            rate = 1000 / Fraction(header.FrameTime).limit_denominator(1000)
        elif kind == "clip":
            with av.open(str(clip)) as container:
                rate = container.streams.video[0].average_rate
    except (AttributeError, ArithmeticError, TypeError, ValueError):  # no frame time, or none that is a number above 0
        pass
    return rate if rate and 0.1 < rate < 1000 else UNKNOWN_RATE


def find_masks(decoded, fan, predict, settings):
    """Yield each frame with its mask, (height, width), bool; frames are held a batch at a time."""
    levels = map(media.grey, decoded)
    while batch := list(islice(levels, BATCH)):
        small, _ = video.crop_fan(np.stack(batch), fan, settings.image_size)
        for frame, probability in zip(batch, predict(small), strict=True):
            yield frame, fan & (uncrop(probability, fan) > settings.threshold)


def uncrop(image, fan):
    """Undo :func:`lusbook.video.crop_fan`: resize an image to the fan's square and put it where the fan is.

    Parameters
    ----------
    image : ndarray, shape (size, size), float
    fan : ndarray, shape (height, width), bool

    Returns
    -------
    placed : ndarray, shape (height, width), float
        0 outside the fan's bounding box.
    """
    rows, columns = media.bounding_box(fan)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    placed = np.zeros(fan.shape)
    placed[rows, columns] = resize(image, (side, side), order=1)[top : top + height, left : left + width]
    return placed


def outlined(frame, mask, fan):
    """Draw a mask's outline on the fan: (height, width, 3), uint8, black outside, cut to the fan, sides even."""
    image = np.where(fan, frame, 0)[..., None].repeat(3, axis=2)
    image[find_boundaries(mask)] = AMBER
    image = image[media.bounding_box(fan)]
    return np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)])


@contextmanager
def overlay_writer(folder, count, rate):
    """Write frames, (height, width, 3), uint8, as a clip at a rate, or a single one as an image."""
    if count == 1:
        yield lambda frame: iio.imwrite(folder / "overlay.png", frame)
        return
    with av.open(str(folder / "overlay.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})

        def write(frame):
            if not stream.codec_context.is_open:
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        yield write
        container.mux(stream.encode())


def summary(areas, out):
    """What a segmentation found, in words."""
    shares = areas["share"].dropna()
    score = real.pool_frames(shares, np.zeros(len(shares), int))[0]
    with_lines = int((areas["b_line_pixels"] > 0).sum())
    overlay = "overlay.png" if len(areas) == 1 else "overlay.mp4"
    return "\n".join(
        [
            f"{out}: masks, areas.csv, and {overlay} with what was found outlined",
            f"frames {len(areas)}, with B-lines {with_lines}",
            f"clip score {score:.4f}: {real.PERCENTILE}th percentile over frames of B-line pixels / pixels of the fan",
            "A network drew the outlines, nobody checked them, and this is not a medical device.",
        ]
    )


# ---------------------------------------------------------------------------------------------
# Adaptation


def adapt(settings, manifest, **keep):
    """Train SIFA from the labelled source to all images of a manifest, whose masks are not looked at.

    Parameters
    ----------
    settings : Settings
        Its ``cohorts`` is where the labels come from, see :func:`lusbook.loading.load_source`.
    manifest : path
    **keep
        As :func:`lusbook.trials.run_trial`.

    Returns
    -------
    outcome : dict
        As :func:`lusbook.trials.run_trial`; the only table is ``history``.
    """
    from lusbook import trials

    cohorts = read_manifest(manifest, settings.image_size)
    images = np.concatenate([cohort.images for cohort in cohorts.values()])
    seed = (settings.seed, len(FOLDS), zlib.crc32(runs.ADAPTED.encode()))  # no fold is left out
    source = load_source(settings)
    network, history = trials.adapt(source, network_images(images), settings, seed, "adapt", **keep)
    inputs = provenance.contents({"source": source}) | {"target": provenance.arrays_digest(images)}
    weights = [np.asarray(variable.value) for variable in network.weights]
    tables = {"history": pd.DataFrame(history)}
    return {"tables": tables, "weights": weights, "machine": trials.machine(), "inputs": inputs}
