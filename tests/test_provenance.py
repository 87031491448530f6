"""Where results come from: commits, contents, and committed runs computed again."""

import subprocess

import numpy as np
import pytest

from lusbook import provenance
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from tests.helpers import random_rows


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A project of one commit."""

    def git(*arguments):
        about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *about, *arguments], check=True, capture_output=True)

    def anew():
        for cached in (provenance.commit, provenance.changes, provenance.date, provenance.environment):
            cached.cache_clear()

    for name in ("code.py", "requirements.txt", "data/results/demo/table.csv", "book/page.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    monkeypatch.setattr(provenance, "RESULTS", tmp_path / "data" / "results")
    anew()
    yield tmp_path, anew
    monkeypatch.undo()
    anew()


def test_only_tracked_code_makes_a_tree_dirty(clone):
    folder, anew = clone
    commit, state = provenance.commit(), provenance.state()
    assert len(commit) == 40 and len(provenance.environment()) == 16 and len(provenance.date()) == 10
    (folder / "untracked.py").write_text("new")
    (folder / "data/results/demo/table.csv").write_text("computed anew")
    (folder / "book/page.md").write_text("executed anew")
    anew()
    assert (provenance.commit(), provenance.state()) == (commit, state)
    provenance.refuse_dirty(folder / "data" / "results" / "demo")
    (folder / "code.py").write_text("two\n")
    anew()
    assert provenance.commit() == f"{commit}-dirty" and provenance.state() != state
    provenance.refuse_dirty(folder / "elsewhere")
    with pytest.raises(LusbookError, match="tracked files differ from the commit.*commit first, or let --results"):
        provenance.refuse_dirty(folder / "data" / "results" / "demo")


def test_a_project_that_is_no_clone_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    assert provenance.commit.__wrapped__() == provenance.environment.__wrapped__() == ""
    provenance.refuse_dirty(tmp_path)


def test_contents_are_told_apart_by_every_pixel():
    images, masks = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), bool)
    one = provenance.arrays_digest(images, masks)
    assert (
        one
        == provenance.arrays_digest(np.zeros((4, 4, 2), np.uint8).T, masks)
        != provenance.arrays_digest(images, None)
    )
    for array in (images, masks):
        array[1, 2, 3] = 1
        assert provenance.arrays_digest(images, masks) != one
        array[1, 2, 3] = 0
    assert provenance.arrays_digest(images.reshape(1, 8, 4), masks) != one


def test_what_a_folder_depends_on():
    root = PROJECT / "data" / "results" / "demo"
    assert provenance.parts_of(root / "unet-cap" / "fold-0") == ("phantom", "unet")
    assert provenance.parts_of(root / "sifa-cap-to-covid" / "fold-0") == ("phantom", "sifa")
    assert provenance.parts_of(root / "dose-response" / "3x3-seeds-1" / "one") == provenance.PARTS["dose-response"]
    assert provenance.parts_of(root / "my-model") == provenance.NETWORKS


def test_a_repetition_is_equal_on_the_same_processor_and_near_on_another(tmp_path, capsys):
    rows = random_rows(["unet-cap"], folds=[0])
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    rows.to_csv(folders[0] / "per_image.csv", index=False)
    here, there = ({"processor": name, "versions": {"keras": "3"}} for name in "ab")
    for shift, same, near in ((0.0, True, True), (0.01, False, True), (0.05, False, False)):
        rows.assign(dice=rows["dice"] + shift).to_csv(folders[1] / "per_image.csv", index=False)
        assert provenance.compare(*folders, here, here) is same
        assert provenance.compare(*folders, here, there) is near
    out = capsys.readouterr().out
    assert "the same processor and versions; equal, mean Dice differs by 0.0000" in out and "by 0.0500" in out


def test_weeks_choose_other_runs(tmp_path, monkeypatch):
    from lusbook import runs

    chosen = []

    def run(name, fold, settings, results):
        chosen.append((name, fold, settings.image_size))
        return provenance.RESULTS / "demo" / name / f"fold-{fold}"

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(provenance, "stale", lambda manifests: {})
    monkeypatch.setattr(provenance, "compare", lambda folder, again, *_: len(chosen) < 3)
    assert provenance.verify(2, week=1) == 0 and provenance.verify(2, week=2) == 2
    assert len(set(chosen)) == 4 and {size for *_, size in chosen} == {64}
