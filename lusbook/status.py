"""Tables of the status page: how long pages and runs took, on what, and what they take on disk."""

from pathlib import Path

import pandas as pd

from lusbook.boxes import page_seconds
from lusbook.performance import BENCHMARKS, load_benchmark, machine_of
from lusbook.store import manifest_folders, read_json, results_folder
from lusbook.tables import NO_VALUE

NOTED = ("commit", "backend", "device", "cores", "threads", "seed")  # in a manifest, if it applies


def pages_table(names):
    """Seconds of each page, as last executed in place; what was not measured has a dash.

    Parameters
    ----------
    names : list of str
    """
    seconds = page_seconds()
    cells = [f"{seconds[name]}" if name in seconds else NO_VALUE for name in names]
    return pd.DataFrame({"s": cells}, index=names)


def complete_folders(root):
    """Folders with a manifest; what is inside one of them, as single trainings of a grid are, is left out."""
    folders = manifest_folders(root)
    return [folder for folder in folders if not set(folder.parents) & set(folders)]


def read_runs(results=None):
    """What every complete folder of results says of its computation.

    Parameters
    ----------
    results : path, optional
        Folder of studies.

    Returns
    -------
    runs : pandas.DataFrame
        Columns study, run, commit (its first seven digits), seconds, backend, device, cores, threads, seed, Python,
        versions, set (of versions, counted from 1); a dash where a manifest does not say, as of what needs no backend.
    """
    root = results_folder(results)
    rows = []
    for folder in complete_folders(root):
        manifest, (study, *run) = read_json(folder / "manifest.json"), folder.relative_to(root).parts
        row = {"study": study, "run": "/".join(run), "seconds": manifest["seconds"]}
        row |= {name: manifest.get(name, NO_VALUE) for name in NOTED}
        row["commit"] = row["commit"][:7]
        versions = ", ".join(f"{package} {text}" for package, text in manifest["versions"].items())
        rows.append(row | {"Python": manifest["python"], "versions": versions})
    columns = ["study", "run", "seconds", *NOTED, "Python", "versions"]
    runs = pd.DataFrame(rows, columns=columns)
    return runs.assign(set=runs.groupby(["Python", "versions"]).ngroup() + 1)


def runs_table(runs):
    """Commit, versions, seconds and device of each run, one row each."""
    columns = ["commit", "set", "seconds", "backend", "device", "cores", "threads", "seed"]
    return runs.set_index(["study", "run"])[columns]


def versions_table(runs):
    """Versions that runs were computed with: one row for each set of them, and of how many runs.

    Parameters
    ----------
    runs : pandas.DataFrame
        As :func:`read_runs`.
    """
    return runs.groupby(["set", "Python", "versions"]).size().rename("runs").reset_index(level=[1, 2])


def disk_table(results=None):
    """What each study's manifests, and the files that they name, take on disk; weights are not among these.

    Parameters
    ----------
    results : path, optional
        Folder of studies.

    Returns
    -------
    table : pandas.DataFrame
        One row a study, and ``all``: files, MB (10⁶ bytes).
    """
    root, rows = results_folder(results), []
    for folder in complete_folders(root):
        for name in ("manifest.json", *read_json(folder / "manifest.json")["files"]):
            size = (folder / name).stat().st_size / 1e6
            rows.append({"study": folder.relative_to(root).parts[0], "files": 1, "MB": size})
    table = pd.DataFrame(rows, columns=["study", "files", "MB"]).groupby("study").sum().rename_axis(None)
    table.loc["all"] = table.sum()
    return table.astype({"files": int, "MB": float}).round({"MB": 2})


def benchmarks_table(folder=""):
    """The last benchmarks: when and on what they ran, and how many of their targets they met.

    Parameters
    ----------
    folder : path, optional
        As for :func:`lusbook.performance.load_benchmark`.
    """
    rows = {}
    for path in sorted(Path(folder or BENCHMARKS).glob("*.json")):
        content = load_benchmark(path.stem, folder)
        machine = machine_of(content)
        met = [row["met"] for row in content["quantities"] if "met" in row]
        rows[path.stem] = {
            "day": machine["date"],
            "device": machine.get("device", NO_VALUE),
            "cores": machine["usable_cores"],
            "memory": f"{machine['memory_gib']:.0f} GiB",
            "quantities": len(content["quantities"]),
            "targets met": f"{sum(met)} of {len(met)}" if met else NO_VALUE,
        }
    columns = ["day", "device", "cores", "memory", "quantities", "targets met"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
