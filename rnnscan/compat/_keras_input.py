"""What `rs.compat.keras.rnn` is given, checked and named as its user knows it, before `scan` sees it."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _inputs, _tree
from .._errors import LengthError, SequenceError
from .._tree import kind


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
            hint = _third_axis(name, shape, inputs, axis)
            raise SequenceError(f"`{name}` has shape {shape}, expected {axes} with at least three axes.{hint}")
        for i, what in ((axis, "T"), (1 - axis, "B")):
            if shape[i] != sizes[i]:
                raise SequenceError(
                    f"inputs disagree on {what}: `{first}` has shape {(*sizes, '...')}, `{name}` has "
                    f"{(*shape[:2], '...')}, both {axes}".replace("'...'", "...")
                )
    return sizes[1 - axis], sizes[axis]


def _third_axis(name: str, shape: tuple[int, ...], inputs: Any, axis: int) -> str:
    """What to write where inputs lack an axis: a list of steps is stacked, one number a step gets a feature axis."""
    if isinstance(inputs, tuple | list) and shape and all(jnp.shape(leaf) == shape for leaf in inputs):
        stacked = f"jnp.stack(inputs, {axis}){'[..., None]' if len(shape) == 1 else ''}"
        return f" If `inputs` is a {type(inputs).__name__} of time steps, write `{stacked}`."
    return f" Write `{name}[..., None]` for one number a step." if len(shape) == 2 else ""


def read_states(initial_states: Any, n_rows: int, n_steps: int, axis: int) -> tuple[Any, ...]:
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
            hint = ""
            if shape[0] == n_steps:
                order, write = ("(T, B, ...)", "write") if axis else ("(B, T, ...)", "leave out")
                hint = f", and {count(n_steps, 'step')}. If inputs are {order}, {write} `time_major=True`"
            elif shape[0] == 1:
                hint = f"; `jnp.broadcast_to({name}, {(n_rows, *shape[1:])})`"
            raise SequenceError(f"batch size: `{name}` has {count(shape[0], 'row')}, inputs have {n_rows}{hint}.")
    return tuple(initial_states)


def read_selection(
    mask: Any, input_length: Any, inputs: Any, n_rows: int, n_steps: int, axis: int
) -> dict[str, Any]:  # fmt: skip
    """`mask` or `input_length` as an option of `scan`: `{"mask": (time on axis)}`, `{"lengths": ...}` or nothing."""
    whole = isinstance(input_length, int | np.integer) and not isinstance(input_length, bool)
    if whole and input_length == n_steps:
        input_length = None  # Keras' layers always pass it
    if mask is None and input_length is None:
        return {}
    if mask is None:
        return {"lengths": _read_lengths(input_length, inputs, n_rows, n_steps, axis)}
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


def _read_lengths(input_length: Any, inputs: Any, n_rows: int, n_steps: int, axis: int) -> Any:
    """One int or B of them, within [0, T] where they can be seen; the errors call them `input_length`."""
    try:
        array = input_length if hasattr(input_length, "shape") else np.asarray(input_length)
    except ValueError:  # a ragged list, as is said below
        array = np.asarray(0)
    if array.shape not in ((), (n_rows,)) and array.dtype != jnp.bool_:  # bools are a mask, as is said below
        raise LengthError(f"`input_length` has shape {array.shape}, expected () or (B,) = {(n_rows,)}.")
    return _inputs.check_lengths(input_length, inputs, n_steps, axis, root="inputs", name="input_length")


def translation(with_constants: bool, with_lengths: bool) -> str:
    """The note on an error of `scan`, which speaks of its own arguments."""
    constants = ", `params` the arrays among its `constants`" * with_constants
    lengths = ", `lengths` its `input_length`" * with_lengths
    return (
        "raised by `scan` for `rs.compat.keras.rnn`: `xs` are its `inputs`, `carry` its `initial_states`"
        f"{constants}{lengths}, and the cell is its `step_function`"
    )


def count(n: int, noun: str) -> str:
    """`1 state`, `2 states`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
