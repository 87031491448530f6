"""The one exception that bad input raises."""


class LusbookError(Exception):
    """Input that cannot be used: says which file, row or key, what was expected and what was received."""
