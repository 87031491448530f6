"""What made a figure is said below it, tables are numbered, and the pages keep the rules that this needs."""

import base64
import io
import re

import imageio.v3 as iio
import nbformat
import numpy as np
import pytest
from sphinx.application import Sphinx

from lusbook import chapters
from lusbook.settings import PROJECT
from lusbook.site.origin import origin_line

BEFORE = "from lusbook.settings import settings_table\nresults = ''\nper_image = runs.study(settings, results=results)"


def code(source, data=None, **figure):
    outputs = [nbformat.v4.new_output("display_data", data)] if data else []
    metadata = {"mystnb": {"figure": figure}} if figure else {}
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata=metadata, execution_count=1)


def cells():
    buffer = io.BytesIO()
    iio.imwrite(buffer, np.zeros((4, 4), np.uint8), extension=".png")
    image = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    table = {"text/html": "<table><tr><td>1</td></tr></table>", "text/plain": "1"}
    words = {"text/markdown": "Nothing to show yet."}
    above = {"caption_before": True}
    return [
        nbformat.v4.new_markdown_cell("# Unet\n\n{numref}`tab-b`, {numref}`tab-words`, {numref}`fig-none`."),
        code(BEFORE, {"text/markdown": "Study `tiny`: 64 px."}),
        code("figures.dice_distribution(per_image)", image, name="fig-a", caption="A figure."),
        code("tables.table1(per_image)", table, name="tab-a", caption="A table.", **above),
        code("settings_table(settings, ())", table, name="tab-b", caption="Of no run.", **above),
        code("something(1)", table, name="tab-c", caption="Of nobody.", **above),
        code("tables.table2(per_image)", words, name="tab-words", caption="Not here.", **above),
        code("figures.knobs()", None, name="fig-none", caption="Not here either."),
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of two pages, whose notebook is named as a chapter, and its warnings."""
    source = tmp_path_factory.mktemp("site")
    (source / "book").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells(), metadata=kernel), source / "book" / "unet.ipynb")
    functions = "\n".join(f".. autofunction:: lusbook.{name}" for name in ("tables.table1", "settings.settings_table"))
    runs = "```{table} Runs.\n:name: tab-runs\n\n| a |\n|---|\n| 1 |\n```"
    plain = f"# Root\n\n```{{toctree}}\nbook/unet\n```\n\n{runs}\n\n```{{eval-rst}}\n{functions}\n```\n"
    (source / "index.md").write_text(plain)
    options = {
        "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "lusbook.site.origin"],
        "nb_execution_mode": "off",
        "nb_render_markdown_format": "myst",
        "numfig": True,
        "html_theme": "basic",
    }
    warnings, out = io.StringIO(), source / "out"
    Sphinx(source, None, out, source / "trees", "html", options, status=None, warning=warnings).build()
    return out, re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue())


def figure_of(site, name):
    text = (site[0] / "book" / "unet.html").read_text()
    return re.search(rf'<figure[^>]*\bid="{name}">.*?</figure>', text, re.DOTALL)[0]


def test_the_line_below_links_to_function_source_and_runs(site):
    text = figure_of(site, "tab-a")
    line = re.search(r'<p class="origin">(.*?)</p>', text, re.DOTALL)[1]
    assert re.sub(r"<[^>]+>", "", line) == "Made by tables.table1 [source] from unet-* of study tiny"
    links = re.findall(r'href="([^"]+)"', line)
    assert links == [
        "../index.html#lusbook.tables.table1",
        "../_modules/lusbook/tables.html#table1",
        "../index.html#tab-runs",
    ]
    assert 'id="table1"' in (site[0] / "_modules" / "lusbook" / "tables.html").read_text()
    assert text.index("<td>1</td>") < text.index('class="origin"')


def test_the_line_names_what_was_read_and_not_what_the_page_shows():
    def words(folders, page):
        return origin_line(["tables.table1"], "tiny", f"book/{page}", folders).astext().partition(" from ")[2]

    assert words(["real"], "diversity") == "real of study tiny"
    assert words(["cohorts", "spread", "runs"], "diversity") == "cohorts, spread and the runs of study tiny"
    assert words(["runs", "dose-response"], "claims") == "dose-response and the runs of study tiny"
    assert words(["runs"], "sifa") == "sifa-* of study tiny" and words([], "results") == "the runs of study tiny"


def test_the_line_stands_below_the_caption_of_a_figure(site):
    text = figure_of(site, "fig-a")
    assert "Fig. 1 " in text and text.index("A figure.") < text.index("figures.dice_distribution") < text.index(
        "</figure>"
    )


def test_tables_are_numbered_with_captions_above(site):
    for name, number in (("tab-a", 1), ("tab-b", 2), ("tab-c", 3)):
        text = figure_of(site, name)
        assert f"Table {number} " in text
        assert text.index("</figcaption>") < text.index("<table")
    page = (site[0] / "book" / "unet.html").read_text()
    assert '<a class="reference internal" href="#tab-b"><span class="std std-numref">Table 2</span></a>' in page


def test_settings_are_from_no_run_and_an_unknown_function_gives_no_line(site):
    assert "Made by" in figure_of(site, "tab-b") and "study" not in figure_of(site, "tab-b")
    assert "Made by" not in figure_of(site, "tab-c")
    assert "Made by" not in (site[0] / "index.html").read_text()


def test_words_in_place_of_a_table_have_no_caption_and_references_say_so(site):
    page = (site[0] / "book" / "unet.html").read_text()
    assert "Nothing to show yet." in page and "Not here." not in page and "tab-words" not in page
    assert "a table that is not computed here" in page and "a figure that is not computed here" in page
    about = [line for line in site[1].splitlines() if "tab-" in line or "fig-" in line]
    assert about == []


def captioned(name):
    """Code cells of a chapter that show a figure or a table, and their captions, names and alt texts."""
    for cell in nbformat.read(PROJECT / "book" / f"{name}.ipynb", as_version=4).cells:
        kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
        if kinds & {"image/png", "text/html"}:
            yield cell, kinds, cell.metadata.get("mystnb", {}).get("figure", {})


@pytest.mark.parametrize("name", chapters.chapter_names())
def test_every_figure_and_table_has_a_caption_and_a_name(name):
    for cell, kinds, figure in captioned(name):
        assert figure.get("caption") and figure.get("name"), cell.source
        if figure["name"].startswith("tab-"):
            assert figure["caption_before"] and "text/html" in kinds
        else:
            assert figure["name"].startswith("fig-")
        if "image/png" in kinds:
            assert cell.metadata["mystnb"]["image"]["alt"], cell.source
        shown = [output for output in cell.outputs if output.get("data") and "scrapbook" not in output.metadata]
        assert len(shown) == 1, f"a second output would be a second {figure['name']}"


def test_names_are_unique():
    names = re.findall(
        r'"name": "((?:tab|fig)-[^"]+)"', "".join(p.read_text() for p in (PROJECT / "book").glob("*.ipynb"))
    )
    names += re.findall(
        r":name: ((?:tab|fig)-[\w-]+)", "".join(p.read_text() for p in (PROJECT / "book").iterdir() if p.is_file())
    )
    assert len(names) > 50 and len(set(names)) == len(names)


def test_every_displayed_equation_has_a_label():
    found = 0
    for name in chapters.chapter_names():
        for cell in nbformat.read(PROJECT / "book" / f"{name}.ipynb", as_version=4).cells:
            equations = re.findall(r"^\$\$\n.*?\n\$\$([^\n]*)$", cell.source, re.MULTILINE | re.DOTALL)
            if cell.cell_type == "markdown" and "$$" in cell.source:
                found += len(equations)
                assert cell.source.count("$$") == 2 * len(equations), name
                assert all(re.fullmatch(r" \(eq-[\w-]+\)", label) for label in equations), name
    assert found >= 2


def test_every_module_is_on_one_reference_page():
    text = "".join(path.read_text() for path in (PROJECT / "book").glob("reference-*.md"))
    listed = re.findall(r"automodule:: lusbook\.([\w.]+)$", text, re.MULTILINE)
    files = [path for folder in ("", "site") for path in (PROJECT / "lusbook" / folder).glob("[!_]*.py")]
    modules = [".".join(path.relative_to(PROJECT / "lusbook").with_suffix("").parts) for path in files]
    assert sorted(listed) == sorted([*modules, "backend"])
    pages = {path.stem for path in chapters.pages()}
    assert {path.stem for path in (PROJECT / "book").glob("reference*.md")} <= pages
