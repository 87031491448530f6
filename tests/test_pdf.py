"""The book as a PDF: what goes on paper of a single page, and, with a browser, what comes out of one."""

import re
import sys

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from lusbook.boxes import FOLDED
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from lusbook.site import pdf

FRONT = "# Front\n\nSee {doc}`one` and {ref}`end`.\n\n```{toctree}\none\ntwo\nreference\n```\n\n## Runs\n"
ONE = "# One\n\n$x^2$\n\n## Runs\n\n```{code-block} python\nprint(1)\n```\n"
TWO = f"# Two\n\n(end)=\n\n## End\n\n:::{{dropdown}} {FOLDED}\nSecret.\n:::\n\n:::{{dropdown}} Other\nOpen.\n:::\n"
TITLES = ["Front", "One", "Runs", "Two", "End", "Runs"]
REFERENCE = "# Reference\n\nFunctions.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the builder singlehtml writes of a book of four pages."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    (source / "book").mkdir()
    for name, text in {"index": FRONT, "one": ONE, "two": TWO, "reference": REFERENCE}.items():
        (source / "book" / f"{name}.md").write_text(text)
    (source / "conf.py").write_text(
        "project = html_title = 'Tiny'\nroot_doc = 'book/index'\nauthor = 'Somebody'\n"
        "html_theme = 'sphinx_book_theme'\nsource_suffix = {'.md': 'markdown'}\n"
        f"html_static_path = [{str(PROJECT / 'book' / '_static')!r}]\n"
        "extensions = ['myst_parser', 'sphinx_design', 'sphinx-mathjax-offline']\n"
        "myst_enable_extensions = ['colon_fence', 'dollarmath']\n"
        "html_theme_options = {'extra_footer': 'Licence.'}\n"
    )
    with docutils_namespace():
        Sphinx(source, source, built, built / "trees", "singlehtml", status=None, warning=None).build(force_all=True)
    return built


@pytest.fixture(scope="module")
def page(folder):
    return pdf.prepare(pdf.single_page(folder).read_text("utf-8"))


def test_hidden_parts_stay_out_and_others_are_open(page):
    assert "Secret." not in page and "Functions." not in page
    assert re.search(r"<details[^>]* open=[^>]*>.*?Open\.", page, re.DOTALL)
    assert not re.search(r"<script(?![^>]*mathjax)(?!>window.MathJax)", page)
    assert "headerlink" not in page and "sidebar" not in page


def test_chapters_have_headings_of_the_first_level(page):
    found = re.findall(r"<h(\d)[^>]*>(\w+)", page[page.index("<article") :])
    assert found == [(level, title) for level, title in zip("112122", TITLES, strict=True)]


def test_links_to_a_section_lead_to_its_heading(page):
    assert '<h2 id="end">' in page and not re.search(r"<section[^>]* id=", page)


def test_links_lead_to_something_that_is_there_once(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    links = re.findall(r'<a\b[^>]*\bhref="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"#document-book/one", "#end"} <= set(links)
    assert {link[1:] for link in links} <= set(ids)


def test_title_page_and_contents(folder, page):
    assert re.search(r'class="title">Tiny<.*?Somebody.*?Licence\..*?left out', page, re.DOTALL)
    listed = re.findall(r'<li class="(\w+)"><a href="#([^"]+)"><span>(\w+)</span></a>', page)
    assert [title for _, _, title in listed] == TITLES
    assert [kind == "chapter" for kind, _, _ in listed] == [True, True, False, True, False, False]
    numbered = pdf.prepare(pdf.single_page(folder).read_text("utf-8"), {"two": 7})
    assert '<a href="#two"><span>Two</span><span>7</span></a>' in numbered


def test_entries_of_the_bibliography_keep_their_names():
    text = (
        "<title>T</title><article><section id=a><h1>A</h1><p><span id=id1><a href='r.html#id2'>1</a></span></p>"
        "<span id=id2></span><div class=citation id=id2>Entry</div><a href='#gone'>Back</a></section></article>"
    )
    page = pdf.prepare(text)
    assert re.findall(r'id="id2"', page) == ['id="id2"'] and 'class="citation" id="id2"' in page
    assert '<a href="#id2">1</a>' in page and "<span>Back</span>" in page


def test_pages_of_destinations():
    written = (
        b"%PDF\n3 0 obj\n<</Type /Page\n/Parent 1 0 R>>\nendobj\n8 0 obj\n<</Type /Page\n>>\nendobj\n"
        b"9 0 obj\n<</one [3 0 R /XYZ 0 1 0]\n/a#2Fb [8 0 R /XYZ 0 1 0]>>\nendobj\n"
        b"10 0 obj\n<</Type /Catalog\n/Dests 9 0 R>>\nendobj\n"
    )
    assert pdf.page_numbers(written) == {"one": 1, "a/b": 2}
    assert pdf.page_numbers(b"") == {}


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSBOOK_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(LusbookError, match=r"a program at LUSBOOK_CHROMIUM, received '.*none'"):
        pdf.find_chromium()
    monkeypatch.delenv("LUSBOOK_CHROMIUM")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LusbookError, match="needs Chromium or Chrome: expected one of chromium, .* on the path"):
        pdf.write_pdf(tmp_path, tmp_path / "book.pdf")
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(LusbookError, match="the package playwright, of the extra dev: it is not installed"):
        pdf.write_pdf(tmp_path, tmp_path / "book.pdf")
    with pytest.raises(LusbookError, match="expected the output of Sphinx's builder singlehtml, found no page"):
        pdf.single_page(tmp_path)
    with pytest.raises(LusbookError, match="expected an element <article>, received none"):
        pdf.prepare("<p>1</p>")


def test_a_printed_book(folder, tmp_path):
    try:
        pdf.find_chromium()
    except LusbookError as error:
        pytest.skip(str(error))
    assert pdf.write_pdf(folder, tmp_path / "out" / "book.pdf") == 5  # title, contents, three chapters
    printed = (tmp_path / "out" / "book.pdf").read_bytes()
    numbers = pdf.page_numbers(printed)
    assert [numbers[name] for name in ("front", "one", "two", "end")] == [3, 4, 5, 5]
    marks = [title.decode() for title in re.findall(rb"/Title \((\w+)\)\n/Dest", printed)]
    assert sorted(marks) == sorted(["Contents", *TITLES])
    fonts = set(re.findall(rb"/FontName /\w+\+(\w+)", printed))
    assert any(font.startswith(b"MathJax") for font in fonts), fonts
    assert printed.count(b"/FontFile") >= len(fonts)
    assert not (folder / pdf.PAGE).exists()
