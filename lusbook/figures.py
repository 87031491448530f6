"""Figures of the book, each from a tidy table or the arrays of a run."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import cbook, ticker
from skimage.transform import resize

from lusbook import phantom
from lusbook.experiments import EXPERIMENTS, FOLDS
from lusbook.patients import patient_means
from lusbook.real import PERCENTILE
from lusbook.rows import by_run, sample
from lusbook.tables import set_title, titles

COHORT_NAMES = titles("cohorts")
PALETTE = dict(zip(COHORT_NAMES, sns.color_palette("colorblind", 2), strict=True))
MASK_COLOUR = "#ffb000"  # amber: visible on grey for all kinds of colour vision


def use_style():
    """Set the style that all figures share; white ground, so that they read in dark mode too."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 100})


def show_frame(ax, image, mask=None, colour=MASK_COLOUR):
    """Draw a frame, with the outline of a mask and a light fill."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    if mask is not None and mask.any():
        ax.contour(mask, levels=[0.5], colors=[colour], linewidths=1.2)
        ax.contourf(mask, levels=[0.5, 1.5], colors=[colour], alpha=0.25)
    ax.set(xticks=[], yticks=[], facecolor="black")
    for side in ax.spines.values():
        side.set_visible(False)


def black_or_white(ax):
    """Let each number of a heat map be black or white, whichever its cell has more contrast with."""
    cells = ax.collections[0]
    colours = cells.get_facecolors()[~np.ma.getmaskarray(cells.get_array()).ravel()]
    for text, colour in zip(ax.texts, colours, strict=True):
        text.set_color("black" if sns.utils.relative_luminance(colour) > 0.18 else "white")


def sample_frames(samples):
    """Figure 1: frames with their labels, COVID-19 above, CAP below.

    Parameters
    ----------
    samples : dict of ndarray
        As :func:`lusbook.runs.describe` returns them.
    """
    figure, axes = plt.subplots(2, 2 * len(FOLDS), figsize=(11, 4.2), layout="constrained")
    for row, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        frames = zip(FOLDS, samples[f"{cohort}_image"], samples[f"{cohort}_mask"], strict=True)
        for pair, (fold, image, mask) in zip(row.reshape(-1, 2), frames, strict=True):
            show_frame(pair[0], image)
            show_frame(pair[1], image, mask)
            pair[0].set_title(f"{title}, fold {fold}", fontsize=10)
            pair[1].set_title("with label", fontsize=10)
    return figure


def method_grid(overlays, cohort):
    """Figures 2 and 3: for one cohort, the frame of each fold, its label, and every method's output.

    Parameters
    ----------
    overlays : dict of str to dict of int to dict of ndarray
        By experiment and fold.
    cohort : {"covid", "cap"}
    """
    names = titles("names")
    heads = ["Image", "Label", *(names.get(experiment, experiment) for experiment in overlays)]
    figure, axes = plt.subplots(len(heads), len(FOLDS), figsize=(6.1, 1.68 * len(heads)), layout="constrained")
    for column, fold in zip(axes.T, FOLDS, strict=True):
        first = next(iter(overlays.values()))[fold]
        image = first[f"{cohort}_image"]
        show_frame(column[0], image)
        column[0].set_title(f"fold {fold}, frame {int(first[f'{cohort}_index'])}", fontsize=10)
        show_frame(column[1], image, first[f"{cohort}_mask"], "#648fff")
        for ax, experiment in zip(column[2:], overlays, strict=True):
            arrays = overlays[experiment][fold]
            route = "translated" if f"{cohort}_translated" in arrays else "direct"
            show_frame(ax, image, arrays[f"{cohort}_{route}"])
    for ax, title in zip(axes[:, 0], heads, strict=True):
        ax.set_ylabel(textwrap.fill(title, 17, break_on_hyphens=False), rotation=0, ha="right", va="center", fontsize=9)
    return figure


def translations(overlays, source, target):
    """Translated images of one SIFA experiment: for each fold, source and target, each with its fake and cycle."""
    columns = [(source, "image"), (source, "fake"), (source, "cycle"), (target, "image"), (target, "fake")]
    columns.append((target, "cycle"))
    figure, axes = plt.subplots(len(overlays), 6, figsize=(11, 1.95 * len(overlays)), layout="constrained")
    for row, (fold, arrays) in zip(axes, overlays.items(), strict=True):
        for ax, (cohort, key) in zip(row, columns, strict=True):
            image = arrays[f"{cohort}_{key}"]
            show_frame(ax, image if key == "image" else (image + 0.9) / 1.8 * 255)
            other = COHORT_NAMES[target if cohort == source else source]
            title = {"image": COHORT_NAMES[cohort], "fake": f"as {other}", "cycle": "and back"}[key]
            if fold == min(overlays):
                ax.set_title(title, fontsize=10)
        row[0].set_ylabel(f"fold {fold}", fontsize=10)
    return figure


def growing_translations(overlays, source, target):
    """Translations of one frame of each domain early, midway and at the end of training: a row for each.

    Parameters
    ----------
    overlays : dict of ndarray
        Of one run.
    source, target : str
    """
    kept = sorted(int(name.rsplit("_")[-1]) for name in overlays if name.startswith(f"{source}_fake_"))
    iterations = [kept[place] for place in sorted({0, len(kept) // 2, len(kept) - 1})]
    heads = {"image": "image", "fake": "translated", "cycle": "and back"}
    columns = [(cohort, key) for cohort in (source, target) for key in heads]
    figure, axes = plt.subplots(len(iterations), 6, figsize=(11, 1.9 * len(iterations)), layout="constrained")
    for row, iteration in zip(np.atleast_2d(axes), iterations, strict=True):
        for ax, (cohort, key) in zip(row, columns, strict=True):
            show_frame(ax, overlays[f"{cohort}_image" if key == "image" else f"{cohort}_{key}_{iteration}"])
            if iteration == iterations[0]:
                ax.set_title(f"{COHORT_NAMES[cohort]}: {heads[key]}", fontsize=10)
        row[0].set_ylabel(f"iteration\n{iteration}", fontsize=10)
    return figure


def snapshot_curves(snapshots, target):
    """Target Dice and the label-free criterion of every snapshot, a line for each fold.

    Parameters
    ----------
    snapshots : pandas.DataFrame
        Of one experiment, with its folds.
    target : str
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    panels = {
        f"dice_{target}": f"Dice on {COHORT_NAMES[target]}, test fold",
        "information": "information, nats a pixel",
    }
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        sns.lineplot(
            snapshots, x="iteration", y=column, hue="fold", style="fold", markers=True, palette="colorblind", ax=ax
        )
        ax.set(ylabel="", title=title)
        ax.title.set_fontsize(10)
    axes[0].legend(title="fold", fontsize=8, title_fontsize=8)
    axes[1].get_legend().remove()
    return figure


def control_curves(curves):
    """Learning curves of the controls on shifted test frames, a panel for each shift; dashed, the ceiling of SIFA.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`lusbook.controls.read` gives it.
    """
    shown = curves[curves["images"] == "shifted"].assign(
        share=lambda t: t["iteration"] / t.groupby(["shift", "method", "seed"])["iteration"].transform("max"),
        method=lambda t: t["method"].map({"unet": "U-Net, source only", "sifa": "SIFA"}),
    )
    shifts = list(shown["shift"].unique())
    figure, axes = plt.subplots(1, len(shifts), figsize=(4.6 * len(shifts), 3), sharey=True, layout="constrained")
    for ax, shift in zip(np.atleast_1d(axes), shifts, strict=True):
        of = shown[shown["shift"] == shift]
        sns.lineplot(of, x="share", y="dice", hue="method", units="seed", estimator=None, marker="o", ax=ax)
        if (best := of.loc[of["method"] == "SIFA", "ceiling"]).size:
            ax.axhline(best.iloc[0], color="0.3", linestyle="--", linewidth=1)
        ax.set(title=shift, xlabel="share of the training", ylabel="Dice, shifted frames", ylim=(0, 1))
        ax.legend(title="", fontsize=8)
    return figure


def control_pictures(pictures):
    """The test frame of median labelled area under each shift: what SIFA makes of it, and what it segments.

    Parameters
    ----------
    pictures : dict of dict of ndarray
        As :func:`lusbook.controls.read` gives them; of each shift the first seed of SIFA is shown.
    """
    shown = {}
    for (shift, method, _), arrays in pictures.items():
        if method == "sifa":
            shown.setdefault(shift, arrays)
    heads = ("frame as it is", "shifted: what SIFA sees", "translated to the source", "label", "prediction")
    figure, axes = plt.subplots(len(shown), len(heads), figsize=(11, 2.4 * len(shown)), layout="constrained")
    for row, (shift, arrays) in zip(np.atleast_2d(axes), shown.items(), strict=True):
        for ax, name in zip(row, ("image", "shifted", "fake"), strict=False):
            show_frame(ax, arrays[name])
        show_frame(row[3], arrays["shifted"], arrays["mask"], "#648fff")
        show_frame(row[4], arrays["shifted"], arrays["predicted"])
        row[0].set_ylabel(shift, fontsize=10)
    for ax, head in zip(np.atleast_2d(axes)[0], heads, strict=True):
        ax.set_title(head, fontsize=10)
    return figure


def dice_distribution(per_image):
    """Dice of every test image, by method and cohort, with the mean of each patient.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        Of a study; the default route counts.
    """
    runs = by_run(per_image)
    patients = patient_means(runs)
    boxes = []  # the five numbers of each box have the same box as all images have
    for experiment, cohort in patients[["experiment", "cohort"]].drop_duplicates().itertuples(index=False, name=None):
        (box,) = cbook.boxplot_stats(sample(runs, experiment, cohort)["dice"])
        ends = [box[name] for name in ("whislo", "q1", "med", "q3", "whishi")]
        boxes.append(pd.DataFrame({"experiment": experiment, "cohort": cohort, "dice": ends}))
    order = [name for name in EXPERIMENTS if name in set(patients["experiment"])]
    names = titles("names")
    figure, ax = plt.subplots(figsize=(9, 0.75 * len(order) + 1.2), layout="constrained")
    options = {"y": "experiment", "x": "dice", "hue": "cohort", "order": order, "hue_order": list(COHORT_NAMES)}
    options |= {"palette": PALETTE, "ax": ax}
    sns.boxplot(pd.concat(boxes), fliersize=0, linewidth=1, boxprops={"alpha": 0.6}, **options)
    sns.stripplot(patients, dodge=True, jitter=False, size=5, linewidth=0.6, **options)
    ax.set(xlabel="Dice of test images (boxes) and of patients (dots)", ylabel="", xlim=(0, 1))
    ax.set_yticks(range(len(order)), [names.get(name, name) for name in order])
    handles, _ = ax.get_legend_handles_labels()
    ax.legend(handles[:2], COHORT_NAMES.values(), title="tested on", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def published_beside_ours(ours, published):
    """Mean Dice of every method on each cohort, ours beside the published.

    Parameters
    ----------
    ours : pandas.DataFrame
        experiment, cohort, mean, as :func:`lusbook.tables.dice_table`.
    published : pandas.DataFrame
        experiment, cohort, dice_mean.
    """
    names = {name: title for name, title in titles("names").items() if name in set(ours["experiment"])}
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.36 * len(names) + 1.1), sharey=True, layout="constrained")
    for ax, (cohort, label) in zip(axes, COHORT_NAMES.items(), strict=True):
        for table, column, style in ((published, "dice_mean", {"facecolor": "white"}), (ours, "mean", {})):
            means = table[table["cohort"] == cohort].set_index("experiment")[column].reindex(list(names))
            side = "published" if style else "here"
            options = {"facecolor": PALETTE[cohort], "edgecolor": PALETTE[cohort], "linewidth": 1.8, "zorder": 3}
            ax.scatter(means, range(len(names)), s=60, label=side, marker="D" if style else "o", **options | style)
        ax.set(xlim=(0, 1), xlabel="mean Dice over test images", title=f"tested on {label}")
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes[0].set_yticks(range(len(names)), names.values())
    axes[0].invert_yaxis()
    return figure


def differences_by_patient(compared):
    """Differences of Dice in pairs over patients with their intervals, and the published differences of means.

    Parameters
    ----------
    compared : pandas.DataFrame
        As :func:`lusbook.patients.compare_patients` returns it.
    """
    names = titles("names")
    pairs = list(dict.fromkeys(zip(compared["better"], compared["worse"], strict=True)))
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 0.62 * len(pairs) + 1.4), layout="constrained", sharey=True, sharex=True
    )
    for ax, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        rows = compared[compared["cohort"] == cohort]
        y = np.array([pairs.index(pair) for pair in zip(rows["better"], rows["worse"], strict=True)])
        ends = [rows["mean"] - rows["mean_low"], rows["mean_high"] - rows["mean"]]
        ax.axvline(0, color="black", lw=1)
        ax.errorbar(rows["mean"], y - 0.12, xerr=ends, fmt="o", color=PALETTE[cohort], capsize=3, label="ours")
        ax.plot(rows["published"], y + 0.18, "D", color="black", mfc="white", label="published")
        ax.set(title=f"tested on {title}, {rows['patients'].max()} patients", xlabel="difference of Dice, A - B")
    labels = [f"A: {names.get(a, a)}\nB: {names.get(b, b)}" for a, b in pairs]
    axes[0].set_yticks(range(len(pairs)), labels, fontsize=9)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def threshold_curves(curve, at):
    """Mean Dice against the threshold, a panel for each cohort, a line for each experiment.

    Parameters
    ----------
    curve : pandas.DataFrame
        As :func:`lusbook.ranking.threshold_curve` returns it.
    at : float
        The threshold in use.
    """
    order = [name for name in EXPERIMENTS if name in set(curve["experiment"])]
    names = titles("names")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    for ax, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        for experiment, colour, marker in zip(order, sns.color_palette("colorblind"), "os^vDPX*", strict=False):
            rows = curve[(curve["cohort"] == cohort) & (curve["experiment"] == experiment)]
            dashes = "--" if EXPERIMENTS[experiment].method == "sifa" else "-"
            line = {"color": colour, "marker": marker, "ls": dashes, "ms": 5, "lw": 1.4}
            ax.plot(rows["threshold"], rows["dice"], label=names.get(experiment, experiment), **line)
        ax.axvline(at, color="black", lw=1, ls=":")
        ax.set(xlabel="threshold", ylim=(0, 1))
        ax.set_title(f"tested on {title}", fontsize=10)
    axes[0].set_ylabel("mean Dice of test images")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def learning_curves(history, columns, window=10):
    """Losses against iteration, one panel for each loss, one line for each run (running mean).

    Parameters
    ----------
    history : pandas.DataFrame
        With columns ``experiment, fold, iteration`` and the losses.
    columns : list of str
    window : int
        Iterations in the running mean.
    """
    wide = min(3, len(columns))
    high = -(-len(columns) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(3.1 * wide, 2.5 * high), layout="constrained", squeeze=False)
    experiments = list(dict.fromkeys(history["experiment"]))
    colours = dict(zip(experiments, sns.color_palette("colorblind", len(experiments)), strict=True))
    for ax, column in zip(axes.flat, columns, strict=False):
        for (experiment, fold), run in history.groupby(["experiment", "fold"], sort=False):
            smooth = run[column].rolling(window, min_periods=1).mean()
            label = experiment if fold == FOLDS[0] else None
            ax.plot(run["iteration"], smooth, color=colours[experiment], lw=1.2, alpha=0.8, label=label)
        ax.set_title(column.replace("_", " "), fontsize=10)
        ax.set_xlabel("iteration", fontsize=9)
    for ax in axes.flat[len(columns) :]:
        ax.set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def cohort_frames(described):
    """Images of each patient, by cohort and fold."""
    counts = described.groupby(["cohort", "fold", "patient"], as_index=False).size()
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
    for ax, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        for fold, group in counts[counts["cohort"] == cohort].groupby("fold"):
            left = 0
            for size in group["size"]:
                ax.barh(fold, size, left=left, color=PALETTE[cohort], edgecolor="white", alpha=0.8)
                ax.text(left + size / 2, fold, str(size), ha="center", va="center", fontsize=9)
                left += size
        ax.set(title=title, xlabel="images (one block a patient)", yticks=FOLDS)
        ax.grid(False, axis="y")
    axes[0].set_ylabel("fold")
    axes[0].invert_yaxis()
    return figure


def measures_by_patient(variability, measures):
    """Variability of labels and images: one dot a patient, one panel a measure.

    Parameters
    ----------
    variability : pandas.DataFrame
        One row a patient, with column ``cohort``.
    measures : dict of str to str
        Column to axis title.
    """
    known = variability.columns[variability.notna().any()]  # own images have no exact mask to agree with
    measures = {column: title for column, title in measures.items() if column in known}
    wide = min(4, len(measures))
    high = -(-len(measures) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(2 * wide, 2.4 * high), layout="constrained", squeeze=False)
    for ax, (column, title) in zip(axes.flat, measures.items(), strict=False):
        options = {"x": "cohort", "y": column, "hue": "cohort", "order": list(COHORT_NAMES), "legend": False}
        sns.stripplot(variability, palette=PALETTE, size=7, jitter=False, alpha=0.7, ax=ax, **options)
        means = variability.groupby("cohort")[column].mean()
        ax.scatter(range(2), [means.get(name, np.nan) for name in COHORT_NAMES], marker="_", s=500, color="black")
        ax.set_xticks(range(2), COHORT_NAMES.values())
        ax.set(xlabel="", ylabel="", xlim=(-0.5, 1.5))
        ax.set_title(textwrap.fill(title, 22), fontsize=10)
    for ax in axes.flat[len(measures) :]:
        ax.set_visible(False)
    return figure


def border_examples(examples):
    """Frames whose labels follow the image's border badly, as usual and well, with their AUROC at the border.

    Parameters
    ----------
    examples : dict of ndarray
        As :func:`lusbook.spread.examples` returns them.
    """
    heads = ("10th percentile", "median", "90th percentile")
    figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.4), layout="constrained")
    for row, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        for index, (ax, head) in enumerate(zip(row, heads, strict=True)):
            if f"{cohort}_image" not in examples:
                ax.set_visible(False)
                continue
            show_frame(ax, examples[f"{cohort}_image"][index], examples[f"{cohort}_mask"][index])
            ax.set_title(f"{title}, {head}: {examples[f'{cohort}_auroc'][index]:.2f}", fontsize=10)
    return figure


def domain_yardstick(distances):
    """Distances between halves of cohorts: one dot a pair of halves, a panel for each distance.

    Parameters
    ----------
    distances : pandas.DataFrame
        As :func:`lusbook.domains.distances` returns it.
    """
    kinds = {"covid": "COVID-19, two halves", "cap": "CAP, two halves", "halves": "COVID-19 half, CAP half"}
    colours = {"covid": PALETTE["covid"], "cap": PALETTE["cap"], "halves": "#555555"}
    panels = {"a_distance": "proxy A-distance (0 to 2)", "mmd": "MMD, squared", "frechet": "Fréchet distance (SD²)"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained", sharey=True)
    for ax, (column, title) in zip(axes, panels.items(), strict=True):
        options = {"x": column, "y": "kind", "order": list(kinds), "hue": "kind", "palette": colours, "legend": False}
        rows = distances.loc[distances["kind"].isin(kinds), ["kind", column]].dropna()
        if len(rows):  # three patients cannot be halved
            sns.swarmplot(rows, size=4, ax=ax, **options)  # places dots without chance, unlike jitter
            medians = rows.groupby("kind")[column].median().reindex(list(kinds))
            ax.scatter(medians, range(3), marker="|", s=500, color="black", zorder=3)
        ax.set_yticks(range(3), kinds.values())
        ax.set(ylabel="", xlabel=title)
    return figure


def relation_map(relation, measures):
    """Rank correlations of measures with Dice, over the patients of each cohort: a square a measure and experiment.

    Parameters
    ----------
    relation : pandas.DataFrame
        As :func:`lusbook.relation.relate` returns it.
    measures : dict of str to str
        Column to title, in order.
    """
    names = titles("names") | {"mean": "mean of all"}
    order = [name for name in (*EXPERIMENTS, "mean") if name in set(relation["experiment"])]
    figure, axes = plt.subplots(2, 1, figsize=(7.5, 0.54 * len(measures) + 3), layout="constrained", sharex=True)
    for ax, (cohort, title) in zip(axes, COHORT_NAMES.items(), strict=True):
        rows = relation[relation["cohort"] == cohort]
        wide = rows.pivot(index="measure", columns="experiment", values="rho").reindex(index=measures, columns=order)
        options = {"cmap": "PuOr_r", "vmin": -1, "vmax": 1, "annot": True, "fmt": ".1f", "annot_kws": {"size": 8}}
        sns.heatmap(wide.to_numpy(float).round(1) + 0.0, ax=ax, linewidths=0.5, **options)
        black_or_white(ax)
        ax.set_title(f"{title}, n = {rows['n'].max()} patients", fontsize=10)
        ax.set_xticks(np.arange(len(order)) + 0.5, [names.get(name, name) for name in order], rotation=60, ha="right")
        ax.set_yticks(np.arange(len(measures)) + 0.5, measures.values(), rotation=0)
        ax.tick_params(labelsize=8)
    return figure


def auroc_intervals(evaluated):
    """AUROC of each arm for the experts' flags, with its interval."""
    figure, ax = plt.subplots(figsize=(7, 0.5 * len(evaluated) + 1.2), layout="constrained")
    y = np.arange(len(evaluated))
    errors = [evaluated["auroc"] - evaluated["low"], evaluated["high"] - evaluated["auroc"]]
    ax.errorbar(evaluated["auroc"], y, xerr=errors, fmt="o", color=PALETTE["covid"], capsize=3)
    ax.axvline(0.5, color="black", lw=1, ls="--")
    ax.set_yticks(y, evaluated["arm"])
    ax.invert_yaxis()
    ax.set(xlabel="AUROC for B-lines yes/no, 95 % interval over patients", xlim=(0.3, 1))
    return figure


def recipe_curves(curves, trained, source):
    """Test Dice along the training of a U-Net: a panel for each dropout, a colour for each learning rate.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`lusbook.gains.fold_curves` returns them, by dropout, learning_rate, labels and cohort.
    trained : int
        Iterations that the study trains; marked.
    source : str
        Cohort whose labels train; its test images are drawn solid, the other cohort's dashed.
    """
    rows = curves[curves["labels"] == source]
    dropouts = sorted(rows["dropout"].unique())
    figure, axes = plt.subplots(1, len(dropouts), figsize=(11, 3.6), sharey=True, layout="constrained")
    rates = sorted(rows["learning_rate"].unique(), reverse=True)
    colours = dict(zip(rates, sns.color_palette("colorblind", len(rates)), strict=True))
    for ax, dropout in zip(axes, dropouts, strict=True):
        for (rate, cohort), group in rows[rows["dropout"] == dropout].groupby(["learning_rate", "cohort"]):
            line = "-" if cohort == source else "--"
            for _, fold in group.groupby("fold"):
                ax.plot(fold["iteration"], fold["dice"], line, color=colours[rate], linewidth=0.7, alpha=0.5)
            mean = group.groupby("iteration").apply(lambda part: np.average(part["dice"], weights=part["images"]))
            label = f"rate {rate:g}, {COHORT_NAMES[cohort]} test"
            ax.plot(mean.index, mean, line, color=colours[rate], linewidth=2.2, label=label)
        ax.axvline(trained, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=f"dropout {dropout:g}", xlabel="iteration", ylim=(0, 1))
    axes[0].set_ylabel("Dice")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure


def gain_steps(split):
    """Steps from a U-Net to SIFA with their intervals: a panel for each direction and test cohort.

    Parameters
    ----------
    split : pandas.DataFrame
        As :func:`lusbook.gains.split`.
    """
    panels = list(split.groupby(["labels", "cohort"], sort=False))
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 4.6), sharex=True, sharey=True, layout="constrained")
    for ax, ((labels, cohort), rows) in zip(axes.flat, panels, strict=True):
        places = np.arange(len(rows))[::-1]
        whole = (rows["step"] == "whole").to_numpy()
        for kind, marker, colour in ((~whole, "o", PALETTE["covid"]), (whole, "D", "black")):
            part = rows[kind]
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["difference"].to_numpy())
            ax.errorbar(part["difference"], places[kind], xerr=errors, fmt=marker, color=colour, capsize=3)
        ax.axvline(0, color="0.4", linewidth=1)
        ax.set(ylim=(-0.6, len(rows) - 0.4))
        ax.set_yticks(places, rows["step"])
        ax.set_title(f"labels {COHORT_NAMES[labels]}, tested on {COHORT_NAMES[cohort]}", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("change in Dice")
    return figure


def gain_surface(surface):
    """Gain of adaptation in every cell of the grid, with its interval: a panel for each direction.

    Parameters
    ----------
    surface : pandas.DataFrame
        As :func:`lusbook.response.surface`.
    """
    directions = list(surface["direction"].unique())[::-1]
    limit = surface["gain"].abs().max()
    figure, axes = plt.subplots(1, len(directions), figsize=(10.5, 4.2), layout="constrained")
    for ax, direction in zip(np.atleast_1d(axes), directions, strict=True):
        rows = surface[surface["direction"] == direction]
        wide = rows.pivot(index="diversity", columns="consistency", values="gain").sort_index(ascending=False)
        texts = rows.assign(text=[f"{r.gain:.2f}\n({r.low:.2f} to {r.high:.2f})" for r in rows.itertuples()])
        texts = texts.pivot(index="diversity", columns="consistency", values="text").reindex_like(wide)
        options = {"cmap": "PuOr", "center": 0, "vmin": -limit, "vmax": limit, "linewidths": 2}
        options |= {"annot": texts, "annot_kws": {"size": 10}, "fmt": ""}
        last = direction == directions[-1]
        sns.heatmap(wide, ax=ax, cbar=last, cbar_kws={"label": "gain in Dice"}, **options)
        black_or_white(ax)
        source, target = direction.split("-to-")
        ax.set_title(f"{COHORT_NAMES[source]} to {COHORT_NAMES[target]}")
        ax.set(xlabel="consistency of source labels", ylabel="diversity of target images")
        ax.tick_params(axis="y", rotation=0)
    return figure


def dose_lines(surface):
    """Gain of adaptation against consistency, a line for each diversity: a panel for each direction.

    Parameters
    ----------
    surface : pandas.DataFrame
        As :func:`lusbook.response.surface`.
    """
    directions = list(surface["direction"].unique())[::-1]
    figure, axes = plt.subplots(1, len(directions), figsize=(10.5, 3.8), sharey=True, layout="constrained")
    diversities = sorted(surface["diversity"].unique())
    styles = zip(diversities, sns.color_palette("viridis", len(diversities) + 1), "os^Dvp*h", strict=False)
    styles = {diversity: (colour, marker) for diversity, colour, marker in styles}
    for ax, direction in zip(np.atleast_1d(axes), directions, strict=True):
        for place, (diversity, (colour, marker)) in enumerate(styles.items()):
            rows = surface[(surface["direction"] == direction) & (surface["diversity"] == diversity)]
            x = rows["consistency"] + 0.012 * (place - (len(styles) - 1) / 2)  # side by side, so that intervals show
            errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["gain"].to_numpy())
            label = f"target diversity {diversity:g}"
            ax.errorbar(x, rows["gain"], yerr=errors, fmt=f"-{marker}", color=colour, capsize=3, label=label)
        ax.axhline(0, color="0.4", linewidth=1)
        source, target = direction.split("-to-")
        ax.set(title=f"{COHORT_NAMES[source]} to {COHORT_NAMES[target]}", xlabel="consistency of source labels")
    axes[0].set_ylabel("gain in Dice, SIFA less U-Net")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles), fontsize=9)
    return figure


def iteration_seconds(table):
    """Seconds of an iteration of SIFA by image size: measured (points, range of the repeats) and floor (lines).

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`lusbook.performance.sifa_seconds` returns it.
    """
    figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
    variants = list(dict.fromkeys(table["variant"]))
    for variant, marker, colour in zip(variants, "os^", sns.color_palette("colorblind", 3), strict=False):
        rows = table[table["variant"] == variant]
        ranges = [rows["median"] - rows["min"], rows["max"] - rows["median"]]
        ax.errorbar(rows["size"], rows["median"], ranges, fmt=marker, color=colour, capsize=3, label=variant)
        ax.plot(rows["size"], rows["floor"], color=colour, ls="--", lw=1.2, label=f"{variant}, floor")
    ax.set(xlabel="side of the images, px", ylabel="seconds an iteration", ylim=(0, None))
    ax.set_xticks(sorted(set(table["size"])))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return figure


def scaling_curves(parts):
    """Cost of an image, and peak memory of the process, against the number of images: a line for each kind of work.

    Parameters
    ----------
    parts : pandas.DataFrame
        As :func:`lusbook.growth.measured_parts` returns it; what was not timed is in the panel of memory alone.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    names = list(dict.fromkeys(parts["part"]))
    for name, colour, marker in zip(names, sns.color_palette("colorblind", len(names)), "os^Dv*XP", strict=False):
        rows = parts[parts["part"] == name]
        for ax, values in zip(axes, (1000 * rows["seconds"], rows["memory"]), strict=True):
            if values.notna().all():
                ax.plot(rows["images"], values, color=colour, marker=marker, label=name)
    for ax, label in zip(axes, ("ms an image", "peak memory of the process, GiB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="images", ylabel=label)
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return figure


def gallery(real, simulated):
    """Real frames above, simulated ones below.

    Parameters
    ----------
    real, simulated : ndarray, shape (n, size, size), uint8
    """
    wide, kinds = 5, {"real": real, "phantom": simulated}
    rows = [(kind, start) for kind, frames in kinds.items() for start in range(0, len(frames), wide)]
    figure, axes = plt.subplots(len(rows), wide, figsize=(10, 2.05 * len(rows)), layout="constrained", squeeze=False)
    for line, (kind, start) in zip(axes, rows, strict=True):
        for number, ax in enumerate(line, start=start):
            if number < len(kinds[kind]):
                show_frame(ax, kinds[kind][number])
                ax.set_title(f"{kind} {number + 1}", fontsize=9)
            else:
                ax.set_visible(False)
    return figure


def knobs(diversities, consistencies, patients=(1, 2), index=8):
    """The two knobs of the phantom: rows of more diverse images, columns of less consistent labels.

    Parameters
    ----------
    diversities, consistencies : list of float
    patients : sequence of int
        Of the cohort of CAP.
    index : int
        Number of the frame in each patient's clip.
    """
    shape = (len(diversities), len(consistencies) * len(patients))
    figure, axes = plt.subplots(*shape, figsize=(1.35 * shape[1], 1.45 * shape[0]), layout="constrained")
    for row, diversity in zip(axes, diversities, strict=True):
        columns = [(consistency, patient) for consistency in consistencies for patient in patients]
        for ax, (consistency, patient) in zip(row, columns, strict=True):
            image, _, label = phantom.frame("cap", patient, index, diversity=diversity, consistency=consistency)
            show_frame(ax, image, label)
            if diversity == diversities[0] and patient == patients[0]:
                ax.set_title(f"consistency {consistency:g}", fontsize=9, loc="left")
        row[0].set_ylabel(f"diversity {diversity:g}", fontsize=9)
    return figure


def gaps(values, patients=(1, 2), index=8):
    """The third knob of the phantom: frames of patients under growing gaps, with the exact mask outlined.

    Parameters
    ----------
    values : list of float
    patients : sequence of int
        Of the cohort of CAP.
    index : int
        Number of the frame in each patient's clip.
    """
    shape = (len(patients), len(values))
    figure, axes = plt.subplots(*shape, figsize=(2.2 * shape[1], 2.2 * shape[0]), layout="constrained")
    for row, patient in zip(axes, patients, strict=True):
        for ax, gap in zip(row, values, strict=True):
            image, truth, _ = phantom.frame("cap", patient, index, diversity=0.8, consistency=0.5, gap=gap)
            show_frame(ax, image)
            ax.contour(truth, levels=[0.5], colors=[MASK_COLOUR], linewidths=0.8)
            ax.set_title(f"gap {gap:g}" if patient == patients[0] else "", fontsize=9)
    return figure


def profiles(table, sets):
    """Grey levels by depth, their spread, and the power spectrum: medians of frames, with quartiles of the first set.

    Parameters
    ----------
    table : pandas.DataFrame
        ``profiles`` of :func:`lusbook.comparison.compare`.
    sets : list of str
        The first is the reference.
    """
    panels = {
        "grey": ("mean grey level by depth", "depth, share", 255),
        "sd": ("its standard deviation", "depth, share", 255),
        "spectrum": ("power spectrum, dB", "cycles per pixel", 1),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    colours = dict(zip(sets, ["black", *sns.color_palette("colorblind", len(sets) - 1)], strict=True))
    for ax, (measure, (title, label, factor)) in zip(axes, panels.items(), strict=True):
        for name in sets:
            rows = table[(table["set"] == name) & table["measure"].str.fullmatch(rf"{measure}_\d+")]
            x = (np.arange(len(rows)) + 0.5) / len(rows) / (2 if measure == "spectrum" else 1)
            dashed = "-" if name == sets[0] or name.startswith("phantom") else "--"
            ax.plot(x, factor * rows["median"], color=colours[name], ls=dashed, lw=1.8, label=set_title(name))
            if name == sets[0]:
                ax.fill_between(x, factor * rows["low"], factor * rows["high"], color="black", alpha=0.12)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(label, fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def annotator_agreement(agreement):
    """Dice of two annotators with each other, and of one with the truth, frame by frame."""
    kinds = {"annotators": "two annotators", "truth": "one annotator and the truth"}
    long = agreement.melt(["cohort", "patient"], list(kinds), var_name="between", value_name="dice")
    figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
    order = {"y": "between", "order": list(kinds), "hue": "cohort", "hue_order": list(COHORT_NAMES)}
    sns.boxplot(long, x="dice", palette=PALETTE, fliersize=2, ax=ax, **order)
    ax.set(xlabel="Dice of a frame", ylabel="", xlim=(0, 1))
    ax.set_yticks(range(2), kinds.values())
    handles, _ = ax.get_legend_handles_labels()
    ax.legend(handles, COHORT_NAMES.values(), loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def frames_row(shown):
    """A row of frames.

    Parameters
    ----------
    shown : dict of tuple
        By title: an image, shape (height, width), uint8, or (height, width, 3), and its mask, bool, or None.
    """
    figure, axes = plt.subplots(1, len(shown), figsize=(3.3 * len(shown), 2.8), layout="constrained", squeeze=False)
    for ax, (title, (image, mask)) in zip(axes[0], shown.items(), strict=True):
        show_frame(ax, image, mask)
        ax.set_title(title, fontsize=10)
    return figure


def area_curve(areas):
    """Share of the fan that a network takes for B-lines, frame by frame, and the clip's score.

    Parameters
    ----------
    areas : pandas.DataFrame
        As :func:`lusbook.segment.segment` returns it.
    """
    figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
    ax.plot(areas["seconds"], areas["share"], "o-", ms=4, label="frame")
    ax.axhline(areas["share"].quantile(PERCENTILE / 100), color="black", lw=1, ls="--", label="clip score")
    ax.set(xlabel="seconds", ylabel="share of the fan", ylim=(0, 1.15 * max(areas["share"].max(), 0.01)))
    ax.legend(fontsize=9)
    return figure


def drawn_frames(frames, masks):
    """Frames, and the masks that networks draw on them: a row for each.

    Parameters
    ----------
    frames : ndarray, shape (n, size, size), uint8
    masks : dict of ndarray, shape (n, smaller size, smaller size), bool
        By the network's name.
    """
    heads = ["frame", *masks]
    shape = (len(heads), len(frames))
    figure, axes = plt.subplots(*shape, figsize=(1.2 * shape[1], 1.28 * shape[0]), layout="constrained", squeeze=False)
    for number, (column, frame) in enumerate(zip(axes.T, frames, strict=True)):
        show_frame(column[0], frame)
        column[0].set_title(str(number + 1), fontsize=10)
        for ax, drawn in zip(column[1:], masks.values(), strict=True):
            show_frame(ax, frame, resize(drawn[number].astype(float), frame.shape, order=1) > 0.5)
    for ax, head in zip(axes[:, 0], heads, strict=True):
        ax.set_ylabel(head, fontsize=10)
    return figure
