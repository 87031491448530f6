"""The README's results are the committed study's, and its figure too."""

import pandas as pd
import pytest

from lusbook import readme, runs, tables
from lusbook.errors import LusbookError
from lusbook.experiments import EXPERIMENTS
from lusbook.settings import PROJECT, make_settings

TEXT = readme.README.read_text("utf-8")
AGAIN = "`python -m lusbook.readme` writes it anew"


@pytest.fixture(scope="module")
def per_image():
    settings = make_settings("demo")
    return runs.study(settings, results=PROJECT / "data" / "results")


def test_the_committed_table_and_figure_are_the_studys(per_image):
    assert readme.replace(TEXT, readme.results(per_image)) == TEXT, AGAIN
    assert readme.shown(readme.FIGURE) == readme.drawn_from(per_image), AGAIN
    assert readme.FIGURE.stat().st_size < 100_000


def test_a_row_holds_the_table_and_its_command(per_image):
    rows = [line for line in readme.results(per_image).splitlines() if "lusbook run" in line]
    assert len(rows) == len(EXPERIMENTS)
    means = tables.dice_table(per_image).set_index(["experiment", "cohort"])["mean"]
    for name, row in zip(tables.titles("names"), rows, strict=True):
        cells = row.strip("| ").split(" | ")
        assert cells[-1] == f"`lusbook run {name} --preset demo`"
        assert cells[1].startswith(f"{means[name, 'covid']:.2f} ") and cells[3].startswith(f"{means[name, 'cap']:.2f} ")


def test_other_numbers_make_another_table_and_figure(per_image, tmp_path):
    rows = pd.concat([rows for read in per_image.values() for rows in read()])
    chosen = (rows["experiment"] == "unet-cap") & (rows["cohort"] == "cap")
    changed = rows.assign(dice=rows["dice"].mask(chosen, 1.0))
    text = readme.results(changed)
    assert "highest mean Dice on CAP" in text and "here U-Net (CAP), 1.00" in text
    assert readme.replace(TEXT, text) != TEXT
    readme.draw(changed, tmp_path / "figure.png")
    drawn = readme.shown(tmp_path / "figure.png")
    assert drawn == readme.drawn_from(changed) != readme.drawn_from(per_image)


def test_only_what_stands_between_the_markers_is_replaced():
    text = f"before\n{readme.START}\nold\n{readme.END}\nafter\n"
    assert readme.replace(text, "new") == text.replace("old", "new")
    for marker in (readme.START, readme.END):
        with pytest.raises(LusbookError, match=r"README.md: expected the line .* once, received 0 of it"):
            readme.replace(text.replace(marker, ""), "new")
    with pytest.raises(LusbookError, match="received 2 of it"):
        readme.replace(text + readme.END, "new")
