"""How TensorFlow's cells make their variables and multiply by them: one `kernel` over `[x; h]`."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .... import _inputs
from ...._errors import ParamsError
from ...._tree import describe
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
    value = (initializer or glorot_uniform)(_inputs.check_key(key), shape, dtype)
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


def split(key: jax.Array, n: int = 2) -> jax.Array:
    """`n` keys for the variables of a cell; ValueError unless `key` is one."""
    return jax.random.split(_inputs.check_key(key), n)


def linear(cell: Any, params: Any, *inputs: Any, units: int, scope: str = "", bias: bool = True) -> jax.Array:
    """`[a; b; ...] kernel + bias` of `units` features, the inputs joined on their last axis.

    `scope`: where in the cell's params these stand, "gates" for one; for messages.
    """
    for a in inputs:
        if a is None or not jnp.issubdtype(jnp.result_type(a), jnp.inexact):
            came = "None" if a is None else f"type {jnp.result_type(a)}"
            raise TypeError(
                f"`{name_of(cell)}` works on floats, and is called `cell(params, inputs, state)`; got an input or a "
                f"state of {came}. Convert integers, `x.astype(jnp.float32)`, or look them up with `EmbeddingWrapper`."
            )
    only(cell, params, ("kernel", "bias") if bias else ("kernel",), scope, exactly=False)
    sizes, kernel = [jnp.shape(a)[-1] if jnp.ndim(a) else 0 for a in inputs], params["kernel"]
    if jnp.ndim(kernel) != 2 or sum(sizes) != kernel.shape[0]:
        raise ParamsError(
            f"`{name_of(cell)}` multiplies inputs of {' + '.join(map(str, sizes))} features by `{_path(scope)}kernel` "
            f"of shape {jnp.shape(kernel)}; expected {(sum(sizes), units)}. Is the kernel that of another input or "
            "hidden size?"
        )
    kernel = entry(cell, params, "kernel", (sum(sizes), units), scope)
    product = jnp.concatenate(inputs, axis=-1) @ kernel if len(inputs) > 1 else inputs[0] @ kernel
    return product + entry(cell, params, "bias", (units,), scope) if bias else product


def only(cell: Any, params: Any, names: Iterable[str], scope: str = "", exactly: bool = True) -> Any:
    """`params`, a dict with these keys and, if `exactly`, no others; else ParamsError that says what there is."""
    names = list(names)
    where = f" under {scope!r}" if scope else ""
    missing = [name for name in names if not isinstance(params, dict) or name not in params]
    if missing:
        got = f"a {type(params).__name__}"
        if isinstance(params, dict):
            got = f"a dict with keys {sorted(map(str, params))}"
        raise ParamsError(
            f"`{name_of(cell)}` takes params as a dict with {missing[0]!r}{where}, called `cell(params, inputs, "
            f"state)`; got {got}. `cell.init(key, input_size)` makes them."
        )
    others = sorted(map(str, set(params) - set(names)))
    if exactly and others:
        raise ParamsError(
            f"`{name_of(cell)}` has params {sorted(names)}{where}, and was given {', '.join(map(repr, others))} too. "
            "Are these another cell's params, or those of other settings?"
        )
    return params


def entry(cell: Any, params: Any, name: str, shape: tuple[int, ...], scope: str = "") -> Any:
    """The variable `params[name]`; ParamsError unless it is floating and has exactly this shape."""
    value = only(cell, params, [name], scope, exactly=False)[name]
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.shape(value) == shape and jnp.issubdtype(dtype, jnp.inexact):
        return value
    came = f"a {type(value).__name__}" if dtype is None else describe(value)
    raise ParamsError(
        f"`{name_of(cell)}`: params `{_path(scope)}{name}` is {came}, expected floats of shape {shape}. Are these "
        "another cell's params?"
    )


def _path(scope: str) -> str:
    return f"{scope}/" if scope else ""
