"""The order in which the parts of a step run for many steps: loops, and operations for all steps at once."""

from dataclasses import dataclass, field, replace
from typing import Any

from .again import Again, again
from .algebra import CARRY, CHEAP, PARAMS, biased_product, cut_axis, product_of_inputs, products, rows_by_matrix
from .depend import Arrangement, Counter, LoopPart, Step
from .graph import Node, Value, in_order, is_literal, readers
from .joined import Joined, comes_apart, joined
from .parts import InParts, in_parts


@dataclass(eq=False)
class Section:
    """One loop of a schedule: what it carries, reads and gives."""

    part: LoopPart
    carry: list[Value]
    new_carry: list[Value]
    effects: list[Value]
    consts: list[Value] = field(default_factory=list)
    seqs: list[Value] = field(default_factory=list)
    cuts: list[Value] = field(default_factory=list)  # wanted at every step
    lasts: list[Value] = field(default_factory=list)  # wanted at the last step only
    again: list[Again] = field(default_factory=list)  # what makes some of `seqs` once more for the derivative
    joined: Joined | None = None  # how its product takes one of the inputs in, where no derivative is asked for
    linearised: dict[Any, Any] = field(default_factory=dict)  # what `TangentStep.of` has made, by what moves

    @property
    def matrices(self) -> list[Value]:
        """The constants by which the loop multiplies rows; their transposes serve the backward loop."""
        right = {n.inputs[1] for n in self.part.nodes if n.name == "dot_general"}
        return [v for v in self.consts if v in right and v.is_float and len(v.shape) == 2]

    @property
    def roots(self) -> list[Value]:
        return [*self.effects, *self.new_carry, *self.cuts, *self.lasts]

    def inside(self, value: Value) -> bool:
        return value.node in self.part.nodes or value in self.carry

    def find_inputs(self, level: dict[Value, int]) -> None:
        """Which constants and which sequences the loop reads."""
        outer: dict[Value, None] = {}
        for root in self.roots:
            if not self.inside(root):
                outer[root] = None
        for node in in_order(self.roots, lambda v: not self.inside(v)):
            for v in node.inputs:
                if not self.inside(v) and not is_literal(v):
                    outer[v] = None
        found = [v for v in outer if not is_literal(v)]
        self.consts = [v for v in found if level[v] == PARAMS]
        self.seqs = [v for v in found if level[v] > PARAMS]


@dataclass
class Schedule:
    """`actions` in order: a `Section`, or for all steps a `Node`, `Again`, `InParts` or a delayed leaf's index."""

    step: Step
    kinds: list[Any]
    level: dict[Value, int]
    pinned: dict[Node, str]
    sections: list[Section]
    actions: list[Any]
    narrow: list[Value]  # made of params rounded to a narrower type
    alone: list[int]  # the carry's leaves that no loop carries: their last values are computed once, at the end


def schedule(arrangement: Arrangement, rule: bool = True, whole: bool = False) -> Schedule:
    """Orders the parts of a step, with each cheap operation on the side of the loop where less is stored.

    Gradients of params that a cell rounds to a narrower type are summed in the wide type, so these roundings are done
    in each piece of time; without the `rule` of `weight_grads`, which sums up a piece at once, in each step. Loops cut
    what products of inputs give, if these stay `whole`.
    """
    step, level = arrangement.step, arrangement.level
    sections = [_section(part, step) for part in arrangement.loops]
    if sections:
        last = sections[-1]  # operations with effects are all in one loop
        holds = lambda s: all(v.node in s.part.nodes for v in step.effects)
        next((s for s in sections if holds(s)), last).effects.extend(step.effects)
    _keep_small_inside(step, sections)
    narrow = _narrow(step, level)
    if not rule:
        for section in sections:
            section.part.nodes.update(narrow)
    _expand_inside(sections, level, whole)
    made = _Demand(step, arrangement.kinds, level, sections)
    at_end = [v for node in in_order([step.new_carry[i] for i in made.alone]) for v in node.inputs]
    read_by = readers(step.roots)
    actions = in_parts(made.actions, read_by, level)
    in_loops = [n for section in sections for n in section.part.nodes if rows_by_matrix(n)]
    apart = lambda a: isinstance(a, InParts) and comes_apart(a, in_loops, read_by, level)
    actions = [replace(a, apart=True) if apart(a) else a for a in actions]
    sequences = [v for section in sections for v in section.seqs]
    actions = again(actions, {*step.outputs, *step.new_carry, *at_end, *sequences}, level)
    for section in sections:
        makes = lambda a, seqs=section.seqs: isinstance(a, Again) and a.saves(seqs, step.inputs)
        section.again = [a for a in actions if makes(a)]
        nodes = [n for n in in_order(step.roots) if n in section.part.nodes]
        section.joined = joined(nodes, actions, read_by, level)
    return Schedule(
        step,
        arrangement.kinds,
        level,
        arrangement.pinned,
        sections,
        actions,
        [v for n in narrow for v in n.outputs],
        made.alone,
    )


def _narrow(step: Step, level: dict[Value, int]) -> list[Node]:
    """What depends on params alone and on one of them rounded to a narrower type."""
    found: dict[Node, None] = {}
    for node in in_order(step.roots):
        if node.primitive is None or level[node.done] > PARAMS:
            continue
        (size, *_), given = [v.aval.dtype.itemsize for v in node.outputs] or [0], node.inputs
        rounds = node.name == "convert_element_type" and given[0].is_float and size < given[0].aval.dtype.itemsize
        if (rounds and node.outputs[0].is_float) or any(v.node in found for v in given):
            found[node] = None
    return list(found)


def _section(part: LoopPart, step: Step) -> Section:
    return Section(part, [step.carry[i] for i in part.leaves], [step.new_carry[i] for i in part.leaves], [])


def _keep_small_inside(step: Step, sections: list[Section]) -> None:
    """Cheap operations behind a loop join it where that leaves less to store: `h * gate` instead of h and the gate."""
    every_step = set(step.outputs)
    order, read_by = in_order(step.roots), readers(step.roots)
    wanted = {n for n in in_order(step.outputs)}
    for section in sections:
        for node in order:
            ours = [v for v in node.inputs if section.inside(v)]
            if not ours or node in section.part.nodes or products(node) or node not in wanted:
                continue
            if any(
                not section.inside(v) and v.node.primitive is not None and _depends(v, section) for v in node.inputs
            ):
                continue
            if node.name not in CHEAP and node.name not in ("tanh", "logistic", "exp", "div", "custom_jvp_call"):
                continue
            only_here = [
                v for v in dict.fromkeys(ours)
                if v not in every_step and all(r is node or r in section.part.nodes for r in read_by[v])
            ]  # fmt: skip
            if sum(v.bytes for v in node.outputs) <= sum(v.bytes for v in only_here):
                section.part.nodes.add(node)


def _depends(value: Value, section: Section) -> bool:
    """Whether a value outside a loop is made of what the loop gives."""
    return any(
        v in section.carry or n in section.part.nodes for n in in_order([value]) for v in (*n.inputs, *n.outputs)
    )


def _expand_inside(sections: list[Section], level: dict[Value, int], whole: bool) -> None:
    """A sequence that a cheap operation makes larger (a broadcast mask) is made inside the loop, at each step; a bias
    is added there, where it costs no way through memory of its own; and what products give is cut, if it stays `whole`.
    """
    for section in sections:
        changed = True
        while changed:
            changed = False
            section.find_inputs(level)
            for v in section.seqs:
                given = [u for u in dict.fromkeys(v.node.inputs) if not is_literal(u) and level[u] > PARAMS]
                new = sum(u.bytes for u in given if u not in section.seqs)
                cheap = v.node.name in CHEAP and level[v] < CARRY
                smaller = new < v.bytes and _light_consts(v.node, level)
                cuts = whole and cut_axis(v.node) is not None and product_of_inputs(v.node.inputs[0], level)
                if (cheap and (smaller or biased_product(v.node, level))) or cuts:
                    section.part.nodes.add(v.node)
                    changed = True
                    break


def _light_consts(node: Node, level: dict[Value, int]) -> bool:
    return node.name in ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "expand_dims") or all(
        is_literal(v) or level[v] > PARAMS for v in node.inputs
    )


class _Demand:
    """Finds what is wanted at every step and what at the last step only, and with it the order of the parts."""

    def __init__(self, step: Step, kinds: list[Any], level: dict[Value, int], sections: list[Section]):
        self.step, self.kinds, self.level, self.sections = step, kinds, level, sections
        self.place = {v: i for i, v in enumerate(step.carry)}
        carried = {i for s in sections for i in s.part.leaves}
        alone = [i for i in range(len(kinds)) if i not in carried and kinds[i] != "constant"]
        self.alone = [i for i in alone if not isinstance(kinds[i], Counter)]
        self.at_end = [step.new_carry[i] for i in self.alone]
        self.wanted: set[Value] = set()
        whole = [*step.outputs, *self._look_at_end()]
        self._find_wanted(whole)
        self.actions: list[Any] = []
        for target in [*sections, *whole]:
            self._order(target)

    def _section_of(self, value: Value) -> Section | None:
        if self.level[value] < CARRY:
            return None
        return next((s for s in self.sections if s.inside(value)), None)

    def _known(self, value: Value) -> bool:
        return is_literal(value) or self.level[value] == PARAMS

    def _counts(self, value: Value) -> bool:
        return value in self.place and isinstance(self.kinds[self.place[value]], Counter)

    def _look_at_end(self) -> list[Value]:
        """Notes in each loop which last values `at_end` needs; the delayed leaves among them are wanted as a whole."""
        stop = lambda v: self._known(v) or v in self.place or self._section_of(v) is not None
        edge = dict.fromkeys(v for v in self.at_end if stop(v))
        for node in in_order(self.at_end, stop):
            edge.update(dict.fromkeys(v for v in node.inputs if stop(v)))
        whole = []
        for v in edge:
            section = None if self._known(v) else self._section_of(v)
            if section is not None and v not in section.new_carry:
                section.lasts.append(v)
            elif section is None and not self._known(v) and not self._counts(v):
                whole.append(v)
        return whole

    def _find_wanted(self, values: list[Value]) -> None:
        """Marks all values that are wanted at every step, and notes them in the loops that give them."""
        waiting = list(values)
        while True:
            while waiting:
                value = waiting.pop()
                if value in self.wanted or self._known(value):
                    continue
                self.wanted.add(value)
                section = self._section_of(value)
                if section is not None:
                    section.cuts.append(value)
                else:
                    waiting.extend(self._made_of(value))
            for section in self.sections:
                section.find_inputs(self.level)
                waiting.extend(v for v in section.seqs if v not in self.wanted)
            if not waiting:
                break
        for section in self.sections:
            section.lasts = [v for v in section.lasts if v not in section.cuts]

    def _made_of(self, value: Value) -> list[Value]:
        if value in self.place:
            return [] if self._counts(value) else [self.step.new_carry[self.place[value]]]
        return list(value.node.inputs)

    def _order(self, target: Any) -> None:
        """Appends what makes a value for every step, or a loop, after all that it needs."""
        waiting, seen = [(target, False)], set()
        while waiting:
            item, ready = waiting.pop()
            if isinstance(item, Value):
                if self._known(item) or item in self.step.inputs or self._counts(item):
                    continue
                item = self._section_of(item) or (self.place[item] if item in self.place else item.node)
            if ready:
                self.actions.append(item)
            elif item not in self.actions and id(item) not in seen:
                seen.add(id(item))
                waiting.append((item, True))
                waiting.extend((v, False) for v in self._needs(item))

    def _needs(self, item: Any) -> list[Value]:
        if isinstance(item, Section):
            return item.seqs
        return list(item.inputs) if isinstance(item, Node) else self._made_of(self.step.carry[item])
