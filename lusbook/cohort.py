"""Cohorts: images, masks, patients and folds of one condition (sections 2.4 and 2.5).

A cohort is simulated (:mod:`lusbook.phantom`) or read from a manifest: a CSV that names the PNG files of a
user's own images and masks.
"""

import contextlib
import hashlib
import json
import os
import warnings
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pooch
from skimage.color import rgb2gray
from skimage.transform import resize_local_mean

from lusbook.errors import LusbookError

NAMES = ("covid", "cap")  # the two cohorts of every study
N_FOLDS = 3
BLACK = -0.9  # at the networks' door, see network_images

_FILLED = pa.Check(lambda cells: cells != "", name="filled")
_MANIFEST = pa.DataFrameSchema(
    {
        "image": pa.Column(str, _FILLED, unique=True, report_duplicates="exclude_first"),
        "mask": pa.Column(str),
        "patient": pa.Column(str, _FILLED),
        "cohort": pa.Column(str, _FILLED),
    }
)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images, masks, patients and folds of one condition.

    Parameters
    ----------
    name : str
        ``"covid"``, ``"cap"``, ...
    images : ndarray, shape (n, size, size), uint8
    masks : ndarray, shape (n, size, size), bool, or None
        The labels that networks are trained on and scored against.
    patients : ndarray, shape (n,), str
    folds : ndarray, shape (n,), int
        Fold of each image; a patient is in one fold only.
    truth : ndarray, shape (n, size, size), bool, or None
        Exact masks (simulated cohorts only).
    digest : str
        Identifies the data in the manifest of a run.

    Raises
    ------
    LusbookError
        When shapes or types do not fit together, or a patient is in two folds.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray | None
    patients: np.ndarray
    folds: np.ndarray
    truth: np.ndarray | None = None
    digest: str = ""

    def __post_init__(self):
        shape = self.images.shape
        if len(shape) != 3 or shape[1] != shape[2]:
            raise LusbookError(f"cohort {self.name!r}: images: expected (n, size, size), received {shape}")
        expected = {
            "images": (shape, np.uint8),
            "masks": (shape, np.bool_),
            "truth": (shape, np.bool_),
            "patients": (shape[:1], np.str_),
            "folds": (shape[:1], np.integer),
        }
        for key, (form, kind) in expected.items():
            array = getattr(self, key)
            if array is None and key in ("masks", "truth"):
                continue
            if array.shape != form or not np.issubdtype(array.dtype, kind):
                raise LusbookError(
                    f"cohort {self.name!r}: {key}: expected {kind.__name__} of shape {form}, "
                    f"received {array.dtype.name} of shape {array.shape}"
                )
        pairs = sorted(set(zip(self.patients.tolist(), self.folds.tolist(), strict=True)))
        for (patient, fold), (other, fold_too) in pairwise(pairs):
            if patient == other:
                raise LusbookError(f"cohort {self.name!r}: patient {patient!r} is in folds {fold} and {fold_too}")

    def __len__(self):
        return len(self.images)

    def subset(self, index):
        """The cohort with only some of its images.

        Parameters
        ----------
        index : ndarray of int, or of bool with shape (n,)

        Returns
        -------
        cohort : Cohort
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{key: value[index] for key, value in values.items() if isinstance(value, np.ndarray)})


# ---------------------------------------------------------------------------------------------
# Folds and subsets


def assign_folds(patients, n_folds=N_FOLDS):
    """Divide images into folds of near-equal size that never split a patient.

    Largest first: patients in order of falling number of images (equal numbers: by name), each to the fold that is
    smallest so far (equal folds: the first).

    Parameters
    ----------
    patients : sequence of str, length n
        Patient of each image.
    n_folds : int

    Returns
    -------
    folds : ndarray, shape (n,), int

    Raises
    ------
    LusbookError
        When there are fewer patients than folds.

    References
    ----------
    Section 2.5 of the paper divides by patient; how it chose the patients of a fold is not stated. The method here
    is the longest-processing-time rule of Graham, 1969, "Bounds on multiprocessing timing anomalies".

    Examples
    --------
    >>> assign_folds(["ann", "ann", "ann", "bob", "bob", "cy", "dee"]).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    names, which, counts = np.unique(np.asarray(patients, str), return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise LusbookError(
            f"expected at least {n_folds} patients, one for each fold, received {len(names)}: {', '.join(names)}"
        )
    sizes = np.zeros(n_folds, int)
    fold_of = np.zeros(len(names), int)
    for patient in np.argsort(-counts, kind="stable"):  # names are sorted: equal numbers stay in their order
        fold_of[patient] = np.argmin(sizes)
        sizes[fold_of[patient]] += counts[patient]
    return fold_of[which]


def fold_indices(cohort, fold):
    """Indices of a fold's training and test images.

    Parameters
    ----------
    cohort : Cohort
    fold : int
        The fold that is tested; the others train.

    Returns
    -------
    training, test : ndarray of int

    Raises
    ------
    LusbookError
        When one of the two would be empty.
    """
    test = cohort.folds == fold
    if not test.any() or test.all():
        there = ", ".join(str(k) for k in np.unique(cohort.folds))
        raise LusbookError(f"cohort {cohort.name!r}: fold {fold} leaves nothing to train or test; folds are {there}")
    return np.flatnonzero(~test), np.flatnonzero(test)


def shown_frame(cohort, fold):
    """The frame of a fold that figures show: the one whose labelled B-line area is the median of the fold.

    The rule looks at labels alone, never at a result. Frames of equal area count in their order in the cohort; of an
    even number of frames, the lower median is taken.

    Parameters
    ----------
    cohort : Cohort
        With masks.
    fold : int

    Returns
    -------
    index : int
        In the cohort.
    """
    _, test = fold_indices(cohort, fold)
    areas = np.count_nonzero(cohort.masks[test], axis=(1, 2))
    return int(test[np.argsort(areas, kind="stable")[(len(areas) - 1) // 2]])


def reduce_to(cohort, n, seed):
    """Reduce a cohort to ``n`` images and keep its patients' shares (sixth experiment of section 2.5).

    Each patient's number of images is in proportion, rounded by the largest remainder (equal remainders: by name);
    which of its images they are is random.

    Parameters
    ----------
    cohort : Cohort
    n : int
        The paper does not state it; the size of the other cohort's training set takes its purpose, to remove
        the difference in size, at its word.
    seed : int

    Returns
    -------
    cohort : Cohort
        Images in their former order.

    Raises
    ------
    LusbookError
        When the cohort has fewer than ``n`` images.
    """
    if not 1 <= n <= len(cohort):
        raise LusbookError(f"cohort {cohort.name!r}: expected to keep 1 to {len(cohort)} images, received {n}")
    names, counts = np.unique(cohort.patients, return_counts=True)
    quotas, remainders = np.divmod(n * counts, len(cohort))
    quotas[np.argsort(-remainders, kind="stable")[: n - quotas.sum()]] += 1
    rng = np.random.default_rng(seed)
    kept = [
        rng.choice(np.flatnonzero(cohort.patients == name), quota, replace=False)
        for name, quota in zip(names, quotas, strict=True)
    ]
    return cohort.subset(np.sort(np.concatenate(kept)))


def network_images(images):
    """Images as the networks take them.

    Black is -0.9, not -1: SIFA's generator gives ``tanh(input + residual)``, which never reaches -1, so it could
    not leave the background outside the fan as it is.

    Parameters
    ----------
    images : ndarray, shape (n, size, size), uint8

    Returns
    -------
    images : ndarray, shape (n, size, size, 1), float32 in [-0.9, 0.9]

    Examples
    --------
    >>> print(network_images(np.array([[[0, 255]]], np.uint8)).ravel())
    [-0.9  0.9]
    """
    return (images[..., None].astype("float32") / 127.5 - 1) * np.float32(-BLACK)


# ---------------------------------------------------------------------------------------------
# A user's own images


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
        By name, images in the order of the rows, folds from :func:`assign_folds`.

    Raises
    ------
    LusbookError
        On anything that cannot be used: names the file, the row (from 1, after the header) and the value.
    """
    path, table = _read_table(path)
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
            digest=_digest(path, rows),
        )
    return cohorts


def _read_table(path):
    """Path and rows of a manifest, checked as far as that goes without opening an image."""
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


def _digest(path, rows):
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


# ---------------------------------------------------------------------------------------------
# The cohorts of a study


def load_cohorts(settings, processes=None):
    """Load the two cohorts of a study.

    Parameters
    ----------
    settings : Settings
        ``cohorts`` is ``"phantom"``, or the path of a manifest that names the cohorts ``covid`` and ``cap``.
    processes : int, optional
        Worker processes that simulate; in this process by default.

    Returns
    -------
    cohorts : dict of Cohort
        ``covid`` and ``cap``, both with masks.

    Raises
    ------
    LusbookError
        As :func:`read_manifest`; and when the manifest has other cohorts, or one without masks.
    """
    if settings.cohorts == "phantom":
        return {name: load_phantom(processes, **phantom_parameters(name, settings)) for name in NAMES}
    digests = cohort_digests(settings)
    return dict(_load_manifest(settings.cohorts, settings.image_size, tuple(digests.items())))


def cohort_digests(settings):
    """Digests of the two cohorts of a study, without making or decoding an image.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    digests : dict of str
        The ``digest`` of each cohort that :func:`load_cohorts` returns.
    """
    if settings.cohorts == "phantom":
        from lusbook import phantom  # here, since phantom makes cohorts

        return {name: phantom.digest(**phantom_parameters(name, settings)) for name in NAMES}
    path, table = _read_table(settings.cohorts)
    if set(table["cohort"]) != set(NAMES):
        found = ", ".join(sorted(set(table["cohort"])))
        raise LusbookError(f"{path}: expected the cohorts {' and '.join(NAMES)}, received {found}")
    for name in NAMES:
        if not table.loc[table["cohort"] == name, "mask"].all():
            raise LusbookError(f"{path}: cohort {name!r}: no masks; expected some to train and score with")
    return {name: _digest(path, table[table["cohort"] == name]) for name in NAMES}


@lru_cache(maxsize=1)  # one process computes many runs; the digests tell when a file has changed
def _load_manifest(path, image_size, digests):
    cohorts = read_manifest(path, image_size)
    return {name: cohorts[name] for name, _ in digests}


def phantom_parameters(name, settings):
    """Parameters of :func:`lusbook.phantom.simulate` of a study's simulated cohort."""
    return {
        "name": name,
        "seed": settings.phantom_seed,
        "scanner": settings.phantom_scanner,
        "diversity": getattr(settings, f"{name}_diversity"),
        "consistency": getattr(settings, f"{name}_consistency"),
        "image_size": settings.image_size,
    }


def load_source(settings, processes=None):
    """Load the cohort from which networks learn that are then shown real clips.

    The clips come from a Lumify, of many patients, with and without B-lines, and so does this simulated cohort. Of
    cohorts of a user's own, it is that of COVID-19.

    Parameters
    ----------
    settings : Settings
    processes : int, optional
        As for :func:`load_cohorts`.

    Returns
    -------
    cohort : Cohort
        With masks.
    """
    if settings.cohorts == "phantom":
        return load_phantom(processes, **source_parameters(settings))
    return load_cohorts(settings)["covid"]


def source_digest(settings):
    """Digest of the cohort that :func:`load_source` loads, without making or decoding an image."""
    if settings.cohorts == "phantom":
        from lusbook import phantom  # here, since phantom makes cohorts

        return phantom.digest(**source_parameters(settings))
    return cohort_digests(settings)["covid"]


def source_parameters(settings):
    """Parameters of :func:`lusbook.phantom.simulate` of the cohort that :func:`load_source` loads."""
    own = {"name": "clinic", "plan": ((16,) * 64,), "scanner": "lumify", "numbers": "mixed", "diversity": 1.0}
    return phantom_parameters("covid", settings) | own


def load_phantom(processes=None, **parameters):
    """Load a simulated cohort from the cache folder, where it is kept after it has been simulated once.

    Parameters
    ----------
    processes : int, optional
        As for :func:`load_cohorts`.
    **parameters
        Of :func:`lusbook.phantom.simulate`.

    Returns
    -------
    cohort : Cohort
    """
    from lusbook import phantom, runs  # here, since both import this module

    folder = Path(os.environ.get("LUSBOOK_CACHE") or pooch.os_cache("lusbook"))
    key = f"{phantom.digest(**parameters)}-{runs.code_digest(runs.PHANTOM_CODE)}"
    path = folder / f"phantom-{parameters['name']}-{key}.npz"
    if path.exists():
        try:
            return _read_cache(path, parameters["name"])
        except Exception as error:  # a broken file can raise almost anything
            warnings.warn(f"{path}: not readable ({error}); simulated again", stacklevel=2)
    cohort = phantom.simulate(**parameters, processes=processes, progress=True)
    _write_cache(path, cohort)
    return cohort


def _read_cache(path, name):
    with np.load(path, allow_pickle=False) as stored:
        images = stored["images"]
        masks, truth = (
            np.unpackbits(stored[key], axis=-1, count=images.shape[-1]).astype(bool) for key in ("masks", "truth")
        )
        return Cohort(name, images, masks, stored["patients"], stored["folds"], truth, str(stored["digest"]))


def _write_cache(path, cohort):
    """Write whole or not at all, so that processes side by side never read a half; failing that is no harm."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    arrays = {field.name: getattr(cohort, field.name) for field in fields(cohort) if field.name != "name"}
    arrays |= {key: np.packbits(arrays[key], axis=-1) for key in ("masks", "truth")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        warnings.warn(f"{path}: cannot be written ({error.strerror}); the cohort is not kept", stacklevel=2)
        with contextlib.suppress(OSError):
            partial.unlink()
