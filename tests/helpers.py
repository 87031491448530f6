"""Small data, and a way to run steps, that several tests share."""

import itertools
import json
import signal
import time
import zlib
from contextlib import contextmanager

import av
import imageio.v3 as iio
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom import uid
from scipy import ndimage

from lusbook import anatomy, metrics, scanner
from lusbook.experiments import EXPERIMENTS

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


def phantom_patient(name, number, diversity, kind="butterfly", numbers="paper", gap=0.0):
    """A patient as the phantom draws it, seed 0."""
    seed = [0, zlib.crc32(name.encode()), number, 0, zlib.crc32(b"patient")]
    p = anatomy.draw_patient(np.random.default_rng(seed), diversity, kind, numbers)
    scanner.widen_gap(p, gap)
    return p


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


def shape(frame, label="bline", points=(0, 1, 2, 3, 4, 5), **more):
    """An outline as CVAT writes it."""
    return {"frame": frame, "label": label, "type": "polygon", "points": points, **more}


def cit_task(folder, number, jobs, name="019_image_1.mp4"):
    """Write the annotations of a task in the layout of CIT; returns the folder."""
    path = folder / "Dataset" / "USG-B-lines" / f"task_{number}" / "annotations.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jobs if isinstance(jobs, str) else json.dumps(jobs))
    path.with_name("task.json").write_text(json.dumps({"name": name}))
    return folder


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


def write_dicom(path, frames, syntax=uid.ExplicitVRLittleEndian, regions=(), **values):
    """Write frames, shape (n, height, width[, 3]), as ultrasound; other elements by keyword, None leaves one away.

    A region is a dictionary of what differs from 2-D tissue in all of the image at 0.02 cm a pixel.
    """
    n, height, width = frames.shape[:3]
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3.4"
    colour = frames.ndim == 4
    pixels = {"Rows": height, "Columns": width, "NumberOfFrames": n, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    pixels |= {"SamplesPerPixel": 3 if colour else 1, "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2"}
    pixels |= {"PlanarConfiguration": 0} if colour else {}
    values = (
        {"Modality": "US", "PatientID": "id-1", "PixelRepresentation": 0, "PixelData": frames.tobytes()}
        | pixels
        | values
    )
    for key, value in values.items():
        if value is not None:
            setattr(header, key, value)
    box = {"RegionLocationMinX0": 0, "RegionLocationMinY0": 0, "RegionLocationMaxX1": width - 1}
    box |= {"RegionLocationMaxY1": height - 1, "RegionSpatialFormat": 1, "RegionDataType": 1, "PhysicalDeltaX": 0.02}
    box |= {"PhysicalDeltaY": 0.02, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    if regions:
        header.SequenceOfUltrasoundRegions = [pydicom.Dataset() for _ in regions]
        for item, region in zip(header.SequenceOfUltrasoundRegions, regions, strict=True):
            for key, value in (box | region).items():
                setattr(item, key, value)
    if syntax == uid.RLELossless:
        header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        header.compress(syntax, generate_instance_uid=False)
    elif syntax.is_compressed and "PixelData" in header:
        header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(
        path, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    return path


def route_of(experiment, cohort):
    """Route by which an experiment's rows on a cohort count."""
    adapted = experiment.startswith("sifa") and cohort in EXPERIMENTS[experiment].source
    return "translated" if adapted else "direct"


def random_rows(experiments=tuple(EXPERIMENTS), folds=(0, 1), images=3, seed=0, side=6):
    """A per-image table as a study gives it: SIFA has two routes on its source cohort."""
    rng, parts = np.random.default_rng(seed), []
    for experiment, fold, cohort in itertools.product(experiments, folds, ("covid", "cap")):
        for route in dict.fromkeys((route_of(experiment, cohort), "direct")):
            prediction, mask = rng.random((2, images, side, side)) < 0.4
            rows = metrics.per_image(prediction, mask)
            rows = rows.assign(experiment=experiment, fold=fold, cohort=cohort, route=route)
            parts.append(rows.assign(patient=f"{cohort}-{fold}", image=np.arange(images) + images * fold))
    return pd.concat(parts, ignore_index=True)
