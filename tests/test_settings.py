"""Settings and presets."""

import struct
import zlib

import pytest

from lusbook.errors import LusbookError
from lusbook.settings import (
    PRESETS,
    PUBLISHED_CODE,
    REMARK,
    STATED,
    Settings,
    chapter_settings,
    is_preset,
    make_settings,
    settings_table,
)
from tests.helpers import write_manifest


@pytest.mark.parametrize("preset", [path.stem for path in PRESETS.glob("*.yaml")])
def test_every_preset_is_valid_and_names_itself(preset):
    settings = make_settings(preset)
    assert settings.preset == preset
    assert is_preset(settings)


def test_the_paper_preset_is_the_defaults():
    assert make_settings("paper") == Settings()


def test_the_papers_values():
    s = Settings()
    assert (s.unet_dropout, s.unet_learning_rate, s.unet_epochs, s.unet_batch_size) == (0.5, 0.005, 250, 16)
    assert (s.fine_tune_epochs, s.fine_tune_learning_rate) == (50, 0.0005)
    assert (s.sifa_iterations, s.sifa_batch_size) == (10_000, 12)
    assert (s.sifa_learning_rate, s.sifa_segmenter_learning_rate) == (0.0002, 0.001)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_sise": 64}, "unknown setting 'image_sise'; did you mean 'image_size'?"),
        ({"image_sise": None}, "unknown setting 'image_sise'; did you mean 'image_size'?"),
        ({"image_size": 100}, "setting 'image_size': input should be a multiple of 8, received 100"),
        ({"unet_dropout": 1.5}, "setting 'unet_dropout': input should be less than 1, received 1.5"),
        ({"sifa_updates": "both"}, "'sequential' or 'simultaneous', received 'both'"),
        ({"sifa_iterations": "many"}, "setting 'sifa_iterations': .*integer.*received 'many'"),
        ({"preset": "../mine"}, "setting 'preset': .*pattern"),
        ({"cohorts": "~nobody-of-this-name/a.csv"}, "setting 'cohorts': expected 'phantom' or a path, "),
        ({"cohorts": "x" * 5000}, "setting 'cohorts': expected 'phantom' or a path, .*too long"),
        ({f"x{k}": 1 for k in range(1000)}, "(unknown setting 'x[0-9]+'(; )?){5}$"),
    ],
)
def test_a_bad_setting_is_named(overrides, message):
    with pytest.raises(LusbookError, match=message):
        make_settings("demo", **overrides)


def test_a_preset_whose_name_is_too_long_is_named():
    with pytest.raises(LusbookError, match="preset 'xxx.*: no file .*; expected one of demo, "):
        make_settings("x" * 5000)


def test_a_preset_with_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: mine\nwidth: 2\n")
    with pytest.raises(LusbookError, match=r"mine\.yaml.*unknown setting 'width'"):
        make_settings(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just words"])
def test_a_preset_that_is_no_mapping(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(LusbookError, match=r"mine\.yaml"):
        make_settings(path)


def test_a_preset_cannot_name_a_folder_elsewhere(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: ../elsewhere\n")
    with pytest.raises(LusbookError, match="setting 'preset'"):
        make_settings(path)


def test_a_missing_preset_lists_the_known_ones():
    with pytest.raises(LusbookError, match="'huge'.*demo, paper, small, smoke"):
        make_settings("huge")


def test_chapter_parameters():
    variables = {
        "preset": "demo",
        "results": "",
        "seed": None,
        "image_size": 96,
        "_private": 1,
        "In": [""],
        "np": pytest,
    }
    settings = chapter_settings(variables)
    assert settings.image_size == 96
    assert settings.seed == 0
    with pytest.raises(LusbookError, match="unknown setting 'epochs'"):
        chapter_settings({"preset": "demo", "epochs": 3})


def test_table_has_every_setting_with_its_meaning():
    table = settings_table(make_settings("demo"))
    assert list(table.index) == list(Settings.model_fields)
    assert table["meaning"].str.len().min() > 5


def test_table_says_where_each_default_comes_from():
    table = settings_table(make_settings("demo"), ("unet_", "sifa_", "image_size", "augment_"))
    assert table.loc["unet_dropout"].tolist()[:3] == ["0.1", "0.5", "the paper"]
    assert table.loc["sifa_pool_size", "from"] == table.loc["image_size", "from"] == "SIFA's code"
    assert table.loc["augment_shift", "from"] == "customary" and table.loc["sifa_snapshots", "from"] == "this book"
    assert not table["meaning"].str.contains("open|not in the paper").any()


def test_what_a_description_calls_open_is_not_called_stated():
    assert set(STATED) | set(PUBLISHED_CODE) <= set(Settings.model_fields) and not set(STATED) & set(PUBLISHED_CODE)
    remarked = {name for name, field in Settings.model_fields.items() if REMARK.search(field.description)}
    assert len(remarked) > 5 and not remarked & set(STATED)


def test_a_manifest_with_nul_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"image,mask,patient,cohort\na\0.png,,p,covid\n")
    with pytest.raises(LusbookError, match="setting 'cohorts': .*NUL in it, received '.*manifest.csv'"):
        make_settings("demo", cohorts=str(tmp_path / "manifest.csv"))


def test_a_manifest_of_very_long_pictures_or_an_odd_column_is_refused_before_one_is_unpacked(tmp_path):
    path = write_manifest(tmp_path, 16, 3, 1)
    picture = next(tmp_path.glob("*-mask.png"))
    good = picture.read_bytes()  # its header is 25 bytes after the eight of every PNG; of several, the last one counts
    for sides, refused in (((8192, 1), False), ((16, 8193), True), ((32767, 16), True)):
        header = b"IHDR" + struct.pack(">II", *sides) + good[24:29]
        picture.write_bytes(good[:33] + good[8:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:])
        if not refused:
            assert make_settings("demo", cohorts=str(path)).cohorts == str(path)
            continue
        with pytest.raises(
            LusbookError, match=f"{picture.name}: expected at most 8192 px a side, received {max(sides)}"
        ):
            make_settings("demo", cohorts=str(path))
    path.write_text("image,mask,patient,cohort\n../outside.png,/etc/a.png,p,covid\n")  # not looked at
    assert make_settings("demo", cohorts=str(path)).cohorts == str(path)
    path.write_text(f"image,mask\n{'x' * 200_000},\n")
    with pytest.raises(LusbookError, match="manifest.csv: not readable as CSV"):
        make_settings("demo", cohorts=str(path))
    path.write_text("\nimage,mask,patient,cohort, dask\na.png,,p,covid,\n")
    with pytest.raises(LusbookError, match="manifest.csv: expected columns of other names, received 'dask'"):
        make_settings("demo", cohorts=str(path))


def test_keys_of_a_preset_are_names(tmp_path):
    (tmp_path / "mine.yaml").write_text("1: 2\n")
    with pytest.raises(LusbookError, match=r"mine.yaml: expected a mapping of settings, received {1: 2}"):
        make_settings(tmp_path / "mine.yaml")
