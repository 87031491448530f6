"""Mends the markup of pages: an extension of Sphinx, named in ``_config.yml``.

The theme and its extensions write some that browsers complain of, or that readers without sight or network trip over.
"""

import re

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style

# A page opened from a file may not fetch others to quote them, and each attempt is an error.
NO_QUOTES = "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;"

NUMBERS = re.compile(
    r" ± (?=\d)|\(-?[\d.]+ to -?[\d.]+\)|\(n = \d+\)|(?<=\d) – (?=\d)|<th>fold \d"
    r"|<td>(?:at (?:most|least) )?[\d.]+ ?[\w/]*</td>|(?<=\d) %|<td>&lt; (?=\d)"
)
MANY = r'((?: rowspan="\d+" valign="top")?)'  # of the head of several rows, as pandas writes it
FIGURE = re.compile(r"<img [^>]*>(?=\s*<figcaption)")
NAME = re.compile(r'(<t[dh](?: class="words")?>)([\w.-]+[_/][\w./-]+)(?=</t[dh]>)')
HEADS = re.compile(r"<tr[^>]*>((?:\s*<th>[^<]*</th>)+)\s*</tr>\s*<tr>((?:\s*<th>[^<]*</th>)+)\s*</tr>(?=\s*</thead>)")


def one_head(found):
    """Heads of the index and of the columns in one row, as far as no two would be in one place."""
    first, second = (re.findall("<th>([^<]*)</th>", row) for row in found.groups())
    if len(first) != len(second) or any(one and other for one, other in zip(first, second, strict=True)):
        return found[0]
    return f"<tr>{''.join(f'<th>{one or other}</th>' for one, other in zip(first, second, strict=True))}</tr>"


def is_thebe(script):
    """Whether a script is for cells that run in the page: the book has none, and the script is there twice."""
    return "THEBE_JS_URL" in (script.attributes.get("body") or "") or "sphinx-thebe" in str(script.filename)


def mend(app, pagename, templatename, context, doctree):
    """Mend what a page is made of.

    The theme without a default mode logs an error before it falls back to the reader's system. An entry of the
    bibliography calls itself by a role that is no longer one, in a list that may have list items only. A table from a
    cell scrolls, and on a phone a figure does, but Tab stops only at what is called a scrolling table. A spread, an
    interval and a number with its unit stay on one line, names and paths break where a reader would, names of the
    index stand in the row of the columns' names, and heads and cells of several words are marked, for a style. What
    unfolds the pages below a page of the sidebar has no name.
    """
    context["default_mode"] = "auto"
    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        body = body.replace('"output text_html"', '"output text_html pst-scrollable-table-container"')
        body = HEADS.sub(one_head, body)
        body = re.sub(rf"<th{MANY}>(?=[^<]{{14}})", r'<th class="words"\1>', body)
        body = re.sub(r"<td>(?=[A-Za-z][^<]{15})", '<td class="words">', body)
        body = re.sub(rf"<(t[dh]){MANY}>(?=[A-Za-z]+-\d+<)", r'<\1 class="word"\2>', body)
        body = NAME.sub(lambda found: found[1] + re.sub("[_/]", r"\g<0><wbr>", found[2]), body)
        body = FIGURE.sub(r'<div class="pst-scrollable-table-container">\g<0></div>', body)
        context["body"] = NUMBERS.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), body)
    navigation = context.get("generate_toctree_html")
    if navigation:
        name = '<summary aria-label="Pages of this part">'
        context["generate_toctree_html"] = lambda **options: str(navigation(**options)).replace("<summary>", name)


def skip_aliases(app, what, name, obj, skip, options):
    """Leave out the fields of a named tuple, of which Python says their number and no more; the class names them."""
    return True if str(obj.__doc__).startswith("Alias for field number") else None


class Surnames(Style):
    """A bibliography in which authors begin with the name that the text cites them by, and that sorts them."""

    default_name_style = "lastfirst"

    def __init__(self):
        super().__init__(abbreviate_names=True)


def setup(app):
    """Register with Sphinx."""
    register_plugin("pybtex.style.formatting", "surnames", Surnames)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("html-page-context", mend, priority=900)
    app.add_js_file(None, body=NO_QUOTES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
