"""Images, clips and DICOM files frame by frame, and their fans."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2gray

from lusbook.errors import LusbookError
from lusbook.media import find_fan, grey, ground_level, kind_of, open_recording, stream_image
from lusbook.video import fan_mask, stream_clip
from tests.helpers import make_fan, make_frames, noise, write_clip, write_dicom

WHOLE = slice(None), slice(None)
IMAGE = noise(1, 48)[0, :40]  # (40, 48)
COLOURS = np.stack([IMAGE, IMAGE // 2, 255 - IMAGE], axis=-1)


def save(path, pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("pixels", [IMAGE, COLOURS], ids=["grey", "colour"])
def test_images_are_read_as_they_are(tmp_path, name, pixels):
    (read,) = stream_image(save(tmp_path / name, pixels))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_other_modes_become_grey_or_colour(tmp_path):
    (jpeg,) = stream_image(save(tmp_path / "a.jpg", noise(1, 48, blur=(4, 4))[0], quality=95))
    assert np.abs(jpeg - noise(1, 48, blur=(4, 4))[0].astype(int)).max() < 8
    (binary,) = stream_image(save(tmp_path / "b.png", IMAGE > 100))
    np.testing.assert_array_equal(binary, 255 * (IMAGE > 100))
    (palette,) = stream_image(save(tmp_path / "p.png", COLOURS // 64 * 64, mode="P"))
    assert palette.shape == COLOURS.shape
    opaque = np.dstack([COLOURS, np.full_like(IMAGE, 255)])
    np.testing.assert_array_equal(*stream_image(save(tmp_path / "o.png", opaque)), COLOURS)


def test_pages_are_frames(tmp_path):
    pages = [Image.fromarray(frame) for frame in noise(3, 40)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(np.stack(list(stream_image(tmp_path / "a.tif"))), noise(3, 40))


def sixteen_bits_of_colour(path):
    """A PNG of 16 bits a channel, which Pillow cannot write: grey of 16 bits, its header then says colour."""
    save(path, np.zeros((8, 8), np.uint16))
    content = bytearray(path.read_bytes())
    content[25] = 2
    path.write_bytes(content)


BAD = {
    "16 bits": (lambda path: save(path, IMAGE.astype(np.uint16) * 257), "a.png", "8 bits a channel, received 16"),
    "16 bits of TIFF": (lambda path: save(path, IMAGE.astype(np.uint16)), "a.tif", "8 bits a channel, received 16"),
    "floats": (lambda path: save(path, IMAGE.astype(np.float32)), "a.tif", "8 bits a channel, received 32"),
    "transparent": (lambda path: save(path, np.dstack([COLOURS, IMAGE])), "a.png", "received transparent pixels"),
    "truncated": (lambda path: path.write_bytes(save(path, IMAGE).read_bytes()[:-300]), "a.png", "not a whole image"),
    "truncated JPEG": (lambda path: path.write_bytes(save(path, IMAGE).read_bytes()[:500]), "a.jpg", "not a whole"),
    "a text": (lambda path: path.write_text("not an image"), "a.png", "not a whole image"),
    "another format": (lambda path: save(path, IMAGE, format="GIF"), "a.png", "not a whole image"),
    "nothing": (lambda path: path.write_bytes(b""), "a.jpg", "not a whole image"),
    "huge": (lambda path: save(path, np.zeros((5000, 5000), bool)), "a.png", "at most 16777216 pixels"),
    "two sizes": (
        lambda path: save(path, IMAGE, save_all=True, append_images=[Image.fromarray(IMAGE[:30])]),
        "a.tif",
        r"pages of one size, received \[\(48, 30\), \(48, 40\)\]",
    ),
}


@pytest.mark.parametrize("write, name, words", BAD.values(), ids=BAD)
def test_bad_images_are_named(tmp_path, write, name, words):
    write(tmp_path / name)
    with pytest.raises(LusbookError, match=words) as caught:
        list(stream_image(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


def test_16_bits_a_channel_of_colour_are_no_8(tmp_path):
    sixteen_bits_of_colour(tmp_path / "a.png")
    with pytest.raises(LusbookError, match=r"a\.png"):
        list(stream_image(tmp_path / "a.png"))


def test_grey_is_luminance():
    assert grey(IMAGE) is IMAGE
    np.testing.assert_array_equal(grey(IMAGE[..., None].repeat(3, axis=2)), IMAGE)
    np.testing.assert_allclose(grey(COLOURS), rgb2gray(COLOURS) * 255, atol=0.5 + 1e-9)


def test_kinds_are_told_by_suffix_and_dicom_by_content(tmp_path):
    names = {"a.PNG": "image", "a.jpeg": "image", "a.MP4": "clip", "a.gif": "clip", "a.dcm": "dicom", "a.txt": ""}
    for name, kind in names.items():
        (tmp_path / name).write_bytes(b"")
        assert kind_of(tmp_path / name) == kind
    assert kind_of(write_dicom(tmp_path / "1.2.840.55", noise(1, 40))) == "dicom"


def test_every_kind_is_opened(tmp_path):
    frames = make_frames(3)
    write_dicom(tmp_path / "a.dcm", frames, regions=[{"RegionLocationMinX0": 20}])
    stream, region, spacing = open_recording(tmp_path / "a.dcm")
    np.testing.assert_array_equal(np.stack(list(stream()))[:, region[0], region[1]], frames[:, :, 20:])
    assert spacing == pytest.approx(0.2)
    write_clip(tmp_path / "a.mp4", frames)
    stream, region, spacing = open_recording(tmp_path / "a.mp4")
    read = np.stack([grey(frame[region]) for frame in stream()])
    assert spacing is None
    np.testing.assert_allclose(read, np.stack(list(stream_clip(tmp_path / "a.mp4"))), atol=1)
    stream, _, _ = open_recording(save(tmp_path / "a.png", frames[0]))
    np.testing.assert_array_equal(*stream(), frames[0])
    (tmp_path / "a.txt").write_text("none")
    with pytest.raises(LusbookError, match=r"a\.txt: expected an image, a clip or a DICOM file"):
        open_recording(tmp_path / "a.txt")


def fan_of(frames, region=WHOLE):
    return find_fan("a", lambda: iter(frames), region)


def test_fan_is_that_of_all_frames_but_the_black_ones():
    frames = make_frames(9, black=2)
    fan, lit = fan_of(frames)
    np.testing.assert_array_equal(fan, fan_mask(frames[2:]))
    assert lit == range(2, 9)
    true = make_fan()
    assert 2 * (fan & true).sum() / (fan.sum() + true.sum()) > 0.93
    fan, _ = fan_of(frames, (slice(0, 96), slice(30, 100)))
    assert fan.shape == (96, 70)


def test_colour_in_the_fan_is_doppler_and_beside_it_is_not():
    frames = make_frames(4)[..., None].repeat(3, axis=3)
    frames[2, 40:60, 70:90] = 0, 0, 200  # a flash in one frame
    with pytest.raises(LusbookError, match="a: colour Doppler: [1-9][0-9]? % of the fan are coloured"):
        fan_of(frames)
    frames = make_frames(4)[..., None].repeat(3, axis=3)
    frames[:, :12, 112:] = 200, 100, 0  # a logo
    fan, _ = fan_of(frames)
    assert not fan[:12, 112:].any()
    tinted = (make_frames(4)[..., None] * [1, 0.9, 0.75]).astype(np.uint8)
    fan_of(tinted)


@pytest.mark.parametrize(
    "frames, words",
    [
        ([], "a: zero frames"),
        (make_frames(4, black=4), "a: all 4 frames are black"),
        (make_frames(4)[:, :31], "a: expected 32 px or more a side"),
        (np.pad(noise(4, 12), [(0, 0), (60, 0), (60, 0)]), "a: no ultrasound fan: the largest lit region covers 2.8%"),
    ],
    ids=["none", "black", "small", "dark"],
)
def test_recordings_without_a_fan_are_refused(frames, words):
    with pytest.raises(LusbookError, match=words):
        fan_of(frames)


def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path):
    peaks = []
    for n in (300, 3000):
        path = write_clip(tmp_path / f"{n}.mp4", noise(1, 48).repeat(n, axis=0))
        tracemalloc.start()
        _, lit = find_fan(path, partial(stream_clip, path, colour=True), WHOLE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(lit) == n
    assert peaks[1] < 1.2 * peaks[0] + 200_000  # 2700 more frames are 6 MB, or 19 MB in colour


def test_a_grey_ground_is_no_fan_and_text_on_it_is_cut_off():
    frames = make_frames(n=6, text=False)
    grey_ground = np.where(make_fan(), np.maximum(frames, 30), 18).astype(np.uint8)
    grey_ground[:, 3:6, 90:120] = 230  # a name
    fan, _ = fan_of(grey_ground)
    assert ground_level(grey_ground.max(axis=0)) == 18 and ground_level(frames.max(axis=0)) == 0
    assert not fan[3:6, 90:120].any()
    assert np.mean(fan == make_fan()) > 0.97


def test_tissue_in_all_corners_is_no_ground():
    assert ground_level(noise(1, 64)[0]) == 0
