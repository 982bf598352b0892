"""Truncated backpropagation through time: a scan whose derivatives reach back a bounded number of steps.

The steps are cut into blocks of k1, and each block's outputs are computed by a window of k2 steps that ends with the
block and starts from a carry without derivatives. The windows do not depend on each other, so they run side by side,
as one scan of k2 steps over a batch of windows, after a scan without derivatives has found the carries they start from.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _tree
from .._jaxpr.versions import match_varying
from .._options import Options
from .._program import Arrays, run, time_back, time_first
from .._rewrite import valid_steps
from .._scan import DEFAULTS, check_options, launch
from ._checks import check_count


def tbptt(
    cell: Any, params: Any, carry: Any = None, xs: Any = None, *, k1: int, k2: int, **options: Any
) -> tuple[Any, Any]:
    r"""`scan` with truncated derivatives: BPTT(k1, k2), k1 steps a block, k2 steps back from each block's end.

    Values are those of `scan`. For the derivatives the T steps are cut into blocks of k1, the last one shorter where k1
    does not divide T. Block j holds the steps [j k1, e_j) and its derivatives begin at step s_j,

        e_j = min((j+1) k1, T),    s_j = max(0, e_j - k2):

    y_t of block j is a function of xs[s_j..t], of params as used in the steps [s_j, t], and of carry_{s_j}, which is
    the carry given if s_j = 0 and a constant else. So a sum of losses, each reading one step's output, has the gradient
    that Williams & Peng's BPTT(h; h') with h = k2 and h' = k1 adds up every k1 steps, with the params held fixed over
    the sequence. The carry returned belongs to the last block. With k1 = k2 the sequence is cut into pieces that
    derivatives do not cross; with k2 >= T all derivatives are those of `scan`.

    - `cell`, `params`, `carry`, `xs`: as in `scan`.
    - `k1`: steps a block, >= 1. Small values cost more: each step is computed `k2 / k1` times.
    - `k2`: steps that derivatives reach back from a block's end, >= k1.
    - `options`: those of `scan` except `reverse`, `outputs`, `masked_output`, `progress` and `debug`.

    **Returns** `(carry, ys)`. To go on from here with the next piece of a long sequence, hand the carry on as a value:
    it has no derivative with respect to the params of the next call.

        for xs, targets in pieces:
            (value, carry), gradient = jax.value_and_grad(loss, has_aux=True)(params, carry, xs, targets)

    Memory and work of the backward pass are those of T k2 / k1 steps; its sequential part is k2 steps long.

    **Raises** `TypeError` for k1 or k2 that are no ints, `ValueError` for k1 < 1, k2 < k1 and options that do not
    apply, and what `scan` raises. Theano's `truncate_gradient`, which cuts once, from the end of the whole sequence, is
    something else: see `rs.compat.theano.scan`.

    Source: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", Neural Computation 2(4).

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> cell = lambda w, h, x: (w * h + x, w * h + x)
    >>> last = lambda w, k2: rs.train.tbptt(cell, w, 0.0, jnp.ones(4), k1=1, k2=k2)[1][-1]
    >>> [float(jax.grad(last)(1.0, k2)) for k2 in (1, 2, 4)]  # h_2 = 3; h_2 + h_1; h_2 + h_1 + h_0
    [3.0, 5.0, 6.0]
    """
    k1, k2 = check_count(k1, "k1", least=1), check_count(k2, "k2", least=1)
    if k2 < k1:
        raise ValueError(
            f"`k2` = {k2} is less than `k1` = {k1}: the first {k1 - k2} steps of each block would get no derivative. "
            "Give k2 >= k1."
        )
    _check_options(options)
    given = {**DEFAULTS, **options}
    carry, ys = launch("tbptt", _program(k1, k2), cell, params, carry, xs, **given)
    return carry, ys


def _check_options(options: dict[str, Any]) -> None:
    check_options("tbptt", options)
    way_out = {
        "reverse": "truncation counts back from the present, forward in time",
        "outputs": "with all outputs at hand, `rs.last_valid(ys, lengths)` reads the last ones",
        "masked_output": "the output of a masked step is zero here; use `scan`, or `rs.last_valid`",
        "progress": "the bar belongs to one scan; use `scan`",
        "debug": "use `scan(..., debug=True)`, whose values are the same",
    }
    for name, why in way_out.items():
        if name in options and options[name] != DEFAULTS[name]:
            raise ValueError(f"`tbptt` does not take `{name}={options[name]!r}`: {why}.")


@lru_cache(maxsize=256)
def _program(k1: int, k2: int) -> Callable[..., Any]:
    return partial(_truncated, k1, k2)  # one object for equal windows, by which compiled programs are found again


def _truncated(k1: int, k2: int, cell: Any, options: Options, arrays: Arrays) -> tuple[Any, Any]:
    """What the compiled program does; `((carry, None), ys)`."""
    n_steps, arrays = time_first(options, arrays)
    inside = replace(options, n_steps=None, time_axis=0)
    (carry, _), nothing = run(cell, replace(inside, n_steps=0), arrays)  # settles the carry's dtypes
    if n_steps == 0:
        return (carry, None), time_back(nothing, options.time_axis)
    k1, k2 = min(k1, n_steps), min(k2, n_steps)  # a longer window would hold steps that do not exist
    valid = valid_steps(arrays.lengths, arrays.mask, n_steps)
    reset_carry = carry if arrays.reset_carry is None and arrays.resets is not None else arrays.reset_carry
    arrays = arrays._replace(carry=carry, lengths=None, mask=valid, reset_carry=reset_carry)
    ends = np.minimum(np.arange(k1, n_steps + k1, k1), n_steps)
    starts = ends - k2  # below 0: these windows begin before the sequence, with steps that do not exist
    carries = _starting_carries(cell, inside, arrays, k1, starts)
    window = lambda carry, piece: run(cell, _sized(inside, piece, k2), _filled(arrays, carry, piece))
    (carry, _), ys = jax.vmap(window)(carries, _windows(arrays, starts, ends, k2))
    last = int(n_steps - k1 * (len(ends) - 1))  # steps of the last block

    def joined(y: jax.Array) -> jax.Array:
        blocks = y[:-1, k2 - k1 :]
        return jnp.concatenate([blocks.reshape(n_steps - last, *y.shape[2:]), y[-1, k2 - last :]])

    carry = jax.tree.map(lambda leaf: leaf[-1], carry)
    return (carry, None), time_back(jax.tree.map(joined, ys), options.time_axis)


def _starting_carries(cell: Any, options: Options, arrays: Arrays, k1: int, starts: np.ndarray) -> Any:
    """The carry that each window starts from: the first one where it begins at or before step 0, else a constant."""
    later = starts[starts > 0]
    first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(starts) - len(later), *leaf.shape)), arrays.carry)
    if not len(later):
        return first
    arrays = jax.lax.stop_gradient(arrays)

    def advance(carry: Any, piece: Any) -> tuple[Any, Any]:
        inside = replace(_sized(options, piece, k1), outputs="none")
        (carry, _), _ = run(cell, inside, _filled(arrays, carry, piece))
        return carry, carry

    # from one window's start to the next: never more than k1 steps
    pieces = _windows(arrays, np.append(0, later[:-1]), later, k1)
    carry = match_varying(lambda carry, pieces: advance(carry, _tree.at_time(pieces, 0))[0], arrays.carry, pieces)
    _, after = jax.lax.scan(advance, carry, pieces)
    after = jax.lax.stop_gradient(after)  # what the cell closes over has derivatives too
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, after)


def _windows(arrays: Arrays, starts: np.ndarray, ends: np.ndarray, width: int) -> tuple[Any, ...]:
    """xs, mask, resets and first step of each window of `width` steps; steps before 0 or from `end` on are masked."""
    steps = starts[:, None] + np.arange(width)
    exists = (steps >= 0) & (steps < ends[:, None])
    at = np.clip(steps, 0, ends[-1] - 1)
    xs, mask, resets = jax.tree.map(lambda leaf: leaf[at], (arrays.xs, arrays.mask, arrays.resets))
    if mask is not None:
        mask = mask & exists.reshape(exists.shape + (1,) * (mask.ndim - exists.ndim))
    elif not exists.all():
        mask = jnp.asarray(exists)
    return xs, mask, resets, jnp.asarray(starts, jnp.int32)


def _sized(options: Options, piece: Any, width: int) -> Options:
    return replace(options, n_steps=width) if not jax.tree.leaves(piece[0]) else options


def _filled(arrays: Arrays, carry: Any, piece: Any) -> Arrays:
    xs, mask, resets, t_0 = piece
    return arrays._replace(carry=carry, xs=xs, mask=mask, resets=resets, t_0=None if arrays.key is None else t_0)
