"""What `tests.fuzz` feeds: each reader of files from strangers, with good examples to start from.

A target's input is the content of a few files, one after the other with SEPARATOR between them; their names are fixed.
"""

import io
import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from lusbook import (
    annotations,
    checkpoints,
    cli,
    dicom,
    digests,
    downloads,
    imports,
    intake,
    manifests,
    media,
    queues,
    rows,
    runs,
    segment,
    settings,
    sources,
    store,
    tables,
    workload,
)
from tests import helpers

SEPARATOR = b"\n=====\n"
SMALL = (slice(None, 24), slice(None, 24))  # of a mask drawn of outlines, px


class Target(NamedTuple):
    """A reader of files.

    Parameters
    ----------
    read : callable
        Takes the folder that the files are in.
    names : tuple of str
        Of the files that an input gives.
    kind : {"bytes", "text", "json", "npz"}
        How they are changed in structure.
    seeds : callable
        Takes a folder, returns good inputs: lists of the contents of the files, bytes.
    fixed : callable, optional
        Takes a folder, writes further files.
    place : tuple of str
        One of these is in every error; the names of the files by default.
    anywhere : bool
        Whether an input may name files anywhere, as what a user writes may.
    """

    read: Callable
    names: tuple
    kind: str
    seeds: Callable
    fixed: Callable | None = None
    place: tuple = ()
    anywhere: bool = False


def dumped(*contents):
    """Contents as JSON."""
    return [json.dumps(content).encode() for content in contents]


def content_of(folder, *names):
    return [(folder / name).read_bytes() for name in names]


# ---------------------------------------------------------------------------------------------
# Tables


def manifest_seeds(folder):
    helpers.write_manifest(folder, 16, 3, 1)
    text = (folder / "manifest.csv").read_text()
    bare = "\n".join(line.replace("-mask.png", "-mask.png,") for line in text.splitlines())
    return [[text.encode()], [text.replace("-mask", "").encode()], [("\ufeff" + bare).encode()]]


def read_cohorts(folder):
    """As a study reads a manifest: the settings look at it first."""
    settings.make_settings("smoke", cohorts=str(folder / "manifest.csv"))
    return manifests.read_manifest(folder / "manifest.csv", 16)


def png_seeds(folder):
    pixels = helpers.noise(1, 16)[0]
    return [[helpers.png(pixels), helpers.png(255 * (pixels > 100))], [helpers.png(np.dstack([pixels] * 3)), b""]]


def png_manifest(folder):
    rows = [f"{stem}.png,{stem}-mask.png,p{k},covid" for k, stem in enumerate(("covid-0-0", "covid-1-0", "a"))]
    helpers.write_manifest(folder, 16, 2, 1)
    (folder / "manifest.csv").write_text("\n".join(["image,mask,patient,cohort", *rows]))


PATIENTS = b"file,patient,cohort\np1/a.png,ann,covid\n./p2\\b.png,bob,cap\nc.dcm,cy,\n"
SEVERITY = (helpers.HEADER + "patient_1_R1_2,2.0,no,yes ,\npatient_1_L1,0.0,yes,no ,fine\n").encode()
CLINICAL = b"patient_id,cov_test," + ",".join(sources._DIAGNOSES).encode() + b"\n1,1,1,0,0,0,0\n2,0,0,0,0,1,0\n"
POCUS = b"file,media,geometry,group_id,condition,b_lines,licence,attribution\npocus/a.mp4,video,convex,g1,covid19,yes,"
POCUS += b"CC BY 4.0,A. Author\npocus/b.mp4,video,linear,g2,,no,CC BY-NC 4.0,somebody\n"


def read_patients(folder):
    files = {"p1/a.png": "image", "c.dcm": "dicom"}
    return intake.find_patients(folder, files, None, folder / "patients.csv", [])


# ---------------------------------------------------------------------------------------------
# Annotations

SHAPE = helpers.shape(2, points=[0, 1, 2, 3.5, 4, 5])
BOX = SHAPE | {"type": "rectangle", "points": [0, 0, 9, 9], "rotation": 30.0}
TRACK = {"label": "b-line", "shapes": [SHAPE, BOX | {"outside": True}]}
CVAT = [{"version": 6, "tags": [], "shapes": [SHAPE, BOX], "tracks": [TRACK]}]
TASK = {"name": "clip.mp4", "data": {"start_frame": 3, "frame_filter": "step=2"}}
LISTED = b'{"version":"1.1"}\n{"type":"video"}\n{"properties":{"name":"clip.mp4","resolution":[64,48],"length":9}}\n'
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}, {"id": "x", "file_name": "b.png"}],
    "categories": [{"id": 1, "name": "B-line"}, {"id": 2, "name": "pleura"}],
    "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[0, 1, 2, 3, 4, 5.5]], "bbox": [0, 0, 1, 1]}],
}
LABELME = {
    "imagePath": "../a.png",
    "imageHeight": 48,
    "imageWidth": 64,
    "shapes": [{"label": "bline", "shape_type": "polygon", "points": [[0, 1], [2, 3], [4, 5]]}],
}
XML = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><meta><task><name>c</name><original_size><width>64</width><height>48</height></original_size></task>
<source>clip.mp4</source></meta><image id="0" name="frame_000012" width="64" height="48">
<polygon label="B-line" points="0,1;2,3;4,5"/><box label="b_line" xtl="0" ytl="1" xbr="2" ybr="3" rotation="9"/></image>
<track id="0" label="b line"><polygon frame="1" outside="0" points="0,1;2,3;4,5"/></track></annotations>"""
BOXES = b"0 0.1 0.1 0.2 0.1 0.2 0.9 0.1 0.9\n1 0 0 1 0 1 1 0 1\n"


def read_shapes(name, folder, read=annotations.read_annotations):
    table = read(folder / name)
    annotations.draw(table["points"], 24, 32)
    return table


# ---------------------------------------------------------------------------------------------
# Pictures


def read_recording(name, folder):
    """The whole way of a recording: whether it can be used, its frames, its fan."""
    stream, region, _ = media.open_recording(folder / name)
    fan, lit = media.find_fan(folder / name, stream, region)
    segment.frame_rate(folder / name)
    return media.bounding_box(fan), lit


def fans(n=2, side=32):
    """Frames whose fan is as small as a reader takes."""
    return np.pad(helpers.noise(n, side), [(0, 0), (4, 4), (12, 12)])


def saved(frames, **options):
    file = io.BytesIO()
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(file, save_all=len(pages) > 1, append_images=pages[1:], **options)
    return file.getvalue()


def image_seeds(folder, kind):
    grey, colours = fans(1), np.repeat(fans(1)[..., None], 3, axis=3)
    if kind == "PNG":
        return [[saved(grey, format=kind)], [saved(colours, format=kind)], [saved(grey, format=kind, interlace=1)]]
    if kind == "JPEG":
        return [[saved(grey, format=kind)], [saved(colours, format=kind, progressive=True)]]
    options = ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_deflate"})
    return [[saved(fans(2), format=kind, **more)] for more in options] + [[saved(colours, format=kind)]]


def dicom_seeds(folder):
    frames, colours = fans(), np.repeat(fans()[..., None], 3, axis=3)
    region = {"RegionLocationMinX0": 8, "RegionLocationMaxX1": 48}
    jpeg, wavelet = (encapsulate([saved(f[None], format=kind) for f in frames]) for kind in ("JPEG", "JPEG2000"))
    palette = {f"{hue}PaletteColorLookupTableData": bytes(range(256)) for hue in ("Red", "Green", "Blue")}
    palette |= {f"{hue}PaletteColorLookupTableDescriptor": [256, 0, 8] for hue in ("Red", "Green", "Blue")}
    made = [
        (frames, uid.ExplicitVRLittleEndian, [region, {"RegionDataType": 1}], {}),
        (frames, uid.ImplicitVRLittleEndian, [], palette | {"PhotometricInterpretation": "PALETTE COLOR"}),
        (colours, uid.ExplicitVRBigEndian, [], {}),
        (frames, uid.RLELossless, [], {"PhotometricInterpretation": "MONOCHROME1"}),
        (frames, uid.JPEGBaseline8Bit, [], {"PixelData": jpeg, "FrameTime": "40"}),
        (frames, uid.JPEG2000Lossless, [region], {"PixelData": wavelet}),
    ]
    files = [helpers.write_dicom(folder / "a.dcm", f, syntax, r, **more).read_bytes() for f, syntax, r, more in made]
    return [[file] for file in files]


def read_dicom(folder):
    dicom.patient_id(folder / "a.dcm")
    return read_recording("a.dcm", folder)


def clip_seeds(folder, suffix):
    if suffix == "gif":
        return [[saved(fans(), format="GIF")]]
    return [[helpers.write_clip(folder / f"a.{suffix}", fans()).read_bytes()]]


# ---------------------------------------------------------------------------------------------
# Settings and queues

PRESET = (
    b"# mine\npreset: mine\nimage_size: 64\nunet_epochs: 3\nprecision: float32\nunet_iterations: null\nthreshold: .4\n"
)
QUEUE = b"""- preset: smoke
  set: {image_size: 32, seed: 1}
  experiments: [sifa-cap-to-covid, unet-cap]
  folds: [0, 2]
- benchmark: metrics
"""


def read_assignments(folder):
    text = (folder / "assignments").read_bytes().decode("utf-8", "replace").replace("\0", "")  # as of a shell
    return cli.parse_settings("demo", cli.absolute(text.splitlines()))


# ---------------------------------------------------------------------------------------------
# Run folders, checkpoints, estimates, lists of files

PAIR = ("unet-covid", "unet-cap", "covid")
RUN = ("params.json", "per_image.csv", "overlays.npz", "manifest.json", "weights.npz")


def run_seeds(folder):
    stored = store.relevant(settings.make_settings("smoke"), "unet")
    params = {"experiment": "unet-covid", "fold": 0, "settings": stored, "data": {"covid": "0", "cap": "1"}}
    about = {"cohort": ["covid", "cap"], "patient": ["a", "b"], "image": [1, 2], "route": "direct"}
    values = {
        "tp": [2, 1],
        "fp": 3,
        "fn": 1,
        "tn": 9,
        "dice": [0.5, 0.33],
        "sensitivity": 0.6,
        "specificity": [0.7, ""],
    }
    table = pd.DataFrame(about | values).to_csv(index=False).encode()
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((2, 4, 4), np.uint8), names=np.array(["a", "b"]))
    first, named = (
        json.dumps(params).encode(),
        {"files": dict.fromkeys(RUN[:3], "right"), "seed": 0} | {"code": "0", "data": params["data"], "seconds": 1.0},
    )
    return [[first, table, file.getvalue(), json.dumps(named).encode(), b"not opened"]]


def read_run(folder):
    """A run's folder; in its manifest, "right" stands for the digest of a file."""
    manifest = (folder / "manifest.json").read_bytes() if (folder / "manifest.json").exists() else b""
    for name in RUN[:3]:
        found = digests.file_digest(folder / name) if (folder / name).exists() else "none"
        manifest = manifest.replace(f'"{name}": "right"'.encode(), f'"{name}": "{found}"'.encode())
    (folder / "manifest.json").write_bytes(manifest)
    whole = store.read_tables(folder), store.read_arrays(folder), segment.read_model(folder)
    readers = {("unet-covid", 0): partial(runs.read_parts, folder, "unet-covid", 0)}
    return *whole, tables.dice_table(readers), rows.image_pairs(readers, *PAIR)


def checkpoint_seeds(folder):
    arrays = [np.arange(6, dtype="float32").reshape(2, 3), np.array(7), np.zeros((0, 2), "uint32")]
    path = checkpoints.save(folder, "run", 3, arrays, [{"iteration": i + 1, "loss": 0.5} for i in range(3)])
    checkpoints.save_snapshot(folder, 3, arrays)
    return [content_of(folder, path.name, "snapshot-00000003.npz")]


def read_checkpoint(folder):
    return checkpoints.load(folder, "run"), checkpoints.load_snapshot(folder, 3)


def estimate_seeds(folder):
    found = {"times": [0.5, 0.6], "memory": 2.0, "device": "cpu", "compile": 3.0}
    return [dumped({"unet": found, "sifa": found})]


def tree_seeds(folder):
    paths = ("Dataset/USG-B-lines/task_1/data/a.mp4", "Dataset/USG-B-lines/task_1/data/manifest.jsonl", "LICENSE")
    files = [{"path": path, "type": "blob", "sha": "0123456789" * 4, "size": 9, "mode": "100644"} for path in paths]
    return [dumped({"tree": files, "truncated": False, "url": "x"})]


def read_tree(folder):
    return downloads.read_listing("tree.json", (folder / "tree.json").read_bytes())


# ---------------------------------------------------------------------------------------------
# A folder of recordings as a whole

FOLDER = ("in/covid/p1/a.png", "in/covid/p1/a_mask.png", "in/cap/p2/b.dcm", "in/cap/p2/b.json", "in/patients.csv")


def folder_seeds(folder):
    image, coco = fans(1)[0], COCO | {"images": [{"id": 1, "file_name": "b.dcm", "width": 64, "height": 48}]}
    listed = b"file,patient,cohort\ncovid/p1/a.png,ann,covid\ncap/p2/b.dcm,bob,cap\n"
    files = [helpers.png(image), helpers.png(255 * (image > 120)), dicom_seeds(folder)[0][0], *dumped(coco), listed]
    return [
        files,
        [*files[:4], b""],
        [files[0], b"", files[2], *dumped(LABELME | {"imagePath": "../../covid/p1/a.png"}), b""],
    ]


def read_folder(folder):
    patients = folder / FOLDER[-1]
    by = patients if patients.exists() and patients.stat().st_size else "folder"
    return imports.import_folder(folder / "in", folder / "out", patients=by, frames=2)


def one(*contents):
    """Good inputs of one file each."""
    return lambda folder: [[content] for content in contents]


TARGETS = {
    "manifest CSV": Target(
        read_cohorts,
        ("manifest.csv",),
        "text",
        manifest_seeds,
        lambda folder: helpers.write_manifest(folder, 16, 3, 1),
    ),
    "manifest PNG": Target(
        read_cohorts,
        ("a.png", "a-mask.png"),
        "bytes",
        png_seeds,
        png_manifest,
    ),
    "patients CSV": Target(read_patients, ("patients.csv",), "text", one(PATIENTS)),
    "CVAT JSON": Target(
        partial(read_shapes, "annotations.json"),
        ("annotations.json", "task.json", "data/manifest.jsonl"),
        "json",
        lambda folder: [
            [*dumped(CVAT, TASK), LISTED],
            [*dumped(CVAT, {"name": "a"}), 9 * b'{"name":"a","extension":".png"}\n'],
        ],
    ),
    "CVAT XML": Target(partial(read_shapes, "a.xml"), ("a.xml",), "text", one(XML)),
    "COCO": Target(partial(read_shapes, "coco.json"), ("coco.json",), "json", one(*dumped(COCO))),
    "labelme": Target(partial(read_shapes, "a.json"), ("a.json",), "json", one(*dumped(LABELME))),
    "boxes": Target(
        partial(read_shapes, "a.txt", read=partial(annotations.read_boxes, height=24, width=32)),
        ("a.txt",),
        "text",
        one(BOXES),
    ),
    "DICOM": Target(read_dicom, ("a.dcm",), "bytes", dicom_seeds),
    "PNG": Target(partial(read_recording, "a.png"), ("a.png",), "bytes", partial(image_seeds, kind="PNG")),
    "JPEG": Target(partial(read_recording, "a.jpg"), ("a.jpg",), "bytes", partial(image_seeds, kind="JPEG")),
    "TIFF": Target(partial(read_recording, "a.tif"), ("a.tif",), "bytes", partial(image_seeds, kind="TIFF")),
    "clip MP4": Target(partial(read_recording, "a.mp4"), ("a.mp4",), "bytes", partial(clip_seeds, suffix="mp4")),
    "clip AVI": Target(partial(read_recording, "a.avi"), ("a.avi",), "bytes", partial(clip_seeds, suffix="avi")),
    "clip GIF": Target(partial(read_recording, "a.gif"), ("a.gif",), "bytes", partial(clip_seeds, suffix="gif")),
    "preset YAML": Target(
        lambda folder: settings.make_settings(folder / "mine.yaml"), ("mine.yaml",), "text", one(PRESET)
    ),
    "settings as name=value": Target(
        read_assignments,
        ("assignments",),
        "text",
        one(b"image_size=64\nseed=1\nprecision=bfloat16\nunet_iterations=null"),
        place=("--set", "preset 'demo'"),
        anywhere=True,
    ),
    "queue YAML": Target(
        lambda folder: queues.read_queue(folder / "queue.yaml", folder),
        ("queue.yaml",),
        "text",
        one(QUEUE),
        anywhere=True,
    ),
    "run folder": Target(read_run, RUN, "json", run_seeds, place=RUN),
    "checkpoint": Target(
        read_checkpoint, ("checkpoint-00000003.npz", "snapshot-00000003.npz"), "npz", checkpoint_seeds
    ),
    "estimate": Target(
        lambda folder: workload.read_estimate(folder / "estimate.json"), ("estimate.json",), "json", estimate_seeds
    ),
    "list of a repository": Target(read_tree, ("tree.json",), "json", tree_seeds),
    "flags of COVID-BLUES": Target(
        lambda folder: sources.read_severity(folder / "severity.csv"),
        ("severity.csv",),
        "text",
        one(SEVERITY),
    ),
    "patients of COVID-BLUES": Target(
        lambda folder: sources.read_clinical(folder / "clinical.csv"),
        ("clinical.csv",),
        "text",
        one(CLINICAL),
    ),
    "files of POCUS": Target(lambda folder: sources.read_pocus(folder), ("metadata.csv",), "text", one(POCUS)),
    "folder to import": Target(read_folder, FOLDER, "bytes", folder_seeds, place=("in",)),
}


def seeds(target):
    """Good inputs of a target, bytes each."""
    with tempfile.TemporaryDirectory() as folder:
        return [SEPARATOR.join(parts) for parts in target.seeds(Path(folder))]


@cache
def fixed(target):
    """The files that all inputs of a target share, by name."""
    with tempfile.TemporaryDirectory() as folder:
        if target.fixed:
            target.fixed(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def spread(target, folder, data):
    """Write an input into a folder that is empty; a part that is missing is a file that is not there."""
    for name, content in fixed(target).items():
        (folder / name).write_bytes(content)
    for name, content in zip(target.names, data.split(SEPARATOR), strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
