"""Real masks as cohorts, from clips in the layout of CIT."""

import json

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest

from lusbook import annotations, runs
from lusbook.cit import cit_cohorts, labelled_frames, probe_box
from lusbook.errors import LusbookError, MissingData
from lusbook.loading import load_cohorts
from lusbook.rows import each_part
from lusbook.settings import make_settings
from tests.helpers import cit_task, shape, write_clip

HEIGHT, WIDTH = 144, 256  # of a screen
ROWS, COLUMNS = slice(24, 120), slice(112, 152)  # the probe's image on it


def screen(n=6, text=True):
    """Frames of a linear probe's image, dark at its bottom, on a screen with text; the first one is black."""
    rng = np.random.default_rng(0)
    frames = np.zeros((n, HEIGHT, WIDTH))
    frames[1:, ROWS, COLUMNS] = rng.integers(60, 200, (n - 1, 96, 40))
    frames[1:, 80:120, COLUMNS] = 0
    if text:
        frames[:, 4:6, 4:60] = frames[:, 60:62, 180:250] = 255
        frames[:, 24:120:12, 156:160] = 255
    return frames.astype(np.uint8)


def outline(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


LINES = {1: [outline(120, 40, 126, 118)], 4: [outline(114.5, 36, 119, 100), outline(140, 50, 149, 90)]}


def write_task(folder, number, name, lines=None, frames=None):
    """A task with its clip; returns the folder."""
    shapes = [shape(frame, points=points) for frame, outlines in (lines or LINES).items() for points in outlines]
    cit_task(folder, number, [{"shapes": [*shapes, shape(2, "pleura")], "tracks": []}], name)
    data = folder / "Dataset" / "USG-B-lines" / f"task_{number}" / "data" / "B-lines"
    write_clip(data / f"clip{name[name.rindex('.') :]}", screen() if frames is None else frames)
    return folder


@pytest.fixture
def cit(tmp_path):
    """Clips of two scanners, three patients each."""
    for number in range(3):
        write_task(tmp_path / "cit", number, f"01{number}_image.mp4")
        write_task(tmp_path / "cit", 10 + number, f"{number}c x220722--101032_MSK.AVI")
    return tmp_path / "cit"


def test_cohorts_are_the_labelled_frames_of_two_scanners(cit, tmp_path):
    manifest = cit_cohorts(cit, tmp_path / "out")
    table = pd.read_csv(manifest)
    assert len(table) == 12 and table["cohort"].value_counts().to_dict() == {"covid": 6, "cap": 6}
    assert set(table.loc[table["cohort"] == "cap", "patient"]) == {"cit-0", "cit-1", "cit-2"}
    for row in table.itertuples():
        frame = int(row.image[:-4].rsplit("-", 1)[1])
        image, mask = (iio.imread(manifest.parent / name) for name in (row.image, row.mask))
        drawn = annotations.draw([np.reshape(points, (-1, 2)) for points in LINES[frame]], HEIGHT, WIDTH)
        assert image.shape == mask.shape and drawn.sum() == (mask == 255).sum() and set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(drawn)
        corner = np.argwhere(mask)[0] - np.argwhere(drawn)[0]  # where the cut moved the mask, it moved the image
        np.testing.assert_array_equal(mask[rows + corner[0], columns + corner[1]], 255)
        expected = screen()[frame][rows, columns].astype(int)
        assert np.abs(image[rows + corner[0], columns + corner[1]] - expected).mean() < 12  # the codec is lossy


def test_every_study_takes_the_cohorts(cit, tmp_path):
    settings = make_settings("smoke", cohorts=str(cit_cohorts(cit, tmp_path / "out")), image_size=32)
    cohorts = load_cohorts(settings)
    for cohort in cohorts.values():
        assert len(cohort) == 6 and cohort.masks.any(axis=(1, 2)).all() and len(set(cohort.folds)) == 3


def test_experiments_run_on_the_real_masks(cit, tmp_path, monkeypatch):
    study = runs.study
    monkeypatch.setattr(runs, "study", lambda settings, results: study(settings, ["unet-covid"], results))  # one of 8
    arguments = make_settings("smoke"), tmp_path / "results"
    per_image = pd.concat(each_part(runs.cit_study(*arguments, cit)))
    assert set(per_image["cohort"]) == {"covid", "cap"} and per_image["patient"].nunique() == 6
    assert (per_image.groupby("patient")["fold"].nunique() == 1).all()
    monkeypatch.setenv("LUSBOOK_CIT", str(tmp_path / "gone"))
    pd.testing.assert_frame_equal(pd.concat(each_part(runs.cit_study(*arguments))), per_image)


def test_text_is_cut_off_and_the_dark_end_of_b_lines_is_kept(tmp_path):
    table = pd.DataFrame({"frame": [1], "points": [np.reshape(LINES[1][0], (-1, 2))], "height": HEIGHT, "width": WIDTH})
    path = write_clip(tmp_path / "clip.mp4", screen())
    (number, image, mask), *others = labelled_frames(path, table)
    assert number == 1 and not others and image.shape == mask.shape
    height, width = image.shape
    assert 92 <= height <= 98 and 38 <= width <= 44  # the probe's image is 96 x 40
    assert mask.sum() == 6 * 78


def test_the_box_is_the_lit_region_that_holds_the_b_lines():
    brightest, drawn = np.zeros((2, 100, 160), np.uint8)
    brightest[10:60, 40:80] = brightest[20:90, 100:150] = 90  # the second is larger, but none of its own
    drawn[30:70, 50:55] = 1
    rows, columns = probe_box(brightest, drawn.astype(bool))
    assert (rows, columns) == (slice(10, 70), slice(40, 80))


def test_missing_clips_are_said_before_anything_is_written(cit, tmp_path):
    for clip in cit.rglob("*.AVI"):
        clip.unlink()
    with pytest.raises(MissingData, match="3 of 6 clips.*task_10, task_11, task_12.*lusbook download cit"):
        cit_cohorts(cit, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def sized(folder, width):
    """Say in the task's list how large its frames are."""
    line = json.dumps({"properties": {"resolution": [width, HEIGHT]}})
    (folder / "Dataset" / "USG-B-lines" / "task_0" / "data" / "manifest.jsonl").write_text(line)
    return folder


@pytest.mark.parametrize(
    ("lines", "width", "message"),
    [
        ({6: LINES[1]}, WIDTH, "clip.mp4: has 6 frames, but B-lines are outlined in frame 6"),
        (LINES, 640, r"clip.mp4: expected frames of \[144, 640\] px as annotated, received \[144, 256\]"),
        ({1: [outline(900, 900, 950, 950)]}, WIDTH, "clip.mp4: the B-lines of frame 1 are outside it"),
    ],
)
def test_a_clip_that_does_not_fit_its_annotations_is_named(tmp_path, lines, width, message):
    folder = sized(write_task(tmp_path / "cit", 0, "010_image.mp4", lines), width)
    with pytest.raises(LusbookError, match=message):
        cit_cohorts(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cit"]  # nothing half-written


def test_a_broken_clip_and_a_full_folder_are_named(cit, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(LusbookError, match="full: expected a new or empty folder"):
        cit_cohorts(cit, tmp_path / "full")
    clip = next(cit.rglob("*.mp4"))
    clip.write_bytes(clip.read_bytes()[:2000])
    with pytest.raises(LusbookError, match="clip.mp4: not a whole clip"):
        cit_cohorts(cit, tmp_path / "out")
