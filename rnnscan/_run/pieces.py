"""How many steps a piece of a run has, between whose loops operations run for all of its steps at once."""

import math
from collections.abc import Iterable
from typing import Any

from .._jaxpr.again import Again
from .._jaxpr.algebra import CHEAP, PARAMS, products
from .._jaxpr.graph import Node, Value
from .._jaxpr.parts import InParts
from .._jaxpr.schedule import Schedule


_WHOLE_BYTES = 22 << 20  # a training step takes half as much again, and glibc keeps blocks of up to 32 MiB
_PIECE_BYTES = 1 << 20
_SHARE_OF_WEIGHTS = 0.35
_LEAST_STEPS = 4
_WHOLE_VALUED_BYTES = 8 << 20
_VALUED_BYTES = 6 << 20
_LEAST_VALUED_STEPS = 8


def piece_length(taken: Schedule, n_steps: int) -> int:
    """Steps a piece: as many as keep what lies between the loops in the cache; a divisor of the whole if possible.

    A piece also adds its part to the gradients of the weights once, so it should hold about as much as these, and what
    it starts with takes the time of a step or two, so it has a few steps at least. A run that is small as a whole is
    one piece, which is less to compile.
    """
    between = [v.bytes for action in taken.actions for v in _made(action)]
    read = [sum(v.bytes for v in s.seqs if v.node.primitive is not None) for s in taken.sections]
    made = [_bytes([n for n in s.part.nodes if products(n) and n not in taken.pinned]) for s in taken.sections]
    costly = [
        n for s in taken.sections for n in s.part.nodes if n.name not in CHEAP | {"split", "slice", "concatenate"}
    ]
    if (sum(between) + _bytes(costly)) * n_steps <= _WHOLE_BYTES:
        return n_steps
    piece_bytes = max(_PIECE_BYTES, int(_SHARE_OF_WEIGHTS * _weight_bytes(taken)))
    return _near(max(_LEAST_STEPS, piece_bytes // max([1, *between, *read, *made])), n_steps)


def valued_length(taken: Schedule, n_steps: int) -> int:
    """Steps a piece where no derivative is asked for: no gradients are added up, and nothing is kept.

    Each sequence is to stay in the cache then, and all of them together with the inputs, of which a piece makes a copy,
    in the next larger one. What loops take in themselves does not lie between them.
    """
    joined = {v for s in taken.sections if s.joined is not None for v in s.joined.inputs.outputs}
    read = [v for s in taken.sections for v in s.seqs if v.node.primitive is not None and v not in joined]
    at_once = [v for a in taken.actions if _multiplies(a) for v in a.outputs if v not in joined]
    between = sum(v.bytes for v in {*read, *at_once})
    if between * n_steps <= _WHOLE_VALUED_BYTES:
        return n_steps
    largest = max(v.bytes for v in read or at_once)
    target = min(_PIECE_BYTES // largest, _VALUED_BYTES // (between + sum(v.bytes for v in taken.step.inputs)))
    return _near(max(_LEAST_VALUED_STEPS, target), n_steps)


def _near(target: int, n_steps: int) -> int:
    """A divisor of `n_steps` near the target where there is one."""
    target = min(n_steps, target)
    near = [k for k in range(max(1, target // 2), 2 * target + 1) if n_steps % k == 0]
    return min(near, key=lambda k: abs(math.log(k / target))) if near else target


def _made(action: Any) -> list[Value]:
    """What an action other than a loop computes for all steps."""
    if isinstance(action, Again):
        return [v for node in action.nodes for v in node.outputs]
    return list(action.outputs) if isinstance(action, Node | InParts) else []


def _multiplies(action: Any) -> bool:
    return isinstance(action, InParts) or (isinstance(action, Node) and products(action) > 0)


def _bytes(nodes: Iterable[Node]) -> int:
    return sum(v.bytes for node in nodes for v in node.outputs)


def _weight_bytes(taken: Schedule) -> int:
    together = [action.product for action in taken.actions if isinstance(action, InParts)]
    batched = [*together, *(action for action in taken.actions if isinstance(action, Node) and products(action))]
    inside = [n for section in taken.sections for n in section.part.nodes if products(n)]
    read = {v for node in (*batched, *inside) for v in node.inputs if taken.level[v] == PARAMS}
    return sum(v.bytes for v in read)
