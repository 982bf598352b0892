"""Where each row stops: the first step after which `until(carry, y)` is true.

The search is a loop of its own that ends with the last row to stop. It has no derivative: everything that could carry
one into it, closed-over arrays included, goes through `stop_gradient`, so that `lax.while_loop`, which has no reverse
mode, is never differentiated. What the stop decides is which steps count; `masking` does the rest.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._carry import check_rows
from .._errors import CellOutputError
from .._inputs import check_batch
from .._jaxpr.versions import match_varying
from .._loop import Loop
from .._notes import not_known_yet
from .._start import Batch
from .._types import name_of


def stop(
    loop: Loop, until: Any, valid: jax.Array | None, batch: Batch | None, xs: Any, x_ndim: int | None
) -> tuple[jax.Array | None, jax.Array, jax.Array]:
    """`(valid, n_steps, stopped)`: the steps that count, how many these are in each row, and whether it fired.

    `loop` is masked by `valid` already, so that what a masked step holds is what the row holds; it never fires. A
    scalar `until` stops all rows after one step.
    """
    shape = _check_until(loop, until, batch, xs, x_ndim)
    if loop.n_steps == 0:
        return None, jnp.zeros(batch[1] if batch else shape, jnp.int32), jnp.zeros(shape, bool)
    places, stopped = _search(loop, until, valid, shape)
    order = jnp.arange(loop.n_steps, dtype=jnp.int32)
    order = (order[::-1] if loop.reverse else order).reshape(-1, *(1,) * places.ndim)
    before = order < places
    if valid is not None:
        before = valid & before.reshape(before.shape + (1,) * (valid.ndim - before.ndim))
    n_steps = before.sum(axis=0, dtype=jnp.int32)
    if batch is not None:  # resets define the batch axes and no step that counts
        n_steps = jnp.broadcast_to(n_steps, batch[1])
    return before, n_steps, stopped


def _search(loop: Loop, until: Any, valid: Any, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """How many places of the scan order each row takes, up to and with the one that fires; and whether one does."""
    n_steps = loop.n_steps
    counts = valid if valid is None or shape else valid.reshape(n_steps, -1).any(axis=1)

    def step(params: Any, state: Any, inputs: Any, i: jax.Array) -> tuple[Any, Any]:
        t = n_steps - 1 - i if loop.reverse else i
        at_t = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, t, keepdims=False)
        inputs, counts = jax.tree.map(at_t, inputs)
        state, y = loop.step(params, state, inputs, t if loop.uses_t else None)
        fired = jnp.asarray(until(loop.carry_of(state), y))
        return state, fired if counts is None else fired & counts

    number = jnp.zeros((), jnp.int32)
    start = jax.lax.stop_gradient((loop.params, loop.state, (loop.inputs, counts)))
    # what is converted stays with the mesh axes that its arguments vary over, so these are settled beforehand
    state = match_varying(lambda state, inputs: step(start[0], state, inputs, number)[0], start[1], start[2])
    closed, constants = jax.closure_convert(step, start[0], state, start[2], number)  # derivatives' tracers closed over
    constants = jax.lax.stop_gradient(constants)

    def body(searching: Any) -> Any:
        i, state, places, stopped = searching
        state, fired = closed(start[0], state, start[2], i, *constants)
        return i + 1, state, jnp.where(fired & ~stopped, i + 1, places), stopped | fired

    searching = (number, state, jnp.full(shape, n_steps, jnp.int32), jnp.zeros(shape, bool))
    searching = match_varying(lambda s, _: body(s), searching, start[2])
    more = lambda searching: (searching[0] < n_steps) & ~searching[3].all()
    _, _, places, stopped = jax.lax.while_loop(more, body, searching)
    return places, stopped


def _check_until(loop: Loop, until: Any, batch: Batch | None, xs: Any, x_ndim: int | None) -> tuple[int, ...]:
    """The shape that `until` returns: () for all rows at once, or that of the batch axes."""
    carry = jax.eval_shape(loop.carry_of, loop.state)
    try:
        fired = jax.eval_shape(until, carry, loop.output)
    except Exception as error:
        shown = [f"{n}: {_tree.describe(x)}" for r, v in (("carry", carry), ("y", loop.output))
                 for n, x in _tree.named_leaves(r, v)]  # fmt: skip
        for note in not_known_yet(error, "`until`"):
            error.add_note(note)
        form = getattr(until, "called_as", "until(carry, y)")
        error.add_note(
            f"raised while tracing `until`, `{name_of(until)}`, which is called as `{form}` after a step and "
            f"received {', '.join(shown) or 'nothing'}"
        )
        raise
    leaf = fired if hasattr(fired, "shape") else None
    rows = _rows(batch, xs, x_ndim)
    if leaf is None or leaf.dtype != jnp.bool_ or (leaf.shape and rows is not None and leaf.shape != rows):
        came = _tree.kind(fired)
        each = "(*batch,)" if rows is None else str(rows)
        raise CellOutputError(
            f"`until` must return a scalar bool, which stops all rows at once, or bools of shape {each}, one for each "
            f"row; got {came}{_way_out(leaf)}"
        )
    if leaf.shape:
        check_rows(leaf.shape, "until", carry=carry, y=loop.output)
        check_batch("until", leaf.shape, xs, 0)
    return leaf.shape


def _rows(batch: Batch | None, xs: Any, x_ndim: int | None) -> tuple[int, ...] | None:
    """The batch axes that lengths, mask, resets or a library cell's xs define."""
    if batch is not None:
        return batch[1]
    leaves = jax.tree.leaves(xs)
    return leaves[0].shape[1 : leaves[0].ndim - x_ndim] if leaves and x_ndim is not None else None


def _way_out(leaf: Any) -> str:
    if leaf is None:
        return "."
    if leaf.dtype != jnp.bool_:
        return "; compare, `value > limit`."
    return "; reduce it, `.all()` or `.any()`, over `axis=-1` for one bool a row."
