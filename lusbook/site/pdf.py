"""The whole book as one PDF: Sphinx's single page, made ready for paper and printed by Chromium.

``python -m lusbook.site.pdf FOLDER PDF`` takes what Sphinx's builder ``singlehtml`` wrote; ``make pdf`` does both.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from bs4 import BeautifulSoup

from lusbook.boxes import FOLDED
from lusbook.errors import LusbookError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Hidden code, what only a screen can do, marks for the mouse, and the reference, which is longer than the book.
LEFT_OUT = (
    "details.above-input, .headerlink, .noprint, script, noscript, iframe, button, summary svg, "
    'span[id^="document-"][id$="/reference"] + section'
)
PAGE = "print.html"  # beside the folders _static and _images
WIDTH = 650  # CSS px between the margins of print.css on A4
LONG = 400  # CSS px: tables that are longer may go on on the next page
SMALL = 0.74  # to which long tables of numbers may shrink, so that their cells wrap less
# Tables, formulas and code that are wider than the page shrink until they fit.
FIT = """([width, long, small]) => document.querySelectorAll("article :is(table, .math, pre)").forEach(element => {
  const room = element.parentElement.clientWidth || width;
  if (element.tagName === "TABLE" && element.offsetHeight > long) {
    for (const part of [element, element.closest("figure")]) if (part) part.style.breakInside = "auto";
    if (element.matches(".dataframe")) {
      element.style.width = "max-content";
      element.style.maxWidth = `${room / small}px`;
    }
  }
  if (element.scrollWidth > room + 1) element.style.zoom = room / element.scrollWidth;
})"""
ABOUT = (
    "Printed from the book's pages. Code, parameters, interactive figures and the reference of functions are left out: "
    "the site has them."
)


def find_chromium():
    """Path of Chromium or Chrome: ``LUSBOOK_CHROMIUM``, or the first of the usual names on the path.

    Raises
    ------
    LusbookError
        When there is none.
    """
    named = os.environ.get("LUSBOOK_CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if found is None:
        expected = f"a program at LUSBOOK_CHROMIUM, received {named!r}" if named else f"one of {', '.join(BROWSERS)}"
        raise LusbookError(f"the PDF needs Chromium or Chrome: expected {expected}{'' if named else ' on the path'}")
    return found


def single_page(folder):
    """The page of Sphinx's builder ``singlehtml``: the largest, where others only lead to it.

    Parameters
    ----------
    folder : path

    Raises
    ------
    LusbookError
        When the folder has no page.
    """
    pages = [page for page in Path(folder).rglob("*.html") if "_static" not in page.parts and page.name != PAGE]
    if not pages:
        raise LusbookError(f"{folder}: expected the output of Sphinx's builder singlehtml, found no page")
    return max(pages, key=lambda page: page.stat().st_size)


def prepare(text, numbers=None):
    """A single page made ready for paper: a title page, a table of contents, chapters; the theme's frame is gone.

    Parameters
    ----------
    text : str
        HTML, as Sphinx's builder ``singlehtml`` writes it.
    numbers : dict of str to int, optional
        Pages of headings by their id, for the table of contents.

    Returns
    -------
    text : str
        HTML, to be put where ``_static`` and ``_images`` are.
    """
    soup = BeautifulSoup(text, "html.parser")
    article = soup.select_one("article")
    if article is None:
        raise LusbookError("single page: expected an element <article>, received none")
    for element in article.select(LEFT_OUT) + [found.parent for found in article.select("summary") if is_box(found)]:
        element.decompose()
    for details in article.select("details"):
        details["open"] = ""
    mend_links(article)
    raise_chapters(article)
    name_headings(article)
    styles = "".join(str(link) for link in soup.select("link[rel=stylesheet]"))
    formulas = "".join(str(script) for script in soup.select("script") if "mathjax" in str(script).lower())
    print_style = '<link rel="stylesheet" href="_static/print.css">'
    head = f'<meta charset="utf-8"><title>{soup.title.get_text()}</title>{styles}{print_style}{formulas}'
    body = f"{title_page(soup)}{contents(article, numbers or {})}{article}"
    return f'<!DOCTYPE html><html lang="en" data-theme="light"><head>{head}</head><body>{body}</body></html>'


def is_box(summary):
    """Whether a folded part is a chapter's parameters and commands."""
    return summary.get_text(" ", strip=True) == FOLDED


def mend_links(article):
    """Let links lead to elements of this page, each id being there once.

    Sphinx writes links to other pages as to ``root.html#id``; ids of citations are counted in each page anew, and of
    those the entry of the bibliography is meant.
    """
    for link in article.select("a[href]"):
        link["href"] = re.sub(r"^(?!\w+:)[^#]*#", "#", link["href"])
    entries = {entry["id"] for entry in article.select(".citation[id]")}
    for element in article.select("[id]:not(.citation)"):
        if element["id"] in entries:
            del element["id"]
    known = set()
    for element in article.select("[id]"):  # sections of two chapters with the same title
        if element["id"] in known:
            element["id"] += f"-{len(known)}"
        known.add(element["id"])
    for link in article.select('a[href^="#"]'):
        if link["href"][1:] not in known:
            link.name = "span"
            del link["href"]


def raise_chapters(article):
    """Let chapters have headings of the first level, as the front page has: Sphinx puts them into its section."""
    for heading in article.select('span[id^="document-"] ~ section :is(h2, h3, h4, h5, h6)'):
        heading.name = f"h{int(heading.name[1]) - 1}"


def name_headings(article):
    """Give a section's name to its heading: where that moves to the next page, the section still begins before."""
    for heading in article.select("section[id] > :is(h1, h2, h3, h4, h5, h6)"):
        heading["id"] = heading.parent["id"]
        del heading.parent["id"]


def title_page(soup):
    """Title, authors, licence, version and commit, all as the site has them."""
    footer = soup.select_one(".extra_footer")
    author = soup.select_one(".component-author")
    said = f"<p>{author.get_text(strip=True)}</p>" if author else ""
    said += f"{footer.decode_contents() if footer else ''}<p>{ABOUT}</p>"
    return f'<header class="title-page"><p class="title">{soup.title.get_text()}</p>{said}</header>'


def contents(article, numbers):
    """Chapters and their sections, each a link, with its page where that is known."""
    lines = []
    for heading in article.select("section > h1, section > h2"):
        name, title = heading["id"], heading.get_text(" ", strip=True)
        number = f"<span>{numbers[name]}</span>" if name in numbers else ""
        kind = "chapter" if heading.name == "h1" else "part"
        lines.append(f'<li class="{kind}"><a href="#{name}"><span>{title}</span>{number}</a></li>')
    return f'<nav class="book-contents"><h1>Contents</h1><ul>{"".join(lines)}</ul></nav>'


def page_numbers(pdf):
    """Pages of what links lead to, read from a PDF as Chromium writes it: plain objects, named destinations.

    Parameters
    ----------
    pdf : bytes

    Returns
    -------
    numbers : dict of str to int
        By id of the HTML; empty without links.
    """
    pages = {number: place for place, number in enumerate(re.findall(rb"\n(\d+) 0 obj\n<</Type /Page\n", pdf), 1)}
    found = re.search(rb"/Dests (\d+) 0 R", pdf)
    named = re.search(rb"\n%s 0 obj\n(.*?)\nendobj" % found[1], pdf, re.DOTALL)[1] if found else b""
    return {
        re.sub(r"#([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), name.decode("latin-1")): pages[number]
        for name, number in re.findall(rb"/(\S+) \[(\d+) 0 R /XYZ", named)
    }


def print_page(browser, page):
    """A PDF of a page, with formulas set, nothing wider than the paper, bookmarks and links.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
    page : path
        HTML.

    Returns
    -------
    pdf : bytes
    """
    tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
    tab.emulate_media(media="print")
    tab.goto(Path(page).resolve().as_uri())
    tab.evaluate("window.MathJax?.startup?.promise")
    tab.evaluate("document.fonts.ready.then(() => true)")
    tab.evaluate(FIT, [WIDTH, LONG, SMALL])
    return tab.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)


def write_pdf(folder, pdf):
    """Print a book: once to learn on which page each heading comes, then with those pages in the contents.

    Parameters
    ----------
    folder : path
        What Sphinx's builder ``singlehtml`` wrote.
    pdf : path

    Returns
    -------
    pages : int

    Raises
    ------
    LusbookError
        Without Chromium or playwright, or without a page in the folder.
    """
    try:  # here: of the extra dev, and a site is rendered without it
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise LusbookError("the PDF needs the package playwright, of the extra dev: it is not installed") from error
    program, folder, text = find_chromium(), Path(folder), single_page(folder).read_text("utf-8")
    page, printed = folder / PAGE, b""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        for _ in range(2):
            page.write_text(prepare(text, page_numbers(printed)), "utf-8")
            printed = print_page(browser, page)
        browser.close()
    page.unlink()
    Path(pdf).parent.mkdir(parents=True, exist_ok=True)
    Path(pdf).write_bytes(printed)
    return printed.count(b"<</Type /Page\n")


def main():
    """Command line."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m lusbook.site.pdf FOLDER PDF")
    try:
        pages = write_pdf(*sys.argv[1:])
    except LusbookError as error:
        sys.exit(f"lusbook: {error}")
    print(f"{sys.argv[2]}: {pages} pages, {Path(sys.argv[2]).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
