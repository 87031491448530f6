"""Downloads of public recordings: pinned versions, checked by hash, after their licence was accepted.

``data/sources/NAME.csv`` is the registry of a source: every file with its SHA-256 and size. Files whose SHA-256 is not
known are those of the repository's own list at the pinned commit, and are checked by the id that git gives a file, the
SHA-1 of its size and content.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import quote

import pandas as pd
import pooch
from pydantic import BaseModel, Field
from tqdm.auto import tqdm

from lusbook.errors import LusbookError
from lusbook.formats import checked, parse_json
from lusbook.settings import PROJECT

REGISTRIES = PROJECT / "data" / "sources"


@dataclass(frozen=True)
class Source:
    """A public source of recordings.

    Parameters
    ----------
    repository, commit : str
        On GitHub; the files come from there.
    licence, citation : str
        Shown before anything is downloaded.
    last : str
        The file that makes a folder count as a copy, so it comes last.
    listed : str, optional
        Regular expression of more files, by the repository's own list.
    """

    repository: str
    commit: str
    licence: str
    citation: str
    last: str
    listed: str = ""


SOURCES = {
    "covid-blues": Source(
        "NinaWie/COVID-BLUES",
        "1857a6fba9b8d00614f133fe8ffb7bc1f1a14f78",
        """\
is licensed CC BY-NC-ND 4.0 (https://creativecommons.org/licenses/by-nc-nd/4.0/): share whole, unmodified clips with
credit, for non-commercial purposes only; compute on them and publish numbers; do not share extracted, cropped or
annotated frames.""",
        """\
Wiedemann N et al. COVID-BLUeS - a prospective study on the value of AI in lung ultrasound analysis.
IEEE J Biomed Health Inform 2025;29(9):6301-6310. doi:10.1109/JBHI.2025.3543686""",
        "severity.csv",
    ),
    "pocus": Source(
        "Stroeber/covid19_ultrasound",
        "298046ae43762f44949c6aff4fb0bb19b0d7bfef",
        """\
is a copy of https://github.com/jannisborn/covid19_ultrasound, the POCUS collection. Each of the 86 files has a licence
of its own: CC BY 2.0 (4), CC BY 4.0 (20), CC BY-NC 4.0 (44), CC BY-NC-SA 3.0 (2), CC BY-NC-SA 4.0 (16). Give the credit
that metadata.csv names; NC: non-commercial purposes only; SA: what is made of a file goes out under its licence.""",
        """\
Born J et al. Accelerating detection of lung pathologies with explainable ultrasound image analysis.
Appl Sci 2021;11(2):672. doi:10.3390/app11020672""",
        "metadata.csv",
    ),
    "cit": Source(
        "cit-research/Lung-Ultrasound-A-B-lines-classification",
        "ef9994c34950810ac91794438bf60bd1f212d409",
        """\
is licensed MIT, copyright (c) 2024 Maroš Hliboký: share and change it; the licence and this notice go with it.""",
        """\
Benchmarking augmentation to enhance A-line and B-line classification with sparse data.
PeerJ Computer Science, article cs-3436.""",
        "LICENSE",
        r"Dataset/USG-B-lines/task_\d+/data/(.+\.(mp4|avi)|manifest\.jsonl)",
    ),
}


class _Entry(BaseModel):
    path: str
    type: str
    sha: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    size: Annotated[int, Field(ge=0)] = 0


class _Tree(BaseModel):
    tree: list[_Entry]
    truncated: bool


def find_source(name):
    """The source of a name.

    Parameters
    ----------
    name : str

    Returns
    -------
    source : Source

    Raises
    ------
    LusbookError
        Listing the known ones.
    """
    if name not in SOURCES:
        raise LusbookError(f"source {name!r} is not known; expected {', '.join(SOURCES)}")
    return SOURCES[name]


def terms(name):
    """Licence and citation of a source, to be read before it is downloaded.

    Parameters
    ----------
    name : str

    Returns
    -------
    terms : str
    """
    source = find_source(name)
    address = f"https://github.com/{source.repository} at {source.commit[:7]}"
    return f"{name}, {address},\n{source.licence}\n\nCite:\n{source.citation}"


def cache_folder(name):
    """Folder that downloads of a source go to unless another is named."""
    return Path(pooch.os_cache("lusbook")) / name


def download(name, accept_licence, folder=None, base_url=None, tree_url=None):
    """Download a source at its pinned version; what is there already is kept, so a broken download goes on.

    Of COVID-BLUES, the registry holds the 255 clips of 43 of the 63 patients, ``severity.csv`` and the licence. The
    other 107 clips are not downloaded: they remain patients that nobody tuned on.

    Parameters
    ----------
    name : str
        One of ``SOURCES``.
    accept_licence : bool
        Nothing is downloaded before the licence is accepted.
    folder : path, optional
        Where to; :func:`cache_folder` by default.
    base_url : str, optional
        Folder of the published files; GitHub's by default.
    tree_url : str, optional
        List of files as GitHub's interface gives it; GitHub's by default.

    Returns
    -------
    folder : Path

    Raises
    ------
    LusbookError
        With the licence if it is not accepted; naming the file that cannot be had or whose hash differs.
    """
    source = find_source(name)
    if not accept_licence:
        raise LusbookError(f"nothing downloaded: accept the licence first (--accept-licence).\n\n{terms(name)}")
    base_url = base_url or f"https://raw.githubusercontent.com/{source.repository}/{source.commit}/"
    tree_url = tree_url or f"https://api.github.com/repos/{source.repository}/git/trees/{source.commit}?recursive=1"
    pooch.get_logger().setLevel("WARNING")  # one progress bar in place of a line a file
    folder = Path(folder or cache_folder(name)).expanduser()
    files = _files(name, tree_url).sort_values("file", key=lambda names: names.where(names != source.last, "\uffff"))
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={row.file: row.sha256 or None for row in files.itertuples()},
        urls={row.file: base_url + quote(row.source_path) for row in files.itertuples()},
        retry_if_failed=2,
    )
    with tqdm(total=int(files["bytes"].sum()), unit="B", unit_scale=True, desc=name, mininterval=1) as progress:
        for row in files.itertuples():
            try:
                _fetch(fetcher, row.file, row.git_blob_sha1)
            except (OSError, ValueError) as error:  # no connection, not found, disk full; another hash
                raise LusbookError(f"{fetcher.get_url(row.file)}: not downloaded to {folder}: {error}") from error
            progress.update(row.bytes)
        if source.last not in set(files["file"]):
            _copy(REGISTRIES / f"{name}.csv", folder / source.last)
    return folder


def _files(name, tree_url):
    """Files of a source: file, source_path, sha256 and git_blob_sha1 (empty where not known), bytes."""
    columns = ["file", "source_path", "sha256", "git_blob_sha1", "bytes"]
    files = pd.read_csv(REGISTRIES / f"{name}.csv").reindex(columns=columns).astype(object)
    files["source_path"] = files["source_path"].fillna(files["file"])
    if pattern := SOURCES[name].listed:
        listed = [entry for entry in _listing(tree_url) if re.fullmatch(pattern, entry.path, re.IGNORECASE)]
        if not listed:
            raise LusbookError(f"{tree_url}: no file is listed like {pattern}")
        rows = [(entry.path, entry.path, "", entry.sha, entry.size) for entry in listed]
        files = pd.concat([files, pd.DataFrame(rows, columns=columns, dtype=object)])
    return files.fillna("").astype({"bytes": int})


def _listing(tree_url):
    """Files of a repository, as GitHub lists them; only those whose path stays in a folder."""
    try:
        with TemporaryDirectory() as folder:
            path = pooch.retrieve(tree_url, known_hash=None, fname="tree.json", path=folder)
            return read_listing(tree_url, Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise LusbookError(f"{tree_url}: the list of files cannot be had: {error}") from error


def read_listing(where, content):
    """Files of a repository, from GitHub's list of them.

    Parameters
    ----------
    where : str
        Names the list in errors.
    content : bytes
        JSON.

    Returns
    -------
    files : list
        Each with ``path``, ``sha`` (git's id) and ``size`` (bytes).

    Raises
    ------
    LusbookError
        If it is no such list, is cut short, or has a path that leads out of the folder.
    """
    tree = checked(where, _Tree, parse_json(where, content))
    if tree.truncated:
        raise LusbookError(f"{where}: the list of files is cut short")
    files = [entry for entry in tree.tree if entry.type == "blob"]
    for entry in files:
        parts = PurePosixPath(entry.path).parts
        if ".." in parts or entry.path.startswith("/") or re.search(r"[\\\0]|^[A-Za-z]:", entry.path):
            raise LusbookError(f"{where}: {entry.path[:200]!r}: expected paths in the repository")
    return files


def _fetch(fetcher, name, blob):
    """Fetch a file unless it is there; a git id, where there is one, is checked in place of a SHA-256."""
    path = Path(fetcher.abspath) / name
    if fetcher.registry[name] is None and path.is_file() and blob_id(path) != blob:
        path.unlink()
    fetcher.fetch(name)
    if fetcher.registry[name] is None:
        found, start = blob_id(path), path.read_bytes()[:40]
        if found != blob:
            path.unlink()
            raise ValueError(f"its hash (git id) is {found}, expected {blob}")
        if start.startswith(b"version https://git-lfs"):
            path.unlink()
            raise ValueError("the repository holds a pointer of Git LFS in place of the file; clone it with git lfs")


def blob_id(path):
    """Id that git gives a file.

    Parameters
    ----------
    path : path

    Returns
    -------
    sha : str
        40 hexadecimal digits.

    References
    ----------
    Pro Git, chapter 10.2, "Git Objects".
    """
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _copy(registry, path):
    """Put a registry, which holds the facts about its files, beside them, whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    try:
        shutil.copyfile(registry, partial)
        partial.replace(path)
    except OSError as error:
        raise LusbookError(f"{path}: cannot be written: {error.strerror}") from error
