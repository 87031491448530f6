"""The common form of recordings, and tables that are checked as they are read."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

from lusbook import recordings, video
from lusbook.errors import LusbookError
from lusbook.recordings import RECORDINGS, list_recordings, read_csv

COMMON = {"source": "here", "licence": "CC0", "attribution": "Ann"}


def columns(**more):
    return {"clip": pd.Series(["a", "b"]), "patient": pd.Series(["p", "q"])} | more


def test_what_is_not_given_is_empty_and_more_is_kept():
    table = list_recordings(columns(device=pd.Series(["x", "y"])), **COMMON)
    assert list(table) == [*RECORDINGS.columns, "device"]
    assert (table[["path", "condition", "pcr", "zone"]] == "").all().all()
    assert table[["b_lines", "severity"]].isna().all().all()
    assert [str(table[name].dtype) for name in ("b_lines", "severity")] == ["boolean", "Int64"]


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("condition", ["covid19", "flu"], "condition: received 'flu'"),
        ("pcr", ["positive", "unknown"], "pcr: received 'unknown'"),
        ("severity", [0, 4], "severity: received 4"),
        ("patient", ["p", ""], "patient: received '', expected filled"),
        ("clip", ["a", "a"], "columns: received .*expected .*unique"),
    ],
)
def test_a_wrong_cell_is_named(name, cells, message):
    with pytest.raises(LusbookError, match=f"^here, {message}"):
        list_recordings(columns(**{name: pd.Series(cells)}), **COMMON)


def test_a_csv_is_read_without_spaces_and_an_error_names_the_line(tmp_path):
    schema = pa.DataFrameSchema({"x": pa.Column(int, pa.Check.le(2)), "y": pa.Column(str)})
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1, one \n2,two\n")
    assert read_csv(path, schema)["y"].tolist() == ["one", "two"]
    path.write_text("x,y\n1,one\n3,two\n")
    with pytest.raises(LusbookError, match=r"a.csv, line 3, x: received 3, expected less_than_or_equal_to\(2\)"):
        read_csv(path, schema)
    for content in (b"", b"x,y\n\xff,2\n", b"x,y\n1,2,3,4\n1,2,3,4,5\n", b"x,y\n1,a,b\n", b"x,y\n1,a\n2,b,c\n"):
        path.write_bytes(content)
        with pytest.raises(LusbookError, match=r"a.csv: not a readable CSV"):
            read_csv(path, schema)
    path.write_text("x,y,dask\n1,one,2\n")
    with pytest.raises(LusbookError, match=r"a.csv: expected columns of other names, received 'dask'"):
        read_csv(path, schema)
    with pytest.raises(LusbookError, match=r"gone.csv: not a readable CSV"):
        read_csv(tmp_path / "gone.csv", schema)


def test_the_gallery_takes_cc_by_clips_only(monkeypatch):
    licences = ["CC BY 4.0", "CC BY 4.0", "CC BY-NC 4.0", "CC BY-NC-ND 4.0", "CC BY 2.0", "CC BY-SA 4.0"]
    table = pd.DataFrame(
        {"clip": list("abcdef"), "patient": list("ppqrst"), "licence": licences, "path": list("abcdef")}
    )
    clips = {name: np.full((5, 64, 64), 40 + 10 * k, np.uint8) for k, name in enumerate("abcdef")}
    for k, clip in enumerate(clips.values()):
        clip[2] += k + 1  # the middle frame is another
    monkeypatch.setattr(video, "read_clip", lambda path: clips[path])
    frames, credits = recordings.gallery(table.assign(attribution="somebody"), size=32)
    assert credits["clip"].tolist() == ["a", "e"] and list(credits) == ["clip", "patient", "licence", "attribution"]
    assert [frame[16, 16] for frame in frames] == [41, 85]
