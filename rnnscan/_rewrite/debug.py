"""Finding the first value that is not finite: at which step, in which row, in which leaf."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _tree
from .._errors import NonFiniteError
from .._loop import Loop


_NOTHING = -2
_AT_START = -1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """The first bad value: its step (-2 none, -1 before the first step), leaf, place inside the leaf, and kind."""

    step: jax.Array
    leaf: jax.Array
    place: jax.Array
    is_nan: jax.Array
    labels: tuple[tuple[str, tuple[int, ...]], ...] = field(metadata={"static": True})  # name and shape of each leaf
    batch_ndim: int | None = field(metadata={"static": True})


def debug(loop: Loop, params: Any, xs: Any, valid: jax.Array | None, batch_ndim: int | None) -> Loop:
    """The same loop, with a `Report` beside the carry: looks at params, and at x, carry and y of each valid step."""
    x_0 = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), xs)
    start = (x_0, loop.carry_of(loop.state), _tree.zeros_like(loop.output), jax.tree.map(jnp.asarray, params))
    labels = tuple((name, leaf.shape) for root, tree in zip(("xs", "carry", "ys", "params"), start, strict=True)
                   for name, leaf in _tree.named_leaves(root, tree))  # fmt: skip
    number = lambda i: jnp.asarray(i, jnp.int32)
    nothing = Report(number(_NOTHING), number(0), number(0), jnp.asarray(False), labels, batch_ndim)
    found = _look(nothing, number(_AT_START), start)

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        state, found = state
        inputs, x, counts = inputs
        state, y = loop.step(params, state, inputs, t if loop.uses_t else None)
        if counts is not None:
            x = _tree.where(counts, x, _tree.zeros_like(x))
        return (state, _look(found, t, (x, loop.carry_of(state), y))), y

    def finish(state: Any, outputs: Any) -> tuple[Any, Any]:
        carry, ys = loop.finish(state[0], outputs)
        return (carry, state[1]), ys

    return loop.wrap(
        step=step,
        state=(loop.state, found),
        inputs=(loop.inputs, xs, valid),
        uses_t=True,
        carry_of=lambda state: loop.carry_of(state[0]),
        finish=finish,
    )


def _look(found: Report, t: jax.Array, trees: Any) -> Report:
    """`found` if it holds something from before `t`, else the first bad value in `trees`."""
    for number, leaf in reversed(list(enumerate(jax.tree.leaves(jax.lax.stop_gradient(trees))))):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact) or leaf.size == 0:
            continue
        bad = ~jnp.isfinite(leaf).reshape(-1)
        place = jnp.argmax(bad).astype(jnp.int32)
        is_nan = jnp.isnan(leaf.reshape(-1)[place])
        here = replace(found, step=t, leaf=jnp.asarray(number, jnp.int32), place=place, is_nan=is_nan)
        found = _tree.where(bad.any() & ((found.step == _NOTHING) | (found.step == t)), here, found)
    return found


def report(found: Report, name: str) -> None:
    """Raises what was found; where it is traced, prints it when the program runs."""
    if _tree.is_concrete(found):
        message = _message(found, name)
        if message is not None:
            raise NonFiniteError(message)
        return

    def show(found: Report) -> None:
        message = _message(found, name)
        if message is not None:
            print(message, flush=True)

    jax.debug.callback(show, found)


def _message(found: Report, name: str) -> str | None:
    step = int(found.step)
    if step == _NOTHING:
        return None
    label, shape = found.labels[int(found.leaf)]
    index = tuple(int(i) for i in np.unravel_index(int(found.place), shape)) if shape else ()
    place = _place(index, 0 if label.startswith("params") else found.batch_ndim)
    what = f"scan(debug=True): `{label}` is {'nan' if found.is_nan else 'inf'}"
    if step == _AT_START:
        return f"{what}{place} before the first step, for which cell `{name}` is not to blame."
    cause = "the data hold it" if label.startswith("xs") else "the input and the carry of that step were finite"
    return f"{what} at step {step}{place}, the first in cell `{name}`; {cause}."


def _place(index: tuple[int, ...], batch_ndim: int | None) -> str:
    """`, row 1 (index (1, 3))`; with unknown batch axes, the first of two or more axes is taken for the rows."""
    if not index:
        return ""
    row = index[: batch_ndim if batch_ndim is not None else int(len(index) > 1)]
    rows = f", row {row[0] if len(row) == 1 else row}" if row else ""
    return f"{rows} (index {index})"
