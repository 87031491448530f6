"""Digests of files, of the phantom's code, and of what computes."""

import ast
import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PHANTOM_CODE = ("phantom", "anatomy", "scanner", "annotator")  # what is kept of it in a cache belongs to this code
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "scipy", "pandas", "scikit-image")


def code_digest(modules):
    """Digest of what modules compute: comments, docstrings and layout do not count.

    Parameters
    ----------
    modules : sequence of str
        Names of modules or subpackages of the package.

    Returns
    -------
    digest : str
        First 16 hexadecimal digits of a SHA-256.
    """
    folder = Path(__file__).parent
    files = [file for name in modules for file in (folder / f"{name}.py", *sorted((folder / name).glob("*.py")))]
    trees = [_tree(file, file.stat().st_mtime_ns) for file in files if file.exists()]
    return short_digest(f"[{', '.join(trees)}]".encode())


@cache
def _tree(file, modified):
    """Syntax tree of a file as JSON; kept, since a grid asks hundreds of times, until the file is changed."""
    return json.dumps(_plain(ast.parse(file.read_text("utf-8"))))


def _plain(node):
    """A syntax tree as nested lists, without docstrings and empty fields, alike in all Python versions."""
    if isinstance(node, ast.AST):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
        fields = [[name, _plain(value)] for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, fields]
    return [_plain(item) for item in node] if isinstance(node, list) else repr(node)


def short_digest(data):
    """First 16 hexadecimal digits of the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def file_digest(path):
    """As :func:`short_digest`, of the bytes of a file, which are not held."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@cache
def processor():
    """Name of the processor and its widest vectors: with the same code and seed, another may round differently.

    Returns
    -------
    name : str
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name") or platform.processor() or platform.machine()
    flags = about.get("flags", "").split()
    widest = next((flag for flag in ("amx_tile", "avx512f", "avx2") if flag in flags), "")
    return f"{name} ({widest})" if widest else name


def versions(packages=PACKAGES):
    """Versions of packages, as installed; by default those that make numbers."""
    found = {package: _version(package) for package in packages}
    return {package: text for package, text in found.items() if text is not None}


@cache
def _version(package):
    """Version of a package, None where it is not installed; kept, since a grid asks hundreds of times."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
