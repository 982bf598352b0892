"""Cheap operations for all steps, of which the backward pass keeps what goes in and computes the rest again.

JAX differentiates operation by operation, and each keeps its operands: a layer normalisation keeps several times what
goes in. What cheap operations read is the result of a product, which is kept, or an input, which is there.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax

from .algebra import PARAMS
from .graph import Node, Value, is_literal
from .keep import can_run_again
from .many import run_many


@dataclass(frozen=True, eq=False)
class Again:
    """Neighbouring operations without a product: what they read at every step, what they read once, what they give."""

    nodes: list[Node]
    moving: list[Value]
    still: list[Value]
    outputs: list[Value]

    @property
    def inputs(self) -> tuple[Value, ...]:
        return *self.moving, *self.still

    def arguments(self, fixed: dict[Value, Any], over_time: dict[Value, Any]) -> list[list[Any]]:
        return [[over_time[v] for v in self.moving], [fixed[v] for v in self.still]]

    def values(self, moving: list[Any], still: list[Any]) -> dict[Value, Any]:
        """What the operations give, for all steps."""
        fixed, over_time = dict(zip(self.still, still, strict=True)), dict(zip(self.moving, moving, strict=True))
        for node in self.nodes:
            run_many(node, fixed, over_time)
        return {v: over_time[v] for v in self.outputs}

    def run(self, fixed: dict[Value, Any], over_time: dict[Value, Any]) -> None:
        """Adds `values` to `over_time`; the backward pass will compute them again."""
        give = lambda *arguments: list(self.values(*arguments).values())
        made = jax.checkpoint(give, prevent_cse=False)(*self.arguments(fixed, over_time))
        over_time.update(zip(self.outputs, made, strict=True))

    def saves(self, wanted: Collection[Value], at_hand: Collection[Value]) -> bool:
        """Whether what the operations read takes no more bytes than those of their results that are `wanted`."""
        read = [v.bytes for v in self.moving if v not in at_hand]
        given = [v.bytes for v in self.outputs if v in wanted]
        return bool(given) and sum(read) <= sum(given)


def again(actions: list[Any], roots: Iterable[Value], level: dict[Value, int]) -> list[Any]:
    """The actions, with neighbours that can run again put together; `roots` are wanted in any case."""
    cheap = lambda action: isinstance(action, Node) and can_run_again(action)
    runs = [list(run) for _, run in groupby(actions, lambda action: cheap(action) or id(action))]
    wanted, found = set(roots), list[Any]()
    for run in reversed(runs):
        found.append(_together(run, wanted, level) if len(run) > 1 else run[0])
        wanted.update(v for action in run for v in getattr(action, "inputs", ()))
    return found[::-1]


def _together(nodes: list[Node], wanted: set[Value], level: dict[Value, int]) -> Again:
    made = dict.fromkeys(v for node in nodes for v in node.outputs)
    read = [v for v in dict.fromkeys(v for n in nodes for v in n.inputs) if v not in made and not is_literal(v)]
    moving, still = ([v for v in read if (level[v] > PARAMS) == moves] for moves in (True, False))
    return Again(nodes, moving, still, [v for v in made if v in wanted])
