"""The loss over a plane of two parameters, or of two directions in the space of all parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _tree
from .._cache import run_cached
from .._errors import ParamsError


class Surface(NamedTuple):
    """What `loss_surface` returns: `values[i, j]` is the loss at `(a[i], b[j])`; `names` are those of the two axes."""

    a: jax.Array
    b: jax.Array
    values: jax.Array
    names: tuple[str, str] = ("a", "b")


def loss_surface(
    loss: Callable[[Any], Any], params: Any, directions: tuple[Any, Any], a: Any, b: Any, *, chunk: int = 256
) -> Surface:
    r"""`values[i, j] = loss(params + a[i] d_1 + b[j] d_2)`, or with two parameters set to `a[i]` and `b[j]`.

    **Main arguments**

    - `loss(params)` -> real scalar.
    - `params`: the point that the plane goes through, any pytree of floating arrays.
    - `directions`: either a pair of pytrees like params, `d_1` and `d_2`; or the names of two leaves of one element,
      which take the values `a[i]` and `b[j]` themselves while all others stay: `("w_x", "w_h")`. The name of a nested
      leaf is its path, `"cell/w_h"` or `"0/b"`.
    - `a`, `b`: coordinates, of shapes `(n_a,)` and `(n_b,)`: `jnp.linspace(-2, 2, 101)`.

    **Other arguments**

    - `chunk`: how many points are computed at a time; memory grows with it, time falls.

    **Returns** `Surface(a, b, values, names)`: `values` has shape `(n_a, n_b)` and may hold infinities or NaN where the
    loss does; `names` are the two leaves, or `("a", "b")`.

    **Raises** `ParamsError` for names and directions that do not fit params; `ValueError` for a loss that is not a real
    scalar, coordinates that are not one-dimensional, or a bad chunk.

    Compiled once for equal functions and shapes: define the loss once and a zoomed surface of the same size is free.
    Source of the idea of random directions: Li et al. 2018, arXiv:1712.09913.

    >>> import jax.numpy as jnp
    >>> bowl = lambda p: p["x"] ** 2 + p["y"]
    >>> surface = loss_surface(bowl, {"x": 0.0, "y": 0.0}, ("x", "y"), jnp.arange(3.0), jnp.arange(2.0))
    >>> print(surface.values)
    [[0. 1.]
     [1. 2.]
     [4. 5.]]
    """
    a, b = (_coordinates(name, value) for name, value in (("a", a), ("b", b)))
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"`chunk` is how many points are computed at a time, an int >= 1; got {chunk!r}.")
    if not isinstance(directions, tuple | list) or len(directions) != 2:
        raise ParamsError(f"`directions` must be a pair, of pytrees like params or of names; got {directions!r}.")
    params = jax.tree.map(jnp.asarray, params)
    if all(isinstance(name, str) for name in directions):
        names = _check_names(params, *directions)
        plane: tuple[Any, ...] = ()
    else:
        names, plane = None, tuple(_check_direction(params, f"directions[{i}]", d) for i, d in enumerate(directions))
    chunk = min(chunk, a.size * b.size)
    values = run_cached(_values, loss, (names, chunk), params, plane, a, b)
    return Surface(a, b, values, names or ("a", "b"))


def _values(loss: Any, static: Any, params: Any, plane: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    names, chunk = static

    def at(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        value = loss(_set(params, dict(zip(names, point, strict=True))) if names else _move(params, plane, point))
        if jnp.shape(value) or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise ValueError(f"`loss(params)` must return a real scalar; got {_tree.describe(jnp.asarray(value))}.")
        return value

    n_points = a.size * b.size
    filler = -n_points % chunk  # so that every chunk has one size, and the loss is compiled once
    grids = jnp.meshgrid(a, b, indexing="ij")
    points = tuple(jnp.pad(grid.reshape(-1), (0, filler), "edge").reshape(-1, chunk) for grid in grids)
    values = jax.lax.map(jax.vmap(at), points)
    return values.reshape(-1)[:n_points].reshape(a.size, b.size)


def _set(params: Any, values: dict[str, jax.Array]) -> Any:
    """Params with the named leaves at these values."""

    def choose(path: Any, leaf: jax.Array) -> jax.Array:
        value = values.get(_name(path))
        return leaf if value is None else value.astype(leaf.dtype).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(choose, params)


def _move(params: Any, plane: Any, point: Any) -> Any:
    """`params + a d_1 + b d_2` in the dtype of each leaf."""
    a, b = point
    return jax.tree.map(lambda p, d, e: p + a.astype(p.dtype) * d + b.astype(p.dtype) * e, params, *plane)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _coordinates(name: str, value: Any) -> jax.Array:
    value = jnp.asarray(value)
    if value.ndim != 1 or value.size == 0 or not jnp.issubdtype(value.dtype, jnp.number):
        got = _tree.describe(value)
        raise ValueError(f"`{name}` must be one axis of coordinates, `jnp.linspace(-2, 2, 101)`; got {got}.")
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)


def _check_names(params: Any, first: str, second: str) -> tuple[str, str]:
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    for name in (first, second):
        if name not in leaves:
            raise ParamsError(f"`params` has no leaf {name!r}; its leaves are {sorted(leaves)}.")
        if leaves[name].size != 1 or not jnp.issubdtype(leaves[name].dtype, jnp.floating):
            raise ParamsError(
                f"`params` leaf {name!r} is {_tree.describe(leaves[name])}, and an axis of the plane is one floating "
                "number. Give two directions, pytrees like params, for a plane through larger arrays."
            )
    if first == second:
        raise ParamsError(f"`directions` names {first!r} twice; a plane needs two parameters.")
    return first, second


def _check_direction(params: Any, root: str, direction: Any) -> Any:
    if jax.tree.structure(direction) != jax.tree.structure(params):
        raise ParamsError(
            f"`{root}` must be a pytree like params, {jax.tree.map(_tree.describe, params)}, or both directions the "
            f"names of leaves; got {direction!r}."
        )

    def fit(name: str, d: Any, p: jax.Array) -> jax.Array:
        d = jnp.asarray(d)
        if not jnp.issubdtype(p.dtype, jnp.floating):
            raise ParamsError(f"`params` leaf {name!r} is {p.dtype}, not floating. Let the loss close over it.")
        if d.shape != p.shape:
            raise ParamsError(f"`{root}` leaf {name!r} has shape {d.shape}, that of params has {p.shape}.")
        return d.astype(p.dtype)

    return jax.tree_util.tree_map_with_path(lambda path, p, d: fit(_name(path), d, p), params, direction)
