"""Deliberate faults in a run still apply, and the script that tries them tells what is noticed from what is not."""

import os

import pytest

from tests import mutants
from tests.mutants import MUTANTS, Mutant

ONE = Mutant("one", "lusbook/code.py", "a + b", "a - b")


@pytest.mark.slow
def test_every_fault_is_noticed(capfd):
    status = mutants.main(["--jobs", str(os.cpu_count())])
    assert status == 0, capfd.readouterr().out


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_fault_applies_once_and_is_code(mutant):
    assert mutants.count(mutant) == 1, f"{mutant.file}: change the text of {mutant.name!r} with the code"
    changed = (mutants.PROJECT / mutant.file).read_text().replace(mutant.text, mutant.replacement)
    compile(changed, mutant.file, "exec")
    assert mutant.text != mutant.replacement


def test_names_of_faults_differ():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one file, whose test fails where it subtracts."""
    (tmp_path / "lusbook").mkdir()
    (tmp_path / "lusbook" / "code.py").write_text("c = a + b\n")
    monkeypatch.setattr(mutants, "NEEDED", ["lusbook"])

    def run_tests(folder):
        text = (folder / "lusbook" / "code.py").read_text()
        return (1, "test_sum") if "-" in text else (0, "1 passed") if "+" in text else (2, "no tests")

    monkeypatch.setattr(mutants, "run_tests", run_tests)
    monkeypatch.setattr(mutants, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("mutant", "outcome"),
    [
        (None, "survived"),
        (ONE, "killed"),
        (ONE._replace(replacement="b + a"), "survived"),
        (ONE._replace(text="a * b"), "does not apply"),
        (ONE._replace(text="a", replacement="z"), "survived"),
        (ONE._replace(text="", replacement="-"), "does not apply"),  # it is there more than once
        (ONE._replace(replacement="a +"), "broken"),
        (ONE._replace(replacement="0"), "broken"),  # pytest itself fails
    ],
)
def test_verdicts(project, mutant, outcome):
    assert mutants.verdict(mutant, project)[0] == outcome
    assert (project / "lusbook" / "code.py").read_text() == "c = a + b\n"


@pytest.mark.parametrize("replacement", ["a - b", "b + a", "a +"])
def test_the_script_fails_unless_every_fault_is_noticed(project, monkeypatch, capsys, replacement):
    monkeypatch.setattr(mutants, "MUTANTS", [ONE, ONE._replace(name="other", replacement=replacement)])
    status = mutants.main(["--jobs", "2"])
    out = capsys.readouterr().out
    assert status == (replacement != "a - b")
    assert f"{2 - status} of 2 faults were noticed" in out and out.startswith("killed         one ")


def test_tests_that_fail_anyway_say_nothing_of_faults(monkeypatch, capsys):
    monkeypatch.setattr(mutants, "verdict", lambda mutant: ("killed", "test_sum"))
    assert mutants.main([]) == 1
    assert "fail without any fault" in capsys.readouterr().out
