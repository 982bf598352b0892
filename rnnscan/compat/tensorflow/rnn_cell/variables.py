"""How TensorFlow's cells make their variables and multiply by them: one `kernel` over `[x; h]`."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...._errors import ParamsError
from ...._types import name_of
from ....cells import initial


def glorot_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """U(-a, a) with `a = sqrt(6 / (fan_in + fan_out))`, `get_variable`'s default; both fans of a vector are its size.

    Source: Glorot & Bengio 2010, eq. 16.
    """
    if len(shape) >= 2:
        return jax.nn.initializers.glorot_uniform()(key, shape, dtype)
    bound = math.sqrt(3.0 / shape[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def variable(initializer: Callable[..., Any] | None, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A variable of this shape from the user's initializer `(key, shape, dtype) -> array`, or Glorot's."""
    value = (initializer or glorot_uniform)(key, shape, dtype)
    if getattr(value, "shape", None) != shape:
        got = f"an array of shape {value.shape}" if hasattr(value, "shape") else f"a {type(value).__name__}"
        raise ValueError(
            "an initializer is called `(key, shape, dtype)` and returns an array of that shape; "
            f"`{name_of(initializer)}` gave {got} for {shape}. Those of `jax.nn.initializers` are made first, by "
            "`orthogonal()` for one."
        )
    return value


def features(input_size: Any) -> int:
    """The number of features that `init` was given."""
    if not hasattr(input_size, "__index__") or jnp.ndim(input_size):
        came = f"an array of shape {input_size.shape}" if hasattr(input_size, "shape") else repr(input_size)
        raise TypeError(
            f"`init(key, input_size)` takes the number of features of the input, `inputs.shape[-1]`; got {came}."
        )
    return initial.size(input_size)


def dtype_of(cell: Any, dtype: Any) -> Any:
    """The dtype of new variables: the one asked for, the cell's or its inner cell's, or JAX's default float."""
    while dtype is None and cell is not None:
        cell, dtype = getattr(cell, "cell", None), getattr(cell, "dtype", None)
    return initial.float_dtype(dtype)


def linear(cell: Any, params: Any, *inputs: Any, bias: bool = True) -> jax.Array:
    """`[a; b; ...] kernel + bias`, the inputs joined on their last axis."""
    kernel = entry(cell, params, "kernel")
    for a in inputs:
        if not jnp.issubdtype(jnp.result_type(a), jnp.inexact):
            raise TypeError(
                f"`{name_of(cell)}` works on floats; got an input or a state of type {jnp.result_type(a)}. Convert it, "
                "`x.astype(jnp.float32)`, or look the numbers up with `EmbeddingWrapper`."
            )
    sizes = [jnp.shape(a)[-1] if jnp.ndim(a) else 0 for a in inputs]
    if jnp.ndim(kernel) != 2 or sum(sizes) != kernel.shape[0]:
        raise ParamsError(
            f"`{name_of(cell)}` multiplies inputs of {' + '.join(map(str, sizes))} features by `kernel` of shape "
            f"{jnp.shape(kernel)}; expected ({sum(sizes)}, ...). Is the kernel that of another input or hidden size?"
        )
    product = jnp.concatenate(inputs, axis=-1) @ kernel if len(inputs) > 1 else inputs[0] @ kernel
    return product + entry(cell, params, "bias") if bias else product


def entry(cell: Any, params: Any, name: str) -> Any:
    """`params[name]`, ParamsError that names what there is where it is missing."""
    if not isinstance(params, dict) or name not in params:
        got = (
            f"a dict with keys {sorted(map(str, params))}" if isinstance(params, dict) else f"a {type(params).__name__}"
        )
        raise ParamsError(
            f"`{name_of(cell)}` takes params as a dict with {name!r}, called `cell(params, inputs, state)`; got {got}. "
            "`cell.init(key, input_size)` makes them."
        )
    return params[name]
