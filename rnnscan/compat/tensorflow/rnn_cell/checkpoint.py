"""Params to and from the variables of a TensorFlow checkpoint, name by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ...._errors import ParamsError
from ...._types import name_of
from .base import init, scope_name


def to_variables(cell: Any, params: Any, scope: str = "rnn") -> dict[str, Any]:
    """The arrays of `params` by the names TensorFlow gave the variables, `rnn/basic_lstm_cell/kernel` for one.

    `scope`: the variable scope around the cell, that of `dynamic_rnn` or `static_rnn` ("rnn" unless the code says
    otherwise; a bidirectional one has `bidirectional_rnn/fw` and `bidirectional_rnn/bw`).
    """
    return {name: _at(params, path) for name, path in _names(cell, params, scope)}


def from_variables(
    cell: Any, variables: Mapping[str, Any], input_size: Any, scope: str = "rnn", dtype: Any = None
) -> Any:
    """Params for `cell` from arrays by TensorFlow's names, `{v.name: value}` or what a checkpoint reader gives.

    `input_size`: features of the input. `scope`: as in `to_variables`. `dtype`: None keeps that of each array. A `:0`
    at the end of a name is dropped. Variables outside of the cell's own scope are not read, nor those that stand below
    one of its variables, where an optimiser keeps its own (`.../kernel/Adam_1`). Cells that run in both directions take
    two calls, `scope="bidirectional_rnn/fw"` and `scope="bidirectional_rnn/bw"`.
    Raises ParamsError that lists what is missing and what of the cell's scope it has no use for, or names the variable
    that is not floating or has another shape than the cell's.
    """
    shapes = jax.eval_shape(lambda: init(cell, jax.random.key(0), input_size))
    found = {name.removesuffix(":0"): value for name, value in variables.items()}
    names = list(_names(cell, shapes, scope))
    missing = [name for name, _ in names if name not in found]
    if missing:
        raise ParamsError(
            f"`{name_of(cell)}` has variables that were not given: {', '.join(missing)}. Given: "
            f"{', '.join(sorted(found)) or 'none'}. {_guess(scope, missing[0], found)}"
        )
    unused = sorted(name for name in found if _below(name, _owned(cell, scope)) and not _below(name, dict(names)))
    if unused:
        raise ParamsError(
            f"`{name_of(cell)}` has no use for {', '.join(unused)}, which stand in its scope. Are these variables of a "
            f"cell with other settings? It has {', '.join(name for name, _ in names)}."
        )
    leaves = {}
    for name, path in names:
        want, value = _at(shapes, path).shape, jnp.asarray(found[name], dtype)
        if value.shape != want:
            raise ParamsError(
                f"variable `{name}` has shape {value.shape}, expected {want} for `{name_of(cell)}` with inputs of size "
                f"{input_size}."
            )
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            raise ParamsError(f"variable `{name}` is {value.dtype}, expected floats for `{name_of(cell)}`.")
        leaves[path] = value
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[tuple(key.key for key in path)], shapes)


def _below(name: str, scopes: Iterable[str]) -> bool:
    """Whether a name is one of these or stands below it."""
    return any(name == scope or name.startswith(f"{scope}/") for scope in scopes)


def _owned(cell: Any, scope: str) -> list[str]:
    """The scopes and names that are the cell's alone."""
    while getattr(cell, "transparent", False):
        cell = cell.cell
    stem = f"{scope}/" if scope else ""
    if getattr(cell, "scoped", True):
        return [stem + scope_name(cell)]
    return [stem + name for name in cell.variables] + _owned(cell.cell, scope)


def _guess(scope: str, missing: str, found: Mapping[str, Any]) -> str:
    """Where the variables may be: in another scope, or in that of another cell."""
    stem = f"{scope}/" if scope else ""
    tail = missing.removeprefix(stem)
    elsewhere = sorted({name[: -len(tail)].rstrip("/") for name in found if name.endswith(f"/{tail}") or name == tail})
    if elsewhere:
        return f"Is it {' or '.join(f'`scope={other!r}`' for other in elsewhere)}? That has `{tail}`."
    cells = sorted({name.removeprefix(stem).split("/")[0] for name in found if name.startswith(stem)})
    if cells:
        return (
            f"Scope {scope!r} has {', '.join(map(repr, cells))}: is the cell of another class, are its settings other, "
            "or has it a `name`?"
        )
    return f"Is `scope={scope!r}` the one around the cell?"


def _names(cell: Any, params: Any, scope: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """`(TensorFlow's name, keys into params)` of each variable."""
    while getattr(cell, "transparent", False):
        cell = cell.cell
    numbered = hasattr(cell, "cells")  # `multi_rnn_cell/cell_0/...`: the layer's own scope stands below its number
    if getattr(cell, "scoped", True):
        scope = f"{scope}/{scope_name(cell)}" if scope else scope_name(cell)
    inner = getattr(cell, "inner", {})
    for key, part in params.items():
        if key in inner:
            below = f"{scope}/{key}" if numbered else scope
            yield from ((name, (key, *path)) for name, path in _names(inner[key], part, below))
            continue
        for path, _ in jax.tree_util.tree_flatten_with_path(part)[0]:
            keys = (key, *(k.key for k in path))
            yield "/".join([scope, *keys] if scope else keys), keys


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
