"""Studies whose Snakemake or runs are killed at random moments, and started again, against undisturbed ones."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import common
import numpy as np
import psutil
import typer

WATCH_SECONDS = 0.2  # between looks at what is finished


def command(results, seed, set_, cores):
    """The command of one study: the same at every start."""
    program = [str(Path(sys.executable).with_name("lusbook")), "study", "--preset=smoke", f"--results={results}"]
    return [*program, f"--cores={cores}", f"--set=seed={seed}", *(f"--set={assignment}" for assignment in set_)]


def start(results, *options):
    """Start a study; what it says goes into a file beside its results."""
    environment = {**os.environ, "LUSBOOK_COVID_BLUES": ""}
    with open(f"{results}.log", "a") as log:
        return subprocess.Popen(command(results, *options), stdout=log, stderr=log, env=environment)


def find(results, word):
    """Processes that compute into a folder of studies and whose command has a word, whoever started them."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        line = process.info["cmdline"] or []
        if word in line and any(part.endswith(str(results)) for part in line) and process.info["name"] != "bash":
            found.append(process)
    return found


def kill(rng, results):
    """Kill Snakemake or one of the runs, as chance has it; returns which, or nothing when neither is there."""
    kinds = {"Snakemake": find(results, "snakemake"), "run": find(results, "run")}
    kinds = {kind: processes for kind, processes in kinds.items() if processes}
    if not kinds:
        return ""
    kind = rng.choice(sorted(kinds))
    try:
        rng.choice(kinds[kind]).kill()
    except psutil.NoSuchProcess:  # ended meanwhile
        return ""
    return kind


def watch(finished, results):
    """Note what is finished; a run that was and was written anew counts as computed again."""
    again = 0
    for path in Path(results).glob("*/*/fold-*/manifest.json"):
        try:
            seen = path.stat().st_ino, path.read_text("utf-8")
        except OSError:
            continue
        again += finished.setdefault(path, seen) != seen
        finished[path] = seen
    return again


def disturbed(results, seeds, mean, rng, options):
    """Compute studies under kills, from their start until all are complete.

    Returns
    -------
    counts : dict of int
        Kills of ``Snakemake`` and of a ``run``, ``starts`` of the command, and finished runs that were computed
        ``again``.
    """
    counts, finished = {"Snakemake": 0, "run": 0, "starts": 0, "again": 0}, {}
    due = time.monotonic() + rng.expovariate(1 / mean)
    for seed in seeds:
        status = 1
        while status:
            process, before = start(results, seed, *options), counts["Snakemake"] + counts["run"]
            counts["starts"] += 1
            while (status := process.poll()) is None:
                counts["again"] += watch(finished, results)
                if time.monotonic() > due and (kind := kill(rng, results)):
                    counts[kind] += 1
                    due = time.monotonic() + rng.expovariate(1 / mean)
                    common.progress(f"seed {seed}: {len(finished)} runs finished; killed {kind}")
                time.sleep(WATCH_SECONDS)
            if status and counts["Snakemake"] + counts["run"] == before:
                raise SystemExit(f"a study failed that nothing was done to, see {results}.log")
    counts["again"] += watch(finished, results)
    return counts


def compare(results, expected):
    """Tables, parameters, images and weights of all runs; how many there are, and how many are equal."""
    paths = [path for path in sorted(Path(expected).glob("*/*/fold-*/*")) if path.name != "manifest.json"]
    equal = 0
    for path in paths:
        other = Path(results) / path.relative_to(expected)
        if path.suffix != ".npz":
            equal += other.exists() and other.read_bytes() == path.read_bytes()
        elif other.exists():
            with np.load(path) as one, np.load(other) as two:
                equal += one.files == two.files and all(np.array_equal(one[key], two[key]) for key in one.files)
    return len(paths), equal


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    mean: Annotated[float, typer.Option(help="Seconds between kills, on average.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the moments, and of what is killed.")] = 0,
    studies: Annotated[int, typer.Option(help="Studies of 24 runs, which differ in their seed.")] = 3,
    iterations: Annotated[int, typer.Option(help="Of every training.")] = 200,
    cores: Annotated[int, typer.Option(help="Processes at a time.")] = 2,
    keep: Annotated[Path | None, typer.Option(help="New folder for results and logs; else they are removed.")] = None,
):
    """Compute studies twice, left alone and under kills, and compare them."""
    mean, studies, iterations = (10.0, 1, 5) if quick else (mean, studies, iterations)
    folder = Path(keep or tempfile.mkdtemp(prefix="lusbook-kills-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("unet_iterations", "fine_tune_iterations", "sifa_iterations")
    options = [f"{kind}={iterations}" for kind in kinds], cores
    seeds, alone, under = range(studies), folder / "alone", folder / "killed"
    began = time.perf_counter()
    for number in seeds:
        common.progress(f"seed {number}, left alone")
        if start(alone, number, *options).wait():
            raise SystemExit(f"a study that was left alone failed, see {alone}.log")
    middle = time.perf_counter()
    counts = disturbed(under, seeds, mean, random.Random(seed), options)
    ended = time.perf_counter()
    files, equal = compare(under, alone)
    runs = len(list(alone.glob("*/*/fold-*/manifest.json")))
    kills = counts["Snakemake"] + counts["run"]
    rows = [
        common.quantity("runs", runs, ""),
        common.quantity("kills of Snakemake", counts["Snakemake"], ""),
        common.quantity("kills of a run's process", counts["run"], ""),
        common.quantity("seconds for each kill", (ended - middle) / max(1, kills)),
        common.quantity("starts of the command", counts["starts"], ""),
        common.quantity("finished runs that were computed once", runs - counts["again"], "", runs, "at least"),
        common.quantity("files compared", files, ""),
        common.quantity("files equal to those of studies left alone", equal, "", files, "at least"),
        common.quantity("studies left alone", middle - began),
        common.quantity("studies under kills", ended - middle),
    ]
    about = {"mean": mean, "seed": seed, "studies": studies, "iterations": iterations, "cores": cores}
    common.report("random_kills", rows, out, quick, options=about)
    if keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
