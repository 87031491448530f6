"""The report of an import."""

import base64
import io
from collections import Counter
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest

from lusbook.reports import (
    FAN_COLOUR,
    MASK_COLOUR,
    SIDE,
    count_cohorts,
    count_patients,
    patients_table,
    summary,
    thumbnail,
    write_report,
)


@pytest.fixture
def table():
    """Three patients of each cohort, two frames each; only those of covid have masks."""
    rows = []
    for k, cohort in enumerate(["cap"] * 3 + ["covid"] * 3):
        for frame in range(2):
            name = f"patient-{k + 1:02}-clip-01-frame-{frame:04}.png"
            masked = cohort == "covid"
            row = {"file": f"{cohort}/{k}/{frame if masked else 0}", "image": f"images/{name}"}
            row |= {"mask": f"masks/{name}" if masked else "", "patient": f"patient-{k + 1:02}", "cohort": cohort}
            rows.append(row | {"mm_per_pixel": 0.2 if k == 0 else np.nan, "b_lines": masked and frame == 0})
    table = pd.DataFrame(rows)
    table.loc[1, "mm_per_pixel"] = 0.15
    return table.assign(fold=pd.array([0, 0, 1, 1, 2, 2] * 2, dtype="Int64"))


def test_cohorts_and_patients_are_counted(table):
    cohorts = count_cohorts(table)
    columns = "patients recordings frames with_mask with_b_lines fold_0 fold_1 fold_2".split()
    assert cohorts.columns.tolist() == columns
    assert cohorts.loc["cap"].tolist() == [3, 3, 6, 0, 0, 2, 2, 2]
    assert cohorts.loc["covid"].tolist() == [3, 6, 6, 6, 3, 2, 2, 2]
    patients = count_patients(table)
    assert patients.loc["patient-01"].tolist() == ["cap", 1, 2, 0, 0, 0, "0.15, 0.2"]
    assert patients.loc["patient-05"].tolist() == ["covid", 2, 2, 2, 1, 1, ""]


def test_patients_in_words(table):
    words = patients_table(table)
    assert words.loc["patient-05"].tolist() == ["COVID-19", 2, 2, 2, 1, 1, "–"]
    assert words.columns.tolist()[3:] == ["with a mask", "with B-lines", "fold", "mm per pixel"]


def test_what_comes_next_follows_from_what_is_there(table):
    out = Path("/data/my out")
    assert summary(out, table).endswith(
        "next: lusbook adapt '/data/my out/manifest.csv' MODEL, then lusbook segment MODEL CLIP"
    )
    masked = table.assign(mask="masks/a.png")
    assert summary(out, masked).endswith(
        "next: make chapter NAME=unet PARAMS=\"-p cohorts '/data/my out/manifest.csv'\""
    )
    one = masked[masked["cohort"] == "cap"]
    assert "lusbook adapt" in summary(out, one) and "make chapter" not in summary(out, one)
    few = masked.assign(fold=pd.array([pd.NA] * 12, dtype="Int64"))
    text = summary(out, few)
    assert text.endswith("next: lusbook segment MODEL CLIP") and "too few for folds" in text


def test_a_thumbnail_outlines_fan_and_mask():
    image, fan, mask = np.full((400, 600), 90, np.uint8), np.zeros((400, 600), bool), np.zeros((400, 600), bool)
    fan[:, 100:500], mask[200:300, 200:300] = True, True
    picture = thumbnail(np.where(fan, image, 0), fan, mask)
    assert picture.shape == (160, SIDE, 3) and picture.dtype == np.uint8
    blue, amber = ((picture == colour).all(axis=-1) for colour in (FAN_COLOUR, MASK_COLOUR))
    assert blue[0, 60:180].all() and blue[:, 40].all() and not blue[60:100, 60:180].any()  # edges of the image, too
    assert amber[80, 80:120].all() and amber[80:120, 80].all() and not amber[90:110, 90:110].any()
    assert (picture[20:70, 60:180] == 90).all() and not picture[:, :30].any()
    small = thumbnail(image[:50, :50], fan[:50, 100:150])
    assert small.shape == (50, 50, 3)


def test_the_page_holds_all_and_needs_nothing(table, tmp_path):
    left_out = pd.DataFrame(
        {"file": ["a/<b>.txt"] + [f"{k}.png" for k in range(99)], "reason": "because & " + "x" * 200}
    )
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    pictures = dict.fromkeys(table["patient"].unique(), picture)
    write_report(tmp_path / "r.html", table, left_out, pictures, Counter({"B-line": 4, "<rib>": 2}))
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "http" not in page and "src=" in page and page.count("<img ") == 6
    data = page.split('src="data:image/png;base64,')[1].split('"')[0]
    np.testing.assert_array_equal(iio.imread(io.BytesIO(base64.b64decode(data))), picture)
    assert "a/&lt;b&gt;.txt" in page and "98.png" in page and page.count("because &amp; " + "x" * 200) == 100
    assert "Labels taken for B-lines: B-line (4). Other labels: &lt;rib&gt; (2)." in page
    assert "patient-01, cap, 0.15, 0.2 mm per pixel" in page and "too few" not in page


def test_the_page_says_what_is_lacking(table, tmp_path):
    table.loc[table["cohort"] == "cap", "fold"] = pd.NA
    pictures = {name: np.zeros((9, 9, 3), np.uint8) for name in table["patient"].unique()}
    write_report(tmp_path / "r.html", table, pd.DataFrame(columns=["file", "reason"]), pictures, Counter())
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "Cohort cap has too few patients for that: a study wants 3." in page
    assert "<p>Nothing.</p>" in page and "Labels" not in page
