"""Decoding clips, finding the fan and cutting it out."""

import os

import av
import fans
import numpy as np
import pandas as pd
import pytest

from lusbook import sources, video
from lusbook.errors import LusbookError
from tests.helpers import make_fan, make_frames, write_clip


def test_clip_is_decoded_without_its_black_start(tmp_path):
    frames = make_frames(n=9, black=2)
    decoded = video.read_clip(write_clip(tmp_path / "a.mp4", frames))
    assert decoded.shape == (7, 96, 128)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(float) - frames[2:]).mean() < 5  # lossy coding


def test_truncated_clip_says_how_much_was_decoded(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", make_frames(n=40), movflags="faststart").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LusbookError, match=r"b\.mp4.*decoded [1-3]?\d of 40 frames"):
        video.read_clip(tmp_path / "b.mp4")


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 99, None])
def test_what_is_no_clip_is_named(tmp_path, content):
    path = tmp_path / "c.mp4"
    if content is None:  # the index at the end of the file is lost
        path.write_bytes(write_clip(path, make_frames(n=4)).read_bytes()[:-400])
    else:
        path.write_bytes(content)
    with pytest.raises(LusbookError, match=r"c\.mp4.*decoded 0 of an unknown number of frames"):
        video.read_clip(path)


def test_damaged_clip_is_refused(tmp_path):
    path = write_clip(tmp_path / "d.mp4", make_frames(n=12))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + len(content) // 3
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(LusbookError, match=r"d\.mp4"):
        video.read_clip(path)


def test_sound_is_no_clip(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(LusbookError, match=r"sound\.mp4.*no video"):
        video.read_clip(tmp_path / "sound.mp4")


def test_missing_and_black_clips_are_named(tmp_path):
    with pytest.raises(LusbookError, match=r"gone\.mp4.*No such file"):
        video.read_clip(tmp_path / "gone.mp4")
    with pytest.raises(LusbookError, match=r"black\.mp4: all 4 frames are black"):
        video.read_clip(write_clip(tmp_path / "black.mp4", make_frames(n=4, black=4)))


def test_fan_is_found_without_text(tmp_path):
    frames = video.read_clip(write_clip(tmp_path / "a.mp4", make_frames()))
    found, true = video.fan_mask(frames), make_fan()
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.93  # the hull fills the arc at the top
    assert not found[3:12, 3:20].any()
    assert not found[:, -4:].any()


def test_fan_that_fills_the_frame_is_all_of_it():
    frames = np.random.default_rng(0).integers(40, 160, (5, 40, 60), dtype=np.uint8)
    assert video.fan_mask(frames).all()


def test_no_fan_is_an_error():
    frames = np.zeros((3, 96, 128), np.uint8)
    frames[:, 5:12, 5:40] = 255
    with pytest.raises(LusbookError, match="no ultrasound fan"):
        video.fan_mask(frames)
    with pytest.raises(LusbookError, match="no ultrasound fan"):
        video.fan_mask(np.zeros((3, 96, 128), np.uint8))


def test_crop_keeps_shape_and_grey_levels_and_drops_text():
    fan = np.zeros((60, 100), bool)
    fan[10:50, 20:100] = True  # twice as wide as high
    frames = np.where(fan, 80, 255).astype(np.uint8)[None].repeat(3, axis=0)
    cropped, cropped_fan = video.crop_fan(frames, fan, 40)
    assert cropped.shape == (3, 40, 40)
    assert cropped.dtype == np.uint8
    assert cropped_fan[10:30].all()
    assert not cropped_fan[:10].any()
    assert not cropped_fan[30:].any()
    assert (cropped[:, 11:29] == 80).all()  # nothing of the 255 around the fan bleeds in
    assert (cropped[:, ~cropped_fan] == 0).all()
    assert cropped.max() == 80


def test_crop_smooths_before_it_shrinks():
    stripes = np.zeros((1, 128, 128), np.uint8)
    stripes[:, :, ::2] = 200
    cropped, _ = video.crop_fan(stripes, np.ones((128, 128), bool), 32)
    assert np.abs(cropped[0, 4:-4, 4:-4].astype(float) - 100).max() < 10


def test_load_gives_frames_and_fans_of_every_clip(copy):
    clips = video.load_clips(sources.read_covid_blues(copy), size=32, max_frames=3)
    assert clips.table["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]
    assert clips.table["n_frames"].tolist() == [3, 3]
    assert clips.frames.shape == clips.fans.shape == (6, 32, 32)
    assert clips.clip.tolist() == [0, 0, 0, 1, 1, 1]
    assert clips.fans.dtype == bool


def test_load_names_every_clip_that_it_cannot_read(copy):
    path = copy / "lus_videos" / "patient_1_L1.mp4"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(LusbookError, match=r"1 of 2 clips cannot be read.*patient_1_L1\.mp4.*decoded 0 of"):
        video.load_clips(sources.read_covid_blues(copy), size=32)
    (copy / "lus_videos" / "patient_1_R1_2.mp4").write_bytes(b"")
    with pytest.raises(LusbookError, match=r"2 of 2 clips.*patient_1_L1\.mp4.*patient_1_R1_2\.mp4"):
        video.load_clips(sources.read_covid_blues(copy), size=32)


def test_load_takes_first_and_last_frame(tmp_path):
    levels = np.linspace(60, 240, 7).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None], (7, 64, 64))
    table = pd.DataFrame({"clip": ["a"], "path": [str(write_clip(tmp_path / "a.mp4", frames))]})
    clips = video.load_clips(table, size=16, max_frames=3)
    assert np.abs(clips.frames.mean(axis=(1, 2)) - levels[[0, 3, 6]]).max() < 3
    assert len(video.load_clips(table, size=16, max_frames=100).frames) == 7


def test_streamed_frames_are_those_of_the_clip_and_come_one_by_one(tmp_path):
    path = write_clip(tmp_path / "a.mp4", make_frames(n=9, black=2))
    streamed = list(video.stream_clip(path))
    assert len(streamed) == 9
    np.testing.assert_array_equal(np.stack(streamed[2:]), video.read_clip(path))
    colours = np.stack(list(video.stream_clip(path, colour=True)))
    assert colours.shape == (9, 96, 128, 3)
    assert np.abs(colours - np.stack(streamed)[..., None].astype(int)).max() <= 1
    content = path.read_bytes()
    path.write_bytes(write_clip(path, make_frames(n=40), movflags="faststart").read_bytes()[: len(content)])
    stream = video.stream_clip(path)
    assert next(stream).shape == (96, 128)  # what is whole comes first
    with pytest.raises(LusbookError, match="of 40 frames"):
        list(stream)


def test_frames_of_several_sizes_are_refused(tmp_path, monkeypatch):
    sizes = iter([(96, 128), (96, 128), (80, 128), (96, 100)])

    class Frame:
        is_corrupt = False

        def to_ndarray(self, format):
            return np.full(next(sizes), 90, np.uint8)

    path = write_clip(tmp_path / "a.mp4", make_frames(n=4))
    monkeypatch.setattr(av.container.InputContainer, "decode", lambda *_: [Frame()] * 4, raising=False)
    with pytest.raises(LusbookError, match=r"one size, received \[\(80, 128\), \(96, 100\), \(96, 128\)\]"):
        video.read_clip(path)


REAL = {"COVID-BLUES": (sources.read_covid_blues, sources.COVID_BLUES), "POCUS": (sources.read_pocus, sources.POCUS)}
REAL = {name: (read, os.environ.get(variable)) for name, (read, variable) in REAL.items()}


@pytest.mark.parametrize("name", REAL)
def test_the_fan_of_every_real_clip_is_found_whole_and_holds_no_text(name):
    """Of every clip: a fan; of nearly all: no tissue outside it, and in it no strokes that never change, as of text."""
    read, folder = REAL[name]
    if not folder:
        pytest.skip(f"no environment variable names a copy of {name}")
    found, whole, clean = np.mean([fans.check(video.read_clip(path)) for path in read(folder)["path"]], axis=0)
    assert found == 1 and whole > 0.95 and clean > (0.98 if name == "COVID-BLUES" else 0.85)


def test_the_check_of_fans_sees_lost_tissue_and_text(monkeypatch):
    frames = make_frames(text=False)
    assert fans.check(frames) == (True, True, True)
    written = frames.copy()
    written[:, 70:72, 60:80] = 255
    assert not fans.check(written)[2]
    half = make_fan() & (np.arange(128) < 64)
    monkeypatch.setattr(video, "fan_mask", lambda frames: half)
    assert not fans.check(frames)[1]
