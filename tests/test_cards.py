"""Checklist, data card and model card: nothing is left empty, links lead somewhere, no result is typed."""

import re

import nbformat
import pytest
import yaml

from lusbook.settings import PROJECT
from lusbook.tables import load_published

BOOK = PROJECT / "book"
CARDS = ["checklist", "data-card", "model-card"]
ANSWER = re.compile(r"(Yes|Partly|No|Not applicable): \S.{30,}")
ROLE = re.compile(r"\{(doc|ref|cite:p|cite:t)\}`(?:[^`<]*<)?([^`>]+)>?`")
FILE = re.compile(r"(?<!\})`((?:lusbook|tests|data|benchmarks)/[^`]+|requirements\.txt)`")
# What may hold a digit: roles and code, names, licences.
ALLOWED = re.compile(r"\{[a-z:]+\}`[^`]*`|`[^`]*`|COVID-19|CC BY[A-Z-]* \d\.\d")
SECTIONS = {
    "data-card": ["Motivation", "Composition", "Collection", "Preprocessing and labels", "Uses"]
    + ["Distribution and licences", "Maintenance"],
    "model-card": ["Model details", "Intended use", "Factors", "Metrics", "Training data", "Evaluation data"]
    + ["Results", "Limits", "Ethical considerations"],
}


def read(name):
    return (BOOK / f"{name}.md").read_text()


def items(text):
    """Rows of a checklist: number, what is asked for, answer, where."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| *\d+ *\|", line)]
    return [[cell.strip() for cell in row] for row in rows]


def sections(text):
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def labels(name):
    """What other pages can refer to in a chapter: labels in its text, names of its figures."""
    path = BOOK / f"{name}.ipynb"
    if not path.exists():
        return set(re.findall(r"^\(([\w-]+)\)=$", read(name), flags=re.MULTILINE))
    cells = nbformat.read(path, as_version=4).cells
    named = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return named | set(re.findall(r"^\(([\w-]+)\)=$", text, flags=re.MULTILINE))


def pages():
    toc = yaml.safe_load((PROJECT / "_toc.yml").read_text())
    entries = [entry["file"] for part in toc.get("parts", [toc]) for entry in part["chapters"]]
    return {file.removeprefix("book/") for file in [toc["root"], *entries]}


def broken(text):
    """Links of a page that lead nowhere."""
    everywhere = set().union(*(labels(name) for name in pages()))
    keys = set(re.findall(r"@\w+\{(\w+),", (BOOK / "references.bib").read_text()))
    known = {"doc": pages(), "ref": everywhere, "cite:p": keys, "cite:t": keys}
    lost = [name for kind, names in ROLE.findall(text) for name in names.split(",") if name not in known[kind]]
    return lost + [path for path in FILE.findall(text) if not (PROJECT / path).exists()]


def typed(text):
    """Numbers that stand in the text itself."""
    return re.findall(r"\S*\d\S*", ALLOWED.sub("", text))


def test_every_item_is_there_and_answered():
    rows = items(read("checklist"))
    assert [int(row[0]) for row in rows] == list(range(1, 45))
    for number, asked, answer, where in rows:
        assert len(asked) > 5 and ANSWER.fullmatch(answer), number
        assert ROLE.search(where) or FILE.search(where), number


def test_answers_differ():
    answers = [row[2] for row in items(read("checklist"))]
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("name", SECTIONS)
def test_no_section_is_empty(name):
    found = sections(read(name))
    assert list(found) == SECTIONS[name]
    assert min(len(text) for text in found.values()) > 100


def test_the_data_card_answers_for_all_data():
    for title, text in sections(read("data-card")).items():
        answers = re.findall(r"^(\S.*)\n: ((?:.+\n?)+)", text, flags=re.MULTILINE)
        assert [head for head, _ in answers] == ["Phantom", "Public recordings", "Your own images"], title
        assert min(len(answer) for _, answer in answers) > 40, title


@pytest.mark.parametrize("name", CARDS)
def test_links_lead_somewhere(name):
    assert name in pages() and broken(read(name)) == []


@pytest.mark.parametrize("name", CARDS)
def test_no_number_is_typed(name):
    text = re.sub(r"^\| *\d+ *\|", "", read(name), flags=re.MULTILINE)
    assert typed(text) == []


def test_licences_are_named():
    for name in ("COVID-BLUeS is CC BY-NC-ND 4.0", "CC BY files", "MIT licence", "CC BY 4.0"):
        assert name in " ".join(read("data-card").split())
    assert "not for clinical use" in read("model-card").lower()


def test_claims_link_to_cells_of_the_book():
    for row in load_published("statements").itertuples():
        assert row.chapter in pages() and row.anchor in labels(row.chapter), row.id


def test_faults_are_found():
    assert items("| 7 | Data | |  |\n| a | b |") == [["7", "Data", "", ""]]
    assert not ANSWER.fullmatch("Yes: see there") and not ANSWER.fullmatch("Perhaps: " + 40 * "x")
    assert broken("{doc}`nowhere` {doc}`the card <data-card>` {ref}`no-label` {cite:p}`nobody1900,mason2021`") == [
        "nowhere",
        "no-label",
        "nobody1900",
    ]
    assert broken("`lusbook/nothing.py` `lusbook/claims.py`") == ["lusbook/nothing.py"]
    assert typed("A Dice of 0.87 on COVID-19, CC BY 4.0, {cite:p}`born2021`, 12% of `p1`") == ["0.87", "12%"]
    assert sections("# T\n## A\ntext\n## B\n") == {"A": "text", "B": ""}
