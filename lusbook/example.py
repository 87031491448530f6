"""An example of what people have: a folder of recordings and masks in many formats, some of them of no use.

All of it is made from the phantom, and the name in it is invented. The chapter on own data imports it.
"""

import json
from pathlib import Path
from xml.etree import ElementTree

import av
import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage
from skimage.measure import approximate_polygon, find_contours

from lusbook.phantom import FRAME_RATE, simulate

NAME = "DOE^JANE"  # burned into every frame and in the DICOM header; an import is to keep neither
HEIGHT, WIDTH, SIDE = 160, 240, 144  # px: frames, and the phantom's square in them
MM_PER_PIXEL = 0.85  # as the DICOM file says
PLANS = {"covid": ((3,), (12,), (4,)), "cap": ((3,), (3,), (3,))}  # frames of each patient


def write_example(folder, seed=0):
    """Write two cohorts of three patients each, and files that cannot be used.

    Parameters
    ----------
    folder : path
        Is made.
    seed : int
        Of the phantom.

    Returns
    -------
    folder : Path
        With a folder for each patient in ``covid`` and ``cap``.
    """
    folder = Path(folder)
    writers = {
        "covid": {"ann": _write_pngs, "bob": _write_clip, "cy": _write_dicom},
        "cap": {"dee": _write_jpegs, "eve": _write_tiffs, "flo": _write_coco},
    }
    for name, diversity, consistency in (("covid", 0.3, 0.9), ("cap", 0.8, 0.5)):
        knobs = {"diversity": diversity, "consistency": consistency, "seed": seed}
        cohort = simulate(name, plan=PLANS[name], image_size=SIDE, **knobs)
        for number, (patient, write) in enumerate(writers[name].items(), start=1):
            place, of = folder / name / patient, cohort.patients == f"{name}-{number}"
            place.mkdir(parents=True)
            margins = [(0, 0), (HEIGHT - SIDE, 0), ((WIDTH - SIDE) // 2,) * 2]
            write(place, _burn(np.pad(cohort.images[of], margins)), np.pad(cohort.masks[of], margins))
    _write_useless(folder)
    return folder


def _burn(frames):
    """Frames, (n, height, width), uint8, with a name and a date as scanners write them beside the fan."""
    burned = [Image.fromarray(frame) for frame in frames]
    for image in burned:
        ImageDraw.Draw(image).text((4, 4), f"{NAME}\n1970-01-01", fill=255)
    return np.stack([np.asarray(image) for image in burned])


def _outlines(mask):
    """Polygons of a mask, each (n, 2), px, x before y, 0 at the outer edge of the first pixel."""
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    return [approximate_polygon(contour, 0.3)[:-1, ::-1] - 0.5 for contour in contours]


# ---------------------------------------------------------------------------------------------
# Formats


def _write_pngs(place, frames, masks):
    """PNG, masks beside them."""
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=True), start=1):
        iio.imwrite(place / f"{number}.png", frame)
        iio.imwrite(place / f"{number}_mask.png", mask * np.uint8(255))


def _write_tiffs(place, frames, masks):
    """TIFF, masks of the same name in a folder of their own."""
    (place / "masks").mkdir()
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=True), start=1):
        iio.imwrite(place / f"{number}.tif", frame)
        iio.imwrite(place / "masks" / f"{number}.png", mask * np.uint8(255))


def _write_jpegs(place, frames, masks):
    """JPEG, each with a labelme file."""
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=True), start=1):
        iio.imwrite(place / f"{number}.jpg", frame, quality=95)
        shapes = [{"label": "B-line", "shape_type": "polygon", "points": p.tolist()} for p in _outlines(mask)]
        content = {"imagePath": f"{number}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        (place / f"{number}.json").write_text(json.dumps(content))


def _write_coco(place, frames, masks):
    """PNG, and one COCO file of all."""
    images, annotations = [], []
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=True), start=1):
        iio.imwrite(place / f"{number}.png", frame)
        images.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
        polygons = [points.ravel().tolist() for points in _outlines(mask)]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": polygons})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "b_line"}]}
    (place / "coco.json").write_text(json.dumps(content))


def _write_clip(place, frames, masks):
    """A clip, every third frame of it annotated in a backup of CVAT."""
    with av.open(str(place / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=int(FRAME_RATE), options={"crf": "15"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    shapes = [
        {"type": "polygon", "label": "B line", "frame": frame, "points": points.ravel().tolist()}
        for frame in range(0, len(frames), 3)
        for points in _outlines(masks[frame])
    ]
    (place / "annotations.json").write_text(json.dumps([{"shapes": shapes, "tracks": []}]))
    (place / "task.json").write_text(json.dumps({"name": "clip.mp4"}))


def _write_dicom(place, frames, masks):
    """A DICOM file of several frames, with calibration, annotated in CVAT's XML."""
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1  # 2-D, tissue
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = WIDTH - 1, HEIGHT - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX = region.PhysicalDeltaY = MM_PER_PIXEL / 10
    exam = Dataset()
    exam.PatientName, exam.PatientID, exam.Modality = NAME, "0815", "US"
    exam.SOPClassUID, exam.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3"
    exam.Rows, exam.Columns, exam.NumberOfFrames, exam.SamplesPerPixel = HEIGHT, WIDTH, len(frames), 1
    exam.BitsAllocated, exam.BitsStored, exam.HighBit, exam.PixelRepresentation = 8, 8, 7, 0
    exam.PhotometricInterpretation, exam.FrameTime = "MONOCHROME2", 1000 / FRAME_RATE
    exam.SequenceOfUltrasoundRegions, exam.PixelData = [region], frames.tobytes()
    _save(exam, place / "exam.dcm")
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "source").text = "exam.dcm"
    for number, mask in enumerate(masks):
        image = ElementTree.SubElement(
            root, "image", id=f"{number}", name=f"frame_{number:06}", width=f"{WIDTH}", height=f"{HEIGHT}"
        )
        for points in _outlines(mask):
            text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
            ElementTree.SubElement(image, "polygon", label="b-lines", points=text)
    ElementTree.ElementTree(root).write(place / "exam.xml")


def _save(dataset, path):
    """Write a DICOM file, uncompressed."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _write_useless(folder):
    """What an import leaves out, and why."""
    good = iio.imread(folder / "covid" / "ann" / "1.png")
    whole = (folder / "covid" / "bob" / "clip.mp4").read_bytes()
    (folder / "covid" / "bob" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    iio.imwrite(folder / "covid" / "loose.png", good)
    deep, doppler = good.astype(np.uint16) << 8, good[..., None].repeat(3, axis=2)
    iio.imwrite(folder / "covid" / "ann" / "16-bit.png", deep)
    doppler[60:100, 100:140] = 200, 40, 30
    iio.imwrite(folder / "covid" / "ann" / "doppler.png", doppler)
    iio.imwrite(folder / "cap" / "eve" / "4.tif", good)
    iio.imwrite(folder / "cap" / "eve" / "masks" / "4.png", np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8))
    iio.imwrite(folder / "cap" / "eve" / "5.tif", np.zeros_like(good))
    gone = {"imagePath": "gone.jpg", "shapes": []}
    (folder / "cap" / "dee" / "gone.json").write_text(json.dumps(gone))
    (folder / "cap" / "flo" / "notes.txt").write_text("no recording")
    letter = Dataset()
    letter.SOPClassUID, letter.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.4"  # a PDF
    letter.PatientName = NAME
    _save(letter, folder / "covid" / "cy" / "letter.dcm")
