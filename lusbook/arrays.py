"""Arrays in NPZ files: nothing is allocated that the file does not hold, nothing is unpickled."""

import math
import zipfile
from pathlib import Path

import numpy as np

LARGEST = 2**30  # bytes that a smaller file may unpack to


def unpack(path):
    """Read all arrays of an NPZ file, after its sizes and checksums were checked.

    Parameters
    ----------
    path : path

    Returns
    -------
    arrays : dict of ndarray
        By name.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no such file, or a damaged one: says what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size, most = sum(member.file_size for member in members), max(LARGEST, Path(path).stat().st_size)
            if size > most:
                raise ValueError(f"unpacks to {size} bytes, expected at most {most}")
            if damaged := archive.testzip():
                raise ValueError(f"damaged: checksum of {damaged}")
            for member in members:
                _check_header(archive, member)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can raise almost anything
        raise ValueError(str(error) or type(error).__name__) from error


def _check_header(archive, member):
    """Whether an array is as large as its header says: NumPy allocates that before it reads."""
    with archive.open(member) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        expected, received = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or expected != received:
        raise ValueError(f"{member.filename}: {dtype} of shape {shape} in {received} bytes")
