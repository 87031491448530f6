"""Folders that are there whole or not at all."""

import pytest

from lusbook.errors import LusbookError
from lusbook.folders import new_folder


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_when_it_is_full(tmp_path, there):
    out = tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
    with new_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists() or not list(out.iterdir())
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "a").read_text() == "a"


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LusbookError, match=r"file/out: cannot be written \("), new_folder(tmp_path / "file" / "out"):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(LusbookError, match="full: cannot be written"), new_folder(tmp_path / "full"):
        pass
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a"]
