"""Where figures and tables come from, under each of them, and numbers for tables: an extension of Sphinx."""

import re
from functools import cache
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.ext.viewcode import viewcode_anchor
from sphinx.transforms import SphinxTransform

from lusbook.boxes import ALONE, SHOWN
from lusbook.site.cells import TRAININGS, makers

TABLE = "tab-"  # names of figures that are tables begin so
RUNS = "tab-runs"  # the table of runs, on the status page
STUDY = re.compile(r"Study `([^`]+)`:")  # as a chapter's box says


class numbered_table(nodes.figure):
    """The output of a cell that is a table, with its caption."""


class table_caption(nodes.caption):
    """Caption of a numbered table, above it."""


def study_of(notebook):
    """Name of the study that a page says it shows, or None.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        With its outputs.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [STUDY.search(output.get("data", {}).get("text/markdown", "")) for output in outputs]
    return next((match[1] for match in found if match), None)


def origin_line(calls, study, page, folders=(), others=False):
    """The line under a figure: functions with links to what they do and to their source, and runs.

    Parameters
    ----------
    calls : list of str
        As :func:`lusbook.site.cells.makers` gives them.
    study : str or None
        Without one no runs are named.
    page : str
        Path of the page from the root of the book, without suffix.
    folders : list of str
        Folders of the study that were read, as :func:`lusbook.site.cells.makers` gives them.
    others : bool
        Whether runs of other studies were read besides.

    Returns
    -------
    line : docutils.nodes.paragraph
    """
    line = nodes.paragraph("", "Made by ", classes=["origin"])
    for call, before in zip(calls, commas(calls), strict=True):
        module, function = call.split(".")
        line += nodes.Text(before)
        line += link("py", "func", f"lusbook.{call}", call, page)
        line += nodes.Text(" ")
        line += viewcode_anchor(reftarget=f"_modules/lusbook/{module}", refid=function, refdoc=page)
    if study:
        line += nodes.Text(" from ")
        folders = own_folders(folders, page.rpartition("/")[2])
        for folder, before in zip(folders, commas(folders), strict=True):
            line += [nodes.Text(before), nodes.Text("the runs") if folder == TRAININGS else nodes.literal("", folder)]
        line += nodes.Text(" of study ")
        line += link("std", "ref", RUNS, study, page)
        line += nodes.Text(" and others" if others else "")
    return line


def commas(items):
    """What stands before each of some items in a sentence."""
    return ["", *[", "] * (len(items) - 2), " and "][: len(items)]


def own_folders(folders, chapter):
    """Folders by name, those of the experiments last, as the chapter names them: all, or of one method."""
    trainings = [name for name in SHOWN.get(chapter, ()) if name.startswith(("unet", "sifa"))]
    part = len(trainings) == 1
    ordered = sorted(folders, key=lambda name: (name == TRAININGS, name)) or [TRAININGS]
    return [trainings[0] if part and name == TRAININGS else name for name in ordered]


def link(domain, role, target, text, page):
    """A reference that Sphinx resolves."""
    options = {"refdomain": domain, "reftype": role, "reftarget": target, "refexplicit": True, "refdoc": page}
    return addnodes.pending_xref("", nodes.literal("", text), refwarn=False, **options)


def shows_something(figure):
    """Whether an output holds an image, HTML or a table, and is more than words in place of it."""
    kinds = {part.get("mime_type") for part in figure.findall(nodes.container)}
    return "text/html" in kinds or any(figure.findall(lambda node: isinstance(node, nodes.image | nodes.table)))


class Originate(SphinxTransform):
    """Number the tables of a notebook's cells, and say below figures and tables what made them."""

    default_priority = 400  # before labels are collected

    def apply(self):
        """Change the document in place."""
        cells = [node for node in self.document.findall(nodes.container) if node.get("nb_element") == "cell_code"]
        captioned = [(cell, list(cell.findall(nodes.figure))) for cell in cells]
        if not any(figures for _, figures in captioned):
            return
        notebook = nbformat.read(self.env.doc2path(self.env.docname), as_version=4)
        study = None if self.env.docname.rpartition("/")[2] in ALONE else study_of(notebook)
        for cell, figures in captioned:
            before = notebook.cells[: cell["cell_index"] + 1]
            calls, source, folders = makers([part.source for part in before if part.cell_type == "code"])
            for figure in figures:
                if not shows_something(figure):
                    self.unwrap(figure)
                    continue
                place = self.number(figure) if figure["names"] and figure["names"][0].startswith(TABLE) else figure
                if calls:
                    made_of = study if source else None
                    place += origin_line(calls, made_of, self.env.docname, folders, source == "studies")

    def number(self, figure):
        """Make a figure a table, which is counted with the other tables."""
        parts = [
            table_caption("", "", *part.children) if isinstance(part, nodes.caption) else part
            for part in figure.children
        ]
        table = numbered_table("", *parts, **figure.attributes)
        self.put(figure, table)
        return table

    def put(self, old, new):
        """Replace a node that has a label."""
        old.replace_self(new)
        for name in old["ids"]:
            self.document.ids[name] = new

    def unwrap(self, figure):
        """Take the caption and the label from words that stand in place of a table."""
        for name in figure["names"]:
            self.document.nametypes.pop(name, None)
        figure["names"], figure["ids"] = [], []
        figure.replace_self([part for part in figure.children if not isinstance(part, nodes.caption)])


@cache
def declared(source):
    """Names that cells of a book's notebooks have for their figures and tables, shown or not."""
    notebooks = [nbformat.read(path, as_version=4) for path in Path(source).glob("book/*.ipynb")]
    cells = [cell for notebook in notebooks for cell in notebook.cells]
    return {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells} - {None}


def say_missing(app, env, node, content):
    """Words in place of the number of a figure or table that its page would have, had its results been computed."""
    target = node.get("reftarget", "")
    if node.get("reftype") != "numref" or target not in declared(app.srcdir):
        return None
    kind = "table" if target.startswith(TABLE) else "figure"
    return nodes.emphasis("", f"a {kind} that is not computed here")


def visit_table(self, node):
    """Open the element around a table."""
    self.body.append(self.starttag(node, "figure", CLASS="table-figure"))


def depart_table(self, node):
    """Close it."""
    self.body.append("</figure>\n")


def visit_caption(self, node):
    """Caption above, with its number: docutils closes captions only at the end of a figure."""
    self.body.append("<figcaption>\n" + self.starttag(node, "p", ""))
    self.add_fignumber(node.parent)
    self.body.append('<span class="caption-text">')


def depart_caption(self, node):
    """Close it, with its link."""
    self.body.append("</span>")
    self.add_permalink_ref(node.parent, "Link to this table")
    self.body.append("</p>\n</figcaption>\n")


def setup(app):
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.viewcode")
    app.add_enumerable_node(numbered_table, "table", html=(visit_table, depart_table))
    app.add_node(table_caption, html=(visit_caption, depart_caption))
    app.add_transform(Originate)
    app.connect("missing-reference", say_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
