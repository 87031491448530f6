"""What is mended of a page's markup."""

import re
from types import SimpleNamespace

import pytest
from pybtex.database import Entry, Person

from lusbook.site import markup


def script(filename=None, **attributes):
    return SimpleNamespace(filename=filename, attributes=attributes)


@pytest.fixture
def mended():
    """Mend a page: what the context becomes."""

    def mend(**context):
        context = {"script_files": []} | context
        markup.mend(None, "page", "page.html", context, None)
        return context

    return mend


def test_scripts_of_cells_that_run_go_and_others_stay(mended):
    thebe = [script(body='const THEBE_JS_URL = "x"'), script("_static/sphinx-thebe.js")]
    others = [script(body="let a"), script("_static/doctools.js"), script()]
    assert mended(script_files=[*thebe, *others])["script_files"] == others


def test_lists_tables_and_numbers_are_mended(mended):
    body = '<div role="doc-biblioentry"></div><div class="output text_html"><th>SIFA of many words</th><th>n</th></div>'
    wanted = '<div role="listitem"></div><div class="output text_html pst-scrollable-table-container">'
    wanted += '<th class="words">SIFA of many words</th><th>n</th></div>'
    numbers = "0.5 ± 0.1, 0.2 (-0.1 to 0.5)"
    kept = numbers.replace(" ± ", "_±_").replace(" to ", "_to_").replace("_", "\N{NO-BREAK SPACE}")
    assert mended(body=body + numbers)["body"] == wanted + kept


def test_a_figure_scrolls_and_an_image_in_text_does_not(mended):
    image, caption = '<img alt="a &gt; b" src="a.png" />', "\n<figcaption>\n<p>A figure.</p>"
    figure = f'<figure id="fig-a">\n<div class="pst-scrollable-table-container">{image}</div>{caption}</figure>'
    assert (
        mended(body=f'<figure id="fig-a">\n{image}{caption}</figure><p>{image}</p>')["body"]
        == f"{figure}<p>{image}</p>"
    )


def test_a_number_stays_with_its_unit_and_code_as_it_is(mended):
    body = "<td>43.6 frames/s</td><td>at most 0.1</td><td>0.7 – 0.8</td><th>fold 1</th>"
    code = "<pre>run --fold 1 at most 2</pre>"
    kept = re.sub(r"(?<=>at) | (?=frames|0.1|–|0.8|1<)", "\N{NO-BREAK SPACE}", body)
    assert mended(body=body + code)["body"] == kept + code


@pytest.mark.parametrize(
    ("columns", "index", "wanted"),
    [
        (["", "unit"], ["of", ""], "<tr><th>of</th><th>unit</th></tr>"),
        (["fold", "0"], ["cohort", ""], None),
        (["", "unit"], ["of", "what", ""], None),
    ],
)
def test_names_of_the_index_stand_beside_those_of_columns(mended, columns, index, wanted):
    rows = "".join(f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>" for heads in (columns, index))
    assert mended(body=f"<thead>{rows}</thead>")["body"] == f"<thead>{wanted or rows}</thead>"


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("<td>U-Net (COVID-19)</td>", '<td class="words">U-Net (COVID-19)</td>'),
        ("<td>COVID-19</td>", '<td class="word">COVID-19</td>'),
        ("<th>COVID-19</th>", '<th class="word">COVID-19</th>'),
        ('<th rowspan="2" valign="top">CAP-1</th>', '<th class="word" rowspan="2" valign="top">CAP-1</th>'),
        (
            '<th rowspan="9" valign="top">U-Net (CAP) again</th>',
            '<th class="words" rowspan="9" valign="top">U-Net (CAP) again</th>',
        ),
        ("<td>&lt; 0.001</td>", "<td>&lt;\N{NO-BREAK SPACE}0.001</td>"),
        ("<td>up to 95 % of them</td>", '<td class="words">up to 95\N{NO-BREAK SPACE}% of them</td>'),
        ("<td>agrees</td>", "<td>agrees</td>"),
        ("<th>image_size</th>", "<th>image_<wbr>size</th>"),
        ("<td>demo/real</td>", "<td>demo/<wbr>real</td>"),
        ("<td>31.5 frames/s and more</td>", "<td>31.5 frames/s and more</td>"),
        ("<td>C,ll</td>", "<td>C,ll</td>"),
        ("<td>0.123456789012345678</td>", "<td>0.123456789012345678</td>"),
    ],
)
def test_cells_of_words_are_marked(mended, cell, wanted):
    assert mended(body=cell)["body"] == wanted


def test_entries_of_the_bibliography_begin_with_a_surname():
    entry = {"author": [Person("Ada Lovelace")]}
    formatted = markup.Surnames().format_entry("1", Entry("misc", [("title", "Notes"), ("year", "1843")], entry))
    assert str(formatted.text).startswith("Lovelace, A.")


def test_what_unfolds_the_contents_has_a_name(mended):
    contents = mended(generate_toctree_html=lambda **kind: "<summary>" + kind["kind"])["generate_toctree_html"]
    assert contents(kind="sidebar") == '<summary aria-label="Pages of this part">sidebar'


def test_a_page_without_a_body_has_a_theme(mended):
    assert mended() == {"default_mode": "auto", "script_files": []}
