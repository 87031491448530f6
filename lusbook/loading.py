"""The cohorts of a study: simulated, or read from a manifest; what is simulated is kept in a cache folder."""

import contextlib
import os
import warnings
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pooch

from lusbook import phantom
from lusbook.cohort import NAMES, Cohort
from lusbook.digests import PHANTOM_CODE, code_digest
from lusbook.errors import LusbookError
from lusbook.manifests import digest, read_manifest, read_table

MORE = 60  # simulated patients of either kind whom networks are only tested on


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
        As :func:`lusbook.manifests.read_manifest`; and when the manifest has other cohorts, or one without masks.
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
        return {name: phantom.digest(**phantom_parameters(name, settings)) for name in NAMES}
    path, table = read_table(settings.cohorts)
    if set(table["cohort"]) != set(NAMES):
        found = ", ".join(sorted(set(table["cohort"])))
        raise LusbookError(f"{path}: expected the cohorts {' and '.join(NAMES)}, received {found}")
    for name in NAMES:
        if not table.loc[table["cohort"] == name, "mask"].all():
            raise LusbookError(f"{path}: cohort {name!r}: no masks; expected some to train and score with")
    return {name: digest(path, table[table["cohort"] == name]) for name in NAMES}


@lru_cache(maxsize=1)  # one process computes many runs; the digests tell when a file has changed
def _load_manifest(path, image_size, digests):
    cohorts = read_manifest(path, image_size)
    return {name: cohorts[name] for name, _ in digests}


def phantom_parameters(name, settings):
    """Parameters of :func:`lusbook.phantom.simulate` of a study's simulated cohort."""
    gap = {"gap": settings.cap_gap} if name == "cap" and settings.cap_gap else {}
    return gap | {
        "name": name,
        "seed": settings.phantom_seed,
        "scanner": settings.phantom_scanner,
        "diversity": getattr(settings, f"{name}_diversity"),
        "consistency": getattr(settings, f"{name}_consistency"),
        "image_size": settings.image_size,
    }


def load_more(settings, processes=None):
    """Load more patients of both conditions, whom no network is trained on: six are too few for a test to be sharp.

    Parameters
    ----------
    settings : Settings
        With simulated cohorts; ``phantom_test_frames`` frames of each of 60 patients.
    processes : int, optional
        As for :func:`load_cohorts`.

    Returns
    -------
    more : dict of Cohort
        ``covid`` and ``cap``; empty where there are none.
    """
    frames = settings.phantom_test_frames
    if settings.cohorts != "phantom" or not frames:
        return {}
    plan = {"plan": ((frames,) * MORE,)}
    return {
        name: load_phantom(processes, **phantom_parameters(name, settings) | plan | {"name": f"{name}-more"})
        for name in NAMES
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
    folder = Path(os.environ.get("LUSBOOK_CACHE") or pooch.os_cache("lusbook"))
    key = f"{phantom.digest(**parameters)}-{code_digest(PHANTOM_CODE)}"
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
