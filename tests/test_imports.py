"""Import of a folder of recordings."""

import json
import re
import tracemalloc

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from pydicom import uid

from lusbook import imports, media
from lusbook.cohort import assign_folds
from lusbook.errors import LusbookError
from lusbook.imports import import_folder
from lusbook.loading import load_cohorts
from lusbook.manifests import read_table
from lusbook.settings import make_settings
from tests.helpers import make_frames, png, write_clip, write_dicom
from tests.test_cli import lusbook

FRAME = make_frames(1)[0]  # (96, 128): a fan, its shadowed third, and text outside
LINE = np.zeros(FRAME.shape, bool)
LINE[40:75, 60:70] = True
CORNERS = [[60, 40], [70, 40], [70, 75], [60, 75]]  # of that B-line
JANE = "DOE^JANE"


def write(folder, **files):
    """Write files of bytes, arrays (as PNG) or what JSON takes."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            content = png(content)
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def labelme(name, *labels):
    shapes = [{"label": label, "points": CORNERS} for label in labels]
    return {"imagePath": name, "shapes": shapes, "imageHeight": 96, "imageWidth": 128}


def coco(*names):
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    flat = np.ravel(CORNERS).tolist()
    shapes = [{"image_id": 0, "category_id": 1, "segmentation": [flat]}]
    return {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "B-line"}]}


def cvat(*frames):
    flat = np.ravel(CORNERS).tolist()
    return [{"shapes": [{"frame": k, "label": "bline", "points": flat} for k in frames], "tracks": []}]


def find_box(path):
    """The fan of a recording, and the rows and columns that it takes up."""
    stream, region, _ = media.open_recording(path)
    fan, _ = media.find_fan(path, stream, region)
    rows, columns = np.flatnonzero(fan.any(axis=1)), np.flatnonzero(fan.any(axis=0))
    return fan, (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))


@pytest.fixture
def study(tmp_path):
    """Two cohorts of three patients in every format, the names of patients wherever one may be."""
    folder = write(
        tmp_path / "source",
        **{
            "covid/jane/1.png": FRAME,
            "covid/jane/1_mask.png": 255 * LINE,
            "covid/jane/2.png": FRAME,
            "covid/jane/masks/2.png": LINE,
            "covid/joe/doe-jane.json": labelme("doe-jane.jpg", "B-line", "rib"),
            "covid/joe/doe-jane.jpg": iio.imwrite("<bytes>", FRAME, extension=".jpg"),
            "covid/joe/2.json": labelme("2.tif", "rib"),
            "covid/joe/2.tif": iio.imwrite("<bytes>", FRAME, extension=".tif"),
            "covid/ann/annotations.json": cvat(3, 7),
            "covid/ann/task.json": {"name": "clip.mp4"},
            "cap/bob/coco.json": coco("1.png", "2.png"),
            "cap/bob/1.png": FRAME,
            "cap/bob/2.png": FRAME,
            "cap/cy/annotations.json": cvat(0),
            "cap/cy/task.json": {"name": "exam.dcm"},
            "cap/dee/1.png": FRAME,
            "cap/dee/1_mask.png": 255 * LINE,
        },
    )
    write_clip(folder / "covid/ann/clip.mp4", make_frames(9, black=2))
    write_dicom(folder / "cap/cy/exam.dcm", make_frames(2), regions=[{}], PatientName=JANE, PatientID=JANE)
    return folder


def test_two_cohorts_of_every_format_are_what_a_study_loads(study, tmp_path):
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    out, table, left_out = import_folder(study)
    assert out == tmp_path / "source-cohort"
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before
    frames = {
        "patient-01-clip-01-frame-0000": ("cap", "cap/bob/1.png", True),
        "patient-01-clip-02-frame-0000": ("cap", "cap/bob/2.png", False),
        "patient-02-clip-01-frame-0000": ("cap", "cap/cy/exam.dcm", True),
        "patient-03-clip-01-frame-0000": ("cap", "cap/dee/1.png", True),
        "patient-04-clip-01-frame-0003": ("covid", "covid/ann/clip.mp4", True),
        "patient-04-clip-01-frame-0007": ("covid", "covid/ann/clip.mp4", True),
        "patient-05-clip-01-frame-0000": ("covid", "covid/jane/1.png", True),
        "patient-05-clip-02-frame-0000": ("covid", "covid/jane/2.png", True),
        "patient-06-clip-01-frame-0000": ("covid", "covid/joe/2.tif", False),
        "patient-06-clip-02-frame-0000": ("covid", "covid/joe/doe-jane.jpg", True),
    }
    assert table["image"].tolist() == [f"images/{name}.png" for name in frames]
    assert table["mask"].tolist() == [f"masks/{name}.png" for name in frames]
    assert list(table[["cohort", "file", "b_lines"]].itertuples(index=False, name=None)) == list(frames.values())
    assert sorted(path.name for path in out.iterdir()) == "images left_out.csv manifest.csv masks report.html".split()
    for part in ("image", "mask"):
        assert sorted(path.name for path in (out / f"{part}s").iterdir()) == sorted(f"{name}.png" for name in frames)
    cohorts = load_cohorts(make_settings("smoke", cohorts=str(out / "manifest.csv")))
    assert {name: (len(cohort), len(set(cohort.patients))) for name, cohort in cohorts.items()} == {
        "covid": (6, 3),
        "cap": (4, 3),
    }
    for name, rows in table.groupby("cohort"):
        assert rows["fold"].tolist() == cohorts[name].folds.tolist() == assign_folds(rows["patient"]).tolist()
    manifest = pd.read_csv(out / "manifest.csv")
    assert manifest.columns.tolist() == ["image", "mask", "patient", "cohort", "mm_per_pixel"]
    assert manifest["mm_per_pixel"].dropna().tolist() == [0.2]  # of the DICOM file alone
    assert dict(left_out.to_numpy()) == {
        "cap/cy/exam.dcm": "no mask: 1 of 2 frames",
        "covid/ann/clip.mp4": "no mask: 5 of 7 frames",
    }
    pd.testing.assert_frame_equal(pd.read_csv(out / "left_out.csv"), left_out, check_dtype=False)


def test_frames_and_masks_are_those_of_the_source_without_what_is_outside_the_fan(study, tmp_path):
    out, table, _ = import_folder(study)
    fan, box = find_box(study / "covid" / "jane" / "1.png")
    assert not fan[3:12, 3:20].any() and FRAME[3:5, 3:20].all()  # of the text
    for row in table[table["file"].isin(["covid/jane/1.png", "covid/jane/2.png"])].itertuples():
        np.testing.assert_array_equal(iio.imread(out / row.image), np.where(fan, FRAME, 0)[box])
        np.testing.assert_array_equal(iio.imread(out / row.mask), (255 * (LINE & fan))[box])
    fan, box = find_box(study / "cap" / "cy" / "exam.dcm")
    (row,) = table[table["file"] == "cap/cy/exam.dcm"].itertuples()
    np.testing.assert_array_equal(iio.imread(out / row.image), np.where(fan, make_frames(2)[0], 0)[box])
    np.testing.assert_array_equal(iio.imread(out / row.mask), (255 * LINE)[box])


def test_no_name_of_a_patient_or_file_reaches_images_and_manifest(study):
    out, _, _ = import_folder(study)
    written = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(written) == 23
    for name, content in written.items():
        assert JANE.encode() not in content and str(study).encode() not in content
        assert not any(word in name for word in ("doe", "jane", "joe", "exam"))
        if name.endswith(".png"):
            assert not any(chunk in content for chunk in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME"))
    assert not any(word in written["manifest.csv"] for word in (b"doe", b"jane", b"joe", b"exam"))


def test_patients_of_dicom_are_numbers(tmp_path):
    for name, patient in {"a": JANE, "b": "DOE^JOE", "c": JANE}.items():
        write_dicom(tmp_path / "source" / name, make_frames(2), uid.RLELossless, PatientID=patient, PatientName=patient)
    out, table, _ = import_folder(tmp_path / "source", cohort="covid", patients="dicom")
    assert dict(zip(table["file"], table["patient"], strict=True)) == {
        "a": "patient-01",
        "b": "patient-02",
        "c": "patient-01",
    }
    assert all(b"DOE" not in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_the_tissue_region_of_dicom_is_cut_out_and_its_masks_with_it(tmp_path):
    left, box = 20, {"RegionLocationMinX0": 20, "RegionLocationMinY0": 10}
    frames = np.pad(make_frames(1), [(0, 0), (10, 0), (left, 0)], constant_values=200)  # bright beside the region
    folder = write(tmp_path / "source", **{"p/annotations.json": cvat(0), "p/task.json": {"name": "a.dcm"}})
    write_dicom(folder / "p/a.dcm", frames, regions=[box])
    out, table, _ = import_folder(folder, cohort="cap")
    image, mask = iio.imread(out / table["image"][0]), iio.imread(out / table["mask"][0]) > 0
    assert image.shape[0] < 97 and image.shape[1] < 129
    whole = np.zeros(frames.shape[1:], bool)
    whole[40:75, 60:70] = True  # the polygon is given in the whole frame
    assert image[mask].tolist() == frames[0][whole].tolist()


# ---------------------------------------------------------------------------------------------
# Which frames


def test_frames_are_spaced_evenly_from_the_first_lit_to_the_last_and_annotated_ones_kept(tmp_path):
    folder = write(tmp_path / "source", **{"p/task.json": {"name": "c.mp4"}, "p/annotations.json": cvat(5)})
    write_clip(folder / "p/c.mp4", make_frames(12, black=2))
    out, table, left_out = import_folder(folder, cohort="cap", frames=3)
    assert table["image"].tolist() == ["images/patient-01-clip-01-frame-0005.png"]  # a cohort with masks
    assert left_out["reason"].tolist() == ["no mask: 3 of 4 frames"]
    (folder / "p/annotations.json").unlink()
    out, table, _ = import_folder(folder, tmp_path / "other", cohort="cap", frames=3)
    numbers = [int(name[-8:-4]) for name in table["image"]]
    assert numbers == [2, 6, 11]
    decoded = list(media.stream_clip(folder / "p/c.mp4"))
    fan, box = find_box(folder / "p/c.mp4")
    for name, number in zip(table["image"], numbers, strict=True):
        np.testing.assert_allclose(iio.imread(out / name), np.where(fan, decoded[number], 0)[box], atol=1)


def test_a_cohort_without_any_mask_stays_without(tmp_path):
    folder = write(tmp_path / "source", **{f"{c}/{p}/1.png": FRAME for c in ("covid", "cap") for p in "abc"})
    write(folder, **{"cap/a/1_mask.png": 255 * LINE})
    out, table, left_out = import_folder(folder)
    assert table.groupby("cohort")["mask"].apply(lambda masks: (masks == "").tolist()).to_dict() == {
        "cap": [False],
        "covid": [True, True, True],
    }
    assert left_out.to_numpy().tolist() == [["cap/b/1.png", "no mask"], ["cap/c/1.png", "no mask"]]
    assert table.loc[table["cohort"] == "cap", "fold"].isna().all()  # one patient is left
    _, rows = read_table(_without_cap(out))
    assert rows["mask"].tolist() == ["", "", ""]
    report = (out / "report.html").read_text()
    assert "Cohort cap has too few patients" in report


def _without_cap(out):
    path = out / "manifest.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",cap," not in line))
    return path


def test_an_empty_mask_is_a_mask(tmp_path):
    folder = write(tmp_path / "source", **{f"{p}/1.png": FRAME for p in "abc"})
    write(folder, **{"a/1_mask.png": 0 * LINE, "b/1.json": labelme("1.png")})
    _, table, left_out = import_folder(folder, cohort="covid")
    assert table["file"].tolist() == ["a/1.png", "b/1.png"] and not table["b_lines"].any()
    assert left_out["file"].tolist() == ["c/1.png"]


# ---------------------------------------------------------------------------------------------
# What is refused


def cut_clip(folder):
    write_clip(folder / "p/bad.mp4", make_frames(40), movflags="faststart")
    content = (folder / "p/bad.mp4").read_bytes()
    (folder / "p/bad.mp4").write_bytes(content[: len(content) // 2])


def doppler():
    frame = np.dstack([FRAME] * 3)
    frame[40:60, 60:80] = 220, 30, 0
    return frame


def tiff16():
    return iio.imwrite("<bytes>", FRAME.astype(np.uint16), extension=".tif")


BAD = {
    "truncated clip": (cut_clip, "p/bad.mp4", r"not a whole clip, decoded \d+ of 40 frames"),
    "broken clip": ({"p/bad.avi": b"RIFF broken"}, "p/bad.avi", "not a whole clip"),
    "truncated image": ({"p/bad.png": png(FRAME)[:-500]}, "p/bad.png", "not a whole image"),
    "16-bit PNG": ({"p/bad.png": iio.imwrite("<bytes>", FRAME.astype(np.uint16), extension=".png")}, "p/bad.png", "16"),
    "16-bit TIFF": ({"p/bad.tif": tiff16()}, "p/bad.tif", "expected 8 bits a channel, received 16"),
    "16-bit DICOM": (lambda f: write_dicom(f / "p/bad", make_frames(1), BitsStored=12), "p/bad", "received 12 bits"),
    "truncated DICOM": (
        lambda f: write_dicom(f / "p/bad", make_frames(3), NumberOfFrames=5),
        "p/bad",
        "not a whole DICOM file, decoded 3 of 5 frames",
    ),
    "DICOM of a text": (
        lambda f: write_dicom(f / "p/bad", make_frames(1), Rows=None, PixelData=None),
        "p/bad",
        "DICOM without an image",
    ),
    "encrypted DICOM": ({"p/bad.dcm": b"\x30\x82" + bytes(500)}, "p/bad.dcm", "not a DICOM file, or an encrypted one"),
    "Doppler of DICOM": (
        lambda f: write_dicom(f / "p/bad", make_frames(1), regions=[{}, {"RegionDataType": 2}]),
        "p/bad",
        "colour Doppler: a region of colour flow",
    ),
    "Doppler": ({"p/bad.png": doppler()}, "p/bad.png", "colour Doppler: .* of the fan are coloured"),
    "zero frames": (lambda f: write_dicom(f / "p/bad", make_frames(1), NumberOfFrames=0), "p/bad", "zero frames"),
    "black": ({"p/bad.png": 0 * FRAME}, "p/bad.png", "all 1 frames are black"),
    "small": ({"p/bad.png": FRAME[:30]}, "p/bad.png", "expected 32 px or more a side"),
    "no fan": ({"p/bad.png": np.pad(np.full((12, 12), 255), [(60, 0), (60, 0)])}, "p/bad.png", "no ultrasound fan"),
    "a small fan": (
        {"p/bad.png": np.pad(np.full((20, 40), 90), [(20, 20), (20, 20)])},
        "p/bad.png",
        r"expected a fan of 32 px or more a side, received \(20, 40\)",
    ),
    "annotation": ({"p/bad.json": b"{"}, "p/bad.json", "not readable as JSON"),
    "annotation of nothing": (
        {"p/bad.json": labelme("gone.png")},
        "p/bad.json",
        "names 'gone.png', which is not there",
    ),
    "path upwards": ({"p/bad.json": labelme("../../a.png")}, "p/bad.json", "a path that leads outside the folder"),
    "patient of nobody": ({"bad.png": FRAME}, "bad.png", "no patient"),
}


@pytest.mark.parametrize("bad, file, words", BAD.values(), ids=BAD)
def test_what_is_of_no_use_is_named_and_the_rest_goes_on(tmp_path, bad, file, words):
    folder = write(tmp_path / "source", **{"p/good.png": FRAME})
    write(folder, **bad) if isinstance(bad, dict) else bad(folder)
    out, table, left_out = import_folder(folder, cohort="cap")
    assert table["file"].tolist() == ["p/good.png"]
    assert left_out["file"].tolist() == [file]
    assert re.search(words, left_out["reason"][0]), left_out["reason"][0]
    assert str(tmp_path) not in left_out["reason"][0] and not left_out["reason"][0].startswith(file)
    report = (out / "report.html").read_text()
    assert f"<td>{file}</td>" in report and "Traceback" not in report


MASKS = {
    "another size": ({"p/1_mask.png": LINE[:90]}, "p/1_mask.png", r"mask of another size; expected \(96, 128\)"),
    "other values": ({"p/1_mask.png": 7 * LINE}, "p/1_mask.png", r"expected a mask of 0 and 255 .* values 0, 7$"),
    "grey": ({"p/1_mask.png": FRAME}, "p/1_mask.png", r"received the values .*, \.\.\.$"),
    "colour": ({"p/1_mask.png": LINE[..., None] * [128, 0, 0]}, "p/1_mask.png", "expected a mask of 0 and 255"),
    "16 bits": (
        {"p/1_mask.png": iio.imwrite("<bytes>", LINE * np.uint16(65535), extension=".png")},
        "p/1_mask.png",
        "expected 8 bits a channel, received 16",
    ),
    "truncated": ({"p/1_mask.png": png(LINE)[:-60]}, "p/1_mask.png", "not a whole image"),
    "outside": ({"p/1_mask.png": np.roll(LINE, 60, axis=1)}, "p/1_mask.png", "more than half lies outside the fan"),
    "polygon of another size": (
        {"p/1.json": labelme("1.png", "bline") | {"imageHeight": 90}},
        "p/1.json",
        r"mask of another size; expected \(96, 128\), received \(90, 128\)",
    ),
    "past the end": (
        {"p/annotations.json": cvat(1), "p/task.json": {"name": "1.png"}},
        "p/annotations.json",
        "frame 1 of p/1.png, which has 1",
    ),
}


@pytest.mark.parametrize("bad, source, words", MASKS.values(), ids=MASKS)
def test_bad_masks_are_named_and_their_frames_have_none(tmp_path, bad, source, words):
    folder = write(tmp_path / "source", **{"p/1.png": FRAME, "p/2.png": FRAME, "p/2_mask.png": 255 * LINE}, **bad)
    _, table, left_out = import_folder(folder, cohort="cap")
    assert table["file"].tolist() == ["p/2.png"]
    reasons = dict(left_out.to_numpy())
    assert reasons.pop("p/1.png") == "no mask" and list(reasons) == [source]
    assert re.search(words, reasons[source]), reasons


def test_one_mask_is_not_enough_for_many_frames(tmp_path):
    folder = write(tmp_path / "source", **{"p/c_mask.png": 255 * LINE})
    write_clip(folder / "p/c.mp4", make_frames(3))
    _, table, left_out = import_folder(folder, cohort="cap")
    assert len(table) == 3 and (table["mask"] == "").all()
    assert left_out.to_numpy().tolist() == [["p/c_mask.png", "one mask for 3 frames; expected an annotation file"]]


def test_two_masks_of_a_frame_are_refused_with_both_names(tmp_path):
    folder = write(tmp_path / "source", **{"p/1.png": FRAME, "p/1_mask.png": 255 * LINE, "p/2.png": FRAME})
    write(folder, **{"p/1.json": labelme("1.png", "bline"), "p/2_mask.png": 255 * LINE})
    _, table, left_out = import_folder(folder, cohort="cap")
    assert table["file"].tolist() == ["p/2.png"]
    reasons = dict(left_out.to_numpy())
    assert reasons["p/1.png"] == "several masks of frame 0: p/1.json and p/1_mask.png; expected one"
    assert reasons["p/1.json"] == reasons["p/1_mask.png"] == "what it marks is left out"


def test_a_recording_that_breaks_off_while_it_is_written_is_left_out_whole(tmp_path, monkeypatch):
    folder = write(tmp_path / "source", **{"a/1.png": FRAME, "b/2.png": FRAME})
    opened = media.open_recording

    def open_recording(path):
        stream, region, spacing = opened(path)
        passes = []

        def cut():
            passes.append(1)
            yield from [FRAME] * 3
            if len(passes) > 1:
                raise LusbookError(f"{path}: gone")
            yield FRAME

        return (cut if "a" in path.parts else stream), region, spacing

    monkeypatch.setattr(imports, "open_recording", open_recording)
    out, table, left_out = import_folder(folder, cohort="cap")
    assert table["file"].tolist() == ["b/2.png"] and left_out.to_numpy().tolist() == [["a/1.png", "gone"]]
    assert len(list((out / "images").iterdir())) == 1


def test_nothing_to_import_is_an_error_that_leaves_nothing(tmp_path):
    folder = write(tmp_path / "source", **{"p/a.txt": b"text", "p/b.png": b"text"})
    with pytest.raises(
        LusbookError, match=r"nothing imported, left out 2 files; p/a\.txt: no image.*; p/b\.png: not a whole"
    ):
        import_folder(folder, cohort="cap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LusbookError, match="empty: nothing imported, no files$"):
        import_folder(tmp_path / "empty", cohort="cap")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "source"]


def test_bad_parameters_are_named(tmp_path):
    folder = write(tmp_path / "source", **{"p/1.png": FRAME})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for changed, words in [
        ({"folder": tmp_path / "none"}, "none: no such folder"),
        ({"out": folder / "out"}, "lies inside"),
        ({"out": folder}, "lies inside"),
        ({"out": tmp_path / "full"}, "full: exists and is not an empty folder"),
        ({"out": tmp_path / "file"}, "file: exists and is not an empty folder"),
        ({"out": tmp_path / "file" / "out"}, "cannot be written"),
        ({"cohort": "flu"}, "cohort 'flu': expected covid or cap"),
        ({"frames": 0}, "frames: expected 1 or more, received 0"),
        ({"patients": tmp_path / "no.csv"}, "no.csv: no such file"),
    ]:
        with pytest.raises(LusbookError, match=words):
            import_folder(**({"folder": folder, "cohort": "cap"} | changed))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "source"]


def test_an_interruption_and_an_empty_folder(tmp_path, monkeypatch):
    folder = write(tmp_path / "source", **{"p/1.png": FRAME})
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(imports, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_folder(folder, tmp_path / "out", cohort="cap")
    assert not list((tmp_path / "out").iterdir())
    import_folder(folder, tmp_path / "out", cohort="cap")
    assert (tmp_path / "out" / "manifest.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_names_that_are_no_text_are_listed(tmp_path):
    folder = write(tmp_path / "source", **{"p/1.png": FRAME})
    try:
        (folder / "p" / "\udcff<b>.txt").write_text("of another encoding")
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    out, _, _ = import_folder(folder, cohort="cap")
    assert "&lt;b&gt;.txt" in (out / "report.html").read_text()
    assert "<b>.txt" in (out / "left_out.csv").read_text()


def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path):
    peaks = []
    for n in (200, 2000):
        write_clip(tmp_path / f"{n}" / "p" / "c.mp4", np.full((n, 48, 48), 90, np.uint8))
        tracemalloc.start()
        _, table, _ = import_folder(tmp_path / f"{n}", cohort="cap", frames=5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(table) == 5
    assert peaks[1] < 1.2 * peaks[0] + 500_000  # 1800 more frames are 12 MB in colour


# ---------------------------------------------------------------------------------------------
# The command


def test_the_command_prints_counts_and_what_comes_next(study, tmp_path):
    (study / "cap" / "notes.txt").write_text("text")
    done = lusbook("import", study, "--out", tmp_path / "my out")
    assert done.returncode == 0, done.stderr
    assert "left out cap/notes.txt: no image, clip, DICOM file or annotation" in done.stderr
    manifest = tmp_path / "my out" / "manifest.csv"
    assert done.stdout.splitlines()[1:] == [
        "cap: patients 3 (frames a fold 2, 1, 1), recordings 4, frames 4, with a mask 4, with B-lines 3",
        "covid: patients 3 (frames a fold 2, 2, 2), recordings 5, frames 6, with a mask 6, with B-lines 5",
        f"next: make chapter NAME=unet PARAMS=\"-p cohorts '{manifest}'\"",
    ]
    done = lusbook("import", study / "covid" / "ann", "--cohort", "covid")
    assert done.returncode == 1 and "nothing imported" in done.stderr and "Traceback" not in done.stderr
