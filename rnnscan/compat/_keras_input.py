"""What `rs.compat.keras.rnn` is given, checked and named as its user knows it, before `scan` sees it."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _inputs, _tree
from .._errors import LengthError, SequenceError


def check_step_and_flags(step_function: Any, flags: dict[str, Any]) -> None:
    """TypeError unless the step can be called and each flag is a bool."""
    if isinstance(step_function, type) or not callable(step_function):
        raise TypeError(
            "`rnn` needs a function `(x, states) -> (output, new_states)` as its first argument, got "
            f"{kind(step_function)}"
        )
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` must be True or False, got {kind(value)}")


def rows_and_steps(inputs: Any, axis: int) -> tuple[int, int]:
    """B and T, which all inputs share."""
    _inputs.check_arrays(inputs=inputs)
    axes, leaves = "(T, B, ...)" if axis == 0 else "(B, T, ...)", _tree.named_leaves("inputs", inputs)
    if not leaves:
        raise SequenceError(f"`inputs` holds no array; `rnn` takes its steps from it. Give {axes}.")
    first, sizes = leaves[0][0], jnp.shape(leaves[0][1])[:2]
    for name, leaf in leaves:
        shape = jnp.shape(leaf)
        if not hasattr(leaf, "shape") and name != "inputs":
            raise SequenceError(
                f"`inputs` is a tree of {len(leaves)} Python numbers, not of sequences {axes}; did you mean "
                "`jnp.asarray(inputs)`?"
            )
        if len(shape) < 3:
            hint = " Write `inputs[..., None]` for one number a step." if len(shape) == 2 else ""
            raise SequenceError(f"`{name}` has shape {shape}, expected {axes} with at least three axes.{hint}")
        for i, what in ((axis, "T"), (1 - axis, "B")):
            if shape[i] != sizes[i]:
                raise SequenceError(
                    f"inputs disagree on {what}: `{first}` has shape {(*sizes, '...')}, `{name}` has "
                    f"{(*shape[:2], '...')}, both {axes}".replace("'...'", "...")
                )
    return sizes[1 - axis], sizes[axis]


def read_states(initial_states: Any, n_rows: int) -> tuple[Any, ...]:
    """The states as a tuple; each array in them has B rows."""
    if not isinstance(initial_states, tuple | list):
        raise TypeError(
            f"`initial_states` must be a list or tuple of states, got {kind(initial_states)}; write "
            "`initial_states=[state]`"
        )
    _inputs.check_arrays(initial_states=initial_states)
    for name, leaf in _tree.named_leaves("initial_states", initial_states):
        shape = jnp.shape(leaf)
        if shape and shape[0] != n_rows:
            one = f"; `jnp.broadcast_to({name}, {(n_rows, *shape[1:])})`" if shape[0] == 1 else ""
            raise SequenceError(f"batch size: `{name}` has {shape[0]} rows, inputs have {n_rows}{one}.")
    return tuple(initial_states)


def read_selection(mask: Any, input_length: Any, n_rows: int, n_steps: int, axis: int) -> dict[str, Any]:
    """`mask` or `input_length` as an option of `scan`: `{"mask": (time on axis)}`, `{"lengths": ...}` or nothing."""
    whole = isinstance(input_length, int | np.integer) and not isinstance(input_length, bool)
    if whole and input_length == n_steps:
        input_length = None  # Keras' layers always pass it
    if mask is None and input_length is None:
        return {}
    if mask is None:
        shape = getattr(input_length, "shape", ())
        if shape not in ((), (n_rows,)) and input_length.dtype != jnp.bool_:  # that is a mask: `scan` says so
            raise LengthError(f"`input_length` has shape {shape}, expected () or (B,) = {(n_rows,)}.")
        return {"lengths": input_length}
    if input_length is not None:
        raise ValueError(
            "give `mask` or `input_length`, not both: input_length = n is the mask that is True for the first n steps"
        )
    try:
        mask = mask if hasattr(mask, "ndim") else np.asarray(mask)
    except ValueError:  # a ragged list: `scan` says so
        return {"mask": mask}
    expected = (n_steps, n_rows) if axis == 0 else (n_rows, n_steps)
    if mask.ndim == 1 and mask.shape == (n_rows,) and jnp.issubdtype(mask.dtype, jnp.integer):
        raise SequenceError(
            f"`mask` is {_tree.describe(mask)}, one number for each row, expected bool {expected}. It looks like "
            "lengths: pass `input_length=`."
        )
    if mask.ndim == 3:
        if mask.shape[2] != 1:
            raise SequenceError(
                f"`mask` has shape {mask.shape}, expected {expected} or {(*expected, 1)}: one value for each step. "
                "Where its features agree write `mask[..., 0]`."
            )
        mask = mask[..., 0]
    return {"mask": mask}


def kind(value: Any) -> str:
    """How messages call a value: a number, None or text as it is, anything else by its size or type."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, type):
        return f"the class `{value.__name__}`"
    return f"{value!r}" if isinstance(value, int | float | str | None) else _tree.describe(value)
