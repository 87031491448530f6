"""Digests of code."""

import textwrap
from pathlib import Path

from lusbook import digests


def test_code_digest_sees_code_and_nothing_else(tmp_path, monkeypatch):
    source = tmp_path / "module.py"
    monkeypatch.setattr(digests, "__file__", str(tmp_path / "digests.py"))
    found = {}
    for key, text in {
        "plain": "def f(x):\n    return x + 1\n",
        "documented": '"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    # why\n    return (x +\n            1)\n',
        "other": "def f(x):\n    return x + 2\n",
    }.items():
        source.write_text(textwrap.dedent(text))
        found[key] = digests.code_digest(["module"])
    assert found["plain"] == found["documented"] != found["other"]


def test_the_processor_is_named(monkeypatch):
    assert digests.processor()
    monkeypatch.setattr(digests, "Path", lambda _: Path("/nowhere"))
    monkeypatch.setattr(digests.platform, "processor", lambda: "")
    monkeypatch.setattr(digests.platform, "machine", lambda: "arm64")
    assert digests.processor.__wrapped__() == "arm64"
