"""What the loops check of their arguments, in TensorFlow's words, before `rs.scan` sees them."""

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import _inputs, _tree
from ..._errors import CarryError, CellOutputError, LengthError, ParamsError, SequenceError
from ..._types import name_of, rng_use
from .rnn_cell import RNNCell, check_cell, zero_state


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING: Any = _Missing()  # None is what a cell without params takes

_SWAPPED = "Did you return (y, carry)? rnnscan cells return (carry, y)."


def check_settings(caller: str, parallel_iterations: Any, swap_memory: Any, scope: Any) -> None:
    """The arguments without numerical meaning; they are checked all the same, so that a slip does not pass unseen."""
    if parallel_iterations is not None:
        if isinstance(parallel_iterations, bool) or not hasattr(parallel_iterations, "__index__"):
            raise TypeError(f"`{caller}` takes parallel_iterations=None or an int; got {parallel_iterations!r}.")
        if operator.index(parallel_iterations) < 1:
            raise ValueError(f"`{caller}` takes parallel_iterations >= 1; got {parallel_iterations}.")
    check_flag(caller, "swap_memory", swap_memory)
    if scope is not None and not isinstance(scope, str):
        raise TypeError(
            f"`{caller}` takes scope=None or a name, which profiles show; got {scope!r}. Variables are found in "
            "params, not in a scope."
        )


def check_flag(caller: str, name: str, value: Any) -> bool:
    """A Python bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{caller}` takes {name}=True or False; got {value!r}.")
    return bool(value)


def check_noise(caller: str, cell: Any, key: Any) -> None:
    """`cell` is a cell, and `key` is there if and only if it draws random numbers."""
    check_cell(caller, cell)
    use = rng_use(cell)
    if key is not None:
        _inputs.check_key(key)
    if key is None and use == "required":
        raise ValueError(
            f"`{caller}`: cell `{name_of(cell)}` draws random numbers, so it needs `key=jax.random.key(seed)`; for "
            "evaluation `rs.wrap.deterministic(cell)` is the same cell without them, and takes the same params."
        )
    if key is not None and use == "never":
        raise ValueError(f"`{caller}` got `key`, but cell `{name_of(cell)}` draws no random numbers. Leave it out.")


def order(caller: str) -> str:
    """What to say to code of TensorFlow's, which has no params."""
    cells = {"stack": "cells_fw, cells_bw", "bidir": "cell_fw, cell_bw"}
    first = next((names for word, names in cells.items() if word in caller), "cell")
    return f" Params come after the cell, `{caller}({first}, params, ...)`; `cell.init(key, input_size)` makes them."


def check_params(caller: str, cell: Any, params: Any) -> None:
    """`params` was given, and is not None for a cell that makes some; its own variables the cell checks."""
    if params is MISSING:
        raise TypeError(f"`{caller}` was called without `params`.{order(caller)}")
    while getattr(cell, "transparent", False):
        cell = cell.cell
    ours = type(cell).__module__.startswith(RNNCell.__module__.removesuffix("base"))
    if params is None and ours:  # a cell of the user's may have none
        raise ParamsError(f"`{caller}` got params=None for cell `{name_of(cell)}`, which has some.{order(caller)}")


def check_values(caller: str, cell: Any, inputs: Any, lengths: Any, time_axis: int) -> None:
    """Inputs are floating where the cell multiplies them, and ids of a table in it where their values are known."""
    for name, leaf in _tree.named_leaves("inputs", inputs) if getattr(cell, "float_input", False) else []:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise SequenceError(
                f"`{caller}`: `{name}` is {jnp.result_type(leaf)}, but cell `{name_of(cell)}` works on floats. Convert "
                f"it, `{name}.astype(jnp.float32)`, or look integers up with `EmbeddingWrapper`."
            )
    table = getattr(cell, "table", None)
    if table is None or not jax.tree_util.all_leaves([inputs]) or not _tree.is_concrete(inputs):
        return
    ids = np.moveaxis(np.asarray(inputs), time_axis, 0)
    if np.issubdtype(ids.dtype, np.integer) and (lengths is None or _tree.is_concrete(lengths)):
        rows = np.full(ids.shape[1], len(ids)) if lengths is None else np.asarray(lengths)
        table.check_ids(ids[np.arange(len(ids))[:, None] < rows])


def check_inputs(caller: str, inputs: Any, time_axis: int) -> tuple[int, int]:
    """`(T, B)` of inputs `(B, T, depth, ...)`, or `(T, B, depth, ...)` with `time_axis=0`; all leaves must agree."""
    _inputs.check_arrays(inputs=inputs)
    named = _tree.named_leaves("inputs", inputs)
    form = "(max_time, batch, depth, ...)" if time_axis == 0 else "(batch, max_time, depth, ...)"
    if not named:
        raise SequenceError(
            f"`{caller}` got inputs={inputs!r}, expected an array {form} or a nest of them.{order(caller)}"
        )
    for name, leaf in named:
        if jnp.ndim(leaf) >= 3:
            continue
        hint = ""
        if isinstance(inputs, list | tuple) and jnp.ndim(leaf) == 0:
            hint = " A list of numbers is a nest of scalars; did you mean `jnp.asarray(inputs)`?" + order(caller)
        elif isinstance(inputs, list | tuple):
            hint = " A list with one array for each step is what `static_rnn` takes."
        elif jnp.ndim(leaf) == 2:
            hint = f" If every step has one feature write `{name}[..., None]`."
        elif jnp.ndim(leaf) == 1:
            hint = order(caller)
        raise SequenceError(f"`{caller}`: `{name}` has shape {jnp.shape(leaf)}, expected {form}.{hint}")
    first, shape = named[0][0], jnp.shape(named[0][1])
    for name, leaf in named[1:]:
        for axis, what in ((time_axis, "T"), (1 - time_axis, "the batch size")):
            if jnp.shape(leaf)[axis] != shape[axis]:
                raise SequenceError(
                    f"`{caller}`: inputs disagree on {what}: `{first}` has shape {shape}, `{name}` {jnp.shape(leaf)}, "
                    f"expected {form}."
                )
    return shape[time_axis], shape[1 - time_axis]


def stack_inputs(caller: str, inputs: Any) -> Any:
    """A list with the inputs of each step as one tree with time first; every step must look the same."""
    if not isinstance(inputs, list | tuple):
        hint = " One array is what `dynamic_rnn` takes." if hasattr(inputs, "shape") else ""
        hint = order(caller) if inputs is None else hint
        raise TypeError(
            f"`{caller}` takes inputs as a list of T arrays (batch, ...); got a {type(inputs).__name__}.{hint}"
        )
    if not inputs:
        raise SequenceError(f"`{caller}` got an empty list of inputs; it takes at least one step.")
    _inputs.check_arrays(inputs=inputs)
    first = inputs[0]
    for t, step in enumerate(inputs):
        if jax.tree.structure(step) != jax.tree.structure(first):
            raise SequenceError(
                f"`{caller}`: `inputs[{t}]` is {jax.tree.structure(step)}, `inputs[0]` {jax.tree.structure(first)}; "
                "every step has one structure."
            )
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(step), strict=True):
            if jnp.ndim(b) == 0:
                raise SequenceError(f"`{caller}`: `inputs[{t}]` holds a scalar, expected an array (batch, ...).")
            if jnp.shape(a) != jnp.shape(b):
                raise SequenceError(
                    f"`{caller}`: `inputs[{t}]` has shape {jnp.shape(b)}, `inputs[0]` {jnp.shape(a)}; every step has "
                    "one shape. Rows that end early are what `sequence_length` is for."
                )
    rows = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(first)}
    if len(rows) != 1:
        came = "no array" if not rows else f"batch sizes {sorted(rows)}"
        raise SequenceError(f"`{caller}`: `inputs[0]` has {came}; every step has one batch size in all its arrays.")
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *inputs)


def check_lengths(caller: str, sequence_length: Any, n_steps: int, batch_size: int) -> Any:
    """`sequence_length` as an integer vector with one value in [0, T] for each row; None if there is none."""
    if sequence_length is None:
        return None
    expected = f"integers of shape (batch,) = ({batch_size},), one for each row"
    lengths = _inputs.as_array("sequence_length", sequence_length, expected)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(
            f"`{caller}`: `sequence_length` must be {expected}; got {lengths.dtype}. Write "
            "`jnp.asarray(sequence_length, jnp.int32)`."
        )
    if lengths.shape != (batch_size,):
        raise LengthError(f"`{caller}`: `sequence_length` has shape {lengths.shape}, expected {expected}.")
    return _inputs.within("sequence_length", lengths, n_steps)


def first_state(
    caller: str, cell: Any, initial_state: Any, dtype: Any, batch_size: int, name: str = "initial_state"
) -> Any:  # fmt: skip
    """`initial_state` if given and, plain tuples and lists aside, of the cell's form; else `cell.zero_state`."""
    if initial_state is None:
        if dtype is None:
            raise ValueError(
                f"`{caller}` needs `dtype`, the type of the zero state to start from, for example "
                f"`dtype=jnp.float32`; or give `{name}`."
            )
        return zero_state(cell, batch_size, dtype)
    _inputs.check_arrays(**{name: initial_state})
    try:
        expected = jax.eval_shape(lambda: zero_state(cell, batch_size, jnp.float32))
    except (TypeError, ValueError, NotImplementedError):
        return initial_state  # a cell that makes no zero state cannot be asked what its state looks like
    initial_state = _nested_as(expected, initial_state)
    if jax.tree.structure(initial_state) != jax.tree.structure(expected):
        raise CarryError(
            f"`{caller}`: `{name}` must be like `cell.zero_state({batch_size}, dtype)` of cell `{name_of(cell)}`, that "
            f"is {_shapes(expected)}; got {_shapes(initial_state)}."
        )
    for (leaf_name, leaf), want in zip(
        _tree.named_leaves(name, initial_state), jax.tree.leaves(expected), strict=True
    ):  # fmt: skip
        shape = jnp.shape(leaf)
        if shape == want.shape:
            continue
        if shape[1:] == want.shape[1:] and len(shape) == len(want.shape):
            copies = f"; `jnp.broadcast_to({leaf_name}, {want.shape})` gives every row a copy" * (shape[0] == 1)
            raise SequenceError(
                f"`{caller}`: batch size: `{leaf_name}` has {shape[0]}, inputs have {batch_size}{copies}."
            )
        raise CarryError(
            f"`{caller}`: `{leaf_name}` has shape {shape}, expected {want.shape} for cell `{name_of(cell)}` and "
            f"{batch_size} rows."
        )
    return initial_state


def _nested_as(expected: Any, state: Any) -> Any:
    """`state` with plain tuples and lists in the place of tuples, named ones too, made these; TensorFlow takes them."""
    if isinstance(expected, tuple) and type(state) in (tuple, list) and len(state) == len(expected):
        parts = [_nested_as(want, part) for want, part in zip(expected, state, strict=True)]
        return type(expected)(*parts) if hasattr(expected, "_fields") else tuple(parts)
    return state


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: _tree.describe(leaf) if hasattr(leaf, "shape") else repr(leaf), tree)


def check_outputs(caller: str, cell: Any, outputs: Any, dtype: Any) -> None:
    """Every output has the `dtype` asked for, if one was."""
    if dtype is None:
        return
    wanted = jnp.result_type(dtype)
    for name, leaf in _tree.named_leaves("outputs", outputs):
        if leaf.dtype != wanted:
            raise CellOutputError(
                f"`{caller}`: `{name}` of cell `{name_of(cell)}` is {leaf.dtype}, but `dtype` asks for {wanted}. "
                "Inputs, params and state decide what a cell puts out: convert these, or leave `dtype` out and give "
                "`initial_state`."
            )


@contextlib.contextmanager
def in_words_of(caller: str) -> Iterator[None]:
    """What is raised inside tells how the names of `rs.scan` and those of `caller` correspond."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CarryError) and _SWAPPED in str(error):
            hint = "Did you return (state, output)? TensorFlow's cells return (output, state)."
            error.args = (str(error).replace(_SWAPPED, hint),)
        error.add_note(
            f"raised by `{caller}`, a translation to `rs.scan`: what `rs.scan` calls xs, carry, lengths and y are the "
            "inputs, the state, sequence_length and the output of one step; a cell here returns (output, state)."
        )
        raise
