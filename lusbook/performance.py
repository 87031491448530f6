"""Tables of what the scripts in ``benchmarks/`` measured, from their JSON files."""

import json
import re
from pathlib import Path

import pandas as pd

from lusbook.settings import PROJECT
from lusbook.tables import NO_VALUE

WORDS = {"unet": "U-Net", "sifa": "SIFA", "keras": "Keras", "torch": "PyTorch", "openvino": "OpenVINO"}
WORDS |= {"onnx": "ONNX", "onnxruntime": "ONNX Runtime", "per_image": "all metrics"}
BENCHMARKS = PROJECT / "data" / "benchmarks"


def load_benchmark(name, folder=""):
    """What one of the scripts in ``benchmarks/`` measured.

    Parameters
    ----------
    name : str
        Of the script.
    folder : path, optional
        ``data/benchmarks`` of the project by default.

    Returns
    -------
    content : dict or None
        ``quantities``, ``machine``, ``quick`` and more; None when it was not measured.
    """
    path = Path(folder or BENCHMARKS) / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def significant(value, digits=3):
    """A number with so many significant digits, as text.

    Examples
    --------
    >>> significant(0.012345), significant(1303.2), significant(2.04e-6)
    ('0.0123', '1303', '2.0e-06')
    """
    if 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def benchmark_median(content, pattern):
    """Medians of a benchmark's quantities as text: one, the range of several, or that there is none.

    Parameters
    ----------
    content : dict or None
        As :func:`load_benchmark` returns it.
    pattern : str
        Regular expression that the names of the quantities contain.
    """
    rows = content["quantities"] if content else []
    found = sorted(row["median"] for row in rows if re.search(pattern, row["name"]))
    ends = list(dict.fromkeys(significant(value) for value in found[:1] + found[-1:]))
    return " to ".join(ends) or "(not measured)"


def readable(name):
    """The name of a quantity as a reader knows its parts, which the scripts call as code does.

    Examples
    --------
    >>> readable("unet 64 px step, loading"), readable("64 px step, torch channels_last")
    ('U-Net 64 px step, loading', '64 px step, PyTorch channels last')
    """
    return re.sub(rf"\b({'|'.join(WORDS)})\b", lambda found: WORDS[found[0]], name).replace("_", " ")


def benchmark_table(content, pattern=""):
    """Quantities of a benchmark as text.

    Parameters
    ----------
    content : dict
        As :func:`load_benchmark` returns it.
    pattern : str
        Regular expression that the names of the shown quantities contain; all by default.

    Returns
    -------
    table : pandas.DataFrame of str
        One row a quantity: median, range over the repeats, their number; where there is a target, that, the median's
        quotient with it, and whether it was met.
    """
    rows = pd.DataFrame(content["quantities"]).set_index("name").rename_axis(None)
    rows = rows[rows.index.str.contains(pattern)]
    targets = rows.reindex(columns=["target", "bound", "met"])
    table = pd.DataFrame(index=rows.index)
    table["median"] = [
        f"{significant(value)} {unit}".strip() for value, unit in zip(rows["median"], rows["unit"], strict=True)
    ]
    table["min – max"] = [
        f"{significant(low)} – {significant(high)}" for low, high in zip(rows["min"], rows["max"], strict=True)
    ]
    table["repeats"] = rows["repeats"]
    if targets["target"].notna().any():
        known = targets["target"].notna()
        goals = [f"{bound} {goal:g}" for bound, goal in zip(targets["bound"], targets["target"], strict=True)]
        table["target"] = pd.Series(goals, rows.index).where(known, NO_VALUE)
        quotients = (rows["median"] / targets["target"]).map(significant, na_action="ignore")
        table["median / target"] = quotients.where(known, NO_VALUE)
        table["met"] = targets["met"].map({True: "yes", False: "no"}).where(known, NO_VALUE)
    return table.rename(index=readable)


def fans_table(content):
    """On how many real clips the fan is found: one row a source, columns as the benchmark ``fans`` names them.

    Parameters
    ----------
    content : dict
        Of that benchmark.
    """
    rows = pd.DataFrame(content["quantities"])
    parts = rows["name"].str.extract(r"^(?P<source>.+), (?P<what>[^,]+)$")
    table = rows.assign(**parts).pivot(index="source", columns="what", values="median").astype(int)
    return table[list(dict.fromkeys(parts["what"]))].rename_axis(index=None, columns=None)


def machine_of(content):
    """The machine that a benchmark's quantities were computed on, which may be another than wrote its file."""
    return content.get("computed_on") or content.get("options", {}).get("computed_on") or content["machine"]


def machines_table(contents):
    """What computed: one row for benchmarks of the same machine, versions and day.

    Parameters
    ----------
    contents : dict of dict
        By benchmark, as :func:`load_benchmark` returns them.
    """
    rows = {}
    for name, content in contents.items():
        machine = machine_of(content)
        packages = {package.removesuffix("-cpu"): text for package, text in machine["versions"].items()}
        if content.get("torch"):
            packages["torch"] = content["torch"]["version"]
        rows[name] = {
            "processor": machine["processor"],
            "device": machine.get("device", NO_VALUE),
            "cores used": f"{machine['usable_cores']} of {machine['cores']}",
            "memory": f"{machine['memory_gib']:.0f} GiB",
            "Python": machine["python"],
            "versions": ", ".join(f"{package} {text}" for package, text in packages.items()),
            "day": machine["date"],
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    names = table.index.to_series().groupby([table[column] for column in table], sort=False).agg(", ".join)
    return table.loc[names.str.split(", ").str[0]].set_axis(names, axis=0).rename_axis(None)


def sifa_seconds(content):
    """Seconds of an iteration of SIFA, measured and at the floor.

    Parameters
    ----------
    content : dict
        Of the benchmark ``sifa``.

    Returns
    -------
    table : pandas.DataFrame
        One row a size and variant: ``size``, ``variant``, ``median``, ``min``, ``max``, ``floor``.
    """
    rows = pd.DataFrame(content["quantities"])
    parts = rows["name"].str.extract(r"^(\d+) px (iteration|floor), (\w+)$")
    rows = rows.assign(size=parts[0], kind=parts[1], variant=parts[2]).dropna(subset="kind")
    rows["size"] = rows["size"].astype(int)
    key = ["size", "variant"]
    measured, floor = (rows[rows["kind"] == kind].set_index(key) for kind in ("iteration", "floor"))
    return measured[["median", "min", "max"]].assign(floor=floor["median"]).reset_index()
