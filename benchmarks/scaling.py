"""Cost and memory an image, from the paper's 1,303 images to a hundred times as many.

Each measurement runs in a process of its own, so that its peak of memory is its own; cost is time of the processor, so
that what else the machine does matters less. Frames are simulated, and masks measured, in chunks that are dropped. What
would take longer than a limit stops there; the file says at how many images. What is measured is written at once.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import product
from types import SimpleNamespace
from typing import Annotated
from unittest.mock import Mock, patch

import common
import numpy as np
import typer

COUNTS = (1303, 13030, 130300)
SIDE, CHUNK = 256, 160  # px; images, one patient of the phantom
HELD = (652, 1303, 2606)  # frames of a run's cohorts in memory: enough for the slope, too few to fill a small machine


def phantom(count, limit):
    """Simulate frames one patient after the other, and drop them.

    Returns
    -------
    seconds : float
    images : int
        Fewer than ``count`` where ``limit`` seconds were over before.
    """
    from lusbook.phantom import simulate

    start, done = time.process_time(), 0
    while done < count and time.process_time() - start < limit:
        chunk = min(CHUNK, count - done)
        simulate("stream", plan=((chunk,),), seed=done, diversity=0.5, consistency=0.5)
        done += chunk
    return time.process_time() - start, done


def metrics(count, limit):
    """Measure masks in chunks, and keep their tables; making the masks is not timed."""
    import pandas as pd

    from lusbook.metrics import per_image

    rng, spent, tables = np.random.default_rng(0), 0.0, []
    mask = rng.random((CHUNK, SIDE, SIDE), "float32") < 0.1
    for start in range(0, count, CHUNK):
        part = mask[: count - start]
        prediction = np.roll(part, start // CHUNK + 1, axis=1)
        begin = time.process_time()
        tables.append(per_image(prediction, part))
        spent += time.process_time() - begin
    begin = time.process_time()
    pd.concat(tables, ignore_index=True)
    return spent + time.process_time() - begin, count


def tested_images(count):
    """Images of a study, with as many patients to an image as the paper."""
    import pandas as pd

    from lusbook.experiments import FOLDS
    from lusbook.phantom import PLAN

    parts = []
    plan = [(name, fold, number) for name, folds in PLAN.items() for fold in FOLDS for number in folds[fold]]
    copies = max(1, round(count / sum(number for *_, number in plan)))
    for name, fold, number in plan:
        patients = [f"{name}-{fold}-{number}-{copy}" for copy in range(copies)]
        parts.append({"cohort": name, "fold": fold, "patient": np.repeat(patients, number)})
    images = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return images.iloc[np.linspace(0, len(images) - 1, count).astype(int)].assign(image=np.arange(count))


def write(count, root):
    """Write the runs of a study, every experiment on every image, as a study leaves them."""
    import pandas as pd

    from lusbook import store
    from lusbook.experiments import EXPERIMENTS
    from lusbook.settings import make_settings

    start, rng, size, settings = time.process_time(), np.random.default_rng(0), SIDE * SIDE, make_settings("smoke")
    for (fold, images), experiment in product(tested_images(count).groupby("fold"), EXPERIMENTS.values()):
        rows = []
        for route in ("direct", "translated") if experiment.method == "sifa" else ("direct",):
            part = images if route == "direct" else images[images["cohort"].isin(experiment.source)]
            tp, fp, fn = (rng.integers(1, size // 8, len(part)) for _ in range(3))
            values = {"tp": tp, "fp": fp, "fn": fn, "tn": size - tp - fp - fn, "dice": 2 * tp / (2 * tp + fp + fn)}
            values |= {"sensitivity": tp / (tp + fn), "specificity": values["tn"] / (values["tn"] + fp)}
            rows.append(part.drop(columns="fold").assign(route=route, **values))
        folder = store.run_folder(experiment.name, fold, settings, root)
        folder.mkdir(parents=True)
        outcome = {"tables": {"per_image": pd.concat(rows)}, "overlays": {}, "weights": [], "machine": {}}
        store.write(folder, {"data": {"images": str(count)}}, outcome, settings, 0.0)
    return time.process_time() - start, count


def tables(count, limit):
    """The tables of a study, with the tests of section 3; reading the runs is part of it, as of what follows."""
    from lusbook import patients, statistics
    from lusbook import tables as made

    makers = (made.table1, made.table2, made.route_table, made.fold_table)
    return timed(count, *makers, patients.empty_masks, statistics.section3_tests)


def tests(count, limit):
    """The paired tests over patients; their permutations have a bound, and their number of patients grows."""
    from lusbook.patients import compare_patients

    return timed(count, compare_patients)


def bootstrap(count, limit):
    """Means of all experiments with their intervals over patients."""
    from lusbook.patients import image_means

    return timed(count, image_means)


def figure(count, limit):
    """The figure of all Dice, drawn."""
    import io

    from lusbook import figures

    figures.use_style()
    return timed(count, lambda runs: figures.dice_distribution(runs).savefig(io.BytesIO(), format="png"))


def timed(count, *makers):
    """Seconds of what is made from a study of so many images, and their number; another process writes the study."""
    from lusbook import runs
    from lusbook.settings import make_settings

    with tempfile.TemporaryDirectory() as root:
        alone("write", count, root)
        study, start = runs.readers(make_settings("smoke"), root), time.process_time()
        for make in makers:
            make(study)
        return time.process_time() - start, count


def held(count, limit):
    """All that a U-Net's run holds before its first iteration; nothing is trained."""
    from lusbook import trials
    from lusbook.cohort import Cohort
    from lusbook.experiments import EXPERIMENTS
    from lusbook.settings import make_settings

    start, rng = time.process_time(), np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE), np.uint8)
    folds = np.arange(count) * 3 // count
    patients = np.char.add("p", folds.astype(str))
    cohort = Cohort("covid", images, images > 200, patients, folds, images > 220)
    optimizer = SimpleNamespace(rate=SimpleNamespace(assign=lambda rate: None))
    network = SimpleNamespace(optimizer=optimizer, step=None, state=[], initial=[], weights=[])
    stubs = {"unet_network": lambda *settings: network, "fit": Mock(side_effect=KeyboardInterrupt)}
    with patch.multiple(trials, **stubs), suppress(KeyboardInterrupt):
        trials.run_trial(EXPERIMENTS["unet-covid"], 0, make_settings("paper"), {"covid": cohort})
    return time.process_time() - start, count


PARTS = {part.__name__: part for part in (phantom, metrics, tables, tests, bootstrap, figure)}


def alone(name, count, last):
    """What a part's own process answers: seconds, images, peak of memory (GiB)."""
    path = os.pathsep.join([str(common.PROJECT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, __file__, "--one", json.dumps([name, count, last])]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}, {count} images: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def here(name, count, last):
    """What :func:`alone` gives, of this process: its peak of memory is that of all it ever did."""
    from lusbook.estimate import peak_memory

    seconds, images = (PARTS | {"held": held, "write": write})[name](count, last)
    return {"seconds": seconds, "images": images, "peak": peak_memory()}


def main(
    quick: common.Quick = False,
    out: common.Out = None,
    limit: Annotated[float, typer.Option(help="Seconds that simulating one number of frames may take.")] = 180,
    part: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; all by default.")] = None,
    only_one: Annotated[str, typer.Option("--one", hidden=True)] = "",
):
    """Measure each part at each number of images."""
    if only_one:
        print(json.dumps(here(*json.loads(only_one))))
        return
    rows, counts, held_counts, measure = [], COUNTS, HELD, alone
    if quick:
        counts, held_counts, limit, measure = (24, 48), (6, 12), 0.1, here
    options = {"side": SIDE, "chunk": CHUNK, "limit": limit}
    for name in part or PARTS:
        for count in counts:
            common.progress(f"{name}, {count} images")
            answer = measure(name, count, limit)
            about = {"part": name, "images": answer["images"], "asked": count}
            each = answer["seconds"] / answer["images"]
            rows.append(common.quantity(f"{name}, {count} images: an image", each, "s", **about))
            rows.append(common.quantity(f"{name}, {count} images: peak memory", answer["peak"], "GiB", **about))
            common.report("scaling", rows, out, quick, quiet=True, options=options)
    for count in held_counts:
        common.progress(f"a run that holds {count} frames")
        about = {"part": "held", "images": count, "asked": count}
        peak = measure("held", count, limit)["peak"]
        rows.append(common.quantity(f"held, {count} images: peak memory", peak, "GiB", **about))
    common.report("scaling", rows, out, quick, options=options)


if __name__ == "__main__":
    typer.run(main)
