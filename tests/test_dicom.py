"""Reading DICOM ultrasound."""

import io
import tracemalloc

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from lusbook.dicom import is_dicom, open_dicom, patient_id, stream_dicom
from lusbook.errors import LusbookError
from tests.helpers import noise, write_dicom

FRAMES = noise(3, 48)[:, :40]  # (3, 40, 48)
COLOURS = np.stack([FRAMES, FRAMES // 2, 255 - FRAMES], axis=-1)


def encoded(frames, **options):
    """Frames as Pillow writes them, in the fragments of a DICOM file."""
    files = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, **options)
        files.append(file.getvalue())
    return encapsulate(files)


@pytest.mark.parametrize("frames", [FRAMES, COLOURS], ids=["grey", "colour"])
@pytest.mark.parametrize(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless],
    ids=lambda syntax: syntax.name,
)
def test_frames_are_those_written(tmp_path, syntax, frames):
    read = np.stack(list(stream_dicom(write_dicom(tmp_path / "a.dcm", frames, syntax))))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, frames)


def test_jpeg_2000_and_jpeg_are_decoded(tmp_path):
    data = encoded(FRAMES, format="JPEG2000", irreversible=False)
    path = write_dicom(tmp_path / "a.dcm", FRAMES, uid.JPEG2000Lossless, PixelData=data)
    np.testing.assert_array_equal(np.stack(list(stream_dicom(path))), FRAMES)
    smooth = noise(2, 48, blur=(4, 4))
    data = encoded(smooth, format="JPEG", quality=95)
    path = write_dicom(tmp_path / "b.dcm", smooth, uid.JPEGBaseline8Bit, PixelData=data)
    assert np.abs(np.stack(list(stream_dicom(path))) - smooth.astype(int)).max() < 8


def test_colours_of_jpeg_are_converted(tmp_path):
    flat = np.full((1, 16, 16, 3), (200, 60, 20), np.uint8)
    values = {"PixelData": encoded(flat, format="JPEG", quality=95), "PhotometricInterpretation": "YBR_FULL_422"}
    (read,) = stream_dicom(write_dicom(tmp_path / "a.dcm", flat, uid.JPEGBaseline8Bit, **values))
    assert np.abs(read.astype(int) - flat[0]).max() < 8


def test_white_that_is_low_is_turned(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FRAMES, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(np.stack(list(stream_dicom(path))), 255 - FRAMES)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_applied(tmp_path, bits):
    table = {"red": np.arange(256), "green": np.arange(256)[::-1], "blue": np.full(256, 7)}
    values = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in table.items():
        stored = entries.astype(np.uint8) if bits == 8 else (entries * 257).astype("<u2")
        values[f"{name.title()}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        values[f"{name.title()}PaletteColorLookupTableData"] = stored.tobytes()
    read = np.stack(list(stream_dicom(write_dicom(tmp_path / "a.dcm", FRAMES, **values))))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.stack([entries[FRAMES] for entries in table.values()], axis=-1))


BOX = {"RegionLocationMinX0": 8, "RegionLocationMinY0": 4, "RegionLocationMaxX1": 39, "RegionLocationMaxY1": 35}


def test_region_and_spacing_are_those_of_the_largest_tissue_region(tmp_path):
    small = {"RegionLocationMaxX1": 5, "PhysicalDeltaX": 0.05, "PhysicalDeltaY": 0.05}
    trace = {"RegionSpatialFormat": 2}  # M-mode
    path = write_dicom(tmp_path / "a.dcm", FRAMES, regions=[trace, small, BOX])
    region, spacing = open_dicom(path)
    assert region == (slice(4, 36), slice(8, 40))  # both corners belong to it
    assert spacing == pytest.approx(0.2)


@pytest.mark.parametrize(
    "changed, spacing",
    [
        ({"PhysicalDeltaX": -0.02}, 0.2),  # y grows upwards, or x to the left
        ({"PhysicalDeltaX": 0.03}, None),
        ({"PhysicalUnitsXDirection": 4}, None),  # seconds
        ({"PhysicalDeltaX": 0.0, "PhysicalDeltaY": 0.0}, None),
        ({"PhysicalDeltaX": float("nan"), "PhysicalDeltaY": float("nan")}, None),
        ({"PhysicalDeltaX": float("inf"), "PhysicalDeltaY": float("inf")}, None),
    ],
)
def test_spacing_is_that_of_square_pixels_or_none(tmp_path, changed, spacing):
    _, found = open_dicom(write_dicom(tmp_path / "a.dcm", FRAMES, regions=[changed]))
    assert found == (spacing if spacing is None else pytest.approx(spacing))


def test_without_regions_all_of_the_image_counts(tmp_path):
    assert open_dicom(write_dicom(tmp_path / "a.dcm", FRAMES)) == ((slice(0, 40), slice(0, 48)), None)


def test_region_is_cut_to_the_image(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FRAMES, regions=[BOX | {"RegionLocationMaxX1": 500}])
    assert open_dicom(path)[0] == (slice(4, 36), slice(8, 48))


JANE = "DOE^JANE"
BAD = {
    "colour flow": ({"regions": [{}, {"RegionDataType": 2}]}, "colour Doppler: a region of colour flow"),
    "spectrum": ({"regions": [{}, {"RegionDataType": 3}]}, "colour Doppler: a region of PW Doppler"),
    "colour data": ({"UltrasoundColorDataPresent": 1}, "colour Doppler: ultrasound colour data present"),
    "no tissue": ({"regions": [{"RegionSpatialFormat": 2}]}, "none of its 1 regions is 2-D tissue"),
    "region outside": ({"regions": [BOX | {"RegionLocationMinX0": 99}]}, "its tissue region lies outside the image"),
    "16 bits": ({"BitsStored": 12, "BitsAllocated": 16}, "expected unsigned pixels of 8 bits, received 12 bits"),
    "signed": ({"PixelRepresentation": 1}, "received 8 bits, signed"),
    "CT": ({"Modality": "CT"}, "not ultrasound"),
    "a name for modality": ({"Modality": "DOE JANE"}, "not ultrasound"),
    "zero frames": ({"NumberOfFrames": 0}, "zero frames"),
    "JPEG-LS": (
        {"syntax": uid.JPEGLSLossless, "PixelData": encapsulate([b"1234"])},
        "transfer syntax JPEG-LS Lossless",
    ),
    "video": ({"syntax": uid.MPEG4HP41, "PixelData": encapsulate([b"1234"])}, "transfer syntax MPEG-4"),
    "huge": ({"Rows": 60000, "Columns": 60000}, "expected at most 16777216 pixels, received 60000 x 60000"),
    "no image": ({"Rows": None}, "DICOM without an image: Ultrasound Multi-frame Image Storage"),
}


@pytest.mark.parametrize("values, words", BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, values, words):
    path = write_dicom(tmp_path / "bad.dcm", FRAMES, PatientName=JANE, **values)
    with pytest.raises(LusbookError, match=words) as caught:
        open_dicom(path)
    assert str(path) in str(caught.value) and "DOE" not in str(caught.value)


def test_encrypted_files_are_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\x30\x82" + bytes(999))
    with pytest.raises(LusbookError, match=r"a\.dcm: not a DICOM file, or an encrypted one"):
        open_dicom(tmp_path / "a.dcm")
    hidden = pydicom.Dataset()
    hidden.EncryptedContent = b"1234"
    path = write_dicom(tmp_path / "b.dcm", FRAMES, Rows=None, PixelData=None, EncryptedAttributesSequence=[hidden])
    with pytest.raises(LusbookError, match=r"b\.dcm: DICOM without an image.*\(encrypted attributes\)"):
        open_dicom(path)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("kept, words", [(0.9, "decoded [0-2] of 3 frames"), (0.3, "")], ids=["late", "early"])
def test_truncated_files_say_how_much_was_decoded(tmp_path, syntax, kept, words):
    content = write_dicom(tmp_path / "a.dcm", FRAMES, syntax).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(LusbookError, match=rf"a\.dcm: not a whole DICOM file.*{words}"):
        list(stream_dicom(tmp_path / "a.dcm"))


def test_files_without_pixels_or_with_fewer_than_said_are_refused(tmp_path):
    with pytest.raises(LusbookError, match="decoded 0 of 3 frames"):
        list(stream_dicom(write_dicom(tmp_path / "a.dcm", FRAMES, PixelData=None)))
    with pytest.raises(LusbookError, match=r"decoded \d of 4 frames"):
        list(stream_dicom(write_dicom(tmp_path / "b.dcm", FRAMES, NumberOfFrames=4)))


def test_errors_quote_no_value_of_the_header(tmp_path, capfd, caplog):
    path = write_dicom(tmp_path / "a.dcm", FRAMES, NumberOfFrames=12345678, PatientName=JANE)
    path.write_bytes(path.read_bytes().replace(b"12345678", JANE.encode()))
    for read in (open_dicom, lambda path: list(stream_dicom(path))):
        with pytest.raises(LusbookError) as caught:
            read(path)
        assert "DOE" not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__  # nor does a traceback
    assert "DOE" not in "".join([*capfd.readouterr(), caplog.text])


def test_broken_headers_end_in_one_error(tmp_path):
    """Any byte may be damaged: what is read is pixels or an error that names the file."""
    content = write_dicom(tmp_path / "a.dcm", FRAMES[:1], regions=[BOX]).read_bytes()
    header, rng, refused = len(content) - FRAMES[0].size, np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(132, header, 3):
            damaged[at] = rng.integers(256)
        (tmp_path / "a.dcm").write_bytes(damaged)
        try:
            region, _ = open_dicom(tmp_path / "a.dcm")
            for frame in stream_dicom(tmp_path / "a.dcm"):
                assert frame[region].dtype == np.uint8
        except LusbookError as error:
            assert "a.dcm" in str(error)
            refused += 1
    assert 20 < refused < 290


def test_patients_are_told_apart(tmp_path):
    assert patient_id(write_dicom(tmp_path / "a.dcm", FRAMES, PatientID=" 0042 ")) == "0042"
    assert patient_id(write_dicom(tmp_path / "a.dcm", FRAMES, PatientID=None)) == ""
    (tmp_path / "a.dcm").write_bytes(b"")
    with pytest.raises(LusbookError, match="not a DICOM file"):
        patient_id(tmp_path / "a.dcm")


def test_dicom_is_known_by_its_mark(tmp_path):
    assert is_dicom(write_dicom(tmp_path / "IM0001", FRAMES))
    (tmp_path / "note").write_text("DICM is not at its place")
    assert not is_dicom(tmp_path / "note")


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda syntax: syntax.name)
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, syntax):
    peaks = []
    for n in (20, 400):
        path = write_dicom(tmp_path / f"{n}.dcm", noise(1, 64).repeat(n, axis=0), syntax)
        tracemalloc.start()
        assert sum(1 for _ in stream_dicom(path)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000  # 400 frames are 1.6 MB
