"""What annotation files hold, as pydantic models, and reading them so that an error names file and place.

Keys that nobody needs are passed over. Fields are named as the formats, which :mod:`lusbook.annotations` lists, do.
"""

import csv
import io
import reprlib
import warnings
from pathlib import Path
from typing import Annotated

import yaml
from PIL import Image as pillow
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from lusbook.errors import LusbookError

LARGEST = 256 * 2**20  # bytes of a file; labelme's may hold the image too
LONGEST = 2**17  # characters of YAML, whose parser is slow
LONGEST_SIDE = 8192  # px of a picture in a manifest, which is padded to a square of that side
DEEPEST = 20  # levels of YAML; the parser's time grows with their square
OPENING = {"[", "{", "<block sequence start>", "<block mapping start>"}
CLOSING = {"]", "}", "<block end>"}

Frame = Annotated[int, Field(ge=0, le=10**7)]
Side = Annotated[int, Field(ge=1, le=10**5)]  # px
Number = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]  # px; an outline may leave the image
Key = int | str


def _not_run_lengths(value):
    if isinstance(value, dict):
        raise ValueError("run-length encoding; expected polygons")
    return value


class Shape(BaseModel):
    """A shape of CVAT; flat points, x before y."""

    label: str = ""
    type: str = "polygon"
    frame: Frame = 0
    points: list[Number] = []
    outside: bool = False
    rotation: Number = 0.0


class Track(BaseModel):
    """Shapes of one object in the frames of a clip."""

    label: str
    shapes: list[Shape]


class Job(BaseModel):
    """Part of a task's annotations."""

    shapes: list[Shape]
    tracks: list[Track]


class Data(BaseModel):
    """Frames that a task has of its clip."""

    start_frame: Frame = 0
    frame_filter: Annotated[str, Field(pattern=r"^(step=[1-9]\d{0,5})?$")] = ""


class Task(BaseModel):
    """``task.json``; the name is that of the clip, or was given by a person."""

    name: str
    data: Data = Data()


class Properties(BaseModel):
    """Of the clip, in ``manifest.jsonl``."""

    resolution: Annotated[list[Side], Field(min_length=2, max_length=2)]  # width, height


class Media(BaseModel):
    """A line of ``manifest.jsonl``, or the size in an XML."""

    name: str | None = None
    extension: str = ""
    width: Side | None = None
    height: Side | None = None
    properties: Properties | None = None


class Image(BaseModel):
    """An image of COCO."""

    id: Key
    file_name: str
    width: Side | None = None
    height: Side | None = None


class XmlImage(BaseModel):
    """An image, or a frame of a clip, of CVAT's XML."""

    id: Frame = 0
    name: str
    width: Side | None = None
    height: Side | None = None


class Category(BaseModel):
    """A label of COCO."""

    id: Key
    name: str


class Annotation(BaseModel):
    """An object of COCO."""

    image_id: Key
    category_id: Key
    segmentation: Annotated[list[list[Number]], BeforeValidator(_not_run_lengths)] = []


class Coco(BaseModel):
    """A file of COCO."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


class Labelled(BaseModel):
    """A shape of labelme; a rectangle has two points."""

    label: str
    shape_type: str = "polygon"
    points: list[Annotated[list[Number], Field(min_length=2, max_length=2)]]


class Labelme(BaseModel):
    """A file of labelme."""

    imagePath: str
    imageHeight: Side | None = None
    imageWidth: Side | None = None
    shapes: list[Labelled]


JOBS = TypeAdapter(list[Job])
CORNERS = TypeAdapter(list[Annotated[float, Field(ge=0, le=1)]])


def check_manifest(path):
    """Refuse a manifest that no reader of its pictures can use safely, before one looks at it.

    Parameters
    ----------
    path : path
        See :func:`lusbook.manifests.read_manifest`, which checks all else.

    Raises
    ------
    LusbookError
        When it is no CSV, has NUL in it or a column "dask", or names a PNG that announces a side above 8192 px.
    """
    path = Path(path).expanduser()
    content = read_bytes(path)
    if b"\0" in content:  # files have no such names
        raise LusbookError(f"{path}: expected text, received NUL in it")
    try:
        text = io.StringIO(content.decode("utf-8", "replace"), newline="")
        header, *rows = [row for row in csv.reader(text) if any(map(str.strip, row))] or [[]]
    except csv.Error as error:
        raise LusbookError(f"{path}: not readable as CSV ({error})") from error
    header = [name.strip() for name in header]
    if "dask" in header:  # pandera takes the table for one of Dask
        raise LusbookError(f"{path}: expected columns of other names, received 'dask'")
    for row in rows:
        for cell in (cell for name, cell in zip(header, row, strict=False) if name in ("image", "mask") and cell):
            side = longest_side(path.parent / cell.strip()) if is_inside(cell.strip()) else 0
            if side > LONGEST_SIDE:
                expected = f"expected at most {LONGEST_SIDE} px a side, received {side}"
                raise LusbookError(f"{path}: {path.parent / cell}: {expected}")


def is_inside(cell):
    """Whether a path of a manifest stays in its folder, by its name."""
    return not Path(cell).is_absolute() and ".." not in Path(cell).parts


def longest_side(path):
    """The longer side that a PNG announces, px, as Pillow takes it: from the last header, where there are several.

    0 for what is not there or no PNG; whoever reads it says so.
    """
    try:
        with warnings.catch_warnings(action="ignore"), pillow.open(path, formats=("PNG",)) as image:
            return max(image.size)
    except Exception:  # a broken file can raise almost anything
        return 0


def read_bytes(path):
    """Read a file of modest size.

    Parameters
    ----------
    path : path

    Returns
    -------
    content : bytes
        Without the mark of UTF-8.

    Raises
    ------
    LusbookError
        If it is no file, too large, or not readable.
    """
    try:
        if not Path(path).is_file():
            raise LusbookError(f"{path}: no such file")
        if (size := Path(path).stat().st_size) > LARGEST:
            raise LusbookError(f"{path}: expected at most {LARGEST} bytes, received {size}")
        return Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise LusbookError(f"{path}: cannot be read: {error}") from error


def parse_json(where, content=None):
    """Parse JSON.

    Parameters
    ----------
    where : path or str
        The file; where ``content`` is given, a name of it for errors.
    content : bytes, optional

    Returns
    -------
    content : object

    Raises
    ------
    LusbookError
        If it is not JSON.
    """
    try:
        return from_json(read_bytes(where) if content is None else content)
    except ValueError as error:
        raise LusbookError(f"{where}: not readable as JSON: {error}") from error


def parse_yaml(where, content):
    """Parse YAML of plain values.

    Parameters
    ----------
    where : path or str
        Names the content in errors.
    content : str or bytes

    Returns
    -------
    content : object

    Raises
    ------
    LusbookError
        If it is no YAML, or has aliases (``*name``), of which a few lines make billions of values, or many levels.
    """
    if len(content) > LONGEST:
        raise LusbookError(f"{where}: expected at most {LONGEST} characters of YAML, received {len(content)}")
    try:
        depth = 0
        for token in yaml.scan(content, Loader=yaml.SafeLoader):
            depth += token.id in OPENING
            depth -= token.id in CLOSING
            if isinstance(token, yaml.AliasToken) or depth > DEEPEST:
                raise ValueError(f"expected no aliases (*name) and at most {DEEPEST} levels")
        return yaml.safe_load(content)
    except Exception as error:  # a date, a number or a tag that is none can raise almost anything
        raise LusbookError(f"{where}: not readable as YAML: {str(error)[:500]}") from error


def checked(where, form, content, strict=True):
    """Content as a model or type describes it.

    Parameters
    ----------
    where : path or str
        Names the content in errors.
    form : type or pydantic.TypeAdapter
    content : object
    strict : bool
        Whether types are to be as described; without it, text is converted.

    Returns
    -------
    content : object
        Of the form.

    Raises
    ------
    LusbookError
        Naming the first place that is not so.
    """
    adapter = form if isinstance(form, TypeAdapter) else TypeAdapter(form)
    try:
        return adapter.validate_python(content, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"{key}: " if k == len(first["loc"]) - 1 else f"{key}." for k, key in enumerate(first["loc"]))
        raise LusbookError(f"{where}: {place}{first['msg']}, received {reprlib.repr(first['input'])}") from error
