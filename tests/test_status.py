"""Tables of the status page."""

import json

from lusbook import boxes, status


def put(root, name, **more):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "seconds": 2.0,
        "python": "3.12.1",
        "versions": {"keras": "3.1", "numpy": "2.0"},
        "seed": 3,
        "files": {},
    } | more
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_runs_and_versions(tmp_path):
    put(tmp_path, "demo/unet-cap/fold-0", device="CPU", backend="jax", cores=2, threads=1, commit="ab12ab12ab12")
    put(tmp_path, "demo/cohorts", seconds=9.5)
    put(tmp_path, "demo-seed-1/real", versions={"keras": "3.2"})
    put(tmp_path, "demo-seed-1/real/single")
    runs = status.read_runs(tmp_path)
    table = status.runs_table(runs)
    assert table.loc[("demo", "unet-cap/fold-0")].tolist() == ["ab12ab1", 1, 2.0, "jax", "CPU", 2, 1, 3]
    assert table.loc[("demo", "cohorts")].tolist() == ["–", 1, 9.5, "–", "–", "–", "–", 3]
    versions = status.versions_table(runs)
    assert versions["runs"].to_dict() == {1: 2, 2: 1}
    assert versions["versions"].to_dict() == {1: "keras 3.1, numpy 2.0", 2: "keras 3.2"}
    assert table["set"].to_dict()[("demo-seed-1", "real")] == 2


def test_nothing_is_there(tmp_path):
    runs = status.read_runs(tmp_path / "none")
    assert len(status.runs_table(runs)) == len(status.versions_table(runs)) == 0
    assert status.disk_table(tmp_path / "none").loc["all"].tolist() == [0, 0]
    assert len(status.benchmarks_table(tmp_path)) == 0


def test_disk_counts_what_is_kept(tmp_path):
    folder = put(tmp_path, "demo/unet-cap/fold-0", files={"per_image.csv": "a", "overlays.npz": "b"})
    (folder / "per_image.csv").write_bytes(b"x" * 500_000)
    (folder / "overlays.npz").write_bytes(b"x" * 1_000_000)
    for name in ("weights.npz", "checkpoint-9.npz", ".snapshot-1.npz", "log.txt"):
        (folder / name).write_bytes(b"x" * 10**6)
    table = status.disk_table(tmp_path)
    assert table.loc["demo"].tolist() == table.loc["all"].tolist() == [3, 1.5]


def test_pages_without_a_time_have_a_dash(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "TIMES", tmp_path / "page-seconds.json")
    boxes.keep_page_seconds({"unet": 12})
    assert status.pages_table(["unet", "sifa"])["s"].to_dict() == {"unet": "15", "sifa": "–"}


def test_benchmarks_say_on_what_and_how_many_targets_were_met(tmp_path):
    machine = {"date": "2026-01-02", "usable_cores": 4, "memory_gib": 15.6, "device": "GPU"}
    rows = [{"name": "a", "met": True}, {"name": "b", "met": False}, {"name": "c"}]
    (tmp_path / "sifa.json").write_text(json.dumps({"machine": machine, "quantities": rows}))
    remote = {"machine": machine, "computed_on": machine | {"usable_cores": 8}, "quantities": rows[2:]}
    (tmp_path / "unet.json").write_text(json.dumps(remote))
    table = status.benchmarks_table(tmp_path)
    assert table.loc["sifa"].tolist() == ["2026-01-02", "GPU", 4, "16 GiB", 3, "1 of 2"]
    assert table.loc["unet", ["cores", "targets met"]].tolist() == [8, "–"]
