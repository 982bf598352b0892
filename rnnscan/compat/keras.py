r"""Keras' backend function `rnn`, as a translation to `rnnscan.scan`.

`keras.backend.rnn(step, inputs, states)` walked over the second axis of `inputs` with a step written the other way
round from a cell's: `step(x, states) -> (y, new_states)`, output first. Keras 3 keeps the function for itself, once for
each of its backends, and these do not agree. Here it means what the TensorFlow and torch backends mean, without their
oversights, which `tests/oracles/test_keras_bugs.py` shows one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._errors import CarryError, CellOutputError
from .._foreign import refusing
from .._scan import scan
from .._tree import kind
from ._keras_input import check_step_and_flags, count, read_selection, read_states, rows_and_steps, translation
from ._keras_names import FOREIGN, instead_of


def __getattr__(name: str) -> Any:
    """`K.dot` and its like: AttributeError that says what to write."""
    raise AttributeError(instead_of(name), name=name)


def _refusing(function: Any) -> Any:
    return refusing(function, "rs.compat.keras.", FOREIGN)


@_refusing
def rnn(
    step_function: Callable[..., tuple[Any, Any]],
    inputs: Any,
    initial_states: Any,
    go_backwards: bool = False,
    mask: Any = None,
    constants: Any = None,
    unroll: bool = False,
    input_length: Any = None,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
    return_all_outputs: bool = True,
) -> tuple[Any, Any, tuple[Any, ...]]:
    r"""`y_t, states_t = step_function(x_t, states_{t-1} + constants)` for t in [0, T); for t = T-1, ..., 0 backwards.

    - `step_function`: `(x, states) -> (y, new_states)`; `states` is a tuple, the constants follow the states in it, and
      `new_states` is a list or tuple like `initial_states`. What it closes over gets gradients. Define it once: each
      new function object, a lambda in a loop say, is compiled anew unless `jax.jit` is around the whole.
    - `inputs`: `(B, T, ...)` with at least three axes, or a pytree of such; `(T, B, ...)` with `time_major`.
    - `initial_states`: list or tuple of states `(B, ...)`, each an array or a pytree.
    - `go_backwards`: from the last step to the first. Outputs stand in the order they were made, the last step's first.
    - `mask`: bool, `(B, T)` or `(B, T, 1)`, `(T, B)` or `(T, B, 1)` with `time_major`; True where a step counts. A step
      that does not keeps all states, and gives the output before it in the order of the run: zeros before the first.
    - `constants`: list or tuple of what every step gets; arrays in it get gradients, the rest is passed on as it is.
    - `unroll`: a static graph of all steps instead of a loop; the result is the same.
    - `input_length`: int, or integers `(B,)`: row b counts its steps t < input_length[b] and no others, forwards and
      backwards, as `mask = t < input_length` would have it. Not with `mask`, unless it is the int T.
    - `time_major`: time is the first axis of inputs, mask and outputs, rather than the second.
    - `zero_output_for_mask`: masked steps give zeros instead.
    - `return_all_outputs`: False stores no other output than the last.

    **Returns** `(last_output, outputs, new_states)`: the output `(B, ...)` of the last step run, or what stands for it
    where it is masked (zeros with `zero_output_for_mask`; the last *valid* output is there by default); all outputs
    `(B, T, ...)`, or `(B, 1, ...)` holding `last_output` without `return_all_outputs`; the tuple of states after
    the last step. T = 0 gives zeros, no outputs and the initial states.

    **Raises** `SequenceError`, `LengthError`, `CarryError`, `CellOutputError`, `TypeError` or `ValueError` as `scan`
    does. Masks are bool: Keras reads any number but 0 as True.

    Source: Keras 3, `keras/src/backend/tensorflow/rnn.py`. It differs there: `input_length` stops that loop at the
    longest row, counts from the end of the padding where it goes backwards and no row fills the input, and is not
    read where the loop is unrolled.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> def step(x, states):
    ...     h = states[0] + x
    ...     return 10 * h, [h]
    >>> x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    >>> keep = jnp.array([[False, True, True, False]])
    >>> last, outputs, states = rs.compat.keras.rnn(step, x, [jnp.full((1, 1), 100.0)], mask=keep)
    >>> print(outputs.ravel(), last, states[0])
    [   0. 1020. 1050. 1050.] [[1050.]] [[105.]]
    """
    flags = {"go_backwards": go_backwards, "unroll": unroll, "time_major": time_major}
    flags |= {"zero_output_for_mask": zero_output_for_mask, "return_all_outputs": return_all_outputs}
    check_step_and_flags(step_function, flags)
    axis = 0 if time_major else 1
    n_rows, n_steps = rows_and_steps(inputs, axis)
    states = read_states(initial_states, n_rows, n_steps, axis)
    cell, arrays = _as_cell(step_function, constants)
    chosen = read_selection(mask, input_length, inputs, n_rows, n_steps, axis)
    try:
        new_states, ys = scan(
            cell, arrays, states, inputs, **chosen, reverse=go_backwards, time_axis=axis,
            masked_output="zero" if zero_output_for_mask else "hold", outputs="all" if return_all_outputs else "last",
            method="unrolled" if unroll else "sequential",
        )  # fmt: skip
    except Exception as error:
        error.add_note(translation(bool(constants), input_length is not None))
        raise
    final = 0 if go_backwards else n_steps - 1  # the step that is run last
    if return_all_outputs:
        outputs = jax.tree.map(lambda y: jnp.flip(y, axis), ys) if go_backwards else ys
        return _last_of(outputs, axis), outputs, new_states
    last_output = ys
    if zero_output_for_mask and chosen and n_steps:
        last_output = _tree.where(_counts(chosen, final, n_rows, axis), ys, _tree.zeros_like(ys))
    return last_output, jax.tree.map(lambda y: jnp.expand_dims(y, axis), last_output), new_states


@dataclass(frozen=True)
class _StepCell:
    """`step_function(x, states + constants) -> (y, new_states)` as a cell `(arrays, states, x) -> (states, y)`."""

    step_function: Callable[..., Any]
    structure: Any  # of the tuple of constants
    others: tuple[Any, ...]  # leaves of the constants that are no arrays; `...` where there is an array

    @property
    def __name__(self) -> str:  # what messages call the cell
        return getattr(self.step_function, "__name__", None) or repr(self.step_function)

    def __call__(self, arrays: list[Any] | None, states: tuple[Any, ...], x: Any) -> tuple[Any, Any]:
        left = iter(arrays or ())
        leaves = [next(left) if other is ... else other for other in self.others]
        constants = jax.tree.unflatten(self.structure, leaves)
        try:
            result = self.step_function(x, states + constants)
        except Exception as error:
            followed = f" followed by {count(len(constants), 'constant')}" if constants else ""
            error.add_note(
                f"`step_function` is called as `step_function(x, states)` with `states` = a tuple of "
                f"{count(len(states), 'state')}{followed}"
            )
            raise
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise CellOutputError(f"`step_function` must return (output, new_states), got {kind(result)}")
        y, new_states = result
        if not isinstance(new_states, tuple | list):
            swapped = isinstance(y, tuple | list)
            raise CellOutputError(
                "`step_function` must return (output, new_states) with new_states a list or tuple like "
                f"initial_states, got {kind(new_states)}. "
                + ("Did you return (new_states, output)?" if swapped else "Write `return output, [state]`.")
            )
        if len(new_states) != len(states):
            raise CarryError(
                f"`step_function` returned {count(len(new_states), 'new state')}, but `initial_states` has "
                f"{len(states)}; constants are passed to each step and not returned"
            )
        return _like(states, new_states), y


def _as_cell(step_function: Any, constants: Any) -> tuple[_StepCell, list[Any] | None]:
    """The cell, and the arrays among the constants, which are its params; None where there are none."""
    if constants is not None and not isinstance(constants, tuple | list):
        raise TypeError(f"`constants` must be a list or tuple, got {kind(constants)}; write `constants=[value]`")
    leaves, structure = jax.tree.flatten(tuple(constants or ()))
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    others = tuple(... if known else leaf for leaf, known in zip(leaves, is_array, strict=True))
    arrays = [leaf for leaf, known in zip(leaves, is_array, strict=True) if known]
    return _StepCell(step_function, structure, others), arrays or None


def _like(old: Any, new: Any) -> Any:
    """`new` with lists where `old` has tuples and the reverse: Keras cells return either."""
    if type(old) in (tuple, list) and type(new) in (tuple, list) and len(old) == len(new):
        return type(old)(_like(o, n) for o, n in zip(old, new, strict=True))
    if type(old) is type(new) is dict and old.keys() == new.keys():
        return {name: _like(old[name], new[name]) for name in old}
    return new


def _counts(chosen: dict[str, Any], t: int, n_rows: int, axis: int) -> jax.Array:
    """Which rows count step t, bool (B,)."""
    if "mask" in chosen:
        return jnp.take(jnp.asarray(chosen["mask"]), t, axis)
    return jnp.broadcast_to(jnp.asarray(chosen["lengths"]) > t, (n_rows,))


def _last_of(outputs: Any, axis: int) -> Any:
    """The outputs of the step that was run last; zeros if none was."""

    def last(y: jax.Array) -> jax.Array:
        if y.shape[axis]:
            return jnp.take(y, y.shape[axis] - 1, axis)
        return jnp.zeros(y.shape[:axis] + y.shape[axis + 1 :], y.dtype)

    return jax.tree.map(last, outputs)
