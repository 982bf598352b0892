"""Runners: a `Loop` in, `(carry, ys)` out; all must equal `reference` in values and gradients."""

from collections.abc import Callable
from typing import Any

from .optimized import optimized as optimized
from .reference import reference
from .sequential import sequential


RUNNERS: dict[str, Callable[..., Any]] = {"sequential": sequential, "unrolled": reference, "reference": reference}
"""Method -> runner. "unrolled" is the reference loop compiled: all its steps become one static graph."""
