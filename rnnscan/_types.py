"""What a cell is: one step of a recurrence, the settings it keeps and the randomness it may ask for."""

import dataclasses
import functools
import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from ._tree import kind


class Cell(Protocol):
    """One step `(params, carry, x) -> (carry, y)`, pure; a stochastic cell takes `rng` as fourth argument.

    A plain function is a cell. The library's cells are frozen dataclasses called the same way, which add

    * `in_size`, `out_size`: features of `x` and of `y`;
    * `x_ndim`: how many axes of `x` are features (the axes before them are batch axes);
    * `init(key, dtype=None) -> params`;
    * `initial_carry(batch_shape=(), dtype=None, params=None) -> carry`.
    """

    def __call__(self, params: Any, carry: Any, x: Any, /) -> tuple[Any, Any]: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rng:
    """Randomness as an input: a key and the absolute step `t` it is used at (0 is the first step of the input).

    A cell draws noise that changes from step to step with `rng.per_step()`, and noise that one sequence keeps with
    `rng.per_sequence()`. A wrapper hands `rng.child(i)` to its i-th part. Since nothing here depends on the carry,
    the same key gives the same numbers whichever way the loop is run.
    """

    key: jax.Array
    t: jax.Array

    def per_step(self) -> jax.Array:
        """The key of this step alone, `fold_in(key, t)`."""
        return jax.random.fold_in(self.key, self.t)

    def per_sequence(self) -> jax.Array:
        """The key that every step of the sequence shares, `key`."""
        return self.key

    def child(self, index: int) -> "Rng":
        """The randomness of a wrapper's part number `index`, `Rng(fold_in(key, index), t)`."""
        return Rng(jax.random.fold_in(self.key, index), self.t)


def rng_use(cell: Any) -> str:
    """Whether a cell takes `rng`: "required", "optional" (it has a default) or "never"."""
    stochastic = getattr(cell, "stochastic", None)
    if stochastic is not None:
        return "required" if stochastic else "never"
    try:
        parameters = list(inspect.signature(cell).parameters.values())
    except (TypeError, ValueError):  # some callables have no signature to read
        return "never"
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_place) > 3 and by_place[3].default is inspect.Parameter.empty:
        return "required"
    named = next((p for p in parameters[3:] if p.name == "rng"), None)
    if named is None:
        return "never"
    return "required" if named.default is inspect.Parameter.empty else "optional"


def stochastic(*cells: Any, noise: bool = False) -> bool | None:
    """A wrapper's `stochastic`: True if itself (`noise`) or a part needs `rng`, None if a part may take it."""
    uses = {rng_use(cell) for cell in cells}
    if noise or "required" in uses:
        return True
    return None if "optional" in uses else False


def rng_name(cell: Any) -> str:
    """What a stochastic cell calls its fourth argument: `rng`, unless it is a function that says otherwise."""
    try:
        names = list(inspect.signature(cell).parameters)
    except (TypeError, ValueError):
        return "rng"
    return "rng" if "rng" in names or len(names) < 4 else names[3]


def takes(function: Any, n: int) -> bool:
    """Whether a function can be called with `n` arguments by place; True where it has no signature to read."""
    try:
        inspect.signature(function).bind(*range(n))
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def check_callable(caller: str, cell: Any, place: str = ", as its first argument") -> None:
    """TypeError unless `cell` is a function or an object called as one, and takes its arguments in our order.

    An object that takes them in another order (a front end's cell) says so in its attribute `other_order`; where x
    and the carry have one size, nothing else would tell.
    """
    if isinstance(cell, type):
        raise TypeError(f"`{caller}` needs a cell; got the class `{cell.__name__}`. Write `{cell.__name__}(...)`.")
    if not callable(cell):
        raise TypeError(
            f"`{caller}` needs a cell, a function `(params, carry, x) -> (carry, y)`{place}; got {kind(cell)}."
        )
    if hasattr(cell, "other_order"):
        raise TypeError(
            f"`{caller}` needs a cell `(params, carry, x) -> (carry, y)`{place}; `{name_of(cell)}` {cell.other_order}"
        )


def call(cell: Any, params: Any, carry: Any, x: Any, rng: Rng | None) -> tuple[Any, Any]:
    """One step of a cell, with `rng` handed on only to a cell that takes it."""
    if rng is None or rng_use(cell) == "never":
        return cell(params, carry, x)
    return cell(params, carry, x, rng=rng) if _by_name(cell) else cell(params, carry, x, rng)


def _by_name(cell: Any) -> bool:
    try:
        parameter = inspect.signature(cell).parameters.get("rng")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind is parameter.KEYWORD_ONLY


def settle(cell: Any, **convert: Any) -> None:
    """For `__post_init__`: bring the named fields to one form and refuse arrays, so that equal cells compare equal.

    `settle(self, dt=float, in_size=operator.index)`. A cell is a static argument of compiled functions, therefore
    its fields must hash; arrays are what `params` are for.
    """
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if isinstance(value, jax.Array | np.ndarray):
            raise TypeError(
                f"`{type(cell).__name__}` keeps settings, not arrays; field `{field.name}` is an array of shape "
                f"{value.shape} and type {value.dtype}. Put it in params, or write a Python number."
            )
        if field.name in convert:
            value = convert[field.name](value)
        elif isinstance(value, list):
            value = tuple(value)
        object.__setattr__(cell, field.name, value)


def name_of(cell: Any) -> str:
    """How messages call a cell: a function's name, also inside `partial` or `jax.jit`; a library cell as it prints."""
    if isinstance(cell, functools.partial):
        return name_of(cell.func)
    if hasattr(cell, "__wrapped__") and not isinstance(cell, type):
        return name_of(cell.__wrapped__)
    return getattr(cell, "__name__", None) or repr(cell)
