"""The box of a chapter: times from manifests, parameters as its cell has them, commands that shells understand."""

import json
import shlex

import nbformat
import pytest

from lusbook import boxes
from lusbook.settings import make_settings

CELL = 'preset: str = "demo"  # name\nclips: str = ""  # empty: $CLIPS | $OTHER\nseed: int = None  # seed of it'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one chapter."""
    cell = nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "book").mkdir()
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), tmp_path / "book" / "unet.ipynb"
    )
    monkeypatch.setattr(boxes, "PROJECT", tmp_path)
    monkeypatch.setattr(boxes, "TIMES", tmp_path / "page-seconds.json")
    return tmp_path


def put(root, name, **manifest):
    folder = root / "smoke" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(
        json.dumps({"code": "", "data": {"": ""}, "files": {"scores.csv": ""}} | manifest)
    )


def test_parameters_are_those_of_the_cell(project):
    assert boxes.parameters("unet") == [
        ("preset", '"demo"', "name"),
        ("clips", '""', r"empty: \$CLIPS \| \$OTHER"),
        ("seed", "None", "seed of it"),
    ]


def test_times_are_the_sums_of_what_a_chapter_shows(project):
    settings = make_settings("smoke")
    assert boxes.cost("unet", settings, project).endswith("on a CPU not measured, on a GPU not measured.")
    put(project, "unet-cap/fold-0", seconds=100, device="CPU")
    put(project, "unet-cap/fold-1", seconds=50, device="CPU")
    put(project, "unet-covid/fold-0", seconds=7, device="NVIDIA H100")
    put(project, "sifa-cap-to-covid/fold-0", seconds=6000, device="CPU")
    put(project, "cohorts", seconds=30)
    text = boxes.cost("unet", settings, project)
    assert "on a CPU 2.5 min (2 runs, added up), on a GPU 7 s (1 run)." in text
    assert "on a CPU 102 min (3 runs, added up), on a GPU 7 s (1 run)." in boxes.cost("results", settings, project)
    assert "on a CPU 30 s (1 run), on a GPU not measured." in boxes.cost("data", settings, project)
    assert boxes.cost("performance") == "Time for this page: not measured."


def test_seconds_of_pages_are_rounded_up_and_kept(project):
    assert boxes.page_seconds() == {}
    boxes.keep_page_seconds({"unet": 5.1, "data": 0.2})
    boxes.keep_page_seconds({"data": 15.0})
    assert boxes.page_seconds() == {"data": 15, "unet": 10}
    assert boxes.cost("unet") == "Time for this page: about 10 s on a CPU."


@pytest.mark.parametrize(("preset", "option"), [('"demo"', ["preset", "smoke"]), ('"smoke"', ["seed", "1"])])
def test_commands_are_small_and_of_one_line(preset, option):
    by_make, by_papermill = (shlex.split(line) for line in boxes.commands("unet", [("preset", preset, "")]))
    assert by_make == ["make", "chapter", "NAME=unet", f"PARAMS=-p {' '.join(option)}"]
    assert by_papermill[:2] == ["papermill", "book/unet.ipynb"] and by_papermill[3:] == ["-p", *option]
    assert boxes.commands("unet", [("clips", '""', "")]) == [
        "make chapter NAME=unet",
        "papermill book/unet.ipynb unet-again.ipynb",
    ]


def test_a_box_folds_what_a_phone_need_not_show(project):
    note, folded = boxes.box("unet", "Hello.", make_settings("smoke"), project).split(":::{dropdown}")
    assert note.startswith(":::{note}\nHello.\n\nTime") and note.endswith("\n:::\n")
    assert "| `seed` | `None` | seed of it |" in folded and "make chapter" in folded and folded.endswith(":::\n")
    assert "make chapter" not in note


def test_a_page_says_at_which_commit_its_numbers_were_computed(project):
    settings = make_settings("smoke")
    assert boxes.computed("unet", settings, project) == ""
    put(project, "unet-cap/fold-0", seconds=1, device="CPU", commit="c19bada" + 33 * "0", date="2026-11-28")
    text = " Computed at commit `c19bada` on 28 November 2026 (CPU)."
    assert boxes.computed("unet", settings, project, stale=True) == text
    assert boxes.computed("unet", settings, project) == f"{text} The code of this page gives the same fingerprint."
    put(project, "unet-cap/fold-1", seconds=1, device="NVIDIA H200", commit="d" * 40, date="2026-11-29")
    text = " Computed at 2 commits, the last `ddddddd`, on 29 November 2026 (CPU and GPU)."
    assert boxes.computed("unet", settings, project, stale=True) == text
    assert boxes.computed("performance", settings, project) == ""


def test_a_page_says_what_is_stale_and_why(project):
    settings = make_settings("smoke")
    assert boxes.stale_note({}, settings, project) == ""
    put(project, "rivals", seconds=1, commit="c19bada" + 33 * "0", fingerprints={"sifa": "41ab0000"})
    text = boxes.stale_note({"rivals": {"sifa": ("41ab0000", "77d01111")}}, settings, project)
    assert "**Stale.** `rivals` was computed at `c19bada`; since then the fingerprint `sifa` changed (`41ab`" in text
    assert "`77d0`): the code now gives other numbers. `lusbook study --recompute` computes them again." in text
    more = boxes.stale_note({"rivals": {"parent": ("a", "b")}, "cohorts": {}}, settings, project)
    assert "`rivals` and 1 more were computed at" in more and "fine-tuned from" in more
