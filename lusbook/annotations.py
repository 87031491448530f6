"""Outlines that people drew in annotation tools, read into one table, and drawn as masks.

Every reader returns one row a shape, in the order of the file: ``file`` (str, the image or clip as the annotation names
it, which may be a path or empty: never open it unchecked), ``frame`` (int, 0 for stills), ``label`` (str), ``points``
(ndarray, shape (n, 2), float, px, x before y, 0 at the outer edge of the first pixel), ``height`` and ``width`` (Int64,
px, <NA> where the file does not say). An image that is listed without any shape has one row with an empty label and no
points: it is taken as looked at. Shapes without an area (polylines, points, tags) are left out; a B-line must have one.

References
----------
Formats: CVAT task backups and "CVAT for images 1.1" and "for video 1.1", docs.cvat.ai; COCO object detection,
cocodataset.org/#format-data; labelme, github.com/wkentaro/labelme.
"""

import re
import reprlib
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from skimage.draw import polygon2mask

from lusbook.errors import LusbookError
from lusbook.formats import (
    CORNERS,
    JOBS,
    Coco,
    Labelme,
    Media,
    Shape,
    Task,
    XmlImage,
    checked,
    parse_json,
    read_bytes,
)

COLUMNS = ("file", "frame", "label", "points", "height", "width")


def is_b_line(label):
    """Whether a label names B-lines: ``bline`` or ``blines`` when all but its letters is left out.

    Parameters
    ----------
    label : str

    Returns
    -------
    b_line : bool

    Examples
    --------
    >>> [is_b_line(label) for label in ("B-lines", "b_line", "A-line", "no B-line")]
    [True, True, False, False]
    """
    return re.sub("[^a-z]", "", label.lower()) in ("bline", "blines")


def draw(polygons, height, width):
    """Draw the union of polygons.

    Parameters
    ----------
    polygons : iterable of ndarray, shape (n, 2)
        px, x before y, 0 at the outer edge of the first pixel.
    height, width : int
        px.

    Returns
    -------
    mask : ndarray, shape (height, width), bool
        Pixels whose centre is inside a polygon.
    """
    mask = np.zeros((height, width), bool)
    for points in polygons:
        if len(points):
            mask |= polygon2mask(mask.shape, points[:, ::-1] - 0.5)  # pixel centres are whole numbers there
    return mask


def read_annotations(path):
    """Read an annotation file of any format but rows of boxes, told apart by content.

    Parameters
    ----------
    path : path

    Returns
    -------
    table : pandas.DataFrame
        See the module.

    Raises
    ------
    LusbookError
        If no reader fits, or as the reader that does.
    """
    if read_bytes(path).lstrip().startswith(b"<") or Path(path).suffix.lower() == ".xml":
        return read_cvat_xml(path)
    content = parse_json(path)
    keys = set(content) if isinstance(content, dict) else set()
    if isinstance(content, list):
        return read_cvat_json(path)
    if {"images", "annotations"} <= keys:
        return read_coco(path)
    if "shapes" in keys:
        return read_labelme(path)
    received = f"the keys {reprlib.repr(sorted(keys))}" if keys else reprlib.repr(content)
    raise LusbookError(f"{path}: expected annotations of CVAT, COCO or labelme, received {received}")


def read_cvat_json(path):
    """Read ``annotations.json`` of a CVAT task backup.

    Frames are those of the clip: a task that starts later or skips frames counts its own. ``task.json`` beside the file
    names the clip; ``data/manifest.jsonl``, where there is one, gives sizes and the names of images.

    Parameters
    ----------
    path : path

    Returns
    -------
    table : pandas.DataFrame
        See the module. Shapes of tracks at their key frames, without those outside the frame.

    Raises
    ------
    LusbookError
        If a file is not as described, naming the place in it.
    """
    path = Path(path)
    jobs = checked(path, JOBS, parse_json(path))
    beside = path.with_name("task.json")
    task = checked(beside, Task, parse_json(beside)) if beside.exists() else Task(name="")
    step = int(task.data.frame_filter.removeprefix("step=") or 1)
    media = _cvat_media(path.parent / "data" / "manifest.jsonl", task.name)
    records = []
    for number, job in enumerate(jobs):
        placed = [(f"{number}.shapes.{k}", shape.label, shape) for k, shape in enumerate(job.shapes)]
        for k, track in enumerate(job.tracks):
            placed += [
                (f"{number}.tracks.{k}.shapes.{i}", track.label, shape)
                for i, shape in enumerate(track.shapes)
                if not shape.outside
            ]
        for place, label, shape in placed:
            points = _outline(f"{path}: {place}", label, shape.type, shape.points, shape.rotation)
            if points is not None:
                file, frame, height, width = media(f"{path}: {place}", task.data.start_frame + step * shape.frame)
                records.append((file, frame, label, points, height, width))
    return _table(records)


def _cvat_media(path, clip):
    """A function that gives file, frame, height and width for a place and the frame of a CVAT task."""
    images, size = [], (None, None)
    for number, line in enumerate(read_bytes(path).splitlines() if path.exists() else [], 1):
        if line.strip():
            entry = checked(f"{path}, line {number}", Media, parse_json(f"{path}, line {number}", line))
            if entry.properties:
                size = tuple(entry.properties.resolution[::-1])
            elif entry.name is not None:
                images.append((entry.name + entry.extension, 0, entry.height, entry.width))

    def find(where, frame):
        if images and frame >= len(images):
            raise LusbookError(f"{where}: frame {frame}: {path} lists {len(images)} images")
        return images[frame] if images else (clip, frame, *size)

    return find


def read_cvat_xml(path):
    """Read "CVAT for images 1.1" or "CVAT for video 1.1".

    Parameters
    ----------
    path : path

    Returns
    -------
    table : pandas.DataFrame
        See the module. Frames of a clip that was annotated as images (``frame_000012``) are rows of the clip.

    Raises
    ------
    LusbookError
        If the file is not as described, naming the place in it.
    """
    try:
        root = defusedxml.ElementTree.fromstring(read_bytes(path))
    except (SyntaxError, ValueError, LookupError, DefusedXmlException) as error:  # encodings, entities
        raise LusbookError(f"{path}: not readable as XML: {str(error)[:200]}") from error
    if root.tag != "annotations":
        raise LusbookError(f"{path}: expected <annotations> of CVAT, received <{root.tag[:80]}>")
    clip = root.findtext("meta//source") or root.findtext("meta/task/name") or ""
    sides = {key: root.findtext(f"meta//original_size/{key}") for key in ("width", "height")}
    size = checked(f"{path}: original_size", Media, {key: side for key, side in sides.items() if side}, strict=False)
    records = []
    for number, image in enumerate(root.iter("image")):
        where = f"{path}: image {number}"
        listed = checked(where, XmlImage, image.attrib, strict=False)
        of_clip = re.fullmatch(r"frame_\d+", listed.name)
        named = (clip, listed.id) if of_clip else (listed.name, 0)
        shapes = [shape[1:] for shape in _xml_shapes(where, image)] or [("", np.empty((0, 2)))]
        records += [(*named, label, points, listed.height, listed.width) for label, points in shapes]
    for number, track in enumerate(root.iter("track")):
        shapes = _xml_shapes(f"{path}: track {number}", track, track.get("label"))
        records += [(clip, frame, label, points, size.height, size.width) for frame, label, points in shapes]
    return _table(records)


def _xml_shapes(where, parent, label=None):
    """Frame, label and points of each shape in an element of CVAT's XML; a track gives the label of its shapes."""
    shapes = []
    for number, element in enumerate(parent):
        place = f"{where}: {element.tag[:80]} {number}"
        if element.tag in ("tag", "attribute"):
            continue
        box = [element.get(key) for key in ("xtl", "ytl", "xbr", "ybr")]
        numbers = box if element.tag == "box" else re.split("[,;]", element.get("points", ""))
        fields = {"label": label, **element.attrib, "type": {"box": "rectangle"}.get(element.tag, element.tag)}
        area = element.tag in ("box", "polygon")
        shape = checked(place, Shape, fields | {"points": numbers if area else []}, strict=False)
        if not shape.outside:
            points = _outline(place, shape.label, shape.type, shape.points, shape.rotation)
            if points is not None:
                shapes.append((shape.frame, shape.label, points))
    return shapes


def read_coco(path):
    """Read polygons of COCO object detection.

    Parameters
    ----------
    path : path

    Returns
    -------
    table : pandas.DataFrame
        See the module. An annotation of several polygons has a row for each.

    Raises
    ------
    LusbookError
        If the file is not as described, or has run-length encodings, naming the place in it.
    """
    coco = checked(path, Coco, parse_json(path))
    images, labels = {image.id: image for image in coco.images}, {entry.id: entry.name for entry in coco.categories}
    if len(images) < len(coco.images) or len(labels) < len(coco.categories):
        raise LusbookError(f"{path}: an id of images or categories is there twice")
    records, seen = [], set()
    for number, entry in enumerate(coco.annotations):
        where = f"{path}: annotations.{number}"
        for kind, key, known in (("image", entry.image_id, images), ("category", entry.category_id, labels)):
            if key not in known:
                raise LusbookError(f"{where}: {kind}_id {reprlib.repr(key)} is not listed")
        image, label = images[entry.image_id], labels[entry.category_id]
        if not entry.segmentation and is_b_line(label):
            raise LusbookError(f"{where}: a B-line without polygon; expected one in segmentation")
        for numbers in entry.segmentation:
            seen.add(entry.image_id)
            points = _outline(where, label, "polygon", numbers)
            records.append((image.file_name, 0, label, points, image.height, image.width))
    bare = [image for image in coco.images if image.id not in seen]
    records += [(image.file_name, 0, "", np.empty((0, 2)), image.height, image.width) for image in bare]
    return _table(records)


def read_labelme(path):
    """Read polygons and rectangles of labelme.

    Parameters
    ----------
    path : path

    Returns
    -------
    table : pandas.DataFrame
        See the module.

    Raises
    ------
    LusbookError
        If the file is not as described, naming the place in it.
    """
    labelme = checked(path, Labelme, parse_json(path))
    image = labelme.imagePath, 0
    size = labelme.imageHeight, labelme.imageWidth
    records = []
    for number, shape in enumerate(labelme.shapes):
        numbers = [number for point in shape.points for number in point]
        points = _outline(f"{path}: shapes.{number}", shape.label, shape.shape_type, numbers)
        if points is not None:
            records.append((*image, shape.label, points, *size))
    return _table(records or [(*image, "", np.empty((0, 2)), *size)])


def read_boxes(path, height, width):
    """Read boxes of four corners: rows of ``class x1 y1 x2 y2 x3 y3 x4 y4``, normalised, as LUS-BALD has them.

    Parameters
    ----------
    path : path
        Text; its stem is taken for that of the image.
    height, width : int
        Of the image, px.

    Returns
    -------
    table : pandas.DataFrame
        See the module. Class 0 is ``b_line``, any other one is kept as it is.

    Raises
    ------
    LusbookError
        If a row is not so, naming it.
    """
    path, records = Path(path), []
    for number, row in enumerate(read_bytes(path).splitlines(), 1):
        if cells := row.split():
            if len(cells) != 9:
                raise LusbookError(
                    f"{path}, line {number}: expected a class and 8 coordinates, received {len(cells)} cells"
                )
            corners = checked(f"{path}, line {number}", CORNERS, cells[1:], strict=False)
            label = "b_line" if cells[0] == b"0" else cells[0].decode("ascii", "replace")
            records.append((path.stem, 0, label, np.reshape(corners, (4, 2)) * [width, height], height, width))
    return _table(records or [(path.stem, 0, "", np.empty((0, 2)), height, width)])


# ---------------------------------------------------------------------------------------------
# What the readers share


def _outline(where, label, kind, numbers, rotation=0.0):
    """Points of a shape, shape (n, 2); None where it has no area and is no B-line."""
    if kind == "rectangle" and len(numbers) == 4:
        x, y = numbers[::2], numbers[1::2]
        points = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]])
        centre, angle = points.mean(axis=0), np.radians(rotation)  # CVAT turns clockwise, about the centre
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return (points - centre) @ turn + centre if rotation else points
    if kind == "polygon" and len(numbers) >= 6 and len(numbers) % 2 == 0:
        return np.reshape(numbers, (-1, 2))
    if kind not in ("rectangle", "polygon") and not is_b_line(label):
        return None
    raise LusbookError(
        f"{where}: {label[:80]!r}: expected a polygon of three or more points or a rectangle of two, "
        f"received {len(numbers)} coordinates of a {kind[:80]}"
    )


def _table(records):
    table = pd.DataFrame(records, columns=COLUMNS)
    return table.astype({"file": "str", "frame": "int64", "label": "str", "height": "Int64", "width": "Int64"})
