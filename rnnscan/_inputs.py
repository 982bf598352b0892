"""Checks of what goes into a loop: sequences and their time axis, lengths, masks, resets, keys.

Shapes and dtypes are checked always. Values are checked where they can be seen, that is outside `jit`; traced lengths
are clipped to [0, T] instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _tree
from ._errors import LengthError, SequenceError


def check_arrays(**trees: Any) -> None:
    """Every leaf is an array or a number; names the first that is not."""
    for root, tree in trees.items():
        for name, leaf in _tree.named_leaves(root, tree):
            if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")) and not isinstance(leaf, int | float | complex):
                raise TypeError(f"`{name}` must be an array or a number, got {leaf!r} ({type(leaf).__name__})")


def count_steps(xs: Any, n_steps: int | None, time_axis: int, mask: Any = None, resets: Any = None) -> int:
    """The number of steps to run: `n_steps` if given, else the size of the time axis that all sequences share."""
    sizes = {}
    for name, leaf in [*_tree.named_leaves("xs", xs), *_given(mask=mask, resets=resets)]:
        if jnp.ndim(leaf) <= time_axis:
            raise SequenceError(_no_time_axis(name, leaf, time_axis, xs))
        sizes[name] = jnp.shape(leaf)[time_axis]
    if n_steps is None and not jax.tree.leaves(xs):
        raise SequenceError("`scan` got neither xs nor n_steps, so it cannot know how many steps to run; give one.")
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
    if isinstance(xs, list | tuple) and all(isinstance(x, int | float | complex) for x in xs):
        return (
            f"`xs` is a {type(xs).__name__} of {len(xs)} numbers, which is a tree of {len(xs)} scalar sequences; "
            f"did you mean `jnp.asarray({list(xs[:3])}...)`?"
        )
    if jnp.ndim(leaf) == 0:
        return (
            f"`{name}` is a scalar; sequences need a time axis of length T. Use `x[None]` for one step, or pass it in params."
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


def check_lengths(lengths: Any, xs: Any, longest: int, time_axis: int) -> jax.Array:
    """`lengths` as an int32 array; integers, of the batch shape, and within [0, longest] where they can be seen."""
    lengths = jnp.asarray(lengths) if not isinstance(lengths, list | tuple) else jnp.asarray(np.asarray(lengths))
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"`lengths` must be integers, got {lengths.dtype}; write `lengths.astype(jnp.int32)`")
    check_batch("lengths", lengths.shape, xs, time_axis)
    if _tree.is_concrete(lengths):
        values = np.asarray(lengths)
        wrong = np.argwhere((values < 0) | (values > longest))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            where = f"lengths[{', '.join(map(str, at))}]" if at else "lengths"
            problem = f"exceeds T = {longest}" if values[at] > longest else "is negative"
            raise LengthError(f"`{where}` = {values[at]} {problem}; a row has between 0 and T valid steps.")
    return jnp.clip(lengths, 0, longest).astype(jnp.int32)


def check_flags(name: str, flags: Any, xs: Any, n_steps: int | None, time_axis: int) -> jax.Array:
    """`mask` or `resets` as a bool array of shape (T, *batch), time on `time_axis`."""
    flags = jnp.asarray(flags)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
    rows = next((s[:time_axis] + s[time_axis + 1 :] for s in shapes if len(s) > time_axis), None)
    if flags.dtype != jnp.bool_:
        if flags.ndim == 1 and jnp.issubdtype(flags.dtype, jnp.integer) and rows and flags.shape == rows[:1]:
            raise SequenceError(
                f"`{name}` is {_tree.describe(flags)}, one number for each of {rows[0]} rows, expected bool (T, *batch). "
                "It looks like lengths: pass `lengths=`."
            )
        raise TypeError(f"`{name}` must be bool, got {flags.dtype}; use `{name} > 0`")
    if rows is None or flags.ndim <= time_axis:
        return flags  # count_steps speaks of a missing time axis
    steps = next(s[time_axis] for s in shapes if len(s) > time_axis)
    batch = flags.shape[:time_axis] + flags.shape[time_axis + 1 :]
    fits_batch = len(rows) >= len(batch) and rows[: len(batch)] == batch
    long_enough = flags.shape[time_axis] == steps if n_steps is None else flags.shape[time_axis] >= n_steps
    if not fits_batch or not long_enough:
        expected = list(rows[: len(batch)])
        expected.insert(time_axis, steps)
        hint = ""
        if flags.ndim == 2 and flags.shape[::-1] == tuple(expected):
            hint = f" It looks like {'(B, T)' if time_axis == 0 else '(T, B)'}: pass `{name}.T`."
        elif flags.ndim == 1 and rows and flags.shape == rows[:1]:
            hint = " It has one value for each row; if these are lengths, pass `lengths=`."
        raise SequenceError(
            f"`{name}` has shape {flags.shape}, expected {_axes(len(batch), time_axis)} = {tuple(expected)}.{hint}"
        )
    return flags


def _axes(n_batch: int, time_axis: int) -> str:
    names = ["B"] if n_batch == 1 else [f"B{i}" for i in range(n_batch)]
    names.insert(time_axis, "T")
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def check_batch(name: str, batch: tuple[int, ...], xs: Any, time_axis: int) -> None:
    """Every leaf of xs, after time, starts with exactly the batch axes that `name` defines."""
    for leaf_name, leaf in _tree.named_leaves("xs", xs):
        shape = jnp.shape(leaf)
        if len(shape) <= time_axis:
            continue  # count_steps speaks of that
        rows = shape[:time_axis] + shape[time_axis + 1 :]
        if rows[: len(batch)] != batch:
            error = LengthError if name == "lengths" else SequenceError
            expected = rows[: len(batch)] if len(rows) >= len(batch) else rows
            axes = "(B,)" if len(expected) == 1 else "batch axes"
            raise error(
                f"`{name}` has shape {batch}, expected {axes} = {tuple(expected)}: it defines the batch axes, and "
                f"`{leaf_name}` has shape {shape} with time on axis {time_axis}."
            )


def check_key(key: Any) -> None:
    """A PRNG key, new-style or legacy, and one only."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        shape = key.shape
    elif dtype == jnp.uint32 and key.ndim >= 1:
        shape = key.shape[:-1]  # a legacy key keeps its words on the last axis
    else:
        raise ValueError(f"`key` must be `jax.random.key(seed)`, got {type(key).__name__} {key!r}")
    if shape != ():
        raise ValueError(f"`key` must be one key, got an array of keys of shape {shape}; `scan` derives each step's own")
