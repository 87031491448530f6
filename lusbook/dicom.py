"""DICOM ultrasound: its frames, where the tissue is in them, and how large a pixel is.

Any value of a header may hold a name, so none but the calibration leaves this module, not even in a message.
"""

import logging
import math
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.pixels import apply_color_lut, iter_pixels

from lusbook.errors import LusbookError

_LOGGER = logging.getLogger("pydicom")  # its warnings quote values
_LOGGER.disabled, _LOGGER.propagate = True, False

SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,  # 8-bit frames only, see _check_pixels
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)
TISSUE = (1, 1)  # Region Spatial Format: 2-D; Region Data Type: tissue
DOPPLER = {2: "colour flow", 3: "PW Doppler", 4: "CW Doppler", 5: "Doppler", 6: "Doppler", 7: "Doppler"}
CENTIMETRES = 3  # of Physical Units X and Y Direction
LARGEST = 2**24  # px of a frame: memory is bounded
_PALETTE = [
    f"{hue}PaletteColorLookupTable{part}" for hue in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
]
_TAGS = [
    *("Modality", "Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "UltrasoundColorDataPresent", "SequenceOfUltrasoundRegions"),
    *("EncryptedAttributesSequence", *_PALETTE),
]  # all that is read of a header


def is_dicom(path):
    """Whether a file has the mark of DICOM.

    Parameters
    ----------
    path : path

    Returns
    -------
    dicom : bool
    """
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def patient_id(path):
    """Patient ID of a DICOM file: to tell patients apart in memory, never to be written.

    Parameters
    ----------
    path : path

    Returns
    -------
    patient : str
        Empty where the file has none.

    Raises
    ------
    LusbookError
        If it is no readable DICOM file.
    """
    with _no_values(path):
        return str(_read(path, ["PatientID"]).get("PatientID") or "").strip()


def open_dicom(path):
    """Look into a DICOM file: whether it can be used, and where and how large the tissue is.

    Parameters
    ----------
    path : path

    Returns
    -------
    region : tuple of slice
        Rows and columns of the 2-D tissue region, the largest if there are several; all where none are given.
    mm_per_pixel : float or None
        None where the file does not say, or pixels are not square.

    Raises
    ------
    LusbookError
        If it is no ultrasound image, or one with Doppler, of more than 8 bits, or compressed in a way that is not
        decoded here.
    """
    with _no_values(path):
        header = _read(path, _TAGS)
        _check_pixels(path, header)
        shape = header.Rows, header.Columns
        regions = header.get("SequenceOfUltrasoundRegions") or []
        kinds = [(region.get("RegionSpatialFormat"), region.get("RegionDataType")) for region in regions]
        if doppler := [DOPPLER[kind] for _, kind in kinds if kind in DOPPLER]:
            raise LusbookError(f"{path}: colour Doppler: a region of {doppler[0]}; expected B-mode alone")
        if header.get("UltrasoundColorDataPresent") == 1:
            raise LusbookError(f"{path}: colour Doppler: ultrasound colour data present; expected B-mode alone")
        if not regions:
            return (slice(0, shape[0]), slice(0, shape[1])), None
        tissue = [region for region, kind in zip(regions, kinds, strict=True) if kind == TISSUE]
        if not tissue:
            raise LusbookError(f"{path}: none of its {len(regions)} regions is 2-D tissue")
        boxes = [_box(region, shape) for region in tissue]
        areas = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in boxes]
        largest = int(np.argmax(areas))
        if not areas[largest]:
            raise LusbookError(f"{path}: its tissue region lies outside the image")
        return boxes[largest], _spacing(tissue[largest])


def stream_dicom(path):
    """Decode a DICOM file frame by frame; memory does not grow with their number.

    Parameters
    ----------
    path : path

    Yields
    ------
    frame : ndarray, shape (height, width), or (height, width, 3) in colour; uint8
        Whole, with all that is outside the tissue region.

    Raises
    ------
    LusbookError
        As :func:`open_dicom`; and if the file is truncated or corrupt (how many frames were decoded).
    """
    with _no_values(path):
        header = _read(path, _TAGS)
        _check_pixels(path, header)
        announced, kind = int(header.get("NumberOfFrames") or 1), header.PhotometricInterpretation
    decoded, frames = 0, iter_pixels(path)
    while decoded < announced:
        with _no_values(path, f", decoded {decoded} of {announced} frames"):
            frame = next(frames, None)
            if frame is None:
                raise EOFError
            if kind == "PALETTE COLOR":
                frame = apply_color_lut(frame, header)[..., :3]
                frame = frame >> 8 if frame.dtype == np.uint16 else frame
            frame = frame.astype(np.uint8)
            if kind == "MONOCHROME1":  # white is low
                frame = 255 - frame
        decoded += 1
        yield frame


@contextmanager
def _no_values(path, progress=""):
    """What pydicom says may quote the header: keep it silent, and of its errors give the kind alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except LusbookError:
            raise
        except OSError as error:
            raise LusbookError(f"{path}: cannot be read ({error.strerror or 'cut off'})") from None
        except Exception as error:  # a broken file can raise almost anything
            kind = type(error).__name__
            raise LusbookError(f"{path}: not a whole DICOM file{progress}; truncated or corrupt? ({kind})") from None


def _read(path, tags):
    try:
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            raise LusbookError(f"{path}: a deflated file, which could unpack to any size; expected one that is not")
        return pydicom.dcmread(Path(path), stop_before_pixels=True, specific_tags=tags)
    except pydicom.errors.InvalidDicomError:
        raise LusbookError(f"{path}: not a DICOM file, or an encrypted one: DICM is not at byte 128") from None


def _check_pixels(path, header):
    """Whether the pixels of a file are of a kind that is decoded here."""
    if not header.get("Rows") or not header.get("Columns"):
        kind = header.file_meta.get("MediaStorageSOPClassUID", "")
        named = f": {kind.name}" if kind and kind.name != kind else ""
        encrypted = " (encrypted attributes)" if "EncryptedAttributesSequence" in header else ""
        raise LusbookError(f"{path}: DICOM without an image{named}{encrypted}")
    if header.get("Modality") != "US":
        raise LusbookError(f"{path}: not ultrasound; expected the modality US")
    syntax = header.file_meta.TransferSyntaxUID
    if syntax not in SYNTAXES:
        named = syntax.name if syntax.is_valid else "not valid"
        raise LusbookError(f"{path}: transfer syntax {named}; expected an uncompressed one, RLE, JPEG or JPEG 2000")
    if header.BitsStored > 8 or header.PixelRepresentation:
        kind = f"{int(header.BitsStored)} bits{', signed' if header.PixelRepresentation else ''}"
        raise LusbookError(f"{path}: expected unsigned pixels of 8 bits, received {kind}")
    if header.Rows * header.Columns > LARGEST:
        raise LusbookError(f"{path}: expected at most {LARGEST} pixels, received {header.Columns} x {header.Rows}")
    if "NumberOfFrames" in header and int(header.NumberOfFrames or 0) < 1:
        raise LusbookError(f"{path}: zero frames")


def _box(region, shape):
    """Rows and columns of a region, cut to the image; both corners belong to it."""
    low = region.RegionLocationMinY0, region.RegionLocationMinX0
    high = region.RegionLocationMaxY1, region.RegionLocationMaxX1
    ends = [min(end + 1, side) for end, side in zip(high, shape, strict=True)]
    return tuple(slice(min(start, end), end) for start, end in zip(low, ends, strict=True))


def _spacing(region):
    """Millimetres a pixel; None where they are not given, or not the same across and down to 1 %."""
    units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
    across, down = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY")
    given = units == (CENTIMETRES, CENTIMETRES) and 0 < across < math.inf
    return 10 * across if given and math.isclose(across, down, rel_tol=0.01) else None
