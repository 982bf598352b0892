"""Padded rows: the last valid output of each, and its valid steps in reverse order.

Values are moved with a gather, and what must not show is dropped with `where`: no arithmetic touches padding, hence NaN
in it reaches neither values nor gradients.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._errors import SequenceError
from ._rewrite import valid_steps


def last_valid(ys: Any, lengths: Any = None, mask: Any = None, *, time_axis: int = 0) -> Any:
    """Each row's last valid output, `ys[lengths[b] - 1, b]`; zeros for a row that has none.

    It reads `ys` itself, so it does not depend on `masked_output`. Last means latest in time: the last in scan order of
    a reverse scan is at step 0. Where only this output is wanted, `scan(..., outputs="last")` stores nothing else.

    - `ys`: any pytree, `(T, *batch, ...)` with time on `time_axis`.
    - `lengths`: int `(*batch,)`, in [0, T]; or `mask`: bool, `(T, *batch)` with time on `time_axis`. Without either,
      every step counts.

    Returns a pytree of `(*batch, ...)`. Raises as `scan` does for `lengths` and `mask`.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> ys = jnp.array([[1, 10, 100], [2, 20, 200]])
    >>> print(rs.last_valid(ys, lengths=jnp.array([2, 1, 0])))
    [ 2 10  0]
    """
    ys, lengths, mask = _checked("last_valid", "ys", ys, lengths, mask, time_axis)
    return _last_valid(ys, lengths, mask, time_axis)


@partial(jax.jit, static_argnums=3)  # one program, where step by step every operation is compiled for itself
def _last_valid(ys: Any, lengths: Any, mask: Any, time_axis: int) -> Any:
    ys, n_steps, valid = _time_first(ys, lengths, mask, time_axis)
    if n_steps == 0:
        return jax.tree.map(lambda y: jnp.zeros(y.shape[1:], y.dtype), ys)
    if valid is None:
        return _tree.at_time(ys, -1)
    t = jnp.arange(n_steps, dtype=jnp.int32).reshape(-1, *(1,) * (valid.ndim - 1))
    last = jnp.max(jnp.where(valid, t, 0), axis=0)[None]
    found = jax.tree.map(lambda y: jnp.take_along_axis(y, _under(last, y), axis=0)[0], ys)
    return _tree.where(valid.any(axis=0), found, _tree.zeros_like(found))


def flip_valid(xs: Any, lengths: Any = None, mask: Any = None, *, time_axis: int = 0) -> Any:
    """Each row's valid steps in reverse order, `xs[lengths[b] - 1 - t, b]` for `t < lengths[b]`; padding stays put.

    A mask with holes keeps its holes: the values change places among the valid steps. Doing it twice gives `xs` back.
    `scan(..., reverse=True)` needs none of this; it is for outputs in iteration order, and for other people's code.

    - `xs`: any pytree, `(T, *batch, ...)` with time on `time_axis`.
    - `lengths` or `mask`: as in `last_valid`; without either, the whole of time is reversed.

    Returns a pytree like `xs`. Raises as `scan` does for `lengths` and `mask`.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> print(rs.flip_valid(jnp.array([1, 2, 3, 0]), lengths=3))
    [3 2 1 0]
    """
    xs, lengths, mask = _checked("flip_valid", "xs", xs, lengths, mask, time_axis)
    return _flip_valid(xs, lengths, mask, time_axis)


@partial(jax.jit, static_argnums=3)
def _flip_valid(xs: Any, lengths: Any, mask: Any, time_axis: int) -> Any:
    xs, n_steps, valid = _time_first(xs, lengths, mask, time_axis)
    if valid is None:
        flipped = jax.tree.map(lambda x: x[::-1], xs)
    elif valid.size == 0:
        flipped = xs
    else:
        t = jnp.arange(n_steps, dtype=jnp.int32).reshape(-1, *(1,) * (valid.ndim - 1))
        nth = jnp.cumsum(valid, axis=0, dtype=jnp.int32) - 1  # t is the nth valid step of its row
        place = jnp.argsort(~valid, axis=0, stable=True).astype(jnp.int32)  # where the nth valid step is
        mirror = jnp.take_along_axis(place, jnp.maximum(nth[-1] - nth, 0), axis=0)
        source = jnp.where(valid, mirror, t)
        flipped = jax.tree.map(lambda x: jnp.take_along_axis(x, _under(source, x), axis=0), xs)
    return _tree.move_time(flipped, 0, time_axis)


def _under(index: jax.Array, leaf: jax.Array) -> jax.Array:
    """Indices `(T, *batch)` with an axis of size 1 for each feature axis of the leaf."""
    return index.reshape(index.shape + (1,) * (leaf.ndim - index.ndim))


def check_sequences(caller: str, root: str, tree: Any, time_axis: int) -> tuple[Any, int]:
    """The tree as arrays, and the number of steps that its leaves share."""
    _inputs.check_arrays(**{root: tree})
    named = _tree.named_leaves(root, tree)
    if not named:
        raise SequenceError(f"`{caller}` got {root} without any array, expected (T, *batch, ...)")
    for name, leaf in named:
        if jnp.ndim(leaf) <= time_axis:
            raise SequenceError(
                f"`{caller}` got `{name}` of shape {jnp.shape(leaf)}, which has no axis {time_axis} for time."
            )
    sizes = [jnp.shape(leaf)[time_axis] for _, leaf in named]
    for (name, _), size in zip(named, sizes, strict=True):
        if size != sizes[0]:
            raise SequenceError(
                f"`{caller}` got sequences that disagree on T: `{named[0][0]}` has {sizes[0]} steps, `{name}` {size}."
            )
    return jax.tree.map(jnp.asarray, tree), sizes[0]


def _checked(caller: str, root: str, tree: Any, lengths: Any, mask: Any, time_axis: int) -> tuple[Any, Any, Any]:
    """The tree and what selects its steps, as arrays that fit together."""
    if lengths is not None and mask is not None:
        raise ValueError(f"`{caller}`: give `lengths` or `mask`, not both")
    tree, n_steps = check_sequences(caller, root, tree, _inputs.whole("time_axis", time_axis))
    if mask is not None:
        mask = _inputs.check_flags("mask", mask, tree, None, time_axis)
        if mask.ndim <= time_axis:
            raise SequenceError(f"`mask` has shape {mask.shape}, which has no axis {time_axis} for time.")
        batch = mask.shape[:time_axis] + mask.shape[time_axis + 1 :]
        _inputs.check_batch("mask", batch, tree, time_axis, root=root)
    if lengths is not None:
        lengths = _inputs.check_lengths(lengths, tree, n_steps, time_axis, root=root)
    return tree, lengths, mask


def _time_first(tree: Any, lengths: Any, mask: Any, time_axis: int) -> tuple[Any, int, jax.Array | None]:
    """The tree with time first, its number of steps, and which of them count; None if all do."""
    tree, mask = (_tree.move_time(part, time_axis, 0) for part in (tree, mask))
    n_steps = jax.tree.leaves(tree)[0].shape[0]
    return tree, n_steps, valid_steps(lengths, mask, n_steps)
