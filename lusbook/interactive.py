"""Interactive figures that need no kernel, each from a tidy table or the arrays of runs.

A figure holds all of its data and one menu or slider. JupyterLab and VS Code show it by plotly's own means, the site by
the HTML of ``lusbook.site.plots``; once this module is imported, a notebook keeps a figure in both forms.
"""

import base64
import json

import imageio.v3 as iio
import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import seaborn as sns
from matplotlib.colors import to_hex
from plotly.io.base_renderers import MimetypeRenderer
from skimage.measure import approximate_polygon, find_contours

from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.figures import COHORT_NAMES, PALETTE
from lusbook.metrics import confusion_counts, dice
from lusbook.site.plots import SENTENCE, as_html
from lusbook.tables import titles

POINTS = 50  # of a learning curve, at most
FOLD_DASHES = dict(zip(FOLDS, ("solid", "dash", "dot"), strict=True))
LABEL = "#ffffff"
GRID = "rgba(128, 128, 128, 0.35)"  # shows on white and on black
LAYOUT = {
    "template": "none",
    "font": {"family": "sans-serif", "size": 13},
    "dragmode": False,  # so that a finger on the figure scrolls the page
    "hovermode": "closest",
    "hoverlabel": {"namelength": -1},
}
AXIS = {"gridcolor": GRID, "zeroline": False, "automargin": True, "fixedrange": True}


def mask_viewer(overlays):
    """One frame, picked by a menu, with the outlines of its label and of every method's output, and their Dice.

    Parameters
    ----------
    overlays : dict of str to dict of int to dict of ndarray
        By experiment and fold, as :func:`lusbook.runs.read_overlays` returns them.

    Returns
    -------
    plotly.graph_objects.Figure
        A line for the label and one for each experiment.

    Raises
    ------
    LusbookError
        When there are no overlays, or two experiments have other images or labels for a frame.
    """
    if not overlays:
        raise LusbookError("overlays: expected those of at least one experiment, received none")
    options = [_frame_option(overlays, cohort, fold) for cohort in COHORT_NAMES for fold in FOLDS]
    styles = _styles(overlays)
    first = {EXPERIMENTS[name].method: name for name in reversed(overlays)}  # of each method; the others are one click
    lines = [{"line": {"color": LABEL, "width": 3}, "legendgroup": "label"}]
    for name, style in styles.items():
        visible = True if name in first.values() else "legendonly"
        lines.append({"line": {"width": 2.5, **style}, "legendgroup": name, "visible": visible})
    lines = [line | {"mode": "lines", "hoverinfo": "name"} for line in lines]
    height, width = next(iter(overlays.values()))[FOLDS[0]][f"{next(iter(COHORT_NAMES))}_image"].shape
    picture = {"xref": "x", "yref": "y", "x": -0.5, "y": -0.5, "sizex": width, "sizey": height, "layer": "below"}
    axis = {"visible": False, "constrain": "domain", "fixedrange": True}
    layout = {
        "images": [picture | {"sizing": "stretch"}],
        "xaxis": axis | {"range": [-0.5, width - 0.5]},
        "yaxis": axis | {"range": [height - 0.5, -0.5], "scaleanchor": "x"},
        "legend": {"bgcolor": "#a0a0a0"},  # on which the label's white shows
        "margin": {"l": 0, "r": 0, "t": 60, "b": 0},
        "height": 480,
    }
    alt = "A frame with outlines: its label and the B-lines that each method drew. Their Dice is in the list."
    return _figure("masks", alt, lines, layout, "updatemenus", "Frame", options)


def _frame_option(overlays, cohort, fold):
    """What the menu puts in for one frame: its picture, outlines, and names with Dice."""
    (_, first), *others = ((name, folds[fold]) for name, folds in overlays.items())
    for (name, arrays), kind in ((other, kind) for other in others for kind in ("image", "mask")):
        if not np.array_equal(arrays[f"{cohort}_{kind}"], first[f"{cohort}_{kind}"]):
            raise LusbookError(
                f"overlays of {name}, fold {fold}: expected the {kind} of {cohort} that the other experiments have, "
                "received another one"
            )
    label, names, outlines = first[f"{cohort}_mask"], ["Label"], [_outline(first[f"{cohort}_mask"])]
    for name, arrays in ((name, folds[fold]) for name, folds in overlays.items()):
        route = "translated" if f"{cohort}_translated" in arrays else "direct"
        mask = arrays[f"{cohort}_{route}"]
        tp, fp, fn, _ = confusion_counts(mask[None], label[None])[0]
        names.append(f"{titles('names').get(name, name)}: Dice {dice(tp, fp, fn):.2f}")
        outlines.append(_outline(mask))
    lines = {axis: [_packed(outline[:, k]) for outline in outlines] for k, axis in enumerate("xy")}
    title = f"{COHORT_NAMES[cohort]}, fold {fold}, frame {int(first[f'{cohort}_index'])}"
    return title, [lines | {"name": names}, {"images[0].source": _data_uri(first[f"{cohort}_image"])}]


def threshold_slider(curve, at):
    """Mean Dice of every experiment on both cohorts, at the threshold of a slider (filled) and at that in use (open).

    Parameters
    ----------
    curve : pandas.DataFrame
        As :func:`lusbook.ranking.threshold_curve` returns it.
    at : float
        The threshold in use, with which the slider begins.

    Returns
    -------
    plotly.graph_objects.Figure
        Names, the points in use of each cohort, and those that move.

    Raises
    ------
    LusbookError
        When the threshold in use was not measured.
    """
    wide = curve.pivot(index="threshold", columns=["cohort", "experiment"], values="dice")
    nearest = wide.index[np.argmin(np.abs(wide.index - at))]
    if not np.isclose(nearest, at):
        measured = ", ".join(f"{value:g}" for value in wide.index)
        raise LusbookError(f"threshold in use: expected one of those measured ({measured}), received {at:g}")
    order = [name for name in EXPERIMENTS if name in set(curve["experiment"])]
    means = {cohort: wide[cohort].reindex(columns=order) for cohort in COHORT_NAMES}
    shown, rows = [titles("names").get(name, name) for name in order], np.arange(len(order))
    heads = {"mode": "text", "x": np.zeros(len(order)), "y": rows - 0.3, "text": shown, "textposition": "middle right"}
    traces = [heads | {"hoverinfo": "skip", "showlegend": False}]
    for ending in ("-open", ""):
        for cohort, symbol in zip(COHORT_NAMES, ("circle", "diamond"), strict=True):
            colour = to_hex(PALETTE[cohort])
            marker = {"color": colour, "size": 12, "symbol": symbol + ending, "line": {"width": 2, "color": colour}}
            trace = {"mode": "markers", "marker": marker, "legendgroup": cohort, "name": COHORT_NAMES[cohort]}
            trace |= {"x": means[cohort].loc[nearest].to_numpy(), "y": rows, "text": shown}
            trace |= {"hovertemplate": "%{text}<br>%{fullData.name}: %{x:.3f}<extra></extra>"}
            traces.append(trace | {"showlegend": not ending})
    options = []
    for value in wide.index:
        label = f"{value:g}, in use" if value == nearest else f"{value:g}"
        options.append((label, [{"x": [_packed(table.loc[value]) for table in means.values()]}, {}, [3, 4]]))
    layout = {
        "xaxis": AXIS | {"range": [0, 1], "title": {"text": "mean Dice of test images"}},
        "yaxis": AXIS | {"range": [len(order) - 0.6, -0.6], "tickvals": rows, "showticklabels": False},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 50},
        "height": 40 * len(order) + 90,
    }
    alt = "A row for each experiment: points of its mean Dice on COVID-19 and on CAP at the threshold of the slider."
    active = list(wide.index).index(nearest)
    return _figure("thresholds", alt, traces, layout, "sliders", "Threshold", options, active)


def loss_viewer(history, columns):
    """One loss, picked by a menu, against iteration: a line for each run, each point a mean of iterations.

    Iterations are thinned by means of as many neighbours as leave at most 50 points; nothing is left out.

    Parameters
    ----------
    history : pandas.DataFrame
        With columns ``experiment, fold, iteration`` and the losses.
    columns : list of str
        The losses.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    LusbookError
        When a loss is no column of the history.
    """
    missing = [column for column in columns if column not in history]
    if missing:
        raise LusbookError(f"history: expected a column {missing[0]!r}, received {', '.join(history.columns)}")
    every = -(-int(history["iteration"].max()) // POINTS)
    styles, names, lines, values = _styles(dict.fromkeys(history["experiment"])), titles("names"), [], []
    for (name, fold), run in history.groupby(["experiment", "fold"], sort=False):
        means = run.groupby((run["iteration"] - 1) // every)[["iteration", *columns]].mean()
        line = {"color": styles[name]["color"], "width": 1.5, "dash": FOLD_DASHES[fold]}
        hover = f"{names.get(name, name)}, fold {fold}<br>iteration %{{x:.0f}}: %{{y:.3f}}<extra></extra>"
        trace = {"mode": "lines", "line": line, "legendgroup": name, "name": names.get(name, name)}
        trace |= {"x": means["iteration"].to_numpy(), "showlegend": fold == FOLDS[0], "hovertemplate": hover}
        lines.append(trace)
        values.append(means)
    options = [(loss.replace("_", " "), [{"y": [_packed(means[loss]) for means in values]}, {}]) for loss in columns]
    layout = {
        "xaxis": AXIS | {"title": {"text": f"iteration; points are means of {every}" if every > 1 else "iteration"}},
        "yaxis": AXIS,
        "margin": {"l": 50, "r": 10, "t": 60, "b": 50},
        "height": 380,
    }
    alt = "A loss against iteration: a line for each run, a colour for each experiment."
    return _figure("losses", alt, lines, layout, "updatemenus", "Loss", options)


def _styles(names):
    """Colour of each experiment in the order given, as in the static figures, and dashes for SIFA."""
    colours = sns.color_palette("colorblind").as_hex()
    methods = {name: EXPERIMENTS[name].method for name in names}
    return {
        name: {"color": colour, "dash": "dash" if method == "sifa" else "solid"}
        for (name, method), colour in zip(methods.items(), colours, strict=False)
    }


def _outline(mask):
    """Outline of a mask as one line, shape (n, 2): x and y in pixels, NaN between its parts."""
    gap = [[np.nan, np.nan]]
    parts = [approximate_polygon(part, 0.3) for part in find_contours(np.pad(mask, 1).astype(float), 0.5)]
    return np.concatenate([gap, *(piece for part in parts for piece in (part[:, ::-1] - 1, gap))])


def _packed(values):
    """Numbers as plotly packs those of a trace, and does not pack those of a control: base64 of float32."""
    return {"dtype": "f4", "bdata": base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()}


def _data_uri(image):
    """A grey image in an address: PNG, whose grey levels are those of the array."""
    return "data:image/png;base64," + base64.b64encode(iio.imwrite("<bytes>", image, extension=".png")).decode()


def _figure(name, alt, traces, layout, kind, picks, options, active=0):
    """A figure with one control, whose active option is put in.

    Parameters
    ----------
    name : str
        Of the figure, unique on its page.
    alt : str
        What it shows, for those who do not see it.
    traces : list of dict
    layout : dict
    kind : {"updatemenus", "sliders"}
    picks : str
        What the control picks.
    options : list of tuple
        Of each choice its label and the arguments of ``Plotly.update``.
    active : int
    """
    choices = [{"label": label, "method": "update", "args": args} for label, args in options]
    if kind == "sliders":
        control = {"steps": choices, "currentvalue": {"prefix": f"{picks}: "}, "pad": {"t": 60}}
    else:
        control = {"buttons": choices, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 10}}
    traces = [{"type": "scatter", "showlegend": True} | trace for trace in traces]
    layout = LAYOUT | layout | {"meta": {"name": name, "alt": alt}}
    figure = go.Figure(traces, layout | {kind: [control | {"active": active, "name": picks}]})
    figure.plotly_update(*options[active][1])
    return figure


class BothForms(MimetypeRenderer):
    """How plotly hands a figure of this module to a notebook."""

    def to_mimebundle(self, fig_dict):
        """The figure for notebook programs, for the site, and in words."""
        spec = json.loads(pio.to_json(fig_dict, validate=False))
        return {"application/vnd.plotly.v1+json": spec, "text/html": as_html(spec), "text/plain": SENTENCE}


pio.renderers["lusbook"] = BothForms()
pio.renderers.default = "lusbook"
