"""What a TensorFlow cell is here: `cell(params, inputs, state) -> (output, state)`, with `state_size` and `output_size`."""

import dataclasses
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...._types import name_of, settle
from ....cells import initial


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM, `c` (memory) and `h` (output), in this order as in TensorFlow; `rs.cells.LSTM` has (h, c)."""

    c: Any
    h: Any


class RNNCell:
    """What every cell here is, and what a cell of your own may derive from to get `zero_state`.

    A cell needs
    * `__call__(params, inputs, state) -> (output, new_state)`, pure; one that draws random numbers takes `rng` (an
      `rs.Rng`) as fourth argument;
    * `state_size`: an int n stands for an array `(*batch, n)`, a `jax.ShapeDtypeStruct` for one `(*batch, *shape)` of its
      own dtype (TensorFlow's `TensorShape`), and a tuple, dict or list of these for such a tree;
    * `output_size`, in the same form.

    Nothing else is asked of it: the class need not derive from this one. With `init(key, input_size, dtype=None)` it
    can make params where a wrapper or a front end makes them. Where TensorFlow's cell made its variables on the first call
    and kept them, params are an argument here: nested dicts with TensorFlow's variable names.
    """

    state_size: Any
    output_size: Any

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
    if not hasattr(cell, "init"):
        raise TypeError(
            f"`{name_of(cell)}` has no `init`, so nothing knows its params. Give it a method `init(key, input_size, "
            "dtype=None) -> params`, or pass params of your own."
        )
    return cell.init(key, input_size, dtype)


def check_cell(caller: str, cell: Any) -> Any:
    """The cell itself if it is called as `cell(params, inputs, state)` and tells its sizes; else TypeError."""
    if isinstance(cell, type):
        raise TypeError(f"`{caller}` takes a cell; got the class `{cell.__name__}`. Write `{cell.__name__}(...)`.")
    missing = [name for name in ("state_size", "output_size") if not hasattr(cell, name)]
    if not callable(cell):
        missing.insert(0, "__call__(params, inputs, state)")
    if missing:
        hint = ""
        if hasattr(cell, "initial_carry"):
            hint = " It looks like a cell of `rs.cells`: run it with `rs.scan`, or take the one in `rnn_cell`."
        raise TypeError(
            f"`{caller}` takes a cell with `__call__(params, inputs, state)`, `state_size` and `output_size`; "
            f"`{name_of(cell)}`, a {type(cell).__name__}, lacks {', '.join(f'`{m}`' for m in missing)}.{hint}"
        )
    return cell


def scope_name(cell: Any) -> str:
    """The variable scope TensorFlow gave a cell: its `name`, or its class in snake case, `basic_lstm_cell`."""
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


def settle_cell(cell: Any, **convert: Callable[[Any], Any]) -> None:
    """For `__post_init__`: normalises the fields, those that every TensorFlow cell has among them; arrays raise."""
    given = {field.name for field in dataclasses.fields(cell)}
    shared = {
        "name": lambda name: _scope(cell, name),
        "dtype": lambda dtype: None if dtype is None else initial.float_dtype(dtype),
        "reuse": lambda reuse: _no_reuse(cell, reuse),
        "activation": lambda activation: activation_function(cell, activation),
    }
    settle(cell, **({name: fix for name, fix in shared.items() if name in given} | convert))


def _scope(cell: Any, name: Any) -> str | None:
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"`{type(cell).__name__}` takes name=None or the name of its variable scope; got {name!r}.")
    return name


def _no_reuse(cell: Any, reuse: Any) -> None:
    if reuse is None or reuse is False:
        return
    raise ValueError(
        f"`{type(cell).__name__}(reuse={reuse!r})`: there are no variable scopes to find variables in. To share weights, "
        "pass the same params to both calls."
    )


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "linear": lambda a: a,
}


def activation_function(cell: Any, activation: Any) -> Any:
    """None, a name from ACTIVATIONS, or a function; else ValueError or TypeError."""
    if activation is None or activation in ACTIVATIONS or (callable(activation) and not isinstance(activation, type)):
        return activation
    names = ", ".join(map(repr, ACTIVATIONS))
    raise (ValueError if isinstance(activation, str) else TypeError)(
        f"`{type(cell).__name__}` takes activation=None, {names}, or a function of an array; got {activation!r}."
    )


def activate(activation: Any, value: Any, default: Callable[[Any], Any] = jnp.tanh) -> Any:
    """`value` through the activation a field names."""
    if activation is None:
        return default(value)
    return ACTIVATIONS[activation](value) if isinstance(activation, str) else activation(value)
