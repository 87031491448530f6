# The run graph of a study: `lusbook study` calls this; so can plain snakemake, on one machine or a cluster.
# Config: preset, results, set ("name=value ..."), together (runs that share a compiled step share a process); for the
# target dose-response: levels, seeds.
import sys
from pathlib import Path
from shlex import join, split

from lusbook import dose, rivals
from lusbook.cli import parse_settings
from lusbook.errors import MissingData
from lusbook.experiments import EXPERIMENTS, FOLDS, packs
from lusbook.store import run_folder, study_folder
from lusbook.sources import find_covid_blues

ASSIGNMENTS = split(config.get("set", ""))
SETTINGS = parse_settings(config["preset"], ASSIGNMENTS)
OPTIONS = ["--preset", config["preset"], "--results", config["results"]]
OPTIONS += [part for assignment in ASSIGNMENTS for part in ("--set", assignment)]
TOGETHER = str(config.get("together", True)) == "True"


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


for name, manifest_path in REAL.items():

    rule:
        name: name
        input:
            ancient(COHORTS),
        output:
            manifest_path,
        params:
            command=join(["lusbook", name, *OPTIONS]),
        priority: 2
        threads: 1
        shell:
            "{params.command} --threads {threads}"


rule cohorts:
    output:
        COHORTS,
    params:
        options=join(OPTIONS),
    threads: int(config.get("cores", 1))
    shell:
        "lusbook describe {params.options}"


for job, (names, folds, needed) in JOBS.items():
    # Snakemake empties a job's outputs before it starts: what is finished must not be among them.
    missing = [path for path in (manifest(name, fold) for name in names for fold in folds) if not Path(path).exists()]
    if not missing:
        continue

    rule:
        name: job
        input:
            needed,
            ancient(COHORTS),
        output:
            missing,
        params:
            # Whoever started the graph has decided: `lusbook study` asks before it does so.
            command=join(["lusbook", "run", *names, *(f"--fold={fold}" for fold in folds), *OPTIONS, "--without-gpu"]),
        # The longest first, so that no core waits for the last one.
        priority: 1 if job.startswith("sifa") else 0
        threads: 1
        shell:
            "{params.command} --threads {threads}"


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
        missing = [str(part / "manifest.json") for part in parts if not (part / "manifest.json").exists()]
        if not missing:
            continue

        rule:
            name: f"{grid}-{group}"
            output:
                missing,
            params:
                command=join(["lusbook", grid, group, *options, *OPTIONS]),
            priority: len(missing)
            threads: 1
            shell:
                "{params.command} --threads {threads}"

    rule:
        name: grid
        input:
            [part / "manifest.json" for parts in groups.values() for part in parts],
        output:
            folder / "manifest.json",
        params:
            command=join(["lusbook", grid, "gather", *options, *OPTIONS]),
        shell:
            "{params.command}"
