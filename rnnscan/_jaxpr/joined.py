"""`x @ w + h @ u` as one product in the loop, `[x, h] @ [w; u]`, for a run without derivative and with many rows.

A product with many rows runs at full speed in the loop as well, so that taking x's part out saves nothing unless x has
more features than h, and the gates of all rows go through memory twice. A derivative needs x's part outside, where its
gradients are: only values are computed this way (`benchmarks/NOTES.md`, 11 and 15).
"""

import math
from dataclasses import dataclass
from typing import Any

from jax import lax

from .algebra import PARAMS, rows_by_matrix
from .graph import Node, Readers, Value, apply, is_literal
from .parts import InParts, columns_of


_ROWS = 128


@dataclass(frozen=True, eq=False)
class Joined:
    """A loop's product with the carry, the product of inputs that it takes in, and the sums where the two met, with
    the place of the operand that is now their sum."""

    product: Node
    inputs: InParts
    sums: dict[Node, int]

    @property
    def constants(self) -> list[Value]:
        bias = self.inputs.bias
        return [self.inputs.product.inputs[1], self.product.inputs[1], *([] if bias is None else [bias])]

    def once(self, fixed: dict[Value, Any]) -> list[Any]:
        """`[w; u]` and the bias, if there is one."""
        w, u, *bias = (fixed[v] for v in self.constants)
        return [lax.concatenate([w, u], 0), *bias]

    def run(self, node: Node, args: list[Any], x: Any, once: list[Any]) -> list[Any]:
        """One operation of the loop, given the inputs of its step."""
        if node in self.sums:
            return [args[self.sums[node]]]
        if node is not self.product:
            return apply(node, args)
        both, *bias = once
        (out,) = apply(node, [lax.concatenate([x, args[0]], x.ndim - 1), both])
        return [out + bias[0] if bias else out]


def joined(nodes: list[Node], actions: list[Any], read_by: Readers, level: dict[Value, int]) -> Joined | None:
    """What of a loop's `nodes` can be joined with one of the actions; None where nothing can, or rows are few."""
    products = [n for n in nodes if rows_by_matrix(n) and level[n.inputs[1]] == PARAMS < level[n.inputs[0]]]
    for product in products:
        if math.prod(product.inputs[0].shape[:-1]) < _ROWS:
            continue
        for action in actions:
            if isinstance(action, InParts) and _alike(product, action.product) and _narrower(action.product, product):
                sums = _sums(product, action, read_by, level)
                if sums is not None and all(node in nodes for node in sums):
                    return Joined(product, action, sums)
    return None


def comes_apart(action: InParts, in_loops: list[Node], read_by: Readers, level: dict[Value, int]) -> bool:
    """Whether the gradient of a matrix of inputs is better made part by part.

    Cotangents of parts that meet the same parts of a loop's product come joined, as that product's. All others would
    have to be joined first: written and read once more, where a product for each part reads the rows again, and joins
    what comes out. It pays where features are few.
    """
    if any(_alike(n, action.product) and _sums(n, action, read_by, level) is not None for n in in_loops):
        return False
    features, width = action.product.inputs[1].shape
    return 2 * (len(action.columns) - 1) * features < width


def _narrower(of_inputs: Node, product: Node) -> bool:
    """Whether inputs have no more features than the carry: most of the work is the loop's in any case."""
    return of_inputs.inputs[1].shape[0] <= product.inputs[1].shape[0]


def _alike(a: Node, b: Node) -> bool:
    """Whether two products differ in how many columns their rows have at most."""
    kind = lambda n: [(v.shape[:-1] if i == 0 else v.shape[1:], v.aval.dtype) for i, v in enumerate(n.inputs)]
    return kind(a) == kind(b) and a.params == b.params and a.avals == b.avals


def _sums(product: Node, action: InParts, read_by: Readers, level: dict[Value, int]) -> dict[Node, int] | None:
    """The sum of each part of the inputs' product with the same part of the loop's; None where one of them goes
    anywhere else."""
    cuts: dict[tuple[int, int], Value] = {}
    for reader in read_by[_past_biases(product.outputs[0], read_by, level)]:
        found = columns_of(reader)
        if not found:
            return None
        cuts.update(found)
    sums: dict[Node, int] = {}
    for ends, part in zip(action.columns, action.outputs, strict=True):
        if ends not in cuts:
            return None
        own = _past_biases(cuts.pop(ends), read_by, level)
        match read_by[part], read_by[own]:
            case [Node(name="add") as a], [Node(name="add") as b] if a is b:
                sums[a] = a.inputs.index(own)
            case _:
                return None
    return None if cuts else sums


def _past_biases(value: Value, read_by: Readers, level: dict[Value, int]) -> Value:
    """The value with all params that are added to it, as far as nothing else reads what is before."""
    while True:
        match read_by[value]:
            case [Node(name="add") as node] if any(is_literal(v) or level[v] == PARAMS for v in node.inputs):
                value = node.outputs[0]
            case _:
                return value
