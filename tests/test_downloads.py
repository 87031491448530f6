"""Downloading public sources from a server of this machine."""

import hashlib
import json
import subprocess
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pandas as pd
import pytest

from lusbook import downloads, sources
from lusbook.downloads import SOURCES, blob_id, download
from lusbook.errors import LusbookError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve a folder on this machine, with registries in another; returns the server's address."""
    (tmp_path / "registries").mkdir()
    monkeypatch.setattr(downloads, "REGISTRIES", tmp_path / "registries")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    servers = []

    def start(folder, name, registry):
        registry.to_csv(tmp_path / "registries" / f"{name}.csv", index=False)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)))
        Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def registry(folder, files):
    rows = [(f, hashlib.sha256((folder / f).read_bytes()).hexdigest(), (folder / f).stat().st_size) for f in files]
    return pd.DataFrame(rows, columns=["file", "sha256", "bytes"])


# ---------------------------------------------------------------------------------------------
# COVID-BLUES: every file has a SHA-256


@pytest.fixture
def served(copy, serve):
    files = ["severity.csv", "lus_videos/patient_1_L1.mp4", "lus_videos/patient_1_R1_2.mp4"]
    return serve(copy, "covid-blues", registry(copy, files))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("covid-blues", "CC BY-NC-ND 4.0.*do not share extracted.*Cite:.*Wiedemann.*JBHI.2025.3543686"),
        ("pocus", "licence\nof its own.*CC BY-NC-SA 4.0.*Cite:.*Born.*app11020672"),
        ("cit", "MIT.*Cite:.*PeerJ"),
    ],
)
def test_licence_and_citation_come_before_the_first_byte(name, words, tmp_path):
    with pytest.raises(LusbookError, match=f"(?s)nothing downloaded.*{name}, https://.*{words}"):
        download(name, False, base_url="http://127.0.0.1:9/", tree_url="http://127.0.0.1:9/")
    assert not (tmp_path / "cache").exists()


def test_an_unknown_source_is_told_the_known_ones():
    with pytest.raises(LusbookError, match="source 'covid_blues' is not known; expected covid-blues, pocus, cit"):
        download("covid_blues", True)


def test_a_download_is_found_and_read(served, tmp_path):
    assert download("covid-blues", True, base_url=served) == tmp_path / "cache" / "covid-blues"
    assert sources.read_covid_blues()["clip"].tolist() == ["patient_1_L1", "patient_1_R1_2"]


def test_a_changed_file_is_refused_by_name_and_the_download_goes_on_later(served, copy, tmp_path):
    path, cache = copy / "lus_videos" / "patient_1_R1_2.mp4", tmp_path / "cache" / "covid-blues"
    published = path.read_bytes()
    path.write_bytes(published + b"x")
    with pytest.raises(LusbookError, match="(?s)patient_1_R1_2.mp4.*hash"):
        download("covid-blues", True, base_url=served)
    assert (cache / "lus_videos" / "patient_1_L1.mp4").exists()
    assert not (cache / "lus_videos" / "patient_1_R1_2.mp4").exists()
    with pytest.raises(LusbookError, match="not here"):
        sources.find_covid_blues()  # half a download is no copy
    path.write_bytes(published)
    (copy / "lus_videos" / "patient_1_L1.mp4").unlink()  # had already: not asked for again
    download("covid-blues", True, base_url=served)
    assert len(sources.read_covid_blues()) == 2


def test_a_file_that_changed_here_is_fetched_anew(served, copy, tmp_path):
    folder = download("covid-blues", True, tmp_path / "mine", base_url=served)
    damaged = folder / "lus_videos" / "patient_1_L1.mp4"
    damaged.write_bytes(b"half")
    download("covid-blues", True, folder, base_url=served)
    assert damaged.read_bytes() == (copy / "lus_videos" / "patient_1_L1.mp4").read_bytes()


def test_a_missing_file_and_an_unwritable_folder_are_named(served, copy, tmp_path):
    (copy / "lus_videos" / "patient_1_L1.mp4").unlink()
    with pytest.raises(LusbookError, match="patient_1_L1.mp4.*404"):
        download("covid-blues", True, base_url=served)
    (tmp_path / "file").touch()
    with pytest.raises(LusbookError, match="not downloaded to .*file"):
        download("covid-blues", True, tmp_path / "file", base_url=served)


def test_a_server_that_is_away_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(LusbookError, match="http://127.0.0.1:9/LICENSE: not downloaded to"):
        download("covid-blues", True, base_url="http://127.0.0.1:9/")


# ---------------------------------------------------------------------------------------------
# POCUS: files lie elsewhere in the source; the registry is what a reader needs


def test_pocus_is_put_where_its_reader_looks(serve, tmp_path):
    name = "data/pocus_videos/convex/Cov-Atlas-+(43).gif"
    source = tmp_path / "source" / name
    source.parent.mkdir(parents=True)
    source.write_bytes(b"a clip")
    facts = registry(tmp_path / "source", [name]).assign(
        file="pocus/videos/convex/Cov-Atlas-+(43).gif", source_path=name, media="video", geometry="convex"
    )
    facts = facts.assign(group_id="pocus_1", licence="CC BY 4.0", attribution="Ann", condition="covid19", b_lines="no")
    url = serve(tmp_path / "source", "pocus", facts)
    folder = download("pocus", True, base_url=url)
    table = sources.read_pocus()
    assert table["path"].tolist() == [str(folder / "pocus" / "videos" / "convex" / "Cov-Atlas-+(43).gif")]
    assert open(table["path"][0], "rb").read() == b"a clip"
    (folder / "metadata.csv").unlink()  # comes last: without it this is half a download
    with pytest.raises(LusbookError, match="lusbook download pocus"):
        sources.read_pocus()


# ---------------------------------------------------------------------------------------------
# CIT: clips are checked by the repository's own list


TASK = "Dataset/USG-B-lines/task_7/"
CLIP, LIST = TASK + "data/B-lines/8c x220722--1_MSK.AVI", TASK + "data/manifest.jsonl"


@pytest.fixture
def cit(serve, tmp_path, monkeypatch):
    """A repository; returns it, its address, and a function that writes its list."""
    source = tmp_path / "source"
    files = {
        "LICENSE": b"MIT",
        TASK + "annotations.json": b"[]",
        CLIP: b"a clip" * 99,
        TASK + "data/manifest.jsonl": b"",
    }
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "README.md").write_text("not of interest")
    monkeypatch.setitem(SOURCES, "cit", replace(SOURCES["cit"], repository="o/r", commit="c" * 40))

    def entry(name, **changes):
        path = source / name
        return {
            "path": name,
            "type": "blob",
            "mode": "100644",
            "sha": blob_id(path),
            "size": len(path.read_bytes()),
        } | changes

    def write_list(*changed, truncated=False):
        entries = [entry(name) for name in [*files, "README.md"] if name not in {c["path"] for c in changed}]
        tree = {"sha": "c" * 40, "tree": [*entries, *changed, entry("LICENSE", path="Dataset", type="tree")]}
        (source / "list.json").write_text(json.dumps(tree | {"truncated": truncated}))

    write_list()
    url = serve(source, "cit", registry(source, ["LICENSE", TASK + "annotations.json"]))
    return source, {"base_url": url, "tree_url": url + "list.json"}, write_list


def test_cit_takes_clips_of_the_list_and_the_licence_last(cit, tmp_path):
    source, urls, _ = cit
    folder = download("cit", True, **urls)
    got = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert got == {
        n: (source / n).read_bytes() for n in ("LICENSE", TASK + "annotations.json", CLIP, TASK + "data/manifest.jsonl")
    }
    (source / CLIP).unlink()  # had already: not asked for again
    (folder / CLIP).touch()
    download("cit", True, **urls)


def test_a_clip_that_is_not_the_listed_one_is_refused_and_replaced_later(cit):
    source, urls, _ = cit
    published = (source / CLIP).read_bytes()
    (source / CLIP).write_bytes(published[:-1] + b"?")
    with pytest.raises(LusbookError, match="8c%20x220722--1_MSK.AVI: not downloaded.*git id.*" + git_id(published)):
        download("cit", True, **urls)
    folder = downloads.cache_folder("cit")
    assert not (folder / CLIP).exists() and not (folder / "LICENSE").exists()
    with pytest.raises(LusbookError, match="lusbook download cit"):
        sources.read_cit()
    (source / CLIP).write_bytes(published)
    (folder / CLIP).write_bytes(b"half a cl")  # of an earlier, broken download
    download("cit", True, **urls)
    assert (folder / CLIP).read_bytes() == published and len(sources.read_cit()[0]) == 1


def git_id(content):
    return hashlib.sha1(b"blob " + str(len(content)).encode() + b"\0" + content).hexdigest()


def test_git_ids_are_those_of_git(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
    path.write_bytes(bytes(range(256)) * 9)
    assert blob_id(path) == subprocess.run(["git", "hash-object", path], capture_output=True, text=True).stdout.strip()


def test_a_pointer_in_place_of_a_clip_is_refused(cit):
    source, urls, write_list = cit
    (source / CLIP).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    write_list()
    with pytest.raises(LusbookError, match="AVI: not downloaded.*pointer of Git LFS"):
        download("cit", True, **urls)
    assert not (downloads.cache_folder("cit") / CLIP).exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": CLIP, "type": "blob", "sha": "x", "size": 1}, r"tree\.\d+\.sha: .*received 'x'"),
        (
            {"path": "../../x.AVI", "type": "blob", "sha": "0" * 40, "size": 1},
            "'../../x.AVI': expected paths in the repo",
        ),
        (
            {"path": TASK + "data/../../../x.avi", "type": "blob", "sha": "0" * 40, "size": 1},
            "expected paths in the repo",
        ),
        ({"path": "/x.avi", "type": "blob", "sha": "0" * 40, "size": 1}, "expected paths in the repository"),
        ({"path": TASK + "data/a.mp4", "type": "blob", "sha": "0" * 40, "size": -1}, "size: .*received -1"),
        ({"type": "blob"}, "path: Field required"),
    ],
)
def test_a_bad_list_is_refused(cit, changed, message, tmp_path):
    source, urls, write_list = cit
    write_list({"path": "nameless"} | changed)
    listed = (source / "list.json").read_text().replace('"path": "nameless"', '"mode": "0"')
    (source / "list.json").write_text(listed)
    with pytest.raises(LusbookError, match=f"list.json: .*{message}"):
        download("cit", True, **urls)
    assert not downloads.cache_folder("cit").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "Input should be"),
        ('{"message": "API rate limit exceeded"}', "Field required"),
    ],
)
def test_another_answer_than_a_list_is_refused(cit, content, message):
    (cit[0] / "list.json").write_text(content)
    with pytest.raises(LusbookError, match=f"list.json: .*{message}"):
        download("cit", True, **cit[1])


def test_a_list_that_is_cut_short_away_or_without_clips_is_refused(cit):
    source, urls, write_list = cit
    write_list(truncated=True)
    with pytest.raises(LusbookError, match="list.json: the list of files is cut short"):
        download("cit", True, **urls)
    (source / "list.json").write_text('{"tree": [], "truncated": false}')
    with pytest.raises(LusbookError, match="list.json: no file is listed like"):
        download("cit", True, **urls)
    (source / "list.json").unlink()
    with pytest.raises(LusbookError, match="list.json: the list of files cannot be had: 404"):
        download("cit", True, **urls)


# ---------------------------------------------------------------------------------------------
# What is committed


def test_committed_registries_are_whole():
    counts = {"covid-blues": 257, "pocus": 86, "cit": 61}
    assert set(counts) == set(SOURCES)
    for name, source in SOURCES.items():
        files = pd.read_csv(downloads.REGISTRIES / f"{name}.csv")
        assert len(files) == counts[name] and files["file"].is_unique
        assert files["sha256"].str.fullmatch("[0-9a-f]{64}").all() and (files["bytes"] > 0).all()
        assert not files["file"].str.contains(r"\.\.|^/|\\").any()
        assert len(source.commit) == 40 and (source.last in set(files["file"]) or source.last == "metadata.csv")


def test_committed_registry_of_covid_blues_has_43_patients():
    files = pd.read_csv(downloads.REGISTRIES / "covid-blues.csv")
    clips = files[files["file"].str.startswith("lus_videos/")]
    assert len(clips) == 255 and set(files["file"]) - set(clips["file"]) == {"LICENSE", "severity.csv"}
    assert clips["file"].str.fullmatch(rf"lus_videos/{sources.NAME}\.mp4").all()
    numbers = clips["file"].str.extract(r"patient_(\d+)_")[0].unique()
    assert set(pd.read_csv(downloads.REGISTRIES / "covid-blues-patients.csv")["patient"]) == {
        f"blues-{n}" for n in numbers
    }
    assert len(numbers) == 43


def test_committed_facts_of_pocus_are_under_creative_commons_and_hold_no_severity():
    files = pd.read_csv(downloads.REGISTRIES / "pocus.csv")
    assert files["licence"].str.fullmatch(r"CC BY(-NC|-NC-SA)? [234]\.0").all()
    assert files["attribution"].str.contains("Born et al. 2021").all() and files["group_id"].nunique() == 36
    assert not {"severity", "severity_scheme"} & set(files)
    assert files["git_blob_sha1"].str.fullmatch("[0-9a-f]{40}").all()


def test_committed_registry_of_cit_has_30_tasks():
    files = pd.read_csv(downloads.REGISTRIES / "cit.csv")["file"]
    tasks = files[files != "LICENSE"].str.extract(r"^Dataset/USG-B-lines/(task_\d+)/(annotations|task)\.json$")
    assert tasks.notna().all().all() and tasks[0].nunique() == 30
