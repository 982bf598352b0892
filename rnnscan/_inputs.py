"""Checks of what goes into a loop: sequences and their time axis, lengths, masks, resets, keys.

Shapes and dtypes are checked always. Values are checked where they can be seen, that is outside `jit`; traced lengths
are clipped to [0, T] instead.
"""

import operator
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _tree
from ._errors import LengthError, SequenceError


_NOT_TREES = (Iterator, range, KeysView, ValuesView, ItemsView)  # neither leaves nor containers for JAX


def is_value(leaf: Any) -> bool:
    """Whether a leaf is a number, or an array of numbers, bools or PRNG keys."""
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return isinstance(leaf, int | float | complex)
    kinds = (jnp.number, jnp.bool_, jax.dtypes.prng_key)
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)


def check_arrays(**trees: Any) -> None:
    """Every leaf is an array or a number; names the first that is not."""
    for root, tree in trees.items():
        if isinstance(tree, _NOT_TREES):
            raise TypeError(f"`{root}` is {_tree.describe(tree)}, not an array; write `jnp.asarray(list({root}))`")
        for name, leaf in _tree.named_leaves(root, tree):
            if is_value(leaf):
                continue
            hint = ""
            if isinstance(leaf, np.ndarray):
                came = f"a NumPy array of dtype {leaf.dtype}"
                if leaf.dtype == object and root == "xs":
                    hint = ". Rows of different lengths become one array and `lengths` with `rs.train.pad`"
            else:
                came = f"{_shown(leaf)} ({type(leaf).__name__})"
            raise TypeError(f"`{name}` must be an array or a number, got {came}{hint}")


def whole(
    name: str, value: Any, least: int = 0, *, too_small: str = "", traced: str = "", error: type = SequenceError
) -> int:
    """A whole number of at least `least` as a Python int; `True`, `3.7` and traced values are none.

    `too_small` and `traced` say more about such a value, `error` is what is raised for one that is too small.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except Exception as cause:  # a traced value has an error of its own
        why = ""
        if isinstance(value, jax.core.Tracer):
            why = f": it is a traced value, and must be known when the program is traced{traced}"
        raise TypeError(f"`{name}` must be an int, got {value!r}{why}") from cause
    if number < least:
        raise error(f"`{name}` must be >= {least}, got {number}{too_small}")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_array(name: str, value: Any, expected: str) -> Any:
    """An argument given as an array or as nested lists, TypeError if it cannot be an array.

    What is not yet a JAX array becomes a NumPy one: without x64 JAX would cut the int64 number 2**32 + 3 to 3.
    """
    try:
        if not _tree.is_concrete(value):
            return jnp.asarray(value)
        empty = isinstance(value, list | tuple) and not value  # float64 for NumPy
        array = value if isinstance(value, jax.Array) else np.asarray(value, np.int32 if empty else None)
    except (TypeError, ValueError):  # ragged lists, for one
        array = None
    if array is None or not is_value(array):
        raise TypeError(f"`{name}` must be {expected}, got {_shown(value)} ({type(value).__name__})")
    return array


def count_steps(xs: Any, n_steps: int | None, time_axis: int, mask: Any = None, resets: Any = None) -> int:
    """The number of steps to run: `n_steps` if given, else the size of the time axis that all sequences share."""
    sizes = {}
    for name, leaf in [*_tree.named_leaves("xs", xs), *_given(mask=mask, resets=resets)]:
        if jnp.ndim(leaf) <= time_axis:
            raise SequenceError(_no_time_axis(name, leaf, time_axis, xs))
        sizes[name] = jnp.shape(leaf)[time_axis]
    if n_steps is None and not jax.tree.leaves(xs):
        raise SequenceError(
            "The call got neither xs nor n_steps, so it cannot know how many steps to run; give one. The arguments are "
            "`scan(cell, params, carry, xs)`; without a carry of your own write `scan(cell, params, None, xs)`."
        )
    if n_steps is None:
        n_steps = next(iter(sizes.values()))
        for name, size in sizes.items():
            if size != n_steps:
                raise SequenceError(_different_sizes(sizes, name))
    for name, size in sizes.items():
        if size < n_steps:
            raise SequenceError(f"`n_steps={n_steps}`, but `{name}` has only {size} steps on axis {time_axis}.")
    return n_steps


def _given(**named: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in named.items() if value is not None]


def _no_time_axis(name: str, leaf: Any, time_axis: int, xs: Any) -> str:
    if name in ("mask", "resets") and jnp.ndim(leaf) == 0:
        return f"`{name}` is a scalar, expected bool of shape (T, *batch): one value for each step."
    if isinstance(xs, list | tuple) and all(isinstance(x, int | float | complex) for x in jax.tree.leaves(xs)):
        return (
            f"`xs` is a {type(xs).__name__} of Python numbers, which is a tree of {len(jax.tree.leaves(xs))} scalar "
            "sequences; did you mean `jnp.asarray(xs)`?"
        )
    if isinstance(xs, list | tuple) and len(xs) > 1 and all(hasattr(x, "shape") and x.shape == () for x in xs):
        return (
            f"`xs` is a {type(xs).__name__} of {len(xs)} scalar arrays, which is a tree of so many sequences without "
            "time. If it is a list of time steps, write `jnp.stack(xs)`."
        )
    if jnp.ndim(leaf) == 0:
        return (
            f"`{name}` is a scalar; sequences need a time axis of length T. Use `x[None]` for one step, or pass it in "
            "params."
        )
    return f"`{name}` has shape {jnp.shape(leaf)}, which has no axis {time_axis} for time (`time_axis={time_axis}`)."


def _different_sizes(sizes: dict[str, int], name: str) -> str:
    first = next(iter(sizes))
    if name in ("mask", "resets") or first in ("mask", "resets"):
        return f"`{name}` has {sizes[name]} steps, expected T = {sizes[first]} as in `{first}`."
    shortest = min(sizes.values())
    return (
        f"sequences disagree on T: `{first}` has {sizes[first]} steps, `{name}` has {sizes[name]}. "
        f"Pass n_steps={shortest} to use the first {shortest} steps of each."
    )


def check_lengths(
    lengths: Any, xs: Any, longest: int, time_axis: int, x_ndim: int = 0, root: str = "xs", name: str = "lengths"
) -> jax.Array:  # fmt: skip
    """`lengths` as an int32 array; integers, of the batch shape, and within [0, longest] where they can be seen."""
    lengths = as_array(name, lengths, "integers, one for each row")
    if lengths.dtype == jnp.bool_:
        raise TypeError(
            f"`{name}` must be integers, got {_tree.describe(lengths)}; an array of bools is a mask: `mask=`"
        )
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"`{name}` must be integers, got {lengths.dtype}; write `jnp.asarray({name}, jnp.int32)`")
    check_batch(name, lengths.shape, xs, time_axis, x_ndim, root)
    return within(name, lengths, longest)


def within(name: str, lengths: Any, longest: int) -> jax.Array:
    """Integers as an int32 array in [0, longest]; those that can be seen must be, traced ones are clipped."""
    if _tree.is_concrete(lengths):
        values = np.asarray(lengths)
        wrong = np.argwhere((values < 0) | (values > longest))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            where = f"{name}[{', '.join(map(str, at))}]" if at else name
            problem = f"exceeds T = {longest}" if values[at] > longest else "is negative"
            raise LengthError(f"`{where}` = {values[at]} {problem}; a row has between 0 and T valid steps.")
    longest = min(longest, int(jnp.iinfo(lengths.dtype).max))  # T = 300 is no uint8
    return jnp.clip(lengths, 0, longest).astype(jnp.int32)


def check_flags(
    name: str, flags: Any, xs: Any, n_steps: int | None, time_axis: int, x_ndim: int = 0
) -> jax.Array:  # fmt: skip
    """`mask` or `resets` as a bool array of shape (T, *batch), time on `time_axis`."""
    flags = as_array(name, flags, "bool of shape (T, *batch)")
    shape = next((jnp.shape(leaf) for leaf in jax.tree.leaves(xs) if jnp.ndim(leaf) > time_axis), None)
    rows = None if shape is None else _without(shape, time_axis)
    if flags.dtype != jnp.bool_:
        if (
            rows
            and shape
            and flags.shape == rows[:1] != shape[:1]
            and not jnp.issubdtype(flags.dtype, jnp.complexfloating)
        ):
            raise SequenceError(
                f"`{name}` is {_tree.describe(flags)}, one number for each of {rows[0]} rows, expected bool "
                "(T, *batch). It looks like lengths: pass `lengths=`."
            )
        raise TypeError(f"`{name}` must be bool, got {flags.dtype}; use `{name} > 0`")
    if shape is None or rows is None or flags.ndim <= time_axis:
        return jnp.asarray(flags)  # count_steps speaks of a missing time axis
    steps, batch = shape[time_axis], _without(flags.shape, time_axis)
    fits_batch = len(rows) >= len(batch) and rows[: len(batch)] == batch
    long_enough = flags.shape[time_axis] == steps if n_steps is None else flags.shape[time_axis] >= n_steps
    if not fits_batch or not long_enough:
        expected = list(_batch_of(rows, x_ndim, xs)[: len(batch)])
        axes = _axes(len(expected), time_axis)
        expected.insert(time_axis, steps)
        hint = ""
        if flags.shape[::-1] == tuple(expected) != flags.shape:
            hint = f" It looks like {'(B, T)' if time_axis == 0 else '(T, B)'}: pass `{name}.T`."
        elif flags.shape == (*expected, 1):
            hint = f" Drop its last axis: `{name}[..., 0]`."
        elif flags.ndim == 1 and flags.shape == rows[:1]:
            hint = f" It has one value for each row; `{name}` has one for each step (rows left out have length 0)."
        raise SequenceError(f"`{name}` has shape {flags.shape}, expected {axes} = {tuple(expected)}.{hint}")
    return jnp.asarray(flags)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _batch_of(rows: tuple[int, ...], x_ndim: int, xs: Any) -> tuple[int, ...]:
    """The batch axes in a shape without time, as far as the cell says which axes are features; for messages."""
    one_leaf = len(jax.tree.leaves(xs)) == 1
    return rows[: len(rows) - x_ndim] if one_leaf and len(rows) >= x_ndim else rows


def _axes(n_batch: int, time_axis: int) -> str:
    names = ["B"] if n_batch == 1 else [f"B{i}" for i in range(n_batch)]
    names.insert(time_axis, "T")
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def check_batch(
    name: str, batch: tuple[int, ...], xs: Any, time_axis: int, x_ndim: int = 0, root: str = "xs"
) -> None:  # fmt: skip
    """Every leaf of xs, after time, starts with exactly the batch axes that `name` defines."""
    for leaf_name, leaf in _tree.named_leaves(root, xs):
        shape = jnp.shape(leaf)
        if len(shape) <= time_axis:
            continue  # count_steps speaks of that
        rows = _without(shape, time_axis)
        if rows[: len(batch)] == batch:
            continue
        expected = _batch_of(rows, x_ndim, xs)[: len(batch)]
        axes = "(B,) = " if len(expected) == 1 else "batch axes " if expected else "no batch axes, "
        hint = ""
        if batch == (*expected, 1):
            hint = f" Drop its last axis: `{name}[..., 0]`."
        elif name != "until" and time_axis == 0 and len(batch) == 1 and len(shape) >= 2 + x_ndim and batch == shape[:1]:
            hint = f" If `{leaf_name}` is (B, T, ...), write `time_axis=1`."
        raise (LengthError if name in ("lengths", "input_length") else SequenceError)(
            f"`{name}` has shape {batch}, expected {axes}{expected}: it defines the batch axes, and "
            f"`{leaf_name}` has shape {shape} with time on axis {time_axis}.{hint}"
        )


def check_key(key: Any, name: str = "key") -> Any:
    """The key itself, if it is a PRNG key, new-style or legacy, and one only."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        shape = key.shape
    elif dtype == jnp.uint32 and key.ndim >= 1 and _is_key_data(key):
        shape = key.shape[:-1]  # a legacy key keeps its words on the last axis
    else:
        came = _tree.describe(key) if dtype is not None else f"{type(key).__name__} {_shown(key)}"
        raise ValueError(f"`{name}` must be jax.random.key(seed), got {came}")
    if shape != ():
        raise ValueError(
            f"`{name}` must be one key, got an array of keys of shape {shape}; what needs more derives them from it"
        )
    return key


def _is_key_data(key: Any) -> bool:
    """Whether the words of a legacy key are as many as JAX's generator wants."""
    try:
        jax.eval_shape(jax.random.wrap_key_data, jax.ShapeDtypeStruct(key.shape, key.dtype))
    except (TypeError, ValueError):
        return False
    return True
