# The run graph of a study: `lusbook study` calls this; so can plain snakemake, on one machine or a cluster.
# Config: preset, results, set ("name=value ..."), together (runs that share a compiled step share a process), cores,
# estimate (a file of `lusbook estimate --out`, from which a scheduler's limits are taken), gpu (1: every process wants
# one); for the target dose-response: levels, seeds.
import sys
from pathlib import Path
from shlex import join, split

from lusbook import dose, rivals
from lusbook.cli import parse_settings
from lusbook.errors import MissingData
from lusbook.experiments import EXPERIMENTS, FOLDS, packs
from lusbook.store import run_folder, study_folder
from lusbook.sources import find_covid_blues
from lusbook.workload import needs, read_estimate

ASSIGNMENTS = split(config.get("set", ""))
SETTINGS = parse_settings(config["preset"], ASSIGNMENTS)
OPTIONS = ["--preset", config["preset"], "--results", config["results"]]
OPTIONS += [part for assignment in ASSIGNMENTS for part in ("--set", assignment)]
TOGETHER = str(config.get("together", True)) == "True"
MEASURED = read_estimate(config["estimate"]) if config.get("estimate") else None


def limits(pairs):
    """Resources of a job, for rules: a job that reached its limits is given more when it is tried again."""
    wanted = needs(pairs, SETTINGS, MEASURED)
    gpu = int(config.get("gpu", wanted["gpu"]))
    return {
        "runtime": lambda wildcards, attempt: attempt * wanted["runtime"],
        "mem_mb": lambda wildcards, attempt: attempt * wanted["mem_mb"],
        **({"gpu": gpu} if gpu else {}),
    }


def absent(paths):
    """What is not there yet. Nothing else is told to Snakemake, which goes by the times of files, and clocks err."""
    return [path for path in paths if not Path(path).exists()]


def manifest(name, fold):
    return str(run_folder(name, fold, SETTINGS, config["results"]) / "manifest.json")


# Jobs: experiments and folds of one process, and the manifests that must be there before it.
if TOGETHER:
    JOBS = {name: (names, FOLDS, []) for name, names in packs().items()}
else:
    JOBS = {
        f"{e.name}-{fold}": ([e.name], [fold], [manifest(e.parent, fold)] if e.parent else [])
        for e in EXPERIMENTS.values()
        for fold in FOLDS
    }

COHORTS = str(study_folder(SETTINGS, config["results"]) / "cohorts" / "manifest.json")
REAL = {name: str(study_folder(SETTINGS, config["results"]) / name / "manifest.json") for name in ("real", "realism")}
try:
    find_covid_blues()
    WITH_REAL = SETTINGS.cohorts == "phantom"
except MissingData as missing:
    print(f"Real clips are left out: {missing}", file=sys.stderr)
    WITH_REAL = False


rule study:
    input:
        [manifest(name, fold) for name in EXPERIMENTS for fold in FOLDS],
        COHORTS,
        list(REAL.values()) if WITH_REAL else [],


# How a job ended goes into a file: a process that the system killed can say nothing.
SHELL = "{params.command} --threads {threads} || {{ status=$?; mkdir -p .snakemake/ended; "
SHELL += "echo $status > .snakemake/ended/{rule}; exit $status; }}"

for name, manifest_path in REAL.items():
    if not absent([manifest_path]):
        continue

    rule:
        name: name
        input:
            ancient(absent([COHORTS])),
        output:
            update(manifest_path),
        params:
            command=join(["lusbook", name, *OPTIONS]),
        priority: 2
        threads: 1
        shell:
            SHELL


if absent([COHORTS]):

    rule cohorts:
        output:
            update(COHORTS),
        params:
            options=join(OPTIONS),
        threads: int(config.get("cores", 1))
        shell:
            "lusbook describe {params.options}"


for job, (names, folds, needed) in JOBS.items():
    missing = absent(manifest(name, fold) for name in names for fold in folds)
    if not missing:
        continue

    rule:
        name: job
        input:
            ancient(absent([*needed, COHORTS])),
        output:
            # Not emptied before the job starts: a process of an earlier start may have finished it meanwhile.
            update(missing),
        params:
            # Whoever started the graph has decided: `lusbook study` asks before it does so.
            command=join(["lusbook", "run", *names, *(f"--fold={fold}" for fold in folds), *OPTIONS, "--without-gpu"]),
        # The longest first, so that no core waits for the last one.
        priority: 1 if job.startswith("sifa") else 0
        threads: 1
        resources:
            **limits([(name, fold) for name in names for fold in folds]),
        shell:
            SHELL


# Grids: groups of trainings that share a compiled step, and the table that is put together from them.
DESIGN = [int(config.get("levels", 3)), int(config.get("seeds", 1))]
RIVALS = study_folder(SETTINGS, config["results"]) / rivals.FOLDER
DOSE = dose.folder_of(SETTINGS, config["results"], *DESIGN)
GRIDS = {
    "rivals": (
        RIVALS,
        {name: [RIVALS / r.name / f"fold-{fold}" for r in group for fold in FOLDS] for name, group in rivals.GROUPS.items()},
        [],
    ),
    "dose-response": (
        DOSE,
        {name: [DOSE / dose.part_name(part) for part in group] for name, group in dose.design(*DESIGN).items()},
        [f"--levels={DESIGN[0]}", f"--seeds={DESIGN[1]}"],
    ),
}
for grid, (folder, groups, options) in GRIDS.items():
    if (folder / "manifest.json").exists():
        groups = {}  # put together: its single trainings may be gone
    for group, parts in groups.items():
        missing = absent(str(part / "manifest.json") for part in parts)
        if not missing:
            continue

        rule:
            name: f"{grid}-{group}"
            output:
                update(missing),
            params:
                command=join(["lusbook", grid, group, *options, *OPTIONS]),
            priority: len(missing)
            threads: 1
            resources:
                # No training takes longer than one of SIFA.
                **limits([("sifa-covid-to-cap", 0)] * len(missing)),
            shell:
                SHELL

    rule:
        name: grid
        input:
            ancient(absent(str(part / "manifest.json") for parts in groups.values() for part in parts)),
        output:
            update(str(folder / "manifest.json")),
        params:
            command=join(["lusbook", grid, "gather", *options, *OPTIONS]),
        shell:
            "{params.command}"
