"""Interactive figures on the site: their HTML, and an extension of Sphinx that adds what draws them."""

import json
import shutil
from html import escape
from pathlib import Path

import plotly

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SENTENCE = "An interactive figure, which the website shows where JavaScript runs."
OPENING = "<div class='interactive'"


def as_html(spec):
    """A figure for the site: a sentence in its place, controls, a room of its height, and the data.

    The controls and the legend of plotly are not reached by a keyboard, so they are HTML here, and
    ``book/_static/interactive.js`` joins them to the drawing.

    Parameters
    ----------
    spec : dict
        A figure of :mod:`lusbook.interactive`, as plotly's JSON.

    Returns
    -------
    str
        The same for the same figure, byte by byte.
    """
    layout, meta = spec["layout"], spec["layout"]["meta"]
    height = f"height: {layout['height']}px"
    data = json.dumps(spec, separators=(",", ":"), sort_keys=True).replace("</", r"<\/")
    return "\n".join(
        [
            f"{OPENING} id='interactive-{meta['name']}'>",
            f"<p>{SENTENCE}</p>",
            f"<div class='controls' hidden>{_control(layout)}",
            f"<fieldset><legend>Show</legend>{_switches(spec['data'])}</fieldset></div>",
            f"<div class='plot' role='img' aria-label='{escape(meta['alt'])}' style='{height}' hidden></div>",
            f"<script type='application/json'>{data}</script>",
            "</div>",
        ]
    )


def _control(layout):
    """The menu or slider of a figure."""
    if "sliders" in layout:
        slider = layout["sliders"][0]
        last, now = len(slider["steps"]) - 1, slider["active"]
        text = escape(slider["steps"][now]["label"])
        bounds = f"min='0' max='{last}' value='{now}' aria-valuetext='{text}'"
        control = f"<input type='range' {bounds} autocomplete='off'> <output>{text}</output>"
        return f"<label>{escape(slider['name'])} {control}</label>"
    menu = layout["updatemenus"][0]
    choices = "".join(f"<option>{escape(choice['label'])}</option>" for choice in menu["buttons"])
    return f"<label>{escape(menu['name'])} <select autocomplete='off'>{choices}</select></label>"


def _switches(traces):
    """The legend of a figure: a box to tick for each group of lines or points."""
    switches = []
    for trace in traces:
        if trace["showlegend"]:
            checked = "" if trace.get("visible") == "legendonly" else "checked "
            line = trace.get("line") or trace["marker"]
            style = f"border-top: 4px {'dashed' if line.get('dash') == 'dash' else 'solid'} {line['color']}"
            box = f"<input type='checkbox' value='{escape(trace['legendgroup'])}' {checked}autocomplete='off'>"
            switches.append(f"<label>{box}<i style='{style}'></i><span>{escape(trace['name'])}</span></label>")
    return "".join(switches)


def allow_second_form(app, config):
    """Say nothing of the form of a figure that is meant for notebook programs."""
    config.suppress_warnings = [*config.suppress_warnings, "mystnb.unknown_mime_type"]


def copy_plotly(app):
    """Put plotly.js, as the installed package has it, beside the other files of the site."""
    if app.builder.format == "html":
        folder = Path(app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PLOTLY, folder / PLOTLY.name)


def add_files(app, pagename, templatename, context, doctree):
    """Let pages with an interactive figure, and no others, load what draws it."""
    if OPENING in context.get("body", ""):
        app.add_css_file("interactive.css")
        for file in (PLOTLY.name, "interactive.js"):
            app.add_js_file(file, loading_method="defer")


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", allow_second_form)
    app.connect("builder-inited", copy_plotly)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
