"""On how many real clips the ultrasound fan is found, found whole, and free of text."""

import common
import numpy as np
import typer
from scipy import ndimage
from tqdm import tqdm

from lusbook import sources, video
from lusbook.errors import LusbookError, MissingData

LOST, STROKES = 0.02, 12  # share of the tissue that may lie outside the fan, pixels of text that may lie in it
READERS = {"COVID-BLUES": sources.read_covid_blues, "POCUS": sources.read_pocus}


def check(frames):
    """Whether the fan of a clip is found, holds all tissue, and holds no strokes that never change, as of text.

    Tissue is what is lit in thick regions. Strokes are bright and still; bright layers near the probe are so, too, and
    the upper fifth of the fan is not looked at. Still tissue further down counts as text: the number is a lower bound.
    """
    try:
        fan = video.fan_mask(frames)
    except LusbookError:
        return False, False, False
    side = max(3, round(min(fan.shape) / 50) | 1)
    tissue = ndimage.binary_opening(frames.max(axis=0) > video.LIT, np.ones((side, side)))
    whole = (tissue & ~fan).sum() <= LOST * tissue.sum()
    strokes = (frames.std(axis=0) < 4) & (frames.min(axis=0) > 150) & fan
    top = np.flatnonzero(fan.any(axis=1))[0]
    return True, whole, strokes[top + fan.shape[0] // 5 :].sum() < STROKES


def main(quick: common.Quick = False, out: common.Out = None):
    """Count over all clips of the public sources that are at hand."""
    rows = []
    for name, read in READERS.items():
        try:
            paths = read()["path"].iloc[:: 50 if quick else 1]
        except MissingData as missing:
            common.progress(f"{name} is left out: {missing}")
            continue
        held = np.array([check(video.read_clip(path)) for path in tqdm(paths, desc=name, unit="clip")])  # (clips, 3)
        rows.append(common.quantity(f"{name}, clips", len(held), "clips"))
        for kind, count in zip(("fan found", "all tissue in it", "no text in it"), held.sum(axis=0), strict=True):
            rows.append(common.quantity(f"{name}, {kind}", count, "clips"))
    if rows:
        common.report("fans", rows, out, quick)


if __name__ == "__main__":
    typer.run(main)
