"""A study of a thousand runs: what scheduling, resuming and reading it takes, beside the runs themselves.

The study is the grid of the chapter `dose-response`, with more levels and seeds. Its runs are not trained: `lusbook` is
replaced by a program that puts there what a run leaves, so that all that is timed is the work around them.
"""

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import common
import typer

LEVELS, SEEDS = 7, 3  # of the grid: 1,098 trainings
STUB = """#!{python}
import json, os, shutil, sys
arguments = sys.argv[1:]
if "gather" in arguments:
    os.execv({lusbook!r}, [{lusbook!r}, *arguments])
for part in json.load(open({groups!r}))[arguments[1]]:
    if not os.path.exists(os.path.join({grid!r}, part, "manifest.json")):
        shutil.copytree(os.path.join({made!r}, part), os.path.join({grid!r}, part), dirs_exist_ok=True)
"""


def make_runs(settings, folder, levels, seeds):
    """Write every run of the grid, with tables of the size that one leaves.

    Returns
    -------
    groups : dict of list of str
        Names of the runs by the group that shares a process.
    """
    import pandas as pd

    from lusbook import dose, store

    groups, rows = {}, pd.DataFrame({"cohort": ["covid", "cap"], "patient": ["covid-1", "cap-1"], "images": [160, 148]})
    rows = rows.assign(diversity=0.5, route="direct", dice=0.5, dice_truth=0.5, sensitivity=0.5, specificity=0.9)
    machine = {"backend": "none", "device": "none", "cores": os.cpu_count(), "threads": 1}
    for group, trainings in dose.design(levels, seeds).items():
        for training in trainings:
            name = dose.part_name(training)
            groups.setdefault(group, []).append(name)
            (folder / dose.FOLDER / name).mkdir(parents=True)
            seeded = settings.model_copy(update={"seed": settings.seed + training["seed"]})
            params = dose._params(training, seeded, levels)
            outcome = {"tables": {"patients": rows}, "overlays": {}, "weights": [], "machine": machine}
            store.write(folder / dose.FOLDER / name, params, outcome, seeded, 1.0)
    return groups


def put_stub(place, groups, made, grid):
    """Put a Python and a `lusbook` into a folder, of which the latter computes nothing.

    Returns
    -------
    python : str
    """
    place.mkdir()
    (place / "groups.json").write_text(json.dumps(groups))
    lusbook = str(Path(sys.executable).with_name("lusbook"))
    paths = {"made": str(made), "grid": str(grid), "groups": str(place / "groups.json")}
    texts = {
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "lusbook": STUB.format(python=sys.executable, lusbook=lusbook, **paths),
    }
    for name, text in texts.items():
        (place / name).write_text(text)
        (place / name).chmod(stat.S_IRWXU)
    return str(place / "python")


def reading(settings, results, levels, seeds):
    """Calls that read the whole study, by name."""
    from lusbook import dose, runs, status, store

    return {
        "check of every file": lambda: runs.set_aside_damaged(settings, results),
        "manifests": lambda: store.read_manifests(store.study_folder(settings, results)),
        "what is stale": lambda: runs.stale_runs(settings, results),
        "status": lambda: status.read_runs(results),
        "table of all runs": lambda: dose.gather(settings, results, levels, seeds),
    }


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    cores: Annotated[int, typer.Option(help="Processes at a time.")] = 2,
):
    """Schedule, resume and read a study whose runs cost nothing."""
    from lusbook import dose, graph, store
    from lusbook.settings import make_settings

    settings, (levels, seeds) = make_settings("demo"), (2, 1) if quick else (LEVELS, SEEDS)
    rows, kept, design = [], sys.executable, {"levels": levels, "seeds": seeds}
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        study = store.study_folder(settings, place / "results")
        study.mkdir(parents=True)
        grid = dose.folder_of(settings, place / "results", levels, seeds)
        writing = time.perf_counter()
        groups = make_runs(settings, place / "made", levels, seeds)
        writing = time.perf_counter() - writing
        count = sum(map(len, groups.values()))

        def add(what, seconds):
            rows.append(common.quantity(f"{count} runs: {what}", seconds, "s", runs=count))
            common.print_table(rows[-1:])

        def compute():
            start = time.perf_counter()
            if graph.compute("dose-response", study, "demo", cores=cores, **design):
                raise SystemExit("the grid was not completed")
            return time.perf_counter() - start

        add("writing their files", writing)
        try:
            sys.executable = put_stub(place / "stub", groups, place / "made" / dose.FOLDER, grid)
            add("from nothing to the table", compute())
            again = compute()
            shutil.rmtree(grid / groups[next(iter(groups))][-1])
            forget(grid)
            add("resumed when one is missing", compute())
            add("repeated when all are there", again)
        finally:
            sys.executable = kept
        for what, call in reading(settings, place / "results", **{"levels": levels, "seeds": seeds}).items():
            if what == "table of all runs":
                forget(grid)
            start = time.perf_counter()
            call()
            add(what, time.perf_counter() - start)
    common.report("many_runs", rows, out, quick, options={"levels": levels, "seeds": seeds, "groups": len(groups)})


def forget(grid):
    """Remove the table of a grid, so that it is put together again."""
    for path in grid.iterdir():
        if path.is_file():
            path.unlink()


if __name__ == "__main__":
    typer.run(main)
