"""The seven experiments of section 2.5, and the joint one of the discussion, as data."""

from typing import NamedTuple

from lusbook.errors import LusbookError

FOLDS = (0, 1, 2)


class Experiment(NamedTuple):
    """One row of Tables 1 and 2.

    Parameters
    ----------
    name : str
    method : {"unet", "sifa"}
    source : tuple of str
        Cohorts whose images and labels train it.
    target : str or None
        Cohort whose images, without labels, train it (SIFA).
    parent : str or None
        Experiment that it is fine-tuned from (U-Net).
    reduced : bool
        Whether the source is cut to the size of the target.
    """

    name: str
    method: str
    source: tuple
    target: str | None = None
    parent: str | None = None
    reduced: bool = False


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("unet-covid", "unet", ("covid",)),
        Experiment("unet-cap-then-covid", "unet", ("covid",), parent="unet-cap"),
        Experiment("unet-cap", "unet", ("cap",)),
        Experiment("unet-covid-then-cap", "unet", ("cap",), parent="unet-covid"),
        Experiment("sifa-covid-to-cap", "sifa", ("covid",), "cap"),
        Experiment("sifa-reduced-covid-to-cap", "sifa", ("covid",), "cap", reduced=True),
        Experiment("sifa-cap-to-covid", "sifa", ("cap",), "covid"),
        Experiment("unet-joint", "unet", ("covid", "cap")),
    )
}


def get_experiment(name):
    """Experiment of a name.

    Raises
    ------
    LusbookError
        When there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise LusbookError(f"experiment {name!r} is not known; expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def in_order(names=EXPERIMENTS):
    """Experiments so that a parent comes before what is fine-tuned from it.

    Examples
    --------
    >>> in_order(["unet-cap-then-covid", "unet-cap"])
    ['unet-cap', 'unet-cap-then-covid']
    """
    return sorted(names, key=lambda name: get_experiment(name).parent is not None)


def packs():
    """Experiments that share a process: a compiled step serves all their runs.

    Returns
    -------
    packs : dict of str to list of str
        A parent holds its fine-tuning, so that a failed run stops no other.

    Examples
    --------
    >>> packs()["unet-cap"]
    ['unet-cap', 'unet-cap-then-covid']
    """
    children = {name: [e.name for e in EXPERIMENTS.values() if e.parent == name] for name in EXPERIMENTS}
    return {name: [name, *children[name]] for name, e in EXPERIMENTS.items() if e.parent is None}
