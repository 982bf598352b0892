"""Gradients of params as products over time and batch after the loop, not as sums carried through it.

`jax.grad` of `lax.scan` adds a term of the size of the weights to the backward carry at every step. Here the loop

    s_t, y_t = f(w, s_{t-1}, x_t)

has a derivative rule of its own. Every operation of f that reads w, say `a = h w`, gets a *tap*: a tangent that is
added to its result. The tap's tangents `da_t = h_{t-1} dw` need no loop: they are one product over all steps. With
them as sequences the tangent loop

    ds_t = J_t ds_{t-1} + K_t dx_t + sum of the taps' da_t

is linear in what it carries and reads, and JAX transposes it into a backward loop that carries the cotangent of s and
nothing else; the transpose of `h_{t-1} dw` for all t is one product, the gradient. A rule for tangents (`custom_jvp`)
rather than for cotangents keeps forward mode, `vmap` and higher derivatives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._jaxpr.algebra import CARRY, INPUTS, PARAMS, depends_on
from .._jaxpr.graph import Builder, Node, Value, apply, evaluate, in_order, is_literal, new_inputs, number
from .._jaxpr.linear import collapse
from .._jaxpr.many import apply_many, evaluate_many
from .._jaxpr.schedule import Section


Arrays = list[jax.Array]


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

    def first_state(self, carry: Arrays) -> Arrays:
        return [*carry, *(jnp.zeros(v.shape, v.aval.dtype) for v in self.section.lasts)]


def plain_loop(body: Body, consts: Arrays, state: Arrays, seqs: Arrays, **how: Any) -> tuple[Arrays, Arrays]:
    """The loop with `lax.scan`, and its derivatives as JAX makes them."""
    return lax.scan(lambda state, x: body(consts, state, x), state, seqs, **how)


def loop_with_rule(body: Body, consts: Arrays, state: Arrays, seqs: Arrays, **how: Any) -> tuple[Arrays, Arrays]:
    """The same values as `plain_loop`, and the same derivatives, with those of the constants taken out of the loop."""

    @jax.custom_jvp
    def loop(consts: Arrays, state: Arrays, seqs: Arrays) -> tuple[Arrays, Arrays]:
        return plain_loop(body, consts, state, seqs, **how)

    loop.defjvp(partial(_rule, body, how), symbolic_zeros=True)
    return loop(consts, state, seqs)


def _rule(body: Body, how: dict[str, Any], primals: Any, tangents: Any) -> Any:
    consts, state, seqs = primals
    dconsts, dstate, dseqs = ([_tangent(d) for d in part] for part in tangents)
    x = [leaf[0] for leaf in seqs]
    step = _Linear(body, consts, state, x, [d is not None for d in dconsts], [d is not None for d in dseqs])

    def forward(state: Arrays, x: Arrays) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        return step.values(consts, state, x)

    final, (cuts, stored) = lax.scan(forward, state, seqs, **how)
    known = step.known(consts, seqs, stored)
    taps = step.taps(dconsts, known, how["length"])
    start = [_or_zeros(d, s) for d, s in zip(dstate, state, strict=True) if _is_float(s)]
    moving = [d for d in dseqs if d is not None]
    dfinal, dcuts = lax.scan(partial(step.tangents, known, dconsts), start, (known.over_time, moving, taps), **how)
    return (final, cuts), (_with_float0(dfinal, final), _with_float0(dcuts, cuts))


def _tangent(d: Any) -> Any:
    """A tangent, or None for one that is zero by its structure or of a type without derivatives."""
    return None if isinstance(d, SymbolicZero) or d.dtype == jax.dtypes.float0 else d


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.inexact))


def _or_zeros(tangent: Any, primal: jax.Array) -> jax.Array:
    return jnp.zeros_like(primal) if tangent is None else tangent


def _with_float0(tangents: Arrays, primals: Arrays) -> list[Any]:
    rest = iter(tangents)
    return [next(rest) if _is_float(p) else _no_tangent(p) for p in primals]


def _no_tangent(primal: jax.Array) -> Any:
    return np.zeros(primal.shape, jax.dtypes.float0)


@jax.custom_jvp
def _tapped(out: jax.Array, tap: jax.Array) -> jax.Array:
    """`out`, with the tangent of `tap` added to its own."""
    del tap
    return out


@_tapped.defjvp
def _tapped_rule(primals: Any, tangents: Any) -> Any:
    (out, _), (d_out, d_tap) = primals, tangents
    return out, d_out + d_tap


_IN_LOOP = ("cond", "while", "custom_vjp_call", "custom_vjp_call_jaxpr")
"""What cannot be differentiated for many steps at once: under `vmap` both branches of a `cond` would run, and a
function with a rule for cotangents has none for tangents. Their weights are summed up in the loop."""


@dataclass(frozen=True)
class Known:
    """What the tangent loop multiplies with: arrays that all steps share, and one for each step."""

    fixed: dict[Value, Any]
    over_time: list[Any]  # of `_Linear.per_step`
    operands: dict[Value, Any]


class _Linear:
    """One step taken apart into its values and a linear function of tangents."""

    def __init__(self, body: Body, consts: Arrays, state: Arrays, x: Arrays, d_consts: list[bool], d_seqs: list[bool]):
        self._find_taps(body, d_consts)
        self._trace(body, consts, state, x, d_seqs)
        self._sort_known()

    def _find_taps(self, body: Body, d_consts: list[bool]) -> None:
        section = body.section
        moving = [v for v, moves in zip(section.consts, d_consts, strict=True) if moves]
        self.consts = section.consts
        nodes = [n for n in in_order(section.roots, lambda v: not section.inside(v)) if n in section.part.nodes]
        reads = lambda n: any(v in moving for v in n.inputs) and any(v.is_float for v in n.outputs)
        self.tapped = [n for n in nodes if reads(n) and n.name not in _IN_LOOP]
        self.summed = [n for n in nodes if reads(n) and n.name in _IN_LOOP]
        self.moving = moving
        self.in_loop = [v for v in moving if any(v in n.inputs for n in self.summed)]

    def _trace(self, body: Body, consts: Arrays, state: Arrays, x: Arrays, d_seqs: list[bool]) -> None:
        moves = [*map(_is_float, state)], d_seqs
        linear: list[Any] = []

        def at(consts: Arrays, state: Arrays, x: Arrays) -> Any:
            kept: dict[Node, list[Any]] = {}

            def keep(node: Node, args: list[Any]) -> list[Any]:
                kept[node] = apply(node, args)
                return kept[node]

            body(consts, state, x, keep)
            taps = [out for n in self.tapped for out, v in zip(kept[n], n.outputs, strict=True) if v.is_float]
            by_value = dict(zip(self.consts, consts, strict=True))
            start = [*_pick(state, moves[0]), *_pick(x, moves[1]), *taps, *(by_value[v] for v in self.in_loop)]

            def step(*d: jax.Array) -> Any:
                rest = iter(d)
                here = _put(state, moves[0], rest), _put(x, moves[1], rest)
                taps = {v: next(rest) for n in self.tapped for v in n.outputs if v.is_float}
                own = dict(zip(self.in_loop, rest, strict=True))
                operands: list[Any] = []

                def run(node: Node, args: list[Any]) -> list[Any]:
                    if node in self.summed:
                        args = [own.get(v, a) for v, a in zip(node.inputs, args, strict=True)]
                    if node in self.tapped:
                        operands.extend(a for v, a in zip(node.inputs, args, strict=True) if self._varies(v))
                    outs = apply(node, args)
                    return [_tapped(o, taps[v]) if v in taps else o for v, o in zip(node.outputs, outs, strict=True)]

                new_state, cuts = body(consts, *here, run)
                return [leaf for leaf in [*new_state, *cuts] if _is_float(leaf)], (new_state, cuts, operands)

            _, function, (new_state, cuts, operands) = jax.linearize(step, *start, has_aux=True)
            linear.append(jax.make_jaxpr(function)(*start))
            self.counts = (len(new_state), len(cuts), len(operands))
            return [*new_state, *cuts, *operands, *linear[0].consts]

        closed = jax.make_jaxpr(at)(consts, state, x)
        build = self.build = Builder()
        self.inputs = new_inputs(closed.in_avals)
        n, m = len(consts), len(consts) + len(state)
        self.level = dict.fromkeys(self.inputs[:n], PARAMS) | dict.fromkeys(self.inputs[n:m], CARRY)
        self.level |= dict.fromkeys(self.inputs[m:], INPUTS)
        values = build.graph(closed, self.inputs, [build.literal(c) for c in closed.consts])
        self.effects = list(build.effects)
        ends = np.cumsum(self.counts)
        self.new_state, self.cuts, self.operands, residuals = (
            values[a:b] for a, b in zip((0, *ends), (*ends, None), strict=True)
        )
        self.tangent_inputs = new_inputs(linear[0].in_avals)
        outputs = build.graph(linear[0], self.tangent_inputs, residuals)
        self.d_outputs = collapse(outputs, self.tangent_inputs, build)
        self.n_state = sum(v.is_float for v in self.new_state)

    def _varies(self, value: Value) -> bool:
        return value not in self.consts and not is_literal(value)

    def _sort_known(self) -> None:
        """What the tangent loop reads: `fixed` for all steps, `early` from the sequences, `stored` by the loop."""
        linear = set(self.tangent_inputs)
        needed: dict[Value, None] = {}
        for node in in_order(self.d_outputs, lambda v: v in linear):
            if any(v in linear for v in node.inputs):
                linear.update(node.outputs)
                needed.update(dict.fromkeys(v for v in node.inputs if v not in linear and not is_literal(v)))
        needed.update(dict.fromkeys(v for v in self.d_outputs if v not in linear and not is_literal(v)))
        by_level = lambda values, level: [v for v in values if depends_on(v, self.level) == level]
        self.fixed, self.early = by_level(needed, PARAMS), by_level(needed, INPUTS)
        self.per_step = [*self.early, *by_level(needed, CARRY)]
        needed.update(dict.fromkeys(v for v in self._operands_needed() if not is_literal(v)))
        self.all_early, self.stored = by_level(needed, INPUTS), by_level(needed, CARRY)
        self.fixed = by_level(needed, PARAMS)

    def _operands_needed(self) -> list[Value]:
        rest = iter(self.operands)
        found = []
        for node in self.tapped:
            own = [next(rest) for v in node.inputs if self._varies(v)]
            if node.name not in _SUMS:
                found.extend(own)
        return found

    def values(self, consts: Arrays, state: Arrays, x: Arrays) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        """One step: `(new state, (values wanted, what the tangent loop and the taps will read))`."""
        env = dict(zip(self.inputs, [*consts, *state, *x], strict=True))
        roots = [*self.effects, *self.new_state, *self.cuts, *self.stored]
        found = evaluate(roots, env)[len(self.effects) :]
        n, m = len(self.new_state), len(self.new_state) + len(self.cuts)
        return found[:n], (found[n:m], found[m:])

    def known(self, consts: Arrays, seqs: Arrays, stored: Arrays) -> Known:
        n, m = len(consts), len(self.inputs) - len(seqs)
        fixed = dict(zip(self.inputs[:n], consts, strict=True))
        evaluate(self.fixed, fixed)
        over_time = dict(zip(self.inputs[m:], seqs, strict=True))
        evaluate_many(self.all_early, fixed, over_time, self.level)
        over_time.update(zip(self.stored, stored, strict=True))
        return Known(fixed, [over_time[v] for v in self.per_step], over_time)

    def taps(self, d_consts: list[Any], known: Known, n_steps: int) -> Arrays:
        """The tangents that each tap adds, for all steps."""
        tangents = dict(zip(self.consts, d_consts, strict=True))
        values = dict(zip(self.consts, self.inputs, strict=False))
        rest = iter(self.operands)
        found: Arrays = []
        for node in self.tapped:
            names = [values[v] if v in values else v if is_literal(v) else next(rest) for v in node.inputs]
            found.extend(self._tap(node, names, tangents, known, n_steps))
        return found

    def _tap(self, node: Node, names: list[Value], tangents: dict[Value, Any], known: Known, n_steps: int) -> Arrays:
        moving = [i for i, v in enumerate(node.inputs) if v in self.moving]
        if node.name in _SUMS:
            (i,) = moving
            d = tangents[node.inputs[i]]
            d = -d if node.name == "sub" and i == 1 else d
            return [jnp.broadcast_to(d, (n_steps, *node.outputs[0].shape))]
        over_time = [v in known.operands for v in names]
        args = [known.operands[v] if v in known.operands else _at(v, known) for v in names]
        if node.name in _LINEAR and len(moving) == 1:
            args[moving[0]] = tangents[node.inputs[moving[0]]]
            return apply_many(node, args, over_time)
        which = [i for i, varies in enumerate(over_time) if varies]

        def one(*varying: Any) -> list[Any]:
            given = list(args)
            for i, value in zip(which, varying, strict=True):
                given[i] = value

            def function(*own: Any) -> list[Any]:
                for i, value in zip(moving, own, strict=True):
                    given[i] = value
                return [o for o in apply(node, given) if _is_float(o)]

            d = tuple(tangents[node.inputs[i]] for i in moving)
            return jax.jvp(function, tuple(given[i] for i in moving), d)[1]

        return jax.vmap(one)(*(args[i] for i in which))

    def tangents(self, known: Known, d_consts: list[Any], d_state: Arrays, x: Any) -> tuple[Arrays, Arrays]:
        """One step of the tangent loop."""
        over_time, moving, taps = x
        by_value = dict(zip(self.consts, d_consts, strict=True))
        env = dict(known.fixed) | dict(zip(self.per_step, over_time, strict=True))
        own = [by_value[v] for v in self.in_loop]
        env.update(zip(self.tangent_inputs, [*d_state, *moving, *taps, *own], strict=True))
        found = evaluate(self.d_outputs, env)
        return found[: self.n_state], found[self.n_state :]


_SUMS = ("add", "add_any", "sub")
_LINEAR = ("dot_general", "mul", "conv_general_dilated")


def _at(value: Value, known: Known) -> Any:
    return number(value) if is_literal(value) else known.fixed[value]


def _pick(values: Sequence[Any], which: Sequence[bool]) -> list[Any]:
    return [v for v, chosen in zip(values, which, strict=True) if chosen]


def _put(values: Sequence[Any], which: Sequence[bool], new: Any) -> list[Any]:
    return [next(new) if chosen else v for v, chosen in zip(values, which, strict=True)]
