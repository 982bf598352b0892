"""Steps that do not count: the carry is held, the output is zero or held, and padding cannot hurt.

`where` alone is not enough: the step it discards is still differentiated, and `0 * inf` is NaN. Replacing the input of
a masked step by a harmless one is not enough either: `p / (x - h)` is singular where the *held* carry meets an old
input. So a masked step repeats the nearest valid step in scan order exactly, with the carry that went into that step
and its input, which are finite if the row's valid part is. Before a row's first valid step these are the initial carry
and the first valid input. A row without a valid step borrows the first step of a row that has one; if no row has any,
the input is 1/2 (not 1: `log(1 - x)`). What a repeated step computes is dropped, in values and in derivatives, hence
the `stop_gradient`s lose nothing and save the transposed gather. All but the output of the last step, where that is all
that is wanted: it repeats the row's last output, so that nothing has to be held and one output is computed, not T.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._loop import Loop


def valid_steps(lengths: jax.Array | None, mask: jax.Array | None, n_steps: int) -> jax.Array | None:
    """True where a step counts, shape (n_steps, *batch); None where every step does."""
    if lengths is not None:
        t = jnp.arange(n_steps, dtype=jnp.int32).reshape(-1, *(1,) * lengths.ndim)
        return t < lengths
    return mask


def masking(loop: Loop, valid: jax.Array, lengths: jax.Array | None, output: str, held: Any = None) -> Loop:
    """A loop whose masked steps change nothing; `lengths` says that `valid` is a prefix of each row.

    What a masked step puts out: zeros ("zero"); the last valid output ("hold"), `held` being what that is before the
    first step, None for zeros; or, for a loop that does not use `t`, what the step that it repeats did, derivatives and
    all ("repeat"): a row's first masked steps, and rows without a valid one, then put out anything.
    """
    hold, repeat = output == "hold", output == "repeat"
    nearest = _nearest_prefix(valid, lengths) if lengths is not None else _nearest(valid, loop.reverse)
    constant = (lambda x: x) if repeat else jax.lax.stop_gradient
    inputs, replayed = _with_repeats(loop, valid, nearest, constant)
    first = _tree.zeros_like(loop.output) if held is None else held

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        carry_tm1, replayed, held = state
        x, counts = inputs
        carry_in = _tree.where(counts, carry_tm1, constant(replayed))
        carry_t, y_t = loop.step(params, carry_in, x, t)
        carry_t = _tree.where(counts, carry_t, carry_tm1)
        if not repeat:
            y_t = _tree.where(counts, y_t, held if hold else _tree.zeros_like(y_t))
        return (carry_t, carry_in, y_t if hold else None), y_t

    return loop.wrap(
        step=step,
        state=(loop.state, replayed, first if hold else None),
        inputs=(inputs, valid),
        carry_of=lambda state: loop.carry_of(state[0]),
        finish=lambda state, outputs: loop.finish(state[0], outputs),
    )


def _nearest_prefix(valid: jax.Array, lengths: jax.Array) -> jax.Array:
    """Index of the nearest valid step in scan order where the valid steps are `t < lengths`, in both directions."""
    t = jnp.arange(len(valid), dtype=jnp.int32).reshape(-1, *(1,) * lengths.ndim)
    return jnp.clip(t, 0, jnp.maximum(lengths - 1, 0))


def _nearest(valid: jax.Array, reverse: bool) -> jax.Array:
    """Index of the nearest valid step at or before each step in scan order, else of the first valid one."""
    if reverse:
        return (len(valid) - 1 - _nearest(valid[::-1], False))[::-1]
    t = jnp.arange(len(valid), dtype=jnp.int32).reshape(-1, *(1,) * (valid.ndim - 1))
    before = jax.lax.cummax(jnp.where(valid, t, -1), axis=0)
    return jnp.where(before >= 0, before, jnp.argmax(valid, axis=0).astype(jnp.int32))


def _with_repeats(
    loop: Loop, valid: jax.Array, nearest: jax.Array, constant: Callable[[jax.Array], jax.Array]
) -> tuple[Any, Any]:
    """The inputs with every masked step's replaced by what it repeats, and the carry that the first steps repeat."""
    if valid.size == 0:  # no row at all
        return loop.inputs, loop.state
    batch = valid.shape[1:]
    some = valid.any(axis=0)
    donor = jnp.unravel_index(jnp.argmax(some.reshape(-1)), batch)  # a row with a valid step, if there is one
    first = jnp.argmax(valid[(slice(None), *donor)])

    def fill(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x  # keys have no bad values
        index = nearest.reshape(nearest.shape + (1,) * (x.ndim - nearest.ndim))
        harmless = jnp.asarray(0.5 if jnp.issubdtype(x.dtype, jnp.inexact) else 1).astype(x.dtype)
        borrowed = jax.lax.stop_gradient(jnp.where(some.any(), x[(first, *donor)], harmless))
        repeated = _tree.where(some, jnp.moveaxis(jnp.take_along_axis(x, index, axis=0), 0, len(batch)), borrowed)
        return _tree.where(valid, x, constant(jnp.moveaxis(repeated, len(batch), 0)))

    replayed = _tree.where(some, loop.state, jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[donor]), loop.state))
    return jax.tree.map(fill, loop.inputs), replayed
