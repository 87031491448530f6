"""Settings: every number that can change a result, with the paper's values as defaults."""

import difflib
import os
import re
import reprlib
from pathlib import Path
from typing import Literal

import pandas as pd
import pydantic

from lusbook.errors import LusbookError
from lusbook.formats import check_manifest, parse_yaml, read_bytes

PROJECT = Path(__file__).resolve().parents[1]
PRESETS = PROJECT / "data" / "presets"
IPYTHON = {"In", "Out", "exit", "quit", "open"}  # names that every notebook holds

#: Settings whose default the paper states.
STATED = ("unet_width", "unet_dropout", "unet_batch_size", "unet_epochs", "unet_learning_rate")
STATED += ("fine_tune_epochs", "fine_tune_learning_rate")
STATED += ("sifa_batch_size", "sifa_iterations", "sifa_learning_rate", "sifa_segmenter_learning_rate")
#: Settings whose default is that of SIFA's published code.
PUBLISHED_CODE = ("image_size", "sifa_width", "sifa_updates", "sifa_pool_size")
REMARK = re.compile(r" \((open|not in the paper)\)$")  # in a description, of where the default comes from


class Settings(pydantic.BaseModel):
    """Everything that can change a number.

    The defaults are the preset ``paper``: what the paper states (:data:`STATED`, sections
    2.1 to 2.3); what it leaves open takes the value of SIFA's published code
    (:data:`PUBLISHED_CODE`) or, failing that, a customary one, marked *open*; the rest is
    this project's own. A *preset* is a YAML file of these keys.

    An unknown key or an impossible value is a ``ValidationError`` of pydantic;
    :func:`load_preset` and :func:`make_settings` turn it into one that says what was
    expected (:class:`lusbook.errors.LusbookError`).
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=False)

    preset: str = pydantic.Field(
        "paper", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name under which results are kept"
    )
    cohorts: str = pydantic.Field("phantom", description="'phantom', or the path of a manifest CSV of your own images")
    seed: int = pydantic.Field(0, ge=0, description="seed of weights, batches, augmentation and the reduced subset")
    image_size: int = pydantic.Field(
        256, ge=16, multiple_of=8, description="side of the square network input, px (open)"
    )
    threshold: float = pydantic.Field(0.5, gt=0, lt=1, description="probability above which a pixel is B-line (open)")
    precision: Literal["float32", "bfloat16"] = pydantic.Field(
        "float32", description="arithmetic of the convolutions; weights and losses stay float32"
    )
    devices: int = pydantic.Field(1, ge=1, description="devices of one machine that share each batch (JAX)")

    phantom_seed: int = pydantic.Field(0, ge=0, description="seed of the simulated cohorts")
    phantom_scanner: Literal["butterfly", "lumify"] = pydantic.Field(
        "butterfly", description="device that the simulated cohorts imitate"
    )
    covid_diversity: float = pydantic.Field(0.3, ge=0, le=1, description="variability of simulated COVID-19 images")
    cap_diversity: float = pydantic.Field(0.8, ge=0, le=1, description="variability of simulated CAP images")
    covid_consistency: float = pydantic.Field(0.9, ge=0, le=1, description="consistency of simulated COVID-19 labels")
    cap_consistency: float = pydantic.Field(0.5, ge=0, le=1, description="consistency of simulated CAP labels")
    cap_gap: float = pydantic.Field(
        0.3, ge=0, le=1, description="how far simulated CAP images lie from COVID-19 images in appearance"
    )
    phantom_test_frames: int = pydantic.Field(
        10, ge=0, description="frames of each of the 60 more patients of either kind whom networks are only tested on"
    )

    augment_rotation: float = pydantic.Field(15.0, ge=0, le=180, description="largest rotation, degrees (open)")
    augment_shift: float = pydantic.Field(0.1, ge=0, lt=1, description="largest shift, share of the side (open)")
    augment_scale: float = pydantic.Field(0.1, ge=0, lt=1, description="largest change of scale, share (open)")
    augment_intensity: float = pydantic.Field(
        0.0,
        ge=0,
        le=1,
        description="strength of changes of contrast, gain, depth gain and noise (not in the paper)",
    )

    unet_width: float = pydantic.Field(1.0, gt=0, description="factor on the U-Net's 16/32/64/128 channels")
    unet_dropout: float = pydantic.Field(0.5, ge=0, lt=1, description="dropout rate after each batch normalisation")
    unet_batch_size: int = pydantic.Field(16, ge=1, description="images per U-Net batch")
    unet_epochs: int = pydantic.Field(250, ge=1, description="epochs of U-Net training")
    unet_learning_rate: float = pydantic.Field(0.005, gt=0, description="Adam step size of U-Net training")
    unet_iterations: int | None = pydantic.Field(None, ge=1, description="iterations in place of unet_epochs")
    fine_tune_epochs: int = pydantic.Field(50, ge=1, description="epochs of U-Net fine-tuning")
    fine_tune_learning_rate: float = pydantic.Field(0.0005, gt=0, description="Adam step size of fine-tuning")
    fine_tune_iterations: int | None = pydantic.Field(None, ge=1, description="iterations in place of fine_tune_epochs")

    unet_snapshots: int = pydantic.Field(
        20, ge=0, description="points of the learning curve of a U-Net (not in the paper)"
    )

    sifa_width: float = pydantic.Field(1.0, gt=0, description="factor on every channel count of SIFA")
    sifa_batch_size: int = pydantic.Field(12, ge=1, description="images of each domain per SIFA batch")
    sifa_iterations: int = pydantic.Field(10_000, ge=1, description="SIFA iterations")
    sifa_learning_rate: float = pydantic.Field(
        2e-4, gt=0, description="Adam step size of generator, decoder, discriminators"
    )
    sifa_segmenter_learning_rate: float = pydantic.Field(
        1e-3, gt=0, description="Adam step size of encoder and segmenters"
    )
    sifa_updates: Literal["sequential", "simultaneous"] = pydantic.Field(
        "sequential", description="seven steps one after the other, or all from one forward pass"
    )
    sifa_pool_size: int = pydantic.Field(50, ge=1, description="batches each image pool holds")
    sifa_average_decay: float = pydantic.Field(
        0.999, ge=0, lt=1, description="decay of the moving average of weights, per iteration (not in the paper)"
    )
    sifa_snapshots: int = pydantic.Field(
        20, ge=1, description="points of SIFA's learning curve, and snapshots to choose from (not in the paper)"
    )

    control_iterations: int = pydantic.Field(
        1500, ge=1, description="SIFA iterations of the controls (not in the paper)"
    )
    real_iterations: int | None = pydantic.Field(
        None, ge=1, description="iterations of the U-Net that real clips are shown to, in place of unet_epochs"
    )

    @pydantic.field_validator("cohorts")
    @classmethod
    def _can_be_a_path(cls, value):
        path = Path(value)
        try:
            if path.expanduser().is_file():
                check_manifest(path)
        except (OSError, RuntimeError, ValueError, LusbookError) as error:  # too long, of no such user, NUL
            raise ValueError(f"expected 'phantom' or a path, {getattr(error, 'strerror', None) or error}") from None
        return value


def load_preset(preset):
    """Read a preset.

    Parameters
    ----------
    preset : str or Path
        The name of a preset of the project, or the path of a YAML file of settings.

    Returns
    -------
    values : dict

    Raises
    ------
    LusbookError
        When there is no such preset, or it is not a YAML mapping.
    """
    path = PRESETS / f"{preset}.yaml"
    if str(preset).endswith((".yaml", ".yml")):
        path = Path(preset)
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.yaml")))
        raise LusbookError(f"preset {str(preset)!r}: no file {path}; expected one of {known}, or a .yaml file")
    values = parse_yaml(path, read_bytes(path))
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise LusbookError(f"{path}: expected a mapping of settings, received {reprlib.repr(values)}")
    return values


def make_settings(preset="paper", /, **overrides):
    """Settings of a preset with some values replaced.

    Parameters
    ----------
    preset : str or Path
    **overrides
        Settings by name; ``None`` keeps the preset's value.

    Returns
    -------
    settings : Settings

    Raises
    ------
    LusbookError
        On an unknown name or an impossible value; says which, and what was expected.

    Examples
    --------
    >>> make_settings("paper").unet_learning_rate
    0.005
    >>> make_settings("demo", image_size=100)
    Traceback (most recent call last):
    ...
    lusbook.errors.LusbookError: preset 'demo': setting 'image_size': input should be a multiple of 8, received 100
    """
    fields = Settings.model_fields  # a name that is none is refused whatever its value
    values = load_preset(preset) | {k: value for k, value in overrides.items() if value is not None or k not in fields}
    try:
        return Settings(**values)
    except pydantic.ValidationError as error:
        raise LusbookError(f"preset {str(preset)!r}: " + "; ".join(_explain(e) for e in error.errors()[:5])) from error


def _explain(error):
    """One validation error in words."""
    name = ".".join(str(part) for part in error["loc"])[:80]
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown setting {name!r}{hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"setting {name!r}: {message}, received {reprlib.repr(error['input'])}"


def chapter_settings(variables, *own):
    """Settings of a chapter, from the variables that its parameters cell and papermill defined.

    Called directly after the parameters cell. A parameter that is ``None`` keeps the preset's value.

    Parameters
    ----------
    variables : dict
        The chapter's ``globals()``.
    *own : str
        Names of parameters that are the chapter's own, beside ``results``.

    Returns
    -------
    settings : Settings

    Raises
    ------
    LusbookError
        On a parameter that is not a setting, or has an impossible value.
    """
    plain = (str, int, float, bool, list, dict, type(None))
    other = {*IPYTHON, "results", *own}
    given = {
        name: value
        for name, value in variables.items()
        if not name.startswith("_") and name not in other and isinstance(value, plain)
    }
    preset = given.pop("preset", "demo")
    return make_settings(preset, **given)


def is_preset(settings):
    """Whether the settings are exactly those of the preset that they name."""
    try:
        return settings == make_settings(settings.preset)
    except LusbookError:
        return False


def settings_table(settings, prefixes=()):
    """Settings as a table, those that start with ``prefixes``, or all.

    Columns: the value here, that of the preset ``paper``, where the latter comes from, and what the setting means.
    """

    def text(value):
        return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    rows = {
        name: {
            "here": text(getattr(settings, name)),
            "preset paper": text(field.default),
            "from": default_from(name),
            "meaning": REMARK.sub("", field.description),
        }
        for name, field in Settings.model_fields.items()
        if not prefixes or name.startswith(tuple(prefixes))
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def departures(settings):
    """Settings whose values are not the paper's; those that the paper knows nothing of, and simulated cohorts, aside.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    departures : dict of str to tuple
        By name: the value here and that of the preset ``paper``. Iterations that stand in place of epochs do so for
        both.

    Examples
    --------
    >>> departures(make_settings("paper")), departures(make_settings("paper", image_size=128, seed=1))
    ({}, {'image_size': (128, 256)})
    """
    paper, ours = make_settings("paper"), ("preset", "cohorts", "seed", "devices", "real_iterations")
    ours += tuple(
        name for name, field in Settings.model_fields.items() if field.description.endswith("(not in the paper)")
    )
    return {
        name: (value, getattr(paper, name))
        for name, value in settings
        if value != getattr(paper, name) and name not in ours and not name.startswith(("phantom_", "covid_", "cap_"))
    }


def departures_text(settings):
    """The :func:`departures` as a list in words, what the paper has in brackets.

    Examples
    --------
    >>> departures_text(make_settings("paper", image_size=128, unet_iterations=120))
    'image_size 128 (256), unet_iterations 120 (250 epochs)'
    """

    def text(name, value):
        if value is None:
            return f"{getattr(make_settings('paper'), name.replace('iterations', 'epochs'))} epochs"
        return f"{value:g}" if isinstance(value, float) else str(value)

    found = departures(settings).items()
    return ", ".join(f"{name} {text(name, here)} ({text(name, paper)})" for name, (here, paper) in found)


def default_from(name):
    """Where the default of a setting comes from, in words.

    Examples
    --------
    >>> [default_from(name) for name in ("unet_dropout", "image_size", "augment_shift", "seed")]
    ['the paper', "SIFA's code", 'customary', 'this book']
    """
    if name in STATED:
        return "the paper"
    if name in PUBLISHED_CODE:
        return "SIFA's code"
    return "customary" if Settings.model_fields[name].description.endswith("(open)") else "this book"
