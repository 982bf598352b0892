"""Which values of a step to keep for its derivative, so that the rest can be computed again from few bytes.

A minimum cut: between what a step starts from and what its derivative reads lie the operations; cutting a value means
keeping it, at the price of its bytes. Values that are kept anyway cost nothing, and products are not computed again, so
their results (or something behind them) are cut. Among cheapest cuts the one nearest to the derivative is taken, which
leaves least to compute. PyTorch's compiler partitions graphs this way; see also Griewank & Walther, ch. 12.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from .algebra import ELEMENTWISE, PARAMS
from .graph import Node, Value, in_order, is_literal


_AGAIN = ELEMENTWISE | frozenset(
    """argmax argmin broadcast_in_dim concatenate custom_jvp_call dynamic_slice expand_dims gather iota pad reduce_and
    reduce_max reduce_min reduce_or reduce_prod reduce_sum reshape rev slice split squeeze transpose pvary""".split()
)


def can_run_again(node: Node) -> bool:
    """Whether an operation is cheap beside a product, and the same the second time."""
    return node.name in _AGAIN and not node.effects


def kept(needed: Iterable[Value], level: dict[Value, int], free: set[Value]) -> list[Value]:
    """The values to keep, of those that change from step to step; `free` ones are at hand in any case."""
    flow = _Flow()
    varies = lambda v: not is_literal(v) and level[v] > PARAMS
    needed = [v for v in needed if varies(v)]
    for node in in_order(needed):
        for v in node.outputs:
            if not varies(v):
                continue
            flow.add((v, "in"), (v, "out"), 0 if v in free else max(v.bytes, 1))
            if not can_run_again(node):
                flow.add("start", (v, "in"), None)
                continue
            for u in node.inputs:
                if varies(u):
                    flow.add((u, "out"), (v, "in"), None)
    for v in needed:
        flow.add((v, "out"), "end", None)
    return [v for v, _ in flow.cut("start", "end") if v not in free]


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
