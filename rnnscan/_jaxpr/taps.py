"""Taps: tangents that are added to what an operation gives, so that those of params need not go through the loop."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .cost import is_or_holds
from .graph import Node, apply
from .many import apply_many, moves


Arrays = list[Any]

_RULES_FOR_COTANGENTS = ("custom_vjp_call", "custom_vjp_call_jaxpr")
_IN_LOOP = ("cond", "while")
_LINEAR = ("dot_general", "mul", "conv_general_dilated")


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.inexact))


@jax.custom_jvp
def tapped(out: jax.Array, tap: jax.Array) -> jax.Array:
    """`out`, with the tangent of `tap` added to its own."""
    del tap
    return out


@tapped.defjvp
def _rule(primals: Any, tangents: Any) -> Any:
    (out, _), (d_out, d_tap) = primals, tangents
    return out, lax.add(d_out, d_tap)


def summed_in_loop(node: Node) -> bool:
    """Whether the gradients of what a node reads are summed up in the loop, since it cannot be differentiated for many
    steps at once: under `vmap` both branches of a `cond` would run, and a function with a rule for cotangents has none
    for tangents, also inside a loop of its own."""
    return node.name in _IN_LOOP or is_or_holds(node, _RULES_FOR_COTANGENTS)


def apart(node: Node, args: Arrays) -> Arrays:
    """What a node computes, with its tangents in operations of their own: one `cond` or one inner loop would compute
    values and tangents together."""

    @jax.custom_jvp
    def run(*args: Any) -> Arrays:
        return apply(node, args)

    def rule(primals: Any, tangents: Any) -> Any:
        which = [moves(d) for d in tangents]
        of_moving = lambda *moving: apply(node, put(primals, which, iter(moving)))
        out, tangent = jax.linearize(of_moving, *pick(primals, which))
        return out, tangent(*pick(tangents, which))

    run.defjvp(rule, symbolic_zeros=True)
    return list(run(*args))


def tangent_for_all(node: Node, args: Arrays, over_time: list[bool], moving: dict[int, Any]) -> Arrays:
    """The tangent of a node's outputs for all steps, where these of its arguments move and nothing else does."""
    if node.name in _LINEAR and len(moving) == 1:
        ((i, d),) = moving.items()
        return apply_many(node, [d if j == i else a for j, a in enumerate(args)], over_time)
    which = [i for i, varies in enumerate(over_time) if varies]

    def one(*varying: Any) -> Arrays:
        given = dict(zip(which, varying, strict=True))

        def function(*own: Any) -> Arrays:
            moved = given | dict(zip(moving, own, strict=True))
            return [o for o in apply(node, [moved.get(i, a) for i, a in enumerate(args)]) if is_float(o)]

        return jax.jvp(function, tuple(args[i] for i in moving), tuple(moving.values()))[1]

    return jax.vmap(one)(*(args[i] for i in which))


def pick(values: Sequence[Any], which: Sequence[bool]) -> list[Any]:
    return [v for v, chosen in zip(values, which, strict=True) if chosen]


def put(values: Sequence[Any], which: Sequence[bool], new: Any) -> list[Any]:
    return [next(new) if chosen else v for v, chosen in zip(values, which, strict=True)]
