"""Readers of files from strangers on some hundred broken ones each; and the fuzzer finds what is planted."""

import json
import os
import pickle
import random
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
import yaml

from lusbook.errors import LusbookError
from tests import fuzz
from tests.fuzz_targets import TARGETS, Target, one, seeds

INPUTS = 100


@pytest.mark.parametrize("name", TARGETS)
def test_broken_files_end_in_a_result_or_in_one_error(name):
    target, rng, good = TARGETS[name], random.Random(name), seeds(TARGETS[name])
    assert {fuzz.outcome(target, data) for data in good} >= {"result"}
    found = set()
    for number in range(INPUTS):
        data = fuzz.change(rng.choice(good), target.kind, rng)
        found.add(outcome := fuzz.outcome(target, data))
        assert outcome in fuzz.KINDS, (number, outcome)
    assert "refused" in found


def test_most_seeds_are_good():
    counts = [fuzz.outcome(target, data) for target in TARGETS.values() for data in seeds(target)]
    assert counts.count("result") > 0.9 * len(counts)


@pytest.mark.slow
def test_atheris_feeds_a_reader_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed: it is to be had for Linux on x86_64 alone")
    found = fuzz.fuzz_apart("boxes", 200, 120, 0, min(os.sched_getaffinity(0)), tmp_path)
    assert found["inputs"] >= 200 and found["mishandled"] == 0, (tmp_path / "boxes" / "log").read_text()
    assert found["result"] > 0 and found["refused"] > 0
    assert len(list((tmp_path / "boxes" / "corpus").iterdir())) > len(seeds(TARGETS["boxes"]))  # led by coverage


def test_calls_are_added_up_until_there_are_enough_inputs(tmp_path, monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("cores are told apart on Linux alone")
    right = {"seed": 0, "seconds": 1, "slowest": 0.1, "inputs": 6, "result": 4, "refused": 2}
    asked, bad = [], right | {"mishandled": 1}

    def answer(name, runs, seconds, seed, core, kept):
        asked.append((name, runs, seed))
        return bad if name == "COCO" and len(asked) < 3 else right | {"mishandled": 0, "seed": seed}

    monkeypatch.setattr(fuzz, "fuzz_apart", answer)
    feed = partial(fuzz.main, ["boxes", "COCO"], runs=10, seconds=9, more=True, out=tmp_path / "fuzz.json")
    with pytest.raises(SystemExit, match="mishandled inputs are in"):
        feed()
    assert sorted(asked) == [("COCO", 10, 0), ("boxes", 10, 0)]
    feed()
    assert sorted(asked[2:]) == [("COCO", 10, 0), ("boxes", 4, 1)]  # what was mended begins anew
    feed()
    assert asked[4:] == [("COCO", 4, 1)]
    content = json.loads((tmp_path / "fuzz.json").read_text())
    assert [call["seed"] for call in content["calls"]["boxes"]] == [0, 1]
    found = {row["name"]: row["median"] for row in content["quantities"]}
    assert found["boxes, inputs"] == found["COCO, inputs"] == 12 and found["COCO, mishandled"] == 0


def test_the_committed_counts_are_of_the_readers_that_there_are():
    calls = json.loads((fuzz.PROJECT / "data" / "benchmarks" / "fuzz.json").read_text())["calls"]
    assert list(calls) == list(TARGETS)
    assert not any(call["mishandled"] for tried in calls.values() for call in tried)


def test_the_nightly_fuzz_feeds_every_reader_and_keeps_what_it_finds():
    text = (fuzz.PROJECT / ".github" / "workflows" / "nightly.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["fuzz"]["steps"]
    assert "make fuzz" in [step.get("run") for step in steps]  # without READERS, RUNS and SECONDS: all that there are
    kept = next(step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert f"{fuzz.KEPT.relative_to(fuzz.PROJECT)}/*/finding*" in kept.splitlines()


# ---------------------------------------------------------------------------------------------
# What the fuzzer notices


def refuse(text):
    raise LusbookError(text)


def swallow(act):
    """A reader that makes every exception its own."""
    try:
        act()
    except Exception as error:
        raise LusbookError("a.txt: broken") from error


OUTSIDE = Path(__file__).resolve().parents[2] / "outside"
PLANTED = {
    "another exception": (lambda folder: {}["key"], "KeyError"),
    "written outside": (lambda folder: (folder.parent / "planted").write_text(""), "outside its folder: written"),
    "made outside": (lambda folder: (folder.parent / "planted").mkdir(), "outside its folder: os.mkdir"),
    "moved out": (lambda folder: (folder / "a.txt").rename(folder.parent / "planted"), "outside its folder: os.rename"),
    "read outside": (lambda folder: OUTSIDE.read_text(), "outside its folder: read"),
    "in spite of a handler": (lambda folder: swallow(OUTSIDE.read_text), "outside its folder: read"),
    "a pickle": (lambda folder: pickle.loads(pickle.dumps(os.getcwd)), "pickle.find_class"),
    "a program": (lambda folder: subprocess.run(["true"]), "subprocess.Popen"),
    "no place": (lambda folder: refuse("it is broken"), "without a place"),
    "a book": (lambda folder: refuse("a.txt" * 1000), "an error of 5000 characters"),
}


@pytest.mark.parametrize("read, words", PLANTED.values(), ids=PLANTED)
def test_what_no_reader_may_do_is_found(read, words):
    target = Target(read, ("a.txt",), "text", one(b"text"))
    assert re.search(words, fuzz.outcome(target, b"text"))


def test_what_a_reader_may_do_is_not():
    target = Target(
        lambda folder: (folder / "b.txt").write_text((folder / "a.txt").read_text()), ("a.txt",), "text", one()
    )
    assert fuzz.outcome(target, b"text") == "result"
    target = Target(lambda folder: refuse("a.txt: broken"), ("a.txt",), "text", one())
    assert fuzz.outcome(target, b"text") == "refused"


@pytest.mark.parametrize("twice, found", [("a.txt: whole", "more than"), ("a.txt: " + fuzz.NO_MEMORY, "refused")])
def test_memory_that_twice_the_limit_would_hold_is_too_much(monkeypatch, twice, found):
    limits = [(100, 1000)]
    monkeypatch.setattr(fuzz.resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda which, limit: limits.append(limit))
    texts = {100: f"a.txt: {fuzz.NO_MEMORY}", 200: twice}
    target = Target(lambda folder: refuse(texts[limits[-1][0]]), ("a.txt",), "text", one())
    assert fuzz.outcome(target, b"text").startswith(found)
    assert limits == [(100, 1000), (200, 1000), (100, 1000)]


def test_what_takes_too_long_is_ended(tmp_path):
    with pytest.raises(fuzz.Finding, match="more than 0.05 s"), fuzz.guarded(tmp_path, seconds=0.05):
        while True:
            pass


@pytest.mark.parametrize("name", ["CVAT JSON", "checkpoint", "PNG", "manifest CSV", "DICOM"])
def test_changes_are_changes_and_repeat(name):
    (data, *_), kind = seeds(TARGETS[name]), TARGETS[name].kind
    first, again = ([fuzz.change(data, kind, random.Random(k)) for k in range(20)] for _ in range(2))
    assert first == again and len(set(first)) > 10 and any(change != data for change in first)


def test_findings_are_kept_once_a_kind(tmp_path):
    for data, found in ((b"1", "KeyError: 1"), (b"2", "KeyError: 2"), (b"3", "TypeError")):
        fuzz.keep(tmp_path, data, found)
    assert sorted(path.read_bytes() for path in tmp_path.glob("finding-*[0-9]")) == [b"1", b"3"]
    assert len((tmp_path / "findings.jsonl").read_text().splitlines()) == 3
