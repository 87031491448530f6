"""Report of an import: one HTML page that needs nothing but itself."""

import base64
import html
import shlex

import imageio.v3 as iio
import numpy as np
import pandas as pd
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from lusbook.annotations import is_b_line
from lusbook.cohort import N_FOLDS, NAMES
from lusbook.tables import NO_VALUE, titles

SIDE = 240  # px, of a thumbnail's longer side
FAN_COLOUR, MASK_COLOUR = (100, 143, 255), (255, 176, 0)  # blue and amber, as in the book's figures
FOLDS = [f"fold_{fold}" for fold in range(N_FOLDS)]
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Import</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em }}
table {{ border-collapse: collapse }}
td, th {{ border-bottom: 1px solid #ccc; padding: .2em .8em; text-align: left; vertical-align: top }}
figure {{ display: inline-block; margin: .5em; font-size: .85em }}
</style>
<h1>Import</h1>
<p>This page, <code>left_out.csv</code> and the images stay on your machine. The list of what was left out names your
files by their paths, and these may hold names: look at it before you hand the folder on. Images, masks and
<code>manifest.csv</code> hold none.</p>
<h2>Cohorts</h2>
{cohorts}
<p>{folds}</p>
{labels}
<h2>Patients</h2>
{patients}
<p>One frame of each patient, as it was written. Blue: the fan that was found; all else is black. Amber: the mask.
Look whether the fan is whole and no text is left.</p>
{figures}
<h2>Left out</h2>
{left_out}
</html>
"""


def thumbnail(image, fan, mask=None):
    """Draw the outlines of fan and mask on a small copy of an image.

    Parameters
    ----------
    image : ndarray, shape (height, width), uint8
    fan : ndarray, shape (height, width), bool
    mask : ndarray, shape (height, width), bool, optional

    Returns
    -------
    picture : ndarray, shape (h, w, 3), uint8
        ``SIDE`` on its longer side at most.
    """
    scale = min(1, SIDE / max(image.shape))
    size = [max(1, round(side * scale)) for side in image.shape]
    small = resize(image, size, order=1, anti_aliasing=scale < 1, preserve_range=True)
    picture = np.rint(small).astype(np.uint8)[..., None].repeat(3, axis=2)  # (h, w, 3)
    for outlined, colour in ((fan, FAN_COLOUR), (mask, MASK_COLOUR)):
        if outlined is not None:
            area = np.pad(resize(outlined.astype(float), size, order=1) > 0.5, 1)  # an edge of the image counts too
            picture[find_boundaries(area, mode="inner")[1:-1, 1:-1]] = colour
    return picture


def count_cohorts(table):
    """What was imported, by cohort.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`lusbook.imports.import_folder` returns it.

    Returns
    -------
    counts : pandas.DataFrame
        Indexed by cohort; columns patients, recordings, frames, with_mask, with_b_lines, fold_0, ... (frames; 0 without
        folds).
    """
    return _count(table.groupby("cohort"), patients=("patient", "nunique"))


def count_patients(table):
    """What was imported, by patient.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`lusbook.imports.import_folder` returns it.

    Returns
    -------
    counts : pandas.DataFrame
        Indexed by patient; columns cohort, recordings, frames, with_mask, with_b_lines, fold, mm_per_pixel (str; of all
        recordings, empty where none says).
    """
    counts = _count(table.groupby("patient"), cohort=("cohort", "first")).drop(columns=FOLDS)
    groups = table.groupby("patient")
    sizes = groups["mm_per_pixel"].agg(lambda cells: ", ".join(f"{size:.3g}" for size in sorted(set(cells.dropna()))))
    return counts.assign(fold=groups["fold"].first(), mm_per_pixel=sizes)


def patients_table(table):
    """As :func:`count_patients`, in words, for a chapter."""
    counts = count_patients(table).replace({"cohort": titles("cohorts"), "mm_per_pixel": {"": NO_VALUE}})
    heads = {"with_mask": "with a mask", "with_b_lines": "with B-lines", "mm_per_pixel": "mm per pixel"}
    return counts.rename(columns=heads).rename_axis(None)


def _count(groups, **first):
    counts = groups.agg(
        **first,
        recordings=("file", "nunique"),
        frames=("image", "size"),
        with_mask=("mask", lambda masks: (masks != "").sum()),
        with_b_lines=("b_lines", "sum"),
    )
    for fold, name in enumerate(FOLDS):
        counts[name] = groups["fold"].agg(lambda folds, fold=fold: int((folds == fold).sum()))
    return counts


def summary(out, table):
    """What was imported, and which command goes on with it, in words.

    Parameters
    ----------
    out : path
    table : pandas.DataFrame
        As :func:`lusbook.imports.import_folder` returns it.

    Returns
    -------
    text : str
    """
    lines, manifest = [f"{out}: manifest.csv, images, masks, left_out.csv; look at report.html"], out / "manifest.csv"
    for cohort, row in count_cohorts(table).iterrows():
        folds = (
            f"frames a fold {', '.join(str(row[name]) for name in FOLDS)}" if row[FOLDS].sum() else "too few for folds"
        )
        lines.append(
            f"{cohort}: patients {row['patients']} ({folds}), recordings {row['recordings']}, frames {row['frames']}, "
            f"with a mask {row['with_mask']}, with B-lines {row['with_b_lines']}"
        )
    if set(table["cohort"]) == set(NAMES) and table["mask"].all() and table["fold"].notna().all():
        return "\n".join([*lines, f'next: make chapter NAME=unet PARAMS="-p cohorts {shlex.quote(str(manifest))}"'])
    steps = [f"lusbook adapt {shlex.quote(str(manifest))} MODEL"] if table["fold"].notna().all() else []
    return "\n".join([*lines, f"next: {', then '.join([*steps, 'lusbook segment MODEL CLIP'])}"])


def write_report(path, table, left_out, pictures, labels):
    """Write the report of an import.

    Parameters
    ----------
    path : Path
    table, left_out : pandas.DataFrame
        As :func:`lusbook.imports.import_folder` returns them.
    pictures : dict of ndarray
        A thumbnail by patient.
    labels : Counter
        How often each label occurs in the annotations.
    """
    patients = count_patients(table)
    few = sorted(table.loc[table["fold"].isna(), "cohort"].unique())
    folds = f"Folds, as every study assigns them, are {N_FOLDS} and never split a patient."
    if few:
        folds += f" Cohort {' and '.join(few)} has too few patients for that: a study wants {N_FOLDS}."
    counted = ", ".join(f"{name} ({n})" for name, n in sorted(labels.items()) if is_b_line(name)) or "none"
    others = ", ".join(f"{name} ({n})" for name, n in sorted(labels.items()) if not is_b_line(name)) or "none"
    names = f"Labels taken for B-lines: {counted}. Other labels: {others}."
    page = _PAGE.format(
        cohorts=_html(count_cohorts(table).reset_index()),
        folds=html.escape(folds),
        labels=f"<p>{html.escape(names)}</p>" if labels else "",
        patients=_html(patients.reset_index()),
        figures="\n".join(_figure(name, pictures[name], row) for name, row in patients.iterrows()),
        left_out=_html(left_out) if len(left_out) else "<p>Nothing.</p>",
    )
    path.write_text(page, "utf-8", "backslashreplace")


def _html(table):
    named = table.rename(columns=lambda name: name.replace("_", " "))
    with pd.option_context("display.max_colwidth", None):
        return named.to_html(index=False, border=0, na_rep="")


def _figure(name, picture, row):
    data = base64.b64encode(iio.imwrite("<bytes>", picture, extension=".png")).decode()
    caption = f"{name}, {row['cohort']}" + (f", {row['mm_per_pixel']} mm per pixel" if row["mm_per_pixel"] else "")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="A frame of {name}: fan and mask outlined">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
