"""What a TensorFlow cell is here: `cell(params, inputs, state) -> (output, state)`, and how its states are made."""

import contextlib
import dataclasses
import inspect
import operator
import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...._types import name_of, rng_use
from ....cells import initial


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM, `c` (memory) and `h` (output), in TensorFlow's order; `rs.cells.LSTM` has (h, c)."""

    c: Any
    h: Any


_OLD_NAMES = ("inputs", "input", "input_", "x")  # what TensorFlow's cells call their first argument


class RNNCell:
    """What every cell here is, and what a cell of your own may derive from to get `zero_state`.

    A cell needs
    * `__call__(params, inputs, state) -> (output, new_state)`, pure; one that draws random numbers takes `rng` (an
      `rs.Rng`) as fourth argument;
    * `state_size`: an int n stands for an array `(*batch, n)`, a `jax.ShapeDtypeStruct` for one `(*batch, *shape)` of
      its own dtype (TensorFlow's `TensorShape`), and a tuple, dict or list of these for such a tree;
    * `output_size`, in the same form.

    Nothing else is asked of it: the class need not derive from this one. With `init(key, input_size, dtype=None)` it
    can make params where a wrapper makes them. TensorFlow's cells made their variables on the first call and kept them;
    here params are an argument, nested dicts with TensorFlow's variable names.
    """

    state_size: Any
    output_size: Any
    other_order = "takes `(params, inputs, state)`, as in TensorFlow. Write `rnn_cell.as_cell(cell)`."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes nothing. Raises TypeError for TensorFlow's `_reuse`, `trainable`, `name` and `dtype`."""
        if args or kwargs:
            given = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
            raise TypeError(
                f"`RNNCell.__init__` of `{type(self).__name__}` takes nothing; got {given}. Write "
                "`super().__init__()` or nothing: there are no variables to reuse or to name, params are an argument."
            )
        super().__init__()

    def init(self, key: jax.Array, input_size: Any, dtype: Any = None) -> Any:
        """Params for inputs of `input_size` features; TypeError from a cell of your own that does not say how."""
        raise TypeError(
            f"`{name_of(self)}` has no `init`, so nothing knows its params. Give it a method `init(key, input_size, "
            "dtype=None) -> params`, in place of TensorFlow's `build`, or pass params of your own."
        )

    def zero_state(self, batch_size: Any, dtype: Any = None) -> Any:
        """Zeros for `batch_size` rows, an int or a tuple of batch axes; `dtype` None is the cell's, or JAX's float."""
        return zeros(self.state_size, batch_size, getattr(self, "dtype", None) if dtype is None else dtype)

    def __repr__(self) -> str:
        return show(self) if dataclasses.is_dataclass(self) else object.__repr__(self)


def zeros(sizes: Any, batch_size: Any, dtype: Any = None) -> Any:
    """Zeros with one array for each size in the tree `sizes`."""
    batch = tuple(batch_size) if isinstance(batch_size, tuple | list) else (operator.index(batch_size),)
    dtype = initial.float_dtype(dtype)

    def zero(size: Any) -> jax.Array:
        if hasattr(size, "shape") and hasattr(size, "dtype"):
            return jnp.zeros((*batch, *size.shape), size.dtype)
        return jnp.zeros((*batch, operator.index(size)), dtype)

    return jax.tree.map(zero, sizes)


def zero_state(cell: Any, batch_size: Any, dtype: Any = None) -> Any:
    """`cell.zero_state(batch_size, dtype)`, or zeros after `cell.state_size` for a cell without that method."""
    if hasattr(cell, "zero_state"):
        return cell.zero_state(batch_size, dtype)
    return zeros(cell.state_size, batch_size, dtype)


def init(cell: Any, key: jax.Array, input_size: Any, dtype: Any = None) -> Any:
    """`cell.init(key, input_size, dtype)`; TypeError for a cell without."""
    make = cell.init if hasattr(cell, "init") else partial(RNNCell.init, cell)
    return make(key, input_size, dtype)


def check_cell(caller: str, cell: Any) -> Any:
    """The cell itself if it is called as `cell(params, inputs, state)` and tells its sizes; else TypeError."""
    if isinstance(cell, type):
        raise TypeError(f"`{caller}` takes a cell; got the class `{cell.__name__}`. Write `{cell.__name__}(...)`.")
    missing = [name for name in ("state_size", "output_size") if not hasattr(cell, name)]
    if not callable(cell):
        missing.insert(0, "__call__(params, inputs, state)")
    if missing:
        hint = ""
        if not callable(cell) and hasattr(cell, "call"):
            hint = " TensorFlow's `call(inputs, state)` is `__call__(params, inputs, state)` here."
        if hasattr(cell, "initial_carry"):
            hint = " It looks like a cell of `rs.cells`: run it with `rs.scan`, or take the one in `rnn_cell`."
        raise TypeError(
            f"`{caller}` takes a cell with `__call__(params, inputs, state)`, `state_size` and `output_size`; "
            f"`{name_of(cell)}`, a {type(cell).__name__}, lacks {', '.join(f'`{m}`' for m in missing)}.{hint}"
        )
    if _in_old_order(cell) or (not _takes(cell, 3) and not _takes(cell, 4)):
        raise TypeError(
            f"`{caller}` calls its cell as `cell(params, inputs, state)`, and with `rng` if it draws random numbers; "
            f"`{name_of(cell)}` takes {inspect.signature(cell)}. Params are an argument here: put them first."
        )
    return cell


def check_state(cell: Any, state: Any) -> None:
    """TypeError where a cell that has a state is called without one, as TensorFlow's `cell(inputs, state)` is."""
    if state is None and jax.tree.leaves(cell.state_size):
        raise TypeError(
            f"`{cell}` is called `cell(params, inputs, state)`, params first, and got no state (or None). "
            "`cell.init(key, input_size)` makes params, `cell.zero_state(batch_size)` a first state."
        )


def no_rng_needed(cell: Any) -> None:
    """TypeError if a cell that draws random numbers was called without `rng`."""
    if rng_use(cell) == "required":
        raise TypeError(
            f"`{cell}` draws random numbers and was called without `rng`. Called by hand it takes "
            "`rng=rs.Rng(jax.random.key(seed), t)`, with t the number of the step; a loop takes `key=`. "
            "`rs.wrap.deterministic(cell)` is the same cell without noise."
        )


def _in_old_order(cell: Any) -> bool:
    """Whether a cell calls its first two arguments as TensorFlow's cells do, `(inputs, state)`."""
    try:
        names = list(inspect.signature(cell).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) > 1 and names[0] in _OLD_NAMES and names[1] == "state"


def _takes(cell: Any, n: int) -> bool:
    """Whether a cell can be called with n arguments by place, the `rng` of one with four also by name."""
    try:
        signature = inspect.signature(cell)
    except (TypeError, ValueError):  # some callables have no signature to read
        return True
    for by_name in ({}, {"rng": None}):
        with contextlib.suppress(TypeError):
            signature.bind(*range(n - len(by_name)), **by_name)
            return True
    return False


def scope_name(cell: Any) -> str:
    """The variable scope TensorFlow gave a cell: its `name`, or its class in snake case, `basic_lstm_cell`."""
    while getattr(cell, "transparent", False):  # a wrapper without variables had no scope
        cell = cell.cell
    name = getattr(cell, "name", None)
    if isinstance(name, str):
        return name
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(cell).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def show(cell: Any) -> str:
    """A cell as one writes it: required fields, then those that differ from their defaults."""
    shown = []
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.default is dataclasses.MISSING:
            shown.append(name_of(value))
        elif value != field.default:
            shown.append(f"{field.name}={name_of(value) if callable(value) else repr(value)}")
    return f"{type(cell).__name__}({', '.join(shown)})"
