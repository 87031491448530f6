"""Small data, and a way to run steps, that several tests share."""

from contextlib import contextmanager

import imageio.v3 as iio
import numpy as np
import pandas as pd


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
