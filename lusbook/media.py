"""Images, clips and DICOM files, frame by frame, and where the fan is in one."""

import warnings
from contextlib import contextmanager, suppress
from functools import partial, reduce
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage.color import rgb2gray

from lusbook.dicom import LARGEST, is_dicom, open_dicom, stream_dicom
from lusbook.errors import LusbookError
from lusbook.video import BLACK, fan_mask, stream_clip

KINDS = {
    "image": {".png", ".jpg", ".jpeg", ".tif", ".tiff"},
    "clip": {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".gif"},
    "dicom": {".dcm", ".dicom", ".ima"},
}  # by suffix; other files may be DICOM by content
SMALLEST = 32  # px, of a side
DARK = 64  # grey level that no ground exceeds; a corner of one brighter grey is saturated tissue
BITS_PER_SAMPLE = 258  # tag of TIFF
COLOUR = 64  # difference between channels from which a pixel is coloured; coding noise and tints stay below
COLOURED = 0.01  # share of the fan from which colour in it is colour Doppler


def kind_of(path):
    """Kind of a recording.

    Parameters
    ----------
    path : path

    Returns
    -------
    kind : {"image", "clip", "dicom", ""}
        Empty for what is none.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = next((kind for kind, suffixes in KINDS.items() if suffix in suffixes), "")
    return by_suffix or ("dicom" if is_dicom(path) else "")


def open_recording(path):
    """Find out how to read a recording.

    Parameters
    ----------
    path : path
        An image, a clip or a DICOM file.

    Returns
    -------
    stream : callable
        Without arguments; gives a generator of all frames, (height, width) or (height, width, 3), uint8.
    region : tuple of slice
        Rows and columns of a frame that show tissue, as far as the file says.
    mm_per_pixel : float or None

    Raises
    ------
    LusbookError
        If it is none of these, or a DICOM file that cannot be used.
    """
    kind = kind_of(path)
    if kind == "dicom":
        return partial(stream_dicom, path), *open_dicom(path)
    if not kind:
        raise LusbookError(f"{path}: expected an image, a clip or a DICOM file")
    if kind == "clip":
        _check_size(path)
    stream = partial(stream_clip, path, colour=True) if kind == "clip" else partial(stream_image, path)
    return stream, (slice(None), slice(None)), None


def _check_size(path):
    """Refuse a clip that announces frames too large, before one is decoded."""
    width = height = 0
    with suppress(av.FFmpegError, OSError, ValueError), av.open(str(path)) as container:  # stream_clip says what it is
        for stream in container.streams.video[:1]:
            width, height = getattr(stream, "width", 0), getattr(stream, "height", 0)  # none without a decoder
    if width * height > LARGEST:
        raise LusbookError(f"{path}: expected at most {LARGEST} pixels, received {width} x {height}")


def stream_image(path):
    """Read an image, or the pages of one that has several.

    Parameters
    ----------
    path : path
        PNG, JPEG or TIFF of 8 bits a channel.

    Yields
    ------
    frame : ndarray, shape (height, width), or (height, width, 3) in colour; uint8

    Raises
    ------
    LusbookError
        If the file is truncated or corrupt, has more bits, transparent pixels or pages of several sizes.
    """
    with _whole(path):
        image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
    with image:
        with _whole(path):
            pages = getattr(image, "n_frames", 1)
        size = image.size
        for page in range(pages):
            with _whole(path):
                image.seek(page)
                if image.size != size:
                    raise LusbookError(f"{path}: expected pages of one size, received {sorted({size, image.size})}")
                pixels = _pixels(path, image)
            yield pixels


@contextmanager
def _whole(path):
    """What Pillow raises on a broken file, which may be almost anything, as one error; warnings lead to one or none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except LusbookError:
            raise
        except Exception as error:
            raise LusbookError(f"{path}: not a whole image; truncated or corrupt? {error}") from error


def _pixels(path, image):
    """Pixels of the page that Pillow is at; it would cut 16 bits to 8 without a word."""
    if image.width * image.height > LARGEST:
        raise LusbookError(f"{path}: expected at most {LARGEST} pixels, received {image.width} x {image.height}")
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    else:
        with open(path, "rb") as file:
            bits = file.read(25)[24] if image.format == "PNG" else 8
    if bits > 8 or image.mode[0] in "IF":
        raise LusbookError(f"{path}: expected 8 bits a channel, received {bits}")
    if "A" in image.mode or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise LusbookError(f"{path}: expected an opaque image, received transparent pixels")
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def grey(frame):
    """Grey levels of a frame: its luminance.

    Parameters
    ----------
    frame : ndarray, shape (height, width) or (height, width, 3), uint8

    Returns
    -------
    grey : ndarray, shape (height, width), uint8
    """
    if frame.ndim == 2:
        return frame
    if (frame == frame[..., :1]).all():
        return frame[..., 0]
    return np.rint(rgb2gray(frame) * 255).astype(np.uint8)


def ground_level(brightest):
    """Grey level of the ground that the fan lies on.

    Some programs draw it in a dark grey, which would count as lit: the fan would be the whole frame, text included.

    Parameters
    ----------
    brightest : ndarray, shape (height, width), uint8
        Maximum over all frames.

    Returns
    -------
    level : int
        The lowest level of those corners of the frame that are of one dark grey; 0 if none is.
    """
    side = max(1, min(brightest.shape) // 16)
    ends = (slice(None, side), slice(-side, None))
    levels = []
    for corner in (brightest[rows, columns].astype(int) for rows in ends for columns in ends):
        level = int(np.median(corner))
        if level <= DARK and np.mean(np.abs(corner - level) <= 1) > 0.5:
            levels.append(level)
    return min(levels, default=0)


def find_fan(path, stream, region):
    """Find the fan of a recording, in one pass over its frames.

    Parameters
    ----------
    path : path
        Named in errors.
    stream, region
        As :func:`open_recording` returns them.

    Returns
    -------
    fan : ndarray, shape (height, width), bool
        Of the region.
    lit : range
        Frames from the first that is not black to the last.

    Raises
    ------
    LusbookError
        If there are no frames, all are black, they are too small, have no fan, or colour in it.
    """
    count = first = 0
    brightest, spread = None, np.uint8(0)
    for frame in stream():
        frame, count = frame[region], count + 1
        if min(frame.shape[:2]) < SMALLEST:
            raise LusbookError(f"{path}: expected {SMALLEST} px or more a side, received {frame.shape[:2]}")
        level = grey(frame)
        if brightest is None and level.mean() < BLACK:
            first = count
            continue
        brightest = level if brightest is None else np.maximum(brightest, level)
        if frame.ndim == 3:
            channels = np.moveaxis(frame, -1, 0)  # channel by channel: NumPy is slow along a short last axis
            spread = np.maximum(spread, reduce(np.maximum, channels) - reduce(np.minimum, channels))
    if brightest is None:
        raise LusbookError(f"{path}: {f'all {count} frames are black' if count else 'zero frames'}")
    try:
        fan = fan_mask((brightest - np.minimum(brightest, ground_level(brightest)))[None])
    except LusbookError as error:
        raise LusbookError(f"{path}: {error}") from None
    coloured = np.mean(np.broadcast_to(spread, fan.shape)[fan] > COLOUR)
    if coloured > COLOURED:
        raise LusbookError(
            f"{path}: colour Doppler: {100 * coloured:.0f} % of the fan are coloured; expected B-mode alone"
        )
    return fan, range(first, count)


def bounding_box(fan):
    """Rows and columns that a fan extends over.

    Parameters
    ----------
    fan : ndarray, shape (height, width), bool

    Returns
    -------
    box : tuple of slice

    Examples
    --------
    >>> bounding_box(np.array([[False, False, False], [False, True, True]]))
    (slice(1, 2, None), slice(1, 3, None))
    """
    ends = [np.flatnonzero(fan.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0)]
    return tuple(slice(first, last + 1) for first, last in ends)
