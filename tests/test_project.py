"""What keeps the project in order: hooks, the guard on committed numbers, what CONTRIBUTING says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lusbook import chapters, digests, provenance, runs, store
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.settings import PROJECT, make_settings

REPOS = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = [hook for repo in REPOS for hook in repo["hooks"]]
LOCAL = [hook for hook in HOOKS if hook.get("language") == "system"]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
CHANGED = ("unet-cap", 0)  # the run that the guard's test changes


@pytest.fixture
def study(tmp_path):
    """A copy of the committed study's U-Nets."""
    for name in (name for name, experiment in EXPERIMENTS.items() if experiment.method == "unet"):
        shutil.copytree(PROJECT / "data" / "results" / "demo" / name, tmp_path / "demo" / name)
    return tmp_path


def change_one_dice(results, agree):
    """Make the Dice of one test image 1; the manifest's digest follows it, or not."""
    folder = store.run_folder(*CHANGED, make_settings("demo"), results)
    path = folder / "per_image.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    first = table.index[table["cohort"] == "cap"][0]
    old = digests.short_digest(path.read_bytes())
    assert float(table.loc[first, "dice"]) < 0.8
    table.loc[first, "dice"] = "1"
    table.to_csv(path, index=False)
    if agree:
        manifest = (folder / "manifest.json").read_text()
        assert old in manifest
        (folder / "manifest.json").write_text(manifest.replace(old, digests.short_digest(path.read_bytes())))


def nbval(name, results):
    """What nbval says of a committed chapter, executed against other results."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", f"book/{name}.ipynb"]
    environment = os.environ | {"LUSBOOK_RESULTS": str(results)}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)


# The chapter `unet`: it runs no bootstrap, and its checked table of folds has three decimals, so that one image shows.
def test_nbval_passes_on_a_copy_and_fails_when_one_value_was_changed(study):
    done = nbval("unet", study)
    assert done.returncode == 0, done.stdout
    change_one_dice(study, agree=True)
    done = nbval("unet", study)
    assert done.returncode == 1, done.stdout
    assert "Cell outputs differ" in done.stdout and "fold_table" in done.stdout
    assert "Cell execution caused an exception" not in done.stdout


def test_a_changed_value_that_its_manifest_does_not_know_is_refused(study):
    folder = store.run_folder(*CHANGED, make_settings("demo"), study)
    store.check_files(folder)
    change_one_dice(study, agree=False)
    with pytest.raises(LusbookError, match=r"per_image.csv: differs from its manifest"):
        chapters.begin("unet", {"results": str(study)})
    with pytest.raises(LusbookError, match=r"per_image.csv: differs from its manifest"):
        runs.read_run(*CHANGED, make_settings("demo"), study)
    for fold in set(FOLDS) - {CHANGED[1]}:
        store.check_files(folder.with_name(f"fold-{fold}"))


def test_the_commands_of_hooks_exist():
    known = {"ruff-check", "ruff-format", "strip-chapters", "codespell", "check-added-large-files"}
    assert known <= {hook["id"] for hook in HOOKS}
    for hook in LOCAL:
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert set(arguments) <= TARGETS, hook["id"]
        else:
            assert program.startswith(".venv/bin/"), hook["id"]
            assert Path(sys.executable).with_name(Path(program).name).exists(), hook["id"]


def files_of(hook, names):
    """Names that a hook looks at."""
    chosen = (name for name in names if re.search(hook.get("files", ""), name))
    return [name for name in chosen if not ("exclude" in hook and re.search(hook["exclude"], name))]


def test_committed_files_pass_the_guard_on_size():
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout of git")
    names = [name for name in listed.stdout.splitlines() if (PROJECT / name).exists()]
    guards = [hook for hook in HOOKS if hook["id"] == "check-added-large-files"]
    seen = [name for hook in guards for name in files_of(hook, names)]
    assert sorted(seen) == sorted(names)  # each file by one guard
    for hook in guards:
        limit = 1024 * int(hook["args"][0].removeprefix("--maxkb="))
        assert [name for name in files_of(hook, names) if (PROJECT / name).stat().st_size > limit] == []


def test_the_text_is_spelt_well(tmp_path):
    command = [str(Path(sys.executable).with_name("codespell")), "--toml", str(PROJECT / "pyproject.toml")]
    (tmp_path / "wrong.md").write_text(f"To {'eveicer'[::-1]} data.\n")  # backwards, or this file were wrong itself
    wrong = subprocess.run([*command, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True)
    assert wrong.returncode and "==> receive" in wrong.stdout
    text = ["README.md", "CONTRIBUTING.md", "Makefile", "book", "lusbook", "tests", "benchmarks", "data/paper"]
    done = subprocess.run([*command, *text], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == ""


def test_dependabot_groups_weekly_updates():
    updates = yaml.safe_load((PROJECT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert all(update["schedule"] == {"interval": "weekly"} and update["groups"] for update in updates)


@pytest.mark.parametrize("path", sorted((PROJECT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_call_what_there_is(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for job in jobs.values():
        assert job.get("needs", next(iter(jobs))) in jobs
        assert job["timeout-minutes"] < 360  # then GitHub ends a job
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        commands = [step["run"].split() for step in job["steps"] if "run" in step]
        assert all(words[0] == "make" and set(words[1:]) <= TARGETS for words in commands)


def test_contributing_names_what_there_is():
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    verbs = set(re.findall(r"\bmake ([a-z-]+)", text))
    assert {"test", "results", "chapter", "format", "strip", "links"} <= verbs <= TARGETS
    table = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE))
    assert table == set(provenance.PARTS), "the table of what is stale after what"
