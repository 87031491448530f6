"""Arrays come back as they were; files that would unpack to more than they hold are refused before that."""

import io
import zipfile

import numpy as np
import pytest

from lusbook import arrays


def npz(folder, **members):
    """Write bytes as members of an archive, with the right checksums."""
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "a.npz"


def header(shape="(3,)", kind="'<f8'"):
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(save, tmp_path):
    kept = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": np.array("text"),
        "c": np.zeros((0, 3), "u1"),
        "d": np.array(True),
    }
    save(tmp_path / "a.npz", **kept)
    found = arrays.unpack(tmp_path / "a.npz")
    assert set(found) == set(kept)
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize(
    "member, words",
    [
        (header("(99999999999,)") + b"\0" * 24, "of shape .99999999999"),
        (header(kind="'<U999999999'") + b"\0" * 24, "not a valid dtype|of shape"),
        (header("(-1, -3)") + b"\0" * 24, "of shape"),
        (header(kind="'|O'") + b"\0" * 24, "object of shape"),
        (header() + b"\0" * 23, "in 23 bytes"),
        (b"no array", "magic"),
        (b"", "magic|EOF"),
    ],
)
def test_what_an_array_says_of_itself_must_be_there(member, words, tmp_path):
    good = npz(tmp_path, **{"x.npy": header() + b"\0" * 24})
    assert arrays.unpack(good)["x"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=words):
        arrays.unpack(npz(tmp_path, **{"x.npy": member}))


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 10**6)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda archive: pytest.fail("it was read"))
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros(10**6, "u1"))
    with pytest.raises(ValueError, match="unpacks to 1000128 bytes, expected at most 1000000"):
        arrays.unpack(tmp_path / "a.npz")


def test_a_file_larger_than_that_may_hold_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1000)
    np.savez(tmp_path / "a.npz", zeros=np.zeros(10**5, "u1"))
    assert arrays.unpack(tmp_path / "a.npz")["zeros"].shape == (10**5,)


def test_pickles_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="object of shape"):
        arrays.unpack(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(io.BytesIO(b"\x80\x04.").read())
    with pytest.raises(ValueError, match="not a zip file"):
        arrays.unpack(tmp_path / "b.npz")


def test_damage_and_a_missing_file_are_told_apart(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[500] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="damaged: checksum of a.npy"):
        arrays.unpack(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        arrays.unpack(tmp_path / "b.npz")
