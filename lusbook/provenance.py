"""Where a result comes from, and whether the code still gives it.

A manifest names the commit, the environment and the contents that a result was made from, and the fingerprints
(:mod:`lusbook.fingerprints`) of the parts whose code made its numbers. Names of files and modules are in none of them.
"""

import datetime
import hashlib
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from lusbook.digests import file_digest, short_digest
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import PROJECT

FINGERPRINTS = PROJECT / "data" / "fingerprints"
RESULTS = PROJECT / "data" / "results"
# What executing a study and its pages writes anew: no change of it makes a tree dirty.
WRITTEN = ("data/results", "data/benchmarks", "data/page-seconds.json", "book", "README.md")
NETWORKS = ("phantom", "unet", "sifa")
#: Parts whose code makes the numbers of a folder, by its name.
PARTS = {
    "controls": (*NETWORKS, "controls"),
    "real": (*NETWORKS, "real", "statistics"),
    "attempts": (*NETWORKS, "real", "statistics"),
    "rivals": (*NETWORKS, "plain", "statistics"),
    "dose-response": (*NETWORKS, "plain", "statistics"),
    "cohorts": ("phantom", "cohorts"),
    "spread": ("phantom", "spread"),
    "secondary": (*NETWORKS, "secondary"),
    "realism": ("phantom", "realism", "statistics"),
}
NEAR = 0.02  # of mean Dice, by which a run on another processor may differ

# ---------------------------------------------------------------------------------------------
# Where it comes from


@cache
def commit():
    """The commit that is checked out, with ``-dirty`` after it where tracked files differ from it.

    Returns
    -------
    commit : str
        Empty where the project is no clone.
    """
    found = _git("rev-parse", "HEAD")
    return f"{found}-dirty" if found and changes() else found


@cache
def changes():
    """What tracked files differ in from the commit, as text; results and pages do not count."""
    return _git("diff", "HEAD", "--", ".", *(f":(exclude){path}" for path in WRITTEN))


def state():
    """Commit, and digest of what differs from it: what a checkpoint shares with the run that goes on from it."""
    return f"{commit()} {short_digest(changes().encode())}"


def refuse_dirty(results):
    """Refuse to compute into the project's own results what no commit gives.

    Raises
    ------
    LusbookError
        When tracked files differ from the commit.
    """
    if commit().endswith("-dirty") and Path(results).resolve().is_relative_to(RESULTS):
        raise LusbookError(
            f"{results}: tracked files differ from the commit, so that no commit would give these results; commit "
            "first, or let --results name another folder"
        )


@cache
def environment():
    """Digest of the pinned packages, ``requirements.txt``; empty where they are not here."""
    path = PROJECT / "requirements.txt"
    return file_digest(path) if path.exists() else ""


@cache
def date():
    """Day of the commit; today where the project is no clone, or differs from its commit."""
    today = datetime.date.today().isoformat()
    return today if not commit() or commit().endswith("-dirty") else _git("log", "-1", "--format=%cs") or today


def contents(cohorts):
    """Digests of images and masks as networks are given them.

    Parameters
    ----------
    cohorts : dict of lusbook.cohort.Cohort

    Returns
    -------
    digests : dict of str
    """
    return {name: arrays_digest(cohort.images, cohort.masks) for name, cohort in cohorts.items()}


def arrays_digest(*arrays):
    """Digest of the shapes and bytes of arrays; one that is None counts as none."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(memoryview(array if array.flags.c_contiguous else array.copy()).cast("B"))
    return found.hexdigest()[:16]


def _git(*arguments):
    """What git says of the project; empty where it cannot."""
    try:
        done = subprocess.run(["git", "-C", PROJECT, *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


# ---------------------------------------------------------------------------------------------
# Whether the code still gives it


def parts_of(folder):
    """Parts whose code makes the numbers of a folder: what it is named for, or one of the two folders above it."""
    if folder.parent.name in EXPERIMENTS:
        return ("phantom", EXPERIMENTS[folder.parent.name].method)
    names = (folder.name, folder.parent.name, folder.parent.parent.name)
    return next((PARTS[name] for name in names if name in PARTS), NETWORKS)


def fingerprint(part):
    """Digest of the committed fingerprint of a part; empty where there is none."""
    path = FINGERPRINTS / f"{part}.json"
    return file_digest(path) if path.exists() else ""


def fingerprints(folder, settings):
    """Digests of the fingerprints that the numbers of a folder belong to, by part."""
    gap = ("gap",) if settings.cohorts == "phantom" and settings.cap_gap else ()
    return {part: fingerprint(part) for part in (*parts_of(folder), *gap)}


def stale(manifests):
    """Folders whose numbers the code no longer gives, and why.

    Parameters
    ----------
    manifests : dict of Path to dict
        Of a study, by folder.

    Returns
    -------
    stale : dict of Path to dict
        By folder: the fingerprints that changed, each with its digest then and now. A fine-tuning is stale after its
        parent, as ``parent``, and when the weights that it started from are not those of its parent any more.
    """
    now, found = cache(fingerprint), {}
    for folder, manifest in manifests.items():
        named = manifest.get("fingerprints", {})
        changed = {part: (named.get(part, ""), now(part)) for part in {*parts_of(folder), *named}}
        if changed := {part: pair for part, pair in changed.items() if pair[0] != pair[1] or not pair[0]}:
            found[folder] = changed
    for folder, manifest in manifests.items():
        experiment = EXPERIMENTS.get(folder.parent.name)
        if experiment is None or experiment.parent is None or folder in found:
            continue
        parent = folder.parent.parent / experiment.parent / folder.name
        was, weights = manifest.get("inputs", {}).get("parent"), manifests.get(parent, {}).get("weights")
        if parent in found or (was and weights and was != weights):
            found[folder] = {"parent": (was or "", weights or "")}
    return found


def known_stale(name, listed):
    """Why a folder is stale on purpose; empty where it is not.

    Parameters
    ----------
    name : str
        Of the folder, below that of all results.
    listed : dict of str
        Reasons by pattern, as in ``data/results/stale.yaml``.
    """
    return next((reason for pattern, reason in listed.items() if fnmatch(name, pattern)), "")


# ---------------------------------------------------------------------------------------------
# Committed runs, computed again


def verify(count=1, week=None):
    """Compute committed runs again, whole, and compare their test images: which ones, the week of the year says.

    Parameters
    ----------
    count : int
        Runs.
    week : int, optional
        This week by default.

    Returns
    -------
    failed : int
        Runs that differ: in any number on the same processor with the same versions, else in mean Dice by 0.02.
    """
    from lusbook import runs, store
    from lusbook.settings import make_settings

    week = datetime.date.today().isocalendar().week if week is None else week
    manifests = store.read_manifests(RESULTS, "demo*/*/fold-*/manifest.json")
    outdated = stale(manifests)
    folders = [folder for folder in manifests if folder.parent.name in EXPERIMENTS and folder not in outdated]
    failed = 0
    for folder in [folders[(week * count + number) % len(folders)] for number in range(min(count, len(folders)))]:
        params = store.read_json(folder / "params.json")
        settings = make_settings("paper", **params["settings"])
        with tempfile.TemporaryDirectory() as results:
            again = runs.run(params["experiment"], params["fold"], settings, results)
            made = store.read_manifest(again)
            failed += not compare(folder, again, manifests[folder], made)
    return failed


def compare(folder, again, manifest, made):
    """Compare the test images of a run with those of its repetition, and say what was seen.

    Returns
    -------
    same : bool
        As :func:`verify` asks it.
    """
    from lusbook.store import read_table

    keys = ["cohort", "patient", "image", "route"]
    one, other = (read_table(path / "per_image.csv").set_index(keys).sort_index() for path in (folder, again))
    alike = manifest.get("processor") == made["processor"] and manifest["versions"] == made["versions"]
    means = [table.groupby(["cohort", "route"])["dice"].mean() for table in (one, other)]
    apart = (means[0] - means[1]).abs().max()
    equal = one.equals(other)
    name = folder.relative_to(RESULTS) if folder.is_relative_to(RESULTS) else folder
    kind = "the same processor and versions" if alike else "another processor or other versions"
    print(f"{name}: {kind}; {'equal' if equal else 'not equal'}, mean Dice differs by {apart:.4f} at most", flush=True)
    return equal if alike else len(one) == len(other) and bool(apart <= NEAR)


def main():
    """``python -m lusbook.provenance N``: verify N committed runs."""
    from lusbook.devices import limit_threads

    limit_threads()
    sys.exit(min(1, verify(int(sys.argv[1]) if sys.argv[1:] else 1)))


if __name__ == "__main__":
    main()
