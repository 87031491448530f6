"""The exceptions that bad input raises, and an interruption."""


class LusbookError(Exception):
    """Input that cannot be used: says which file, row or key, what was expected and what was received."""


class MissingData(LusbookError):
    """Public data that are not on this machine: says how to get them."""


class Interrupted(LusbookError):
    """A run that was asked to stop: says where it is, and that it goes on from there."""


class OutOfTime(Interrupted):
    """A run whose time was up."""
