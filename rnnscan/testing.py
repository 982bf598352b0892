"""Checks that a user can run on a cell of their own."""

from typing import Any

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._carry import settle_carry
from ._errors import PurityError
from ._types import Rng, call, check_callable, name_of, rng_use


def check_cell(cell: Any, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
    """Checks one step of a cell: that it is pure and keeps the structure, shapes and dtypes of its carry.

    - `cell`: the cell; a stochastic one is given a key of this function's own.
    - `params`, `carry`, `x`: what one step takes; arrays, numbers or pytrees of them. `carry=None` is the cell's own
      initial carry for this x if it has one, else no carry.

    Returns `(carry, y)` as shapes and dtypes. Raises

    - `CellOutputError` if it does not return `(carry, y)`;
    - `CarryError` if the carry comes out different, naming the leaf and the way out;
    - `PurityError` if two traces differ (`np.random`, a counter, the time of day), or if a traced value is kept
      outside the cell (appended to a list, say).

    >>> import jax.numpy as jnp, rnnscan as rs
    >>> carry, y = rs.testing.check_cell(lambda params, h, x: (h + params * x, h), 2.0, jnp.zeros(3), jnp.ones(3))
    >>> print(carry.shape, y.shape)
    (3,) (3,)
    """
    check_callable("check_cell", cell)
    _inputs.check_arrays(params=params, carry=carry, x=x)
    rng = None if rng_use(cell) == "never" else Rng(jax.random.key(0), jnp.zeros((), jnp.int32))
    carry, params, x = (jax.tree.map(jnp.asarray, tree) for tree in (carry, params, x))
    if carry is None and hasattr(cell, "initial_carry"):
        leaf, x_ndim = jax.tree.leaves(x)[0], getattr(cell, "x_ndim", None) or 0
        carry = cell.initial_carry(leaf.shape[: leaf.ndim - x_ndim], params=params)
    carry, y = settle_carry(lambda c, x: call(cell, params, c, x, rng), cell, params, carry, x)

    def one_step(params: Any, carry: Any, x: Any) -> Any:
        return tuple(call(cell, params, carry, x, rng))

    try:
        with jax.checking_leaks():
            first, second = (_traced(one_step, params, carry, x) for _ in range(2))
    except Exception as error:  # the first trace, in `settle_carry`, raised none
        raise PurityError(
            f"cell `{name_of(cell)}` keeps a traced value outside itself (in a list, an attribute or a global), or "
            "does not do the same when called again. Return what you want to keep as part of y; `scan` stacks it."
        ) from error
    if first != second:
        raise PurityError(
            f"cell `{name_of(cell)}` is not pure: two traces differ ({_difference(first, second)}). A loop is traced "
            "once, so every step would see the first value. Pass randomness as `rng` or as a key in xs, and counters "
            "in the carry."
        )
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (carry, y))


def _traced(step: Any, *args: Any) -> list[str]:
    """One trace in words: every equation, and the values of the arrays the step closes over."""
    traced = jax.make_jaxpr(lambda *args: step(*args))(*args)  # a fresh function, so that nothing is cached
    return [*str(traced.jaxpr).splitlines(), *(f"constant {_tree.describe(c)} {c}" for c in traced.consts)]


def _difference(first: list[str], second: list[str]) -> str:
    for a, b in zip(first, second, strict=False):
        if a != b:
            return f"`{a.strip()}` against `{b.strip()}`"
    return f"{len(first)} lines against {len(second)}"
