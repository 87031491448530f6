"""Fingerprints: numbers that each part of the code gives from small input in seconds, kept beside the results.

A manifest names the fingerprints of the parts that made its numbers. While the code gives a fingerprint, what was
computed before stands, however the code was moved or reworded; when numbers are meant to change, ``make fingerprints``
writes those of the parts that did, and what depends on them is stale. Values are losses by iteration, counts of
pixels, means and standard deviations; settings are such that every branch runs within a dozen iterations.
"""

import json
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pandas as pd

from lusbook import metrics, paired, phantom, statistics
from lusbook.digests import processor
from lusbook.loading import phantom_parameters, source_parameters
from lusbook.provenance import FINGERPRINTS, commit
from lusbook.settings import make_settings

PLAN = {"covid": ((3, 3), (2,), (2,)), "cap": ((2,), (2,), (1, 1)), "clinic": ((3,) * 8,), "few": ((4, 4),)}
FOLD = 1  # of PLAN, so that the source is the larger set of training images
COUNTS, SHARES = ("tp", "fp", "fn"), ("dice", "sensitivity", "specificity", "scores", "agreement")
# How far a value may be on another processor from what the file says: a share of it, and beside that ``atol``,
# ``pixels`` where it counts these, or ``shares`` where it is a share of few; of bfloat16, so many times as far; of the
# losses of the first two iterations, ``first`` of it. Measured with two threads to an operation in place of one:
# U-Nets move by up to 0.001 (bfloat16 0.004), the plain network not at all. SIFA, whose networks answer each other,
# moves by up to 0.003 in the first two iterations, 0.03 in later losses, 0.07 in outputs, and by 46 pixels.
NEAR = {"rtol": 2e-3, "atol": 5e-4, "pixels": 4, "shares": 0.005, "bfloat16": 10, "first": 2e-3}
FAR = {"rtol": 0.1, "atol": 0.02, "pixels": 60, "shares": 0.06, "bfloat16": 1, "first": 5e-3}
# Scores of clips are shares of few pixels: with oneDNN's kernels in place of TensorFlow's own they move by 0.02 of it.
CLIPS = NEAR | {"rtol": 0.04, "atol": 2e-3}
TOLERANCE = {"unet": NEAR, "plain": NEAR, "real": CLIPS, "sifa": FAR, "realism": FAR}
SAME = dict.fromkeys(NEAR, 1e-5) | {"bfloat16": 1}  # on the same processor
EXACT = dict.fromkeys(NEAR, 1e-4) | {"bfloat16": 1}  # of what no network gives
NETWORK = {"threshold": 0.4, "augment_intensity": 0.5}
UNET = {"unet_width": 0.5, "unet_epochs": 2, "unet_iterations": 12, "fine_tune_iterations": 4, "unet_dropout": 0.2}
UNET |= {"unet_learning_rate": 0.0005, "fine_tune_learning_rate": 0.0005}  # small, as Adam's first steps grow rounding
SIFA = {"sifa_iterations": 12, "sifa_average_decay": 0.7, "sifa_segmenter_learning_rate": 0.005}
#: What parts have in common that is not in the preset smoke; the gap has a part of its own.
COMMON = {"cap_gap": 0.0, "phantom_test_frames": 0, "unet_snapshots": 0}
#: Settings of each part that are not those of the preset smoke, nor in common.
SETTINGS = {
    "unet": NETWORK | UNET,
    "sifa": NETWORK | SIFA,
    "plain": NETWORK | SIFA,
    "real": NETWORK | UNET | {"real_iterations": 6},
    "realism": {},
}


# ---------------------------------------------------------------------------------------------
# Files


def read(part):
    """The fingerprint of a part, as committed: a dict of part, made_at, settings, tolerances and values."""
    return json.loads((FINGERPRINTS / f"{part}.json").read_text("utf-8"))


def moved(kept, values):
    """Values that are not what a fingerprint says.

    Parameters
    ----------
    kept : dict
        As :func:`read` gives it.
    values : dict
        As :func:`compute` gives them.

    Returns
    -------
    lines : list of str
        One a value: its name, what it was, what it is.
    """
    same = kept["processor"] == processor() and os.environ.get("TF_NUM_INTRAOP_THREADS") == "1"
    allowed = SAME if same else kept["tolerance"]
    lines = [f"{name}: {'new' if name in values else 'gone'}" for name in sorted({*kept["values"]} ^ {*values})]
    for name, was in kept["values"].items():
        now = values.get(name, was)
        kind = "pixels" if name.endswith(COUNTS) else "shares" if name.endswith(SHARES) else "atol"
        wider = allowed["bfloat16"] if "bfloat16" in name else 1
        rtol, atol = allowed["first" if "/first/" in name else "rtol"], allowed[kind]
        if np.shape(now) != np.shape(was) or not np.allclose(now, was, wider * rtol, wider * atol):
            lines.append(f"{name}: was {was}, is {now}")
    return lines


def write(part, values, made_at):
    """Write the fingerprint of a part; one that still holds stays as it is, and with it all that names it.

    Returns
    -------
    written : bool
    """
    content = {"part": part, "made_at": made_at, "processor": processor(), "settings": SETTINGS.get(part, {})}
    content |= {"tolerance": TOLERANCE.get(part, EXACT), "values": values}
    path = FINGERPRINTS / f"{part}.json"
    if path.exists():
        kept = read(part)
        about = {key: value for key, value in kept.items() if key in ("settings", "tolerance")}
        if about == {key: content[key] for key in about} and not moved(kept, values):
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
    head = json.dumps(content | {"values": None}, indent=1)
    path.write_text(head.replace("null", "{\n" + lines + "\n }") + "\n", "utf-8")
    return True


def compute(part, **changes):
    """The values of a part, by the code as it is.

    Parameters
    ----------
    part : str
        Of ``PARTS``.
    **changes
        Settings to give other values.

    Returns
    -------
    values : dict of str to (float or list of float)
    """
    settings = make_settings("smoke", **(COMMON | SETTINGS.get(part, {}) | changes))
    found = {name: np.asarray(value, float) for name, value in PARTS[part](settings).items()}
    return {name: np.vectorize(lambda x: float(f"{x:.6g}"))(value).tolist() for name, value in found.items()}


# ---------------------------------------------------------------------------------------------
# Parts


def cohorts(settings):
    """Both cohorts of a study, of a few frames."""
    return {name: _simulated(PLAN[name], *phantom_parameters(name, settings).items()) for name in ("covid", "cap")}


def clinic(settings, plan="clinic", **changes):
    """The cohort of :func:`lusbook.loading.load_source`, of a few frames."""
    return _simulated(PLAN[plan], *(source_parameters(settings) | changes | {"plan": None}).items())


@lru_cache(maxsize=4)
def _simulated(plan, *parameters):
    return phantom.simulate(**dict(parameters) | {"plan": plan})


def spread_of(name, values):
    """Mean and standard deviation."""
    values = np.asarray(values, float)
    return {f"{name}/mean": values.mean(), f"{name}/sd": values.std()}


def columns(name, table):
    """Mean and standard deviation of each column of numbers, of what is not missing."""
    numbers = table.select_dtypes(["number", "bool"]).astype(float).dropna(axis=1, how="all")
    return {k: v for key in numbers for k, v in spread_of(f"{name}/{key}", numbers[key].dropna()).items()}


def by_phantom(settings):
    """Images, labels and exact masks of every kind of simulated cohort, by patient."""
    found, more = {}, {"clinic": clinic(settings), "annotator": clinic(settings, "few", numbers="paper", annotator=1)}
    for kind, cohort in (cohorts(settings) | more).items():
        for patient in dict.fromkeys(cohort.patients.tolist()):
            name, rows = f"{kind}/{patient}", cohort.patients == patient
            found |= spread_of(f"{name}/image", cohort.images[rows])
            found |= {f"{name}/label": cohort.masks[rows].mean(), f"{name}/truth": cohort.truth[rows].mean()}
    return found


def by_gap(settings):
    """Images at half and at the whole gap in appearance."""
    found = {}
    for gap in (0.5, 1.0):
        simulated = cohorts(settings.model_copy(update={"cap_gap": gap}))["cap"]
        for patient in dict.fromkeys(simulated.patients.tolist()):
            found |= spread_of(f"{gap}/{patient}", simulated.images[simulated.patients == patient])
    return found


def by_controls(settings):
    """Frames under each shift, and what a control makes of a fake network: its score and its ceiling."""
    from lusbook import controls
    from lusbook.ceiling import ceiling

    few = phantom.simulate("few", diversity=0.3, consistency=0.9, image_size=64, plan=((controls.FRAMES,),))
    found = {"ceiling": ceiling(few.masks, "sifa"), "dice": controls.dice(few.truth, few.masks)}
    for name, shift in controls.SHIFTS.items():
        found |= spread_of(name, shift(few.images, np.random.default_rng(0)))
    return found


def trained(name, outcome):
    """Losses by iteration, counts of every test image, translations and snapshots of a run."""
    tables = outcome["tables"]
    history = tables["history"].drop(columns="iteration")
    found = {f"{name}/first/{key}": history[key][:2] for key in history}
    found |= {f"{name}/loss/{key}": history[key][2:] for key in history}
    for (cohort, route), rows in tables["per_image"].groupby(["cohort", "route"]):
        found |= {f"{name}/{cohort}/{route}/{key}": rows[key] for key in COUNTS}
    for key, image in outcome["overlays"].items():
        if "fake" in key or "cycle" in key:
            found |= spread_of(f"{name}/{key}", image)
    if "snapshots" in tables:
        found |= {f"{name}/snapshots/{key}": tables["snapshots"][key] for key in tables["snapshots"]}
        for weights, rows in tables["selection"].groupby("weights"):
            found |= {f"{name}/{weights}/{key}": rows[key] for key in COUNTS}
    return found


def outputs(name, network, images):
    """Probabilities that a network gives."""
    from lusbook import trials

    routes = network.routes.items()
    return {k: v for r, f in routes for k, v in spread_of(f"{name}/{r}", trials.probabilities(f, images)).items()}


def by_unet(settings):
    """U-Nets: alone, fine-tuned from a parent, of both cohorts, and in bfloat16."""
    from lusbook import trials
    from lusbook.experiments import EXPERIMENTS

    found, data = {}, cohorts(settings)
    with tempfile.TemporaryDirectory() as folder:
        parent, keep = Path(folder) / "weights.npz", {"folder": folder}
        own = settings.precision
        for name, precision in (("unet-cap", own), ("unet-cap-then-covid", own), ("unet-covid", "bfloat16")):
            used = settings.model_copy(update={"precision": precision})
            outcome = trials.run_trial(EXPERIMENTS[name], FOLD, used, data, parent, **keep)
            network = trials.unet_network(used.unet_width, used.unet_dropout, used.seed, used.precision)
            name = f"{name} {precision}"
            found |= trained(name, outcome) | outputs(name, network, data["covid"].images)
            np.savez(parent, *outcome["weights"])
    epochs = settings.model_copy(update={"unet_iterations": None})
    outcome = trials.run_trial(EXPERIMENTS["unet-joint"], FOLD, epochs, data, folder=None)
    return found | trained("unet-joint", outcome)


def by_sifa(settings):
    """SIFA: sequential updates, and simultaneous ones in bfloat16 from a reduced source; its average and snapshots."""
    from lusbook import trials
    from lusbook.experiments import EXPERIMENTS

    found, data = {}, cohorts(settings)
    kinds = (
        ("sifa-cap-to-covid", "sequential", settings.precision),
        ("sifa-reduced-covid-to-cap", "simultaneous", settings.precision),
        ("sifa-covid-to-cap", "simultaneous", "bfloat16"),
    )
    for name, updates, precision in kinds:
        used = settings.model_copy(update={"sifa_updates": updates, "precision": precision})
        with tempfile.TemporaryDirectory() as folder:
            outcome = trials.run_trial(EXPERIMENTS[name], FOLD, used, data, folder=folder)
        name = f"{name} {updates} {precision}"
        network = trials.sifa_network(used)  # as the run leaves it: with the average of the weights
        found |= trained(name, outcome) | outputs(f"{name}/average", network, data["cap"].images)
        trials.reset(network.weights, outcome["weights"])
        found |= outputs(f"{name}/last", network, data["cap"].images)
    return found


def by_plain(settings):
    """The network without adaptation, its learning curve, and statistics of either domain and of both."""
    from lusbook import checkpoints, rivals, trials

    data, rival = cohorts(settings), rivals.Rival("plain", "covid")
    source = data["covid"].subset(data["covid"].folds != FOLD)
    with tempfile.TemporaryDirectory() as folder:
        network = rivals.train_plain(source, settings, (settings.seed, FOLD), "", [6, 12], folder=folder)

        def load(iteration):
            trials.reset(network.weights, checkpoints.load_snapshot(folder, iteration))

        tables = rivals._outcome(network, load, 12, [6, 12], rival, FOLD, data, settings.threshold)["tables"]
        load(12)
    found = {f"curve/{key}": tables["curves"][key] for key in ("dice",)}
    for kind, rows in tables["patients"].groupby("statistics"):
        found |= {f"{kind}/{key}": rows[key] for key in ("dice", "sensitivity", "specificity")}
    return found | outputs("trained", network, data["cap"].images)


def by_statistics(settings):
    """Metrics of masks, tests, intervals and areas under curves, of numbers drawn once."""
    rng = np.random.default_rng(0)
    masks = rng.random((2, 8, 6, 6)) < 0.4
    a, b, flag = rng.random(24), rng.random(24) ** 2, rng.random(24) < 0.5
    patient, few = np.repeat(list("abcdef"), 4), rng.normal(0.3, 1, 9)
    area = statistics.auroc_ci(a + 0.3 * flag, flag, patient, 300)
    groups = pd.DataFrame({"a": a, "b": b}).groupby(patient).mean()
    found = {
        "paired t": statistics.paired_ttest(a, b),
        "unpaired t": statistics.unpaired_ttest(a, b),
        "bootstrap": statistics.bootstrap_ci(a, patient, np.mean, 300),
        "auroc": area,
        "sign flips": paired.sign_flip_test(few),
        "sign flips of many": paired.sign_flip_test(rng.normal(0.3, 1, 16)),
        "signed ranks": paired.signed_rank_test(few),
        "dz": paired.cohens_dz(few),
        "rank biserial": paired.rank_biserial(few),
        "holm": paired.holm(np.array([0.01, 0.04, 0.03, 0.5])),
        "means": groups.to_numpy().ravel(),
    }
    return found | columns("metrics", metrics.per_image(*masks))


def by_cohorts(settings):
    """Measures of images and labels."""
    from lusbook.diversity import describe_masks

    tables = {name: describe_masks(cohort) for name, cohort in cohorts(settings).items()}
    return {k: v for name, table in tables.items() for k, v in columns(name, table).items()}


def by_spread(settings):
    """Borders, grey levels, texture, and distances between cohorts."""
    from lusbook.spread import run_spread

    tables = run_spread(cohorts(settings))["tables"]
    return {k: v for name, table in tables.items() for k, v in columns(name, table).items()}


def by_secondary(settings):
    """Distances of borders, lines found, other thresholds: exact masks against labels."""
    from lusbook import secondary

    found = {}
    for name, cohort in cohorts(settings).items():
        blurred = cohort.images / 255 * (0.3 + 0.7 * cohort.truth)
        counts = secondary.at_thresholds(blurred, cohort.masks)
        found |= columns(f"{name}/exact", secondary.measure(cohort.truth, cohort.masks))
        found |= {f"{name}/thresholds/{key}": counts.groupby("threshold")[key].sum() for key in COUNTS}
    return found


def by_realism(settings):
    """Sets of frames compared, by measures and by networks, and shapes of B-lines."""
    from lusbook import comparison, video

    names = ("set", "other", "third")
    frames = {name: clinic(settings, "few", seed=seed, image_size=128) for seed, name in enumerate(names)}
    cut = {k: video.crop_fan(c.images, video.fan_mask(c.images), 64) for k, c in frames.items()}
    sets = {k: (f, np.broadcast_to(fan, f.shape), frames[k].patients) for k, (f, fan) in cut.items()}
    tables = comparison.compare({"set": sets["set"]}, sets["other"], sets["third"])
    tables["shapes"] = comparison.shapes({"lines": comparison.phantom_lines("lumify", "public", 1.0, 3)})
    return {k: v for name, table in tables.items() for k, v in columns(name, table).items()}


def by_real(settings):
    """Clips decoded and scored: untrained, by a U-Net, with other statistics, along scan lines."""
    from lusbook import arms, attempts, geometry, real, trials, video

    shown, source = clinic(settings, image_size=256, seed=1), clinic(settings)
    with tempfile.TemporaryDirectory() as folder:
        table = pd.DataFrame([_clip(Path(folder), shown, patient) for patient in dict.fromkeys(shown.patients)])
        cuts = {"fan": video.crop_fan, "lines": geometry.cut_scan_lines}
        clips = {key: video.load_clips(table, settings.image_size, 2, cut) for key, cut in cuts.items()}
    found = {}
    for key, part in clips.items():
        found |= spread_of(f"{key}/frames", part.frames) | {f"{key}/fans": part.fans.mean()}
        for name, score in arms.UNTRAINED.items():
            found[f"{key}/{name}"] = real.pool_frames(score(part.frames, part.fans), part.clip)
    lines = attempts.prepare(attempts.ATTEMPTS["U-Net, scan lines"], source)
    found |= spread_of("source along lines", lines.images) | {"source along lines/label": lines.masks.mean()}
    half = arms.halves(table)
    for target in (None, "all", "A", "positive"):
        found[f"divided/{target}"] = np.concatenate(arms.divide(target, table.assign(half=half)))
    arm, seen = arms.ARMS["U-Net (varied intensity)"], clips["fan"]
    network, history = arms.train(arm, settings, {"clinic": source}, seen.frames, "")
    found["loss"] = [row["dice_loss"] for row in history]
    for name in ("trained", "target"):
        probabilities = [trials.probabilities(network.routes["direct"], x) for x in (seen.frames, seen.neighbours)]
        scores = arms.score_clips(*probabilities, seen, settings.threshold)
        found |= {f"{name}/scores": scores[0], f"{name}/agreement": scores[1]}
        found |= columns(name, attempts.pool(probabilities[0], seen, settings.threshold))
        attempts.take_statistics(network, settings, seen.frames)
    return found


def _clip(folder, cohort, patient):
    """A clip of a patient's frames without loss, and its row of a table of clips."""
    path, number = folder / f"{patient}.mkv", int(patient.split("-")[-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *cohort.images.shape[1:], "gray"
        for frame in cohort.images[cohort.patients == patient]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    about = {"known": number != 1, "condition": "ab"[number % 2], "pcr": ("positive", "negative")[number // 4 % 2]}
    return {"clip": path.stem, "patient": str(patient), "path": path, "b_lines": number % 3 > 0, **about}


PARTS = {name.removeprefix("by_"): function for name, function in list(globals().items()) if name.startswith("by_")}


def main():
    """Write the fingerprints whose values have changed."""
    from lusbook.devices import limit_threads

    limit_threads()
    for part in sys.argv[1:] or PARTS:
        print(f"{part}: {'written' if write(part, compute(part), commit()) else 'as it was'}", flush=True)


if __name__ == "__main__":
    main()
