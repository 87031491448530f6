"""What is mended of a page's markup."""

from types import SimpleNamespace

import pytest

from lusbook import markup


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


def test_what_unfolds_the_contents_has_a_name(mended):
    contents = mended(generate_toctree_html=lambda **kind: "<summary>" + kind["kind"])["generate_toctree_html"]
    assert contents(kind="sidebar") == '<summary aria-label="Pages of this part">sidebar'


def test_a_page_without_a_body_has_a_theme(mended):
    assert mended() == {"default_mode": "auto", "script_files": []}
