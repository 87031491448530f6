"""Public sources: finding a copy, and reading it into one form of table."""

import os

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest

from lusbook import sources, video
from lusbook.errors import LusbookError, MissingData
from lusbook.recordings import RECORDINGS
from tests.helpers import HEADER, cit_task, shape

REAL, REAL_CIT = os.environ.get(sources.COVID_BLUES), os.environ.get(sources.CIT)


def test_find_takes_folder_its_parent_environment_and_download(tmp_path, monkeypatch):
    with pytest.raises(LusbookError, match="LUSBOOK_COVID_BLUES.*lusbook download covid-blues"):
        sources.find_covid_blues()
    for place in ("cache/covid-blues", "other/covid-blues"):
        (tmp_path / place / "lus_videos").mkdir(parents=True)
        (tmp_path / place / "severity.csv").touch()
    assert sources.find_covid_blues() == tmp_path / "cache" / "covid-blues"
    other = tmp_path / "other" / "covid-blues"
    assert sources.find_covid_blues(other) == sources.find_covid_blues(other.parent) == other
    monkeypatch.setenv(sources.COVID_BLUES, str(other.parent))
    assert sources.find_covid_blues() == other
    monkeypatch.setenv(sources.COVID_BLUES, str(tmp_path / "gone"))
    with pytest.raises(LusbookError, match="variable LUSBOOK_COVID_BLUES.*gone"):
        sources.find_covid_blues()
    with pytest.raises(LusbookError, match="folder.*nothing-here"):
        sources.find_covid_blues(tmp_path / "nothing-here")


def test_read_joins_flags_to_clips(copy):
    table = sources.read_covid_blues(copy)
    assert table["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]
    assert table["patient"].tolist() == ["blues-1", "blues-1"]
    assert table["zone"].tolist() == ["L1", "R1"]
    assert table["b_lines"].tolist() == [False, True]
    assert table["a_lines"].tolist() == [True, False]
    assert table["severity"].tolist() == [0, 2]
    assert [os.path.basename(path) for path in table["path"]] == ["patient_1_L1.mp4", "patient_1_R1_2.mp4"]
    assert table.attrs == {"unlabelled": ["patient_9_L3"], "absent": ["patient_10_L2"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("patient_1_L1,0.0,yes,maybe,\n", "line 2, B-lines: received 'maybe'"),
        ("patient_1_L1,0.0,yes,,\n", "line 2, B-lines: received nan"),
        ("patient_1_L1,0.0,yes,no,\npatient_1_L2,4.0,yes,no,\n", "line 3, Severity Score: received"),
        ("patient_1_L1,0.0,yes,no,\npatient_1_L1,0.0,yes,no,\n", "line 2, video_file: received 'patient_1_L1'"),
        ("somebody,0.0,yes,no,\n", "line 2, video_file: received 'somebody'"),
        ("patient_7_L1,0.0,yes,no,\n", "no clip of severity.csv"),
    ],
)
def test_read_names_the_bad_row(copy, rows, message):
    (copy / "severity.csv").write_text(HEADER + rows)
    with pytest.raises(LusbookError, match=message):
        sources.read_covid_blues(copy)


@pytest.mark.parametrize(("text", "message"), [("video_file,A-lines\n", "Severity Score"), ("", "not a readable CSV")])
def test_read_names_a_bad_file(copy, text, message):
    (copy / "severity.csv").write_text(text)
    with pytest.raises(LusbookError, match=f"severity.csv.*{message}"):
        sources.read_covid_blues(copy)


# ---------------------------------------------------------------------------------------------
# Condition and PCR of COVID-BLUES


DIAGNOSES = ("healthy_lung", "bacterial_pneumonia", "COVID19_pneumonia", "other_viral_pneumonia", "other_lung_disease")


def clinical(folder, rows, names=DIAGNOSES):
    header = ",".join(["patient_id", "cov_test", "pat_age", *(f"clin_diagn#{name}" for name in names)])
    (folder / "clinical_variables.csv").write_text("\n".join([header, *rows]) + "\n")


def test_condition_and_pcr_are_those_of_the_committed_patients(copy):
    table = sources.read_covid_blues(copy)
    assert table["condition"].tolist() == ["covid19"] * 2 and table["pcr"].tolist() == ["positive"] * 2
    assert table["known"].tolist() == [True, True]
    for name in ("lus_videos/patient_1_L1.mp4", "lus_videos/patient_1_R1_2.mp4"):
        (copy / name).rename(copy / name.replace("_1_", "_2_", 1))  # a patient that is kept for a final check
    (copy / "severity.csv").write_text((copy / "severity.csv").read_text().replace("patient_1_", "patient_2_"))
    table = sources.read_covid_blues(copy)
    assert set(table["condition"]) == set(table["pcr"]) == {""} and not table["known"].any()


def test_condition_and_pcr_of_a_clone_are_the_source_s_own(copy):
    clinical(copy, ["10,1,50,0,0,1,0,0", "1,0,60,0,0,0,1,0"])
    table = sources.read_covid_blues(copy)
    assert set(table["condition"]) == {"viral_pneumonia"} and set(table["pcr"]) == {"negative"}
    for flags in ("0,0,0,0,0", "1,0,1,0,0"):  # none, or two
        clinical(copy, [f"1,1,60,{flags}"])
        table = sources.read_covid_blues(copy)
        assert set(table["condition"]) == {""} and set(table["pcr"]) == {"positive"}
    clinical(copy, ["7,1,60,0,0,1,0,0"])
    assert set(sources.read_covid_blues(copy)["pcr"]) == {""}


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (["1,2,60,1,0,0,0,0"], DIAGNOSES, "line 2, cov_test: received 2"),
        (["1,1,60,1,0,0,0,0", "2,1,60,1,0,0,9,0"], DIAGNOSES, "line 3, clin_diagn#other_viral_pneumonia: received 9"),
        (["1,1,60,1,0,0,0,0", "1,1,60,1,0,0,0,0"], DIAGNOSES, "line 2, patient_id: received 1"),
        (["1,1,60,1,0,0,0"], DIAGNOSES[:4], "clin_diagn#other_lung_disease"),
    ],
)
def test_clinical_variables_name_the_bad_row(copy, rows, names, message):
    clinical(copy, rows, names)
    with pytest.raises(LusbookError, match=f"clinical_variables.csv.*{message}"):
        sources.read_covid_blues(copy)


def test_flags_are_nullable_and_still_arrays_of_bool(copy):
    table = sources.read_covid_blues(copy)
    assert table["b_lines"].dtype == "boolean" and table["severity"].dtype == "Int64"
    np.testing.assert_array_equal(table["b_lines"].to_numpy(bool), [False, True])
    assert set(table["source"]) == {"covid-blues"} and set(table["licence"]) == {"CC BY-NC-ND 4.0"}
    assert list(table)[:11] == list(RECORDINGS.columns)


@pytest.mark.skipif(not REAL, reason="LUSBOOK_COVID_BLUES does not name a copy of COVID-BLUES")
def test_real_clips_are_read_and_their_fans_found():
    table = sources.read_covid_blues(REAL)
    clips = video.load_clips(table.iloc[::40], size=64, max_frames=4)
    assert len(clips.table) == len(table.iloc[::40])
    assert (clips.fans.mean(axis=(1, 2)) > 0.35).all()
    assert (clips.frames.mean(axis=(1, 2)) > 5).all()


@pytest.mark.skipif(not REAL, reason="LUSBOOK_COVID_BLUES does not name a copy of COVID-BLUES")
def test_real_clips_have_the_conditions_of_their_patients():
    table = sources.read_covid_blues(REAL)
    known = table[table["known"]]
    counts = {"covid19": 131, "bacterial_pneumonia": 19, "viral_pneumonia": 6, "other_lung_disease": 63}
    assert known["condition"].value_counts().to_dict() == counts | {"healthy_lung": 36}
    assert known["patient"].nunique() == 43 and set(known.loc[known["pcr"] == "positive", "condition"]) == {"covid19"}


# ---------------------------------------------------------------------------------------------
# POCUS


def pocus_folder(folder, **changes):
    """A selection's ``metadata.csv``."""
    rows = [
        ("pocus/b.mp4", "video", "convex", "pocus_2", "covid19", "yes", "CC BY 4.0", "Bea"),
        ("pocus/a.mp4", "video", "convex", "pocus_1", "unknown", "no", "CC BY-NC 4.0", "Ann"),
        ("pocus/c.png", "image", "convex", "pocus_2", "covid19", "yes", "CC BY 4.0", "Bea"),
        ("pocus/d.mp4", "video", "linear", "pocus_3", "", "", "CC BY 4.0", "Cy"),
        ("covid-blues/e.mp4", "video", "convex", "blues_1", "covid19", "no", "CC BY-NC-ND 4.0", "Dee"),
        ("pocus/f.mp4", "video", "convex", "pocus_4", "covid19", "yes", "none", "Eli"),
    ]
    columns = ["file", "media", "geometry", "group_id", "condition", "b_lines", "licence", "attribution"]
    pd.DataFrame(rows, columns=columns).assign(**changes).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_pocus_lists_its_convex_clips_under_creative_commons(tmp_path):
    table = sources.read_pocus(pocus_folder(tmp_path))
    assert table["clip"].tolist() == ["a", "b"] and table["patient"].tolist() == ["pocus_1", "pocus_2"]
    assert table["licence"].tolist() == ["CC BY-NC 4.0", "CC BY 4.0"]
    assert table["path"].tolist() == [str(tmp_path / "pocus" / name) for name in ("a.mp4", "b.mp4")]
    assert table["condition"].tolist() == ["", "covid19"]
    assert list(table) == list(RECORDINGS.columns) and set(table["source"]) == {"pocus"}


def test_nobody_mentioned_is_not_no(tmp_path):
    table = sources.read_pocus(pocus_folder(tmp_path))
    assert table["b_lines"].isna().tolist() == [True, False] and table["b_lines"][1]


def test_pocus_names_what_is_wrong(tmp_path):
    with pytest.raises(MissingData, match="LUSBOOK_POCUS.*metadata.csv.*lusbook download pocus"):
        sources.read_pocus()
    with pytest.raises(LusbookError, match="expected metadata.csv in it"):
        sources.read_pocus(tmp_path)
    with pytest.raises(LusbookError, match="line 2, geometry: received 'phased'"):
        sources.read_pocus(pocus_folder(tmp_path, geometry=["phased", *["convex"] * 5]))
    with pytest.raises(LusbookError, match="line 4, licence: received ''"):
        sources.read_pocus(pocus_folder(tmp_path, licence=["CC BY 4.0"] * 2 + ["", *["CC BY 4.0"] * 3]))


@pytest.mark.parametrize("name", ["/etc/x.mp4", "../x.mp4", "pocus/../../x.mp4", "pocus/..", "pocus\\..\\x.mp4"])
def test_pocus_stays_in_its_folder(tmp_path, name):
    files = ["pocus/b.mp4", name, "pocus/c.png", "pocus/d.mp4", "e", "f"]
    with pytest.raises(LusbookError, match="line 3, file: .*expected a path in the folder"):
        sources.read_pocus(pocus_folder(tmp_path, file=files))


# ---------------------------------------------------------------------------------------------
# CIT


def test_cit_lists_tasks_polygons_and_frames(tmp_path):
    jobs = [{"shapes": [shape(2), shape(2), shape(3, "lungslidingpresent")], "tracks": []}]
    cit_task(tmp_path, 7, jobs, "019_image_1.mp4")
    cit_task(tmp_path, 8, [{"shapes": [shape(0, "pleura")], "tracks": []}], "8c x220722--101032_MSK.AVI")
    clip = tmp_path / "Dataset" / "USG-B-lines" / "task_7" / "data" / "B-lines" / "image_1.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    recordings, polygons, frames = sources.read_cit(tmp_path)
    assert recordings["clip"].tolist() == ["task_7", "task_8"] and recordings["path"].tolist() == [str(clip), ""]
    assert recordings["b_lines"].tolist() == [True, False] and set(recordings["licence"]) == {"MIT"}
    assert recordings["device"].tolist() == ["Philips Lumify", "another scanner"]
    assert list(recordings)[:11] == list(RECORDINGS.columns)
    assert polygons["clip"].tolist() == ["task_7"] * 2 and polygons["frame"].tolist() == [2, 2]
    np.testing.assert_array_equal(polygons["points"][0], [[0, 1], [2, 3], [4, 5]])
    expected = [("task_7", 2, 2), ("task_7", 3, 0), ("task_8", 0, 0)]
    assert list(frames.itertuples(index=False, name=None)) == expected
    (clip.parent / "another.AVI").touch()
    with pytest.raises(LusbookError, match="task_7/data: expected one clip, received another.AVI, image_1.mp4"):
        sources.read_cit(tmp_path)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("019_image_105254193418293.mp4", "cit-019"),
        ("021_image_154330427499613_A.mp4", "cit-021"),
        ("8c x220722--101032_20220722_MSK_0002.AVI", "cit-8"),
        ("pacient 23d x220722--101852_20220722_MSK_0003.AVI", "cit-23"),
        ("x220721--094147_20220721_MSK_0002 Bs.AVI", "cit-220721--094147"),
        ("x_image_15055609456884.mp4", "cit-task_7"),
        ("", "cit-task_7"),
    ],
)
def test_cit_patients_are_told_by_the_clip_s_name(tmp_path, name, patient):
    recordings, _, _ = sources.read_cit(cit_task(tmp_path, 7, [{"shapes": [shape(0)], "tracks": []}], name))
    assert recordings["patient"].tolist() == [patient]


@pytest.mark.parametrize("jobs", ["[", {"a": 1}, [{"shapes": []}], [{"shapes": [{"label": "bline"}], "tracks": []}]])
def test_cit_names_the_file_that_is_not_as_described(tmp_path, jobs):
    with pytest.raises(LusbookError, match="task_7/annotations.json: "):
        sources.read_cit(cit_task(tmp_path, 7, jobs))


def test_cit_says_how_to_get_it(tmp_path):
    with pytest.raises(MissingData, match="LUSBOOK_CIT.*task_.*lusbook download cit"):
        sources.read_cit()
    with pytest.raises(LusbookError, match="folder.*expected Dataset/USG-B-lines"):
        sources.read_cit(tmp_path)


@pytest.mark.skipif(not REAL_CIT, reason="LUSBOOK_CIT does not name a copy of CIT's polygons")
def test_the_real_polygons_are_all_read():
    recordings, polygons, frames = sources.read_cit(REAL_CIT)
    assert len(recordings) == 30 and recordings["patient"].nunique() == 20
    assert len(polygons) == 431 and len(polygons.groupby(["clip", "frame"])) == 365
    assert len(frames) == 1023 and (frames["n_b_lines"] > 0).sum() == 365 and frames["n_b_lines"].sum() == 431


# ---------------------------------------------------------------------------------------------
# LUS-BALD


BOX = "0 0.25 0.5 0.5 0.5 0.5 1 0.25 1\n"


def bald(folder, images, labels):
    for name, size in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(folder / name, np.zeros(size, np.uint8))
    for name, rows in labels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(rows)
    return folder


def test_bald_lists_images_and_boxes(tmp_path):
    images = {
        "train/images/patient_3_b.png": (40, 80),
        "train/images/scan.jpg": (20, 30),
        "val/images/p3.jpeg": (9, 9),
    }
    labels = {"train/labels/patient_3_b.txt": BOX * 2, "train/labels/scan.txt": "", "val/classes.txt": "b_line"}
    recordings, polygons = sources.read_bald(bald(tmp_path, images, labels))
    assert recordings["clip"].tolist() == ["train/images/patient_3_b", "train/images/scan", "val/images/p3"]
    assert recordings["patient"].tolist() == ["bald-3", "bald-train/images/scan", "bald-3"]
    assert recordings["b_lines"].tolist()[:2] == [True, False] and recordings["b_lines"].isna()[2]
    assert polygons["clip"].tolist() == ["train/images/patient_3_b"] * 2
    np.testing.assert_allclose(polygons["points"][1], [[20, 20], [40, 20], [40, 40], [20, 40]])
    assert polygons[["height", "width"]].drop_duplicates().to_numpy().tolist() == [[40, 80]]


def test_bald_takes_texts_beside_images_and_none_at_all(tmp_path):
    recordings, polygons = sources.read_bald(bald(tmp_path, {"a.png": (8, 8)}, {}))
    assert recordings["b_lines"].isna().all() and polygons.empty
    _, polygons = sources.read_bald(bald(tmp_path, {}, {"a.txt": BOX}))
    assert polygons["clip"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"labels/a.txt": "1 0 0 1 0 1 1 0 1"}, "a.txt: expected class 0 only, received '1'"),
        ({"labels/a.txt": "0 0 0 1 0 1 1 0"}, "a.txt, line 1: expected a class and 8 coordinates"),
        ({"labels/a.txt": "0 0 0 1 0 1 1 0 80"}, "a.txt, line 1: 7: .*received b'80'"),
        ({"labels/b.txt": BOX}, "b.txt: no image has this stem"),
        ({"images/a.png": "no image", "labels/a.txt": BOX}, "a.png: not readable as an image"),
    ],
)
def test_bald_refuses_what_does_not_fit(tmp_path, labels, message):
    with pytest.raises(LusbookError, match=message):
        sources.read_bald(bald(tmp_path, {"images/a.png": (8, 8)}, labels))


def test_bald_wants_images_of_one_name(tmp_path):
    with pytest.raises(LusbookError, match="expected PNG or JPEG images"):
        sources.read_bald(tmp_path)
    with pytest.raises(LusbookError, match="lus-bald, columns: .*expected .*unique"):
        sources.read_bald(bald(tmp_path, {"a.png": (8, 8), "a.jpg": (8, 8)}, {}))
