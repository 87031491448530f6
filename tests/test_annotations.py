"""Reading outlines of several tools, refusing what is no annotation, and drawing masks."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lusbook import annotations
from lusbook.annotations import draw, is_b_line, read_annotations, read_boxes
from lusbook.errors import LusbookError
from tests import helpers

TRIANGLE = [0, 1, 2, 3.5, 4, 5]
shape = partial(helpers.shape, points=TRIANGLE)


def write(folder, content, name="annotations.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def job(*shapes, tracks=()):
    return {"version": 6, "tags": [], "shapes": list(shapes), "tracks": list(tracks)}


def found(table, *columns):
    return [tuple(row) for row in table[list(columns)].itertuples(index=False)]


def area(points):
    """The shoelace formula."""
    x, y = np.asarray(points, float).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize("label", ["bline", "B-line", "b_line", "B Lines", "BLINES", "b-line 2"])
def test_b_lines_by_any_spelling(label):
    assert is_b_line(label)


@pytest.mark.parametrize("label", ["", "aline", "lungslidingpresent", "no b-lines", "bliner", "line"])
def test_other_labels_are_no_b_lines(label):
    assert not is_b_line(label)


# ---------------------------------------------------------------------------------------------
# Masks


def test_a_rectangle_covers_the_pixels_between_its_edges():
    mask = draw([np.array([[2, 3], [6, 3], [6, 10], [2, 10]], float)], 12, 9)
    assert mask.shape == (12, 9) and mask.sum() == 4 * 7 and mask[3:10, 2:6].all()


def test_masks_have_the_area_of_their_polygon_wherever_it_is():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        points = rng.uniform(60, 90) * np.c_[np.cos(angles), np.sin(angles)] + rng.uniform(95, 105, 2)
        assert draw([points], 200, 210).sum() == pytest.approx(area(points), rel=0.03)


def test_masks_are_united_not_added_and_cut_at_the_border():
    square = np.array([[-50, -50], [4, -50], [4, 3], [-50, 3]], float)
    other = np.array([[2, 1], [1e5, 1], [1e5, 6], [2, 6]], float)
    mask = draw([square, other], 8, 10)
    expected = np.zeros((8, 10), bool)
    expected[:3, :4] = expected[1:6, 2:] = True
    np.testing.assert_array_equal(mask, expected)
    assert not draw([], 3, 4).any() and not draw([np.empty((0, 2))], 3, 4).any()


def test_a_turned_polygon_is_the_transposed_mask():
    points = np.array([[1, 2], [9, 4], [3, 11]], float)
    np.testing.assert_array_equal(draw([points[:, ::-1]], 12, 14), draw([points], 14, 12).T)


# ---------------------------------------------------------------------------------------------
# CVAT


def test_cvat_has_shapes_and_tracks_but_not_what_is_outside(tmp_path):
    track = {"label": "bline", "shapes": [shape(4, "", outside=False), shape(5, "", outside=True)]}
    other = {"label": "lungslidingpresent", "shapes": [shape(6, "", outside=False)]}
    write(tmp_path, {"name": "007_clip.mp4", "data": {"start_frame": 0, "stop_frame": 9}}, "task.json")
    table = read_annotations(write(tmp_path, [job(shape(2), shape(3, "pleura")), job(tracks=[track, other])]))
    assert found(table, "file", "frame", "label") == [
        ("007_clip.mp4", 2, "bline"),
        ("007_clip.mp4", 3, "pleura"),
        ("007_clip.mp4", 4, "bline"),
        ("007_clip.mp4", 6, "lungslidingpresent"),
    ]
    np.testing.assert_array_equal(table["points"][0], [[0, 1], [2, 3.5], [4, 5]])
    assert list(table) == list(annotations.COLUMNS) and table["height"].isna().all() and table["width"].isna().all()
    assert [str(table[name].dtype) for name in ("frame", "height", "width")] == ["int64", "Int64", "Int64"]


def test_cvat_frames_are_those_of_the_clip_and_its_size_is_read(tmp_path):
    write(tmp_path, {"name": "c.avi", "data": {"start_frame": 10, "frame_filter": "step=3"}}, "task.json")
    lines = ['{"version":"1.1"}', '{"type":"video"}', '{"properties":{"name":"c.avi","resolution":[80,60],"length":9}}']
    write(tmp_path, "\n".join([*lines, '{"number":0,"pts":0}']), "data/manifest.jsonl")
    table = read_annotations(write(tmp_path, [job(shape(0), shape(2))]))
    assert found(table, "file", "frame", "height", "width") == [("c.avi", 10, 60, 80), ("c.avi", 16, 60, 80)]


def test_cvat_images_have_names_of_their_own(tmp_path):
    write(tmp_path, {"name": "my images"}, "task.json")
    lines = ['{"type":"images"}', '{"name":"p1/a","extension":".png","width":8,"height":6}', '{"name":"b.jpg"}']
    write(tmp_path, "\n".join(lines), "data/manifest.jsonl")
    path = write(tmp_path, [job(shape(1), shape(0))])
    assert found(read_annotations(path), "file", "frame") == [("b.jpg", 0), ("p1/a.png", 0)]
    assert read_annotations(path)["width"].tolist()[1] == 8
    write(tmp_path, [job(shape(1), shape(2))])
    with pytest.raises(LusbookError, match="0.shapes.1: frame 2: .*manifest.jsonl lists 2 images"):
        read_annotations(path)


def test_rectangles_are_polygons_and_may_be_turned(tmp_path):
    box = {"type": "rectangle", "points": [10, 20, 16, 24]}
    table = read_annotations(write(tmp_path, [job(shape(0) | box, shape(1, rotation=90.0) | box)]))
    assert area(table["points"][0]) == area(table["points"][1]) == pytest.approx(24)
    np.testing.assert_allclose(table["points"][0], [[10, 20], [16, 20], [16, 24], [10, 24]])
    # a quarter turn, clockwise as seen on the screen: the upper left corner becomes the upper right one
    np.testing.assert_allclose(table["points"][1], [[15, 19], [15, 25], [11, 25], [11, 19]])


def test_lines_of_others_are_left_out_but_a_b_line_needs_an_area(tmp_path):
    line = {"type": "polyline", "points": [1, 2, 3, 4]}
    assert found(read_annotations(write(tmp_path, [job(shape(0, "pleura") | line, shape(1))])), "frame") == [(1,)]
    with pytest.raises(LusbookError, match="0.shapes.0: 'B-line': expected a polygon .* 4 coordinates of a polyline"):
        read_annotations(write(tmp_path, [job(shape(0, "B-line") | line)]))


IMAGES = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
  <image id="0" name="a.png" width="12" height="8">
    <polygon label="b_line" occluded="0" points="0.0,1.0;2.0,3.5;4.0,5.0" z_order="0"><attribute name="x">y</attribute>
    </polygon><box label="b_line" xtl="1" ytl="2" xbr="4" ybr="6"/><polyline label="pleura" points="1,2;3,4"/>
    <tag label="b_line"/></image>
  <image id="1" name="b.png" width="12" height="9"/></annotations>"""
VIDEO = """<annotations><version>1.1</version>
  <meta><task><name>t</name><original_size><width>12</width><height>8</height></original_size></task>
  <source>clip.mp4</source></meta>
  <track id="0" label="bline" source="manual"><polygon frame="7" keyframe="1" outside="0" points="0,1;2,3.5;4,5"/>
  <polygon frame="8" keyframe="1" outside="1" points="0,1;2,3.5;4,5"/></track></annotations>"""


def test_cvat_xml_of_images_and_of_clips(tmp_path):
    table = read_annotations(write(tmp_path, IMAGES, "images.xml"))
    assert found(table, "file", "frame", "label", "height", "width") == [
        ("a.png", 0, "b_line", 8, 12),
        ("a.png", 0, "b_line", 8, 12),
        ("b.png", 0, "", 9, 12),
    ]
    assert [len(points) for points in table["points"]] == [3, 4, 0] and area(table["points"][1]) == 12
    table = read_annotations(write(tmp_path, VIDEO, "clip.xml"))
    assert found(table, "file", "frame", "label", "height", "width") == [("clip.mp4", 7, "bline", 8, 12)]
    np.testing.assert_array_equal(table["points"][0], np.reshape(TRIANGLE, (3, 2)))


def test_frames_of_a_clip_that_was_annotated_as_images(tmp_path):
    clip = IMAGES.replace("</task>", "</task><source>c.mp4</source>").replace(
        'id="0" name="a.png"', 'id="12" name="frame_000012"'
    )
    assert found(read_annotations(write(tmp_path, clip, "a.xml")), "file", "frame")[0] == ("c.mp4", 12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotations>", "<annotation>", "not readable as XML"),
        (
            '<?xml version="1.0" encoding="utf-8"?>',
            '<!DOCTYPE a [<!ENTITY x "y">]>',
            "not readable as XML: Ent",
        ),
        ('encoding="utf-8"', 'encoding="klingon"', "not readable as XML"),
        (";4.0,5.0", "", r"image 0: polygon 0: 'b_line': expected a polygon .* received 4 coordinates"),
        (";4.0,5.0", ";4.0", r"image 0: polygon 0: 'b_line': expected a polygon .* received 5 coordinates"),
        ("2.0,3.5", "2.0,nan", r"image 0: polygon 0: points.3: .*received 'nan'"),
        ('xtl="1"', "", r"image 0: box 1: points.0: .*received None"),
        ('width="12" height="8"', 'width="-12" height="8"', r"image 0: width: .*received '-12'"),
        ('polyline label="pleura"', 'polyline label="b-line"', "image 0: polyline 2: 'b-line': expected a polygon"),
        ('polyline label="pleura"', "polyline", "image 0: polyline 2: label: .* received None"),
    ],
)
def test_cvat_xml_names_the_place(tmp_path, old, new, message):
    assert old in IMAGES
    with pytest.raises(LusbookError, match=f"a.xml: {message}"):
        read_annotations(write(tmp_path, IMAGES.replace(old, new), "a.xml"))


def test_xml_of_another_kind_is_refused(tmp_path):
    with pytest.raises(LusbookError, match="a.svg: expected <annotations> of CVAT, received <svg>"):
        read_annotations(write(tmp_path, "<svg/>", "a.svg"))


# ---------------------------------------------------------------------------------------------
# COCO, labelme, boxes


def coco(**changes):
    entry = {"id": 7, "image_id": 1, "category_id": "b", "segmentation": [TRIANGLE, [0, 0, 4, 0, 4, 4, 0, 4]]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 8}, {"id": 2, "file_name": "d/b.png"}],
        "categories": [{"id": "b", "name": "B-line"}],
        "annotations": [entry | changes],
    }


def test_coco_has_a_row_for_each_polygon_and_image_without(tmp_path):
    table = read_annotations(write(tmp_path, coco()))
    assert found(table, "file", "frame", "label") == [("a.png", 0, "B-line")] * 2 + [("d/b.png", 0, "")]
    assert table["height"].isna().tolist() == [False, False, True] and table["width"][0] == 9
    assert [area(points) for points in table["points"][:2]] == [area(np.reshape(TRIANGLE, (3, 2))), 16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": {"counts": "abc", "size": [8, 9]}}, "annotations.0.segmentation: .*run-length encoding"),
        ({"segmentation": []}, "annotations.0: a B-line without polygon"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotations.0: 'B-line': expected a polygon"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "annotations.0: 'B-line': expected a polygon"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "annotations.0.segmentation.0.5: .*received '6'"),
        ({"image_id": 3}, "annotations.0: image_id 3 is not listed"),
        ({"category_id": 1}, "annotations.0: category_id 1 is not listed"),
        ({"image_id": None}, "annotations.0.image_id.*received None"),
    ],
)
def test_coco_names_the_place(tmp_path, changes, message):
    with pytest.raises(LusbookError, match=f"annotations.json: {message}"):
        read_annotations(write(tmp_path, coco(**changes)))


def test_coco_ids_are_unique(tmp_path):
    twice = coco() | {"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}
    with pytest.raises(LusbookError, match="an id of images or categories is there twice"):
        read_annotations(write(tmp_path, twice))


def labelme(*shapes):
    return {"version": "5.5.0", "imagePath": "..\\a.png", "imageData": None, "shapes": list(shapes), "imageHeight": 8}


def test_labelme_has_polygons_and_rectangles(tmp_path):
    polygon = {"label": "B-line", "shape_type": "polygon", "points": [[0, 1], [2, 3.5], [4, 5]]}
    box = {"label": "B-line", "shape_type": "rectangle", "points": [[6, 5], [1, 2]]}  # from any corner
    circle = {"label": "rib", "shape_type": "circle", "points": [[6, 5], [1, 2]]}
    table = read_annotations(write(tmp_path, labelme(polygon, box, circle), "a.json"))
    assert found(table, "file", "label", "height") == [("..\\a.png", "B-line", 8)] * 2 and table["width"].isna().all()
    np.testing.assert_array_equal(table["points"][0], np.reshape(TRIANGLE, (3, 2)))
    assert area(table["points"][1]) == 15
    assert found(read_annotations(write(tmp_path, labelme())), "file", "label") == [("..\\a.png", "")]
    with pytest.raises(LusbookError, match="shapes.0: 'bline': expected a polygon .* 4 coordinates of a circle"):
        read_annotations(write(tmp_path, labelme(circle | {"label": "bline"})))
    with pytest.raises(LusbookError, match=r"shapes.0.points.1: .*received \[3\]"):
        read_annotations(write(tmp_path, labelme(polygon | {"points": [[1, 2], [3], [4, 5]]})))


def test_boxes_are_scaled_to_the_image(tmp_path):
    path = write(tmp_path, "0 0.1 0.2 0.5 0.2 0.5 1 0.1 1.0\n\n1 0 0 1 0 1 1 0 1\n", "scan 3.txt")
    table = read_boxes(path, height=50, width=80)
    assert found(table, "file", "frame", "label", "height", "width")[0] == ("scan 3", 0, "b_line", 50, 80)
    assert table["label"][1] == "1"
    np.testing.assert_allclose(table["points"][0], [[8, 10], [40, 10], [40, 50], [8, 50]])
    assert found(read_boxes(write(tmp_path, "", "b.txt"), 5, 8), "file", "label") == [("b", "")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.1 0.2 0.3 0.4", "received 5 cells"),
        ("0 0.1 0.2 0.5 0.2 0.5 1 0.1 1.01", "7: .*received b'1.01'"),
        ("0 nan 0.2 0.5 0.2 0.5 1 0.1 1", "0: .*received b'nan'"),
        ("0 a 0.2 0.5 0.2 0.5 1 0.1 1", "0: .*received b'a'"),
    ],
)
def test_boxes_name_the_row(tmp_path, row, message):
    with pytest.raises(LusbookError, match=f"a.txt, line 2: .*{message}"):
        read_boxes(write(tmp_path, f"0 0 0 1 0 1 1 0 1\n{row}\n", "a.txt"), 8, 8)


# ---------------------------------------------------------------------------------------------
# Whatever else people have


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b"[", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON: recursion limit"),
        (b'{"label": "\xff"}', "not readable as JSON: invalid unicode"),
        ("[1]".encode("utf-16"), "not readable as JSON"),
        (b"3", "expected annotations of CVAT, COCO or labelme, received 3"),
        (b'{"a": 1}', r"expected annotations of CVAT, COCO or labelme, received the keys \['a'\]"),
        ([3], "0: .*received 3"),
        ([{"shapes": []}], "0.tracks: Field required"),
        ([job({"label": "bline", "frame": 1})], "0.shapes.0: 'bline': expected a polygon"),
        ([job(shape(-1))], "0.shapes.0.frame: .*received -1"),
        ([job(shape(1.5))], "0.shapes.0.frame: .*received 1.5"),
        ([job(shape(True))], "0.shapes.0.frame: .*received True"),
        ([job(shape(10**400))], "0.shapes.0.frame: .*received 1000"),
        ([job(shape(0, points=[1, 2, 3, 4, 5, 1e300]))], "0.shapes.0.points.5: .*received 1e.300"),
        ([job(shape(0, points=[1, 2, 3, 4, 5, float("nan")]))], "0.shapes.0.points.5: .*received nan"),
        ([job(shape(0, points=[1, 2, 3, 4]))], "0.shapes.0: 'bline': .*received 4 coordinates"),
        ([job(shape(0, points=[1, 2, 3, 4, 5, 6, 7]))], "0.shapes.0: 'bline': .*received 7 coordinates"),
        ([job(shape(0, points="1,2,3"))], "0.shapes.0.points: .*received '1,2,3'"),
        ([job(shape(0, label=None))], "0.shapes.0.label: .*received None"),
        ([job(tracks=[{"shapes": []}])], "0.tracks.0.label: Field required"),
    ],
)
def test_any_other_content_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(LusbookError, match=f"annotations.json: {message}"):
        read_annotations(write(tmp_path, content))


@pytest.mark.parametrize("content", [{}, {"name": 3}, {"name": "a", "data": {"frame_filter": "step=0"}}, []])
def test_a_bad_task_is_named(tmp_path, content):
    write(tmp_path, content, "task.json")
    with pytest.raises(LusbookError, match=r"task\.json: "):
        read_annotations(write(tmp_path, [job(shape(0))]))


@pytest.mark.parametrize("line", ["{", '{"properties": {"resolution": [0, 1]}}', "3"])
def test_a_bad_list_of_images_is_named(tmp_path, line):
    write(tmp_path, '{"type": "video"}\n' + line, "data/manifest.jsonl")
    with pytest.raises(LusbookError, match=r"manifest\.jsonl, line 2: "):
        read_annotations(write(tmp_path, [job(shape(0))]))


def test_what_is_no_file_or_too_large_is_named(tmp_path, monkeypatch):
    with pytest.raises(LusbookError, match="gone.json: no such file"):
        read_annotations(tmp_path / "gone.json")
    with pytest.raises(LusbookError, match="no such file"):
        read_annotations(tmp_path)
    path = write(tmp_path, b"\xef\xbb\xbf" + json.dumps([job(shape(0))]).encode())  # a mark of UTF-8 is none of it
    assert len(read_annotations(path)) == 1
    monkeypatch.setattr("lusbook.formats.LARGEST", 10)
    with pytest.raises(LusbookError, match="annotations.json: expected at most 10 bytes, received"):
        read_annotations(path)


REAL = os.environ.get("LUSBOOK_CIT")


@pytest.mark.skipif(not REAL, reason="LUSBOOK_CIT does not name a copy of CIT's polygons")
def test_the_real_annotations_are_all_read():
    tables = {
        path.parent.name: read_annotations(path)
        for path in sorted(Path(REAL).glob("Dataset/USG-B-lines/task_*/annotations.json"))
    }
    lines = {task: table[table["label"].map(is_b_line)] for task, table in tables.items()}
    assert len(tables) == 30 and sum(map(len, lines.values())) == 431
    assert sum(table["frame"].nunique() for table in lines.values()) == 365
    assert sum(table["frame"].nunique() for table in tables.values()) == 1023
    assert all(table["file"].nunique() == 1 and table["file"].str.len().min() > 5 for table in tables.values())
