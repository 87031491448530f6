"""Import of people's own recordings: a folder of images, clips and DICOM files becomes cohorts and their manifest.

What is written is new pixels and numbered names: no header, no file name and no identifier of the source goes along,
and what lies outside the fan, as burned-in names do, is black and cut off. Only the list of what was left out
(``left_out.csv``, and in ``report.html``) names files of the source.
"""

import os
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lusbook.annotations import draw
from lusbook.cohort import N_FOLDS, NAMES, assign_folds
from lusbook.errors import LusbookError
from lusbook.folders import new_folder
from lusbook.intake import find_files, find_marks, find_patients, leave
from lusbook.media import SMALLEST, bounding_box, find_fan, grey, open_recording, stream_image
from lusbook.reports import thumbnail, write_report

COLUMNS = ["image", "mask", "patient", "cohort", "mm_per_pixel"]  # of the manifest
INSIDE = 0.5  # share of a mask that is to lie in the fan; less is a mask, or a fan, that went wrong


def import_folder(folder, out=None, cohort=None, patients="folder", frames=30):
    """Import a folder of recordings.

    Each recording's fan is found on all its frames; the kept frames are cut to it, black outside it, and made grey.
    Masks are PNG files (``NAME_mask.png``, ``NAME-mask.png``, or ``NAME.png`` in a folder ``masks`` beside the image or
    beside its folder) or annotations of B-lines, see :mod:`lusbook.annotations`. A cohort in which any frame has a mask
    is made of those frames alone.

    Parameters
    ----------
    folder : path
        Searched with its subfolders; nothing in it is changed.
    out : path, optional
        New or empty folder; by default that of the source with ``-cohort`` at its end.
    cohort : {"covid", "cap"}, optional
        Of all recordings; by default the folders ``covid`` and ``cap`` in ``folder``, or a column of the CSV, say it.
    patients : str or path
        ``"folder"``: a folder for each patient, in ``folder`` or in its cohort folders. ``"dicom"``: the Patient ID.
        Or a CSV with the columns ``file`` (relative to ``folder``), ``patient`` and, if need be, ``cohort``.
    frames : int
        Frames kept of each recording, evenly spaced; frames that somebody annotated are kept besides.

    Returns
    -------
    out : Path
        Holds ``images``, ``masks``, ``manifest.csv`` (columns image, mask, patient, cohort, mm_per_pixel),
        ``left_out.csv`` and ``report.html``; it is there whole or not at all.
    table : pandas.DataFrame
        The rows of the manifest, with file (the recording in ``folder``), b_lines (bool) and fold (Int64; <NA> where
        the cohort has too few patients).
    left_out : pandas.DataFrame
        Columns file and reason.

    Raises
    ------
    LusbookError
        If a parameter cannot be used, or nothing is left to import.
    """
    if frames < 1:
        raise LusbookError(f"frames: expected 1 or more, received {frames}")
    if cohort not in (None, *NAMES):
        raise LusbookError(f"cohort {cohort!r}: expected {' or '.join(NAMES)}")
    folder, out = _places(folder, out)
    left_out = []
    files = find_files(folder, left_out)
    recordings = find_patients(folder, files, cohort, patients, left_out)
    marks, labels = find_marks(folder, files, left_out)
    with new_folder(out) as target:
        table, shown = _write_frames(folder, target, recordings, marks, frames, left_out)
        table = _drop_unmasked(target, table, left_out)
        left_out = _complete(left_out, folder, marks, table)
        if table.empty:
            reasons = [f"{row.file}: {row.reason}" for row in left_out.head(10).itertuples()]
            found = f"left out {left_out['file'].nunique()} files; {'; '.join(reasons)}" if reasons else "no files"
            raise LusbookError(f"{folder}: nothing imported, {found}")
        table["fold"] = _folds(table)
        table.to_csv(target / "manifest.csv", columns=COLUMNS, index=False, float_format="%.6g")
        left_out.to_csv(target / "left_out.csv", index=False, errors="backslashreplace")
        write_report(target / "report.html", table, left_out, shown, labels)
    return out, table, left_out


def _places(folder, out):
    """Check where to read and where to write."""
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise LusbookError(f"{folder}: no such folder")
    out = Path(out).expanduser().resolve() if out else folder.with_name(f"{folder.name}-cohort")
    if out.is_relative_to(folder):
        raise LusbookError(f"{out}: lies inside {folder}; name another folder with --out")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise LusbookError(f"{out}: exists and is not an empty folder; name another one with --out")
    return folder, out


# ---------------------------------------------------------------------------------------------
# Frames


def _write_frames(folder, target, recordings, marks, frames, left_out):
    """Write the kept frames of all recordings; their rows, and for each patient a thumbnail of one."""
    for name in ("images", "masks"):
        (target / name).mkdir(parents=True)
    rows, shown = [], {}
    for recording in tqdm(recordings.itertuples(), total=len(recordings), desc="recordings", mininterval=5):
        known = {"file": recording.file, "patient": recording.patient, "cohort": recording.cohort}
        written = []
        try:
            taken = _take(folder, recording.file, marks.get(recording.file, {}), frames, left_out)
            for number, image, mask, fan, mm_per_pixel in taken:
                name = f"{recording.name}-frame-{number:04}.png"
                row = known | {"image": f"images/{name}", "mask": "", "mm_per_pixel": mm_per_pixel, "b_lines": False}
                iio.imwrite(target / row["image"], image)
                if mask is not None:
                    row |= {"mask": f"masks/{name}", "b_lines": bool(mask.any())}
                    iio.imwrite(target / row["mask"], mask * np.uint8(255))
                written.append(row)
                rank = (mask is not None, row["b_lines"])
                if rank > shown.get(recording.patient, [()])[0]:
                    shown[recording.patient] = rank, thumbnail(image, fan, mask)
        except LusbookError as error:  # in the second pass, if the file changed meanwhile: it is left out whole
            leave(left_out, recording.file, error)
            for row in written:
                (target / row["image"]).unlink()
                (target / row["mask"]).unlink() if row["mask"] else None
            continue
        rows += written
    table = pd.DataFrame(rows, columns=["file", *COLUMNS, "b_lines"])
    return table, {patient: picture for patient, (_, picture) in shown.items()}


def _take(folder, file, marked, frames, left_out):
    """Yield number, image, mask (None without one), fan and mm per pixel of the frames that are kept of a recording."""
    path = folder / file
    if several := [number for number, found in marked.items() if len(found) > 1]:
        sources = " and ".join(mark.source for mark in marked[several[0]])
        raise LusbookError(f"{path}: several masks of frame {several[0]}: {sources}; expected one")
    stream, region, mm_per_pixel = open_recording(path)
    fan, lit = find_fan(path, stream, region)
    box = bounding_box(fan)
    if min(fan[box].shape) < SMALLEST:
        raise LusbookError(f"{path}: expected a fan of {SMALLEST} px or more a side, received {fan[box].shape}")
    spaced = np.linspace(lit.start, lit.stop - 1, min(frames, len(lit))).round().astype(int)
    chosen = {*spaced.tolist(), *(number for number in marked if number < lit.stop)}
    for number in sorted(set(marked) - chosen):
        leave(left_out, marked[number][0].source, f"frame {number} of {file}, which has {lit.stop}")
    for number, frame in zip(range(max(chosen) + 1), stream(), strict=False):
        if number in chosen:
            mask = None
            try:
                if number in marked:
                    mask = _read_mask(folder, marked[number][0], frame.shape[:2], lit.stop)[region]
                    if np.count_nonzero(mask & fan) < INSIDE * np.count_nonzero(mask):
                        raise LusbookError(f"mask of frame {number} of {file}: more than half lies outside the fan")
            except LusbookError as error:
                leave(left_out, marked[number][0].source, error)
                mask = None
            image = np.where(fan, grey(frame[region]), 0)[box]
            yield number, image, None if mask is None else (mask & fan)[box], fan[box], mm_per_pixel


def _read_mask(folder, mark, shape, frames):
    """Mask of a whole frame, shape (height, width), bool."""
    size, path = mark.size or shape, folder / mark.source
    if mark.polygons is None:
        if frames > 1:
            raise LusbookError(f"{path}: one mask for {frames} frames; expected an annotation file")
        pixels = grey(next(stream_image(path)))
        size, values = pixels.shape, np.unique(pixels).tolist()
        if not (set(values) <= {0, 1} or set(values) <= {0, 255}):
            shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
            raise LusbookError(f"{path}: expected a mask of 0 and 255 (or 0 and 1), received the values {shown}")
    if size != shape:
        raise LusbookError(f"{path}: mask of another size; expected {shape}, received {size} (rows, columns)")
    return pixels > 0 if mark.polygons is None else draw(mark.polygons, *shape)


def _drop_unmasked(target, table, left_out):
    """Where a cohort has masks, frames without one do not belong to it."""
    bare = (table["mask"] == "") & table.groupby("cohort")["mask"].transform(lambda masks: (masks != "").any())
    frames = table["file"].value_counts()
    for file, rows in table[bare].groupby("file"):
        leave(left_out, file, "no mask" if frames[file] == 1 else f"no mask: {len(rows)} of {frames[file]} frames")
        for image in rows["image"]:
            (target / image).unlink()
    return table[~bare].reset_index(drop=True)


def _complete(left_out, folder, marks, table):
    """All files that are left out, each reason once, and without paths of this machine."""
    out = pd.DataFrame(left_out, columns=["file", "reason"], dtype=object)
    sources = [(mark.source, file) for file, marked in marks.items() for found in marked.values() for mark in found]
    kept = set(table["file"])
    used = {source for source, file in sources if file in kept}
    idle = [file for file in dict.fromkeys(source for source, _ in sources) if file not in {*used, *out["file"]}]
    out = pd.concat([out, pd.DataFrame({"file": idle, "reason": "what it marks is left out"})])
    out["reason"] = [
        reason.replace(f"{folder}{os.sep}", "").removeprefix(f"{file}:").strip() for file, reason in out.to_numpy()
    ]
    return out.drop_duplicates().sort_values("file", kind="stable", ignore_index=True)


def _folds(table):
    """Fold of each image as a study assigns it; <NA> in a cohort of too few patients."""
    folds = pd.Series(pd.NA, table.index, dtype="Int64")
    for _, rows in table.groupby("cohort"):
        if rows["patient"].nunique() >= N_FOLDS:
            folds[rows.index] = assign_folds(rows["patient"])
    return folds
