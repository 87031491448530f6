"""Reading a manifest of a user's own images."""

import io

import imageio.v3 as iio
import numpy as np
import pytest
from skimage.color import rgb2gray

from lusbook.errors import LusbookError
from lusbook.manifests import read_manifest
from tests.helpers import SIDE, png


def test_manifest_at_its_own_size_gives_the_files(manifest):
    path = manifest()
    cohorts = read_manifest(path, SIDE)
    assert list(cohorts) == ["covid", "cap"]
    for name, numbers in (("covid", (1, 2, 3)), ("cap", (4, 5, 6))):
        cohort = cohorts[name]
        assert cohort.name == name and cohort.patients.tolist() == [f"p{i}" for i in numbers]
        assert cohort.folds.tolist() == [0, 1, 2] and cohort.truth is None
        for i, number in enumerate(numbers):
            np.testing.assert_array_equal(cohort.images[i], iio.imread(path.parent / f"{number}.png"))
            np.testing.assert_array_equal(cohort.masks[i], iio.imread(path.parent / f"{number}-mask.png") > 0)


def test_wide_image_is_padded_and_averaged_and_its_mask_alike(manifest):
    wide, mask = np.full((SIDE, 2 * SIDE), 90), np.zeros((SIDE, 2 * SIDE))
    mask[:, :SIDE] = 255
    cohort = read_manifest(manifest(files={"1.png": png(wide), "1-mask.png": png(mask)}), 16)["covid"]
    expected = np.zeros((16, 16))
    expected[4:12] = 90
    np.testing.assert_array_equal(cohort.images[0], expected)
    expected[:, 8:] = 0
    np.testing.assert_array_equal(cohort.masks[0], expected > 0)


def test_downsizing_is_the_mean_over_areas_and_the_majority(manifest):
    rng = np.random.default_rng(1)
    image, mask = rng.integers(0, 256, (SIDE, SIDE)), rng.random((SIDE, SIDE)) > 0.6
    cohort = read_manifest(manifest(files={"1.png": png(image), "1-mask.png": png(255 * mask)}), 8)["covid"]
    blocks = image.reshape(8, 4, 8, 4).mean((1, 3)), mask.reshape(8, 4, 8, 4).mean((1, 3))
    np.testing.assert_allclose(cohort.images[0], blocks[0], atol=0.5 + 1e-9)
    np.testing.assert_array_equal(cohort.masks[0], blocks[1] >= 0.5)


def test_thin_mask_does_not_vanish_and_empty_one_stays_empty(manifest):
    thin = np.zeros((SIDE, SIDE))
    thin[8:, 5] = 255
    files = {"1-mask.png": png(thin), "2-mask.png": png(np.zeros((SIDE, SIDE)))}
    masks = read_manifest(manifest(files=files), 8)["covid"].masks
    expected = np.zeros((8, 8), bool)
    expected[2:, 1] = True
    np.testing.assert_array_equal(masks[0], expected)
    assert not masks[1].any()


def test_colour_is_read_as_luminance_and_other_kinds_of_png_alike(manifest):
    rng = np.random.default_rng(2)
    colour, grey = rng.integers(0, 256, (SIDE, SIDE, 3)), rng.integers(0, 256, (SIDE, SIDE))
    one_bit = io.BytesIO()
    binary = grey > 128
    iio.imwrite(one_bit, binary, extension=".png", plugin="pillow")
    assert one_bit.getvalue()[24] == 1
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    files = {"1.png": png(colour), "2.png": png(opaque), "1-mask.png": one_bit.getvalue()}
    files["2-mask.png"] = png(binary)  # 0 and 1 instead of 0 and 255
    cohort = read_manifest(manifest(files=files), SIDE)["covid"]
    np.testing.assert_allclose(cohort.images[0], rgb2gray(colour.astype(np.uint8)) * 255, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(cohort.images[1], grey)
    np.testing.assert_array_equal(cohort.masks[0], binary)
    np.testing.assert_array_equal(cohort.masks[1], binary)


def test_cohort_without_masks(manifest):
    rows = {number: f"{number}.png,,p{number},cap" for number in (4, 5, 6)}
    cohorts = read_manifest(manifest(rows), SIDE)
    assert cohorts["cap"].masks is None and cohorts["covid"].masks is not None


def test_spaces_and_byte_order_mark_do_not_matter(manifest):
    plain = read_manifest(manifest(), SIDE)["covid"]
    rows = {2: "./2.png , 2-mask.png,  p2 , covid"}
    spaced = read_manifest(manifest(rows, header="image, mask,patient ,cohort", encoding="utf-8-sig"), SIDE)["covid"]
    assert spaced.digest == plain.digest and spaced.patients.tolist() == plain.patients.tolist()


def test_digest_tells_files_and_rows_apart_and_not_places(manifest, tmp_path):
    before = {name: c.digest for name, c in read_manifest(manifest(), SIDE).items()}
    assert len(before["covid"]) == 16 and before["covid"] != before["cap"]
    (tmp_path / "note.txt").write_text("not named by the manifest")
    image = read_manifest(manifest(files={"1.png": png(np.zeros((SIDE, SIDE)))}), SIDE)
    mask = read_manifest(manifest(files={"1-mask.png": png(np.zeros((SIDE, SIDE)))}), SIDE)
    row = read_manifest(manifest({1: "1.png,1-mask.png,someone,covid"}), SIDE)
    assert len({before["covid"], *(c["covid"].digest for c in (image, mask, row))}) == 4
    assert {before["cap"]} == {c["cap"].digest for c in (image, mask, row)}
    path = manifest().parent
    moved = path.rename(path.with_name("moved"))
    assert {name: c.digest for name, c in read_manifest(moved / "manifest.csv", SIDE).items()} == before


BAD_ROWS = {
    "missing image": ({2: "none.png,2-mask.png,p2,covid"}, r"row 2: .*none\.png: cannot be read \(No such file"),
    "missing mask": ({2: "2.png,none.png,p2,covid"}, r"row 2: .*none\.png: cannot be read \(No such file"),
    "empty patient": ({3: "3.png,3-mask.png, ,covid"}, "row 3: patient is empty"),
    "empty cohort": ({3: "3.png,3-mask.png,p3,"}, "row 3: cohort is empty"),
    "empty image": ({3: ",3-mask.png,p3,covid"}, "row 3: image is empty"),
    "short row": ({3: "3.png,3-mask.png,p3"}, "row 3: cohort is empty"),
    "long row": ({1: "1.png,1-mask.png,p,1,covid"}, r"manifest\.csv: not readable as CSV"),
    "long later row": ({3: "3.png,3-mask.png,p,3,covid"}, r"manifest\.csv: not readable as CSV.*line 4"),
    "same image": ({5: "./4.png,5-mask.png,p5,cap"}, r"row 5: image '4\.png' is there twice"),
    "partly no masks": ({5: "5.png,,p5,cap"}, "row 5: mask is empty; expected masks for all images of cohort 'cap'"),
    "one patient": (
        {n: f"{n}.png,{n}-mask.png,only,cap" for n in (4, 5, 6)},
        "cohort 'cap': expected at least 3 patients, .* received 1: only",
    ),
    "path upwards": ({4: "sub/../../4.png,4-mask.png,p4,cap"}, r"row 4: \.\./4\.png: expected a path inside"),
    "mask upwards": ({4: "4.png,../4-mask.png,p4,cap"}, r"row 4: \.\./4-mask\.png: expected a path inside"),
    "absolute path": ({4: "/etc/passwd,4-mask.png,p4,cap"}, "row 4: /etc/passwd: expected a path inside"),
    "folder for a file": ({4: "sub,4-mask.png,p4,cap"}, "row 4: .*sub: cannot be read"),
}


@pytest.mark.parametrize("rows, words", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_named(manifest, tmp_path, rows, words):
    (tmp_path / "sub").mkdir()
    with pytest.raises(LusbookError, match=words) as caught:
        read_manifest(manifest(rows), SIDE)
    assert str(tmp_path / "manifest.csv") in str(caught.value)


NOISE = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE))
NOT_BINARY = np.where(NOISE > 200, 255, NOISE > 100)
CUT = png(NOISE)[: len(png(NOISE)) // 2]
DAMAGED = png(NOISE)[:200] + b"\0\0\0\0" + png(NOISE)[204:]
BAD_FILES = {
    "truncated image": ("2.png", CUT, r"2\.png: corrupt PNG"),
    "truncated mask": ("2-mask.png", CUT, r"2-mask\.png: corrupt PNG"),
    "cut in the header": ("2.png", CUT[:20], r"2\.png: corrupt PNG"),
    "damaged image": ("2.png", DAMAGED, r"2\.png: corrupt PNG"),
    "empty file": ("2.png", b"", r"2\.png: expected a PNG file, received b''"),
    "another format": ("2.png", iio.imwrite("<bytes>", NOISE.astype("u1"), extension=".jpg"), "expected a PNG file"),
    "size of mask": (
        "2-mask.png",
        png(NOISE[:16] > 9),
        r"2-mask\.png: expected .* size \(32, 32\), received \(16, 32\)",
    ),
    "not binary": (
        "2-mask.png",
        png(NOT_BINARY),
        r"2-mask\.png: expected a mask of 0 and 255 .* the values 0, 1, 255$",
    ),
    "many values": ("2-mask.png", png(NOISE), r"2-mask\.png: expected a mask .* \.\.\.$"),
    "one other value": ("2-mask.png", png(128 * (NOISE > 9)), "the values 0, 128$"),
    "16 bits": (
        "2.png",
        iio.imwrite("<bytes>", (NOISE * 257).astype(np.uint16), extension=".png"),
        r"2\.png: expected an 8-bit PNG, received 16",
    ),
    "transparent": ("2.png", png(np.dstack([NOISE] * 4)), r"2\.png: expected an opaque PNG"),
    "transparent grey": (
        "2-mask.png",
        png(np.dstack([0 * NOISE + 255, NOISE])),
        r"2-mask\.png: expected an opaque PNG",
    ),
}


@pytest.mark.parametrize("name, content, words", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_named(manifest, name, content, words):
    with pytest.raises(LusbookError, match=f"(?s)row 2: .*{words}"):
        read_manifest(manifest(files={name: content}), SIDE)


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "not readable as CSV: No columns"),
        (b"image,mask,patient,cohort\n", "no rows"),
        (b"image,mask,cohort\n1.png,,cap\n", "column 'patient' is missing; .* received image, mask, cohort"),
        (b"image;mask;patient;cohort\n1.png;;p;cap\n", "column 'image' is missing"),
        ("image,mask,patient,cohort\n1.png,,Zoë,cap\n".encode("latin-1"), "expected UTF-8, received 0xeb"),
        ("image,mask,patient,cohort\n1.png,,Zoë,cap\n".encode("utf-16"), "expected UTF-8, received 0xff"),
        (b'image,mask,patient,cohort\n"1.png,,p,cap\n', "not readable as CSV"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, words):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text)
    with pytest.raises(LusbookError, match=words) as caught:
        read_manifest(path, SIDE)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_missing_manifest_is_named(tmp_path, name):
    with pytest.raises(LusbookError, match="no such file; expected a manifest CSV"):
        read_manifest(tmp_path / name, SIDE)
