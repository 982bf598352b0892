"""An operation of a step in words: what it does, what it costs, and where it stands in the user's code."""

import math
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from .algebra import products
from .cost import PRODUCTS, inner_jaxprs, product_flops
from .graph import Node, Value


_MOVES = frozenset(
    """bitcast_convert_type broadcast broadcast_in_dim concatenate convert_element_type copy dynamic_slice
    dynamic_update_slice expand_dims gather iota pad pcast pvary reshape rev slice split squeeze stop_gradient
    transpose""".split()
)
"""Operations that compute nothing: they move numbers, or change how these are written."""

CHECKPOINTS = ("checkpoint", "remat", "remat2")
"""`jax.checkpoint`, by the names that JAX gives it."""

_OF_JAX = os.path.dirname(jax.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_SKIPPED = (_OF_JAX, os.path.join(_OURS, "cells", "product.py"))
_NOT_A_PLACE = tuple(_OURS + room for room in ("_", "sequence.py", "compat"))


class Work(NamedTuple):
    """What operations cost: how many matrix products and convolutions, and how many floating-point operations."""

    products: int
    flops: int


def work(node: Node) -> Work:
    """Products are counted exactly, all else as one operation an element, moving numbers as none.

    Of the branches of a `cond` the dearest counts, and a `while` of unknown length counts once.
    """
    if products(node):
        return Work(1, int(products(node)))
    return _work(node.name, node.params, [v.aval for v in node.inputs], node.avals)


def _work(name: str, params: dict[str, Any], inputs: list[Any], outputs: Iterable[Any]) -> Work:
    parts = list(inner_jaxprs(params))
    if parts:
        found = [_of_jaxpr(part) for part in parts]
        if name == "cond":
            return max(found, key=lambda w: w.flops)
        times = params.get("length", 1)
        return Work(times * sum(w.products for w in found), times * sum(w.flops for w in found))
    if name in _MOVES:
        return Work(0, 0)
    given = inputs if name.startswith(("reduce", "arg", "cum", "sort")) else outputs
    return Work(0, max((math.prod(getattr(aval, "shape", ())) for aval in given), default=0))


def _of_jaxpr(jaxpr: Any) -> Work:
    total = Work(0, 0)
    for equation in jaxpr.eqns:
        inputs, outputs = ([v.aval for v in vs] for vs in (equation.invars, equation.outvars))
        name, params = equation.primitive.name, equation.params
        if name in PRODUCTS:
            found = Work(1, int(product_flops(name, params, *(aval.shape for aval in (*inputs, *outputs)))))
        else:
            found = _work(name, params, inputs, outputs)
        total = Work(total.products + found.products, total.flops + found.flops)
    return total


def stands_alone(node: Node) -> bool:
    """Whether an operation gets a line of its own: it holds a product, or other operations that JAX keeps together."""
    return work(node).products > 0 or node.name in ("cond", "while", "scan") or bool(node.effects)


def holds_products(node: Node) -> bool:
    """Whether products are inside an operation that is none itself."""
    return work(node).products > 0 and not products(node)


def in_words(node: Node, names: dict[Value, str]) -> str:
    """One operation: `x (8, 3) @ w_x (3, 7)`."""
    if node.name == "dot_general":
        ((left, right), (batch, _)) = node.params["dimension_numbers"]
        first, second = node.inputs
        plain = not batch and tuple(left) == (len(first.shape) - 1,) and tuple(right) == (0,)
        words = [operand(v, names) for v in node.inputs]
        return " @ ".join(words) if plain else f"dot_general({', '.join(words)})"
    if node.name == "conv_general_dilated":
        return f"convolution({', '.join(operand(v, names) for v in node.inputs)})"
    found = work(node)
    inside = {0: "", 1: " with one product"}.get(found.products, f" with {found.products} products")
    shapes = [_shape(v) for v in node.outputs if v.shape]
    name = "jax.checkpoint" if node.name in CHECKPOINTS else node.name
    return f"{name}{inside}" + (f" -> {', '.join(shapes)}" if shapes and len(shapes) <= 2 else "")


def says_something(nodes: list[Node], names: dict[Value, str]) -> bool:
    """Whether these operations compute anything, or cut a value that has a name."""
    return any(node.name not in _MOVES for node in nodes) or any(_parts(nodes, names))


def _parts(nodes: list[Node], names: dict[Value, str]) -> list[str]:
    return [name_of(v, names) for node in nodes if node.name == "slice" for v in node.outputs]


def together(nodes: list[Node], names: dict[Value, str]) -> str:
    """Many operations: `w[:3], add x3, tanh x2, 1 that moves numbers`: cuts of what has a name come first."""
    parts = [name for name in _parts(nodes, names) if name]
    counts = Counter(map(_called, nodes))
    moves = sum(n for name, n in counts.items() if name in _MOVES) - len(parts)
    words = [f"{name} x{n}" if n > 1 else name for name, n in counts.most_common() if name not in _MOVES]
    if moves and words:
        words.append(f"{moves} that move{'s' if moves == 1 else ''} numbers")
    if not words and not parts:
        words = [f"{name} x{n}" if n > 1 else name for name, n in counts.most_common()]
    return ", ".join([*parts, *words])


def _called(node: Node) -> str:
    """The name of an operation; of a function with a rule of its own, that function's."""
    inside = next(inner_jaxprs(node.params), None)
    function = getattr(getattr(inside, "debug_info", None), "func_name", None)
    return str(function) if node.name.startswith("custom") and function else node.name


def operand(value: Value, names: dict[Value, str]) -> str:
    name = name_of(value, names)
    return f"{name} {_shape(value)}" if name else _shape(value)


def _shape(value: Value) -> str:
    return str(value.shape).replace(",)", ")")


def name_of(value: Value, names: dict[Value, str]) -> str:
    """What the user calls a value, or a part of one; empty where it has no name."""
    if value in names:
        return names[value]
    node = value.node
    if node.name == "slice" and node.params["strides"] is None:
        name = name_of(node.inputs[0], names)
        starts, stops, sizes = node.params["start_indices"], node.params["limit_indices"], node.inputs[0].shape
        cuts = [_cut(a, b, n) for a, b, n in zip(starts, stops, sizes, strict=True)]
        while len(cuts) > 1 and cuts[-1] == ":":
            cuts.pop()
        return f"{name}[{', '.join(cuts)}]" if name else ""
    if node.name in ("convert_element_type", "copy", "stop_gradient", "pvary", "pcast"):
        return name_of(node.inputs[0], names)
    if node.name == "concatenate":
        parts = [name_of(v, names) for v in node.inputs]
        return f"[{', '.join(parts)}]" if all(parts) else ""
    if node.name == "transpose" and len(value.shape) == 2:
        name = name_of(node.inputs[0], names)
        return f"{name}.T" if name else ""
    return ""


def _cut(start: int, stop: int, size: int) -> str:
    return f"{start or ''}:{'' if stop == size else stop}"


def place(node: Node) -> str:
    """Where an operation stands in the code of the cell, `own_cell.py:12`; empty for one that a rewrite made."""
    traceback = getattr(getattr(node.context, "source", None), "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        if frame.file_name.startswith(_SKIPPED):
            continue
        if frame.file_name.startswith(_NOT_A_PLACE):
            return ""
        file = os.path.basename(frame.file_name)
        return f"line {frame.line_num}" if file.startswith("<") else f"{file}:{frame.line_num}"
    return ""


def count(n: float) -> str:
    """`12`, `4.1 k`, `16.8 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} "
