"""Rows of different lengths one after another, as one sequence without padding, and back again."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _inputs, _tree
from ._errors import LengthError, SequenceError
from ._inputs import whole
from ._padded import check_sequences


_INT32_MAX = 2**31 - 1


class Packed(NamedTuple):
    """Rows one after another, without their padding, as `pack` makes them: one sequence of N steps.

    - `xs`: any pytree, `(N, ...)`: all steps of row 0, then all of row 1, and so on.
    - `resets`: bool `(N,)`, for `scan(..., resets=)`: True at the first step of each row, and of the padding if any.
    - `lengths`: int32 `(*batch,)`, the steps of each row, for `unpack`.
    - `n_valid`: int32 `()`, their sum, for `scan(..., lengths=)` where `total=` left padding at the end.
    """

    xs: Any
    resets: jax.Array
    lengths: jax.Array
    n_valid: jax.Array


def pack(xs: Any, lengths: Any, *, time_axis: int = 0, total: int | None = None) -> Packed:
    """Takes the padding out: rows one after another, with the resets that keep them apart.

        packed = rs.pack(xs, lengths)                              # (T, B, ...) -> (sum(lengths), ...)
        carry, ys = rs.scan(cell, params, None, packed.xs, resets=packed.resets)
        ys = rs.unpack(ys, packed.lengths, len(xs))                # (T, B, ...), zeros in the padding

    equals `rs.scan(cell, params, None, xs, lengths=lengths)[1]`, row by row, also with `reverse=True` and through
    `rs.bidirectional`: a reset is a boundary between two steps for both directions. No step of padding is run, but one
    row after another, while the padded scan runs all rows side by side.

    - **One carry for all.** Every row starts from the same carry (`reset_carry`, or `carry`), which has no batch axes.
      Rows with carries of their own want the padded scan, `lengths=`.
    - **The carry returned** is that of the row run last. For each row's own, let the cell put its carry out as well:

          def stateful(params, carry, x):
              carry, y = cell(params, carry, x)
              return carry, (y, carry)

      Its output unpacked, each row's last carry is `rs.last_valid(states, lengths)`, with `reverse=True` it is
      `states[0]`; rows of length 0 have zeros there, not the first carry.

    **Arguments**

    - `xs`: any pytree, `(T, *batch, ...)` with time on `time_axis`. Rows of several batch axes follow each other in
      row-major order.
    - `lengths`: int `(*batch,)`, in [0, T]. Traced ones are clipped to that.
    - `total`: int >= 0, the number N of steps of the result; None means `sum(lengths)`, which traced lengths cannot
      give. What is over is zeros; then pass `lengths=packed.n_valid` to `scan` as well, so that these steps do not
      count. Where the rows need more, known lengths raise, and of traced ones the steps past `total` are left out (of
      `packed.lengths` too).

    Returns a `Packed`. Raises `LengthError`, `SequenceError` or `TypeError` if lengths and xs do not fit, and
    `TypeError` for traced lengths without `total`.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> packed = rs.pack(jnp.array([[1, 10], [2, 0], [3, 0]]), [3, 1])
    >>> print(packed.xs, packed.resets)
    [ 1  2  3 10] [ True False False  True]
    """
    time_axis = whole("time_axis", time_axis)
    xs, n_steps = check_sequences("pack", "xs", xs, time_axis)
    known = _tree.is_concrete(lengths)
    lengths = _known_or_clipped(lengths, xs, n_steps, time_axis)
    return _pack(xs, lengths, time_axis, _packed_steps(lengths, known, total))


@partial(jax.jit, static_argnums=(2, 3))  # one program, where step by step every operation is compiled for itself
def _pack(xs: Any, lengths: jax.Array, time_axis: int, total: int) -> Packed:
    n_steps, batch = jax.tree.leaves(xs)[0].shape[time_axis], lengths.shape
    lengths = lengths.reshape(-1)
    flat = jax.tree.map(
        lambda x: x.reshape(n_steps, lengths.size, *x.shape[1 + len(batch) :]), _tree.move_time(xs, time_axis, 0)
    )
    starts = jnp.cumsum(lengths, dtype=jnp.int32) - lengths
    lengths = jnp.clip(total - starts, 0, lengths)
    n_valid = jnp.sum(lengths, dtype=jnp.int32)
    n = jnp.arange(total, dtype=jnp.int32)
    if n_steps == 0 or lengths.size == 0:
        rows = jax.tree.map(lambda x: jnp.zeros((total, *x.shape[2:]), x.dtype), flat)
        return Packed(rows, n == 0, lengths.reshape(batch), n_valid)
    row = jnp.searchsorted(starts + lengths, n, side="right").astype(jnp.int32)  # the first row that ends after n
    row = jnp.minimum(row, lengths.size - 1)
    t = jnp.clip(n - starts[row], 0, n_steps - 1)
    rows = jax.tree.map(lambda x: x[t, row], flat)
    rows = _tree.where(n < n_valid, rows, _tree.zeros_like(rows))
    return Packed(rows, ((n < n_valid) & (t == 0)) | (n == n_valid), lengths.reshape(batch), n_valid)


def unpack(ys: Any, lengths: Any, n_steps: int | None = None, *, time_axis: int = 0, total: int | None = None) -> Any:
    """Puts the padding back: `ys (N, ...)`, rows one after another, become `(T, *batch, ...)` with zeros as padding.

    - `ys`: any pytree, `(N, ...)`, in the order of `pack`.
    - `lengths`: int `(*batch,)`, the `lengths` of what `pack` returned; their sum is N.
    - `n_steps`: int >= 0, T; None means `max(lengths)`, which traced lengths cannot give. No known length is above it;
      a row whose traced length is keeps its first `n_steps` steps.
    - `time_axis`: where time goes in the result.
    - `total`: what `pack` was given, if anything: N, which may then be more than the sum of lengths.

    Returns a pytree of `(T, *batch, ...)`, time on `time_axis`. Raises `LengthError` if known lengths do not add up to
    N or one exceeds `n_steps`, and `TypeError` for traced lengths without `n_steps`.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> print(rs.unpack(jnp.array([1, 2, 3, 10]), [3, 1]).T)
    [[ 1  2  3]
     [10  0  0]]
    """
    time_axis = whole("time_axis", time_axis)
    ys, n_packed = check_sequences("unpack", "ys", ys, 0)
    lengths, n_steps = _rows_to_fill(lengths, n_packed, n_steps, total)
    for name, leaf in _tree.named_leaves("ys", ys):
        if leaf.ndim + lengths.ndim <= time_axis:
            raise SequenceError(
                f"`{name}` has shape {leaf.shape}: with {lengths.ndim} batch axes there is no axis {time_axis} for "
                "time."
            )
    return _unpack(ys, lengths, n_steps, time_axis)


@partial(jax.jit, static_argnums=(2, 3))
def _unpack(ys: Any, lengths: jax.Array, n_steps: int, time_axis: int) -> Any:
    n_packed = jax.tree.leaves(ys)[0].shape[0]
    t = jnp.arange(n_steps, dtype=jnp.int32).reshape(-1, *(1,) * lengths.ndim)
    starts = jnp.cumsum(lengths.reshape(-1), dtype=jnp.int32).reshape(lengths.shape) - lengths
    index = starts + t
    valid = (t < lengths) & (index < n_packed)
    if valid.size == 0 or n_packed == 0:
        rows = jax.tree.map(lambda y: jnp.zeros((*valid.shape, *y.shape[1:]), y.dtype), ys)
    else:
        found = jax.tree.map(lambda y: y[jnp.minimum(index, n_packed - 1)], ys)
        rows = _tree.where(valid, found, _tree.zeros_like(found))
    return _tree.move_time(rows, 0, time_axis)


def _known_or_clipped(lengths: Any, xs: Any, longest: int, time_axis: int) -> Any:
    """Checked lengths: as NumPy where they can be seen (under `jit` a JAX constant could not), else clipped."""
    checked = _inputs.check_lengths(lengths, xs, longest, time_axis)
    if not _tree.is_concrete(lengths):
        return checked
    return np.asarray(lengths).reshape(checked.shape).astype(np.int32)


def _packed_steps(lengths: Any, known: bool, total: int | None) -> int:
    """N: the sum of lengths, or `total`, which known lengths may not exceed."""
    if total is None:
        if not known:
            raise TypeError(_needs_static("pack", "total", "the number of steps to hold, at most T times the rows"))
        return int(lengths.sum())
    total = whole("total", total)
    if known and lengths.sum() > total:
        raise LengthError(f"`lengths` adds up to {lengths.sum()} steps, more than `total={total}`.")
    return total


def _rows_to_fill(lengths: Any, n_packed: int, n_steps: Any, total: Any) -> tuple[Any, int]:
    """Lengths and T for `unpack`, checked against the packed steps."""
    known = _tree.is_concrete(lengths)
    lengths = _known_or_clipped(lengths, None, _INT32_MAX if known else n_packed, 0)  # the sum is checked below
    if total is not None and whole("total", total) != n_packed:
        raise SequenceError(f"`unpack` got `total={total}`, but `ys` has {n_packed} steps.")
    if known and (lengths.sum() > n_packed or (lengths.sum() < n_packed and total is None)):
        hint = "" if lengths.sum() > n_packed else f" If `pack` was given `total={n_packed}`, say so here too."
        raise LengthError(f"`lengths` adds up to {lengths.sum()}, but `ys` has {n_packed} steps on axis 0.{hint}")
    if n_steps is None:
        if not known:
            raise TypeError(_needs_static("unpack", "n_steps", "T, the longest row"))
        return lengths, int(lengths.max(initial=0))
    n_steps = whole("n_steps", n_steps)
    if known and lengths.max(initial=0) > n_steps:
        raise LengthError(f"`lengths` has a row of {lengths.max()} steps, which `n_steps={n_steps}` cannot hold.")
    return lengths, n_steps


def _needs_static(caller: str, name: str, meaning: str) -> str:
    return (
        f"`{caller}` got traced lengths, so it cannot know the shape of its result: pass `{name}=`, {meaning}, as a "
        "Python int; or call it outside `jit`."
    )
