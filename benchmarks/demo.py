"""SIFA at the demo's settings: building, tracing, iterating; and what runs save by sharing a process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from typing import Annotated

import common
import numpy as np
import typer

EXPERIMENTS = ("sifa-covid-to-cap", "sifa-reduced-covid-to-cap", "sifa-cap-to-covid")
ONE = dict.fromkeys(common.THREADS, "1")
THREADS = {"--threads 2": ONE | {"TF_NUM_INTEROP_THREADS": "2"}, "--threads 1": ONE, "default threads": {}}


def probe(preset, calls, traced):
    """Build, call for the first time, and iterate, in this process; prints the seconds as JSON."""
    start = time.perf_counter()
    from lusbook import sifa
    from lusbook.settings import make_settings

    times = {"import": time.perf_counter() - start}
    settings = make_settings(preset)
    size, side = settings.sifa_batch_size, settings.image_size
    start = time.perf_counter()
    step, _ = sifa.make_step(sifa.build_networks(side, settings.sifa_width), settings)
    times["build"] = time.perf_counter() - start
    images, masks, same = (
        common.random_images(size, side),
        common.random_masks(size, side),
        common.identity_transforms(size),
    )
    arrays = images, masks, images, same, same, images, images, np.float32([0, 0])
    with nullcontext() if traced else common.untraced():
        times["first call"] = common.seconds(lambda: step(*arrays))
        times["iteration"] = common.interleaved({"step": lambda: step(*arrays)}, calls)["step"]
    print(json.dumps({"times": times, "machine": common.machine()}))


def python(*arguments, **environment):
    """Run this Python on the project in a process of its own.

    Returns
    -------
    seconds : float
    output : str
    """
    path = os.pathsep.join([str(common.PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def run(experiments, folds, preset, iterations):
    """Seconds of one ``lusbook run`` of experiments and folds, from its start to its end."""
    with tempfile.TemporaryDirectory() as results:
        options = [option for fold in folds for option in ("--fold", str(fold))]
        options += ["--preset", preset, "--set", f"sifa_iterations={iterations}", "--results", results]
        options += ["--threads", "2"]
        return python("-c", "from lusbook.cli import main; main()", "run", *experiments, *options)[0]


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    rounds: Annotated[int, typer.Option(help="Processes of each kind that build and iterate.")] = 3,
    iterations: Annotated[int | None, typer.Option(help="Of a run; the demo's by default.")] = None,
    runs: Annotated[bool | None, typer.Option(help="Measure whole runs too; by default unless --quick.")] = None,
    only_probe: Annotated[str, typer.Option("--probe", hidden=True)] = "",
):
    """Measure SIFA at the demo's settings, in processes of their own, in turns."""
    if only_probe:
        probe(**json.loads(only_probe))
        return
    from lusbook.loading import load_cohorts
    from lusbook.settings import make_settings

    preset, calls, folds = ("smoke", 1, (0,)) if quick else ("demo", 30, (0, 1, 2))
    rounds = 1 if quick else rounds
    settings = make_settings(preset)
    iterations = iterations or settings.sifa_iterations
    kinds = dict(list(THREADS.items())[: 1 if quick else None])
    found = {threads: [] for threads in kinds}
    for index in range(rounds):
        for threads, environment in kinds.items():
            common.progress(f"process {index + 1} of {rounds}, {threads}")
            arguments = __file__, "--probe", json.dumps({"preset": preset, "calls": calls, "traced": not quick})
            found[threads].append(json.loads(python(*arguments, **environment)[1].splitlines()[-1]))
    rows = []
    for threads, answers in found.items():
        for name, target in (("import", None), ("build", None), ("first call", 8.0), ("iteration", 0.1)):
            values = np.ravel([answer["times"][name] for answer in answers])
            goal = target if threads == "--threads 2" else None
            rows.append(common.quantity(f"{threads}: {name}", values, target=goal))
    computed = answers[-1]["machine"] | {"threads": {}}
    options = {"preset": preset, "iterations": iterations, "folds": folds, "computed_on": computed}
    common.report("demo", rows, out, quick, quiet=True, options=options)
    if runs or (runs is None and not quick):
        load_cohorts(settings)  # simulated once, then kept: no run should pay for it
        count = len(EXPERIMENTS) * len(folds)
        alone = []
        for turn in ("before", "after"):
            common.progress(f"one run in a process of its own, {turn} the others")
            alone.append(run(EXPERIMENTS[:1], folds[:1], preset, iterations))
            if turn == "before":
                common.progress(f"{count} runs in one process")
                together = run(EXPERIMENTS, folds, preset, iterations)
        one = float(np.mean(alone))
        # Together they start once and train n times: start + n * training; alone start + training.
        start = (count * one - together) / (count - 1)
        rows.append(common.quantity("one run in a process of its own", alone))
        rows.append(common.quantity(f"{count} runs in one process", together))
        rows.append(common.quantity("start-up that runs share", start))
        rows.append(common.quantity("share of start-up in one run", start / one, ""))
        name = f"{count} runs in one process / {count} times one run"
        rows.append(common.ratio(name, [together], [count * one], 0.75))
    common.report("demo", rows, out, quick, options=options)


if __name__ == "__main__":
    typer.run(main)
