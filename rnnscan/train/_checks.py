"""Checks of arguments that several files of this room share."""

from typing import Any

from .._inputs import whole


def check_count(value: Any, name: str, least: int = 0) -> int:
    """A whole number that is at least `least`; `3.7` and `True` are none."""
    return whole(name, value, least, error=ValueError)
