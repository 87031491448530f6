"""Checkpoints: they come back bit by bit, and damage is noticed."""

import numpy as np
import pytest

from lusbook import checkpoints
from lusbook.errors import LusbookError

ARRAYS = [np.arange(6, dtype="float32").reshape(2, 3) / 7, np.array(2**40 + 1, "int64"), np.zeros((0, 2), "uint32")]


def history(iterations):
    return [{"iteration": i + 1, "loss": float(np.float32(0.1) * i), "dice": 1 / (i + 3)} for i in range(iterations)]


def save(folder, *iterations, key="run"):
    return [checkpoints.save(folder, key, i, [array + i for array in ARRAYS], history(i)) for i in iterations]


def equal(found, iteration):
    number, arrays, rows = found
    assert (number, rows) == (iteration, history(iteration))
    assert all(isinstance(row["iteration"], int) for row in rows)
    for array, expected in zip(arrays, ARRAYS, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected + iteration, strict=True)
    return True


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path, capsys):
    save(tmp_path / "new", 3)
    assert equal(checkpoints.load(tmp_path / "new", "run"), 3)
    assert capsys.readouterr().err == ""


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert checkpoints.load(tmp_path, "run") is None
    assert checkpoints.load(tmp_path / "missing", "run") is None


def test_the_two_newest_are_kept_and_removed_at_the_end(tmp_path):
    save(tmp_path, 1, 2, 10)
    assert names(tmp_path) == ["checkpoint-00000002.npz", "checkpoint-00000010.npz"]
    (tmp_path / "weights.npz").touch()
    (tmp_path / ".checkpoint-00000011.npz.1").touch()
    checkpoints.remove(tmp_path)
    assert names(tmp_path) == ["weights.npz"]


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".checkpoint-00000002.npz.1").write_bytes(b"half")
    assert equal(checkpoints.load(tmp_path, "run"), 1)
    assert names(tmp_path) == ["checkpoint-00000001.npz"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "File is not a zip file"),
        (lambda data: data[:-1], ""),
        (lambda data: b"", "File is not a zip file"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "damaged: checksum of "),
        (lambda data: b"\0" * len(data), "File is not a zip file"),
    ],
    ids=["half", "one byte short", "empty", "flipped byte", "zeros"],
)
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(damage, reason, tmp_path, capsys):
    path = save(tmp_path, 1, 2)[1]
    path.write_bytes(damage(path.read_bytes()))
    assert equal(checkpoints.load(tmp_path, "run"), 1)
    shown = capsys.readouterr().err
    assert shown.startswith(f"{path}: not used ({reason}")
    assert "the one before it, checkpoint-00000001.npz, is used" in shown


def test_no_flipped_byte_changes_what_is_read(tmp_path, capsys):
    path = save(tmp_path, 1, 2)[1]
    data, noticed = path.read_bytes(), 0
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        found = checkpoints.load(tmp_path, "run")
        assert equal(found, found[0])
        noticed += found[0] == 1
    assert capsys.readouterr().err.count("not used") == noticed
    assert noticed > len(data) / 2  # the others are dates and the like


def test_two_damaged_ones_start_the_run_anew(tmp_path, capsys):
    for path in save(tmp_path, 1, 2):
        path.write_bytes(b"")
    assert checkpoints.load(tmp_path, "run") is None
    assert "checkpoint-00000001.npz: not used (File is not a zip file); the run starts anew" in capsys.readouterr().err


def test_another_runs_checkpoint_is_not_used(tmp_path, capsys):
    save(tmp_path, 1)
    save(tmp_path, 2, key="other")
    assert equal(checkpoints.load(tmp_path, "run"), 1)
    assert "00000002.npz: not used (of other settings, data, code or libraries)" in capsys.readouterr().err


def test_a_renamed_one_is_not_used(tmp_path, capsys):
    (path,) = save(tmp_path, 1)
    path.rename(tmp_path / "checkpoint-00000005.npz")
    assert checkpoints.load(tmp_path, "run") is None
    assert "not used (holds iteration 1 and 1 rows of history)" in capsys.readouterr().err


def test_what_was_not_used_makes_place(tmp_path):
    """A run that went on from before a damaged checkpoint must not lose its own to it."""
    save(tmp_path, 4, 9)
    save(tmp_path, 5)
    assert names(tmp_path) == ["checkpoint-00000004.npz", "checkpoint-00000005.npz"]


def test_a_full_disk_is_named_and_earlier_ones_stay(tmp_path, monkeypatch):
    def full(file, *arrays, **named):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    save(tmp_path, 1)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(LusbookError, match=r"checkpoint-00000002.npz: cannot be written \(No space left"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-00000001.npz"]


def test_the_interval_is_a_number_of_seconds(monkeypatch):
    monkeypatch.delenv("LUSBOOK_CHECKPOINT_SECONDS", raising=False)
    assert checkpoints.interval() == 60
    monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", "0.5")
    assert checkpoints.interval() == 0.5
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv("LUSBOOK_CHECKPOINT_SECONDS", wrong)
        with pytest.raises(LusbookError, match=f"LUSBOOK_CHECKPOINT_SECONDS: expected a number.*received '{wrong}'"):
            checkpoints.interval()
