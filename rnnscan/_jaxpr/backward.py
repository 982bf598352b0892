"""What a loop keeps for its backward pass, and what that pass sums up at each of its steps, read from jaxprs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .graph import Value


class Backward(NamedTuple):
    """The price of a gradient of params."""

    kept: int  # bytes over all steps, without xs and ys
    sums: int  # arrays that the backward loop carries only to add to them at each step
    sum_bytes: int


def backward(
    function: Callable[..., Any], params: list[Any], rest: list[Any], lengths: set[int], depth: int
) -> Backward:
    """Traces `function(params, *rest)`, its derivative with respect to the floats of params, and its transpose.

    What is kept has time as first axis: `lengths` are the sizes that this axis may have. `depth` is how many loops
    there are around those that run step by step. Raises what JAX raises for a function without reverse derivatives.
    """
    moves = [bool(jnp.issubdtype(p.dtype, jnp.inexact)) for p in params]

    def forward(params: list[Any], rest: list[Any]) -> Any:
        def of(moving: list[Any]) -> Any:
            given = iter(moving)
            return function([next(given) if m else p for m, p in zip(moves, params, strict=True)], *rest)

        return jax.vjp(of, [p for m, p in zip(moves, params, strict=True) if m])

    closed, (outputs, pull) = jax.make_jaxpr(forward, return_shape=True)(params, rest)
    kept = _kept(closed.jaxpr, len(jax.tree.leaves(params)), len(jax.tree.leaves(outputs)), lengths)
    cotangents = jax.tree.map(_cotangent, outputs)
    floats = [c for c in jax.tree.leaves(cotangents) if isinstance(c, jax.ShapeDtypeStruct)]

    def transposed(pull: Any, given: list[Any]) -> Any:
        rest = iter(given)
        return pull(jax.tree.map(lambda c: next(rest) if isinstance(c, jax.ShapeDtypeStruct) else c, cotangents))

    back = jax.make_jaxpr(transposed)(pull, floats)
    sums = [aval for equation in _scans(back.jaxpr, depth) for aval in _sums(equation)]
    return Backward(kept, len(sums), sum(map(_bytes, sums)))


def _kept(jaxpr: Any, n_params: int, n_outputs: int, lengths: set[int]) -> int:
    """Bytes over time among what the forward pass hands on, without what goes in and what comes out anyway."""
    reshaped = {e.outvars[0]: e.invars[0] for e in jaxpr.eqns if e.primitive.name == "reshape"}

    def root(v: Any) -> Any:
        while not isinstance(v, core.Literal) and v in reshaped:
            v = reshaped[v]
        return v

    varies = set(jaxpr.invars[n_params:])
    for equation in jaxpr.eqns:
        if any(not isinstance(v, core.Literal) and v in varies for v in equation.invars):
            varies.update(equation.outvars)
    free = {id(root(v)) for v in (*jaxpr.invars, *jaxpr.outvars[:n_outputs])}
    kept = {id(root(v)): v for v in jaxpr.outvars[n_outputs:] if id(root(v)) not in free}
    over_time = lambda v: v in varies and v.aval.shape and v.aval.shape[0] in lengths
    return sum(_bytes(v.aval) for v in kept.values() if not isinstance(v, core.Literal) and over_time(v))


def _cotangent(output: Any) -> Any:
    if jnp.issubdtype(output.dtype, jnp.inexact):
        return jax.ShapeDtypeStruct(output.shape, output.dtype)
    return np.zeros(output.shape, jax.dtypes.float0)


def _bytes(aval: Any) -> int:
    return Value(_Typed((aval,)), 0).bytes  # type: ignore[arg-type]


class _Typed(NamedTuple):
    avals: tuple[Any, ...]


def _scans(jaxpr: Any, depth: int) -> Iterator[Any]:
    """The loops inside `depth` others."""
    for equation in jaxpr.eqns:
        is_scan = equation.primitive.name == "scan"
        if is_scan and depth == 0:
            yield equation
            continue
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from _scans(part, depth - is_scan)


def _sums(equation: Any) -> Iterator[Any]:
    """What a loop carries and does nothing with but add to it."""
    body = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
    same = lambda outer, inner: [a.aval.ndim == b.aval.ndim for a, b in zip(outer, inner, strict=True)]
    m = sum(same(equation.outvars, body.outvars))  # what is carried; sequences have an axis more outside
    n = sum(same(equation.invars, body.invars)) - m
    for old, new in zip(body.invars[n : n + m], body.outvars[:m], strict=True):
        value: Any = old
        while value is not new:
            readers = [e for e in body.eqns if any(v is value for v in e.invars)]
            if len(readers) != 1 or readers[0].primitive.name not in ("add", "add_any"):
                break
            (value,) = readers[0].outvars
        else:
            if new is not old:
                yield old.aval


def plain_scan(closed: Any, n_carry: int, n_steps: int, reverse: bool, unroll: int | bool) -> Callable[..., Any]:
    """`(params, carry, inputs) -> (carry, outputs)`, all flat: `lax.scan` over a traced step; its constants are the
    first of params."""
    n = len(closed.consts)

    def run(params: list[Any], carry: list[Any], inputs: list[Any]) -> Any:
        step = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, params[:n]))

        def body(state: list[Any], x: list[Any]) -> Any:
            out = step(*params[n:], *state, *x)
            return out[:n_carry], out[n_carry:]

        return jax.lax.scan(body, carry, inputs, n_steps, reverse=reverse, unroll=unroll)

    return run
