"""Real masks for every experiment of the book: the polygons of CIT as two cohorts.

A study has two cohorts in two slots, ``covid`` and ``cap``. CIT does not state the disease; its two domains are two
scanners: clips of a Philips Lumify are put into the slot ``covid``, those of another scanner into the slot ``cap``.
What a study of them tells is about two scanners, whatever the slots are called.
"""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
from scipy import ndimage
from tqdm.auto import tqdm

from lusbook import annotations, video
from lusbook.errors import LusbookError, MissingData
from lusbook.folders import new_folder
from lusbook.sources import read_cit

SLOTS = {"Philips Lumify": "covid", "another scanner": "cap"}


def cit_cohorts(folder, out):
    """Write the frames of CIT with B-lines and their masks, with a manifest that any study takes.

    Frames without B-lines are left out, as the paper has none. A frame is cut to the image of its clip's linear probe.

    Parameters
    ----------
    folder : path or None
        As :func:`lusbook.sources.read_cit` takes it.
    out : path
        A new folder, or an empty one: ``images``, ``masks`` and ``manifest.csv``.

    Returns
    -------
    manifest : Path
        For ``make_settings(..., cohorts=manifest)``; see :mod:`lusbook.manifests`.

    Raises
    ------
    MissingData
        If clips are not here.
    LusbookError
        If a clip cannot be read, or does not fit its annotations; or if there is something in ``out``.
    """
    recordings, polygons, _ = read_cit(folder)
    recordings = recordings[recordings["clip"].isin(polygons["clip"])]
    if absent := recordings.loc[recordings["path"] == "", "clip"].tolist():
        raise MissingData(
            f"{len(absent)} of {len(recordings)} clips of CIT are not here ({', '.join(absent[:3])}, ...); get them "
            "with `lusbook download cit`, or clone its repository"
        )
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LusbookError(f"{out}: expected a new or empty folder")
    with new_folder(out) as folder:
        _write(recordings, polygons, folder)
    return out / "manifest.csv"


def _write(recordings, polygons, out):
    for name in ("images", "masks"):
        (out / name).mkdir()
    rows = []
    for recording in tqdm(recordings.itertuples(), total=len(recordings), desc="CIT", unit="clip", mininterval=5):
        for frame, image, mask in labelled_frames(recording.path, polygons[polygons["clip"] == recording.clip]):
            name = f"{recording.clip}-{frame:05}.png"
            iio.imwrite(out / "images" / name, image)
            iio.imwrite(out / "masks" / name, mask * np.uint8(255))
            row = {"image": f"images/{name}", "mask": f"masks/{name}", "patient": recording.patient}
            rows.append(row | {"cohort": SLOTS[recording.device]})
    pd.DataFrame(rows).to_csv(out / "manifest.csv", index=False)


def labelled_frames(path, polygons):
    """Frames of a clip that have B-lines, and their masks, cut to the probe's image.

    Parameters
    ----------
    path : path
        A clip.
    polygons : pandas.DataFrame
        Its B-lines, as :func:`lusbook.sources.read_cit` lists them.

    Returns
    -------
    frames : list of tuple
        Of each: frame (int), image (ndarray, shape (height, width), uint8) and mask (likewise, bool).

    Raises
    ------
    LusbookError
        If the clip cannot be read, is shorter or of another size than its annotations say, or a B-line is outside it.
    """
    points = dict(list(polygons.groupby("frame")["points"]))
    count, brightest, kept = 0, 0, {}
    for count, frame in enumerate(video.stream_clip(path), 1):
        brightest = np.maximum(brightest, frame)
        if count - 1 in points:
            kept[count - 1] = frame
    if max(points) >= count:
        raise LusbookError(f"{path}: has {count} frames, but B-lines are outlined in frame {max(points)}, from 0")
    sizes = polygons[["height", "width"]].dropna().drop_duplicates().to_numpy(int).tolist()
    if sizes not in ([], [list(brightest.shape)]):
        raise LusbookError(f"{path}: expected frames of {sizes[0]} px as annotated, received {list(brightest.shape)}")
    masks = {frame: annotations.draw(outlines, *brightest.shape) for frame, outlines in points.items()}
    if outside := [frame for frame, mask in masks.items() if not mask.any()]:
        raise LusbookError(f"{path}: the B-lines of frame {outside[0]} are outside it")
    box = probe_box(brightest, np.any(list(masks.values()), axis=0))
    return [(frame, kept[frame][box], mask[box]) for frame, mask in masks.items()]


def probe_box(brightest, drawn):
    """Box of a linear probe's image on the screen of its scanner.

    The image of a linear probe is a rectangle, and a small part of some screens (7 % of the one frame that was seen),
    so :func:`lusbook.video.fan_mask` would not take it for a fan. It is told by the B-lines in it: the box is that of
    the lit region which they are in or touch, and of the B-lines themselves, which may go on into the dark. Text and
    other things apart from it are left out.

    Parameters
    ----------
    brightest : ndarray, shape (height, width), uint8
        The brightest that each pixel ever is.
    drawn : ndarray, shape (height, width), bool
        All B-lines of the clip.

    Returns
    -------
    box : tuple of slice
        Rows and columns.
    """
    side = max(3, round(min(drawn.shape) / 50) | 1)  # odd, in px: thicker than strokes of text, as in fan_mask
    lit = ndimage.binary_opening(brightest > video.LIT, np.ones((side, side)))
    regions, _ = ndimage.label(lit | drawn)
    return ndimage.find_objects(np.isin(regions, regions[drawn]).astype(int))[0]
