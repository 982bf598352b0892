"""What a TensorFlow cell is here: `cell(params, inputs, state) -> (output, state)`, and the checks all cells share."""

import dataclasses
import numbers
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...._types import Rng, name_of, settle
from ....cells import initial


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM, `c` (memory) and `h` (output), in TensorFlow's order; `rs.cells.LSTM` has (h, c)."""

    c: Any
    h: Any


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
        f"`{type(cell).__name__}(reuse={reuse!r})`: there are no variable scopes to find variables in. To share "
        "weights, pass the same params to both calls."
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


def keep_probability(cell: Any, name: str) -> Callable[[Any], float]:
    """A check that brings the field `name`, a probability of keeping a number, to a float in [0, 1]."""

    def check(value: Any) -> float:
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"`{type(cell).__name__}` takes `{name}` as a number in [0, 1], the share that is kept; got {value!r}."
            )
        share = float(value)
        if not 0 <= share <= 1:  # false for NaN too
            raise ValueError(
                f"`{type(cell).__name__}` takes `{name}` in [0, 1], the share that is kept; got {value!r}."
            )
        return share

    return check


def unused(cell: Any, name: str, instead: str) -> Callable[[Any], None]:
    """A check that refuses anything but None for a field that TensorFlow took and did not read."""

    def check(value: Any) -> None:
        if value is not None:
            raise ValueError(f"`{type(cell).__name__}({name}={value!r})`: {instead}. Leave `{name}` out.")

    return check


def keep_some(value: Any, keep_prob: float, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`value` with numbers zeroed where a mask of `shape` says so, the others divided by `keep_prob`."""
    if keep_prob == 0:  # nothing is kept, and nothing is divided by 0
        return jnp.zeros_like(value)
    mask = jax.random.bernoulli(key, keep_prob, shape)
    return jnp.where(mask, value / keep_prob, jnp.zeros_like(value))


def seeded(rng: Rng, seed: int | None) -> Rng:
    """The randomness of a cell that has a seed of its own, so that two cells with different seeds differ."""
    return rng if seed is None else rng.child(seed)


def seed_number(seed: Any) -> int | None:
    """A seed as `fold_in` takes it, an int in [0, 2**32)."""
    return None if seed is None else operator.index(seed) % 2**32
