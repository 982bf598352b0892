"""Operations run for many steps at once."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .algebra import ELEMENTWISE, PARAMS, depends_on
from .graph import Node, Value, apply, evaluate, in_order, is_literal, number


def apply_many(node: Node, args: list[Any], over_time: list[bool]) -> list[Any]:
    """What a node computes at every step; time is the first axis of the arguments where `over_time` says so."""
    if not any(over_time):
        return apply(node, args)
    if node.name == "dot_general" and over_time.count(True) == 1 and not node.params["dimension_numbers"][1][0]:
        return [_product(node, args, over_time.index(True))]
    rank = max((len(v.shape) for v in node.inputs), default=0)
    alike = all(len(v.shape) == rank * t for v, t in zip(node.inputs, over_time, strict=True))
    strict = node.name in ("select_n", "clamp")  # they take no number for an array
    if node.name in ELEMENTWISE and alike and (all(over_time) or not strict):
        return apply(node, args)  # numbers and sequences of one shape: what `vmap` would do, without the time it takes
    which = [i for i, varies in enumerate(over_time) if varies]

    def one(*varying: Any) -> list[Any]:
        given = list(args)
        for i, value in zip(which, varying, strict=True):
            given[i] = value
        return apply(node, given)

    if _draws(node):
        return lax.map(lambda varying: one(*varying), tuple(args[i] for i in which))
    return jax.vmap(one)(*(args[i] for i in which))


def one_step_late(first: Any, values: Any, reverse: bool) -> Any:
    """Each step's value of the step before it in the order of the loop; `first` is what the first step gets."""
    first = jnp.asarray(first)[None]
    return jnp.concatenate([values[1:], first] if reverse else [first, values[:-1]])


def _draws(node: Node) -> bool:
    """Whether a node draws random numbers with a generator that gives others under `vmap`: all but threefry."""
    if node.name == "rng_bit_generator":
        return True
    keys = [
        v.aval.dtype for v in (*node.inputs, *node.outputs) if jax.dtypes.issubdtype(v.aval.dtype, jax.dtypes.prng_key)
    ]
    return any("threefry" not in str(dtype) for dtype in keys)


def _product(node: Node, args: list[Any], side: int) -> jax.Array:
    """A product with the same other operand at each step, as one product of two matrices.

    XLA's CPU backend takes nearly twice as long for the same product with three axes.
    """

    def product(seq: jax.Array, other: jax.Array) -> jax.Array:
        return _flat_product(node, seq, other, side)

    # so that the backward pass keeps the sequence, which is there already, and not its reshaped copy
    return jax.checkpoint(product, prevent_cse=False)(args[side], args[1 - side])


def product_in_parts(
    node: Node,
    seq: jax.Array,
    matrix: jax.Array,
    bias: jax.Array | None,
    columns: list[tuple[jax.Array, jax.Array]],
    apart: bool = False,
) -> list[jax.Array]:
    """A sequence of rows times a matrix, plus a row `bias`, cut into columns: computed as a product for each of the
    `columns`, cuts of matrix and bias, so that no result is written twice. Its derivatives are those of one product,
    cut afterwards, or those of a product for each where they come `apart`."""

    how = {name: node.params[name] for name in ("precision", "preferred_element_type")}

    def flat(seq: Any, matrix: Any) -> jax.Array:
        return lax.dot(seq.reshape(-1, seq.shape[-1]), matrix, **how)

    def whole(part: Any) -> jax.Array:
        return part.reshape(*seq.shape[:-1], -1)

    @jax.custom_jvp
    def product(seq: Any, matrix: Any, bias: Any, columns: Any) -> list[jax.Array]:
        del matrix, bias
        parts = [(flat(seq, w), b) for w, b in columns]
        return [whole(part if b is None else part + b.reshape(1, -1)) for part, b in parts]

    def tangent(pairs: list[Any], d_bias: Any, widths: list[int]) -> Any:
        """Of one product with its bias, 0 where nothing moves."""
        again = jax.checkpoint(flat, prevent_cse=False)  # so that seq is kept and not its reshaped copy
        terms = [again(*pair) for pair in pairs]
        added = [whole(sum(terms[1:], start=terms[0]))] if terms else []
        shape = (*seq.shape[1:-1], sum(widths))
        added += [repeated(d, seq.shape[0], shape, widths) for d in [d_bias] if moves(d)]
        return sum(added[1:], start=added[0]) if added else jnp.zeros((seq.shape[0], *shape), node.avals[0].dtype)

    def rule(primals: Any, tangents: Any) -> Any:
        (seq, matrix, bias, columns), (d_seq, d_matrix, d_bias, _) = primals, tangents
        out = product(seq, matrix, bias, columns)
        widths = [part.shape[-1] for part in out]
        cut = lambda x: lax.split(x, widths, x.ndim - 1) if moves(x) else [x] * len(widths)
        pairs = lambda w, d_w: [(d_seq, w)] * moves(d_seq) + [(seq, d_w)] * moves(d_w)
        if not apart:
            return out, list(cut(tangent(pairs(matrix, d_matrix), d_bias, widths)))
        parts = zip(columns, cut(d_matrix), cut(d_bias), widths, strict=True)
        return out, [tangent(pairs(w, d_w), d_b, [width]) for (w, _), d_w, d_b, width in parts]

    product.defjvp(rule, symbolic_zeros=True)
    return product(seq, matrix, bias, columns)


def repeated(row: jax.Array, n_steps: int, shape: tuple[int, ...], columns: Sequence[int]) -> jax.Array:
    """The same at each step, spread to `shape`; column by column where its cotangents come so, as joining them first
    only to sum them up would be one pass more."""
    spread = lambda row: jnp.broadcast_to(row, (n_steps, *shape[:-1], row.shape[-1]))
    if not shape or row.shape[-1:] != shape[-1:] or len(columns) < 2:
        return jnp.broadcast_to(row, (n_steps, *shape))
    return jnp.concatenate([spread(part) for part in lax.split(row, list(columns), row.ndim - 1)], -1)


def moves(tangent: Any) -> bool:
    """Whether a tangent is there and neither zero by its structure nor of a type without derivatives."""
    return tangent is not None and not isinstance(tangent, SymbolicZero) and tangent.dtype != jax.dtypes.float0


def _flat_product(node: Node, seq: jax.Array, other: jax.Array, side: int) -> jax.Array:
    contracted = node.params["dimension_numbers"][0]
    axes, other_axes = contracted[side], contracted[1 - side]
    free = [i for i in range(seq.ndim - 1) if i not in axes]
    other_free = [i for i in range(other.ndim) if i not in other_axes]
    lead = (seq.shape[0], *(seq.shape[1 + i] for i in free))
    rows = lax.transpose(seq, (0, *(1 + i for i in free), *(1 + i for i in axes)))
    columns = lax.transpose(other, (*other_axes, *other_free))
    inner = math.prod(other.shape[i] for i in other_axes)
    tail = tuple(other.shape[i] for i in other_free)
    out = lax.dot(
        rows.reshape(math.prod(lead), inner),
        columns.reshape(inner, math.prod(tail)),
        precision=node.params["precision"],
        preferred_element_type=node.params["preferred_element_type"],
    ).reshape(*lead, *tail)
    if side == 1:
        n, m = len(lead), len(tail)
        out = jnp.transpose(out, (0, *range(n, n + m), *range(1, n)))
    return out


def evaluate_many(
    values: list[Value], fixed: dict[Value, Any], over_time: dict[Value, Any], level: dict[Value, int]
) -> None:
    """Adds the arrays of `values` at every step to `over_time`; what is the same at each step goes to `fixed`."""
    known = lambda v: v in over_time or v in fixed or is_literal(v)
    for node in in_order(values, known):
        if depends_on(node.done, level) == PARAMS:
            evaluate(node.outputs, fixed)
            continue
        run_many(node, fixed, over_time)


def run_many(node: Node, fixed: dict[Value, Any], over_time: dict[Value, Any]) -> None:
    """Runs one node for every step, with its inputs in one or the other."""
    flags = [v in over_time for v in node.inputs]
    args = [over_time[v] if v in over_time else number(v) if is_literal(v) else fixed[v] for v in node.inputs]
    over_time.update(zip(node.outputs, apply_many(node, args, flags), strict=True))
