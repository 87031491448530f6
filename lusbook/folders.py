"""Folders that are there whole or not at all."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from lusbook.errors import LusbookError


@contextmanager
def new_folder(out):
    """Fill a folder under another name, and give it its own when it is full.

    Parameters
    ----------
    out : Path
        Is not there, or empty.

    Yields
    ------
    folder : Path
        Beside ``out``; removed if filling it fails.

    Raises
    ------
    LusbookError
        If it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as partial:
            folder = Path(partial) / out.name
            folder.mkdir()
            yield folder
            os.replace(folder, out)
    except OSError as error:
        raise LusbookError(f"{out}: cannot be written ({error.strerror or error})") from error
