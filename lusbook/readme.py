"""The README's results: Table 1, ours beside the published values, with the command behind each row, and its figure.

``python -m lusbook.readme`` writes both from the committed study.
"""

import matplotlib.pyplot as plt
from PIL import Image

from lusbook import figures, runs, tables
from lusbook.digests import short_digest
from lusbook.errors import LusbookError
from lusbook.patients import patient_means
from lusbook.settings import PROJECT, make_settings

README, FIGURE = PROJECT / "README.md", PROJECT / ".github" / "results.png"
START, END = "<!-- results: written by python -m lusbook.readme -->", "<!-- end of results -->"


def results(per_image, preset="demo"):
    """What the README says of a study, in Markdown: how many images, the best method, Table 1 with commands.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        One row for each test image and route of each run, see :func:`lusbook.runs.study`.
    preset : str
        Of the study, for the commands.

    Returns
    -------
    text : str
    """
    names, table = tables.titles("names"), tables.table1(per_image)
    commands = {title: f"`lusbook run {name} --preset {preset}`" for name, title in names.items()}
    head = ["Dice", *table.columns, "command"]
    rows = [[title, *table.loc[title], commands[title]] for title in table.index if title in commands]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join([best(per_image), "", _counts(per_image), "", *lines])


def best(per_image):
    """The method of the highest mean Dice on each cohort, published and ours, in Markdown: a line for each cohort.

    Parameters
    ----------
    per_image : pandas.DataFrame or dict of callable
        As for :func:`results`.

    Returns
    -------
    text : str
    """
    lines = []
    names, ours = tables.titles("names"), tables.dice_table(per_image)
    published = tables.load_published("table1").rename(columns={"dice_mean": "mean"})
    for cohort, label in tables.titles("cohorts").items():
        top = [rows.loc[rows["mean"].where(rows["cohort"] == cohort).idxmax()] for rows in (published, ours)]
        texts = [f"{names.get(row['experiment'], row['experiment'])}, {row['mean']:.2f}" for row in top]
        lines.append(f"- highest mean Dice on {label}: published {texts[0]}; here {texts[1]}")
    return "\n".join(lines)


def _counts(per_image):
    """Over what the means are taken."""
    # All experiments are tested on the same images.
    images = patient_means(per_image).groupby(["cohort", "fold", "patient"])["images"].max()
    n = images.groupby("cohort").agg(["sum", "size"])
    counts = [
        f"{n.loc[cohort, 'sum']} of {label} ({n.loc[cohort, 'size']} patients)"
        for cohort, label in tables.titles("cohorts").items()
    ]
    return f"Mean ± standard deviation over the test images of all folds, ours {' and '.join(counts)}:"


def replace(text, new):
    """The README with what stands between its two markers replaced.

    Raises
    ------
    LusbookError
        When a marker is not there, or twice.
    """
    for marker in (START, END):
        if text.count(marker) != 1:
            raise LusbookError(f"README.md: expected the line {marker!r} once, received {text.count(marker)} of it")
    before, rest = text.split(START)
    return f"{before}{START}\n{new}\n{END}{rest.split(END)[1]}"


def drawn_from(per_image):
    """Digest of the numbers that the figure shows; the figure carries it as its ``Source``."""
    return short_digest(tables.dice_table(per_image).round(3).to_csv().encode())


def draw(per_image, path):
    """Write the figure, small enough to be committed."""
    figures.use_style()
    figure = figures.published_beside_ours(tables.dice_table(per_image), tables.load_published("table1"))
    figure.savefig(path, dpi=80, metadata={"Software": None, "Source": drawn_from(per_image)})
    plt.close(figure)


def shown(path):
    """What a figure was drawn from, see :func:`drawn_from`."""
    with Image.open(path) as image:
        return image.info.get("Source")


def main():
    """Write the README's results and its figure from the committed study."""
    per_image = runs.study(make_settings("demo"))
    README.write_text(replace(README.read_text("utf-8"), results(per_image)), "utf-8")
    draw(per_image, FIGURE)


if __name__ == "__main__":
    main()
