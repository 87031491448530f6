"""A built site, where there is one: nothing that a page shows comes from another machine. Nothing is built here."""

import re

import pytest

from lusbook.settings import PROJECT

SITES = [PROJECT / "_build" / name / "_build" / "html" for name in ("check", "staging")] + [PROJECT / "_build" / "html"]
FOREIGN = r"(?:https?:)?//[^\"'\s)>]+"
ELEMENT = re.compile(rf"<(?:script|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|data)=\"({FOREIGN})")
LINK = re.compile(r"<link\b[^>]*>")
STYLE = re.compile(rf"(?:url\(\s*[\"']?|@import\s+[\"'])({FOREIGN})")
RELATION = re.compile(r"\brel=\"(?:stylesheet|preload|icon|shortcut icon|modulepreload|preconnect|dns-prefetch)\"")


def foreign(text):
    """Addresses on other machines from which a page or style sheet would load something to show."""
    links = [re.search(rf"\bhref=\"({FOREIGN})", link) for link in LINK.findall(text) if RELATION.search(link)]
    return ELEMENT.findall(text) + STYLE.findall(text) + [link[1] for link in links if link]


@pytest.fixture(params=SITES, ids=["check", "staging", "site"])
def site(request):
    if not (request.param / "search.html").exists():
        pytest.skip(f"no built site in {request.param.relative_to(PROJECT)}; make site or make test builds one")
    return request.param


def test_no_asset_comes_from_elsewhere(site):
    found = {
        (file.name, address)
        for suffix in ("html", "css")
        for file in site.rglob(f"*.{suffix}")
        for address in foreign(file.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_no_page_names_the_folder_of_the_project_on_this_machine(site):
    pages = (site / "book").glob("*.html")
    assert [page.name for page in pages if str(PROJECT) in page.read_text(encoding="utf-8")] == []


def test_the_search_and_the_formulas_are_in_the_site(site):
    assert (site / "searchindex.js").exists() and (site / "_static" / "mathjax" / "tex-chtml.js").exists()
    assert 'src="../_static/mathjax/tex-chtml.js' in (site / "book" / "unet.html").read_text()


def test_foreign_assets_are_found():
    text = """
    <script src="https://cdn.example/a.js"></script><script src="../_static/b.js"></script>
    <link rel="stylesheet" href="//cdn.example/c.css"/><link rel="canonical" href="https://example.org/page"/>
    <link href="_static/d.css" rel="stylesheet"/><a href="https://example.org">a link is no asset</a>
    <img alt="x" src="http://example.org/e.png"/><img src="../_images/f.png"/>
    <style>@import "https://fonts.example/g.css"; p {background: url(https://example.org/h.png)}
    q {background: url(i.png)}
    </style>"""
    names = [address.rsplit("/", 1)[1] for address in foreign(text)]
    assert sorted(names) == ["a.js", "c.css", "e.png", "g.css", "h.png"]
