"""Deliberate faults in the code of a run, each of which its tests must notice: `make mutants`.

Each fault is put alone into a copy of the package, and tests/test_trials.py runs against the copy until a test fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
TESTS = "tests/test_trials.py"
NEEDED = ("lusbook", "tests", "data/presets", "pyproject.toml")  # by those tests
SECONDS = 300  # after which a fault has made the tests hang
TRIALS = "lusbook/trials.py"


class Mutant(NamedTuple):
    """A fault: a text that a file has once, and what stands there instead."""

    name: str
    file: str
    text: str
    replacement: str


STILL = "np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (size, 1))"
FAULTS = {
    "which images train": [
        ("the tested fold trains", "fold_indices(cohort, fold)[0])", "fold_indices(cohort, fold)[1])"),
        ("all folds train", "cohort.subset(fold_indices(cohort, fold)[0])", "cohort"),
        ("reduced source: whole", "if experiment.reduced:", "if False:"),
        ("reduced source: always", "if experiment.reduced:", "if True:"),
        ("reduced source: of another size", "len(target), settings.seed)", "len(target) - 8, settings.seed)"),
        ("reduced source: without the seed", "len(target), settings.seed)", "len(target), 7)"),
        (
            "joint training: one cohort",
            ".images) for name in experiment.source]",
            ".images) for name in experiment.source[:1]]",
        ),
        (
            "source and target swapped",
            "return seen[0], masks[chosen_a], seen[1]",
            "return seen[1], masks[chosen_a], seen[0]",
        ),
    ],
    "seeds": [
        ("seed without the fold", "seed = (settings.seed, fold,", "seed = (settings.seed, 0,"),
        ("seed without the setting", "seed = (settings.seed, fold,", "seed = (0, fold,"),
        ("seed without the name", "zlib.crc32(experiment.name.encode())", "0"),
        ("order of images without the seed", "(*seed, 0))", "(0, 0))"),
        ("order of source images without the seed", "(*seed, 2))", "(0, 2))"),
        ("order of target images without the seed", "(*seed, 3))", "(0, 3))"),
        ("weights of the U-Net without the seed", "unet_dropout, settings.seed,", "unet_dropout, 0,"),
        ("weights of SIFA without the seed", "seed=settings.seed,", "seed=0,"),
    ],
    "where training starts": [
        ("fine-tuning: not from the parent", 'stored[f"arr_{i}"]', "network.weights[i]"),
        ("fine-tuning: rate of a training from scratch", "rate.assign(settings.fine_tune_learning_rate)", "rate"),
        ("fine-tuning: as long as from scratch", "iterations, epochs = settings.fine_tune_iterations,", "_, _ = None,"),
        (
            "fine-tuning: epochs of a training from scratch",
            "settings.fine_tune_iterations, settings.fine_tune_epochs",
            "settings.fine_tune_iterations, settings.unet_epochs",
        ),
        ("from scratch: a rate from before", "rate.assign(settings.unet_learning_rate)", "rate"),
        ("iterations that are set do not count", "iterations = iterations or epochs", "iterations = epochs"),
        ("U-Net: all left over", "initial = [np.asarray(variable.value) for variable in state]", "initial = state"),
        (
            "U-Net: state of the optimiser left over",
            "initial = [np.asarray(variable.value) for variable in state]",
            "initial = [np.asarray(v.value) for v in model.variables] + state[len(model.variables) :]",
        ),
        ("SIFA: all left over", "initial=[np.asarray(variable.value) for variable in state],", "initial=state,"),
        ("SIFA: average left over", "state = [*state, *averages]", "state = [*state]"),
    ],
    "images and labels": [
        ("U-Net: masks of other images", "masks[chosen], transforms", "masks[:size], transforms"),
        ("SIFA: masks of other images", "masks[chosen_a], seen", "masks[chosen_b], seen"),
        ("U-Net: exact masks train", "network_masks(training[name].masks)", "network_masks(training[name].truth)"),
        ("SIFA: exact masks train", "network_masks(source.masks)", "network_masks(source.truth)"),
        (
            "SIFA: labels in target images",
            "adapt(source, network_images(target.images),",
            "adapt(source, network_images(target.images) + 0.001 * network_masks(target.masks),",
        ),
    ],
    "augmentation": [
        ("U-Net: intensity stays", "vary_intensity(images[chosen], rng, settings.augment_intensity)", "images[chosen]"),
        ("SIFA: intensity stays", "vary_intensity(x, rng, settings.augment_intensity) for", "x for"),
        (
            "SIFA: target's intensity stays",
            "for x in (a[chosen_a], b[chosen_b])]",
            "for x in (a[chosen_a],)] + [b[chosen_b]]",
        ),
        (
            "SIFA: source's intensity stays",
            "for x in (a[chosen_a], b[chosen_b])]",
            "for x in (b[chosen_b],)]; seen = [a[chosen_a], *seen]",
        ),
        ("U-Net: no transforms", "random_transforms(rng, size, settings.image_size, settings)", STILL),
        ("U-Net: shifts of another size", "rng, size, settings.image_size,", "rng, size, size,"),
        (
            "U-Net: transforms without the seed",
            "random_transforms(rng, size, settings",
            "random_transforms(np.random.default_rng(iteration), size, settings",
        ),
        ("SIFA: no transforms", "random_transforms(rng, size, side, settings)", STILL),
        ("SIFA: target moved with the source", 'settings) for _ in "ab"]', "settings)] * 2"),
    ],
    "image pools": [
        ("stored batch of another slot", "pool.batches[slot or 0]", "pool.batches[0]"),
        ("generated batches are not kept", "pool.put(slot, np.asarray(losses.pop(name)))", "losses.pop(name)"),
        ("generated batches of the other domain", '("fake_a", "fake_b")', '("fake_b", "fake_a")'),
        ("stored batches of the other domain", "*transforms, *stored,", "*transforms, *stored[::-1],"),
        ("stored batches are never shown", 'np.array(used, "float32")', 'np.zeros(2, "float32")'),
        (
            "one draw for both pools",
            "(pool.draw(rng, iteration) for pool in pools)",
            "[pools[0].draw(rng, iteration)] * 2",
        ),
        ("pools of another size", "sifa.ImagePool(settings.sifa_pool_size,", "sifa.ImagePool(1,"),
    ],
    "snapshots and averages": [
        ("no average", "network.follow(iteration)", "None"),
        ("average an iteration late", "network.follow(iteration)", "network.follow(iteration - 1)"),
        ("average of another decay", "settings.sifa_average_decay", "0.5"),
        ("snapshots an iteration early", "if iteration in taken:  # the", "if iteration + 1 in taken:  # the"),
        (
            "snapshots of the last weights",
            "if iteration in taken:  # the",
            "for iteration in [k for k in taken if k <= iteration]:  # the",
        ),
        (
            "snapshots are not loaded",
            "else:\n            reset(network.weights, checkpoints.load_snapshot(folder, iteration))",
            "else:\n            checkpoints.load_snapshot(folder, iteration)",
        ),
        ("every snapshot is the last", "in taken:\n        load(iteration)", "in taken:\n        load(taken[-1])"),
        ("translations of the first snapshots", "evenly(np.array(taken), PICTURED)", "taken[:PICTURED]"),
        (
            "chosen weights are not loaded",
            "target)).items():\n        load(iteration)",
            "target)).items():\n        load(taken[-1])",
        ),
        (
            "chosen weights by every route",
            "{route: probabilities(network.routes[route], subset.images) > settings.threshold}",
            "predict(network, experiment, name, subset.images, settings.threshold)",
        ),
        (
            "chosen weights tested on a part",
            "cohorts.items():\n            index = fold_indices(cohort, fold)[1]\n            subset",
            "tested.items():\n            index = fold_indices(cohort, fold)[1]\n            subset",
        ),
        ("average of the last snapshot", "[average.value for average in network.averages]", "network.weights"),
        (
            "average kept as the last weights",
            '"weights": weights,',
            '"weights": [np.asarray(v.value) for v in network.weights],',
        ),
        ("weights in another order", '"encoder", "decoder", "segmenter")', '"decoder", "encoder", "segmenter")'),
        ("weights without the decoder", '"encoder", "decoder", "segmenter")', '"encoder", "segmenter")'),
    ],
    "statistics of batch normalisations": [
        ("none before a snapshot", "network.refresh()\n            checkpoints.", "checkpoints."),
        ("none for the average", "network.refresh()\n        else:", "pass\n        else:"),
        (
            "average: of the weights before",
            "reset(network.weights, [average.value for average in network.averages])\n            network.refresh()",
            "network.refresh()\n            reset(network.weights, [average.value for average in network.averages])",
        ),
        ("of the target alone", "network, evenly(a, STATISTICS),", "network, evenly(b, STATISTICS),"),
        ("of the source alone", "evenly(b, STATISTICS))", "evenly(a, STATISTICS))"),
        ("of the source's first images", "network, evenly(a, STATISTICS),", "network, a[:STATISTICS],"),
        ("of the target's first images", "evenly(b, STATISTICS))", "b[:STATISTICS])"),
        ("source not translated", "[network.generator(part, training=False) for part in", "[part for part in"),
        (
            "target translated",
            "(translated, filled_batches(b))",
            "(translated, [network.generator(part, training=False) for part in filled_batches(b)])",
        ),
        ("translated images alone count", "np.mean(found, axis=0)", "found[0]"),
        ("target images alone count", "np.mean(found, axis=0)", "found[1]"),
        ("nothing is set", "    set_statistics(network.encoder, np", "    (network.encoder, np"),
    ],
    "learning curves": [
        (
            "U-Net: snapshots an iteration early",
            "if iteration in taken:\n            checkpoints",
            "if iteration + 1 in taken or iteration == iterations:\n            checkpoints",
        ),
        (
            "U-Net: every point of the last weights",
            "reset(network.weights, checkpoints.load_snapshot(folder, iteration))\n        points",
            "points",
        ),
        (
            "fine-tuning: as many points as a training",
            "if experiment.parent:\n        count",
            "if False:\n        count",
        ),
        (
            "no point where settings want none",
            "selection.snapshot_iterations(iterations, count) if count else []",
            "selection.snapshot_iterations(iterations, count or 1)",
        ),
        ("on training images", "evenly(fold_indices(cohort, fold)[1], CURVE)", "fold_indices(cohort, fold)[0]"),
        ("on all test images", "evenly(fold_indices(cohort, fold)[1], CURVE)", "fold_indices(cohort, fold)[1]"),
        (
            "on the first test images",
            "evenly(fold_indices(cohort, fold)[1], CURVE)",
            "fold_indices(cohort, fold)[1][:CURVE]",
        ),
        (
            "U-Net: on another fold",
            "curve_cohorts(cohorts, fold), settings, iteration)",
            "curve_cohorts(cohorts, (fold + 1) % 3), settings, iteration)",
        ),
        ("SIFA: on another fold", "curve_cohorts(cohorts, fold), {}", "curve_cohorts(cohorts, (fold + 1) % 3), {}"),
        (
            "the threshold is fixed",
            "settings.threshold), name, cohort)\n        tables",
            "0.5), name, cohort)\n        tables",
        ),
        (
            "all cohorts and routes as one",
            'groupby(["cohort", "route"], sort=False)',
            'groupby(["cohort"], sort=False)',
        ),
        ("snapshots: by the other route", "row.route == default_route", "row.route != default_route"),
        ("snapshots: Dice against exact masks", '["dice"].add_prefix', '["dice_truth"].add_prefix'),
    ],
    "more patients": [
        ("U-Net: they train", "= train_unet(experiment, training,", "= train_unet(experiment, more or training,"),
        ("SIFA: they train", "= train_sifa(experiment, training,", "= train_sifa(experiment, more or training,"),
        ("one condition alone is tested", "in more.items()", "in list(more.items())[:1]"),
        (
            "the threshold is fixed",
            "settings.threshold), name, cohort)\n                for",
            "0.5), name, cohort)\n                for",
        ),
        (
            "named by their own cohort",
            "settings.threshold), name, cohort)\n                for",
            "settings.threshold), cohort.name, cohort)\n                for",
        ),
        (
            "tested on the direct route alone",
            "    score(predict(network, experiment, name,",
            "    score(predict(network, experiment, cohort.name,",
        ),
    ],
    "the label-free criterion": [
        (
            "it sees tested images",
            "images = training[experiment.target].images",
            "images = cohorts[experiment.target].images",
        ),
        (
            "it sees the source",
            "images = training[experiment.target].images",
            "images = training[experiment.source[0]].images",
        ),
        ("it sees translated images", 'network.routes["direct"], seen)', 'network.routes["translated"], seen)'),
        (
            "it sees the first images",
            "evenly(unlabelled, UNLABELLED)",
            "unlabelled[:UNLABELLED]",
        ),
    ],
    "inference": [
        ("batches in another order", "np.resize(part,", "np.resize(part[::-1],"),
        ("padding is kept", "[: len(images)]", "[:]"),
        (
            "an incomplete batch is lost",
            "range(0, len(images), INFERENCE_BATCH)",
            "range(0, len(images) // INFERENCE_BATCH * INFERENCE_BATCH or 1, INFERENCE_BATCH)",
        ),
        ("batches of several sizes", "np.resize(part, (INFERENCE_BATCH, *part.shape[1:]))", "part"),
        (
            "networks' routes swapped",
            '{"translated": translated, "direct": direct}',
            '{"translated": direct, "direct": translated}',
        ),
        ("source tested directly by default", 'return "translated" if experiment', 'return "direct" if experiment'),
        (
            "target translated by default",
            'cohort in experiment.source else "direct"',
            'cohort not in experiment.source else "direct"',
        ),
        (
            "routes of the other cohort",
            'if name in experiment.source else ["direct"]',
            'if name not in experiment.source else ["direct"]',
        ),
    ],
    "tables and frames": [
        (
            "another fold is tested",
            "overlays = test(experiment, fold,",
            "overlays = test(experiment, (fold + 1) % 3,",
        ),
        (
            "snapshots tested on another fold",
            "= test_snapshots(experiment, fold,",
            "= test_snapshots(experiment, (fold + 1) % 3,",
        ),
        ("the threshold is fixed", "images) > threshold for route", "images) > 0.5 for route"),
        (
            "the threshold of chosen weights is fixed",
            "subset.images) > settings.threshold}",
            "subset.images) > 0.5}",
        ),
        (
            "Dice against exact masks",
            "found = metrics.per_image(masks, cohort.masks)",
            "found = metrics.per_image(masks, cohort.masks if cohort.truth is None else cohort.truth)",
        ),
        (
            "dice_truth against labels",
            "metrics.per_image(masks, cohort.truth)",
            "metrics.per_image(masks, cohort.masks)",
        ),
        ("images are numbered anew", "np.arange(len(cohort)) if index is None else index", "np.arange(len(cohort))"),
        ("frames' place in the fold", '_index"] = index[shown]', '_index"] = shown'),
        ("prediction of another frame", "masks[shown] for route", "masks[0] for route"),
        (
            "translation to the own domain",
            '"source" if cohort in experiment.source else "target"',
            '"target" if cohort in experiment.source else "source"',
        ),
        ("grey values of snapshots", "(image + 0.9) / 1.8", "(image + 1) / 2"),
    ],
}
MUTANTS = [Mutant(f"{part}: {name}", TRIALS, *texts) for part, faults in FAULTS.items() for name, *texts in faults]


def count(mutant, project=None):
    """How often the text of a mutant is in its file: once, where it applies."""
    project = project or PROJECT
    return (project / mutant.file).read_text().count(mutant.text)


def copy(folder, project):
    """Copy what the tests need."""
    for name in NEEDED:
        source, target = project / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def run_tests(folder):
    """Run the tests of a copy until one fails.

    Returns
    -------
    status : int or None
        Of pytest; None where it took too long.
    said : str
        The test that failed and why, or the end of what pytest said.
    """
    command = [sys.executable, "-m", "pytest", TESTS, "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=short"]
    command += ["--noconftest"]  # nor plugins: these tests need neither, and both take seconds
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return None, f"more than {SECONDS} s"
    failed = re.findall(rf"^(?:FAILED|ERROR) (?:{TESTS}::)?(.*)", done.stdout, re.MULTILINE)
    return done.returncode, failed[0] if failed else (done.stdout + done.stderr)[-2000:].strip()


def verdict(mutant, project=None):
    """What the tests make of one mutant.

    Parameters
    ----------
    mutant : Mutant or None
        None: the package as it is.

    Returns
    -------
    outcome : str
        ``killed``, ``survived`` (for the package as it is, that it should), ``does not apply`` or ``broken``: where
        pytest found no test that fails, but something else does.
    said : str
    """
    project = project or PROJECT
    if mutant and (times := count(mutant, project)) != 1:
        return "does not apply", f"{mutant.file} has its text {times} times"
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy(folder, project)
        if mutant:
            path = folder / mutant.file
            path.write_text(path.read_text().replace(mutant.text, mutant.replacement))
            try:
                compile(path.read_text(), str(path), "exec")
            except SyntaxError as error:
                return "broken", str(error)
        status, said = run_tests(folder)
    return {0: "survived", 1: "killed", None: "killed"}.get(status, "broken"), said


def main(arguments=None):
    """Print a table; exit status 1 unless every mutant applies and is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutants whose names have one of these words in them")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    chosen = [m for m in MUTANTS if not options.words or any(word in m.name for word in options.words)]
    outcome, said = verdict(None)
    if outcome != "survived":
        print(f"the tests fail without any fault, so nothing can be said of faults: {said}")
        return 1
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (outcome, said) in zip(chosen, pool.map(verdict, chosen), strict=True):
            failed += outcome != "killed"
            print(f"{outcome:14} {mutant.name:62} {said.splitlines()[0] if outcome == 'killed' else said}", flush=True)
    killed = len(chosen) - failed
    print(f"{killed} of {len(chosen)} faults were noticed, {time.monotonic() - start:.0f} s")
    return int(failed > 0 or not chosen)


if __name__ == "__main__":
    sys.exit(main())
