"""Checks of arguments that several files of this room share."""

import operator
from typing import Any

import jax
import jax.numpy as jnp


def check_key(key: Any, name: str = "key") -> Any:
    """A single random key, new style or legacy `uint32[2]`; anything else raises."""
    if isinstance(key, jax.Array):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.ndim == 0:
                return key
            raise ValueError(f"`{name}` must be one key, got {key.shape} of them; take one, such as `{name}[0]`.")
        if key.dtype == jnp.uint32 and key.ndim == 1:
            return key
    shown = f"{type(key).__name__} {key!r}" if isinstance(key, int | float | str) else f"a {type(key).__name__}"
    raise ValueError(f"`{name}` must be jax.random.key(seed), got {shown}.")


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
