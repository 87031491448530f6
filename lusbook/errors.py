"""The exceptions that bad input raises."""


class LusbookError(Exception):
    """Input that cannot be used: says which file, row or key, what was expected and what was received."""


class MissingData(LusbookError):
    """Public data that are not on this machine: says how to get them."""
