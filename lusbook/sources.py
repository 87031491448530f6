"""Public lung-ultrasound clips: find or download them, decode them, cut the ultrasound fan out.

COVID-BLUES [1]_: clips of six zones of the chest with the flags of experts per clip: B-lines yes or no, A-lines yes or
no, severity 0 to 3. There are no masks. Its licence, CC BY-NC-ND 4.0, allows to compute on the clips and to publish
numbers, not to share changed clips or frames: nothing here writes a frame to disk. POCUS [2]_: clips of many devices,
each file with a licence of its own. CIT [3]_: polygons that outline B-lines in clips of a linear probe.

References
----------
.. [1] Wiedemann N et al. COVID-BLUeS - a prospective study on the value of AI in lung ultrasound analysis.
   IEEE J Biomed Health Inform 2025;29(9):6301-6310. doi:10.1109/JBHI.2025.3543686
.. [2] Born J et al. Accelerating detection of lung pathologies with explainable ultrasound image analysis.
   Appl Sci 2021;11(2):672. doi:10.3390/app11020672; github.com/jannisborn/covid19_ultrasound
.. [3] github.com/cit-research/Lung-Ultrasound-A-B-lines-classification at ef9994c, MIT licence.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pooch
from tqdm.auto import tqdm

from lusbook.errors import LusbookError, MissingData
from lusbook.settings import PROJECT

COVID_BLUES = "LUSBOOK_COVID_BLUES"  # environment variable: folder of an existing copy
POCUS, CIT = "LUSBOOK_POCUS", "LUSBOOK_CIT"  # likewise
COVID_BLUES_URL = (
    "https://raw.githubusercontent.com/NinaWie/COVID-BLUES/1857a6fba9b8d00614f133fe8ffb7bc1f1a14f78/"  # pinned commit
)
COVID_BLUES_REGISTRY = PROJECT / "data" / "sources" / "covid-blues.csv"
COVID_BLUES_LICENCE = """\
COVID-BLUES, https://github.com/NinaWie/COVID-BLUES, is licensed CC BY-NC-ND 4.0
(https://creativecommons.org/licenses/by-nc-nd/4.0/): share whole, unmodified clips with credit, for non-commercial
purposes only; compute on them and publish numbers; do not share extracted, cropped or annotated frames. Cite:
Wiedemann N et al. COVID-BLUeS - a prospective study on the value of AI in lung ultrasound analysis.
IEEE J Biomed Health Inform 2025;29(9):6301-6310. doi:10.1109/JBHI.2025.3543686"""

_NAME = r"patient_\d+_[LR][1-3](_\d+)?"
_YES_NO = pa.Column(str, pa.Check.isin(["yes", "no"]))
_FILES = pa.DataFrameSchema(
    {
        "file": pa.Column(str, unique=True),
        "media": pa.Column(str, pa.Check.isin(["video", "image"])),
        "geometry": pa.Column(str, pa.Check.isin(["convex", "linear"])),
        "group_id": pa.Column(str),
        "licence": pa.Column(str),
        "attribution": pa.Column(str),
    }
)
_SEVERITY = pa.DataFrameSchema(
    {
        "video_file": pa.Column(str, pa.Check.str_matches(f"^{_NAME}$"), unique=True),
        "Severity Score": pa.Column(int, pa.Check.isin([0, 1, 2, 3]), coerce=True),
        "A-lines": _YES_NO,
        "B-lines": _YES_NO,
    }
)


def cache_folder():
    """Folder that downloads go to unless another is named."""
    return Path(pooch.os_cache("lusbook")) / "covid-blues"


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
    named = folder or os.environ.get(COVID_BLUES)
    for candidate in (Path(named), Path(named) / "covid-blues") if named else (cache_folder(),):
        if (candidate / "severity.csv").is_file() and (candidate / "lus_videos").is_dir():
            return candidate
    if named:
        origin = "folder" if folder else f"environment variable {COVID_BLUES}"
        raise LusbookError(f"{origin} {str(named)!r}: expected severity.csv and lus_videos in it or in its covid-blues")
    raise MissingData(
        f"COVID-BLUES is not here: set the environment variable {COVID_BLUES} to the folder of a copy (that holds "
        "severity.csv and lus_videos), or get it with `lusbook download covid-blues`"
    )


def download_covid_blues(accept_licence, folder=None, base_url=COVID_BLUES_URL):
    """Download COVID-BLUES at its pinned version; what is there already is kept, so a broken download goes on.

    The registry holds the hashes of the 255 clips of 43 of the 63 patients, of ``severity.csv`` and of the licence.
    The other 107 clips, whose hashes are not known, are not downloaded: they remain patients that nobody tuned on.

    Parameters
    ----------
    accept_licence : bool
        Nothing is downloaded before the licence is accepted.
    folder : path, optional
        Where to; :func:`cache_folder` by default.
    base_url : str
        Folder of the published files.

    Returns
    -------
    folder : Path

    Raises
    ------
    LusbookError
        With the licence if it is not accepted; naming the file that cannot be had or whose hash differs.
    """
    if not accept_licence:
        raise LusbookError(
            f"nothing downloaded: the licence must be accepted first (--accept-licence).\n\n{COVID_BLUES_LICENCE}"
        )
    registry = pd.read_csv(COVID_BLUES_REGISTRY).set_index("file")
    # severity.csv makes a folder count as a copy (find_covid_blues), so it comes last.
    files = sorted(registry.index, key=lambda name: (name == "severity.csv", name))
    folder = Path(folder or cache_folder())
    fetcher = pooch.create(path=folder, base_url=base_url, registry=registry["sha256"].to_dict(), retry_if_failed=2)
    pooch.get_logger().setLevel("WARNING")  # one progress bar in place of 257 lines
    with tqdm(total=int(registry["bytes"].sum()), unit="B", unit_scale=True, desc="COVID-BLUES") as progress:
        for name in files:
            try:
                fetcher.fetch(name)
            except (OSError, ValueError) as error:  # no connection, not found, disk full; another hash
                raise LusbookError(f"{base_url}{name}: not downloaded to {folder}: {error}") from error
            progress.update(int(registry.loc[name, "bytes"]))
    return folder


def read_covid_blues(folder=None):
    """List the clips of COVID-BLUES that are here, with the experts' flags.

    The published ``severity.csv`` writes scores as 0.0 to 3.0 and some flags with a trailing space; repeated recordings
    of a zone end in ``_2``.

    Parameters
    ----------
    folder : path, optional
        As :func:`find_covid_blues` takes it.

    Returns
    -------
    table : pandas.DataFrame
        One row per clip in order of clip names: clip, patient, zone (str), b_lines, a_lines (bool), severity (int),
        path (str). Its ``attrs`` list ``unlabelled``, clips here without flags (they are left out), and ``absent``,
        clips with flags that are not here.

    Raises
    ------
    LusbookError
        If ``severity.csv`` is not as published, naming the row, or if no clip is here.
    """
    folder = find_covid_blues(folder)
    flags = read_severity(folder / "severity.csv")
    paths = {path.stem: str(path) for path in sorted((folder / "lus_videos").glob("*.mp4"))}
    table = flags[flags["clip"].isin(paths)].sort_values("clip", ignore_index=True)
    if table.empty:
        raise LusbookError(
            f"{folder / 'lus_videos'}: no clip of severity.csv is here; expected files patient_1_L1.mp4, ..."
        )
    table["path"] = table["clip"].map(paths)
    table.attrs["unlabelled"] = sorted(set(paths) - set(flags["clip"]))
    table.attrs["absent"] = sorted(set(flags["clip"]) - set(paths))
    return table


def _validated(path, schema):
    """Read a CSV and check it; an error names the line, the column, and what was expected."""
    try:
        table = pd.read_csv(path).apply(lambda cells: cells.str.strip() if cells.dtype == "str" else cells)
        return schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        line = "" if pd.isna(first["index"]) else f", line {int(first['index']) + 2}"
        column = first["column"] if first["schema_context"] == "Column" else "columns"
        raise LusbookError(
            f"{path}{line}, {column}: received {first['failure_case']!r}, expected {first['check']}"
        ) from error
    except (OSError, ValueError) as error:
        raise LusbookError(f"{path}: not a readable CSV: {error}") from error


def read_severity(path):
    """Read and check the experts' flags; see :func:`read_covid_blues` for the columns."""
    published = _validated(path, _SEVERITY)
    clip = published["video_file"]
    parts = clip.str.split("_")
    return pd.DataFrame(
        {
            "clip": clip,
            "patient": ("blues-" + parts.str[1]).astype("str"),
            "zone": parts.str[2].astype("str"),
            "b_lines": published["B-lines"] == "yes",
            "a_lines": published["A-lines"] == "yes",
            "severity": published["Severity Score"],
        }
    )


def _named_folder(folder, variable, holds):
    """Folder of a source: the one given, else the one that an environment variable names."""
    named = folder or os.environ.get(variable)
    if not named:
        raise MissingData(f"set the environment variable {variable} to a folder that holds {holds}")
    if not list(Path(named).glob(holds)):
        raise LusbookError(f"folder {str(named)!r}: expected {holds} in it")
    return Path(named)


def read_pocus(folder=None):
    """List the convex-probe clips of a selection of the POCUS collection.

    Parameters
    ----------
    folder : path, optional
        Holds the clips and ``metadata.csv``, one row a file, with at least the columns file (path in the folder),
        media, geometry, group_id (patients as far as can be told), licence and attribution;
        the environment variable LUSBOOK_POCUS by default. Rows of files outside ``pocus/`` are passed over.

    Returns
    -------
    table : pandas.DataFrame
        One row per clip in order of files: clip, patient, licence, attribution, path (str).

    Raises
    ------
    MissingData
        If no folder is named.
    LusbookError
        If ``metadata.csv`` is not so, naming the line.
    """
    folder = _named_folder(folder, POCUS, "metadata.csv")
    files = _validated(folder / "metadata.csv", _FILES)
    chosen = files["file"].str.startswith("pocus/") & (files["media"] == "video") & (files["geometry"] == "convex")
    table = files[chosen].sort_values("file", ignore_index=True)
    return pd.DataFrame(
        {
            "clip": table["file"].map(lambda name: Path(name).stem),
            "patient": table["group_id"],
            "licence": table["licence"],
            "attribution": table["attribution"],
            "path": table["file"].map(lambda name: str(folder / name)),
        }
    )


def read_cit(folder=None):
    """Read the B-line polygons of CIT.

    Parameters
    ----------
    folder : path, optional
        Holds ``Dataset/USG-B-lines/task_*/annotations.json``, as the source's repository does; the environment
        variable LUSBOOK_CIT by default.

    Returns
    -------
    polygons : pandas.DataFrame
        One row per B-line: task, frame (int), points (ndarray, shape (n, 2), px, x before y).

    Raises
    ------
    MissingData
        If no folder is named.
    LusbookError
        If a file is not as described.
    """
    pattern = "Dataset/USG-B-lines/task_*/annotations.json"
    rows = []
    for path in sorted(_named_folder(folder, CIT, pattern).glob(pattern)):
        try:
            for job in json.loads(path.read_text("utf-8")):
                tracked = [shape | {"label": track["label"]} for track in job["tracks"] for shape in track["shapes"]]
                for shape in [*job["shapes"], *(shape for shape in tracked if not shape["outside"])]:
                    if shape["label"] == "bline":
                        points = np.asarray(shape["points"], float).reshape(-1, 2)
                        rows.append({"task": path.parent.name, "frame": int(shape["frame"]), "points": points})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LusbookError(f"{path}: not a list of jobs with shapes and tracks ({error!r})") from error
    return pd.DataFrame(rows, columns=["task", "frame", "points"])
