"""The footer's version and commit, with and without git."""

import subprocess
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from lusbook.settings import PROJECT
from lusbook.site import footer

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit and a tag."""
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"], ["tag", "v9"]):
        subprocess.run([*GIT, *words], cwd=tmp_path, check=True)
    return tmp_path


def test_commit_of_a_checkout(checkout):
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert footer.version_line(checkout) == f"lusbook {version('lusbook')}, commit {head}"
    (checkout / "file").write_text("2")
    assert footer.version_line(checkout) == f"lusbook {version('lusbook')}, commit {head} with changes"


def test_an_archive_inside_another_checkout_has_the_version_alone(checkout):
    (checkout / "archive").mkdir()
    assert footer.version_line(checkout / "archive") == f"lusbook {version('lusbook')}"


def test_without_a_working_git_the_version_alone(checkout, monkeypatch):
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert footer.version_line(checkout) == f"lusbook {version('lusbook')}"
    monkeypatch.setenv("PATH", "")
    assert footer.version_line(checkout) == f"lusbook {version('lusbook')}"


def test_the_footer_that_was_there_stays():
    config = SimpleNamespace(html_theme_options={"extra_footer": "Licence."})
    footer.add_version(None, config)
    assert config.html_theme_options["extra_footer"].startswith("Licence.<p>lusbook ")
    assert "- lusbook.site.footer" in (PROJECT / "_config.yml").read_text()
