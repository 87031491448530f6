"""Interactive figures hold what their tables and arrays hold, and do what their controls say."""

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import nbformat
import numpy as np
import pandas as pd
import pytest
from skimage.draw import polygon2mask

from lusbook import figures, interactive
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.metrics import confusion_counts, dice
from lusbook.settings import PROJECT
from lusbook.site import plots

STATIC = PROJECT / "book" / "_static"
CHAPTERS = {"overlays": "masks", "secondary": "thresholds", "unet": "losses", "sifa": "losses"}
COHORTS = list(figures.COHORT_NAMES)


def make_overlays(names=EXPERIMENTS, side=16):
    """Overlays of experiments: the same frames, other outputs."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    overlays = {}
    for number, name in enumerate(names):
        overlays[name] = {fold: {} for fold in FOLDS}
        for (place, cohort), fold in ((pair, fold) for pair in enumerate(COHORTS) for fold in FOLDS):
            masks = np.zeros((2, side, side), bool)
            masks[0, 4:, 5:9] = masks[1, 4 + number :, 5:9] = masks[1, 2, :fold] = True
            route = "translated" if EXPERIMENTS[name].method == "sifa" else "direct"
            arrays = {"image": frames[place, fold], "index": fold, "mask": masks[0], "direct": ~masks[0]}
            arrays[route] = masks[1]
            overlays[name][fold] |= {f"{cohort}_{key}": np.asarray(value) for key, value in arrays.items()}
    return overlays


def make_curve():
    """Mean Dice of every experiment on both cohorts at three thresholds."""
    rows = [(name, cohort, at) for name in EXPERIMENTS for cohort in COHORTS for at in (0.3, 0.5, 0.7)]
    curve = pd.DataFrame(rows, columns=["experiment", "cohort", "threshold"])
    return curve.assign(dice=np.random.default_rng(0).random(len(rows)))


def make_history(iterations=120, names=("unet-covid", "unet-cap")):
    """Two losses of two experiments."""
    rng = np.random.default_rng(0)
    runs = [(name, fold) for name in names for fold in FOLDS]
    count = np.arange(1, iterations + 1)
    tables = [pd.DataFrame({"experiment": n, "fold": k, "iteration": count}) for n, k in runs]
    return pd.concat([t.assign(cross_entropy=rng.random(len(t)), dice_loss=rng.random(len(t))) for t in tables])


FIGURES = {
    "masks": lambda: interactive.mask_viewer(make_overlays()),
    "thresholds": lambda: interactive.threshold_slider(make_curve(), 0.5),
    "losses": lambda: interactive.loss_viewer(make_history(), ["cross_entropy", "dice_loss"]),
}


def spec_of(figure):
    return json.loads(figure.to_json())


def unpacked(packed):
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


def options_of(spec):
    """What the control of a figure puts in, by label."""
    layout = spec["layout"]
    choices = layout["updatemenus"][0]["buttons"] if "updatemenus" in layout else layout["sliders"][0]["steps"]
    return {choice["label"]: choice["args"] for choice in choices}


def test_every_frame_has_its_grey_levels_and_every_method_its_dice():
    overlays = make_overlays()
    spec = spec_of(interactive.mask_viewer(overlays))
    options = options_of(spec)
    assert list(options) == [f"{title}, fold {k}, frame {k}" for title in figures.COHORT_NAMES.values() for k in FOLDS]
    places = [(cohort, fold) for cohort in COHORTS for fold in FOLDS]
    for (lines, picture), (cohort, fold) in zip(options.values(), places, strict=True):
        shown = iio.imread(io.BytesIO(base64.b64decode(picture["images[0].source"].partition(",")[2])))
        arrays = overlays["unet-covid"][fold]
        np.testing.assert_array_equal(shown, arrays[f"{cohort}_image"])
        for axis, values in zip("xy", interactive._outline(arrays[f"{cohort}_mask"]).T, strict=True):
            np.testing.assert_array_equal(unpacked(lines[axis][0]), values)
        scores = [float(re.search(r": Dice (\S+)$", name)[1]) for name in lines["name"][1:]]
        for score, (name, folds) in zip(scores, overlays.items(), strict=True):
            route = "translated" if EXPERIMENTS[name].method == "sifa" else "direct"
            counts = confusion_counts(folds[fold][f"{cohort}_{route}"][None], arrays[f"{cohort}_mask"][None])[0]
            assert score == pytest.approx(dice(*counts[:3]), abs=0.005)
    assert len(set(scores)) > 4
    first, begun = options["COVID-19, fold 0, frame 0"], spec["data"]
    assert [trace["name"] for trace in begun] == first[0]["name"] and [trace["x"] for trace in begun] == first[0]["x"]
    assert spec["layout"]["images"][0]["source"] == first[1]["images[0].source"]


def test_outlines_enclose_their_masks():
    mask = np.zeros((12, 12), bool)
    mask[2:9, 3:6] = mask[0:3, 9:12] = True  # one at the border
    outline = interactive._outline(mask)
    ends = np.flatnonzero(np.isnan(outline[:, 0]))
    parts = [outline[a + 1 : b] for a, b in zip(ends, ends[1:], strict=False)]
    assert len(parts) == 2 and outline[~np.isnan(outline)].min() == -0.5
    filled = [polygon2mask((14, 14), part[:, ::-1] + 1) for part in parts]
    np.testing.assert_array_equal((filled[0] | filled[1])[1:-1, 1:-1], mask)
    assert np.isnan(interactive._outline(np.zeros((4, 4), bool))).all()


def test_all_methods_can_be_shown_and_some_are_at_first():
    traces = spec_of(interactive.mask_viewer(make_overlays()))["data"]
    assert [trace["legendgroup"] for trace in traces] == ["label", *EXPERIMENTS]
    shown = {trace["legendgroup"] for trace in traces if trace.get("visible", True) is True}
    assert shown == {"label", "unet-covid", "sifa-covid-to-cap"}
    assert {trace["line"]["dash"] for trace in traces if trace["legendgroup"].startswith("sifa")} == {"dash"}
    assert len({trace["line"]["color"] for trace in traces}) == len(traces)


def test_the_slider_holds_the_means_of_every_threshold():
    curve = make_curve()
    spec = spec_of(interactive.threshold_slider(curve, 0.5))
    options = options_of(spec)
    assert list(options) == ["0.3", "0.5, in use", "0.7"] and spec["layout"]["sliders"][0]["active"] == 1
    wide = curve.pivot(index=["cohort", "threshold"], columns="experiment", values="dice")[list(EXPERIMENTS)]
    for at, (points, _, moved) in zip((0.3, 0.5, 0.7), options.values(), strict=True):
        for cohort, number, values in zip(COHORTS, moved, points["x"], strict=True):
            assert spec["data"][number]["legendgroup"] == cohort and spec["data"][number]["showlegend"]
            np.testing.assert_allclose(unpacked(values), wide.loc[(cohort, at)], rtol=1e-6)
    for cohort, trace in zip(2 * COHORTS, spec["data"][1:], strict=True):
        assert trace["marker"]["symbol"].endswith("-open") != trace["showlegend"]
        np.testing.assert_allclose(unpacked(trace["x"]), wide.loc[(cohort, 0.5)], rtol=1e-6)
    assert spec["data"][0]["text"] == [interactive.titles("names").get(name, name) for name in EXPERIMENTS]


@pytest.mark.parametrize(("iterations", "every"), [(7, 1), (50, 1), (120, 3), (451, 10)])
def test_points_of_a_loss_are_means_of_neighbours(iterations, every):
    history = make_history(iterations)
    spec = spec_of(interactive.loss_viewer(history, ["cross_entropy", "dice_loss"]))
    options = options_of(spec)
    assert list(options) == ["cross entropy", "dice loss"] and len(spec["data"]) == 6
    runs = [run for _, run in history.groupby(["experiment", "fold"], sort=False)]
    for column, (lines, _) in zip(("cross_entropy", "dice_loss"), options.values(), strict=True):
        for run, trace, values in zip(runs, spec["data"], lines["y"], strict=True):
            blocks = [run.iloc[start : start + every] for start in range(0, iterations, every)]
            assert len(blocks) <= interactive.POINTS
            np.testing.assert_allclose(unpacked(values), [part[column].mean() for part in blocks], rtol=1e-6)
            np.testing.assert_allclose(unpacked(trace["x"]), [part["iteration"].mean() for part in blocks], rtol=1e-6)
            assert f"fold {run['fold'].iloc[0]}<br>" in trace["hovertemplate"]
    assert (f"means of {every}" in spec["layout"]["xaxis"]["title"]["text"]) == (every > 1)


def test_what_does_not_fit_is_refused():
    overlays = make_overlays(["unet-covid", "sifa-covid-to-cap"])
    overlays["sifa-covid-to-cap"][1]["cap_mask"] = ~overlays["sifa-covid-to-cap"][1]["cap_mask"]
    with pytest.raises(LusbookError, match="overlays of sifa-covid-to-cap, fold 1: expected the mask of cap that the"):
        interactive.mask_viewer(overlays)
    with pytest.raises(LusbookError, match="overlays: expected those of at least one experiment, received none"):
        interactive.mask_viewer({})
    with pytest.raises(LusbookError, match=r"expected one of those measured \(0.3, 0.5, 0.7\), received 0.4"):
        interactive.threshold_slider(make_curve(), 0.4)
    with pytest.raises(LusbookError, match="history: expected a column 'cycle', received experiment, fold, iteration"):
        interactive.loss_viewer(make_history(), ["cycle"])


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_gets_the_same_bytes_in_both_forms(name):
    bundles = [FIGURES[name]()._repr_mimebundle_() for _ in range(2)]
    assert json.dumps(bundles[0]) == json.dumps(bundles[1])
    assert set(bundles[0]) == {"application/vnd.plotly.v1+json", "text/html", "text/plain"}
    html = bundles[0]["text/html"]
    held = re.search(r"<script type='application/json'>(.*?)</script>", html, re.DOTALL)[1]
    assert json.loads(held) == bundles[0]["application/vnd.plotly.v1+json"]
    assert f"id='interactive-{name}'" in html and plots.SENTENCE in html
    assert not re.search(r"\b(?:src|href)=", html)


def test_titles_cannot_end_the_data():
    spec = spec_of(FIGURES["losses"]())
    spec["data"][0]["name"] = "</script><b>&"
    html = plots.as_html(spec)
    assert html.count("</script>") == 1 and "&lt;/script&gt;&lt;b&gt;&amp;" in html


def test_only_pages_with_a_figure_load_what_draws_it(tmp_path):
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"), files=[])
    app.add_css_file = lambda file: app.files.append(file)
    app.add_js_file = lambda file, loading_method: app.files.append(f"{file} {loading_method}")
    plots.copy_plotly(app)
    assert (tmp_path / "_static" / "plotly.min.js").read_bytes() == plots.PLOTLY.read_bytes()
    for body in ({}, {"body": "<p>A page that mentions class interactive.</p>"}):
        plots.add_files(app, "page", "page.html", body, None)
    assert app.files == []
    body = plots.as_html(spec_of(FIGURES["losses"]()))
    plots.add_files(app, "page", "page.html", {"body": body}, None)
    assert app.files == ["interactive.css", "plotly.min.js defer", "interactive.js defer"]
    assert (STATIC / "interactive.css").exists() and (STATIC / "interactive.js").exists()
    assert "- lusbook.site.plots" in (PROJECT / "_config.yml").read_text()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_committed_chapters_hold_their_figure(chapter):
    notebook = nbformat.read(PROJECT / "book" / f"{chapter}.ipynb", as_version=4)
    held = [
        (cell, output.data)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    assert len(held) == 1
    ((cell, data),) = held
    assert data["text/html"] == plots.as_html(data["application/vnd.plotly.v1+json"])
    assert f"id='interactive-{CHAPTERS[chapter]}'" in data["text/html"]
    assert cell.metadata["mystnb"]["figure"]["caption"] and cell.metadata["mystnb"]["figure"]["name"].startswith("fig-")


PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>A page</title>
<style>[hidden] {{display: none !important}} html[data-theme=dark] {{color: #eeeeee; background: black}}</style>
<link rel="stylesheet" href="interactive.css"><script defer src="plotly.min.js"></script>
<script defer src="interactive.js"></script></head><body><main><h1>A page</h1>{body}</main></body></html>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page with all three figures, and what they need."""
    folder = tmp_path_factory.mktemp("site")
    for file in (STATIC / "interactive.css", STATIC / "interactive.js", plots.PLOTLY):
        (folder / file.name).symlink_to(file)
    body = "".join(plots.as_html(spec_of(make())) for make in FIGURES.values())
    (folder / "page.html").write_text(PAGE.format(body=body))
    return folder / "page.html"


@pytest.fixture(scope="module")
def context():
    pytest.importorskip("playwright", reason="no playwright here; it is among the tools of make test")
    from lusbook.site.pdf import find_chromium
    from tests import browser

    try:
        find_chromium()
    except LusbookError as error:
        pytest.skip(f"no browser here: {error}")
    with browser.browser_context() as context:
        yield context


@pytest.fixture
def page(context, site):
    from tests import browser

    page = context.new_page()
    page.complaints = browser.watch(page)
    page.goto(site.as_uri())
    page.wait_for_function("document.querySelectorAll('.interactive .main-svg').length >= 3")
    yield page
    assert page.complaints == []
    page.close()


def drawn(page, name, what):
    """Something of a figure as plotly has it now, for each trace."""
    return page.evaluate(f"document.querySelector('#interactive-{name} .plot')._fullData.map(trace => {what})")


def test_controls_change_what_is_shown(page):
    masks = page.locator("#interactive-masks")
    before, picture = masks.locator("span").all_text_contents(), masks.locator("image").get_attribute("href")
    masks.locator("select").select_option("CAP, fold 2, frame 2")
    page.wait_for_function(
        "before => document.querySelector('#interactive-masks image').href.baseVal !== before", arg=picture
    )
    options = options_of(spec_of(FIGURES["masks"]()))
    assert masks.locator("span").all_text_contents() == options["CAP, fold 2, frame 2"][0]["name"] != before
    assert masks.locator("image").get_attribute("href") != picture
    masks.get_by_label("U-Net (CAP):").check()
    masks.get_by_label("Label", exact=True).uncheck()
    assert drawn(page, "masks", "trace.visible")[:4] == ["legendonly", True, "legendonly", True]
    masks.locator("select").select_option(index=0)  # what is shown stays so
    assert drawn(page, "masks", "trace.visible")[:4] == ["legendonly", True, "legendonly", True]


def test_a_keyboard_moves_the_threshold(page):
    slider = page.locator("#interactive-thresholds input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#interactive-thresholds output").text_content() == "0.7"
    assert slider.get_attribute("aria-valuetext") == "0.7"
    curve = make_curve().query("threshold == 0.7 and cohort == 'cap'")
    np.testing.assert_allclose(drawn(page, "thresholds", "Array.from(trace.x)")[4], curve["dice"], rtol=1e-6)


def test_a_loss_is_picked_and_folds_go_together(page):
    losses = page.locator("#interactive-losses")
    before = drawn(page, "losses", "Array.from(trace.y)")
    losses.locator("select").select_option("dice loss")
    losses.locator("input[type=checkbox]").nth(1).uncheck()
    after = drawn(page, "losses", "Array.from(trace.y)")
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert drawn(page, "losses", "trace.visible") == [True] * 3 + ["legendonly"] * 3


def test_figures_are_legible_by_theme_named_and_hidden_in_print(page):
    from tests import browser

    fills = "[...document.querySelectorAll('#interactive-losses .xtick text')].map(t => getComputedStyle(t).fill)"
    assert set(page.evaluate(fills)) == {"rgb(0, 0, 0)"}
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{fills}.every(fill => fill === 'rgb(238, 238, 238)')")
    assert browser.violations(page) == []
    page.set_viewport_size(browser.PHONE)
    page.wait_for_function("[...document.querySelectorAll('.main-svg')].every(svg => svg.clientWidth < 390)")
    assert page.evaluate("document.documentElement.scrollWidth") <= browser.PHONE["width"]
    sentences, plots = page.locator(".interactive > p"), page.locator(".interactive > .plot")
    assert plots.first.is_visible() and not sentences.first.is_visible()
    page.emulate_media(media="print")
    assert sentences.first.is_visible() and not plots.first.is_visible()


def test_without_scripts_a_sentence_is_in_place_of_the_figure(context, site):
    page = context.browser.new_context(java_script_enabled=False).new_page()
    page.goto(Path(site).as_uri())
    assert page.locator(".interactive > p").first.is_visible()
    assert not page.locator(".interactive select").first.is_visible()
    page.context.close()
