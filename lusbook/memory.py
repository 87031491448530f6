"""Memory that runs out: what to lower, in place of a backend's account of it."""

from contextlib import contextmanager

from lusbook.errors import LusbookError

SIGNS = ("resource_exhausted", "resourceexhausted", "out of memory", "bad_alloc")
FEWER = "start fewer runs at a time (--cores, --runs-per-gpu)"


def is_exhausted(error):
    """Whether an exception says, as Python, NumPy, TensorFlow or JAX do, that memory ran out."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in SIGNS)


def advice(settings, method=""):
    """What to lower, in words.

    Parameters
    ----------
    settings : Settings
    method : str
        ``unet`` or ``sifa``; both by default.

    Examples
    --------
    >>> from lusbook.settings import make_settings
    >>> print(advice(make_settings("smoke"), "unet").partition(", or ")[0])
    lower unet_batch_size (4), unet_width (0.125) or image_size (32)
    """
    methods = [method] if method else ["unet", "sifa"]
    names = [f"{one}_{what}" for one in methods for what in ("batch_size", "width")]
    named = ", ".join(f"{name} ({getattr(settings, name):g})" for name in names)
    return f"lower {named} or image_size ({settings.image_size}), or {FEWER}"


@contextmanager
def explained(settings, method=""):
    """Turn an exception that says that memory ran out into a line that says what to lower.

    Raises
    ------
    LusbookError
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LusbookError) or not is_exhausted(error):
            raise
        raise LusbookError(f"out of memory; {advice(settings, method)}") from error
