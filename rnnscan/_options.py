"""The options of `scan`: which method honours which, and what is said about the others."""

import difflib
import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._inputs import whole


METHODS = ("sequential", "unrolled", "reference")
"""Ways to run the loop: one compiled step repeated, a static graph of all steps, or a plain Python loop."""

METHODS_TO_COME = ("associative", "newton", "auto")

REWRITES = ("split", "hoist", "sink", "weight_grads")
"""What `optimize=True` does, by name."""

HONOURED: dict[str, tuple[str, ...]] = {
    "n_steps": METHODS,
    "lengths": METHODS,
    "mask": METHODS,
    "resets": METHODS,
    "reset_carry": METHODS,
    "reverse": METHODS,
    "time_axis": METHODS,
    "masked_output": METHODS,
    "outputs": METHODS,
    "carry_dtype": METHODS,
    "unroll": ("sequential",),
    "remat": (),
    "optimize": METHODS,
    "key": METHODS,
    "progress": METHODS,
    "debug": METHODS,
}
"""Option -> the methods that honour it. Any other combination raises; the docs and the law tests read this table."""


@dataclass(frozen=True)
class Options:
    """The options that shape the compiled program; those that are data (lengths, mask, key ...) are not here."""

    n_steps: int | None = None
    reverse: bool = False
    time_axis: int = 0
    masked_output: str = "zero"
    outputs: str = "all"
    carry_dtype: Any = None
    unroll: int | bool = 1
    method: str = "sequential"
    optimize: tuple[str, ...] = REWRITES
    progress: bool = False
    debug: bool = False


def read_options(*, remat: Any, optimize: Any, **given: Any) -> Options:
    """Checks each option as the user gave it and the combinations among them."""
    _one_of("method", given["method"], METHODS, METHODS_TO_COME)
    _one_of("masked_output", given["masked_output"], ("zero", "hold"))
    _one_of("outputs", given["outputs"], ("all", "last", "none"))
    for name in ("reverse", "progress", "debug"):
        given[name] = _flag(name, given[name])
    if remat is not None:
        raise NotImplementedError(
            f"`remat={remat!r}` comes in a later release. Until then `remat=None` works, and `jax.checkpoint` around "
            "your cell recomputes each step in the backward pass (pass `carry=` then: it is a function like any "
            "other). `optimize` does not look inside it, and keeps little without it."
        )
    given["optimize"] = _rewrites(optimize)
    given["n_steps"] = number_of_steps("n_steps", given["n_steps"])
    given["time_axis"] = whole("time_axis", given["time_axis"], too_small=": count from the first axis")
    given["carry_dtype"] = floating("carry_dtype", given["carry_dtype"])
    given["unroll"] = _unroll(given["unroll"], given["method"])
    return Options(**given)


def _one_of(name: str, value: Any, allowed: tuple[str, ...], later: tuple[str, ...] = ()) -> None:
    if isinstance(value, str) and value in allowed:
        return
    choices = ", ".join(repr(choice) for choice in allowed)
    if isinstance(value, str) and value in later:
        raise NotImplementedError(f"`{name}={value!r}` comes in a later release. Until then {choices} work.")
    raise ValueError(f"`{name}` must be one of {choices}; got {value!r}")


def _rewrites(value: Any) -> tuple[str, ...]:
    """The names of the rewrites wanted, in the order in which they are applied."""
    if isinstance(value, bool | np.bool_):
        return REWRITES if value else ()
    names = ", ".join(map(repr, REWRITES))
    if not isinstance(value, tuple | list | set | frozenset):
        hint = f"; write `optimize=({value!r},)`" if isinstance(value, str) and value in REWRITES else ""
        raise TypeError(f"`optimize` must be True, False or a tuple of names out of {names}; got {value!r}{hint}")
    for name in value:
        if not isinstance(name, str) or name not in REWRITES:
            alike = difflib.get_close_matches(str(name), REWRITES, 1)
            hint = f". Did you mean {alike[0]!r}?" if alike else ""
            raise ValueError(f"`optimize` knows the rewrites {names}; got {name!r}{hint}")
    return tuple(name for name in REWRITES if name in value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False, a Python bool; got {value!r}")
    return bool(value)


def number_of_steps(name: str, value: Any) -> int | None:
    """An int >= 0, or None where nothing was given."""
    traced = ", as the number of steps is part of it. Use `lengths=` for the number of valid steps of each row"
    return None if value is None else whole(name, value, traced=traced)


def floating(name: str, value: Any) -> Any:
    """A floating dtype as JAX has it, or None."""
    if value is None:
        return None
    try:
        dtype = jax.dtypes.canonicalize_dtype(jnp.dtype(value))
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`{name}` must be a floating dtype, jnp.float32 for example, or None; got {value!r}")
    if dtype != jnp.dtype(value):
        raise TypeError(f"`{name}={jnp.dtype(value)}` needs `jax.config.update('jax_enable_x64', True)`")
    return dtype


def _unroll(value: Any, method: str) -> int | bool:
    if value is not True:
        try:
            steps = 0 if value is False else operator.index(value)
        except Exception as error:
            raise TypeError(f"`unroll` must be an int >= 1, or True for all steps; got {value!r}") from error
        if steps < 1:
            raise ValueError(f"`unroll` must be an int >= 1, or True for all steps; got {value!r}")
        value = steps
    if (value is True or value != 1) and method not in HONOURED["unroll"]:
        raise ValueError(
            f'`unroll={value}` goes with method="sequential"; method="{method}" writes out every step already.'
        )
    return value
