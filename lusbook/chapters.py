"""Executing the chapters, and the box that each opens with."""

import os
import re
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import yaml
from IPython.display import Markdown, display
from nbclient.exceptions import DeadKernelError

from lusbook.boxes import box, computed, keep_page_seconds, shows, stale_note
from lusbook.devices import limit_threads
from lusbook.errors import LusbookError
from lusbook.runs import refuse_damaged, stale_runs
from lusbook.settings import PROJECT, chapter_settings, departures_text
from lusbook.store import study_folder

SHELL = ("_config.yml", "_toc.yml", "CHANGELOG.md")
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
WORDS_A_MINUTE = 200


def pages():
    """Files of all pages, in the order of the table of contents."""
    toc = yaml.safe_load((PROJECT / "_toc.yml").read_text())
    chapters = [entry for part in toc.get("parts", [toc]) for entry in part["chapters"]]
    names = [toc["root"], *(page["file"] for entry in chapters for page in (entry, *entry.get("sections", [])))]
    files = [PROJECT / f"{name}{suffix}" for name in names for suffix in (".ipynb", ".md")]
    return [file for file in files if file.exists()]


def chapter_names():
    """Chapters that are notebooks, in the order of the table of contents."""
    return [file.stem for file in pages() if file.suffix == ".ipynb"]


def reading_minutes(page):
    """Estimated minutes to read a page: its words at 200 a minute.

    Text, captions and code that is shown count; hidden code, tables and figures that code makes do not.

    Parameters
    ----------
    page : path
        A notebook or a Markdown file.

    Returns
    -------
    int
        At least 1.
    """
    page = Path(page)
    if page.suffix == ".ipynb":
        parts = []
        for cell in nbformat.read(page, as_version=4).cells:
            parts.append(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))
            if not HIDDEN & set(cell.metadata.get("tags", [])):
                parts.append(cell.source)
        text = "\n".join(parts)
    else:
        text = page.read_text(encoding="utf-8")
    text = re.sub(r"\{[\w:]+\}", "", text)  # names of roles are not read
    words = re.findall(r"\w[\w.'-]*", text)
    return max(1, round(len(words) / WORDS_A_MINUTE))


def execute_book(names=None, out=PROJECT, results=None, preset="demo"):
    """Execute chapters against a study.

    Parameters
    ----------
    names : list of str, optional
        Chapters; all by default.
    out : path
        The project itself, or a folder that becomes a copy of the book ready for jupyter-book.
    results : path, optional
        Folder of studies.
    preset : str

    Raises
    ------
    LusbookError
        Before anything starts, on an unknown name; at the end, naming every chapter that failed and why. Those keep
        what they were.
    """
    known = chapter_names()
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise LusbookError(f"chapter {unknown[0]!r} is not known; expected one of {', '.join(known)}")
    out = Path(out).resolve()
    if out != PROJECT:
        shutil.rmtree(out / "book", ignore_errors=True)
        shutil.copytree(PROJECT / "book", out / "book", ignore=shutil.ignore_patterns(".*"))
        for file in SHELL:
            shutil.copy(PROJECT / file, out / file)
    if results:
        os.environ["LUSBOOK_RESULTS"] = str(Path(results).resolve())
    parameters = {} if preset == "demo" else {"preset": preset}
    jobs = [(out / "book" / f"{name}.ipynb", parameters) for name in names or known]
    last = [job for job in jobs if job[0].stem == "status"]  # which shows how long the others took
    took, failed = {}, {}
    with ProcessPoolExecutor(min(2, os.cpu_count()), get_context("spawn"), quiet_kernels) as pool:
        for some in ([job for job in jobs if job not in last], last):
            for path, seconds, failure in pool.map(try_chapter, some):
                (failed if failure else took)[path.stem] = failure or seconds
                number = f"chapter {len(took) + len(failed)} of {len(jobs)}"
                print(f"{number}  {path.stem}  {failure or f'{seconds:.0f} s'}", file=sys.stderr, flush=True)
            if last and some != last and out == PROJECT and preset == "demo":
                keep_page_seconds(took)
    if failed:
        raise LusbookError("failed chapters:\n  " + "\n  ".join(failed.values()))


def quiet_kernels():
    """Hide what kernels print beside their notebooks: warnings of Jupyter and TensorFlow that no setting silences."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def execute_chapter(job):
    """Execute one chapter where it is; leaves no trace of when and how.

    Returns
    -------
    path : Path
    seconds : float

    Raises
    ------
    LusbookError
        When a cell fails, or the kernel dies; the chapter then stays what it was.
    """
    path, parameters = job
    start = time.monotonic()
    try:
        # The executed chapter replaces the old one only when all its cells have run.
        partial = path.with_suffix(".partial.ipynb")
        papermill.execute_notebook(
            path, partial, parameters, cwd=path.parent, kernel_name="python3", progress_bar=False
        )
        notebook = nbformat.read(partial, as_version=4)
        nbformat.write(clean(notebook), path)
    except papermill.PapermillExecutionError as error:
        raise LusbookError(f"chapter {path.stem}: {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise LusbookError(f"chapter {path.stem}: its kernel died, as where memory runs out") from error
    finally:
        partial.unlink(missing_ok=True)
    return path, time.monotonic() - start


def try_chapter(job):
    """As :func:`execute_chapter`, but one that fails stops no other: also returns why it failed, or nothing."""
    start = time.monotonic()
    try:
        return *execute_chapter(job), ""
    except Exception as error:
        text = str(error) if isinstance(error, LusbookError) else f"chapter {job[0].stem}: {error!r}"
        return job[0], time.monotonic() - start, text


def clean(notebook):
    """Strip what differs between two equal executions: times, progress lines, papermill's notes.

    Counts of execution stay, 1, 2, 3, ...: nbval takes a cell without one for a cell that never ran.
    """
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def begin(chapter, variables, *own):
    """Begin a chapter: check its parameters, set the style, and say what a reader must know of its numbers.

    Parameters
    ----------
    chapter : str
        Its name.
    variables : dict
        The chapter's ``globals()``, directly after its parameters cell.
    *own : str
        Names of parameters that are the chapter's own.

    Returns
    -------
    settings : Settings

    Raises
    ------
    LusbookError
        On an unknown or impossible parameter, and when results are damaged.
    """
    from lusbook.figures import use_style  # here: the command line has no use for matplotlib

    limit_threads()
    settings = chapter_settings(variables, *own)
    refuse_damaged(settings, variables.get("results"))
    use_style()
    pd.set_option("display.max_colwidth", None)
    display(Markdown(notice(chapter, settings, variables.get("results"))))
    return settings


def notice(chapter, settings, results=None):
    """What a reader must know of a page, in Markdown: its setting, what it takes, whether its numbers are stale."""
    folder = study_folder(settings, results)
    text = f"Study `{folder.name}`: {settings.image_size} px images, seed {settings.seed}."
    if settings.cohorts == "phantom":
        text += " The cohorts are simulated."
    if changed := departures_text(settings):
        text += f" **This is not the paper's setting.** What differs, the paper's in brackets: {changed}."
    stale = {name: changed for name, changed in stale_runs(settings, results).items() if shows(chapter, name)}
    text += computed(chapter, settings, results, bool(stale))
    return box(chapter, text, settings, results) + stale_note(stale, settings, results)
