"""Which operations of a step belong into a loop over time, and which can run for many steps at once.

One step is a graph from (params, carry, x) to (carry, y); the carry that leaves it enters the next one. An operation
must run step by step only where it lies on a circle through the carry. All others run for many steps at once: before
the loop what no carry reaches, after it what reaches no carry, and where circles are joined by products (a stack of
layers) there is a loop for each, with the products between them. This is loop distribution as vectorising compilers do
it (Allen & Kennedy 1987), with `lax.scan` for the loops that are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .algebra import CARRY, INPUTS, PARAMS, Own, products
from .graph import Node, Value, in_order, is_literal, number


@dataclass(frozen=True)
class Step:
    """One step as a graph: what goes in, what comes out, and what must happen."""

    params: tuple[Value, ...]
    carry: tuple[Value, ...]
    inputs: tuple[Value, ...]
    new_carry: tuple[Value, ...]
    outputs: tuple[Value, ...]
    effects: tuple[Value, ...] = ()

    @property
    def roots(self) -> tuple[Value, ...]:
        return (*self.effects, *self.new_carry, *self.outputs)

    def with_roots(self, roots: Sequence[Value]) -> "Step":
        """The same step made of other operations."""
        n, m = len(self.effects), len(self.effects) + len(self.new_carry)
        return replace(self, effects=tuple(roots[:n]), new_carry=tuple(roots[n:m]), outputs=tuple(roots[m:]))


@dataclass(frozen=True)
class Counter:
    """A leaf of the carry that grows by a whole number at each step."""

    by: Any


@dataclass
class LoopPart:
    """What one loop over time holds: leaves of the carry, and the operations that run step by step."""

    leaves: list[int]
    nodes: set[Node]


@dataclass
class Arrangement:
    """A step, its loops in order, and what becomes of each leaf of the carry: None where a loop carries it."""

    step: Step
    loops: list[LoopPart]
    kinds: list[Any]  # "constant", Counter, "delayed", "carried"
    level: dict[Value, int]
    pinned: dict[Node, str]  # operations that stay in a loop, and why


def carry_kinds(step: Step, pinned: dict[Node, str]) -> tuple[list[Any], dict[Value, int]]:
    """What each leaf of the carry is, and on what every value depends, given that.

    A leaf that no step changes is a constant, one that grows by a fixed whole number is a counter, and one that holds
    the last step's value of something that no carry reaches is a delayed input: none of them needs a loop.
    """
    kinds: list[Any] = [_simple_kind(old, new) for old, new in zip(step.carry, step.new_carry, strict=True)]
    while True:
        level = dict.fromkeys(step.params, PARAMS) | dict.fromkeys(step.inputs, INPUTS)
        for value, kind in zip(step.carry, kinds, strict=True):
            level[value] = PARAMS if kind == "constant" else CARRY if kind == "carried" else INPUTS
        for node in in_order(step.roots):
            if node.primitive is None and node.outputs[0] in level:
                continue
            found = max((level[v] for v in node.inputs), default=PARAMS)
            if node in pinned and (found > PARAMS or node.effects):
                found = CARRY
            level.update(dict.fromkeys((*node.outputs, node.done), found))
        late = [i for i, v in enumerate(step.new_carry) if kinds[i] == "carried" and level[v] < CARRY]
        if not late:
            return kinds, level
        for i in late:
            kinds[i] = "delayed"


def _simple_kind(old: Value, new: Value) -> Any:
    if new == old:
        return "constant"
    if new.node.name == "add" and old in new.node.inputs and np.issubdtype(old.aval.dtype, np.integer):
        other = next((v for v in new.node.inputs if v != old), old)
        if is_literal(other):
            return Counter(number(other))
    return "carried"


def arrange(step: Step, pinned: dict[Node, str], sink: bool = True) -> Arrangement:
    """Finds the loops of a step; without `sink`, everything that a carry reaches stays in one loop.

    What is `pinned` cannot leave the loop, so that there is one loop only.
    """
    kinds, level = carry_kinds(step, pinned)
    nodes = [n for n in in_order(step.roots) if n.primitive is not None and level[n.done] == CARRY]
    tied = {n for n in nodes if n in pinned or not sink}
    reach = _Reach(step, [i for i, kind in enumerate(kinds) if kind == "carried"], nodes, tied)
    loops = []
    for members in reach.stages():
        inside = {n for n in nodes if reach.before[n] & members and reach.after[n] & members}
        leaves = [i for i in reach.leaves if reach.sources[i] & members and reach.targets[i] & members]
        loops.append(LoopPart(leaves, inside))
    return Arrangement(step, loops, kinds, level, pinned)


def circles(step: Step) -> Callable[[Sequence[Value]], Own] | None:
    """For operations that make this step's roots, however they are written: which values lie on a circle with their
    readers, so that both are in one loop. None where there is one circle at most."""

    def reach(values: Sequence[Value]) -> _Reach:
        written = step.with_roots(values)
        kinds, level = carry_kinds(written, {})
        nodes = [n for n in in_order(written.roots) if n.primitive is not None and level[n.done] == CARRY]
        return _Reach(written, [i for i, kind in enumerate(kinds) if kind == "carried"], nodes, set())

    if len(reach(step.roots).groups()) < 2:
        return None

    def of(values: Sequence[Value]) -> Own:
        found = reach(values)
        return lambda node, value: not found.circle(node) or bool(found.circle(node) & found.leaves_of(value))

    return of


class _Reach:
    """What reaches what through any number of steps; a set of leaves of the carry is the bits of an int.

    One bit more stands for all operations that must stay in a loop, so that they end up in the same one.
    """

    def __init__(self, step: Step, leaves: list[int], nodes: list[Node], tied: set[Node]):
        self.leaves, self.nodes, self.hub = leaves, nodes, 1 << len(step.carry)
        self.bit = bit = {step.carry[i]: 1 << i for i in leaves}
        up: dict[Node, int] = {}  # the leaves that a node depends on within one step
        down = dict.fromkeys(nodes, 0)  # the leaves that depend on it
        known = set(nodes)
        for node in nodes:
            up[node] = self.hub if node in tied else 0
            for v in node.inputs:
                up[node] |= bit.get(v, 0) | up.get(v.node, 0)
        for i in leaves:
            if step.new_carry[i].node in known:
                down[step.new_carry[i].node] |= 1 << i
        for node in reversed(nodes):
            down[node] |= self.hub if node in tied else 0
            for v in node.inputs:
                if v.node in known:
                    down[v.node] |= down[node]
        feeds = {i: bit.get(step.new_carry[i], 0) | up.get(step.new_carry[i].node, 0) for i in leaves}
        hub = len(step.carry)
        feeds[hub] = 0
        for node in tied:
            feeds[hub] |= up[node]
            for i in leaves:
                feeds[i] |= self.hub if down[node] >> i & 1 else 0
        self.sources = _closure(feeds)
        if tied:  # the operations that must stay in a loop are in that of the carry
            for i in leaves:
                if self.sources[i] >> i & 1:
                    feeds[i], feeds[hub] = feeds[i] | self.hub, feeds[hub] | 1 << i
            self.sources = _closure(feeds)
        self.targets = {i: sum(1 << j for j in feeds if self.sources[j] >> i & 1) for i in feeds}
        self.before = {n: up[n] | _union(self.sources, up[n]) for n in nodes}
        self.after = {n: down[n] | _union(self.targets, down[n]) for n in nodes}

    def circle(self, node: Node) -> int:
        """The leaves on a circle with a node, 0 where it is on none."""
        return self.before.get(node, 0) & self.after.get(node, 0)

    def leaves_of(self, value: Value) -> int:
        """The leaves that a value is, or depends on."""
        return self.bit.get(value, 0) | self.before.get(value.node, 0)

    def groups(self) -> list[int]:
        """The circles, as sets of leaves that reach each other, each after those that reach it."""
        found: list[int] = []
        for i in self.sources:
            circle = self.sources[i] & self.targets[i]
            if circle >> i & 1 and circle not in found:
                found.append(circle)
        return sorted(found, key=lambda circle: (self.sources[_first(circle)].bit_count(), circle))

    def stages(self) -> list[int]:
        """The circles put together into as few loops as leave no product between two circles of one loop."""
        groups = self.groups()
        alone = [
            n for n in self.nodes if products(n) and not any(self.before[n] & g and self.after[n] & g for g in groups)
        ]
        stage: dict[int, int] = {}
        for g in groups:
            stage[g] = 0
            for p, s in stage.items():
                if p != g and self.sources[_first(g)] & p:
                    between = any(self.before[n] & p and self.after[n] & g for n in alone)
                    stage[g] = max(stage[g], s + between)
        loops = dict.fromkeys(sorted(set(stage.values())), 0)
        for g, s in stage.items():
            loops[s] |= g
        return list(loops.values())


def _first(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _union(sets: dict[int, int], which: int) -> int:
    found = 0
    for i, bits in sets.items():
        if which >> i & 1:
            found |= bits
    return found


def _closure(feeds: dict[int, int]) -> dict[int, int]:
    """For each item, all that reaches it in one step or more."""
    found = dict(feeds)
    for k in found:
        for i in found:
            if found[i] >> k & 1:
                found[i] |= found[k]
    return found
