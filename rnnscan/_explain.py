"""`explain`: what `scan` would do with a cell, found by tracing it; nothing is run."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax

from . import _tree
from ._jaxpr.algebra import PARAMS
from ._jaxpr.backward import Backward, backward, plain_scan
from ._jaxpr.depend import Step
from ._jaxpr.describe import in_words, operand, place, says_something, stands_alone, together, work
from ._jaxpr.graph import Builder, Node, Value
from ._jaxpr.places import ON_CIRCLE, Place, places, reads_no_carry, reasons, written
from ._jaxpr.schedule import Schedule
from ._loop import Loop
from ._options import Options
from ._plan import Cost, Group, Plan, count
from ._program import Arrays, loop_of, time_first
from ._run.distributed import Distributed
from ._run.optimized import prepare
from ._scan import DEFAULTS, check_options, checked
from ._types import name_of


def explain(cell: Any, params: Any, carry: Any = None, xs: Any = None, **options: Any) -> Plan:
    """Says how `scan` would run a cell: which operation leaves the loop, which stays and why, and what that saves.

    - `cell`, `params`, `carry`, `xs`, `options`: as in `scan`, and checked as there. `xs` may be arrays of any
      numbers: only shapes and dtypes matter, and nothing is run.

    **Returns** a `Plan`. `print(plan)` shows a table: the operations in the order in which they run, each with the
    floating-point operations of a step and the line of your code; then what the loop holds as plain `lax.scan` and as
    `scan` runs it; then what still costs, and what you could change. Its fields hold the same for programs.

    The derivative it speaks of is that of all outputs and the last carry with respect to the floats of params, those
    that the cell closes over included. For `bidirectional` explain each direction; for `scan_until` the loop that
    follows its search is this one with `lengths`.

    **Raises** what `scan` raises for the same arguments.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> cell = rs.cells.Elman(3, 5)
    >>> params = {"w_x": jnp.ones((3, 5)), "w_h": jnp.ones((5, 5)), "b": jnp.ones(5)}
    >>> plan = rs.explain(cell, params, xs=jnp.ones((7, 2, 3)))
    >>> print(plan.before.products, plan.after.products)
    2 1
    >>> print(plan.at("before the loop")[0].what)
    x (2, 3) @ w_x (3, 5)
    """
    check_options("explain", options)
    read, arrays = checked("explain", cell, params, carry, xs, **{**DEFAULTS, **options})
    found: list[Plan] = []

    def look(arrays: Arrays) -> None:
        found.append(_plan(cell, read, arrays, _given(options)))

    jax.eval_shape(look, arrays)
    return found[0]


def _given(options: dict[str, Any]) -> str:
    """The options that are not the default, as they were written; arrays by their names only."""
    words = []
    for name, value in options.items():
        if isinstance(value, str | bool | int | tuple):
            words += [f"{name}={value!r}"] if value != DEFAULTS[name] else []
        elif value is not None:
            words.append(name)
    return ", ".join(words)


def _plan(cell: Any, options: Options, arrays: Arrays, given: str) -> Plan:
    loop = loop_of(cell, options, arrays)
    plan = Plan(name_of(cell), _shapes(loop, options, arrays), given, loop.n_steps)
    if loop.n_steps == 0:
        return replace(plan, why="There is no step to run.")
    traced, _, _, made = prepare(loop, options.unroll, options.optimize)
    step = traced.graph(Builder())
    run = plain_scan(traced.closed, len(step.carry), loop.n_steps, loop.reverse, options.unroll)
    nodes, n = written(step.roots), loop.n_steps
    why = _why_as_written(options, made)
    groups = _groups([Place("loop", nodes, True)], _names(step, loop, arrays), lambda node: why)
    plan = replace(plan, piece=n, loops=1, written=groups, before=_cost(nodes, _gradient(run, step, n, n)))
    if made is None or why:
        return replace(plan, why=why, groups=groups, after=plan.before)
    found, reason = places(made.schedule), reasons(made.schedule, options.optimize)
    left = [node for place in found if place.in_loop for node in place.nodes]
    return replace(
        plan,
        piece=made.piece,
        loops=len(made.schedule.sections),
        rewritten=True,
        groups=_groups(found, _names(made.schedule.step, loop, arrays), reason),
        after=_cost(left, _gradient(made, step, n, made.piece)),
        advice=tuple(_advice(made.schedule, left, reason, _names(made.schedule.step, loop, arrays))),
    )


def _why_as_written(options: Options, made: Distributed | None) -> str:
    if options.method != "sequential":
        return f'`method="{options.method}"` writes out every step as it is; `optimize` is for method="sequential".'
    if options.debug:
        return "`debug=True` looks at the values of each step, so the loop runs as it is written."
    if not options.optimize:
        return "`optimize=False` runs the loop as it is written, as plain `lax.scan`."
    if made is None:
        return "It runs as plain `lax.scan`: no product of the step reads xs or the carry, so nothing would be gained."
    return ""


def _shapes(loop: Loop, options: Options, arrays: Arrays) -> str:
    """Carry and xs at one step, as JAX prints types."""
    _, arrays = time_first(options, arrays)
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), arrays.xs)
    words = []
    for name, tree in (("carry", loop.carry_of(loop.state)), ("x", x)):
        leaves = [_tree.describe(leaf) for leaf in jax.tree.leaves(tree)]
        if leaves:
            more = f" and {len(leaves) - 3} more" if len(leaves) > 3 else ""
            words.append(f"{name} {', '.join(leaves[:3])}{more}")
    return "; ".join(words)


def _names(step: Step, loop: Loop, arrays: Arrays) -> dict[Value, str]:
    """What the user calls the inputs of a step."""
    params = {id(leaf): _short(name) for name, leaf in _tree.named_leaves("", arrays.params)}
    carry = {id(leaf): name for name, leaf in _tree.named_leaves("carry", loop.carry_of(loop.state))}
    given = step.params[len(step.params) - len(jax.tree.leaves(loop.params)) :]
    names = {v: params.get(id(leaf), "") for v, leaf in zip(given, jax.tree.leaves(loop.params), strict=True)}
    names |= {v: carry.get(id(leaf), "") for v, leaf in zip(step.carry, jax.tree.leaves(loop.state), strict=True)}
    xs = [name for name, _ in _tree.named_leaves("x", arrays.xs)]  # a rewrite puts its own inputs behind them
    names |= dict(zip(step.inputs, xs, strict=False))
    after = {new: f"new {names[old]}" for old, new in zip(step.carry, step.new_carry, strict=True) if names[old]}
    return {value: name for value, name in (after | names).items() if name}


def _short(path: str) -> str:
    """`w_x` for `['w_x']`, `[0].w_x` for `[0]['w_x']`."""
    return re.sub(r"\['(\w+)'\]", r".\1", path).removeprefix(".") or "params"


def _cost(nodes: list[Node], gradient: Backward | None) -> Cost:
    done = [work(node) for node in nodes]
    kept, *sums = (None,) * 3 if gradient is None else gradient
    return Cost(sum(w.products for w in done), sum(w.flops for w in done), kept, *sums)


def _gradient(run: Callable[..., Any], step: Step, n_steps: int, piece: int) -> Backward | None:
    """The price of a gradient of params; None where there is none."""
    params = [v.aval for v in step.params]
    if not any(v.is_float for v in step.params):
        return None
    seqs = [jax.ShapeDtypeStruct((n_steps, *v.shape), v.aval.dtype) for v in step.inputs]
    n, rest = divmod(n_steps, piece)
    try:
        start = [v.aval for v in step.carry]
        found = backward(run, params, [start, seqs], {n_steps, n, rest} - {0}, depth=int(n > 1 or rest > 0))
    except (TypeError, ValueError, NotImplementedError):  # a `while` of unknown length, a function without a rule
        return None
    return found._replace(kept=found.kept // n_steps)


def _groups(found: list[Place], names: dict[Value, str], reason: Callable[[Node], str]) -> tuple[Group, ...]:
    return tuple(group for place in found for group in _groups_at(place, names, reason))


def _groups_at(where: Place, names: dict[Value, str], reason: Callable[[Node], str]) -> Iterator[Group]:
    """Products and calls one by one, then the elementwise operations together."""
    others = [node for node in where.nodes if not stands_alone(node)]
    if where.where == "once" and not says_something(others, names):
        others = []
    for node in where.nodes:
        if stands_alone(node):
            why = reason(node) if where.in_loop else ""
            yield Group(in_words(node, names), where.where, *work(node), 1, place(node), why)
    if others:
        whys = Counter(map(reason, others)) if where.in_loop else Counter([""])
        why = ON_CIRCLE if ON_CIRCLE in whys else whys.most_common(1)[0][0]
        yield Group(together(others, names), where.where, 0, sum(work(n).flops for n in others), len(others), "", why)


def _advice(s: Schedule, left: list[Node], reason: Callable[[Node], str], names: dict[Value, str]) -> Iterator[str]:
    products = [node for node in left if work(node).products]
    if products:
        yield _what_costs(products, reason, names)
        yield from _side_by_side(s, products, names)
    elif s.sections:
        yield "No product is left in the loop: what stays there is elementwise."
    else:
        yield "Nothing reads the step before, so that there is no loop: all steps run at once."
    for node in left:
        if reason(node) != ON_CIRCLE and (node in s.pinned or node.effects):
            yield from _way_out(s, node, reason(node), names)


def _what_costs(products: list[Node], reason: Callable[[Node], str], names: dict[Value, str]) -> str:
    dearest = max(products, key=lambda node: work(node).flops)
    words = f"`{in_words(dearest, names)}`, {count(work(dearest).flops)}FLOP at each step, because {reason(dearest)}."
    if len(products) == 1:
        return f"What still costs: {words}"
    return f"What still costs: {len(products)} products at each step, the largest of them {words}"


def _side_by_side(s: Schedule, products: list[Node], names: dict[Value, str]) -> Iterator[str]:
    """Products of one value with several matrices of params."""
    readers: dict[Value, list[Node]] = {}
    for node in products:
        if node.name == "dot_general" and s.level[node.inputs[1]] == PARAMS:
            readers.setdefault(node.inputs[0], []).append(node)
    for value, nodes in readers.items():
        if len(nodes) > 1:
            lines = ", ".join(dict.fromkeys(filter(None, map(place, nodes))))
            yield (
                f"{len(nodes)} products in the loop read the same {operand(value, names)}"
                + (f" ({lines})" if lines else "")
                + ": with their weights side by side in one matrix they would be one."
            )


def _way_out(s: Schedule, node: Node, reason: str, names: dict[Value, str]) -> Iterator[str]:
    """What to write instead of an operation that stays though the next carry does not depend on it."""
    at = f" ({place(node)})" if place(node) else ""
    if node.effects:
        yield (
            f"`{node.name}`{at} has an effect, so it runs at each step, and with it in one loop whatever lies between "
            "the carry and it. Take it out, or look at ys after the scan."
        )
    elif node.name == "cond":
        apart = "" if reads_no_carry(s, node) else ", as far as no next carry needs it"
        yield (
            f"`lax.cond`{at} stays in the loop because {reason}; `jnp.where` computes both sides and would leave it"
            f"{apart}."
        )
    elif node.name == "while":
        yield (
            f"`while_loop`{at} stays in the loop because {reason}, which has no gradient in reverse mode either; a "
            "`fori_loop` with fixed bounds would leave it."
        )
    elif not reason.startswith("`"):
        yield f"`{in_words(node, names)}`{at} stays in the loop: {reason}."
