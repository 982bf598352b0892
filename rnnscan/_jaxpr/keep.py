"""Which values of a step to keep for its derivative, so that the rest can be computed again from few bytes.

A minimum cut: between what a step starts from and what its derivative reads lie the operations; cutting a value means
keeping it, at the price of its bytes. Values that are kept anyway cost nothing. Products are not computed again, so
their results (or something behind them) are cut, unless the step is a small one; nor is a choice (`_chooses`). Among
cheapest cuts the one nearest to the derivative is taken, which leaves least to compute. PyTorch's compiler partitions
graphs this way; see also Griewank & Walther, ch. 12.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .algebra import CHANGE_SHAPE, CHEAP, ELEMENTWISE, PARAMS, products
from .graph import Node, Value, in_order, is_literal


_AGAIN = ELEMENTWISE | CHANGE_SHAPE | {"custom_jvp_call", "pvary"}

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

SMALL_STEP = 1 << 16  # floating-point operations


def can_run_again(node: Node) -> bool:
    """Whether an operation is cheap beside a product, and the same the second time."""
    return node.name in _AGAIN and not node.effects


@dataclass(frozen=True)
class LoopStep:
    """What decides over what a loop keeps."""

    level: dict[Value, int]
    seqs: list[Value]  # what it reads at each step
    before: dict[Value, Value]  # the state after a step, by the state before it
    at_hand: list[Value]  # after the loop, for all steps
    small: bool  # whether starting operations takes longer than its products

    def earlier(self, at_hand: Iterable[Value]) -> dict[Value, Value]:
        """By the states that are at hand one step late, what they are late."""
        done = set(at_hand)
        return {old: new for old, new in self.before.items() if new in done}


def is_small(nodes: Iterable[Node]) -> bool:
    """Whether the products of one step take less time than starting a few operations does."""
    return sum(map(products, nodes)) <= SMALL_STEP


def what_to_keep(needed: Iterable[Value], step: LoopStep) -> tuple[list[Value], dict[Value, Value]]:
    """The values to keep, and `LoopStep.earlier` with these.

    A small step should do little: its products run again, for all steps at once, and of a state what comes out is kept
    rather than what goes in, which the loop would have to copy (`benchmarks/NOTES.md`, 14).
    """
    changes = [v for v in needed if step.level[v] > PARAMS]
    at_hand = dict.fromkeys(step.at_hand)
    found = _cheapest(changes, step, at_hand)
    if step.small:
        later = [step.before[v] for v in found if v in step.before]
        at_hand |= dict.fromkeys(v for v in later if step.level[v] > PARAMS)
        found = _cheapest(changes, step, at_hand)
    kept = [*(v for v in at_hand if v not in step.at_hand), *found]
    return [v for v in kept if v not in step.seqs], step.earlier(at_hand)


def _cheapest(needed: list[Value], step: LoopStep, at_hand: Iterable[Value]) -> list[Value]:
    """The cheapest values to keep besides those at hand; `needed` change from step to step."""
    flow = _Flow()
    varies = lambda v: not is_literal(v) and step.level[v] > PARAMS
    free = {*at_hand, *step.earlier(at_hand)}
    for node in in_order(needed):
        for v in node.outputs:
            if not varies(v):
                continue
            stored = step.small and v not in step.seqs  # by the loop, as one operation more
            flow.add((v, "in"), (v, "out"), 0 if v in free else max(v.bytes, 1) + stored)
            if _chooses(node, varies) or not (can_run_again(node) or (step.small and products(node))):
                flow.add("start", (v, "in"), None)
                continue
            for u in node.inputs:
                if varies(u):
                    flow.add((u, "out"), (v, "in"), None)
    for v in needed:
        flow.add((v, "out"), "end", None)
    return [v for v, _ in flow.cut("start", "end") if v not in free]


def _chooses(node: Node, varies: Callable[[Value], bool]) -> bool:
    """Whether a node makes a choice between floats that change: which is the larger, whether they are equal, an index.

    Computed again, they may be rounded another way, so the choice is kept. The derivative of `m = max(a, b)` asks for
    `a == m`: of a computed twice and the first m, that would be true nowhere, and the derivative zero. A comparison
    with a number turns only where the value is within rounding of it.
    """
    of_floats = any(v.is_float and varies(v) for v in node.inputs)
    if not of_floats or any(v.is_float for v in node.outputs) or node.name == "is_finite":
        return False
    return node.name not in _COMPARISONS or sum(map(varies, node.inputs)) > 1


def sole_source(value: Value, at_hand: set[Value], level: dict[Value, int]) -> Value | None:
    """The one value at hand of which this is made, by cheap operations, if it is no larger: the derivative of tanh is
    `1 - y^2` of its result. A loop that reads the source can make the value itself, and nobody needs to store it."""
    if value in at_hand:
        return None
    found: set[Value] = set()
    for node in in_order([value], lambda v: v in at_hand or level.get(v, PARAMS) == PARAMS):
        if node.name not in CHEAP:
            return None
        found.update(v for v in node.inputs if v in at_hand)
    return next((v for v in found if len(found) == 1 and v.bytes <= value.bytes), None)


class _Flow:
    """A network; capacity None is unlimited."""

    def __init__(self) -> None:
        self.left: dict[Any, dict[Any, float]] = {}

    def add(self, a: Any, b: Any, capacity: int | None) -> None:
        self.left.setdefault(a, {}).setdefault(b, 0)
        self.left.setdefault(b, {}).setdefault(a, 0)
        self.left[a][b] += float("inf") if capacity is None else capacity

    def cut(self, start: Any, end: Any) -> list[Any]:
        """The first ends of the edges of the cheapest cut that is nearest to `end` (Edmonds & Karp 1972)."""
        if start not in self.left or end not in self.left:
            return []
        capacity = {a: dict(edges) for a, edges in self.left.items()}
        while (path := self._path(start, end)) is not None:
            amount = min(self.left[a][b] for a, b in path)
            for a, b in path:
                self.left[a][b] -= amount
                self.left[b][a] += amount
        behind = self._reaching(end)
        return [a for a, edges in capacity.items() for b, c in edges.items() if c and b in behind and a not in behind]

    def _path(self, start: Any, end: Any) -> list[tuple[Any, Any]] | None:
        before: dict[Any, Any] = {start: None}
        waiting = deque([start])
        while waiting:
            a = waiting.popleft()
            for b, left in self.left[a].items():
                if left > 0 and b not in before:
                    before[b] = a
                    waiting.append(b)
        if end not in before:
            return None
        path = []
        while before[end] is not None:
            path.append((before[end], end))
            end = before[end]
        return path

    def _reaching(self, end: Any) -> set[Any]:
        """All from which something could still flow to `end`."""
        found, waiting = {end}, [end]
        while waiting:
            b = waiting.pop()
            for a in self.left[b]:
                if a not in found and self.left[a][b] > 0:
                    found.add(a)
                    waiting.append(a)
        return found
