"""Files, patients and masks of a folder."""

import json
import os

import numpy as np
import pytest

from lusbook import intake
from lusbook.errors import LusbookError
from lusbook.intake import Mark, find_files, find_marks, find_patients
from tests.helpers import noise, png, write_dicom

IMAGE = png(noise(1, 40)[0])


@pytest.fixture
def tree(tmp_path):
    """Write files of some content, an image by default; returns the folder."""

    def write(*names, **contents):
        folder = tmp_path / "source"
        for name, content in (dict.fromkeys(names, IMAGE) | contents).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return folder

    return write


def reasons(left_out):
    return {row["file"]: row["reason"] for row in left_out}


def look(folder):
    left_out = []
    return find_files(folder, left_out), reasons(left_out)


# ---------------------------------------------------------------------------------------------
# Files


def test_files_are_found_by_kind_and_in_order(tree):
    folder = tree("p/b.png", "p/a.JPG", "p/c.mp4", "p/b_mask.png", "p/masks/a.png", "p/notes.xml", "p/a-MASK.tif")
    write_dicom(folder / "p" / "IM1", noise(1, 40))
    files, left_out = look(folder)
    kinds = ["dicom", "mask", "image", "image", "mask", "clip", "mask", "annotation"]
    names = ["p/IM1", "p/a-MASK.tif", "p/a.JPG", "p/b.png", "p/b_mask.png", "p/c.mp4", "p/masks/a.png", "p/notes.xml"]
    assert list(files.items()) == list(zip(names, kinds, strict=True)) and not left_out


def test_useless_files_are_named_with_a_reason(tree, tmp_path):
    (tmp_path / "outside.png").write_bytes(IMAGE)
    (tmp_path / "far").mkdir()
    contents = {"empty.png": b"", "notes.txt": b"text", ".hidden.png": IMAGE, ".git/a.png": IMAGE}
    folder = tree("in/a.png", **contents)
    (folder / "out.png").symlink_to(tmp_path / "outside.png")
    (folder / "up").symlink_to(tmp_path / "far")
    (folder / "same").symlink_to(folder / "in")
    (folder / "in.png").symlink_to(folder / "in" / "a.png")
    (folder / "gone.png").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.png")
    with open(folder / "big.mp4", "wb") as file:
        file.truncate(intake.LARGEST + 1)  # takes no space
    files, left_out = look(folder)
    assert list(files) == ["in.png", "in/a.png"]
    assert left_out == {
        "empty.png": "empty file",
        "notes.txt": "no image, clip, DICOM file or annotation",
        ".hidden.png": "hidden",
        ".git": "hidden",
        "out.png": "a link that leads outside the folder",
        "up": "a link that leads outside the folder",
        "same": "a link to a folder, whose files are taken where they are",
        "gone.png": "no regular file",
        "pipe.png": "no regular file",
        "big.mp4": "4.0 GiB; expected at most 4",
    }


def test_a_link_in_a_circle_ends(tree):
    folder = tree("a.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    files, left_out = look(folder)
    assert list(files) == ["a.png"] and list(left_out) == ["self.png"]


# ---------------------------------------------------------------------------------------------
# Patients


def owners(folder, cohort=None, patients="folder"):
    left_out = []
    files = find_files(folder, left_out)
    table = find_patients(folder, files, cohort, patients, left_out)
    return table.set_index("file"), reasons(left_out)


def test_patients_are_folders_below_the_cohort(tree):
    table, left_out = owners(tree("Covid/jane/1.png", "Covid/jane/day 2/2.mp4", "cap/jane/1.png", "cap/joe/1.png"))
    assert table["cohort"].to_dict() == {
        "Covid/jane/1.png": "covid",
        "Covid/jane/day 2/2.mp4": "covid",
        "cap/jane/1.png": "cap",
        "cap/joe/1.png": "cap",
    }
    names = ["patient-01-clip-01", "patient-01-clip-02", "patient-02-clip-01", "patient-03-clip-01"]
    assert table["name"].tolist() == names and not left_out  # jane in cap is another patient
    assert table["patient"].tolist() == [name[:10] for name in names]


def test_one_cohort_may_be_said_once(tree):
    table, left_out = owners(tree("p/1.png", "q/1.png", "cap/r/1.png"), cohort="covid")
    assert table["cohort"].tolist() == ["covid", "covid"]
    assert left_out["cap/r/1.png"].endswith("received cap and covid")


def test_recordings_of_nobody_are_left_out(tree):
    table, left_out = owners(tree("covid/1.png", "2.png", "covid/images/3.png", "p/4.png", "covid/p/5.png"))
    assert table.index.tolist() == ["covid/p/5.png"]
    assert list(left_out) == ["2.png", "covid/1.png", "covid/images/3.png", "p/4.png"]
    assert all(left_out[name].startswith("no patient: expected a folder") for name in list(left_out)[:3])
    assert left_out["p/4.png"] == "no cohort: expected covid or cap of option, folder and CSV, received none"


def test_many_patients_stay_in_order(tree):
    table, _ = owners(tree(*(f"p{k:03}/1.png" for k in range(100))), cohort="cap")
    assert table["patient"].iloc[[0, 9, 99]].tolist() == ["patient-001", "patient-010", "patient-100"]


def test_a_csv_says_patients_and_cohorts(tree):
    rows = b"\xef\xbb\xbffile,patient,cohort\na.png,01,covid\n./sub\\b.png , 1 ,covid\nsub/c.png,01,\nd.png,2,cap\n"
    folder = tree("a.png", "sub/b.png", "sub/c.png", "e.png", **{"list.csv": rows})
    table, left_out = owners(folder, patients=folder / "list.csv")
    assert table["patient"].to_dict() == {"a.png": "patient-01", "sub/b.png": "patient-02"}  # 01 is not 1
    assert left_out == {
        "d.png": "listed in list.csv, but not there",
        "e.png": "no patient: not in the CSV",
        "sub/c.png": "no cohort: expected covid or cap of option, folder and CSV, received none",
    }
    assert owners(folder, "covid", str(folder / "list.csv"))[0]["patient"]["sub/c.png"] == "patient-01"


def test_a_file_that_is_left_out_already_is_not_missed(tree):
    folder = tree(**{"a.png": b"", "list.csv": b"file,patient\na.png,1\n"})
    assert owners(folder, "cap", folder / "list.csv")[1] == {"a.png": "empty file"}


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "no such file; expected folder, dicom or a CSV of patients"),
        (b"", "not a readable CSV"),
        (b"file,patient\na.png,\n", r"line 2, patient: received '', expected filled"),
        (b"file,patient\n,1\n", r"line 2, file"),
        (b"file,name\na.png,1\n", "columns: received 'patient'"),
        (b"file,patient,cohort\na.png,1,flu\n", r"line 2, cohort: received 'flu', expected covid or cap"),
        (b"file,patient\na.png,1\n../b.png,2\n", r"line 3, file: received '../b.png', expected a path inside"),
        (b"file,patient\n/etc/passwd,2\n", "expected a path inside the folder"),
        (b"file,patient\nC:\\b.png,2\n", "expected a path inside the folder"),
        (b"file,patient\na.png,1\n./a.png,2\n", r"line 3, file: 'a\.png' is there twice"),
        ("file,patient\na.png,Zoë\n".encode("latin-1"), "not a readable CSV"),
        (b"file,patient\na.png,1,covid\n", "not a readable CSV: Length of header"),
    ],
)
def test_bad_lists_of_patients_are_refused(tree, text, words):
    folder = tree("a.png", **({} if text is None else {"list.csv": text}))
    with pytest.raises(LusbookError, match=words) as caught:
        owners(folder, "cap", folder / "list.csv")
    assert str(folder / "list.csv") in str(caught.value)


def test_dicom_says_patients_whose_names_go_nowhere(tree):
    folder = tree("cap/4.png")
    for name, key in {
        "cap/1": "JANE-7",
        "cap/2": "JOE-8",
        "cap/3": "JANE-7",
        "covid/5": "JOE-8",
        "cap/6": None,
    }.items():
        write_dicom(folder / name, noise(1, 40), PatientID=key)
    (folder / "cap" / "7.dcm").write_bytes(b"broken")
    table, left_out = owners(folder, patients="dicom")
    assert table["patient"].to_dict() == {"cap/1": "patient-01", "cap/3": "patient-01"}
    both = "the same patient is in both cohorts; expected one for each patient"
    assert left_out["cap/2"] == left_out["covid/5"] == both
    assert left_out["cap/4.png"] == "no patient: not a DICOM file"
    assert left_out["cap/6"] == "no patient: DICOM without a Patient ID"
    assert "not a DICOM file" in left_out["cap/7.dcm"]
    assert "JOE" not in str(left_out) and "JANE" not in table.to_string()


# ---------------------------------------------------------------------------------------------
# Masks


def marks_of(folder):
    left_out = []
    marks, labels = find_marks(folder, find_files(folder, []), left_out)
    return {file: dict(frames) for file, frames in marks.items()}, labels, reasons(left_out)


@pytest.mark.parametrize(
    "image, mask",
    [
        ("p/a.png", "p/a_mask.png"),
        ("p/a.jpg", "p/a-mask.PNG"),
        ("p/a.dcm", "p/a_Mask.png"),
        ("p/a.png", "p/masks/a.png"),
        ("p/a.png", "p/Masks/a_mask.png"),
        ("p/images/a.png", "p/masks/a.png"),
        ("images/p/a.png", "masks/p/a.png"),
        ("p/a.png", "masks/p/a.png"),
    ],
)
def test_masks_are_paired_with_their_images(tree, image, mask):
    assert marks_of(tree(image, mask, "q/a.png")) == ({image: {0: [Mark(mask)]}}, {}, {})


def test_masks_without_one_image_are_named(tree):
    folder = tree("p/a_mask.png", "q/b.png", "q/b.jpg", "q/b_mask.png", "r/c.png", "r/masks/c.jpg")
    marks, _, left_out = marks_of(folder)
    assert not marks and left_out == {
        "p/a_mask.png": "mask of 0 images, expected one named a",
        "q/b_mask.png": "mask of 2 images, expected one named b: q/b.jpg, q/b.png",
        "r/masks/c.jpg": "expected a mask as PNG",
    }


def labelme(name, *labels, **size):
    triangle = [[1, 1], [9, 1], [1, 9]]
    return {"imagePath": name, "shapes": [{"label": label, "points": triangle} for label in labels], **size}


def test_polygons_of_b_lines_mark_a_frame_and_others_leave_it_empty(tree):
    contents = {
        "p/a.json": labelme("a.png", "B-line", "rib", "b_lines", imageHeight=40, imageWidth=50),
        "p/b.json": labelme("b.png", "rib"),
        "p/c.json": labelme("c.png"),
    }
    marks, labels, left_out = marks_of(tree("p/a.png", "p/b.png", "p/c.png", "p/d.png", **contents))
    assert not left_out and labels == {"B-line": 1, "rib": 2, "b_lines": 1}
    assert list(marks) == ["p/a.png", "p/b.png", "p/c.png"]
    (mark,) = marks["p/a.png"][0]
    assert mark.source == "p/a.json" and mark.size == (40, 50) and len(mark.polygons) == 2
    np.testing.assert_array_equal(mark.polygons[0], [[1, 1], [9, 1], [1, 9]])
    assert [marks[f"p/{name}.png"][0][0].polygons for name in "bc"] == [[], []]


@pytest.mark.parametrize(
    "annotation, name, found",
    [
        ("p/a.json", "a.png", "p/a.png"),
        ("labels/a.json", "../p/a.png", "p/a.png"),
        ("labels/a.json", "..\\p\\a.png", "p/a.png"),
        ("labels/a.json", "p/a.png", "p/a.png"),
        ("p/labels/a.json", "frames/a.png", "p/a.png"),  # is there once
        ("all.json", "c.png", "q/sub/c.png"),
        ("q/all.json", "b.png", "q/b.png"),
        ("q/all.json", "old/b.png", "q/b.png"),  # twice, but once beside
    ],
)
def test_annotations_find_what_they_name(tree, annotation, name, found):
    folder = tree("p/a.png", "p/b.png", "q/b.png", "q/sub/c.png", **{annotation: labelme(name, "bline")})
    marks, _, left_out = marks_of(folder)
    assert list(marks) == [found] and not left_out


@pytest.mark.parametrize(
    "name, words",
    [
        ("z.png", "names 'z.png', which is not there, or left out"),
        ("b.png", "names 'b.png', of which there are 2: p/b.png, q/b.png"),
        ("../b.png", "names '../b.png', a path that leads outside the folder"),
        ("/etc/passwd", "names '/etc/passwd', a path that leads outside the folder"),
        ("C:\\a.png", "names 'C:\\\\a.png', a path that leads outside the folder"),
        ("", "names no file"),
    ],
)
def test_annotations_of_nothing_are_named(tree, name, words):
    folder = tree("p/b.png", "q/b.png", **{"all.json": labelme(name, "bline")})
    marks, _, left_out = marks_of(folder)
    assert not marks and left_out == {"all.json": words}


def test_a_backup_of_cvat_marks_frames_of_its_clip(tree):
    shape = {"type": "polygon", "label": "bline", "points": [1, 1, 9, 1, 1, 9]}
    jobs = [
        {"shapes": [shape | {"frame": 4}, shape | {"frame": 4}, shape | {"frame": 7, "label": "rib"}], "tracks": []}
    ]
    contents = {"t/annotations.json": jobs, "t/task.json": {"name": "c.mp4"}, "t/data/index.json": {}}
    contents |= {"t/data/manifest.jsonl": b'{"version": "1.0"}\n'}
    marks, _, left_out = marks_of(tree("t/data/c.mp4", "other/c.mp4", **contents))
    frames = marks["t/data/c.mp4"]
    assert len(marks) == 1 and not left_out
    assert {number: len(found[0].polygons) for number, found in frames.items()} == {4: 2, 7: 0}


def test_unreadable_annotations_are_named_and_links_not_followed(tree, tmp_path):
    folder = tree("p/a.png", **{"p/bad.json": b"{", "p/other.json": {"a": 1}, "t/annotations.json": []})
    (tmp_path / "task.json").write_text('{"name": "secret"}')
    (folder / "t" / "task.json").symlink_to(tmp_path / "task.json")
    _, _, left_out = marks_of(folder)
    assert list(left_out) == ["p/bad.json", "p/other.json", "t/annotations.json"]
    assert left_out["t/annotations.json"] == "task.json beside it is a link that leads outside the folder"
    assert "not readable as JSON" in left_out["p/bad.json"]
    assert "expected annotations of CVAT, COCO or labelme" in left_out["p/other.json"]
