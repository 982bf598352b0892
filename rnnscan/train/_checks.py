"""Checks of arguments that several files of this room share."""

import operator
from typing import Any


def check_count(value: Any, name: str, least: int = 0) -> int:
    """A whole number that is at least `least`; `3.7` and `True` are none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an int, got {value!r}.") from None
    if number < least:
        raise ValueError(f"`{name}` must be >= {least}, got {number}.")
    return number
