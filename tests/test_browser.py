"""The built site in a real browser without a network, where there are both. Nothing is built here."""

import os

import imageio.v3 as iio
import numpy as np
import pytest

from lusbook.chapters import pages
from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from lusbook.site.pdf import find_chromium
from tests import browser
from tests.test_site import SITES

PAGES = [str(file.relative_to(PROJECT).with_suffix(".html")) for file in pages()] + ["search.html", "genindex.html"]
CHAPTER = "book/unet.html"
CLEAN = """<!doctype html><html lang="en"><head><title>A page</title></head><body>
<a href="#main-content">Skip to the text</a>
<main id="main-content" class="bd-article"><h1>A page</h1><p>Text, <a href="page.html#main-content">a link</a>.</p>
<img src="white.png" alt="a figure">
<div class="js-plotly-plot" style="background: #fff"><svg width="90" height="40">
<text x="9" y="22" fill="#333">text</text></svg></div>
</main></body></html>"""
# What is wrong, and what the finding must then name, by check.
WRONG = {
    "keyboard": [("", "#elsewhere")],
    "loading": [
        ("<script>console.error('complaint')</script>", "complaint"),
        ("<script>undefinedName()</script>", "undefinedName"),
        ("<script src='https://cdn.example/a.js'></script>", "wanted: https://cdn.example/a.js"),
        ("<script src='absent.js'></script>", "absent.js"),
    ],
    "links": [
        ("<a href='absent.html'>next page</a>", "absent.html"),
        ("<a href='page.html#absent'>next part</a>", "page.html#absent"),
        ("<a href='../outside.html'>outside</a>", "outside.html"),
    ],
    "math": [(r"<span class='math'>\(x^2\)</span>", "x^2")],
    "alt text": [("<img src='white.png'>", "white.png")],
    "width": [("<div style='width: 600px'>too wide</div>", "too wide"), ("", "the page scrolls")],
    "axe": [("<button></button>", "button-name")],
    "contrast, light": [("<p style='color: #aaa; background: #fff'>pale</p>", "pale")],
    "contrast, dark": [("<style>[data-theme=dark] q {color: #444; background: #222}</style><q>dim</q>", "dim")],
    "figures, dark": [
        ("<img src='clear.png' alt='a figure'>", "clear.png: transparent"),
        ("<img src='dark.png' alt='a figure'>", "dark.png: too little contrast"),
        ("<style>[data-theme=dark] .dim {filter: brightness(0.2)}</style>", ""),
        ("<img src='dimmed.png' alt='a figure' class='dim'>", "dimmed.png: too little contrast"),
        ("<div class='js-plotly-plot'><svg><text y='22' fill='#ccc'>faint</text></svg></div>", "drawing: too little"),
    ],
}


def missing(what):
    """Skip without what is needed; where everything must be checked, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="module")
def context():
    try:
        find_chromium()
    except LusbookError as error:
        missing(f"no browser here: {error}")
    with browser.browser_context() as context:
        yield context


@pytest.fixture
def page(context):
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def site():
    built = [site for site in SITES if (site / "search.html").exists()]
    if not built:
        missing("no built site here; make site or make test builds one")
    return built[0].resolve()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wrong_with_a_page(page, site, name):
    assert (site / name).exists(), "the site is older than the table of contents; make site or make test builds it anew"
    assert browser.examine(page, (site / name).as_uri(), site) == {}


def test_code_can_be_read_light_and_dark(page, site):
    browser.show(page, (site / CHAPTER).as_uri())
    for theme in ("light", "dark"):
        browser.paint(page, theme)
        assert browser.violations(page, only=".highlight") == []


def test_a_reader_without_a_mouse_searches_and_finds(page, site):
    found = browser.watch(page)
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    page.keyboard.press("Control+k")
    assert page.locator("dialog[open] input[type=search]").is_visible()
    page.keyboard.type("SIFA")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=SIFA")
    page.locator("#search-results li a[href^='book/sifa.html']").first.wait_for()
    assert page.locator("#search-results li").count() > 5
    assert found == []


@pytest.mark.parametrize("fold", ["details.hide", "details.sd-dropdown"])
def test_a_reader_without_a_mouse_unfolds_code_and_boxes(page, site, fold):
    page.goto((site / CHAPTER).as_uri())
    box = page.locator(fold).first
    code = box.locator("pre").last
    assert not code.is_visible()
    box.locator("summary").focus()
    page.keyboard.press("Enter")
    assert code.is_visible() and code.inner_text().strip()
    page.keyboard.press("Enter")
    assert not code.is_visible()


def test_on_a_phone_a_wide_figure_scrolls_by_itself_and_takes_the_focus(page, site):
    browser.show(page, (site / CHAPTER).as_uri())
    box = page.locator("figure > .pst-scrollable-table-container:has(> img)").first
    scrolls = "box => [box.scrollWidth > box.clientWidth, box.tabIndex]"
    assert box.evaluate(scrolls) == [False, -1]
    browser.resize(page, browser.PHONE)
    assert box.evaluate(scrolls) == [True, 0]


def test_the_theme_follows_its_button_and_stays(page, site):
    page.goto((site / CHAPTER).as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.locator("button.theme-switch-button").first
    button.focus()
    for _ in range(3):  # light, dark, the system's
        if page.evaluate("document.documentElement.dataset.mode") != "dark":
            page.keyboard.press("Enter")
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.evaluate("localStorage.clear()")


def examine(page, folder, text):
    """What is wrong with a small page; its figures are black on white, on dark, or on nothing."""
    grounds = {"white": (255, 255, 255, 255), "dimmed": (255, 255, 255, 255), "dark": (40, 40, 40, 255)}
    for name, ground in (grounds | {"clear": (255, 255, 255, 0)}).items():
        pixels = np.full((40, 60, 4), ground, "uint8")
        pixels[15:25, 20:40] = (0, 0, 0, 255)
        iio.imwrite(folder / f"{name}.png", pixels)
    (folder / "page.html").write_text(text)
    return browser.examine(page, (folder / "page.html").as_uri(), folder)


def test_nothing_is_found_on_a_page_without_faults(page, tmp_path):
    assert examine(page, tmp_path, CLEAN) == {}


def test_every_fault_of_a_page_is_found(page, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "outside.html").write_text("not in the site")
    faults = "".join(fault for some in WRONG.values() for fault, _ in some)
    text = CLEAN.replace("#main-content", "#elsewhere", 1).replace("</main>", f"{faults}</main>")
    found = examine(page, tmp_path / "site", text)
    assert set(found) == set(WRONG)
    for check, some in WRONG.items():
        for fault, named in some:
            assert any(named in problem for problem in found[check]), (check, fault, found[check])


def test_contrast_is_that_of_the_guidelines():
    assert browser.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert browser.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)
