"""Finding, downloading, decoding and cropping public clips."""

import hashlib
import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest

from lusbook import sources, video
from lusbook.errors import LusbookError, MissingData
from tests.helpers import HEADER


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
    clips = video.load_clips(table.iloc[::40], size=64, max_frames=4)
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
