"""`raw_rnn`: TensorFlow 1's loop whose inputs, state, outputs and end are decided by a function of the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ... import _inputs, _tree
from ..._errors import CellOutputError, SequenceError
from ..._scan import scan_until
from ..._types import Rng, name_of, stochastic
from ..._types import call as call_cell
from . import checks


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TensorArray:
    """What `raw_rnn` emitted: `padded (max_steps, batch, ...)`, of which the first `n_steps` steps were taken.

    `finished`: bool, whether all rows were finished; False if `max_steps` came first.
    """

    padded: jax.Array
    n_steps: jax.Array
    finished: jax.Array

    def stack(self) -> jax.Array:
        """The steps taken, `(n_steps, batch, ...)`, as TensorFlow's `stack`. Under `jit` their number is not known.

        Raises SequenceError where `max_steps` came before the end that `loop_fn` sets, TypeError under `jit`.
        """
        if not _tree.is_concrete(self.n_steps):
            raise TypeError(
                "`stack()` has as many steps as `raw_rnn` took, which is not known while the program is traced. Use "
                "`.padded`, zeros past `.size()`."
            )
        if _tree.is_concrete(self.finished) and not bool(self.finished):
            raise SequenceError(
                f"`raw_rnn` reached `max_steps` = {self.padded.shape[0]} before `loop_fn` had finished every row, so "
                "that these are not all the steps. Give a larger `max_steps`; `.padded` has the steps taken, and "
                "`.finished` tells whether they are all."
            )
        return self.padded[: int(self.n_steps)]

    def size(self) -> jax.Array:
        """How many steps were taken, int32."""
        return self.n_steps


def raw_rnn(
    cell: Any,
    params: Any = checks.MISSING,
    loop_fn: Callable[[Any, Any, Any, Any], tuple[Any, Any, Any, Any, Any]] | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    scope: str | None = None,
    *,
    max_steps: int | None = None,
    key: Any = None,
) -> tuple[Any, Any, Any]:
    r"""Steps a cell until every row is finished; `loop_fn` gives the inputs and says when that is.

        finished, x, state, emit_structure, loop_state = loop_fn(0, None, None, None)
        for t in range(max_steps):
            if all(finished): break
            output, new_state = cell(params, x, state)
            next_finished, x, new_state, emit, loop_state = loop_fn(t + 1, output, new_state, loop_state)
            emit_ta[t] = where(finished, 0, emit)
            state = where(finished, state, new_state)
            finished = finished | next_finished

    - `loop_fn(time, cell_output, cell_state, loop_state) -> (finished, next_input, next_cell_state, emit_output,
      next_loop_state)`. Its first call, at time 0 with None for the rest, fixes the structures: the first input, the
      first state, an `emit_output` without batch axis (None: that of the cell's output) and the loop state. `finished`
      is bool, `(batch,)` or one for all. A `next_loop_state` of None keeps the one before.
    - `max_steps`: not TensorFlow's: int >= 0, at most so many steps, which reverse-mode derivatives need. If it comes
      first, `emit_ta.finished` is False and `emit_ta.stack()` raises.
    - `cell`, `params`, `parallel_iterations`, `swap_memory`, `scope`, `key`: as in `dynamic_rnn`.

    A finished row goes on being computed, as in TensorFlow, and what it gives is dropped: feed it finite numbers.
    Scalars in state and emit are those of the last step, for all rows.

    Returns `(emit_ta, final_state, final_loop_state)`: `emit_ta` is a `TensorArray`, or a nest of them where a nest is
    emitted. Raises `CellOutputError` if `loop_fn` returns something else than five values or emits what it did not
    announce, `CarryError` if a part changes its form, `SequenceError` without `max_steps`, and as `dynamic_rnn` does.
    Source: `tf.compat.v1.nn.raw_rnn`.
    """
    checks.check_settings("raw_rnn", parallel_iterations, swap_memory, scope)
    checks.check_noise("raw_rnn", cell, key)
    if not callable(loop_fn):
        hint = checks.order("raw_rnn") if loop_fn is None else ""
        raise TypeError(f"`raw_rnn` takes a function `loop_fn`, got a {type(loop_fn).__name__}.{hint}")
    checks.check_params("raw_rnn", cell, params)
    limit = _limit(max_steps)
    finished, x, state, emit, loop_state = _five(loop_fn, loop_fn(jnp.zeros((), jnp.int32), None, None, None))
    n_rows = _rows(x)
    _inputs.check_arrays(next_cell_state=state, emit_output=emit, next_loop_state=loop_state)
    carry = {
        "time": jnp.zeros((), jnp.int32),
        "finished": jnp.broadcast_to(_flags(loop_fn, finished, n_rows), (n_rows,)),
        "next_input": x,
        "cell_state": state,
        "loop_state": loop_state,
    }
    step = _Step(cell, loop_fn)
    with checks.in_words_of("raw_rnn"), jax.named_scope(scope or "rnn"):
        result = scan_until(step, (params, emit), carry, until=_all_finished, max_steps=limit, key=key)
    end = result.carry
    done = jnp.all(end["finished"])
    emit_ta = jax.tree.map(lambda leaf: TensorArray(leaf, end["time"], done), result.ys)
    return emit_ta, end["cell_state"], end["loop_state"]


def _all_finished(carry: Any, y: Any) -> jax.Array:
    del y
    return jnp.all(carry["finished"])


@dataclass(frozen=True)
class _Step:
    """One turn of the loop as a cell; with all rows finished it changes nothing, not even the time."""

    cell: Any
    loop_fn: Any

    @property
    def stochastic(self) -> bool | None:
        return stochastic(self.cell)

    def __call__(self, params: Any, carry: Any, nothing: None, rng: Rng | None = None) -> tuple[Any, Any]:
        del nothing
        params, announced = params
        finished, state = carry["finished"], carry["cell_state"]
        output, new_state = call_cell(self.cell, params, carry["next_input"], state, rng)
        time = carry["time"] + 1
        returned = self.loop_fn(time, output, new_state, carry["loop_state"])
        next_finished, x, new_state, emit, loop_state = _five(self.loop_fn, returned)
        if loop_state is None:
            loop_state = carry["loop_state"]
        _check_emitted(output if announced is None else announced, emit, finished.size, announced is not None)
        done = jnp.all(finished)
        carry = {
            "time": jnp.where(done, carry["time"], time),
            "finished": finished | _flags(self.loop_fn, next_finished, finished.size),
            "next_input": x,
            "cell_state": _held(finished, state, new_state),
            "loop_state": _unless(done, carry["loop_state"], loop_state),
        }
        emit = jax.tree.map(jnp.asarray, emit)
        return carry, _held(finished, _tree.zeros_like(emit), emit)

    def __repr__(self) -> str:
        return name_of(self.cell)


def _held(finished: jax.Array, old: Any, new: Any) -> Any:
    """Rows that were finished keep the old value; a scalar keeps it once all rows are."""
    return _merged(lambda a, b: _tree.where(finished if jnp.ndim(b) else jnp.all(finished), a, b), old, new)


def _unless(done: jax.Array, old: Any, new: Any) -> Any:
    return _merged(lambda a, b: _tree.where(done, a, b), old, new)


def _merged(choose: Callable[[Any, Any], Any], old: Any, new: Any) -> Any:
    """Leaf by leaf; what changed its structure or shape goes on as it is, for `scan` to say so."""
    shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if jax.tree.structure(old) != jax.tree.structure(new) or shapes(old) != shapes(new):
        return new
    return jax.tree.map(lambda a, b: choose(jnp.asarray(a, jnp.asarray(b).dtype), jnp.asarray(b)), old, new)


def _five(loop_fn: Any, returned: Any) -> Any:
    if isinstance(returned, tuple | list) and len(returned) == 5:
        return returned
    came = f"{len(returned)} values" if isinstance(returned, tuple | list) else f"a {type(returned).__name__}"
    raise CellOutputError(
        f"`raw_rnn`: `loop_fn` must return (finished, next_input, next_cell_state, emit_output, next_loop_state); "
        f"`{name_of(loop_fn)}` returned {came}."
    )


def _flags(loop_fn: Any, finished: Any, n_rows: int) -> jax.Array:
    flags = jnp.asarray(finished)
    if flags.dtype != jnp.bool_ or flags.shape not in ((), (n_rows,)):
        raise CellOutputError(
            f"`raw_rnn`: `finished`, the first value that `{name_of(loop_fn)}` returns, must be bool of shape (batch,) "
            f"= ({n_rows},), or one bool for all rows; got {_tree.describe(flags)}."
        )
    return flags


def _rows(x: Any) -> int:
    """The batch size, which all parts of the first input share."""
    _inputs.check_arrays(next_input=x)
    named = _tree.named_leaves("next_input", x)
    sizes = {name: jnp.shape(leaf)[0] if jnp.ndim(leaf) else None for name, leaf in named}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        came = ", ".join(f"`{name}` of shape {jnp.shape(leaf)}" for name, leaf in named) or "no array"
        raise SequenceError(
            f"`raw_rnn`: the first input that `loop_fn` returns must be (batch, ...), with one batch size in all its "
            f"arrays; got {came}."
        )
    return int(next(iter(sizes.values())) or 0)


def _check_emitted(announced: Any, emit: Any, n_rows: int, by_loop_fn: bool) -> None:
    """What is emitted has the structure, and what the first call announced the shapes and dtypes too."""
    source = "what its first call announced" if by_loop_fn else "the cell's output (its first call announced None)"
    if jax.tree.structure(emit) != jax.tree.structure(announced):
        raise CellOutputError(
            f"`raw_rnn`: `loop_fn` emits {jax.tree.structure(emit)}, expected the structure of {source}, "
            f"{jax.tree.structure(announced)}."
        )
    if not by_loop_fn:
        return
    for (name, leaf), first in zip(_tree.named_leaves("emit_output", emit), jax.tree.leaves(announced), strict=True):
        leaf, first = jnp.asarray(leaf), jnp.asarray(first)
        if leaf.shape != (n_rows, *first.shape) or leaf.dtype != first.dtype:
            expected = f"{first.dtype}[{','.join(map(str, (n_rows, *first.shape)))}]"
            raise CellOutputError(
                f"`raw_rnn`: `{name}` is {_tree.describe(leaf)}, expected {expected}: the batch size, then the shape "
                f"and dtype that the first call of `loop_fn` announced, {_tree.describe(first)}."
            )


def _limit(max_steps: Any) -> int:
    if max_steps is None:
        raise SequenceError(
            "`raw_rnn` needs `max_steps`, a bound on the number of steps: its outputs have this length, and a loop "
            "without a bound has no reverse-mode derivative."
        )
    return _inputs.whole("max_steps", max_steps)
