"""One step of a loop as its values and a linear function of tangents, with the constants' tangents tapped in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .algebra import CARRY, INPUTS, PARAMS, depends_on
from .cost import inner_jaxprs
from .graph import Builder, Node, Value, apply, evaluate, in_order, is_literal, new_inputs, number
from .keep import LoopStep, is_small, sole_source, what_to_keep
from .linear import Linear, collapsed
from .many import evaluate_many, one_step_late, repeated
from .schedule import Section
from .taps import apart, is_float, pick, put, summed_in_loop, tangent_for_all, tapped


Arrays = list[Any]

_SUMS = ("add", "add_any", "sub")


@dataclass(frozen=True)
class Body:
    """One loop as a function of arrays: its constants, its state (the carry, then last values) and its sequences."""

    section: Section

    def __call__(
        self, consts: Arrays, state: Arrays, seqs: Arrays, run: Callable[..., list[Any]] = apply
    ) -> tuple[Arrays, Arrays]:
        """`(new state, values wanted at this step)`."""
        s = self.section
        env = dict(zip([*s.consts, *s.carry, *s.seqs], [*consts, *state[: len(s.carry)], *seqs], strict=True))
        found = evaluate([*s.effects, *s.new_carry, *s.lasts, *s.cuts], env, run)[len(s.effects) :]
        n = len(s.new_carry) + len(s.lasts)
        return found[:n], found[n:]

    def joined(self, consts: Arrays, once: Arrays, state: Arrays, rows: jax.Array, seqs: Arrays) -> Any:
        """The same with rows of inputs in the loop's product; `seqs` hold None for what this takes in."""
        joined = self.section.joined
        assert joined is not None
        return self(consts, state, seqs, lambda node, args: joined.run(node, args, rows, once))

    def first_state(self, carry: Arrays) -> Arrays:
        return [*carry, *(jnp.zeros(v.shape, v.aval.dtype) for v in self.section.lasts)]

    def seqs_again(self, seqs: Arrays, sources: list[list[Arrays]]) -> Arrays:
        """The sequences, those that can be made from `sources` so."""
        made: dict[Value, Any] = {}
        for again, given in zip(self.section.again, sources, strict=True):
            made.update(again.values(*given))
        return [made.get(v, x) for v, x in zip(self.section.seqs, seqs, strict=True)]

    def nodes(self) -> list[Node]:
        s = self.section
        return [n for n in in_order(s.roots, lambda v: not s.inside(v)) if n in s.part.nodes]


class TangentStep:
    """`values` is the step with what its derivative needs; `tangents` is the step of the tangent loop."""

    @classmethod
    def of(
        cls, body: Body, primals: tuple[Arrays, Arrays, Arrays], d_consts: list[bool], d_seqs: list[bool]
    ) -> "TangentStep":
        """Made once for each set of moving inputs: JAX asks for the rule of a loop more than once."""
        key = tuple(d_consts), tuple(d_seqs)
        made = body.section.linearised.get(key)
        if made is None:
            made = cls(body, primals, d_consts, d_seqs)
            if not made.holds_tracers:
                body.section.linearised[key] = made
        return made

    def __init__(self, body: Body, primals: tuple[Arrays, Arrays, Arrays], d_consts: list[bool], d_seqs: list[bool]):
        consts, state, seqs = primals
        self.consts = body.section.consts
        self.moving = {v for v, moves in zip(self.consts, d_consts, strict=True) if moves}
        reads = [n for n in body.nodes() if self.moving & {*n.inputs} and any(v.is_float for v in n.outputs)]
        self.summed = [n for n in reads if summed_in_loop(n)]
        self.tapped = [n for n in reads if n not in self.summed]
        self.in_loop = [v for v in self.consts if v in self.moving and any(v in n.inputs for n in self.summed)]
        self.tap_values = [v for n in self.tapped for v in n.outputs if v.is_float]
        self._trace(body, consts, state, [x[0] for x in seqs], d_seqs)
        self._sort(body.section)

    def _trace(self, body: Body, consts: Arrays, state: Arrays, x: Arrays, d_seqs: list[bool]) -> None:
        """Traces the step and its tangents into one graph."""
        counts: tuple[int, ...] = ()
        taps = [jax.ShapeDtypeStruct(v.shape, v.aval.dtype) for v in self.tap_values]
        floats = pick(state, [is_float(s) for s in state])
        moving = [*floats, *pick(x, d_seqs), *taps, *pick(consts, [v in self.in_loop for v in self.consts])]

        def both(consts: Arrays, state: Arrays, x: Arrays, tangents: Arrays) -> Arrays:
            nonlocal counts
            step, start = self._as_function(body, consts, state, x, d_seqs)
            _, out, (new_state, cuts, operands) = jax.jvp(step, start, tangents, has_aux=True)
            counts = len(new_state), len(cuts), len(operands)
            return [*new_state, *cuts, *operands, *out]

        closed = jax.make_jaxpr(both)(consts, state, x, moving)
        self.holds_tracers = any(isinstance(c, jax.core.Tracer) for c in closed.consts)
        build = Builder()
        inputs = new_inputs(closed.in_avals)
        self.const_inputs, self.state_inputs, self.seq_inputs, given = _groups(inputs, map(len, (consts, state, x)))
        self.level = dict.fromkeys(self.const_inputs, PARAMS) | dict.fromkeys(self.state_inputs, CARRY)
        self.level |= dict.fromkeys(self.seq_inputs, INPUTS)
        values = build.graph(closed, inputs, [build.literal(c) for c in closed.consts])
        self.effects = list(build.effects)
        self.new_state, self.cuts, operands, tangents_out = _groups(values, counts)
        rest = iter(operands)
        self.operands = {n: [next(rest) for v in n.inputs if self._varies(v)] for n in self.tapped}
        last = len(given) - len(self.in_loop)
        self.n_state = sum(v.is_float for v in self.new_state)
        self.d_state, self.d_read, self.d_own = given[: self.n_state], given[self.n_state : last], given[last:]
        places = dict(zip(self.consts, self.const_inputs, strict=True))
        matrices = [places[v] for v in body.section.matrices]
        self.turned_inputs = new_inputs(jax.ShapeDtypeStruct(v.shape[::-1], v.aval.dtype) for v in matrices)
        self.level |= dict.fromkeys(self.turned_inputs, PARAMS)
        turned = dict(zip(matrices, self.turned_inputs, strict=True))
        start = partial(Linear, [*self.d_state, *self.d_own], self.d_read, build, turned)
        self.linear, self.d_outputs = collapsed(start, tangents_out)
        split = {n.inputs[0].node: n for n in body.nodes() if n.name == "split"} if self.linear.apart else {}
        self.cut_into = {n: [v.shape[-1] for v in split[n].outputs] for n in self.tapped if n in split}

    def _as_function(
        self, body: Body, consts: Arrays, state: Arrays, x: Arrays, d_seqs: list[bool]
    ) -> tuple[Callable[..., Any], Arrays]:
        """The step as a function of what has a tangent: floats of the carry, sequences, taps, constants read in the
        loop; and where these stand."""
        own = dict(zip(self.consts, consts, strict=True))
        floats = [is_float(s) for s in state]
        taps = [jnp.zeros(v.shape, v.aval.dtype) for v in self.tap_values]

        def step(*start: jax.Array) -> Any:
            rest = iter(start)
            here = put(state, floats, rest), put(x, d_seqs, rest)
            tap_of = {v: next(rest) for v in self.tap_values}
            moved = dict(zip(self.in_loop, rest, strict=True))
            operands: dict[Node, Arrays] = {}

            def run(node: Node, args: Arrays) -> Arrays:
                if node in self.summed:
                    args = [moved.get(v, a) for v, a in zip(node.inputs, args, strict=True)]
                if node in self.tapped:
                    operands[node] = [a for v, a in zip(node.inputs, args, strict=True) if self._varies(v)]
                out = apart(node, args) if any(inner_jaxprs(node.params)) else apply(node, args)
                return [tapped(o, tap_of[v]) if v in tap_of else o for v, o in zip(node.outputs, out, strict=True)]

            new_state, cuts = body(consts, *here, run)
            of_taps = [a for node in self.tapped for a in operands[node]]
            return [leaf for leaf in [*new_state, *cuts] if is_float(leaf)], (new_state, cuts, of_taps)

        return step, [*pick(state, floats), *pick(x, d_seqs), *taps, *(own[v] for v in self.in_loop)]

    def _varies(self, value: Value) -> bool:
        return value not in self.consts and not is_literal(value)

    def _sort(self, section: Section) -> None:
        """What the tangent loop reads at each step, what is summed up before it, and what the forward loop keeps."""
        linear = self.linear.linear
        self.sums, read = self.linear.read_for(self.d_outputs)
        self.per_step = [v for v in read if depends_on(v, self.level) > PARAMS]
        at_once: dict[Value, None] = {}
        for node in in_order(self.sums, lambda v: v not in linear):
            at_once.update((v, None) for v in node.inputs if v not in linear and not is_literal(v))
        for node, operands in self.operands.items():
            if node.name not in _SUMS:
                at_once.update((v, None) for v in operands if not is_literal(v))
        needed = dict.fromkeys(read) | at_once
        for v in [*needed, *self.new_state]:
            depends_on(v, self.level)
        made = {v for again in section.again for v in again.outputs}
        at_hand = [v for v, outer in zip(self.seq_inputs, section.seqs, strict=True) if outer in made]
        before = dict(zip(self.state_inputs, self.new_state, strict=False))
        at_hand += self.cuts
        step = LoopStep(self.level, self.seq_inputs, before, at_hand, is_small(section.part.nodes))
        self.kept, self.shifted = what_to_keep(needed, step)
        there = {*self.seq_inputs, *self.cuts, *self.kept, *self.shifted}
        self.made_of = {v: u for v in self.per_step if (u := sole_source(v, there, self.level)) is not None}
        self.per_step = list(dict.fromkeys(self.made_of.get(v, v) for v in self.per_step))
        self.needed = [v for v in (*needed, *self.per_step) if v not in self.made_of or v in at_once]

    def values(self, consts: Arrays, state: Arrays, x: Arrays) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        """One step: `(new state, (values wanted, values kept for the derivative))`."""
        env = dict(zip([*self.const_inputs, *self.state_inputs, *self.seq_inputs], [*consts, *state, *x], strict=True))
        roots = [*self.effects, *self.new_state, *self.cuts, *self.kept]
        new_state, cuts, values = _groups(evaluate(roots, env)[len(self.effects) :], (len(state), len(self.cuts)))
        return new_state, (cuts, values)

    def known(
        self, reverse: bool, consts: Arrays, turned: Arrays, state: Arrays, seqs: Arrays, cuts: Arrays, values: Arrays
    ) -> tuple[dict[Value, Any], dict[Value, Any]]:
        """`(the same at each step, at every step)`: all that the derivative reads."""
        fixed = dict(zip([*self.const_inputs, *self.turned_inputs], [*consts, *turned], strict=True))
        over_time = dict(zip([*self.seq_inputs, *self.cuts, *self.kept], [*seqs, *cuts, *values], strict=True))
        first = dict(zip(self.state_inputs, state, strict=True))
        for old, new in self.shifted.items():
            over_time[old] = one_step_late(first[old], over_time[new], reverse)
        evaluate_many(self.needed, fixed, over_time, self.level)
        return fixed, over_time

    def taps(self, d_consts: list[Any], fixed: dict[Value, Any], over_time: dict[Value, Any], n_steps: int) -> Arrays:
        """The tangents that each tap adds, for all steps."""
        tangents = dict(zip(self.consts, d_consts, strict=True))
        places = dict(zip(self.consts, self.const_inputs, strict=True))
        found: Arrays = []
        for node in self.tapped:
            rest = iter(self.operands[node])
            values = [v if is_literal(v) else places[v] if v in places else next(rest) for v in node.inputs]
            moving = {i: tangents[v] for i, v in enumerate(node.inputs) if v in self.moving}
            if node.name in _SUMS and len(moving) == 1:
                ((i, d),) = moving.items()
                d = -d if node.name == "sub" and i == 1 else d
                found.append(repeated(d, n_steps, node.outputs[0].shape, self.cut_into.get(node, ())))
                continue
            args = [number(v) if is_literal(v) else fixed[v] if v in fixed else over_time[v] for v in values]
            found.extend(tangent_for_all(node, args, [v in over_time for v in values], moving))
        return found

    def sum_early(self, d_seqs: Arrays, taps: Arrays, fixed: dict[Value, Any], over_time: dict[Value, Any]) -> Arrays:
        """The sequences of tangents that the tangent loop reads."""
        env = dict(over_time) | dict(zip(self.d_read, [*d_seqs, *taps], strict=True))
        evaluate_many(self.sums, dict(fixed), env, dict(self.level) | dict.fromkeys(self.d_read, INPUTS))
        return [env[v] for v in self.sums]

    def tangents(
        self, fixed: dict[Value, Any], d_consts: list[Any], d_state: Arrays, per_step: Arrays, sums: Arrays
    ) -> tuple[Arrays, Arrays]:
        """One step of the tangent loop."""
        by_value = dict(zip(self.consts, d_consts, strict=True))
        env = dict(fixed) | dict(zip([*self.per_step, *self.sums], [*per_step, *sums], strict=True))
        env.update(zip([*self.d_state, *self.d_own], [*d_state, *(by_value[v] for v in self.in_loop)], strict=True))
        found = evaluate(self.d_outputs, env)
        return found[: self.n_state], found[self.n_state :]


def _groups(values: Sequence[Any], counts: Iterable[int]) -> Iterator[list[Any]]:
    """Slices of these lengths, and the rest."""
    ends = [0, *(int(n) for n in np.cumsum(list(counts))), None]
    return iter([list(values[a:b]) for a, b in zip(ends, ends[1:], strict=False)])
