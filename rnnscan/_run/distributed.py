"""Runs a step that was taken apart: loops step by step, all else for many steps at once, in pieces of time.

The values at the edges of the loops take memory for all steps of a piece. A piece as long as the sequence would take
more than the plain loop does, and go through main memory instead of the cache. So pieces are short, one `lax.scan`
goes over them, and JAX differentiates it like any other: its backward loop sums gradients of params once a piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from .._jaxpr.again import Again
from .._jaxpr.algebra import PARAMS
from .._jaxpr.depend import Counter
from .._jaxpr.graph import Node, Value, evaluate, in_order, is_literal, number
from .._jaxpr.joined import Joined
from .._jaxpr.many import one_step_late, product_in_parts, run_many
from .._jaxpr.parts import InParts
from .._jaxpr.schedule import Schedule, Section
from .._jaxpr.tangent import Body
from .._jaxpr.versions import vary_alike
from .._rewrite.weight_grads import Given, loop_with_rule, plain_loop
from .values import computed_by, loop_into


Arrays = list[Any]


class _Shared(NamedTuple):
    """What depends on params alone, made before the pieces."""

    fixed: dict[Value, Any]
    turned: dict[Value, Any]  # matrices' transposes
    columns: dict[Node, list[tuple[Any, Any]]]  # matrices and biases cut into columns
    once: dict[Joined, Arrays]  # matrices for products with the carry and inputs in one


class Valued(NamedTuple):
    """How a run goes of which no derivative is asked for."""

    schedule: Schedule
    piece: int  # steps


@dataclass(frozen=True)
class Distributed:
    """A schedule with how to run it."""

    schedule: Schedule
    n_steps: int
    reverse: bool
    unroll: int | bool
    rule: bool  # whether the loops have the derivative rule of `weight_grads`
    piece: int  # steps
    without: Valued  # what runs instead where no derivative is asked for
    valued: bool = False  # whether none is

    def __call__(self, params: Arrays, carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        """`(carry, outputs over time)`; time is the first axis of `inputs`."""
        schedule, piece = self.without
        if self.rule and (self.piece < self.n_steps or any(s.joined for s in schedule.sections)):
            valued = replace(self, schedule=schedule, piece=piece, valued=True)
            return computed_by(valued._run, self._run)(params, carry, inputs)
        return self._run(params, carry, inputs)

    def _run(self, params: Arrays, carry: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        shared = self._once(params, carry)
        if self.piece == self.n_steps:
            return self._piece(shared, carry, inputs, self.n_steps)
        n, k = self.n_steps // self.piece, self.piece
        left = self.n_steps - n * k
        placed = self._placed()
        zeros = [jnp.zeros((self.n_steps, *v.shape), v.aval.dtype) for v in placed]
        state = carry, [vary_alike([x, *carry, *inputs, *params])[0] for x in zeros]

        def run(state: tuple[Arrays, Arrays], inputs: Arrays, start: Any, length: int) -> Any:
            carry, whole = state
            into = dict(zip(placed, whole, strict=True))
            carry, outputs = self._piece(shared, carry, inputs, length, into, start)
            return (carry, list(into.values())), outputs

        whole, rest = self._split(inputs, n * k)
        pieces = [x.reshape(n, k, *x.shape[1:]) for x in whole]
        starts = jnp.arange(n, dtype=jnp.int32) * k + left * self.reverse
        state, outputs = lax.scan(lambda state, x: run(state, *x, k), state, (pieces, starts), n, self.reverse)
        outputs = [None if y is None else y.reshape(n * k, *y.shape[2:]) for y in outputs]
        if left:
            state, more = run(state, rest, 0 if self.reverse else n * k, left)
            pairs = [(b, a) if self.reverse else (a, b) for a, b in zip(outputs, more, strict=True)]
            outputs = [None if pair[0] is None else jnp.concatenate(pair) for pair in pairs]
        carry, found = state
        into = dict(zip(placed, found, strict=True))
        return carry, [into.get(v, y) for v, y in zip(self.schedule.step.outputs, outputs, strict=True)]

    def _once(self, params: Arrays, carry: Arrays) -> _Shared:
        """What is made before the pieces, of params and of leaves of the carry that never change."""
        s = self.schedule
        fixed = dict(zip(s.step.params, params, strict=True))
        fixed.update((v, c) for v, c, kind in zip(s.step.carry, carry, s.kinds, strict=True) if kind == "constant")
        evaluate(self._shared(), fixed)
        turned = {v: fixed[v].T for section in s.sections for v in section.matrices if v in fixed}
        in_parts = [a for a in s.actions if isinstance(a, InParts)]
        columns = {a.product: _columns(a, fixed) for a in in_parts if a.product.inputs[1] in fixed}
        once = {j: j.once(fixed) for j in self._joins() if all(v in fixed for v in j.constants)}
        return _Shared(fixed, turned, columns, once)

    def _placed(self) -> list[Value]:
        """The outputs that their loops write to their places in the whole, past the pieces, which would be one way
        through memory more: those that nothing else reads, where no derivative is asked for."""
        if not self.valued:
            return []
        s = self.schedule
        at_end = [s.step.new_carry[i] for i in s.alone]
        read = {*at_end, *(v for node in in_order(at_end) for v in node.inputs)}
        for action in s.actions:
            read.update(s.step.new_carry[action : action + 1] if isinstance(action, int) else _reads(action))
        made = {v for section in s.sections for v in section.cuts}
        return [v for v in dict.fromkeys(s.step.outputs) if v in made and v not in read]

    def _joins(self) -> list[Joined]:
        """The products that take inputs in."""
        return [s.joined for s in self.schedule.sections if s.joined is not None and self.valued]

    def _split(self, inputs: Arrays, n: int) -> tuple[Arrays, Arrays]:
        """The first `n` steps in the order of the loop, and the rest."""
        if n == self.n_steps:
            return inputs, []
        if self.reverse:
            return [x[-n:] for x in inputs], [x[:-n] for x in inputs]
        return [x[:n] for x in inputs], [x[n:] for x in inputs]

    def _shared(self) -> list[Value]:
        """What depends on params alone and something in a piece reads."""
        s = self.schedule
        found: dict[Value, None] = {}
        for action in s.actions:
            if not isinstance(action, int):
                found.update(dict.fromkeys(action.consts if isinstance(action, Section) else action.inputs))
        for node in in_order([s.step.new_carry[i] for i in s.alone], lambda v: s.level[v] == PARAMS):
            found.update(dict.fromkeys(node.inputs))
        found.update(dict.fromkeys([*s.step.outputs, *s.step.new_carry]))
        return [v for v in found if not is_literal(v) and s.level[v] == PARAMS and v not in s.narrow]

    def _piece(
        self, shared: _Shared, carry: Arrays, inputs: Arrays, length: int, into: dict[Value, Any] | None = None,
        start: Any = 0,
    ) -> tuple[Arrays, Arrays]:  # fmt: skip
        """`(carry, outputs)` of some steps; the outputs of `into` are None, and written to it from step `start` on."""
        s, into = self.schedule, {} if into is None else into
        fixed = dict(shared.fixed)
        evaluate(s.narrow, fixed)
        over_time = dict(zip(s.step.inputs, inputs, strict=True))
        last: dict[Value, Any] = {}
        new_carry = list(carry)
        for i, kind in enumerate(s.kinds):
            if isinstance(kind, Counter):
                over_time[s.step.carry[i]], new_carry[i] = self._count(carry[i], kind.by, length)
        inside = [joined.inputs for joined in self._joins()]
        for action in s.actions:
            if action in inside:
                continue
            if isinstance(action, Section):
                new = self._loop(action, shared, fixed, over_time, last, carry, length, into, start)
                for i, leaf in zip(action.part.leaves, new, strict=True):
                    new_carry[i] = leaf
            elif isinstance(action, int):
                values = self._spread(s.step.new_carry[action], fixed, over_time, length)
                over_time[s.step.carry[action]] = one_step_late(carry[action], values, self.reverse)
            elif isinstance(action, InParts):
                (rows, matrix), bias = action.product.inputs, action.bias
                columns = shared.columns.get(action.product) or _columns(action, fixed)
                given = over_time[rows], fixed[matrix], None if bias is None else fixed[bias]
                parts = product_in_parts(action.product, *given, columns, action.apart)
                over_time.update(zip(action.outputs, parts, strict=True))
            elif isinstance(action, Again):
                action.run(fixed, over_time)
            else:
                run_many(action, fixed, over_time)
        self._at_end(fixed, over_time, last, carry, new_carry)
        outputs = [None if v in into else self._spread(v, fixed, over_time, length) for v in s.step.outputs]
        return new_carry, outputs

    def _loop(
        self, section: Section, shared: _Shared, fixed: dict[Value, Any], over_time: dict[Value, Any],
        last: dict[Value, Any], carry: Arrays, length: int, into: dict[Value, Any], first: Any,
    ) -> Arrays:  # fmt: skip
        """Runs one loop; its values for every step go to `over_time`, those of the last step to `last`."""
        body = Body(section)
        consts, seqs = [fixed[v] for v in section.consts], [over_time.get(v) for v in section.seqs]
        state = body.first_state([carry[i] for i in section.part.leaves])
        how: dict[str, Any] = {"length": length, "reverse": self.reverse, "unroll": self.unroll}
        joined = section.joined
        if self.valued:
            step: Any = body
            if joined is not None:
                once, rows = shared.once.get(joined) or joined.once(fixed), over_time[joined.inputs.product.inputs[0]]
                seqs = [rows, *seqs]
                step = lambda consts, state, x: body.joined(consts, once, state, x[0], x[1:])
            places = {i: into[v] for i, v in enumerate(section.cuts) if v in into}
            state, cuts, places = loop_into(step, consts, state, seqs, places, first, **how)
            into.update((section.cuts[i], whole) for i, whole in places.items())
        elif not self.rule:
            state, cuts = plain_loop(body, consts, state, seqs, **how)
        else:
            transposes = [shared.turned[v] if v in shared.turned else fixed[v].T for v in section.matrices]
            sources = [a.arguments(fixed, over_time) for a in section.again]
            state, cuts = loop_with_rule(body, Given(consts, state, seqs, transposes, sources), **how)
        over_time.update((v, x) for v, x in zip(section.cuts, cuts, strict=True) if x is not None)
        last.update(zip([*section.new_carry, *section.lasts], state, strict=True))
        return state[: len(section.carry)]

    def _at_end(
        self, fixed: dict[Value, Any], over_time: dict[Value, Any], last: dict[Value, Any], carry: Arrays,
        new_carry: Arrays,
    ) -> None:  # fmt: skip
        """Fills in the leaves of the carry that no loop carries, from the last step's values."""
        s = self.schedule
        if not s.alone:
            return
        index = 0 if self.reverse else -1
        env = dict(fixed) | {v: x[index] for v, x in over_time.items()} | last
        for i, value in zip(s.alone, evaluate([s.step.new_carry[i] for i in s.alone], env), strict=True):
            new_carry[i] = value

    def _count(self, first: Any, by: Any, length: int) -> tuple[Any, Any]:
        """A counter's values before each step, and after the last one."""
        t = jnp.arange(length, dtype=first.dtype)
        by = jnp.asarray(by, first.dtype)
        counted = first + by * (t[::-1] if self.reverse else t).reshape(-1, *(1,) * first.ndim)
        return counted, first + by * jnp.asarray(length, first.dtype)

    def _spread(self, value: Value, fixed: dict[Value, Any], over_time: dict[Value, Any], length: int) -> Any:
        if value in over_time:
            return over_time[value]
        one = number(value) if is_literal(value) else fixed[value]
        return jnp.broadcast_to(one, (length, *value.shape))


def _reads(action: Any) -> Sequence[Value]:
    return action.seqs if isinstance(action, Section) else action.inputs


def _columns(action: InParts, fixed: dict[Value, Any]) -> list[tuple[Any, Any]]:
    """The matrix and the bias of a product, cut like its result."""
    matrix, bias = fixed[action.product.inputs[1]], None if action.bias is None else fixed[action.bias]
    return [(matrix[:, a:b], None if bias is None else bias[..., a:b]) for a, b in action.columns]
