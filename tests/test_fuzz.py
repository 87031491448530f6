"""Readers of files from strangers on some hundred broken ones each; and the fuzzer finds what is planted."""

import os
import pickle
import random
import re
import subprocess
from pathlib import Path

import pytest

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


def test_atheris_feeds_a_reader_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed: it is to be had for Linux on x86_64 alone")
    found = fuzz.fuzz_apart("boxes", 200, 120, 0, tmp_path)
    assert found["inputs"] >= 200 and found["mishandled"] == 0, (tmp_path / "boxes" / "log").read_text()
    assert found["result"] > 0 and found["refused"] > 0
    assert len(list((tmp_path / "boxes" / "corpus").iterdir())) > len(seeds(TARGETS["boxes"]))  # led by coverage


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
