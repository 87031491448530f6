"""Finding, downloading, decoding and cropping public clips."""

import hashlib
import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import av
import numpy as np
import pandas as pd
import pytest

from lusbook import sources
from lusbook.errors import LusbookError, MissingData

HEADER = "video_file,Severity Score,A-lines,B-lines,comments\n"


def write_clip(path, frames, **options):
    """Write grey frames, shape (n, height, width), as an mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    return path


def make_fan(height=96, width=128):
    """An annular sector whose apex is above the frame."""
    y, x = np.mgrid[:height, :width]
    radius, angle = np.hypot(y + 30, x - width / 2), np.abs(np.arctan2(x - width / 2, y + 30))
    return (radius > 45) & (radius < 115) & (angle < 0.55)


def make_frames(n=10, black=0, text=True):
    """Speckle in a fan, its left third in shadow below the top, with text and a depth scale outside; black at first."""
    fan = make_fan()
    frames = np.where(fan, np.random.default_rng(0).integers(40, 160, (n, *fan.shape)), 0)
    frames[:, 60:, :50] = np.where(fan[60:, :50], 1, 0)
    if text:
        frames[:, 3:12, 3:6] = frames[:, 3:5, 3:20] = 255
        frames[:, 8::10, -4:] = 255
    frames[:black] = 0
    return frames.astype(np.uint8)


@pytest.fixture
def copy(tmp_path):
    """A copy of COVID-BLUES with three clips, one of them without flags, and flags of one that is absent."""
    for name in ("patient_1_L1", "patient_1_R1_2", "patient_9_L3"):
        write_clip(tmp_path / "lus_videos" / f"{name}.mp4", make_frames(n=5))
    rows = "patient_1_R1_2,2.0,no,yes ,\npatient_1_L1,0.0,yes,no ,fine\npatient_10_L2,3.0,no,yes,\n"
    (tmp_path / "severity.csv").write_text(HEADER + rows)
    return tmp_path


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No copy of this machine's user is found."""
    monkeypatch.delenv(sources.COVID_BLUES, raising=False)
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "cache")


def test_find_takes_folder_its_parent_environment_and_download(tmp_path, monkeypatch):
    with pytest.raises(LusbookError, match="LUSBOOK_COVID_BLUES.*lusbook download covid-blues"):
        sources.find_covid_blues()
    for place in ("cache", "other/covid-blues"):
        (tmp_path / place / "lus_videos").mkdir(parents=True)
        (tmp_path / place / "severity.csv").touch()
    assert sources.find_covid_blues() == tmp_path / "cache"
    other = tmp_path / "other" / "covid-blues"
    assert sources.find_covid_blues(other) == sources.find_covid_blues(other.parent) == other
    monkeypatch.setenv(sources.COVID_BLUES, str(other.parent))
    assert sources.find_covid_blues() == other
    monkeypatch.setenv(sources.COVID_BLUES, str(tmp_path / "gone"))
    with pytest.raises(LusbookError, match="variable LUSBOOK_COVID_BLUES.*gone"):
        sources.find_covid_blues()
    with pytest.raises(LusbookError, match="folder.*nothing-here"):
        sources.find_covid_blues(tmp_path / "nothing-here")


def test_read_joins_flags_to_clips(copy):
    table = sources.read_covid_blues(copy)
    assert table["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]
    assert table["patient"].tolist() == ["blues-1", "blues-1"]
    assert table["zone"].tolist() == ["L1", "R1"]
    assert table["b_lines"].tolist() == [False, True]
    assert table["a_lines"].tolist() == [True, False]
    assert table["severity"].tolist() == [0, 2]
    assert [os.path.basename(path) for path in table["path"]] == ["patient_1_L1.mp4", "patient_1_R1_2.mp4"]
    assert table.attrs == {"unlabelled": ["patient_9_L3"], "absent": ["patient_10_L2"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("patient_1_L1,0.0,yes,maybe,\n", "line 2, B-lines: received 'maybe'"),
        ("patient_1_L1,0.0,yes,,\n", "line 2, B-lines: received nan"),
        ("patient_1_L1,0.0,yes,no,\npatient_1_L2,4.0,yes,no,\n", "line 3, Severity Score: received"),
        ("patient_1_L1,0.0,yes,no,\npatient_1_L1,0.0,yes,no,\n", "line 2, video_file: received 'patient_1_L1'"),
        ("somebody,0.0,yes,no,\n", "line 2, video_file: received 'somebody'"),
        ("patient_7_L1,0.0,yes,no,\n", "no clip of severity.csv"),
    ],
)
def test_read_names_the_bad_row(copy, rows, message):
    (copy / "severity.csv").write_text(HEADER + rows)
    with pytest.raises(LusbookError, match=message):
        sources.read_covid_blues(copy)


@pytest.mark.parametrize(("text", "message"), [("video_file,A-lines\n", "Severity Score"), ("", "not a readable CSV")])
def test_read_names_a_bad_file(copy, text, message):
    (copy / "severity.csv").write_text(text)
    with pytest.raises(LusbookError, match=f"severity.csv.*{message}"):
        sources.read_covid_blues(copy)


def test_clip_is_decoded_without_its_black_start(tmp_path):
    frames = make_frames(n=9, black=2)
    decoded = sources.read_clip(write_clip(tmp_path / "a.mp4", frames))
    assert decoded.shape == (7, 96, 128)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(float) - frames[2:]).mean() < 5  # lossy coding


def test_truncated_clip_says_how_much_was_decoded(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", make_frames(n=40), movflags="faststart").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LusbookError, match=r"b\.mp4.*decoded [1-3]?\d of 40 frames"):
        sources.read_clip(tmp_path / "b.mp4")


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 99, None])
def test_what_is_no_clip_is_named(tmp_path, content):
    path = tmp_path / "c.mp4"
    if content is None:  # the index at the end of the file is lost
        path.write_bytes(write_clip(path, make_frames(n=4)).read_bytes()[:-400])
    else:
        path.write_bytes(content)
    with pytest.raises(LusbookError, match=r"c\.mp4.*decoded 0 of an unknown number of frames"):
        sources.read_clip(path)


def test_damaged_clip_is_refused(tmp_path):
    path = write_clip(tmp_path / "d.mp4", make_frames(n=12))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + len(content) // 3
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(LusbookError, match=r"d\.mp4"):
        sources.read_clip(path)


def test_sound_is_no_clip(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(LusbookError, match=r"sound\.mp4.*no video"):
        sources.read_clip(tmp_path / "sound.mp4")


def test_missing_and_black_clips_are_named(tmp_path):
    with pytest.raises(LusbookError, match=r"gone\.mp4.*No such file"):
        sources.read_clip(tmp_path / "gone.mp4")
    with pytest.raises(LusbookError, match=r"black\.mp4: all 4 frames are black"):
        sources.read_clip(write_clip(tmp_path / "black.mp4", make_frames(n=4, black=4)))


def test_fan_is_found_without_text(tmp_path):
    frames = sources.read_clip(write_clip(tmp_path / "a.mp4", make_frames()))
    found, true = sources.fan_mask(frames), make_fan()
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.93  # the hull fills the arc at the top
    assert not found[3:12, 3:20].any()
    assert not found[:, -4:].any()


def test_fan_that_fills_the_frame_is_all_of_it():
    frames = np.random.default_rng(0).integers(40, 160, (5, 40, 60), dtype=np.uint8)
    assert sources.fan_mask(frames).all()


def test_no_fan_is_an_error():
    frames = np.zeros((3, 96, 128), np.uint8)
    frames[:, 5:12, 5:40] = 255
    with pytest.raises(LusbookError, match="no ultrasound fan"):
        sources.fan_mask(frames)
    with pytest.raises(LusbookError, match="no ultrasound fan"):
        sources.fan_mask(np.zeros((3, 96, 128), np.uint8))


def test_crop_keeps_shape_and_grey_levels_and_drops_text():
    fan = np.zeros((60, 100), bool)
    fan[10:50, 20:100] = True  # twice as wide as high
    frames = np.where(fan, 80, 255).astype(np.uint8)[None].repeat(3, axis=0)
    cropped, cropped_fan = sources.crop_fan(frames, fan, 40)
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
    cropped, _ = sources.crop_fan(stripes, np.ones((128, 128), bool), 32)
    assert np.abs(cropped[0, 4:-4, 4:-4].astype(float) - 100).max() < 10


def test_load_gives_frames_and_fans_of_every_clip(copy):
    clips = sources.load_clips(sources.read_covid_blues(copy), size=32, max_frames=3)
    assert clips.table["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]
    assert clips.table["n_frames"].tolist() == [3, 3]
    assert clips.frames.shape == clips.fans.shape == (6, 32, 32)
    assert clips.clip.tolist() == [0, 0, 0, 1, 1, 1]
    assert clips.fans.dtype == bool


def test_load_names_every_clip_that_it_cannot_read(copy):
    path = copy / "lus_videos" / "patient_1_L1.mp4"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(LusbookError, match=r"1 of 2 clips cannot be read.*patient_1_L1\.mp4.*decoded 0 of"):
        sources.load_clips(sources.read_covid_blues(copy), size=32)
    (copy / "lus_videos" / "patient_1_R1_2.mp4").write_bytes(b"")
    with pytest.raises(LusbookError, match=r"2 of 2 clips.*patient_1_L1\.mp4.*patient_1_R1_2\.mp4"):
        sources.load_clips(sources.read_covid_blues(copy), size=32)


def test_load_takes_first_and_last_frame(tmp_path):
    levels = np.linspace(60, 240, 7).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None], (7, 64, 64))
    table = pd.DataFrame({"clip": ["a"], "path": [str(write_clip(tmp_path / "a.mp4", frames))]})
    clips = sources.load_clips(table, size=16, max_frames=3)
    assert np.abs(clips.frames.mean(axis=(1, 2)) - levels[[0, 3, 6]]).max() < 3
    assert len(sources.load_clips(table, size=16, max_frames=100).frames) == 7


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(copy, tmp_path, monkeypatch):
    """The copy behind a server of this machine, and a registry of its files; yields the address."""
    files = ["severity.csv", "lus_videos/patient_1_L1.mp4", "lus_videos/patient_1_R1_2.mp4"]
    rows = [(f, hashlib.sha256((copy / f).read_bytes()).hexdigest(), (copy / f).stat().st_size) for f in files]
    pd.DataFrame(rows, columns=["file", "sha256", "bytes"]).to_csv(tmp_path / "registry.csv", index=False)
    monkeypatch.setattr(sources, "COVID_BLUES_REGISTRY", tmp_path / "registry.csv")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=copy))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_download_asks_for_the_licence_first(served, tmp_path):
    with pytest.raises(LusbookError, match="(?s)CC BY-NC-ND 4.0.*Wiedemann"):
        sources.download_covid_blues(False, base_url=served)
    assert not (tmp_path / "cache").exists()


def test_download_is_found_and_read(served, tmp_path):
    assert sources.download_covid_blues(True, base_url=served) == tmp_path / "cache"
    assert sources.read_covid_blues()["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]


def test_changed_file_is_refused_by_name_and_the_download_goes_on_later(served, copy, tmp_path):
    path = copy / "lus_videos" / "patient_1_R1_2.mp4"
    published = path.read_bytes()
    path.write_bytes(published + b"x")
    with pytest.raises(LusbookError, match="(?s)patient_1_R1_2.mp4.*hash"):
        sources.download_covid_blues(True, base_url=served)
    assert (tmp_path / "cache" / "lus_videos" / "patient_1_L1.mp4").exists()
    assert not (tmp_path / "cache" / "lus_videos" / "patient_1_R1_2.mp4").exists()
    with pytest.raises(LusbookError, match="not here"):
        sources.find_covid_blues()  # half a download is no copy
    path.write_bytes(published)
    (copy / "lus_videos" / "patient_1_L1.mp4").unlink()  # had already: not asked for again
    sources.download_covid_blues(True, base_url=served)
    assert len(sources.read_covid_blues()) == 2


def test_missing_file_and_unwritable_folder_are_named(served, copy, tmp_path):
    (copy / "lus_videos" / "patient_1_L1.mp4").unlink()
    with pytest.raises(LusbookError, match="patient_1_L1.mp4.*404"):
        sources.download_covid_blues(True, base_url=served)
    (tmp_path / "file").touch()
    with pytest.raises(LusbookError, match="not downloaded to .*file"):
        sources.download_covid_blues(True, tmp_path / "file", base_url=served)


def test_committed_registry_is_the_published_selection():
    registry = pd.read_csv(sources.COVID_BLUES_REGISTRY)
    clips = registry[registry["file"].str.startswith("lus_videos/")]
    assert len(clips) == 255
    assert set(registry["file"]) - set(clips["file"]) == {"LICENSE", "severity.csv"}
    assert registry["file"].is_unique
    assert registry["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert clips["file"].str.fullmatch(rf"lus_videos/{sources._NAME}\.mp4").all()
    assert clips["file"].str.extract(r"patient_(\d+)_")[0].nunique() == 43


REAL = os.environ.get(sources.COVID_BLUES)


@pytest.mark.skipif(not REAL, reason="LUSBOOK_COVID_BLUES does not name a copy of COVID-BLUES")
def test_real_clips_are_read_and_their_fans_found():
    table = sources.read_covid_blues(REAL)
    clips = sources.load_clips(table.iloc[::40], size=64, max_frames=4)
    assert len(clips.table) == len(table.iloc[::40])
    assert (clips.fans.mean(axis=(1, 2)) > 0.35).all()
    assert (clips.frames.mean(axis=(1, 2)) > 5).all()


# ---------------------------------------------------------------------------------------------
# POCUS and CIT


def pocus_folder(folder, **changes):
    """A selection's ``metadata.csv``."""
    rows = [
        ("pocus/b.mp4", "video", "convex", "pocus_2", "CC BY 4.0", "Bea"),
        ("pocus/a.mp4", "video", "convex", "pocus_1", "CC BY-NC 4.0", "Ann"),
        ("pocus/c.png", "image", "convex", "pocus_2", "CC BY 4.0", "Bea"),
        ("pocus/d.mp4", "video", "linear", "pocus_3", "CC BY 4.0", "Cy"),
        ("covid-blues/e.mp4", "video", "convex", "blues_1", "CC BY-NC-ND 4.0", "Dee"),
    ]
    table = pd.DataFrame(rows, columns=["file", "media", "geometry", "group_id", "licence", "attribution"])
    table.assign(**changes).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_pocus_lists_its_convex_clips(tmp_path):
    table = sources.read_pocus(pocus_folder(tmp_path))
    assert table["clip"].tolist() == ["a", "b"] and table["patient"].tolist() == ["pocus_1", "pocus_2"]
    assert table["licence"].tolist() == ["CC BY-NC 4.0", "CC BY 4.0"]
    assert table["path"].tolist() == [str(tmp_path / "pocus" / name) for name in ("a.mp4", "b.mp4")]


def test_pocus_names_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv("LUSBOOK_POCUS", raising=False)
    with pytest.raises(MissingData, match="LUSBOOK_POCUS.*metadata.csv"):
        sources.read_pocus()
    with pytest.raises(LusbookError, match="expected metadata.csv in it"):
        sources.read_pocus(tmp_path)
    with pytest.raises(LusbookError, match="line 2, geometry: received 'phased'"):
        sources.read_pocus(pocus_folder(tmp_path, geometry=["phased", *["convex"] * 4]))


def cit_folder(folder, jobs):
    """One task of CIT."""
    path = folder / "Dataset" / "USG-B-lines" / "task_7" / "annotations.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jobs if isinstance(jobs, str) else json.dumps(jobs))
    return folder


def test_cit_reads_shapes_and_tracks_but_not_what_is_outside(tmp_path):
    def shape(frame, label="bline", **more):
        return {"frame": frame, "label": label, "points": [0, 1, 2, 3, 4, 5], **more}

    track = {"label": "bline", "shapes": [shape(4, "", outside=False), shape(5, "", outside=True)]}
    other = {"label": "lungslidingpresent", "shapes": [shape(6, outside=False)]}
    jobs = [
        {"shapes": [shape(2), shape(3, "lungslidingpresent")], "tracks": []},
        {"shapes": [], "tracks": [track, other]},
    ]
    polygons = sources.read_cit(cit_folder(tmp_path, jobs))
    assert polygons["frame"].tolist() == [2, 4] and set(polygons["task"]) == {"task_7"}
    np.testing.assert_array_equal(polygons["points"][0], [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize(
    "jobs", ["[", '{"a": 1}', [{"shapes": []}], [{"shapes": [{"label": "bline"}], "tracks": []}], [3]]
)
def test_cit_names_the_file_that_is_not_as_described(tmp_path, jobs):
    with pytest.raises(LusbookError, match="task_7/annotations.json: not a list of jobs"):
        sources.read_cit(cit_folder(tmp_path, jobs))


@pytest.mark.skipif("LUSBOOK_CIT" not in os.environ, reason="no CIT polygons here (LUSBOOK_CIT)")
def test_the_real_polygons_are_all_read():
    polygons = sources.read_cit()
    assert len(polygons) == 431 and len(polygons.groupby(["task", "frame"])) == 365
