"""Buttons of pages, in the tiniest book: Colab or Binder by the project's address, the PDF where there is one."""

import os
import re
import subprocess

import nbformat
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from lusbook.site import buttons

ADDRESS = "https://github.com/owner/na.me"
DROPDOWN = ":::{dropdown} Parameters\nSome.\n:::\n"


@pytest.fixture
def build(tmp_path):
    """Build a book of three pages under an address; returns the folder of the site."""

    def build(address):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "index.md").write_text("# Front\n\n```{toctree}\nsifa\ndata\n```\n")
        for name in ("sifa", "data"):
            cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\n{DROPDOWN}")]
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
            nbformat.write(notebook, source / f"{name}.ipynb")
        config = {
            "extensions": ["myst_nb", "sphinx_design", "lusbook.site.buttons"],
            "html_theme": "sphinx_book_theme",
            "html_theme_options": {"launch_buttons": {"binderhub_url": "", "colab_url": ""}},
            "myst_enable_extensions": ["colon_fence"],
            "nb_execution_mode": "off",
            "source_suffix": {".md": "myst-nb", ".ipynb": "myst-nb"},
        }
        (source / "conf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
        with pytest.MonkeyPatch.context() as patch, docutils_namespace():
            patch.setenv("LUSBOOK_REPOSITORY", address)
            options = {"status": None, "warningiserror": True, "freshenv": True}
            Sphinx(source, source, tmp_path / "site", tmp_path / "trees", "html", **options).build(force_all=True)
        return tmp_path / "site"

    return build


def links(page):
    """Addresses of a page's buttons, by their text."""
    found = re.findall(r'<a href="([^"]+)"[^>]*?class="btn[^"]*dropdown-item"(.*?)</a>', page.read_text(), re.DOTALL)
    return {re.findall(r'btn__text-container">([^<]*)<', rest)[0].strip(): address for address, rest in found}


def test_pages_open_in_colab_or_binder_by_what_they_need(build):
    site = build(ADDRESS)
    assert links(site / "sifa.html") == {
        "Colab": "https://colab.research.google.com/github/owner/na.me/blob/main/sifa.ipynb",
        ".ipynb": "_sources/sifa.ipynb",
    }
    assert links(site / "data.html")["Binder"] == (
        "https://mybinder.org/v2/gh/owner/na.me/main?urlpath=lab/tree/data.ipynb"
    )
    assert set(links(site / "index.html")) == {".md"}
    box = re.search(r"<details.*?</details>", (site / "sifa.html").read_text(), re.DOTALL)[0]
    assert f"!git clone --depth 1 {ADDRESS} lusbook" in box
    assert "git clone" not in (site / "data.html").read_text()
    assert nbformat.read(site / "_sources" / "sifa.ipynb", as_version=4).cells


def test_colab_opens_nothing_of_gitlab(build):
    site = build("https://gitlab.com/owner/name.git")
    expected = "https://mybinder.org/v2/gl/owner%2Fname/main?urlpath=lab/tree/sifa.ipynb"
    assert links(site / "sifa.html") == {"Binder": expected, ".ipynb": "_sources/sifa.ipynb"}
    assert "git clone" not in (site / "sifa.html").read_text()


def test_without_an_address_there_are_downloads_alone(build):
    assert links(build("") / "sifa.html") == {".ipynb": "_sources/sifa.ipynb"}


def test_the_pdf_of_these_pages_is_offered(build, tmp_path):
    site = build("")
    assert "whole book .pdf" not in links(site / "sifa.html")
    pdf = tmp_path / "source" / "_build" / "lusbook.pdf"
    pdf.parent.mkdir()
    pdf.write_bytes(b"%PDF")
    os.utime(pdf, (2**31, 2**31))
    build("")
    assert links(site / "sifa.html")["whole book .pdf"] == "lusbook.pdf"
    assert (site / "lusbook.pdf").read_bytes() == b"%PDF"


def test_the_pdf_of_earlier_pages_is_not_offered(build, tmp_path):
    pdf = tmp_path / "source" / "_build" / "lusbook.pdf"
    pdf.parent.mkdir(parents=True)
    pdf.write_bytes(b"%PDF")
    os.utime(pdf, (0, 0))
    site = build("")
    assert "whole book .pdf" not in links(site / "sifa.html")
    assert not (site / "lusbook.pdf").exists()


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:owner/na.me.git", ADDRESS),
        ("ssh://git@github.com/owner/na.me", ADDRESS),
        ("https://github.com/owner/na.me/", ADDRESS),
        ("https://gitlab.com/owner/name.git", "https://gitlab.com/owner/name"),
        ("https://gitlab.com/group/sub/name.git", ""),
        ("https://git.example.org/owner/name.git", ""),
        ("/somewhere/github.com/owner/name", ""),
        (None, ""),
    ],
)
def test_address_of_a_checkout(tmp_path, monkeypatch, remote, address):
    monkeypatch.delenv("LUSBOOK_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    if remote:
        subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert buttons.repository(tmp_path) == address
    (tmp_path / "archive").mkdir()
    assert buttons.repository(tmp_path / "archive") == ""
    monkeypatch.setenv("PATH", "")
    assert buttons.repository(tmp_path) == ""


def test_an_address_that_is_named_wins_or_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBOOK_REPOSITORY", ADDRESS)
    assert buttons.repository(tmp_path) == ADDRESS
    monkeypatch.setenv("LUSBOOK_REPOSITORY", "")
    assert buttons.repository() == ""
    monkeypatch.setenv("LUSBOOK_REPOSITORY", "https://example.org/a/b")
    with pytest.raises(
        LusbookError, match="LUSBOOK_REPOSITORY: expected https://github.com/.*received 'https://example"
    ):
        buttons.repository(tmp_path)


def test_chapters_for_colab_are_there_and_the_extension_is_named():
    assert [name for name in buttons.TRAINED if not (PROJECT / "book" / f"{name}.ipynb").exists()] == []
    assert "- lusbook.site.buttons" in (PROJECT / "_config.yml").read_text()
