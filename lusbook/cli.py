"""The command line: ``lusbook --help``."""

import json
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lusbook.devices import limit_threads, take_gpu
from lusbook.errors import Interrupted, LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.formats import parse_yaml
from lusbook.settings import PROJECT, make_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

SHOWN = 20  # of what an import leaves out
Preset = Annotated[str, typer.Option(help="Name of a preset, or a YAML file of settings.")]
Results = Annotated[Path | None, typer.Option(help="Folder of studies; the project's data/results by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting as name=value; repeat for more.")]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Operations side by side, of one thread each; by default as many as cores. 0 leaves threads to the "
        "backend, which may be faster on many cores, with other last digits."
    ),
]
Groups = Annotated[list[str] | None, typer.Argument(help="Groups of trainings; without, all side by side.")]
Cores = Annotated[int, typer.Option(help="Processes at a time; 0 for one on each core.")]
Profile = Annotated[str, typer.Option(help="Where to compute: local, slurm, or the folder of a Snakemake profile.")]
Limits = Annotated[
    Path | None, typer.Option("--estimate", help="File of `lusbook estimate --out`: what jobs ask a scheduler for.")
]
PerGpu = Annotated[int, typer.Option("--runs-per-gpu", min=1, help="Processes that share a GPU of this machine.")]
Clips = Annotated[Path | None, typer.Option(help="Folder of COVID-BLUES; $LUSBOOK_COVID_BLUES by default.")]
WithoutGpu = Annotated[
    bool, typer.Option("--without-gpu", help="Compute even what takes more than 12 hours, though there is no GPU.")
]


def parse_settings(preset, assignments):
    """Settings of a preset with ``name=value`` assignments."""
    overrides = {}
    for assignment in assignments or ():
        name, equals, value = assignment.partition("=")
        if not equals:
            raise LusbookError(f"--set {assignment[:80]!r}: expected name=value")
        overrides[name] = parse_yaml(f"--set {name[:80]}", value)
    return make_settings(preset, **overrides)


def absolute(assignments):
    """Assignments with the path of a manifest made absolute: jobs run in another folder."""
    return [
        f"cohorts={Path(assignment.removeprefix('cohorts=')).resolve()}"
        if assignment.startswith("cohorts=") and assignment != "cohorts=phantom"
        else assignment
        for assignment in assignments or ()
    ]


@app.command()
def run(
    experiments: Annotated[list[str] | None, typer.Argument(help="Experiments by name; all by default.")] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Fold; repeat for more, all by default.")] = None,
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    threads: Threads = None,
    without_gpu: WithoutGpu = False,
):
    """Compute runs in this process, one after the other; finished ones are kept, interrupted ones go on."""
    prepare(threads)
    from lusbook.provenance import refuse_dirty
    from lusbook.runs import run_all, study_folder

    names, folds, settings = experiments or list(EXPERIMENTS), fold or FOLDS, parse_settings(preset, set_)
    refuse_dirty(study_folder(settings, results))
    if not without_gpu:
        from lusbook.workload import require_gpu

        require_gpu(names, folds, settings, results)
    run_all(names, folds, settings, results)


def prepare(threads):
    """Limit this process to so many threads, and to one GPU of a study's, before a backend starts."""
    limit_threads(threads)
    take_gpu()


@app.command()
def queue(
    file: Annotated[Path, typer.Argument(help="YAML list of runs, as data/queues/gpu.yaml.")],
    minutes: Annotated[float, typer.Option(help="Time budget; training stops a minute before its end.")] = 25.0,
    results: Results = None,
    threads: Threads = None,
):
    """Work off a queue of runs within a time budget; the same command, repeated, goes on."""
    prepare(threads)
    from lusbook.queues import work

    work(file, minutes, results)


@app.command()
def describe(preset: Preset = "demo", set_: Set = None, results: Results = None):
    """Load the cohorts of a study (simulate them, the first time) and measure every image and label."""
    from lusbook import runs

    runs.describe(parse_settings(preset, set_), results)


@app.command()
def study(
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    cores: Cores = 0,
    together: Annotated[bool, typer.Option(help="Let runs that share a compiled step share a process.")] = True,
    recompute: Annotated[bool, typer.Option(help="Compute again what other code or other data gave.")] = False,
    without_gpu: WithoutGpu = False,
    profile: Profile = "local",
    estimate: Limits = None,
    runs_per_gpu: PerGpu = 1,
):
    """Compute all runs of a study side by side (Snakemake), on this machine or a cluster."""
    from lusbook import graph
    from lusbook.memory import advice
    from lusbook.provenance import refuse_dirty
    from lusbook.runs import outdated, refuse_outdated, remove_stale_runs, set_aside_damaged, stale_runs
    from lusbook.store import check_writable, run_folder, study_folder

    set_ = absolute(set_)
    settings = parse_settings(preset, set_)  # a mistake is found before anything starts
    folder = study_folder(settings, results)
    refuse_dirty(folder)
    check_writable(folder)
    set_aside_damaged(settings, results)
    stale = stale_runs(settings, results)
    if not recompute:
        refuse_outdated(settings, results)
    if not without_gpu:
        from lusbook.workload import require_gpu

        again = [*stale, *outdated(settings, results)] if recompute else ()
        require_gpu(EXPERIMENTS, FOLDS, settings, results, again)
    if recompute:
        remove_stale_runs(settings, results)
    elif stale:
        typer.echo(f"{len(stale)} runs of other code are kept; --recompute computes them again", err=True)
    place = _place(cores, profile, estimate, runs_per_gpu)
    returncode = graph.compute("study", folder, preset, set_, **place, together=together)
    if returncode:
        missing = [
            f"{name} fold {fold}"
            for name in EXPERIMENTS
            for fold in FOLDS
            if not (run_folder(name, fold, settings, results) / "manifest.json").exists()
        ]
        why = graph.killed(folder, returncode)
        why += f"; {advice(settings)}" if "memory" in why else ""
        raise LusbookError(f"not completed: {', '.join(missing) or 'cohorts, real clips or realism'}{why}")
    refuse_outdated(settings, results)  # nor did they change meanwhile


@app.command()
def controls(
    trainings: Annotated[list[str] | None, typer.Argument(help="Trainings as haze-sifa-0; all by default.")] = None,
    preset: Preset = "small",
    set_: Set = None,
    results: Results = None,
    threads: Threads = None,
):
    """Train the controls of the adaptation: a shift that it must undo, and one that it cannot."""
    prepare(threads)
    from lusbook.controls import compute, find_training

    compute(parse_settings(preset, set_), results, [find_training(name) for name in trainings or ()])


@app.command()
def rivals(
    groups: Groups = None,
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    cores: Cores = 0,
    threads: Threads = None,
    profile: Profile = "local",
    estimate: Limits = None,
    runs_per_gpu: PerGpu = 1,
):
    """Train what may explain the gain of adaptation without it: plain networks, and U-Nets of other recipes."""
    prepare(threads)
    from lusbook.rivals import GROUPS, compute_group, gather

    place = _place(cores, profile, estimate, runs_per_gpu)
    _grid("rivals", groups, GROUPS, compute_group, gather, (preset, absolute(set_), results), place)


@app.command("dose-response")
def dose_response(
    groups: Groups = None,
    levels: Annotated[int, typer.Option(help="Levels of consistency, and of diversity.")] = 3,
    seeds: Annotated[int, typer.Option(help="Repetitions of every training.")] = 1,
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    cores: Cores = 0,
    threads: Threads = None,
    profile: Profile = "local",
    estimate: Limits = None,
    runs_per_gpu: PerGpu = 1,
):
    """Train U-Net and SIFA on a grid of label consistency and image diversity; an hour on two cores."""
    prepare(threads)
    from lusbook.dose import compute_group, design, gather

    place = _place(cores, profile, estimate, runs_per_gpu) | {"levels": levels, "seeds": seeds}
    grid = {"n_levels": levels, "seeds": seeds}
    functions = (partial(compute_group, **grid), partial(gather, **grid))
    _grid("dose-response", groups, design(**grid), *functions, (preset, absolute(set_), results), place)


def _place(cores, profile, estimate, per_gpu):
    """Options of :func:`lusbook.graph.compute` that say where to compute."""
    return {"cores": cores, "profile": profile, "per_gpu": per_gpu, "estimate": estimate and estimate.resolve()}


def _grid(target, groups, known, compute, gather, options, place):
    """Compute groups of trainings in this process, or all of them side by side and then their table."""
    from lusbook import graph
    from lusbook.runs import set_aside_damaged
    from lusbook.store import check_writable, study_folder

    preset, set_, results = options
    settings = parse_settings(preset, set_)
    unknown = [name for name in groups or () if name not in (*known, "gather")]
    if unknown:
        raise LusbookError(f"{target}: group {unknown[0]!r} is not known; expected some of {', '.join(known)}, gather")
    folder = study_folder(settings, results)
    check_writable(folder)
    if not groups:
        set_aside_damaged(settings, results)
    for name in groups or ():
        compute(name, settings, results) if name in known else gather(settings, results)
    if not groups and graph.compute(target, folder, preset, set_, **place):
        raise LusbookError(f"{target}: not completed; the same command goes on from there")


@app.command()
def chapters(
    names: Annotated[list[str] | None, typer.Argument(help="Chapters by name; all by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the buildable copy of the book.")] = Path("_build/staging"),
    results: Results = None,
    preset: Preset = "demo",
    in_place: Annotated[bool, typer.Option(help="Execute the project's own chapters instead of a copy.")] = False,
):
    """Execute the chapters against a study, ready for jupyter-book."""
    from lusbook.chapters import execute_book

    execute_book(names, PROJECT if in_place else out, results, preset)


@app.command()
def estimate(
    preset: Preset = "demo",
    set_: Set = None,
    cores: Cores = 0,
    out: Annotated[Path | None, typer.Option(help="File of what was timed, for `lusbook study --estimate`.")] = None,
):
    """Time a few iterations on this machine, and say how long a study will take here, and what memory.

    Two processes, one for each method, compile and time up to ten iterations at the study's size: under a minute for
    small settings; for those of the paper without a GPU, some ten minutes.
    """
    prepare(1)  # as the processes of a study
    from lusbook.estimate import measure_methods, report
    from lusbook.store import write_atomically

    settings = parse_settings(preset, set_)
    measured = measure_methods(settings)
    typer.echo(report(settings, measured, cores or os.cpu_count()))
    if out:
        write_atomically(out.resolve(), json.dumps(measured, indent=1) + "\n")


@app.command()
def doctor(results: Results = None):
    """Say what is here (backend, device, kernels, versions, data, folders), and what is wrong, with a hint.

    The exit status is 1 when something is wrong that stops a study.
    """
    from lusbook.doctor import examine, report

    findings = examine(results)
    typer.echo(report(findings))
    if stops := [finding.what for finding in findings if finding.stops]:
        raise LusbookError(f"doctor: no study before this is mended: {', '.join(stops)}")


@app.command()
def real(
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    folder: Clips = None,
    threads: Threads = None,
):
    """Train on the phantom, adapt to real clips, and score every clip."""
    prepare(threads)
    from lusbook.runs import real_clips

    real_clips(parse_settings(preset, set_), results, folder)


@app.command()
def attempts(
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    folder: Clips = None,
    threads: Threads = None,
):
    """Try other ways to adapt to real clips, tuned on one half of the patients and reported on the other."""
    prepare(threads)
    from lusbook import runs

    runs.attempts(parse_settings(preset, set_), results, folder)


@app.command()
def secondary(preset: Preset = "demo", set_: Set = None, results: Results = None, threads: Threads = None):
    """Measure a study's masks in other ways than Dice; runs without weights are trained again first."""
    prepare(threads)
    from lusbook import runs

    runs.secondary(parse_settings(preset, set_), results)


@app.command()
def realism(
    preset: Preset = "demo",
    set_: Set = None,
    results: Results = None,
    folder: Clips = None,
    threads: Threads = None,
):
    """Measure how near the phantom is to real clips."""
    prepare(threads)
    from lusbook import runs

    runs.realism(parse_settings(preset, set_), results, folder)


@app.command()
def download(
    source: Annotated[str, typer.Argument(help="Public source: covid-blues, pocus or cit.")],
    accept_licence: Annotated[bool, typer.Option(help="Accept the licence that is shown without it.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to; a cache folder by default.")] = None,
):
    """Download public clips, at a pinned version and with checksums; the same command goes on with a broken one."""
    from lusbook import downloads

    if accept_licence:
        typer.echo(f"{downloads.terms(source)}\n", err=True)
    typer.echo(downloads.download(source, accept_licence, folder))


@app.command()
def segment(
    model: Annotated[Path, typer.Argument(help="Folder of a run with its weights, or of an adaptation.")],
    clip: Annotated[Path, typer.Argument(help="A clip, an image or a DICOM file.")],
    out: Annotated[Path | None, typer.Option(help="New folder for masks and areas; CLIP-segmented by default.")] = None,
    threads: Threads = None,
):
    """Segment a clip with a trained network: masks, an overlay, and the B-line area of each frame."""
    prepare(threads)
    from lusbook import segment

    typer.echo(segment.summary(*segment.segment(model, clip, out)))


@app.command()
def adapt(
    manifest: Annotated[Path, typer.Argument(help="Manifest of your images; masks are not used.")],
    out: Annotated[Path, typer.Argument(help="Folder of the network; the same command goes on in it.")],
    preset: Preset = "demo",
    set_: Set = None,
    threads: Threads = None,
):
    """Adapt SIFA from the phantom to your own images, without masks."""
    prepare(threads)
    from lusbook.runs import adapted

    typer.echo(f"lusbook segment {shlex.quote(str(adapted(manifest, out, parse_settings(preset, set_))))} CLIP")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of images, clips and DICOM files; nothing in it changes.")],
    cohort: Annotated[str | None, typer.Option(help="covid or cap; by default folders of that name say it.")] = None,
    patients: Annotated[
        str, typer.Option(help="folder, dicom, or a CSV: file, patient and perhaps cohort.")
    ] = "folder",
    out: Annotated[Path | None, typer.Option(help="New folder; FOLDER-cohort by default.")] = None,
    frames: Annotated[int, typer.Option(help="Frames kept of a clip, beside those with annotations.")] = 30,
):
    """Make cohorts of your own recordings: their fans cut out, names gone, a manifest and a report."""
    from lusbook.imports import import_folder
    from lusbook.reports import summary

    out, table, left_out = import_folder(folder, out, cohort, patients, frames)
    for row in left_out.head(SHOWN).itertuples():
        typer.echo(f"left out {row.file}: {row.reason[:200]}", err=True)
    if len(left_out) > SHOWN:
        typer.echo(f"left out {len(left_out) - SHOWN} more, see {out / 'left_out.csv'}", err=True)
    typer.echo(summary(out, table))


def main():
    """Entry point: bad input is one line and exit status 1, an interruption one line and exit status 130."""
    asked = []

    def interrupt(number, frame):
        """Make SIGTERM what Ctrl-C is."""
        asked.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a process in the background ignores SIGINT
            signal.signal(number, interrupt)
    stopped = "interrupted; finished runs are kept, the same command goes on from them"
    try:
        app()
    except Interrupted as error:
        status, message = 130, str(error)
    except LusbookError as error:
        # Interrupted while it is imported, a library may raise an error of its own.
        status, message = (130, f"{error}\n{stopped}") if asked else (1, str(error))
    except SystemExit as end:
        if end.code != 130:  # what Typer makes of a KeyboardInterrupt
            raise
        status, message = 130, stopped
    print(f"lusbook: {message}", file=sys.stderr)
    sys.exit(status)
