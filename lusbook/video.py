"""Clips: decode them, find the ultrasound fan, cut it out of the frame.

Everything here works in memory; nothing writes a frame to disk.
"""

from dataclasses import dataclass

import av
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.transform import resize
from tqdm.auto import tqdm

from lusbook.errors import LusbookError

BLACK = 1.0  # mean grey level below which a frame is black; some clips open with black frames
LIT = 3  # grey level that speckle in the fan exceeds at some time and coding noise on black does not
REGION = 0.1  # share of the largest lit region from which another one belongs to the fan too
SMALLEST_FAN = 0.1  # share of the frame; what is smaller is no fan


def stream_clip(path, colour=False):
    """Decode a clip frame by frame; memory does not grow with its length.

    Parameters
    ----------
    path : path
        A video file of any format that FFmpeg decodes.
    colour : bool
        Decode to RGB instead of grey levels.

    Yields
    ------
    frame : ndarray, shape (height, width), or (height, width, 3) in colour; uint8
        Every frame, black ones too.

    Raises
    ------
    LusbookError
        If the file is missing, truncated or corrupt (how many frames were decoded), or its frames differ in size;
        that shows only when all frames have been asked for.
    """
    sizes, decoded, announced, damaged, reason = set(), 0, 0, 0, ""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("no video in it")
            stream = container.streams.video[0]
            # Only mp4 and mov keep a count of frames; elsewhere it is a guess or unset.
            announced = stream.frames if "mp4" in container.format.name else 0
            for frame in container.decode(stream):
                pixels = frame.to_ndarray(format="rgb24" if colour else "gray")
                sizes.add(pixels.shape[:2])
                decoded += 1
                damaged += frame.is_corrupt
                if len(sizes) == 1:
                    yield pixels
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason or damaged or not decoded or decoded < announced:
        count = f"decoded {decoded - damaged} of {announced or 'an unknown number of'} frames"
        raise LusbookError(f"{path}: not a whole clip, {count}; truncated or corrupt? {reason}".rstrip())
    if len(sizes) > 1:
        raise LusbookError(f"{path}: expected frames of one size, received {sorted(sizes)}")


def read_clip(path):
    """Decode a clip to grey levels.

    Parameters
    ----------
    path : path
        A video file of any format that FFmpeg decodes.

    Returns
    -------
    frames : ndarray, shape (n, height, width), uint8
        All frames but the black ones at the start.

    Raises
    ------
    LusbookError
        If the file is missing, truncated or corrupt (how many frames were decoded), or all black.
    """
    frames = list(stream_clip(path))
    lit = [frame.mean() >= BLACK for frame in frames]
    if not any(lit):
        raise LusbookError(f"{path}: all {len(frames)} frames are black")
    return np.stack(frames[lit.index(True) :])  # (n, height, width)


def fan_mask(frames):
    """Find the ultrasound fan of a clip.

    A pixel is lit if speckle ever brightens it; the fan is the convex hull of the large lit regions, after an opening
    that cuts off thin things such as text and depth marks. The hull takes in what stays dark in every frame, as in
    the shadows of ribs; a dark corner of the fan may be lost, and text written over the fan stays.

    Parameters
    ----------
    frames : ndarray, shape (n, height, width), uint8

    Returns
    -------
    fan : ndarray, shape (height, width), bool

    Raises
    ------
    LusbookError
        If no region is large enough.
    """
    lit = frames.max(axis=0) > LIT  # (height, width)
    side = max(3, round(min(lit.shape) / 50) | 1)  # odd, in pixels: thicker than strokes of text
    padded = np.pad(lit, side, mode="edge")  # a fan that the frame cuts off goes on beyond it
    opened = ndimage.binary_opening(padded, np.ones((side, side)))[side:-side, side:-side]
    regions, _ = ndimage.label(opened)
    sizes = np.bincount(regions.ravel())[1:]
    if not sizes.size or sizes.max() < SMALLEST_FAN * lit.size:
        share = sizes.max(initial=0) / lit.size
        raise LusbookError(f"no ultrasound fan: the largest lit region covers {share:.1%}, expected {SMALLEST_FAN:.0%}")
    large = np.flatnonzero(sizes > REGION * sizes.max()) + 1  # a deep shadow may part the fan
    return convex_hull_image(np.isin(regions, large))


def crop_fan(frames, fan, size):
    """Cut the fan out of frames: black outside it, centred on a black square, resized.

    Parameters
    ----------
    frames : ndarray, shape (n, height, width), uint8
    fan : ndarray, shape (height, width), bool
    size : int
        Side of the result, in pixels.

    Returns
    -------
    cropped : ndarray, shape (n, size, size), uint8
    cropped_fan : ndarray, shape (size, size), bool
    """
    rows, columns = (slice(*(np.flatnonzero(fan.any(axis=axis))[[0, -1]] + [0, 1])) for axis in (1, 0))
    stack = np.concatenate([np.where(fan, frames, 0), fan[None] * np.uint8(255)])[:, rows, columns]
    missing = max(stack.shape[1:]) - np.array(stack.shape[1:])
    stack = np.pad(stack, [(0, 0), *((m // 2, m - m // 2) for m in missing)])  # (n + 1, side, side)
    small = [resize(image, (size, size), order=1, anti_aliasing=True, preserve_range=True) for image in stack]
    small = np.rint(small).astype(np.uint8)  # (n + 1, size, size)
    cropped_fan = small[-1] > 127
    return np.where(cropped_fan, small[:-1], 0).astype(np.uint8), cropped_fan


@dataclass(frozen=True, eq=False)
class Clips:
    """Frames of many clips, in memory only.

    Parameters
    ----------
    table : pandas.DataFrame
        The clips, as :func:`lusbook.sources.read_covid_blues` lists them, and their ``n_frames`` (int).
    frames : ndarray, shape (n, size, size), uint8
    fans : ndarray, shape (n, size, size), bool
        The fan of each frame; one per clip.
    clip : ndarray, shape (n,), int
        Row of ``table`` that each frame belongs to.
    neighbours : ndarray, shape (n, size, size), uint8
        The frame that follows each in its clip (of the last one, that before it).
    """

    table: pd.DataFrame
    frames: np.ndarray
    fans: np.ndarray
    clip: np.ndarray
    neighbours: np.ndarray


def load_clips(table, size, max_frames=8, cut=crop_fan):
    """Read, crop and thin out clips.

    Parameters
    ----------
    table : pandas.DataFrame
        Clips with their ``path``; see :func:`lusbook.sources.read_covid_blues`.
    size : int
        Side of the frames, in pixels.
    max_frames : int
        Frames kept of each clip, evenly spaced from its first to its last; the fan is found on all.
    cut : callable
        How the fan is cut out: :func:`crop_fan`, or another function of its arguments and results.

    Returns
    -------
    clips : Clips

    Raises
    ------
    LusbookError
        If clips cannot be read, naming all of them: an evaluation that left some out would be another one.
    """
    frames, fans, neighbours, broken = [], [], [], []
    for row in tqdm(table.itertuples(), total=len(table), desc="clips", unit="clip", mininterval=5):
        try:
            clip = read_clip(row.path)
            fan = fan_mask(clip)
        except LusbookError as error:
            broken.append(str(error))
            continue
        kept = np.linspace(0, len(clip) - 1, min(max_frames, len(clip))).round().astype(int)
        next_to = np.where(kept + 1 < len(clip), kept + 1, np.maximum(kept - 1, 0))
        cropped, cropped_fan = cut(clip[np.concatenate([kept, next_to])], fan, size)
        frames.append(cropped[: len(kept)])
        neighbours.append(cropped[len(kept) :])
        fans.append(np.broadcast_to(cropped_fan, frames[-1].shape))
    if broken or not frames:
        listed = "; ".join(broken) or "the table is empty"
        raise LusbookError(f"{len(broken)} of {len(table)} clips cannot be read; replace or remove them: {listed}")
    counts = [len(cropped) for cropped in frames]
    return Clips(
        table=table.reset_index(drop=True).assign(n_frames=counts),
        frames=np.concatenate(frames),
        fans=np.concatenate(fans),
        clip=np.repeat(np.arange(len(counts)), counts),
        neighbours=np.concatenate(neighbours),
    )
