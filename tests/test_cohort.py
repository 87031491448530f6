import io
import warnings
from collections import Counter
from functools import lru_cache

import imageio.v3 as iio
import numpy as np
import pytest
from skimage.color import rgb2gray

from lusbook import cohort as module
from lusbook import phantom
from lusbook.cohort import (
    Cohort,
    assign_folds,
    cohort_digests,
    fold_indices,
    load_cohorts,
    network_images,
    read_manifest,
    reduce_to,
    shown_frame,
)
from lusbook.errors import LusbookError
from lusbook.settings import Settings

SIDE = 32


def png(pixels):
    return iio.imwrite("<bytes>", np.asarray(pixels, np.uint8), extension=".png")


def make_cohort(names, **changes):
    n = len(names)
    rng = np.random.default_rng(0)
    values = {
        "name": "covid",
        "images": rng.integers(0, 256, (n, 8, 8), dtype=np.uint8),
        "masks": rng.random((n, 8, 8)) > 0.5,
        "patients": np.array(names),
        "folds": assign_folds(names),
    }
    return Cohort(**(values | changes))


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of three patients in each of two cohorts; rows and files can be changed first."""

    def write(rows=None, files=None, header="image,mask,patient,cohort", **changed):
        rng = np.random.default_rng(0)
        lines = []
        for number in range(1, 7):
            image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
            image.write_bytes(png(rng.integers(0, 256, (SIDE, SIDE))))
            mask.write_bytes(png(255 * (rng.random((SIDE, SIDE)) > 0.5)))
            lines.append(f"{image.name},{mask.name},p{number},{'covid' if number < 4 else 'cap'}")
        for number, line in (rows or {}).items():
            lines[number - 1] = line
        for name, content in (files or {}).items():
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join([header, *lines]) + "\n", **({"encoding": "utf-8"} | changed))
        return path

    return write


# ---------------------------------------------------------------- Cohort


def test_subset_takes_every_array_and_keeps_the_rest():
    cohort = make_cohort(["a", "b", "c", "c"], digest="d")
    part = cohort.subset(np.array([3, 1]))
    assert len(part) == 2 and part.name == "covid" and part.digest == "d" and part.truth is None
    assert part.patients.tolist() == ["c", "b"]
    np.testing.assert_array_equal(part.images, cohort.images[[3, 1]])
    np.testing.assert_array_equal(part.masks, cohort.masks[[3, 1]])
    np.testing.assert_array_equal(part.folds, cohort.folds[[3, 1]])
    np.testing.assert_array_equal(cohort.subset(cohort.patients == "c").images, cohort.images[2:])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": np.zeros((3, 8, 8))}, "images: expected uint8"),
        ({"images": np.zeros((3, 8, 4), np.uint8)}, r"images: expected \(n, size, size\)"),
        ({"masks": np.zeros((3, 8, 8), np.uint8)}, "masks: expected bool"),
        ({"masks": np.zeros((2, 8, 8), bool)}, r"masks: .* received bool of shape \(2, 8, 8\)"),
        ({"truth": np.zeros((3, 4, 4), bool)}, "truth"),
        ({"patients": np.array(["a", "b"])}, "patients"),
        ({"patients": np.array([1, 2, 3])}, "patients: expected str_"),
        ({"folds": np.array([0.0, 1.0, 2.0])}, "folds: expected integer"),
        ({"patients": np.array(["a", "b", "a"])}, "patient 'a' is in folds 0 and 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(LusbookError, match=f"cohort 'covid': {words}"):
        make_cohort(["a", "b", "c"], **changes)


# ---------------------------------------------------------------- folds and subsets


@pytest.mark.parametrize("seed", range(20))
def test_folds_never_split_a_patient_and_are_near_equal(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 60, rng.integers(3, 12))
    patients = rng.permutation(np.repeat([f"p{i}" for i in range(len(counts))], counts))
    n_folds = int(rng.integers(2, 4))
    folds = assign_folds(patients, n_folds)
    assert len(set(zip(patients, folds, strict=True))) == len(counts)
    sizes = np.bincount(folds, minlength=n_folds)
    # The greedy rule's own bounds: two folds differ by one patient at most, and the largest fold exceeds the mean
    # by a patient at most (Graham, 1969).
    assert sizes.min() > 0 and np.ptp(sizes) <= counts.max()
    assert sizes.max() <= len(patients) / n_folds + (1 - 1 / n_folds) * counts.max()


def test_folds_depend_on_names_and_numbers_not_on_order():
    patients = np.repeat(["d", "a", "c", "b"], [2, 2, 2, 3])
    order = np.random.default_rng(1).permutation(len(patients))
    np.testing.assert_array_equal(assign_folds(patients[order]), assign_folds(patients)[order])
    fold_of = dict(zip(patients.tolist(), assign_folds(patients).tolist(), strict=True))
    assert fold_of == {"b": 0, "a": 1, "c": 2, "d": 1}  # 3; then ties by name; the first of the smallest folds


def test_fewer_patients_than_folds_is_an_error():
    with pytest.raises(LusbookError, match="at least 3 patients.* received 2: a, b"):
        assign_folds(["a", "b", "a"])


def test_fold_indices_divide_the_cohort_by_patient():
    cohort = make_cohort(["a", "b", "c", "a", "d"])
    for fold in range(3):
        training, test = fold_indices(cohort, fold)
        assert sorted([*training, *test]) == list(range(5))
        assert not set(cohort.patients[training]) & set(cohort.patients[test])
        assert set(cohort.folds[test]) == {fold}


@pytest.mark.parametrize("folds, fold", [([0, 1, 2], 3), ([1, 1, 1], 1)])
def test_a_fold_that_leaves_nothing_is_an_error(folds, fold):
    with pytest.raises(LusbookError, match=f"cohort 'covid': fold {fold} leaves nothing"):
        fold_indices(make_cohort(["a", "b", "c"], folds=np.array(folds)), fold)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 29, 30])
def test_reduced_cohort_keeps_shares(n):
    counts = {"a": 15, "b": 9, "c": 6}
    cohort = make_cohort(np.random.default_rng(0).permutation(np.repeat(list(counts), list(counts.values()))))
    kept = Counter(reduce_to(cohort, n, seed=0).patients.tolist())
    assert kept.total() == n
    assert all(abs(kept[name] - n * count / 30) < 1 for name, count in counts.items())


def test_reduced_cohort_is_seeded_sorted_and_without_repetition():
    cohort = make_cohort(
        ["a", "b", "c"] * 10, images=np.arange(30, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), "u1")
    )
    first, again, other = (reduce_to(cohort, 12, seed).images[:, 0, 0].tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first == sorted(set(first))


def test_largest_remainders_win_and_equal_ones_go_by_name():
    cohort = make_cohort(["a"] * 3 + ["b"] * 3 + ["c"] * 4)
    # 5 of 10: quotas 1.5, 1.5, 2: the half goes to a
    assert Counter(reduce_to(cohort, 5, 0).patients.tolist()) == {"a": 2, "b": 1, "c": 2}
    # 2 of 10: quotas 0.6, 0.6, 0.8
    assert Counter(reduce_to(cohort, 2, 0).patients.tolist()) == {"c": 1, "a": 1}


@pytest.mark.parametrize("n", [0, 4])
def test_impossible_reduction_is_an_error(n):
    with pytest.raises(LusbookError, match=f"cohort 'covid': expected to keep 1 to 3 images, received {n}"):
        reduce_to(make_cohort(["a", "b", "c"]), n, 0)


def test_network_images_keep_order_and_reach_both_ends():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = network_images(values)
    assert out.shape == (1, 16, 16, 1) and out.dtype == np.float32
    np.testing.assert_allclose(out.ravel(), np.linspace(-0.9, 0.9, 256), atol=1e-6)
    assert out.ravel()[0] == np.float32(-0.9)


# ---------------------------------------------------------------- manifest


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


# ---------------------------------------------------------------- load_cohorts: manifest


def test_load_cohorts_of_a_manifest(manifest):
    path = manifest()
    settings = Settings(cohorts=str(path), image_size=SIDE)
    first, again = load_cohorts(settings), load_cohorts(settings)
    assert list(first) == ["covid", "cap"]
    assert again["cap"] is first["cap"]  # read once in a process ...
    assert {name: c.digest for name, c in first.items()} == cohort_digests(settings)
    manifest(files={"4.png": png(np.zeros((SIDE, SIDE)))})
    assert not load_cohorts(settings)["cap"].images[0].any()  # ... unless a file has changed
    assert load_cohorts(Settings(cohorts=str(path), image_size=16))["cap"].images.shape == (3, 16, 16)


@pytest.mark.parametrize("other", ["CAP", "covid-19"])
def test_other_cohort_names_are_refused(manifest, other):
    path = manifest({n: f"{n}.png,{n}-mask.png,p{n},{other}" for n in (4, 5, 6)})
    with pytest.raises(LusbookError, match=f"expected the cohorts covid and cap, received .*{other}"):
        load_cohorts(Settings(cohorts=str(path), image_size=SIDE))


def test_study_without_masks_is_refused(manifest):
    path = manifest({n: f"{n}.png,,p{n},cap" for n in (4, 5, 6)})
    with pytest.raises(LusbookError, match="cohort 'cap': no masks"):
        load_cohorts(Settings(cohorts=str(path), image_size=SIDE))


# ---------------------------------------------------------------- load_cohorts: phantom


simulate_once = lru_cache(phantom.simulate)


@pytest.fixture
def small_phantom(monkeypatch, tmp_path):
    monkeypatch.setattr(phantom, "PLAN", {"covid": ((1,), (1, 1), (1,)), "cap": ((1,), (1,), (2,))})
    monkeypatch.setattr(phantom, "simulate", simulate_once)
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "cache"))
    return Settings(image_size=SIDE)


def assert_same(one, other):
    for name in ("covid", "cap"):
        assert one[name].name == name and one[name].digest == other[name].digest
        for key in ("images", "masks", "truth", "patients", "folds"):
            np.testing.assert_array_equal(getattr(one[name], key), getattr(other[name], key))
            assert getattr(one[name], key).dtype == getattr(other[name], key).dtype


def refuse(*args, **kwargs):
    raise AssertionError("simulated, where the kept cohort should have been read")


def test_phantom_is_simulated_once_and_read_back_exactly(small_phantom, tmp_path, monkeypatch):
    first = load_cohorts(small_phantom)
    assert_same(
        first,
        {
            "covid": phantom.simulate("covid", diversity=0.3, consistency=0.9, image_size=SIDE),
            "cap": phantom.simulate("cap", diversity=0.8, consistency=0.5, image_size=SIDE),
        },
    )
    assert cohort_digests(small_phantom) == {name: c.digest for name, c in first.items()}
    names = sorted(file.name for file in (tmp_path / "cache").iterdir())
    assert len(names) == 2 and names[1].startswith(f"phantom-covid-{first['covid'].digest}-")
    monkeypatch.setattr(phantom, "simulate", refuse)
    assert_same(load_cohorts(small_phantom), first)
    with pytest.raises(AssertionError, match="simulated"):
        load_cohorts(Settings(image_size=SIDE, phantom_seed=1))


def test_other_phantom_code_is_not_served_from_the_cache(small_phantom, monkeypatch):
    load_cohorts(small_phantom)
    monkeypatch.setattr("lusbook.runs.code_digest", lambda modules: "other")
    monkeypatch.setattr(phantom, "simulate", refuse)
    with pytest.raises(AssertionError, match="simulated"):
        load_cohorts(small_phantom)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other arrays"])
def test_damaged_cache_is_simulated_again(small_phantom, tmp_path, damage):
    first = load_cohorts(small_phantom)
    path = next((tmp_path / "cache").glob("phantom-cap-*"))
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    elif damage == "empty":
        path.touch()
    else:
        with open(path, "wb") as file:
            np.savez(file, images=np.zeros((2, 8, 8)))
    with pytest.warns(UserWarning, match="phantom-cap-.*simulated again"):
        assert_same(load_cohorts(small_phantom), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load_cohorts(small_phantom), first)


def test_cache_that_cannot_be_written_is_only_a_warning(small_phantom, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LUSBOOK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written .*not kept"):
        assert len(load_cohorts(small_phantom)["covid"]) == 4


def test_full_disk_leaves_no_half_file(small_phantom, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        load_cohorts(small_phantom)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("given", [(), (2,)])
def test_workers_simulate_only_where_they_are_asked_for(small_phantom, monkeypatch, given):
    seen = []

    def simulate(*args, processes, **kwargs):  # workers start this script anew: a script without guard must not
        seen.append(processes)
        return simulate_once(*args, **kwargs)

    monkeypatch.setattr(phantom, "simulate", simulate)
    load_cohorts(small_phantom, *given)
    assert seen == [*(given or (None,))] * 2


def test_the_shown_frame_has_the_median_labelled_area():
    masks = np.zeros((10, 8, 8), bool)
    for index, area in enumerate([5, 1, 3, 9, 7, 2, 2, 2, 2, 2]):
        masks[index].ravel()[:area] = True
    folds = np.array([0] * 5 + [1] * 5)
    patients = np.array(["a"] * 5 + ["b"] * 5)
    cohort = Cohort("covid", np.zeros((10, 8, 8), np.uint8), masks, patients, folds)
    assert shown_frame(cohort, 0) == 0  # areas 5 1 3 9 7: the median is 5
    assert shown_frame(cohort, 1) == 7  # all equal: their order in the cohort decides
