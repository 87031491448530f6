"""Buttons at the top of pages: an extension of Sphinx, named in ``_config.yml``.

A notebook opens in Colab or Binder where the project has a public address; the whole book is offered as a PDF where
``make pdf`` made one of these pages.
"""

import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx_design.dropdown import dropdown_main

from lusbook.errors import LusbookError
from lusbook.settings import PROJECT
from lusbook.site.footer import ask_git

TRAINED = ("unet", "sifa", "experiments", "results", "rivals", "dose-response", "real")  # their runs want a GPU
HOSTED = re.compile(r"(?:https://|ssh://git@|git@)(git(?:hub|lab)\.com)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?")
SERVICES = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
COLAB = {"colab_url": "https://colab.research.google.com"}
ADDRESS = {"repository_branch": "main"}
PDF = "lusbook.pdf"
FIRST_CELL = '!git clone --depth 1 {} lusbook\n!pip install -q -e "lusbook[gpu]"'
FIRST = (
    "On Colab, choose a GPU as the type of runtime, run these lines in a cell of their own, restart the session, and "
    "run the chapter:"
)


def repository(project=PROJECT):
    """Public address of the project: ``LUSBOOK_REPOSITORY``, or git's remote ``origin``.

    Parameters
    ----------
    project : path
        Root of the project.

    Returns
    -------
    str
        Such as ``https://github.com/owner/name``; empty without git, without a remote on GitHub or GitLab, and where
        the variable is empty.

    Raises
    ------
    LusbookError
        When the variable names no repository of GitHub or GitLab.
    """
    named = os.environ.get("LUSBOOK_REPOSITORY")
    found = HOSTED.fullmatch(ask_git(project, "remote", "get-url", "origin") if named is None else named)
    if named and not found:
        raise LusbookError(f"LUSBOOK_REPOSITORY: expected https://github.com/OWNER/NAME, received {named!r}")
    return f"https://{found[1]}/{found[2]}" if found else ""


def offer_launch(app, config):
    """Let the theme know the address and the services; Colab opens notebooks of GitHub alone."""
    address = repository()
    if address:
        services = SERVICES | (COLAB if "github.com" in address else {})
        config.html_theme_options |= ADDRESS | {"repository_url": address, "launch_buttons": services}


def choose_service(app, pagename, templatename, context, doctree):
    """Keep one launch button: Colab for what wants a GPU, where it can be, else Binder."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            services = {button["text"]: button for button in group["buttons"]}
            wanted = "Colab" if on_colab(app.config, pagename) else "Binder"
            group["buttons"] = [services[wanted]]


def on_colab(config, pagename):
    """Whether a page has a button for Colab."""
    services = config.html_theme_options.get("launch_buttons", {})
    return bool(services.get("colab_url")) and Path(pagename).name in TRAINED


def add_first_cell(app, doctree, docname):
    """Say in a chapter's box what Colab needs before it can run the chapter."""
    box = next(iter(doctree.findall(dropdown_main)), None)
    if app.builder.name == "html" and on_colab(app.config, docname) and box is not None:
        lines = FIRST_CELL.format(app.config.html_theme_options["repository_url"])
        box[-1] += [nodes.paragraph("", FIRST), nodes.literal_block(lines, lines, language="text")]


def current_pdf(app):
    """The book's PDF, where it is newer than all pages, else None."""
    pdf = Path(app.confdir) / "_build" / PDF
    if not pdf.exists():
        return None
    made = pdf.stat().st_mtime
    return pdf if all(Path(app.env.doc2path(page)).stat().st_mtime <= made for page in app.env.found_docs) else None


def offer_pdf(app, pagename, templatename, context, doctree):
    """Put the book's PDF into the menu of downloads."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons" and current_pdf(app):
            group["buttons"].append(
                {
                    "type": "link",
                    "url": context["pathto"](PDF, 1),
                    "text": "whole book .pdf",
                    "icon": "fas fa-book",
                    "tooltip": "Download the whole book",
                    "label": "download-book-button",
                }
            )


def copy_pdf(app, exception):
    """Put the book's PDF beside the pages."""
    pdf = current_pdf(app) if exception is None and app.builder.name == "html" else None
    if pdf:
        shutil.copy(pdf, Path(app.outdir) / PDF)


def setup(app):
    """Register with Sphinx; the theme makes its buttons at priority 501."""
    app.connect("config-inited", offer_launch)
    app.connect("doctree-resolved", add_first_cell)
    app.connect("html-page-context", choose_service, priority=600)
    app.connect("html-page-context", offer_pdf, priority=600)
    app.connect("build-finished", copy_pdf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
