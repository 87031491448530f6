"""How cost and memory grow with images, what many runs take beside themselves, and what faults did, from benchmarks."""

import numpy as np
import pandas as pd

from lusbook.performance import machine_of, significant
from lusbook.tables import NO_VALUE


def measured_parts(content):
    """Cost and memory of each part at each number of images.

    Parameters
    ----------
    content : dict
        Of the benchmark ``scaling``.

    Returns
    -------
    parts : pandas.DataFrame
        One row a part and number: part, ``asked``, ``images`` (fewer where time was over), ``seconds`` (an image; NaN
        for what was not timed), ``memory`` (peak of the process, GiB).
    """
    rows = pd.DataFrame(content["quantities"])
    order = {name: place for place, name in enumerate(dict.fromkeys(rows["part"]))}
    key = ["part", "asked", "images"]
    wide = rows.pivot(index=key, columns="unit", values="median").reindex(columns=["s", "GiB"])
    wide = wide.rename(columns={"s": "seconds", "GiB": "memory"}).rename_axis(columns=None).reset_index()
    return wide.iloc[np.lexsort([wide["asked"], wide["part"].map(order)])].reset_index(drop=True)


def memory_an_image(parts, name):
    """Memory that a process takes for each image, GiB: from the fewest to the most that were measured."""
    rows = parts[parts["part"] == name]
    return float(np.ptp(rows["memory"]) / np.ptp(rows["images"]))


def texts(content):
    """What the benchmark ``scaling`` comes to, as text.

    Parameters
    ----------
    content : dict or None

    Returns
    -------
    texts : dict of str
        ``asked`` and ``simulated`` (frames), ``worst`` (greatest cost of an image at the most images over that at the
        fewest) and ``part`` (whose it is), ``grown`` (GiB by which the peak of memory of a part other than ``held``
        grows at most) and ``grows`` (which part), ``kept`` and ``held`` (kB an image), ``cores``, ``processor``,
        ``memory``.
    """
    names = ("asked", "simulated", "worst", "part", "grown", "grows", "kept", "held", "cores", "processor", "memory")
    if content is None:
        return dict.fromkeys(names, "(not measured)")
    parts, machine = measured_parts(content), machine_of(content)
    timed = parts.dropna(subset="seconds").groupby("part", sort=False)
    ratios, grown = timed["seconds"].last() / timed["seconds"].first(), timed["memory"].last() - timed["memory"].first()
    frames = parts[parts["part"] == "phantom"].iloc[-1]
    values = (
        *(f"{frames[key]:,}" for key in ("asked", "images")),
        *(significant(ratios.max()), ratios.idxmax(), significant(grown.max()), grown.idxmax()),
        *(significant(memory_an_image(parts, name) * 2**30 / 1e3) for name in ("tables", "held")),
        *(str(machine[key]) for key in ("usable_cores", "processor", "memory_gib")),
    )
    return dict(zip(names, values, strict=True))


def parts_table(parts):
    """Cost and memory: one row a part and number of images; what was not timed has its memory alone.

    Parameters
    ----------
    parts : pandas.DataFrame
        As :func:`measured_parts` returns it.

    Returns
    -------
    table : pandas.DataFrame of str
    """
    first = parts.groupby("part", sort=False)["seconds"].transform("first")
    columns = {"ms an image": 1000 * parts["seconds"], "times the fewest": parts["seconds"] / first}
    table = pd.DataFrame({"images": parts["images"].map("{:,}".format)})
    for name, values in columns.items():
        table[name] = values.map(significant, na_action="ignore").fillna(NO_VALUE)
    table["peak memory, GiB"] = parts["memory"].map(significant)
    return table.set_axis(parts["part"], axis=0).rename_axis(None)


def runs_table(content):
    """Seconds of the benchmark ``many_runs`` as text, and for each run."""
    rows = content["quantities"]
    table = {
        "s": [significant(row["median"]) for row in rows],
        "ms a run": [significant(1000 * row["median"] / row["runs"]) for row in rows],
    }
    return pd.DataFrame(table, index=[row["name"].partition(": ")[2] for row in rows])


def kills_table(content):
    """Quantities of the benchmark ``random_kills`` as text."""
    rows = content["quantities"]
    texts = [f"{significant(row['median'])} {row['unit']}".rstrip() for row in rows]
    return pd.DataFrame({"": texts}, index=[row["name"] for row in rows])


def inputs_table(content):
    """What became of the inputs of the fuzz: one row a reader, and one for all.

    Parameters
    ----------
    content : dict
        Of the benchmark ``fuzz``.

    Returns
    -------
    table : pandas.DataFrame of str
        Inputs, those that gave a result, that were refused by the error that names the file, and that were mishandled.
    """
    rows = pd.DataFrame(content["quantities"])
    rows[["reader", "kind"]] = rows["name"].str.rsplit(", ", n=1).tolist()
    wide = rows.pivot(index="reader", columns="kind", values="median").loc[list(dict.fromkeys(rows["reader"]))]
    wide.loc["all"] = wide.sum()
    wide = wide[["inputs", "result", "refused", "mishandled"]].rename(columns={"result": "read"})
    return wide.rename_axis(index=None, columns=None).map("{:,.0f}".format)
