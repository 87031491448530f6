"""Runs: one experiment, fold and settings each, computed once and then read; and what else a study holds.

A run without manifest is incomplete and is computed again, from its newest checkpoint (:mod:`lusbook.checkpoints`)
where there is one; a complete run with the same parameters is read; a damaged one is set aside, with a line that names
the file, and computed again. :mod:`lusbook.store` knows the files.
"""

import os
import shutil
import time
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd

from lusbook import checkpoints, manifests, memory, provenance, store
from lusbook.ceiling import ceiling
from lusbook.cohort import NAMES as COHORTS
from lusbook.cohort import shown_frame
from lusbook.devices import limit_threads
from lusbook.digests import file_digest
from lusbook.diversity import describe_masks
from lusbook.errors import Interrupted, LusbookError, MissingData
from lusbook.experiments import EXPERIMENTS, FOLDS, get_experiment, in_order
from lusbook.formats import check_manifest
from lusbook.loading import (
    cohort_digests,
    load_cohorts,
    load_more,
    load_source,
    phantom_parameters,
    source_digest,
    source_parameters,
)
from lusbook.rows import check_per_image
from lusbook.settings import PROJECT
from lusbook.store import (
    alone,
    check_files,
    check_writable,
    checkpoint_key,
    is_complete,
    parameters,
    read_arrays,
    read_json,
    read_tables,
    relevant,
    results_folder,
    run_folder,
    study_folder,
)

ADAPTED = "adapt"  # the experiment of an adaptation to somebody's own images

# ---------------------------------------------------------------------------------------------
# Computing


def run(name, fold, settings, results=None, label=None, deadline=None, with_weights=False):
    """Compute a run, go on with an interrupted one, or find it already computed, here or by another process.

    Parameters
    ----------
    name : str
        Experiment.
    fold : int
    settings : Settings
    results : path, optional
        Folder of studies.
    label : str, optional
        What progress lines name.
    deadline : float, optional
        Value of ``time.monotonic()`` at which training stops.
    with_weights : bool
        Compute a complete run again when it has no weights, or damaged ones.

    Returns
    -------
    folder : Path

    Raises
    ------
    Interrupted, OutOfTime
        As :func:`lusbook.training.fit`.
    LusbookError
        When a run of other settings or data is there, or memory runs out: says what to lower.
    """
    folder = run_folder(name, fold, settings, results)
    params = parameters(name, fold, settings)

    def complete():
        return (not with_weights or store.has_weights(folder)) and is_complete(folder, params)

    if complete():
        return folder
    check_writable(folder)
    with alone(folder, deadline):
        if complete():  # by the process that held the lock
            return folder
        spoilt = with_weights and (folder / "weights.npz").exists() and not store.has_weights(folder)
        store.set_aside(folder, f"{folder / 'weights.npz'}: damaged" if spoilt else None)
        (folder / "manifest.json").unlink(missing_ok=True)
        limit_threads()
        from lusbook import parallel, trials  # the networks, and with them Keras, are imported only to train

        experiment = get_experiment(name)
        parallel.share_batches(experiment.method, settings)
        parent = run_parent(experiment, fold, settings, results, deadline)
        cohorts = load_cohorts(settings)
        if {cohort.name: cohort.digest for cohort in cohorts.values()} != params["data"]:
            raise LusbookError(f"{settings.cohorts}: changed while it was read; start again")
        start = time.monotonic()
        with memory.explained(settings, experiment.method):
            outcome = trials.run_trial(
                experiment,
                fold,
                settings,
                cohorts,
                parent,
                label or f"{name} fold {fold}",
                load_more(settings),
                folder=folder,
                key=checkpoint_key(params, folder),
                deadline=deadline,
            )
        inputs = provenance.contents(cohorts) | ({"parent": file_digest(parent)} if parent else {})
        store.write(folder, params, outcome | {"inputs": inputs}, settings, time.monotonic() - start)
        checkpoints.remove(folder)
    return folder


def run_parent(experiment, fold, settings, results, deadline=None):
    """Weights that a fine-tuning starts from; its parent is run first where they are missing."""
    if experiment.parent is None:
        return None
    # A committed run comes without weights: they can only be trained again.
    return run(experiment.parent, fold, settings, results, deadline=deadline, with_weights=True) / "weights.npz"


def run_all(names, folds, settings, results=None):
    """Compute several runs in this process; a failed one does not stop the others, an interruption does.

    Raises
    ------
    Interrupted
        As :func:`lusbook.training.fit`.
    LusbookError
        At the end, naming every run that failed and why.
    """
    folders = [run_folder(name, fold, settings, results) for name in names for fold in folds]
    if not all((folder / "manifest.json").exists() for folder in folders):
        check_writable(study_folder(settings, results))
    failed = []
    order = {pair: i for i, pair in enumerate(((n, k) for n in in_order() for k in FOLDS), start=1)}
    for name in in_order(names):
        for fold in folds:
            label = f"run {order[name, fold]:2d} of {len(order)}  {name} fold {fold}"
            try:
                run(name, fold, settings, results, label)
            except Interrupted as stop:
                raise Interrupted("\n  ".join([str(stop), *failed])) from stop
            except Exception as error:  # whatever broke it, the other runs must go on
                failed.append(f"{name} fold {fold}: {type(error).__name__}: {error}")
    if failed:
        raise LusbookError("failed runs:\n  " + "\n  ".join(failed))


def study(settings, names=tuple(EXPERIMENTS), results=None):
    """Per-image results of experiments over all folds; what is missing is computed first.

    Returns
    -------
    per_image : dict of callable
        By (experiment, fold): reads the rows of that run, one for each test image and route. What makes tables, tests
        and figures reads them from here, see :mod:`lusbook.rows`.
    """
    run_all(names, FOLDS, settings, results)
    return readers(settings, results, names)


def describe(settings, results=None):
    """Measures of every image and label of a study's cohorts, and sample frames; computed once, then read.

    Parameters
    ----------
    settings : Settings
    results : path, optional

    Returns
    -------
    described : pandas.DataFrame
        As :func:`lusbook.diversity.describe_masks`, both cohorts; ``ceiling`` is the best Dice that the output grid of
        SIFA allows, see :mod:`lusbook.ceiling`.
    samples : dict of ndarray
        ``<cohort>_image`` and ``<cohort>_mask``, shape (folds, size, size): the frame of each fold that
        :func:`lusbook.cohort.shown_frame` picks.
    """
    folder = study_folder(settings, results) / "cohorts"
    params = {"data": cohort_digests(settings), "image_size": settings.image_size}
    once(folder, params, settings, lambda: _describe(settings))
    return store.read_table(folder / "described.csv"), read_arrays(folder)


def once(folder, params, settings, compute):
    """Compute what goes into a folder, unless it is there, or another process computes it meanwhile.

    Parameters
    ----------
    folder : Path
    params : dict
        What identifies it.
    settings : Settings
    compute : callable
        Returns a dict: ``tables``, and where there are any ``overlays``, ``weights``, ``machine`` and ``inputs``.
    """
    if is_complete(folder, params):
        return
    check_writable(folder)
    with alone(folder):
        if not is_complete(folder, params):  # by the process that held the lock
            store.set_aside(folder)
            start = time.monotonic()
            with memory.explained(settings):
                outcome = {"overlays": {}, "weights": [], "machine": {}} | compute()
            store.write(folder, params, outcome, settings, time.monotonic() - start)


def _describe(settings):
    """What :func:`describe` keeps."""
    loaded = load_cohorts(settings, os.cpu_count())
    cohorts = loaded.values()
    tables = [describe_masks(cohort).assign(ceiling=ceiling(cohort.masks, "sifa")) for cohort in cohorts]
    described = pd.concat(tables, ignore_index=True)
    samples = {}
    for cohort in cohorts:
        shown = [shown_frame(cohort, fold) for fold in FOLDS]
        samples |= {f"{cohort.name}_image": cohort.images[shown], f"{cohort.name}_mask": cohort.masks[shown]}
    return {"tables": {"described": described}, "overlays": samples, "inputs": provenance.contents(loaded)}


def spread(settings, results=None):
    """What images say of label borders, grey levels, texture and distances; computed once, then read.

    Parameters
    ----------
    settings : Settings
    results : path, optional

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``frames``, ``effective`` and ``distances``, see :func:`lusbook.spread.run_spread`.
    examples : dict of ndarray
        See :func:`lusbook.spread.examples`.
    """
    folder = study_folder(settings, results) / "spread"
    params = {"data": cohort_digests(settings), "image_size": settings.image_size}

    def compute():
        from lusbook.spread import run_spread

        cohorts = load_cohorts(settings, os.cpu_count())
        return run_spread(cohorts) | {"inputs": provenance.contents(cohorts)}

    once(folder, params, settings, compute)
    return read_tables(folder), read_arrays(folder)


def real_clips(settings, results=None, folder=None):
    """What every arm of the chapter on real clips gives; computed once, then read.

    Parameters
    ----------
    settings : Settings
    results : path, optional
    folder : path, optional
        Folder of COVID-BLUES, see :func:`lusbook.sources.find_covid_blues`.

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``clips``, ``agreement`` and ``history``, see :func:`lusbook.arms.run_arms`.
    """
    digests = {"clinic": source_digest(settings), "covid": cohort_digests(settings)["covid"]}

    def compute(table, **keep):
        from lusbook import arms  # networks, and with them Keras

        cohorts = {"clinic": load_source(settings), "covid": load_cohorts(settings)["covid"]}
        return arms.run_arms(settings, cohorts, table, **keep) | {"inputs": provenance.contents(cohorts)}

    return _with_clips("real", digests, compute, settings, results, folder)


def attempts(settings, results=None, folder=None, compute=True):
    """Attempts to adapt better, tuned on half of the patients; computed once, then read.

    Parameters
    ----------
    settings, results, folder
        As for :func:`real_clips`.
    compute : bool
        Compute what is not there; it takes several times as long as :func:`real_clips`.

    Returns
    -------
    attempts : pandas.DataFrame
        See :func:`lusbook.attempts.run_attempts`.

    Raises
    ------
    MissingData
        When they are not there and are not to be computed.
    """
    if not compute:
        _require(study_folder(settings, results) / "attempts", "attempts were", "attempts")

    def run(table, **keep):
        from lusbook import attempts  # networks, and with them Keras

        source = load_source(settings)
        return attempts.run_attempts(settings, source, table, **keep) | {
            "inputs": provenance.contents({"clinic": source})
        }

    digests = {"clinic": source_digest(settings)}
    return _with_clips("attempts", digests, run, settings, results, folder)["attempts"]


def secondary(settings, results=None, compute=True):
    """Other measures than Dice of a study's predicted masks, and other thresholds; computed once, then read.

    Parameters
    ----------
    settings : Settings
    results : path, optional
    compute : bool
        Compute what is not there; runs without weights are trained again first.

    Returns
    -------
    tables : dict of pandas.DataFrame
        ``images`` and ``thresholds``, see :func:`lusbook.secondary.run_secondary`.

    Raises
    ------
    MissingData
        When they are not there and are not to be computed.
    """
    folder = study_folder(settings, results) / "secondary"
    if not compute:
        _require(folder, "other measures were", "secondary")
    params = {
        "settings": relevant(settings, "unet") | relevant(settings, "sifa"),
        "data": cohort_digests(settings),
    }

    def measure():
        from lusbook import secondary

        pairs = product(EXPERIMENTS, FOLDS)
        folders = {(name, fold): run(name, fold, settings, results, with_weights=True) for name, fold in pairs}
        cohorts = load_cohorts(settings, os.cpu_count())
        weights = {f"{name}/fold-{k}": file_digest(path / "weights.npz") for (name, k), path in folders.items()}
        found = secondary.run_secondary(settings, cohorts, folders)
        return found | {"inputs": provenance.contents(cohorts) | weights}

    once(folder, params, settings, measure)
    return read_tables(folder)


def _require(folder, what, command):
    """Refuse to go on where a folder's results are not there, or are damaged."""
    if not (folder / "manifest.json").exists():
        raise MissingData(f"{what} not computed for these settings; `lusbook {command}` does so")
    check_files(folder)


def _with_clips(name, digests, compute, settings, results, folder):
    """Tables of a folder that comes from real clips; they are needed only if it is not there."""
    target = study_folder(settings, results) / name
    params = {
        "settings": relevant(settings, "unet")
        | relevant(settings, "sifa")
        | {"real_iterations": settings.real_iterations},
        "data": digests,
    }
    if not is_complete(target, params):
        from lusbook import sources

        try:
            table = sources.read_covid_blues(folder)
        except MissingData:
            if (target / "manifest.json").exists():
                check_files(target)
            raise
        keep = {"folder": target, "key": checkpoint_key(params, target)}
        once(target, params, settings, lambda: compute(table, **keep))
        for trained in target.iterdir():
            if trained.is_dir():
                shutil.rmtree(trained, ignore_errors=True)  # its checkpoints
    tables = read_tables(target)
    return {key: table.fillna({"half": "", "adapted": "", "pcr": "", "condition": ""}) for key, table in tables.items()}


def cit_study(settings, results=None, folder=None):
    """Per-image results of all experiments on the real masks of CIT; what is missing is computed first.

    Parameters
    ----------
    settings : Settings
        Its ``cohorts`` do not matter.
    results : path, optional
    folder : path, optional
        Of CIT, see :func:`lusbook.cit.cit_cohorts`.

    Returns
    -------
    per_image : dict of callable
        As of :func:`study`.

    Raises
    ------
    MissingData
        When the clips are not here.
    """
    from lusbook.cit import cit_cohorts

    manifest = results_folder(results) / "cit" / "manifest.csv"
    if not manifest.exists():
        cit_cohorts(folder, manifest.parent)
    return study(settings.model_copy(update={"cohorts": str(manifest)}), results=results)


def adapted(manifest, out, settings):
    """A SIFA that is adapted to the images of a manifest; computed once, then found, interrupted ones go on.

    Parameters
    ----------
    manifest : path
        See :func:`lusbook.manifests.read_manifest`; masks are not looked at.
    out : path
        Its folder: as a run's, and like one it holds ``weights.npz``.
    settings : Settings
        Its ``cohorts`` is where the labels come from, see :func:`lusbook.loading.load_source`.

    Returns
    -------
    folder : Path
    """
    folder = Path(out).expanduser().resolve()
    check_manifest(manifest)
    path, table = manifests.read_table(manifest)
    params = {
        "experiment": ADAPTED,
        "settings": relevant(settings, "sifa"),
        "data": {"source": source_digest(settings), "target": manifests.digest(path, table)},
    }
    if not is_complete(folder, params):
        from lusbook import segment

        keep = {"folder": folder, "key": checkpoint_key(params, folder)}
        once(folder, params, settings, lambda: segment.adapt(settings, path, **keep))
        checkpoints.remove(folder)
    return folder


def realism(settings, results=None, folder=None):
    """How near the phantom is to real frames; computed once, then read.

    Parameters
    ----------
    settings : Settings
        Of simulated cohorts.
    results, folder
        As for :func:`real_clips`.

    Returns
    -------
    tables : dict of pandas.DataFrame
        Those of :func:`lusbook.comparison.run_realism`, by name.
    gallery : ndarray, shape (n, 256, 256), uint8
        Real frames that may be shown; credits are in ``tables["gallery"]``.
    """
    target = study_folder(settings, results) / "realism"
    clinic = source_parameters(settings)
    cohorts = {name: phantom_parameters(name, settings) for name in COHORTS}
    params = {"data": {"clinic": clinic, **cohorts}, "seed": settings.seed}
    if not is_complete(target, params):
        from lusbook import comparison, sources

        sources.find_covid_blues(folder)
        once(target, params, settings, lambda: comparison.run_realism(clinic, cohorts, settings.seed, folder))
    return read_tables(target), read_arrays(target).get("gallery")


# ---------------------------------------------------------------------------------------------
# Reading


def read_run(name, fold, settings, results=None, file="per_image.csv"):
    """One table of a complete run, with its experiment and fold as columns."""
    folder = run_folder(name, fold, settings, results)
    check_files(folder)
    table = store.read_table(folder / file)
    table.insert(0, "experiment", name)
    table.insert(1, "fold", fold)
    return table


def read_parts(folder, name, fold):
    """Per-image table of a complete run, as :func:`read_run` gives it, but some rows at a time.

    Parameters
    ----------
    folder : Path
        Of the run.
    name : str
        Experiment.
    fold : int

    Yields
    ------
    rows : pandas.DataFrame

    Raises
    ------
    LusbookError
        When the folder is not that of a complete run, or its table cannot be read.
    """
    check_files(folder)
    for table in store.read_parts(folder / "per_image.csv"):
        rows = table.assign(experiment=name, fold=fold)
        try:
            check_per_image(rows)
        except LusbookError as error:
            raise LusbookError(f"{folder / 'per_image.csv'}: {error}") from error
        yield rows


def readers(settings, results=None, names=tuple(EXPERIMENTS)):
    """What reads the per-image tables of the complete runs of a study; nothing is computed.

    Returns
    -------
    per_image : dict of callable
        As of :func:`study`.
    """
    runs = {pair: run_folder(*pair, settings, results) for pair in product(names, FOLDS)}
    return {pair: partial(read_parts, path, *pair) for pair, path in runs.items() if (path / "manifest.json").exists()}


def read_variants(name, settings, results=None, file="per_image.csv", **values):
    """One table of an experiment under several values of some settings, all folds; nothing is computed.

    Parameters
    ----------
    name : str
        Experiment.
    settings : Settings
    results : path, optional
    file : str
    **values
        Lists of values by the setting's name; every combination is looked for.

    Returns
    -------
    table : pandas.DataFrame
        Rows of the combinations whose folds are all complete, the values as columns.
    """
    tables = []
    for combination in product(*values.values()):
        variant = dict(zip(values, combination, strict=True))
        other = settings.model_copy(update=variant)
        if all((run_folder(name, fold, other, results) / "manifest.json").exists() for fold in FOLDS):
            tables += [read_run(name, fold, other, results, file).assign(**variant) for fold in FOLDS]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["experiment", *values])


def read_seeds(settings, results=None, file="clips", seeds=range(10)):
    """Scores of real clips under several seeds, as far as they are there; nothing is computed.

    Parameters
    ----------
    settings : Settings
    results : path, optional
    file : str
        Table of a ``real`` folder, by name.
    seeds : sequence of int

    Returns
    -------
    tables : dict of int to pandas.DataFrame
        By seed.
    """
    folders = {seed: study_folder(settings.model_copy(update={"seed": seed}), results) / "real" for seed in seeds}
    return {k: read_tables(folder)[file] for k, folder in folders.items() if (folder / "manifest.json").exists()}


def earlier_phantom():
    """Folder of the studies that an earlier version of the phantom gave: kept to compare with, never computed anew."""
    return PROJECT / "data" / "results" / "earlier-phantom"


def other_processor():
    """Folder of a study computed once more, by the same code from the same seed, on another processor."""
    return PROJECT / "data" / "results" / "other-processor"


def read_overlays(name, fold, settings, results=None):
    """The few images and masks of a complete run that figures show."""
    return read_arrays(run_folder(name, fold, settings, results))


def kept_tables(name, settings, results=None):
    """The tables of a folder of a study, by name; none where it is not there. Nothing is computed."""
    folder = study_folder(settings, results) / name
    return read_tables(folder) if (folder / "manifest.json").exists() else {}


def read_manifests(settings, results=None):
    """What a study's complete runs cost and where they ran, one row each.

    Returns
    -------
    manifests : pandas.DataFrame
        Columns experiment, fold, seconds, backend, device, cores, threads, seed, processor (which older ones lack).
    """
    root, rows = study_folder(settings, results), []
    columns = ["experiment", "fold", "seconds", "backend", "device", "cores", "threads", "seed", "processor"]
    for path in sorted(root.glob("*/fold-*/manifest.json")):
        rows.append({"experiment": path.parts[-3], "fold": int(path.parts[-2][5:]), **read_json(path)})
    return pd.DataFrame(rows, columns=columns)


def stale_runs(settings, results=None):
    """What of a study the code no longer gives: fingerprints of the parts that made its numbers have changed.

    Returns
    -------
    stale : dict of dict
        By folder, as :func:`lusbook.provenance.stale` gives them.
    """
    root = study_folder(settings, results)
    found = provenance.stale(store.read_manifests(root))
    return {str(folder.relative_to(root)): changed for folder, changed in found.items()}


def outdated(settings, results=None):
    """What of a study was computed from other data or settings than those of its name now.

    A manifest of cohorts keeps its name when its rows or files change, and a preset when its file does.

    Returns
    -------
    changed : dict of list of str
        What differs, by folder.
    """
    root, changed = study_folder(settings, results), {}
    now = {} if settings.cohorts == "phantom" else cohort_digests(settings)
    for folder, manifest in store.read_manifests(root).items():
        data = manifest["data"]
        names = [f"rows or files of {name}" for name in now if name in data and data[name] != now[name]]
        if folder.parent.name in EXPERIMENTS:
            wanted = {"settings": relevant(settings, get_experiment(folder.parent.name).method)}
            found = {"settings": read_json(folder / "params.json").get("settings", {})}
            names += store.differing(found, wanted)
        if names:
            changed[str(folder.relative_to(root))] = names
    return changed


def refuse_outdated(settings, results=None):
    """Refuse a study of which something is :func:`outdated`.

    Raises
    ------
    LusbookError
        Names what changed, and what was computed before.
    """
    if changed := outdated(settings, results):
        what = ", ".join(sorted({name for names in changed.values() for name in names}))
        listed = ", ".join(list(changed)[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise LusbookError(
            f"{study_folder(settings, results)}: {what} changed since {listed} were computed; `lusbook study "
            "--recompute` replaces these, --results names a folder for another study"
        )


def remove_stale_runs(settings, results=None):
    """Remove what other code than the checkout's computed, or is outdated, so that it is computed again."""
    for name in {*stale_runs(settings, results), *outdated(settings, results)}:
        if (folder := study_folder(settings, results) / name).exists():  # not gone with one around it
            shutil.rmtree(folder)


def refuse_damaged(settings, results=None):
    """Refuse a study of which something is damaged: what shows numbers must not replace them unasked.

    Raises
    ------
    LusbookError
        Names the file, and what replaces it.
    """
    for folder in store.manifest_folders(study_folder(settings, results)):
        check_files(folder)


def set_aside_damaged(settings, results=None):
    """Set aside all that is damaged of a study: whether a run is there, its processes tell by the manifest alone."""
    for folder in store.manifest_folders(study_folder(settings, results)):
        if store.damage(folder):
            with alone(folder):
                store.set_aside(folder)
