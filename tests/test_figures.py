"""Figures show what their tables hold."""

import matplotlib

matplotlib.use("Agg")
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns

from lusbook import figures
from tests.helpers import route_of


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def per_image():
    rng = np.random.default_rng(0)
    rows = [
        {
            "experiment": name,
            "cohort": cohort,
            "patient": f"{cohort}-{i % 3}",
            "fold": 0,
            "image": i,
            "route": route_of(name, cohort),
            "dice": rng.random(),
            "sensitivity": 0.5,
            "specificity": 0.5,
        }
        for name in ("unet-covid", "sifa-covid-to-cap")
        for cohort in ("covid", "cap")
        for i in range(9)
    ]
    return pd.DataFrame(rows)


def overlay(size=16):
    rng = np.random.default_rng(1)
    arrays = {}
    for cohort in ("covid", "cap"):
        mask = np.zeros((size, size), bool)
        mask[4:, 5:9] = True
        arrays |= {f"{cohort}_image": rng.integers(0, 255, (size, size)).astype(np.uint8), f"{cohort}_mask": mask}
        arrays |= {f"{cohort}_direct": mask, f"{cohort}_index": np.array(7)}
        arrays |= {f"{cohort}_fake": rng.uniform(-0.9, 0.9, (size, size)), f"{cohort}_cycle": np.zeros((size, size))}
    return arrays


def test_method_grid_has_a_row_for_each_method():
    overlays = {"unet-covid": {k: overlay() for k in range(3)}, "sifa-covid-to-cap": {k: overlay() for k in range(3)}}
    figure = figures.method_grid(overlays, "cap")
    assert len(figure.axes) == (2 + 2) * 3
    labels = [ax.get_ylabel().replace("\n", " ") for ax in figure.axes[::3]]
    assert labels == ["Image", "Label", "U-Net (COVID-19)", "SIFA (COVID-19 Source / CAP Target)"]


def test_translations_have_six_columns():
    assert len(figures.translations({k: overlay() for k in range(3)}, "covid", "cap").axes) == 18


def test_translations_grow_by_a_row_a_snapshot():
    arrays = overlay()
    for iteration in (10, 20, 30):
        for cohort in ("covid", "cap"):
            arrays |= {
                f"{cohort}_{key}_{iteration}": np.full((16, 16), iteration, "uint8") for key in ("fake", "cycle")
            }
    axes = figures.growing_translations(arrays, "covid", "cap").axes
    assert len(axes) == 18
    assert [int(ax.images[0].get_array().max()) for ax in axes[1::6]] == [10, 20, 30]


def test_snapshot_curves_draw_one_line_a_fold():
    table = pd.DataFrame(
        [{"fold": k, "iteration": i, "dice_cap": 0.1 * k, "information": 0.01 * i} for k in range(3) for i in (1, 2)]
    )
    axes = figures.snapshot_curves(table, "cap").axes
    assert [len([line for line in ax.lines if len(line.get_xdata())]) for ax in axes] == [3, 3]


def test_dice_distribution_names_methods_in_order(per_image):
    figure = figures.dice_distribution(per_image)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["U-Net (COVID-19)", "SIFA (COVID-19 Source / CAP Target)"]


def test_boxes_are_those_of_all_images(per_image):
    drawn = figures.dice_distribution(per_image).axes[0]
    options = {"y": "experiment", "x": "dice", "hue": "cohort", "hue_order": ["covid", "cap"], "fliersize": 0}
    expected = sns.boxplot(per_image, ax=plt.figure().subplots(), **options)
    found, wanted = (
        [np.sort(line.get_xdata()) for line in ax.lines if len(line.get_xdata())] for ax in (drawn, expected)
    )
    assert len(wanted) == 4 * 5
    for line, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(line, other)


def test_learning_curves_draw_one_line_a_run():
    history = pd.DataFrame(
        [{"experiment": "a", "fold": k, "iteration": i, "loss": 1 / i} for k in range(3) for i in range(1, 20)]
    )
    figure = figures.learning_curves(history, ["loss"], window=1)
    assert len(figure.axes[0].lines) == 3
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 1 / np.arange(1, 20))


def test_auroc_figure_orders_arms_from_the_top():
    table = pd.DataFrame({"arm": ["x", "y"], "auroc": [0.6, 0.7], "low": [0.5, 0.6], "high": [0.7, 0.8]})
    ax = figures.auroc_intervals(table).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["x", "y"]
    assert ax.yaxis_inverted()


def test_an_empty_mask_draws_no_outline():
    _, ax = plt.subplots()
    figures.show_frame(ax, np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    assert not ax.collections


def test_a_measure_that_nobody_knows_has_no_panel():
    table = pd.DataFrame({"cohort": ["covid", "cap"] * 3, "place": np.arange(6.0), "label_truth_dice": np.nan})
    figure = figures.measures_by_patient(table, {"place": "place", "label_truth_dice": "agreement"})
    assert [ax.get_title() for ax in figure.axes if ax.get_visible()] == ["place"]


def test_iterations_of_each_program_are_points_over_their_floor():
    sizes = {"size": [64, 96], "median": [2.0, 4.0], "min": [1.9, 3.9], "max": [2.2, 4.1], "floor": [1.0, 2.0]}
    table = pd.concat([pd.DataFrame(sizes).assign(variant=name) for name in ("plain", "sequential")])
    ax = figures.iteration_seconds(table).axes[0]
    labels = {"plain", "plain, floor", "sequential", "sequential, floor"}
    assert {text.get_text() for text in ax.get_legend().get_texts()} == labels
    floors = [line.get_ydata() for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(floors, [[1, 2], [1, 2]])


def test_gallery_numbers_either_kind_from_one():
    real, simulated = np.zeros((6, 8, 8), np.uint8), np.full((5, 8, 8), 9, np.uint8)
    figure = figures.gallery(real, simulated)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    titles = [ax.get_title() for ax in shown]
    assert titles == [f"real {k}" for k in range(1, 7)] + [f"phantom {k}" for k in range(1, 6)]
    assert [ax.images[0].get_array().max() for ax in shown] == [0] * 6 + [9] * 5


def test_knobs_has_a_row_for_each_diversity():
    figure = figures.knobs([0.0, 1.0], [1.0, 0.2], patients=(1,))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["consistency 1", "consistency 0.2", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["diversity 0", "", "diversity 1", ""]
    images = [ax.images[0].get_array() for ax in figure.axes]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


def test_profiles_draws_medians_of_every_set():
    rows = [
        {"measure": f"{measure}_{k}", "low": 0.1, "median": 0.1 * k, "high": 0.9, "set": name}
        for name in ("real", "phantom")
        for measure in ("grey", "sd", "spectrum")
        for k in range(4)
    ]
    figure = figures.profiles(pd.DataFrame(rows), ["real", "phantom"])
    grey, _, spectrum = figure.axes
    assert [line.get_label() for line in grey.lines] == ["real", "phantom"]
    np.testing.assert_allclose(grey.lines[0].get_ydata(), 255 * np.array([0, 0.1, 0.2, 0.3]))
    np.testing.assert_allclose(spectrum.lines[0].get_xdata(), (np.arange(4) + 0.5) / 8)


def test_agreement_has_both_kinds_and_cohorts():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"cohort": ["covid", "cap"] * 5, "patient": "p", "annotators": rng.random(10), "truth": 1.0})
    figure = figures.annotator_agreement(table)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "two annotators",
        "one annotator and the truth",
    ]
    assert len(figure.axes[0].get_legend().get_texts()) == 2


def test_frames_in_a_row_have_titles_and_masks():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 5:15] = True
    grey, colour = np.full((20, 30), 90, np.uint8), np.full((10, 40, 3), 90, np.uint8)
    figure = figures.frames_row({"one": (grey, mask), "two": (colour, None)})
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    assert [len(ax.collections) > 0 for ax in figure.axes] == [True, False]
    assert figure.axes[1].images[0].get_array().shape == (10, 40, 3)


def test_area_curve_shows_each_frame_and_the_score():
    share = [np.nan, 0.0, 0.1, 0.2, 0.3]
    ax = figures.area_curve(pd.DataFrame({"seconds": np.arange(5) / 5, "share": share})).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), share)
    assert ax.lines[1].get_ydata()[0] == pytest.approx(np.percentile(share[1:], 75))
    assert ax.get_ylim()[1] > 0.3
    nothing = figures.area_curve(pd.DataFrame({"seconds": [0.0], "share": [0.0]})).axes[0]
    assert nothing.get_ylim()[1] > 0


def test_drawn_frames_have_a_row_for_each_network():
    frames = np.zeros((3, 32, 32), np.uint8)
    masks = np.zeros((3, 16, 16), bool)
    masks[0, 4:12, 6:9] = True
    figure = figures.drawn_frames(frames, {"one": masks, "two": masks[::-1]})
    axes = np.reshape(figure.axes, (3, 3))
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["frame", "one", "two"]
    drawn = [[len(ax.collections) > 0 for ax in row] for row in axes]
    assert drawn == [[False] * 3, [True, False, False], [False, False, True]]


def test_differences_by_patient_stand_beside_the_published():
    columns = ["better", "worse", "cohort", "published", "patients", "mean", "mean_low", "mean_high"]
    rows = [
        ("unet-covid", "unet-cap", "covid", 0.1, 6, 0.2, 0.1, 0.4),
        ("unet-covid", "unet-cap", "cap", -0.1, 5, 0, 0, 0),
        ("sifa-covid-to-cap", "unet-cap", "cap", 0.3, 5, -0.2, -0.3, -0.1),
    ]
    covid, cap = figures.differences_by_patient(pd.DataFrame(rows, columns=columns)).axes
    assert [text.get_text() for text in covid.get_yticklabels()][0] == "A: U-Net (COVID-19)\nB: U-Net (CAP)"
    published = [line for line in cap.lines if line.get_label() == "published"][0]
    assert published.get_xdata().tolist() == [-0.1, 0.3]
    ((low, _), (high, _)) = covid.collections[0].get_segments()[0]
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.4))
    assert cap.get_title().endswith("CAP, 5 patients")


def test_threshold_curves_draw_every_experiment_in_either_panel():
    rows = [
        {
            "experiment": name,
            "cohort": cohort,
            "threshold": threshold,
            "dice": threshold * (0.9 if "unet" in name else 0.5),
        }
        for name in ("sifa-covid-to-cap", "unet-covid")
        for cohort in ("covid", "cap")
        for threshold in (0.25, 0.5, 0.75)
    ]
    figure = figures.threshold_curves(pd.DataFrame(rows), 0.5)
    for ax, title in zip(figure.axes, ("COVID-19", "CAP"), strict=True):
        unet, sifa, mark = ax.lines
        assert unet.get_ydata().tolist() == [0.225, 0.45, 0.675] and sifa.get_linestyle() == "--"
        assert set(mark.get_xdata()) == {0.5} and ax.get_title() == f"tested on {title}"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["U-Net (COVID-19)", "SIFA (COVID-19 Source / CAP Target)"]


def test_border_examples_name_their_auroc():
    arrays = {"cap_image": np.zeros((3, 16, 16), np.uint8), "cap_mask": np.zeros((3, 16, 16), bool)}
    figure = figures.border_examples(arrays | {"cap_auroc": np.array([0.5, 0.625, 0.75])})
    shown = [ax.get_title() for ax in figure.axes if ax.get_visible()]
    assert shown == ["CAP, 10th percentile: 0.50", "CAP, median: 0.62", "CAP, 90th percentile: 0.75"]


def test_domain_yardstick_has_a_dot_for_each_pair_of_halves():
    table = pd.DataFrame(
        {"kind": ["covid", "cap", "halves", "halves", "shuffled"], "mmd": [0.0, np.nan, 1.0, 3.0, 9.0]}
    )
    figure = figures.domain_yardstick(table.assign(a_distance=1.0, frechet=2.0))
    dots = [collection.get_offsets() for collection in figure.axes[1].collections]
    assert sorted(float(x) for x in np.concatenate(dots[:3])[:, 0] if np.isfinite(x)) == [0, 1, 3]
    assert dots[-1][2, 0] == 2  # the median


def test_domain_yardstick_of_too_few_patients_is_empty():
    table = pd.DataFrame({"kind": ["cohorts"], "a_distance": [1.0], "mmd": [np.nan], "frechet": [2.0]})
    figure = figures.domain_yardstick(table)
    figure.canvas.draw()
    assert not any(ax.collections for ax in figure.axes)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][0] == "COVID-19, two halves"


def test_numbers_of_a_heat_map_are_black_or_white_by_their_cells():
    ax = sns.heatmap([[-1, np.nan, 0, 1]], annot=True, cmap="PuOr")
    figures.black_or_white(ax)
    assert [text.get_color() for text in ax.texts] == ["white", "black", "white"]


def test_relation_map_has_a_square_for_each_measure_and_experiment():
    rows = [(m, e, c, 0.25) for m in ("place", "size") for e in ("unet-cap", "mean") for c in ("covid", "cap", "both")]
    relation = pd.DataFrame(rows, columns=["measure", "experiment", "cohort", "rho"]).assign(n=6)
    figure = figures.relation_map(relation, {"place": "place", "size": "size"})
    ax = figure.axes[0]
    assert ax.get_title() == "COVID-19, n = 6 patients" and len(ax.texts) == 4
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["U-Net (CAP)", "mean of all"]


def test_recipe_curves_have_a_panel_for_each_dropout():
    rows = [
        (dropout, rate, "covid", cohort, fold, iteration, 10 * (fold + 1), rate * 100)
        for dropout, rate, cohort, fold, iteration in product(
            (0.0, 0.5), (0.005, 0.0005), ("covid", "cap"), (0, 1), (10, 20)
        )
    ]
    columns = ["dropout", "learning_rate", "labels", "cohort", "fold", "iteration", "images", "dice"]
    axes = figures.recipe_curves(pd.DataFrame(rows, columns=columns), 15, "covid").axes
    assert [ax.get_title() for ax in axes] == ["dropout 0", "dropout 0.5"]
    assert len(axes[0].lines) == 4 * (2 + 1) + 1  # two folds and their mean, and the mark
    texts = [text.get_text() for text in axes[0].get_figure().legends[0].get_texts()]
    assert "rate 0.005, COVID-19 test" in texts and len(texts) == 4


def test_gain_steps_have_a_panel_for_each_direction_and_cohort():
    steps = ("recipe", "network", "adaptation", "whole")
    rows = [
        {"labels": labels, "cohort": cohort, "step": step, "difference": 0.1, "low": 0.0, "high": 0.3}
        for labels, cohort, step in product(("covid", "cap"), ("covid", "cap"), steps)
    ]
    axes = figures.gain_steps(pd.DataFrame(rows)).axes
    assert axes[0].get_title() == "labels COVID-19, tested on COVID-19" and len(axes) == 4
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(steps)


def test_gains_are_drawn_cell_by_cell():
    rows = [
        {"direction": direction, "consistency": c, "diversity": d, "gain": c - d, "low": c - d - 0.1, "high": 1.0}
        for direction, c, d in product(("cap-to-covid", "covid-to-cap"), (0.1, 0.9), (0.1, 0.9))
    ]
    surface = pd.DataFrame(rows)
    there, back = figures.gain_surface(surface).axes[:2]
    assert (there.get_title(), back.get_title()) == ("COVID-19 to CAP", "CAP to COVID-19")
    texts = [text.get_text() for text in there.texts]  # the highest diversity is above
    assert texts[:2] == ["-0.80\n(-0.90 to 1.00)", "0.00\n(-0.10 to 1.00)"] and len(texts) == 4
    there = figures.dose_lines(surface).axes[0]
    assert there.get_title() == "COVID-19 to CAP"
    heights = [container.lines[0].get_ydata().tolist() for container in there.containers]
    assert np.allclose(heights, [[0, 0.8], [-0.8, 0]])


def test_published_beside_ours_shows_both_and_no_joint_value_that_was_not_published():
    ours = pd.DataFrame({"experiment": ["unet-joint", "unet-cap"], "cohort": "cap", "mean": [0.7, 0.2]})
    published = pd.DataFrame({"experiment": ["unet-cap", "unet-covid"], "cohort": "cap", "dice_mean": [0.4, 0.9]})
    figure = figures.published_beside_ours(ours, published)
    quoted, here = (scatter.get_offsets().filled(np.nan) for scatter in figure.axes[1].collections)
    np.testing.assert_allclose(here, [[0.2, 0], [0.7, 1]])  # in the paper's order
    np.testing.assert_allclose(quoted, [[0.4, 0], [np.nan, np.nan]])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "U-Net (CAP)",
        "U-Net (COVID-19 and CAP jointly)",
    ]
