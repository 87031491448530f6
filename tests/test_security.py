"""What lusbook reads from strangers cannot run code, leave its folder or take all memory."""

import ast
import inspect
import json
import struct
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image
from pydicom import uid

from lusbook import dicom, intake, manifests, media, store
from lusbook.errors import LusbookError
from lusbook.formats import parse_yaml
from lusbook.settings import PROJECT, make_settings
from tests import fuzz, helpers
from tests.fuzz_targets import TARGETS, seeds

# ---------------------------------------------------------------------------------------------
# The code

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "telnetlib"}
CALLS = {
    *("eval", "exec", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"),
    *("tempfile.mktemp", "pd.read_pickle", "shutil.unpack_archive", "ElementTree.parse", "ElementTree.fromstring"),
}


def unsafe(text):
    """What must not be in a module: line and reason."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((node.lineno, name) for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: getattr(word.value, "value", ...) for word in node.keywords}
            wrong = (
                called in CALLS
                or given.get("allow_pickle", False) is not False
                or given.get("shell", False) is not False
            )
            wrong |= called.endswith("load_model") and given.get("safe_mode") is not True
            wrong |= called.endswith(".extractall") and "filter" not in given
            wrong |= called == "torch.load" and given.get("weights_only") is not True
            if wrong:
                yield node.lineno, called


@pytest.mark.parametrize("folder", ["lusbook", "benchmarks"])
def test_nothing_unpickles_runs_text_or_unpacks_without_a_filter(folder):
    files = sorted((PROJECT / folder).rglob("*.py"))
    found = {f"{path.name}:{line}": what for path in files for line, what in unsafe(path.read_text("utf-8"))}
    assert len(files) > 10 and found == {}
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "from joblib import load", "import os, shelve", "np.load(path, allow_pickle=True)"),
        *("np.load(path, allow_pickle=flag)", "yaml.load(text, yaml.SafeLoader)", "eval(text)", "exec(text)"),
        *("keras.models.load_model(path)", "keras.models.load_model(path, safe_mode=False)", "os.system(command)"),
        *("subprocess.run(command, shell=True)", "tempfile.mktemp()", "tarfile.open(path).extractall(folder)"),
        *("torch.load(path)", "ElementTree.parse(path)", "pd.read_pickle(path)"),
    ],
)
def test_unsafe_code_is_found(text):
    assert list(unsafe(text))


def test_safe_code_is_not():
    text = "model.eval()\nnp.load(a, allow_pickle=False)\nyaml.safe_load(a)\nload_model(a, safe_mode=True)\n"
    assert (
        list(unsafe(text + "subprocess.run(a)\ntar.extractall(a, filter='data')\ndefusedxml.ElementTree.fromstring(a)"))
        == []
    )


# ---------------------------------------------------------------------------------------------
# Names stay in their folder

ESCAPES = {
    "up": "../secret.png",
    "up later": "a/../../secret.png",
    "absolute": "/etc/hostname",
    "Windows": "..\\..\\secret.png",
    "drive": "C:/secret.png",
    "drive, Windows": "C:\\secret.png",
    "share": "//host/share/secret.png",
    "home": "~/secret.png",
    "NUL": "secret.png\0",
    "line": "secret\n.png",
    "long": "x" * 300 + ".png",
}
NAMED = {
    "manifest CSV": "covid-0-0.png",
    "patients CSV": "p1/a.png",
    "CVAT JSON": "clip.mp4",
    "CVAT XML": "clip.mp4",
    "COCO": "a.png",
    "labelme": "../a.png",
    "run folder": "per_image.csv",
    "list of a repository": "LICENSE",
    "files of POCUS": "pocus/a.mp4",
    "folder to import": "b.dcm",
}  # where a name is in a file that another person wrote
OPENED = {"manifest CSV", "run folder"}  # names that are opened, or else refused; others are only compared


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("name", NAMED)
def test_a_name_cannot_leave_its_folder(name, escape):
    written = json.dumps(escape)[1:-1] if TARGETS[name].kind in ("json", "bytes") else escape
    good = seeds(TARGETS[name])[0]
    assert NAMED[name].encode() in good
    found = fuzz.outcome(TARGETS[name], good.replace(NAMED[name].encode(), written.encode()))  # its guard looks on
    assert found in (("refused",) if name in OPENED else ("refused", "result", "known")), found


@pytest.mark.parametrize("escape", list(ESCAPES.values())[:6], ids=list(ESCAPES)[:6])
def test_paths_of_a_download_stay_in_its_folder(escape):
    target = TARGETS["list of a repository"]
    data = seeds(target)[0].replace(b"LICENSE", json.dumps(escape)[1:-1].encode())
    assert fuzz.outcome(target, data) == "refused"


@pytest.mark.parametrize("name", ["covid-0-0.png", "covid-0-0-mask.png"])
def test_images_of_a_manifest_are_not_looked_for_elsewhere(name, tmp_path):
    (tmp_path / "in").mkdir()
    path = helpers.write_manifest(tmp_path / "in", 16, 3, 1)
    (tmp_path / name).write_bytes((tmp_path / "in" / name).read_bytes())
    for escape in (f"../{name}", str(tmp_path / name), f"a/../../{name}"):
        text = path.read_text()
        (tmp_path / "in" / "other.csv").write_text(text.replace(name, escape))
        with pytest.raises(LusbookError, match="expected a path inside"), fuzz.guarded(tmp_path / "in"):
            manifests.read_manifest(tmp_path / "in" / "other.csv", 16)


def test_links_that_lead_out_are_not_followed(tmp_path):
    (tmp_path / "in" / "p1").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(helpers.png(helpers.noise(1, 48)[0]))
    (tmp_path / "in" / "p1" / "a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "p2").symlink_to(tmp_path)
    left_out = []
    with fuzz.guarded(tmp_path / "in"):
        assert intake.find_files((tmp_path / "in").resolve(), left_out) == {}
    assert {row["file"] for row in left_out} == {"p1/a.png", "p2"}


def test_a_manifest_of_a_run_names_files_beside_it_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("")
    for name in ("../secret", str(tmp_path / "secret"), "a/b", "a\0", "..", ".", "", "a\ud800"):
        content = {"code": "0", "data": {"covid": "0"}, "seconds": 1, "files": {name: "0"}}
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(LusbookError, match="names of files in its folder"), fuzz.guarded(tmp_path / "run"):
            store.check_files(tmp_path / "run")


# ---------------------------------------------------------------------------------------------
# Files that are small and say that they are large


def grey_png(width, height):
    def chunk(name, content):
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_png(folder):
    (folder / "a.png").write_bytes(grey_png(60000, 60000))
    return list(media.stream_image(folder / "a.png"))


def huge_tiff(folder):
    Image.new("1", (6000, 6000)).save(folder / "a.tif", compression="group4")
    assert (folder / "a.tif").stat().st_size < 10**5
    return list(media.stream_image(folder / "a.tif"))


def huge_manifest(folder):
    path = helpers.write_manifest(folder, 16, 3, 1)
    (folder / "covid-0-0.png").write_bytes(grey_png(60000, 60000))
    return manifests.read_manifest(path, 16)


def huge_clip(folder):
    Image.new("L", (48, 48)).save(folder / "a.gif")
    data = (folder / "a.gif").read_bytes()
    (folder / "a.gif").write_bytes(data[:6] + struct.pack("<HH", 9000, 9000) + data[10:])
    return media.open_recording(folder / "a.gif")


def huge_dicom(folder):
    return dicom.open_dicom(helpers.write_dicom(folder / "a.dcm", helpers.noise(1, 48), Rows=60000, Columns=60000))


def deflated_dicom(folder):
    path = helpers.write_dicom(folder / "a.dcm", np.zeros((1, 4000, 4000), "u1"), uid.DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10**5
    return dicom.open_dicom(path)


BOMBS = {
    huge_png: "at most 16777216 pixels|bomb",
    huge_tiff: "at most 16777216 pixels|bomb",
    huge_manifest: "covid-0-0.png: corrupt PNG",
    huge_clip: "at most 16777216 pixels, received 9000 x 9000",
    huge_dicom: "at most 16777216 pixels, received 60000 x 60000",
    deflated_dicom: "a deflated file",
}


@pytest.mark.parametrize("read, words", BOMBS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_pictures_that_would_fill_the_memory_are_refused(read, words, tmp_path):
    with pytest.raises(LusbookError, match=words) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def nested(levels=12, each=9):
    """Aliases of lists of aliases: billions of values in a few lines."""
    lines = ["a0: &a0 [1]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * each)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [nested(), "a: &a\n  <<: *a", "[" * 10**4, "- " * 10**4, "a" * 10**6, "!!binary x", "2001-99-99"]
)
def test_yaml_that_grows_is_deep_or_long_is_refused(text, tmp_path):
    with pytest.raises(LusbookError, match="mine.yaml: (not readable as YAML|expected at most)"):
        parse_yaml("mine.yaml", text)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(LusbookError, match="mine.yaml"):
        make_settings(tmp_path / "mine.yaml")


def test_yaml_makes_no_objects(tmp_path):
    text = f"image_size: !!python/object/apply:os.mkdir ['{tmp_path}/made']"
    assert yaml.unsafe_load(text) and (tmp_path / "made").exists()  # it would
    (tmp_path / "made").rmdir()
    with pytest.raises(LusbookError, match="not readable as YAML"):
        parse_yaml("mine.yaml", text)
    assert not (tmp_path / "made").exists()
