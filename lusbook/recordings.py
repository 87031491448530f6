"""The table in which every public source lists its recordings, checked as it is read; frames that may be shown."""

import warnings

import numpy as np
import pandas as pd
import pandera.pandas as pa

from lusbook import video
from lusbook.errors import LusbookError

CONDITIONS = ("covid19", "bacterial_pneumonia", "viral_pneumonia", "other_lung_disease", "healthy_lung")
FILLED = pa.Column(str, pa.Check(lambda cells: cells != "", name="filled"))
RECORDINGS = pa.DataFrameSchema(
    {
        "source": FILLED,
        "clip": FILLED,
        "patient": FILLED,
        "path": pa.Column(str),  # empty where the clip is not here
        "condition": pa.Column(str, pa.Check.isin([*CONDITIONS, ""])),
        "pcr": pa.Column(str, pa.Check.isin(["positive", "negative", ""])),
        "zone": pa.Column(str),
        "b_lines": pa.Column("boolean", nullable=True),
        "severity": pa.Column("Int64", pa.Check.in_range(0, 3), nullable=True),
        "licence": FILLED,
        "attribution": FILLED,
    },
    unique=["clip"],
)


def list_recordings(columns, **common):
    """Bring recordings into the common form.

    Parameters
    ----------
    columns : dict of pandas.Series, or pandas.DataFrame
        One entry a recording; ``clip`` and ``patient`` at least. Columns that are not in ``RECORDINGS`` are kept.
    **common : str
        Cells that all recordings share; ``source`` at least.

    Returns
    -------
    recordings : pandas.DataFrame
        As ``RECORDINGS`` describes it; text that is not given is empty, flags and scores are <NA>.

    Raises
    ------
    LusbookError
        Naming the first cell that is not so.
    """
    empty = dict.fromkeys(RECORDINGS.columns, "") | {"b_lines": pd.NA, "severity": pd.NA}
    table = pd.DataFrame(empty | common | dict(columns), index=columns["clip"].index)
    kinds = dict.fromkeys(RECORDINGS.columns, "str") | {"b_lines": "boolean", "severity": "Int64"}
    return check_table(table.astype(kinds), RECORDINGS, common["source"])


def check_table(table, schema, where, first_line=None):
    """Check a table.

    Parameters
    ----------
    table : pandas.DataFrame
    schema : pandera.DataFrameSchema
    where : path or str
        Names the table in errors.
    first_line : int, optional
        Line of the file that row 0 is on, if errors are to name lines.

    Returns
    -------
    table : pandas.DataFrame
        With types as the schema says.

    Raises
    ------
    LusbookError
        Naming the first line and column that is not so, and what was expected.
    """
    try:
        return schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        line = "" if first_line is None or pd.isna(first["index"]) else f", line {int(first['index']) + first_line}"
        column = first["column"] if first["schema_context"] == "Column" else "columns"
        cell = first["failure_case"]
        cell = cell.item() if hasattr(cell, "item") else cell  # a number without the name of its type
        raise LusbookError(f"{where}{line}, {column}: received {cell!r}, expected {first['check']}") from error


def read_csv(path, schema, **options):
    """Read and check a CSV.

    Parameters
    ----------
    path : path
    schema : pandera.DataFrameSchema
    **options
        Of ``pandas.read_csv``.

    Returns
    -------
    table : pandas.DataFrame
        Without spaces about text.

    Raises
    ------
    LusbookError
        If it cannot be read, or as :func:`check_table`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
            table = pd.read_csv(path, index_col=False, **options)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise LusbookError(f"{path}: not a readable CSV: {str(error).strip()}") from error
    if "dask" in table:  # pandera takes it for a table of Dask
        raise LusbookError(f"{path}: expected columns of other names, received 'dask'")
    table = table.apply(lambda cells: cells.str.strip() if cells.dtype == "str" else cells)
    return check_table(table, schema, path, first_line=2)


def gallery(table, size=256):
    """Real frames that may be shown: of CC BY clips only.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`lusbook.sources.read_pocus` returns it.
    size : int

    Returns
    -------
    frames : ndarray, shape (n, size, size), uint8
        The middle frame of the first clip (by name) of each patient.
    credits : pandas.DataFrame
        Clip, patient, licence and attribution of each.
    """
    table = table[table["licence"].str.match(r"CC BY \d")].groupby("patient", sort=True).head(1)
    frames = []
    for path in table["path"]:
        clip = video.read_clip(path)
        middle = clip[len(clip) // 2 :][:1]
        frames.append(video.crop_fan(middle, video.fan_mask(clip), size)[0][0])
    return np.stack(frames), table[["clip", "patient", "licence", "attribution"]].reset_index(drop=True)
