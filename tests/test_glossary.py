"""The glossary: terms in order and defined, links from the pages that lead somewhere."""

import re

import nbformat

from lusbook import chapters
from lusbook.settings import PROJECT

GLOSSARY = re.compile(r"```\{glossary\}\n:sorted:\n\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+?)>?`")


def definitions(text):
    """Terms of a glossary's source, each with its definition."""
    entries = [part for block in GLOSSARY.findall(text) for part in re.split(r"\n(?=\S)", block.strip())]
    return [(term, " ".join(text.split())) for term, _, text in (entry.partition("\n") for entry in entries)]


def prose(page):
    if page.suffix == ".md":
        return page.read_text()
    cells = nbformat.read(page, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def lost(text, terms):
    """Links of a text to terms that the glossary has not."""
    return [term for term in LINK.findall(text) if term not in terms]


GIVEN = definitions((PROJECT / "book" / "glossary.md").read_text())
TERMS = [term for term, _ in GIVEN]


def test_terms_are_defined_once_and_in_order():
    assert len({term.lower() for term in TERMS}) == len(TERMS) > 50
    for block in GLOSSARY.findall((PROJECT / "book" / "glossary.md").read_text()):
        found = re.findall(r"^(\S.*)$", block, flags=re.MULTILINE)
        assert found == sorted(found, key=str.lower)


def test_definitions_are_a_few_sentences():
    for term, text in GIVEN:
        sentences = re.findall(r"[.;](?= |$)", text.replace("such as", ""))
        assert 20 < len(text) < 400 and 1 <= len(sentences) <= 4, term


def test_links_lead_to_terms_and_only_the_first_use_has_one():
    linked = set()
    for page in chapters.pages():
        text = prose(page)
        assert lost(text, TERMS) == [], page.name
        if page.stem != "glossary":
            used = LINK.findall(text)
            assert len(set(used)) == len(used), page.name
            linked |= set(used)
    assert len(linked) > 45


def test_faults_are_found():
    text = "```{glossary}\n:sorted:\n\nfan\n  The part\n  that counts.\n\ngain\n  More.\n```"
    assert definitions(text) == [("fan", "The part that counts."), ("gain", "More.")]
    assert lost("{term}`fan` {term}`fans <fan>` {term}`gain` {term}`fans <fun>`", ["fan"]) == ["gain", "fun"]
