"""Looks at pages of the book in a real browser, without a network: what is wrong with one, check by check."""

import re
from collections import Counter
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import imageio.v3 as iio
import numpy as np
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import sync_playwright

from lusbook.site.pdf import find_chromium

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
CONTRAST = 4.5  # of text, by WCAG 2 at level AA
ELSEWHERE = re.compile(r"^(?!file:|data:|blob:|about:)")
STILL = "*, *::before, *::after {animation: none !important; transition: none !important}"
FIGURES = ".bd-article img, .bd-article .js-plotly-plot"
# What a page has many of, all alike: axe-core, which takes a minute for a thousand of them, sees the first few.
ALIKE = "tbody tr:nth-child(n+4), dl.py:not(:first-of-type), .genindextable li:nth-child(n+4)"

OPEN_ALL = "document.querySelectorAll('details').forEach(part => part.open = true)"
# When its window or text changes, a page waits 0.3 s for more of that, and then gives what scrolls a place in the order
# of Tab. On a busy machine it hears late of its new size, so it is told again.
SETTLE = """async () => {
    await window.MathJax?.startup?.promise;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    await new Promise(done => {
        let timer = setTimeout(done, 350);
        const again = () => {clearTimeout(timer); timer = setTimeout(done, 350)};
        new MutationObserver(again).observe(document.body, {subtree: true, childList: true});
        dispatchEvent(new Event('resize'));
    });
}"""
LINKS = "[...document.links].map(link => link.href).filter(address => address.startsWith('file:'))"
NAMELESS = "[...document.images].filter(image => !image.alt.trim()).map(image => image.outerHTML.slice(0, 200))"
UNTYPESET = """[...document.querySelectorAll('.math')]
    .filter(math => !math.querySelector('mjx-container')?.offsetWidth || math.querySelector('mjx-merror'))
    .map(math => math.outerHTML.slice(0, 200))"""
WIDE = """() => {
    const scrolls = part => part && part !== document.body
        && (getComputedStyle(part).overflowX !== 'visible' || scrolls(part.parentElement));
    const out = [...document.querySelectorAll('body *')].filter(part => part.checkVisibility()
        && part.getBoundingClientRect().right > innerWidth + 1 && !scrolls(part));
    const page = document.documentElement.scrollWidth > innerWidth ? ['the page scrolls'] : [];
    return [...page, ...out.slice(0, 5).map(part => part.outerHTML.slice(0, 200))];
}"""
AXE = """async ({context, options}) => {
    const result = await axe.run(context, {resultTypes: ['violations'], preload: false, ...options});
    const rules = result.violations.filter(rule => ['serious', 'critical'].includes(rule.impact));
    const say = (rule, node) => `${rule.id}: ${node.html.slice(0, 200)} ${node.any[0]?.message ?? ''}`;
    return rules.flatMap(rule => rule.nodes.map(node => say(rule, node)));
}"""
THIN = "alike => document.querySelectorAll(alike).forEach(part => part.remove())"
TEXTS = "figure => [...figure.querySelectorAll('text')].map(text => getComputedStyle(text).fill)"


@contextmanager
def browser_context():
    """A window of a desk's size, for which there is no other machine.

    Yields
    ------
    context : playwright.sync_api.BrowserContext

    Raises
    ------
    LusbookError
        Without a browser.
    """
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_chromium())
        context = browser.new_context(viewport=DESK, reduced_motion="reduce", color_scheme="light", offline=True)
        context.set_default_timeout(120_000)  # ms; a busy machine takes its time
        context.route(ELSEWHERE, lambda route: route.abort())
        yield context
        browser.close()


def watch(page):
    """Complaints of a page's console and loading, in a list that grows as they come."""
    found = []
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"not loaded: {request.url}"))
    page.on("request", lambda request: found.append(f"wanted: {request.url}") if ELSEWHERE.match(request.url) else None)
    return found


def show(page, address, folded=False):
    """Open a page and wait until its formulas are set; nothing moves any more, and what folds is open or not."""
    page.goto(address)
    page.add_style_tag(content=STILL)
    if not folded:
        page.evaluate(OPEN_ALL)
    page.evaluate(SETTLE)


def resize(page, size):
    """Give the window another size."""
    page.set_viewport_size(size)
    page.evaluate(SETTLE)


def paint(page, theme):
    """Switch to the theme ``light`` or ``dark``."""
    page.evaluate("theme => {document.documentElement.dataset.theme = theme}", theme)


@cache
def anchors(file):
    """Names in a page to which a link can point."""
    return set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", file.read_text(encoding="utf-8")))


def broken_links(page, site):
    """Links to files or places that are not in the site."""
    found = []
    for address in sorted(set(page.evaluate(LINKS))):
        parts = urlsplit(address)
        file, place = Path(unquote(parts.path)), unquote(parts.fragment)
        if not (file.is_file() and file.is_relative_to(site)) or (place and place not in anchors(file)):
            found.append(address)
    return found


def keyboard(page):
    """What keeps a reader without a mouse from the text: the first Tab must find a link that skips to it."""
    page.keyboard.press("Tab")
    target = page.evaluate("document.activeElement.hash")
    if target != "#main-content":
        return [f"the first Tab finds no link that skips to the text but {target or 'something else'}"]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = page.evaluate("!!document.activeElement.closest('#main-content, main')")
    return [] if inside else ["the link that skips to the text leads elsewhere"]


def violations(page, only=None, **options):
    """Serious and critical findings of axe-core.

    Code and formulas are left out unless they are asked for: they have more elements than all else together, and all
    look the same.

    Parameters
    ----------
    page : playwright.sync_api.Page
    only : str, optional
        Selector of what to look at.
    **options
        Of ``axe.run``.
    """
    page.evaluate(f"window.axe || {AXE_SCRIPT}")
    context = {"include": [only]} if only else {"exclude": [[".highlight pre *"], ["mjx-container"]]}
    return page.evaluate(AXE, {"context": context, "options": options})


def luminance(colours):
    """Relative luminance of sRGB colours, by WCAG 2.

    Parameters
    ----------
    colours : array_like, (..., 3)
        From 0 to 255.

    Returns
    -------
    luminance : ndarray, (...)
        From 0 to 1.
    """
    share = np.asarray(colours, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(first, second):
    """Contrast of colours, by WCAG 2: from 1, none, to 21."""
    one, other = luminance(first), luminance(second)
    return (np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05)


def faint_figures(page):
    """Figures that cannot be read as the page now shows them.

    A figure brings its own opaque ground. On that, taken from its edge as it is on the screen, something must stand out
    as text must; in a drawing with text of its own, each of its texts.
    """
    found = []
    for figure in page.locator(FIGURES).all():
        address = figure.get_attribute("src") or ""
        file = Path(unquote(urlsplit(figure.evaluate("figure => figure.src || ''")).path))
        if file.suffix == ".png" and file.is_file():
            stored = iio.imread(file)
            if stored.shape[-1] in (2, 4) and stored[..., -1].min() < 255:
                found.append(f"{file.name}: transparent")
        seen = iio.imread(figure.screenshot())[2:-2, 2:-2, :3]  # pixels at the very edge are half the page's
        edge = np.concatenate([seen[0], seen[-1]])
        ground = Counter(map(tuple, edge.tolist())).most_common(1)[0][0]
        texts = [list(map(float, re.findall(r"[\d.]+", fill)[:3])) for fill in figure.evaluate(TEXTS)]
        best = contrast(texts or seen, ground)
        if (best.min() if texts else best.max()) < CONTRAST:
            found.append(f"{address or 'drawing'}: too little contrast with its ground {ground}")
    return found


def examine(page, address, site):
    """Everything that is wrong with a page, on a desk and on a phone, light and dark.

    Parameters
    ----------
    page : playwright.sync_api.Page
        A new one.
    address : str
    site : Path
        Folder of the site, which no link may leave for another file.

    Returns
    -------
    found : dict of str to list of str
        By check; checks that find nothing are left out.
    """
    found = {"loading": watch(page)}
    show(page, address)
    found |= {"keyboard": keyboard(page), "links": broken_links(page, site), "math": page.evaluate(UNTYPESET)}
    found |= {"alt text": page.evaluate(NAMELESS)}
    resize(page, PHONE)
    found |= {"width": page.evaluate(WIDE)}
    page.evaluate(THIN, ALIKE)
    found |= {"axe": violations(page, rules={"color-contrast": {"enabled": False}})}
    page.set_viewport_size(DESK)
    found |= {"contrast, light": violations(page, runOnly=["color-contrast"])}
    paint(page, "dark")
    found |= {"contrast, dark": violations(page, runOnly=["color-contrast"]), "figures, dark": faint_figures(page)}
    return {check: problems for check, problems in found.items() if problems}
