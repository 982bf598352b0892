"""What depends on inputs alone, computed for all steps before a loop that has no derivative.

For the search of `scan_until`, a `while_loop` that ends when all rows have stopped: the loops of `optimize` run to the
end of what they are given.
"""

from typing import Any

import jax

from .._jaxpr.algebra import CARRY, INPUTS, PARAMS, depends_on, products, simplify
from .._jaxpr.graph import Builder, Value, evaluate, in_order, is_literal
from .._jaxpr.many import evaluate_many
from .._jaxpr.trace import Traced
from .._loop import Loop


_MOST_BYTES = 1 << 26


def ahead(loop: Loop) -> Loop:
    """The same loop, reading the products of its inputs as sequences; as it is where there are none, or too large."""
    if loop.uses_t or not loop.n_steps:
        return loop
    traced = Traced.of(loop, loop.state, (loop.inputs, None))
    build = Builder()
    step = traced.graph(build)
    level = dict.fromkeys(step.params, PARAMS) | dict.fromkeys(step.inputs, INPUTS) | dict.fromkeys(step.carry, CARRY)
    step = step.with_roots(simplify(step.roots, level, build, True, True))
    edge: dict[Value, None] = {}
    for node in in_order(step.roots):
        late = depends_on(node.done, level) == CARRY
        edge.update((v, None) for v in node.inputs if late and not is_literal(v) and level[v] == INPUTS)
    edge.update((v, None) for v in step.roots if not is_literal(v) and level[v] == INPUTS)
    gain = any(products(node) and level[node.done] == INPUTS for node in in_order(edge))
    if not gain or step.effects or loop.n_steps * sum(v.bytes for v in edge) > _MOST_BYTES:
        return loop
    fixed = dict(zip(step.params, [*traced.closed.consts, *jax.tree.leaves(loop.params)], strict=True))
    over_time = dict(zip(step.inputs, jax.tree.leaves(loop.inputs), strict=True))
    evaluate_many(list(edge), fixed, over_time, level)
    n = len(step.carry)

    def again(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        del t
        env = dict(zip(step.params, [*traced.closed.consts, *jax.tree.leaves(params)], strict=True))
        env.update(zip([*step.carry, *edge], [*jax.tree.leaves(state), *inputs], strict=True))
        out = evaluate(step.roots, env)
        return jax.tree.unflatten(traced.carry_tree, out[:n]), jax.tree.unflatten(traced.output_tree, out[n:])

    return loop.wrap(step=again, inputs=[over_time[v] for v in edge])
