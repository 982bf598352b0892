"""Where a scan starts: the cell as a bare loop, with its input checked and its first carry settled."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from . import _tree
from ._cache import functions_in
from ._carry import check_rows, settle_carry, strong
from ._errors import CarryError, ParamsError, SequenceError
from ._loop import Loop
from ._options import Options
from ._types import Rng, call, name_of


Batch = tuple[str, tuple[int, ...]]  # the argument that defines the batch axes, and these


def bare_loop(
    cell: Any, params: Any, carry: Any, xs: Any, n_steps: int, options: Options, key: Any, t_0: Any, batch: Batch | None
) -> Loop:
    """The loop of a scan before any rewrite. `xs` has time first; `batch` is what lengths, mask or resets define."""
    check_params(cell, params)
    rows = _rows(cell, xs, batch)
    made = carry is None
    if made:
        carry = _initial_carry(cell, params, rows)
    elif rows is not None:
        _check_carry_rows(cell, params, carry, xs, rows)
    structure, dtype = jax.tree.structure(carry), options.carry_dtype
    carry = keep_in(dtype, carry)

    def rng(t: Any) -> Rng | None:
        if key is None:
            return None
        return Rng(key, t if t_0 is None else t + t_0)

    def step(params: Any, carry: Any, x: Any, t: Any) -> tuple[Any, Any]:
        carry, y = call(cell, params, carry, x, rng(t))
        leaves = [strong(jnp.asarray(leaf)) for leaf in jax.tree.leaves(keep_in(dtype, carry))]
        return jax.tree.unflatten(structure, leaves), jax.tree.map(jnp.asarray, y)

    def first(carry: Any, x: Any) -> Any:  # what the cell returns, looked at before `step` brings it into form
        out = call(cell, params, carry, x, rng(jnp.zeros((), jnp.int32)))
        pair = isinstance(out, tuple) and len(out) == 2
        return (keep_in(dtype, out[0]), out[1]) if pair else out

    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), xs)
    carry, y = settle_carry(first, cell, params, carry, x, relax=made)
    if batch is not None:
        check_rows(batch[1], batch[0], carry=carry, y=y)
    return Loop(step, params, carry, xs, y, n_steps, options.reverse, uses_t=key is not None)


def check_params(cell: Any, params: Any) -> None:
    """ParamsError unless a library cell's params are those that its `init` makes; leading axes more are allowed.

    Another cell's params would broadcast, an LSTM's gates from an Elman cell's one, and give numbers.
    """
    try:
        expected = None if params is None else _own_params(cell)  # that params are None is said in a note
    except TypeError:  # a cell that cannot be hashed
        return
    if expected is None:
        return
    came = {name: jnp.shape(leaf) for name, leaf in _tree.named_leaves("params", params)}
    for name, shape in expected.items():
        if name not in came:
            raise ParamsError(
                f"`{name}` is missing; `init` of cell `{name_of(cell)}` makes it {shape}. {_given(came, expected)}"
            )
        if came[name][len(came[name]) - len(shape) :] != shape:
            raise ParamsError(
                f"`{name}` has shape {came[name]}; `init` of cell `{name_of(cell)}` makes it {shape}. "
                "Are these another cell's params?"
            )
    for name in came:
        if name not in expected:
            raise ParamsError(
                f"`{name}` is none of the params of cell `{name_of(cell)}`, and would be ignored. "
                f"{_given(came, expected)}"
            )


def _given(came: dict[str, Any], expected: dict[str, Any]) -> str:
    return f"Are these another cell's params? Given are {sorted(came)}, expected {sorted(expected)}."


@lru_cache(maxsize=1024)
def _own_params(cell: Any) -> dict[str, tuple[int, ...]] | None:
    """The shapes of a library cell's params; None for the user's own cells, and for what is built of them."""
    ours = type(cell).__module__.startswith("rnnscan.cells.") or type(cell).__module__.startswith("rnnscan.wrap.")
    if not ours or not hasattr(cell, "init") or any(functions_in(cell)):
        return None
    made = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    return {name: leaf.shape for name, leaf in _tree.named_leaves("params", made)}


def keep_in(dtype: Any, carry: Any) -> Any:
    """The floating leaves of a carry in `carry_dtype`; None leaves all as they are."""
    if dtype is None:
        return carry
    floating = lambda leaf: isinstance(leaf, float) or jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.floating)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype) if floating(leaf) else leaf, carry)


def _rows(cell: Any, xs: Any, batch: Batch | None) -> tuple[int, ...] | None:
    """The batch shape as a library cell sees it in the first leaf of xs; None where nothing tells."""
    leaves, x_ndim = _tree.named_leaves("xs", xs), getattr(cell, "x_ndim", None)
    if not leaves or x_ndim is None:
        return batch[1] if batch is not None else None
    name, x = leaves[0]
    if x.ndim < 1 + x_ndim:
        axes = "T, *batch" + ", feature" * x_ndim
        raise SequenceError(f"`{name}` has shape {x.shape}: cell `{name_of(cell)}` expects ({axes}), with time first.")
    in_size = getattr(cell, "in_size", None)
    if x_ndim == 1 and in_size is not None and len(leaves) == 1 and x.shape[-1] != in_size:
        raise SequenceError(
            f"`{name}` has {x.shape[-1]} features (shape with time first {x.shape}), but cell `{name_of(cell)}` takes "
            f"in_size = {in_size}."
        )
    if getattr(cell, "float_input", False) and not jnp.issubdtype(x.dtype, jnp.inexact):
        raise SequenceError(
            f"`{name}` is {x.dtype}, but cell `{name_of(cell)}` works on floats. Convert it, "
            "`xs.astype(jnp.float32)`, or look the numbers up in an embedding first."
        )
    return x.shape[1 : x.ndim - x_ndim]


def _initial_carry(cell: Any, params: Any, rows: tuple[int, ...] | None) -> Any:
    if not hasattr(cell, "initial_carry"):
        return None  # a bare function without a carry is a map
    if rows is None and getattr(cell, "x_ndim", 1) is None:
        return cell.initial_carry((), params=params)  # says itself how its carry is made
    if rows is None:
        raise SequenceError(
            f"`carry=None` and `xs=None`: nothing tells the batch shape for cell `{name_of(cell)}`. Pass "
            "`carry=cell.initial_carry(batch_shape)`."
        )
    return cell.initial_carry(rows, params=params)


def _check_carry_rows(cell: Any, params: Any, carry: Any, xs: Any, rows: tuple[int, ...]) -> None:
    """A carry given to a library cell has the shapes of its own initial carry for the rows of xs."""
    if not hasattr(cell, "initial_carry"):
        return
    try:
        expected = jax.eval_shape(lambda: cell.initial_carry(rows, params=params))
    except (TypeError, ValueError, NotImplementedError):
        return  # a cell that cannot make a carry by itself, an integrator for one, cannot be asked what it looks like
    if jax.tree.structure(carry) != jax.tree.structure(expected):
        shown = jax.tree.map(_tree.describe, expected)
        raise CarryError(
            f"the carry of cell `{name_of(cell)}` must be like `initial_carry({rows})`, that is {shown}; got "
            f"{jax.tree.map(lambda leaf: _tree.describe(jnp.asarray(leaf)), carry)}."
        )
    steps = isinstance(xs, list) and len(jax.tree.leaves(xs)) > 1
    stacked = " If xs is a list of time steps, write `jnp.stack(xs)`." if steps else ""
    for (name, leaf), want in zip(_tree.named_leaves("carry", carry), jax.tree.leaves(expected), strict=True):
        if jnp.shape(leaf) == want.shape:
            continue
        n = len(rows)
        if jnp.shape(leaf)[n:] == want.shape[n:] and len(jnp.shape(leaf)) == len(want.shape):
            copies = 1 in jnp.shape(leaf)[:n]
            hint = f"; `jnp.broadcast_to({name}, {want.shape})` gives every row a copy" if copies else ""
            raise SequenceError(f"batch size: `{name}` has {jnp.shape(leaf)[:n]}, xs has {rows}{hint}.{stacked}")
        raise CarryError(
            f"`{name}` has shape {jnp.shape(leaf)}, expected {want.shape} as in `initial_carry({rows})` of cell "
            f"`{name_of(cell)}`, the batch shape {rows} being that of xs. Is the time axis of xs missing?{stacked}"
        )


def fresh_carry(reset_carry: Any, carry: Any, carry_dtype: Any = None) -> Any:
    """`reset_carry` in the dtypes of the carry; None is the carry given. Only weakly typed leaves are converted."""
    if reset_carry is None:
        return carry
    reset_carry = jax.tree.map(jnp.asarray, keep_in(carry_dtype, reset_carry))
    if jax.tree.structure(reset_carry) != jax.tree.structure(carry):
        raise CarryError(
            f"`reset_carry` must have the structure of the carry, {jax.tree.map(_tree.describe, carry)}; got "
            f"{jax.tree.map(_tree.describe, reset_carry)}."
        )

    def fit(name: str, fresh: jax.Array, leaf: jax.Array) -> jax.Array:
        weak = jax.typeof(fresh).weak_type and not (
            jnp.issubdtype(fresh.dtype, jnp.inexact) and not jnp.issubdtype(leaf.dtype, jnp.inexact)
        )
        if fresh.shape != leaf.shape or (fresh.dtype != leaf.dtype and not weak):
            raise CarryError(
                f"`{name}` is {_tree.describe(fresh)}, but that leaf of the carry is {_tree.describe(leaf)}; "
                "give reset_carry the shapes and dtypes of the carry."
            )
        return fresh if fresh.dtype == leaf.dtype else fresh.astype(leaf.dtype)

    names = [name for name, _ in _tree.named_leaves("reset_carry", reset_carry)]
    leaves = [fit(*item) for item in zip(names, jax.tree.leaves(reset_carry), jax.tree.leaves(carry), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(carry), leaves)
