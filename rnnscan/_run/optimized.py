"""Takes any cell's step apart and runs it with as little as possible left in the loop."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._jaxpr.again import Again
from .._jaxpr.algebra import ELEMENTWISE, PARAMS, products, simplify
from .._jaxpr.depend import Step, arrange, carry_kinds
from .._jaxpr.graph import Builder, Node, Value, apply, in_order, is_literal, number
from .._jaxpr.parts import InParts
from .._jaxpr.schedule import CHEAP, Schedule, schedule
from .._jaxpr.trace import Traced
from .._jaxpr.versions import match_varying
from .._loop import Loop
from .distributed import Distributed
from .sequential import sequential


_WHOLE_BYTES = 22 << 20  # a training step takes half as much again, and glibc keeps blocks of up to 32 MiB
_PIECE_BYTES = 1 << 20
_SHARE_OF_WEIGHTS = 0.35
_LEAST_STEPS = 4
_WHOLE_VALUED_BYTES = 8 << 20
_VALUED_BYTES = 6 << 20
_LEAST_VALUED_STEPS = 8


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
    lengths = piece_length(taken, loop.n_steps), valued_length(taken, loop.n_steps)
    made = Distributed(taken, loop.n_steps, loop.reverse, unroll, "weight_grads" in wanted, *lengths)
    return traced, state, inputs, made


def take_apart(traced: Traced, wanted: tuple[str, ...]) -> Schedule | None:
    """The parts of a step in their order; None where no rewrite would gain anything."""
    build = Builder()
    step = traced.graph(build)
    _, level = carry_kinds(step, {})
    if not any(products(node) and level[node.done] > PARAMS for node in in_order(step.roots)):
        return None
    hoist = "hoist" in wanted
    step = step.with_roots(simplify(step.roots, level, build, "split" in wanted, hoist))
    _, level = carry_kinds(step, {})
    arrangement = arrange(step, must_stay(step, level, hoist), "sink" in wanted)
    return schedule(arrangement, "weight_grads" in wanted)


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
    if level[node.done] == PARAMS or node.name in ELEMENTWISE or products(node):
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


def piece_length(taken: Schedule, n_steps: int) -> int:
    """Steps a piece: as many as keep what lies between the loops in the cache; a divisor of the whole if possible.

    A piece also adds its part to the gradients of the weights once, so it should hold about as much as these, and what
    it starts with takes the time of a step or two, so it has a few steps at least. A run that is small as a whole is
    one piece, which is less to compile.
    """
    between = [v.bytes for action in taken.actions for v in _made(action)]
    read = [sum(v.bytes for v in s.seqs if v.node.primitive is not None) for s in taken.sections]
    made = [_bytes([n for n in s.part.nodes if products(n) and n not in taken.pinned]) for s in taken.sections]
    costly = [
        n for s in taken.sections for n in s.part.nodes if n.name not in CHEAP | {"split", "slice", "concatenate"}
    ]
    if (sum(between) + _bytes(costly)) * n_steps <= _WHOLE_BYTES:
        return n_steps
    piece_bytes = max(_PIECE_BYTES, int(_SHARE_OF_WEIGHTS * _weight_bytes(taken)))
    return _near(max(_LEAST_STEPS, piece_bytes // max([1, *between, *read, *made])), n_steps)


def valued_length(taken: Schedule, n_steps: int) -> int:
    """Steps a piece where no derivative is asked for: no gradients are added up, and nothing is kept.

    Each sequence is to stay in the cache then, and all of them with the inputs that a piece copies for itself are not to
    fill it. What loops take in themselves does not lie between them.
    """
    joined = {v for s in taken.sections if s.joined is not None for v in s.joined.inputs.outputs}
    read = [v for s in taken.sections for v in s.seqs if v.node.primitive is not None and v not in joined]
    at_once = [v for a in taken.actions if _multiplies(a) for v in a.outputs if v not in joined]
    between = sum(v.bytes for v in {*read, *at_once})
    if between * n_steps <= _WHOLE_VALUED_BYTES:
        return n_steps
    largest = max(v.bytes for v in read or at_once)
    target = min(_PIECE_BYTES // largest, _VALUED_BYTES // (between + sum(v.bytes for v in taken.step.inputs)))
    return _near(max(_LEAST_VALUED_STEPS, target), n_steps)


def _near(target: int, n_steps: int) -> int:
    """A divisor of `n_steps` near the target where there is one."""
    target = min(n_steps, target)
    near = [k for k in range(max(1, target // 2), 2 * target + 1) if n_steps % k == 0]
    return min(near, key=lambda k: abs(math.log(k / target))) if near else target


def _made(action: Any) -> list[Value]:
    """What an action other than a loop computes for all steps."""
    if isinstance(action, Again):
        return [v for node in action.nodes for v in node.outputs]
    return list(action.outputs) if isinstance(action, Node | InParts) else []


def _multiplies(action: Any) -> bool:
    return isinstance(action, InParts) or (isinstance(action, Node) and products(action) > 0)


def _bytes(nodes: Iterable[Node]) -> int:
    return sum(v.bytes for node in nodes for v in node.outputs)


def _weight_bytes(taken: Schedule) -> int:
    together = [action.product for action in taken.actions if isinstance(action, InParts)]
    batched = [*together, *(action for action in taken.actions if isinstance(action, Node) and products(action))]
    inside = [n for section in taken.sections for n in section.part.nodes if products(n)]
    read = {v for node in (*batched, *inside) for v in node.inputs if taken.level[v] == PARAMS}
    return sum(v.bytes for v in read)
