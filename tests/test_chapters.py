"""Chapters rerun with other parameters, from any folder, and refused with impossible ones."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from lusbook import chapters, dose, queues, rivals, runs
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.settings import PROJECT, Settings, make_settings
from tests.helpers import write_manifest
from tests.test_gains import make_rivals
from tests.test_response import make_grid

NAMES = chapters.chapter_names()
# Own images can fill these.
OWN = {
    "sifa": ["controls_of"],
    "real": ["covid_blues", "cit"],
    "phantom": ["covid_blues"],
    "performance": ["benchmarks"],
    "scale": ["benchmarks", "frames", "trainings", "memory_gib", "disk_tb", "days", "gpus", "gpu_speed"],
    "status": ["benchmarks"],
    "dose-response": ["levels", "seeds"],
}
TRAINING = ["claims", "unet", "sifa", "results", "overlays", "diversity", "own-data", "index"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


def execute(name, place, **parameters):
    out = place / f"{name}.ipynb"
    papermill.execute_notebook(
        PROJECT / "book" / f"{name}.ipynb", out, parameters, cwd=str(place), kernel_name="python3", progress_bar=False
    )
    return nbformat.read(out, as_version=4)


def shown(notebook):
    """Everything that the cells of a notebook printed or returned."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return json.dumps([output.get("data", output.get("text")) for output in outputs])


def test_all_chapters_of_the_contents_are_here():
    study = {"claims", "data", "phantom", "unet", "sifa", "experiments", "results", "overlays", "diversity", "real"}
    study |= {"secondary", "rivals", "dose-response"}
    assert {"index", *study, "own-data", "performance", "scale", "status"} == set(NAMES)


@pytest.mark.slow
def test_chapters_run_with_other_parameters_and_own_images(place):
    """The whole book on a user's own images, from a folder that is not the project's."""
    parameters = {"preset": "smoke", "cohorts": str(write_manifest(place)), "results": str(place / "results")}
    for name in ["data", *TRAINING, "experiments"]:
        text = shown(execute(name, place, **parameters))
        assert "image/png" in text or name == "experiments"
        assert "reduced setting" in text
    settings = make_settings("smoke", cohorts=parameters["cohorts"])
    assert len(runs.read_manifests(settings, place / "results")) == 24
    assert "`lusbook secondary` does so" in shown(execute("secondary", place, **parameters))
    runs.secondary(settings, place / "results")
    assert "image/png" in shown(execute("secondary", place, **parameters))
    assert not list((PROJECT / "data" / "results").glob("smoke*"))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("unet", {"image_size": 100}, "setting 'image_size': input should be a multiple of 8, received 100"),
        ("sifa", {"sifa_iteration": 5}, "unknown setting 'sifa_iteration'; did you mean 'sifa_iterations'"),
    ],
)
def test_an_impossible_parameter_is_refused_before_training(tmp_path, name, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        execute(name, tmp_path, results=str(tmp_path / "results"), **parameters)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_typed_explained_and_known(name):
    found = papermill.inspect_notebook(PROJECT / "book" / f"{name}.ipynb")
    needed = dict.fromkeys(("scale", "status"), {"benchmarks", "results"}) | {"performance": {"benchmarks"}}
    needed = needed.get(name, {"preset", "results"})
    assert needed <= set(found)
    for parameter in found.values():
        assert parameter["inferred_type_name"] in ("str", "int", "float")
        assert len(parameter["help"]) > 10
        known = {
            *Settings.model_fields,
            "results",
            *OWN.get(name, []),
        }
        assert parameter["name"] in known


def put(tables, gather, *options):
    """Let a grid be complete with these tables."""
    once = runs.once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "once", lambda folder, params, settings, _: once(folder, params, settings, lambda: tables))
        gather(*options)


def test_chapters_of_grids_say_how_to_compute_them_and_show_them(tmp_path):
    parameters = {"preset": "smoke", "results": str(tmp_path / "results")}
    for name in ("rivals", "dose-response"):
        assert f"`lusbook {name}` does so" in shown(execute(name, tmp_path, **parameters))
    assert not (tmp_path / "results").exists()
    noise = np.random.default_rng(0)
    scores = make_rivals(lambda *_: noise.random())
    points = scores[(scores["statistics"] == "trained") & (scores["method"] != "sifa")]
    curves = pd.concat([points.assign(iteration=number) for number in range(1, 7)])
    settings, results = make_settings("smoke"), tmp_path / "results"
    put({"tables": {"patients": scores, "curves": curves}}, rivals.gather, settings, results)
    put({"tables": {"patients": make_grid(lambda *_: noise.normal())}}, dose.gather, settings, results)
    for name in ("rivals", "dose-response"):
        text = shown(execute(name, tmp_path, **parameters))
        assert "image/png" in text and "does so" not in text


@pytest.mark.parametrize("name", ["real", "phantom"])
def test_chapters_of_real_clips_say_how_to_get_them(tmp_path, monkeypatch, name):
    monkeypatch.delenv("LUSBOOK_COVID_BLUES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = shown(execute(name, tmp_path, results=str(tmp_path / "results")))
    assert "lusbook download covid-blues" in text


def test_performance_chapter_without_measurements(tmp_path):
    text = shown(execute("performance", tmp_path, benchmarks=str(tmp_path)))
    assert "Not measured yet: `python benchmarks/sifa.py`" in text and "No GPU was at hand" in text


def test_scale_chapter_without_measurements(tmp_path):
    text = shown(execute("scale", tmp_path, benchmarks=str(tmp_path), results=str(tmp_path / "results")))
    assert text.count("Not measured yet: `make bench` does it.") == 4 and "image/png" not in text
    assert "Not measured yet: `python benchmarks/random_kills.py`" in text and "yet: `make fuzz`" in text


def test_status_of_results_and_benchmarks_that_are_not_there(tmp_path):
    text = shown(execute("status", tmp_path, results=str(tmp_path / "results"), benchmarks=str(tmp_path)))
    assert "Not measured yet: `make bench` does it" in text and "sifa-covid-to-cap" not in text


def committed_box(name):
    """The box that a committed chapter shows."""
    texts = [
        output.data["text/markdown"]
        for cell in nbformat.read(PROJECT / "book" / f"{name}.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if ":::{dropdown}" in output.get("data", {}).get("text/markdown", "")
    ]
    assert len(texts) == 1, name
    return texts[0]


@pytest.mark.parametrize("name", NAMES)
def test_each_chapter_opens_with_its_own_box(name):
    box = committed_box(name)
    found = papermill.inspect_notebook(PROJECT / "book" / f"{name}.ipynb")
    assert re.findall(r"^\| `(\w+)` \|", box, re.MULTILINE) == list(found)
    assert f"make chapter NAME={name}" in box and f"papermill book/{name}.ipynb" in box
    assert "Time for this page: " in box


@pytest.fixture
def checkout(tmp_path):
    """What commands of a box need of the project, the environment among it."""
    for name in ("Makefile", "book", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_commands_in_a_box_run_as_they_stand(checkout):
    committed = sorted((PROJECT / "data" / "results").iterdir())
    by_make, by_papermill = re.search(r"```sh\n(.*?)\n```", committed_box("data"), re.DOTALL)[1].splitlines()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "LUSBOOK_RESULTS": str(checkout / "results")}
    for command, out in ((by_make, "_build/chapters/data.ipynb"), (by_papermill, "data-again.ipynb")):
        done = subprocess.run(command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        text = shown(nbformat.read(checkout / out, as_version=4))
        assert "Study `smoke`" in text and "image/png" in text
    assert (checkout / "results" / "smoke" / "cohorts" / "manifest.json").exists()
    assert sorted((PROJECT / "data" / "results").iterdir()) == committed


def test_committed_chapters_have_outputs_and_no_traces():
    for name in NAMES:
        notebook = nbformat.read(PROJECT / "book" / f"{name}.ipynb", as_version=4)
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in code), name
        assert not any(output.get("name") == "stderr" for cell in code for output in cell.outputs)
        assert not any("papermill" in cell.metadata for cell in code)


def test_figures_have_alt_text_and_captions():
    drawn = 0
    for name in NAMES:
        for cell in nbformat.read(PROJECT / "book" / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code" and re.search(r"^ *figures\.\w+\(", cell.source, re.MULTILINE):
                rendered = cell.metadata["mystnb"]
                assert rendered["image"]["alt"] and rendered["figure"]["caption"], name
                drawn += 1
    assert drawn >= 10


def test_committed_comparisons_are_there():
    for job in queues.read_queue(PROJECT / "data" / "queues" / "comparisons.yaml"):
        assert (job.folder / "manifest.json").exists(), job.title


def test_the_committed_repetition_is_whole_and_of_a_named_processor():
    study = make_settings("demo")
    manifests = runs.read_manifests(study, runs.other_processor())
    assert len(manifests) == len(EXPERIMENTS) * len(FOLDS) and manifests["processor"].nunique() == 1


def test_the_earlier_phantoms_results_are_whole():
    study = make_settings("demo")
    assert list(runs.read_seeds(study, runs.earlier_phantom())) == [0, 1, 2]
    assert {"distances", "told_apart", "profiles"} == set(runs.read_tables(runs.earlier_phantom() / "demo" / "realism"))
    assert list(runs.read_seeds(study)) == [0, 1, 2]


def test_reading_minutes_count_what_is_shown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("word " * 399 + "{doc}`two` {term}`three <four>`")
    assert chapters.reading_minutes(page) == 2
    page.write_text("{doc}`one`")
    assert chapters.reading_minutes(page) == 1
    hidden = nbformat.v4.new_code_cell("word " * 1000, metadata={"tags": ["hide-input"]})
    captioned = nbformat.v4.new_code_cell("x", metadata={"mystnb": {"figure": {"caption": "word " * 400}}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("word " * 600), hidden])
    nbformat.write(notebook, tmp_path / "page.ipynb")
    assert chapters.reading_minutes(tmp_path / "page.ipynb") == 3
    notebook.cells.append(captioned)
    nbformat.write(notebook, tmp_path / "page.ipynb")
    assert chapters.reading_minutes(tmp_path / "page.ipynb") == 5


def test_reading_times_on_the_front_page_are_those_of_the_pages():
    front = nbformat.read(PROJECT / "book" / "index.ipynb", as_version=4)
    outputs = [output for cell in front.cells for output in cell.get("outputs", [])]
    prefix = "application/papermill.record/"
    shown = {
        output.metadata["scrapbook"]["name"]: output.data[f"{prefix}text/plain"].strip("'")
        for output in outputs
        if output.get("metadata", {}).get("scrapbook")
    }
    for page in chapters.pages():
        minutes = f"{chapters.reading_minutes(page)} min"
        assert shown[f"minutes-{page.stem}"] == minutes, f"{page.stem}: lusbook chapters index --in-place"


def test_an_unknown_chapter_is_named(tmp_path):
    with pytest.raises(LusbookError, match="chapter 'sifo' is not known; expected one of index"):
        chapters.execute_book(["sifo"], tmp_path)


@pytest.mark.parametrize(
    ("names", "options", "kept"),
    [
        (["status", "unet", "data"], {}, [{"unet": 7, "data": 7}]),
        (["unet"], {}, []),
        (["unet", "status"], {"preset": "smoke"}, []),
    ],
)
def test_times_of_pages_are_kept_before_the_status_page_is_executed(monkeypatch, names, options, kept):
    class Pool(contextlib.nullcontext):
        map = staticmethod(map)

    done, found = [], []
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: Pool(Pool()))
    monkeypatch.setattr(chapters, "execute_chapter", lambda job: (done.append(job[0].stem) or job[0], 7))
    monkeypatch.setattr(chapters, "keep_page_seconds", lambda took: found.append(dict(took)) or done.append("kept"))
    chapters.execute_book(names, **options)
    assert found == kept
    assert sorted(set(done) - {"kept"}) == sorted(names)
    if kept:
        assert done[-2:] == ["kept", "status"]


def test_a_failing_chapter_leaves_the_old_one(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1 / 0")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = tmp_path / "broken.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    with pytest.raises(LusbookError, match="chapter broken: ZeroDivisionError"):
        chapters.execute_chapter((path, {}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_package_imports_without_a_backend():
    """Reading results must not cost a deep-learning backend's start."""
    code = "import sys, lusbook.runs, lusbook.figures; print(bool({'tensorflow', 'jax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "False"
