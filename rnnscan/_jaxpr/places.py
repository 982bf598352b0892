"""Where each operation of a step runs once it was taken apart, and why it stays in a loop."""

from collections.abc import Callable
from typing import NamedTuple

from .again import Again
from .algebra import CARRY, PARAMS
from .depend import arrange, carry_kinds
from .graph import Node, Value, in_order, is_literal
from .parts import InParts
from .schedule import Schedule, Section
from .tangent import Body


ON_CIRCLE = "the next carry depends on it"


class Place(NamedTuple):
    """Operations that run at one place, in their order."""

    where: str
    nodes: list[Node]
    in_loop: bool = False


def places(s: Schedule) -> list[Place]:
    """All operations of a step in the order in which they run."""
    loops = [set(Body(section).nodes()) for section in s.sections]
    inside = set().union(*loops) if loops else set()
    once = [n for n in written(s.step.roots) if s.level[n.done] == PARAMS and n not in inside and not _constant(n)]
    found, done, outside = [Place("once", once)], 0, list[Node]()
    for action in s.actions:
        if isinstance(action, Section):
            found.append(Place(_between(done, len(loops)), outside))
            done, outside = done + 1, []
            where = "loop" if len(loops) == 1 else f"loop {done}"
            found.append(Place(where, Body(action).nodes(), True))
        elif isinstance(action, Node):
            outside.append(action)
        elif isinstance(action, InParts | Again):
            outside.extend(action.nodes)
    found.append(Place(_between(done, len(loops)), outside))
    known = {n for place in found for n in place.nodes} | inside
    edge = lambda v: is_literal(v) or v in s.step.carry or s.level[v] == PARAMS or v.node in known
    at_end = in_order([s.step.new_carry[i] for i in s.alone], edge)
    found.append(Place("at the end", [n for n in at_end if n.primitive is not None]))
    return [place for place in found if place.nodes]


def written(roots: tuple[Value, ...]) -> list[Node]:
    """The operations of a step."""
    return [n for n in in_order(roots) if n.primitive is not None]


def _between(done: int, loops: int) -> str:
    if not loops:
        return "all steps"
    if 0 < done < loops:
        return f"between loops {done} and {done + 1}"
    return f"{'after' if done else 'before'} the loop{'s' if loops > 1 else ''}"


def _constant(node: Node) -> bool:
    """Whether an operation reads nothing but numbers of the program."""
    return all(n.primitive is not None or all(map(is_literal, n.outputs)) for n in in_order(node.inputs))


def reasons(s: Schedule, wanted: tuple[str, ...]) -> Callable[[Node], str]:
    """Why an operation stands in a loop."""
    circles = {n for part in arrange(s.step, {}).loops for n in part.nodes}

    def why(node: Node) -> str:
        if node in circles and not node.effects:
            return ON_CIRCLE
        if node in s.pinned:
            return s.pinned[node]
        if "sink" not in wanted and s.level[node.done] == CARRY:
            return "`sink` is not among the rewrites wanted"
        if s.pinned and s.level[node.done] == CARRY:
            return "it lies between operations that must stay in one loop"
        return "it leaves less to store inside the loop than outside"

    return why


def reads_no_carry(s: Schedule, node: Node) -> bool:
    """Whether an operation depends on params and xs only, whatever must stay in a loop."""
    _, level = carry_kinds(s.step, {})
    return level[node.done] < CARRY
