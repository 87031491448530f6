"""Trained networks applied to clips, and adapted to unlabelled ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage
from scipy import ndimage

from lusbook import digests, media, runs, segment, store, video
from lusbook.errors import LusbookError
from lusbook.settings import make_settings
from tests.helpers import make_fan, make_frames, untraced, write_clip, write_manifest

SIZE = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A U-Net and an adaptation at the smoke preset, and the manifest that both come from."""
    place = tmp_path_factory.mktemp("models")
    manifest = write_manifest(place)
    settings = make_settings("smoke", cohorts=str(manifest))
    with untraced():
        unet = runs.run("unet-covid", 0, settings, place / "results")
        return {"unet": unet, "sifa": runs.adapted(manifest, place / "adapted", settings), "manifest": manifest}


@pytest.fixture
def model(models, tmp_path):
    """A copy of the U-Net's folder to spoil."""
    return shutil.copytree(models["unet"], tmp_path / "results" / "smoke" / "unet-covid" / "fold-0")


@pytest.fixture
def bright(monkeypatch, tmp_path):
    """A folder for a model that finds what is bright, whatever was trained."""
    monkeypatch.setattr(segment, "read_model", lambda folder: ("unet", make_settings("smoke", image_size=SIZE)))
    monkeypatch.setattr(segment, "load_network", lambda *_: lambda images: (images > 128).astype("float32"))
    return tmp_path / "model"


def read_masks(out):
    return np.stack([iio.imread(path) for path in sorted((out / "masks").iterdir())])


def square(n=4, black=0):
    """Frames of a dim fan whose upper left is brighter, longer and longer; text outside."""
    fan = make_fan()
    frames = np.where(fan, 60, 0)[None].repeat(n, axis=0)
    for k in range(n):
        frames[k, 40 : 60 + k // 2, 50:70] = 220
    frames[:, 2:9, 2:30] = 255
    frames[:black] = 0
    return frames.astype(np.uint8), fan


def test_masks_are_in_the_frames_own_coordinates(bright, tmp_path):
    frames, _ = square(n=40)  # more than a batch
    clip = write_clip(tmp_path / "a.mp4", frames)
    areas, out = segment.segment(bright, clip, tmp_path / "out")
    masks = read_masks(out)
    assert masks.shape == frames.shape
    assert set(np.unique(masks)) == {0, 255}
    expected = frames == 220
    overlap = 2 * ((masks > 0) & expected).sum(axis=(1, 2)) / ((masks > 0).sum(axis=(1, 2)) + expected.sum(axis=(1, 2)))
    assert overlap.min() > 0.9  # up to the edge pixels of 32 x 32
    rows, columns = np.nonzero(masks[0])
    assert abs(rows.mean() - 49.5) < 1 and abs(columns.mean() - 59.5) < 1
    assert not masks[:, :12, :32].any()  # text
    np.testing.assert_array_equal(areas["b_line_pixels"], (masks > 0).sum(axis=(1, 2)))
    read = pd.read_csv(out / "areas.csv")
    assert list(read) == ["frame", "seconds", "b_line_pixels", "fan_pixels", "share"]
    np.testing.assert_allclose(read["share"], read["b_line_pixels"] / read["fan_pixels"], rtol=1e-5)
    np.testing.assert_allclose(read["seconds"], np.arange(40) / 25)
    assert f"clip score {np.percentile(areas['share'], 75):.4f}" in segment.summary(areas, out)


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (41, 41)])
def test_uncrop_undoes_crop(shape):
    fan = np.zeros((100, 120), bool)
    fan[7 : 7 + shape[0], 13 : 13 + shape[1]] = True
    smooth = np.hypot(*np.mgrid[-50:50, -60:60]).astype(np.uint8)[None]
    small, _ = video.crop_fan(smooth, fan, max(shape))
    placed = segment.uncrop(small[0].astype(float), fan)
    np.testing.assert_array_equal(placed[fan], smooth[0][fan])
    assert not placed[~fan].any()


def test_black_frames_at_the_start_are_counted_but_not_scored(bright, tmp_path, monkeypatch):
    monkeypatch.setattr(
        segment, "load_network", lambda *_: lambda images: np.ones(images.shape)
    )  # finds B-lines everywhere
    frames, _ = square(n=5, black=2)
    areas, out = segment.segment(bright, write_clip(tmp_path / "a.mp4", frames), tmp_path / "out")
    assert areas["b_line_pixels"].tolist()[:2] == [0, 0]
    assert areas["share"].isna().tolist() == [True, True, False, False, False]
    assert not read_masks(out)[:2].any()
    assert "frames 5, with B-lines 3" in segment.summary(areas, out)
    assert "clip score 1.0000" in segment.summary(areas, out)


def test_overlay_is_a_clip_with_an_outline_and_without_text(bright, tmp_path):
    frames, fan = square(n=7)
    _, out = segment.segment(bright, write_clip(tmp_path / "a.mp4", frames), tmp_path / "out")
    overlay = np.stack([*video.stream_clip(out / "overlay.mp4", colour=True)]).astype(int)
    rows, columns = (np.flatnonzero(fan.any(axis=axis)) for axis in (1, 0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert len(overlay) == 7
    assert abs(overlay.shape[1] - height) <= 4 and abs(overlay.shape[2] - width) <= 4
    assert overlay.shape[1] % 2 == overlay.shape[2] % 2 == 0
    amber = (overlay[..., 0] - overlay[..., 2]) > 60
    assert amber[0].sum() > 40
    assert not amber[0, -20:].any()
    assert overlay[:, :4, :4].max() < 40  # a corner outside the fan
    assert segment.frame_rate(out / "overlay.mp4") == 25


def test_a_single_image_gives_one_mask_and_an_image(bright, tmp_path):
    frames, _ = square(n=1)
    iio.imwrite(tmp_path / "still.png", frames[0])
    areas, out = segment.segment(bright, tmp_path / "still.png", tmp_path / "out")
    assert sorted(path.name for path in out.rglob("*.*")) == ["areas.csv", "frame-00000.png", "overlay.png"]
    assert areas["seconds"].tolist() == [0.0]
    assert "overlay.png" in segment.summary(areas, out)


@pytest.mark.parametrize("method", ["unet", "sifa"])
def test_a_trained_network_segments_as_it_was_tested(models, method, tmp_path, monkeypatch):
    """Stored weights in a network that was cleared, looked up at each pixel's place in the small image."""
    from lusbook import trials

    clip = write_clip(tmp_path / "a.mp4", make_frames(n=3))
    decoded = video.read_clip(clip)
    fan = video.fan_mask(decoded)
    settings = segment.read_model(models[method])[1]
    network = trials.unet_network(0.125, 0.5, 0, "float32") if method == "unet" else trials.sifa_network(settings)
    with np.load(models[method] / "weights.npz") as stored:
        trials.reset(network.weights, [stored[key] for key in stored.files])
    small, _ = video.crop_fan(decoded, fan, SIZE)
    probabilities = trials.probabilities(network.routes["direct"], small)
    trials.reset(network.weights, [variable.value * 0 for variable in network.weights])
    threshold = float(np.median(probabilities))  # so little training leaves nothing on either side of 0.5
    settings = settings.model_copy(update={"threshold": threshold})
    monkeypatch.setattr(segment, "read_model", lambda folder: (method, settings))
    _, out = segment.segment(models[method], clip, tmp_path / "out")

    rows, columns = (np.flatnonzero(fan.any(axis=axis)) for axis in (1, 0))
    side = max(len(rows), len(columns))
    place = np.mgrid[: fan.shape[0], : fan.shape[1]] - np.array([rows[0], columns[0]])[:, None, None]
    place += np.array([(side - len(rows)) // 2, (side - len(columns)) // 2])[:, None, None]
    place = (place + 0.5) * SIZE / side - 0.5
    expected = [ndimage.map_coordinates(p, place, order=1, mode="nearest") > threshold for p in probabilities]
    masks = read_masks(out) > 0
    assert (masks == (expected & fan)).mean() > 0.98  # but at the edges
    assert 0.1 < masks[:, fan].mean() < 0.9


def test_memory_does_not_grow_with_the_clip(bright, tmp_path, monkeypatch):
    """Frames alive at a time: those of a batch and the one after it, whatever the length."""
    import weakref

    alive, most = weakref.WeakSet(), []

    class Frame(np.ndarray):
        __hash__ = object.__hash__

    def stream():
        for frame in square(n=300)[0]:
            frame = frame.copy().view(Frame)
            alive.add(frame)
            most.append(len(alive))
            yield frame

    monkeypatch.setattr(media, "open_recording", lambda clip: (stream, (slice(None), slice(None)), None))
    monkeypatch.setattr(segment, "frame_rate", lambda clip: 25)
    (tmp_path / "a.mp4").touch()
    areas, _ = segment.segment(bright, tmp_path / "a.mp4", tmp_path / "out")
    assert len(areas) == 300
    assert max(most) <= 2 * segment.BATCH + 2


@pytest.mark.parametrize(
    ("frame_time", "rate"), [(40, 25), ("33.333", 30), (200, 5), (None, 25), (0, 25), (-5, 25), ("1e-9", 25)]
)
def test_a_dicom_file_says_its_frame_rate(tmp_path, frame_time, rate):
    path = _write_dicom(tmp_path / "exam.dcm", square(n=2)[0], frame_time)
    assert float(segment.frame_rate(path)) == pytest.approx(rate, abs=0.01)


def _write_dicom(path, frames, frame_time, region=None):
    exam = Dataset()
    exam.Modality, exam.PhotometricInterpretation = "US", "MONOCHROME2"
    exam.SOPClassUID, exam.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3"
    exam.NumberOfFrames, exam.Rows, exam.Columns = frames.shape
    exam.BitsAllocated, exam.BitsStored, exam.HighBit, exam.PixelRepresentation, exam.SamplesPerPixel = 8, 8, 7, 0, 1
    exam.PixelData = frames.tobytes()
    if frame_time is not None:
        exam.FrameTime = frame_time
    if region is not None:
        exam.SequenceOfUltrasoundRegions = [region]
    exam.file_meta = FileMetaDataset()
    exam.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    exam.save_as(path, enforce_file_format=True)
    return path


def test_masks_of_a_dicom_file_are_in_the_whole_frame(bright, tmp_path):
    """The file says where the tissue is; outside that region nothing is looked at."""
    frames, fan = square(n=3)
    frames[:, -4:] = 255  # brighter than any threshold, and outside the region
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 12
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 119, 91
    path = _write_dicom(tmp_path / "exam.dcm", frames, 200, region)
    areas, out = segment.segment(bright, path, tmp_path / "out")
    masks = read_masks(out) > 0
    assert masks.shape == frames.shape
    assert not masks[:, 92:].any() and not masks[:, :12].any()
    rows, columns = np.nonzero(masks[0])
    assert abs(rows.mean() - 49.5) < 2 and abs(columns.mean() - 59.5) < 2  # a pixel of 32 is 3.4 here
    assert areas["seconds"].tolist() == [0, 0.2, 0.4]


def test_colour_doppler_and_16_bits_are_refused(bright, tmp_path):
    frame = square(n=1)[0][0]
    iio.imwrite(tmp_path / "deep.png", frame.astype(np.uint16) << 8)
    coloured = frame[..., None].repeat(3, axis=2)
    coloured[50:80, 40:90] = 200, 30, 30
    iio.imwrite(tmp_path / "colour.png", coloured)
    for name, message in [("deep.png", "received 16"), ("colour.png", "colour Doppler")]:
        with pytest.raises(LusbookError, match=rf"{name}.*{message}"):
            segment.segment(bright, tmp_path / name, tmp_path / "out")


def test_missing_weights_say_how_to_train_them(model):
    (model / "weights.npz").unlink()
    with pytest.raises(LusbookError, match=r"weights\.npz: missing; weights are not committed") as error:
        segment.read_model(model)
    command = str(error.value).partition("Train it: ")[2].partition("; then name ")[0]
    assert command.startswith("lusbook run unet-covid --fold 0 --preset smoke --set cohorts=")
    assert command.endswith("manifest.csv --results _build/models")


def test_the_command_for_missing_weights_gives_the_same_settings(model):
    from lusbook.cli import parse_settings

    path = model / "params.json"
    params = json.loads(path.read_text())
    params["settings"] |= {"seed": 3, "unet_iterations": 7, "augment_shift": 1e-5}
    path.write_text(json.dumps(params))
    text = segment._remedy(model, params)
    words = text.partition("Train it: ")[2].partition("; then")[0].split()
    assignments = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    settings = parse_settings(words[words.index("--preset") + 1], assignments)
    assert runs.relevant(settings, "unet") == params["settings"]
    assert f"_build/models/{store.study_name(settings)}/unet-covid/fold-0" in text


def test_missing_weights_of_an_adaptation_say_so(models, tmp_path):
    folder = shutil.copytree(models["sifa"], tmp_path / "mine")
    (folder / "weights.npz").unlink()
    with pytest.raises(LusbookError, match=r"missing; remove .*mine and repeat lusbook adapt"):
        segment.read_model(folder)


def change(model, **params):
    """Change params.json of a run as if it had been trained so."""
    path = model / "params.json"
    stored = json.loads(path.read_text()) | params
    path.write_text(json.dumps(stored))
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"]["params.json"] = digests.short_digest(path.read_bytes())
    (model / "manifest.json").write_text(json.dumps(manifest))
    return stored


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unet_depth": 5}, "not known here: .*unknown setting 'unet_depth'"),
        ({"image_size": 30}, "not known here: .*'image_size'.* received 30"),
        ({"cohorts": 3}, "not known here: cohorts: .* received 3"),
        ({"threshold": None}, None),
    ],
)
def test_unknown_settings_are_refused(model, changed, message):
    settings = json.loads((model / "params.json").read_text())["settings"]
    if message is None:
        del settings["threshold"]
        changed, message = {}, "not known here: threshold is missing"
    change(model, settings=settings | changed)
    with pytest.raises(LusbookError, match=message):
        segment.read_model(model)


@pytest.mark.parametrize(
    "params", [{"experiment": "unet-flu"}, {"experiment": None}, {"experiment": {}}, {"settings": []}]
)
def test_what_is_no_model_is_named(model, params):
    change(model, **params)
    with pytest.raises(LusbookError, match=r"params\.json: expected an experiment of unet-covid, .*, adapt, received"):
        segment.read_model(model)


def test_the_manifest_that_a_model_was_trained_on_is_not_opened(model, tmp_path):
    other = tmp_path / "other.csv"
    other.write_bytes(b"\0")  # settings refuse it where they open it
    settings = json.loads((model / "params.json").read_text())["settings"]
    change(model, settings=settings | {"cohorts": str(other)})
    assert segment.read_model(model)[0] == "unet"


def test_incomplete_and_damaged_models_are_named(model, tmp_path):
    with pytest.raises(LusbookError, match=r"nowhere.params\.json: no such file; expected the folder of a run"):
        segment.read_model(tmp_path / "nowhere")
    loaded = segment.read_model(model)
    whole = (model / "weights.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", b"no archive", whole[:-100], bytes(flipped)):
        (model / "weights.npz").write_bytes(content)
        with pytest.raises(LusbookError, match=r"weights\.npz: damaged"):
            segment.load_network(model, *loaded)
    (model / "manifest.json").unlink()
    with pytest.raises(LusbookError, match="incomplete run"):
        segment.read_model(model)


def test_pickled_weights_are_not_loaded(model):
    np.savez(model / "weights.npz", np.array([{"a": 1}], object))
    with pytest.raises(LusbookError, match=r"weights\.npz: damaged"):
        segment.load_network(model, *segment.read_model(model))


def test_weights_of_another_network_are_refused(model, models):
    wider = make_settings("smoke", unet_width=0.25)
    with pytest.raises(LusbookError, match="of another network; expected .* arrays"):
        segment.load_network(model, "unet", wider)
    shutil.copy(models["sifa"] / "weights.npz", model / "weights.npz")
    with pytest.raises(LusbookError, match="of another network; expected"):
        segment.load_network(model, *segment.read_model(model))
    np.savez(model / "weights.npz")
    with pytest.raises(LusbookError, match="received 0"):
        segment.load_network(model, *segment.read_model(model))


def test_a_folder_that_exists_is_left_alone(bright, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", square()[0])
    (tmp_path / "out").mkdir()
    with pytest.raises(LusbookError, match="out: exists; name a new folder"):
        segment.segment(bright, clip, tmp_path / "out")


def test_what_fails_leaves_nothing(bright, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4", square()[0])

    def fail(*_):
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(iio, "imwrite", fail)
        with pytest.raises(LusbookError, match=r"out: cannot be written \(No space left on device\)"):
            segment.segment(bright, clip, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(segment, "outlined", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            segment.segment(bright, clip, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_clips_are_named(bright, tmp_path):
    whole = write_clip(tmp_path / "a.mp4", make_frames(n=40), movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(tmp_path / "black.mp4", np.zeros((4, 64, 64), np.uint8))
    (tmp_path / "text.mp4").write_bytes(b"no clip" * 99)
    for name, message in [
        ("gone.mp4", "no such file"),
        ("cut.mp4", "decoded .* of 40 frames"),
        ("text.mp4", "decoded 0"),
        ("black.mp4", "all 4 frames are black"),
    ]:
        with pytest.raises(LusbookError, match=rf"{name}.*{message}"):
            segment.segment(bright, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adaptation_refuses_nul_in_a_manifest(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"image,mask,patient,cohort\na\0.png,,p,covid\n")
    with pytest.raises(LusbookError, match=r"manifest\.csv: expected text, received NUL in it"):
        runs.adapted(tmp_path / "manifest.csv", tmp_path / "out", make_settings("smoke"))
    assert not (tmp_path / "out").exists()


def test_an_adaptation_looks_at_no_mask_and_is_found_again(models, tmp_path, monkeypatch):
    table = pd.read_csv(models["manifest"])
    bare = models["manifest"].with_name("bare.csv")
    table.assign(mask="", cohort="cap", patient=table["cohort"] + table["patient"]).to_csv(bare, index=False)
    settings = make_settings("smoke", cohorts=str(models["manifest"]))
    with untraced():
        folder = runs.adapted(bare, tmp_path / "one", settings)
    assert {path.name for path in folder.iterdir()} == {"params.json", "history.csv", "weights.npz", "manifest.json"}
    with np.load(folder / "weights.npz") as one, np.load(models["sifa"] / "weights.npz") as other:
        assert all(np.array_equal(one[key], other[key]) for key in one.files)
    monkeypatch.setattr(segment, "adapt", lambda *_, **__: pytest.fail("trained"))
    assert runs.adapted(bare, tmp_path / "one", settings) == folder
    with pytest.raises(LusbookError, match="holds a run of other settings or data"):
        runs.adapted(models["manifest"], tmp_path / "one", settings)


def test_an_interrupted_adaptation_goes_on(models, tmp_path, monkeypatch, capsys):
    from lusbook import trials

    settings = make_settings("smoke", cohorts=str(models["manifest"]))
    monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch, untraced(), pytest.raises(KeyboardInterrupt):
        patch.setattr(trials, "machine", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        runs.adapted(models["manifest"], tmp_path / "one", settings)
    assert (tmp_path / "one" / "checkpoint-00000002.npz").exists()
    folder = runs.adapted(models["manifest"], tmp_path / "one", settings)
    assert "adapt  goes on from iteration 2/2" in capsys.readouterr().err
    assert not list(folder.glob("*-0*.npz"))
    with np.load(folder / "weights.npz") as one, np.load(models["sifa"] / "weights.npz") as other:
        assert all(np.array_equal(one[key], other[key]) for key in one.files)


def lusbook(*arguments, cwd):
    command = [str(Path(sys.executable).with_name("lusbook")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_the_command_line_from_clip_to_folder(models, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", make_frames(n=6))
    done = lusbook("segment", models["unet"], clip, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not a medical device" in done.stdout and "clip score" in done.stdout
    assert len(list((tmp_path / "a-segmented" / "masks").iterdir())) == 6
    done = lusbook("segment", models["unet"], clip, cwd=tmp_path)
    assert done.returncode == 1 and "a-segmented: exists" in done.stderr
    given = ["--preset", "smoke", "--set", f"cohorts={models['manifest']}"]
    done = lusbook("adapt", models["manifest"], models["sifa"], *given, cwd=tmp_path)
    assert done.stdout.split() == [
        "lusbook",
        "segment",
        str(models["sifa"]),
        "CLIP",
    ]  # it was there: nothing is trained


def test_bad_input_on_the_command_line_is_one_line(models, tmp_path):
    for arguments, message in [
        (["segment", tmp_path, tmp_path / "a.mp4"], "params.json: no such file"),
        (["segment", models["unet"], tmp_path / "gone.mp4"], "gone.mp4"),
        (["adapt", tmp_path / "gone.csv", tmp_path / "out"], "gone.csv: no such file"),
        (["adapt", models["manifest"], tmp_path / "out", "--set", "image_size=30"], "'image_size'"),
    ]:
        done = lusbook(*arguments, cwd=tmp_path)
        assert done.returncode == 1 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
