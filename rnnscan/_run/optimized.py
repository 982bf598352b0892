"""Takes any cell's step apart and runs it with as little as possible left in the loop."""

from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._jaxpr.algebra import CHANGE_SHAPE, ELEMENTWISE, PARAMS, in_one_loop, products, simplify
from .._jaxpr.depend import Step, arrange, carry_kinds, circles
from .._jaxpr.graph import Builder, Node, apply, in_order, is_literal, number
from .._jaxpr.schedule import Schedule, schedule
from .._jaxpr.trace import Traced
from .._jaxpr.versions import match_varying
from .._loop import Loop
from .distributed import Distributed, Valued
from .pieces import piece_length, valued_length
from .sequential import sequential


def optimized(loop: Loop, unroll: int | bool = 1, wanted: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Runs a loop with the rewrites of these names; one that they cannot improve runs as it is."""
    traced, state, inputs, made = prepare(loop, unroll, wanted)
    if made is None:
        return sequential(loop.wrap(step=traced.again, state=state), unroll)
    params = [*traced.closed.consts, *map(jnp.asarray, jax.tree.leaves(loop.params))]
    carry, ys = made(params, jax.tree.leaves(state), jax.tree.leaves(inputs))
    return loop.finish(jax.tree.unflatten(traced.carry_tree, carry), jax.tree.unflatten(traced.output_tree, ys))


def prepare(loop: Loop, unroll: int | bool, wanted: tuple[str, ...]) -> tuple[Traced, Any, Any, Distributed | None]:
    """The step traced, what it starts from and reads, and how it runs taken apart; None where that gains nothing."""
    t = jnp.arange(loop.n_steps, dtype=jnp.int32) if loop.uses_t else None
    inputs = (loop.inputs, t)

    def first(state: Any, inputs: Any) -> Any:
        return loop.step(loop.params, state, *_tree.at_time(inputs, 0))

    state = match_varying(lambda state, inputs: first(state, inputs)[0], loop.state, inputs)
    traced = Traced.of(loop, state, inputs)
    taken = take_apart(traced, wanted)
    if taken is None:
        return traced, state, inputs, None
    rule, n = "weight_grads" in wanted, loop.n_steps
    cut, piece, valued = taken, piece_length(taken, n), valued_length(taken, n)
    if piece < n and rule:
        taken = take_apart(traced, wanted, whole=True) or taken
        piece = piece_length(taken, n)
    made = Distributed(taken, n, loop.reverse, unroll, rule, piece, Valued(cut, valued))
    return traced, state, inputs, made


def take_apart(traced: Traced, wanted: tuple[str, ...], whole: bool = False) -> Schedule | None:
    """The parts of a step in their order; None where no rewrite would gain anything. Products of inputs stay `whole`
    and are cut by the loop, or are computed part by part."""
    build = Builder()
    step = traced.graph(build)
    _, level = carry_kinds(step, {})
    if not any(products(node) and level[node.done] > PARAMS for node in in_order(step.roots)):
        return None
    hoist = "hoist" in wanted
    several = circles(step) if "sink" in wanted else None
    loops = in_one_loop if several is None or must_stay(step, level, hoist) else several
    step = step.with_roots(simplify(step.roots, level, build, "split" in wanted, hoist, loops, whole))
    _, level = carry_kinds(step, {})
    arrangement = arrange(step, must_stay(step, level, hoist), "sink" in wanted)
    return schedule(arrangement, "weight_grads" in wanted, whole)


def must_stay(step: Step, level: dict[Any, int], hoist: bool) -> dict[Node, str]:
    """The operations that cannot leave the loop, and why."""
    found = {}
    for node in in_order(step.roots):
        if node.primitive is None:
            continue
        reason = _reason(node, level)
        if reason is None and not hoist:
            reason = "`hoist` is not among the rewrites wanted"
        if reason is not None:
            found[node] = reason
    return found


def _reason(node: Node, level: dict[Any, int]) -> str | None:
    if node.effects:
        return "it has an effect"
    if level[node.done] == PARAMS or node.name in ELEMENTWISE | CHANGE_SHAPE or products(node):
        return None
    if node.name == "while":
        return "it is a loop of unknown length"
    if node.name == "cond" and level[node.inputs[0]] > PARAMS:
        return "its branch is chosen anew at each step"
    return None if _can_map(node, level) else "it cannot run for many steps at once"


def _can_map(node: Node, level: dict[Any, int]) -> bool:
    varying = [v for v in node.inputs if not is_literal(v) and level[v] > PARAMS]

    def run(*args: Any) -> Any:
        given = dict(zip(varying, args, strict=True))
        fixed = [
            jnp.zeros(v.shape, v.aval.dtype) if v not in given and not is_literal(v) else None for v in node.inputs
        ]
        return apply(
            node, [given.get(v, number(v) if f is None else f) for v, f in zip(node.inputs, fixed, strict=True)]
        )

    try:
        jax.eval_shape(jax.vmap(run), *(jax.ShapeDtypeStruct((2, *v.shape), v.aval.dtype) for v in varying))
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True
