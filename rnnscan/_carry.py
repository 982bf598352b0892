"""The first step seen as shapes and dtypes: what carry the loop starts from, and whether the cell keeps its form."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _tree
from ._errors import CarryError, CellOutputError, LengthError, SequenceError
from ._inputs import is_value
from ._notes import explain, other_params
from ._types import name_of


Struct = jax.ShapeDtypeStruct
_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def settle_carry(
    step: Callable[[Any, Any], Any], cell: Any, params: Any, carry: Any, x: Any, *, relax: bool = False
) -> tuple[Any, Any]:
    """The carry brought to the dtypes the step keeps, and the step's output as shapes.

    Weakly typed leaves (Python scalars, `jnp.asarray(0.)`) take the dtype that the step gives them; since one
    leaf's dtype may change another's, this is repeated until nothing changes. Strong dtypes must match as they are.
    `relax` treats every floating leaf as weak: for a carry that the library made itself.
    """
    carry = jax.tree.map(jnp.asarray, carry)
    structs = jax.tree.map(lambda leaf: _struct(leaf, relax), carry)
    for _ in range(4 * len(jax.tree.leaves(structs)) + 1):  # a leaf's kind can rise three times, then be fixed
        out, y = _trace(step, cell, params, structs, x)
        _check_structure(cell, structs, out, y)
        promoted = jax.tree.map(_promoted, structs, out)
        if jax.tree.leaves(promoted) == jax.tree.leaves(structs):
            break
        structs = promoted
    _check_leaves(cell, params, structs, out, y)
    carry = jax.tree.map(lambda leaf, to: leaf.astype(to.dtype) if leaf.dtype != to.dtype else leaf, carry, structs)
    return jax.tree.map(strong, carry), y


def strong(leaf: Any) -> jax.Array:
    """The same array without weak type, so that what goes into a step and what comes out agree."""
    return jax.lax.convert_element_type(leaf, leaf.dtype) if not _is_key(leaf) else leaf


def _struct(leaf: jax.Array, relax: bool = False) -> Struct:
    weak = bool(getattr(jax.typeof(leaf), "weak_type", False)) or (relax and jnp.issubdtype(leaf.dtype, jnp.floating))
    return Struct(leaf.shape, leaf.dtype, weak_type=weak)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _promoted(before: Struct, after: Struct) -> Struct:
    """A weak leaf takes the dtype that came out, unless that would lower its kind (float to int)."""
    kinds = [next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(s.dtype, kind)), -1) for s in (before, after)]
    if not before.weak_type or kinds[1] < kinds[0]:
        return before
    return Struct(before.shape, after.dtype, weak_type=after.weak_type)


def _trace(step: Callable[[Any, Any], Any], cell: Any, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
    """`(carry, y)` of one step as shapes; an error inside the cell gets a note on what the cell was given."""

    def checked(carry, x):
        out = step(carry, x)
        _check_pair(cell, out, carry)
        for name, leaf in _tree.named_leaves("y", out[1]) + _tree.named_leaves("carry", out[0]):
            if not is_value(leaf):
                raise CellOutputError(
                    f"cell `{name_of(cell)}` returned `{name}` = {leaf!r} ({type(leaf).__name__}), "
                    "which is neither an array nor a number."
                )
        return tuple(out)

    try:
        return jax.eval_shape(checked, carry, x)
    except (CarryError, CellOutputError):
        raise
    except Exception as error:
        explain(error, cell, params, carry, x)
        raise


def _check_pair(cell: Any, out: Any, carry: Any) -> None:
    name, form = name_of(cell), "a cell must return (carry, y)"
    if out is None:
        raise CellOutputError(f"cell `{name}`: {form}, got None. Does it end with `return carry, y`?")
    if not isinstance(out, tuple | list):
        hint = " If it has no output write: `return carry, None`." if hasattr(out, "shape") else ""
        raise CellOutputError(f"cell `{name}`: {form}, got one {_what(out)}.{hint}")
    if len(out) != 2:
        hint = " A carry of several parts is one tuple: `return (h, c), y`." if len(out) > 2 else ""
        raise CellOutputError(f"cell `{name}`: {form}, got {_tree.kind(out)}.{hint}")
    if out[0] is None and jax.tree.leaves(carry):
        raise CellOutputError(f"cell `{name}` returned None as its carry; {form}.")


def _what(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"array {_tree.describe(value)}"
    return f"dict with keys {sorted(map(str, value))}" if isinstance(value, dict) else f"{type(value).__name__}"


def _fits(carry: Any, other: Any) -> bool:
    """Whether `other` could be this carry."""
    if jax.tree.structure(carry) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(carry), jax.tree.leaves(other), strict=True)
    return all(a.shape == b.shape and (a.dtype == b.dtype or a.weak_type) for a, b in pairs)


def _swapped(before: Any, y: Any) -> str:
    if jax.tree.leaves(before) and _fits(before, y):
        return " Did you return (y, carry)? rnnscan cells return (carry, y)."
    return ""


def _check_structure(cell: Any, before: Any, after: Any, y: Any) -> None:
    if jax.tree.structure(before) == jax.tree.structure(after):
        return
    if not jax.tree.leaves(before) and not jax.tree.leaves(after):
        return  # no carry at all, written as None, () or {}
    difference = "; ".join(_differences(before, after))
    if before is None:
        raise CarryError(
            f"cell `{name_of(cell)}` was given no carry (None) and returned {_kind(after)}. Give `scan` the carry to "
            "start from, `carry=jnp.zeros(...)`; a function without one is a map, and returns `(None, y)`."
        )
    raise CarryError(
        f"cell `{name_of(cell)}` returned a carry with a different structure: {difference}. "
        f"Return the carry in the structure you were given.{_swapped(before, y)}"
    )


def _differences(before: Any, after: Any, path: str = "carry") -> list[str]:
    """Where two trees part, in words, going down while both are the same kind of container."""
    if jax.tree_util.all_leaves([before]) and jax.tree_util.all_leaves([after]):
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(f"{path}[{k!r}]", before[k], after[k]) for k in before]
    elif type(before) is type(after) and isinstance(before, tuple | list) and len(before) == len(after):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(before, after, strict=True))]
    else:
        return [f"{path} is {_kind(before)} on input but {_kind(after)} on output"]
    return [line for name, a, b in pairs for line in _differences(a, b, name)]


def _kind(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with keys {sorted(map(str, tree))}"
    return f"an array {_tree.describe(tree)}" if hasattr(tree, "shape") else _tree.kind(tree)


def _check_leaves(cell: Any, params: Any, before: Any, after: Any, y: Any) -> None:
    if not jax.tree.leaves(before):
        return
    name = name_of(cell)
    for (leaf, a), b in zip(_tree.named_leaves("carry", before), jax.tree.leaves(after), strict=True):
        went, came = _tree.describe(a), _tree.describe(b)
        if a.shape != b.shape:
            hint = next(other_params(cell, params), None) or _shape_hint(leaf, a.shape, b.shape)
            raise CarryError(
                f"cell `{name}`: `{leaf}` went in as {went} and came out as {came} ({hint}).{_swapped(before, y)}"
            )
        if a.dtype != b.dtype:
            raise CarryError(
                f"cell `{name}`: `{leaf}` is {a.dtype} but the cell returns {b.dtype} "
                f"({went} went in, {came} came out). {_way_out(a, b, params)}"
            )


def _shape_hint(leaf: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """The likely cause of a carry that changed its shape."""
    if before == ():
        return f"start from `jnp.zeros({after})`"
    if len(after) < len(before):
        return "did the cell sum over an axis of it, or index into it?"
    if all(
        i in (1, j) for i, j in zip(before[::-1], after[::-1], strict=False)
    ):  # NumPy would broadcast one to the other
        if len(after) > len(before):
            return f"x has axes that it lacks: start from `jnp.broadcast_to({leaf}, {after})` if these are batch axes"
        return f"broadcast it first with `jnp.broadcast_to({leaf}, {after})`"
    if sum(after) > sum(before):
        return "did the cell concatenate x into it?"
    return "did the cell cut a part out of it?"


def _way_out(before: Struct, after: Struct, params: Any) -> str:
    if jnp.issubdtype(before.dtype, jnp.floating) and jnp.issubdtype(after.dtype, jnp.floating):
        cause = next((n for n, leaf in _tree.named_leaves("params", params) if _dtype(leaf) == after.dtype), None)
        because = f"That is because `{cause}` is {after.dtype}. " if cause else ""
        return (
            f"{because}Cast the result with `.astype(carry.dtype)`, or cast params, or start from a {after.dtype} "
            f"carry; `scan(..., carry_dtype=jnp.{before.dtype})` casts it after every step."
        )
    if jnp.issubdtype(after.dtype, jnp.floating):
        return f"Start from a float: `jnp.zeros({before.shape}, jnp.{after.dtype})`, or the Python number 0.0."
    return f"Start from {after.dtype}, or cast the result to {before.dtype}."


def _dtype(leaf: Any) -> Any:
    return getattr(leaf, "dtype", np.asarray(leaf).dtype if isinstance(leaf, int | float | complex) else None)


def check_rows(batch: tuple[int, ...], source: str, **trees: Any) -> None:
    """Every leaf starts with exactly the batch axes that `source` (lengths, mask or resets) defines."""
    for root, tree in trees.items():
        for name, leaf in _tree.named_leaves(root, tree):
            if leaf.shape[: len(batch)] != batch:
                error = LengthError if source == "lengths" else SequenceError
                raise error(
                    f"`{name}` has shape {leaf.shape}, but `{source}` defines the batch axes {batch}, and every leaf "
                    "of carry and y must start with exactly those. Give it these axes, `jnp.broadcast_to(value, "
                    f"{(*batch, *leaf.shape)})` for one value that all rows share, or leave it out."
                )
