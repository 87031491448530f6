"""Small data, and a way to run steps, that several tests share."""

import signal
import time
import zlib
from contextlib import contextmanager

import av
import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lusbook import anatomy, scanner

SIDE = 32
HEADER = "video_file,Severity Score,A-lines,B-lines,comments\n"


def png(pixels):
    return iio.imwrite("<bytes>", np.asarray(pixels, np.uint8), extension=".png")


def write_manifest(folder, size=32, patients=3, frames=4):
    """Write PNG files of two cohorts and their manifest; returns the manifest's path."""
    rng, rows = np.random.default_rng(0), []
    for cohort in ("covid", "cap"):
        for patient in range(patients):
            for frame in range(frames):
                mask = np.zeros((size, size), np.uint8)
                left = int(rng.integers(4, size - 10))
                mask[size // 4 :, left : left + 5] = 255
                image = np.clip(rng.normal(70, 25, mask.shape) + 0.4 * mask, 0, 255).astype(np.uint8)
                stem = f"{cohort}-{patient}-{frame}"
                iio.imwrite(folder / f"{stem}.png", image)
                iio.imwrite(folder / f"{stem}-mask.png", mask)
                rows.append({"image": f"{stem}.png", "mask": f"{stem}-mask.png"})
                rows[-1] |= {"patient": f"p{patient}", "cohort": cohort}
    path = folder / "manifest.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@contextmanager
def untraced():
    """Compiled steps run operation by operation here: a graph of SIFA takes longer to build than a few iterations."""
    import keras

    if keras.backend.backend() != "tensorflow":  # JAX runs operation by operation only outside its compiler
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def phantom_patient(name, number, diversity, scanner="butterfly", numbers="paper"):
    """A patient as the phantom draws it, seed 0."""
    seed = [0, zlib.crc32(name.encode()), number, 0, zlib.crc32(b"patient")]
    return anatomy.draw_patient(np.random.default_rng(seed), diversity, scanner, numbers)


def fixed_patient(kind="butterfly", **values):
    """The typical patient with some parameters of anatomy or scanner set."""
    with pytest.MonkeyPatch.context() as patch:
        for table in (anatomy.ANATOMY, anatomy.LINE, scanner.SCANNERS[kind]):
            for name in set(values) & set(table):
                patch.setitem(table, name, (values[name], 0))
        return phantom_patient("typical", 1, 0.0, kind)


def all_fan(frames):
    return np.ones(frames.shape, bool)


def noise(n=1, side=128, level=100, sd=10, blur=(0, 0), seed=0):
    """Frames of Gaussian noise with a mean and standard deviation, blurred along rows and columns."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(n, side, side)), (0, *blur), mode="wrap")
    return np.clip(np.rint(level + sd * field / field.std()), 0, 255).astype(np.uint8)


def random_set(n_patients=8, each=4, side=32, name="a", **options):
    frames = noise(n_patients * each, side, **options)
    return frames, all_fan(frames), np.repeat([f"{name}{k}" for k in range(n_patients)], each)


def write_clip(path, frames, **options):
    """Write grey frames, shape (n, height, width), as an mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    return path


def make_fan(height=96, width=128):
    """An annular sector whose apex is above the frame."""
    y, x = np.mgrid[:height, :width]
    radius, angle = np.hypot(y + 30, x - width / 2), np.abs(np.arctan2(x - width / 2, y + 30))
    return (radius > 45) & (radius < 115) & (angle < 0.55)


def make_frames(n=10, black=0, text=True):
    """Speckle in a fan, its left third in shadow below the top, with text and a depth scale outside; black at first."""
    fan = make_fan()
    frames = np.where(fan, np.random.default_rng(0).integers(40, 160, (n, *fan.shape)), 0)
    frames[:, 60:, :50] = np.where(fan[60:, :50], 1, 0)
    if text:
        frames[:, 3:12, 3:6] = frames[:, 3:5, 3:20] = 255
        frames[:, 8::10, -4:] = 255
    frames[:black] = 0
    return frames.astype(np.uint8)


def signal_self(number):
    """Send this process a signal, and stay until its handler has run: Python may call it some instructions later."""
    signal.raise_signal(number)
    for _ in range(100):
        time.sleep(0.001)
