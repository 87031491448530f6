"""Small data, and a way to run steps, that several tests share."""

import zlib
from contextlib import contextmanager

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lusbook import anatomy, scanner


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
