"""What a chapter says of itself at its top: how long its numbers took, its parameters, commands that run it again."""

import json
from fnmatch import fnmatch

import pandas as pd
import papermill

from lusbook.devices import is_gpu
from lusbook.settings import PROJECT
from lusbook.store import read_json, read_manifests, study_folder, write_atomically
from lusbook.workload import duration

TIMES = PROJECT / "data" / "page-seconds.json"
STEP = 5  # s, to which the time of a page is rounded up: a repetition differs by less
TRAININGS = ("unet-*", "sifa-*")
# Folders of a study that a chapter shows; without an entry, those of every training. The folders of `rivals` and
# `dose-response` know only how long putting their tables together took, and so do not count.
SHOWN = {
    "data": ("cohorts",),
    "phantom": ("realism",),
    "unet": ("unet-*",),
    "sifa": ("sifa-*",),
    "secondary": ("secondary", *TRAININGS),
    "diversity": ("cohorts", "spread", *TRAININGS),
    "real": ("real", "attempts"),
    "rivals": (),
    "dose-response": (),
}
ALONE = ("own-data", "performance", "scale", "status")  # show no study
FOLDED = "Parameters of this page, and commands that run it again"


def box(chapter, text="", settings=None, results=None):
    """A chapter's box, in Markdown: a note with what it takes, and, folded, its parameters and commands.

    Parameters
    ----------
    chapter : str
        Its name.
    text : str
        What else the note says.
    settings : Settings, optional
        Of the study that it shows; without, it shows none.
    results : path, optional
        Folder of studies.

    Returns
    -------
    text : str
    """
    found = parameters(chapter)
    rows = [f"| `{name}` | `{default}` | {meaning} |" for name, default, meaning in found]
    return "\n".join(
        [
            ":::{note}",
            f"{text}\n\n{cost(chapter, settings, results)}".strip(),
            ":::",
            f":::{{dropdown}} {FOLDED}",
            "| parameter | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
            "One command or the other, in the folder of the project; `-p` gives a parameter another value and can be",
            "repeated. The executed copy goes to `_build/chapters`, by the second command into the folder itself.",
            "",
            "```sh",
            *commands(chapter, found),
            "```",
            ":::",
            "",
        ]
    )


def parameters(chapter):
    """Parameters of a chapter, from its parameters cell.

    Returns
    -------
    parameters : list of tuple of str
        Name, default as Python has it, and meaning, ready for a table in Markdown.
    """
    found = papermill.inspect_notebook(str(PROJECT / "book" / f"{chapter}.ipynb"))
    special = str.maketrans({"$": r"\$", "|": r"\|"})
    return [(row["name"], row["default"], row["help"].translate(special)) for row in found.values()]


def commands(chapter, found):
    """Two commands that run a chapter again, by make and by papermill; small, where it can be.

    Parameters
    ----------
    chapter : str
    found : list of tuple of str
        As :func:`parameters` gives them.
    """
    defaults = {name: default.strip("'\"") for name, default, _ in found}
    option = ""
    if "preset" in defaults:
        option = "-p seed 1" if defaults["preset"] == "smoke" else "-p preset smoke"
    by_make = f'make chapter NAME={chapter} PARAMS="{option}"' if option else f"make chapter NAME={chapter}"
    return [by_make, f"papermill book/{chapter}.ipynb {chapter}-again.ipynb {option}".strip()]


def cost(chapter, settings=None, results=None):
    """What a chapter takes, in words: its execution from results that are there, and computing those."""
    page = page_seconds().get(chapter)
    text = f"Time for this page: {f'about {page} s on a CPU' if page else 'not measured'}"
    if settings is None or chapter in ALONE:
        return f"{text}."
    took = {True: [], False: []}
    for manifest in shown(chapter, settings, results):
        took[is_gpu(manifest.get("device", "CPU"))].append(manifest["seconds"])
    parts = [f"on a {name} {spent(took[gpu])}" for name, gpu in (("CPU", False), ("GPU", True))]
    return f"{text}, from results that are there. For computing those: {', '.join(parts)}."


def shown(chapter, settings, results=None, otherwise=()):
    """Manifests of what a chapter shows of a study, as ``SHOWN`` says; ``otherwise`` where that says nothing."""
    root, patterns = study_folder(settings, results), SHOWN.get(chapter, TRAININGS) or otherwise
    return [found for name in patterns for found in read_manifests(root, f"{name}/**/manifest.json").values()]


def shows(chapter, folder):
    """Whether a chapter shows a folder of a study; the status page shows all of them.

    Examples
    --------
    >>> shows("unet", "unet-cap/fold-0"), shows("unet", "sifa-cap-to-covid/fold-0"), shows("status", "rivals")
    (True, False, True)
    """
    if chapter in ALONE:
        return chapter == "status"
    return any(fnmatch(folder.partition("/")[0], name) for name in SHOWN.get(chapter, TRAININGS) or (chapter,))


def computed(chapter, settings, results=None, stale=False):
    """At which commits, when and on what the numbers of a chapter were computed, in words; empty where none says it.

    Whether the code really gives the fingerprint, a test asks; here only digests are compared.
    """
    found = [] if chapter in ALONE else [m for m in shown(chapter, settings, results, (chapter,)) if m.get("commit")]
    if not found:
        return ""
    found.sort(key=lambda manifest: manifest.get("date", ""))
    commits = list(dict.fromkeys(manifest["commit"][:7] for manifest in found))
    listed = f"commit `{commits[0]}`" if len(commits) == 1 else f"{len(commits)} commits, the last `{commits[-1]}`,"
    devices = " and ".join(sorted({"GPU" if is_gpu(manifest.get("device", "CPU")) else "CPU" for manifest in found}))
    text = f" Computed at {listed} on {in_words(found[-1].get('date', ''))} ({devices})."
    return text if stale else f"{text} The code of this page gives the same fingerprint."


def stale_note(stale, settings, results=None):
    """A warning that names what is stale, and since when; empty where nothing is.

    Parameters
    ----------
    stale : dict of dict
        As :func:`lusbook.runs.stale_runs` gives it.
    settings : Settings
    results : path, optional
    """
    if not stale:
        return ""
    first, changed = next(iter(stale.items()))
    manifest = read_json(study_folder(settings, results) / first / "manifest.json")
    more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
    was = f"`{first}`{more} {'were' if more else 'was'} computed"
    if manifest.get("commit"):
        was += f" at `{manifest['commit'][:7]}`"
    if "parent" in changed:
        why = "; the run that it was fine-tuned from is stale or was computed again"
    elif "fingerprints" not in manifest:
        why = ", and names no fingerprint"
    else:
        parts = ", ".join(f"`{part}` changed (`{old[:4]}` → `{new[:4]}`)" for part, (old, new) in changed.items())
        why = f"; since then the fingerprint {parts}: the code now gives other numbers"
    return f":::{{warning}}\n**Stale.** {was}{why}. `lusbook study --recompute` computes them again.\n:::\n"


def in_words(date):
    """A day in words.

    Examples
    --------
    >>> in_words("2026-11-28")
    '28 November 2026'
    """
    return f"{pd.Timestamp(date):%-d %B %Y}" if date else "a day that is not known"


def spent(seconds):
    """Time of several computations together."""
    if not seconds:
        return "not measured"
    runs = "1 run" if len(seconds) == 1 else f"{len(seconds)} runs, added up"
    return f"{duration(sum(seconds))} ({runs})"


def page_seconds():
    """Seconds that pages took when they were last executed in place, by name, rounded up."""
    return read_json(TIMES) if TIMES.exists() else {}


def keep_page_seconds(seconds):
    """Keep how long pages took; those of other pages stay.

    Parameters
    ----------
    seconds : dict of str to float
    """
    rounded = {name: STEP * max(1, -int(-value // STEP)) for name, value in seconds.items()}
    write_atomically(TIMES, json.dumps(dict(sorted((page_seconds() | rounded).items())), indent=1) + "\n")
