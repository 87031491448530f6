"""Public lung-ultrasound recordings: one small reader for each source, and one form of result.

COVID-BLUES (Wiedemann et al.): clips of six zones of the chest with the flags of experts per clip: B-lines yes or no,
A-lines yes or no, severity 0 to 3. There are no masks. Its licence, CC BY-NC-ND 4.0, allows to compute on the clips and
to publish numbers, not to share changed clips or frames: nothing here writes one of its frames to disk. POCUS (Born et
al.): clips of many devices, each file with a licence of its own. CIT: polygons that outline B-lines in clips of linear
probes. LUS-BALD (Okila et al.): stills with boxes of four corners about B-lines.

PULSE Lab (gitlab.com/pulselab/covid19) publishes pixel masks of 21 files of POCUS, 14 of them with B-lines. There is no
reader: the repository could not be had, and nothing public was found that says how a mask belongs to a frame of its
clip (names are known to begin ``Cov_030`` and the like), which size and values it has, which value is a B-line, and
which licence it has. One folder of it, or its own description, would be enough.

References
----------
- Wiedemann N et al. COVID-BLUeS - a prospective study on the value of AI in lung ultrasound analysis.
  IEEE J Biomed Health Inform 2025;29(9):6301-6310. doi:10.1109/JBHI.2025.3543686
- Born J et al. Accelerating detection of lung pathologies with explainable ultrasound image analysis.
  Appl Sci 2021;11(2):672. doi:10.3390/app11020672; github.com/jannisborn/covid19_ultrasound
- CIT: github.com/cit-research/Lung-Ultrasound-A-B-lines-classification at ef9994c, MIT licence.
- Okila N et al. Lung ultrasound imaging dataset for accurate detection and localization of LUS vertical artifact.
  Sci Data 2025. doi:10.1038/s41597-025-05854-4; data: doi:10.17632/h923m366sf.2
"""

import os
import re
from pathlib import Path

import imageio.v3 as iio
import pandas as pd
import pandera.pandas as pa

from lusbook import annotations, downloads
from lusbook.errors import LusbookError, MissingData
from lusbook.recordings import CONDITIONS, FILLED, list_recordings, read_csv

#: Environment variables that name folders of existing copies, by source.
VARIABLES = {"covid-blues": "LUSBOOK_COVID_BLUES", "pocus": "LUSBOOK_POCUS", "cit": "LUSBOOK_CIT"}
COVID_BLUES, POCUS, CIT = VARIABLES.values()
PATIENTS = downloads.REGISTRIES / "covid-blues-patients.csv"  # condition and PCR of those whose clips a download has
NAME = r"patient_\d+_[LR][1-3](_\d+)?"  # of a clip of COVID-BLUES
TASKS = "Dataset/USG-B-lines/task_*/annotations.json"
CLIPS, IMAGES = (".mp4", ".avi"), (".png", ".jpg", ".jpeg")


def _is_inside(paths):
    """Whether paths stay in the folder that they are taken from."""
    return ~paths.str.contains(r"^/|^\.\.|/\.\.(?:/|$)|\\")


_YES_NO = pa.Column(str, pa.Check.isin(["yes", "no"]))
_FILES = pa.DataFrameSchema(
    {
        "file": pa.Column(str, pa.Check(_is_inside, name="a path in the folder"), unique=True),
        "media": pa.Column(str, pa.Check.isin(["video", "image"])),
        "geometry": pa.Column(str, pa.Check.isin(["convex", "linear"])),
        "group_id": FILLED,
        "condition": pa.Column(str, pa.Check.isin([*CONDITIONS, "unknown", ""])),
        "b_lines": pa.Column(str, pa.Check.isin(["yes", "no", ""])),
        "licence": FILLED,
        "attribution": FILLED,
    }
)
_SEVERITY = pa.DataFrameSchema(
    {
        "video_file": pa.Column(str, pa.Check.str_matches(f"^{NAME}$"), unique=True),
        "Severity Score": pa.Column(int, pa.Check.isin([0, 1, 2, 3]), coerce=True),
        "A-lines": _YES_NO,
        "B-lines": _YES_NO,
    }
)
_DIAGNOSES = {
    "clin_diagn#COVID19_pneumonia": "covid19",
    "clin_diagn#bacterial_pneumonia": "bacterial_pneumonia",
    "clin_diagn#other_viral_pneumonia": "viral_pneumonia",
    "clin_diagn#other_lung_disease": "other_lung_disease",
    "clin_diagn#healthy_lung": "healthy_lung",
}
_ZERO_ONE = pa.Column(int, pa.Check.isin([0, 1]), coerce=True)
_CLINICAL = pa.DataFrameSchema(
    {"patient_id": pa.Column(int, unique=True, coerce=True), "cov_test": _ZERO_ONE}
    | dict.fromkeys(_DIAGNOSES, _ZERO_ONE)
)
_PATIENTS = pa.DataFrameSchema({name: pa.Column(str) for name in ("patient", "condition", "pcr")})


def _find(name, folder, *holds):
    """Folder of a source: the one given, or that its environment variable names, or a finished download."""
    named = folder or os.environ.get(VARIABLES[name])
    if not named:
        cached = downloads.cache_folder(name)
        if (cached / downloads.SOURCES[name].last).is_file():
            return cached
        raise MissingData(
            f"{name} is not here: set the environment variable {VARIABLES[name]} to the folder of a copy (that holds "
            f"{' and '.join(holds)}), or get it with `lusbook download {name}`"
        )
    for candidate in (Path(named).expanduser(), Path(named).expanduser() / name):
        if all(any(candidate.glob(pattern)) for pattern in holds):
            return candidate
    origin = "folder" if folder else f"environment variable {VARIABLES[name]}"
    raise LusbookError(f"{origin} {str(named)!r}: expected {' and '.join(holds)} in it or in its {name}")


# ---------------------------------------------------------------------------------------------
# COVID-BLUES


def find_covid_blues(folder=None):
    """Find a copy of COVID-BLUES.

    Parameters
    ----------
    folder : path, optional
        Holds ``severity.csv`` and ``lus_videos``, or a folder ``covid-blues`` that does. Without it, the environment
        variable LUSBOOK_COVID_BLUES names the folder; without that, a finished download is looked for.

    Returns
    -------
    folder : Path
        The folder that holds ``severity.csv`` and ``lus_videos``.

    Raises
    ------
    LusbookError
        If there is no copy: says how to get one.
    """
    return _find("covid-blues", folder, "severity.csv", "lus_videos")


def read_covid_blues(folder=None):
    """List the clips of COVID-BLUES that are here, with the experts' flags.

    The published ``severity.csv`` writes scores as 0.0 to 3.0 and some flags with a trailing space; repeated recordings
    of a zone end in ``_2``.

    Parameters
    ----------
    folder : path, optional
        As :func:`find_covid_blues` takes it: a download of the 255 clips, or a clone of the source with all 362.

    Returns
    -------
    table : pandas.DataFrame
        One row a clip in order of clip names, see :mod:`lusbook.recordings`; condition and pcr are of the patient,
        from the source's ``clinical_variables.csv`` where that is here. Besides, ``a_lines`` (bool) and ``known``
        (bool): the patient is one of the 43 whose clips a download has; the other 20 are kept for a final check. Its
        ``attrs`` list ``unlabelled``, clips here without flags (they are left out), and ``absent``, clips with flags
        that are not here.

    Raises
    ------
    LusbookError
        If a table is not as published, naming the row, or if no clip is here.
    """
    folder = find_covid_blues(folder)
    flags = read_severity(folder / "severity.csv")
    paths = {path.stem: str(path) for path in sorted((folder / "lus_videos").glob("*.mp4"))}
    table = flags[flags["clip"].isin(paths)].sort_values("clip", ignore_index=True)
    if table.empty:
        raise LusbookError(
            f"{folder / 'lus_videos'}: no clip of severity.csv is here; expected files patient_1_L1.mp4, ..."
        )
    known = read_csv(PATIENTS, _PATIENTS).set_index("patient")
    published = folder / "clinical_variables.csv"
    facts = read_clinical(published) if published.is_file() else known
    facts = facts.reindex(table["patient"], fill_value="").reset_index(drop=True)
    columns = {"path": table["clip"].map(paths), "condition": facts["condition"], "pcr": facts["pcr"]}
    table = list_recordings(
        {**table, **columns, "known": table["patient"].isin(known.index)},
        source="covid-blues",
        licence="CC BY-NC-ND 4.0",
        attribution="Wiedemann et al. 2025, IEEE J Biomed Health Inform 29(9):6301-6310, "
        "doi:10.1109/JBHI.2025.3543686; Maastricht UMC+",
    )
    table.attrs["unlabelled"] = sorted(set(paths) - set(flags["clip"]))
    table.attrs["absent"] = sorted(set(flags["clip"]) - set(paths))
    return table


def read_severity(path):
    """Read and check the experts' flags: clip, patient, zone, b_lines, a_lines, severity; one row a clip."""
    published = read_csv(path, _SEVERITY)
    parts = published["video_file"].str.split("_")
    return pd.DataFrame(
        {
            "clip": published["video_file"],
            "patient": ("blues-" + parts.str[1]).astype("str"),
            "zone": parts.str[2].astype("str"),
            "b_lines": published["B-lines"] == "yes",
            "a_lines": published["A-lines"] == "yes",
            "severity": published["Severity Score"],
        }
    )


def read_clinical(path):
    """Read and check ``clinical_variables.csv``: condition and pcr by patient.

    A patient with none or several of the five diagnoses has an empty condition.
    """
    published = read_csv(path, _CLINICAL)
    flags = published[list(_DIAGNOSES)].rename(columns=_DIAGNOSES)
    return pd.DataFrame(
        {
            "condition": flags.idxmax(axis=1).where(flags.sum(axis=1) == 1, "").to_numpy(),
            "pcr": published["cov_test"].map({1: "positive", 0: "negative"}).to_numpy(),
        },
        index="blues-" + published["patient_id"].astype(str),
    )


# ---------------------------------------------------------------------------------------------
# POCUS, CIT, LUS-BALD


def read_pocus(folder=None):
    """List the convex-probe clips of a selection of the POCUS collection, those under Creative Commons only.

    Parameters
    ----------
    folder : path, optional
        Holds the clips and ``metadata.csv``, one row a file, with at least the columns file (path in the folder),
        media, geometry, group_id (patients as far as can be told), condition, b_lines, licence and attribution; the
        environment variable LUSBOOK_POCUS by default, else a finished download. Rows of files outside ``pocus/`` are
        passed over.

    Returns
    -------
    table : pandas.DataFrame
        One row a clip in order of files, see :mod:`lusbook.recordings`. Flags of B-lines come from physicians'
        comments, where "no" means that nobody mentioned them: only "yes" is a flag, "no" becomes <NA>.

    Raises
    ------
    MissingData
        If there is no copy.
    LusbookError
        If ``metadata.csv`` is not so, naming the line.
    """
    folder = _find("pocus", folder, "metadata.csv")
    files = read_csv(folder / "metadata.csv", _FILES, dtype=str, keep_default_na=False)
    chosen = files["file"].str.startswith("pocus/") & (files["media"] == "video") & (files["geometry"] == "convex")
    chosen &= files["licence"].str.startswith("CC BY")
    table = files[chosen].sort_values("file", ignore_index=True)
    columns = {
        "clip": table["file"].map(lambda name: Path(name).stem),
        "patient": table["group_id"],
        "path": table["file"].map(lambda name: str(folder / name)),
        "condition": table["condition"].replace("unknown", ""),
        "b_lines": table["b_lines"].map({"yes": True}),
        "licence": table["licence"],
        "attribution": table["attribution"],
    }
    return list_recordings(columns, source="pocus")


def read_cit(folder=None):
    """Read the B-line polygons of CIT.

    Parameters
    ----------
    folder : path, optional
        Holds ``Dataset/USG-B-lines/task_*``, as the source's repository does: each with ``annotations.json``,
        ``task.json`` and, where it is here, the clip below ``data``; the environment variable LUSBOOK_CIT by default,
        else a finished download.

    Returns
    -------
    recordings : pandas.DataFrame
        One row a task, see :mod:`lusbook.recordings`; ``clip`` is the task's folder, ``path`` is empty where the clip
        is not here. The patient is the prefix of the clip's name: three digits (``019_image...``), the number before a
        letter (``8c x...``, ``pacient 8c x...``), or the stamp of a session (``x220721--094147_...``); one without any
        of these is its own patient. Numbers of different forms are taken for different patients. Besides, ``device``:
        MP4 clips are of a Philips Lumify, AVI clips of another scanner.
    polygons : pandas.DataFrame
        One row a B-line: clip, frame (int, of the clip from 0), points (ndarray, shape (n, 2), px, x before y), height
        and width (Int64, px, <NA> where the source does not say).
    frames : pandas.DataFrame
        One row a frame with an outline of anything: clip, frame, ``n_b_lines`` (int).

    Raises
    ------
    MissingData
        If there is no copy.
    LusbookError
        If a file is not as described.
    """
    paths = sorted(_find("cit", folder, TASKS).glob(TASKS))
    tables = [annotations.read_cvat_json(path).assign(clip=path.parent.name) for path in paths]
    shapes = pd.concat(tables, ignore_index=True)
    shapes["b_line"] = shapes["label"].map(annotations.is_b_line).astype(bool)
    names = [table["file"].iloc[0] if len(table) else "" for table in tables]
    columns = {
        "clip": [path.parent.name for path in paths],
        "patient": [f"cit-{_cit_patient(name) or path.parent.name}" for name, path in zip(names, paths, strict=True)],
        "path": [_cit_clip(path.parent / "data") for path in paths],
        "b_lines": [path.parent.name in set(shapes.loc[shapes["b_line"], "clip"]) for path in paths],
        "device": ["another scanner" if name.lower().endswith(".avi") else "Philips Lumify" for name in names],
    }
    recordings = list_recordings(
        pd.DataFrame(columns),
        source="cit",
        licence="MIT",
        attribution="Copyright (c) 2024 Maroš Hliboký; Benchmarking augmentation to enhance A-line and B-line "
        "classification with sparse data, PeerJ Computer Science cs-3436",
    )
    polygons = shapes.loc[shapes["b_line"], ["clip", "frame", "points", "height", "width"]].reset_index(drop=True)
    frames = shapes.groupby(["clip", "frame"], sort=False)["b_line"].sum().astype(int).rename("n_b_lines").reset_index()
    return recordings, polygons, frames


def _cit_clip(folder):
    """Path of the clip below a task's folder ``data``, empty where it is not here."""
    clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in CLIPS)
    if len(clips) > 1:
        raise LusbookError(f"{folder}: expected one clip, received {', '.join(path.name for path in clips)}")
    return str(clips[0]) if clips else ""


def _cit_patient(name):
    """What a clip's name tells of its patient, or nothing."""
    found = re.match(r"(\d{3})_|(?:pacient )?(\d+)[a-z] x\d{6}--|x(\d{6}--\d{6})_", name)
    return next(filter(None, found.groups())) if found else ""


def read_bald(folder):
    """Read images and boxes of LUS-BALD.

    The set was not at hand when this was written. What is assumed of it: PNG and JPEG images in any folders; for each a
    text of the same stem, beside it or in the folder ``labels`` beside its own, with a row a B-line, ``0 x1 y1 ... x4
    y4``, of corners as shares of width and height, empty where there is none. A patient is told by the file name where
    that begins ``patient``, ``pat`` or ``p`` and a number, else every image is its own patient, although the set has
    401 images of 152 patients. Its licence is CC BY 4.0.

    Parameters
    ----------
    folder : path
        The unpacked set.

    Returns
    -------
    recordings : pandas.DataFrame
        One row an image, see :mod:`lusbook.recordings`; ``clip`` is its path in the folder without the suffix,
        ``b_lines`` is <NA> for an image without text.
    polygons : pandas.DataFrame
        One row a box: clip, frame (0), points (ndarray, shape (4, 2), px, x before y), height, width (Int64, px).

    Raises
    ------
    LusbookError
        If there are no images, or something does not fit the above, naming the file.
    """
    folder, rows, tables, used = Path(folder).expanduser(), [], [], set()
    for image in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES):
        clip = image.relative_to(folder).with_suffix("").as_posix()
        number = re.match(r"p(?:at(?:ient)?)?[-_ ]?(\d+)", image.stem, re.IGNORECASE)
        places = image.with_suffix(".txt"), image.parent.with_name("labels") / f"{image.stem}.txt"
        text = next((place for place in places if place.is_file()), None)
        boxes = _bald_boxes(image, text).assign(clip=clip) if text else None
        flag = pd.NA if boxes is None else bool(len(boxes))
        rows.append((clip, f"bald-{number[1] if number else clip}", str(image), flag))
        tables.append(boxes)
        used.add(text)
    if not rows:
        raise LusbookError(f"folder {str(folder)!r}: expected PNG or JPEG images of LUS-BALD in it")
    if alone := sorted(set(folder.rglob("labels/*.txt")) - used):
        raise LusbookError(f"{alone[0]}: no image has this stem; expected one beside it or in the folder images")
    columns = pd.DataFrame(rows, columns=["clip", "patient", "path", "b_lines"])
    attribution = "Okila et al. 2025, Sci Data, doi:10.1038/s41597-025-05854-4; doi:10.17632/h923m366sf.2"
    recordings = list_recordings(columns, source="lus-bald", licence="CC BY 4.0", attribution=attribution)
    empty = pd.DataFrame(columns=["clip", *annotations.COLUMNS])
    polygons = pd.concat([empty, *(table for table in tables if table is not None)], ignore_index=True)
    return recordings, polygons[["clip", "frame", "points", "height", "width"]]


def _bald_boxes(image, text):
    """Boxes of an image, one row a B-line."""
    try:
        height, width = iio.improps(image, plugin="pillow").shape[:2]
    except Exception as error:  # a broken file can raise almost anything
        raise LusbookError(f"{image}: not readable as an image: {error}") from error
    boxes = annotations.read_boxes(text, height, width)
    boxes = boxes[boxes["label"] != ""]
    if (other := boxes.loc[boxes["label"] != "b_line", "label"]).any():
        raise LusbookError(f"{text}: expected class 0 only, received {other.iloc[0][:20]!r}")
    return boxes
