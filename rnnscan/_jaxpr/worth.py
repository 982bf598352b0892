"""Whether a product with the inputs gains by leaving the loop: a rough model of XLA's CPU backend.

What leaves the loop is computed in larger products, and saves one operation a step; but its result goes out to the
cache and back, twice where it is cut into gates. That is dear where few features meet many units and many rows. The
model is rough (`benchmarks/primitives.py` times what it is made of), so a product stays only where leaving would take
clearly longer. On other devices everything leaves.
"""

import math
from collections.abc import Iterable

import jax

from .algebra import INPUTS, products
from .depend import Step
from .graph import Node, Value, in_order


_OPERATION_S, _JOINED_S = 2e-6, 1e-6  # one more product a step; one concatenation a step
_FLOPS_IN_LOOP, _FLOPS_AT_ONCE = 2e11, 3e11  # a second, two cores; in the loop fewer where rows are few
_FEW_ROWS = 8
_BYTE_S, _CUT_BYTE_S = 0.8e-10, 2e-10
_CLEARLY = 1.25

STAYS = "few features for so many units: its result's way through memory would cost more than the product"


def stay(step: Step, level: dict[Value, int]) -> dict[Node, str]:
    """The products of the inputs with params that had better stay in the loop, with the reason."""
    nodes = in_order(step.roots)
    cut = cut_later(nodes)
    found = [n for n in nodes if products(n) and level[n.done] == INPUTS and not gains(n, n.outputs[0] in cut)]
    return dict.fromkeys(found, STAYS)


def gains(node: Node, cut: bool, share: float = 1.0, joined: bool = False) -> bool:
    """Whether a product (or the `share` of it that a concatenation brings) is as fast outside the loop as inside."""
    if jax.default_backend() != "cpu":
        return True
    flops, out = products(node) * share, node.outputs[0]
    rows = math.prod(out.shape[:-1])
    inside = flops / _FLOPS_IN_LOOP * (1 + _FEW_ROWS / max(rows, 1)) + (_JOINED_S if joined else _OPERATION_S)
    outside = flops / _FLOPS_AT_ONCE + out.bytes * (_CUT_BYTE_S if cut else _BYTE_S)
    return outside < _CLEARLY * inside


def cut_later(nodes: Iterable[Node]) -> set[Value]:
    """The values that are cut into parts, as they are or after sums."""
    found: set[Value] = set()
    for node in reversed(list(nodes)):
        if node.name in ("split", "slice") or (node.name == "add" and node.outputs[0] in found):
            found.update(node.inputs)
    return found
