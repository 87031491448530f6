"""Version and commit in the footer of every page: an extension of Sphinx, named in ``_config.yml``."""

import subprocess
from importlib.metadata import version

from lusbook.settings import PROJECT


def version_line(project=PROJECT):
    """Version of the package, and the commit where the book is built from a git checkout.

    Parameters
    ----------
    project : path
        Root of the project.

    Returns
    -------
    str
        Such as ``lusbook 0.1.0, commit 1a2b3c4 with changes``; without git, or in an unpacked archive, the version
        alone.
    """
    commit = ask_git(project, "describe", "--always", "--exclude=*", "--dirty= with changes")
    return f"lusbook {version('lusbook')}" + (f", commit {commit}" if commit else "")


def ask_git(project, *arguments):
    """What git answers in the root of a checkout; empty where that is none, git is missing or it knows no answer."""
    if not (project / ".git").exists():  # git would look further up, and find something else
        return ""
    command = ["git", "-C", str(project), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def add_version(app, config):
    """Put the version at the end of the theme's footer."""
    before = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options["extra_footer"] = f"{before}<p>{version_line()}</p>"


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", add_version)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
