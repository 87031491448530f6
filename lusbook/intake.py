"""What is in a folder of somebody's recordings: which files, of whom, and which masks belong to which frames.

Errors and reasons name files by their paths in the folder.
"""

import os
import posixpath
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd
import pandera.pandas as pa

from lusbook.annotations import is_b_line, read_annotations
from lusbook.cohort import NAMES
from lusbook.dicom import patient_id
from lusbook.errors import LusbookError
from lusbook.media import kind_of
from lusbook.recordings import FILLED, read_csv

RECORDINGS = ("image", "clip", "dicom")  # kinds of file
LARGEST = 4 * 2**30  # bytes of a file
NO_PATIENTS = {"images", "frames", "clips", "videos", "dicom", "masks", "annotations", "labels"}  # folders by content
CVAT = ("task.json", "data/manifest.jsonl", "data/index.json")  # beside annotations.json, and no annotations
_LISTED = pa.DataFrameSchema(
    {
        "file": FILLED,
        "patient": FILLED,
        "cohort": pa.Column(str, pa.Check.isin([*NAMES, ""], error=" or ".join(NAMES)), required=False),
    }
)


class Mark(NamedTuple):
    """The mask of a frame: a file, or polygons for a frame of some size (rows, columns) that the file may not say."""

    source: str
    polygons: list | None = None
    size: tuple | None = None


def leave(left_out, file, reason):
    """Note that a file is left out, and why: text or an error."""
    left_out.append({"file": file, "reason": str(reason)})


def find_files(folder, left_out):
    """List the files of a folder that can be used.

    Parameters
    ----------
    folder : Path
        Resolved.
    left_out : list of dict
        Gets what is of no use.

    Returns
    -------
    files : dict of str
        Kind (image, clip, dicom, mask, annotation) by path in ``folder``, sorted by path.
    """
    files = {}

    def unreadable(error):
        leave(left_out, Path(error.filename).relative_to(folder).as_posix(), f"cannot be opened ({error.strerror})")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        for name in sorted([*folders, *names]):
            path = Path(place, name)
            file = path.relative_to(folder).as_posix()
            try:
                if kind := _kind(folder, path):
                    files[file] = kind
            except LusbookError as error:
                leave(left_out, file, error)
            except OSError as error:
                leave(left_out, file, f"cannot be opened ({error.strerror})")
        folders[:] = [name for name in folders if not name.startswith(".")]
    return dict(sorted(files.items()))


def _kind(folder, path):
    """Kind of a file; empty for a folder, which is searched, or an error that says why not."""
    if path.name.startswith("."):
        raise LusbookError("hidden")
    if path.is_symlink() and not _inside(folder, path):
        raise LusbookError("a link that leads outside the folder")
    if path.is_dir():
        if path.is_symlink():
            raise LusbookError("a link to a folder, whose files are taken where they are")
        return ""
    if not path.is_file():
        raise LusbookError("no regular file")
    if not (size := path.stat().st_size):
        raise LusbookError("empty file")
    if size > LARGEST:
        raise LusbookError(f"{size / 2**30:.1f} GiB; expected at most {LARGEST // 2**30}")
    kind = "annotation" if path.suffix.lower() in (".json", ".jsonl", ".xml") else kind_of(path)
    if not kind:
        raise LusbookError("no image, clip, DICOM file or annotation")
    named = re.search("[-_]mask$", path.stem, re.IGNORECASE)
    is_mask = named or _masks_at(path.relative_to(folder).parent.parts) is not None
    return "mask" if kind == "image" and is_mask else kind


def _inside(folder, path):
    return Path(os.path.realpath(path)).is_relative_to(folder)  # Path.resolve fails on a circle of links


def find_patients(folder, files, cohort, patients, left_out):
    """Cohort and patient of each recording.

    Parameters
    ----------
    folder, cohort, patients
        As :func:`lusbook.imports.import_folder`.
    files : dict of str
        As :func:`find_files` returns them; loses the CSV of patients if that is one of them.
    left_out : list of dict

    Returns
    -------
    recordings : pandas.DataFrame
        Columns file, cohort, patient (``patient-01``, in the order of files) and name (``patient-01-clip-01``).

    Raises
    ------
    LusbookError
        If the CSV cannot be used.
    """
    listed = None
    if str(patients) not in ("folder", "dicom"):
        listed = _read_listed(Path(patients).expanduser().resolve())
        left_out[:] = [row for row in left_out if folder / row["file"] != Path(patients).expanduser().resolve()]
    rows, known = [], {row["file"] for row in left_out}
    for file, kind in files.items():
        if kind in RECORDINGS:
            try:
                rows.append((file, *_owner(folder, file, kind, cohort, listed if listed is not None else patients)))
            except LusbookError as error:
                leave(left_out, file, error)
    for file in [] if listed is None else listed.index.difference([*files, *known], sort=False):
        leave(left_out, file, f"listed in {Path(patients).name}, but not there")
    table = pd.DataFrame(rows, columns=["file", "cohort", "key"], dtype=object)
    several = table.groupby("key")["cohort"].transform("nunique") > 1
    for file in table["file"][several]:
        leave(left_out, file, "the same patient is in both cohorts; expected one for each patient")
    table = table[~several].reset_index(drop=True)
    numbers = pd.factorize(table["key"])[0] + 1
    width = max(2, len(str(numbers.max(initial=0))))
    table["patient"] = [f"patient-{number:0{width}}" for number in numbers]
    clips = table.groupby("patient").cumcount() + 1
    table["name"] = [f"{patient}-clip-{clip:02}" for patient, clip in zip(table["patient"], clips, strict=True)]
    return table.drop(columns="key")


def _owner(folder, file, kind, cohort, patients):
    """Cohort of a recording, and what tells its patient from others, in memory only."""
    parts = file.split("/")
    top = parts[0].lower() if len(parts) > 1 and parts[0].lower() in NAMES else None
    own = None
    if isinstance(patients, pd.DataFrame):
        if file not in patients.index:
            raise LusbookError("no patient: not in the CSV")
        row = patients.loc[file]
        patient, own = row["patient"], row.get("cohort")
    elif patients == "dicom":
        if kind != "dicom":
            raise LusbookError("no patient: not a DICOM file")
        if not (patient := patient_id(folder / file)):
            raise LusbookError("no patient: DICOM without a Patient ID")
    else:
        below = parts[1:] if top else parts
        if len(below) < 2 or below[0].lower() in NO_PATIENTS:
            raise LusbookError("no patient: expected a folder for each patient, or a CSV (--patients)")
        patient = "/".join(parts[: len(parts) - len(below) + 1])
    cohorts = {name for name in (own, cohort, top) if name}
    if len(cohorts) != 1:
        received = " and ".join(sorted(cohorts)) or "none"
        raise LusbookError(f"no cohort: expected {' or '.join(NAMES)} of option, folder and CSV, received {received}")
    return cohorts.pop(), patient


def _read_listed(path):
    """Read the CSV of patients; indexed by file."""
    if not path.is_file():
        raise LusbookError(f"{path}: no such file; expected folder, dicom or a CSV of patients")
    table = read_csv(path, _LISTED, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table["file"] = [posixpath.normpath(cell.replace("\\", "/")) for cell in table["file"]]
    for row, file in table["file"].items():
        if posixpath.isabs(file) or file.split("/")[0] == ".." or re.match("[A-Za-z]:", file):
            raise LusbookError(f"{path}, line {row + 2}, file: received {file!r}, expected a path inside the folder")
    if (twice := table["file"].duplicated()).any():
        raise LusbookError(f"{path}, line {twice.idxmax() + 2}, file: {table['file'][twice.idxmax()]!r} is there twice")
    return table.set_index("file")


# ---------------------------------------------------------------------------------------------
# Masks


def find_marks(folder, files, left_out):
    """Find the masks of all recordings.

    Parameters
    ----------
    folder : Path
    files : dict of str
        As :func:`find_files` returns them.
    left_out : list of dict

    Returns
    -------
    marks : dict of dict of list of Mark
        By recording and frame; of every frame that somebody annotated, with B-lines or without.
    labels : Counter
        How often each label of an annotation file occurs.
    """
    marks, labels = defaultdict(lambda: defaultdict(list)), Counter()
    by_stem, by_name = defaultdict(list), defaultdict(list)
    for file, kind in files.items():
        if kind in RECORDINGS:
            by_stem[PurePosixPath(file).stem].append(file)
            by_name[PurePosixPath(file).name].append(file)
    for source, kind in files.items():
        try:
            if kind == "mask":
                marks[_marked_image(source, by_stem)][0].append(Mark(source))
            elif kind == "annotation" and not _of_task(source, files):
                table = _read_shapes(folder, source)
                labels.update(table["label"][table["label"] != ""])
                for name, shapes in table.groupby("file", sort=False):
                    _add_shapes(marks, source, name, shapes, by_name, left_out)
        except LusbookError as error:
            leave(left_out, source, error)
    return marks, labels


def _of_task(file, files):
    """Whether a file is one that CVAT puts beside its annotations."""
    return any(file.endswith(name) and f"{file.removesuffix(name)}annotations.json" in files for name in CVAT)


def _read_shapes(folder, source):
    for name in CVAT:  # read along with it
        if not _inside(folder, (folder / source).parent / name):
            raise LusbookError(f"{name} beside it is a link that leads outside the folder")
    return read_annotations(folder / source)


def _marked_image(mask, by_stem):
    """The image that a mask file belongs to: beside it, or where ``masks`` in its path is another folder or none."""
    path = PurePosixPath(mask)
    stem = re.sub("[-_]mask$", "", path.stem, flags=re.IGNORECASE)
    parts = path.parent.parts
    k = _masks_at(parts)
    if k is None:
        found = [file for file in by_stem[stem] if PurePosixPath(file).parent == path.parent]
    else:
        places = {file: PurePosixPath(file).parent.parts for file in by_stem[stem]}
        alike = [file for file, place in places.items() if place[:k] == parts[:k]]
        found = [file for file in alike if parts[k + 1 :] in (places[file][k:], places[file][k + 1 :])]
    if len(found) != 1:
        raise LusbookError(f"mask of {len(found)} images, expected one named {stem}{_listed(found)}")
    if path.suffix.lower() != ".png":
        raise LusbookError("expected a mask as PNG")
    return found[0]


def _masks_at(parts):
    """Position of the last folder ``masks`` in a path."""
    return max((k for k, part in enumerate(parts) if part.lower() == "masks"), default=None)


def _listed(found):
    return f": {', '.join(found)}" if found else ""


def _add_shapes(marks, source, name, shapes, by_name, left_out):
    """Add the shapes that an annotation file has for one recording."""
    try:
        file = _named(source, name, by_name)
    except LusbookError as error:
        leave(left_out, source, error)
        return
    for frame, drawn in shapes.groupby("frame"):
        polygons = [points for label, points in zip(drawn["label"], drawn["points"], strict=True) if is_b_line(label)]
        height, width = drawn["height"].iloc[0], drawn["width"].iloc[0]
        size = None if pd.isna(height) or pd.isna(width) else (int(height), int(width))
        marks[file][int(frame)].append(Mark(source, polygons, size))


def _named(source, name, by_name):
    """The recording that an annotation file names: a path from there or from the top, or a name that is there once."""
    path, here = name.replace("\\", "/"), posixpath.dirname(source)
    if not path:
        raise LusbookError("names no file")
    beside = posixpath.normpath(posixpath.join(here, path))
    if posixpath.isabs(path) or re.match("[A-Za-z]:", path) or beside.split("/")[0] == "..":
        raise LusbookError(f"names {name!r}, a path that leads outside the folder")
    found = by_name[posixpath.basename(beside)]
    for exact in (beside, posixpath.normpath(path)):
        if exact in found:
            return exact
    found = [file for file in found if file.startswith(f"{here}/")] or found  # a task's own before others'
    if len(found) != 1:
        there = f"of which there are {len(found)}{_listed(found)}" if found else "which is not there, or left out"
        raise LusbookError(f"names {name!r}, {there}")
    return found[0]
