"""Manifests: a CSV that names the PNG files of a user's own images and masks."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pandera.pandas as pa
from skimage.color import rgb2gray
from skimage.transform import resize_local_mean

from lusbook.cohort import Cohort, assign_folds
from lusbook.errors import LusbookError

_FILLED = pa.Check(lambda cells: cells != "", name="filled")
_MANIFEST = pa.DataFrameSchema(
    {
        "image": pa.Column(str, _FILLED, unique=True, report_duplicates="exclude_first"),
        "mask": pa.Column(str),
        "patient": pa.Column(str, _FILLED),
        "cohort": pa.Column(str, _FILLED),
    }
)


def read_manifest(path, image_size):
    """Read the cohorts of a manifest.

    Images are made grey (luminance), padded with black to a square about their centre, and resized by averaging
    over areas; masks likewise, then cut at one half. A mask whose B-lines would all vanish in that keeps its
    strongest pixels.

    Parameters
    ----------
    path : str or Path
        CSV, UTF-8, with a header and the columns ``image``, ``mask``, ``patient`` and ``cohort``: 8-bit PNG files
        by their paths relative to the CSV's folder (and inside it), and names. A mask has its image's size and the
        values 0 and 255 (or 0 and 1). A cohort without masks has an empty ``mask`` in all its rows.
    image_size : int
        Side of the square images, px.

    Returns
    -------
    cohorts : dict of str to Cohort
        By name, images in the order of the rows, folds from :func:`lusbook.cohort.assign_folds`.

    Raises
    ------
    LusbookError
        On anything that cannot be used: names the file, the row (from 1, after the header) and the value.
    """
    path, table = read_table(path)
    cohorts = {}
    for name, rows in table.groupby("cohort", sort=False):
        files = [_read_pair(path, row, image_size) for row in rows.itertuples()]
        images, masks = zip(*files, strict=True)
        cohorts[name] = Cohort(
            name=name,
            images=np.stack(images),
            masks=np.stack(masks) if rows["mask"].all() else None,
            patients=rows["patient"].to_numpy(str),
            folds=assign_folds(rows["patient"]),
            digest=digest(path, rows),
        )
    return cohorts


def read_table(path):
    """Read the rows of a manifest and check them as far as that goes without opening an image.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    path : Path
        Absolute.
    table : pandas.DataFrame
        Columns image, mask, patient, cohort (str); rows count from 1.

    Raises
    ------
    LusbookError
        As :func:`read_manifest`.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_file():
        raise LusbookError(f"{path}: no such file; expected a manifest CSV")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LusbookError(
            f"{path}: expected UTF-8, received {error.object[error.start]:#04x} at {error.start}"
        ) from error
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise LusbookError(f"{path}: not readable as CSV: {str(error).strip()}") from error
    if table.empty:
        raise LusbookError(f"{path}: no rows; expected one for each image")
    # Spaces about a name would make another patient of it, and "./a.png" another image of "a.png".
    table = table.fillna("").rename(columns=str.strip).apply(lambda column: column.str.strip())
    table.index += 1
    for column in {"image", "mask"} & set(table):
        table[column] = [os.path.normpath(cell) if cell else "" for cell in table[column]]
    try:
        _MANIFEST.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise LusbookError(f"{path}: {_explain(error.failure_cases, table)}") from error
    _check_rows(path, table)
    return path, table


def _explain(failures, table):
    """The first thing that is wrong with a manifest, in words."""
    missing = failures.loc[failures["check"] == "column_in_dataframe", "failure_case"]
    if len(missing):
        expected, received = ", ".join(_MANIFEST.columns), ", ".join(table)
        return f"column {missing.iloc[0]!r} is missing; expected {expected}; received {received}"
    first = failures.sort_values("index", kind="stable").iloc[0]
    if first["check"] == "field_uniqueness":
        return f"row {first['index']}: image {first['failure_case']!r} is there twice; expected one row for each image"
    return f"row {first['index']}: {first['column']} is empty"


def _check_rows(path, table):
    """Check what concerns several columns or rows: paths, masks for all or none, enough patients."""
    for row in table.itertuples():
        for cell in (row.image, row.mask):
            if os.path.isabs(cell) or cell.split(os.sep)[0] == os.pardir:
                raise LusbookError(f"{path}, row {row.Index}: {cell}: expected a path inside {path.parent}")
    for name, rows in table.groupby("cohort", sort=False):
        bare = rows.index[rows["mask"] == ""]
        if 0 < len(bare) < len(rows):
            raise LusbookError(
                f"{path}, row {bare[0]}: mask is empty; expected masks for all images of cohort {name!r}, or for none"
            )
        try:
            assign_folds(rows["patient"])
        except LusbookError as error:
            raise LusbookError(f"{path}: cohort {name!r}: {error}") from None


def digest(path, rows):
    """Digest of rows of a manifest and of the files that they name."""
    content = [
        [*cells, *(hashlib.sha256(_read_bytes(path, row, cell)).hexdigest() for cell in cells[:2] if cell)]
        for row, *cells in rows[list(_MANIFEST.columns)].itertuples()
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _read_bytes(path, row, cell):
    try:
        return (path.parent / cell).read_bytes()
    except OSError as error:
        raise LusbookError(f"{path}, row {row}: {path.parent / cell}: cannot be read ({error.strerror})") from error


def _read_pair(path, row, size):
    """Image and mask of a row, square and resized; no mask where the row has none."""
    image = _read_png(path, row.Index, row.image)
    small = np.rint(_fit(image, size)).astype(np.uint8)
    if not row.mask:
        return small, None
    mask = _read_png(path, row.Index, row.mask)
    where = f"{path}, row {row.Index}: {path.parent / row.mask}"
    if mask.shape != image.shape:
        raise LusbookError(f"{where}: expected its image's size {image.shape}, received {mask.shape} (rows, columns)")
    values = np.unique(mask).tolist()
    if not (set(values) <= {0, 1} or set(values) <= {0, 255}):
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise LusbookError(f"{where}: expected a mask of 0 and 255 (or 0 and 1), received the values {shown}")
    share = _fit(mask > 0, size)  # of a pixel's area that is B-line
    return small, (share > 0) & (share >= min(0.5, share.max()))


def _read_png(path, row, cell):
    """Pixels of an 8-bit PNG as grey values, uint8."""
    where, data = f"{path}, row {row}: {path.parent / cell}", _read_bytes(path, row, cell)
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise LusbookError(f"{where}: expected a PNG file, received {data[:8]!r} at its start")
    if data[24:25] == b"\x10":  # of the header; Pillow would cut 16-bit colours to 8 bits without a word
        raise LusbookError(f"{where}: expected an 8-bit PNG, received 16 bits a channel")
    try:
        pixels = iio.imread(data, extension=".png", plugin="pillow", index=0)
    except Exception as error:  # a broken file can raise almost anything
        raise LusbookError(f"{where}: corrupt PNG ({error})") from error
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise LusbookError(f"{where}: expected an opaque PNG, received transparent pixels")
        pixels = pixels[..., :-1]
    if pixels.ndim == 3:
        return np.rint(rgb2gray(pixels) * 255).astype(np.uint8) if pixels.shape[2] == 3 else pixels[..., 0]
    return pixels


def _fit(pixels, size):
    """Pad to a square with zeros about the centre and average to ``size``; float."""
    missing = [max(pixels.shape) - side for side in pixels.shape]
    square = np.pad(pixels, [(m // 2, m - m // 2) for m in missing]).astype(float)
    return resize_local_mean(square, (size, size), preserve_range=True)
