"""Pictures of every page of the built site, light, dark and as wide as a phone: ``make screenshots``."""

import sys
from pathlib import Path

from lusbook.chapters import pages
from lusbook.settings import PROJECT
from tests import browser


def take(site, folder):
    """Write a PNG of each page in each of three ways, from its top to its end.

    Parameters
    ----------
    site : Path
        A built site.
    folder : Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    ways = {"light": ("light", browser.DESK), "dark": ("dark", browser.DESK), "phone": ("light", browser.PHONE)}
    with browser.browser_context() as context:
        for file in pages():
            page = context.new_page()
            browser.show(page, (site / file.relative_to(PROJECT)).with_suffix(".html").resolve().as_uri(), folded=True)
            for way, (theme, size) in ways.items():
                browser.paint(page, theme)
                browser.resize(page, size)
                page.screenshot(path=folder / f"{file.stem}-{way}.png", full_page=True)
            page.close()
            print(f"{file.stem}: {', '.join(ways)}", flush=True)


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:3]))
