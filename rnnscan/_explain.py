"""`explain`: what `scan` would do with a cell, found by tracing it; nothing is run."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax

from . import _tree
from ._jaxpr.advice import advice, inside, no_gradient, summed_up
from ._jaxpr.backward import Backward, backward, plain_scan
from ._jaxpr.depend import Step
from ._jaxpr.describe import holds_products, in_words, place, says_something, stands_alone, together, work
from ._jaxpr.graph import Builder, Node, Value
from ._jaxpr.places import ON_CIRCLE, Place, places, reasons, written
from ._loop import Loop
from ._options import Options
from ._plan import Cost, Group, Plan
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
    why = _why_as_written(options, made, nodes)
    names = _names(step, loop, arrays)
    groups = _groups([Place("loop", nodes, True)], names, lambda node: why)
    plan = replace(plan, piece=n, loops=1, written=groups, before=_cost(nodes, _gradient(run, step, n, n)))
    missing = [no_gradient(nodes)] if plan.before.kept is None and any(v.is_float for v in step.params) else []
    if made is None or why:
        wanted = nodes if why == _as_written(nodes) else []
        closed = [hint for node in wanted if (hint := inside(node, names))]
        hints = [*closed, *summed_up(wanted, plan.before.sums), *missing]
        return replace(plan, why=why, groups=groups, after=plan.before, advice=tuple(dict.fromkeys(hints)))
    found, reason = places(made.schedule), reasons(made.schedule, options.optimize)
    left = [node for place in found if place.in_loop for node in place.nodes]
    names = _names(made.schedule.step, loop, arrays)
    after = _cost(left, _gradient(made, step, n, made.piece))
    hints = [
        *advice(made.schedule, left, reason, names),
        *summed_up([node for place in found for node in place.nodes], after.sums),
        *missing,
    ]
    return replace(
        plan,
        piece=made.piece,
        loops=len(made.schedule.sections),
        rewritten=True,
        groups=_groups(found, names, reason),
        after=after,
        advice=tuple(dict.fromkeys(hints)),
    )


def _why_as_written(options: Options, made: Distributed | None, nodes: list[Node]) -> str:
    if options.method != "sequential":
        return f'`method="{options.method}"` writes out every step as it is; `optimize` is for method="sequential".'
    if options.debug:
        return "`debug=True` looks at the values of each step, so the loop runs as it is written."
    if not options.optimize:
        return "`optimize=False` runs the loop as it is written, as plain `lax.scan`."
    return _as_written(nodes) if made is None else ""


def _as_written(nodes: list[Node]) -> str:
    """Why a step that may be taken apart is not."""
    with_products = [node for node in nodes if work(node).products]
    if not with_products:
        because = "the step has no product, so nothing would be gained"
    elif any(holds_products(node) for node in with_products):
        because = "its products are inside operations that the rewrites do not open"
    else:
        because = "no product of the step reads xs or the carry, so nothing would be gained"
    return f"It runs as plain `lax.scan`: {because}."


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
    n_closed = len(step.params) - len(jax.tree.leaves(loop.params))
    closed, given = step.params[:n_closed], step.params[n_closed:]
    names = {v: params.get(id(leaf), "") for v, leaf in zip(given, jax.tree.leaves(loop.params), strict=True)}
    names |= dict.fromkeys(closed, "closed-over")
    names |= {v: carry.get(id(leaf), "") for v, leaf in zip(step.carry, jax.tree.leaves(loop.state), strict=True)}
    xs = [name for name, _ in _tree.named_leaves("x", arrays.xs)]  # a rewrite puts its own inputs behind them
    names |= dict(zip(step.inputs, xs, strict=False))
    after = {new: f"new {names[old]}" for old, new in zip(step.carry, step.new_carry, strict=True) if names[old]}
    return {value: name for value, name in (after | names).items() if name}


def _short(path: str) -> str:
    """`w_x` for `['w_x']`, `params[0].w_x` for `[0]['w_x']`."""
    name = re.sub(r"\['(\w+)'\]", r".\1", path).removeprefix(".")
    return "params" + name if name.startswith("[") else name or "params"


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
