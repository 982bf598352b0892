"""The settings of a TensorFlow cell, brought to one form or refused; activations; numbers kept or dropped."""

import dataclasses
import numbers
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...._types import Rng, settle
from ....cells import initial


def settle_cell(cell: Any, **convert: Callable[[Any], Any]) -> None:
    """For `__post_init__`: normalises the fields, those that every TensorFlow cell has among them; arrays raise."""
    given = {field.name for field in dataclasses.fields(cell)}
    shared = {
        "name": lambda name: _scope(cell, name),
        "dtype": lambda dtype: None if dtype is None else initial.float_dtype(dtype),
        "reuse": lambda reuse: _no_reuse(cell, reuse),
        "activation": lambda activation: activation_function(cell, activation),
    } | {
        name: lambda initializer, name=name: _initializer(cell, name, initializer)
        for name in ("initializer", "kernel_initializer", "bias_initializer")
    }
    settle(cell, **({name: fix for name, fix in shared.items() if name in given} | convert))


def _scope(cell: Any, name: Any) -> str | None:
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"`{type(cell).__name__}` takes name=None or the name of its variable scope; got {name!r}.")
    return name


def _initializer(cell: Any, name: str, initializer: Any) -> Any:
    if initializer is None or (callable(initializer) and not isinstance(initializer, type)):
        return initializer
    raise TypeError(
        f"`{type(cell).__name__}` takes `{name}` as None or a function `(key, shape, dtype) -> array`, such as "
        f"`jax.nn.initializers.orthogonal()`; got {initializer!r}."
    )


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


def refuse_arrays(cell: Any, *names: str) -> None:
    """TypeError for a probability that is an array or a tracer, as TensorFlow's placeholder was."""
    for name in names:
        value = getattr(cell, name)
        if hasattr(value, "shape") and not isinstance(value, numbers.Real):
            raise TypeError(
                f"`{type(cell).__name__}` takes `{name}` as a Python number, fixed when the cell is made; got an array "
                f"of shape {value.shape} ({type(value).__name__}). Write the number used in training, and for testing "
                "run `rs.wrap.deterministic(cell)`, which takes the same params."
            )


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


def seed_number(seed: Any) -> int | None:
    """A seed as `fold_in` takes it, an int in [0, 2**32)."""
    return None if seed is None else operator.index(seed) % 2**32


def keep_some(value: Any, keep_prob: float, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`value` with numbers zeroed where a mask of `shape` says so, the others divided by `keep_prob`."""
    if keep_prob == 0:  # nothing is kept, and nothing is divided by 0
        return jnp.zeros_like(value)
    mask = jax.random.bernoulli(key, keep_prob, shape)
    return jnp.where(mask, value / keep_prob, jnp.zeros_like(value))


def seeded(rng: Rng, seed: int | None) -> Rng:
    """The randomness of a cell that has a seed of its own, so that two cells with different seeds differ."""
    return rng if seed is None else rng.child(seed)
