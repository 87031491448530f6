"""The audit tells a good answer from none."""

import json

from tests import audit

GOOD = {"name": "a", "version": "1.0", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
BAD = {"name": "c", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]}


def verdict(*packages):
    return audit.verdict(json.dumps({"dependencies": packages, "fixes": []}))


def test_packages_without_vulnerabilities_pass():
    assert verdict(GOOD, SKIPPED) == ("0 known vulnerabilities in 1 packages, 1 not known", False)


def test_vulnerabilities_are_named_with_what_mends_them():
    text, vulnerable = verdict(GOOD, BAD)
    assert vulnerable and "c 2.0: PYSEC-1, mended in 2.1, 3.0" in text and "1 known vulnerabilities in 2" in text


def test_no_answer_is_no_pass():
    assert verdict(SKIPPED, SKIPPED) == (
        "not audited: the vulnerability service knows none of 2 packages; no connection?",
        False,
    )
    text, vulnerable = audit.verdict("", "Traceback\nConnectionError: failed to resolve")
    assert not vulnerable and text.startswith("not audited: ") and "failed to resolve" in text


def test_the_command_is_one_that_pip_audit_takes(monkeypatch):
    asked = []
    monkeypatch.setattr(audit.subprocess, "run", lambda command, **options: asked.append(command) or Done)
    assert audit.main() == 1 and asked[0][1:3] == ["-m", "pip_audit"] and "--require-hashes" in asked[0]


class Done:
    stdout, stderr = json.dumps({"dependencies": [BAD]}), ""
